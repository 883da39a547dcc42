/* Where each message goes: to the core, or to the part of the front end that does what needs keys,
 * files or other machines. */
#include "scheduler/api/backups.h"
#include "scheduler/api/payload_port.h"
#include "scheduler/api/seals.h"
#include "scheduler/api/server_internal.h"

#include <string.h>

static void to_core(struct server *s, struct session *from, const struct message *m)
{
    core_receive(s->core, server_now(s), from->handle, m);
}

static void on_admin(struct server *s, struct session *from, const struct message *m)
{
    if (!seals_admin(s, from, m) && !members_admin(s, from, m)) {
        to_core(s, from, m);
    }
}

static void on_query(struct server *s, struct session *from, const struct message *m)
{
    if (strcmp(m->query.what, "cluster") == 0) {
        members_status(s, from, m);
    } else if (strcmp(m->query.what, "keys") == 0) {
        seals_query(s, from, m);
    } else if (strcmp(m->query.what, "backups") == 0) {
        backups_query(s, from, m);
    } else {
        to_core(s, from, m);
    }
}

static void on_raft(struct server *s, struct session *from, const struct message *m)
{
    const struct identity *who = link_peer(from->link);
    const char *address = "";
    struct catalog_setting *known;
    const struct catalog *c = core_catalog(s->core);
    HASH_FIND_STR(c->schedulers, who->name.text, known);
    if (known != NULL) {
        address = known->value;
    }
    for (size_t i = 0; i < s->config->peers_count && address[0] == '\0'; i++) {
        if (strcmp(s->config->peers[i].id.text, who->name.text) == 0) {
            address = s->config->peers[i].address;
        }
    }
    if (!status_is_ok(
            replica_receive(s->replica, member_id_of(who->name.text), address, m->raft.data))) {
        s->refused_malformed++;
    }
}

/* Answers to what we asked; what nobody waits for is dropped. */
static void on_answer(struct server *s, struct session *from, const struct message *m)
{
    (void)relays_answer(s, from, m);
}

typedef void (*receive)(struct server *s, struct session *from, const struct message *m);

void requests_receive(struct server *s, struct session *from, const struct message *m)
{
    static const receive receivers[MESSAGE_TYPE_COUNT_] = {
        [MESSAGE_REPLY] = on_answer,
        [MESSAGE_SPAWN] = payload_port_receive,
        [MESSAGE_OUTCOME_QUERY] = to_core,
        [MESSAGE_CALL] = to_core,
        [MESSAGE_CHUNK_QUERY] = chunks_receive,
        [MESSAGE_CHUNK_MISSING] = chunks_receive,
        [MESSAGE_CHUNK_PUT] = chunks_receive,
        [MESSAGE_CHUNK_GET] = chunks_receive,
        [MESSAGE_CHUNK_DATA] = chunks_receive,
        [MESSAGE_DEPLOY] = deploys_receive,
        [MESSAGE_IMAGE_PUT] = image_put_receive,
        [MESSAGE_QUERY] = on_query,
        [MESSAGE_ADMIN] = on_admin,
        [MESSAGE_LOGS] = logs_receive,
        [MESSAGE_LOG_DATA] = on_answer,
        [MESSAGE_METRICS_QUERY] = metrics_receive,
        [MESSAGE_METRICS_TEXT] = on_answer,
        [MESSAGE_JOIN] = joins_receive,
        [MESSAGE_RENEW] = renew_receive,
        [MESSAGE_NODE_REGISTER] = to_core,
        [MESSAGE_HEARTBEAT] = to_core,
        [MESSAGE_ISOLATION_REPORT] = to_core,
        [MESSAGE_INSTANCE_EVENT] = to_core,
        [MESSAGE_RESULT] = payload_port_receive,
        [MESSAGE_PAYLOAD_PUT] = payload_port_receive,
        [MESSAGE_PAYLOAD_HAVE] = payload_port_receive,
        [MESSAGE_PAYLOAD_GET] = payload_port_receive,
        [MESSAGE_PAYLOAD_DATA] = payload_port_receive,
        [MESSAGE_RAFT] = on_raft,
        [MESSAGE_BACKUP_GET] = backups_receive,
        [MESSAGE_BACKUP_DATA] = backups_receive,
    };
    receive fn = receivers[m->type];
    if (fn == NULL) {
        session_reply(s, from, m->request, STATUS_UNSUPPORTED,
                      "the scheduler does not take this message");
        return;
    }
    fn(s, from, m);
}
