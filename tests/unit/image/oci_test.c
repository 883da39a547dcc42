#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/image/oci.h"

#include <stdio.h>
#include <string.h>

#define HEX "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define BLOB(type, size)                                                                           \
    "{\"mediaType\": \"application/vnd.oci.image." type "\", \"digest\": \"sha256:" HEX            \
    "\", \"size\": " #size

static struct bytes text(const char *t)
{
    return bytes_of(t, strlen(t));
}

static void says(const struct errmsg *msg, const char *wanted)
{
    if (strstr(msg->text, wanted) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", msg->text, wanted);
    }
}

static void the_image_for_this_platform_is_taken(void **state)
{
    (void)state;
    struct oci_target t;
    struct errmsg msg;
    const char *json = "{\"manifests\": [" BLOB(
        "manifest.v1+json", 1) ", \"platform\": {\"architecture\": "
                               "\"arm64\", \"os\": \"linux\"}}," BLOB(
                                   "index.v1+json",
                                   2) ", \"platform\": "
                                      "{\"architecture\": \"amd64\", \"os\": \"linux\"}}," BLOB(
                                          "manifest.v1+json", 3) "}]}";
    assert_int_equal(oci_index_decode(text(json), &t, &msg).code, STATUS_OK);
    assert_int_equal(t.blob.bytes, 2);
    assert_true(t.is_index);
    assert_int_equal(t.blob.digest.v[1], 0x11);
}

static void one_entry_without_a_platform_is_taken(void **state)
{
    (void)state;
    struct oci_target t;
    assert_int_equal(
        oci_index_decode(text("{\"manifests\": [" BLOB("manifest.v1+json", 3) "}]}"), &t, NULL)
            .code,
        STATUS_OK);
    assert_false(t.is_index);
}

static void an_index_of_others_or_of_several_is_refused(void **state)
{
    (void)state;
    struct oci_target t;
    struct errmsg msg;
    const char *arm = "{\"manifests\": [" BLOB(
        "manifest.v1+json", 1) ", \"platform\": {\"architecture\": \"arm64\"}}]}";
    assert_int_equal(oci_index_decode(text(arm), &t, &msg).code, STATUS_UNSUPPORTED);
    says(&msg, "no image for linux/amd64");
    const char *two =
        "{\"manifests\": [" BLOB("manifest.v1+json", 1) "}," BLOB("manifest.v1+json", 1) "}]}";
    assert_int_equal(oci_index_decode(text(two), &t, &msg).code, STATUS_INVALID);
    says(&msg, "holds 2 images");
}

static void what_is_malformed_is_named(void **state)
{
    (void)state;
    struct oci_target t;
    struct oci_manifest m;
    struct arena a = {0};
    struct errmsg msg;
    static const char *const indexes[] = {
        "",
        "[]",
        "{",
        "{\"manifests\": 1}",
        "{\"manifests\": [1]}",
        "{\"manifests\": [{\"digest\": \"sha256:12\", \"size\": 1}]}",
        "{\"manifests\": [{\"digest\": \"sha256:" HEX "\"}]}",
        "{\"manifests\": [{\"digest\": \"sha256:" HEX "\", \"size\": -1}]}",
        "{\"manifests\": [{\"digest\": \"sha256:../../../../../../etc/passwd\", \"size\": 1}]}",
        "{\"manifests\": [], \"manifests\": []}",
    };
    for (size_t i = 0; i < sizeof indexes / sizeof indexes[0]; i++) {
        assert_int_not_equal(oci_index_decode(text(indexes[i]), &t, &msg).code, STATUS_OK);
        says(&msg, "index");
    }
    assert_int_equal(oci_manifest_decode(text("{}"), &a, &m, &msg).code, STATUS_INVALID);
    says(&msg, "manifest: config");
    const char *foreign = "{\"config\": " BLOB("config.v1+json", 1) "}, \"layers\": [" BLOB(
        "layer.v1.tar+xz", 1) "}]}";
    assert_int_equal(oci_manifest_decode(text(foreign), &a, &m, &msg).code, STATUS_UNSUPPORTED);
    says(&msg, "layer 0");
    arena_close(&a);
}

