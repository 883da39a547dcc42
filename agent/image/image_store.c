#include "agent/image/image_store.h"

#include "agent/image/image_file.h"
#include "common/check.h"
#include "common/chunks.h"
#include "common/log.h"
#include "common/mem.h"

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

/* KEPT (a file, not mounted) -> FETCHING -> MOUNTED -> UNMOUNTING -> KEPT.
 * KEPT and checked -> MOUNTING -> MOUNTED. A failure of either leads back to KEPT. */
enum image_state { IMAGE_KEPT, IMAGE_FETCHING, IMAGE_MOUNTING, IMAGE_MOUNTED, IMAGE_UNMOUNTING };

enum work_kind { WORK_SCAN, WORK_PUT, WORK_FINISH, WORK_MOUNT, WORK_UNMOUNT };

struct image {
    struct digest id;
    struct image_store *store;
    enum image_state state;
    bool checked; /* the file is complete, and this agent has seen that */
    uint64_t bytes;
    uint32_t refs;
    struct image_wait *waits;
    struct digest lists[IMAGE_LISTS_MAX];
    uint32_t lists_count;
    uint32_t lists_left; /* without an answer yet */
    struct digest *chunks;
    bool *missing; /* of each chunk, after the scan */
    uint32_t chunks_count;
    uint32_t next;  /* to be asked for */
    uint32_t asked; /* without an answer yet, lists too */
    uint32_t works; /* that run */
    uint32_t tries; /* questions that failed */
    bool scanned, finishing;
    uint64_t number; /* of this fetch: answers to older ones are dropped */
    struct status failed;
    char message[ERRMSG_BYTES_MAX];
    UT_hash_handle hh;
};

struct work {
    uv_work_t work;
    enum work_kind kind;
    struct image *image;
    struct image_store *store;
    uint32_t index; /* PUT: of the chunk */
    struct status status;
    struct errmsg msg;
    struct buffer data; /* PUT: the chunk */
};

struct image_store {
    uv_loop_t *loop;
    struct image_env env;
    char folder[IMAGE_STORE_PATH_BYTES];
    uint64_t bytes_max;
    struct image *images; /* the longest unused first */
    uint32_t works;
    uint64_t number_last;
    bool closing;
};

/* A ticket: the fetch's number, then the chunk's index; lists have theirs behind all chunks. */
enum { TICKET_INDEX_BITS = 20, TICKET_LISTS = 1 << 19 };
_Static_assert((int)IMAGE_CHUNKS_MAX < (int)TICKET_LISTS, "a ticket holds a chunk's index");

void image_store_root(const struct image_store *s, const struct digest *image,
                      char out[IMAGE_STORE_PATH_BYTES])
{
    image_file_path(s->folder, image, "mnt", out);
}

static struct image *image_find(const struct image_store *s, const struct digest *id)
{
    struct image *i;
    HASH_FIND(hh, s->images, id, sizeof *id, i);
    return i;
}

static struct image *image_new(struct image_store *s, const struct digest *id, uint64_t bytes)
{
    struct image *i = mem_zalloc(1, sizeof *i);
    if (i == NULL) {
        return NULL;
    }
    *i = (struct image){.id = *id, .store = s, .bytes = bytes, .failed = status_ok()};
    HASH_ADD(hh, s->images, id, sizeof i->id, i);
    if (i->hh.tbl == NULL) {
        mem_free(i);
        return NULL;
    }
    return i;
}

static void fetch_clear(struct image *i)
{
    mem_free(i->chunks);
    mem_free(i->missing);
    i->chunks = NULL;
    i->missing = NULL;
    i->failed = status_ok();
    i->chunks_count = i->next = i->asked = i->tries = i->lists_left = 0;
    i->scanned = i->finishing = false;
    i->number = 0;
}

static void image_free(struct image *i)
{
    CHECK(i->works == 0);
    CHECK(i->waits == NULL);
    fetch_clear(i);
    HASH_DEL(i->store->images, i);
    mem_free(i);
}

static void free_all(struct image_store *s)
{
    struct image *i;
    struct image *next;
    HASH_ITER(hh, s->images, i, next) {
        i->waits = NULL;
        image_free(i);
    }
    mem_free(s);
}

/* ---- On the pool's threads ---- */

