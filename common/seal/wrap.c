/* A wrapped key is kind u8 | body. WRAP_LOCAL: the key sealed under a key derived from the cluster
 * key, its id in the associated data. WRAP_TOKEN: RSA-OAEP of id u32 | key. */
#include "common/seal/wrap.h"

#include "common/mem.h"
#include "common/pki/pki.h"
#include "common/seal/token_key.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WRAP_LOCAL = 1, WRAP_TOKEN = 2, TOKEN_PLAIN_BYTES = 4 + SEAL_KEY_BYTES, PATH_BYTES = 4096 };

static const char key_prefix[] = "skep-cluster-key-v1 ";
enum { KEY_HEX_BYTES = 2 * SEAL_KEY_BYTES, KEY_TEXT_BYTES = sizeof key_prefix + KEY_HEX_BYTES + 1 };

struct cluster_key {
    struct seal_key wrapping; /* derived from the cluster key, which is not kept */
    struct token_key *token;  /* NULL: local */
    struct sealer *sealer;
    char fingerprint[WRAP_FINGERPRINT_BYTES];
};

/* ---- Where from ---- */

static struct status credential_path(const char *name, char out[PATH_BYTES], struct errmsg *msg)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    if (folder == NULL || folder[0] != '/') {
        return status_fail(msg, STATUS_NOT_FOUND,
                           "credential %s: $CREDENTIALS_DIRECTORY is not set; start the scheduler "
                           "by a systemd unit with LoadCredential=%s:PATH",
                           name, name);
    }
    int used = snprintf(out, PATH_BYTES, "%s/%s", folder, name);
    return used > 0 && used < PATH_BYTES
               ? status_ok()
               : status_fail(msg, STATUS_INVALID, "credential %s: the path is too long", name);
}

