/* The table of instances: start, stop, invoke, adoption, and the order in which an instance
 * ends. */
#include "agent/instances.h"

#include "agent/gvisor_probe.h"
#include "agent/instance.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/package.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static uint64_t now_us(void)
{
    return uv_hrtime() / 1000;
}

static struct instance *find(const struct instances *t, struct id128 id)
{
    struct instance *i;
    HASH_FIND(hh, t->all, &id, sizeof id, i);
    return i;
}

/* ---- Folders ---- */

/* The module checks at its start that all paths below its folders fit. */
static void folder_of(const struct instances *t, struct id128 id, char out[INSTANCE_PATH_BYTES_MAX])
{
    char text[ID_STRING_BYTES];
    id_format(id, INSTANCE_PREFIX, text);
    int n = snprintf(out, INSTANCE_PATH_BYTES_MAX, "%s/%s", t->folder, text);
    CHECK(n > 0 && n < INSTANCE_PATH_BYTES_MAX);
}

static void ended_log_of(const struct instances *t, const char *id_text, char *out, size_t size)
{
    int n = snprintf(out, size, "%s/%s.log", t->ended_folder, id_text);
    CHECK(n > 0 && (size_t)n < size);
}

static struct status folder_make(const char *path, bool fresh, struct errmsg *msg)
{
    if (mkdir(path, 0700) != 0 && (fresh || errno != EEXIST)) {
        return status_fail(msg, status_from_errno(errno), "make %s: %s", path, strerror(errno));
    }
    return status_ok();
}

/* Ids sort by time: the smallest names are the oldest logs. */
static void ended_logs_trim(const struct instances *t)
{
    struct dirent **names;
    int count = scandir(t->ended_folder, &names, NULL, alphasort);
    if (count < 0) {
        return;
    }
    int excess = count - 2 - INSTANCES_ENDED_LOGS_MAX; /* . and .. */
    for (int k = 0; k < count; k++) {
        if (names[k]->d_name[0] != '.' && excess > 0) {
            char path[INSTANCE_PATH_BYTES_MAX + NAME_MAX + 2];
            (void)snprintf(path, sizeof path, "%s/%s", t->ended_folder, names[k]->d_name);
            (void)unlink(path);
            excess--;
        }
        free(names[k]);
    }
    free(names);
}

/* Keeps the log, unless told otherwise, and removes the rest. */
static void folder_remove(const struct instances *t, struct id128 id, const char *folder,
                          bool keep_log)
{
    char from[INSTANCE_PATH_BYTES_MAX + 8];
    char to[INSTANCE_PATH_BYTES_MAX];
    char text[ID_STRING_BYTES];
    id_format(id, INSTANCE_PREFIX, text);
    (void)snprintf(from, sizeof from, "%s/log", folder);
    ended_log_of(t, text, to, sizeof to);
    if (keep_log && rename(from, to) == 0) {
        ended_logs_trim(t);
    }
    struct errmsg msg = {{0}};
    if (!status_is_ok(package_remove(folder, &msg))) {
        LOG_WARN("cannot remove an instance's folder", LOG_STR("why", msg.text));
    }
}

/* ---- Ending ---- */

static void on_soon(uv_timer_t *timer);

void instance_end_soon(struct instance *i, enum status_code code, const char *message)
{
    if (i->phase == PHASE_ENDING) {
        return;
    }
    struct instances *t = i->table;
    i->phase = PHASE_ENDING;
    i->end_code = code;
    (void)snprintf(i->end_message, sizeof i->end_message, "%s", message);
    i->end_listed = true;
    DL_APPEND2(t->ends, i, end_prev, end_next);
    (void)uv_timer_start(&t->soon, on_soon, 0, 0);
}

static void maybe_closed(struct instances *t)
{
    if (!t->closing || t->all != NULL || !t->soon_closed) {
        return;
    }
    packet_batch_close(&t->batch);
    void (*closed)(void *data) = t->closed;
    void *data = t->closed_data;
    mem_free(t);
    closed(data);
}

/* The agent's own: no revision, no log kept, in no list. */
static bool meta_is_own(const struct instance_meta *m)
{
    return digest_is_zero(&m->revision);
}

