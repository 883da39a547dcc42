#include "agent/agent.h"

#include "agent/cell/cell_usage.h"
#include "agent/code.h"
#include "agent/core/agent_core.h"
#include "agent/egress/egress.h"
#include "agent/gpus.h"
#include "agent/gvisor_probe.h"
#include "agent/image/image_store.h"
#include "agent/instances.h"
#include "agent/isolation.h"
#include "agent/log_server.h"
#include "agent/network.h"
#include "agent/probe/probe.h"
#include "agent/renewal.h"
#include "agent/stats.h"
#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/pki/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RENEWAL_RETRY_S = 60 };

struct agent {
    uv_loop_t *loop;
    const struct agent_config *config;
    const struct agent_paths *paths;
    int lock_fd;
    struct credentials credentials;
    struct agent_core *core;
    struct pair labels[CONFIG_LABELS_MAX];
    struct code *code;
    struct egress *egress;
    struct image_store *images;
    struct instances *instances;
    struct isolation *isolation; /* NULL: there is no canary */
    struct network *network;
    struct log_server *logs;
    struct stats *stats;
    struct gpus *gpus;
    struct gvisor *gvisor;
    struct probe probe;
    struct probe_sample sample;
    struct cgroup_mounts mounts;
    bool cgroups;
    struct instance_usage usages[AGENT_USAGES_MAX];
    size_t usages_count;
    size_t
        /* cells before the first of the next heartbeat, when there are more than fit */
        usages_skip;
    size_t usages_seen;
    uv_timer_t deadline;
    uint64_t deadline_us; /* what it is set to */
    uv_timer_t beat;
    uint32_t beat_ms;
    uv_timer_t look; /* at the GPUs, while some are checked */
    uint64_t gpu_changes;
    bool timers_open;
    bool had_lease;
    uint64_t term;     /* of the leader that commands */
    char *renewal_key; /* of the renewal that is asked for */
    int64_t renewal_next_s;
    unsigned closing; /* parts that are not closed yet */
    bool stopping;
    void (*on_stopped)(void *data);
    void *stopped_data;
};

static uint64_t now_us(void)
{
    return uv_hrtime() / 1000;
}

/* ---- The clock ---- */

static void on_deadline(uv_timer_t *timer);
static void on_look(uv_timer_t *timer);

/* What instances hold has changed: devices that they let go are checked. */
static void gpus_sync(struct agent *a)
{
    uint64_t changes = agent_core_gpu_changes(a->core);
    if (changes == a->gpu_changes || a->stopping) {
        return;
    }
    a->gpu_changes = changes;
    const char *held[GPUS_MAX];
    size_t count = agent_core_gpus_held(a->core, held);
    gpus_use(a->gpus, held, count);
    (void)uv_timer_start(&a->look, on_look, gpus_look_ms(a->gpus), 0);
}

/* Sets the timer to the core's next deadline, when that is earlier. */
static void arm(struct agent *a)
{
    gpus_sync(a);
    uint64_t next_us = agent_core_next_us(a->core);
    if (next_us >= a->deadline_us || a->stopping) {
        return;
    }
    uint64_t now = now_us();
    uint64_t wait_ms = next_us > now ? (next_us - now + 999) / 1000 : 0;
    a->deadline_us = next_us;
    uv_update_time(a->loop);
    (void)uv_timer_start(&a->deadline, on_deadline, wait_ms, 0);
}

static void on_deadline(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    a->deadline_us = UINT64_MAX;
    agent_core_tick(a->core, now_us());
    arm(a);
}

/* ---- What the core asks ---- */

static bool env_send(void *data, uint64_t peer, const struct message *m)
{
    struct agent *a = data;
    if (m->type == MESSAGE_RESULT && m->result.run_us != 0) {
        stats_ran(a->stats, m->result.run_us);
    }
    return network_send(a->network, peer, m);
}

static struct status env_start(void *data, const struct start *s, struct errmsg *msg)
{
    struct agent *a = data;
    struct status status = instances_start(a->instances, s, msg);
    if (!status_is_ok(status)) {
        LOG_WARN("instance cannot start", LOG_STR("function", s->spec->name),
                 LOG_STR("why", msg->text));
    }
    return status;
}

static void env_stop(void *data, struct id128 instance, bool kill)
{
    struct agent *a = data;
    instances_stop(a->instances, instance, kill);
}

