/* Scheduled backups: see backups.h. One step at a time, each on a thread of its own:
 *
 *     LOOKING (what does the target hold?) -> due -> MAKING -> STORING (put, list, remove) -> IDLE
 *
 * A failure is logged and counted, and the next look comes after RETRY_MS or `every`, whichever is
 * sooner. One that cannot be made for a moment (UNAVAILABLE) is a failure after BACKUP_PIN_MS. */
#include "common/dates.h"
#include "common/log.h"
#include "common/mem.h"
#include "scheduler/api/backups_internal.h"
#include "scheduler/api/offload.h"
#include "scheduler/backup/target.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { RETRY_MS = 60 * 1000, MOMENT_MS = 1000, QUERIES_MAX = 16, ROW_FIELDS = 5, TEXT_BYTES = 32 };

enum schedule_step { STEP_IDLE, STEP_LOOKING, STEP_MAKING, STEP_STORING };

/* A user who asks what there is; answered by the next look. */
struct waiting {
    uint64_t session, request;
};

struct backup_schedule {
    struct backups *b;
    const struct config_backup *config;
    enum schedule_step step;
    struct offload offload;
    struct making *making;
    atomic_bool canceled;
    uint64_t look_us;    /* when to look next */
    uint64_t refused_us; /* since when it cannot be made; 0: it was not tried, or was made */
    struct waiting waiting[QUERIES_MAX];
    size_t waiting_count;
    /* What the thread works on and leaves. */
    int fd;
    char name[TARGET_NAME_BYTES];
    uint64_t bytes;
    struct target_list list;
    uint64_t removed;
    bool stored;
    struct status status;
    struct errmsg msg;
    uint64_t begun_us;
};

/* ---- On the thread ---- */

static struct status look(struct backup_schedule *c, struct target *t)
{
    target_list_close(&c->list);
    return target_list(t, &c->list, &c->msg);
}

/* Keeps the newest. */
static struct status retain(struct backup_schedule *c, struct target *t)
{
    struct status s = look(c, t);
    while (status_is_ok(s) && c->list.count > c->config->keep) {
        s = target_remove(t, c->list.items[c->list.count - 1].name, &c->msg);
        if (status_is_ok(s)) {
            c->list.count--;
            c->removed++;
        }
    }
    return s;
}

static void on_thread(void *data)
{
    struct backup_schedule *c = data;
    struct target *t = NULL;
    struct status s =
        target_open(&t, c->config, &c->b->server->config->cluster, &c->canceled, &c->msg);
    if (status_is_ok(s) && c->step == STEP_STORING) {
        s = target_put(t, c->name, c->fd, c->bytes, &c->msg);
        c->stored = status_is_ok(s);
        s = status_is_ok(s) ? retain(c, t) : s;
    } else if (status_is_ok(s)) {
        s = look(c, t);
    }
    target_close(t);
    c->status = s;
}

/* ---- Answers ---- */

static void records_send(struct backup_schedule *c, struct session *to, uint64_t request)
{
    struct arena a = {0};
    struct record *rows = arena_zalloc(&a, c->list.count + 1, sizeof *rows);
    size_t count = 0;
    for (; rows != NULL && count < c->list.count; count++) {
        const struct target_entry *e = &c->list.items[count];
        struct pair *p = arena_zalloc(&a, ROW_FIELDS, sizeof *p);
        char *texts = arena_alloc(&a, 4 * TEXT_BYTES);
        if (p == NULL || texts == NULL) {
            break;
        }
        (void)snprintf(texts, TEXT_BYTES, "%" PRIu64, e->index);
        (void)snprintf(texts + TEXT_BYTES, TEXT_BYTES, "%" PRIu64, e->bytes);
        (void)snprintf(texts + 2 * TEXT_BYTES, TEXT_BYTES, "%" PRIu64, e->time_ms);
        date_format(e->time_ms, texts + 3 * TEXT_BYTES);
        p[0] = (struct pair){.key = "name", .value = e->name};
        p[1] = (struct pair){.key = "time", .value = texts + 3 * TEXT_BYTES};
        p[2] = (struct pair){.key = "time_ms", .value = texts + 2 * TEXT_BYTES, .value_kind = 1};
        p[3] = (struct pair){.key = "index", .value = texts, .value_kind = 1};
        p[4] = (struct pair){.key = "bytes", .value = texts + TEXT_BYTES, .value_kind = 1};
        rows[count] = (struct record){.fields = p, .fields_count = ROW_FIELDS};
    }
    const struct message m = {
        .type = MESSAGE_RECORDS,
        .request = request,
        .records = {.message = "", .leader = "", .rows = rows, .rows_count = count}};
    if (rows == NULL || count < c->list.count) {
        session_records_fail(c->b->server, to, request, STATUS_NOMEM, "out of memory");
    } else {
        session_send(c->b->server, to, &m);
    }
    arena_close(&a);
}

