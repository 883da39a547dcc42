#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/gpu/inject.h"
#include "agent/gpu/soname.h"
#include "common/package.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char json[] =
    "{\"cdiVersion\": \"0.5.0\", \"kind\": \"nvidia.com/gpu\", \"annotations\": {},"
    " \"devices\": [{\"name\": \"0\", \"containerEdits\": {\"deviceNodes\":"
    " [{\"path\": \"/dev/nvidia0\", \"hostPath\": \"/dev/null\", \"type\": \"c\", \"major\": "
    "195}]}}],"
    " \"containerEdits\": {\"env\": [\"A=1\"], \"hooks\": [{}],"
    " \"mounts\": [{\"hostPath\": \"/a\", \"containerPath\": \"/b\", \"options\": [\"ro\"]}]}}";

static const char yaml[] = "cdiVersion: 0.3.0\n"
                           "kind: nvidia.com/gpu\n"
                           "containerEdits:\n"
                           "  deviceNodes:\n"
                           "  - path: /dev/nvidiactl\n"
                           "    hostPath: /dev/zero\n"
                           "  env: [A=2, B=3]\n"
                           "devices:\n"
                           "- name: \"1\"\n"
                           "  containerEdits:\n"
                           "    deviceNodes:\n"
                           "    - {path: /dev/nvidia1, hostPath: /dev/full}\n"
                           "- name: GPU-2\n";

static struct status parse(const char *text, bool is_yaml, struct cdi_spec *out, struct errmsg *msg)
{
    return cdi_parse("f", bytes_of(text, strlen(text)), is_yaml, out, msg);
}

static void json_is_read(void **state)
{
    (void)state;
    struct cdi_spec s;
    struct errmsg msg;
    assert_int_equal(parse(json, false, &s, &msg).code, STATUS_OK);
    assert_string_equal(s.kind, "nvidia.com/gpu");
    assert_int_equal(s.devices_count, 1);
    assert_string_equal(s.devices[0].name, "0");
    assert_string_equal(s.devices[0].edits.nodes[0].inside, "/dev/nvidia0");
    assert_string_equal(s.devices[0].edits.nodes[0].outside, "/dev/null");
    assert_string_equal(s.edits.mounts[0].outside, "/a");
    assert_string_equal(s.edits.mounts[0].inside, "/b");
    assert_string_equal(s.edits.env[0], "A=1");
    assert_int_equal(s.edits.hooks, 1);
    cdi_spec_close(&s);
}

static void yaml_is_read(void **state)
{
    (void)state;
    struct cdi_spec s;
    struct errmsg msg;
    assert_int_equal(parse(yaml, true, &s, &msg).code, STATUS_OK);
    assert_int_equal(s.devices_count, 2);
    assert_string_equal(s.devices[1].name, "GPU-2");
    assert_string_equal(s.devices[0].edits.nodes[0].outside, "/dev/full");
    assert_string_equal(s.edits.nodes[0].inside, "/dev/nvidiactl");
    assert_int_equal(s.edits.env_count, 2);
    cdi_spec_close(&s);
}

#define FILE_WITH(edits)                                                                           \
    "{\"cdiVersion\": \"0.6.0\", \"kind\": \"a/b\", \"devices\": [], \"containerEdits\": " edits "}"

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
        enum status_code code;
    } rows[] = {
        {"", "f:1", STATUS_INVALID},
        {"[]", "f: a mapping", STATUS_INVALID},
        {"{\"cdiVersion\": \"2.0.0\", \"kind\": \"a/b\"}", "cdiVersion 2.0.0", STATUS_UNSUPPORTED},
        {"{\"cdiVersion\": \"0.2.0\", \"kind\": \"a/b\"}", "cdiVersion 0.2.0", STATUS_UNSUPPORTED},
        {"{\"kind\": \"a/b\"}", "cdiVersion (none)", STATUS_UNSUPPORTED},
        {"{\"cdiVersion\": \"0.6.0\"}", "kind: is missing", STATUS_INVALID},
        {"{\"cdiVersion\": \"0.6.0\", \"kind\": \"a/b\", \"devices\": [{}]}", "devices[0]: a name",
         STATUS_INVALID},
        {FILE_WITH("[]"), "containerEdits: a mapping", STATUS_INVALID},
        {FILE_WITH("{\"env\": [\"A\"]}"), "env[0]", STATUS_INVALID},
        {FILE_WITH("{\"env\": [\"=A\"]}"), "env[0]", STATUS_INVALID},
        {FILE_WITH("{\"env\": 1}"), "env: a list", STATUS_INVALID},
        {FILE_WITH("{\"deviceNodes\": [1]}"), "deviceNodes[0]: a mapping", STATUS_INVALID},
        {FILE_WITH("{\"deviceNodes\": [{\"path\": \"/etc/x\"}]}"), "below /dev", STATUS_INVALID},
        {FILE_WITH("{\"deviceNodes\": [{\"path\": \"/dev/../etc\"}]}"), "not a plain",
         STATUS_INVALID},
        {FILE_WITH("{\"deviceNodes\": [{\"path\": \"/dev/x\", \"type\": \"b\"}]}"), "type b",
         STATUS_INVALID},
        {FILE_WITH("{\"mounts\": [{\"hostPath\": \"/a\"}]}"), "mounts: hostPath and",
         STATUS_INVALID},
        {FILE_WITH("{\"mounts\": [{\"hostPath\": \"a\"}]}"), "hostPath: not a plain",
         STATUS_INVALID},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cdi_spec s;
        struct errmsg msg = {""};
        assert_int_equal(parse(rows[i].text, false, &s, &msg).code, rows[i].code);
        assert_non_null(strstr(msg.text, rows[i].says));
    }
}