static struct status env_invoke(void *data, const struct invoke *i, struct errmsg *msg)
{
    struct agent *a = data;
    return instances_invoke(a->instances, i, a->term, msg);
}

static void env_cancel(void *data, struct id128 instance, struct id128 invocation, uint32_t attempt)
{
    struct agent *a = data;
    instances_cancel(a->instances, instance, invocation, attempt);
}

static void on_beat(uv_timer_t *timer);

/* Several heartbeats fit into a lease. */
static void beat_set(struct agent *a, uint32_t lease_ms)
{
    uint32_t ms = lease_ms / 4;
    ms = ms < AGENT_HEARTBEAT_MS_MIN ? AGENT_HEARTBEAT_MS_MIN : ms;
    ms = ms > AGENT_HEARTBEAT_MS ? AGENT_HEARTBEAT_MS : ms;
    if (ms != a->beat_ms && !a->stopping) {
        a->beat_ms = ms;
        (void)uv_timer_start(&a->beat, on_beat, ms, ms);
    }
}

/* No cell reaches a scheduler: those of the configuration, and those that the leader names. */
static void schedulers_shield(struct agent *a, const struct lead *l)
{
    const char *all[EGRESS_SCHEDULERS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < a->config->schedulers_count && count < EGRESS_SCHEDULERS_MAX; i++) {
        all[count++] = a->config->schedulers[i];
    }
    for (size_t i = 0; l != NULL && i < l->schedulers_count && count < EGRESS_SCHEDULERS_MAX; i++) {
        all[count++] = l->schedulers[i].value;
    }
    egress_schedulers(a->egress, all, count);
}

static void env_lead(void *data, uint64_t peer, uint64_t term, const struct lead *l)
{
    struct agent *a = data;
    (void)peer;
    a->term = term;
    LOG_INFO("leader", LOG_STR("scheduler", l->leader), LOG_UINT("term", term),
             LOG_UINT("lease_ms", l->lease_ms));
    beat_set(a, l->lease_ms != 0 ? l->lease_ms : a->config->lease_ms);
    network_revoke(a->network, l->revoked, l->revoked_count);
    network_learn(a->network, l->schedulers, l->schedulers_count);
    schedulers_shield(a, l);
}

/* ---- What the instances say ---- */

static void on_ready(void *data, struct id128 instance, uint32_t concurrency, uint64_t startup_us)
{
    struct agent *a = data;
    if (a->isolation != NULL && isolation_ready(a->isolation, instance)) {
        return;
    }
    stats_started(a->stats, startup_us);
    agent_core_instance_ready(a->core, now_us(), instance, concurrency, startup_us);
    arm(a);
}

static void on_ended(void *data, struct id128 instance, enum status_code code, const char *message)
{
    struct agent *a = data;
    if (a->isolation != NULL && isolation_ended(a->isolation, instance, message)) {
        return;
    }
    char text[ID_STRING_BYTES];
    id_format(instance, INSTANCE_PREFIX, text);
    LOG_INFO("instance ended", LOG_STR("instance", text), LOG_STR("status", status_name(code)),
             LOG_STR("why", message));
    agent_core_instance_ended(a->core, now_us(), instance, code, message);
    arm(a);
}

static void on_result(void *data, const struct result *r)
{
    struct agent *a = data;
    if (a->isolation != NULL && isolation_result(a->isolation, r)) {
        return;
    }
    agent_core_result(a->core, now_us(), r);
    arm(a);
}

/* ---- What the schedulers say ---- */

static void on_peer_open(void *data, uint64_t peer, const char *name)
{
    struct agent *a = data;
    struct status s = agent_core_peer_open(a->core, now_us(), peer);
    if (!status_is_ok(s)) {
        LOG_ERROR("cannot register", LOG_STR("scheduler", name),
                  LOG_STR("status", status_name(s.code)));
        network_drop(a->network, peer, "cannot register");
        return;
    }
    arm(a);
}

static void on_peer_close(void *data, uint64_t peer, const char *name)
{
    struct agent *a = data;
    (void)name;
    agent_core_peer_close(a->core, now_us(), peer);
    log_server_peer_close(a->logs, peer);
}

