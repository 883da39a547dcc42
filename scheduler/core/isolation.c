/* The isolation monitor's side of the leader: when each node is checked, and what a failed check
 * does.
 *
 *     registered -> (a while, the node's own) -> isolation_check -> isolation_report -> kept
 *                                                   a check failed -> cordon, journal, event
 *     no report within CORE_ISOLATION_ANSWER_MS -> "not run", and nothing is cordoned for it
 *
 * When: a function of the node's name and round and of the interval, so that nodes do not do it all
 * at once and a changed interval counts at once. Draining nodes are left alone; cordoned ones are
 * not. All of this is soft but the cordon: a new leader begins anew. */
#include "common/units.h"
#include "scheduler/core/core_internal.h"

#include <stdio.h>
#include <string.h>

/* The first round of a node: not in the first seconds, which belong to its instances. */
enum { FIRST_MS = 10 * 1000, FIRST_SPREAD_MS = 50 * 1000 };

uint64_t isolation_interval_ms(const struct core *c)
{
    const char *text = catalog_setting_find(&c->catalog, "isolation.interval", NULL);
    uint64_t ms = CORE_ISOLATION_MS;
    if (text != NULL) {
        (void)!status_is_ok(unit_parse(UNIT_DURATION, text, strlen(text), &ms, NULL));
    }
    return ms == 0 || ms >= CORE_ISOLATION_MS_MIN ? ms : CORE_ISOLATION_MS_MIN;
}

static uint64_t spread(const struct node *n, uint64_t below)
{
    uint64_t h = hash_fnv1a(HASH_FNV1A, n->name, strlen(n->name));
    return hash_fnv1a(h, &n->isolation.round, sizeof n->isolation.round) % below;
}

static uint64_t due_us(const struct node *n, uint64_t interval_ms)
{
    uint64_t ms = FIRST_MS + spread(n, FIRST_SPREAD_MS);
    if (n->isolation.round != 0) {
        ms = interval_ms - interval_ms / 8 + spread(n, interval_ms / 4);
    } else if (ms > interval_ms) {
        ms = interval_ms;
    }
    return n->isolation.since_us + ms * 1000;
}

void isolation_registered(struct node *n, struct core_time now, bool canary)
{
    struct node_isolation *i = &n->isolation;
    i->canary = canary;
    i->waiting = false;
    i->since_us = now.mono_us;
}

static void results_forget(struct node_isolation *i)
{
    arena_reset(&i->arena);
    i->results = NULL;
    i->results_count = 0;
    i->failed[0] = '\0';
}

void isolation_forget(struct node *n)
{
    results_forget(&n->isolation);
    n->isolation = (struct node_isolation){.arena = n->isolation.arena};
}

/* ---- Rounds ---- */

static struct status may_check(const struct core *c, const struct node *n, struct errmsg *msg)
{
    const struct catalog_node *k = n == NULL ? NULL : catalog_node_find(&c->catalog, n->name);
    if (k == NULL || !node_ready(n)) {
        return status_fail(msg, STATUS_UNAVAILABLE, "the node is not connected");
    }
    if (!n->isolation.canary) {
        return status_fail(msg, STATUS_UNAVAILABLE, "the node's agent has no canary");
    }
    if (k->mode == NODE_MODE_DRAINING) {
        return status_fail(msg, STATUS_UNAVAILABLE, "the node is draining");
    }
    return status_ok();
}

static void check_send(struct core *c, struct core_time now, struct node *n)
{
    struct node_isolation *i = &n->isolation;
    i->wanted = false;
    i->waiting = true;
    i->since_us = now.mono_us;
    i->round = ++c->isolation_round;
    struct arena a = {0};
    size_t schedulers = HASH_COUNT(c->catalog.schedulers);
    struct message m = {.type = MESSAGE_ISOLATION_CHECK, .term = c->term};
    m.isolation_check.round = i->round;
    m.isolation_check.isolation = "cell";
    m.isolation_check.addresses =
        mem_must(arena_zalloc(&a, schedulers, sizeof m.isolation_check.addresses[0]));
    for (struct catalog_setting *s = c->catalog.schedulers; s != NULL; s = s->hh.next) {
        m.isolation_check.addresses[m.isolation_check.addresses_count++].text = s->value;
    }
    c->env.send(c->env.data, n->peer, &m);
    arena_close(&a);
}

struct status isolation_run(struct core *c, const char *node, uint32_t *count, struct errmsg *msg)
{
    *count = 0;
    struct node *one = NULL;
    if (node[0] != '\0') {
        one = node_find(c, node);
        if (one == NULL) {
            return status_fail(msg, STATUS_NOT_FOUND, "no node is named %.80s; see skep node list",
                               node);
        }
        struct status s = may_check(c, one, msg);
        if (!status_is_ok(s)) {
            return s;
        }
    }
    for (struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        if ((one == NULL || one == n) && status_is_ok(may_check(c, n, NULL))) {
            n->isolation.wanted = true;
            (*count)++;
        }
    }
    return *count > 0 ? status_ok()
                      : status_fail(msg, STATUS_UNAVAILABLE, "no node can be checked now");
}

/* ---- Reports ---- */

