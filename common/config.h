/* Configuration files: of the scheduler, of the agent, and the command line's contexts. YAML, read
 * once at start; errors are one line, FILE:LINE: KEY: what is wrong. Unknown keys are errors. Paths
 * are absolute, addresses HOST:PORT ([HOST]:PORT for IPv6).
 *
 * scheduler.yaml
 *     cluster: prod                   required
 *     id: s1                          required
 *     listen: 0.0.0.0:7400            required; port 0 picks one
 *     advertise: 10.0.0.1:7400        default: listen
 *     data: /var/lib/skep/scheduler   required
 *     ca: PATH                        required, and so are cert and key
 *     ca_key: PATH                    of the scheduler that signs joins
 *     peers: [{id: s1, address: 10.0.0.1:7400}, ...]   required
 *     raft: {election_timeout: 500ms, heartbeat: 50ms, ballast: 64Mi, free_min: 192Mi}
 *                                     free_min: with less space free on the disk of data nothing is
 *                                     accepted; ballast: a file that is given up when it is full;
 *                                     snapshot_entries: 65536, how much log makes a snapshot due
 *     limits: {connections: 4096, send_queue: 64Mi, chunks: 64Gi,
 *              payloads: 8Gi}
 *     seal: {cluster_key: file:PATH}      or credential:NAME, or pkcs11:URI; default: nothing on
 *     disk
 *                                     is sealed. cluster_key_old: the one before, while it is
 *                                     replaced; pkcs11_module: PATH
 *     backup: {every: 6h, keep: 28, to: file:/PATH}   or s3://BUCKET/PREFIX with region: and
 *                                     credentials: PATH, and endpoint: https://HOST and
 *                                     endpoint_ca:
 *                                     PATH where it is not AWS; default: no scheduled backups
 *     log: {level: info, format: kv}
 *
 * agent.yaml
 *     cluster: prod                   required
 *     name: node-7                    required
 *     schedulers: [10.0.0.1:7400]     required
 *     data: /var/lib/skep/agent       required
 *     ca: PATH                        required, and so are cert and key
 *     capacity: {cpu: 8, memory: 32Gi}    default: the machine's
 *     labels: {zone: a}
 *     cells: {root: PATH, walls_not_needed: [landlock, cgroup_io], uids: {first: 2000000000,
 *             count: 65536}, io_bps: 100Mi}
 *                                     root default: made from /usr; walls_not_needed: of
 *                                     common/wall.h, those that are not built on this machine,
 *                                     where the agent does not start without the others; uids: of
 *                                     root's agent, the users outside that cells run as; io_bps:
 *                                     bytes a second from and to each disk, default: no limit;
 *                                     cgroup: off says the same as naming the five cgroup walls
 *                                     that limit; canary: PATH of the isolation checks' program
 *     gvisor: {enabled: auto, platform: auto, program: /usr/bin/runsc}
 *                                     enabled: auto or off; platform: auto, kvm, systrap, ptrace
 *     gpu: {discovery: auto, library: PATH, simulate: [{model: H100, memory: 80Gi, count: 8}],
 *           cdi: [/etc/cdi, /var/run/cdi]}
 *                                     discovery: auto or off; library: libnvidia-ml.so.1, where the
 *                                     loader does not find it; simulate: devices for development,
 *                                     instead of those that are there; count default: 1; cdi:
 *                                     folders with specifications of devices
 *     network: {egress: auto, pool: 100.64.128.0/18, pool6: "[fd53:6b65:70ea::]/64",
 *               resolver: 10.0.0.2, bandwidth: 64Mi, connections: 256}
 *                                     what functions with network.egress get: egress: auto or off;
 *                                     pool, pool6: addresses of their cells; resolver: the one
 *                                     that they may ask, default: none; bandwidth: bytes a second
 *                                     of a cell in each direction; connections: of a cell at once
 *     lease: 10s
 *     limits: {chunks: 16Gi, images: 32Gi}
 *     log: {level: info, format: kv}
 *
 * contexts (the command line's):
 *     current: prod                  default: the only context there is
 *     contexts: [{name: prod, schedulers: [HOST:PORT], ca: PATH, cert: PATH, key: PATH}]
 *
 * Thread: the owner's; no shared state. */
#ifndef COMMON_CONFIG_H
#define COMMON_CONFIG_H

#include "common/buffer.h"
#include "common/egress_rule.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/manifest.h"
#include "common/status.h"
#include "common/wall.h"

