#include "common/chunks.h"
#include "common/mem.h"
#include "common/payloads/payload_store.h"
#include "tests/unit/config/folder.h"

#include <errno.h>

enum { STORE_BYTES = 64 << 10 };

/* A store in a folder of its own; fault_at is the step that fails, on its fault_nth time. */
struct fixture {
    struct folder folder;
    char path[PATH_BYTES];
    struct payload_store *store;
    struct payload_store_config config;
    enum payload_step fault_at;
    int fault_nth, fault_error;
    bool seal_unavailable, key_unknown;
    unsigned shredded;
};

static struct fixture *fixture_of(void **state)
{
    return *state;
}

static int inject(void *data, enum payload_step step)
{
    struct fixture *f = data;
    if (f->fault_error == 0 || step != f->fault_at || --f->fault_nth > 0) {
        return 0;
    }
    int error = f->fault_error;
    f->fault_error = 0;
    return error;
}

static void fault_set(struct fixture *f, enum payload_step step, int nth, int error)
{
    f->fault_at = step;
    f->fault_nth = nth;
    f->fault_error = error;
}

static void store_reopen(struct fixture *f)
{
    struct errmsg msg = {""};
    payload_store_close(f->store);
    f->store = NULL;
    f->config.folder = f->path;
    f->config.fault = inject;
    f->config.fault_data = f;
    struct status status = payload_store_open(&f->store, &f->config, &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(status));
}

