#include "common/config.h"

#include "common/check.h"
#include "common/mem.h"
#include "common/seal/wrap.h"
#include "common/yamldoc.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>

/* ---- Values ---- */

/* HOST of HOST:PORT: a name, an IPv4 address, or an IPv6 address in brackets. */
static bool host_ok(const char *host, size_t size)
{
    bool six = size > 2 && host[0] == '[' && host[size - 1] == ']';
    for (size_t i = six ? 1 : 0; i < (six ? size - 1 : size); i++) {
        char c = host[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && c != '.' && (six ? c != ':' : c != '-')) {
            return false;
        }
    }
    return size > 0;
}

struct status address_check(const char *text, uint16_t port_min, struct errmsg *msg)
{
    size_t size = strlen(text);
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, size, quoted);
    if (size > CONFIG_ADDRESS_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "an address has at most %d bytes, this has %zu",
                           CONFIG_ADDRESS_BYTES_MAX, size);
    }
    const char *colon = strrchr(text, ':');
    uint64_t port = 0;
    if (colon == NULL || !host_ok(text, (size_t)(colon - text)) ||
        !status_is_ok(unit_parse(UNIT_COUNT, colon + 1, strlen(colon + 1), &port, NULL))) {
        return status_fail(msg, STATUS_INVALID, "\"%s\" is not of the form HOST:PORT", quoted);
    }
    if (port < port_min || port > UINT16_MAX) {
        return status_fail(msg, STATUS_INVALID,
                           "the port of \"%s\" is out of range; %u to %u are allowed", quoted,
                           port_min, UINT16_MAX);
    }
    return status_ok();
}

struct status path_check(const char *text, struct errmsg *msg)
{
    size_t size = strlen(text);
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, size, quoted);
    if (size > CONFIG_PATH_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "a path has at most %d bytes, this has %zu",
                           CONFIG_PATH_BYTES_MAX, size);
    }
    if (text[0] != '/') {
        return status_fail(msg, STATUS_INVALID, "\"%s\" is not an absolute path", quoted);
    }
    return status_ok();
}

enum text_kind {
    TEXT_NAME,
    TEXT_PATH,
    TEXT_ADDRESS,
    TEXT_LISTEN,
    TEXT_KEY,
    TEXT_BACKUP,
    TEXT_ENDPOINT,
    TEXT_REGION
};

/* One text: checked, then moved from the loaded struct into the result; names are copied. */
struct text_row {
    const char *path;
    enum text_kind kind;
    size_t text_offset;
    size_t out_offset;
};
#define TEXT_ROW(path_, kind_, raw_, raw_member, out_, out_member)                                 \
    {                                                                                              \
        (path_), (kind_), offsetof(raw_, raw_member), offsetof(out_, out_member)                   \
    }

static struct status text_take(const struct text_row *row, char **text, void *out,
                               struct errmsg *msg)
{
    switch (row->kind) {
    case TEXT_NAME:
        return name_parse("the name", *text, strlen(*text), out, msg);
    case TEXT_PATH:
        TRY(path_check(*text, msg));
        break;
    case TEXT_ADDRESS:
    case TEXT_LISTEN:
        TRY(address_check(*text, row->kind == TEXT_LISTEN ? 0 : 1, msg));
        break;
    case TEXT_KEY:
        TRY(cluster_key_check(*text, msg));
        break;
    case TEXT_BACKUP:
        TRY(backup_to_check(*text, msg));
        break;
    case TEXT_ENDPOINT:
        TRY(backup_endpoint_check(*text, msg));
        break;
    case TEXT_REGION:
        TRY(backup_region_check(*text, msg));
        break;
    }
    memcpy(out, text, sizeof *text);
    *text = NULL;
    return status_ok();
}

static struct status texts_take(const struct yamldoc *d, const struct text_row *rows, size_t count,
                                void *raw, void *out, struct errmsg *msg)
{
    for (size_t i = 0; i < count; i++) {
        char **text = (char **)(void *)((uint8_t *)raw + rows[i].text_offset);
        if (*text != NULL) {
            struct status s = text_take(&rows[i], text, (uint8_t *)out + rows[i].out_offset, msg);
            TRY(yamldoc_blame(d, rows[i].path, s, msg));
        }
    }
    return status_ok();
}

/* The row of names that holds text, into *out. */
static struct status word_take(const struct yamldoc *d, const char *path, const char *const *words,
                               const char *text, unsigned *out, struct errmsg *msg)
{
    char all[QUOTE_STRING_BYTES] = "";
    if (text == NULL) {
        return status_ok();
    }
    for (unsigned i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], text) == 0) {
            *out = i;
            return status_ok();
        }
        size_t used = strlen(all);
        (void)snprintf(all + used, sizeof all - used, "%s%s", used > 0 ? ", " : "", words[i]);
    }
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, strlen(text), quoted);
    return yamldoc_fail(d, path, STATUS_INVALID, msg, "\"%s\" is not one of %s", quoted, all);
}

/* ---- Parts that both daemons have ---- */

struct raw_log {
    char *level;
    char *format;
};

static const cyaml_schema_field_t log_fields[] = {
    YAMLDOC_TEXT("level", struct raw_log, level),
    YAMLDOC_TEXT("format", struct raw_log, format),
    CYAML_FIELD_END,
};

static struct status log_take(const struct yamldoc *d, const struct raw_log *raw,
                              struct config_log *out, struct errmsg *msg)
{
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
    static const char *const formats[] = {"kv", "json", NULL};
    unsigned level = LOG_LEVEL_INFO;
    unsigned format = LOG_FORMAT_KV;
    TRY(word_take(d, "log.level", levels, raw->level, &level, msg));
    TRY(word_take(d, "log.format", formats, raw->format, &format, msg));
    *out = (struct config_log){(enum log_level)level, (enum log_format)format};
    return status_ok();
}

