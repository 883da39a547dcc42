/* Nodes as the leader sees them: connected, registered, within their lease.
 *
 *     joining (connected) -> ready (registered) -> suspect (not connected, within its lease) ->
 *     ready | lost */
#include "scheduler/core/core_internal.h"

#include <stdio.h>
#include <string.h>

struct node *node_find(const struct core *c, const char *name)
{
    struct node *n;
    HASH_FIND_STR(c->nodes, name, n);
    return n;
}

bool node_ready(const struct node *n)
{
    return n->peer != 0 && n->registered && !n->lost;
}

/* ask: the agent registers again, whatever it has told us before. */
static void send_lead(struct core *c, uint64_t peer, bool ask)
{
    struct arena a = {0};
    size_t schedulers = HASH_COUNT(c->catalog.schedulers), revoked = HASH_COUNT(c->catalog.revoked);
    struct message m = {.type = MESSAGE_LEAD, .request = ask ? 1 : 0, .term = c->term};
    m.lead.leader = c->leader_name;
    m.lead.lease_ms = c->config.lease_ms;
    m.lead.schedulers = mem_must(arena_zalloc(&a, schedulers, sizeof(struct pair)));
    m.lead.revoked = mem_must(arena_zalloc(&a, revoked, sizeof(struct text)));
    struct catalog_setting *self;
    HASH_FIND_STR(c->catalog.schedulers, c->leader_name, self);
    /* A list without the leader is not whole yet: agents would let go of those that are missing. */
    for (struct catalog_setting *s = self == NULL ? NULL : c->catalog.schedulers; s != NULL;
         s = s->hh.next) {
        m.lead.schedulers[m.lead.schedulers_count++] =
            (struct pair){.key = s->key, .value = s->value};
    }
    for (struct catalog_revoked *r = c->catalog.revoked; r != NULL; r = r->hh.next) {
        m.lead.revoked[m.lead.revoked_count++] = (struct text){.text = r->what};
    }
    c->env.send(c->env.data, peer, &m);
    arena_close(&a);
}

static struct node *node_new(struct core *c, const char *name)
{
    struct node *n = mem_must(mem_zalloc(1, sizeof *n));
    (void)snprintf(n->name, sizeof n->name, "%s", name);
    HASH_ADD_STR(c->nodes, name, n);
    return n;
}

static void refile_all(struct core *c, const struct node *n)
{
    for (struct instance *i = c->instances; i != NULL; i = i->hh.next) {
        if (i->node == n) {
            instance_refile(i);
        }
    }
}

void nodes_peer_open(struct core *c, struct core_time now, uint64_t peer, const char *name)
{
    struct node *n = node_find(c, name);
    if (n == NULL) {
        n = node_new(c, name);
    }
    n->peer = peer;
    n->registered = false;
    n->seen_us = now.mono_us;
    refile_all(c, n);
    if (c->leader) {
        send_lead(c, peer, false);
    }
}

void nodes_peer_close(struct core *c, struct core_time now, uint64_t peer)
{
    for (struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        if (n->peer != peer) {
            /* A newer connection of the same node has taken its place, or it is another node. */
            continue;
        }
        n->peer = 0;
        n->registered = false;
        n->seen_us = now.mono_us;
        refile_all(c, n);
        if (c->leader) {
            journal_add(c, now, n->name, "connection closed; lost in %u ms unless it returns",
                        c->config.lease_ms);
        }
    }
}

void nodes_begin(struct core *c, struct core_time now)
{
    for (struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        n->seen_us = now.mono_us;
        n->registered = false;
        n->lost = false;
        isolation_forget(n);
    }
    nodes_lead(c);
}

void nodes_lead(struct core *c)
{
    for (struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        if (n->peer != 0) {
            send_lead(c, n->peer, false);
        }
    }
}

static void ignore_outcome(void *data, struct status s, const char *message, uint64_t index)
{
    (void)data;
    (void)s;
    (void)message;
    (void)index;
}

