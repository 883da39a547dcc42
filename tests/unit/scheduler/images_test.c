#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/codec.h"
#include "scheduler/core/catalog.h"

#include <string.h>

struct fixture {
    struct catalog catalog;
    uint64_t index;
    struct errmsg msg;
    uint8_t lists[IMAGE_LISTS_MAX * DIGEST_BYTES];
};

static int setup(void **state)
{
    *state = mem_must(mem_zalloc(1, sizeof(struct fixture)));
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    catalog_close(&f->catalog);
    mem_free(f);
    return 0;
}

static struct status apply(struct fixture *f, struct command c)
{
    c.time_ms = 5000000 + f->index;
    f->msg.text[0] = '\0';
    return catalog_apply(&f->catalog, ++f->index, &c, &f->msg);
}

static struct image_spec image(struct fixture *f, const char *name, uint8_t version)
{
    return (struct image_spec){.name = name,
                               .digest = {{version}},
                               .bytes = IMAGE_CHUNK_BYTES,
                               .lists = bytes_of(f->lists, DIGEST_BYTES),
                               .workdir = ""};
}

static struct status put(struct fixture *f, const char *name, uint8_t version)
{
    struct image_spec spec = image(f, name, version);
    return apply(f,
                 (struct command){.type = COMMAND_IMAGE_PUT, .command_image_put = {.spec = &spec}});
}

static const char *ref(const char *name, uint8_t version)
{
    static char text[IMAGE_REF_BYTES];
    const struct digest d = {{version}};
    image_ref_format(name, &d, text);
    return text;
}

static struct status deploy(struct fixture *f, const char *name, uint8_t revision,
                            const char *image_text)
{
    struct function_spec spec = {.name = name, .image = image_text};
    return apply(f, (struct command){.type = COMMAND_DEPLOY,
                                     .command_deploy = {.spec = &spec, .revision = {{revision}}}});
}

static struct status delete (struct fixture *f, const char *name)
{
    return apply(
        f, (struct command){.type = COMMAND_IMAGE_DELETE, .command_image_delete = {.name = name}});
}

static struct status collect(struct fixture *f, uint64_t grace_ms)
{
    return apply(
        f, (struct command){.type = COMMAND_IMAGE_GC, .command_image_gc = {.grace_ms = grace_ms}});
}

static const struct catalog_image *resolve(struct fixture *f, const char *text)
{
    const struct catalog_image *i = NULL;
    struct status s = images_resolve(&f->catalog.images, text, &i, &f->msg);
    return status_is_ok(s) ? i : NULL;
}

static void a_name_means_what_was_put_last(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(put(f, "a", 1).code, STATUS_OK);
    assert_int_equal(put(f, "a", 2).code, STATUS_OK);
    assert_string_equal(resolve(f, "a")->ref, ref("a", 2));
    assert_int_equal(put(f, "a", 1).code, STATUS_OK);
    assert_string_equal(resolve(f, "a")->ref, ref("a", 1));
    assert_string_equal(resolve(f, ref("a", 2))->ref, ref("a", 2));
    assert_int_equal(HASH_COUNT(f->catalog.images.images), 2);
    assert_null(resolve(f, "b"));
    assert_null(resolve(f, ref("a", 3)));
}

static void what_is_no_image_is_refused(void **state)
{
    struct fixture *f = *state;
    struct image_spec s = image(f, "default", 1);
    assert_int_equal(image_spec_check(&s, &f->msg).code, STATUS_INVALID);
    s = image(f, "a", 1);
    s.bytes = 0;
    assert_int_equal(image_spec_check(&s, &f->msg).code, STATUS_LIMIT);
    s.bytes = IMAGE_BYTES_MAX + 1;
    assert_int_equal(image_spec_check(&s, &f->msg).code, STATUS_LIMIT);
    s.bytes = IMAGE_BYTES_MAX;
    assert_int_equal(image_spec_check(&s, &f->msg).code, STATUS_INVALID);
    s.lists.size = IMAGE_LISTS_MAX * DIGEST_BYTES;
    assert_int_equal(image_spec_check(&s, &f->msg).code, STATUS_OK);
    s.bytes = (uint64_t)IMAGE_LIST_CHUNKS * IMAGE_CHUNK_BYTES;
    s.lists.size = DIGEST_BYTES;
    assert_int_equal(image_spec_check(&s, &f->msg).code, STATUS_OK);
    s.bytes++;
    assert_int_equal(image_spec_check(&s, &f->msg).code, STATUS_INVALID);
}

static void a_deploy_needs_its_image(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(deploy(f, "f", 1, ref("a", 1)).code, STATUS_NOT_FOUND);
    assert_null(catalog_function_find(&f->catalog, "f"));
    assert_int_equal(put(f, "a", 1).code, STATUS_OK);
    assert_int_equal(deploy(f, "f", 1, ref("a", 1)).code, STATUS_OK);
}

