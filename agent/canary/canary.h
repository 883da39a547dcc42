/* The canary: a function of Skep's own that tries to get out of its cell, and says how that went.
 *
 *     agent: bait is laid, an instance of skep-canary starts as any other -> INVOKE with the
 *     targets
 *     canary: each check in a child of its own, with a deadline -> RESULT, a line a check:
 *         NAME h|b|n|r DETAIL     held, breached, not applicable, not run
 *
 * It is never told what the bait holds: when a check reads some, the line tells what it read, and
 * the agent knows its bait. With SKEP_CANARY_BAIT in its environment it is itself the other cell
 * whose things are tried, and lays its own bait before it is ready.
 *
 * A check that a signal ends was held when it is SIGSYS, the filter's, and did not run otherwise.
 *
 * Thread: one. Needs libc only. */
#ifndef AGENT_CANARY_CANARY_H
#define AGENT_CANARY_CANARY_H

#include "agent/canary/check_table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CANARY_TEXT_BYTES = 256,
    CANARY_ADDRESSES_MAX = 16,
    CANARY_DETAIL_BYTES = 160,
    CANARY_CHECK_MS = 5000,
    CANARY_NONCE_BYTES = 32, /* hexadecimal digits */
};
/* What another cell is told in its environment: "FILE SOCKET PORT NONCE". */
#define CANARY_BAIT_ENV "SKEP_CANARY_BAIT"

/* What the checks reach for; 0, -1 for keys and segments, and "" mean that there is none. */
struct canary_targets {
    char file[CANARY_TEXT_BYTES];   /* a bait file on the host */
    char socket[CANARY_TEXT_BYTES]; /* an abstract socket in the agent's network namespace */
    unsigned port;                  /* on its 127.0.0.1 */
    int agent_pid;                  /* where the agent sees itself */
    uint64_t agent_memory;          /* where in it CANARY_NONCE_BYTES of bait are */
    int shm;                        /* System V */
    int32_t key;
    int other_pid;                        /* of another cell */
    char other_file[CANARY_TEXT_BYTES];   /* a name in its /tmp and /dev/shm */
    char other_socket[CANARY_TEXT_BYTES]; /* abstract */
    unsigned other_port;
    char addresses[CANARY_ADDRESSES_MAX][CANARY_TEXT_BYTES]; /* IP:PORT or [IP]:PORT */
    size_t addresses_count;
    uint64_t descriptors; /* bit N: descriptor N was open when the program began, up to 63 */
};

/* The text of an INVOKE: lines KEY=VALUE; unknown keys are left out. False for what is none. */
bool canary_targets_read(const char *text, size_t size, struct canary_targets *out);
/* Which descriptors are open now. */
uint64_t canary_descriptors(void);

enum canary_verdict {
    CANARY_HELD = 'h',
    CANARY_BREACHED = 'b',
    CANARY_NONE = 'n',
    CANARY_NOT_RUN = 'r'
};

struct canary_outcome {
    char verdict; /* enum canary_verdict */
    char detail[CANARY_DETAIL_BYTES];
};

/* Runs check n (its row's number) in a child. */
void canary_check_run(size_t n, const struct canary_targets *t, struct canary_outcome *out);
const char *canary_check_name(size_t n);
const char *canary_check_what(size_t n);

/* Lays the bait of the other cell. False when that failed. */
bool canary_bait_lay(const char *text);

#endif