static void admit(struct core *c, struct core_time now, const struct node *n)
{
    if (catalog_node_find(&c->catalog, n->name) != NULL) {
        return;
    }
    /* A certificate of role agent is the admission; this records it. The next registration tries
     * again if it fails. */
    const struct command cmd = {
        .type = COMMAND_NODE_ADMIT, .by = "scheduler", .command_node_admit = {.name = n->name}};
    core_submit(c, now, &cmd, ignore_outcome, NULL);
}

static void keep_labels(struct node *n, const struct node_register *r)
{
    arena_reset(&n->labels_arena);
    n->labels_count = 0;
    n->labels = mem_must(arena_zalloc(&n->labels_arena, r->labels_count, sizeof n->labels[0]));
    for (size_t k = 0; k < r->labels_count; k++) {
        const struct pair *from = &r->labels[k];
        n->labels[n->labels_count++] = (struct pair){
            .key = mem_must(arena_text(&n->labels_arena, from->key, strlen(from->key))),
            .value = mem_must(arena_text(&n->labels_arena, from->value, strlen(from->value)))};
    }
}

/* Of names that we do not know only the beginning is kept. */
static void keep_walls(struct node *n, const struct node_register *r)
{
    size_t used = 0;
    n->walls_said = r->walls_said;
    n->walls_not_needed[0] = '\0';
    for (size_t i = 0; i < r->walls_not_needed_count && used < sizeof n->walls_not_needed; i++) {
        used += (size_t)snprintf(n->walls_not_needed + used, sizeof n->walls_not_needed - used,
                                 "%s%.40s", i > 0 ? ", " : "", r->walls_not_needed[i].text);
    }
}

/* True when the node has gVisor since now. */
static bool keep_gvisor(struct node *n, const char *platform, const char *why)
{
    bool had = n->gvisor[0] != '\0';
    (void)snprintf(n->gvisor, sizeof n->gvisor, "%s", platform == NULL ? "" : platform);
    (void)snprintf(n->gvisor_why, sizeof n->gvisor_why, "%s", why == NULL ? "" : why);
    return !had && n->gvisor[0] != '\0';
}

static void nodes_changed(struct core *c, struct core_time now)
{
    for (struct runtime *f = c->runtimes; f != NULL; f = f->hh.next) {
        calls_dispatch(c, now, f);
        instances_scale(c, now, f);
    }
}

struct node *node_of_peer(const struct core *c, uint64_t peer)
{
    const struct peer *p = peer_find(c, peer);
    struct node *n = p == NULL || p->who.role != ROLE_AGENT ? NULL : node_find(c, p->who.name.text);
    return n != NULL && n->peer == peer ? n : NULL;
}

void nodes_register(struct core *c, struct core_time now, uint64_t peer, const struct message *m)
{
    struct node *n = node_of_peer(c, peer);
    /* Agents report to all schedulers; only the leader listens. A report made before the agent knew
     * this term, or a second one over the same connection, could lack calls that were sent
     * meanwhile. */
    if (!c->leader || n == NULL || m->term != c->term || n->registered) {
        return;
    }
    if (m->node_register.cpu_millis == 0 || m->node_register.memory_bytes == 0) {
        send_reply(c, peer, m->request, STATUS_INVALID,
                   "node_register: a node without CPU or memory");
        return;
    }
    bool restarted = n->boot != m->node_register.boot;
    n->boot = m->node_register.boot;
    n->cpu_millis = m->node_register.cpu_millis;
    n->memory_bytes = m->node_register.memory_bytes;
    n->seen_us = now.mono_us;
    n->egress = m->node_register.egress;
    keep_labels(n, &m->node_register);
    keep_walls(n, &m->node_register);
    (void)keep_gvisor(n, m->node_register.gvisor, m->node_register.gvisor_why);
    admit(c, now, n);
    instances_reported(c, now, n, &m->node_register);
    if (m->node_register.gpu_count > 0) {
        node_gpus_keep(n, &m->node_register.gpu[0]);
    } else {
        node_gpus_forget(n);
    }
    /* Not before: what the report lacks would be replaced here and then taken for lacking too. */
    n->registered = true;
    n->lost = false;
    isolation_registered(n, now, m->node_register.canary);
    refile_all(c, n);
    journal_add(c, now, n->name, "%s with %zu instances",
                restarted ? "registered" : "registered again", m->node_register.instances_count);
    send_reply(c, peer, m->request, STATUS_OK, "");
    nodes_changed(c, now);
}