static void metrics_answer(struct agent *a, uint64_t peer, uint64_t request)
{
    struct agent_counts counts = {
        .core = agent_core_stats(a->core),
        .link = network_stats(a->network),
        .machine = a->sample,
        .schedulers = network_peers_count(a->network),
        .lease = agent_core_has_lease(a->core, now_us()),
        .cpu_millis = a->config->cpu_millis,
        .memory_bytes = a->config->memory_bytes,
        .egress = egress_stats(a->egress),
    };
    struct buffer text = {0};
    struct status s = stats_print(a->stats, &counts, &text);
    const struct message m = {
        .type = MESSAGE_METRICS_TEXT,
        .request = request,
        .metrics_text = {.code = (uint32_t)s.code,
                         .message = status_is_ok(s) ? "" : status_text(s.code),
                         .text = bytes_of(text.data, text.size)},
    };
    (void)network_send(a->network, peer, &m);
    buffer_close(&text);
}

static void on_message(void *data, uint64_t peer, const struct message *m)
{
    struct agent *a = data;
    if (m->type == MESSAGE_LOGS) {
        log_server_receive(a->logs, peer, m);
    } else if (m->type == MESSAGE_ISOLATION_CHECK) {
        /* Fenced as every other command. */
        if (a->isolation != NULL && m->term == a->term && peer == agent_core_leader(a->core)) {
            isolation_check(a->isolation, peer, m);
        }
    } else if (m->type == MESSAGE_METRICS_QUERY) {
        metrics_answer(a, peer, m->request);
    } else {
        agent_core_receive(a->core, now_us(), peer, m);
        arm(a);
    }
}

/* ---- Code from the leader ---- */

struct chunk_ask {
    struct agent *agent;
    uint64_t ticket;
    bool image; /* of an image, not of code */
};

static void on_chunk(void *data, struct status s, const struct message *m)
{
    struct chunk_ask *ask = data;
    struct agent *a = ask->agent;
    uint64_t ticket = ask->ticket;
    bool image = ask->image;
    mem_free(ask);
    const char *message = "the scheduler does not answer";
    struct bytes chunk = {0};
    if (status_is_ok(s) && m->type == MESSAGE_CHUNK_DATA) {
        s = status_of(status_from_wire(m->chunk_data.code));
        message = "the scheduler does not have a chunk of it";
        chunk = m->chunk_data.data;
    } else if (status_is_ok(s)) {
        enum status_code code =
            m->type == MESSAGE_REPLY ? status_from_wire(m->reply.code) : STATUS_INVALID;
        s = status_of(code == STATUS_OK ? STATUS_INVALID : code);
        message = m->type == MESSAGE_REPLY ? m->reply.message : "unexpected answer";
    }
    if (image) {
        image_store_chunk(a->images, ticket, s, chunk, message);
    } else {
        code_chunk(a->code, ticket, s, chunk, message);
    }
}

static struct status ask_peer(struct agent *a, uint64_t peer, const struct digest *digest,
                              uint64_t ticket, bool image)
{
    if (peer == 0) {
        return status_of(STATUS_UNAVAILABLE);
    }
    struct chunk_ask *ask = mem_alloc(sizeof *ask);
    if (ask == NULL) {
        return status_of(STATUS_NOMEM);
    }
    *ask = (struct chunk_ask){a, ticket, image};
    struct message m = {.type = MESSAGE_CHUNK_GET, .chunk_get = {.digest = *digest}};
    struct status s = network_ask(a->network, peer, &m, on_chunk, ask);
    if (!status_is_ok(s)) {
        mem_free(ask);
    }
    return s;
}

static struct status ask_chunk(void *data, const struct digest *digest, uint64_t ticket)
{
    struct agent *a = data;
    return ask_peer(a, agent_core_leader(a->core), digest, ticket, false);
}

/* The leader first, then one after the other. */
static struct status ask_image_chunk(void *data, const struct digest *digest, uint64_t ticket,
                                     uint32_t turn)
{
    struct agent *a = data;
    uint64_t leader = turn == 0 ? agent_core_leader(a->core) : 0;
    return ask_peer(a, leader != 0 ? leader : network_turn(a->network, turn), digest, ticket, true);
}

/* ---- The certificate ---- */

