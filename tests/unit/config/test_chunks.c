#include "common/chunks.h"
#include "common/mem.h"
#include "tests/unit/config/folder.h"

struct store_state {
    struct folder folder;
    char path[PATH_BYTES];
    struct chunk_store *store;
};

static struct store_state *opened(void **state)
{
    return *state;
}

static int store_setup(void **state)
{
    static struct store_state s;
    struct errmsg msg = {""};
    folder_open(&s.folder);
    folder_path(&s.folder, "chunks", s.path);
    assert_true(status_is_ok(chunk_store_open(&s.store, s.path, 1 << 20, &msg)));
    *state = &s;
    return 0;
}

static int store_teardown(void **state)
{
    chunk_store_close(opened(state)->store);
    folder_close(&opened(state)->folder);
    return 0;
}

static struct digest digest_of_text(const char *text)
{
    struct digest d;
    struct bytes part = bytes_of(text, strlen(text));
    assert_true(status_is_ok(digest_of(&part, 1, &d)));
    return d;
}

static struct digest put_text(struct chunk_store *s, const char *text)
{
    struct errmsg msg = {""};
    struct digest d = digest_of_text(text);
    struct status st = chunk_store_put(s, &d, bytes_of(text, strlen(text)), &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(st));
    return d;
}

/* The file of a chunk. */
static void chunk_path(const struct store_state *s, const struct digest *d, char out[PATH_BYTES])
{
    char hex[DIGEST_STRING_BYTES];
    digest_format(d, hex);
    (void)snprintf(out, PATH_BYTES, "%s/%.2s/%s", s->path, hex, hex + 2);
}

static void a_digest_is_sha256(void **state)
{
    char hex[DIGEST_STRING_BYTES];
    const struct bytes parts[] = {bytes_of("a", 1), bytes_of(NULL, 0), bytes_of("bc", 2)};
    struct digest d;
    (void)state;
    assert_true(status_is_ok(digest_of(parts, 3, &d)));
    digest_format(&d, hex);
    /* FIPS 180-2, appendix B.1 */
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void a_revision_depends_on_manifest_and_chunks(void **state)
{
    struct digest chunks[2] = {digest_of_text("a"), digest_of_text("b")};
    struct digest swapped[2] = {chunks[1], chunks[0]};
    struct digest all[5];
    (void)state;
    assert_true(status_is_ok(revision_digest(bytes_of("m", 1), chunks, 2, &all[0])));
    assert_true(status_is_ok(revision_digest(bytes_of("n", 1), chunks, 2, &all[1])));
    assert_true(status_is_ok(revision_digest(bytes_of("m", 1), swapped, 2, &all[2])));
    assert_true(status_is_ok(revision_digest(bytes_of("m", 1), chunks, 1, &all[3])));
    assert_true(status_is_ok(revision_digest(bytes_of("m", 1), chunks, 0, &all[4])));
    for (size_t i = 0; i < 5; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_int_not_equal(digest_compare(&all[i], &all[k]), 0);
        }
    }
}

static void bytes_are_cut_into_chunks(void **state)
{
    enum { BYTES = 2 * CHUNK_BYTES + 5 };
    struct chunk_list l;
    struct errmsg msg = {""};
    (void)state;
    uint8_t *data = calloc(1, BYTES);
    assert_non_null(data);
    data[BYTES - 1] = 1;
    assert_true(status_is_ok(chunk_list_of_bytes(bytes_of(data, BYTES), &l, &msg)));
    assert_int_equal(l.count, 3);
    assert_int_equal(l.bytes, BYTES);
    assert_int_equal(digest_compare(&l.digests[0], &l.digests[1]), 0);
    struct bytes last = bytes_of(data + (size_t)2 * CHUNK_BYTES, 5);
    struct digest d;
    assert_true(status_is_ok(digest_of(&last, 1, &d)));
    assert_int_equal(digest_compare(&l.digests[2], &d), 0);
    chunk_list_close(&l);
    assert_true(status_is_ok(chunk_list_of_bytes(bytes_of(data, CHUNK_BYTES), &l, &msg)));
    assert_int_equal(l.count, 1);
    chunk_list_close(&l);
    assert_true(status_is_ok(chunk_list_of_bytes(bytes_of(NULL, 0), &l, &msg)));
    assert_int_equal(l.count, 0);
    chunk_list_close(&l);
    assert_int_equal(
        chunk_list_of_bytes(bytes_of(data, (size_t)PACKAGE_BYTES_MAX + 1), &l, &msg).code,
        STATUS_LIMIT);
    assert_string_equal(msg.text, "the package has more than 256 MiB");
    free(data);
}