static void on_work(uv_work_t *work)
{
    struct work *w = work->data;
    struct image *i = w->image;
    const char *folder = w->store->folder;
    switch (w->kind) {
    case WORK_SCAN:
        w->status = image_file_scan(folder, &i->id, i->bytes, i->chunks, i->chunks_count,
                                    i->missing, &w->msg);
        break;
    case WORK_PUT:
        w->status = image_file_put(folder, &i->id, w->index, &i->chunks[w->index],
                                   bytes_of(w->data.data, w->data.size), &w->msg);
        break;
    case WORK_FINISH:
        w->status = image_file_finish(folder, &i->id, &w->msg);
        break;
    case WORK_MOUNT:
        w->status = image_file_mount(folder, &i->id, &w->msg);
        break;
    case WORK_UNMOUNT:
        w->status = image_file_unmount(folder, &i->id, &w->msg);
        break;
    }
}

/* ---- On the loop ---- */

static void on_work_done(uv_work_t *work, int status);

static struct status work_start(struct image *i, enum work_kind kind, uint32_t index,
                                struct bytes data)
{
    struct work *w = mem_zalloc(1, sizeof *w);
    if (w == NULL) {
        return status_of(STATUS_NOMEM);
    }
    *w = (struct work){.kind = kind, .image = i, .store = i->store, .index = index};
    w->work.data = w;
    struct status s = buffer_append(&w->data, data.data, data.size);
    if (!status_is_ok(s)) {
        mem_free(w);
        return s;
    }
    int rc = uv_queue_work(i->store->loop, &w->work, on_work, on_work_done);
    CHECK(rc == 0);
    i->works++;
    i->store->works++;
    return status_ok();
}

static void tell(struct image_wait *waits, struct status s, const char *message)
{
    struct image_wait *w;
    struct image_wait *next;
    DL_FOREACH_SAFE(waits, w, next) {
        DL_DELETE(waits, w);
        w->done(w->data, s, message);
    }
}

/* Nothing of it is under way any more. */
static void back_to_kept(struct image *i, struct status why, const char *message)
{
    struct image_wait *waits = i->waits;
    char text[ERRMSG_BYTES_MAX];
    (void)snprintf(text, sizeof text, "image: %s", message);
    i->waits = NULL;
    i->state = IMAGE_KEPT;
    fetch_clear(i);
    tell(waits, why, text);
}

static void mount_start(struct image *i)
{
    i->state = IMAGE_MOUNTING;
    struct status s = work_start(i, WORK_MOUNT, 0, (struct bytes){0});
    if (!status_is_ok(s)) {
        back_to_kept(i, s, "out of memory");
    }
}

static void fetch_start(struct image *i);

/* Without anybody who holds or wants it any more, it is unmounted. */
static void maybe_unmount(struct image *i)
{
    if (i->state == IMAGE_MOUNTED && i->refs == 0 && !i->store->closing &&
        status_is_ok(work_start(i, WORK_UNMOUNT, 0, (struct bytes){0}))) {
        i->state = IMAGE_UNMOUNTING;
    }
}

static void mounted(struct image *i)
{
    struct image_wait *waits = i->waits;
    struct image_wait *w;
    i->waits = NULL;
    i->state = IMAGE_MOUNTED;
    fetch_clear(i);
    DL_FOREACH(waits, w) {
        i->refs++;
    }
    tell(waits, status_ok(), "");
    maybe_unmount(i);
}

static void unmounted(struct image *i, const struct work *w)
{
    if (!status_is_ok(w->status)) {
        LOG_WARN("cannot unmount an image", LOG_STR("why", w->msg.text));
    }
    i->state = IMAGE_KEPT;
    if (i->waits != NULL) {
        if (i->checked) {
            mount_start(i);
        } else {
            fetch_start(i);
        }
    }
}

static void fetch_fail(struct image *i, struct status s, const char *message)
{
    if (status_is_ok(i->failed)) {
        i->failed = s;
        (void)snprintf(i->message, sizeof i->message, "%s", message);
    }
}

static void ask(struct image *i, const struct digest *digest, uint32_t index)
{
    struct image_store *st = i->store;
    uint64_t ticket = i->number << TICKET_INDEX_BITS | index;
    struct status s = st->env.ask(st->env.data, digest, ticket, i->tries);
    if (status_is_ok(s)) {
        i->asked++;
    } else {
        fetch_fail(i, s, "no scheduler to fetch it from");
    }
}

