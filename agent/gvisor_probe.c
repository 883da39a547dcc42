#include "agent/gvisor_probe.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/package.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ANSWER_BYTES_MAX = 512 };

struct gvisor {
    char platform[GVISOR_PLATFORM_BYTES];
    char why[GVISOR_WHY_BYTES];
    char folder[PATH_MAX];
    char answer[ANSWER_BYTES_MAX + 1];
    size_t answer_size;
    uv_process_t process;
    uv_pipe_t pipe;
    uv_timer_t deadline;
    unsigned handles; /* that are open or closing */
    bool ended, heard;
    bool closing;
    void (*closed)(void *data);
    void *closed_data;
};

const char *gvisor_platform(const struct gvisor *g)
{
    return g->platform;
}

const char *gvisor_why(const struct gvisor *g)
{
    return g->why;
}

static void maybe_closed(struct gvisor *g)
{
    if (!g->closing || g->handles > 0) {
        return;
    }
    void (*closed)(void *data) = g->closed;
    void *data = g->closed_data;
    mem_free(g);
    closed(data);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct gvisor *g = handle->data;
    g->handles--;
    maybe_closed(g);
}

static void why_set(struct gvisor *g, const char *text)
{
    (void)snprintf(g->why, sizeof g->why, "%s", text);
}

/* "ok PLATFORM" or "no REASON", and a newline. */
static void answer_take(struct gvisor *g)
{
    g->answer[g->answer_size] = '\0';
    g->answer[strcspn(g->answer, "\n")] = '\0';
    size_t size = strlen(g->answer);
    if (size > 3 && size - 3 < sizeof g->platform && strncmp(g->answer, "ok ", 3) == 0) {
        memcpy(g->platform, g->answer + 3, size - 2);
        why_set(g, "");
        LOG_INFO("gVisor is here", LOG_STR("platform", g->platform));
        return;
    }
    why_set(g, strncmp(g->answer, "no ", 3) == 0 ? g->answer + 3 : "the probe was killed");
    LOG_WARN("no gVisor", LOG_STR("why", g->why));
}

/* Both the end of the process and that of its output have been seen. */
static void maybe_answered(struct gvisor *g)
{
    if (!g->ended || !g->heard) {
        return;
    }
    (void)uv_timer_stop(&g->deadline);
    if (!g->closing) {
        answer_take(g);
        uv_close((uv_handle_t *)&g->deadline, on_handle_closed);
    }
    struct errmsg msg = {{0}};
    if (!status_is_ok(package_remove(g->folder, &msg))) {
        LOG_WARN("cannot remove a probe's folder", LOG_STR("why", msg.text));
    }
}

static void on_exit_seen(uv_process_t *process, int64_t code, int signal)
{
    struct gvisor *g = process->data;
    (void)code;
    (void)signal;
    g->ended = true;
    uv_close((uv_handle_t *)process, on_handle_closed);
    maybe_answered(g);
}

static void on_room(uv_handle_t *handle, size_t suggested, uv_buf_t *out)
{
    struct gvisor *g = handle->data;
    (void)suggested;
    *out = uv_buf_init(g->answer + g->answer_size, (unsigned)(ANSWER_BYTES_MAX - g->answer_size));
}

static void on_heard(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf)
{
    struct gvisor *g = stream->data;
    (void)buf;
    if (size >= 0) {
        g->answer_size += (size_t)size;
        return;
    }
    g->heard = true;
    uv_close((uv_handle_t *)stream, on_handle_closed);
    maybe_answered(g);
}

static void on_deadline(uv_timer_t *timer)
{
    struct gvisor *g = timer->data;
    (void)uv_process_kill(&g->process, SIGKILL); /* The sandbox ends with it. */
}

/* Absolute, since the program works in another folder. */
static bool folder_set(struct gvisor *g, const char *data)
{
    char full[PATH_MAX];
    struct errmsg msg = {{0}};
    if (realpath(data, full) == NULL ||
        (size_t)snprintf(g->folder, sizeof g->folder, "%s/gvisor-probe", full) >=
            sizeof g->folder) {
        why_set(g, "the data folder's path cannot be used");
        return false;
    }
    if (!status_is_ok(package_remove(g->folder, &msg))) { /* What a killed probe left. */
        why_set(g, msg.text);
        return false;
    }
    return true;
}

static void spawn(struct gvisor *g, uv_loop_t *loop, const struct agent_config *config,
                  const char *program, const char *runners)
{
    char *args[] = {(char *)(uintptr_t)program,
                    "probe",
                    g->folder,
                    config->gvisor_program,
                    (char *)(uintptr_t)gvisor_choice_name(config->gvisor_platform),
                    (char *)(uintptr_t)runners,
                    config->cells_root, /* NULL: it ends the list */
                    NULL};
    char *env[] = {NULL};
    uv_stdio_container_t stdio[] = {
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&g->pipe},
        {.flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO},
    };
    const uv_process_options_t options = {.exit_cb = on_exit_seen,
                                          .file = program,
                                          .args = args,
                                          .env = env,
                                          .stdio = stdio,
                                          .stdio_count = 3};
    CHECK(uv_pipe_init(loop, &g->pipe, 0) == 0);
    CHECK(uv_timer_init(loop, &g->deadline) == 0);
    g->pipe.data = g;
    g->deadline.data = g;
    g->process.data = g;
    g->handles = 3;
    int rc = uv_spawn(loop, &g->process, &options);
    if (rc != 0) { /* The handle wants closing all the same. */
        why_set(g, uv_strerror(rc));
        g->ended = true;
        g->heard = true;
        uv_close((uv_handle_t *)&g->process, on_handle_closed);
        uv_close((uv_handle_t *)&g->pipe, on_handle_closed);
        uv_close((uv_handle_t *)&g->deadline, on_handle_closed);
        return;
    }
    CHECK(uv_read_start((uv_stream_t *)&g->pipe, on_room, on_heard) == 0);
    (void)uv_timer_start(&g->deadline, on_deadline, GVISOR_PROBE_MS_MAX, 0);
}

struct status gvisor_open(struct gvisor **out, uv_loop_t *loop, const struct agent_config *config,
                          const char *program, const char *runners)
{
    struct gvisor *g = mem_zalloc(1, sizeof *g);
    if (g == NULL) {
        return status_of(STATUS_NOMEM);
    }
    g->ended = true;
    g->heard = true;
    *out = g;
    if (config->gvisor_enabled == GVISOR_ENABLED_OFF) {
        why_set(g, "off in the agent's configuration");
    } else if (program == NULL) {
        why_set(g, "skep-gvisor is not installed");
    } else if (access(config->gvisor_program, X_OK) != 0) {
        (void)snprintf(g->why, sizeof g->why, "%.180s: %s", config->gvisor_program,
                       strerror(errno));
    } else if (geteuid() != 0) {
        why_set(g, "the agent does not run as root");
    } else if (folder_set(g, config->data)) {
        why_set(g, "being probed");
        g->ended = false;
        g->heard = false;
        spawn(g, loop, config, program, runners);
    }
    return status_ok();
}

void gvisor_close(struct gvisor *g, void (*closed)(void *data), void *data)
{
    g->closing = true;
    g->closed = closed;
    g->closed_data = data;
    if (!g->ended || !g->heard) { /* The ends of both are still to come. */
        uv_close((uv_handle_t *)&g->deadline, on_handle_closed);
        if (!g->ended) {
            (void)uv_process_kill(&g->process, SIGKILL);
        }
        return;
    }
    maybe_closed(g);
}
