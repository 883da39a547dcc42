/* Operators' keys: rotate (a new data key seals from now on), rewrap (the data keys are wrapped by
 * the cluster key that the leader has now), list. */
#include "scheduler/api/seals_internal.h"

#include "common/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ROW_FIELDS = 6 };

/* An operator who waits for one or more commands. */
struct key_job {
    struct server *server;
    uint64_t client, request, index;
    size_t waiting, changed;
    struct status status; /* the first failure */
    char message[ERRMSG_BYTES_MAX];
};

static void job_end(struct key_job *j, const char *text)
{
    bool fine = status_is_ok(j->status);
    const struct bytes detail = fine ? bytes_of(text, strlen(text)) : bytes_of(NULL, 0);
    session_reply_detail(j->server, j->client, j->request, j->status, fine ? text : j->message,
                         j->index, detail);
    mem_free(j);
}

static struct key_job *job_new(struct server *s, const struct session *from,
                               const struct message *m)
{
    struct key_job *j = mem_must(mem_zalloc(1, sizeof *j));
    *j = (struct key_job){.server = s, .client = from->handle, .request = m->request};
    return j;
}

static void job_fail(struct key_job *j, struct status status, const char *message)
{
    if (status_is_ok(j->status)) {
        j->status = status;
        (void)snprintf(j->message, sizeof j->message, "%s", message);
    }
}

/* ---- Rotating ---- */

static void on_rotated(void *data, struct status status, const char *message, uint64_t index)
{
    struct key_job *j = data;
    char text[64];
    if (!status_is_ok(status)) {
        job_fail(j, status, message);
    }
    j->index = index;
    (void)snprintf(text, sizeof text, "data key %u seals from now on",
                   keyring_current(j->server->seals->ring));
    job_end(j, text);
}

static void rotate(struct server *s, struct key_job *j, const char *by)
{
    struct errmsg msg = {.text = ""};
    struct status status = seals_put_key(s, by, on_rotated, j, &msg);
    if (!status_is_ok(status)) {
        job_fail(j, status, msg.text);
        job_end(j, "");
    }
}

/* ---- Rewrapping ---- */

static void rewrap_step(struct key_job *j)
{
    char text[96];
    if (--j->waiting > 0) {
        return;
    }
    (void)snprintf(text, sizeof text, "%zu of %zu data keys wrapped by cluster key %s", j->changed,
                   core_catalog(j->server->core)->keys.count,
                   cluster_key_fingerprint(j->server->seals->cluster));
    job_end(j, text);
}

static void on_rewrapped(void *data, struct status status, const char *message, uint64_t index)
{
    struct key_job *j = data;
    if (status_is_ok(status)) {
        j->changed++;
        j->index = index;
    } else {
        job_fail(j, status, message);
    }
    rewrap_step(j);
}

static void rewrap_one(struct server *s, struct key_job *j, const struct data_key *k,
                       const char *by)
{
    AUTO_SEAL_KEY struct seal_key key;
    struct errmsg msg = {.text = "the key is not known here"};
    struct buffer wrapped = {0};
    struct status status = keyring_find(s->seals->ring, k->id, &key);
    if (status_is_ok(status)) {
        status = cluster_key_wrap(s->seals->cluster, k->id, &key, &wrapped, &msg);
    }
    if (status_is_ok(status)) {
        const struct command cmd = {
            .type = COMMAND_KEY_PUT,
            .by = by,
            .command_key_put = {.key = k->id,
                                .wrapped = bytes_of(wrapped.data, wrapped.size),
                                .wrapped_by = cluster_key_fingerprint(s->seals->cluster),
                                .rewrap = true}};
        j->waiting++;
        core_submit(s->core, server_now(s), &cmd, on_rewrapped, j);
    } else {
        job_fail(j, status, msg.text);
    }
    buffer_close(&wrapped);
}

static void rewrap(struct server *s, struct key_job *j, const char *by)
{
    const struct key_table *t = &core_catalog(s->core)->keys;
    j->waiting = 1; /* this function, so that nothing ends before all have begun */
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->items[i].wrapped_by, cluster_key_fingerprint(s->seals->cluster)) != 0) {
            rewrap_one(s, j, &t->items[i], by);
        }
    }
    rewrap_step(j);
}

/* ---- Messages ---- */

bool seals_admin(struct server *s, struct session *from, const struct message *m)
{
    bool rotates = strcmp(m->admin.action, "key.rotate") == 0;
    char by[2 * NAME_BYTES_MAX];
    if (!rotates && strcmp(m->admin.action, "key.rewrap") != 0) {
        return false;
    }
    if (!core_is_leader(s->core)) {
        session_reply(s, from, m->request, STATUS_NOT_LEADER, "this scheduler is not the leader");
        return true;
    }
    if (s->seals == NULL) {
        session_reply(s, from, m->request, STATUS_UNSUPPORTED,
                      "this cluster is not sealed: the schedulers' configuration names no "
                      "seal.cluster_key");
        return true;
    }
    session_who(from, by);
    struct key_job *j = job_new(s, from, m);
    if (rotates) {
        rotate(s, j, by);
    } else {
        rewrap(s, j, by);
    }
    return true;
}

/* Of the leader, which has applied every rotation it has answered. */
void seals_query(struct server *s, struct session *from, const struct message *m)
{
    if (!core_is_leader(s->core)) {
        session_records_fail(s, from, m->request, STATUS_NOT_LEADER,
                             "this scheduler is not the leader");
        return;
    }
    const struct key_table *t = &core_catalog(s->core)->keys;
    struct record rows[KEYS_MAX];
    struct pair fields[KEYS_MAX][ROW_FIELDS];
    char numbers[KEYS_MAX][3][24];
    for (size_t i = 0; i < t->count; i++) {
        const struct data_key *k = &t->items[i];
        struct cluster_key *own = s->seals == NULL ? NULL : s->seals->cluster;
        bool ours = own != NULL && strcmp(cluster_key_fingerprint(own), k->wrapped_by) == 0;
        (void)snprintf(numbers[i][0], sizeof numbers[i][0], "%u", k->id);
        (void)snprintf(numbers[i][1], sizeof numbers[i][1], "%" PRIu64, k->time_ms);
        (void)snprintf(numbers[i][2], sizeof numbers[i][2], "%" PRIu64, k->index);
        const struct pair row[ROW_FIELDS] = {
            {"key", numbers[i][0], 1},        {"seals", i + 1 == t->count ? "true" : "false", 2},
            {"wrapped_by", k->wrapped_by, 0}, {"cluster_key_current", ours ? "true" : "false", 2},
            {"created_ms", numbers[i][1], 1}, {"index", numbers[i][2], 1}};
        memcpy(fields[i], row, sizeof row);
        rows[i] = (struct record){.fields = fields[i], .fields_count = ROW_FIELDS};
    }
    const struct message answer = {.type = MESSAGE_RECORDS,
                                   .request = m->request,
                                   .records = {.rows = rows, .rows_count = t->count}};
    session_send(s, from, &answer);
}