#include <stdint.h>

enum {
    CONFIG_PATH_BYTES_MAX = 4095,
    CONFIG_ADDRESS_BYTES_MAX = 255,
    CONFIG_SCHEDULERS_MAX = 9,
    CONFIG_LABELS_MAX = 32,
    CONFIG_CONTEXTS_MAX = 64,
    CONFIG_GPUS_MAX = 64, /* simulated ones of an agent */
    CONFIG_GPU_MODEL_BYTES_MAX = 64,
    CONFIG_UID_FIRST_DEFAULT = 2000000000,
    CONFIG_UID_COUNT_DEFAULT = 65536,
    CONFIG_UID_MIN = 1000, /* below are the system's own (deb-policy 9.2.2) */
    CONFIG_CDI_FOLDERS_MAX = 8,
};

enum {
    CONFIG_ELECTION_TIMEOUT_MS_MIN = 50,
    CONFIG_ELECTION_TIMEOUT_MS_MAX = 60 * 1000,
    CONFIG_ELECTION_TIMEOUT_MS_DEFAULT = 500,
    CONFIG_HEARTBEAT_MS_MIN = 5,
    CONFIG_HEARTBEAT_MS_MAX = 10 * 1000,
    CONFIG_SNAPSHOT_ENTRIES_MIN = 1024,
    CONFIG_SNAPSHOT_ENTRIES_MAX = 1 << 20,
    CONFIG_SNAPSHOT_ENTRIES_DEFAULT = 65536,
    CONFIG_HEARTBEAT_MS_DEFAULT = 50,
    CONFIG_HEARTBEATS_MIN = 3, /* in one election timeout */
    CONFIG_CONNECTIONS_MIN = 8,
    CONFIG_CONNECTIONS_MAX = 65536,
    CONFIG_CONNECTIONS_DEFAULT = 4096,
    CONFIG_LEASE_MS_MIN = 500,
    CONFIG_LEASE_MS_MAX = 3600 * 1000,
    CONFIG_LEASE_MS_DEFAULT = 10 * 1000,
    CONFIG_CPU_MILLIS_MIN = 100,
    CONFIG_CPU_MILLIS_MAX = 4096 * 1000,
};
enum {
    CONFIG_POOL_BITS_MIN = 12,
    CONFIG_POOL_BITS_MAX = 30,
    CONFIG_POOL6_BITS_MIN = 32,
    CONFIG_POOL6_BITS_MAX = 96,
    CONFIG_CELL_CONNECTIONS_MAX = 65536,
    CONFIG_CELL_CONNECTIONS_DEFAULT = 256,
};
#define CONFIG_POOL_DEFAULT "100.64.128.0/18"
#define CONFIG_POOL6_DEFAULT "[fd53:6b65:70ea::]/64"
#define CONFIG_BANDWIDTH_MIN (UINT64_C(16) << 10)
#define CONFIG_BANDWIDTH_MAX (UINT64_C(64) << 30)
#define CONFIG_BANDWIDTH_DEFAULT (UINT64_C(64) << 20)
#define CONFIG_BACKUP_EVERY_MS_MIN UINT64_C(1000)
#define CONFIG_BACKUP_EVERY_MS_MAX (UINT64_C(366) * 24 * 3600 * 1000)
#define CONFIG_BACKUP_EVERY_MS_DEFAULT (UINT64_C(6) * 3600 * 1000)
enum { CONFIG_BACKUP_KEEP_MAX = 10000, CONFIG_BACKUP_KEEP_DEFAULT = 28 };
#define CONFIG_QUEUE_BYTES_MIN (UINT64_C(8) << 20)
#define CONFIG_QUEUE_BYTES_MAX (UINT64_C(16) << 30)
#define CONFIG_QUEUE_BYTES_DEFAULT (UINT64_C(64) << 20)
#define CONFIG_BALLAST_BYTES_DEFAULT (UINT64_C(64) << 20)
#define CONFIG_FREE_BYTES_MIN_DEFAULT (UINT64_C(192) << 20)
#define CONFIG_CHUNK_BYTES_MIN (UINT64_C(1) << 20)
#define CONFIG_CHUNK_BYTES_MAX (UINT64_C(64) << 40)
#define CONFIG_SCHEDULER_CHUNK_BYTES_DEFAULT (UINT64_C(64) << 30)
#define CONFIG_PAYLOAD_BYTES_MIN (UINT64_C(8) << 20)
#define CONFIG_PAYLOAD_BYTES_DEFAULT (UINT64_C(8) << 30)
#define CONFIG_AGENT_CHUNK_BYTES_DEFAULT (UINT64_C(16) << 30)
#define CONFIG_UID_MAX UINT64_C(4294967293) /* what is above means nobody and nothing */
#define CONFIG_IO_BPS_MIN (UINT64_C(64) << 10)
#define CONFIG_IO_BPS_MAX (UINT64_C(64) << 40)
#define CONFIG_AGENT_IMAGE_BYTES_DEFAULT (UINT64_C(32) << 30)
#define CONFIG_MEMORY_BYTES_MIN (UINT64_C(16) << 20)
#define CONFIG_MEMORY_BYTES_MAX (UINT64_C(64) << 40)

