#include "common/image/image.h"

#include "common/check.h"
#include "common/chunks.h"
#include "common/cleanup.h"
#include "common/image/beneath.h"
#include "common/image/unpack.h"
#include "common/mem.h"
#include "common/units.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <openssl/evp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char erofs_uuid[] = "5ce9a7e1-0f5e-4b1d-9c61-736b65700001";
enum { READ_BYTES = 64 << 10, INDEX_DEPTH_MAX = 3, PATH_BYTES = 4096 };

struct build {
    struct image_built out;
    const char *source;
    char folder[PATH_BYTES]; /* temporary */
    char root[PATH_BYTES + 8], layout[PATH_BYTES + 8], file[PATH_BYTES + 8];
    int layout_fd; /* the layout's folder */
    struct image_unpack unpack;
};

/* ---- Digests ---- */

static struct status digest_of_fd(int fd, struct digest *out, uint64_t *bytes, struct errmsg *msg)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t *data = mem_alloc(READ_BYTES);
    struct status s = ctx == NULL || data == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1
                          ? status_fail(msg, STATUS_NOMEM, "out of memory")
                          : status_ok();
    *bytes = 0;
    for (bool end = false; status_is_ok(s) && !end;) {
        ssize_t got = pread(fd, data, READ_BYTES, (off_t)*bytes);
        end = got == 0;
        if (got < 0) {
            s = status_fail(msg, status_from_errno(errno), "%s", strerror(errno));
        } else if (got > 0) {
            (void)EVP_DigestUpdate(ctx, data, (size_t)got);
            *bytes += (uint64_t)got;
        }
    }
    if (status_is_ok(s)) {
        (void)EVP_DigestFinal_ex(ctx, out->v, NULL);
    }
    EVP_MD_CTX_free(ctx);
    mem_free(data);
    return s;
}

/* ---- Files of the layout ---- */

static struct status layout_open(struct build *b, const char *path, int *out, struct errmsg *msg)
{
    char clean[IMAGE_PATH_BYTES_MAX + 1];
    const char *name;
    char quoted[QUOTE_STRING_BYTES];
    text_quote(path, strlen(path), quoted);
    if (!beneath_path_clean(path, clean, IMAGE_DEPTH_MAX) || clean[0] == '\0') {
        return status_fail(msg, STATUS_INVALID, "\"%s\" is not a path inside the image", quoted);
    }
    AUTO_CLOSE int parent = beneath_parent(b->layout_fd, clean, false, &name);
    int fd = parent < 0 ? -1 : openat(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", quoted, strerror(errno));
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)close(fd);
        return status_fail(msg, STATUS_INVALID, "%s: is no file", quoted);
    }
    *out = fd;
    return status_ok();
}

/* A small file, whole. */
static struct status layout_read(struct build *b, const char *path, struct buffer *out,
                                 struct errmsg *msg)
{
    int opened = -1;
    TRY(layout_open(b, path, &opened, msg));
    AUTO_CLOSE int fd = opened;
    out->size = 0;
    TRY(buffer_reserve(out, OCI_JSON_BYTES_MAX + 1));
    for (;;) {
        size_t room = OCI_JSON_BYTES_MAX + 1 - out->size;
        ssize_t got = room == 0 ? 0 : read(fd, out->data + out->size, room);
        if (got < 0) {
            return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
        }
        if (got == 0) {
            return status_ok(); /* One over the limit is refused by who decodes it. */
        }
        out->size += (size_t)got;
    }
}

enum { BLOB_PATH_BYTES = sizeof "blobs/sha256/" + DIGEST_STRING_BYTES };

static void blob_path(const struct digest *d, char out[BLOB_PATH_BYTES])
{
    char hex[DIGEST_STRING_BYTES];
    digest_format(d, hex);
    (void)snprintf(out, BLOB_PATH_BYTES, "blobs/sha256/%s", hex);
}

static struct status blob_check(const char *path, int fd, const struct digest *wanted,
                                struct errmsg *msg)
{
    struct digest actual;
    uint64_t bytes;
    TRY(status_prefix(msg, digest_of_fd(fd, &actual, &bytes, msg), "%s", path));
    return digest_compare(&actual, wanted) == 0
               ? status_ok()
               : status_fail(msg, STATUS_CORRUPT, "%s: its bytes have another digest", path);
}

