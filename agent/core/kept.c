/* Results of durable attempts: each is kept until a leader says that its end is committed.
 *
 *     made -> unsent -> sent -> acknowledged (gone)
 *               ^        | no acknowledgement for RESULT_AGAIN_MS, another leader or connection
 *               +--------+
 *
 * A scheduler takes a result any number of times and commits the first; so sending again does no
 * harm. What a bound pushes out is lost here, not in the cluster: its attempt ends by its time-out
 * at the leader, which counts as a failure, and the invocation is tried again. */
#include "agent/core/core_internal.h"

#include "common/check.h"

#include <string.h>

/* How soon a result that the leader's connection could not take is tried again. */
enum { KEPT_RETRY_MS = 50 };

struct core_kept_key {
    struct id128 invocation;
    uint64_t attempt;
    uint64_t attempt_term;
};

/* Texts and output lie behind it. */
struct core_kept {
    struct core_kept_key key;
    struct result r;
    size_t bytes;
    bool sent;
    uint64_t again_us; /* sent: when it is sent again */
    struct core_kept *prev, *next;
    UT_hash_handle hh;
};

static void kept_drop(struct agent_core *c, struct core_kept *k)
{
    if (k->sent) {
        DL_DELETE(c->kept_sent, k);
    } else {
        DL_DELETE(c->kept_unsent, k);
    }
    HASH_DEL(c->kept, k);
    c->stats.results_kept--;
    c->stats.results_kept_bytes -= k->bytes;
    mem_free(k);
}

static struct core_kept *kept_find(const struct agent_core *c, struct id128 invocation,
                                   uint32_t attempt, uint64_t attempt_term)
{
    const struct core_kept_key key = {invocation, attempt, attempt_term};
    struct core_kept *k;
    HASH_FIND(hh, c->kept, &key, sizeof key, k);
    return k;
}

bool core_kept_has(const struct agent_core *c, struct id128 invocation, uint32_t attempt,
                   uint64_t attempt_term)
{
    return kept_find(c, invocation, attempt, attempt_term) != NULL;
}

/* Sends what is unsent, oldest first, while the leader takes it. */
static void kept_send(struct agent_core *c, uint64_t now_us)
{
    while (c->kept_unsent != NULL) {
        struct core_kept *k = c->kept_unsent;
        const struct message m = {.type = MESSAGE_RESULT, .result = k->r};
        if (!c->env.send(c->env.data, c->leader, &m)) {
            core_due(c, after_ms(now_us, KEPT_RETRY_MS));
            return;
        }
        DL_DELETE(c->kept_unsent, k);
        k->sent = true;
        k->again_us = after_ms(now_us, RESULT_AGAIN_MS);
        DL_APPEND(c->kept_sent, k);
        core_due(c, k->again_us);
    }
}

void core_kept_flush(struct agent_core *c, uint64_t now_us, bool all)
{
    if (!agent_core_has_lease(c, now_us)) {
        return;
    }
    if (all && c->kept_sent != NULL) {
        struct core_kept *k;
        DL_FOREACH(c->kept_sent, k) {
            k->sent = false;
        }
        DL_CONCAT(c->kept_sent, c->kept_unsent);
        c->kept_unsent = c->kept_sent;
        c->kept_sent = NULL;
    }
    while (c->kept_sent != NULL && c->kept_sent->again_us <= now_us) {
        struct core_kept *k = c->kept_sent;
        DL_DELETE(c->kept_sent, k);
        k->sent = false;
        DL_APPEND(c->kept_unsent, k);
        c->stats.results_again++;
    }
    if (c->kept_sent != NULL) {
        core_due(c, c->kept_sent->again_us);
    }
    kept_send(c, now_us);
}

void core_kept_put(struct agent_core *c, uint64_t now_us, const struct result *r)
{
    struct core_kept *k = kept_find(c, r->invocation, r->attempt, r->attempt_term);
    if (k != NULL) {
        return; /* The first answer stands. */
    }
    size_t text = strlen(r->message) + 1;
    size_t bytes = sizeof *k + text + r->output.size;
    while (c->kept != NULL && (c->stats.results_kept >= RESULTS_KEPT_MAX ||
                               c->stats.results_kept_bytes + bytes > RESULTS_KEPT_BYTES_MAX)) {
        kept_drop(c, c->kept); /* The oldest: uthash keeps the order of insertion. */
        c->stats.results_kept_dropped++;
    }
    k = bytes > RESULTS_KEPT_BYTES_MAX ? NULL : mem_alloc(bytes);
    if (k == NULL) {
        c->stats.results_kept_dropped++;
        return;
    }
    uint8_t *tail = (uint8_t *)(k + 1);
    *k = (struct core_kept){
        .key = {r->invocation, r->attempt, r->attempt_term}, .r = *r, .bytes = bytes};
    memcpy(tail, r->message, text);
    k->r.message = (const char *)tail;
    if (r->output.size > 0) {
        memcpy(tail + text, r->output.data, r->output.size);
    }
    k->r.output = bytes_of(tail + text, r->output.size);
    HASH_ADD(hh, c->kept, key, sizeof k->key, k);
    if (!HASH_IN(k)) {
        mem_free(k);
        c->stats.results_kept_dropped++;
        return;
    }
    DL_APPEND(c->kept_unsent, k);
    c->stats.results_kept++;
    c->stats.results_kept_bytes += bytes;
    core_kept_flush(c, now_us, false);
}

void core_kept_ack(struct agent_core *c, const struct result_ack *a)
{
    struct core_kept *k = kept_find(c, a->invocation, a->attempt, a->attempt_term);
    if (k != NULL) {
        kept_drop(c, k);
        c->stats.results_acked++;
    }
}

void core_kept_free(struct agent_core *c)
{
    while (c->kept != NULL) {
        kept_drop(c, c->kept);
    }
}