/* ---- The key's text ---- */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool key_parse(const char *text, struct seal_key *out)
{
    const char *hex = wrap_after(text, key_prefix);
    if (hex == NULL || strnlen(hex, KEY_HEX_BYTES) != KEY_HEX_BYTES) {
        return false;
    }
    for (size_t i = 0; i < SEAL_KEY_BYTES; i++) {
        int high = hex_value(hex[2 * i]), low = hex_value(hex[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out->v[i] = (uint8_t)(high << 4 | low);
    }
    return strcmp(hex + KEY_HEX_BYTES, "\n") == 0 || hex[KEY_HEX_BYTES] == '\0';
}

static void key_format(const struct seal_key *key, char out[KEY_TEXT_BYTES])
{
    int used = snprintf(out, KEY_TEXT_BYTES, "%s", key_prefix);
    for (size_t i = 0; i < SEAL_KEY_BYTES; i++) {
        used += snprintf(out + used, KEY_TEXT_BYTES - (size_t)used, "%02x", key->v[i]);
    }
    (void)snprintf(out + used, KEY_TEXT_BYTES - (size_t)used, "\n");
}

struct status cluster_key_create(const char *path, struct errmsg *msg)
{
    AUTO_SEAL_KEY struct seal_key key;
    char text[KEY_TEXT_BYTES];
    if (access(path, F_OK) == 0 || errno != ENOENT) {
        return status_fail(msg, STATUS_EXISTS,
                           "%s is there already; what was sealed with the key in it would be lost",
                           path);
    }
    if (!status_is_ok(seal_key_make(&key))) {
        return status_fail(msg, STATUS_IO, "the system gives no random bytes");
    }
    key_format(&key, text);
    struct status s = pki_write(path, true, text, msg);
    mem_wipe(text, sizeof text);
    return s;
}

/* ---- Opening ---- */

static void fingerprint_format(const uint8_t *bytes, char out[WRAP_FINGERPRINT_BYTES])
{
    for (size_t i = 0; i < WRAP_FINGERPRINT_BYTES / 2; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    }
}

/* A credential's folder is guarded by systemd, whose access lists look like a group's right. */
static struct status open_local(struct cluster_key *c, const char *path, bool guarded,
                                struct errmsg *msg)
{
    AUTO_SEAL_KEY struct seal_key key, print;
    char *text = NULL;
    TRY(status_prefix(msg, pki_read(path, !guarded, &text, msg), "cluster key"));
    bool parsed = key_parse(text, &key);
    pki_key_free(text);
    if (!parsed) {
        return status_fail(msg, STATUS_INVALID,
                           "%s does not hold a cluster key; skep key create makes one", path);
    }
    TRY(seal_derive(&key, "skep cluster key fingerprint", bytes_of(NULL, 0), &print));
    fingerprint_format(print.v, c->fingerprint);
    return seal_derive(&key, "skep cluster key wrap", bytes_of(NULL, 0), &c->wrapping);
}

static struct status open_token(struct cluster_key *c, const char *uri, const char *module,
                                struct errmsg *msg)
{
    uint8_t digest[32];
    TRY(status_prefix(msg, token_key_open(uri, module, &c->token, msg), "cluster key"));
    TRY(token_key_digest(c->token, digest));
    fingerprint_format(digest, c->fingerprint);
    return status_ok();
}

static struct status open_from(struct cluster_key *c, const char *from, const char *module,
                               struct errmsg *msg)
{
    char path[PATH_BYTES];
    TRY(cluster_key_check(from, msg));
    if (wrap_after(from, WRAP_FROM_TOKEN) != NULL) {
        return open_token(c, from, module, msg);
    }
    if (wrap_after(from, WRAP_FROM_FILE) != NULL) {
        return open_local(c, wrap_after(from, WRAP_FROM_FILE), false, msg);
    }
    TRY(credential_path(wrap_after(from, WRAP_FROM_CREDENTIAL), path, msg));
    return open_local(c, path, true, msg);
}

struct status cluster_key_open(const char *from, const char *module, struct cluster_key **out,
                               struct errmsg *msg)
{
    struct cluster_key *c = mem_zalloc(1, sizeof *c);
    if (c == NULL || (c->sealer = sealer_new()) == NULL) {
        mem_free(c);
        return status_fail(msg, STATUS_NOMEM, "cluster key: out of memory");
    }
    struct status s = open_from(c, from, module, msg);
    if (!status_is_ok(s)) {
        cluster_key_free(c);
        return s;
    }
    *out = c;
    return status_ok();
}

void cluster_key_free(struct cluster_key *c)
{
    if (c == NULL) {
        return;
    }
    token_key_free(c->token);
    sealer_free(c->sealer);
    mem_wipe(c, sizeof *c);
    mem_free(c);
}

const char *cluster_key_fingerprint(const struct cluster_key *c)
{
    return c->fingerprint;
}

/* ---- Wrapping ---- */

static struct bytes aad_of(uint32_t id, char out[32])
{
    (void)snprintf(out, 32, "data key %u", id);
    return bytes_of(out, strlen(out));
}

static struct status wrap_by_token(struct cluster_key *c, uint32_t id, const struct seal_key *key,
                                   struct buffer *out, struct errmsg *msg)
{
    uint8_t plain[TOKEN_PLAIN_BYTES];
    uint32_t wire = htole32(id);
    memcpy(plain, &wire, sizeof wire);
    memcpy(plain + sizeof wire, key->v, sizeof key->v);
    struct status s = token_key_encrypt(c->token, bytes_of(plain, sizeof plain), out, msg);
    mem_wipe(plain, sizeof plain);
    return s;
}

struct status cluster_key_wrap(struct cluster_key *c, uint32_t id, const struct seal_key *key,
                               struct buffer *out, struct errmsg *msg)
{
    char aad[32];
    size_t before = out->size;
    struct status s = buffer_put_u8(out, c->token == NULL ? WRAP_LOCAL : WRAP_TOKEN);
    if (status_is_ok(s) && c->token != NULL) {
        s = wrap_by_token(c, id, key, out, msg);
    } else if (status_is_ok(s)) {
        s = sealer_seal(c->sealer, id, &c->wrapping, aad_of(id, aad),
                        bytes_of(key->v, sizeof key->v), out);
    }
    if (!status_is_ok(s)) {
        out->size = before;
    }
    return s;
}

static struct status unwrap_into(struct cluster_key *c, uint32_t id, struct bytes wrapped,
                                 struct buffer *opened, struct errmsg *msg)
{
    char aad[32];
    bool local = c->token == NULL;
    if (wrapped.size < 2 || wrapped.size > WRAP_BYTES_MAX ||
        wrapped.data[0] != (local ? WRAP_LOCAL : WRAP_TOKEN)) {
        return status_fail(msg, STATUS_CORRUPT, "data key %u was not wrapped by this cluster key",
                           id);
    }
    struct bytes body = bytes_of(wrapped.data + 1, wrapped.size - 1);
    if (!local) {
        TRY(token_key_decrypt(c->token, body, opened, msg));
        uint32_t wire = htole32(id);
        if (opened->size != TOKEN_PLAIN_BYTES || memcmp(opened->data, &wire, sizeof wire) != 0) {
            return status_fail(msg, STATUS_CORRUPT, "data key %u is another's", id);
        }
        buffer_consume(opened, sizeof wire);
        return status_ok();
    }
    struct status s = sealer_open(c->sealer, &c->wrapping, aad_of(id, aad), body, opened);
    if (!status_is_ok(s)) {
        return status_fail(msg, s.code, "data key %u was not wrapped by this cluster key", id);
    }
    return status_of(opened->size == SEAL_KEY_BYTES ? STATUS_OK : STATUS_CORRUPT);
}

struct status cluster_key_unwrap(struct cluster_key *c, uint32_t id, struct bytes wrapped,
                                 struct seal_key *out, struct errmsg *msg)
{
    struct buffer opened = {0};
    struct status s = unwrap_into(c, id, wrapped, &opened, msg);
    if (status_is_ok(s)) {
        memcpy(out->v, opened.data, sizeof out->v);
    }
    if (opened.data != NULL) {
        mem_wipe(opened.data, opened.capacity);
    }
    buffer_close(&opened);
    return s;
}