/* What it still waits for is not told any more. */
static void waits_forget(struct instance *i)
{
    if (i->code_waiting) {
        code_forget(i->table->config.code, &i->meta.revision, &i->wait);
        i->code_waiting = false;
    }
    if (i->image_waiting) {
        image_store_forget(i->table->config.images, &i->meta.image, &i->image_wait);
        i->image_waiting = false;
    }
    if (i->net_waiting) {
        egress_forget(i->table->config.egress, &i->net_wait);
        i->net_waiting = false;
    }
}

static void instance_free(struct instance *i)
{
    struct instances *t = i->table;
    CHECK(i->handles == 0);
    waits_forget(i);
    if (i->end_listed) {
        DL_DELETE2(t->ends, i, end_prev, end_next);
    }
    if (!i->left_alone) {
        folder_remove(t, i->id, i->folder, !meta_is_own(&i->meta));
        if (i->code_held) {
            code_put(t->config.code, &i->meta.revision);
        }
        if (i->image_held) {
            image_store_put(t->config.images, &i->meta.image);
        }
    }
    if (i->has_net && !i->left_alone) {
        egress_remove(t->config.egress, i->id);
    }
    inflight_close(&i->inflight);
    HASH_DEL(t->all, i);
    mem_free(i);
    maybe_closed(t);
}

void instance_settle(struct instance *i)
{
    bool done = i->left_alone || (i->end_told && (i->process_gone || i->pidfd < 0));
    if (!done && !i->closing) {
        return;
    }
    instance_let_go(i);
    if (i->handles == 0) {
        instance_free(i);
    }
}

/* Tells the ends that have come up, from the loop. */
static void on_soon(uv_timer_t *timer)
{
    struct instances *t = timer->data;
    while (t->ends != NULL) {
        struct instance *i = t->ends;
        DL_DELETE2(t->ends, i, end_prev, end_next);
        i->end_listed = false;
        i->end_told = true;
        t->events.ended(t->events.data, i->id, i->end_code, i->end_message);
        instance_settle(i);
    }
}

/* ---- Starting ---- */

static struct instance *instance_new(struct instances *t, struct id128 id)
{
    struct instance *i = mem_zalloc(1, sizeof *i);
    if (i == NULL) {
        return NULL;
    }
    i->id = id;
    i->table = t;
    i->pidfd = -1;
    i->client.fd = -1;
    folder_of(t, id, i->folder);
    HASH_ADD(hh, t->all, id, sizeof i->id, i);
    if (i->hh.tbl == NULL) {
        mem_free(i);
        return NULL;
    }
    return i;
}

/* One of the things that a start waits for is there, or cannot be had. */
static void part_came(struct instance *i, struct status s, const char *message)
{
    struct errmsg msg = {{0}};
    if (status_is_ok(s)) {
        if (i->code_waiting || i->image_waiting || i->net_waiting || i->phase != PHASE_FETCHING) {
            return;
        }
        s = instance_launch(i, &msg);
        message = msg.text;
    }
    if (!status_is_ok(s)) {
        waits_forget(i);
        instance_end_soon(i, s.code, message);
    }
}

static void on_net(void *data, struct status s, const char *message)
{
    struct instance *i = data;
    i->net_waiting = false;
    i->has_net = status_is_ok(s);
    part_came(i, s, message);
}

static struct status net_begin(struct instance *i, const struct function_spec *spec,
                               struct errmsg *msg)
{
    if (spec->egress_count == 0) {
        return status_ok();
    }
    if (i->table->config.egress == NULL) {
        return status_fail(msg, STATUS_UNSUPPORTED, "no network egress on this node");
    }
    i->net_wait = (struct egress_wait){.done = on_net, .data = i};
    TRY(egress_add(i->table->config.egress, i->id, spec->egress, spec->egress_count, &i->net_wait,
                   msg));
    i->net_waiting = true;
    i->has_net = true;
    return status_ok();
}

static bool uid_is_taken(const struct instances *t, uint32_t uid)
{
    for (const struct instance *i = t->all; i != NULL; i = i->hh.next) {
        if (i->meta.uid == uid) {
            return true;
        }
    }
    return false;
}

/* A user that no other cell of ours has, and lately none had: an instance keeps its own until its
 * process is gone. LIMIT. */
