/* One instance's live side: the cell's connection, the runner's channel, the process. */
#include "agent/instance.h"

#include "agent/cell/cgroup.h"
#include "agent/cell/logring.h"
#include "common/check.h"
#include "common/log.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t now_us(void)
{
    return uv_hrtime() / 1000;
}

/* ---- What the runner says ---- */

/* Codes that a runner may give; others would make the leader believe something of the agent, as
 * LIMIT, with which an agent refuses what it has not begun. */
static enum status_code code_of_runner(uint16_t wire)
{
    enum status_code code = status_from_wire(wire);
    switch (code) {
    case STATUS_OK:
    case STATUS_INVALID:
    case STATUS_TIMEOUT:
    case STATUS_CANCELED:
    case STATUS_NOMEM:
    case STATUS_CRASHED:
    case STATUS_UNSUPPORTED:
        return code;
    default:
        return STATUS_FAILED;
    }
}

static void result_tell(struct instance *i, uint64_t token, enum status_code code,
                        const char *message, struct bytes output)
{
    const struct inflight_slot *slot = inflight_find(&i->inflight, token);
    if (slot == NULL) {
        return;
    }
    const struct result r = {
        .invocation = slot->invocation,
        .attempt = slot->attempt,
        .instance = i->id,
        .code = (uint32_t)code,
        .message = message,
        .output = output,
    };
    inflight_remove(&i->inflight, token);
    i->table->events.result(i->table->events.data, &r);
}

static void result_take(struct instance *i, const struct runner_frame *f)
{
    enum status_code code = code_of_runner(f->status);
    if (code == STATUS_OK) {
        result_tell(i, f->id, code, "", f->data);
        return;
    }
    char text[RUNNER_ERROR_BYTES_MAX + 1];
    size_t size = f->data.size < RUNNER_ERROR_BYTES_MAX ? f->data.size : RUNNER_ERROR_BYTES_MAX;
    if (size > 0) {
        memcpy(text, f->data.data, size);
    }
    text[size] = '\0';
    result_tell(i, f->id, code, text[0] != '\0' ? text : status_text(code), (struct bytes){0});
}

static void ready_take(struct instance *i, const struct runner_frame *f)
{
    uint32_t known;
    uint64_t startup_us;
    if (inflight_ready(&i->inflight, &known, &startup_us) || i->phase != PHASE_RUNNING) {
        return;
    }
    uint32_t concurrency = i->meta.concurrency;
    if (f->arg > 0 && f->arg < concurrency) {
        concurrency = (uint32_t)f->arg;
    }
    startup_us = i->begun_us != 0 ? now_us() - i->begun_us : 0;
    inflight_set_ready(&i->inflight, concurrency, startup_us);
    i->table->events.ready(i->table->events.data, i->id, concurrency, startup_us);
}

static void on_frame(void *data, const struct runner_frame *frame)
{
    if (frame->type == RUNNER_RESULT) {
        result_take(data, frame);
    } else if (frame->type == RUNNER_READY) {
        ready_take(data, frame);
    }
}

static void on_cut(void *data, uint8_t type, uint64_t id)
{
    if (type == RUNNER_RESULT) {
        result_tell(data, id, STATUS_UNKNOWN, "the result was lost when the agent restarted",
                    (struct bytes){0});
    }
}

static void on_sent(void *data, uint8_t type, uint64_t id)
{
    struct instance *i = data;
    struct inflight_slot *slot = type == RUNNER_INVOKE ? inflight_find(&i->inflight, id) : NULL;
    if (slot != NULL) {
        slot->sent = 1;
    }
}

static void on_end_timer(uv_timer_t *timer)
{
    instance_signal(timer->data, true);
}

/* The runner has closed its end: it exits, which the cell will report, or it is of no use any
 * more. */
static void on_channel_end(void *data)
{
    struct instance *i = data;
    if (i->timer_open && !i->closing && !i->process_gone && !i->kill_sent) {
        (void)uv_timer_start(&i->end_timer, on_end_timer, CHANNEL_END_GRACE_MS, 0);
    }
}

/* ---- What the cell says ---- */

