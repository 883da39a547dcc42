/* The log ring: what is written is read, what is gone is counted, what is no ring is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/cell/logring.h"
#include "common/mem.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct fixture {
    char folder[64];
    char path[96];
    int folder_fd;
    struct logring writer;
    struct logring reader;
    struct buffer out;
    uint64_t offset;
    uint64_t missed;
};

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    memset(&f, 0, sizeof f);
    (void)snprintf(f.folder, sizeof f.folder, "/tmp/skep-logring-XXXXXX");
    assert_non_null(mkdtemp(f.folder));
    (void)snprintf(f.path, sizeof f.path, "%s/log", f.folder);
    f.folder_fd = open(f.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(
        status_is_ok(logring_create(&f.writer, f.folder_fd, "log", LOGRING_BYTES_MIN, &msg)));
    assert_true(status_is_ok(logring_open(&f.reader, f.path, &msg)));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    logring_close(&f.writer);
    logring_close(&f.writer);
    logring_close(&f.reader);
    buffer_close(&f.out);
    (void)close(f.folder_fd);
    (void)unlink(f.path);
    (void)rmdir(f.folder);
    return 0;
}

static void put(const char *text)
{
    logring_write(&f.writer, bytes_of(text, strlen(text)));
}

static void get(size_t max)
{
    f.out.size = 0;
    assert_true(status_is_ok(logring_read(&f.reader, &f.offset, max, &f.out, &f.missed)));
}

/* The byte with offset o, so that any piece of a long log can be checked. */
static uint8_t byte_at(uint64_t o)
{
    return (uint8_t)(o * 31 + (o >> 8));
}

static void put_pattern(uint64_t from, size_t size)
{
    uint8_t *data = mem_must(mem_alloc(size));
    for (size_t i = 0; i < size; i++) {
        data[i] = byte_at(from + i);
    }
    logring_write(&f.writer, bytes_of(data, size));
    mem_free(data);
}

static void assert_pattern(uint64_t from)
{
    for (size_t i = 0; i < f.out.size; i++) {
        assert_int_equal(f.out.data[i], byte_at(from + i));
    }
}

static void a_reader_follows(void **state)
{
    (void)state;
    get(100);
    assert_int_equal(f.out.size, 0);
    put("one ");
    put("two");
    get(100);
    assert_int_equal(f.out.size, 7);
    assert_memory_equal(f.out.data, "one two", 7);
    put(" three");
    get(3);
    assert_memory_equal(f.out.data, " th", 3);
    get(100);
    assert_memory_equal(f.out.data, "ree", 3);
    assert_int_equal(f.offset, 13);
    assert_int_equal(f.missed, 0);
    assert_int_equal(logring_end(&f.reader), 13);
}

static void what_was_overwritten_is_counted(void **state)
{
    (void)state;
    put_pattern(0, 10);
    get(4);
    put_pattern(10, LOGRING_BYTES_MIN);
    get(1 << 20);
    assert_int_equal(f.missed, 6);
    assert_int_equal(f.out.size, LOGRING_BYTES_MIN);
    assert_pattern(10);
    assert_int_equal(f.offset, LOGRING_BYTES_MIN + 10);
}

static void a_ring_full_to_the_byte_misses_nothing(void **state)
{
    (void)state;
    put_pattern(0, LOGRING_BYTES_MIN);
    get(1 << 20);
    assert_int_equal(f.missed, 0);
    assert_int_equal(f.out.size, LOGRING_BYTES_MIN);
    assert_pattern(0);
}

static void a_write_over_the_ring_size_keeps_its_end(void **state)
{
    (void)state;
    put_pattern(0, 3 * LOGRING_BYTES_MIN + 5);
    get(1 << 20);
    assert_int_equal(f.missed, 2 * LOGRING_BYTES_MIN + 5);
    assert_int_equal(f.out.size, LOGRING_BYTES_MIN);
    assert_pattern(2 * LOGRING_BYTES_MIN + 5);
    assert_int_equal(logring_end(&f.reader), 3 * LOGRING_BYTES_MIN + 5);
}

static void an_offset_beyond_the_end_is_set_back(void **state)
{
    (void)state;
    put("abc");
    f.offset = 1000;
    get(100);
    assert_int_equal(f.out.size, 0);
    assert_int_equal(f.offset, 3);
}

static void a_later_writer_goes_on(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    put("before ");
    logring_close(&f.writer);
    assert_true(
        status_is_ok(logring_create(&f.writer, f.folder_fd, "log", LOGRING_BYTES_MIN, &msg)));
    put("after");
    get(100);
    assert_memory_equal(f.out.data, "before after", 12);
}

static void another_size_starts_anew(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    put("before");
    logring_close(&f.writer);
    assert_true(
        status_is_ok(logring_create(&f.writer, f.folder_fd, "log", 2 * LOGRING_BYTES_MIN, &msg)));
    logring_close(&f.reader);
    assert_true(status_is_ok(logring_open(&f.reader, f.path, &msg)));
    assert_int_equal(logring_end(&f.reader), 0);
}