/* Opens a blob and checks what it holds. */
static struct status blob_open(struct build *b, const struct oci_blob *blob, int *out,
                               struct errmsg *msg)
{
    char path[BLOB_PATH_BYTES];
    struct stat st;
    int fd = -1;
    blob_path(&blob->digest, path);
    TRY(layout_open(b, path, &fd, msg));
    struct status s = status_ok();
    if (fstat(fd, &st) != 0 || (uint64_t)st.st_size != blob->bytes) {
        s = status_fail(msg, STATUS_CORRUPT, "%s: has another size than its descriptor says", path);
    } else {
        s = blob_check(path, fd, &blob->digest, msg);
    }
    if (!status_is_ok(s)) {
        (void)close(fd);
        return s;
    }
    *out = fd;
    return status_ok();
}

static struct status blob_read(struct build *b, const struct oci_blob *blob, struct buffer *out,
                               struct errmsg *msg)
{
    char path[BLOB_PATH_BYTES];
    int fd = -1;
    TRY(blob_open(b, blob, &fd, msg));
    (void)close(fd);
    blob_path(&blob->digest, path);
    TRY(layout_read(b, path, out, msg));
    struct digest actual;
    const struct bytes part = bytes_of(out->data, out->size);
    TRY(digest_of(&part, 1, &actual));
    return digest_compare(&actual, &blob->digest) == 0
               ? status_ok()
               : status_fail(msg, STATUS_CORRUPT, "%s: changed while it was read", path);
}

/* ---- Layers ---- */

/* The digest of the layer's archive, uncompressed, which the configuration names. */
static struct status diff_id_read(struct archive *a, int fd, struct digest *out, struct errmsg *msg)
{
    struct archive_entry *e;
    if (lseek(fd, 0, SEEK_SET) != 0 || archive_read_support_filter_gzip(a) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(a) != ARCHIVE_OK ||
        archive_read_support_format_raw(a) != ARCHIVE_OK ||
        archive_read_support_format_empty(a) != ARCHIVE_OK ||
        archive_read_open_fd(a, fd, READ_BYTES) != ARCHIVE_OK) {
        return status_fail(msg, STATUS_CORRUPT, "cannot be read");
    }
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t *data = mem_alloc(READ_BYTES);
    struct status s = ctx == NULL || data == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1
                          ? status_fail(msg, STATUS_NOMEM, "out of memory")
                          : status_ok();
    int header = archive_read_next_header(a, &e);
    uint64_t bytes = 0;
    for (bool end = header == ARCHIVE_EOF; status_is_ok(s) && !end;) {
        ssize_t got = header == ARCHIVE_OK ? archive_read_data(a, data, READ_BYTES) : -1;
        end = got == 0;
        if (got < 0) {
            s = status_fail(msg, STATUS_CORRUPT, "cannot be read");
        } else if ((bytes += (uint64_t)got) > 2 * IMAGE_UNPACKED_BYTES_MAX) {
            s = status_fail(msg, STATUS_LIMIT, "unpacks to too much");
        } else if (got > 0) {
            (void)EVP_DigestUpdate(ctx, data, (size_t)got);
        }
    }
    if (status_is_ok(s)) {
        (void)EVP_DigestFinal_ex(ctx, out->v, NULL);
    }
    EVP_MD_CTX_free(ctx);
    mem_free(data);
    return s;
}

static struct status diff_id_check(const char *path, int fd, const struct digest *wanted,
                                   struct errmsg *msg)
{
    struct digest actual;
    struct archive *a = archive_read_new();
    struct status s = a == NULL ? status_fail(msg, STATUS_NOMEM, "out of memory")
                                : diff_id_read(a, fd, &actual, msg);
    if (a != NULL) {
        (void)archive_read_free(a);
    }
    TRY(status_prefix(msg, s, "%s", path));
    return digest_compare(&actual, wanted) == 0
               ? status_ok()
               : status_fail(msg, STATUS_CORRUPT,
                             "%s: its content has another digest than the configuration says",
                             path);
}