static void end_message(const struct cell_event *e, char *out, size_t size)
{
    char refused[80] = "";
    if (e->pids_limit_hits > 0) {
        (void)snprintf(refused, sizeof refused, " (%llu forks were refused by the processes limit)",
                       (unsigned long long)e->pids_limit_hits);
    }
    if (e->message[0] != '\0') {
        (void)snprintf(out, size, "%s%s", e->message, refused);
    } else if (e->end == CELL_END_EXIT) {
        (void)snprintf(out, size, "exit code %d%s", e->detail, refused);
    } else if (e->end == CELL_END_SIGNAL) {
        (void)snprintf(out, size, "signal %d%s", e->detail, refused);
    } else {
        (void)snprintf(out, size, "%s%s",
                       e->end < CELL_ENDS_COUNT_ ? cell_end_name((enum cell_end)e->end) : "ended",
                       refused);
    }
}

/* Appends the last line of the instance's log, made safe to print: why a start failed is told
 * there. */
static void last_words(const struct instance *i, char *out, size_t size)
{
    char path[INSTANCE_PATH_BYTES_MAX + 8];
    struct logring ring = {0};
    struct buffer text = {0};
    uint64_t missed = 0;
    (void)snprintf(path, sizeof path, "%s/log", i->folder);
    if (!status_is_ok(logring_open(&ring, path, NULL))) {
        return;
    }
    uint64_t end = logring_end(&ring);
    uint64_t offset = end > LAST_WORDS_BYTES_MAX ? end - LAST_WORDS_BYTES_MAX : 0;
    if (status_is_ok(logring_read(&ring, &offset, LAST_WORDS_BYTES_MAX, &text, &missed))) {
        size_t to = text.size;
        while (to > 0 && text.data[to - 1] <= ' ') {
            to--;
        }
        size_t from = to;
        while (from > 0 && text.data[from - 1] != '\n') {
            from--;
        }
        size_t used = strlen(out);
        for (size_t k = from; k < to && used + 3 < size; k++) {
            if (k == from) {
                used += (size_t)snprintf(out + used, size - used, ": ");
            }
            bool plain = text.data[k] >= ' ' && text.data[k] < 0x7F;
            out[used++] = plain ? (char)text.data[k] : '?';
            out[used] = '\0';
        }
    }
    buffer_close(&text);
    logring_close(&ring);
}

/* What the channel still holds was done before the end: it counts. */
static void exit_tell(struct instance *i, const struct cell_event *e)
{
    if (i->port_open && !i->closing) {
        runner_port_drain(&i->port);
    }
    bool orderly = e->end == CELL_END_STOPPED || (e->end == CELL_END_EXIT && e->detail == 0);
    char text[INSTANCE_MESSAGE_BYTES_MAX];
    end_message(e, text, sizeof text);
    uint32_t concurrency;
    uint64_t startup_us;
    if (!orderly && !inflight_ready(&i->inflight, &concurrency, &startup_us)) {
        last_words(i, text, sizeof text);
    }
    instance_end_soon(i, orderly ? STATUS_OK : STATUS_CRASHED, text);
}

static struct status port_open(struct instance *i, int fd, struct errmsg *msg)
{
    const struct runner_port_events events = {i, on_frame, on_cut, on_sent, on_channel_end};
    TRY(runner_port_open(&i->port, i->table->config.loop, fd, &i->table->batch, &events, msg));
    i->port_open = true;
    i->handles++;
    return status_ok();
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct instance *i = handle->data;
    i->handles--;
    instance_settle(i);
}

/* The handle first: closing it touches the descriptor's number, which may be another's by then. */
static void client_stop(struct instance *i)
{
    if (i->client_polled) {
        i->client_polled = false;
        uv_close((uv_handle_t *)&i->client_poll, on_handle_closed);
    }
    cell_client_close(&i->client);
}

static void hello_take(struct instance *i, int fd)
{
    if (i->port_open || i->closing) {
        (void)close(fd);
        return;
    }
    struct errmsg msg = {{0}};
    if (!status_is_ok(port_open(i, fd, &msg))) {
        (void)close(fd);
        LOG_WARN("cannot use the runner's channel", LOG_STR("why", msg.text));
        instance_signal(i, true);
    }
}