static struct status uid_choose(struct instances *t, uint32_t *uid, struct errmsg *msg)
{
    *uid = 0;
    if (t->config.uid_count == 0) {
        return status_ok();
    }
    for (uint32_t n = 0; n < t->config.uid_count; n++) {
        t->uid_last = (t->uid_last + 1) % t->config.uid_count;
        if (!uid_is_taken(t, t->config.uid_first + t->uid_last)) {
            *uid = t->config.uid_first + t->uid_last;
            return status_ok();
        }
    }
    return status_fail(msg, STATUS_LIMIT, "all %u users of cells.uids are in use",
                       t->config.uid_count);
}

static void on_code(void *data, struct status s, const char *message)
{
    struct instance *i = data;
    i->code_waiting = false;
    i->code_held = status_is_ok(s);
    part_came(i, s, message);
}

static void on_image(void *data, struct status s, const char *message)
{
    struct instance *i = data;
    i->image_waiting = false;
    i->image_held = status_is_ok(s);
    part_came(i, s, message);
}

/* What the start asks for, by a word that this agent knows: another would be run as a native
 * cell. */
static struct status isolation_of(const struct start *s, enum isolation_kind *kind,
                                  struct errmsg *msg)
{
    const char *text = s->spec->isolation;
    *kind = ISOLATION_CELL;
    if (text == NULL || text[0] == '\0') {
        return status_ok();
    }
    return status_prefix(msg, isolation_parse(text, kind, msg), "isolation");
}

/* The program that is to keep the instance. */
static struct status program_choose(struct instance *i, const struct start *s, struct errmsg *msg)
{
    const struct instances *t = i->table;
    enum isolation_kind kind;
    TRY(isolation_of(s, &kind, msg));
    i->gvisor = kind == ISOLATION_GVISOR;
    i->program = i->gvisor ? t->config.gvisor_program : t->config.cell_program;
    if (!i->gvisor) {
        return status_ok();
    }
    if (s->gpus_count > 0 || s->spec->egress_count > 0) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "gVisor gives functions no GPUs and no network");
    }
    return gvisor_platform(t->config.gvisor)[0] != '\0'
               ? status_ok()
               : status_fail(msg, STATUS_UNSUPPORTED, "no gVisor on this node: %s",
                             gvisor_why(t->config.gvisor));
}

static struct status files_write(struct instance *i, const struct start *s, const char *code,
                                 const struct gpu_edits *gpu, struct errmsg *msg)
{
    struct instances *t = i->table;
    char attempts[INSTANCE_PATH_BYTES_MAX + 16];
    char cgroup[sizeof i->meta.cgroup] = "";
    char netns[EGRESS_PATH_BYTES_MAX] = "";
    char resolv[EGRESS_PATH_BYTES_MAX] = "";
    char root[IMAGE_STORE_PATH_BYTES];
    if (s->spec->egress_count > 0 && t->config.egress != NULL) {
        egress_paths(t->config.egress, i->id, netns, resolv);
    }
    if (t->config.cgroups) {
        char text[ID_STRING_BYTES];
        id_format(i->id, INSTANCE_PREFIX, text);
        (void)snprintf(cgroup, sizeof cgroup, "skep/%s/%s", t->config.node, text);
    }
    uint32_t uid;
    TRY(uid_choose(t, &uid, msg));
    instance_meta_of(s, cgroup, &i->meta);
    i->meta.uid = uid;
    bool has_image = !digest_is_zero(&i->meta.image);
    if (has_image) {
        image_store_root(t->config.images, &i->meta.image, root);
    }
    const struct instance_place place = {
        .code = code,
        .runners = t->config.runners,
        .root = has_image ? root : t->config.root,
        .node = t->config.node,
        .cgroup = cgroup,
        .walls_not_needed = t->config.walls_not_needed,
        .io_bps = t->config.io_bps,
        .netns = netns,
        .resolv = resolv,
        .runsc = i->gvisor ? t->config.runsc : "",
        .platform = i->gvisor ? gvisor_platform(t->config.gvisor) : "",
        .gpu = gpu,
    };
    TRY(folder_make(i->folder, true, msg));
    TRY(instance_files_write(i->folder, s, &place, &i->meta, msg));
    (void)snprintf(attempts, sizeof attempts, "%s/attempts", i->folder);
    return inflight_create(&i->inflight, attempts, i->meta.concurrency, msg);
}

