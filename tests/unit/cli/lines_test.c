#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/lines.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

struct pipe_lines {
    struct lines lines;
    int write_fd;
};

static struct pipe_lines fixture;

static int setup(void **state)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return -1;
    }
    fixture =
        (struct pipe_lines){.lines = {.fd = fds[0], .line_bytes_max = 10}, .write_fd = fds[1]};
    *state = &fixture;
    return 0;
}

static void end(struct pipe_lines *p)
{
    if (p->write_fd >= 0) {
        assert_int_equal(close(p->write_fd), 0);
        p->write_fd = -1;
    }
}

static int teardown(void **state)
{
    struct pipe_lines *p = *state;
    end(p);
    lines_close(&p->lines);
    return close(p->lines.fd);
}

static void put(const struct pipe_lines *p, const char *text)
{
    assert_int_equal(write(p->write_fd, text, strlen(text)), strlen(text));
}

static enum lines_next take(struct pipe_lines *p, bool wait, struct bytes *line)
{
    struct status failed = status_ok();
    struct errmsg msg = {.text = ""};
    return lines_take(&p->lines, wait, line, &failed, &msg);
}

static void expect_line(struct pipe_lines *p, const char *text)
{
    struct bytes line = {0};
    assert_int_equal(take(p, false, &line), LINES_LINE);
    assert_int_equal(line.size, strlen(text));
    assert_memory_equal(line.data, text, line.size);
}

static void lines_come_as_they_are_written(void **state)
{
    struct pipe_lines *p = *state;
    struct bytes line;
    assert_int_equal(take(p, false, &line), LINES_LATER);
    put(p, "one\ntw");
    expect_line(p, "one");
    assert_int_equal(p->lines.number, 1);
    assert_int_equal(p->lines.bytes, 4);
    assert_int_equal(take(p, false, &line), LINES_LATER);
    put(p, "o\n\nthree");
    expect_line(p, "two");
    expect_line(p, "");
    assert_int_equal(take(p, false, &line), LINES_LATER);
    end(p);
    expect_line(p, "three");
    assert_int_equal(p->lines.number, 4);
    assert_int_equal(take(p, false, &line), LINES_END);
    assert_int_equal(take(p, false, &line), LINES_END);
}

static void a_last_newline_begins_no_line(void **state)
{
    struct pipe_lines *p = *state;
    struct bytes line;
    put(p, "a\n");
    end(p);
    expect_line(p, "a");
    assert_int_equal(take(p, true, &line), LINES_END);
}

static void nothing_at_all_is_no_line(void **state)
{
    struct pipe_lines *p = *state;
    struct bytes line;
    end(p);
    assert_int_equal(take(p, true, &line), LINES_END);
    assert_int_equal(p->lines.number, 0);
}

static void zero_bytes_are_bytes(void **state)
{
    struct pipe_lines *p = *state;
    struct bytes line;
    assert_int_equal(write(p->write_fd, "a\0b\n", 4), 4);
    assert_int_equal(take(p, true, &line), LINES_LINE);
    assert_int_equal(line.size, 3);
    assert_memory_equal(line.data, "a\0b", 3);
}

static void the_longest_line_is_allowed_and_one_byte_more_is_named(void **state)
{
    struct pipe_lines *p = *state;
    struct bytes line;
    struct status failed = status_ok();
    struct errmsg msg = {.text = ""};
    put(p, "0123456789\nx\n0123456789a\n");
    expect_line(p, "0123456789");
    expect_line(p, "x");
    assert_int_equal(lines_take(&p->lines, false, &line, &failed, &msg), LINES_FAILED);
    assert_int_equal(failed.code, STATUS_INVALID);
    assert_string_equal(msg.text, "line 3 has more than 10 bytes");
}

static void a_line_that_never_ends_is_refused_before_its_end(void **state)
{
    struct pipe_lines *p = *state;
    struct bytes line;
    struct status failed = status_ok();
    struct errmsg msg = {.text = ""};
    put(p, "ok\n0123456789abc");
    expect_line(p, "ok");
    assert_int_equal(lines_take(&p->lines, true, &line, &failed, &msg), LINES_FAILED);
    assert_string_equal(msg.text, "line 2 has more than 10 bytes");
}

static void what_cannot_be_read_is_told(void **state)
{
    (void)state;
    struct lines l = {.fd = open("/", O_RDONLY | O_CLOEXEC), .line_bytes_max = 10};
    struct bytes line;
    struct status failed = status_ok();
    struct errmsg msg = {.text = ""};
    assert_true(l.fd >= 0);
    assert_int_equal(lines_take(&l, true, &line, &failed, &msg), LINES_FAILED);
    assert_int_equal(failed.code, STATUS_IO);
    assert_string_equal(msg.text, "standard input: Is a directory");
    assert_int_equal(close(l.fd), 0);
    lines_close(&l);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(lines_come_as_they_are_written),
        T(a_last_newline_begins_no_line),
        T(nothing_at_all_is_no_line),
        T(zero_bytes_are_bytes),
        T(the_longest_line_is_allowed_and_one_byte_more_is_named),
        T(a_line_that_never_ends_is_refused_before_its_end),
        cmocka_unit_test(what_cannot_be_read_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