/* All that the cell has to say now. False once the connection has ended. */
static bool client_read(struct instance *i)
{
    for (;;) {
        struct cell_message m;
        struct errmsg msg = {{0}};
        struct status s = cell_client_next(&i->client, &m, &msg);
        if (!status_is_ok(s)) {
            LOG_WARN("cell sent something else", LOG_STR("why", msg.text));
            return false;
        }
        switch (m.kind) {
        case CELL_MESSAGE_NONE:
            return true;
        case CELL_MESSAGE_CLOSED:
            return false;
        case CELL_MESSAGE_HELLO:
            hello_take(i, m.channel_fd);
            break;
        case CELL_MESSAGE_EVENT:
            if (m.event.kind == CELL_EVENT_EXITED) {
                i->exit = m.event;
                i->exit_known = true;
                exit_tell(i, &i->exit);
            }
            break;
        }
    }
}

static void on_client(uv_poll_t *poll, int status, int events)
{
    struct instance *i = poll->data;
    (void)status;
    (void)events;
    if (i->client.open && !client_read(i)) {
        client_stop(i);
    }
}

/* ---- The process ---- */

void instance_cgroup_sweep(const char *cgroup)
{
    struct cgroup_mounts mounts;
    struct errmsg msg = {{0}};
    if (cgroup[0] == '\0' || !status_is_ok(cgroup_mounts_find(&mounts, &msg))) {
        return;
    }
    struct status s = cgroup_remove(&mounts, cgroup, &msg);
    /* The kernel is still ending the cell's processes. */
    for (int ms = 0; s.code == STATUS_CONFLICT && ms < CGROUP_SWEEP_MS_MAX; ms++) {
        (void)usleep(1000);
        s = cgroup_remove(&mounts, cgroup, &msg);
    }
    if (!status_is_ok(s)) {
        LOG_WARN("cannot remove a control group", LOG_STR("why", msg.text));
    }
    /* The parents go with the last that is in them. */
    char parent[CGROUP_PATH_BYTES_MAX];
    (void)snprintf(parent, sizeof parent, "%s", cgroup);
    for (char *slash = strrchr(parent, '/'); slash != NULL; slash = strrchr(parent, '/')) {
        *slash = '\0';
        if (!status_is_ok(cgroup_remove(&mounts, parent, NULL))) {
            return;
        }
    }
}

static void on_process(uv_poll_t *poll, int status, int events)
{
    struct instance *i = poll->data;
    (void)status;
    (void)events;
    (void)uv_poll_stop(poll);
    if (i->client.open) {
        (void)client_read(i);
    }
    if (i->process.pid != 0) {
        siginfo_t info;
        (void)waitid(P_PIDFD, (id_t)i->pidfd, &info, WEXITED | WNOHANG);
    }
    i->process_gone = true;
    if (!i->exit_known) {
        struct errmsg msg = {{0}};
        i->exit_known = status_is_ok(cell_exit_read(i->folder, &i->exit, &msg));
        if (i->exit_known) {
            exit_tell(i, &i->exit);
        } else {
            if (i->port_open && !i->closing) {
                runner_port_drain(&i->port);
            }
            /* Its control group is left over. */
            instance_cgroup_sweep(i->meta.cgroup);
            instance_end_soon(i, STATUS_CRASHED, "its skep-cell was killed");
        }
    }
    client_stop(i);
    instance_settle(i);
}

static struct status poll_open(struct instance *i, uv_poll_t *poll, int fd, uv_poll_cb cb,
                               struct errmsg *msg)
{
    int rc = uv_poll_init(i->table->config.loop, poll, fd);
    if (rc != 0) {
        return status_fail(msg, STATUS_IO, "poll: %s", uv_strerror(rc));
    }
    i->handles++;
    poll->data = i;
    rc = uv_poll_start(poll, UV_READABLE, cb);
    CHECK(rc == 0);
    return status_ok();
}

