#include "common/chunks.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- Digests ---- */

struct status digest_of(const struct bytes *parts, size_t count, struct digest *out)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool good = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    for (size_t i = 0; good && i < count; i++) {
        good = EVP_DigestUpdate(ctx, parts[i].data, parts[i].size) == 1;
    }
    struct digest d;
    good = good && EVP_DigestFinal_ex(ctx, d.v, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    if (!good) {
        return status_of(STATUS_NOMEM);
    }
    *out = d;
    return status_ok();
}

struct status revision_digest(struct bytes manifest, const struct digest *chunks, size_t count,
                              struct digest *out)
{
    /* The manifest's length keeps its end apart from the chunks. */
    char head[64];
    int size = snprintf(head, sizeof head, "skep-revision 1 %zu\n", manifest.size);
    CHECK(size > 0 && (size_t)size < sizeof head);
    const struct bytes parts[] = {
        bytes_of(head, (size_t)size),
        manifest,
        bytes_of(chunks, count * sizeof *chunks),
    };
    return digest_of(parts, sizeof parts / sizeof parts[0], out);
}

/* ---- Lists ---- */

void chunk_list_close(struct chunk_list *l)
{
    mem_free(l->digests);
    *l = (struct chunk_list){0};
}

static size_t chunks_in(uint64_t bytes)
{
    return (size_t)((bytes + CHUNK_BYTES - 1) / CHUNK_BYTES);
}

/* Room for the digests of so many bytes. */
static struct status list_init(struct chunk_list *l, uint64_t bytes, struct errmsg *msg)
{
    if (bytes > PACKAGE_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "the package has more than %d MiB",
                           PACKAGE_BYTES_MAX >> 20);
    }
    *l = (struct chunk_list){.count = chunks_in(bytes), .bytes = bytes};
    l->digests = mem_zalloc(l->count, sizeof l->digests[0]);
    return l->digests != NULL ? status_ok() : status_fail(msg, STATUS_NOMEM, "out of memory");
}

struct status chunk_list_of_bytes(struct bytes from, struct chunk_list *out, struct errmsg *msg)
{
    struct chunk_list l;
    TRY(list_init(&l, from.size, msg));
    for (size_t i = 0; i < l.count; i++) {
        size_t at = i * CHUNK_BYTES;
        struct bytes chunk =
            bytes_of(from.data + at, from.size - at < CHUNK_BYTES ? from.size - at : CHUNK_BYTES);
        if (!status_is_ok(digest_of(&chunk, 1, &l.digests[i]))) {
            chunk_list_close(&l);
            return status_fail(msg, STATUS_NOMEM, "out of memory");
        }
    }
    *out = l;
    return status_ok();
}

struct status chunk_of_package(const struct package *p, size_t index, struct buffer *out,
                               struct errmsg *msg)
{
    CHECK(index < chunks_in(p->size));
    uint64_t at = (uint64_t)index * CHUNK_BYTES;
    size_t size = p->size - at < CHUNK_BYTES ? (size_t)(p->size - at) : CHUNK_BYTES;
    out->size = 0;
    struct status s = buffer_reserve(out, size);
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "out of memory");
    }
    while (out->size < size) {
        ssize_t got =
            pread(p->fd, out->data + out->size, size - out->size, (off_t)(at + out->size));
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return status_fail(msg, STATUS_IO, "read the package: %s",
                               got == 0 ? "cut" : strerror(errno));
        }
        out->size += got > 0 ? (size_t)got : 0;
    }
    return status_ok();
}

struct status chunk_list_of_package(const struct package *p, struct chunk_list *out,
                                    struct errmsg *msg)
{
    struct chunk_list l;
    TRY(list_init(&l, p->size, msg));
    struct buffer chunk = {0};
    struct status s = status_ok();
    for (size_t i = 0; i < l.count && status_is_ok(s); i++) {
        s = chunk_of_package(p, i, &chunk, msg);
        if (status_is_ok(s)) {
            struct bytes part = bytes_of(chunk.data, chunk.size);
            s = digest_of(&part, 1, &l.digests[i]);
            s = status_is_ok(s) ? s : status_fail(msg, s.code, "out of memory");
        }
    }
    buffer_close(&chunk);
    if (!status_is_ok(s)) {
        chunk_list_close(&l);
        return s;
    }
    *out = l;
    return status_ok();
}