/* Asks for code and image; *here: both are there already. */
static struct status parts_get(struct instance *i, const struct start *s, bool *here,
                               struct errmsg *msg)
{
    struct instances *t = i->table;
    bool image_here = true;
    *here = false;
    if (!digest_is_zero(&i->meta.image)) {
        const struct image_wanted wanted = {
            .digest = i->meta.image, .bytes = s->image_bytes, .lists = s->image_lists};
        TRY(image_store_get(t->config.images, &wanted, &i->image_wait, &image_here, msg));
        i->image_waiting = !image_here;
        i->image_held = image_here;
    }
    TRY(code_get(t->config.code, &s->revision, s->spec->chunks, &i->wait, here, msg));
    i->code_waiting = !*here;
    i->code_held = *here;
    *here = *here && image_here;
    return status_ok();
}

/* An image that this agent cannot name would be left out, and the cell get the node's root. */
static struct status image_check(const struct start *s, struct errmsg *msg)
{
    struct image_ref ref;
    if (s->spec->image == NULL || s->spec->image[0] == '\0') {
        return status_ok();
    }
    TRY(image_ref_parse(s->spec->image, &ref, msg));
    return ref.pinned && !digest_is_zero(&ref.digest)
               ? status_ok()
               : status_fail(msg, STATUS_INVALID, "image: has no digest");
}