/* Puts the cell's descriptors on the loop. */
static struct status watch(struct instance *i, struct errmsg *msg)
{
    i->phase = PHASE_RUNNING;
    CHECK(uv_timer_init(i->table->config.loop, &i->end_timer) == 0);
    i->end_timer.data = i;
    i->timer_open = true;
    i->handles++;
    TRY(poll_open(i, &i->process_poll, i->pidfd, on_process, msg));
    i->process_polled = true;
    if (i->client.open) {
        TRY(poll_open(i, &i->client_poll, i->client.fd, on_client, msg));
        i->client_polled = true;
    }
    return status_ok();
}

struct status instance_launch(struct instance *i, struct errmsg *msg)
{
    struct cell_process process;
    TRY(cell_start(i->program, i->folder, STDERR_FILENO, &process, &i->client, msg));
    i->process = process;
    i->pidfd = process.pidfd;
    struct errmsg why = {{0}};
    if (!status_is_ok(watch(i, &why))) {
        /* The process is there: it is ended as any other, and its end is seen by whoever
         * settles. */
        LOG_ERROR("cannot watch a cell", LOG_STR("why", why.text));
        instance_signal(i, true);
        siginfo_t info;
        (void)waitid(P_PIDFD, (id_t)i->pidfd, &info, WEXITED);
        i->process_gone = true;
        instance_end_soon(i, STATUS_IO, why.text);
    }
    return status_ok();
}

enum { ATTACH_HELLO_MS = 500 };

struct status instance_attach(struct instance *i, struct errmsg *msg)
{
    struct cell_pid pid;
    TRY(cell_pid_read(i->folder, &pid, msg));
    TRY(cell_pid_open(&pid, &i->pidfd, msg));
    struct status s = cell_client_connect(i->folder, &i->client, msg);
    if (!status_is_ok(s)) {
        LOG_WARN("a cell does not answer", LOG_STR("why", msg->text));
    }
    s = watch(i, msg);
    if (!status_is_ok(s)) {
        return s;
    }
    if (!i->client.open) {
        instance_signal(i, true);
        return status_ok();
    }
    /* The channel comes with the cell's first packet: waiting a moment spares the first
     * invocations a refusal. */
    struct pollfd p = {.fd = i->client.fd, .events = POLLIN};
    if (poll(&p, 1, ATTACH_HELLO_MS) == 1) {
        on_client(&i->client_poll, 0, UV_READABLE);
    }
    return status_ok();
}

/* A kill that skep-cell does not carry out in time is repeated, on skep-cell itself. */
void instance_signal(struct instance *i, bool kill)
{
    if (i->pidfd < 0 || i->process_gone) {
        return;
    }
    if (!kill && i->port_open) {
        const struct runner_frame stop = {.type = RUNNER_STOP};
        bool queued;
        (void)!status_is_ok(runner_port_send(&i->port, &stop, &queued));
    }
    bool again = i->kill_sent;
    i->kill_sent = i->kill_sent || kill;
    if (kill && !again && i->timer_open && !i->closing) {
        (void)uv_timer_start(&i->end_timer, on_end_timer, KILL_GRACE_MS, 0);
    }
    if (!again && i->client.open &&
        status_is_ok(cell_client_send(&i->client, kill ? CELL_KILL : CELL_STOP, NULL))) {
        return;
    }
    (void)syscall(SYS_pidfd_send_signal, i->pidfd, kill ? SIGKILL : SIGTERM, NULL, 0);
}

static void on_port_closed(void *data)
{
    struct instance *i = data;
    i->handles--;
    instance_settle(i);
}

void instance_let_go(struct instance *i)
{
    if (i->closing) {
        return;
    }
    i->closing = true;
    if (i->timer_open) {
        uv_close((uv_handle_t *)&i->end_timer, on_handle_closed);
    }
    if (i->process_polled) {
        uv_close((uv_handle_t *)&i->process_poll, on_handle_closed);
    }
    client_stop(i);
    if (i->port_open) {
        runner_port_close(&i->port, on_port_closed);
    }
    if (i->pidfd >= 0) {
        (void)close(i->pidfd);
        i->pidfd = -1;
    }
    inflight_close(&i->inflight);
}
