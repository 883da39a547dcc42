#include "agent/gpu/gpu.h"

#include "agent/gpu/devices.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/dates.h"
#include "common/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    LISTEN_MS = 250,      /* at a time, so that stopping takes no longer */
    AFTER_ERROR_MS = 100, /* a device that tells error after error is not read all the time */
};

/* Shared by the owner and the thread; whoever leaves last frees it. */
struct worker {
    pthread_mutex_t lock; /* of what follows, up to the number */
    pthread_cond_t wake;  /* stop or done was set */
    bool stop, done;
    uint64_t asked; /* how often a reading was asked for */
    unsigned owners;
    struct gpu_snapshot latest;
    uint64_t number; /* of the snapshot; 0: none was read yet */
    uint64_t seen;   /* asked, as of the begin of that reading */

    /* The thread's, but for nvml_silent_us. */
    char path[GPU_PATH_BYTES_MAX + 1];
    uint32_t read_ms, retry_ms;
    struct devices devices;
    struct gpu_snapshot work;
    uint64_t work_seen;
};

struct gpu {
    struct worker *worker; /* NULL: off, or simulated */
    pthread_t thread;
    uint32_t silent_ms;
    uint64_t number; /* of what was picked up */
    uint64_t seen;   /* and what was asked for when its reading began */
    bool begun;      /* polled before */
    bool silent;
    uint32_t state; /* and why: what to go back to from silence */
    char why[GPU_TEXT_BYTES + 1];
    struct gpu_snapshot snapshot;
    struct gpu_report reports[GPUS_MAX];
    struct gpu_inventory inventory;
};

/* ---- The thread ---- */

static void worker_leave(struct worker *w)
{
    (void)pthread_mutex_lock(&w->lock);
    CHECK(w->owners > 0);
    bool last = --w->owners == 0;
    (void)pthread_mutex_unlock(&w->lock);
    if (last) {
        (void)pthread_cond_destroy(&w->wake);
        (void)pthread_mutex_destroy(&w->lock);
        mem_free(w);
    }
}

static struct timespec after_ms(uint32_t ms)
{
    struct timespec at;
    (void)clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += ms / 1000;
    at.tv_nsec += (long)(ms % 1000) * 1000000;
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    return at;
}

/* Waits so long, until a reading is asked for, or until it is told to stop. True: go on. */
static bool worker_wait(struct worker *w, uint32_t ms)
{
    struct timespec until = after_ms(ms);
    (void)pthread_mutex_lock(&w->lock);
    int rc = 0;
    while (!w->stop && w->asked == w->work_seen && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&w->wake, &w->lock, &until);
    }
    bool stop = w->stop;
    (void)pthread_mutex_unlock(&w->lock);
    return !stop;
}

static void worker_publish(struct worker *w)
{
    (void)pthread_mutex_lock(&w->lock);
    w->latest = w->work;
    w->seen = w->work_seen;
    w->number++;
    (void)pthread_mutex_unlock(&w->lock);
}

/* What is asked for from now on is not answered by the reading that begins. */
static void worker_begin(struct worker *w)
{
    (void)pthread_mutex_lock(&w->lock);
    w->work_seen = w->asked;
    (void)pthread_mutex_unlock(&w->lock);
}

static bool worker_is_asked(struct worker *w)
{
    (void)pthread_mutex_lock(&w->lock);
    bool asked = w->asked != w->work_seen;
    (void)pthread_mutex_unlock(&w->lock);
    return asked;
}

/* Until the next reading is due or asked for, or a device told an error. True: go on. */
static bool worker_listen(struct worker *w)
{
    uint64_t until_us = clock_now_us(clock_real()) + (uint64_t)w->read_ms * 1000;
    for (;;) {
        uint64_t now_us = clock_now_us(clock_real());
        uint32_t left_ms = now_us < until_us ? (uint32_t)((until_us - now_us) / 1000) : 0;
        bool waited;
        if (left_ms == 0 || worker_is_asked(w)) {
            return worker_wait(w, 0);
        }
        if (devices_listen(&w->devices, left_ms < LISTEN_MS ? left_ms : LISTEN_MS, &waited)) {
            return worker_wait(w, AFTER_ERROR_MS);
        }
        if (!worker_wait(w, waited ? 0 : left_ms)) {
            return false;
        }
    }
}