/* ---- Folders ---- */

static char folder[64];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/skep-cdi-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return !status_is_ok(package_remove(folder, NULL));
}

static void put(const char *name, const void *text, size_t size)
{
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static struct status inject(const struct gpu_wanted *wanted, size_t count, bool host_root,
                            struct gpu_edits *out, struct errmsg *broken, struct errmsg *msg)
{
    const char *folders[] = {"/nonexistent", folder};
    const struct gpu_sources sources = {
        .folders = folders, .folders_count = 2, .dev = folder, .host_root = host_root};
    return gpu_inject(&sources, wanted, count, out, broken, msg);
}

static void devices_are_found_by_uuid_or_index(void **state)
{
    (void)state;
    struct gpu_edits e;
    struct errmsg broken, msg;
    const struct gpu_wanted wanted[] = {{.uuid = "GPU-1", .index = "1"},
                                        {.uuid = "GPU-2", .index = "2"}};
    put("a.yaml", yaml, strlen(yaml));
    put("b.json", "{", 1);
    put("c.txt", "{", 1);
    assert_int_equal(inject(wanted, 2, true, &e, &broken, &msg).code, STATUS_OK);
    assert_non_null(strstr(broken.text, "b.json"));
    assert_int_equal(e.edits.nodes_count, 2);
    assert_string_equal(e.edits.nodes[0].inside, "/dev/nvidia1");
    assert_string_equal(e.edits.nodes[0].outside, "/dev/full");
    assert_string_equal(e.edits.nodes[1].inside, "/dev/nvidiactl");
    assert_int_equal(e.edits.env_count, 2);
    gpu_edits_close(&e);
}

static void a_device_that_no_file_has_is_an_error(void **state)
{
    (void)state;
    struct gpu_edits e;
    struct errmsg broken, msg;
    const struct gpu_wanted wanted = {.uuid = "GPU-9", .index = "9", .has_minor = true};
    put("a.yaml", yaml, strlen(yaml));
    assert_int_equal(inject(&wanted, 1, true, &e, &broken, &msg).code, STATUS_NOT_FOUND);
    assert_string_equal(msg.text, "no CDI file has the device GPU-9");
}

static void a_node_that_is_no_character_device_is_refused(void **state)
{
    (void)state;
    struct gpu_edits e;
    struct errmsg broken, msg;
    const struct gpu_wanted wanted = {.uuid = "GPU-9", .index = "9", .has_minor = true, .minor = 3};
    assert_int_equal(inject(&wanted, 1, true, &e, &broken, &msg).code, STATUS_NOT_FOUND);
    assert_non_null(strstr(msg.text, "nvidiactl"));
    put("nvidiactl", "", 0);
    assert_int_equal(inject(&wanted, 1, true, &e, &broken, &msg).code, STATUS_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "not a character device"));
}