static void ask_more(struct image *i)
{
    while (i->scanned && status_is_ok(i->failed) && i->asked + i->works < IMAGE_STORE_WINDOW &&
           i->next < i->chunks_count) {
        uint32_t index = i->next++;
        if (i->missing[index]) {
            ask(i, &i->chunks[index], index);
        }
    }
}

/* Goes on with a fetch. Last touch. */
static void fetch_next(struct image *i)
{
    ask_more(i);
    if (!status_is_ok(i->failed)) {
        if (i->works == 0) {
            char message[ERRMSG_BYTES_MAX];
            memcpy(message, i->message, sizeof message);
            back_to_kept(i, i->failed, message);
        }
        return;
    }
    if (i->scanned && i->next == i->chunks_count && i->asked == 0 && i->works == 0 &&
        !i->finishing) {
        i->finishing = true;
        struct status s = work_start(i, WORK_FINISH, 0, (struct bytes){0});
        if (!status_is_ok(s)) {
            fetch_fail(i, s, "out of memory");
            fetch_next(i);
        }
    }
}

static void fetch_start(struct image *i)
{
    struct image_store *st = i->store;
    i->state = IMAGE_FETCHING;
    i->number = ++st->number_last;
    i->chunks_count = image_chunks_count(i->bytes);
    i->chunks = mem_zalloc(i->chunks_count, sizeof i->chunks[0]);
    i->missing = mem_zalloc(i->chunks_count, sizeof i->missing[0]);
    if (i->chunks == NULL || i->missing == NULL) {
        fetch_fail(i, status_of(STATUS_NOMEM), "out of memory");
    }
    i->lists_left = i->lists_count;
    for (uint32_t k = 0; k < i->lists_count && status_is_ok(i->failed); k++) {
        ask(i, &i->lists[k], TICKET_LISTS + k);
    }
    fetch_next(i);
}

/* The answer did not help: another scheduler is asked. */
static void ask_again(struct image *i, const struct digest *digest, uint32_t index,
                      struct status why, const char *message)
{
    if (++i->tries > IMAGE_STORE_TRIES_MAX) {
        fetch_fail(i, why, message);
        return;
    }
    ask(i, digest, index);
}

static void list_take(struct image *i, uint32_t k, struct bytes data)
{
    struct digest actual;
    uint32_t at = k * IMAGE_LIST_CHUNKS;
    uint32_t count = i->chunks_count - at;
    count = count < IMAGE_LIST_CHUNKS ? count : (uint32_t)IMAGE_LIST_CHUNKS;
    if (!status_is_ok(digest_of(&data, 1, &actual)) || digest_compare(&actual, &i->lists[k]) != 0) {
        ask_again(i, &i->lists[k], TICKET_LISTS + k, status_of(STATUS_CORRUPT),
                  "a list of its chunks has another digest");
        return;
    }
    if (data.size != (size_t)count * DIGEST_BYTES) {
        fetch_fail(i, status_of(STATUS_CORRUPT), "a list of its chunks does not fit its size");
        return;
    }
    memcpy(&i->chunks[at], data.data, data.size);
    if (--i->lists_left == 0) {
        struct status s = work_start(i, WORK_SCAN, 0, (struct bytes){0});
        if (!status_is_ok(s)) {
            fetch_fail(i, s, "out of memory");
        }
    }
}

void image_store_chunk(struct image_store *s, uint64_t ticket, struct status status,
                       struct bytes data, const char *message)
{
    uint64_t number = ticket >> TICKET_INDEX_BITS;
    uint32_t index = (uint32_t)(ticket & ((1 << TICKET_INDEX_BITS) - 1));
    struct image *i = s->images;
    while (i != NULL && (i->state != IMAGE_FETCHING || i->number != number)) {
        i = i->hh.next;
    }
    bool list = index >= TICKET_LISTS;
    if (i == NULL || i->asked == 0 ||
        (list ? index - TICKET_LISTS >= i->lists_count : index >= i->chunks_count)) {
        return;
    }
    i->asked--;
    if (!status_is_ok(i->failed)) {
        fetch_next(i);
        return;
    }
    const struct digest *digest = list ? &i->lists[index - TICKET_LISTS] : &i->chunks[index];
    if (!status_is_ok(status)) {
        ask_again(i, digest, index, status, message);
    } else if (list) {
        list_take(i, index - TICKET_LISTS, data);
    } else {
        struct status started = work_start(i, WORK_PUT, index, data);
        if (!status_is_ok(started)) {
            fetch_fail(i, started, "out of memory");
        }
    }
    fetch_next(i);
}

