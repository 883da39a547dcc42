#include "agent/renewal.h"

#include "common/mem.h"
#include "common/pki/pki.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void new_key_path(const struct config_identity *files, char *out, size_t size)
{
    (void)snprintf(out, size, "%s.new", files->key);
}

/* The key beside the certificate, or the one of a renewal that was cut short. */
static struct status key_read(struct credentials *c, int64_t now_s, struct errmsg *msg)
{
    TRY(pki_read(c->files->key, true, &c->key, msg));
    struct status s = pki_check(c->ca, c->cert, c->key, now_s, msg);
    if (s.code != STATUS_INVALID) {
        return s;
    }
    char path[CONFIG_PATH_BYTES_MAX + 8];
    char *key;
    new_key_path(c->files, path, sizeof path);
    if (!status_is_ok(pki_read(path, true, &key, NULL))) {
        return s;
    }
    if (!status_is_ok(pki_check(c->ca, c->cert, key, now_s, NULL)) ||
        rename(path, c->files->key) != 0) {
        pki_key_free(key);
        return s;
    }
    pki_key_free(c->key);
    c->key = key;
    return status_ok();
}

static struct status identity_check(const struct identity *is, const struct identity *expect,
                                    struct errmsg *msg)
{
    if (is->role != expect->role || strcmp(is->cluster.text, expect->cluster.text) != 0 ||
        strcmp(is->name.text, expect->name.text) != 0) {
        char is_text[IDENTITY_URI_BYTES];
        char expect_text[IDENTITY_URI_BYTES];
        identity_format(is, is_text);
        identity_format(expect, expect_text);
        return status_fail(msg, STATUS_DENIED, "certificate is of %s, the configuration says %s",
                           is_text, expect_text);
    }
    return status_ok();
}

static struct status read_all(struct credentials *c, const struct identity *expect, int64_t now_s,
                              struct errmsg *msg)
{
    TRY(pki_read(c->files->ca, false, &c->ca, msg));
    TRY(pki_read(c->files->cert, false, &c->cert, msg));
    TRY(key_read(c, now_s, msg));
    TRY(pki_identity_of(c->cert, &c->identity, &c->not_before_s, msg));
    return identity_check(&c->identity, expect, msg);
}

struct status credentials_open(struct credentials *c, const struct config_identity *files,
                               const struct identity *expect, int64_t now_s, struct errmsg *msg)
{
    *c = (struct credentials){.files = files};
    struct status s = read_all(c, expect, now_s, msg);
    if (!status_is_ok(s)) {
        credentials_close(c);
    }
    return s;
}

void credentials_close(struct credentials *c)
{
    mem_free(c->ca);
    mem_free(c->cert);
    pki_key_free(c->key);
    *c = (struct credentials){0};
}

struct tls_identity credentials_tls(const struct credentials *c)
{
    return (struct tls_identity){.ca_pem = c->ca, .cert_pem = c->cert, .key_pem = c->key};
}

bool credentials_due(const struct credentials *c, int64_t now_s)
{
    int64_t life = c->identity.not_after_s - c->not_before_s;
    return now_s >= c->not_before_s + life / 3 * 2;
}

static struct status write_all(const struct config_identity *files, const char *cert,
                               const char *ca, const char *key, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 8];
    new_key_path(files, path, sizeof path);
    TRY(pki_write(path, true, key, msg));
    if (ca != NULL) {
        TRY(pki_write(files->ca, false, ca, msg));
    }
    TRY(pki_write(files->cert, false, cert, msg));
    if (rename(path, files->key) != 0) {
        return status_fail(msg, status_from_errno(errno), "rename %s: %s", path, strerror(errno));
    }
    return status_ok();
}

struct status credentials_renew(struct credentials *c, const char *cert, const char *ca,
                                char *key_taken, int64_t now_s, struct errmsg *msg)
{
    bool other_ca = ca[0] != '\0' && strcmp(ca, c->ca) != 0;
    struct credentials fresh = {.files = c->files,
                                .ca = mem_strdup(other_ca ? ca : c->ca),
                                .cert = mem_strdup(cert),
                                .key = key_taken};
    struct status s = status_ok();
    if (fresh.ca == NULL || fresh.cert == NULL) {
        s = status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    if (status_is_ok(s)) {
        s = pki_check(fresh.ca, fresh.cert, fresh.key, now_s, msg);
    }
    if (status_is_ok(s)) {
        s = pki_identity_of(fresh.cert, &fresh.identity, &fresh.not_before_s, msg);
    }
    if (status_is_ok(s)) {
        s = identity_check(&fresh.identity, &c->identity, msg);
    }
    if (status_is_ok(s)) {
        s = write_all(c->files, fresh.cert, other_ca ? fresh.ca : NULL, fresh.key, msg);
    }
    if (!status_is_ok(s)) {
        credentials_close(&fresh);
        return s;
    }
    credentials_close(c);
    *c = fresh;
    return s;
}