struct config_log {
    enum log_level level;
    enum log_format format;
};

/* The files of our identity. */
struct config_identity {
    char *ca;
    char *cert;
    char *key;
};

/* The key of encryption at rest; common/seal/wrap.h has the forms. */
struct config_seal {
    char *cluster_key;     /* NULL: nothing is sealed */
    char *cluster_key_old; /* may be NULL */
    char *pkcs11_module;   /* may be NULL */
};

/* Scheduled backups. */
#define CONFIG_BACKUP_FOLDER "file:"
#define CONFIG_BACKUP_S3 "s3://"
struct config_backup {
    char *to; /* NULL: none. file:/PATH, or s3://BUCKET or s3://BUCKET/PREFIX */
    uint64_t every_ms;
    uint32_t keep;     /* older ones are removed */
    char *endpoint;    /* NULL: AWS's of the region */
    char *endpoint_ca; /* whom to trust there; NULL: the system's list */
    char *region;
    char *credentials; /* a file; NULL for folders only */
};

struct config_peer {
    struct name id;
    char *address;
};

struct scheduler_config {
    struct name cluster;
    struct name id;
    char *listen;
    char *advertise; /* equals listen when not given */
    char *data;
    struct config_identity identity;
    char *ca_key; /* NULL: this scheduler signs nothing */
    /* The schedulers to begin with. bootstrap: this one is among them, so that a first start with
     * an empty data folder founds the cluster with exactly these members; otherwise it waits until
     * it is added. */
    struct config_peer *peers;
    size_t peers_count;
    bool bootstrap;
    uint32_t election_timeout_ms;
    uint32_t heartbeat_ms;
    uint32_t snapshot_entries;
    uint64_t ballast_bytes;  /* 0: none */
    uint64_t free_bytes_min; /* 0: no mark */
    uint32_t connections_max;
    uint64_t send_queue_bytes;
    uint64_t chunk_bytes_max;   /* of the chunk store */
    uint64_t payload_bytes_max; /* of the payload store */
    struct config_seal seal;
    struct config_backup backup;
    struct config_log log;
};

#define CONFIG_RUNSC_DEFAULT "/usr/bin/runsc"
enum gvisor_enabled { GVISOR_ENABLED_AUTO, GVISOR_ENABLED_OFF };
enum gvisor_choice {
    GVISOR_CHOICE_AUTO,
    GVISOR_CHOICE_KVM,
    GVISOR_CHOICE_SYSTRAP,
    GVISOR_CHOICE_PTRACE,
};
/* "auto", "kvm", "systrap", "ptrace". */
const char *gvisor_choice_name(enum gvisor_choice choice);

enum gpu_discovery { GPU_DISCOVERY_AUTO, GPU_DISCOVERY_OFF };

/* What instances with egress rules get. */
struct config_network {
    bool off;             /* none runs on this node */
    struct ip_range pool; /* of the cells' addresses; two each */
    struct ip_range pool6;
    bool has_resolver;
    struct ip_range resolver; /* one address */
    uint64_t bandwidth;       /* bytes a second of a cell, in each direction */
    uint32_t connections;     /* of a cell at once */
};

/* So many GPUs that are not there. */
struct config_gpu {
    char *model;
    uint64_t memory_bytes;
    uint32_t count;
};

