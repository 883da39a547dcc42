/* spec.json and exit.json: what is written is read back, and every mistake is named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/cell/cell.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>

static const char small[] =
    "{\"instance\": \"i-1\", \"args\": [\"/bin/true\"], \"memory_bytes\": 67108864,"
    " \"cpu_millis\": 100, \"pids_max\": 4, \"tmp_bytes\": 4096%s}";

static struct status decode(const char *text, struct cell_spec *spec, struct errmsg *msg)
{
    msg->text[0] = '\0';
    return cell_spec_decode(bytes_of(text, strlen(text)), spec, msg);
}

/* The small specification with more keys decodes to this message, and the target stays as it was.
 * */
static void assert_refused(const char *more, enum status_code code, const char *message)
{
    char text[8192];
    struct cell_spec spec;
    struct cell_spec before;
    struct errmsg msg;
    (void)snprintf(text, sizeof text, small, more);
    memset(&spec, 0x5a, sizeof spec);
    before = spec;
    struct status s = decode(text, &spec, &msg);
    if (s.code != code || strstr(msg.text, message) == NULL) {
        fail_msg("%s: %s \"%s\", not \"%s\"", more, status_name(s.code), msg.text, message);
    }
    assert_memory_equal(&spec, &before, sizeof spec);
}

static void a_small_spec_has_defaults(void **state)
{
    (void)state;
    char text[1024];
    struct cell_spec spec;
    struct errmsg msg;
    (void)snprintf(text, sizeof text, small, "");
    assert_true(status_is_ok(decode(text, &spec, &msg)));
    assert_string_equal(spec.instance, "i-1");
    assert_int_equal(spec.args_count, 1);
    assert_string_equal(spec.args[0], "/bin/true");
    assert_null(spec.args[1]);
    assert_int_equal(spec.env_count, 0);
    assert_int_equal(spec.files_max, 0);
    assert_int_equal(spec.stop_ms, 0);
    assert_string_equal(spec.cgroup, "");
    cell_spec_close(&spec);
    cell_spec_close(&spec);
}

static void fill(struct cell_spec *spec, struct cell_mount mounts[2], char **args, char **env)
{
    memset(spec, 0, sizeof *spec);
    (void)snprintf(spec->instance, sizeof spec->instance, "i-01J00000000000000000000000");
    (void)snprintf(spec->hostname, sizeof spec->hostname, "hive-1");
    (void)snprintf(spec->root, sizeof spec->root, "/var/lib/images/x");
    (void)snprintf(spec->workdir, sizeof spec->workdir, "/app");
    (void)snprintf(spec->cgroup, sizeof spec->cgroup, "skep/node/i-1");
    (void)snprintf(spec->netns, sizeof spec->netns, "/var/lib/skep/netns/i-1");
    (void)snprintf(mounts[0].source, sizeof mounts[0].source, "/srv/code \"q\"");
    (void)snprintf(mounts[0].target, sizeof mounts[0].target, "/app");
    (void)snprintf(mounts[1].source, sizeof mounts[1].source, "/usr/lib/skep");
    (void)snprintf(mounts[1].target, sizeof mounts[1].target, "/opt/skep");
    spec->mounts = mounts;
    spec->mounts_count = 2;
    spec->args = args;
    spec->args_count = 2;
    spec->env = env;
    spec->env_count = 1;
    spec->memory_bytes = 1ULL << 40;
    spec->cpu_millis = 2500;
    spec->pids_max = 100;
    spec->tmp_bytes = 1 << 20;
    spec->files_max = 4096;
    spec->log_bytes = 65536;
    spec->stop_ms = 1500;
    spec->uid = 100007;
    spec->walls_not_needed = WALL_BIT(LANDLOCK) | WALL_BIT(CGROUP_IO);
    spec->io_bps = 1 << 20;
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    struct cell_mount mounts[2] = {0};
    char *args[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "\n\t\\ \xc3\xa9"};
    char *env[] = {(char *)(uintptr_t) "KEY=va=lue"};
    static struct cell_spec spec;
    static struct cell_spec back;
    struct buffer json = {0};
    struct errmsg msg = {""};
    fill(&spec, mounts, args, env);
    assert_true(status_is_ok(cell_spec_encode(&spec, &json, &msg)));
    struct status s = cell_spec_decode(bytes_of(json.data, json.size), &back, &msg);
    if (!status_is_ok(s)) {
        fail_msg("%s", msg.text);
    }
    assert_string_equal(back.hostname, spec.hostname);
    assert_string_equal(back.root, spec.root);
    assert_string_equal(back.workdir, spec.workdir);
    assert_string_equal(back.cgroup, spec.cgroup);
    assert_string_equal(back.netns, spec.netns);
    assert_int_equal(back.mounts_count, 2);
    assert_string_equal(back.mounts[0].source, mounts[0].source);
    assert_string_equal(back.mounts[1].target, mounts[1].target);
    assert_int_equal(back.args_count, 2);
    assert_string_equal(back.args[1], args[1]);
    assert_string_equal(back.env[0], env[0]);
    assert_int_equal(back.memory_bytes, spec.memory_bytes);
    assert_int_equal(back.cpu_millis, 2500);
    assert_int_equal(back.walls_not_needed, WALL_BIT(LANDLOCK) | WALL_BIT(CGROUP_IO));
    assert_int_equal(back.io_bps, 1 << 20);
    assert_int_equal(back.pids_max, 100);
    assert_int_equal(back.tmp_bytes, 1 << 20);
    assert_int_equal(back.files_max, 4096);
    assert_int_equal(back.log_bytes, 65536);
    assert_int_equal(back.stop_ms, 1500);
    assert_int_equal(back.uid, 100007);
    cell_spec_close(&back);
    buffer_close(&json);
}