static void on_renewed(void *data, struct status s, const struct message *m)
{
    struct agent *a = data;
    char *key = a->renewal_key;
    a->renewal_key = NULL;
    struct errmsg msg = {.text = "no answer"};
    if (status_is_ok(s) && (m->type != MESSAGE_JOIN_REPLY || m->join_reply.code != STATUS_OK)) {
        s = status_fail(&msg, STATUS_DENIED, "%s",
                        m->type == MESSAGE_JOIN_REPLY ? m->join_reply.message
                        : m->type == MESSAGE_REPLY    ? m->reply.message
                                                      : "unexpected answer");
    }
    if (!status_is_ok(s)) {
        pki_key_free(key);
    } else {
        s = credentials_renew(&a->credentials, m->join_reply.cert, m->join_reply.ca, key,
                              (int64_t)time(NULL), &msg);
    }
    if (status_is_ok(s)) {
        const struct tls_identity own = credentials_tls(&a->credentials);
        s = network_renew(a->network, &own, &msg);
    }
    if (a->stopping) {
        return;
    }
    if (!status_is_ok(s)) {
        LOG_ERROR("certificate not renewed", LOG_STR("why", msg.text),
                  LOG_INT("expires_s", a->credentials.identity.not_after_s - (int64_t)time(NULL)));
        return;
    }
    a->renewal_next_s = 0;
    LOG_INFO("certificate renewed",
             LOG_INT("expires_s", a->credentials.identity.not_after_s - (int64_t)time(NULL)));
}

static void renew(struct agent *a)
{
    int64_t now_s = (int64_t)time(NULL);
    uint64_t leader = agent_core_leader(a->core);
    if (a->renewal_key != NULL || leader == 0 || now_s < a->renewal_next_s ||
        !credentials_due(&a->credentials, now_s)) {
        return;
    }
    a->renewal_next_s = now_s + RENEWAL_RETRY_S;
    char *csr = NULL;
    struct errmsg msg = {{0}};
    struct status s = pki_request_create(&csr, &a->renewal_key, &msg);
    if (status_is_ok(s)) {
        struct message m = {.type = MESSAGE_RENEW, .renew = {.csr = csr}};
        s = network_ask(a->network, leader, &m, on_renewed, a);
    }
    mem_free(csr);
    if (!status_is_ok(s)) {
        pki_key_free(a->renewal_key);
        a->renewal_key = NULL;
        LOG_ERROR("certificate renewal cannot be asked for", LOG_STR("status", status_name(s.code)),
                  LOG_STR("why", msg.text));
    }
}

/* ---- Heartbeats ---- */

static void usage_read(void *arg, struct id128 instance, const char *cgroup)
{
    struct agent *a = arg;
    a->usages_seen++;
    if (a->usages_seen <= a->usages_skip || a->usages_count >= AGENT_USAGES_MAX ||
        cgroup[0] == '\0') {
        return;
    }
    struct cell_usage u;
    if (!status_is_ok(cell_usage_read(&a->mounts, cgroup, &u, NULL))) {
        return;
    }
    a->usages[a->usages_count++] = (struct instance_usage){
        .instance = instance,
        .memory_bytes = u.memory_bytes,
        .memory_peak_bytes = u.memory_peak_bytes,
        .cpu_us = u.cpu_usage_us,
        .processes = u.pids,
    };
}

/* As many cells as fit into one heartbeat; the others have their turn in the next. */
static void usages_read(struct agent *a)
{
    a->usages_count = 0;
    a->usages_seen = 0;
    if (!a->cgroups) {
        return;
    }
    instances_cells(a->instances, usage_read, a);
    a->usages_skip += AGENT_USAGES_MAX;
    if (a->usages_skip >= a->usages_seen) {
        a->usages_skip = 0;
    }
}

static void lease_watch(struct agent *a, uint64_t now)
{
    bool lease = agent_core_has_lease(a->core, now);
    if (lease != a->had_lease) {
        a->had_lease = lease;
        if (lease) {
            LOG_INFO("lease held: taking work");
        } else {
            LOG_WARN("lease lost: no new work until a leader answers");
        }
    }
}

