#include "common/log.h"
#include "common/mem.h"
#include "scheduler/api/backups_internal.h"

#include <inttypes.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum read_state {
    READ_WAITING, /* for the state to be free to pin */
    READ_MAKING,
    READ_READY,
    READ_SENDING, /* a piece is being read */
    READ_OVER,    /* nobody wants it: what is under way frees it */
};

/* A user's backup: WAITING -> MAKING -> READY <-> SENDING -> gone; any -> OVER -> gone. */
struct backup_read {
    struct backups *b;
    uint64_t session, request;
    enum read_state state;
    struct making *making;
    int fd;
    uint64_t size, offset, used_us;
    uv_fs_t fs;
    uint8_t *piece;
    struct backup_read *prev, *next;
};

/* ---- Answers ---- */

static void fail(struct server *s, uint64_t session, uint64_t request, enum status_code code,
                 const char *text)
{
    struct session *to = session_find(s, session);
    if (to == NULL || request == 0) {
        return;
    }
    const struct message m = {
        .type = MESSAGE_BACKUP_DATA,
        .request = request,
        .backup_data = {.code = code,
                        .message = text,
                        .leader = code == STATUS_NOT_LEADER ? members_leader_address(s) : ""}};
    session_send(s, to, &m);
}

static void read_free(struct backup_read *r)
{
    struct backups *b = r->b;
    DL_DELETE(b->reads, r);
    b->reads_count--;
    if (r->fd >= 0) {
        (void)close(r->fd);
    }
    mem_free(r->piece);
    mem_free(r);
}

/* Nobody wants it any more. */
static void read_drop(struct backup_read *r)
{
    if (r->state == READ_MAKING || r->state == READ_SENDING) {
        if (r->making != NULL) {
            making_cancel(r->making);
        }
        r->state = READ_OVER;
    } else if (r->state != READ_OVER) {
        read_free(r);
    }
}

void backups_ended(struct backups *b)
{
    CHECK(b->under_way > 0);
    if (--b->under_way == 0 && b->stopped != NULL) {
        b->stopped(b->server);
    }
}

/* ---- Sending ---- */

static void on_piece(uv_fs_t *fs)
{
    struct backup_read *r = fs->data;
    struct backups *b = r->b;
    ssize_t got = fs->result;
    uv_fs_req_cleanup(fs);
    struct session *to = session_find(b->server, r->session);
    if (r->state == READ_OVER || to == NULL) {
        read_free(r);
    } else if (got <= 0) {
        fail(b->server, r->session, r->request, STATUS_IO, "the backup cannot be read again");
        read_free(r);
    } else {
        bool end = r->offset + (uint64_t)got == r->size;
        const struct message m = {.type = MESSAGE_BACKUP_DATA,
                                  .request = r->request,
                                  .backup_data = {.message = "",
                                                  .leader = "",
                                                  .offset = r->offset,
                                                  .total = r->size,
                                                  .data = bytes_of(r->piece, (size_t)got),
                                                  .end = end}};
        session_send(b->server, to, &m);
        r->state = READ_READY;
        if (end) {
            read_free(r);
        }
    }
    backups_ended(b);
}

static void send_piece(struct backup_read *r, uint64_t offset)
{
    struct server *s = r->b->server;
    r->offset = offset;
    r->used_us = server_now(s).mono_us;
    uint64_t left = r->size - offset;
    unsigned size = left < BACKUP_PIECE_SENT_BYTES ? (unsigned)left : BACKUP_PIECE_SENT_BYTES;
    if (r->piece == NULL) {
        r->piece = mem_alloc(BACKUP_PIECE_SENT_BYTES);
    }
    const uv_buf_t buf = uv_buf_init((char *)r->piece, size);
    r->fs.data = r;
    if (r->piece == NULL ||
        uv_fs_read(s->loop, &r->fs, r->fd, &buf, 1, (int64_t)offset, on_piece) != 0) {
        fail(s, r->session, r->request, STATUS_NOMEM, "out of memory");
        read_free(r);
        return;
    }
    r->state = READ_SENDING;
    r->b->under_way++;
}

static void on_made(void *data, const struct made *made)
{
    struct backup_read *r = data;
    struct backups *b = r->b;
    r->making = NULL;
    r->fd = made->fd;
    r->size = made->bytes;
    b->made += status_is_ok(made->status);
    b->failed += !status_is_ok(made->status) && made->status.code != STATUS_CANCELED;
    if (r->state == READ_OVER) {
        read_free(r);
    } else if (!status_is_ok(made->status)) {
        LOG_WARN("backup failed", LOG_STR("code", status_name(made->status.code)),
                 LOG_STR("why", made->why));
        fail(b->server, r->session, r->request, made->status.code, made->why);
        read_free(r);
    } else {
        LOG_INFO("backup made", LOG_UINT("bytes", made->bytes), LOG_UINT("index", made->index),
                 LOG_UINT("payloads", made->totals.payloads),
                 LOG_UINT("chunks", made->totals.chunks));
        r->state = READ_READY;
        send_piece(r, 0);
    }
    backups_ended(b);
}

/* Begins to make it, or lets it wait. */
static void read_begin(struct backup_read *r, uint64_t now_us)
{
    struct backups *b = r->b;
    struct errmsg msg = {.text = ""};
    struct status s = making_start(b->server, on_made, r, &r->making, &msg);
    if (status_is_ok(s)) {
        r->state = READ_MAKING;
        b->under_way++;
    } else if (s.code != STATUS_UNAVAILABLE ||
               now_us - r->used_us > (uint64_t)BACKUP_PIN_MS * 1000) {
        b->failed++;
        fail(b->server, r->session, r->request, s.code, msg.text);
        read_free(r);
    }
}

