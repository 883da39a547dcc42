#include "tests/component/runners/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { DEADLINE_MS = 60000, STEP_MS = 5, ENV_MAX = 256, LOG_BYTES_MAX = 1 << 20 };

static uint64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void harness_start(struct harness *h, const char *const *argv, const char *const *env)
{
    *h = (struct harness){.fd = -1, .log_fd = -1};
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    h->fd = ends[0];
    h->log_fd = memfd_create("log", MFD_CLOEXEC);
    assert_true(h->log_fd >= 0);
    assert_int_equal(fcntl(h->log_fd, F_SETFL, O_APPEND), 0);

    const char *all[ENV_MAX];
    size_t count = 0;
    for (; environ[count] != NULL; count++) {
        assert_true(count < ENV_MAX - 16);
        all[count] = environ[count];
    }
    for (; env != NULL && *env != NULL; env++) {
        all[count++] = *env;
    }
    all[count] = NULL;

    posix_spawn_file_actions_t actions;
    assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
    /* dup2 onto the same number would leave close-on-exec set: move out of the way first. */
    int far = fcntl(ends[1], F_DUPFD_CLOEXEC, 10);
    assert_true(far >= 10);
    (void)close(ends[1]);
    (void)posix_spawn_file_actions_adddup2(&actions, far, RUNNER_FD);
    (void)posix_spawn_file_actions_adddup2(&actions, h->log_fd, STDOUT_FILENO);
    (void)posix_spawn_file_actions_adddup2(&actions, h->log_fd, STDERR_FILENO);
    int failed = posix_spawn(&h->pid, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv,
                             (char *const *)(uintptr_t)all);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(far);
    assert_int_equal(failed, 0);
}

void harness_ready(struct harness *h, const char *const *argv, const char *const *env,
                   uint64_t concurrency)
{
    harness_start(h, argv, env);
    const struct runner_frame *f = harness_receive(h);
    assert_int_equal(f->type, RUNNER_READY);
    assert_int_equal(f->id, 0);
    assert_int_equal(f->arg, concurrency);
    assert_int_equal(f->data.size, 0);
}

static void print_log(struct harness *h)
{
    char text[4096];
    ssize_t n = pread(h->log_fd, text, sizeof text, 0);
    if (n > 0) {
        (void)fprintf(stderr, "log of the program:\n%.*s\n", (int)n, text);
    }
}

int harness_wait(struct harness *h)
{
    int status = 0;
    uint64_t end = now_ms() + DEADLINE_MS;
    pid_t got = 0;
    while ((got = waitpid(h->pid, &status, WNOHANG)) == 0 && now_ms() < end) {
        (void)poll(NULL, 0, STEP_MS);
    }
    assert_int_equal(got, h->pid);
    h->pid = 0;
    (void)close(h->fd);
    h->fd = -1;
    return status;
}