struct agent_config {
    struct name cluster;
    struct name name;
    char **schedulers;
    size_t schedulers_count;
    char *data;
    struct config_identity identity;
    uint32_t cpu_millis; /* what the agent may hand out */
    uint64_t memory_bytes;
    struct text_pair *labels; /* sorted by key */
    size_t labels_count;
    wall_set walls_not_needed;
    uint32_t cells_uid_first; /* outside uids of cells, where the agent is root */
    uint32_t cells_uid_count;
    uint64_t cells_io_bps; /* 0: no limit */
    char *cells_root;      /* a root file system for cells; NULL: made from the host's /usr */
    enum gvisor_enabled gvisor_enabled;
    enum gvisor_choice gvisor_platform;
    char *gvisor_program; /* runsc */
    char *cells_canary;   /* the program of the isolation checks; NULL: the one beside the agent */
    enum gpu_discovery gpu_discovery;
    char *gpu_library; /* NULL: as the loader finds it */
    struct config_gpu *gpu_simulate;
    size_t gpu_simulate_count;
    struct config_network network;
    char **gpu_cdi; /* folders of CDI files; none: the usual ones */
    size_t gpu_cdi_count;
    uint32_t lease_ms;
    uint64_t chunk_bytes_max; /* of the code cache */
    uint64_t image_bytes_max; /* of the images' files */
    struct config_log log;
};

/* One cluster the command line can talk to. */
struct context {
    char *name;
    char **schedulers;
    uint32_t schedulers_count;
    char *ca;
    char *cert;
    char *key;
};

struct context_config {
    char *current; /* NULL: none chosen */
    struct context *contexts;
    uint32_t contexts_count;
};

/* Each reads and checks the whole file. *out is heap, ended by its close function. NOT_FOUND,
 * DENIED, IO, INVALID, LIMIT, NOMEM; the message names file, line and key. The parse functions take
 * the text from memory; name stands for the file. */
NODISCARD struct status scheduler_config_load(const char *path, struct scheduler_config **out,
                                              struct errmsg *msg);
NODISCARD struct status scheduler_config_parse(const char *name, struct bytes text,
                                               struct scheduler_config **out, struct errmsg *msg);
void scheduler_config_close(struct scheduler_config *c); /* frees c; NULL is fine */

NODISCARD struct status agent_config_load(const char *path, struct agent_config **out,
                                          struct errmsg *msg);
NODISCARD struct status agent_config_parse(const char *name, struct bytes text,
                                           struct agent_config **out, struct errmsg *msg);
void agent_config_close(struct agent_config *c);

NODISCARD struct status context_config_load(const char *path, struct context_config **out,
                                            struct errmsg *msg);
NODISCARD struct status context_config_parse(const char *name, struct bytes text,
                                             struct context_config **out, struct errmsg *msg);
/* An empty one, to put contexts into. NULL when out of memory. */
struct context_config *context_config_new(void);
void context_config_close(struct context_config *c);

/* The context of that name; name NULL: the current one, or the only one. NOT_FOUND with a message
 * that says what there is. */
NODISCARD struct status context_find(const struct context_config *c, const char *name,
                                     const struct context **out, struct errmsg *msg);
/* Inserts a copy of the context or replaces the one of that name, and makes it the current one when
 * current is set. INVALID, LIMIT, NOMEM; unchanged then. */
NODISCARD struct status context_put(struct context_config *c, const struct context *context,
                                    bool current, struct errmsg *msg);
/* NOT_FOUND. When it was the current one, none is. */
NODISCARD struct status context_remove(struct context_config *c, const char *name);
/* Writes the file atomically (temporary file beside it, fsync, rename), mode 0600. */
NODISCARD struct status context_config_save(const struct context_config *c, const char *path,
                                            struct errmsg *msg);

/* Are the texts of a backup section what they must be (config_backup.c)? The message does not name
 * the key. */
NODISCARD struct status backup_to_check(const char *text, struct errmsg *msg);
NODISCARD struct status backup_endpoint_check(const char *text, struct errmsg *msg);
NODISCARD struct status backup_region_check(const char *text, struct errmsg *msg);

/* The values of a network section (config_network.c). INVALID; the message does not name the
 * key. */
NODISCARD struct status network_pool_parse(const char *text, bool v6, struct ip_range *out,
                                           struct errmsg *msg);
NODISCARD struct status network_resolver_parse(const char *text, struct ip_range *out,
                                               struct errmsg *msg);
void network_defaults(struct config_network *n);

/* Is text HOST:PORT with a port of at least port_min? The message does not name the key. */
NODISCARD struct status address_check(const char *text, uint16_t port_min, struct errmsg *msg);
/* Is text an absolute path of at most CONFIG_PATH_BYTES_MAX? */
NODISCARD struct status path_check(const char *text, struct errmsg *msg);

#endif
