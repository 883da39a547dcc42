/* The function that the call benchmark calls: its output is its input. */
#include <skep_runner.h>

static int echo(struct skep_call *call)
{
    return skep_write(call, call->input, call->input_size);
}

int main(void)
{
    return skep_run(&(struct skep_runner){.handler = echo, .flags = SKEP_RUNNER_INLINE});
}