/* One session with the driver. True: begin another one at once. */
static bool worker_session(struct worker *w)
{
    worker_begin(w);
    struct status s = devices_begin(&w->devices, w->path[0] != '\0' ? w->path : NULL, &w->work);
    bool on = status_is_ok(s);
    while (on) {
        worker_begin(w);
        s = devices_read(&w->devices, &w->work);
        on = status_is_ok(s);
        if (on) {
            worker_publish(w);
            on = worker_listen(w);
        }
    }
    devices_end(&w->devices);
    if (status_is_ok(s) || s.code == STATUS_CONFLICT) {
        return !status_is_ok(s);
    }
    worker_publish(w);
    return false;
}

static void *worker_run(void *data)
{
    struct worker *w = data;
    bool again;
    do {
        again = worker_session(w);
    } while (worker_wait(w, again ? AFTER_ERROR_MS : w->retry_ms));
    (void)pthread_mutex_lock(&w->lock);
    w->done = true;
    (void)pthread_cond_broadcast(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
    worker_leave(w);
    return NULL;
}

/* The owner's: true once the thread is at its end, false when the driver holds it up too long. */
static bool worker_stop(struct worker *w)
{
    struct timespec until = after_ms(GPU_CLOSE_MS);
    (void)pthread_mutex_lock(&w->lock);
    w->stop = true;
    (void)pthread_cond_broadcast(&w->wake);
    int rc = 0;
    while (!w->done && rc != ETIMEDOUT) {
        rc = pthread_cond_timedwait(&w->wake, &w->lock, &until);
    }
    bool done = w->done;
    (void)pthread_mutex_unlock(&w->lock);
    return done;
}

/* ---- Opening and closing ---- */

static struct status worker_open(struct gpu *g, const struct gpu_config *config, struct errmsg *msg)
{
    const char *path = config->library != NULL ? config->library : "";
    if (strlen(path) > GPU_PATH_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "the path of NVML has more than %d bytes",
                           GPU_PATH_BYTES_MAX);
    }
    struct worker *w = mem_zalloc(1, sizeof *w);
    if (w == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    (void)snprintf(w->path, sizeof w->path, "%s", path);
    w->read_ms = config->read_ms != 0 ? config->read_ms : GPU_READ_MS_DEFAULT;
    w->retry_ms = config->retry_ms != 0 ? config->retry_ms : GPU_RETRY_MS_DEFAULT;
    w->owners = 2;
    pthread_condattr_t attr;
    CHECK(pthread_mutex_init(&w->lock, NULL) == 0 && pthread_condattr_init(&attr) == 0);
    CHECK(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&w->wake, &attr) == 0);
    (void)pthread_condattr_destroy(&attr);
    /* Signals are the loop's. */
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&g->thread, NULL, worker_run, w);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        w->owners = 1;
        worker_leave(w);
        return status_fail(msg, STATUS_INTERNAL, "start the GPU thread: %s", strerror(rc));
    }
    g->worker = w;
    g->snapshot.state = GPU_STATE_STARTING;
    return status_ok();
}

static struct status simulate(struct gpu *g, const struct gpu_config *config, struct errmsg *msg)
{
    struct gpu_snapshot *s = &g->snapshot;
    s->state = GPU_STATE_SIMULATED;
    (void)snprintf(s->why, sizeof s->why, "gpu.simulate in the agent's configuration");
    for (size_t i = 0; i < config->simulated_count; i++) {
        const struct gpu_simulated *from = &config->simulated[i];
        for (uint32_t k = 0; k < from->count; k++) {
            if (s->count == GPUS_MAX) {
                return status_fail(msg, STATUS_LIMIT, "more than %d simulated GPUs", GPUS_MAX);
            }
            struct gpu_device *d = &s->devices[s->count];
            d->report = (struct gpu_report){.index = (uint32_t)s->count,
                                            .simulated = true,
                                            .known = GPU_KNOWS_MEMORY | GPU_KNOWS_BUSY |
                                                     GPU_KNOWS_PROCESSES,
                                            .memory_bytes = from->memory_bytes};
            (void)snprintf(d->uuid, sizeof d->uuid, "SIM-%.80s-%zu", config->node, s->count);
            (void)snprintf(d->model, sizeof d->model, "%.*s", GPU_TEXT_BYTES - 1, from->model);
            s->count++;
        }
    }
    return status_ok();
}