void harness_stop(struct harness *h)
{
    harness_send(h, RUNNER_STOP, 0, 0, NULL, 0);
    int status = harness_wait(h);
    if (status != 0) {
        print_log(h);
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    harness_close(h);
}

void harness_close(struct harness *h)
{
    if (h->pid > 0) {
        (void)kill(h->pid, SIGKILL);
        (void)waitpid(h->pid, NULL, 0);
        h->pid = 0;
    }
    if (h->fd >= 0) {
        (void)close(h->fd);
        h->fd = -1;
    }
    if (h->log_fd >= 0) {
        (void)close(h->log_fd);
        h->log_fd = -1;
    }
    runner_frames_close(&h->frames);
}

void harness_send_raw(struct harness *h, const void *packet, size_t size)
{
    ssize_t sent = send(h->fd, packet, size, MSG_NOSIGNAL);
    assert_int_equal(sent, size);
}

void harness_send_packet(struct harness *h, uint64_t id, uint8_t flags, const void *data,
                         size_t size)
{
    uint8_t packet[RUNNER_PACKET_BYTES_MAX];
    struct runner_header head = {
        .type = RUNNER_INVOKE, .flags = flags, .size = (uint32_t)size, .id = id};
    runner_header_encode(&head, packet);
    if (size > 0) {
        memcpy(packet + RUNNER_HEADER_BYTES, data, size);
    }
    harness_send_raw(h, packet, RUNNER_HEADER_BYTES + size);
}

void harness_send(struct harness *h, uint8_t type, uint64_t id, uint64_t arg, const void *data,
                  size_t size)
{
    struct runner_frame frame = {.type = type, .id = id, .arg = arg, .data = bytes_of(data, size)};
    struct runner_split split;
    assert_true(status_is_ok(runner_split_init(&split, &frame, NULL)));
    while (!runner_split_done(&split)) {
        uint8_t packet[RUNNER_PACKET_BYTES_MAX];
        struct bytes part;
        runner_split_packet(&split, packet, &part);
        if (part.size > 0) {
            memcpy(packet + RUNNER_HEADER_BYTES, part.data, part.size);
        }
        harness_send_raw(h, packet, RUNNER_HEADER_BYTES + part.size);
        runner_split_advance(&split);
    }
}

void harness_invoke(struct harness *h, uint64_t id, const char *text)
{
    harness_send(h, RUNNER_INVOKE, id, 0, text, strlen(text));
}

const struct runner_frame *harness_receive(struct harness *h)
{
    static uint8_t packet[RUNNER_PACKET_BYTES_MAX + 1];
    for (;;) {
        struct pollfd p = {.fd = h->fd, .events = POLLIN};
        int ready = poll(&p, 1, DEADLINE_MS);
        ssize_t size = ready == 1 ? recv(h->fd, packet, sizeof packet, 0) : -1;
        if (size <= 0) {
            print_log(h);
            fail_msg("no frame: %s", ready == 1 ? "the program ended" : "deadline");
        }
        bool complete = false;
        struct errmsg msg = {0};
        struct status s = runner_frames_take(&h->frames, bytes_of(packet, (size_t)size), &h->last,
                                             &complete, &msg);
        if (!status_is_ok(s)) {
            fail_msg("bad packet from the runner: %s", msg.text);
        }
        if (complete) {
            return &h->last;
        }
    }
}

static void expect(struct harness *h, uint64_t id, enum status_code code, const char *text,
                   bool whole)
{
    const struct runner_frame *f = harness_receive(h);
    size_t size = strlen(text);
    bool same = f->data.size >= size && memcmp(f->data.data, text, size) == 0;
    if (!same || (whole && f->data.size != size)) {
        fail_msg("got \"%.*s\", expected \"%s\"", (int)f->data.size, (const char *)f->data.data,
                 text);
    }
    assert_int_equal(f->type, RUNNER_RESULT);
    assert_int_equal(f->id, id);
    assert_int_equal(f->status, code);
}

void harness_expect(struct harness *h, uint64_t id, enum status_code code, const char *text)
{
    expect(h, id, code, text, true);
}

void harness_expect_prefix(struct harness *h, uint64_t id, enum status_code code, const char *text)
{
    expect(h, id, code, text, false);
}

void harness_expect_log(struct harness *h, const char *text)
{
    char *log = malloc(LOG_BYTES_MAX + 1);
    assert_non_null(log);
    uint64_t end = now_ms() + DEADLINE_MS;
    bool found = false;
    while (!found && now_ms() < end) {
        ssize_t n = pread(h->log_fd, log, LOG_BYTES_MAX, 0);
        log[n > 0 ? n : 0] = '\0';
        found = strstr(log, text) != NULL;
        if (!found) {
            (void)poll(NULL, 0, STEP_MS);
        }
    }
    free(log);
    if (!found) {
        print_log(h);
        fail_msg("the log does not say \"%s\"", text);
    }
}
