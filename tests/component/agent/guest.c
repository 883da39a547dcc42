/* The function that the agent's tests deploy: the first word of the input says what to do.
 * Python sleepers that cannot be canceled are stood for by `hold`. */
#include "agent/runners/c/skep_runner.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool is(const struct skep_call *call, const char *word)
{
    size_t size = strlen(word);
    return call->input_size >= size && memcmp(call->input, word, size) == 0;
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

static int handle(struct skep_call *call)
{
    if (is(call, "fail")) {
        return skep_fail(call, "no such picture");
    }
    if (is(call, "exit")) {
        _exit(3); /* no leak check, which could not work in a cell */
    }
    if (is(call, "crash")) {
        (void)signal(SIGSEGV, SIG_DFL);
        (void)raise(SIGSEGV);
    }
    if (is(call, "slow")) {
        sleep_ms(1500);
        return skep_printf(call, "slow but done");
    }
    if (is(call, "hold")) {
        for (;;) {
            sleep_ms(1000);
        }
    }
    if (is(call, "print")) {
        (void)printf("printed: %.*s\n", (int)call->input_size, (const char *)call->input);
        (void)fflush(stdout);
    }
    return skep_write(call, call->input, call->input_size);
}

int main(void)
{
    return skep_run(&(struct skep_runner){.handler = handle});
}
