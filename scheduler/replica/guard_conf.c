/* Configurations. CONF cures M, several mistakes of libraft 0.15 (cured upstream by baa8f52 and the
 * changes around it):
 *   - a configuration that is loaded at the start counts as committed, so it is never rolled back,
 *     and another change may begin on top of it;
 *   - a rollback looks for the last committed configuration in the log, where a snapshot may have
 *     replaced it, and crashes;
 *   - one that is not committed gets into snapshots;
 *   - an installed snapshot leaves the mark of an uncommitted configuration that is gone;
 *   - one that is applied before its write has ended is marked uncommitted for ever.
 * So the configurations in log and snapshot are kept here, and libraft's fields are put right where
 * it matters: at the start, before a message that truncates, in snapshots, after installations. */
#include "scheduler/replica/guard_internal.h"

#include "common/buffer.h"
#include "common/check.h"
#include "common/mem.h"

#include <string.h>

enum { CONF_FORMAT = 1, CONF_SERVERS_MAX = 64 };

static int conf_copy(const struct raft_configuration *from, struct raft_configuration *out)
{
    raft_configuration_init(out);
    for (unsigned i = 0; i < from->n; i++) {
        const struct raft_server *s = &from->servers[i];
        int rv = raft_configuration_add(out, s->id, s->address, s->role);
        if (rv != 0) {
            raft_configuration_close(out);
            return rv;
        }
    }
    return 0;
}

/* libraft's own encoding: u8 format | u64 count | (u64 id | address, NUL | u8 role)*. */
static int conf_decode(const struct raft_buffer *buf, struct raft_configuration *out)
{
    struct reader r = reader_of(bytes_of(buf->base, buf->len));
    uint8_t format = reader_u8(&r);
    uint64_t count = reader_u64(&r);
    if (r.failed || format != CONF_FORMAT || count > CONF_SERVERS_MAX) {
        return RAFT_MALFORMED;
    }
    raft_configuration_init(out);
    int rv = 0;
    for (uint64_t i = 0; i < count && rv == 0; i++) {
        uint64_t id = reader_u64(&r);
        const char *address = (const char *)r.rest.data;
        size_t size = r.rest.size == 0 ? 0 : strnlen(address, r.rest.size);
        (void)reader_bytes(&r, size + 1);
        uint8_t role = reader_u8(&r);
        rv = r.failed ? RAFT_MALFORMED : raft_configuration_add(out, id, address, role);
    }
    if (rv != 0) {
        raft_configuration_close(out);
    }
    return rv;
}

/* Takes conf. NOMEM frees it. */
static int confs_push(struct guard_confs *c, uint64_t index, struct raft_configuration conf)
{
    CHECK(c->count == 0 || c->items[c->count - 1].index < index);
    if (c->count == c->capacity) {
        size_t capacity = c->capacity == 0 ? 4 : c->capacity * 2;
        struct guard_conf *items = mem_realloc(c->items, capacity * sizeof *items);
        if (items == NULL) {
            raft_configuration_close(&conf);
            return RAFT_NOMEM;
        }
        c->items = items;
        c->capacity = capacity;
    }
    c->items[c->count++] = (struct guard_conf){.index = index, .conf = conf};
    return 0;
}

static void confs_truncate(struct guard_confs *c, uint64_t index)
{
    while (c->count > 0 && c->items[c->count - 1].index >= index) {
        raft_configuration_close(&c->items[--c->count].conf);
    }
}

/* The last one that is not after `index`; NULL: none. */
static const struct guard_conf *confs_at(const struct guard_confs *c, uint64_t index)
{
    for (size_t i = c->count; i > 0; i--) {
        if (c->items[i - 1].index <= index) {
            return &c->items[i - 1];
        }
    }
    return NULL;
}

/* No snapshot will ask for what is older than the one in force at the last snapshot. */
static void confs_prune(struct guard_confs *c, uint64_t snapshot_index)
{
    size_t old = 0;
    while (old + 1 < c->count && c->items[old + 1].index <= snapshot_index) {
        raft_configuration_close(&c->items[old++].conf);
    }
    if (old > 0) {
        c->count -= old;
        memmove(c->items, c->items + old, c->count * sizeof *c->items);
    }
}

void guard_conf_close(struct guard *g)
{
    confs_truncate(&g->confs, 0);
    mem_free(g->confs.items);
    g->confs = (struct guard_confs){0};
}

static int push_copy(struct guard *g, uint64_t index, const struct raft_configuration *from)
{
    struct raft_configuration conf;
    int rv = conf_copy(from, &conf);
    return rv != 0 ? rv : confs_push(&g->confs, index, conf);
}

