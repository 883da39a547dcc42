/* A function in C: it greets whom the input names. */
#include <skep_runner.h>
#include <stdio.h>

enum { NAME_BYTES_MAX = 100 };

static int hello(struct skep_call *call)
{
    if (call->input_size > NAME_BYTES_MAX) {
        return skep_fail(call, "a name has at most %d bytes, this one has %zu", NAME_BYTES_MAX,
                         call->input_size);
    }
    if (call->input_size == 0) {
        return skep_printf(call, "hello, world\n");
    }
    return skep_printf(call, "hello, %.*s\n", (int)call->input_size, (const char *)call->input);
}

int main(void)
{
    printf("hello is ready\n"); /* goes to `skep logs hello` */
    return skep_run(&(struct skep_runner){.handler = hello, .flags = SKEP_RUNNER_INLINE});
}
