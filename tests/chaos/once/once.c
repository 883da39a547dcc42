/* The function of the chaos suite: its output is the head of its input and a
 * random number, so that it is another one each time it runs, and a second accepted result would be
 * seen. */
#include <skep_runner.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>

enum { HEAD_BYTES_MAX = 64 };

static int once(struct skep_call *call)
{
    uint64_t random[2];
    char text[40];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        return -1;
    }
    int size = snprintf(text, sizeof text, "%016llx%016llx", (unsigned long long)random[0],
                        (unsigned long long)random[1]);
    size_t head = call->input_size < HEAD_BYTES_MAX ? call->input_size : HEAD_BYTES_MAX;
    int code = skep_write(call, call->input, head);
    return code != 0 ? code : skep_write(call, text, (size_t)size);
}

int main(void)
{
    return skep_run(&(struct skep_runner){.handler = once, .flags = SKEP_RUNNER_INLINE});
}
