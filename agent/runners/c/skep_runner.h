/* libskep_runner: write a Skep function as a C program.
 *
 *     #include <skep_runner.h>
 *
 *     static int echo(struct skep_call *call)
 *     {
 *         return skep_write(call, call->input, call->input_size);
 *     }
 *
 *     int main(void)
 *     {
 *         return skep_run(&(struct skep_runner){.handler = echo});
 *     }
 *
 * Build it with `cc -static-pie -o echo echo.c -lskep_runner -lpthread` and deploy it with
 * `runtime: c`, `handler: ./echo`. The program is started by an agent, which talks to it on
 * descriptor 3; standard output and standard error are its log. It is process 1 of its sandbox.
 * Needs libc and pthread only. */
#ifndef SKEP_RUNNER_H
#define SKEP_RUNNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma GCC visibility push(default)

enum {
    SKEP_INPUT_BYTES_MAX = 4 << 20,
    SKEP_OUTPUT_BYTES_MAX = 4 << 20,
    SKEP_ERROR_BYTES_MAX = 4096,
    SKEP_CONCURRENCY_MAX = 1024,
    SKEP_ENTROPY_BYTES = 48,
};

struct skep_call_state;

/* One invocation, the handler's until it returns. */
struct skep_call {
    uint64_t id;
    const void *input; /* not terminated; NULL or any pointer when input_size is 0 */
    size_t input_size;
    void *context;                 /* the runner's */
    struct skep_call_state *state; /* private */
};

/* 0: done, the output is what skep_write and skep_printf gave. Anything else: the invocation
 * failed, with the text of skep_fail. */
typedef int skep_handler(struct skep_call *call);

/* Called after the process was restored from a memory snapshot, before any further invocation:
 * reseed every random generator the program keeps, since other instances continue from the same
 * memory. (rand, random and drand48 are reseeded already.) Return 0, or something else to refuse to
 * go on. */
typedef int skep_restored(const uint8_t entropy[SKEP_ENTROPY_BYTES], uint64_t unix_us,
                          void *context);

enum {
    /* All invocations on the calling thread, one after the other, while up to `concurrency` may be
     * waiting: the fastest way for handlers that only compute for microseconds. A handler that
     * waits holds up all others. */
    SKEP_RUNNER_INLINE = 1,
};

struct skep_runner {
    skep_handler *handler;
    skep_restored *restored; /* or NULL */
    void *context;
    /* How many invocations the program can have at once; 0: as many as the manifest's
     * scaling.concurrency says. With more than one, and without SKEP_RUNNER_INLINE, the handler is
     * called from as many threads (created when first needed). */
    unsigned concurrency_max;
    unsigned flags;
};

/* Serves invocations until the agent says stop or SIGTERM arrives; what runs then is finished.
 * Returns the program's exit code: 0 after a stop, 1 when the channel failed, 2 when the program
 * was not started by an agent. Call it once, from main. */
int skep_run(const struct skep_runner *runner);

/* Appends to the output. 0, or -1 when it would exceed SKEP_OUTPUT_BYTES_MAX or memory is out; the
 * invocation fails then, even when the handler returns 0. */
int skep_write(struct skep_call *call, const void *data, size_t size);
int skep_printf(struct skep_call *call, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Sets the error text and returns -1, so that a handler can `return skep_fail(call, "no such thing:
 * %s", name)`. Texts over SKEP_ERROR_BYTES_MAX are cut. The output is dropped. */
int skep_fail(struct skep_call *call, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Milliseconds left of the invocation's timeout, 0 when it has passed; UINT64_MAX without a
 * timeout. */
uint64_t skep_left_ms(const struct skep_call *call);

/* True once the caller has given up. A handler that runs long may ask now and then, and return.
 * Never true with a single thread. */
bool skep_canceled(const struct skep_call *call);

#pragma GCC visibility pop

#ifdef __cplusplus
}
#endif

#endif
