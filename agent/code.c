#include "agent/code.h"

#include "common/check.h"
#include "common/chunks.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/package.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define HASH_NONFATAL_OOM 1
#define uthash_malloc(size) mem_alloc(size)
#define uthash_free(p, size) mem_free(p)
#include <uthash.h>
#include <utlist.h>

/* ABSENT -> FETCHING -> HERE -> REMOVING -> (forgotten, or FETCHING when somebody asked
 * meanwhile) */
enum revision_state { REVISION_FETCHING, REVISION_HERE, REVISION_REMOVING };

enum work_kind { WORK_SCAN, WORK_PUT, WORK_UNPACK, WORK_REMOVE };

struct revision {
    struct digest id;
    struct code *code;
    enum revision_state state;
    uint32_t refs;
    struct code_wait *waits;
    struct digest *chunks;
    uint32_t chunks_count;
    bool *missing;    /* of each chunk, after the scan */
    uint32_t next;    /* to be asked for */
    uint32_t asked;   /* without an answer yet */
    uint32_t storing; /* puts that run */
    uint32_t works;   /* of any kind that run: the revision stays for them */
    bool unpacking;
    uint64_t number; /* of this fetch: answers to older ones are dropped */
    struct status failed;
    char message[ERRMSG_BYTES_MAX];
    UT_hash_handle hh;
};

struct work {
    uv_work_t work;
    enum work_kind kind;
    struct revision *revision;
    struct code *code;
    uint32_t index; /* PUT: of the chunk */
    struct status status;
    struct errmsg msg;
    struct buffer data; /* PUT: the chunk */
};

struct code {
    uv_loop_t *loop;
    struct code_env env;
    struct chunk_store *store;
    uv_mutex_t store_lock; /* the store is one thread's at a time */
    char chunks_folder[CODE_PATH_BYTES_MAX];
    char folder[CODE_PATH_BYTES_MAX];
    struct revision *revisions; /* oldest first */
    uint32_t unused;            /* HERE without references */
    uint32_t works;
    uint64_t number_last;
    bool closing;
};

enum { TICKET_INDEX_BITS = 16 };
static_assert(CHUNKS_MAX < 1 << TICKET_INDEX_BITS, "a ticket holds a chunk's index");

void code_folder(const struct code *c, const struct digest *revision, char out[CODE_PATH_BYTES_MAX])
{
    char text[DIGEST_STRING_BYTES];
    digest_format(revision, text);
    int n = snprintf(out, CODE_PATH_BYTES_MAX, "%s/%s", c->folder, text);
    CHECK(n > 0 && n < CODE_PATH_BYTES_MAX);
}

static struct revision *revision_find(const struct code *c, const struct digest *id)
{
    struct revision *r;
    HASH_FIND(hh, c->revisions, id, sizeof *id, r);
    return r;
}

static struct revision *revision_new(struct code *c, const struct digest *id,
                                     enum revision_state state)
{
    struct revision *r = mem_zalloc(1, sizeof *r);
    if (r == NULL) {
        return NULL;
    }
    *r = (struct revision){.id = *id, .code = c, .state = state, .failed = status_ok()};
    HASH_ADD(hh, c->revisions, id, sizeof r->id, r);
    if (r->hh.tbl == NULL) {
        mem_free(r);
        return NULL;
    }
    return r;
}

static void revision_free(struct revision *r)
{
    CHECK(r->works == 0);
    CHECK(r->waits == NULL);
    HASH_DEL(r->code->revisions, r);
    mem_free(r->chunks);
    mem_free(r->missing);
    mem_free(r);
}

static void free_all(struct code *c)
{
    struct revision *r;
    struct revision *tmp;
    HASH_ITER(hh, c->revisions, r, tmp) {
        r->waits = NULL;
        revision_free(r);
    }
    chunk_store_close(c->store);
    uv_mutex_destroy(&c->store_lock);
    mem_free(c);
}

/* ---- On the pool's threads ---- */

static bool keep_of_revision(void *data, const struct digest *digest)
{
    const struct revision *r = data;
    for (uint32_t i = 0; i < r->chunks_count; i++) {
        if (digest_compare(&r->chunks[i], digest) == 0) {
            return true;
        }
    }
    return false;
}

static void work_scan(const struct work *w)
{
    struct revision *r = w->revision;
    for (uint32_t i = 0; i < r->chunks_count; i++) {
        r->missing[i] = !chunk_store_has(w->code->store, &r->chunks[i]);
    }
}

