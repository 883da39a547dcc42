/* skep-canary: an agent runs it in a cell; canary.h has the story. */
#include "agent/canary/canary.h"
#include "agent/runners/c/skep_runner.h"

#include <stdio.h>
#include <stdlib.h>

static uint64_t descriptors;

static int handle(struct skep_call *call)
{
    static struct canary_targets targets;
    if (!canary_targets_read(call->input, call->input_size, &targets)) {
        return skep_fail(call, "the targets are not lines of KEY=VALUE");
    }
    targets.descriptors = descriptors;
    for (size_t i = 0; i < CANARY_CHECKS_COUNT; i++) {
        struct canary_outcome outcome;
        canary_check_run(i, &targets, &outcome);
        if (skep_printf(call, "%s %c %s\n", canary_check_name(i), outcome.verdict,
                        outcome.detail) != 0) {
            return -1;
        }
    }
    return 0;
}

int main(void)
{
    descriptors = canary_descriptors();
    const char *bait = getenv(CANARY_BAIT_ENV);
    if (bait != NULL && !canary_bait_lay(bait)) {
        (void)fprintf(stderr, "skep-canary: cannot lay the bait\n");
        return 1;
    }
    return skep_run(&(struct skep_runner){
        .handler = handle, .concurrency_max = 1, .flags = SKEP_RUNNER_INLINE});
}