static void not_run(struct core *c, struct core_time now, struct node *n, enum status_code code,
                    const char *why)
{
    struct node_isolation *i = &n->isolation;
    /* What an earlier round found is not undone by one that did not run. */
    bool breached = i->failed[0] != '\0';
    if (!breached) {
        results_forget(i);
    }
    i->code = code;
    i->report_ms = now.unix_ms;
    (void)snprintf(i->message, sizeof i->message, "%s", why);
    c->stats.isolation_not_run++;
    journal_add(c, now, n->name, "isolation checks not run: %s", why);
}

static void breaches_tell(struct core *c, struct core_time now, struct node *n)
{
    struct node_isolation *i = &n->isolation;
    for (size_t k = 0; k < i->results_count; k++) {
        const struct isolation_result *r = &i->results[k];
        if (r->verdict != ISOLATION_BREACHED) {
            continue;
        }
        if (i->failed[0] == '\0') {
            (void)snprintf(i->failed, sizeof i->failed, "%s", r->check);
        }
        c->stats.isolation_breaches++;
        journal_add(c, now, n->name, "isolation check %s failed: %s", r->check, r->detail);
        if (c->env.isolation_failed != NULL) {
            c->env.isolation_failed(c->env.data, n->name, r->check, r->detail);
        }
    }
    i->cordon_due = i->cordon_due || i->failed[0] != '\0';
}

void isolation_report(struct core *c, struct core_time now, uint64_t peer, const struct message *m)
{
    struct node *n = node_of_peer(c, peer);
    const struct isolation_report *r = &m->isolation_report;
    if (!c->leader || n == NULL || m->term != c->term || !n->isolation.waiting ||
        r->round != n->isolation.round) {
        return; /* of another round, or of another leader's */
    }
    struct node_isolation *i = &n->isolation;
    i->waiting = false;
    if (r->code != STATUS_OK) {
        char why[ISOLATION_DETAIL_BYTES];
        (void)snprintf(why, sizeof why, "%s", r->message);
        for (char *at = why; *at != '\0'; at++) {
            *at = *at >= ' ' && *at <= '~' ? *at : '?';
        }
        not_run(c, now, n, status_from_wire(r->code), why);
        return;
    }
    results_forget(i);
    if (!status_is_ok(isolation_results_copy(&i->arena, r, &i->results, &i->results_count))) {
        not_run(c, now, n, STATUS_NOMEM, "the scheduler has no memory for the report");
        return;
    }
    i->code = STATUS_OK;
    i->message[0] = '\0';
    i->report_ms = now.unix_ms;
    c->stats.isolation_rounds++;
    breaches_tell(c, now, n);
}

/* ---- The cordon ---- */

struct cordoning {
    struct core *core;
    char node[NAME_BYTES_MAX + 1];
};

static void on_cordoned(void *data, struct status s, const char *message, uint64_t index)
{
    struct cordoning *k = data;
    (void)message;
    (void)index;
    struct node *n = node_find(k->core, k->node);
    if (n != NULL) {
        n->isolation.cordoning = false;
        /* Whatever else went wrong is tried again by the next tick. */
        n->isolation.cordon_due = n->isolation.cordon_due && !status_is_ok(s);
    }
    mem_free(k);
}

static void cordon(struct core *c, struct core_time now, struct node *n)
{
    struct node_isolation *i = &n->isolation;
    const struct catalog_node *k = catalog_node_find(&c->catalog, n->name);
    char reason[CATALOG_TEXT_BYTES_MAX];
    (void)snprintf(reason, sizeof reason, "isolation check %s failed", i->failed);
    /* One that drains takes nothing new either; one that is cordoned for it stays so. */
    if (k == NULL || k->mode == NODE_MODE_DRAINING ||
        (k->mode == NODE_MODE_CORDONED && strcmp(k->reason, reason) == 0)) {
        i->cordon_due = false;
        return;
    }
    struct cordoning *data = mem_must(mem_zalloc(1, sizeof *data));
    data->core = c;
    (void)snprintf(data->node, sizeof data->node, "%s", n->name);
    const struct command cmd = {
        .type = COMMAND_NODE_SET,
        .by = "scheduler",
        .command_node_set = {.name = n->name, .mode = NODE_MODE_CORDONED, .reason = reason}};
    i->cordoning = true;
    core_submit(c, now, &cmd, on_cordoned, data);
}

void isolation_tick(struct core *c, struct core_time now)
{
    uint64_t interval_ms = isolation_interval_ms(c);
    for (struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        struct node_isolation *i = &n->isolation;
        if (i->cordon_due && !i->cordoning) {
            cordon(c, now, n);
        }
        if (i->waiting) {
            if (now.mono_us >= i->since_us + (uint64_t)CORE_ISOLATION_ANSWER_MS * 1000) {
                i->waiting = false;
                not_run(c, now, n, STATUS_TIMEOUT, "the agent did not answer");
            }
            continue;
        }
        bool due = interval_ms != 0 && now.mono_us >= due_us(n, interval_ms);
        if (!due && !i->wanted) {
            continue;
        }
        i->wanted = false;
        if (status_is_ok(may_check(c, n, NULL))) {
            check_send(c, now, n);
        }
    }
}