/* A full store is a cache that may be emptied of all but this revision's chunks. */
static void work_put(struct work *w)
{
    struct chunk_store *store = w->code->store;
    const struct digest *digest = &w->revision->chunks[w->index];
    struct bytes data = bytes_of(w->data.data, w->data.size);
    w->status = chunk_store_put(store, digest, data, &w->msg);
    if (w->status.code == STATUS_LIMIT) {
        struct status collected =
            chunk_store_collect(store, keep_of_revision, w->revision, NULL, &w->msg);
        w->status =
            status_is_ok(collected) ? chunk_store_put(store, digest, data, &w->msg) : collected;
    }
}

static void work_unpack(struct work *w)
{
    char folder[CODE_PATH_BYTES_MAX];
    code_folder(w->code, &w->revision->id, folder);
    struct chunk_reader reader = {.store = w->code->store,
                                  .digests = w->revision->chunks,
                                  .count = w->revision->chunks_count};
    w->status = package_unpack(chunk_reader_read, &reader, folder, &w->msg);
    buffer_close(&reader.buffer);
}

static void on_work(uv_work_t *work)
{
    struct work *w = work->data;
    w->status = status_ok();
    if (w->kind == WORK_REMOVE) {
        char folder[CODE_PATH_BYTES_MAX];
        code_folder(w->code, &w->revision->id, folder);
        w->status = package_remove(folder, &w->msg);
        return;
    }
    uv_mutex_lock(&w->code->store_lock);
    if (w->kind == WORK_SCAN) {
        work_scan(w);
    } else if (w->kind == WORK_PUT) {
        work_put(w);
    } else {
        work_unpack(w);
    }
    uv_mutex_unlock(&w->code->store_lock);
}

/* ---- On the loop ---- */

static void on_work_done(uv_work_t *work, int status);

static struct status work_start(struct revision *r, enum work_kind kind, uint32_t index,
                                struct bytes data)
{
    struct work *w = mem_zalloc(1, sizeof *w);
    if (w == NULL) {
        return status_of(STATUS_NOMEM);
    }
    *w = (struct work){.kind = kind, .revision = r, .code = r->code, .index = index};
    w->work.data = w;
    struct status s = buffer_append(&w->data, data.data, data.size);
    if (!status_is_ok(s)) {
        mem_free(w);
        return s;
    }
    int rc = uv_queue_work(r->code->loop, &w->work, on_work, on_work_done);
    CHECK(rc == 0);
    r->works++;
    r->code->works++;
    return status_ok();
}

static void collect_unused(struct code *c);

/* Tells all who wait. Each holds the revision when it is there. */
static void tell(struct revision *r, struct status s, const char *message)
{
    struct code_wait *w;
    struct code_wait *next;
    struct code_wait *waits = r->waits;
    r->waits = NULL;
    DL_FOREACH_SAFE(waits, w, next) {
        DL_DELETE(waits, w);
        w->done(w->data, s, message);
    }
}

static void fetch_fail(struct revision *r, struct status s, const char *message)
{
    if (status_is_ok(r->failed)) {
        r->failed = s;
        (void)snprintf(r->message, sizeof r->message, "code: %s", message);
    }
}

static void revision_here(struct revision *r)
{
    struct code *c = r->code;
    r->state = REVISION_HERE;
    mem_free(r->chunks);
    mem_free(r->missing);
    r->chunks = NULL;
    r->missing = NULL;
    uint32_t waiting = 0;
    struct code_wait *w;
    DL_FOREACH(r->waits, w) {
        waiting++;
    }
    r->refs += waiting;
    if (r->refs == 0) {
        c->unused++;
    }
    tell(r, status_ok(), "");
    collect_unused(c);
}

static void ask_more(struct revision *r)
{
    struct code *c = r->code;
    while (status_is_ok(r->failed) && r->asked + r->storing < CODE_WINDOW &&
           r->next < r->chunks_count) {
        uint32_t index = r->next++;
        if (!r->missing[index]) {
            continue;
        }
        uint64_t ticket = r->number << TICKET_INDEX_BITS | index;
        struct status s = c->env.ask(c->env.data, &r->chunks[index], ticket);
        if (!status_is_ok(s)) {
            fetch_fail(r, s, "no leader to fetch it from");
            return;
        }
        r->asked++;
    }
}

/* Goes on with a fetch; frees r when it has failed. Last touch. */
static void fetch_next(struct revision *r)
{
    ask_more(r);
    if (!status_is_ok(r->failed)) {
        if (r->works > 0) {
            return;
        }
        struct status failed = r->failed;
        char message[ERRMSG_BYTES_MAX];
        memcpy(message, r->message, sizeof message);
        struct code_wait *waits = r->waits;
        r->waits = NULL;
        struct revision told = {.waits = waits};
        revision_free(r);
        tell(&told, failed, message);
        return;
    }
    if (r->next == r->chunks_count && r->asked == 0 && r->storing == 0 && !r->unpacking) {
        r->unpacking = true;
        struct status s = work_start(r, WORK_UNPACK, 0, (struct bytes){0});
        if (!status_is_ok(s)) {
            fetch_fail(r, s, "out of memory");
            fetch_next(r);
        }
    }
}