static void answer_all(struct backup_schedule *c)
{
    struct server *s = c->b->server;
    for (size_t i = 0; i < c->waiting_count; i++) {
        struct session *to = session_find(s, c->waiting[i].session);
        if (to != NULL && status_is_ok(c->status)) {
            records_send(c, to, c->waiting[i].request);
        } else if (to != NULL) {
            session_records_fail(s, to, c->waiting[i].request, c->status.code, c->msg.text);
        }
    }
    c->waiting_count = 0;
}

/* ---- Steps ---- */

static void failed(struct backup_schedule *c, const char *what, struct status s, const char *why)
{
    uint64_t retry_ms = c->config->every_ms < RETRY_MS ? c->config->every_ms : RETRY_MS;
    c->look_us = server_now(c->b->server).mono_us + retry_ms * 1000;
    c->step = STEP_IDLE;
    if (s.code != STATUS_CANCELED) {
        c->b->store_failures++;
        LOG_ERROR(what, LOG_STR("to", c->config->to), LOG_STR("code", status_name(s.code)),
                  LOG_STR("why", why));
    }
}

static void run(struct backup_schedule *c, enum schedule_step step, void (*done)(void *data))
{
    struct backups *b = c->b;
    c->step = step;
    c->removed = 0;
    c->stored = false;
    c->msg.text[0] = '\0';
    c->status = status_fail(&c->msg, STATUS_UNAVAILABLE, "no thread could be begun");
    c->offload = (struct offload){.work = on_thread, .done = done, .data = c};
    b->under_way++;
    if (!status_is_ok(offload_start(&c->offload, b->server->loop, &c->msg))) {
        done(c);
    }
}

static void fd_close(struct backup_schedule *c)
{
    if (c->fd >= 0) {
        (void)close(c->fd);
        c->fd = -1;
    }
}

static void on_stored(void *data)
{
    struct backup_schedule *c = data;
    struct backups *b = c->b;
    struct core_time now = server_now(b->server);
    fd_close(c);
    b->removed += c->removed;
    if (c->stored) {
        b->stored++;
        b->stored_at_s = now.unix_ms / 1000;
        b->stored_bytes = c->bytes;
        b->stored_us = now.mono_us - c->begun_us;
        LOG_INFO("scheduled backup stored", LOG_STR("to", c->config->to), LOG_STR("name", c->name),
                 LOG_UINT("bytes", c->bytes), LOG_UINT("removed", c->removed),
                 LOG_UINT("took_ms", b->stored_us / 1000));
    }
    if (!status_is_ok(c->status)) {
        failed(c, c->stored ? "old backups were not removed" : "scheduled backup failed", c->status,
               c->msg.text);
    }
    if (c->stored) {
        c->look_us = c->begun_us + c->config->every_ms * 1000;
    }
    c->step = STEP_IDLE;
    answer_all(c);
    backups_ended(b);
}

static void on_made(void *data, const struct made *made)
{
    struct backup_schedule *c = data;
    struct backups *b = c->b;
    c->making = NULL;
    if (!status_is_ok(made->status)) {
        b->failed += made->status.code != STATUS_CANCELED;
        failed(c, "scheduled backup failed", made->status, made->why);
    } else if (atomic_load(&c->canceled)) {
        (void)close(made->fd);
        c->step = STEP_IDLE;
    } else {
        b->made++;
        c->fd = made->fd;
        c->bytes = made->bytes;
        target_name(&b->server->config->cluster, made->time_ms, made->index, c->name);
        run(c, STEP_STORING, on_stored);
    }
    backups_ended(b);
}

