/* What a queue of another system can do, for the benchmark. All calls block; a failure ends the
 * program. */
#ifndef BENCH_QUEUE_PEERS_H
#define BENCH_QUEUE_PEERS_H

#include <stdbool.h>
#include <stddef.h>

enum { JOB_BYTES_MAX = 4096 };

struct queue {
    void *(*open)(int port, int number, bool worker);
    /* Returns when the server has the job on disk. */
    void (*submit)(void *link, int number, const char *job, size_t size);
    /* Waits for the result of this client's job. */
    void (*result)(void *link, int number, char *out, size_t size);
    /* Takes one job, sends its result, and lets it go. */
    void (*work)(void *link, int worker, size_t size);
};

/* NULL where librabbitmq was not there to build with. */
const struct queue *queue_rabbitmq(void);

_Noreturn void peer_die(const char *what);

#endif