static void fetch_worked(struct image *i, const struct work *w)
{
    if (w->kind == WORK_PUT && w->status.code == STATUS_CORRUPT && status_is_ok(i->failed)) {
        ask_again(i, &i->chunks[w->index], w->index, w->status, w->msg.text);
    } else if (!status_is_ok(w->status)) {
        fetch_fail(i, w->status, w->msg.text);
    } else if (w->kind == WORK_SCAN) {
        i->scanned = true;
    } else if (w->kind == WORK_FINISH) {
        i->checked = true;
        mount_start(i);
        return;
    }
    fetch_next(i);
}

static void on_work_done(uv_work_t *work, int status)
{
    struct work *w = work->data;
    struct image_store *s = w->store;
    struct image *i = w->image;
    (void)status;
    s->works--;
    i->works--;
    if (s->closing) {
        if (s->works == 0) {
            free_all(s);
        }
    } else if (w->kind == WORK_MOUNT && status_is_ok(w->status)) {
        mounted(i);
    } else if (w->kind == WORK_MOUNT) {
        back_to_kept(i, w->status, w->msg.text);
    } else if (w->kind == WORK_UNMOUNT) {
        unmounted(i, w);
    } else {
        fetch_worked(i, w);
    }
    buffer_close(&w->data);
    mem_free(w);
}

/* ---- Room ---- */

/* Removes files that nothing uses, the longest unused first, until so much fits. */
static bool room_make(struct image_store *s, uint64_t need)
{
    uint64_t bytes = image_store_stats(s).bytes;
    struct image *i;
    struct image *next;
    HASH_ITER(hh, s->images, i, next) {
        if (bytes + need <= s->bytes_max) {
            break;
        }
        if (i->state == IMAGE_KEPT && i->works == 0) {
            bytes -= i->bytes;
            image_file_remove(s->folder, &i->id);
            image_free(i);
        }
    }
    return bytes + need <= s->bytes_max;
}

static struct status wanted_check(const struct image_wanted *w, struct errmsg *msg)
{
    if (w->bytes == 0 || w->bytes > IMAGE_BYTES_MAX ||
        w->lists.size != (size_t)image_lists_count(w->bytes) * DIGEST_BYTES) {
        return status_fail(msg, STATUS_INVALID, "image: the scheduler does not say what it is");
    }
    return status_ok();
}

static struct status image_add(struct image_store *s, const struct image_wanted *w,
                               struct image **out, struct errmsg *msg)
{
    if (!room_make(s, w->bytes)) {
        return status_fail(msg, STATUS_LIMIT,
                           "image: %llu bytes do not fit beside the images in use; the agent's "
                           "limits.images allows %llu",
                           (unsigned long long)w->bytes, (unsigned long long)s->bytes_max);
    }
    if (HASH_COUNT(s->images) >= IMAGE_STORE_IMAGES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "image: %d images are here", IMAGE_STORE_IMAGES_MAX);
    }
    *out = image_new(s, &w->digest, w->bytes);
    return *out != NULL ? status_ok() : status_fail(msg, STATUS_NOMEM, "image: out of memory");
}

struct status image_store_get(struct image_store *s, const struct image_wanted *w,
                              struct image_wait *wait, bool *here, struct errmsg *msg)
{
    TRY(wanted_check(w, msg));
    struct image *i = image_find(s, &w->digest);
    *here = false;
    if (i != NULL && i->state == IMAGE_MOUNTED) {
        i->refs++;
        *here = true;
        return status_ok();
    }
    if (i == NULL) {
        TRY(image_add(s, w, &i, msg));
    }
    HASH_DEL(s->images, i); /* Used last: behind all others. */
    HASH_ADD(hh, s->images, id, sizeof i->id, i);
    CHECK(i->hh.tbl != NULL);
    bool start = i->state == IMAGE_KEPT;
    if (start) {
        i->bytes = w->bytes;
        i->lists_count = image_lists_count(w->bytes);
        memcpy(i->lists, w->lists.data, w->lists.size);
        /* Whatever fails from here on is told from the loop: both begin on the pool or with an
         * ask. */
        struct status can =
            i->checked ? work_start(i, WORK_MOUNT, 0, (struct bytes){0}) : status_ok();
        if (!status_is_ok(can)) {
            return status_fail(msg, can.code, "image: out of memory");
        }
        i->state = i->checked ? IMAGE_MOUNTING : IMAGE_FETCHING;
        if (!i->checked) {
            fetch_start(i);
            if (i->state == IMAGE_KEPT) {
                return status_fail(msg, STATUS_UNAVAILABLE, "image: no scheduler to fetch it from");
            }
        }
    }
    DL_APPEND(i->waits, wait);
    return status_ok();
}