static void sizes_out_of_bounds_are_invalid(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {
        0, 1, 4095, 5000, LOGRING_BYTES_MAX + 1, 2ULL * LOGRING_BYTES_MAX};
    struct logring r = {0};
    struct errmsg msg = {""};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(logring_create(&r, f.folder_fd, "other", sizes[i], &msg).code,
                         STATUS_INVALID);
    }
    assert_int_not_equal(faccessat(f.folder_fd, "other", F_OK, 0), 0);
}

static void read_survives_oom_unchanged(void **state)
{
    (void)state;
    put("abc");
    mem_fault(0, 1);
    struct status s = logring_read(&f.reader, &f.offset, 100, &f.out, &f.missed);
    assert_int_equal(mem_fault_clear(), 1);
    assert_int_equal(s.code, STATUS_NOMEM);
    assert_int_equal(f.offset, 0);
    assert_int_equal(f.missed, 0);
    assert_int_equal(f.out.size, 0);
}

static void a_file_cut_short_is_an_error_and_no_crash(void **state)
{
    (void)state;
    put("abc");
    assert_int_equal(truncate(f.path, 64), 0);
    assert_int_equal(logring_read(&f.reader, &f.offset, 100, &f.out, &f.missed).code, STATUS_IO);
    assert_int_equal(truncate(f.path, 3), 0);
    assert_int_equal(logring_read(&f.reader, &f.offset, 100, &f.out, &f.missed).code, STATUS_IO);
    assert_int_equal(logring_end(&f.reader), 0);
    assert_int_equal(f.out.size, 0);
}

static void a_header_that_lies_is_corrupt(void **state)
{
    (void)state;
    static const struct {
        size_t field;
        uint64_t value;
    } lies[] = {{1, 8192}, {1, 0}, {2, 0}, {2, UINT64_MAX}, {3, UINT64_MAX}, {3, 4}, {0, 1}};
    put("abc");
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        uint64_t header[4];
        uint64_t good[4];
        int fd = open(f.path, O_RDWR | O_CLOEXEC);
        assert_int_equal(pread(fd, good, sizeof good, 0), sizeof good);
        memcpy(header, good, sizeof header);
        header[lies[i].field] = lies[i].value;
        assert_int_equal(pwrite(fd, header, sizeof header, 0), sizeof header);
        assert_int_equal(logring_read(&f.reader, &f.offset, 100, &f.out, &f.missed).code,
                         STATUS_CORRUPT);
        assert_int_equal(pwrite(fd, good, sizeof good, 0), sizeof good);
        (void)close(fd);
    }
}

static void what_is_no_ring_is_not_opened(void **state)
{
    (void)state;
    struct logring r = {0};
    struct errmsg msg = {""};
    assert_int_equal(logring_open(&r, "/dev/null", &msg).code, STATUS_CORRUPT);
    assert_int_equal(logring_open(&r, f.folder, &msg).code, STATUS_CORRUPT);
    assert_int_equal(logring_open(&r, "/nonexistent/log", &msg).code, STATUS_NOT_FOUND);
    assert_int_equal(truncate(f.path, 100), 0);
    assert_int_equal(logring_open(&r, f.path, &msg).code, STATUS_CORRUPT);
    assert_int_equal(r.ring_bytes, 0);
}

/* A reader in another process never sees a byte that was not written at that offset. */
static void a_racing_reader_sees_only_what_was_written(void **state)
{
    (void)state;
    enum { CHUNK = 777, CHUNKS = 3000 };
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        for (uint64_t i = 0; i < CHUNKS; i++) {
            put_pattern(i * CHUNK, CHUNK);
        }
        _exit(0);
    }
    uint64_t seen = 0;
    while (f.offset < (uint64_t)CHUNK * CHUNKS) {
        get(1 << 20);
        assert_pattern(f.offset - f.out.size);
        seen += f.out.size;
    }
    assert_int_equal(seen + f.missed, (uint64_t)CHUNK * CHUNKS);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

#define RING_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RING_TEST(a_reader_follows),
        RING_TEST(what_was_overwritten_is_counted),
        RING_TEST(a_ring_full_to_the_byte_misses_nothing),
        RING_TEST(a_write_over_the_ring_size_keeps_its_end),
        RING_TEST(an_offset_beyond_the_end_is_set_back),
        RING_TEST(a_later_writer_goes_on),
        RING_TEST(another_size_starts_anew),
        RING_TEST(sizes_out_of_bounds_are_invalid),
        RING_TEST(read_survives_oom_unchanged),
        RING_TEST(a_file_cut_short_is_an_error_and_no_crash),
        RING_TEST(a_header_that_lies_is_corrupt),
        RING_TEST(what_is_no_ring_is_not_opened),
        RING_TEST(a_racing_reader_sees_only_what_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
