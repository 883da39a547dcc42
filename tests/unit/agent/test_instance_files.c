#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/cell/cell.h"
#include "agent/instance_files.h"
#include "common/mem.h"
#include "common/package.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64];

static int setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/skep-files-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    return !status_is_ok(package_remove(folder, NULL));
}

static struct function_spec spec_of(const char *runtime, const char *handler)
{
    return (struct function_spec){
        .name = "thumb",
        .runtime = runtime,
        .handler = handler,
        .cpu_millis = 500,
        .memory_bytes = 64 << 20,
        .concurrency = 4,
        .timeout_ms = 9000,
    };
}

static const struct instance_place place = {.code = "/data/code/abc",
                                            .runners = "/opt/runners",
                                            .root = NULL,
                                            .node = "n1",
                                            .cgroup = "skep/n1/i"};

static struct status write_files(struct function_spec *spec, struct errmsg *msg)
{
    const struct start s = {.instance = {7 << 16, 9}, .spec = spec};
    struct instance_meta meta;
    instance_meta_of(&s, place.cgroup, &meta);
    meta.uid = 2000000007;
    return instance_files_write(folder, &s, &place, &meta, msg);
}

static void read_spec(struct cell_spec *out)
{
    char path[128];
    static char text[CELL_SPEC_BYTES_MAX];
    struct errmsg msg = {{0}};
    (void)snprintf(path, sizeof path, "%s/spec.json", folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n = read(fd, text, sizeof text);
    assert_int_equal(close(fd), 0);
    struct status s = cell_spec_decode(bytes_of(text, (size_t)n), out, &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(s));
}

static bool has_env(const struct cell_spec *s, const char *text)
{
    for (size_t i = 0; i < s->env_count; i++) {
        if (strcmp(s->env[i], text) == 0) {
            return true;
        }
    }
    return false;
}

static void a_function_becomes_a_cell(void **state)
{
    (void)state;
    struct function_spec spec = spec_of("python", "thumb.py:resize");
    struct pair env[] = {{.key = "COLOUR", .value = "red"}, {.key = "HOME", .value = "/app"}};
    spec.env = env;
    spec.env_count = 2;
    assert_true(status_is_ok(write_files(&spec, NULL)));
    struct cell_spec cell;
    read_spec(&cell);
    assert_string_equal(cell.hostname, "n1");
    assert_string_equal(cell.mounts[0].source, "/data/code/abc");
    assert_string_equal(cell.mounts[0].target, "/app");
    assert_string_equal(cell.args[cell.args_count - 1], "thumb.py:resize");
    assert_int_equal(cell.memory_bytes, 64 << 20);
    assert_true(cell.pids_max > 0);
    assert_true(has_env(&cell, "COLOUR=red"));
    assert_true(has_env(&cell, "HOME=/app"));
    assert_false(has_env(&cell, "HOME=/tmp"));
    assert_true(has_env(&cell, "SKEP_CONCURRENCY=4"));
    assert_true(has_env(&cell, "SKEP_FUNCTION=thumb"));
    cell_spec_close(&cell);
}

static void a_command_keeps_its_words(void **state)
{
    (void)state;
    struct function_spec spec = spec_of("command", "");
    struct text words[] = {{.text = "./thumb"}, {.text = "-"}};
    spec.command = words;
    spec.command_count = 2;
    assert_true(status_is_ok(write_files(&spec, NULL)));
    struct cell_spec cell;
    read_spec(&cell);
    assert_string_equal(cell.args[cell.args_count - 2], "./thumb");
    assert_string_equal(cell.args[cell.args_count - 1], "-");
    cell_spec_close(&cell);
}

static void a_handler_outside_the_code_is_refused(void **state)
{
    (void)state;
    struct errmsg msg = {{0}};
    struct function_spec spec = spec_of("c", "../../bin/sh");
    assert_int_equal(write_files(&spec, &msg).code, STATUS_INVALID);
    assert_non_null(strstr(msg.text, "handler"));
}

static void a_command_of_too_many_words_is_refused(void **state)
{
    (void)state;
    struct function_spec spec = spec_of("command", "");
    struct text words[200];
    for (size_t i = 0; i < 200; i++) {
        words[i].text = "x";
    }
    spec.command = words;
    spec.command_count = 200;
    assert_int_equal(write_files(&spec, NULL).code, STATUS_LIMIT);
}

static void meta_reads_back(void **state)
{
    (void)state;
    struct function_spec spec = spec_of("c", "thumb");
    assert_true(status_is_ok(write_files(&spec, NULL)));
    struct instance_meta m;
    assert_true(status_is_ok(instance_meta_read(folder, &m, NULL)));
    assert_int_equal(m.instance.low, 9);
    assert_string_equal(m.function.text, "thumb");
    assert_int_equal(m.concurrency, 4);
    assert_int_equal(m.cpu_millis, 500);
    assert_int_equal(m.memory_bytes, 64 << 20);
    assert_int_equal(m.timeout_ms, 9000);
    assert_string_equal(m.cgroup, "skep/n1/i");
    assert_int_equal(m.uid, 2000000007);
}

static void expect_corrupt(const char *text)
{
    struct instance_meta m;
    struct errmsg msg = {{0}};
    assert_int_equal(instance_meta_decode(bytes_of(text, strlen(text)), &m, &msg).code,
                     STATUS_CORRUPT);
    assert_non_null(strstr(msg.text, "meta.json"));
}

#define META(concurrency, extra)                                                                   \
    "{\"instance\":\"i-00000000010000000000000001\",\"revision\":"                                 \
    "\"0000000000000000000000000000000000000000000000000000000000000000\",\"function\":\"f\","     \
    "\"concurrency\":" concurrency                                                                 \
    ",\"cpu_millis\":1,\"memory_bytes\":1,\"timeout_ms\":1,\"cgroup\":\"\"" extra "}"

static void meta_that_is_none_is_refused(void **state)
{
    (void)state;
    struct instance_meta m;
    const char *good = META("1", "");
    assert_true(status_is_ok(instance_meta_decode(bytes_of(good, strlen(good)), &m, NULL)));
    assert_int_equal(m.uid, 0); /* of an agent of before */
    expect_corrupt("");
    expect_corrupt("{}");
    expect_corrupt("[1]");
    expect_corrupt(META("0", ""));
    expect_corrupt(META("1025", ""));
    expect_corrupt(META("\"1\"", ""));
    expect_corrupt(META("1", ",\"more\":1"));
    expect_corrupt(META("1", ",\"uid\":-1"));
    expect_corrupt(META("1", ",\"uid\":4294967296"));
    expect_corrupt(META("1", ",\"gpus\":1"));
    expect_corrupt(META("1", ",\"gpus\":[1]"));
    good = META("1", ",\"gpus\":[\"GPU-1\",\"GPU-2\"]");
    assert_true(status_is_ok(instance_meta_decode(bytes_of(good, strlen(good)), &m, NULL)));
    assert_int_equal(m.gpus_count, 2);
    assert_string_equal(m.gpus[1], "GPU-2");
}

static void meta_has_a_limit(void **state)
{
    (void)state;
    char *big = malloc(INSTANCE_META_BYTES_MAX + 2);
    memset(big, ' ', INSTANCE_META_BYTES_MAX + 1);
    big[INSTANCE_META_BYTES_MAX + 1] = '\0';
    expect_corrupt(big);
    free(big);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_function_becomes_a_cell),
        T(a_command_keeps_its_words),
        T(a_handler_outside_the_code_is_refused),
        T(a_command_of_too_many_words_is_refused),
        T(meta_reads_back),
        T(meta_that_is_none_is_refused),
        T(meta_has_a_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
