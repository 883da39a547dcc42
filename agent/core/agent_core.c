/* Peers, leadership and the lease: who may command this agent. */
#include "agent/core/core_internal.h"

#include "common/check.h"
#include "common/wall.h"

#include <stdlib.h>
#include <string.h>

struct status agent_core_new(struct agent_core **out, const struct agent_core_config *config,
                             const struct agent_env *env)
{
    struct agent_core *c = mem_zalloc(1, sizeof *c);
    if (c == NULL) {
        return status_of(STATUS_NOMEM);
    }
    c->config = *config;
    c->env = *env;
    c->gvisor = "";
    c->gvisor_why = "";
    c->next_us = NEVER_US;
    c->lease_us = (uint64_t)AGENT_LEASE_MS_DEFAULT * 1000;
    *out = c;
    return status_ok();
}

void agent_core_free(struct agent_core *c)
{
    if (c == NULL) {
        return;
    }
    core_attempts_free(c);
    core_kept_free(c);
    core_instances_free(c);
    struct core_peer *p;
    struct core_peer *tmp;
    HASH_ITER(hh, c->peers, p, tmp) {
        HASH_DEL(c->peers, p);
        mem_free(p);
    }
    mem_free(c);
}

void core_send_all(struct agent_core *c, const struct message *m)
{
    struct core_peer *p;
    struct core_peer *tmp;
    HASH_ITER(hh, c->peers, p, tmp) {
        (void)c->env.send(c->env.data, p->handle, m);
    }
}

static size_t register_attempts(const struct agent_core *c, struct attempt_report *out)
{
    size_t count = 0;
    for (const struct core_attempt *a = c->attempts; a != NULL; a = a->hh.next) {
        out[count++] = (struct attempt_report){
            .invocation = a->key.invocation,
            .attempt = (uint32_t)a->key.attempt,
            .attempt_term = a->attempt_term,
            .durable = a->durable,
            .instance = a->instance->id,
        };
    }
    return count;
}

static size_t register_walls(const struct agent_core *c, struct text out[WALLS_COUNT_])
{
    size_t count = 0;
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        if ((c->config.walls_not_needed & (UINT32_C(1) << i)) != 0) {
            out[count++] = (struct text){.text = wall_row((enum wall)i)->name};
        }
    }
    return count;
}

/* Tells one scheduler what this node is and what runs on it. The term says which leader's commands
 * this already contains. */
static struct status node_register(struct agent_core *c, uint64_t peer)
{
    size_t instances_count = HASH_COUNT(c->instances);
    struct instance_report *instances = mem_zalloc(instances_count, sizeof *instances);
    struct attempt_report *attempts = mem_zalloc(HASH_COUNT(c->attempts), sizeof *attempts);
    if (instances == NULL || attempts == NULL) {
        mem_free(instances);
        mem_free(attempts);
        return status_of(STATUS_NOMEM);
    }
    size_t at = 0;
    for (const struct core_instance *i = c->instances; i != NULL; i = i->hh.next) {
        core_instance_report(i, &instances[at++]);
    }
    CHECK(at == instances_count);
    struct text walls[WALLS_COUNT_];
    struct message m = {
        .type = MESSAGE_NODE_REGISTER,
        .term = c->term, /* The leader takes only reports of its own term. */
        .node_register = {.boot = c->config.boot,
                          .cpu_millis = c->config.cpu_millis,
                          .memory_bytes = c->config.memory_bytes,
                          .labels = c->config.labels,
                          .labels_count = c->config.labels_count,
                          .instances = instances,
                          .instances_count = instances_count,
                          .attempts = attempts,
                          .attempts_count = register_attempts(c, attempts),
                          .gpu = c->gpu,
                          .gpu_count = c->gpu != NULL ? 1 : 0,
                          .walls_said = true,
                          .walls_not_needed = walls,
                          .walls_not_needed_count = register_walls(c, walls),
                          .egress = c->config.egress,
                          .gvisor = c->gvisor,
                          .gvisor_why = c->gvisor_why,
                          .canary = c->config.canary},
    };
    bool sent = c->env.send(c->env.data, peer, &m);
    mem_free(instances);
    mem_free(attempts);
    return sent ? status_ok() : status_of(STATUS_UNAVAILABLE);
}