static void beat(struct agent *a)
{
    uint64_t now = now_us();
    probe_read(&a->probe, now, &a->sample);
    usages_read(a);
    bool gpus_changed;
    struct gpu_inventory *gpu = gpus_beat(a->gpus, now, &gpus_changed);
    if (gpus_changed) {
        stats_gpus(a->stats, gpus_inventory(a->gpus));
    }
    const struct heartbeat h = {
        .cpu_used_millis = a->sample.cpu_used_millis,
        .memory_used_bytes = a->sample.memory_used_bytes,
        .memory_total_bytes = a->sample.memory_total_bytes,
        .load1_milli = a->sample.load1_milli,
        .psi_cpu_milli = a->sample.psi_cpu_milli,
        .psi_memory_milli = a->sample.psi_memory_milli,
        .psi_io_milli = a->sample.psi_io_milli,
        .disk_free_bytes = a->sample.disk_free_bytes,
        .instances = a->usages,
        .instances_count = a->usages_count,
        .gpu = gpu,
        .gpu_count = gpu != NULL ? 1 : 0,
    };
    agent_core_gvisor(a->core, gvisor_platform(a->gvisor), gvisor_why(a->gvisor));
    agent_core_heartbeat(a->core, now, &h);
    lease_watch(a, now);
    network_tick(a->network);
    egress_tick(a->egress);
    renew(a);
    arm(a);
}

static void on_beat(uv_timer_t *timer)
{
    beat(timer->data);
}

/* Schedulers hear at once of devices that have become free or dirty. */
static void on_look(uv_timer_t *timer)
{
    struct agent *a = timer->data;
    if (gpus_look(a->gpus, now_us())) {
        beat(a);
    }
    uint32_t again_ms = gpus_look_ms(a->gpus);
    if (again_ms > 0 && !a->stopping) {
        (void)uv_timer_start(&a->look, on_look, again_ms, 0);
    }
}

/* ---- Opening ---- */