static void a_package_travels_through_a_store(void **state)
{
    struct store_state *s = opened(state);
    struct folder code;
    struct package p;
    struct chunk_list l;
    struct buffer chunk = {0};
    struct errmsg msg = {""};
    char path[PATH_BYTES];
    struct stat st;
    folder_open(&code);
    text_put(&code, "big", "");
    assert_int_equal(truncate(folder_path(&code, "big", path), 2 * CHUNK_BYTES), 0);
    text_put(&code, "small", "here");
    assert_true(status_is_ok(package_open(&p, code.path, &msg)));
    assert_true(status_is_ok(chunk_list_of_package(&p, &l, &msg)));
    assert_int_equal(l.count, 3);
    for (size_t i = 0; i < l.count; i++) {
        assert_true(status_is_ok(chunk_of_package(&p, i, &chunk, &msg)));
        assert_true(status_is_ok(
            chunk_store_put(s->store, &l.digests[i], bytes_of(chunk.data, chunk.size), &msg)));
    }
    struct chunk_reader reader = {.store = s->store, .digests = l.digests, .count = l.count};
    assert_true(status_is_ok(
        package_unpack(chunk_reader_read, &reader, folder_path(&s->folder, "out", path), &msg)));
    assert_int_equal(stat(folder_path(&s->folder, "out/big", path), &st), 0);
    assert_int_equal(st.st_size, 2 * CHUNK_BYTES);
    assert_int_equal(stat(folder_path(&s->folder, "out/small", path), &st), 0);
    assert_int_equal(st.st_size, 4);
    buffer_close(&reader.buffer);
    buffer_close(&chunk);
    chunk_list_close(&l);
    package_close(&p);
    folder_close(&code);
}

static void a_missing_chunk_stops_the_unpacking(void **state)
{
    struct store_state *s = opened(state);
    struct digest d = digest_of_text("nowhere");
    struct chunk_reader reader = {.store = s->store, .digests = &d, .count = 1};
    struct errmsg msg = {""};
    char path[PATH_BYTES];
    assert_int_equal(
        package_unpack(chunk_reader_read, &reader, folder_path(&s->folder, "out", path), &msg).code,
        STATUS_NOT_FOUND);
    assert_false(file_is(&s->folder, "out"));
    buffer_close(&reader.buffer);
}

static void what_is_put_is_got(void **state)
{
    struct store_state *s = opened(state);
    struct buffer out = {0};
    struct errmsg msg = {""};
    struct digest d = put_text(s->store, "hello");
    assert_true(chunk_store_has(s->store, &d));
    assert_true(status_is_ok(chunk_store_get(s->store, &d, &out, &msg)));
    assert_true(bytes_equal(bytes_of(out.data, out.size), bytes_of("hello", 5)));
    buffer_close(&out);
}

static void putting_again_changes_nothing(void **state)
{
    struct store_state *s = opened(state);
    (void)put_text(s->store, "hello");
    (void)put_text(s->store, "hello");
    assert_int_equal(chunk_store_bytes(s->store), 5);
}

static void an_unknown_chunk_is_not_found(void **state)
{
    struct store_state *s = opened(state);
    struct buffer out = {0};
    struct errmsg msg = {""};
    struct digest d = digest_of_text("nowhere");
    assert_false(chunk_store_has(s->store, &d));
    assert_int_equal(chunk_store_get(s->store, &d, &out, &msg).code, STATUS_NOT_FOUND);
    buffer_close(&out);
}

