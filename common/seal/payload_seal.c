#include "common/seal/payload_seal.h"

#include "common/cleanup.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 1, AAD_BYTES = 16 + DIGEST_BYTES };

static struct bytes aad_of(const char *what, const struct digest *digest, uint8_t out[AAD_BYTES])
{
    memset(out, 0, AAD_BYTES);
    memcpy(out, what, strlen(what));
    memcpy(out + AAD_BYTES - DIGEST_BYTES, digest->v, DIGEST_BYTES);
    return bytes_of(out, AAD_BYTES);
}

/* The key that seals payload keys: of one payload only, so that its random nonces need no count. */
static struct status wrapping_key(struct keyring *k, uint32_t id, const struct digest *digest,
                                  struct seal_key *out)
{
    AUTO_SEAL_KEY struct seal_key data_key;
    TRY(keyring_find(k, id, &data_key));
    return seal_derive(&data_key, "payload key", bytes_of(digest->v, DIGEST_BYTES), out);
}

static struct status seal_both(struct sealer *s, uint32_t id, const struct seal_key *wrapping,
                               const struct digest *digest, struct bytes plain, struct buffer *file,
                               struct buffer *key_file)
{
    AUTO_SEAL_KEY struct seal_key own;
    uint8_t aad[AAD_BYTES];
    TRY(seal_key_make(&own));
    TRY(buffer_put_u8(file, VERSION));
    TRY(buffer_put_u8(key_file, VERSION));
    TRY(sealer_seal(s, 0, &own, aad_of("payload", digest, aad), plain, file));
    return sealer_seal(s, id, wrapping, aad_of("payload key", digest, aad),
                       bytes_of(own.v, sizeof own.v), key_file);
}

struct status payload_seal(struct keyring *k, const struct digest *digest, struct bytes plain,
                           struct buffer *file, struct buffer *key_file)
{
    AUTO_SEAL_KEY struct seal_key wrapping;
    uint32_t id = keyring_current(k);
    if (id == 0) {
        return status_of(STATUS_UNAVAILABLE);
    }
    TRY(wrapping_key(k, id, digest, &wrapping));
    struct sealer *s = sealer_new();
    if (s == NULL) {
        return status_of(STATUS_NOMEM);
    }
    size_t file_size = file->size, key_size = key_file->size;
    struct status status = seal_both(s, id, &wrapping, digest, plain, file, key_file);
    if (!status_is_ok(status)) {
        file->size = file_size;
        key_file->size = key_size;
    }
    sealer_free(s);
    return status;
}

static struct status version_take(struct bytes *from)
{
    if (from->size == 0) {
        return status_of(STATUS_CORRUPT);
    }
    if (from->data[0] != VERSION) {
        return status_of(STATUS_UNSUPPORTED);
    }
    *from = bytes_of(from->data + 1, from->size - 1);
    return status_ok();
}

static struct status open_both(struct sealer *s, const struct seal_key *wrapping,
                               const struct digest *digest, struct bytes file,
                               struct bytes key_file, struct buffer *plain)
{
    AUTO_SEAL_KEY struct seal_key own;
    uint8_t aad[AAD_BYTES];
    struct buffer opened = {0};
    struct status status =
        sealer_open(s, wrapping, aad_of("payload key", digest, aad), key_file, &opened);
    if (status_is_ok(status) && opened.size != sizeof own.v) {
        status = status_of(STATUS_CORRUPT);
    }
    if (status_is_ok(status)) {
        memcpy(own.v, opened.data, sizeof own.v);
        status = sealer_open(s, &own, aad_of("payload", digest, aad), file, plain);
    }
    if (opened.data != NULL) {
        mem_wipe(opened.data, opened.capacity);
    }
    buffer_close(&opened);
    return status;
}

struct status payload_open(struct keyring *k, const struct digest *digest, struct bytes file,
                           struct bytes key_file, struct buffer *plain)
{
    AUTO_SEAL_KEY struct seal_key wrapping;
    TRY(version_take(&file));
    TRY(version_take(&key_file));
    if (file.size < SEAL_EXTRA_BYTES || key_file.size < SEAL_EXTRA_BYTES) {
        return status_of(STATUS_CORRUPT);
    }
    TRY(wrapping_key(k, seal_key_id(key_file), digest, &wrapping));
    struct sealer *s = sealer_new();
    if (s == NULL) {
        return status_of(STATUS_NOMEM);
    }
    struct status status = open_both(s, &wrapping, digest, file, key_file, plain);
    sealer_free(s);
    return status;
}

/* ---- Deleting ---- */

static struct status fail_errno(struct errmsg *msg, const char *path)
{
    int error = errno;
    return status_fail(msg, status_from_errno(error), "shred %s: %s", path, strerror(error));
}

/* In place: the blocks that held the key are written again. */
static struct status overwrite(int fd, const char *path, struct errmsg *msg)
{
    uint8_t noise[PAYLOAD_KEY_BYTES];
    if (RAND_bytes(noise, sizeof noise) != 1) {
        memset(noise, 0, sizeof noise);
    }
    size_t written = 0;
    while (written < sizeof noise) {
        ssize_t n = pwrite(fd, noise + written, sizeof noise - written, (off_t)written);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fail_errno(msg, path);
        }
        written += (size_t)n;
    }
    return fdatasync(fd) == 0 ? status_ok() : fail_errno(msg, path);
}

struct status payload_key_shred(const char *key_path, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(key_path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT ? status_ok() : fail_errno(msg, key_path);
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        return status_fail(msg, STATUS_INVALID, "shred %s: not a file", key_path);
    }
    TRY(overwrite(fd, key_path, msg));
    return unlink(key_path) == 0 ? status_ok() : fail_errno(msg, key_path);
}