/* ---- The scheduler ---- */

struct raw_peer {
    char *id;
    char *address;
};

struct raw_raft {
    char *election_timeout;
    char *heartbeat;
    char *ballast;
    char *free_min;
    char *snapshot_entries;
};

struct raw_limits {
    char *images;
    char *connections;
    char *send_queue;
    char *chunks;
    char *payloads; /* of schedulers */
};

struct raw_seal {
    char *cluster_key;
    char *cluster_key_old;
    char *pkcs11_module;
};

struct raw_backup {
    char *every, *keep, *to, *endpoint, *endpoint_ca, *region, *credentials;
};

struct raw_scheduler {
    char *cluster, *id, *listen, *advertise, *data, *ca, *cert, *key, *ca_key;
    struct raw_peer *peers;
    uint32_t peers_count;
    struct raw_raft raft;
    struct raw_limits limits;
    struct raw_seal seal;
    struct raw_backup backup;
    struct raw_log log;
};

static const cyaml_schema_field_t peer_fields[] = {
    YAMLDOC_REQUIRED_TEXT("id", struct raw_peer, id),
    YAMLDOC_REQUIRED_TEXT("address", struct raw_peer, address),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t peer_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_peer, peer_fields)};

static const cyaml_schema_field_t raft_fields[] = {
    YAMLDOC_TEXT("election_timeout", struct raw_raft, election_timeout),
    YAMLDOC_TEXT("heartbeat", struct raw_raft, heartbeat),
    YAMLDOC_TEXT("ballast", struct raw_raft, ballast),
    YAMLDOC_TEXT("free_min", struct raw_raft, free_min),
    YAMLDOC_TEXT("snapshot_entries", struct raw_raft, snapshot_entries),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t scheduler_limits_fields[] = {
    YAMLDOC_TEXT("connections", struct raw_limits, connections),
    YAMLDOC_TEXT("send_queue", struct raw_limits, send_queue),
    YAMLDOC_TEXT("chunks", struct raw_limits, chunks),
    YAMLDOC_TEXT("payloads", struct raw_limits, payloads),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t seal_fields[] = {
    YAMLDOC_TEXT("cluster_key", struct raw_seal, cluster_key),
    YAMLDOC_TEXT("cluster_key_old", struct raw_seal, cluster_key_old),
    YAMLDOC_TEXT("pkcs11_module", struct raw_seal, pkcs11_module),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t backup_fields[] = {
    YAMLDOC_TEXT("every", struct raw_backup, every),
    YAMLDOC_TEXT("keep", struct raw_backup, keep),
    YAMLDOC_TEXT("to", struct raw_backup, to),
    YAMLDOC_TEXT("endpoint", struct raw_backup, endpoint),
    YAMLDOC_TEXT("endpoint_ca", struct raw_backup, endpoint_ca),
    YAMLDOC_TEXT("region", struct raw_backup, region),
    YAMLDOC_TEXT("credentials", struct raw_backup, credentials),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t scheduler_fields[] = {
    YAMLDOC_REQUIRED_TEXT("cluster", struct raw_scheduler, cluster),
    YAMLDOC_REQUIRED_TEXT("id", struct raw_scheduler, id),
    YAMLDOC_REQUIRED_TEXT("listen", struct raw_scheduler, listen),
    YAMLDOC_TEXT("advertise", struct raw_scheduler, advertise),
    YAMLDOC_REQUIRED_TEXT("data", struct raw_scheduler, data),
    YAMLDOC_REQUIRED_TEXT("ca", struct raw_scheduler, ca),
    YAMLDOC_REQUIRED_TEXT("cert", struct raw_scheduler, cert),
    YAMLDOC_REQUIRED_TEXT("key", struct raw_scheduler, key),
    YAMLDOC_TEXT("ca_key", struct raw_scheduler, ca_key),
    CYAML_FIELD_SEQUENCE("peers", CYAML_FLAG_POINTER, struct raw_scheduler, peers, &peer_schema, 1,
                         CONFIG_SCHEDULERS_MAX),
    YAMLDOC_PART("raft", struct raw_scheduler, raft, raft_fields),
    YAMLDOC_PART("limits", struct raw_scheduler, limits, scheduler_limits_fields),
    YAMLDOC_PART("seal", struct raw_scheduler, seal, seal_fields),
    YAMLDOC_PART("backup", struct raw_scheduler, backup, backup_fields),
    YAMLDOC_PART("log", struct raw_scheduler, log, log_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t scheduler_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_scheduler, scheduler_fields)};

static const struct text_row scheduler_texts[] = {
    TEXT_ROW("cluster", TEXT_NAME, struct raw_scheduler, cluster, struct scheduler_config, cluster),
    TEXT_ROW("id", TEXT_NAME, struct raw_scheduler, id, struct scheduler_config, id),
    TEXT_ROW("listen", TEXT_LISTEN, struct raw_scheduler, listen, struct scheduler_config, listen),
    TEXT_ROW("advertise", TEXT_ADDRESS, struct raw_scheduler, advertise, struct scheduler_config,
             advertise),
    TEXT_ROW("data", TEXT_PATH, struct raw_scheduler, data, struct scheduler_config, data),
    TEXT_ROW("ca", TEXT_PATH, struct raw_scheduler, ca, struct scheduler_config, identity.ca),
    TEXT_ROW("cert", TEXT_PATH, struct raw_scheduler, cert, struct scheduler_config, identity.cert),
    TEXT_ROW("key", TEXT_PATH, struct raw_scheduler, key, struct scheduler_config, identity.key),
    TEXT_ROW("ca_key", TEXT_PATH, struct raw_scheduler, ca_key, struct scheduler_config, ca_key),
    TEXT_ROW("seal.cluster_key", TEXT_KEY, struct raw_scheduler, seal.cluster_key,
             struct scheduler_config, seal.cluster_key),
    TEXT_ROW("seal.cluster_key_old", TEXT_KEY, struct raw_scheduler, seal.cluster_key_old,
             struct scheduler_config, seal.cluster_key_old),
    TEXT_ROW("seal.pkcs11_module", TEXT_PATH, struct raw_scheduler, seal.pkcs11_module,
             struct scheduler_config, seal.pkcs11_module),
    TEXT_ROW("backup.to", TEXT_BACKUP, struct raw_scheduler, backup.to, struct scheduler_config,
             backup.to),
    TEXT_ROW("backup.endpoint", TEXT_ENDPOINT, struct raw_scheduler, backup.endpoint,
             struct scheduler_config, backup.endpoint),
    TEXT_ROW("backup.endpoint_ca", TEXT_PATH, struct raw_scheduler, backup.endpoint_ca,
             struct scheduler_config, backup.endpoint_ca),
    TEXT_ROW("backup.region", TEXT_REGION, struct raw_scheduler, backup.region,
             struct scheduler_config, backup.region),
    TEXT_ROW("backup.credentials", TEXT_PATH, struct raw_scheduler, backup.credentials,
             struct scheduler_config, backup.credentials),
};

static const struct yamldoc_number scheduler_numbers[] = {
    YAMLDOC_NUMBER("backup.every", struct raw_scheduler, backup.every, UNIT_DURATION,
                   CONFIG_BACKUP_EVERY_MS_MIN, CONFIG_BACKUP_EVERY_MS_MAX, struct scheduler_config,
                   backup.every_ms),
    YAMLDOC_NUMBER("backup.keep", struct raw_scheduler, backup.keep, UNIT_COUNT, 1,
                   CONFIG_BACKUP_KEEP_MAX, struct scheduler_config, backup.keep),
    YAMLDOC_NUMBER("raft.election_timeout", struct raw_scheduler, raft.election_timeout,
                   UNIT_DURATION, CONFIG_ELECTION_TIMEOUT_MS_MIN, CONFIG_ELECTION_TIMEOUT_MS_MAX,
                   struct scheduler_config, election_timeout_ms),
    YAMLDOC_NUMBER("raft.heartbeat", struct raw_scheduler, raft.heartbeat, UNIT_DURATION,
                   CONFIG_HEARTBEAT_MS_MIN, CONFIG_HEARTBEAT_MS_MAX, struct scheduler_config,
                   heartbeat_ms),
    YAMLDOC_NUMBER("raft.ballast", struct raw_scheduler, raft.ballast, UNIT_BYTES, 0,
                   CONFIG_QUEUE_BYTES_MAX, struct scheduler_config, ballast_bytes),
    YAMLDOC_NUMBER("raft.free_min", struct raw_scheduler, raft.free_min, UNIT_BYTES, 0,
                   CONFIG_CHUNK_BYTES_MAX, struct scheduler_config, free_bytes_min),
    YAMLDOC_NUMBER("raft.snapshot_entries", struct raw_scheduler, raft.snapshot_entries, UNIT_COUNT,
                   CONFIG_SNAPSHOT_ENTRIES_MIN, CONFIG_SNAPSHOT_ENTRIES_MAX,
                   struct scheduler_config, snapshot_entries),
    YAMLDOC_NUMBER("limits.connections", struct raw_scheduler, limits.connections, UNIT_COUNT,
                   CONFIG_CONNECTIONS_MIN, CONFIG_CONNECTIONS_MAX, struct scheduler_config,
                   connections_max),
    YAMLDOC_NUMBER("limits.send_queue", struct raw_scheduler, limits.send_queue, UNIT_BYTES,
                   CONFIG_QUEUE_BYTES_MIN, CONFIG_QUEUE_BYTES_MAX, struct scheduler_config,
                   send_queue_bytes),
    YAMLDOC_NUMBER("limits.chunks", struct raw_scheduler, limits.chunks, UNIT_BYTES,
                   CONFIG_CHUNK_BYTES_MIN, CONFIG_CHUNK_BYTES_MAX, struct scheduler_config,
                   chunk_bytes_max),
    YAMLDOC_NUMBER("limits.payloads", struct raw_scheduler, limits.payloads, UNIT_BYTES,
                   CONFIG_PAYLOAD_BYTES_MIN, CONFIG_CHUNK_BYTES_MAX, struct scheduler_config,
                   payload_bytes_max),
};

static struct status peer_take(const struct yamldoc *d, struct scheduler_config *c,
                               struct raw_peer *raw, struct errmsg *msg)
{
    struct config_peer *p = &c->peers[c->peers_count];
    char path[YAMLDOC_PATH_BYTES];
    (void)snprintf(path, sizeof path, "peers[%zu].id", c->peers_count);
    TRY(yamldoc_blame(d, path, name_parse("the name", raw->id, strlen(raw->id), &p->id, msg), msg));
    for (size_t i = 0; i < c->peers_count; i++) {
        if (strcmp(c->peers[i].id.text, p->id.text) == 0) {
            return yamldoc_fail(d, path, STATUS_INVALID, msg, "%s is given twice", p->id.text);
        }
    }
    (void)snprintf(path, sizeof path, "peers[%zu].address", c->peers_count);
    TRY(yamldoc_blame(d, path, address_check(raw->address, 1, msg), msg));
    for (size_t i = 0; i < c->peers_count; i++) {
        if (strcmp(c->peers[i].address, raw->address) == 0) {
            return yamldoc_fail(d, path, STATUS_INVALID, msg, "%s is given twice", raw->address);
        }
    }
    if (strcmp(p->id.text, c->id.text) == 0) {
        c->bootstrap = true;
        if (strcmp(raw->address, c->advertise) != 0) {
            return yamldoc_fail(d, path, STATUS_INVALID, msg,
                                "is this scheduler's, but differs from its advertised address %s",
                                c->advertise);
        }
    }
    p->address = raw->address;
    raw->address = NULL;
    c->peers_count++;
    return status_ok();
}

/* A folder needs no more; a bucket needs credentials. */
static struct status backup_take(const struct yamldoc *d, const struct raw_scheduler *raw,
                                 struct scheduler_config *c, struct errmsg *msg)
{
    struct config_backup *b = &c->backup;
    bool s3 = b->to != NULL && strncmp(b->to, CONFIG_BACKUP_S3, strlen(CONFIG_BACKUP_S3)) == 0;
    bool any = raw->backup.every != NULL || raw->backup.keep != NULL || b->endpoint != NULL ||
               b->endpoint_ca != NULL || b->region != NULL || b->credentials != NULL;
    if (b->to == NULL) {
        return any ? yamldoc_fail(d, "backup", STATUS_INVALID, msg, "needs to") : status_ok();
    }
    if (s3 && b->credentials == NULL) {
        return yamldoc_fail(d, "backup", STATUS_INVALID, msg,
                            "needs credentials, a file, for a bucket");
    }
    if (!s3 && (b->endpoint != NULL || b->endpoint_ca != NULL || b->region != NULL ||
                b->credentials != NULL)) {
        return yamldoc_fail(d, "backup", STATUS_INVALID, msg,
                            "endpoint, endpoint_ca, region and credentials are for a bucket");
    }
    if (s3 && b->region == NULL) {
        b->region = mem_strdup("us-east-1");
        return b->region == NULL ? status_of(STATUS_NOMEM) : status_ok();
    }
    return status_ok();
}

static struct status scheduler_fill(const struct yamldoc *d, struct raw_scheduler *raw,
                                    struct scheduler_config *c, struct errmsg *msg)
{
    *c = (struct scheduler_config){
        .election_timeout_ms = CONFIG_ELECTION_TIMEOUT_MS_DEFAULT,
        .heartbeat_ms = CONFIG_HEARTBEAT_MS_DEFAULT,
        .ballast_bytes = CONFIG_BALLAST_BYTES_DEFAULT,
        .free_bytes_min = CONFIG_FREE_BYTES_MIN_DEFAULT,
        .snapshot_entries = CONFIG_SNAPSHOT_ENTRIES_DEFAULT,
        .connections_max = CONFIG_CONNECTIONS_DEFAULT,
        .send_queue_bytes = CONFIG_QUEUE_BYTES_DEFAULT,
        .chunk_bytes_max = CONFIG_SCHEDULER_CHUNK_BYTES_DEFAULT,
        .payload_bytes_max = CONFIG_PAYLOAD_BYTES_DEFAULT,
        .backup = {.every_ms = CONFIG_BACKUP_EVERY_MS_DEFAULT, .keep = CONFIG_BACKUP_KEEP_DEFAULT},
    };
    TRY(texts_take(d, scheduler_texts, sizeof scheduler_texts / sizeof scheduler_texts[0], raw, c,
                   msg));
    if (c->seal.cluster_key == NULL &&
        (c->seal.cluster_key_old != NULL || c->seal.pkcs11_module != NULL)) {
        return yamldoc_fail(d, "seal", STATUS_INVALID, msg, "needs cluster_key");
    }
    TRY(backup_take(d, raw, c, msg));
    if (c->advertise == NULL) {
        struct status s = address_check(c->listen, 1, msg);
        if (!status_is_ok(s)) {
            return yamldoc_fail(d, "advertise", STATUS_INVALID, msg,
                                "is needed when listen has port 0");
        }
        c->advertise = mem_strdup(c->listen);
    }
    c->peers = mem_zalloc(raw->peers_count, sizeof c->peers[0]);
    if (c->peers == NULL || c->advertise == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (uint32_t i = 0; i < raw->peers_count; i++) {
        TRY(peer_take(d, c, &raw->peers[i], msg));
    }
    TRY(yamldoc_numbers(d, scheduler_numbers,
                        sizeof scheduler_numbers / sizeof scheduler_numbers[0], raw, c, msg));
    if (c->heartbeat_ms * CONFIG_HEARTBEATS_MIN > c->election_timeout_ms) {
        return yamldoc_fail(
            d, "raft.heartbeat", STATUS_INVALID, msg,
            "%ums is too long for an election timeout of %ums, which must hold %d heartbeats",
            c->heartbeat_ms, c->election_timeout_ms, CONFIG_HEARTBEATS_MIN);
    }
    return log_take(d, &raw->log, &c->log, msg);
}

/* ---- The agent ---- */

struct raw_capacity {
    char *cpu;
    char *memory;
};

struct raw_uids {
    char *first;
    char *count;
};

struct raw_cells {
    char *cgroup;
    char *root;
    char *io_bps;
    char **walls_not_needed;
    uint32_t walls_not_needed_count;
    struct raw_uids uids;
    char *canary;
};

struct raw_simulate {
    char *model, *memory, *count;
};

struct raw_gpu {
    char *discovery, *library;
    struct raw_simulate *simulate;
    uint32_t simulate_count;
    char **cdi;
    uint32_t cdi_count;
};

struct raw_network {
    char *egress, *pool, *pool6, *resolver, *bandwidth, *connections;
};

struct raw_gvisor {
    char *enabled, *platform, *program;
};

struct raw_agent {
    char *cluster, *name, *data, *ca, *cert, *key, *lease;
    char **schedulers;
    uint32_t schedulers_count;
    struct raw_capacity capacity;
    struct raw_cells cells;
    struct raw_gvisor gvisor;
    struct raw_gpu gpu;
    struct raw_network network;
    struct raw_limits limits;
    struct raw_log log;
};

static const cyaml_schema_field_t capacity_fields[] = {
    YAMLDOC_TEXT("cpu", struct raw_capacity, cpu),
    YAMLDOC_TEXT("memory", struct raw_capacity, memory),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t text_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, YAMLDOC_BYTES_MAX)};

static const cyaml_schema_field_t uids_fields[] = {
    YAMLDOC_TEXT("first", struct raw_uids, first),
    YAMLDOC_TEXT("count", struct raw_uids, count),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t cells_fields[] = {
    YAMLDOC_TEXT("cgroup", struct raw_cells, cgroup),
    YAMLDOC_TEXT("root", struct raw_cells, root),
    YAMLDOC_TEXT("io_bps", struct raw_cells, io_bps),
    YAMLDOC_TEXT("canary", struct raw_cells, canary),
    CYAML_FIELD_SEQUENCE("walls_not_needed", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
                         struct raw_cells, walls_not_needed, &text_schema, 0, WALLS_COUNT_),
    YAMLDOC_PART("uids", struct raw_cells, uids, uids_fields),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t gvisor_fields[] = {
    YAMLDOC_TEXT("enabled", struct raw_gvisor, enabled),
    YAMLDOC_TEXT("platform", struct raw_gvisor, platform),
    YAMLDOC_TEXT("program", struct raw_gvisor, program),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t simulate_fields[] = {
    YAMLDOC_REQUIRED_TEXT("model", struct raw_simulate, model),
    YAMLDOC_REQUIRED_TEXT("memory", struct raw_simulate, memory),
    YAMLDOC_TEXT("count", struct raw_simulate, count),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t simulate_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_simulate, simulate_fields)};

static const cyaml_schema_field_t gpu_fields[] = {
    YAMLDOC_TEXT("discovery", struct raw_gpu, discovery),
    YAMLDOC_TEXT("library", struct raw_gpu, library),
    CYAML_FIELD_SEQUENCE("simulate", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_gpu,
                         simulate, &simulate_schema, 1, CONFIG_GPUS_MAX),
    CYAML_FIELD_SEQUENCE("cdi", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_gpu, cdi,
                         &text_schema, 1, CONFIG_CDI_FOLDERS_MAX),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t network_fields[] = {
    YAMLDOC_TEXT("egress", struct raw_network, egress),
    YAMLDOC_TEXT("pool", struct raw_network, pool),
    YAMLDOC_TEXT("pool6", struct raw_network, pool6),
    YAMLDOC_TEXT("resolver", struct raw_network, resolver),
    YAMLDOC_TEXT("bandwidth", struct raw_network, bandwidth),
    YAMLDOC_TEXT("connections", struct raw_network, connections),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t agent_limits_fields[] = {
    YAMLDOC_TEXT("chunks", struct raw_limits, chunks),
    YAMLDOC_TEXT("images", struct raw_limits, images),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t agent_fields[] = {
    YAMLDOC_REQUIRED_TEXT("cluster", struct raw_agent, cluster),
    YAMLDOC_REQUIRED_TEXT("name", struct raw_agent, name),
    CYAML_FIELD_SEQUENCE("schedulers", CYAML_FLAG_POINTER, struct raw_agent, schedulers,
                         &text_schema, 1, CONFIG_SCHEDULERS_MAX),
    YAMLDOC_REQUIRED_TEXT("data", struct raw_agent, data),
    YAMLDOC_REQUIRED_TEXT("ca", struct raw_agent, ca),
    YAMLDOC_REQUIRED_TEXT("cert", struct raw_agent, cert),
    YAMLDOC_REQUIRED_TEXT("key", struct raw_agent, key),
    YAMLDOC_PART("capacity", struct raw_agent, capacity, capacity_fields),
    CYAML_FIELD_IGNORE("labels", CYAML_FLAG_OPTIONAL),
    YAMLDOC_PART("cells", struct raw_agent, cells, cells_fields),
    YAMLDOC_PART("gvisor", struct raw_agent, gvisor, gvisor_fields),
    YAMLDOC_PART("gpu", struct raw_agent, gpu, gpu_fields),
    YAMLDOC_PART("network", struct raw_agent, network, network_fields),
    YAMLDOC_TEXT("lease", struct raw_agent, lease),
    YAMLDOC_PART("limits", struct raw_agent, limits, agent_limits_fields),
    YAMLDOC_PART("log", struct raw_agent, log, log_fields),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t agent_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_agent, agent_fields)};

static const struct text_row agent_texts[] = {
    TEXT_ROW("cluster", TEXT_NAME, struct raw_agent, cluster, struct agent_config, cluster),
    TEXT_ROW("name", TEXT_NAME, struct raw_agent, name, struct agent_config, name),
    TEXT_ROW("data", TEXT_PATH, struct raw_agent, data, struct agent_config, data),
    TEXT_ROW("ca", TEXT_PATH, struct raw_agent, ca, struct agent_config, identity.ca),
    TEXT_ROW("cert", TEXT_PATH, struct raw_agent, cert, struct agent_config, identity.cert),
    TEXT_ROW("key", TEXT_PATH, struct raw_agent, key, struct agent_config, identity.key),
    TEXT_ROW("cells.root", TEXT_PATH, struct raw_agent, cells.root, struct agent_config,
             cells_root),
    TEXT_ROW("gvisor.program", TEXT_PATH, struct raw_agent, gvisor.program, struct agent_config,
             gvisor_program),
    TEXT_ROW("cells.canary", TEXT_PATH, struct raw_agent, cells.canary, struct agent_config,
             cells_canary),
    TEXT_ROW("gpu.library", TEXT_PATH, struct raw_agent, gpu.library, struct agent_config,
             gpu_library),
};

static const struct yamldoc_number agent_numbers[] = {
    YAMLDOC_NUMBER("capacity.cpu", struct raw_agent, capacity.cpu, UNIT_CPU, CONFIG_CPU_MILLIS_MIN,
                   CONFIG_CPU_MILLIS_MAX, struct agent_config, cpu_millis),
    YAMLDOC_NUMBER("capacity.memory", struct raw_agent, capacity.memory, UNIT_BYTES,
                   CONFIG_MEMORY_BYTES_MIN, CONFIG_MEMORY_BYTES_MAX, struct agent_config,
                   memory_bytes),
    YAMLDOC_NUMBER("cells.uids.first", struct raw_agent, cells.uids.first, UNIT_COUNT,
                   CONFIG_UID_MIN, CONFIG_UID_MAX, struct agent_config, cells_uid_first),
    YAMLDOC_NUMBER("cells.uids.count", struct raw_agent, cells.uids.count, UNIT_COUNT, 1,
                   CONFIG_UID_MAX, struct agent_config, cells_uid_count),
    YAMLDOC_NUMBER("cells.io_bps", struct raw_agent, cells.io_bps, UNIT_BYTES, CONFIG_IO_BPS_MIN,
                   CONFIG_IO_BPS_MAX, struct agent_config, cells_io_bps),
    YAMLDOC_NUMBER("network.bandwidth", struct raw_agent, network.bandwidth, UNIT_BYTES,
                   CONFIG_BANDWIDTH_MIN, CONFIG_BANDWIDTH_MAX, struct agent_config,
                   network.bandwidth),
    YAMLDOC_NUMBER("network.connections", struct raw_agent, network.connections, UNIT_COUNT, 1,
                   CONFIG_CELL_CONNECTIONS_MAX, struct agent_config, network.connections),
    YAMLDOC_NUMBER("lease", struct raw_agent, lease, UNIT_DURATION, CONFIG_LEASE_MS_MIN,
                   CONFIG_LEASE_MS_MAX, struct agent_config, lease_ms),
    YAMLDOC_NUMBER("limits.chunks", struct raw_agent, limits.chunks, UNIT_BYTES,
                   CONFIG_CHUNK_BYTES_MIN, CONFIG_CHUNK_BYTES_MAX, struct agent_config,
                   chunk_bytes_max),
    YAMLDOC_NUMBER("limits.images", struct raw_agent, limits.images, UNIT_BYTES,
                   CONFIG_CHUNK_BYTES_MIN, CONFIG_CHUNK_BYTES_MAX, struct agent_config,
                   image_bytes_max),
};

static struct status schedulers_take(const struct yamldoc *d, struct raw_agent *raw,
                                     struct agent_config *c, struct errmsg *msg)
{
    for (uint32_t i = 0; i < raw->schedulers_count; i++) {
        char path[YAMLDOC_PATH_BYTES];
        (void)snprintf(path, sizeof path, "schedulers[%u]", i);
        TRY(yamldoc_blame(d, path, address_check(raw->schedulers[i], 1, msg), msg));
        for (uint32_t k = 0; k < i; k++) {
            if (strcmp(raw->schedulers[i], raw->schedulers[k]) == 0) {
                return yamldoc_fail(d, path, STATUS_INVALID, msg, "%s is given twice",
                                    raw->schedulers[i]);
            }
        }
    }
    c->schedulers = raw->schedulers;
    c->schedulers_count = raw->schedulers_count;
    raw->schedulers = NULL;
    raw->schedulers_count = 0;
    return status_ok();
}

static struct status labels_take(const struct yamldoc *d, struct agent_config *c,
                                 struct errmsg *msg)
{
    const struct yamlnode *n = yamldoc_find(d, "labels");
    if (n == NULL) {
        return status_ok();
    }
    if (n->kind != YAMLNODE_MAP) {
        return yamldoc_fail(d, "labels", STATUS_INVALID, msg,
                            "must be a mapping of keys to values");
    }
    if (n->count > CONFIG_LABELS_MAX) {
        return yamldoc_fail(d, "labels", STATUS_LIMIT, msg,
                            "has %u entries, at most %d are allowed", n->count, CONFIG_LABELS_MAX);
    }
    for (const struct yamlnode *l = n->first; l != NULL; l = l->next) {
        char path[YAMLDOC_PATH_BYTES];
        (void)snprintf(path, sizeof path, "labels.%s", l->key);
        if (l->kind != YAMLNODE_SCALAR) {
            return yamldoc_fail(d, path, STATUS_INVALID, msg, "must be a single value");
        }
        TRY(yamldoc_blame(d, path, label_check(l->key, l->text, msg), msg));
        TRY(text_pairs_put(&c->labels, &c->labels_count, l->key, l->text));
    }
    return status_ok();
}

static const struct yamldoc_number simulate_numbers[] = {
    YAMLDOC_NUMBER("memory", struct raw_simulate, memory, UNIT_BYTES, CONFIG_MEMORY_BYTES_MIN,
                   CONFIG_MEMORY_BYTES_MAX, struct config_gpu, memory_bytes),
    YAMLDOC_NUMBER("count", struct raw_simulate, count, UNIT_COUNT, 1, CONFIG_GPUS_MAX,
                   struct config_gpu, count),
};

static struct status model_check(const char *text, struct errmsg *msg)
{
    size_t size = strlen(text);
    for (size_t i = 0; i < size; i++) {
        if (text[i] < ' ' || text[i] > '~') {
            return status_fail(msg, STATUS_INVALID, "a model is of printable ASCII characters");
        }
    }
    return size <= CONFIG_GPU_MODEL_BYTES_MAX
               ? status_ok()
               : status_fail(msg, STATUS_LIMIT, "a model has at most %d bytes, this has %zu",
                             CONFIG_GPU_MODEL_BYTES_MAX, size);
}

static struct status simulate_take(const struct yamldoc *d, struct raw_simulate *raw,
                                   struct agent_config *c, struct errmsg *msg)
{
    struct config_gpu *g = &c->gpu_simulate[c->gpu_simulate_count];
    g->count = 1;
    char path[YAMLDOC_PATH_BYTES];
    for (size_t i = 0; i < sizeof simulate_numbers / sizeof simulate_numbers[0]; i++) {
        struct yamldoc_number row = simulate_numbers[i];
        (void)snprintf(path, sizeof path, "gpu.simulate[%zu].%s", c->gpu_simulate_count, row.path);
        row.path = path;
        TRY(yamldoc_numbers(d, &row, 1, raw, g, msg));
    }
    (void)snprintf(path, sizeof path, "gpu.simulate[%zu].model", c->gpu_simulate_count);
    TRY(yamldoc_blame(d, path, model_check(raw->model, msg), msg));
    g->model = raw->model;
    raw->model = NULL;
    c->gpu_simulate_count++;
    return status_ok();
}

static struct status cdi_take(const struct yamldoc *d, struct raw_gpu *raw, struct agent_config *c,
                              struct errmsg *msg)
{
    for (uint32_t i = 0; i < raw->cdi_count; i++) {
        char path[YAMLDOC_PATH_BYTES];
        (void)snprintf(path, sizeof path, "gpu.cdi[%u]", i);
        TRY(yamldoc_blame(d, path, path_check(raw->cdi[i], msg), msg));
    }
    c->gpu_cdi = raw->cdi;
    c->gpu_cdi_count = raw->cdi_count;
    raw->cdi = NULL;
    raw->cdi_count = 0;
    return status_ok();
}

static struct status gpu_take(const struct yamldoc *d, struct raw_gpu *raw, struct agent_config *c,
                              struct errmsg *msg)
{
    static const char *const words[] = {"auto", "off", NULL};
    unsigned discovery = GPU_DISCOVERY_AUTO;
    uint32_t count = 0;
    TRY(word_take(d, "gpu.discovery", words, raw->discovery, &discovery, msg));
    c->gpu_discovery = (enum gpu_discovery)discovery;
    TRY(cdi_take(d, raw, c, msg));
    if (raw->simulate_count == 0) {
        return status_ok();
    }
    c->gpu_simulate = mem_zalloc(raw->simulate_count, sizeof c->gpu_simulate[0]);
    if (c->gpu_simulate == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (uint32_t i = 0; i < raw->simulate_count; i++) {
        TRY(simulate_take(d, &raw->simulate[i], c, msg));
        count += c->gpu_simulate[i].count;
    }
    return count <= CONFIG_GPUS_MAX
               ? status_ok()
               : yamldoc_fail(d, "gpu.simulate", STATUS_LIMIT, msg,
                              "makes %u devices, at most %d are allowed", count, CONFIG_GPUS_MAX);
}

static struct status cells_take(const struct yamldoc *d, struct raw_cells *raw,
                                struct agent_config *c, struct errmsg *msg)
{
    static const char *const words[] = {"auto", "off", NULL};
    unsigned cgroup = 0;
    TRY(word_take(d, "cells.cgroup", words, raw->cgroup, &cgroup, msg));
    c->walls_not_needed = cgroup == 1 ? WALLS_CGROUP : 0;
    for (uint32_t i = 0; i < raw->walls_not_needed_count; i++) {
        char path[YAMLDOC_PATH_BYTES];
        enum wall wall = WALLS_COUNT_;
        (void)snprintf(path, sizeof path, "cells.walls_not_needed[%u]", i);
        if (!status_is_ok(wall_find_excusable(raw->walls_not_needed[i], &wall, msg))) {
            return yamldoc_blame(d, path, status_of(STATUS_INVALID), msg);
        }
        c->walls_not_needed |= UINT32_C(1) << wall;
    }
    if ((c->walls_not_needed & WALL_BIT(CGROUP_MEMORY)) != 0) {
        c->walls_not_needed |= WALL_BIT(CGROUP_SWAP); /* it is a part of the other */
    }
    if ((uint64_t)c->cells_uid_first + c->cells_uid_count - 1 > CONFIG_UID_MAX) {
        return yamldoc_fail(d, "cells.uids", STATUS_INVALID, msg, "ends above the highest user, %u",
                            (unsigned)CONFIG_UID_MAX);
    }
    if (c->cells_io_bps != 0 && (c->walls_not_needed & WALL_BIT(CGROUP_IO)) != 0) {
        return yamldoc_fail(d, "cells.io_bps", STATUS_INVALID, msg,
                            "needs the wall cgroup_io, which is named as not needed");
    }
    return status_ok();
}

static struct status network_take(const struct yamldoc *d, const struct raw_network *raw,
                                  struct config_network *n, struct errmsg *msg)
{
    static const char *const words[] = {"auto", "off", NULL};
    unsigned off = 0;
    TRY(word_take(d, "network.egress", words, raw->egress, &off, msg));
    n->off = off != 0;
    if (raw->pool != NULL) {
        TRY(yamldoc_blame(d, "network.pool", network_pool_parse(raw->pool, false, &n->pool, msg),
                          msg));
    }
    if (raw->pool6 != NULL) {
        TRY(yamldoc_blame(d, "network.pool6", network_pool_parse(raw->pool6, true, &n->pool6, msg),
                          msg));
    }
    if (raw->resolver != NULL) {
        TRY(yamldoc_blame(d, "network.resolver",
                          network_resolver_parse(raw->resolver, &n->resolver, msg), msg));
        n->has_resolver = true;
    }
    return status_ok();
}

static const char *const gvisor_choices[] = {"auto", "kvm", "systrap", "ptrace", NULL};

const char *gvisor_choice_name(enum gvisor_choice choice)
{
    CHECK((size_t)choice < sizeof gvisor_choices / sizeof gvisor_choices[0] - 1);
    return gvisor_choices[choice];
}

static struct status gvisor_take(const struct yamldoc *d, const struct raw_gvisor *raw,
                                 struct agent_config *c, struct errmsg *msg)
{
    static const char *const words[] = {"auto", "off", NULL};
    unsigned enabled = GVISOR_ENABLED_AUTO;
    unsigned platform = GVISOR_CHOICE_AUTO;
    TRY(word_take(d, "gvisor.enabled", words, raw->enabled, &enabled, msg));
    TRY(word_take(d, "gvisor.platform", gvisor_choices, raw->platform, &platform, msg));
    c->gvisor_enabled = (enum gvisor_enabled)enabled;
    c->gvisor_platform = (enum gvisor_choice)platform;
    if (c->gvisor_program == NULL) {
        c->gvisor_program = mem_strdup(CONFIG_RUNSC_DEFAULT);
    }
    return c->gvisor_program != NULL ? status_ok() : status_of(STATUS_NOMEM);
}

/* What this machine has, as far as we may use it. */
static void capacity_default(struct agent_config *c)
{
    cpu_set_t set;
    struct sysinfo info;
    int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    c->cpu_millis = (uint32_t)cpus * 1000;
    c->memory_bytes =
        sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit : CONFIG_MEMORY_BYTES_MIN;
}

static struct status agent_fill(const struct yamldoc *d, struct raw_agent *raw,
                                struct agent_config *c, struct errmsg *msg)
{
    *c = (struct agent_config){
        .lease_ms = CONFIG_LEASE_MS_DEFAULT,
        .chunk_bytes_max = CONFIG_AGENT_CHUNK_BYTES_DEFAULT,
        .cells_uid_first = CONFIG_UID_FIRST_DEFAULT,
        .cells_uid_count = CONFIG_UID_COUNT_DEFAULT,
        .image_bytes_max = CONFIG_AGENT_IMAGE_BYTES_DEFAULT,
    };
    capacity_default(c);
    network_defaults(&c->network);
    TRY(texts_take(d, agent_texts, sizeof agent_texts / sizeof agent_texts[0], raw, c, msg));
    TRY(schedulers_take(d, raw, c, msg));
    TRY(yamldoc_numbers(d, agent_numbers, sizeof agent_numbers / sizeof agent_numbers[0], raw, c,
                        msg));
    TRY(labels_take(d, c, msg));
    TRY(cells_take(d, &raw->cells, c, msg));
    TRY(gvisor_take(d, &raw->gvisor, c, msg));
    TRY(gpu_take(d, &raw->gpu, c, msg));
    TRY(network_take(d, &raw->network, &c->network, msg));
    return log_take(d, &raw->log, &c->log, msg);
}

/* ---- Loading ---- */

/* Says so once, where a failure was for want of memory. */
static struct status nomem_named(const struct yamldoc *d, struct status s, struct errmsg *msg)
{
    return s.code == STATUS_NOMEM ? status_fail(msg, STATUS_NOMEM, "%s: out of memory", d->name)
                                  : s;
}

/* Takes the document. */
static struct status scheduler_take(struct yamldoc *d, struct scheduler_config **out,
                                    struct errmsg *msg)
{
    void *raw = NULL;
    struct scheduler_config *c = NULL;
    struct status s = yamldoc_load(d, &scheduler_schema, &raw, msg);
    if (status_is_ok(s)) {
        c = mem_zalloc(1, sizeof *c);
        s = c != NULL ? scheduler_fill(d, raw, c, msg) : status_of(STATUS_NOMEM);
        s = nomem_named(d, s, msg);
    }
    yamldoc_unload(&scheduler_schema, raw);
    yamldoc_close(d);
    if (!status_is_ok(s)) {
        scheduler_config_close(c);
        return s;
    }
    *out = c;
    return status_ok();
}

struct status scheduler_config_load(const char *path, struct scheduler_config **out,
                                    struct errmsg *msg)
{
    struct yamldoc *d;
    TRY(yamldoc_open(&d, path, msg));
    return scheduler_take(d, out, msg);
}

struct status scheduler_config_parse(const char *name, struct bytes text,
                                     struct scheduler_config **out, struct errmsg *msg)
{
    struct yamldoc *d;
    TRY(yamldoc_parse(&d, name, text, msg));
    return scheduler_take(d, out, msg);
}

/* Takes the document. */
static struct status agent_take(struct yamldoc *d, struct agent_config **out, struct errmsg *msg)
{
    void *raw = NULL;
    struct agent_config *c = NULL;
    struct status s = yamldoc_load(d, &agent_schema, &raw, msg);
    if (status_is_ok(s)) {
        c = mem_zalloc(1, sizeof *c);
        s = c != NULL ? agent_fill(d, raw, c, msg) : status_of(STATUS_NOMEM);
        s = nomem_named(d, s, msg);
    }
    yamldoc_unload(&agent_schema, raw);
    yamldoc_close(d);
    if (!status_is_ok(s)) {
        agent_config_close(c);
        return s;
    }
    *out = c;
    return status_ok();
}

struct status agent_config_load(const char *path, struct agent_config **out, struct errmsg *msg)
{
    struct yamldoc *d;
    TRY(yamldoc_open(&d, path, msg));
    return agent_take(d, out, msg);
}

struct status agent_config_parse(const char *name, struct bytes text, struct agent_config **out,
                                 struct errmsg *msg)
{
    struct yamldoc *d;
    TRY(yamldoc_parse(&d, name, text, msg));
    return agent_take(d, out, msg);
}
