/* Certificates: the authority of a new cluster, certificates without a cluster, tokens, joining,
 * renewal. */
#include "cli/cli.h"

#include "common/mem.h"
#include "common/pki/pki.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DAY_S (INT64_C(24) * 3600)
enum { CA_VALID_DAYS = 3650, ISSUE_VALID_DAYS = 7 };

static struct status join_path(const char *folder, const char *file, char *out, size_t out_size,
                               struct errmsg *msg)
{
    int used = snprintf(out, out_size, "%s/%s", folder, file);
    return used > 0 && (size_t)used < out_size
               ? status_ok()
               : status_fail(msg, STATUS_INVALID, "the path of %s is too long", file);
}

static struct status write_in(const char *folder, const char *file, bool secret, const char *pem,
                              struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 1];
    TRY(join_path(folder, file, path, sizeof path, msg));
    return pki_write(path, secret, pem, msg);
}

static struct status read_in(const char *folder, const char *file, bool secret, char **pem,
                             struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 1];
    TRY(join_path(folder, file, path, sizeof path, msg));
    return pki_read(path, secret, pem, msg);
}

static struct status make_folder(const char *folder, struct errmsg *msg)
{
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", folder, strerror(errno));
    }
    return status_ok();
}

/* ---- Without a cluster ---- */

static struct status ca_init(const char *cluster, const char *folder, struct errmsg *msg)
{
    struct name name;
    char *cert = NULL, *key = NULL, path[CONFIG_PATH_BYTES_MAX + 1];
    TRY(name_parse("cluster name", cluster, strlen(cluster), &name, msg));
    TRY(make_folder(folder, msg));
    TRY(join_path(folder, "ca.key", path, sizeof path, msg));
    if (access(path, F_OK) == 0) {
        return status_fail(
            msg, STATUS_EXISTS,
            "%s is there already; a second authority would shut out all that the first signed",
            path);
    }
    TRY(pki_ca_create(&name, (int64_t)time(NULL), CA_VALID_DAYS * DAY_S, &cert, &key, msg));
    struct status s = write_in(folder, "ca.key", true, key, msg);
    if (status_is_ok(s)) {
        s = write_in(folder, "ca.crt", false, cert, msg);
    }
    mem_free(cert);
    pki_key_free(key);
    return s;
}