static struct status layers_count_check(const struct build *b, size_t layers, struct errmsg *msg)
{
    return b->out.config.diff_ids_count == layers
               ? status_ok()
               : status_fail(msg, STATUS_INVALID,
                             "the manifest has %zu layers and the configuration %zu", layers,
                             b->out.config.diff_ids_count);
}

static struct status oci_take(struct build *b, struct buffer *json, struct errmsg *msg)
{
    struct oci_target target;
    TRY(layout_read(b, "index.json", json, msg));
    TRY(oci_index_decode(bytes_of(json->data, json->size), &target, msg));
    for (unsigned depth = 0; target.is_index; depth++) {
        if (depth == INDEX_DEPTH_MAX) {
            return status_fail(msg, STATUS_LIMIT, "indexes lie more than %d deep", INDEX_DEPTH_MAX);
        }
        TRY(blob_read(b, &target.blob, json, msg));
        TRY(oci_index_decode(bytes_of(json->data, json->size), &target, msg));
    }
    struct oci_manifest m;
    TRY(blob_read(b, &target.blob, json, msg));
    TRY(oci_manifest_decode(bytes_of(json->data, json->size), &b->out.arena, &m, msg));
    TRY(blob_read(b, &m.config, json, msg));
    TRY(oci_config_decode(bytes_of(json->data, json->size), &b->out.arena, &b->out.config, msg));
    TRY(layers_count_check(b, m.layers_count, msg));
    for (size_t i = 0; i < m.layers_count; i++) {
        char path[BLOB_PATH_BYTES];
        int fd = -1;
        blob_path(&m.layers[i].digest, path);
        TRY(blob_open(b, &m.layers[i], &fd, msg));
        struct status s =
            status_prefix(msg, image_unpack_layer(&b->unpack, fd, msg), "layer %zu (%s)", i, path);
        (void)close(fd);
        TRY(s);
    }
    return status_ok();
}

/* The configuration's file is named by its digest: HEX.json, or blobs/sha256/HEX. */
static struct status docker_config_check(const char *path, const struct buffer *json,
                                         struct errmsg *msg)
{
    const char *name = strrchr(path, '/');
    char hex[DIGEST_STRING_BYTES];
    struct digest wanted, actual;
    (void)snprintf(hex, sizeof hex, "%s", name == NULL ? path : name + 1);
    TRY(status_prefix(msg, digest_parse(hex, &wanted, msg), "manifest.json: Config"));
    const struct bytes part = bytes_of(json->data, json->size);
    TRY(digest_of(&part, 1, &actual));
    return digest_compare(&actual, &wanted) == 0
               ? status_ok()
               : status_fail(msg, STATUS_CORRUPT, "%s: its bytes have another digest", hex);
}

static struct status docker_take(struct build *b, struct buffer *json, struct errmsg *msg)
{
    struct docker_manifest m;
    TRY(layout_read(b, "manifest.json", json, msg));
    TRY(docker_manifest_decode(bytes_of(json->data, json->size), &b->out.arena, &m, msg));
    TRY(layout_read(b, m.config, json, msg));
    TRY(docker_config_check(m.config, json, msg));
    TRY(oci_config_decode(bytes_of(json->data, json->size), &b->out.arena, &b->out.config, msg));
    TRY(layers_count_check(b, m.layers_count, msg));
    for (size_t i = 0; i < m.layers_count; i++) {
        int fd = -1;
        TRY(layout_open(b, m.layers[i], &fd, msg));
        struct status s = diff_id_check(m.layers[i], fd, &b->out.config.diff_ids[i], msg);
        if (status_is_ok(s)) {
            s = status_prefix(msg, image_unpack_layer(&b->unpack, fd, msg), "layer %zu (%.100s)", i,
                              m.layers[i]);
        }
        (void)close(fd);
        TRY(s);
    }
    return status_ok();
}

/* ---- The source ---- */

