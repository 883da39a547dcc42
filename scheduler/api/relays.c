/* Answers that come from somebody else: logs from agents, metrics from agents and other schedulers.
 * A request becomes one or more relays; each answer finds its relay by number and goes on to the
 * client under the client's own number. */
#include "common/mem.h"
#include "scheduler/api/server_internal.h"

#include <stdio.h>
#include <string.h>

static struct relay *relay_new(struct server *s, struct session *client, uint64_t request,
                               uint64_t target, bool logs)
{
    if (HASH_COUNT(s->relays) >= RELAYS_MAX) {
        return NULL;
    }
    struct relay *r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        return NULL;
    }
    *r = (struct relay){.id = ++s->request_last,
                        .client = client->handle,
                        .request = request,
                        .target = target,
                        .logs = logs};
    HASH_ADD(hh, s->relays, id, sizeof r->id, r);
    return r;
}

static void relay_free(struct server *s, struct relay *r)
{
    HASH_DEL(s->relays, r);
    mem_free(r);
}

static void log_failure(struct server *s, struct session *to, uint64_t request,
                        enum status_code code, const char *text)
{
    const struct message m = {
        .type = MESSAGE_LOG_DATA,
        .request = request,
        .log_data = {.code = code,
                     .message = text,
                     .end = true,
                     .leader = code == STATUS_NOT_LEADER ? members_leader_address(s) : ""}};
    session_send(s, to, &m);
}

static void metrics_failure(struct server *s, struct session *to, uint64_t request,
                            enum status_code code, const char *text)
{
    const struct message m = {
        .type = MESSAGE_METRICS_TEXT,
        .request = request,
        .metrics_text = {.code = code,
                         .message = text,
                         .leader = code == STATUS_NOT_LEADER ? members_leader_address(s) : ""}};
    session_send(s, to, &m);
}

/* ---- Logs ---- */

static bool follow_instance(struct server *s, struct session *from, const struct message *m,
                            struct id128 instance)
{
    const char *node = "";
    uint64_t target = core_instance_peer(s->core, instance, &node);
    struct session *agent = target == 0 ? NULL : session_find(s, target);
    struct relay *r = agent == NULL ? NULL : relay_new(s, from, m->request, target, true);
    if (r == NULL) {
        return false;
    }
    const struct message ask = {
        .type = MESSAGE_LOGS,
        .request = r->id,
        .logs = {.instance = instance, .follow = m->logs.follow, .tail_bytes = m->logs.tail_bytes}};
    session_send(s, agent, &ask);
    return true;
}

/* Agents keep the logs of instances that ended lately; which of them has this one is not known. */
static size_t search_ended(struct server *s, struct session *from, const struct message *m,
                           struct id128 instance)
{
    size_t asked = 0;
    for (struct session *p = s->sessions; p != NULL; p = p->hh.next) {
        if (!p->hello || link_dialled(p->link) || link_peer(p->link)->role != ROLE_AGENT) {
            continue;
        }
        struct relay *r = relay_new(s, from, m->request, p->handle, true);
        if (r == NULL) {
            break;
        }
        r->search = true;
        const struct message ask = {
            .type = MESSAGE_LOGS,
            .request = r->id,
            .logs = {.instance = instance, .tail_bytes = m->logs.tail_bytes}};
        session_send(s, p, &ask);
        asked++;
    }
    return asked;
}

void logs_receive(struct server *s, struct session *from, const struct message *m)
{
    if (!core_is_leader(s->core)) {
        log_failure(s, from, m->request, STATUS_NOT_LEADER, "this scheduler is not the leader");
        return;
    }
    struct id128 ids[RELAY_INSTANCES_MAX];
    size_t count = 1;
    bool instance = true;
    if (!status_is_ok(id_parse(m->logs.selector, INSTANCE_PREFIX, &ids[0], NULL))) {
        if (catalog_function_find(core_catalog(s->core), m->logs.selector) == NULL) {
            char text[ERRMSG_BYTES_MAX];
            (void)snprintf(text, sizeof text, "no function or instance is named %.80s",
                           m->logs.selector);
            log_failure(s, from, m->request, STATUS_NOT_FOUND, text);
            return;
        }
        count = core_function_instances(s->core, m->logs.selector, ids, RELAY_INSTANCES_MAX);
        instance = false;
    }
    size_t followed = 0;
    for (size_t i = 0; i < count; i++) {
        followed += follow_instance(s, from, m, ids[i]);
    }
    if (followed == 0 && instance) {
        followed = search_ended(s, from, m, ids[0]);
    }
    if (followed == 0) {
        log_failure(s, from, m->request, STATUS_NOT_FOUND,
                    "no instance of it runs; skep why names those that ended, and skep logs shows "
                    "their last words by id");
    }
}