static int setup(void **state)
{
    struct fixture *f = mem_must(mem_zalloc(1, sizeof *f));
    folder_open(&f->folder);
    folder_path(&f->folder, "payloads", f->path);
    f->config.bytes_max = STORE_BYTES;
    store_reopen(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    payload_store_close(f->store);
    folder_close(&f->folder);
    mem_free(f);
    return 0;
}

/* ---- A sealing that can be seen through: every byte of the payload is inverted. ---- */

static struct status toy_seal(void *data, const struct digest *digest, struct bytes plain,
                              struct buffer *file, struct buffer *key_file)
{
    const struct fixture *f = data;
    if (f->seal_unavailable) {
        return status_of(STATUS_UNAVAILABLE);
    }
    for (size_t i = 0; i < plain.size; i++) {
        TRY(buffer_put_u8(file, (uint8_t)~plain.data[i]));
    }
    return buffer_append(key_file, digest, sizeof *digest);
}

static struct status toy_open(void *data, const struct digest *digest, struct bytes file,
                              struct bytes key_file, struct buffer *plain)
{
    const struct fixture *f = data;
    if (f->key_unknown) {
        return status_of(STATUS_NOT_FOUND);
    }
    if (!bytes_equal(key_file, bytes_of(digest, sizeof *digest))) {
        return status_of(STATUS_CORRUPT);
    }
    for (size_t i = 0; i < file.size; i++) {
        TRY(buffer_put_u8(plain, (uint8_t)~file.data[i]));
    }
    return status_ok();
}

static struct status toy_shred(const char *key_path, struct errmsg *msg)
{
    return unlink(key_path) == 0 || errno == ENOENT
               ? status_ok()
               : status_fail(msg, STATUS_IO, "%s: %s", key_path, strerror(errno));
}

static void seal_on(struct fixture *f)
{
    f->config.sealing =
        (struct payload_sealing){.data = f, .seal = toy_seal, .open = toy_open, .shred = toy_shred};
    store_reopen(f);
}

/* ---- Helpers ---- */

static struct digest digest_of_text(const char *text)
{
    struct digest d;
    struct bytes part = bytes_of(text, strlen(text));
    assert_true(status_is_ok(digest_of(&part, 1, &d)));
    return d;
}

static enum status_code put(struct fixture *f, const char *text)
{
    struct digest d = digest_of_text(text);
    struct errmsg msg = {""};
    return payload_store_put(f->store, &d, bytes_of(text, strlen(text)), &msg).code;
}

static enum status_code get(struct fixture *f, const char *text)
{
    struct digest d = digest_of_text(text);
    struct buffer out = {0};
    struct errmsg msg = {""};
    struct status status = payload_store_get(f->store, &d, &out, &msg);
    if (status_is_ok(status)) {
        assert_true(bytes_equal(bytes_of(out.data, out.size), bytes_of(text, strlen(text))));
    } else {
        assert_int_equal(out.size, 0);
        assert_string_not_equal(msg.text, "");
    }
    buffer_close(&out);
    return status.code;
}

static void path_of(const struct fixture *f, const char *text, const char *suffix,
                    char out[PATH_BYTES])
{
    struct digest d = digest_of_text(text);
    char hex[DIGEST_STRING_BYTES];
    digest_format(&d, hex);
    assert_in_range(snprintf(out, PATH_BYTES, "%s/%.2s/%s%s", f->path, hex, hex + 2, suffix), 1,
                    PATH_BYTES - 1);
}

static bool has_file(const struct fixture *f, const char *text, const char *suffix)
{
    char path[PATH_BYTES];
    path_of(f, text, suffix, path);
    return access(path, F_OK) == 0;
}

static void damage(const struct fixture *f, const char *text, const char *suffix, off_t cut)
{
    char path[PATH_BYTES];
    uint8_t byte;
    path_of(f, text, suffix, path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    if (cut >= 0) {
        assert_int_equal(ftruncate(fd, cut), 0);
    } else {
        assert_int_equal(pread(fd, &byte, 1, 0), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, 0), 1);
    }
    assert_int_equal(close(fd), 0);
}

static bool count_one(void *data, const struct digest *digest, uint64_t bytes, int64_t written_s)
{
    uint64_t *sum = data;
    assert_false(digest_is_zero(digest));
    assert_true(written_s > 0);
    sum[0]++;
    sum[1] += bytes;
    return true;
}

static void expect_holds(struct fixture *f, uint64_t count)
{
    uint64_t sum[2] = {0, 0};
    assert_true(status_is_ok(payload_store_each(f->store, count_one, sum, NULL)));
    assert_int_equal(sum[0], count);
    assert_int_equal(payload_store_stats(f->store).count, count);
}

/* How many names there are in the store's folder itself that are not fan folders. */
static size_t strays(const struct fixture *f)
{
    char command[PATH_BYTES + 64];
    (void)snprintf(command, sizeof command, "ls %s | grep -c '^new'", f->path);
    FILE *p = popen(command, "re"); /* NOLINT: a test's own folder */
    size_t count = 99;
    assert_non_null(p);
    assert_int_equal(fscanf(p, "%zu", &count), 1);
    (void)pclose(p);
    return count;
}

/* ---- Tests ---- */

static void a_payload_comes_back_after_reopening(void **state)
{
    struct fixture *f = fixture_of(state);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    store_reopen(f);
    assert_int_equal(get(f, "hello"), STATUS_OK);
    expect_holds(f, 1);
    assert_int_equal(payload_store_stats(f->store).bytes, 5);
}

static void putting_twice_keeps_one_and_renews_its_age(void **state)
{
    struct fixture *f = fixture_of(state);
    char path[PATH_BYTES];
    struct stat st;
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(put(f, "hello"), STATUS_OK);
    path_of(f, "hello", "", path);
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_mtime > 1000);
    expect_holds(f, 1);
    assert_int_equal(payload_store_stats(f->store).bytes, 5);
}

static void bytes_of_another_digest_are_refused(void **state)
{
    struct fixture *f = fixture_of(state);
    struct digest d = digest_of_text("hello");
    struct errmsg msg = {""};
    assert_int_equal(payload_store_put(f->store, &d, bytes_of("hullo", 5), &msg).code,
                     STATUS_CORRUPT);
    expect_holds(f, 0);
}