static void fetch_start(struct revision *r)
{
    r->state = REVISION_FETCHING;
    r->number = ++r->code->number_last;
    struct status s = work_start(r, WORK_SCAN, 0, (struct bytes){0});
    if (!status_is_ok(s)) {
        fetch_fail(r, s, "out of memory");
        fetch_next(r);
    }
}

static void removed(struct revision *r, const struct work *w)
{
    if (!status_is_ok(w->status)) {
        LOG_WARN("cannot remove unused code", LOG_STR("why", w->msg.text));
    }
    if (r->waits != NULL) {
        fetch_start(r);
        return;
    }
    revision_free(r);
}

static void on_work_done(uv_work_t *work, int status)
{
    struct work *w = work->data;
    struct code *c = w->code;
    struct revision *r = w->revision;
    (void)status;
    c->works--;
    r->works--;
    if (c->closing) {
        if (c->works == 0) {
            free_all(c);
        }
    } else if (w->kind == WORK_REMOVE) {
        removed(r, w);
    } else if (!status_is_ok(w->status) &&
               !(w->kind == WORK_UNPACK && w->status.code == STATUS_EXISTS)) {
        r->storing -= w->kind == WORK_PUT;
        fetch_fail(r, w->status, w->msg.text);
        fetch_next(r);
    } else if (w->kind == WORK_UNPACK) {
        revision_here(r);
    } else {
        r->storing -= w->kind == WORK_PUT;
        fetch_next(r);
    }
    buffer_close(&w->data);
    mem_free(w);
}

void code_chunk(struct code *c, uint64_t ticket, struct status status, struct bytes data,
                const char *message)
{
    uint64_t number = ticket >> TICKET_INDEX_BITS;
    uint32_t index = (uint32_t)(ticket & ((1 << TICKET_INDEX_BITS) - 1));
    struct revision *r = c->revisions;
    while (r != NULL && (r->state != REVISION_FETCHING || r->number != number)) {
        r = r->hh.next;
    }
    if (r == NULL || r->asked == 0 || index >= r->chunks_count) {
        return;
    }
    r->asked--;
    if (!status_is_ok(status)) {
        fetch_fail(r, status, message);
    } else if (status_is_ok(r->failed)) {
        struct status s = work_start(r, WORK_PUT, index, data);
        if (status_is_ok(s)) {
            r->storing++;
        } else {
            fetch_fail(r, s, "out of memory");
        }
    }
    fetch_next(r);
}

/* Removes the oldest revisions that nobody holds, beyond the number kept. */
static void collect_unused(struct code *c)
{
    struct revision *r;
    struct revision *tmp;
    HASH_ITER(hh, c->revisions, r, tmp) {
        if (c->unused <= CODE_UNUSED_MAX) {
            return;
        }
        if (r->state != REVISION_HERE || r->refs > 0) {
            continue;
        }
        if (!status_is_ok(work_start(r, WORK_REMOVE, 0, (struct bytes){0}))) {
            return;
        }
        r->state = REVISION_REMOVING;
        c->unused--;
    }
}

/* Remembers what the revision is made of, for the fetch. */
static struct status chunks_keep(struct revision *r, struct bytes chunks)
{
    size_t count = chunks.size / DIGEST_BYTES;
    struct digest *digests = mem_zalloc(count, sizeof *digests);
    bool *missing = mem_zalloc(count, sizeof *missing);
    if (digests == NULL || missing == NULL) {
        mem_free(digests);
        mem_free(missing);
        return status_of(STATUS_NOMEM);
    }
    if (count > 0) {
        memcpy(digests, chunks.data, count * DIGEST_BYTES);
    }
    mem_free(r->chunks);
    mem_free(r->missing);
    r->chunks = digests;
    r->missing = missing;
    r->chunks_count = (uint32_t)count;
    r->next = 0;
    return status_ok();
}

