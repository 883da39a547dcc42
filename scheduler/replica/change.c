#include "scheduler/replica/change.h"

#include "common/check.h"
#include "common/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct status status_from_raft(int code)
{
    static const enum status_code codes[] = {
        [0] = STATUS_OK,
        [RAFT_NOMEM] = STATUS_NOMEM,
        [RAFT_BADID] = STATUS_NOT_FOUND,
        [RAFT_DUPLICATEID] = STATUS_EXISTS,
        [RAFT_DUPLICATEADDRESS] = STATUS_EXISTS,
        [RAFT_BADROLE] = STATUS_INVALID,
        [RAFT_MALFORMED] = STATUS_CORRUPT,
        [RAFT_NOTLEADER] = STATUS_NOT_LEADER,
        [RAFT_LEADERSHIPLOST] = STATUS_UNKNOWN,
        [RAFT_SHUTDOWN] = STATUS_CANCELED,
        [RAFT_CANTBOOTSTRAP] = STATUS_EXISTS,
        [RAFT_CANTCHANGE] = STATUS_CONFLICT,
        [RAFT_CORRUPT] = STATUS_CORRUPT,
        [RAFT_CANCELED] = STATUS_CANCELED,
        [RAFT_NAMETOOLONG] = STATUS_LIMIT,
        [RAFT_TOOBIG] = STATUS_LIMIT,
        [RAFT_NOCONNECTION] = STATUS_UNAVAILABLE,
        [RAFT_BUSY] = STATUS_UNAVAILABLE,
        [RAFT_IOERR] = STATUS_IO,
        [RAFT_NOTFOUND] = STATUS_NOT_FOUND,
        [RAFT_INVALID] = STATUS_INVALID,
        [RAFT_UNAUTHORIZED] = STATUS_DENIED,
        [RAFT_NOSPACE] = STATUS_IO,
        [RAFT_TOOMANY] = STATUS_LIMIT,
    };
    if (code < 0 || (size_t)code >= sizeof codes / sizeof codes[0]) {
        return status_of(STATUS_INTERNAL);
    }
    return status_of(codes[code]);
}

void changes_add(struct changes *c, enum change_kind kind, const struct replica_member *member,
                 replica_change_cb cb, void *data)
{
    struct change *ch = mem_must(mem_zalloc(1, sizeof *ch));
    ch->kind = kind;
    ch->member = *member;
    ch->cb = cb;
    ch->data = data;
    ch->refused = c->count >= REPLICA_CHANGES_MAX;
    if (c->last == NULL) {
        c->first = ch;
    } else {
        c->last->next = ch;
    }
    c->last = ch;
    c->count++;
}

/* Takes the first change out and answers it. */
static void answer(struct changes *c, struct status s, const char *why)
{
    struct change *ch = c->first;
    CHECK(!ch->running || ch->stepped);
    c->first = ch->next;
    if (c->first == NULL) {
        c->last = NULL;
    }
    c->count--;
    mem_free(ch->transfer);
    ch->cb(ch->data, s, why);
    mem_free(ch);
}

static void change_done(struct raft_change *req, int status)
{
    struct change *ch = req->data;
    ch->stepped = true;
    ch->step_code = status;
}

static void transfer_done(struct raft_transfer *req)
{
    struct change *ch = req->data;
    ch->stepped = true;
    ch->step_code = 0;
}

static const struct raft_server *find_server(const struct raft *raft, uint64_t id)
{
    for (unsigned i = 0; i < raft->configuration.n; i++) {
        if (raft->configuration.servers[i].id == id) {
            return &raft->configuration.servers[i];
        }
    }
    return NULL;
}

static unsigned count_voters(const struct raft *raft)
{
    unsigned voters = 0;
    for (unsigned i = 0; i < raft->configuration.n; i++) {
        voters += raft->configuration.servers[i].role == RAFT_VOTER ? 1U : 0U;
    }
    return voters;
}

/* What one try to begin came to: libraft has it (0), a code of libraft's, or an answer of ours. */
struct attempt {
    int code;
    bool answered;
    struct status status;
    const char *why;
};

static struct attempt attempt_answer(enum status_code code, const char *why)
{
    return (struct attempt){.answered = true, .status = status_of(code), .why = why};
}

static int role_of(enum replica_member_role role)
{
    return role == REPLICA_VOTER ? RAFT_VOTER : role == REPLICA_SPARE ? RAFT_SPARE : RAFT_STANDBY;
}

static struct attempt begin_add(struct change *ch, struct raft *raft)
{
    const struct raft_server *s = find_server(raft, ch->member.id);
    int wanted = role_of(ch->member.role);
    if (s == NULL) {
        if (raft->configuration.n >= REPLICA_MEMBERS_MAX) {
            return attempt_answer(STATUS_LIMIT, "too many members");
        }
        return (struct attempt){
            .code = raft_add(raft, &ch->req, ch->member.id, ch->member.address, change_done)};
    }
    if (strcmp(s->address, ch->member.address) != 0) {
        return attempt_answer(STATUS_EXISTS, "that id is a member with another address");
    }
    if (s->role == wanted) {
        return attempt_answer(STATUS_OK, "");
    }
    if (ch->member.id == raft->id) {
        return attempt_answer(STATUS_INVALID, "the leader keeps its role: transfer first");
    }
    int next = s->role == RAFT_SPARE && wanted == RAFT_VOTER ? RAFT_STANDBY : wanted;
    return (struct attempt){.code = raft_assign(raft, &ch->req, ch->member.id, next, change_done)};
}

