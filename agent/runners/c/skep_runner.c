/* libskep_runner's loop: READY, then frames until STOP. See skep_runner.h.
 *
 * With one invocation at a time, or with SKEP_RUNNER_INLINE, everything happens on the calling
 * thread; otherwise pool.c runs the handlers and the calling thread only receives. */
#include "agent/runners/c/skep_runner.h"

#include "agent/runners/c/pool.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_STOPPED = 0, EXIT_CHANNEL = 1, EXIT_USAGE = 2 };

struct loop {
    const struct skep_runner *runner;
    struct channel channel;
    unsigned concurrency;
    bool threads;
    struct pool pool;             /* with threads */
    struct skep_call_state state; /* without */
    struct skep_call call;
    bool send_failed;
};

static void loop_send(struct loop *l, const struct runner_frame *frame)
{
    if (l->threads) {
        pool_send(&l->pool, frame);
    } else if (!status_is_ok(channel_send(&l->channel, frame))) {
        l->send_failed = true;
    }
}

static void on_invoke(struct loop *l, const struct runner_frame *frame)
{
    if (l->threads) {
        pool_invoke(&l->pool, frame);
        return;
    }
    l->call.id = frame->id;
    l->call.input = frame->data.data;
    l->call.input_size = frame->data.size;
    call_begin(&l->state, frame->arg);
    struct runner_frame result = call_run(&l->call, l->runner->handler);
    loop_send(l, &result);
}

static void on_cancel(struct loop *l, uint64_t id)
{
    if (runner_frames_drop(&l->channel.frames, RUNNER_INVOKE, id)) {
        struct runner_frame result = call_refuse(id, STATUS_CANCELED, "canceled before it began");
        loop_send(l, &result);
    } else if (l->threads) {
        pool_cancel(&l->pool, id);
    }
}

static void on_restored(struct loop *l, const struct runner_frame *frame)
{
    struct runner_frame answer = {.type = RUNNER_RESTORED, .id = frame->id};
    if (frame->data.size != SKEP_ENTROPY_BYTES) {
        channel_log("skep-runner: RESTORED without %d bytes of entropy", SKEP_ENTROPY_BYTES);
        answer.status = STATUS_INVALID;
    } else {
        unsigned seed;
        unsigned short seeds[3];
        memcpy(&seed, frame->data.data, sizeof seed);
        memcpy(seeds, frame->data.data + sizeof seed, sizeof seeds);
        srandom(seed);
        (void)seed48(seeds);
        const struct skep_runner *r = l->runner;
        if (r->restored != NULL && r->restored(frame->data.data, frame->arg, r->context) != 0) {
            answer.status = STATUS_FAILED;
        }
    }
    loop_send(l, &answer);
}

static void loop_serve(struct loop *l)
{
    struct runner_frame frame;
    while (!l->send_failed && channel_next(&l->channel, true, &frame) == CHANNEL_FRAME) {
        switch (frame.type) {
        case RUNNER_INVOKE:
            on_invoke(l, &frame);
            break;
        case RUNNER_CANCEL:
            on_cancel(l, frame.id);
            break;
        case RUNNER_RESTORED:
            on_restored(l, &frame);
            break;
        case RUNNER_STOP:
            return;
        default:
            channel_log("skep-runner: frame of type %u ignored", frame.type);
        }
    }
}

static void on_sigterm(int signal)
{
    (void)signal;
    channel_interrupt(RUNNER_FD);
}

/* The thread sanitizer holds a signal back until a system call it knows returns; recvmmsg must then
 * not be restarted. */
#ifdef __SANITIZE_THREAD__
enum { SIGTERM_FLAGS = 0 };
#else
enum { SIGTERM_FLAGS = SA_RESTART };
#endif

/* Process 1 of a pid namespace gets no signal that it has no handler for. */
static void signals_open(void)
{
    struct sigaction old;
    if (sigaction(SIGTERM, NULL, &old) == 0 && old.sa_handler == SIG_DFL) {
        struct sigaction act = {.sa_handler = on_sigterm, .sa_flags = SIGTERM_FLAGS};
        (void)sigaction(SIGTERM, &act, NULL);
    }
}

static unsigned concurrency_of(const struct skep_runner *r)
{
    const char *text = getenv("SKEP_CONCURRENCY");
    unsigned long wanted = text == NULL ? 1 : strtoul(text, NULL, 10);
    if (wanted < 1) {
        wanted = 1;
    }
    unsigned max = r->concurrency_max == 0 ? SKEP_CONCURRENCY_MAX : r->concurrency_max;
    if (max > SKEP_CONCURRENCY_MAX) {
        max = SKEP_CONCURRENCY_MAX;
    }
    return wanted < max ? (unsigned)wanted : max;
}

static bool loop_open(struct loop *l)
{
    if (l->threads) {
        struct status s = pool_open(&l->pool, &l->channel, l->runner->handler, l->runner->context,
                                    l->concurrency);
        return status_is_ok(s);
    }
    l->call = (struct skep_call){.context = l->runner->context, .state = &l->state};
    return call_state_open(&l->state);
}

static void loop_close(struct loop *l)
{
    if (l->threads) {
        pool_close(&l->pool);
        l->send_failed = l->pool.send_failed;
    } else {
        call_state_close(&l->state);
    }
}

/* READY, and PARK behind it where a snapshot is wanted: nothing has run yet, so this is the moment
 * for one. */
static void loop_ready(struct loop *l)
{
    struct runner_frame ready = {.type = RUNNER_READY, .arg = l->concurrency};
    loop_send(l, &ready);
    const char *snapshot = getenv("SKEP_SNAPSHOT");
    if (snapshot != NULL && strcmp(snapshot, "memory") == 0) {
        struct runner_frame park = {.type = RUNNER_PARK};
        loop_send(l, &park);
    }
}

int skep_run(const struct skep_runner *runner)
{
    if (runner == NULL || runner->handler == NULL) {
        channel_log("skep-runner: no handler");
        return EXIT_USAGE;
    }
    struct loop l = {.runner = runner, .concurrency = concurrency_of(runner)};
    l.threads = l.concurrency > 1 && (runner->flags & SKEP_RUNNER_INLINE) == 0;
    struct errmsg msg = {0};
    struct status s = channel_open(&l.channel, RUNNER_FD, &msg);
    if (!status_is_ok(s)) {
        channel_log("skep-runner: %s", msg.text);
        return EXIT_USAGE;
    }
    (void)fflush(stdout);
    (void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    signals_open();
    if (!loop_open(&l)) {
        channel_log("skep-runner: no memory for %u invocations at once", l.concurrency);
        channel_close(&l.channel);
        return EXIT_CHANNEL;
    }
    loop_ready(&l);
    loop_serve(&l);
    loop_close(&l);
    channel_close(&l.channel);
    if (l.send_failed) {
        channel_log("skep-runner: the channel to the agent failed");
    }
    return l.send_failed ? EXIT_CHANNEL : EXIT_STOPPED;
}