/* ---- The store: FOLDER/ab/cdef..., and FOLDER/new.N while a chunk is written ---- */

enum { FAN_BYTES = 2, CHUNK_NAME_BYTES = FAN_BYTES + 1 + DIGEST_STRING_BYTES - FAN_BYTES };

static const char temporary_prefix[] = "new.";

struct chunk_store {
    int folder;
    char *path; /* for messages */
    uint64_t bytes_max;
    uint64_t bytes;
    uint64_t puts; /* names temporary files */
};

static void chunk_name(const struct digest *digest, char out[CHUNK_NAME_BYTES])
{
    char hex[DIGEST_STRING_BYTES];
    digest_format(digest, hex);
    (void)snprintf(out, CHUNK_NAME_BYTES, "%.2s/%s", hex, hex + FAN_BYTES);
}

static struct status store_fail(const struct chunk_store *s, const char *what, int error,
                                struct errmsg *msg)
{
    return status_fail(msg, status_from_errno(error), "%s: %s: %s", s->path, what, strerror(error));
}

/* Calls fn for every chunk; stops at its first failure. Foreign names are left alone. */
static struct status store_each(struct chunk_store *s,
                                struct status (*fn)(struct chunk_store *s,
                                                    const struct digest *digest, void *arg,
                                                    struct errmsg *msg),
                                void *arg, struct errmsg *msg)
{
    for (unsigned fan = 0; fan < 256; fan++) {
        char name[FAN_BYTES + 1];
        (void)snprintf(name, sizeof name, "%02x", fan);
        int fd = openat(s->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 && errno == ENOENT) {
            continue;
        }
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        if (dir == NULL) {
            int error = errno;
            if (fd >= 0) {
                (void)close(fd);
            }
            return store_fail(s, name, error, msg);
        }
        struct status st = status_ok();
        for (struct dirent *d = readdir(dir); d != NULL && status_is_ok(st); d = readdir(dir)) {
            char hex[FAN_BYTES + sizeof d->d_name];
            struct digest digest;
            (void)snprintf(hex, sizeof hex, "%s%s", name, d->d_name);
            if (status_is_ok(digest_parse(hex, &digest, NULL))) {
                st = fn(s, &digest, arg, msg);
            }
        }
        (void)closedir(dir);
        TRY(st);
    }
    return status_ok();
}

static struct status count_one(struct chunk_store *s, const struct digest *digest, void *arg,
                               struct errmsg *msg)
{
    char name[CHUNK_NAME_BYTES];
    struct stat st;
    (void)arg;
    (void)msg;
    chunk_name(digest, name);
    if (fstatat(s->folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        s->bytes += (uint64_t)st.st_size;
    }
    return status_ok();
}

/* Removes what interrupted puts left. */
static struct status store_clean(struct chunk_store *s, struct errmsg *msg)
{
    int fd = fcntl(s->folder, F_DUPFD_CLOEXEC, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL) {
        int error = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return store_fail(s, "open", error, msg);
    }
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        if (strncmp(d->d_name, temporary_prefix, sizeof temporary_prefix - 1) == 0) {
            (void)unlinkat(s->folder, d->d_name, 0);
        }
    }
    (void)closedir(dir);
    return status_ok();
}

struct status chunk_store_open(struct chunk_store **out, const char *folder, uint64_t bytes_max,
                               struct errmsg *msg)
{
    struct chunk_store *s = mem_zalloc(1, sizeof *s);
    char *path = mem_strdup(folder);
    if (s == NULL || path == NULL) {
        mem_free(s);
        mem_free(path);
        return status_fail(msg, STATUS_NOMEM, "%s: out of memory", folder);
    }
    *s = (struct chunk_store){.folder = -1, .path = path, .bytes_max = bytes_max};
    struct status st = status_ok();
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        st = store_fail(s, "make the folder", errno, msg);
    } else {
        s->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        st = s->folder >= 0 ? store_clean(s, msg) : store_fail(s, "open", errno, msg);
    }
    if (status_is_ok(st)) {
        st = store_each(s, count_one, NULL, msg);
    }
    if (!status_is_ok(st)) {
        chunk_store_close(s);
        return st;
    }
    *out = s;
    return status_ok();
}

void chunk_store_close(struct chunk_store *s)
{
    if (s != NULL) {
        if (s->folder >= 0) {
            (void)close(s->folder);
        }
        mem_free(s->path);
        mem_free(s);
    }
}