void image_store_forget(struct image_store *s, const struct digest *image, struct image_wait *wait)
{
    struct image *i = image_find(s, image);
    if (i != NULL) {
        DL_DELETE(i->waits, wait);
    }
}

struct status image_store_hold(struct image_store *s, const struct digest *image)
{
    struct image *i = image_find(s, image);
    if (i == NULL || i->state != IMAGE_MOUNTED) {
        return status_of(STATUS_NOT_FOUND);
    }
    i->refs++;
    return status_ok();
}

void image_store_put(struct image_store *s, const struct digest *image)
{
    struct image *i = image_find(s, image);
    if (i != NULL) {
        CHECK(i->refs > 0);
        i->refs--;
        maybe_unmount(i);
    }
}

void image_store_settle(struct image_store *s)
{
    for (struct image *i = s->images; i != NULL; i = i->hh.next) {
        maybe_unmount(i);
    }
}

struct image_store_stats image_store_stats(const struct image_store *s)
{
    struct image_store_stats t = {.files = HASH_COUNT(s->images)};
    for (const struct image *i = s->images; i != NULL; i = i->hh.next) {
        t.bytes += i->bytes;
        t.mounted += i->state == IMAGE_MOUNTED;
    }
    return t;
}

/* ---- Opening ---- */

/* A name of the folder: DIGEST.erofs or DIGEST.part becomes a file that is kept, mounted or not. */
static struct status name_take(struct image_store *s, const char *name, struct errmsg *msg)
{
    char hex[DIGEST_STRING_BYTES];
    char path[IMAGE_STORE_PATH_BYTES];
    struct digest id;
    struct stat st;
    (void)snprintf(hex, sizeof hex, "%s", name);
    const char *suffix = strlen(name) < sizeof hex ? "" : name + sizeof hex - 1;
    bool whole = strcmp(suffix, ".erofs") == 0;
    if ((!whole && strcmp(suffix, ".part") != 0) || !status_is_ok(digest_parse(hex, &id, NULL))) {
        return status_ok();
    }
    image_file_path(s->folder, &id, suffix + 1, path);
    if (lstat(path, &st) != 0 || image_find(s, &id) != NULL) {
        return status_ok();
    }
    struct image *i = image_new(s, &id, (uint64_t)st.st_size);
    if (i == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    i->state = whole && image_file_mounted(s->folder, &id) ? IMAGE_MOUNTED : IMAGE_KEPT;
    return status_ok();
}

static struct status folder_scan(struct image_store *s, struct errmsg *msg)
{
    if (mkdir(s->folder, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "make %s: %s", s->folder,
                           strerror(errno));
    }
    DIR *dir = opendir(s->folder);
    if (dir == NULL) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", s->folder,
                           strerror(errno));
    }
    struct status st = status_ok();
    for (const struct dirent *e = readdir(dir); e != NULL && status_is_ok(st); e = readdir(dir)) {
        st = name_take(s, e->d_name, msg);
    }
    (void)closedir(dir);
    return st;
}

struct status image_store_open(struct image_store **out, uv_loop_t *loop, const char *data,
                               uint64_t bytes_max, const struct image_env *env, struct errmsg *msg)
{
    if (strlen(data) + DIGEST_STRING_BYTES + 16 > IMAGE_STORE_PATH_BYTES) {
        return status_fail(msg, STATUS_LIMIT, "data: path is too long");
    }
    struct image_store *s = mem_zalloc(1, sizeof *s);
    if (s == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    *s = (struct image_store){.loop = loop, .env = *env, .bytes_max = bytes_max};
    (void)snprintf(s->folder, sizeof s->folder, "%s/images", data);
    struct status st = folder_scan(s, msg);
    if (!status_is_ok(st)) {
        free_all(s);
        return st;
    }
    *out = s;
    return status_ok();
}

void image_store_close(struct image_store *s)
{
    if (s == NULL) {
        return;
    }
    s->closing = true;
    if (s->works == 0) {
        free_all(s);
    }
}