static void a_text_that_is_not_utf8_is_refused_by_name(void **state)
{
    (void)state;
    struct cell_mount mounts[2] = {0};
    char *args[] = {(char *)(uintptr_t) "/bin/sh", (char *)(uintptr_t) "x"};
    char *env[] = {(char *)(uintptr_t) "KEY=\xff\xfe"};
    static struct cell_spec spec;
    struct buffer json = {0};
    struct errmsg msg = {""};
    fill(&spec, mounts, args, env);
    assert_int_equal(cell_spec_encode(&spec, &json, &msg).code, STATUS_INVALID);
    assert_string_equal(msg.text, "env[0]: not UTF-8");
    assert_int_equal(json.size, 0);
    buffer_close(&json);
}

static void every_required_key_is_missed_by_name(void **state)
{
    (void)state;
    static const char *const keys[] = {"instance",   "args",     "memory_bytes",
                                       "cpu_millis", "pids_max", "tmp_bytes"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char text[1024];
        char want[64];
        struct cell_spec spec;
        struct errmsg msg;
        (void)snprintf(text, sizeof text, small, "");
        char *at = strstr(text, keys[i]);
        assert_non_null(at);
        at[0] = 'X'; /* Now it is another key. */
        assert_int_equal(decode(text, &spec, &msg).code, STATUS_INVALID);
        (void)snprintf(want, sizeof want, "%s: required", keys[i]);
        assert_string_equal(msg.text, want);
    }
}