static void make(struct backup_schedule *c)
{
    struct errmsg msg = {.text = ""};
    c->begun_us = server_now(c->b->server).mono_us;
    struct status s = making_start(c->b->server, on_made, c, &c->making, &msg);
    if (s.code == STATUS_UNAVAILABLE) {
        c->refused_us = c->refused_us == 0 ? c->begun_us : c->refused_us;
        if (c->begun_us - c->refused_us < (uint64_t)BACKUP_PIN_MS * 1000) {
            c->look_us = c->begun_us + (uint64_t)MOMENT_MS * 1000;
            return;
        }
    }
    c->refused_us = 0;
    if (status_is_ok(s)) {
        c->step = STEP_MAKING;
        c->b->under_way++;
    } else {
        failed(c, "scheduled backup failed", s, msg.text);
    }
}

static void on_looked(void *data)
{
    struct backup_schedule *c = data;
    struct server *s = c->b->server;
    struct core_time now = server_now(s);
    c->step = STEP_IDLE;
    answer_all(c);
    if (!status_is_ok(c->status)) {
        failed(c, "the backups' target cannot be listed", c->status, c->msg.text);
    } else if (core_is_leader(s->core) && !atomic_load(&c->canceled)) {
        uint64_t newest_ms = c->list.count == 0 ? 0 : c->list.items[0].time_ms;
        uint64_t age_ms = now.unix_ms > newest_ms ? now.unix_ms - newest_ms : 0;
        if (c->list.count == 0 || age_ms >= c->config->every_ms) {
            make(c);
        } else {
            c->look_us = now.mono_us + (c->config->every_ms - age_ms) * 1000;
        }
    }
    backups_ended(c->b);
}

void schedule_tick(struct backups *b, uint64_t now_us)
{
    struct backup_schedule *c = b->schedule;
    if (c != NULL && !core_is_leader(b->server->core)) {
        c->refused_us = 0;
    }
    if (c == NULL || c->step != STEP_IDLE || b->server->stopping ||
        (!(core_is_leader(b->server->core) && now_us >= c->look_us) && c->waiting_count == 0)) {
        return;
    }
    run(c, STEP_LOOKING, on_looked);
}

void schedule_query(struct backups *b, struct session *from, const struct message *m)
{
    struct server *s = b->server;
    struct backup_schedule *c = b->schedule;
    if (!core_is_leader(s->core)) {
        session_records_fail(s, from, m->request, STATUS_NOT_LEADER,
                             "this scheduler is not the leader");
    } else if (c == NULL) {
        session_records_fail(
            s, from, m->request, STATUS_NOT_FOUND,
            "no scheduled backups are configured: scheduler.yaml has no backup section");
    } else if (c->waiting_count == QUERIES_MAX) {
        session_records_fail(s, from, m->request, STATUS_LIMIT, "too many ask at once; try again");
    } else {
        c->waiting[c->waiting_count++] =
            (struct waiting){.session = from->handle, .request = m->request};
        schedule_tick(b, 0);
    }
}

/* ---- Opening and closing ---- */

struct status schedule_open(struct backups *b, struct errmsg *msg)
{
    const struct config_backup *config = &b->server->config->backup;
    if (config->to == NULL) {
        return status_ok();
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    b->schedule = mem_zalloc(1, sizeof *b->schedule);
    if (b->schedule == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    b->schedule->b = b;
    b->schedule->config = config;
    b->schedule->fd = -1;
    /* What is wrong with it is told now, not in six hours. */
    struct target *t = NULL;
    struct status s =
        target_open(&t, config, &b->server->config->cluster, &b->schedule->canceled, msg);
    target_close(t);
    if (status_is_ok(s) && config->endpoint != NULL &&
        strncmp(config->endpoint, "http://", strlen("http://")) == 0) {
        LOG_WARN("backups travel in the clear", LOG_STR("endpoint", config->endpoint));
    }
    return status_is_ok(s) ? s : status_prefix(msg, s, "backup");
}

void schedule_stop(struct backups *b)
{
    struct backup_schedule *c = b->schedule;
    if (c != NULL) {
        atomic_store(&c->canceled, true);
        if (c->making != NULL) {
            making_cancel(c->making);
        }
    }
}

void schedule_close(struct backups *b)
{
    struct backup_schedule *c = b->schedule;
    if (c != NULL) {
        fd_close(c);
        target_list_close(&c->list);
        mem_free(c);
        b->schedule = NULL;
    }
}