/* An instance with its folder written. On failure there is none. */
static struct status instance_make(struct instances *t, const struct start *s, const char *code,
                                   struct instance **out, struct errmsg *msg)
{
    if (s->spec->concurrency == 0 || s->spec->concurrency > INFLIGHT_SLOTS_MAX) {
        return status_fail(msg, STATUS_INVALID, "concurrency must be 1 to %d", INFLIGHT_SLOTS_MAX);
    }
    TRY(image_check(s, msg));
    struct instance *i = find(t, s->instance);
    if (i != NULL) {
        return status_fail(msg, STATUS_EXISTS, "the instance's former life has not ended");
    }
    i = instance_new(t, s->instance);
    if (i == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    i->begun_us = now_us();
    struct gpu_edits gpu = {.libraries = false};
    struct status status = program_choose(i, s, msg);
    if (status_is_ok(status) && t->config.gpus != NULL) {
        bool image = s->spec->image != NULL && s->spec->image[0] != '\0';
        status = gpus_inject(t->config.gpus, s, t->config.root == NULL && !image, &gpu, msg);
    }
    if (status_is_ok(status)) {
        status = files_write(i, s, code, &gpu, msg);
    }
    gpu_edits_close(&gpu);
    if (!status_is_ok(status)) {
        instance_free(i);
        return status;
    }
    *out = i;
    return status_ok();
}

struct status instances_start(struct instances *t, const struct start *s, struct errmsg *msg)
{
    char code[CODE_PATH_BYTES_MAX];
    struct instance *i;
    code_folder(t->config.code, &s->revision, code);
    TRY(instance_make(t, s, code, &i, msg));
    i->wait = (struct code_wait){.done = on_code, .data = i};
    i->image_wait = (struct image_wait){.done = on_image, .data = i};
    bool here = false;
    struct status status = net_begin(i, s->spec, msg);
    if (status_is_ok(status)) {
        status = parts_get(i, s, &here, msg);
    }
    if (status_is_ok(status) && here && !i->net_waiting) {
        status = instance_launch(i, msg);
    }
    if (!status_is_ok(status)) {
        instance_free(i);
    }
    return status;
}

struct status instances_start_own(struct instances *t, const struct start *s, const char *code,
                                  struct errmsg *msg)
{
    struct instance *i;
    TRY(instance_make(t, s, code, &i, msg));
    struct status status = instance_launch(i, msg);
    if (!status_is_ok(status)) {
        instance_free(i);
    }
    return status;
}

int instances_cell_pid(const struct instances *t, struct id128 instance)
{
    const struct instance *i = find(t, instance);
    return i == NULL ? 0 : (int)i->process.pid;
}

void instances_stop(struct instances *t, struct id128 instance, bool kill)
{
    struct instance *i = find(t, instance);
    if (i == NULL || i->phase == PHASE_ENDING) {
        return;
    }
    if (i->phase == PHASE_RUNNING) {
        instance_signal(i, kill);
        return;
    }
    waits_forget(i);
    instance_end_soon(i, STATUS_OK, "stopped before it was started");
}

/* ---- Invocations ---- */

struct status instances_invoke(struct instances *t, const struct invoke *v, uint64_t term,
                               struct errmsg *msg)
{
    struct instance *i = find(t, v->instance);
    if (i == NULL || i->phase != PHASE_RUNNING || !i->port_open) {
        return status_fail(msg, STATUS_UNAVAILABLE, "the instance has no runner");
    }
    uint64_t token;
    uint64_t due_ms = clock_unix_ms(clock_real()) + v->timeout_ms;
    if (!status_is_ok(inflight_put(&i->inflight, v->invocation, v->attempt, v->durable ? term : 0,
                                   due_ms, &token))) {
        return status_fail(msg, STATUS_LIMIT, "the instance is at its concurrency");
    }
    const struct runner_frame frame = {
        .type = RUNNER_INVOKE, .id = token, .arg = v->timeout_ms, .data = v->payload};
    bool queued = false;
    struct status s = runner_port_send(&i->port, &frame, &queued);
    if (!status_is_ok(s)) {
        inflight_remove(&i->inflight, token);
        return status_fail(msg, s.code,
                           s.code == STATUS_LIMIT ? "the runner does not read"
                                                  : "the runner is gone");
    }
    if (!queued) {
        inflight_find(&i->inflight, token)->sent = 1;
    }
    return status_ok();
}

void instances_cancel(struct instances *t, struct id128 instance, struct id128 invocation,
                      uint32_t attempt)
{
    struct instance *i = find(t, instance);
    if (i == NULL || !i->port_open) {
        return;
    }
    const struct runner_frame frame = {.type = RUNNER_CANCEL,
                                       .id = inflight_token(&i->inflight, invocation, attempt)};
    bool queued;
    if (frame.id != 0) {
        (void)!status_is_ok(runner_port_send(&i->port, &frame, &queued)); /* best effort */
    }
}

/* ---- Adoption ---- */

static void attempts_adopt(struct instance *i, const struct instances_adoption *a)
{
    uint64_t now_ms = clock_unix_ms(clock_real());
    for (uint32_t k = 0; k < inflight_slots(&i->inflight); k++) {
        const struct inflight_slot *slot = inflight_at(&i->inflight, k);
        if (slot == NULL) {
            continue;
        }
        if (slot->sent == 0) {
            inflight_remove(&i->inflight,
                            slot->token); /* the runner has not got all of it and will not run it */
            continue;
        }
        uint64_t left_ms = slot->due_unix_ms > now_ms ? slot->due_unix_ms - now_ms : 0;
        uint64_t term = inflight_term(&i->inflight, slot->token);
        const struct attempt_report report = {.invocation = slot->invocation,
                                              .attempt = slot->attempt,
                                              .instance = i->id,
                                              .attempt_term = term,
                                              .durable = term != 0};
        a->attempt(a->data, &report, left_ms < UINT32_MAX ? (uint32_t)left_ms : UINT32_MAX);
    }
}

static bool net_is_there(const struct instances *t, struct id128 id)
{
    char netns[EGRESS_PATH_BYTES_MAX];
    char resolv[EGRESS_PATH_BYTES_MAX];
    if (t->config.egress == NULL) {
        return false;
    }
    egress_paths(t->config.egress, id, netns, resolv);
    return access(netns, F_OK) == 0;
}

static struct status parts_hold(struct instance *i)
{
    const struct instances_config *c = &i->table->config;
    TRY(code_hold(c->code, &i->meta.revision));
    if (!digest_is_zero(&i->meta.image)) {
        struct status held = image_store_hold(c->images, &i->meta.image);
        if (!status_is_ok(held)) {
            code_put(c->code, &i->meta.revision);
            return held;
        }
        i->image_held = true;
    }
    i->code_held = true;
    return status_ok();
}

/* A folder of a former life: attached when its cell lives. False: it is over. */
static bool instance_adopt(struct instances *t, struct id128 id, const struct instances_adoption *a,
                           struct errmsg *msg)
{
    struct instance *i = instance_new(t, id);
    if (i == NULL) {
        (void)status_fail(msg, STATUS_NOMEM, "out of memory");
        return true; /* its folder stays for another time */
    }
    char attempts[INSTANCE_PATH_BYTES_MAX + 16];
    (void)snprintf(attempts, sizeof attempts, "%s/attempts", i->folder);
    struct cell_pid pid;
    if (!status_is_ok(cell_pid_read(i->folder, &pid, msg)) || !cell_pid_is_alive(&pid) ||
        !status_is_ok(instance_meta_read(i->folder, &i->meta, msg)) ||
        !status_is_ok(inflight_open(&i->inflight, attempts, msg)) || !status_is_ok(parts_hold(i))) {
        i->left_alone = true; /* the folder is the caller's */
        instance_free(i);
        return false;
    }
    i->has_net = net_is_there(t, id);
    if (!status_is_ok(instance_attach(i, msg))) {
        instance_end_soon(i, STATUS_CRASHED, msg->text);
        return true;
    }
    struct instance_found f = {
        .instance = id,
        .revision = i->meta.revision,
        .function = i->meta.function.text,
        .concurrency = i->meta.concurrency,
        .cpu_millis = i->meta.cpu_millis,
        .memory_bytes = i->meta.memory_bytes,
        .timeout_ms = i->meta.timeout_ms,
    };
    for (; f.gpus_count < i->meta.gpus_count; f.gpus_count++) {
        f.gpus[f.gpus_count].text = i->meta.gpus[f.gpus_count];
    }
    f.ready = inflight_ready(&i->inflight, &f.concurrency, &f.startup_us);
    if (!a->found(a->data, &f)) {
        instance_signal(i, true);
        return true;
    }
    attempts_adopt(i, a);
    return true;
}

/* A cell without a usable folder of ours is ended: nobody could use it. */
static void dead_remove(const struct instances *t, struct id128 id)
{
    char folder[INSTANCE_PATH_BYTES_MAX];
    folder_of(t, id, folder);
    struct cell_pid pid;
    int pidfd;
    if (status_is_ok(cell_pid_read(folder, &pid, NULL)) &&
        status_is_ok(cell_pid_open(&pid, &pidfd, NULL))) {
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        (void)close(pidfd);
    }
    struct instance_meta meta = {.uid = 0};
    bool known = status_is_ok(instance_meta_read(folder, &meta, NULL));
    if (known) {
        instance_cgroup_sweep(meta.cgroup);
    }
    folder_remove(t, id, folder, !known || !meta_is_own(&meta));
}

struct status instances_adopt(struct instances *t, const struct instances_adoption *a,
                              struct errmsg *msg)
{
    DIR *dir = opendir(t->folder);
    if (dir == NULL) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", t->folder,
                           strerror(errno));
    }
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct id128 id;
        if (!status_is_ok(id_parse(e->d_name, INSTANCE_PREFIX, &id, NULL)) || find(t, id) != NULL) {
            continue;
        }
        struct errmsg why = {{0}};
        if (!instance_adopt(t, id, a, &why)) {
            LOG_INFO("instance of a former life is over", LOG_STR("instance", e->d_name),
                     LOG_STR("why", why.text));
            dead_remove(t, id);
        }
    }
    (void)closedir(dir);
    return status_ok();
}