static bool layout_has(const struct build *b, const char *name)
{
    return faccessat(b->layout_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static struct status layout_take(struct build *b, struct errmsg *msg)
{
    struct buffer json = {0};
    struct status s;
    if (layout_has(b, "oci-layout") && layout_has(b, "index.json")) {
        s = oci_take(b, &json, msg);
    } else if (layout_has(b, "manifest.json")) {
        s = docker_take(b, &json, msg);
    } else {
        s = status_fail(msg, STATUS_INVALID,
                        "holds neither oci-layout and index.json (an OCI image) nor manifest.json "
                        "(docker save)");
    }
    buffer_close(&json);
    return s.code == STATUS_NOMEM ? status_fail(msg, STATUS_NOMEM, "out of memory") : s;
}

/* An archive becomes a layout in the temporary folder. */
static struct status archive_take(struct build *b, int fd, struct errmsg *msg)
{
    struct image_unpack outer;
    if (mkdir(b->layout, 0700) != 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", b->layout, strerror(errno));
    }
    b->layout_fd = open(b->layout, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (b->layout_fd < 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", b->layout, strerror(errno));
    }
    image_unpack_init(&outer, b->layout_fd);
    struct status s = image_unpack_outer(&outer, fd, msg);
    image_unpack_close(&outer);
    return status_is_ok(s) ? layout_take(b, msg) : s;
}

static struct status source_take(struct build *b, struct errmsg *msg)
{
    struct stat st;
    AUTO_CLOSE int fd = open(b->source, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        return status_fail(msg, status_from_errno(errno), "%s", strerror(errno));
    }
    if (S_ISREG(st.st_mode)) {
        return archive_take(b, fd, msg);
    }
    if (!S_ISDIR(st.st_mode)) {
        return status_fail(msg, STATUS_INVALID, "is neither a file nor a folder");
    }
    b->layout_fd = fd_steal(&fd);
    if (layout_has(b, "oci-layout")) {
        return layout_take(b, msg);
    }
    return image_unpack_folder(&b->unpack, b->source, msg);
}

/* ---- The file ---- */

static struct status process_run(const char *const *args, struct errmsg *msg)
{
    static const char *const env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", NULL};
    posix_spawn_file_actions_t files;
    pid_t pid;
    int status;
    if (posix_spawn_file_actions_init(&files) != 0) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    (void)posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    int rc = posix_spawnp(&pid, args[0], &files, NULL, (char *const *)args, (char *const *)env);
    (void)posix_spawn_file_actions_destroy(&files);
    if (rc != 0) {
        return status_fail(msg, rc == ENOENT ? STATUS_UNSUPPORTED : status_from_errno(rc),
                           "%s: %s; Debian has it in erofs-utils", args[0], strerror(rc));
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return status_fail(msg, STATUS_IO, "%s: %s", args[0], strerror(errno));
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0
               ? status_ok()
               : status_fail(msg, STATUS_FAILED, "%s failed; what it said is above", args[0]);
}

static struct status chunks_digest(struct image_built *b, struct errmsg *msg)
{
    b->chunks_count = image_chunks_count(b->bytes);
    b->chunks = mem_zalloc(b->chunks_count, sizeof b->chunks[0]);
    struct buffer chunk = {0};
    struct status s = status_of(b->chunks == NULL ? STATUS_NOMEM : STATUS_OK);
    for (uint32_t i = 0; i < b->chunks_count && status_is_ok(s); i++) {
        s = image_built_chunk(b, i, &chunk, msg);
        const struct bytes part = bytes_of(chunk.data, chunk.size);
        s = status_is_ok(s) ? digest_of(&part, 1, &b->chunks[i]) : s;
    }
    buffer_close(&chunk);
    return s.code == STATUS_NOMEM ? status_fail(msg, STATUS_NOMEM, "out of memory") : s;
}

static struct status pack(struct build *b, struct errmsg *msg)
{
    const char *const args[] = {"mkfs.erofs", "--quiet",    "-x-1",  "-T0",   "-U",
                                erofs_uuid,   "--all-root", b->file, b->root, NULL};
    TRY(process_run(args, msg));
    b->out.fd = open(b->file, O_RDONLY | O_CLOEXEC);
    if (b->out.fd < 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", b->file, strerror(errno));
    }
    TRY(digest_of_fd(b->out.fd, &b->out.digest, &b->out.bytes, msg));
    if (b->out.bytes > IMAGE_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "the image has %llu bytes, at most %llu are allowed",
                           (unsigned long long)b->out.bytes, (unsigned long long)IMAGE_BYTES_MAX);
    }
    return chunks_digest(&b->out, msg);
}

static struct status build_run(struct build *b, struct errmsg *msg)
{
    if (mkdir(b->root, 0700) != 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", b->root, strerror(errno));
    }
    AUTO_CLOSE int root = open(b->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root < 0 || fchmod(root, 0755) != 0) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", b->root, strerror(errno));
    }
    image_unpack_init(&b->unpack, root);
    struct status s = status_prefix(msg, source_take(b, msg), "%s", b->source);
    image_unpack_close(&b->unpack);
    b->out.entries = b->unpack.entries;
    b->out.skipped = b->unpack.skipped;
    return status_is_ok(s) ? pack(b, msg) : s;
}

static struct status folder_make(struct build *b, struct errmsg *msg)
{
    const char *tmp = getenv("TMPDIR");
    int used = snprintf(b->folder, sizeof b->folder - 8, "%s/skep-image.XXXXXX",
                        tmp == NULL || tmp[0] == '\0' ? "/tmp" : tmp);
    if (used < 0 || (size_t)used >= sizeof b->folder - 8) {
        return status_fail(msg, STATUS_LIMIT, "TMPDIR is too long");
    }
    if (mkdtemp(b->folder) == NULL) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", b->folder, strerror(errno));
    }
    (void)snprintf(b->root, sizeof b->root, "%s/root", b->folder);
    (void)snprintf(b->layout, sizeof b->layout, "%s/layout", b->folder);
    (void)snprintf(b->file, sizeof b->file, "%s/erofs", b->folder);
    return status_ok();
}

struct status image_build(const char *source, struct image_built *out, struct errmsg *msg)
{
    struct build *b = mem_zalloc(1, sizeof *b);
    if (b == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    *b = (struct build){.source = source, .layout_fd = -1};
    b->out.fd = -1;
    b->out.config.workdir = "";
    /* libarchive reads names by the thread's locale; they are bytes to us, mostly UTF-8. */
    locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    locale_t before = utf8 != (locale_t)0 ? uselocale(utf8) : (locale_t)0;
    struct status s = folder_make(b, msg);
    if (status_is_ok(s)) {
        s = build_run(b, msg);
        if (beneath_remove(AT_FDCWD, b->folder) != 0 && status_is_ok(s)) {
            s = status_fail(msg, STATUS_IO, "remove %s: %s", b->folder, strerror(errno));
        }
    }
    if (utf8 != (locale_t)0) {
        (void)uselocale(before);
        freelocale(utf8);
    }
    if (b->layout_fd >= 0) {
        (void)close(b->layout_fd);
    }
    if (status_is_ok(s)) {
        *out = b->out;
    } else {
        image_built_close(&b->out);
    }
    mem_free(b);
    return s;
}

void image_built_close(struct image_built *b)
{
    if (b->fd >= 0) {
        (void)close(b->fd);
    }
    mem_free(b->chunks);
    arena_close(&b->arena);
    *b = (struct image_built){.fd = -1};
}

struct status image_built_chunk(const struct image_built *b, uint32_t index, struct buffer *out,
                                struct errmsg *msg)
{
    CHECK(index < b->chunks_count);
    uint64_t at = (uint64_t)index * IMAGE_CHUNK_BYTES;
    size_t size =
        b->bytes - at < IMAGE_CHUNK_BYTES ? (size_t)(b->bytes - at) : (size_t)IMAGE_CHUNK_BYTES;
    out->size = 0;
    TRY(buffer_reserve(out, size));
    while (out->size < size) {
        ssize_t got =
            pread(b->fd, out->data + out->size, size - out->size, (off_t)(at + out->size));
        if (got == 0 || (got < 0 && errno != EINTR)) {
            return status_fail(msg, STATUS_IO, "read the image: %s",
                               got == 0 ? "cut" : strerror(errno));
        }
        out->size += got > 0 ? (size_t)got : 0;
    }
    return status_ok();
}

struct bytes image_built_list(const struct image_built *b, uint32_t index)
{
    uint32_t at = index * IMAGE_LIST_CHUNKS;
    CHECK(at < b->chunks_count);
    uint32_t count = b->chunks_count - at;
    count = count < IMAGE_LIST_CHUNKS ? count : (uint32_t)IMAGE_LIST_CHUNKS;
    return bytes_of(&b->chunks[at], (size_t)count * DIGEST_BYTES);
}