static void a_current_revision_keeps_its_image_and_an_older_one_does_not(void **state)
{
    struct fixture *f = *state;
    (void)put(f, "a", 1);
    (void)put(f, "b", 2);
    (void)deploy(f, "f", 1, ref("a", 1));
    assert_int_equal(delete (f, "a").code, STATUS_CONFLICT);
    assert_non_null(strstr(f->msg.text, "function f uses image a@sha256:01"));
    assert_int_equal(deploy(f, "f", 2, ref("b", 2)).code, STATUS_OK);
    assert_int_equal(delete (f, "a").code, STATUS_OK);
    assert_null(resolve(f, "a"));
    struct command back = {.type = COMMAND_FUNCTION_ROLLBACK,
                           .command_function_rollback = {.name = "f", .revision = {{1}}}};
    assert_int_equal(apply(f, back).code, STATUS_NOT_FOUND);
    assert_int_equal(delete (f, "a").code, STATUS_NOT_FOUND);
}

static void gc_forgets_superseded_versions_that_no_revision_uses(void **state)
{
    struct fixture *f = *state;
    for (uint8_t v = 1; v <= 3; v++) {
        (void)put(f, "a", v);
    }
    (void)deploy(f, "f", 1, ref("a", 1));
    (void)deploy(f, "f", 2, "");
    assert_int_equal(collect(f, 1000).code, STATUS_OK);
    assert_non_null(resolve(f, ref("a", 1))); /* history may go back to it */
    assert_null(resolve(f, ref("a", 2)));
    assert_non_null(resolve(f, ref("a", 3))); /* the newest */
    assert_int_equal(f->catalog.images.collect_index, f->index);
    assert_true(f->catalog.images.collect_before_ms == f->catalog.time_ms - 1000);
}

static void there_is_a_limit_of_versions(void **state)
{
    struct fixture *f = *state;
    for (unsigned i = 0; i < CATALOG_IMAGES_MAX; i++) {
        struct image_spec s = image(f, "a", 0);
        s.digest.v[1] = (uint8_t)i;
        s.digest.v[2] = (uint8_t)(i >> 8);
        s.digest.v[3] = 1;
        struct command c = {.type = COMMAND_IMAGE_PUT, .command_image_put = {.spec = &s}};
        assert_int_equal(apply(f, c).code, STATUS_OK);
    }
    uint64_t before = f->index;
    assert_int_equal(put(f, "b", 1).code, STATUS_LIMIT);
    assert_true(f->index == before + 1);
    assert_int_equal(HASH_COUNT(f->catalog.images.images), CATALOG_IMAGES_MAX);
}

static void a_snapshot_keeps_images_and_their_order(void **state)
{
    struct fixture *f = *state;
    struct arena a = {0};
    struct state exported, decoded;
    struct buffer frame = {0};
    struct catalog other = {0};
    (void)put(f, "a", 1);
    (void)put(f, "a", 2);
    (void)put(f, "a", 1);
    (void)collect(f, 7);
    assert_int_equal(catalog_export(&f->catalog, &a, &exported).code, STATUS_OK);
    assert_int_equal(state_encode(&exported, &frame).code, STATUS_OK);
    assert_int_equal(state_decode(bytes_of(frame.data, frame.size), &a, &decoded, NULL).code,
                     STATUS_OK);
    assert_int_equal(catalog_import(&other, &decoded, NULL).code, STATUS_OK);
    assert_true(catalog_digest(&other) == catalog_digest(&f->catalog));
    const struct catalog_image *newest;
    assert_int_equal(images_resolve(&other.images, "a", &newest, NULL).code, STATUS_OK);
    assert_string_equal(newest->ref, ref("a", 1));
    (void)put(f, "a", 2);
    assert_true(catalog_digest(&other) != catalog_digest(&f->catalog));
    catalog_close(&other);
    buffer_close(&frame);
    arena_close(&a);
}

static void names_of_images_are_read(void **state)
{
    (void)state;
    struct image_ref r;
    char text[IMAGE_REF_BYTES];
    const struct digest d = {{0xab, 1}};
    image_ref_format("py3.11", &d, text);
    assert_int_equal(image_ref_parse(text, &r, NULL).code, STATUS_OK);
    assert_true(r.pinned);
    assert_string_equal(r.name.text, "py3.11");
    assert_int_equal(digest_compare(&r.digest, &d), 0);
    static const char *const wrong[] = {
        "",         "A",       "a@",       "a@sha256:", "a@sha256:12",
        "a@md5:00", "default", "a:latest", "a/b",       "@sha256:00"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_not_equal(image_ref_parse(wrong[i], &r, NULL).code, STATUS_OK);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_name_means_what_was_put_last),
        TEST(what_is_no_image_is_refused),
        TEST(a_deploy_needs_its_image),
        TEST(a_current_revision_keeps_its_image_and_an_older_one_does_not),
        TEST(gc_forgets_superseded_versions_that_no_revision_uses),
        TEST(there_is_a_limit_of_versions),
        TEST(a_snapshot_keeps_images_and_their_order),
        TEST(names_of_images_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