static void the_smallest_and_the_largest_are_stored(void **state)
{
    struct fixture *f = fixture_of(state);
    struct errmsg msg = {""};
    struct digest d;
    f->config.bytes_max = UINT64_C(1) << 30;
    store_reopen(f);
    uint8_t *data = mem_must(mem_zalloc(1, PAYLOAD_STORE_BYTES_MAX + 1));
    const size_t sizes[] = {0, 1, PAYLOAD_STORE_BYTES_MAX, PAYLOAD_STORE_BYTES_MAX + 1};
    const enum status_code expected[] = {STATUS_INVALID, STATUS_OK, STATUS_OK, STATUS_LIMIT};
    for (size_t i = 0; i < 4; i++) {
        struct bytes part = bytes_of(data, sizes[i]);
        assert_true(status_is_ok(digest_of(&part, 1, &d)));
        assert_int_equal(payload_store_put(f->store, &d, part, &msg).code, expected[i]);
    }
    mem_free(data);
    expect_holds(f, 2);
}

static void a_full_store_refuses_until_something_is_deleted(void **state)
{
    struct fixture *f = fixture_of(state);
    struct digest d = digest_of_text("0123456789");
    f->config.bytes_max = 15;
    store_reopen(f);
    assert_int_equal(put(f, "0123456789"), STATUS_OK);
    assert_int_equal(put(f, "abcdef"), STATUS_LIMIT);
    assert_int_equal(put(f, "abcde"), STATUS_OK);
    assert_int_equal(put(f, "0123456789"), STATUS_OK);
    assert_true(status_is_ok(payload_store_delete(f->store, &d, NULL)));
    assert_int_equal(put(f, "abcdef"), STATUS_OK);
    expect_holds(f, 2);
}

static void a_store_over_its_limit_still_reads(void **state)
{
    struct fixture *f = fixture_of(state);
    assert_int_equal(put(f, "0123456789"), STATUS_OK);
    f->config.bytes_max = 5;
    store_reopen(f);
    assert_int_equal(get(f, "0123456789"), STATUS_OK);
    assert_int_equal(put(f, "a"), STATUS_LIMIT);
}

static void a_disk_with_enough_free_takes_payloads(void **state)
{
    struct fixture *f = fixture_of(state);
    f->config.free_bytes_min = 1;
    store_reopen(f);
    assert_int_equal(put(f, "fits"), STATUS_OK);
}

static void a_full_disk_leaves_nothing_behind(void **state)
{
    struct fixture *f = fixture_of(state);
    static const enum payload_step steps[] = {PAYLOAD_STEP_WRITE, PAYLOAD_STEP_SYNC,
                                              PAYLOAD_STEP_NAME, PAYLOAD_STEP_FOLDER};
    seal_on(f);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        for (int nth = 1; nth <= (steps[i] == PAYLOAD_STEP_FOLDER ? 1 : 2); nth++) {
            fault_set(f, steps[i], nth, ENOSPC);
            assert_int_equal(put(f, "hello"), STATUS_LIMIT);
            assert_int_equal(f->fault_error, 0);
            assert_false(has_file(f, "hello", ""));
            assert_false(has_file(f, "hello", ".key"));
            assert_int_equal(strays(f), 0);
            assert_int_equal(payload_store_stats(f->store).bytes, 0);
        }
    }
    assert_int_equal(put(f, "hello"), STATUS_OK);
    assert_int_equal(get(f, "hello"), STATUS_OK);
}

static void a_crash_at_any_step_leaves_all_or_nothing(void **state)
{
    struct fixture *f = fixture_of(state);
    static const enum payload_step steps[] = {PAYLOAD_STEP_WRITE, PAYLOAD_STEP_SYNC,
                                              PAYLOAD_STEP_NAME, PAYLOAD_STEP_FOLDER};
    seal_on(f);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        bool last = steps[i] == PAYLOAD_STEP_FOLDER;
        for (int nth = 1; nth <= (last ? 1 : 2); nth++) {
            fault_set(f, steps[i], nth, PAYLOAD_FAULT_CRASH);
            assert_int_equal(put(f, "hello"), STATUS_IO);
            store_reopen(f);
            assert_int_equal(strays(f), 0);
            assert_int_equal(has_file(f, "hello", ""), last);
            assert_int_equal(has_file(f, "hello", ".key"), last);
            assert_int_equal(get(f, "hello"), last ? STATUS_OK : STATUS_NOT_FOUND);
        }
    }
}