int guard_conf_appended(struct guard *g, uint64_t first, const struct raft_entry *entries,
                        unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct guard_confs *c = &g->confs;
        if (entries[i].type != RAFT_CHANGE ||
            (c->count > 0 && c->items[c->count - 1].index >= first + i)) {
            continue; /* an older one that the snapshot already includes */
        }
        struct raft_configuration conf;
        int rv = conf_decode(&entries[i].buf, &conf);
        rv = rv != 0 ? rv : confs_push(&g->confs, first + i, conf);
        if (rv != 0) {
            return rv;
        }
    }
    confs_prune(&g->confs, g->raft->log.snapshot.last_index);
    return 0;
}

int guard_conf_loaded(struct guard *g, const struct raft_snapshot *snapshot, uint64_t first,
                      const struct raft_entry *entries, size_t count)
{
    if (snapshot != NULL) {
        int rv = push_copy(g, snapshot->configuration_index, &snapshot->configuration);
        if (rv != 0) {
            return rv;
        }
    }
    return guard_conf_appended(g, first, entries, (unsigned)count);
}

void guard_conf_started(struct guard *g)
{
    const struct guard_confs *c = &g->confs;
    struct raft *r = g->raft;
    if (!guard_has(g, GUARD_CONF) || c->count < 2) {
        return;
    }
    const struct guard_conf *last = &c->items[c->count - 1];
    if (last->index > r->commit_index && r->configuration_index == last->index) {
        r->configuration_index = c->items[c->count - 2].index;
        r->configuration_uncommitted_index = last->index;
    }
}

void guard_conf_truncated(struct guard *g, uint64_t index)
{
    confs_truncate(&g->confs, index);
}

/* Puts a configuration in force; on NOMEM all is as it was. */
static int enforce(struct raft_configuration *at, const struct guard_conf *from)
{
    struct raft_configuration conf;
    int rv = conf_copy(&from->conf, &conf);
    if (rv == 0) {
        raft_configuration_close(at);
        *at = conf;
    }
    return rv;
}

int guard_conf_snapshot(struct guard *g, struct raft_snapshot *snapshot)
{
    const struct guard_conf *c = confs_at(&g->confs, snapshot->index);
    if (!guard_has(g, GUARD_CONF) || c == NULL) {
        return 0;
    }
    int rv = enforce(&snapshot->configuration, c);
    if (rv == 0) {
        snapshot->configuration_index = c->index;
    }
    return rv;
}

int guard_conf_replaced(struct guard *g, const struct raft_snapshot *snapshot)
{
    confs_truncate(&g->confs, 0);
    return push_copy(g, snapshot->configuration_index, &snapshot->configuration);
}

/* The index at which libraft will truncate its log for this message; 0: it will not. */
static uint64_t conflict_of(const struct raft *r, const struct raft_append_entries *args)
{
    if (args->term < r->current_term ||
        (args->prev_log_index != 0 &&
         guard_term_of(&r->log, args->prev_log_index) != args->prev_log_term)) {
        return 0;
    }
    for (unsigned i = 0; i < args->n_entries; i++) {
        uint64_t index = args->prev_log_index + 1 + i;
        uint64_t term = guard_term_of(&r->log, index);
        if (term == 0) {
            return 0;
        }
        if (term != args->entries[i].term) {
            return index <= r->commit_index ? 0 : index;
        }
    }
    return 0;
}

int guard_conf_rollback(struct guard *g, const struct raft_append_entries *args)
{
    struct raft *r = g->raft;
    if (!guard_has(g, GUARD_CONF) || r->configuration_uncommitted_index == 0) {
        return 0;
    }
    uint64_t index = conflict_of(r, args);
    if (index == 0 || r->configuration_uncommitted_index < index) {
        return 0;
    }
    const struct guard_conf *c = confs_at(&g->confs, index - 1);
    if (c == NULL) {
        return 0;
    }
    int rv = enforce(&r->configuration, c);
    if (rv == 0) {
        bool committed = c->index <= r->commit_index;
        r->configuration_index = committed ? c->index : r->configuration_index;
        r->configuration_uncommitted_index = committed ? 0 : c->index;
    }
    return rv;
}

void guard_conf_settle(struct guard *g)
{
    struct raft *r = g->raft;
    uint64_t index = r->configuration_uncommitted_index;
    if (index == 0 || !guard_has(g, GUARD_CONF)) {
        return;
    }
    const struct guard_confs *c = &g->confs;
    bool gone = c->count > 0 && c->items[c->count - 1].index < index && !g->installing;
    if (gone || index <= r->last_applied) {
        r->configuration_uncommitted_index = 0;
    }
}
