#include "simulations/tamper.h"

#include "simulations/errands.h"

#include <endian.h>
#include <string.h>

enum { FRAME_HEAD_BYTES = 4, CLOCK_AHEAD_MS = 25 * 3600 * 1000 };

static bool is(const struct scheduler *s, enum simulation_bug bug)
{
    return s->world->bug == bug;
}

/* ---- Out of the core ---- */

static void show_last_success(struct scheduler *s, struct message *m)
{
    const struct errand *e = errand_find(s->world->errands, m->outcome.invocation);
    if (e != NULL && m->outcome.state == INVOCATION_DONE) {
        errand_last_output(e, s->tampered, sizeof s->tampered);
        m->outcome.output = bytes_of(s->tampered, sizeof s->tampered);
    }
}

bool tamper_send(struct scheduler *s, uint64_t peer, struct message *m)
{
    if (m->type == MESSAGE_OUTCOME && is(s, SIMULATION_BUG_DOUBLE_ACCEPT)) {
        show_last_success(s, m);
    }
    for (uint32_t i = 0; i < s->early_count && m->type == MESSAGE_SPAWN_REPLY; i++) {
        if (s->early[i].peer == peer && s->early[i].request == m->request) {
            return true; /* it has been sent */
        }
    }
    struct errand *e = m->type == MESSAGE_INVOKE && m->invoke.durable
                           ? errand_find(s->world->errands, m->invoke.invocation)
                           : NULL;
    if (e == NULL) {
        return false;
    }
    e->sent_attempt = m->invoke.attempt;
    e->sent_term = m->term;
    e->sent_instance = m->invoke.instance;
    if (is(s, SIMULATION_BUG_ATTEMPT_RESET)) {
        m->invoke.attempt = 1;
    }
    return false;
}

/* ---- Into the core ---- */

/* A result of whatever attempt is taken for one of the attempt that runs now. */
static void take_for_current(struct scheduler *s, uint64_t *peer, struct result *r)
{
    const struct errand *e = errand_find(s->world->errands, r->invocation);
    const char *node;
    uint64_t runs_at = e == NULL ? 0 : core_instance_peer(s->core, e->sent_instance, &node);
    if (runs_at != 0 && r->code == STATUS_OK) {
        *peer = runs_at;
        r->attempt = e->sent_attempt;
        r->attempt_term = e->sent_term;
        r->instance = e->sent_instance;
    }
}

/* Whoever is asked answers from its own state, leader or not. */
static void answer_stale(struct scheduler *s, uint64_t peer, const struct message *m)
{
    const struct job_table *t = &core_catalog(s->core)->jobs;
    const struct job *j = jobs_find(t, m->outcome_query.invocation);
    struct message answer = {.type = MESSAGE_OUTCOME, .request = m->request};
    struct arena a = {0};
    struct state_job content = {.output = {0}};
    if (j == NULL) {
        answer.outcome = (struct outcome){.code = STATUS_NOT_FOUND};
    } else {
        jobs_content(t, j, &a, &content);
        answer.outcome = (struct outcome){.invocation = j->id,
                                          .state = j->state,
                                          .result_code = content.code,
                                          .result_message = content.message,
                                          .output = content.output};
    }
    scheduler_send(s, peer, &answer);
    arena_close(&a);
}

bool tamper_receive(struct scheduler *s, uint64_t *peer, struct message *m)
{
    s->asker = *peer;
    s->asked = m->request;
    if (m->type == MESSAGE_RESULT && m->result.durable && is(s, SIMULATION_BUG_ANY_ATTEMPT)) {
        take_for_current(s, peer, &m->result);
    }
    if (m->type == MESSAGE_OUTCOME_QUERY && is(s, SIMULATION_BUG_STALE_READ)) {
        answer_stale(s, *peer, m);
        return true;
    }
    if (m->type == MESSAGE_ADMIN && strcmp(m->admin.action, "invocation.cancel") == 0 &&
        core_is_leader(s->core) && world_bug(s->world, SIMULATION_BUG_CANCEL_LOST, 3)) {
        const struct message answer = {.type = MESSAGE_REPLY, .request = m->request};
        scheduler_send(s, *peer, &answer);
        return true;
    }
    return false;
}

/* ---- Into the log ---- */