static void mistakes_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *more;
        enum status_code code;
        const char *message;
    } rows[] = {
        {", \"colour\": 1", STATUS_INVALID, "unknown key colour"},
        {", \"uid\": \"root\"", STATUS_INVALID, "uid: a whole number"},
        {", \"uid\": -1", STATUS_INVALID, "uid: a whole number"},
        {", \"uid\": 4294967295", STATUS_INVALID, "uid: 4294967295 is outside 1-4294967294"},
        {", \"files_max\": 8", STATUS_INVALID, "files_max: 8 is outside 16-1048576"},
        {", \"stop_ms\": 600001", STATUS_INVALID, "stop_ms: 600001 is outside"},
        {", \"log_bytes\": 5000", STATUS_INVALID, "log_bytes: 5000 is not a power of two"},
        {", \"log_bytes\": 1024", STATUS_INVALID, "log_bytes: 1024 is outside"},
        {", \"stop_ms\": 1.5", STATUS_INVALID, "stop_ms: a whole number"},
        {", \"env\": {}", STATUS_INVALID, "env: a list"},
        {", \"env\": [\"NOVALUE\"]", STATUS_INVALID, "env[0]: not KEY=VALUE"},
        {", \"env\": [\"A=1\", \"=x\"]", STATUS_INVALID, "env[1]: not KEY=VALUE"},
        {", \"env\": [7]", STATUS_INVALID, "env[0]: a string"},
        {", \"hostname\": \"a/b\"", STATUS_INVALID, "hostname: "},
        {", \"hostname\": 5", STATUS_INVALID, "hostname: a string"},
        {", \"workdir\": \"app\"", STATUS_INVALID, "workdir: not a plain path"},
        {", \"workdir\": \"/app/../etc\"", STATUS_INVALID, "workdir: not a plain path"},
        {", \"root\": \"/\"", STATUS_INVALID, "root: not a plain path"},
        {", \"root\": \"/a//b\"", STATUS_INVALID, "root: not a plain path"},
        {", \"root\": \"/a/./b\"", STATUS_INVALID, "root: not a plain path"},
        {", \"root\": \"/a/\"", STATUS_INVALID, "root: not a plain path"},
        {", \"cgroup\": \"/skep\"", STATUS_INVALID, "cgroup: not a plain relative path"},
        {", \"cgroup\": \"a/../b\"", STATUS_INVALID, "cgroup: not a plain relative path"},
        {", \"cgroup\": \"..\"", STATUS_INVALID, "cgroup: not a plain relative path"},
        {", \"mounts\": [1]", STATUS_INVALID, "mounts[0]: an object"},
        {", \"mounts\": [{\"source\": \"/a\", \"mode\": 1}]", STATUS_INVALID,
         "mounts[0]: unknown key mode"},
        {", \"mounts\": [{\"source\": \"/a\"}]", STATUS_INVALID, "mounts[0].target: not a plain"},
        {", \"mounts\": [{\"source\": \"a\", \"target\": \"/b\"}]", STATUS_INVALID,
         "mounts[0].source: not a plain"},
        {", \"mounts\": [{\"source\": 1, \"target\": \"/b\"}]", STATUS_INVALID,
         "mounts[0]: source: a string"},
        {", \"mounts\": [{\"source\": \"/a\", \"target\": \"/proc/x\"}]", STATUS_INVALID,
         "mounts[0].target: /proc is the cell's own"},
        {", \"mounts\": [{\"source\": \"/a\", \"target\": \"/tmp\"}]", STATUS_INVALID,
         "mounts[0].target: /tmp is the cell's own"},
        {", \"mounts\": [{\"source\": \"/a\", \"target\": \"/b\"},"
         " {\"source\": \"/c\", \"target\": \"/b\"}]",
         STATUS_INVALID, "mounts[1].target: /b is there twice"},
        {", \"devices\": [{\"source\": \"/dev/x\", \"target\": \"/etc/x\"}]", STATUS_INVALID,
         "devices[0].target: not a plain path below /dev"},
        {", \"devices\": [{\"source\": \"/dev/x\", \"target\": \"/dev\"}]", STATUS_INVALID,
         "devices[0].target: not a plain path below /dev"},
        {", \"devices\": [{\"source\": \"x\", \"target\": \"/dev/x\"}]", STATUS_INVALID,
         "devices[0].source: not a plain path"},
        {", \"devices\": [{\"source\": \"/dev/x\", \"target\": \"/dev/null\"}]", STATUS_INVALID,
         "devices[0].target: /dev/null is the cell's own"},
        {", \"devices\": [{\"source\": \"/dev/x\", \"target\": \"/dev/shm/x\"}]", STATUS_INVALID,
         "devices[0].target: /dev/shm/x is the cell's own"},
        {", \"devices\": [{\"source\": \"/dev/x\", \"target\": \"/dev/x\"},"
         " {\"source\": \"/dev/y\", \"target\": \"/dev/x/y\"}]",
         STATUS_INVALID, "devices[1].target: /dev/x/y is there twice"},
        {", \"gpu\": 2", STATUS_INVALID, "gpu: 2 is outside 1-1"},
        {", \"pids_max\": 4", STATUS_INVALID, "duplicate"},
        {", \"root\": \"/a\\u0000b\"", STATUS_INVALID, "spec: line 1"},
        {",", STATUS_INVALID, "spec: line 1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_refused(rows[i].more, rows[i].code, rows[i].message);
    }
}

static void targets_beside_the_cells_own_are_fine(void **state)
{
    (void)state;
    char text[1024];
    struct cell_spec spec;
    struct errmsg msg;
    (void)snprintf(text, sizeof text, small,
                   ", \"mounts\": [{\"source\": \"/a\", \"target\": \"/tmpfoo\"}]");
    assert_true(status_is_ok(decode(text, &spec, &msg)));
    cell_spec_close(&spec);
}

static void limits_are_reached_and_then_refused(void **state)
{
    (void)state;
    static char more[32768];
    size_t size = (size_t)snprintf(more, sizeof more, ", \"env\": [\"A=0\"");
    for (int i = 1; i < CELL_ENV_MAX; i++) {
        size += (size_t)snprintf(more + size, sizeof more - size, ", \"A=%d\"", i);
    }
    static char text[65536];
    static struct cell_spec spec;
    struct errmsg msg;
    char tail[] = "]";
    (void)snprintf(more + size, sizeof more - size, "%s", tail);
    (void)snprintf(text, sizeof text, small, more);
    assert_true(status_is_ok(decode(text, &spec, &msg)));
    assert_int_equal(spec.env_count, CELL_ENV_MAX);
    cell_spec_close(&spec);
    (void)snprintf(more + size, sizeof more - size, ", \"A=last\"]");
    (void)snprintf(text, sizeof text, small, more);
    assert_int_equal(decode(text, &spec, &msg).code, STATUS_LIMIT);
    assert_string_equal(msg.text, "env: 129 entries, at most 128");
}