static void answer_get(struct backups *b, struct session *from, const struct message *m)
{
    struct server *s = b->server;
    struct backup_read *r;
    DL_SEARCH_SCALAR(b->reads, r, session, from->handle);
    if (m->backup_get.offset > 0) {
        if (r == NULL || r->state != READ_READY || m->backup_get.offset >= r->size) {
            fail(s, from->handle, m->request, STATUS_CONFLICT,
                 "no backup is being read over this connection; begin again");
            return;
        }
        r->request = m->request;
        send_piece(r, m->backup_get.offset);
        return;
    }
    if (!m->backup_get.stale && !core_is_leader(s->core)) {
        fail(s, from->handle, m->request, STATUS_NOT_LEADER, "this scheduler is not the leader");
        return;
    }
    if (r != NULL && r->state == READ_READY) {
        read_free(r); /* It is begun anew. */
    } else if (r != NULL) {
        fail(s, from->handle, m->request, STATUS_CONFLICT,
             "a backup is being made for this connection already");
        return;
    }
    if (b->reads_count >= BACKUPS_MAX) {
        fail(s, from->handle, m->request, STATUS_LIMIT,
             "other backups are being read; try again in a minute");
        return;
    }
    r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        fail(s, from->handle, m->request, STATUS_NOMEM, "out of memory");
        return;
    }
    *r = (struct backup_read){.b = b,
                              .session = from->handle,
                              .request = m->request,
                              .fd = -1,
                              .used_us = server_now(s).mono_us};
    DL_APPEND(b->reads, r);
    b->reads_count++;
    read_begin(r, r->used_us);
}

/* ---- Restoring ---- */

struct restoring {
    struct server *server;
    uint64_t session, request;
};

static void on_restored(void *data, struct status status, const char *message, uint64_t index)
{
    struct restoring *r = data;
    session_reply_detail(r->server, r->session, r->request, status, message, index,
                         bytes_of(NULL, 0));
    mem_free(r);
}

static void take_piece(struct backups *b, struct session *from, const struct message *m)
{
    struct server *s = b->server;
    const struct backup_data *d = &m->backup_data;
    if (!core_is_leader(s->core)) {
        session_reply(s, from, m->request, STATUS_NOT_LEADER, "this scheduler is not the leader");
        return;
    }
    if (d->offset == 0) {
        b->restore_session = from->handle;
        CHECK(RAND_bytes((unsigned char *)&b->restore, sizeof b->restore) == 1);
    } else if (b->restore_session != from->handle) {
        session_reply(s, from, m->request, STATUS_CONFLICT,
                      "another restore began meanwhile; begin again");
        return;
    }
    struct restoring *r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        session_reply(s, from, m->request, STATUS_NOMEM, "out of memory");
        return;
    }
    *r = (struct restoring){.server = s, .session = from->handle, .request = m->request};
    char by[2 * NAME_BYTES_MAX];
    session_who(from, by);
    const struct command cmd = {
        .type = COMMAND_RESTORE,
        .by = by,
        .command_restore = {
            .restore = b->restore, .offset = d->offset, .total = d->total, .data = d->data}};
    core_submit(s->core, server_now(s), &cmd, on_restored, r);
}

/* ---- The front end's calls ---- */

void backups_receive(struct server *s, struct session *from, const struct message *m)
{
    if (m->type == MESSAGE_BACKUP_GET) {
        answer_get(s->backups, from, m);
    } else {
        take_piece(s->backups, from, m);
    }
}

void backups_query(struct server *s, struct session *from, const struct message *m)
{
    schedule_query(s->backups, from, m);
}

void backups_session_closed(struct server *s, uint64_t handle)
{
    struct backup_read *r, *next;
    DL_FOREACH_SAFE(s->backups->reads, r, next) {
        if (r->session == handle) {
            read_drop(r);
        }
    }
}

void backups_tick(struct server *s, uint64_t now_us)
{
    struct backup_read *r, *next;
    DL_FOREACH_SAFE(s->backups->reads, r, next) {
        if (r->state == READ_WAITING) {
            read_begin(r, now_us);
        } else if (r->state == READ_READY &&
                   now_us - r->used_us > (uint64_t)BACKUP_IDLE_MS * 1000) {
            read_free(r);
        }
    }
    schedule_tick(s->backups, now_us);
}

struct status backups_open(struct server *s, struct errmsg *msg)
{
    TRY(making_folder(s, msg));
    s->backups = mem_zalloc(1, sizeof *s->backups);
    if (s->backups == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    s->backups->server = s;
    return schedule_open(s->backups, msg);
}

void backups_stop(struct server *s, void (*stopped)(struct server *s))
{
    struct backups *b = s->backups;
    struct backup_read *r, *next;
    DL_FOREACH_SAFE(b->reads, r, next) {
        read_drop(r);
    }
    schedule_stop(b);
    if (b->under_way == 0) {
        stopped(s);
    } else {
        b->stopped = stopped;
    }
}

void backups_close(struct server *s)
{
    if (s->backups != NULL) {
        schedule_close(s->backups);
        mem_free(s->backups);
        s->backups = NULL;
    }
}
