/* What an agent lays out for a canary to find when a wall is missing: a file that everybody may
 * read, an abstract socket and a port of the loopback in the agent's network namespace, memory of
 * its own, a shared memory segment, a key. Whatever can hold text holds the nonce, which is told to
 * nobody: a canary that answers it has been there.
 *
 *     bait_lay -> (a round) -> bait_take
 *
 * What outlives a killed agent is one file, /tmp/skep-bait-HASH with a hash of the data folder; the
 * next round, the next start of that agent and `skep-agent stop-instances` remove it.
 *
 * Thread: the owner's. */
#ifndef AGENT_BAIT_H
#define AGENT_BAIT_H

#include "common/buffer.h"
#include "common/status.h"

#include <stdint.h>

enum {
    BAIT_NONCE_BYTES = 32, /* hexadecimal digits */
    BAIT_TEXT_BYTES = 96,
    BAIT_KEY_SECONDS = 120, /* a key is gone by itself after that */
};

struct bait {
    char nonce[BAIT_NONCE_BYTES + 1];
    char file[BAIT_TEXT_BYTES]; /* its path; "": there is none */
    char socket[BAIT_TEXT_BYTES];
    int socket_fd; /* -1: none */
    int port_fd;   /* -1: none */
    unsigned port;
    int shm; /* -1: none */
    void *shm_at;
    int32_t key; /* 0: none */
    /* What the other cell lays. */
    char other_nonce[BAIT_NONCE_BYTES + 1];
    char other_name[BAIT_TEXT_BYTES]; /* of its file and its socket */
    unsigned other_port;
};

/* data: the agent's data folder. What cannot be laid is left out: its check does not apply then. IO
 * when there are no random numbers; nothing is laid then. b must stay in place until taken: it is
 * bait itself. */
NODISCARD struct status bait_lay(struct bait *b, const char *data, struct errmsg *msg);
/* Removes all of it. Only after bait_lay. */
void bait_take(struct bait *b);
/* Removes what a killed agent of that data folder left. */
void bait_sweep(const char *data);

/* Appends what a canary is told, as agent/canary/canary.h says; other_pid 0: not known. NOMEM. */
NODISCARD struct status bait_targets(const struct bait *b, int other_pid, struct buffer *out);
/* What the other cell is told. */
void bait_of_other(const struct bait *b, char out[4 * BAIT_TEXT_BYTES]);

#endif