struct status gpu_open(struct gpu **out, const struct gpu_config *config, struct errmsg *msg)
{
    struct gpu *g = mem_zalloc(1, sizeof *g);
    if (g == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    g->silent_ms = config->silent_ms != 0 ? config->silent_ms : GPU_SILENT_MS_DEFAULT;
    struct status s = status_ok();
    if (config->simulated_count > 0) {
        s = simulate(g, config, msg);
    } else if (config->off) {
        g->snapshot.state = GPU_STATE_OFF;
        (void)snprintf(g->snapshot.why, sizeof g->snapshot.why,
                       "gpu.discovery in the agent's configuration");
    } else {
        s = worker_open(g, config, msg);
    }
    if (!status_is_ok(s)) {
        mem_free(g);
        return s;
    }
    *out = g;
    return status_ok();
}

void gpu_close(struct gpu *g)
{
    if (g == NULL) {
        return;
    }
    struct worker *w = g->worker;
    if (w != NULL) {
        if (worker_stop(w)) {
            (void)pthread_join(g->thread, NULL);
        } else {
            (void)pthread_detach(g->thread);
        }
        worker_leave(w);
    }
    mem_free(g);
}

/* ---- For the loop ---- */

static void inventory_make(struct gpu *g)
{
    struct gpu_snapshot *s = &g->snapshot;
    gpu_snapshot_bind(s);
    for (size_t i = 0; i < s->count; i++) {
        g->reports[i] = s->devices[i].report;
    }
    g->inventory = (struct gpu_inventory){.state = s->state,
                                          .why = s->why,
                                          .driver = s->driver,
                                          .cuda = s->cuda,
                                          .gpus = g->reports,
                                          .gpus_count = s->count};
}

/* True: there was something new. */
static bool snapshot_take(struct gpu *g)
{
    struct worker *w = g->worker;
    (void)pthread_mutex_lock(&w->lock);
    bool fresh = w->number != g->number;
    if (fresh) {
        g->snapshot = w->latest;
        g->number = w->number;
        g->seen = w->seen;
    }
    (void)pthread_mutex_unlock(&w->lock);
    if (fresh) {
        g->silent = false;
    }
    return fresh;
}

/* True: the driver fell silent, or answers again. */
static bool silence_watch(struct gpu *g, uint64_t now_us)
{
    uint64_t silent_us = nvml_silent_us(&g->worker->devices.nvml, now_us);
    bool silent = silent_us >= (uint64_t)g->silent_ms * 1000;
    struct gpu_snapshot *s = &g->snapshot;
    if (silent == g->silent) {
        return false;
    }
    g->silent = silent;
    if (!silent) {
        s->state = g->state;
        memcpy(s->why, g->why, sizeof s->why);
        return true;
    }
    g->state = s->state;
    memcpy(g->why, s->why, sizeof g->why);
    char since[DATE_STRING_BYTES];
    date_format(clock_unix_ms(clock_real()) - silent_us / 1000, since);
    s->state = GPU_STATE_SILENT;
    (void)snprintf(s->why, sizeof s->why, "not answering since %s", since);
    return true;
}

bool gpu_poll(struct gpu *g, uint64_t now_us)
{
    bool changed = !g->begun;
    g->begun = true;
    if (g->worker != NULL) {
        changed = snapshot_take(g) || changed;
        changed = silence_watch(g, now_us) || changed;
    }
    if (changed) {
        inventory_make(g);
    }
    return changed;
}

uint64_t gpu_refresh(struct gpu *g)
{
    struct worker *w = g->worker;
    if (w == NULL) {
        return 0;
    }
    (void)pthread_mutex_lock(&w->lock);
    uint64_t asked = ++w->asked;
    (void)pthread_cond_broadcast(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
    return asked;
}

uint64_t gpu_seen(const struct gpu *g)
{
    return g->seen;
}

bool gpu_minor(const struct gpu *g, const char *uuid, unsigned *out)
{
    for (size_t i = 0; i < g->snapshot.count; i++) {
        const struct gpu_device *d = &g->snapshot.devices[i];
        if (strcmp(d->uuid, uuid) == 0 && d->has_minor) {
            *out = d->minor;
            return true;
        }
    }
    return false;
}

struct gpu_inventory *gpu_inventory(struct gpu *g)
{
    if (!g->begun) {
        inventory_make(g);
    }
    return &g->inventory;
}