struct status code_get(struct code *c, const struct digest *revision, struct bytes chunks,
                       struct code_wait *wait, bool *here, struct errmsg *msg)
{
    if (chunks.size == 0 || chunks.size % DIGEST_BYTES != 0 ||
        chunks.size / DIGEST_BYTES > CHUNKS_MAX) {
        return status_fail(msg, STATUS_INVALID, "code: the list of chunks is malformed");
    }
    struct revision *r = revision_find(c, revision);
    if (r != NULL && r->state == REVISION_HERE) {
        c->unused -= r->refs == 0;
        r->refs++;
        *here = true;
        return status_ok();
    }
    if (r != NULL && r->state == REVISION_FETCHING) {
        DL_APPEND(r->waits, wait);
        *here = false;
        return status_ok();
    }
    bool fresh = r == NULL;
    if (fresh) {
        if (HASH_COUNT(c->revisions) >= CODE_REVISIONS_MAX) {
            return status_fail(msg, STATUS_LIMIT, "code: %d revisions are here",
                               CODE_REVISIONS_MAX);
        }
        r = revision_new(c, revision, REVISION_FETCHING);
        if (r == NULL) {
            return status_fail(msg, STATUS_NOMEM, "code: out of memory");
        }
    }
    struct status s = r->chunks == NULL ? chunks_keep(r, chunks) : status_ok();
    if (status_is_ok(s) && fresh) {
        r->number = ++c->number_last;
        s = work_start(r, WORK_SCAN, 0, (struct bytes){0});
    }
    if (!status_is_ok(s)) {
        if (fresh) {
            revision_free(r);
        }
        return status_fail(msg, s.code, "code: out of memory");
    }
    DL_APPEND(r->waits, wait); /* of a revision being removed: fetched anew after that */
    *here = false;
    return status_ok();
}

void code_forget(struct code *c, const struct digest *revision, struct code_wait *wait)
{
    struct revision *r = revision_find(c, revision);
    if (r != NULL) {
        DL_DELETE(r->waits, wait);
    }
}

struct status code_hold(struct code *c, const struct digest *revision)
{
    struct revision *r = revision_find(c, revision);
    if (r == NULL) {
        return status_of(STATUS_NOT_FOUND);
    }
    CHECK(r->state == REVISION_HERE);
    c->unused -= r->refs == 0;
    r->refs++;
    return status_ok();
}

void code_put(struct code *c, const struct digest *revision)
{
    struct revision *r = revision_find(c, revision);
    if (r == NULL) {
        return;
    }
    CHECK(r->refs > 0);
    r->refs--;
    if (r->refs == 0) {
        c->unused++;
        collect_unused(c);
    }
}

/* Takes the complete revisions of the folder in; removes what a crash left. */
static struct status scan_folder(struct code *c, struct errmsg *msg)
{
    DIR *dir = opendir(c->folder);
    if (dir == NULL) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", c->folder,
                           strerror(errno));
    }
    struct status s = status_ok();
    for (const struct dirent *e = readdir(dir); e != NULL && status_is_ok(s); e = readdir(dir)) {
        struct digest id;
        if (e->d_name[0] == '.') {
            continue;
        }
        if (status_is_ok(digest_parse(e->d_name, &id, NULL)) &&
            HASH_COUNT(c->revisions) < CODE_REVISIONS_MAX) {
            if (revision_new(c, &id, REVISION_HERE) == NULL) {
                s = status_fail(msg, STATUS_NOMEM, "out of memory");
            }
            c->unused++;
            continue;
        }
        char path[CODE_PATH_BYTES_MAX + NAME_MAX + 2];
        (void)snprintf(path, sizeof path, "%s/%s", c->folder, e->d_name);
        s = package_remove(path, msg);
    }
    (void)closedir(dir);
    return s;
}

static struct status folder_make(const char *path, struct errmsg *msg)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "make %s: %s", path, strerror(errno));
    }
    return status_ok();
}

struct status code_open(struct code **out, uv_loop_t *loop, const char *data,
                        uint64_t chunk_bytes_max, const struct code_env *env, struct errmsg *msg)
{
    if (strlen(data) + DIGEST_STRING_BYTES + 16 > CODE_PATH_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "data: path is too long");
    }
    struct code *c = mem_zalloc(1, sizeof *c);
    if (c == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    c->loop = loop;
    c->env = *env;
    (void)snprintf(c->chunks_folder, sizeof c->chunks_folder, "%s/chunks", data);
    (void)snprintf(c->folder, sizeof c->folder, "%s/code", data);
    int rc = uv_mutex_init(&c->store_lock);
    CHECK(rc == 0);
    struct status s = folder_make(c->folder, msg);
    if (status_is_ok(s)) {
        s = chunk_store_open(&c->store, c->chunks_folder, chunk_bytes_max, msg);
    }
    if (status_is_ok(s)) {
        s = scan_folder(c, msg);
    }
    if (!status_is_ok(s)) {
        free_all(c);
        return s;
    }
    *out = c;
    return status_ok();
}

void code_close(struct code *c)
{
    if (c == NULL) {
        return;
    }
    c->closing = true;
    if (c->works == 0) {
        free_all(c);
    }
}