static struct status data_lock(struct agent *a, struct errmsg *msg)
{
    const char *data = a->config->data;
    if (mkdir(data, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "make %s: %s", data, strerror(errno));
    }
    char path[CONFIG_PATH_BYTES_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/agent.lock", data);
    a->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (a->lock_fd < 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    if (flock(a->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        return status_fail(msg, STATUS_CONFLICT, "%s: another agent has this data folder", data);
    }
    return status_ok();
}

/* Cells have control groups unless none of those walls is needed. */
static struct status cgroups_find(struct agent *a, struct errmsg *msg)
{
    a->cgroups = (a->config->walls_not_needed & WALLS_CGROUP) != WALLS_CGROUP;
    return a->cgroups ? cgroup_mounts_find(&a->mounts, msg) : status_ok();
}

static struct status egress_part(struct agent *a, struct errmsg *msg)
{
    const char *why;
    TRY(egress_open(&a->egress, a->loop, a->config->data, a->config->name.text, &a->config->network,
                    msg));
    if (!egress_able(a->egress, &why)) {
        LOG_WARN("no network egress: functions that ask for it do not run here",
                 LOG_STR("why", why));
    }
    return status_ok();
}

static struct status core_open(struct agent *a, struct errmsg *msg)
{
    for (size_t i = 0; i < a->config->labels_count && i < CONFIG_LABELS_MAX; i++) {
        a->labels[i] =
            (struct pair){.key = a->config->labels[i].key, .value = a->config->labels[i].value};
    }
    uint64_t boot;
    const char *why;
    if (RAND_bytes((unsigned char *)&boot, sizeof boot) != 1) {
        return status_fail(msg, STATUS_INTERNAL, "no random numbers");
    }
    const struct agent_core_config config = {
        .boot = boot,
        .cpu_millis = a->config->cpu_millis,
        .memory_bytes = a->config->memory_bytes,
        .lease_ms = a->config->lease_ms,
        .canary = a->paths->canary != NULL,
        .labels = a->labels,
        .labels_count = a->config->labels_count,
        .walls_not_needed = a->config->walls_not_needed,
        .egress = egress_able(a->egress, &why),
    };
    const struct agent_env env = {
        .data = a,
        .send = env_send,
        .start = env_start,
        .stop = env_stop,
        .invoke = env_invoke,
        .cancel = env_cancel,
        .lead = env_lead,
    };
    return agent_core_new(&a->core, &config, &env);
}

static bool adopt_found(void *data, const struct instance_found *f)
{
    struct agent *a = data;
    struct text gpus[GPUS_MAX];
    memcpy(gpus, f->gpus, sizeof gpus);
    const struct instance_report report = {
        .instance = f->instance,
        .revision = f->revision,
        .function = f->function,
        .state = f->ready ? INSTANCE_READY : INSTANCE_STARTING,
        .concurrency = f->concurrency,
        .cpu_millis = f->cpu_millis,
        .memory_bytes = f->memory_bytes,
        .startup_us = f->startup_us,
        .gpus = gpus,
        .gpus_count = f->gpus_count,
    };
    char text[ID_STRING_BYTES];
    id_format(f->instance, INSTANCE_PREFIX, text);
    struct status s = agent_core_adopt(a->core, now_us(), &report, f->timeout_ms);
    LOG_INFO("instance found", LOG_STR("instance", text), LOG_STR("function", f->function),
             LOG_STR("adoption", status_name(s.code)));
    return status_is_ok(s);
}

static void adopt_attempt(void *data, const struct attempt_report *r, uint32_t left_ms)
{
    struct agent *a = data;
    (void)!status_is_ok(agent_core_adopt_attempt(a->core, now_us(), r,
                                                 left_ms)); /* one that is lost here times out */
}

static uint64_t logs_queued(void *data, uint64_t peer)
{
    struct agent *a = data;
    return network_queued(a->network, peer);
}

static bool net_is_used(void *arg, struct id128 instance)
{
    const struct agent *a = arg;
    return instances_has(a->instances, instance);
}

static uint64_t memory_left(void *data)
{
    const struct agent *a = data;
    const struct probe_sample *s = &a->sample;
    if (s->memory_total_bytes == 0) {
        return UINT64_MAX; /* not read yet */
    }
    return s->memory_total_bytes > s->memory_used_bytes
               ? s->memory_total_bytes - s->memory_used_bytes
               : 0;
}

static struct status isolation_part(struct agent *a, struct errmsg *msg)
{
    if (a->paths->canary == NULL) {
        LOG_WARN("no canary: this node's isolation is not checked");
        return status_ok();
    }
    const struct isolation_env env = {a, env_send, memory_left};
    return isolation_open(&a->isolation, a->loop, a->instances, a->paths->canary, a->config->data,
                          &env, msg);
}

static struct status instances_part(struct agent *a, struct errmsg *msg)
{
    const struct code_env code = {a, ask_chunk};
    TRY(code_open(&a->code, a->loop, a->config->data, a->config->chunk_bytes_max, &code, msg));
    const struct image_env images = {a, ask_image_chunk};
    TRY(image_store_open(&a->images, a->loop, a->config->data, a->config->image_bytes_max, &images,
                         msg));
    const struct instances_config config = {
        .loop = a->loop,
        .data = a->config->data,
        .node = a->config->name.text,
        .cell_program = a->paths->cell,
        .gvisor_program = a->paths->gvisor,
        .runsc = a->config->gvisor_program,
        .gvisor = a->gvisor,
        .runners = a->paths->runners,
        .root = a->config->cells_root,
        .cgroups = a->cgroups,
        .walls_not_needed = a->config->walls_not_needed,
        .io_bps = a->config->cells_io_bps,
        .uid_first = a->config->cells_uid_first,
        .uid_count = geteuid() == 0 ? a->config->cells_uid_count : 0,
        .code = a->code,
        .egress = a->egress,
        .images = a->images,
        .gpus = a->gpus,
    };
    const struct instances_events events = {a, on_ready, on_ended, on_result};
    TRY(instances_open(&a->instances, &config, &events, msg));
    const struct log_server_env logs = {a, env_send, logs_queued};
    TRY(log_server_open(&a->logs, a->loop, a->instances, a->config->name.text, &logs));
    const struct instances_adoption adoption = {a, adopt_found, adopt_attempt};
    TRY(instances_adopt(a->instances, &adoption, msg));
    image_store_settle(a->images);
    schedulers_shield(a, NULL);
    egress_sweep(a->egress, net_is_used, a);
    return status_ok();
}

static struct status network_part(struct agent *a, struct errmsg *msg)
{
    const struct tls_identity own = credentials_tls(&a->credentials);
    const struct network_events events = {a, on_peer_open, on_peer_close, on_message};
    TRY(network_open(&a->network, a->loop, &own, &events, msg));
    for (size_t i = 0; i < a->config->schedulers_count; i++) {
        TRY(network_dial(a->network, a->config->schedulers[i], msg));
    }
    return status_ok();
}

static void timers_open(struct agent *a)
{
    CHECK(uv_timer_init(a->loop, &a->deadline) == 0);
    CHECK(uv_timer_init(a->loop, &a->beat) == 0);
    CHECK(uv_timer_init(a->loop, &a->look) == 0);
    a->look.data = a;
    a->deadline.data = a;
    a->beat.data = a;
    a->deadline_us = UINT64_MAX;
    a->timers_open = true;
}

static struct status open_parts(struct agent *a, struct errmsg *msg)
{
    TRY(data_lock(a, msg));
    const struct identity expect = {
        .cluster = a->config->cluster, .role = ROLE_AGENT, .name = a->config->name};
    TRY(credentials_open(&a->credentials, &a->config->identity, &expect, (int64_t)time(NULL), msg));
    TRY(stats_open(&a->stats));
    stats_walls(a->stats, a->config->walls_not_needed);
    probe_init(&a->probe, a->config->data);
    TRY(cgroups_find(a, msg));
    TRY(egress_part(a, msg));
    TRY(core_open(a, msg));
    TRY(gpus_open(&a->gpus, a->config, msg));
    agent_core_gpus(a->core, gpus_inventory(a->gpus));
    TRY(gvisor_open(&a->gvisor, a->loop, a->config, a->paths->gvisor, a->paths->runners));
    agent_core_gvisor(a->core, gvisor_platform(a->gvisor), gvisor_why(a->gvisor));
    TRY(instances_part(a, msg));
    TRY(isolation_part(a, msg));
    return network_part(a, msg);
}

static void ignore(void *data)
{
    (void)data;
}

struct status agent_open(struct agent **out, uv_loop_t *loop, const struct agent_config *config,
                         const struct agent_paths *paths, struct errmsg *msg)
{
    struct agent *a = mem_zalloc(1, sizeof *a);
    if (a == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    *a = (struct agent){.loop = loop, .config = config, .paths = paths, .lock_fd = -1};
    timers_open(a);
    struct status s = open_parts(a, msg);
    if (!status_is_ok(s)) {
        agent_stop(a, ignore, NULL);
        return s;
    }
    beat_set(a, a->config->lease_ms);
    arm(a);
    *out = a;
    return status_ok();
}

/* ---- Stopping: connections first, so that nothing is asked of the rest any more ---- */

static void agent_free(struct agent *a)
{
    code_close(a->code);
    image_store_close(a->images);
    agent_core_free(a->core);
    gpus_close(a->gpus);
    stats_close(a->stats);
    pki_key_free(a->renewal_key);
    credentials_close(&a->credentials);
    if (a->lock_fd >= 0) {
        (void)close(a->lock_fd);
    }
    void (*on_stopped)(void *data) = a->on_stopped;
    void *data = a->stopped_data;
    mem_free(a);
    on_stopped(data);
}

static void part_closed(void *data)
{
    struct agent *a = data;
    CHECK(a->closing > 0);
    a->closing--;
    if (a->closing == 0) {
        agent_free(a);
    }
}

static void instances_closed(void *data)
{
    struct agent *a = data;
    egress_close(a->egress, part_closed, a);
}

static void on_timer_closed(uv_handle_t *handle)
{
    part_closed(handle->data);
}

void agent_stop(struct agent *a, void (*on_stopped)(void *data), void *data)
{
    CHECK(!a->stopping);
    a->stopping = true;
    a->on_stopped = on_stopped;
    a->stopped_data = data;
    /* The networks last: instances that end here let go of theirs. */
    a->closing = 3U + (a->network != NULL) + (a->egress != NULL) + (a->gvisor != NULL) +
                 (a->isolation != NULL);
    log_server_close(a->logs);
    uv_close((uv_handle_t *)&a->deadline, on_timer_closed);
    uv_close((uv_handle_t *)&a->beat, on_timer_closed);
    uv_close((uv_handle_t *)&a->look, on_timer_closed);
    if (a->network != NULL) {
        network_close(a->network, part_closed, a);
    }
    if (a->isolation != NULL) {
        isolation_close(a->isolation, part_closed, a);
        a->isolation = NULL;
    }
    if (a->instances != NULL) {
        instances_close(a->instances, instances_closed, a);
    } else if (a->egress != NULL) {
        egress_close(a->egress, part_closed, a);
    }
    if (a->gvisor != NULL) {
        gvisor_close(a->gvisor, part_closed, a);
    }
}