static void layers_keep_their_order_and_have_a_limit(void **state)
{
    (void)state;
    struct arena a = {0};
    struct buffer json = {0};
    struct oci_manifest m;
    struct errmsg msg;
    for (unsigned count = OCI_LAYERS_MAX; count <= OCI_LAYERS_MAX + 1; count++) {
        json.size = 0;
        assert_int_equal(
            buffer_printf(&json, "{\"config\": " BLOB("config.v1+json", 1) "}, \"layers\": [").code,
            STATUS_OK);
        for (unsigned i = 0; i < count; i++) {
            assert_int_equal(
                buffer_printf(&json,
                              "%s{\"mediaType\": \"application/vnd.docker.image.rootfs.diff.tar."
                              "gzip\", \"digest\": \"sha256:" HEX "\", \"size\": %u}",
                              i == 0 ? "" : ",", i)
                    .code,
                STATUS_OK);
        }
        assert_int_equal(buffer_printf(&json, "]}").code, STATUS_OK);
        struct status s = oci_manifest_decode(bytes_of(json.data, json.size), &a, &m, &msg);
        assert_int_equal(s.code, count <= OCI_LAYERS_MAX ? STATUS_OK : STATUS_LIMIT);
    }
    assert_int_equal(m.layers_count, OCI_LAYERS_MAX);
    assert_int_equal(m.layers[OCI_LAYERS_MAX - 1].bytes, OCI_LAYERS_MAX - 1);
    buffer_close(&json);
    arena_close(&a);
}

static void a_configuration_is_read(void **state)
{
    (void)state;
    struct arena a = {0};
    struct oci_config c;
    const char *json = "{\"architecture\": \"amd64\", \"os\": \"linux\", \"config\": {\"Env\": "
                       "[\"A=1\"], \"WorkingDir\": \"/w\", \"Entrypoint\": [\"e\"], \"Cmd\": "
                       "[\"c\", \"d\"]}, \"rootfs\": {\"diff_ids\": [\"sha256:" HEX "\"]}}";
    assert_int_equal(oci_config_decode(text(json), &a, &c, NULL).code, STATUS_OK);
    assert_int_equal(c.env_count, 1);
    assert_string_equal(c.env[0], "A=1");
    assert_string_equal(c.workdir, "/w");
    assert_int_equal(c.entrypoint_count, 3);
    assert_string_equal(c.entrypoint[2], "d");
    assert_int_equal(c.diff_ids_count, 1);
    arena_close(&a);
}

static void another_architecture_is_refused(void **state)
{
    (void)state;
    struct arena a = {0};
    struct oci_config c;
    struct errmsg msg;
    const char *json = "{\"architecture\": \"arm64\", \"rootfs\": {\"diff_ids\": []}}";
    assert_int_equal(oci_config_decode(text(json), &a, &c, &msg).code, STATUS_UNSUPPORTED);
    says(&msg, "arm64");
    arena_close(&a);
}

static void a_docker_manifest_names_one_image(void **state)
{
    (void)state;
    struct arena a = {0};
    struct docker_manifest m;
    struct errmsg msg;
    const char *one = "[{\"Config\": \"c.json\", \"Layers\": [\"a/layer.tar\", \"b\"]}]";
    assert_int_equal(docker_manifest_decode(text(one), &a, &m, NULL).code, STATUS_OK);
    assert_string_equal(m.config, "c.json");
    assert_int_equal(m.layers_count, 2);
    assert_string_equal(m.layers[1], "b");
    static const char *const wrong[] = {
        "[]", "{}", "[1]", "[{}]", "[{},{}]", "[{\"Config\": \"c\", \"Layers\": [1]}]"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(docker_manifest_decode(text(wrong[i]), &a, &m, &msg).code, STATUS_INVALID);
        says(&msg, "manifest.json");
    }
    arena_close(&a);
}

static void too_much_json_is_refused(void **state)
{
    (void)state;
    struct oci_target t;
    struct buffer json = {0};
    assert_int_equal(buffer_reserve(&json, OCI_JSON_BYTES_MAX + 1).code, STATUS_OK);
    memset(json.data, ' ', OCI_JSON_BYTES_MAX + 1);
    struct errmsg msg;
    assert_int_equal(oci_index_decode(bytes_of(json.data, OCI_JSON_BYTES_MAX + 1), &t, &msg).code,
                     STATUS_LIMIT);
    assert_int_equal(oci_index_decode(bytes_of(json.data, OCI_JSON_BYTES_MAX), &t, &msg).code,
                     STATUS_INVALID);
    buffer_close(&json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_image_for_this_platform_is_taken),
        cmocka_unit_test(one_entry_without_a_platform_is_taken),
        cmocka_unit_test(an_index_of_others_or_of_several_is_refused),
        cmocka_unit_test(what_is_malformed_is_named),
        cmocka_unit_test(layers_keep_their_order_and_have_a_limit),
        cmocka_unit_test(a_configuration_is_read),
        cmocka_unit_test(another_architecture_is_refused),
        cmocka_unit_test(a_docker_manifest_names_one_image),
        cmocka_unit_test(too_much_json_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
