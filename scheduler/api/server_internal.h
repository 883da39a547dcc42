/* What the files of the scheduler's front end share. Nothing outside scheduler/api includes
 * this. */
#ifndef SCHEDULER_API_SERVER_INTERNAL_H
#define SCHEDULER_API_SERVER_INTERNAL_H

#include "common/chunks.h"
#include "common/config.h"
#include "common/hash.h"
#include "common/metrics.h"
#include "common/net/link.h"
#include "common/net/revocations.h"
#include "common/net/tls.h"
#include "proto/codec.h"
#include "proto/version.h"
#include "scheduler/api/digests.h"
#include "scheduler/api/server.h"
#include "scheduler/core/catalog.h"
#include "scheduler/core/core.h"
#include "scheduler/replica/replica.h"

#include <uv.h>

enum {
    OUTBOUND_MAX = REPLICA_MEMBERS_MAX,
    RELAYS_MAX = 4096,
    RELAY_INSTANCES_MAX = 16, /* of a function, whose logs one request follows */
    DEPLOYS_MAX = 64,
    DEPLOY_TIMEOUT_MS = 30000, /* without any progress */
    DEPLOY_ASK_MS = 2000,      /* until a question to another scheduler is put again */
    DEPLOY_BATCH = 32,         /* chunks that another scheduler is asked about at once */
    CERTIFICATE_VALID_S = 7 * 24 * 3600,
    RENEW_CHECK_MS = 60 * 1000,
    MAINTENANCE_MS = 250,
    RANDOM_POOL = 256,    /* numbers drawn at once */
    PULL_CHUNKS_MAX = 16, /* asked for at once from another scheduler */
};

/* A connection that has passed the handshake; hello tells whether it speaks our protocol. */
struct session {
    uint64_t handle;
    struct link *link;
    struct outbound *outbound; /* when we dialled it */
    bool hello;
    struct version_range speaks; /* what its hello said */
    char build[32];              /* and of which version of Skep it is */
    bool refused_logged;
    UT_hash_handle hh;
};

/* Another scheduler that we dial: one connection for small messages and one for snapshots and
 * chunks. */
struct outbound {
    uint64_t member_id;
    char name[NAME_BYTES_MAX + 1]; /* empty: not known yet */
    char address[CONFIG_ADDRESS_BYTES_MAX + 1];
    struct session *sessions[2]; /* [1] is the bulk one; NULL while not connected */
    uint64_t silent_since_us;    /* while [0] is NULL and this scheduler leads; 0: not */
    bool used;
};

/* An answer on its way from somebody else to the client who asked. */
struct relay {
    uint64_t id; /* the request number towards the target */
    uint64_t client, request;
    uint64_t target;
    bool logs;
    bool search; /* for an ended instance: one of many agents that are asked */
    bool found;  /* one of them had it */
    UT_hash_handle hh;
};

/* A deploy or an image that waits until a majority of the schedulers has its chunks. */
struct deploy_job {
    uint64_t id;
    uint64_t client, request;
    struct arena arena;
    struct function_spec spec; /* of a deploy */
    struct image_spec image;   /* of an image */
    bool is_image;
    struct digest revision;
    uint64_t check_index;
    uint64_t deadline_us;
    struct digests digests; /* the chunks */
    struct deploy_peer {
        size_t have;     /* that outbound scheduler has the first so many chunks */
        uint64_t ask;    /* the request of the question about the next ones; 0: none */
        uint64_t ask_us; /* when it was put */
    } peers[OUTBOUND_MAX];
    bool submitted;
    struct server *server;
    char by[2 * NAME_BYTES_MAX];
    UT_hash_handle hh;
};

