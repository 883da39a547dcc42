/* A canary that says that it read the host's file: what a node with a hole would answer. */
#include "agent/runners/c/skep_runner.h"

static int handle(struct skep_call *call)
{
    return skep_printf(call, "host-file b it said so\nhost-port h connect: ECONNREFUSED\n");
}

int main(void)
{
    return skep_run(&(struct skep_runner){
        .handler = handle, .concurrency_max = 1, .flags = SKEP_RUNNER_INLINE});
}