/* ---- Metrics ---- */

static void metrics_own(struct server *s, struct session *from, uint64_t request)
{
    struct buffer text = {0};
    struct status printed = stats_print(s, &text);
    const struct message m = {.type = MESSAGE_METRICS_TEXT,
                              .request = request,
                              .metrics_text = {.code = printed.code,
                                               .message = status_text(printed.code),
                                               .text = bytes_of(text.data, text.size)}};
    session_send(s, from, &m);
    buffer_close(&text);
}

static struct session *metrics_target(struct server *s, const char *name)
{
    for (size_t i = 0; i < OUTBOUND_MAX; i++) {
        struct outbound *o = &s->outbound[i];
        if (o->used && strcmp(o->name, name) == 0 && o->sessions[0] != NULL &&
            o->sessions[0]->hello) {
            return o->sessions[0];
        }
    }
    uint64_t peer = core_node_peer(s->core, name);
    return peer == 0 ? NULL : session_find(s, peer);
}

void metrics_receive(struct server *s, struct session *from, const struct message *m)
{
    const char *target = m->metrics_query.target;
    if (target[0] == '\0' || strcmp(target, s->config->id.text) == 0) {
        metrics_own(s, from, m->request);
        return;
    }
    struct session *to = metrics_target(s, target);
    struct relay *r = to == NULL ? NULL : relay_new(s, from, m->request, to->handle, false);
    if (r == NULL) {
        char text[ERRMSG_BYTES_MAX];
        (void)snprintf(text, sizeof text, "no scheduler or connected node is named %.80s", target);
        metrics_failure(s, from, m->request, STATUS_NOT_FOUND, text);
        return;
    }
    const struct message ask = {.type = MESSAGE_METRICS_QUERY, .request = r->id};
    session_send(s, to, &ask);
}

/* ---- Answers and ends ---- */

/* A request that follows several instances ends with the last of them. */
static bool is_last(const struct server *s, const struct relay *r)
{
    for (const struct relay *other = s->relays; other != NULL; other = other->hh.next) {
        if (other != r && other->client == r->client && other->request == r->request) {
            return false;
        }
    }
    return true;
}

/* Those who do not have the log are not worth an answer while others may. */
static bool swallow(struct server *s, struct relay *r, const struct message *m)
{
    if (!r->search || m->type != MESSAGE_LOG_DATA) {
        return false;
    }
    if (m->log_data.code == STATUS_OK) {
        for (struct relay *other = s->relays; other != NULL; other = other->hh.next) {
            other->found =
                other->found || (other->client == r->client && other->request == r->request);
        }
        return false;
    }
    if (is_last(s, r) && r->found) {
        struct session *client = session_find(s, r->client);
        const struct message end = {
            .type = MESSAGE_LOG_DATA, .request = r->request, .log_data = {.end = true}};
        if (client != NULL) {
            session_send(s, client, &end);
        }
        return true;
    }
    return !is_last(s, r);
}

bool relays_answer(struct server *s, struct session *from, const struct message *m)
{
    struct relay *r;
    HASH_FIND(hh, s->relays, &m->request, sizeof m->request, r);
    if (r == NULL || r->target != from->handle) {
        return false;
    }
    if (swallow(s, r, m)) {
        relay_free(s, r);
        return true;
    }
    struct session *client = session_find(s, r->client);
    bool ends = m->type != MESSAGE_LOG_DATA || m->log_data.end;
    if (client != NULL) {
        struct message answer = *m;
        answer.request = r->request;
        if (m->type == MESSAGE_LOG_DATA) {
            answer.log_data.end = ends && is_last(s, r);
            answer.log_data.node = link_peer(from->link)->name.text;
        }
        session_send(s, client, &answer);
    }
    if (ends) {
        relay_free(s, r);
    }
    return true;
}

static void stop_following(struct server *s, const struct relay *r)
{
    struct session *agent = r->logs ? session_find(s, r->target) : NULL;
    if (agent != NULL) {
        const struct message m = {.type = MESSAGE_LOGS, .request = r->id, .logs = {.stop = true}};
        session_send(s, agent, &m);
    }
}

void relays_session_closed(struct server *s, uint64_t handle)
{
    struct relay *r, *next;
    HASH_ITER(hh, s->relays, r, next) {
        if (r->client == handle) {
            stop_following(s, r);
            relay_free(s, r);
        } else if (r->target == handle) {
            struct session *client = session_find(s, r->client);
            if (client != NULL && r->logs) {
                log_failure(s, client, r->request, STATUS_UNAVAILABLE,
                            "the connection to the node was lost");
            } else if (client != NULL) {
                metrics_failure(s, client, r->request, STATUS_UNAVAILABLE,
                                "the connection to it was lost");
            }
            relay_free(s, r);
        }
    }
}