int verb_ca_init(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    if (cli->options.cluster == NULL || cli->options.dir == NULL) {
        return cli_usage("--cluster NAME and --dir DIR are required");
    }
    struct status s = ca_init(cli->options.cluster, cli->options.dir, &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    (void)printf("made %s/ca.crt and %s/ca.key; keep the key secret\n", cli->options.dir,
                 cli->options.dir);
    return CLI_DONE;
}

static struct status ca_sign(const char *ca_folder, const struct identity *id, int64_t valid_s,
                             const char *folder, struct errmsg *msg)
{
    char *ca = NULL, *ca_key = NULL, *csr = NULL, *key = NULL, *cert = NULL;
    struct status s = read_in(ca_folder, "ca.crt", false, &ca, msg);
    if (status_is_ok(s)) {
        s = read_in(ca_folder, "ca.key", true, &ca_key, msg);
    }
    if (status_is_ok(s)) {
        s = pki_request_create(&csr, &key, msg);
    }
    if (status_is_ok(s)) {
        s = pki_sign(ca, ca_key, csr, id, (int64_t)time(NULL), valid_s, &cert, msg);
    }
    if (status_is_ok(s)) {
        s = make_folder(folder, msg);
    }
    if (status_is_ok(s)) {
        s = write_in(folder, "key.pem", true, key, msg);
    }
    if (status_is_ok(s)) {
        s = write_in(folder, "cert.pem", false, cert, msg);
    }
    if (status_is_ok(s)) {
        s = write_in(folder, "ca.crt", false, ca, msg);
    }
    mem_free(ca);
    pki_key_free(ca_key);
    mem_free(csr);
    pki_key_free(key);
    mem_free(cert);
    return s;
}

int verb_ca_issue(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    const struct options *o = &cli->options;
    if (o->cluster == NULL || o->dir == NULL || o->out == NULL) {
        return cli_usage("--cluster NAME, --dir DIR (of the CA) and --out DIR are required");
    }
    struct identity id = {.role = ROLE_NONE};
    uint64_t valid_ms = 0;
    struct status s = role_parse(cli->args[0], &id.role, &msg);
    if (status_is_ok(s)) {
        s = name_parse("name", cli->args[1], strlen(cli->args[1]), &id.name, &msg);
    }
    if (status_is_ok(s)) {
        s = name_parse("cluster name", o->cluster, strlen(o->cluster), &id.cluster, &msg);
    }
    if (status_is_ok(s)) {
        s = duration_of("--valid", o->valid, ISSUE_VALID_DAYS * (uint64_t)DAY_S * 1000, &valid_ms,
                        &msg);
    }
    if (status_is_ok(s)) {
        s = ca_sign(o->dir, &id, (int64_t)(valid_ms / 1000), o->out, &msg);
    }
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    (void)printf("made %s/cert.pem, %s/key.pem and %s/ca.crt\n", o->out, o->out, o->out);
    return CLI_DONE;
}

/* ---- On a cluster ---- */

int verb_ca_token(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    uint64_t valid_ms = 0;
    struct status s = duration_of("--valid", cli->options.valid, 15 * 60 * 1000, &valid_ms, &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    if (cli->options.role == NULL) {
        return cli_usage(
            "--role scheduler, agent or user is required: what the token's holder may become");
    }
    char seconds[24];
    (void)snprintf(seconds, sizeof seconds, "%llu", (unsigned long long)(valid_ms / 1000));
    struct pair args[] = {{.key = "role", .value = cli->options.role},
                          {.key = "valid_s", .value = seconds}};
    return cli_admin(cli, "token.create", cli->options.name == NULL ? "" : cli->options.name, args,
                     2, "");
}

int verb_ca_revoke(struct cli *cli)
{
    if (!cli_confirm(cli, "Revoke %s? A revocation cannot be taken back.", cli->args[0])) {
        return CLI_USAGE;
    }
    struct pair reason = {.key = "reason",
                          .value = cli->options.reason == NULL ? "" : cli->options.reason};
    return cli_admin(cli, "ca.revoke", cli->args[0], &reason, 1, "revoked");
}

int verb_ca_list(struct cli *cli)
{
    static const char *const tokens[] = {"token", "role", "name", "expires_ms", "used_by", NULL};
    static const char *const revoked[] = {"revoked", "reason", "time_ms", NULL};
    int code = cli_query(cli, "tokens", "", tokens);
    return code == CLI_DONE ? cli_query(cli, "revoked", "", revoked) : code;
}

static struct status renewed_write(const struct context *k, const char *cert, const char *key,
                                   struct errmsg *msg)
{
    TRY(pki_write(k->key, true, key, msg));
    return pki_write(k->cert, false, cert, msg);
}

int verb_ca_renew(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    char *csr = NULL, *key = NULL;
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    const struct context *k = NULL;
    struct status s = context_find(cli->contexts, cli->options.context, &k, &msg);
    if (status_is_ok(s)) {
        s = pki_request_create(&csr, &key, &msg);
    }
    struct arena a = {0};
    struct message answer;
    const struct message m = {.type = MESSAGE_RENEW, .renew = {.csr = csr}};
    if (!status_is_ok(s)) {
        code = cli_fail(s, msg.text);
    } else if (cli_ask(cli, c, &m, CLIENT_REQUEST_MS, &a, &answer, &code) &&
               answer.type == MESSAGE_JOIN_REPLY) {
        s = renewed_write(k, answer.join_reply.cert, key, &msg);
        code = status_is_ok(s) ? CLI_DONE : cli_fail(s, msg.text);
        if (code == CLI_DONE) {
            (void)puts("renewed");
        }
    }
    mem_free(csr);
    pki_key_free(key);
    arena_close(&a);
    client_close(c);
    return code;
}

/* ---- Joining as a user ---- */

static struct status join_write(struct cli *cli, const char *name, const struct identity *who,
                                const struct join_reply *r, const char *key, struct errmsg *msg)
{
    char base[CONFIG_PATH_BYTES_MAX + 1], folder[CONFIG_PATH_BYTES_MAX + 80];
    TRY(contexts_load(&cli->contexts, msg));
    TRY(contexts_path(base, sizeof base, msg));
    char *slash = strrchr(base, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    TRY(contexts_save(cli->contexts, msg)); /* Makes the folder. */
    (void)snprintf(folder, sizeof folder, "%s/%s", base, name);
    TRY(make_folder(folder, msg));
    TRY(write_in(folder, "key.pem", true, key, msg));
    TRY(write_in(folder, "cert.pem", false, r->cert, msg));
    TRY(write_in(folder, "ca.crt", false, r->ca, msg));
    char *schedulers[CONFIG_SCHEDULERS_MAX], files[3][CONFIG_PATH_BYTES_MAX + 96];
    struct context k = {.name = (char *)(uintptr_t)name, .schedulers = schedulers};
    for (size_t i = 0; i < r->schedulers_count && i < CONFIG_SCHEDULERS_MAX; i++) {
        schedulers[k.schedulers_count++] = (char *)(uintptr_t)r->schedulers[i].value;
    }
    (void)snprintf(files[0], sizeof files[0], "%s/ca.crt", folder);
    (void)snprintf(files[1], sizeof files[1], "%s/cert.pem", folder);
    (void)snprintf(files[2], sizeof files[2], "%s/key.pem", folder);
    k.ca = files[0];
    k.cert = files[1];
    k.key = files[2];
    TRY(context_put(cli->contexts, &k, true, msg));
    TRY(contexts_save(cli->contexts, msg));
    (void)printf("joined cluster %s; context %s is now the current one\n", who->cluster.text, name);
    return status_ok();
}

static int join_with(struct cli *cli, const struct pki_token *token)
{
    struct errmsg msg = {.text = ""};
    struct identity who;
    char *csr = NULL, *key = NULL;
    struct client *c = NULL;
    int code = CLI_DONE;
    struct status s = pki_identity_of(token->cert_pem, &who, NULL, &msg);
    if (status_is_ok(s)) {
        s = pki_request_create(&csr, &key, &msg);
    }
    if (status_is_ok(s)) {
        s = client_open_token(&c, token, &msg);
    }
    struct arena a = {0};
    struct message answer;
    const struct message m = {.type = MESSAGE_JOIN,
                              .join = {.role = "user", .name = cli->options.name, .csr = csr}};
    if (!status_is_ok(s)) {
        code = cli_fail(s, msg.text);
    } else if (cli_ask(cli, c, &m, CLIENT_REQUEST_MS, &a, &answer, &code) &&
               answer.type == MESSAGE_JOIN_REPLY) {
        const char *name = cli->options.context == NULL ? who.cluster.text : cli->options.context;
        s = join_write(cli, name, &who, &answer.join_reply, key, &msg);
        code = status_is_ok(s) ? CLI_DONE : cli_fail(s, msg.text);
    }
    mem_free(csr);
    pki_key_free(key);
    arena_close(&a);
    client_close(c);
    return code;
}

int verb_join(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    if (cli->options.token_file == NULL || cli->options.name == NULL) {
        return cli_usage(
            "--token-file FILE (or - for standard input) and --name NAME are required");
    }
    struct buffer text = {0};
    struct pki_token token = {.addresses_count = 0};
    struct status s = input_read(cli->options.token_file, PKI_TOKEN_BYTES_MAX, &text, &msg);
    if (status_is_ok(s)) {
        s = pki_token_parse((const char *)text.data, text.size, &token, &msg);
    }
    int code = status_is_ok(s) ? join_with(cli, &token) : cli_fail(s, msg.text);
    if (text.data != NULL) {
        mem_wipe(text.data, text.size);
    }
    buffer_close(&text);
    pki_token_close(&token);
    return code;
}