static void a_crash_while_deleting_leaves_no_key(void **state)
{
    struct fixture *f = fixture_of(state);
    struct digest d = digest_of_text("hello");
    seal_on(f);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    fault_set(f, PAYLOAD_STEP_UNLINK, 1, PAYLOAD_FAULT_CRASH);
    assert_false(status_is_ok(payload_store_delete(f->store, &d, NULL)));
    store_reopen(f);
    assert_false(has_file(f, "hello", ".key"));
    assert_int_equal(get(f, "hello"), STATUS_CORRUPT);
    assert_int_equal(get(f, "hello"), STATUS_NOT_FOUND);
    expect_holds(f, 0);
}

static void bit_rot_is_found_and_the_payload_removed(void **state)
{
    struct fixture *f = fixture_of(state);
    for (off_t cut = -1; cut <= 4; cut++) {
        assert_int_equal(put(f, "hello"), STATUS_OK);
        damage(f, "hello", "", cut);
        assert_int_equal(get(f, "hello"), STATUS_CORRUPT);
        assert_int_equal(get(f, "hello"), STATUS_NOT_FOUND);
    }
    expect_holds(f, 0);
    assert_int_equal(payload_store_stats(f->store).corrupt, 6);
}

static void rot_of_a_sealed_payload_or_its_key_is_found(void **state)
{
    struct fixture *f = fixture_of(state);
    seal_on(f);
    static const char *const suffixes[] = {"", ".key"};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(put(f, "hello"), STATUS_OK);
        damage(f, "hello", suffixes[i], -1);
        assert_int_equal(get(f, "hello"), STATUS_CORRUPT);
        assert_int_equal(get(f, "hello"), STATUS_NOT_FOUND);
        assert_false(has_file(f, "hello", ".key"));
    }
    assert_int_equal(payload_store_stats(f->store).bytes, 0);
}

static void putting_over_a_damaged_one_mends_it(void **state)
{
    struct fixture *f = fixture_of(state);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    damage(f, "hello", "", -1);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    assert_int_equal(get(f, "hello"), STATUS_OK);
    expect_holds(f, 1);
}

static void a_sealed_payload_is_not_on_disk_in_the_clear(void **state)
{
    struct fixture *f = fixture_of(state);
    char path[PATH_BYTES], content[16] = "";
    seal_on(f);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    path_of(f, "hello", "", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, content, sizeof content), 5);
    assert_int_equal(close(fd), 0);
    assert_memory_not_equal(content, "hello", 5);
    assert_true(has_file(f, "hello", ".key"));
    store_reopen(f);
    assert_int_equal(payload_store_stats(f->store).bytes, 5 + DIGEST_BYTES);
    assert_int_equal(get(f, "hello"), STATUS_OK);
}

static void plain_payloads_stay_readable_once_sealing_is_on(void **state)
{
    struct fixture *f = fixture_of(state);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    seal_on(f);
    assert_int_equal(get(f, "hello"), STATUS_OK);
}

static void without_a_key_yet_nothing_is_written(void **state)
{
    struct fixture *f = fixture_of(state);
    seal_on(f);
    f->seal_unavailable = true;
    assert_int_equal(put(f, "hello"), STATUS_UNAVAILABLE);
    expect_holds(f, 0);
}

static void an_unknown_data_key_does_not_cost_the_payload(void **state)
{
    struct fixture *f = fixture_of(state);
    seal_on(f);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    f->key_unknown = true;
    assert_int_equal(get(f, "hello"), STATUS_UNAVAILABLE);
    f->key_unknown = false;
    assert_int_equal(get(f, "hello"), STATUS_OK);
}

