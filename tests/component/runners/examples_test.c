/* The examples under docs/examples, run by their runners without a cluster. */
#include "tests/component/runners/harness.h"

#include <endian.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { FILE_BYTES_MAX = 1 << 20, PNG_HEAD_BYTES = 24 };

/* Sends a file as the input of invocation 1. */
static void invoke_file(struct harness *h, const char *path)
{
    uint8_t *data = malloc(FILE_BYTES_MAX);
    assert_non_null(data);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t size = read(fd, data, FILE_BYTES_MAX);
    (void)close(fd);
    assert_in_range(size, 1, FILE_BYTES_MAX - 1);
    harness_send(h, RUNNER_INVOKE, 1, 60000, data, (size_t)size);
    free(data);
}

static void hello_greets(void **state)
{
    (void)state;
    static const char *const argv[] = {EXAMPLES "/hello/hello", NULL};
    static const char *const env[] = {"SKEP_CONCURRENCY=64", NULL};
    struct harness h;
    harness_ready(&h, argv, env, 64);
    harness_expect_log(&h, "hello is ready");
    harness_invoke(&h, 1, "Ada");
    harness_expect(&h, 1, STATUS_OK, "hello, Ada\n");
    harness_invoke(&h, 2, "");
    harness_expect(&h, 2, STATUS_OK, "hello, world\n");
    char name[102];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    harness_invoke(&h, 3, name);
    harness_expect(&h, 3, STATUS_FAILED, "a name has at most 100 bytes, this one has 101");
    harness_stop(&h);
}

static uint32_t big_endian(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return be32toh(value);
}

static void thumbnail_makes_a_small_png(void **state)
{
    (void)state;
    static const char *const argv[] = {
        "/usr/bin/python3", "-I", "-B", PYTHON_RUNNER, EXAMPLES "/thumbnail",
        "thumb.py:resize",  NULL};
    static const char *const env[] = {"SIDE=160", NULL};
    struct harness h;
    harness_ready(&h, argv, env, 1);
    invoke_file(&h, EXAMPLES "/thumbnail/skep.jpg");
    const struct runner_frame *f = harness_receive(&h);
    assert_int_equal(f->status, STATUS_OK);
    assert_true(f->data.size > PNG_HEAD_BYTES);
    assert_memory_equal(f->data.data, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16);
    assert_int_equal(big_endian(f->data.data + 16), 160);
    assert_int_equal(big_endian(f->data.data + 20), 120);
    harness_expect_log(&h, "160x120");
    harness_invoke(&h, 2, "not a picture");
    harness_expect_prefix(&h, 2, STATUS_FAILED, "PIL.UnidentifiedImageError: ");
    harness_stop(&h);
}

static void wordcount_counts(void **state)
{
    (void)state;
    static const char *const argv[] = {COMMAND_RUNNER, "--", EXAMPLES "/wordcount/wordcount.sh",
                                       NULL};
    struct harness h;
    harness_ready(&h, argv, NULL, 1);
    invoke_file(&h, EXAMPLES "/wordcount/story.txt");
    harness_expect(&h, 1, STATUS_OK,
                   "72 the\n38 and\n30 a\n28 of\n17 in\n15 is\n14 she\n13 it\n13 one\n13 them\n"
                   "lines 82\nwords 881\ndistinct 314\n");
    harness_invoke(&h, 2, "");
    harness_expect(&h, 2, STATUS_FAILED, "exit code 1: no words in the input");
    harness_stop(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_greets),
        cmocka_unit_test(thumbnail_makes_a_small_png),
        cmocka_unit_test(wordcount_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