static void without_files_a_gpu_has_the_usual_nodes(void **state)
{
    (void)state;
    static const char *const names[] = {"nvidiactl", "nvidia-uvm", "nvidia3"};
    struct gpu_edits e;
    struct errmsg broken, msg;
    struct gpu_wanted wanted = {.uuid = "GPU-9", .index = "9", .has_minor = true, .minor = 3};
    for (size_t i = 0; i < 3; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(symlink("/dev/null", path), 0);
    }
    assert_int_equal(inject(&wanted, 1, true, &e, &broken, &msg).code, STATUS_OK);
    assert_int_equal(e.edits.nodes_count, 3);
    assert_string_equal(e.edits.nodes[2].inside, "/dev/nvidia3");
    assert_string_equal(e.edits.nodes[2].outside, "/dev/null");
    gpu_edits_close(&e);
    wanted.mig = true;
    assert_int_equal(inject(&wanted, 1, true, &e, &broken, &msg).code, STATUS_UNSUPPORTED);
    assert_non_null(strstr(msg.text, "a CDI file is needed"));
}

/* ---- Libraries ---- */

static struct buffer own_library(void)
{
    struct buffer b = {0};
    uint8_t bytes[4096];
    ssize_t n;
    int fd = open(FAKE_NVML, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    while ((n = read(fd, bytes, sizeof bytes)) > 0) {
        assert_int_equal(buffer_append(&b, bytes, (size_t)n).code, STATUS_OK);
    }
    (void)close(fd);
    return b;
}

static void a_library_has_the_name_that_programs_ask_for(void **state)
{
    (void)state;
    struct buffer b = own_library();
    char name[SONAME_BYTES];
    assert_true(soname_of(bytes_of(b.data, b.size), name));
    assert_string_equal(name, "libnvidia-ml.so.1");
    for (size_t size = 0; size < b.size; size += 97) {
        (void)soname_of(bytes_of(b.data, size), name); /* Any beginning of it is survived. */
    }
    assert_false(soname_of(bytes_of("ELF", 3), name));
    buffer_close(&b);
}

static void libraries_and_programs_lie_in_folders_of_their_own(void **state)
{
    (void)state;
    struct buffer b = own_library();
    struct gpu_edits e;
    struct errmsg broken, msg;
    char text[1024];
    const struct gpu_wanted wanted = {.uuid = "GPU-1", .index = "1"};
    put("libnvidia-ml.so.550.54.15", b.data, b.size);
    put("nvidia-smi", "#!", 2);
    put("icd.json", "#!", 2);
    buffer_close(&b);
    (void)snprintf(
        text, sizeof text,
        "%scontainerEdits:\n  mounts:\n"
        "  - {hostPath: %s/libnvidia-ml.so.550.54.15, containerPath: /usr/lib/x/a.so.5}\n"
        "  - {hostPath: %s/nvidia-smi, containerPath: /usr/bin/nvidia-smi}\n"
        "  - {hostPath: %s/icd.json, containerPath: /etc/vulkan/icd.json}\n"
        "  - {hostPath: /usr/lib/os-release, containerPath: /usr/lib/os.so}\n",
        "cdiVersion: 0.6.0\nkind: nvidia.com/gpu\ndevices: [{name: GPU-1}]\n", folder, folder,
        folder);
    put("cdi.yml", text, strlen(text));
    assert_int_equal(inject(&wanted, 1, true, &e, &broken, &msg).code, STATUS_OK);
    assert_int_equal(e.edits.mounts_count, 2); /* The last is the machine's /usr, which is there. */
    assert_string_equal(e.edits.mounts[0].inside, INJECT_LIBRARIES "/libnvidia-ml.so.1");
    assert_string_equal(e.edits.mounts[1].inside, INJECT_PROGRAMS "/nvidia-smi");
    assert_true(e.libraries && e.programs);
    assert_int_equal(e.left_out, 1);
    gpu_edits_close(&e);
    assert_int_equal(inject(&wanted, 1, false, &e, &broken, &msg).code, STATUS_OK);
    assert_int_equal(e.edits.mounts_count, 3);
    assert_string_equal(e.edits.mounts[2].inside, INJECT_LIBRARIES "/os.so");
    gpu_edits_close(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define IN_FOLDER(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        cmocka_unit_test(json_is_read),
        cmocka_unit_test(yaml_is_read),
        cmocka_unit_test(mistakes_are_named),
        IN_FOLDER(devices_are_found_by_uuid_or_index),
        IN_FOLDER(a_device_that_no_file_has_is_an_error),
        IN_FOLDER(a_node_that_is_no_character_device_is_refused),
        IN_FOLDER(without_files_a_gpu_has_the_usual_nodes),
        cmocka_unit_test(a_library_has_the_name_that_programs_ask_for),
        IN_FOLDER(libraries_and_programs_lie_in_folders_of_their_own),
    };
    return cmocka_run_group_tests_name("cdi", tests, NULL, NULL);
}