static void other_bytes_are_not_put(void **state)
{
    struct store_state *s = opened(state);
    struct errmsg msg = {""};
    struct digest d = digest_of_text("hello");
    assert_int_equal(chunk_store_put(s->store, &d, bytes_of("hellO", 5), &msg).code,
                     STATUS_CORRUPT);
    assert_string_equal(msg.text,
                        "chunk 2c/f24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824: "
                        "the bytes have another digest");
    assert_false(chunk_store_has(s->store, &d));
    assert_int_equal(chunk_store_bytes(s->store), 0);
}

static void empty_and_long_chunks_are_not_put(void **state)
{
    struct store_state *s = opened(state);
    struct errmsg msg = {""};
    struct digest d;
    uint8_t *data = calloc(1, CHUNK_BYTES + 1);
    assert_non_null(data);
    struct bytes whole = bytes_of(data, CHUNK_BYTES + 1);
    assert_true(status_is_ok(digest_of(&whole, 1, &d)));
    assert_int_equal(chunk_store_put(s->store, &d, whole, &msg).code, STATUS_LIMIT);
    whole.size = CHUNK_BYTES;
    assert_true(status_is_ok(digest_of(&whole, 1, &d)));
    assert_true(status_is_ok(chunk_store_put(s->store, &d, whole, &msg)));
    whole.size = 0;
    assert_true(status_is_ok(digest_of(&whole, 1, &d)));
    assert_int_equal(chunk_store_put(s->store, &d, whole, &msg).code, STATUS_INVALID);
    free(data);
}

static void damage_on_disk_is_corrupt_and_can_be_mended(void **state)
{
    static const char *const damages[] = {"hellO", "hell", "", "hello, world"};
    struct store_state *s = opened(state);
    for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++) {
        char path[PATH_BYTES];
        struct buffer out = {0};
        struct errmsg msg = {""};
        struct digest d = put_text(s->store, "hello");
        chunk_path(s, &d, path);
        int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_int_equal(write(fd, damages[i], strlen(damages[i])), (ssize_t)strlen(damages[i]));
        (void)close(fd);
        assert_int_equal(chunk_store_get(s->store, &d, &out, &msg).code, STATUS_CORRUPT);
        assert_non_null(strstr(msg.text, "is damaged on disk; it was removed"));
        assert_int_equal(out.size, 0);
        assert_false(chunk_store_has(s->store, &d));
        (void)put_text(s->store, "hello");
        assert_true(status_is_ok(chunk_store_get(s->store, &d, &out, &msg)));
        buffer_close(&out);
    }
}

static void a_huge_file_in_a_chunks_place_is_corrupt(void **state)
{
    struct store_state *s = opened(state);
    char path[PATH_BYTES];
    struct buffer out = {0};
    struct errmsg msg = {""};
    struct digest d = put_text(s->store, "hello");
    chunk_path(s, &d, path);
    assert_int_equal(truncate(path, (off_t)1 << 40), 0);
    assert_int_equal(chunk_store_get(s->store, &d, &out, &msg).code, STATUS_CORRUPT);
    assert_true(out.capacity < 4 * CHUNK_BYTES);
    buffer_close(&out);
}

static void the_store_has_a_limit(void **state)
{
    struct store_state *s = opened(state);
    struct errmsg msg = {""};
    char path[PATH_BYTES];
    struct chunk_store *small = NULL;
    assert_true(
        status_is_ok(chunk_store_open(&small, folder_path(&s->folder, "small", path), 10, &msg)));
    struct digest d = put_text(small, "12345");
    (void)put_text(small, "abcde");
    struct digest more = digest_of_text("x");
    assert_int_equal(chunk_store_put(small, &more, bytes_of("x", 1), &msg).code, STATUS_LIMIT);
    assert_non_null(strstr(msg.text, "/small: the chunk store is full; it may hold 10 bytes"));
    assert_false(chunk_store_has(small, &more));
    assert_true(chunk_store_has(small, &d));
    chunk_store_close(small);
}