static void deleting_removes_payload_and_key(void **state)
{
    struct fixture *f = fixture_of(state);
    struct digest d = digest_of_text("hello");
    seal_on(f);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    assert_true(status_is_ok(payload_store_delete(f->store, &d, NULL)));
    assert_true(status_is_ok(payload_store_delete(f->store, &d, NULL)));
    assert_true(status_is_ok(payload_store_sync(f->store, NULL)));
    assert_false(has_file(f, "hello", ""));
    assert_false(has_file(f, "hello", ".key"));
    assert_false(payload_store_has(f->store, &d));
    assert_int_equal(get(f, "hello"), STATUS_NOT_FOUND);
    expect_holds(f, 0);
    assert_int_equal(payload_store_stats(f->store).bytes, 0);
}

static void foreign_names_are_left_alone(void **state)
{
    struct fixture *f = fixture_of(state);
    char path[PATH_BYTES];
    assert_int_equal(put(f, "hello"), STATUS_OK);
    path_of(f, "hello", ".note", path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    store_reopen(f);
    assert_int_equal(access(path, F_OK), 0);
    expect_holds(f, 1);
}

static void an_emptied_folder_takes_payloads_again(void **state)
{
    struct fixture *f = fixture_of(state);
    char path[PATH_BYTES];
    assert_int_equal(put(f, "hello"), STATUS_OK);
    path_of(f, "hello", "", path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(get(f, "hello"), STATUS_NOT_FOUND);
    assert_int_equal(put(f, "hello"), STATUS_OK);
    assert_int_equal(get(f, "hello"), STATUS_OK);
}

static void out_of_memory_at_every_allocation_changes_nothing(void **state)
{
    struct fixture *f = fixture_of(state);
    seal_on(f);
    for (unsigned n = 0;; n++) {
        mem_fault(n, 1);
        enum status_code code = put(f, "hello");
        unsigned delivered = mem_fault_clear();
        if (delivered == 0) {
            assert_int_equal(code, STATUS_OK);
            break;
        }
        assert_int_equal(code, STATUS_NOMEM);
        expect_holds(f, 0);
        assert_int_equal(strays(f), 0);
    }
    for (unsigned n = 0;; n++) {
        mem_fault(n, 1);
        enum status_code code = get(f, "hello");
        unsigned delivered = mem_fault_clear();
        assert_int_equal(code, delivered == 0 ? STATUS_OK : STATUS_NOMEM);
        if (delivered == 0) {
            break;
        }
    }
    expect_holds(f, 1);
}

static void a_folder_without_a_parent_is_an_error(void **state)
{
    struct fixture *f = fixture_of(state);
    struct payload_store *store = NULL;
    struct errmsg msg = {""};
    char path[PATH_BYTES];
    const struct payload_store_config config = {
        .folder = folder_path(&f->folder, "no/payloads", path), .bytes_max = 1};
    assert_int_equal(payload_store_open(&store, &config, &msg).code, STATUS_NOT_FOUND);
    assert_null(store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_payload_comes_back_after_reopening),
        TEST(putting_twice_keeps_one_and_renews_its_age),
        TEST(bytes_of_another_digest_are_refused),
        TEST(the_smallest_and_the_largest_are_stored),
        TEST(a_full_store_refuses_until_something_is_deleted),
        TEST(a_store_over_its_limit_still_reads),
        TEST(a_disk_with_enough_free_takes_payloads),
        TEST(a_full_disk_leaves_nothing_behind),
        TEST(a_crash_at_any_step_leaves_all_or_nothing),
        TEST(a_crash_while_deleting_leaves_no_key),
        TEST(bit_rot_is_found_and_the_payload_removed),
        TEST(rot_of_a_sealed_payload_or_its_key_is_found),
        TEST(putting_over_a_damaged_one_mends_it),
        TEST(a_sealed_payload_is_not_on_disk_in_the_clear),
        TEST(plain_payloads_stay_readable_once_sealing_is_on),
        TEST(without_a_key_yet_nothing_is_written),
        TEST(an_unknown_data_key_does_not_cost_the_payload),
        TEST(deleting_removes_payload_and_key),
        TEST(foreign_names_are_left_alone),
        TEST(an_emptied_folder_takes_payloads_again),
        TEST(out_of_memory_at_every_allocation_changes_nothing),
        TEST(a_folder_without_a_parent_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
