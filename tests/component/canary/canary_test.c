/* The canary: every check that can get through outside of a cell is seen to do so, and inside of
 * one none does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/bait.h"
#include "agent/canary/canary.h"
#include "agent/canary_report.h"
#include "agent/runners/channel.h"
#include "tests/component/cell/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Outside ---- */

/* Checks that may find nothing to get through to on the machine of the test, and why. */
static const char *const may_hold[] = {
    "set-uid-files", /* /usr may be mounted nosuid */
    "bpf",           /* a container's filter may refuse these */
    "perf",
    "io-uring",
    "userfaultfd",
    "host-key",
    "keyrings",
    "kernel-modules",
    "kexec",
    "kernel-log",
    "swap",
    "io-ports",
    "32-bit-calls", /* the kernel may lack them */
    "personality",
    "host-file-handle",
    "other-sockets",
    "sysrq", /* /proc may be masked */
    "core-pattern",
    "cgroups",
    "proc-kallsyms",
    "proc-sched",
    "proc-interrupts",
    "proc-memory",
    "proc-keys",
    "proc-hardware",
    "sys-files",
    "device-nodes",
    "device-memory", /* the machine may have no such device */
    "device-control",
    "device-disks",
    "device-others",
    "user-namespaces", /* may be turned off */
    "trace-agent",     /* yama */
    "groups",          /* root may be in none */
};