static void a_reopened_store_knows_its_chunks_and_cleans_up(void **state)
{
    struct store_state *s = opened(state);
    struct errmsg msg = {""};
    struct digest d = put_text(s->store, "hello");
    chunk_store_close(s->store);
    s->store = NULL;
    text_put(&s->folder, "chunks/new.7", "half");
    text_put(&s->folder, "chunks/README", "not ours");
    assert_true(status_is_ok(chunk_store_open(&s->store, s->path, 1 << 20, &msg)));
    assert_int_equal(chunk_store_bytes(s->store), 5);
    assert_true(chunk_store_has(s->store, &d));
    assert_false(file_is(&s->folder, "chunks/new.7"));
    assert_true(file_is(&s->folder, "chunks/README"));
}

static bool keep_one(void *data, const struct digest *digest)
{
    return digest_compare(data, digest) == 0;
}

static void collecting_removes_what_nobody_wants(void **state)
{
    struct store_state *s = opened(state);
    struct errmsg msg = {""};
    uint64_t removed = 0;
    struct digest wanted = put_text(s->store, "wanted");
    struct digest other = put_text(s->store, "other");
    struct digest third = put_text(s->store, "third");
    assert_true(status_is_ok(chunk_store_collect(s->store, keep_one, &wanted, &removed, &msg)));
    assert_int_equal(removed, 10);
    assert_int_equal(chunk_store_bytes(s->store), 6);
    assert_true(chunk_store_has(s->store, &wanted));
    assert_false(chunk_store_has(s->store, &other));
    assert_false(chunk_store_has(s->store, &third));
}

static void a_store_needs_its_folder(void **state)
{
    struct chunk_store *s = NULL;
    struct errmsg msg = {""};
    (void)state;
    assert_int_equal(chunk_store_open(&s, "/nonexistent/chunks", 1, &msg).code, STATUS_NOT_FOUND);
    assert_string_equal(msg.text,
                        "/nonexistent/chunks: make the folder: No such file or directory");
}

static void out_of_memory_is_reported(void **state)
{
    struct store_state *s = opened(state);
    struct digest d = put_text(s->store, "hello");
    struct errmsg msg = {""};
    struct buffer out = {0};
    mem_fault(0, 1);
    assert_int_equal(chunk_store_get(s->store, &d, &out, &msg).code, STATUS_NOMEM);
    assert_int_equal(mem_fault_clear(), 1);
    struct chunk_store *second = NULL;
    for (unsigned i = 0; i < 2; i++) {
        mem_fault(i, 1);
        assert_int_equal(chunk_store_open(&second, s->path, 1, &msg).code, STATUS_NOMEM);
        assert_int_equal(mem_fault_clear(), 1);
    }
    struct chunk_list l;
    mem_fault(0, 1);
    assert_int_equal(chunk_list_of_bytes(bytes_of("x", 1), &l, &msg).code, STATUS_NOMEM);
    assert_int_equal(mem_fault_clear(), 1);
    buffer_close(&out);
}

#define STORE_TEST(name) cmocka_unit_test_setup_teardown(name, store_setup, store_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_digest_is_sha256),
        cmocka_unit_test(a_revision_depends_on_manifest_and_chunks),
        cmocka_unit_test(bytes_are_cut_into_chunks),
        STORE_TEST(a_package_travels_through_a_store),
        STORE_TEST(a_missing_chunk_stops_the_unpacking),
        STORE_TEST(what_is_put_is_got),
        STORE_TEST(putting_again_changes_nothing),
        STORE_TEST(an_unknown_chunk_is_not_found),
        STORE_TEST(other_bytes_are_not_put),
        STORE_TEST(empty_and_long_chunks_are_not_put),
        STORE_TEST(damage_on_disk_is_corrupt_and_can_be_mended),
        STORE_TEST(a_huge_file_in_a_chunks_place_is_corrupt),
        STORE_TEST(the_store_has_a_limit),
        STORE_TEST(a_reopened_store_knows_its_chunks_and_cleans_up),
        STORE_TEST(collecting_removes_what_nobody_wants),
        cmocka_unit_test(a_store_needs_its_folder),
        STORE_TEST(out_of_memory_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
