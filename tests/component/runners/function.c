/* A function for the tests of libskep_runner: the first word of the input says what to do. */
#include "agent/runners/c/skep_runner.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MEETING_SIZE = 8 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned met;

static bool is(const struct skep_call *call, const char *word)
{
    size_t size = strlen(word);
    return call->input_size >= size && memcmp(call->input, word, size) == 0;
}

/* Returns once MEETING_SIZE invocations are here at the same time. */
static int meet(struct skep_call *call)
{
    (void)pthread_mutex_lock(&lock);
    met++;
    (void)pthread_cond_broadcast(&changed);
    while (met < MEETING_SIZE) {
        (void)pthread_cond_wait(&changed, &lock);
    }
    (void)pthread_mutex_unlock(&lock);
    return skep_printf(call, "met");
}

static int wait_for_cancel(struct skep_call *call)
{
    (void)printf("waiting\n");
    struct timespec step = {0, 1000000};
    while (!skep_canceled(call)) {
        (void)nanosleep(&step, NULL);
    }
    return skep_fail(call, "gave up");
}

static int fill(struct skep_call *call, size_t size)
{
    char block[4096];
    memset(block, 'x', sizeof block);
    while (size > 0) {
        size_t part = size < sizeof block ? size : sizeof block;
        if (skep_write(call, block, part) != 0) {
            return 0;
        }
        size -= part;
    }
    return 0;
}

static int handle(struct skep_call *call)
{
    if (is(call, "fail")) {
        return skep_fail(call, "no such thing: %d", 7);
    }
    if (is(call, "silent")) {
        return 5;
    }
    if (is(call, "crash")) {
        (void)signal(SIGSEGV, SIG_DFL);
        (void)raise(SIGSEGV);
    }
    if (is(call, "exactly")) {
        return fill(call, SKEP_OUTPUT_BYTES_MAX);
    }
    if (is(call, "too much")) {
        return fill(call, (size_t)SKEP_OUTPUT_BYTES_MAX + 1);
    }
    if (is(call, "left")) {
        return skep_printf(call, "%s", skep_left_ms(call) == UINT64_MAX ? "no limit" : "some");
    }
    if (is(call, "random")) {
        return skep_printf(call, "%ld", random());
    }
    if (is(call, "meet")) {
        return meet(call);
    }
    if (is(call, "wait")) {
        return wait_for_cancel(call);
    }
    if (is(call, "long")) {
        return skep_printf(call, "%*d", 2000, 1);
    }
    return skep_write(call, call->input, call->input_size);
}

static int restored(const uint8_t entropy[SKEP_ENTROPY_BYTES], uint64_t unix_us, void *context)
{
    (void)context;
    (void)printf("restored with %u at %llu\n", entropy[47], (unsigned long long)unix_us);
    return entropy[47] == 0xff ? 1 : 0;
}

int main(int argc, char **argv)
{
    bool inline_mode = argc > 1 && strcmp(argv[1], "inline") == 0;
    return skep_run(&(struct skep_runner){
        .handler = handle,
        .restored = restored,
        .flags = inline_mode ? SKEP_RUNNER_INLINE : 0,
    });
}