/* ---- Looking ---- */

bool instances_has(const struct instances *t, struct id128 instance)
{
    return find(t, instance) != NULL;
}

struct status instances_log(const struct instances *t, struct id128 instance, char *path,
                            size_t size, bool *alive)
{
    const struct instance *i = find(t, instance);
    if (i != NULL) {
        int n = snprintf(path, size, "%s/log", i->folder);
        *alive = i->phase != PHASE_ENDING;
        return status_of(n > 0 && (size_t)n < size ? STATUS_OK : STATUS_LIMIT);
    }
    char text[ID_STRING_BYTES];
    id_format(instance, INSTANCE_PREFIX, text);
    ended_log_of(t, text, path, size);
    *alive = false;
    return status_of(access(path, F_OK) == 0 ? STATUS_OK : STATUS_NOT_FOUND);
}

void instances_cells(const struct instances *t,
                     void (*fn)(void *arg, struct id128 instance, const char *cgroup), void *arg)
{
    for (const struct instance *i = t->all; i != NULL; i = i->hh.next) {
        if (i->phase == PHASE_RUNNING && !meta_is_own(&i->meta)) {
            fn(arg, i->id, i->meta.cgroup);
        }
    }
}

/* ---- Opening and closing ---- */

struct status instances_open(struct instances **out, const struct instances_config *config,
                             const struct instances_events *events, struct errmsg *msg)
{
    /* Room for the deepest path below: instances/ID/cell.sock, with what skep-cell adds. */
    if (strlen(config->data) + ID_STRING_BYTES + 64 > INSTANCE_PATH_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "data: path is too long");
    }
    struct instances *t = mem_zalloc(1, sizeof *t);
    if (t == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    t->config = *config;
    t->events = *events;
    (void)snprintf(t->folder, sizeof t->folder, "%s/instances", config->data);
    (void)snprintf(t->ended_folder, sizeof t->ended_folder, "%s/ended", config->data);
    struct status s = folder_make(t->folder, false, msg);
    if (status_is_ok(s)) {
        s = folder_make(t->ended_folder, false, msg);
    }
    if (status_is_ok(s)) {
        s = packet_batch_open(&t->batch);
    }
    if (!status_is_ok(s)) {
        mem_free(t);
        return s;
    }
    /* Not those that a former agent gave out last. */
    t->uid_last = config->uid_count == 0 ? 0 : (uint32_t)(uv_hrtime() / 1000 % config->uid_count);
    int rc = uv_timer_init(config->loop, &t->soon);
    CHECK(rc == 0);
    t->soon.data = t;
    *out = t;
    return status_ok();
}