void nodes_heartbeat(struct core *c, struct core_time now, uint64_t peer, const struct message *m)
{
    struct node *n = node_of_peer(c, peer);
    if (!c->leader || n == NULL) {
        return;
    }
    if (!n->registered) {
        /* Lost for its silence, yet its connection has survived: it must say again what runs
         * there. */
        send_lead(c, peer, true);
        return;
    }
    n->seen_us = now.mono_us;
    n->beat = m->heartbeat;
    n->beat.instances = NULL;
    n->beat.instances_count = 0;
    n->beat.gpu = NULL;
    n->beat.gpu_count = 0;
    n->beat.gvisor = "";
    n->beat.gvisor_why = "";
    bool gained = keep_gvisor(n, m->heartbeat.gvisor, m->heartbeat.gvisor_why);
    if (m->heartbeat.gpu_count > 0) {
        node_gpus_keep(n, &m->heartbeat.gpu[0]);
    }
    for (size_t k = 0; k < m->heartbeat.instances_count; k++) {
        struct instance *i = instance_find(c, m->heartbeat.instances[k].instance);
        if (i != NULL && i->node == n) {
            i->usage = m->heartbeat.instances[k];
        }
    }
    send_reply(c, peer, m->request, STATUS_OK, "");
    if (gained) {
        nodes_changed(c, now);
    }
}

/* Its instances are gone for us: the agent takes no new work without its leader, so nothing of them
 * runs twice under two terms. */
static void node_lost(struct core *c, struct core_time now, struct node *n, const char *why)
{
    n->lost = true;
    n->registered = false;
    node_gpus_forget(n);
    journal_add(c, now, n->name, "lost: %s", why);
    char text[REASON_BYTES_MAX];
    (void)snprintf(text, sizeof text, "node %s was lost (%s); the call may have been done", n->name,
                   why);
    /* Removing one may scale its function and add others, never on this node: start over each
     * time. */
    for (bool more = true; more;) {
        more = false;
        for (struct instance *i = c->instances; i != NULL; i = i->hh.next) {
            if (i->node == n) {
                instance_gone(c, now, i,
                              i->state == INSTANCE_STARTING ? STATUS_UNAVAILABLE : STATUS_UNKNOWN,
                              text);
                more = true;
                break;
            }
        }
    }
}

static void node_free(struct core *c, struct node *n)
{
    CHECK(n->instances == 0 && n->gpu_uses == NULL);
    HASH_DEL(c->nodes, n);
    arena_close(&n->labels_arena);
    arena_close(&n->gpu_arena);
    arena_close(&n->isolation.arena);
    mem_free(n);
}

void nodes_tick(struct core *c, struct core_time now)
{
    struct node *n, *next;
    HASH_ITER(hh, c->nodes, n, next) {
        bool silent = now.mono_us > n->seen_us + (uint64_t)c->config.lease_ms * 1000;
        if (silent && !n->lost) {
            node_lost(c, now, n, n->peer == 0 ? "not connected" : "no heartbeat");
        }
        if (n->lost && n->peer == 0 && catalog_node_find(&c->catalog, n->name) == NULL) {
            node_free(c, n);
        }
    }
}

void node_removed(struct core *c, struct core_time now, const char *name)
{
    struct node *n = node_find(c, name);
    if (n != NULL && c->leader && !n->lost) {
        node_lost(c, now, n, "removed by an operator");
    }
}

void nodes_clear(struct core *c)
{
    struct node *n, *next;
    HASH_ITER(hh, c->nodes, n, next) {
        node_free(c, n);
    }
}