static void a_text_is_bounded(void **state)
{
    (void)state;
    static char text[16384];
    static char value[CELL_STRING_BYTES_MAX + 1];
    static struct cell_spec spec;
    struct errmsg msg;
    memset(value, 'a', CELL_STRING_BYTES_MAX - 1);
    value[0] = '/';
    char more[CELL_STRING_BYTES_MAX + 64];
    (void)snprintf(more, sizeof more, ", \"root\": \"%s\"", value);
    (void)snprintf(text, sizeof text, small, more);
    assert_true(status_is_ok(decode(text, &spec, &msg)));
    cell_spec_close(&spec);
    value[CELL_STRING_BYTES_MAX - 1] = 'a';
    (void)snprintf(more, sizeof more, ", \"root\": \"%s\"", value);
    (void)snprintf(text, sizeof text, small, more);
    assert_int_equal(decode(text, &spec, &msg).code, STATUS_LIMIT);
    assert_string_equal(msg.text, "root: 4096 bytes, at most 4095");
}

static void a_spec_over_its_size_is_refused_unread(void **state)
{
    (void)state;
    struct cell_spec spec;
    struct errmsg msg = {""};
    struct bytes large = {(const uint8_t *)"{", CELL_SPEC_BYTES_MAX + 1};
    assert_int_equal(cell_spec_decode(large, &spec, &msg).code, STATUS_LIMIT);
}

static void decode_survives_oom(void **state)
{
    (void)state;
    char text[1024];
    static struct cell_spec spec;
    struct errmsg msg;
    (void)snprintf(text, sizeof text, small,
                   ", \"env\": [\"A=1\"], \"mounts\": [{\"source\": \"/a\", \"target\": \"/b\"}]");
    unsigned failures = 0;
    for (unsigned delay = 0;; delay++) {
        mem_fault(delay, 1);
        struct status s = decode(text, &spec, &msg);
        if (mem_fault_clear() == 0) {
            assert_true(status_is_ok(s));
            cell_spec_close(&spec);
            break;
        }
        assert_int_equal(s.code, STATUS_NOMEM);
        failures++;
    }
    assert_true(failures >= 5);
}

static void an_exit_report_is_read_back(void **state)
{
    (void)state;
    for (unsigned end = 0; end < CELL_ENDS_COUNT_; end++) {
        struct cell_event event = {.end = end,
                                   .detail = -3,
                                   .pid = 77,
                                   .startup_us = 1234,
                                   .memory_peak_bytes = 1ULL << 33,
                                   .pids_limit_hits = 9,
                                   .message = "step x \"quoted\" \\ \n\xff"};
        struct cell_event back;
        struct buffer json = {0};
        struct errmsg msg = {""};
        assert_true(status_is_ok(cell_exit_encode(&event, &json)));
        struct status s = cell_exit_decode(bytes_of(json.data, json.size), &back, &msg);
        if (!status_is_ok(s)) {
            fail_msg("%s", msg.text);
        }
        assert_int_equal(back.kind, CELL_EVENT_EXITED);
        assert_int_equal(back.end, end);
        assert_int_equal(back.detail, -3);
        assert_int_equal(back.pid, 77);
        assert_int_equal(back.startup_us, 1234);
        assert_int_equal(back.memory_peak_bytes, 1ULL << 33);
        assert_int_equal(back.pids_limit_hits, 9);
        assert_string_equal(back.message, "step x ?quoted? ? ??");
        buffer_close(&json);
    }
}

static void a_wrong_exit_report_is_refused_by_key(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"{}", "end: a string"},
        {"{\"end\": \"tired\"}", "end: unknown name"},
        {"{\"end\": \"exit\", \"detail\": 1e3}", "detail: not a number"},
        {"{\"end\": \"exit\", \"detail\": 2147483648}", "detail: not a number"},
        {"{\"end\": \"exit\", \"detail\": 0, \"pid\": -1}", "pid: not a number"},
        {"[]", "end: a string"},
        {"", "exit report: line"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cell_event event;
        struct errmsg msg = {""};
        struct bytes text = bytes_of(rows[i][0], strlen(rows[i][0]));
        assert_int_equal(cell_exit_decode(text, &event, &msg).code, STATUS_INVALID);
        if (strstr(msg.text, rows[i][1]) == NULL) {
            fail_msg("\"%s\" does not say \"%s\"", msg.text, rows[i][1]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_spec_has_defaults),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(a_text_that_is_not_utf8_is_refused_by_name),
        cmocka_unit_test(every_required_key_is_missed_by_name),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(targets_beside_the_cells_own_are_fine),
        cmocka_unit_test(limits_are_reached_and_then_refused),
        cmocka_unit_test(a_text_is_bounded),
        cmocka_unit_test(a_spec_over_its_size_is_refused_unread),
        cmocka_unit_test(decode_survives_oom),
        cmocka_unit_test(an_exit_report_is_read_back),
        cmocka_unit_test(a_wrong_exit_report_is_refused_by_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