static void acknowledge_early(struct scheduler *s, const struct command_spawn *spawn)
{
    const struct message m = {.type = MESSAGE_SPAWN_REPLY,
                              .request = s->asked,
                              .spawn_reply = {.invocation = spawn->invocation}};
    scheduler_send(s, s->asker, &m);
    CHECK(s->early_count < EARLY_MAX);
    s->early[s->early_count].peer = s->asker;
    s->early[s->early_count++].request = s->asked;
}

static void propose_again(struct scheduler *s, const struct command *c)
{
    struct buffer bytes = {0};
    struct command twin = *c;
    twin.command_spawn.invocation.low ^= UINT64_C(1) << 40;
    if (status_is_ok(command_encode(&twin, &bytes))) {
        struct status ignored =
            replica_propose(s->replica, UINT64_MAX, bytes_of(bytes.data, bytes.size));
        (void)ignored;
    }
    buffer_close(&bytes);
}

void tamper_propose(struct scheduler *s, struct command *c)
{
    struct world *w = s->world;
    if (c->type == COMMAND_EXPIRE && is(s, SIMULATION_BUG_EXPIRE_EARLY)) {
        c->time_ms += CLOCK_AHEAD_MS;
    }
    if (c->type == COMMAND_DEPLOY && is(s, SIMULATION_BUG_NO_LIMIT)) {
        c->command_deploy.spec->running_max = 0;
    }
    if (c->type != COMMAND_SPAWN) {
        return;
    }
    if (is(s, SIMULATION_BUG_NO_DELAY)) {
        c->command_spawn.not_before_ms = 0;
    }
    if (is(s, SIMULATION_BUG_NO_KEY)) {
        c->command_spawn.key = "";
    }
    if (c->command_spawn.key[0] != '\0') {
        return;
    }
    if (world_bug(w, SIMULATION_BUG_SPAWN_TWICE, 20)) {
        propose_again(s, c);
    }
    if (is(s, SIMULATION_BUG_ACK_EARLY)) {
        acknowledge_early(s, &c->command_spawn);
    }
}

/* ---- To the disk ---- */

/* The frames of jobs, with a part of them changed: u32 size | protobuf. The first is the state. */
static void forget_keys(struct parts *parts)
{
    struct parts changed = {0};
    struct arena a = {0};
    bool first = true;
    for (size_t i = 0; i < parts->count; i++) {
        struct reader r = reader_of(bytes_of(parts->items[i].data, parts->items[i].size));
        while (r.rest.size > 0) {
            struct bytes frame = reader_blob(&r, UINT32_MAX);
            struct state_job job;
            struct errmsg msg;
            struct buffer bytes = {0};
            CHECK(!r.failed);
            if (!first && status_is_ok(state_job_decode(frame, &a, &job, &msg))) {
                job.key = "";
                job.key_check = 0;
                CHECK(status_is_ok(state_job_encode(&job, &bytes)));
                frame = bytes_of(bytes.data, bytes.size);
            }
            first = false;
            struct buffer *to = mem_must(parts_next(&changed));
            uint32_t size = htole32((uint32_t)frame.size);
            CHECK(status_is_ok(buffer_append(to, &size, sizeof size)));
            CHECK(status_is_ok(buffer_append(to, frame.data, frame.size)));
            buffer_close(&bytes);
        }
    }
    arena_close(&a);
    parts_close(parts);
    *parts = changed;
}

static void miss_last(struct parts *parts)
{
    struct buffer *last = &parts->items[parts->count - 1];
    size_t at = 0, frame = 0;
    while (at < last->size) {
        uint32_t size;
        memcpy(&size, last->data + at, sizeof size);
        frame = at;
        at += FRAME_HEAD_BYTES + le32toh(size);
    }
    last->size = frame != 0 || parts->count > 1 ? frame : last->size;
}

void tamper_snapshot(struct scheduler *s, struct parts *parts)
{
    if (is(s, SIMULATION_BUG_SNAPSHOT_KEY)) {
        forget_keys(parts);
    }
    if (is(s, SIMULATION_BUG_SNAPSHOT_JOB)) {
        miss_last(parts);
    }
}

/* ---- Into an agent's core ---- */

void tamper_agent(struct world *w, const struct agent_core *core, uint64_t *peer, struct message *m)
{
    uint64_t term = agent_core_stats(core).term;
    if (w->bug == SIMULATION_BUG_OLD_LEADER && m->term != 0 && m->term < term &&
        agent_core_leader(core) != 0) {
        m->term = term;
        *peer = agent_core_leader(core);
    }
}