static bool may_hold_outside(const char *name)
{
    for (size_t i = 0; i < sizeof may_hold / sizeof may_hold[0]; i++) {
        if (strcmp(may_hold[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* A network of our own, where the metadata address answers and a second interface is. */
static bool network_make(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq up = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_LOOPBACK};
    struct ifreq alias = {.ifr_name = "lo:1"};
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xa9fea9fe)};
    memcpy(&alias.ifr_addr, &at, sizeof at);
    bool made = ioctl(fd, SIOCSIFFLAGS, &up) == 0 && ioctl(fd, SIOCSIFADDR, &alias) == 0;
    (void)close(fd);
    int tun = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    struct ifreq tap = {.ifr_name = "bait0", .ifr_flags = 1 /* IFF_TUN */};
    /* Stays open: the interface goes with it. */
    if (tun < 0 || ioctl(tun, _IOW('T', 202, int), &tap) != 0) {
        (void)fprintf(stderr, "no second interface\n");
    }
    return made;
}

/* The bait of the other cell, laid where this process is. */
static bool other_lay(const struct bait *b)
{
    char text[4 * BAIT_TEXT_BYTES];
    bait_of_other(b, text);
    return canary_bait_lay(text);
}

/* All checks, with this process as the agent; in a child whose namespaces end with it. Answers how
 * many got through that must, and prints the others. */
static int outside(void)
{
    static struct bait bait;
    static struct canary_targets targets;
    struct buffer text = {0};
    struct errmsg msg = {""};
    if (unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 || !network_make() ||
        !status_is_ok(bait_lay(&bait, "/canary-test", &msg)) || !other_lay(&bait) ||
        !status_is_ok(bait_targets(&bait, (int)getppid(), &text)) ||
        !status_is_ok(buffer_printf(&text, "address=127.0.0.1:%u\n", bait.port)) ||
        !canary_targets_read((const char *)text.data, text.size, &targets)) {
        return 99;
    }
    (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    int leaked = fcntl(STDERR_FILENO, F_DUPFD, 40);
    targets.descriptors = canary_descriptors();
    int wrong = 0;
    for (size_t i = 0; i < CANARY_CHECKS_COUNT; i++) {
        struct canary_outcome o;
        canary_check_run(i, &targets, &o);
        bool fine = o.verdict == CANARY_BREACHED || may_hold_outside(canary_check_name(i));
        (void)fprintf(stderr, "%s %s %c %s\n", fine ? "  " : "! ", canary_check_name(i), o.verdict,
                      o.detail);
        wrong += !fine;
    }
    char path[4 * BAIT_TEXT_BYTES];
    (void)snprintf(path, sizeof path, "/tmp/%s", bait.other_name);
    (void)unlink(path);
    (void)snprintf(path, sizeof path, "/dev/shm/%s", bait.other_name);
    (void)unlink(path);
    bait_take(&bait);
    buffer_close(&text);
    (void)close(leaked);
    return wrong;
}

static void each_check_gets_through_where_there_is_no_wall(void **state)
{
    (void)state;
    HARNESS_NEEDS_ROOT();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        _exit(outside());
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- Inside ---- */

/* Each in a control group of its own at the top: which of two that end at once removes what they
 * share is not decided. */
static void canary_open(struct harness *h, const char *which)
{
    harness_open(h, "canary", NULL);
    if (h->cgroup_parent[0] != '\0') {
        (void)snprintf(h->cgroup_parent, sizeof h->cgroup_parent, "skep-test-%d-%s", (int)getpid(),
                       which);
        (void)snprintf(h->spec.cgroup, sizeof h->spec.cgroup, "%s/1", h->cgroup_parent);
    }
    (void)snprintf(h->mount.source, sizeof h->mount.source, "%s", CANARY_PROGRAM);
    h->spec.memory_bytes = 32 << 20;
    h->spec.cpu_millis = 100;
}

static void report_get(struct harness *h, struct bytes targets, struct canary_report *out)
{
    struct channel channel = {0};
    struct errmsg msg = {""};
    struct runner_frame f;
    assert_int_equal(channel_open(&channel, h->channel_fd, &msg).code, STATUS_OK);
    assert_int_equal(channel_next(&channel, true, &f), CHANNEL_FRAME);
    assert_int_equal(f.type, RUNNER_READY);
    const struct runner_frame invoke = {.type = RUNNER_INVOKE, .id = 1, .data = targets};
    assert_int_equal(channel_send(&channel, &invoke).code, STATUS_OK);
    assert_int_equal(channel_next(&channel, true, &f), CHANNEL_FRAME);
    assert_int_equal(f.type, RUNNER_RESULT);
    assert_int_equal(f.status, STATUS_OK);
    if (!status_is_ok(canary_report_decode(f.data, out, &msg))) {
        fail_msg("%s", msg.text);
    }
    const struct runner_frame stop = {.type = RUNNER_STOP};
    assert_int_equal(channel_send(&channel, &stop).code, STATUS_OK);
    channel_close(&channel);
}

static void no_check_gets_through_a_cell(void **state)
{
    (void)state;
    static struct bait bait;
    static struct canary_report report;
    struct harness other, canary;
    struct buffer text = {0};
    struct errmsg msg = {""};
    char line[5 * BAIT_TEXT_BYTES];
    assert_int_equal(bait_lay(&bait, "/canary-test", &msg).code, STATUS_OK);
    canary_open(&other, "other");
    int n = snprintf(line, sizeof line, "%s=", CANARY_BAIT_ENV);
    bait_of_other(&bait, line + n);
    free(other.env[0]);
    other.env[0] = strdup(line);
    harness_start(&other);
    harness_wait_started(&other);
    canary_open(&canary, "canary");
    harness_start(&canary);
    harness_wait_started(&canary);
    assert_int_equal(bait_targets(&bait, other.process.pid, &text).code, STATUS_OK);
    assert_int_equal(buffer_printf(&text, "address=127.0.0.1:%u\n", bait.port).code, STATUS_OK);
    report_get(&canary, bytes_of(text.data, text.size), &report);
    canary_report_prove(&report, bait.nonce);
    canary_report_prove(&report, bait.other_nonce);
    assert_int_equal(report.count, CANARY_CHECKS_COUNT);
    unsigned not_held = 0;
    for (size_t i = 0; i < report.count; i++) {
        const struct isolation_result *r = &report.results[i];
        assert_string_equal(r->check, canary_check_name(i));
        bool fine = r->verdict == ISOLATION_HELD ||
                    (r->verdict == ISOLATION_NOT_APPLICABLE && strcmp(r->check, "host-key") == 0);
        not_held += !fine;
        (void)fprintf(stderr, "%s %s: %s: %s\n", fine ? "  " : "! ", r->check,
                      isolation_verdict_name(r->verdict), r->detail);
    }
    assert_int_equal(not_held, 0);
    (void)kill(other.process.pid, SIGTERM);
    harness_wait_ended(&other);
    harness_wait_ended(&canary);
    assert_string_equal(canary.end_event.message, "exit code 0");
    harness_close(&canary);
    harness_close(&other);
    bait_take(&bait);
    buffer_close(&text);
}

/* ---- The table ---- */

static void the_docs_have_a_row_for_each_check(void **state)
{
    (void)state;
    char row[256], *text = calloc(1, 1 << 18);
    FILE *f = fopen(ISOLATION_DOC, "re");
    assert_non_null(f);
    assert_true(fread(text, 1, (1 << 18) - 1, f) > 0);
    (void)fclose(f);
    const char *at = text;
    for (size_t i = 0; i < CANARY_CHECKS_COUNT; i++) {
        (void)snprintf(row, sizeof row, "| `%s` | %s |\n", canary_check_name(i),
                       canary_check_what(i));
        at = strstr(at, row);
        if (at == NULL) {
            fail_msg("docs/isolation.md lacks, in this order: %s", row);
        }
        at += strlen(row);
    }
    assert_null(strstr(at, "\n| `"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_check_gets_through_where_there_is_no_wall),
        cmocka_unit_test(no_check_gets_through_a_cell),
        cmocka_unit_test(the_docs_have_a_row_for_each_check),
    };
    return cmocka_run_group_tests_name("canary", tests, NULL, NULL);
}