static struct attempt begin_transfer(struct change *ch, struct raft *raft, uint64_t id)
{
    if (id == raft->id) {
        return attempt_answer(STATUS_OK, "");
    }
    ch->transfer = mem_zalloc(1, sizeof *ch->transfer);
    if (ch->transfer == NULL) {
        return attempt_answer(STATUS_NOMEM, "out of memory");
    }
    ch->transfer->data = ch;
    struct attempt a = {.code = raft_transfer(raft, ch->transfer, id, transfer_done)};
    if (a.code != 0) {
        mem_free(ch->transfer);
        ch->transfer = NULL;
    } else {
        ch->target = ch->transfer->id;
    }
    return a;
}

static struct attempt begin_remove(struct change *ch, struct raft *raft)
{
    const struct raft_server *s = find_server(raft, ch->member.id);
    if (s == NULL) {
        return attempt_answer(STATUS_NOT_FOUND, "no such member");
    }
    if (s->role == RAFT_VOTER && count_voters(raft) == 1) {
        return attempt_answer(STATUS_INVALID, "the last voter cannot be removed");
    }
    if (ch->member.id == raft->id) {
        return begin_transfer(ch, raft, 0);
    }
    return (struct attempt){.code = raft_remove(raft, &ch->req, ch->member.id, change_done)};
}

static struct attempt begin(struct change *ch, struct raft *raft)
{
    ch->req.data = ch;
    switch (ch->kind) {
    case CHANGE_ADD:
        return begin_add(ch, raft);
    case CHANGE_REMOVE:
        return begin_remove(ch, raft);
    case CHANGE_TRANSFER:
        return begin_transfer(ch, raft, ch->member.id);
    }
    CHECK(!"a kind of change");
    return attempt_answer(STATUS_INTERNAL, "");
}

static void answer_transfer(struct changes *c, struct raft *raft)
{
    struct change *ch = c->first;
    raft_id leader = 0;
    const char *address = NULL;
    raft_leader(raft, &leader, &address);
    if (leader != ch->target) {
        bool still = raft->state == RAFT_LEADER;
        answer(c, status_of(still ? STATUS_TIMEOUT : STATUS_UNKNOWN),
               still ? "the member did not take over in time" : "the new leader is not known yet");
        return;
    }
    if (ch->kind == CHANGE_TRANSFER) {
        answer(c, status_ok(), "");
        return;
    }
    char why[REPLICA_ADDRESS_BYTES_MAX + 96];
    (void)snprintf(why, sizeof why,
                   "leadership was transferred to member %" PRIu64 " (%s): repeat it there",
                   ch->target, address == NULL ? "" : address);
    answer(c, status_of(STATUS_NOT_LEADER), why);
}

/* libraft has answered the running step. */
static void step_ended(struct changes *c, struct raft *raft)
{
    struct change *ch = c->first;
    if (ch->target != 0) {
        answer_transfer(c, raft);
        return;
    }
    if (ch->step_code != 0) {
        bool slow = ch->kind == CHANGE_ADD && ch->step_code == RAFT_NOCONNECTION;
        answer(c, status_from_raft(ch->step_code),
               slow ? "the member does not catch up" : raft_strerror(ch->step_code));
        return;
    }
    if (ch->kind == CHANGE_REMOVE) {
        answer(c, status_ok(), "");
        return;
    }
    ch->running = false;
    ch->stepped = false;
    ch->tried_tick = 0;
}

/* Tries to begin the next step of the first change; false when that has to wait. */
static bool step_begin(struct changes *c, struct raft *raft, struct guard *guard)
{
    struct change *ch = c->first;
    uint64_t now_ms = guard->io.time(&guard->io);
    if (ch->deadline_ms == 0) {
        ch->deadline_ms = now_ms + CHANGE_TIMEOUT_MS;
    }
    if (ch->tried_tick == guard->ticks + 1) {
        return false;
    }
    ch->tried_tick = guard->ticks + 1;
    guard_enter(guard);
    struct attempt a = begin(ch, raft);
    guard_leave(guard);
    if (a.answered) {
        answer(c, a.status, a.why);
        return true;
    }
    if (a.code == 0) {
        ch->running = true;
        return true;
    }
    if (a.code == RAFT_CANTCHANGE && now_ms < ch->deadline_ms) {
        return false;
    }
    answer(c, status_from_raft(a.code), raft_strerror(a.code));
    return true;
}

bool changes_step(struct changes *c, struct raft *raft, struct guard *guard, bool ready)
{
    struct change *ch = c->first;
    if (ch == NULL) {
        return false;
    }
    if (ch->refused) {
        answer(c, status_of(STATUS_LIMIT), "too many changes are waiting");
        return true;
    }
    if (ch->running) {
        if (!ch->stepped) {
            return false;
        }
        step_ended(c, raft);
        return true;
    }
    if (raft->state != RAFT_LEADER) {
        answer(c, status_of(STATUS_NOT_LEADER), "not the leader");
        return true;
    }
    return ready && step_begin(c, raft, guard);
}

void changes_refuse(struct changes *c, struct status s, const char *why)
{
    while (c->first != NULL) {
        c->first->running = false;
        answer(c, s, why);
    }
}

void changes_drop(struct changes *c)
{
    while (c->first != NULL) {
        struct change *ch = c->first;
        c->first = ch->next;
        mem_free(ch->transfer);
        mem_free(ch);
    }
    *c = (struct changes){0};
}