struct server {
    uv_loop_t *loop;
    const struct scheduler_config *config;
    struct link_hub *hub;
    struct replica *replica;
    struct core *core;
    struct chunk_store *chunks;
    struct payload_store *payload_store;
    struct payloads *payloads;
    bool payload_log_known;
    uint64_t payload_log_last; /* the log's last entry at the start */
    struct revocations *revocations;
    struct metrics *metrics;
    char *ca_pem, *cert_pem, *key_pem, *ca_key_pem;
    struct identity own;
    int64_t cert_not_before_s;
    uint64_t handle_last, request_last;
    struct session *sessions;
    struct outbound outbound[OUTBOUND_MAX];
    bool removing_dead; /* one at a time */
    struct relay *relays;
    struct deploy_job *deploys;
    struct arena decode; /* reset for each message */
    struct buffer encode;
    uv_timer_t tick, maintenance;
    uint64_t renewed_check_us;
    uint64_t pulled_index, pull_turn;
    uint64_t collected_index;
    char leader_address[CONFIG_ADDRESS_BYTES_MAX + 1];
    struct stats *stats;
    struct seals *seals; /* NULL: nothing on disk is sealed */
    struct backups *backups;
    struct making *makings; /* backups that are being made */
    uint64_t random[RANDOM_POOL];
    size_t random_left;
    bool stopping, closing;
    unsigned timers_closed;
    uint16_t port;
    uint64_t refused_role, refused_hello, refused_malformed;
    void (*on_stopped)(void *data);
    void (*on_fatal)(void *data, const char *why);
    void *data;
};

/* server.c */
struct core_time server_now(const struct server *s);
struct session *session_find(const struct server *s, uint64_t handle);
/* Encodes and queues; a failure closes the session, which could not follow any more. */
void session_send(struct server *s, struct session *to, const struct message *m);
void session_reply(struct server *s, struct session *to, uint64_t request, enum status_code code,
                   const char *text);
void session_reply_detail(struct server *s, uint64_t handle, uint64_t request, struct status status,
                          const char *text, uint64_t index, struct bytes detail);
/* Answers a query. */
void session_records_fail(struct server *s, struct session *to, uint64_t request,
                          enum status_code code, const char *text);
/* "role/name" of the peer. */
void session_who(const struct session *p, char out[2 * NAME_BYTES_MAX]);

/* requests.c: one message of a session that has said hello. */
void requests_receive(struct server *s, struct session *from, const struct message *m);

/* deploys.c */
void deploys_receive(struct server *s, struct session *from, const struct message *m);
void image_put_receive(struct server *s, struct session *from, const struct message *m);
void chunks_receive(struct server *s, struct session *from, const struct message *m);
void deploys_tick(struct server *s, uint64_t now_us);
/* Asks other schedulers for chunks that the catalog names and the store lacks. */
void chunks_pull(struct server *s);

/* joins.c */
void joins_receive(struct server *s, struct session *from, const struct message *m);
void renew_receive(struct server *s, struct session *from, const struct message *m);
void token_create(struct server *s, struct session *from, const struct message *m);
/* Our own certificate: renews it at two thirds of its life. */
void renew_own(struct server *s);

/* relays.c */
void logs_receive(struct server *s, struct session *from, const struct message *m);
void metrics_receive(struct server *s, struct session *from, const struct message *m);
/* True when the message was the answer to a relay. */
bool relays_answer(struct server *s, struct session *from, const struct message *m);
void relays_session_closed(struct server *s, uint64_t handle);

/* members.c */
struct status members_open(struct server *s, struct errmsg *msg);
void members_role(struct server *s);
void members_connected(struct server *s, struct session *p);
void members_disconnected(struct server *s, struct session *p);
void members_maintain(struct server *s);
bool members_admin(struct server *s, struct session *from, const struct message *m);
void members_status(struct server *s, struct session *from, const struct message *m);
const char *members_leader_address(struct server *s);
size_t members_majority(struct server *s);

/* stats.c */
struct status stats_open(struct server *s, struct errmsg *msg);
/* A canary got through a wall: counted by node and check, and logged. */
void stats_isolation_failed(void *server, const char *node, const char *check, const char *detail);
struct status stats_print(struct server *s, struct buffer *out);

#endif
