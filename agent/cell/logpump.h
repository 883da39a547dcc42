/* Moves what a cell prints from its pipe into its log ring, at a bounded rate.
 *
 * Thread: the only one of the supervisor. */
#ifndef AGENT_CELL_LOGPUMP_H
#define AGENT_CELL_LOGPUMP_H

#include "agent/cell/logring.h"

enum {
    /* A cell that prints faster waits: its log is a ring, nobody could read it anyway. */
    LOGPUMP_BYTES_PER_MS = 64 << 10,
    LOGPUMP_BURST_BYTES = 4 << 20,
    LOGPUMP_PAUSE_MS = 5, /* how long to wait when the budget is used up */
};

struct logpump {
    struct logring *log; /* borrowed */
    int fd;              /* non-blocking, ours; -1 once the cell has closed its output */
    int64_t budget;
    uint64_t filled_us;
};

/* Takes fd. */
void logpump_init(struct logpump *p, struct logring *log, int fd, uint64_t now_us);
/* Refills the budget; call it with each turn of the loop. */
void logpump_tick(struct logpump *p, uint64_t now_us);
/* The descriptor to poll, or -1 while there is nothing to wait for. */
int logpump_poll_fd(const struct logpump *p);
/* True while the pump waits for its budget: poll again after LOGPUMP_PAUSE_MS. */
bool logpump_pauses(const struct logpump *p);
/* Moves one chunk; false when there was none. */
bool logpump_move(struct logpump *p);
/* Moves what is left in the pipe of a cell that has ended, then closes it. */
void logpump_close(struct logpump *p);

#endif