uint64_t chunk_store_bytes(const struct chunk_store *s)
{
    return s->bytes;
}

bool chunk_store_has(const struct chunk_store *s, const struct digest *digest)
{
    char name[CHUNK_NAME_BYTES];
    chunk_name(digest, name);
    return faccessat(s->folder, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

bool chunk_store_renew(const struct chunk_store *s, const struct digest *digest)
{
    char name[CHUNK_NAME_BYTES];
    chunk_name(digest, name);
    return utimensat(s->folder, name, NULL, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Writes and syncs a new file of that name in the store's folder. */
static struct status file_write(const struct chunk_store *s, const char *name, struct bytes data,
                                struct errmsg *msg)
{
    AUTO_CLOSE int fd =
        openat(s->folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return store_fail(s, name, errno, msg);
    }
    for (size_t done = 0; done < data.size;) {
        ssize_t wrote = write(fd, data.data + done, data.size - done);
        if (wrote < 0 && errno != EINTR) {
            return store_fail(s, name, errno, msg);
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return fsync(fd) == 0 ? status_ok() : store_fail(s, name, errno, msg);
}

static int folder_sync(int at, const char *name)
{
    AUTO_CLOSE int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fsync(fd) : -1;
}

/* Gives the temporary file its name, for good. */
static struct status file_publish(const struct chunk_store *s, const char *temporary,
                                  const char *name, struct errmsg *msg)
{
    char fan[FAN_BYTES + 1] = {name[0], name[1], '\0'};
    bool made = mkdirat(s->folder, fan, 0700) == 0;
    if ((!made && errno != EEXIST) || renameat(s->folder, temporary, s->folder, name) != 0 ||
        folder_sync(s->folder, fan) != 0 || (made && fsync(s->folder) != 0)) {
        return store_fail(s, name, errno, msg);
    }
    return status_ok();
}

struct status chunk_store_put(struct chunk_store *s, const struct digest *digest, struct bytes data,
                              struct errmsg *msg)
{
    char name[CHUNK_NAME_BYTES];
    char temporary[32];
    struct digest actual;
    chunk_name(digest, name);
    if (data.size == 0 || data.size > CHUNK_BYTES) {
        return status_fail(msg, data.size == 0 ? STATUS_INVALID : STATUS_LIMIT,
                           "chunk %s has %zu bytes; 1 to %d are allowed", name, data.size,
                           CHUNK_BYTES);
    }
    struct status st = digest_of(&data, 1, &actual);
    if (!status_is_ok(st)) {
        return status_fail(msg, st.code, "chunk %s: out of memory", name);
    }
    if (digest_compare(&actual, digest) != 0) {
        return status_fail(msg, STATUS_CORRUPT, "chunk %s: the bytes have another digest", name);
    }
    if (chunk_store_renew(s, digest)) {
        return status_ok();
    }
    if (s->bytes > s->bytes_max || data.size > s->bytes_max - s->bytes) {
        return status_fail(msg, STATUS_LIMIT, "%s: the chunk store is full; it may hold %llu bytes",
                           s->path, (unsigned long long)s->bytes_max);
    }
    (void)snprintf(temporary, sizeof temporary, "%s%llu", temporary_prefix,
                   (unsigned long long)s->puts++);
    st = file_write(s, temporary, data, msg);
    if (status_is_ok(st)) {
        st = file_publish(s, temporary, name, msg);
    }
    if (!status_is_ok(st)) {
        (void)unlinkat(s->folder, temporary, 0);
        (void)unlinkat(s->folder, name, 0);
        return st;
    }
    s->bytes += data.size;
    return status_ok();
}

/* Removes a chunk and its bytes from the sum. */
static struct status chunk_remove(struct chunk_store *s, const struct digest *digest,
                                  uint64_t *size, struct errmsg *msg)
{
    char name[CHUNK_NAME_BYTES];
    struct stat st;
    chunk_name(digest, name);
    if (fstatat(s->folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0 ||
        unlinkat(s->folder, name, 0) != 0) {
        return store_fail(s, name, errno, msg);
    }
    uint64_t bytes = (uint64_t)st.st_size;
    s->bytes -= bytes < s->bytes ? bytes : s->bytes;
    *size = bytes;
    return status_ok();
}

/* Reads up to one byte more than a chunk may have. */
static struct status file_read(const struct chunk_store *s, const char *name, struct buffer *out,
                               struct errmsg *msg)
{
    AUTO_CLOSE int fd = openat(s->folder, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? status_fail(msg, STATUS_NOT_FOUND, "there is no chunk %s", name)
                               : store_fail(s, name, errno, msg);
    }
    out->size = 0;
    struct status st = buffer_reserve(out, CHUNK_BYTES + 1);
    if (!status_is_ok(st)) {
        return status_fail(msg, st.code, "chunk %s: out of memory", name);
    }
    for (;;) {
        ssize_t got = read(fd, out->data + out->size, CHUNK_BYTES + 1 - out->size);
        if (got < 0 && errno != EINTR) {
            return store_fail(s, name, errno, msg);
        }
        if (got == 0) {
            return status_ok();
        }
        out->size += got > 0 ? (size_t)got : 0;
    }
}

struct status chunk_store_read(const struct chunk_store *s, const struct digest *digest,
                               struct buffer *out, struct errmsg *msg)
{
    char name[CHUNK_NAME_BYTES];
    chunk_name(digest, name);
    struct status st = file_read(s, name, out, msg);
    struct bytes part = bytes_of(out->data, out->size);
    struct digest actual;
    if (status_is_ok(st)) {
        st = digest_of(&part, 1, &actual);
        st = status_is_ok(st) ? st : status_fail(msg, st.code, "chunk %s: out of memory", name);
    }
    if (status_is_ok(st) && digest_compare(&actual, digest) != 0) {
        st = status_fail(msg, STATUS_CORRUPT, "%s: chunk %s is damaged on disk", s->path, name);
    }
    if (!status_is_ok(st)) {
        out->size = 0;
    }
    return st;
}

struct status chunk_store_get(struct chunk_store *s, const struct digest *digest,
                              struct buffer *out, struct errmsg *msg)
{
    struct errmsg why = {.text = ""};
    struct status st = chunk_store_read(s, digest, out, &why);
    if (st.code == STATUS_CORRUPT) {
        uint64_t size;
        struct status ignored = chunk_remove(s, digest, &size, NULL);
        (void)ignored;
        return status_fail(msg, STATUS_CORRUPT, "%s; it was removed", why.text);
    }
    return status_is_ok(st) ? st : status_fail(msg, st.code, "%s", why.text);
}

struct collection {
    bool (*keep)(void *data, const struct digest *digest);
    void *data;
    uint64_t before_ms;
    uint64_t removed;
};

static struct status collect_one(struct chunk_store *s, const struct digest *digest, void *arg,
                                 struct errmsg *msg)
{
    struct collection *c = arg;
    char name[CHUNK_NAME_BYTES];
    struct stat file;
    chunk_name(digest, name);
    if (fstatat(s->folder, name, &file, AT_SYMLINK_NOFOLLOW) != 0 || file.st_mtim.tv_sec < 0 ||
        (uint64_t)file.st_mtim.tv_sec >= c->before_ms / 1000 || c->keep(c->data, digest)) {
        return status_ok();
    }
    uint64_t size = 0;
    struct status st = chunk_remove(s, digest, &size, msg);
    c->removed += size;
    return st;
}

struct status chunk_store_collect(struct chunk_store *s,
                                  bool (*keep)(void *data, const struct digest *digest), void *data,
                                  uint64_t *removed_bytes, struct errmsg *msg)
{
    return chunk_store_collect_old(s, UINT64_MAX, keep, data, removed_bytes, msg);
}

struct status chunk_store_collect_old(struct chunk_store *s, uint64_t before_ms,
                                      bool (*keep)(void *data, const struct digest *digest),
                                      void *data, uint64_t *removed_bytes, struct errmsg *msg)
{
    struct collection c = {.keep = keep, .data = data, .before_ms = before_ms};
    struct status st = store_each(s, collect_one, &c, msg);
    if (removed_bytes != NULL) {
        *removed_bytes = c.removed;
    }
    return st;
}

struct status chunk_reader_read(void *reader, struct bytes *piece, struct errmsg *msg)
{
    struct chunk_reader *r = reader;
    if (r->next == r->count) {
        *piece = bytes_of(NULL, 0);
        return status_ok();
    }
    TRY(chunk_store_get(r->store, &r->digests[r->next], &r->buffer, msg));
    r->next++;
    *piece = bytes_of(r->buffer.data, r->buffer.size);
    return status_ok();
}