static struct core_peer *peer_find(const struct agent_core *c, uint64_t handle)
{
    struct core_peer *p;
    HASH_FIND(hh, c->peers, &handle, sizeof handle, p);
    return p;
}

/* How soon a registration that could not be sent is tried again. */
enum { REGISTER_RETRY_MS = 100 };

static void peer_register(struct agent_core *c, uint64_t now_us, struct core_peer *p)
{
    p->register_due = !status_is_ok(node_register(c, p->handle));
    if (p->register_due) {
        core_due(c, after_ms(now_us, REGISTER_RETRY_MS));
    }
}

static void registers_tick(struct agent_core *c, uint64_t now_us)
{
    for (struct core_peer *p = c->peers; p != NULL; p = p->hh.next) {
        if (p->register_due) {
            peer_register(c, now_us, p);
        }
    }
}

struct status agent_core_peer_open(struct agent_core *c, uint64_t now_us, uint64_t peer)
{
    CHECK(peer != 0);
    if (peer_find(c, peer) != NULL) {
        return status_of(STATUS_EXISTS);
    }
    if (HASH_COUNT(c->peers) >= AGENT_PEERS_MAX) {
        return status_of(STATUS_LIMIT);
    }
    struct core_peer *p = mem_zalloc(1, sizeof *p);
    if (p == NULL) {
        return status_of(STATUS_NOMEM);
    }
    p->handle = peer;
    HASH_ADD(hh, c->peers, handle, sizeof p->handle, p);
    if (!HASH_IN(p)) {
        mem_free(p);
        return status_of(STATUS_NOMEM);
    }
    peer_register(c, now_us, p);
    return status_ok();
}

void agent_core_peer_close(struct agent_core *c, uint64_t now_us, uint64_t peer)
{
    (void)now_us;
    struct core_peer *p = peer_find(c, peer);
    if (p == NULL) {
        return;
    }
    HASH_DEL(c->peers, p);
    mem_free(p);
    if (c->leader == peer) {
        c->leader = 0;
    }
}

/* The answer to a command that may not be obeyed. Its term tells an old leader that there is a
 * newer one. */
static void command_refuse(struct agent_core *c, uint64_t peer, const struct message *m)
{
    c->stats.fenced++;
    if (m->type == MESSAGE_INVOKE) {
        core_invoke_refuse(c, peer, m->term, &m->invoke, STATUS_CONFLICT,
                           "the sender does not lead");
        return;
    }
    const struct message answer = {
        .type = MESSAGE_REPLY,
        .request = m->request,
        .term = c->term,
        .reply = {.code = STATUS_CONFLICT,
                  .message = m->term < c->term ? "command of an older term"
                                               : "command over a connection that does not lead"},
    };
    (void)c->env.send(c->env.data, peer, &answer);
}

/* A leader announces itself. The same term over another connection is the same leader, connected
 * anew: Raft elects one a term. */
static void lead_take(struct agent_core *c, uint64_t now_us, uint64_t peer, const struct message *m)
{
    if (m->term == 0 || m->term < c->term) {
        command_refuse(c, peer, m);
        return;
    }
    bool newer = m->term > c->term;
    bool other = newer || c->leader != peer;
    c->term = m->term;
    c->leader = peer;
    uint32_t lease_ms = m->lead.lease_ms;
    if (lease_ms == 0) {
        lease_ms = c->config.lease_ms;
    }
    if (lease_ms == 0) {
        lease_ms = AGENT_LEASE_MS_DEFAULT;
    }
    if (lease_ms > AGENT_LEASE_MS_MAX) {
        lease_ms = AGENT_LEASE_MS_MAX;
    }
    c->lease_us = (uint64_t)lease_ms * 1000;
    c->lease_seen_us = now_us;
    c->env.lead(c->env.data, peer, m->term, &m->lead);
    /* Before the registration: what is done is not run again for want of its result. */
    core_kept_flush(c, now_us, other);
    if (newer || m->request != 0) {
        /* With a request the leader asks: it had given this node up for lost. */
        peer_register(c, now_us, peer_find(c, peer));
    }
    core_held_flush(c, now_us);
}

/* The leader's answer to a heartbeat renews the lease; an answer to one of long ago proves
 * nothing about now. */
