/* What the verbs of durable work share.
 *
 * Thread: one. */
#ifndef CLI_DURABLE_H
#define CLI_DURABLE_H

#include "cli/cli.h"

enum {
    IDS_MAX = 1000000,       /* read from standard input, or waited for after a batch */
    OUTCOME_WAIT_MS = 20000, /* of one question; asked again */
};
#define WAIT_MS_ALWAYS (UINT64_C(8) * 24 * 3600 * 1000) /* longer than any outcome is kept */

/* Ids in the order they came in. */
struct id_list {
    struct id128 *items;
    size_t count, capacity;
};
/* LIMIT beyond IDS_MAX, NOMEM. */
NODISCARD struct status id_list_put(struct id_list *l, struct id128 id);
void id_list_close(struct id_list *l);

/* The invocation that a text names: a whole id, or the beginning of one that only one invocation
 * has, which the cluster is asked for. A failure is printed and *code set. */
bool invocation_find(struct cli *cli, struct client *c, const char *text, struct id128 *out,
                     int *code);

/* Prints the outcome of one invocation, waiting for its end up to wait_ms (0: not at all; at most
 * WAIT_MS_ALWAYS). *told: an outcome came, be it a failure; otherwise the question failed. */
int outcome_print(struct cli *cli, struct client *c, struct id128 id, uint64_t wait_ms, bool *told);
/* The same for many, one a line, in their order. Fails when any failed. When nobody answers any
 * more, the rest is not asked for and *told is false. */
int outcomes_print(struct cli *cli, struct client *c, const struct id_list *ids, uint64_t wait_ms,
                   bool *told);

/* Sends the action for the invocation that the verb's first word names, or for each id on standard
 * input when that is "-". */
int invocations_act(struct cli *cli, const char *action, const char *done);

/* How far a batch is, on a terminal, over and over on one line; all 0: not known how many. */
struct progress {
    uint64_t shown_us;
    bool shown;
};
void progress_show(struct progress *p, uint64_t done, uint64_t all, const char *what);
void progress_end(struct progress *p);

#endif