static void on_soon_closed(uv_handle_t *handle)
{
    struct instances *t = handle->data;
    t->soon_closed = true;
    maybe_closed(t);
}

void instances_close(struct instances *t, void (*closed)(void *data), void *data)
{
    t->closing = true;
    t->closed = closed;
    t->closed_data = data;
    struct instance *i;
    struct instance *tmp;
    HASH_ITER(hh, t->all, i, tmp) {
        waits_forget(i);
        /* What has not begun is over; what runs goes on; what has ended leaves its folder to the
         * next agent. */
        i->left_alone = i->pidfd >= 0;
        i->end_told = true;
        instance_settle(i);
    }
    uv_close((uv_handle_t *)&t->soon, on_soon_closed);
}

/* ---- Ending all ---- */

enum { KILL_ALL_MS = 10 * 1000 };

static struct status kill_one(const char *folder, bool *killed, struct errmsg *msg)
{
    struct cell_pid pid;
    int pidfd;
    *killed = false;
    if (!status_is_ok(cell_pid_read(folder, &pid, NULL)) ||
        !status_is_ok(cell_pid_open(&pid, &pidfd, NULL))) {
        return status_ok();
    }
    struct cell_client client;
    bool asked = false;
    if (status_is_ok(cell_client_connect(folder, &client, NULL))) {
        asked = status_is_ok(cell_client_send(&client, CELL_KILL, NULL));
    }
    if (!asked) {
        (void)syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    }
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    bool ended = poll(&p, 1, KILL_ALL_MS) == 1;
    if (asked) {
        cell_client_close(&client);
    }
    (void)close(pidfd);
    if (!ended) {
        return status_fail(msg, STATUS_TIMEOUT, "%s: the cell does not end", folder);
    }
    *killed = true;
    return status_ok();
}

struct status instances_kill_all(const char *data, size_t *count, struct errmsg *msg)
{
    char path[INSTANCE_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/instances", data);
    *count = 0;
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return errno == ENOENT ? status_ok()
                               : status_fail(msg, status_from_errno(errno), "open %s: %s", path,
                                             strerror(errno));
    }
    struct status s = status_ok();
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct id128 id;
        if (!status_is_ok(id_parse(e->d_name, INSTANCE_PREFIX, &id, NULL))) {
            continue;
        }
        char folder[INSTANCE_PATH_BYTES_MAX + ID_STRING_BYTES + 1];
        (void)snprintf(folder, sizeof folder, "%s/%s", path, e->d_name);
        bool killed;
        struct status one = kill_one(folder, &killed, msg);
        if (!status_is_ok(one)) {
            s = one;
            continue;
        }
        *count += killed;
        struct instance_meta meta;
        if (status_is_ok(instance_meta_read(folder, &meta, NULL))) {
            instance_cgroup_sweep(meta.cgroup);
        }
        one = package_remove(folder, msg);
        if (!status_is_ok(one)) {
            s = one;
        }
    }
    (void)closedir(dir);
    struct status nets = egress_host_clear(data, msg);
    return status_is_ok(s) ? nets : s;
}