static void reply_take(struct agent_core *c, uint64_t now_us, uint64_t peer,
                       const struct message *m)
{
    if ((m->request & AGENT_HEARTBEAT_REQUEST) == 0) {
        c->stats.messages_unexpected++;
        return;
    }
    uint64_t sequence = m->request & ~AGENT_HEARTBEAT_REQUEST;
    if (sequence == 0 || sequence > c->sequence ||
        c->sequence - sequence >= HEARTBEATS_UNANSWERED_MAX) {
        c->stats.messages_unexpected++;
        return;
    }
    if (peer != c->leader || m->reply.code != STATUS_OK) {
        return;
    }
    c->lease_seen_us = now_us;
    core_held_flush(c, now_us);
    core_kept_flush(c, now_us, false);
}

void agent_core_receive(struct agent_core *c, uint64_t now_us, uint64_t peer,
                        const struct message *m)
{
    if (peer_find(c, peer) == NULL) {
        c->stats.messages_unexpected++;
        return;
    }
    switch (m->type) {
    case MESSAGE_LEAD:
        lead_take(c, now_us, peer, m);
        return;
    case MESSAGE_REPLY:
        reply_take(c, now_us, peer, m);
        return;
    case MESSAGE_RESULT_ACK:
        core_kept_ack(c, &m->result_ack); /* What is committed stays so, whoever says it. */
        return;
    case MESSAGE_START:
    case MESSAGE_STOP:
    case MESSAGE_INVOKE:
    case MESSAGE_CANCEL:
        break;
    default:
        c->stats.messages_unexpected++;
        return;
    }
    if (m->term == 0 || m->term != c->term || peer != c->leader) {
        command_refuse(c, peer, m);
        return;
    }
    if (m->type == MESSAGE_INVOKE) {
        core_invoke(c, now_us, &m->invoke);
    } else if (m->type == MESSAGE_START) {
        core_start(c, now_us, &m->start);
    } else if (m->type == MESSAGE_STOP) {
        core_stop(c, now_us, &m->stop);
    } else {
        core_cancel(c, now_us, &m->cancel);
    }
}

void agent_core_gpus(struct agent_core *c, struct gpu_inventory *gpu)
{
    c->gpu = gpu;
}

void agent_core_gvisor(struct agent_core *c, const char *platform, const char *why)
{
    c->gvisor = platform;
    c->gvisor_why = why;
}

void agent_core_heartbeat(struct agent_core *c, uint64_t now_us, const struct heartbeat *h)
{
    (void)now_us;
    c->sequence++;
    struct message m = {
        .type = MESSAGE_HEARTBEAT,
        .request = AGENT_HEARTBEAT_REQUEST | c->sequence,
        .heartbeat = *h,
    };
    m.heartbeat.sequence = c->sequence;
    m.heartbeat.gvisor = c->gvisor;
    m.heartbeat.gvisor_why = c->gvisor_why;
    core_send_all(c, &m);
}

void agent_core_tick(struct agent_core *c, uint64_t now_us)
{
    if (now_us < c->next_us) {
        return;
    }
    c->next_us = NEVER_US;
    registers_tick(c, now_us);
    core_due(c, core_attempts_tick(c, now_us));
    core_due(c, core_instances_tick(c, now_us));
    core_held_flush(c, now_us);
    core_kept_flush(c, now_us, false);
}

uint64_t agent_core_next_us(const struct agent_core *c)
{
    return c->next_us;
}

bool agent_core_has_lease(const struct agent_core *c, uint64_t now_us)
{
    return c->leader != 0 && now_us - c->lease_seen_us <= c->lease_us;
}

uint64_t agent_core_leader(const struct agent_core *c)
{
    return c->leader;
}

struct agent_core_stats agent_core_stats(const struct agent_core *c)
{
    struct agent_core_stats s = c->stats;
    for (const struct core_instance *i = c->instances; i != NULL; i = i->hh.next) {
        s.instances_starting += i->state == INSTANCE_STARTING;
        s.instances_ready += i->state == INSTANCE_READY;
        s.instances_stopping += i->state == INSTANCE_STOPPING;
    }
    s.attempts = HASH_COUNT(c->attempts);
    s.cpu_millis_used = c->cpu_millis_used;
    s.memory_bytes_used = c->memory_bytes_used;
    s.term = c->term;
    return s;
}
