/* What people ask: each question is a row of a table and is answered with records, which the
 * command line prints as a table or JSON. */
#include "common/cron.h"
#include "common/egress_rule.h"
#include "common/manifest_limits.h"
#include "scheduler/core/core_internal.h"
#include "scheduler/core/isolation_policy.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { FIELDS_MAX = 48, VALUE_TEXT = 0, VALUE_NUMBER = 1, VALUE_BOOL = 2 };

/* Records under construction; everything lives in the arena. */
struct table {
    struct arena arena;
    struct record *rows;
    size_t count, capacity;
};

static void row_begin(struct table *t)
{
    if (t->count == t->capacity) {
        size_t capacity = t->capacity == 0 ? 16 : 2 * t->capacity;
        struct record *rows = mem_must(arena_zalloc(&t->arena, capacity, sizeof *rows));
        if (t->count > 0) {
            memcpy(rows, t->rows, t->count * sizeof *rows);
        }
        t->rows = rows;
        t->capacity = capacity;
    }
    struct record *r = &t->rows[t->count++];
    r->fields = mem_must(arena_zalloc(&t->arena, FIELDS_MAX, sizeof *r->fields));
    r->fields_count = 0;
}

static void put(struct table *t, const char *key, uint32_t kind, const char *value)
{
    struct record *r = &t->rows[t->count - 1];
    CHECK(r->fields_count < FIELDS_MAX);
    r->fields[r->fields_count++] =
        (struct pair){.key = key,
                      .value = mem_must(arena_text(&t->arena, value, strlen(value))),
                      .value_kind = kind};
}

static void put_number(struct table *t, const char *key, uint64_t value)
{
    char text[24];
    (void)snprintf(text, sizeof text, "%" PRIu64, value);
    put(t, key, VALUE_NUMBER, text);
}

static void put_bool(struct table *t, const char *key, bool value)
{
    put(t, key, VALUE_BOOL, value ? "true" : "false");
}

static void put_digest(struct table *t, const char *key, const struct digest *d)
{
    char text[DIGEST_STRING_BYTES];
    digest_format(d, text);
    put(t, key, VALUE_TEXT, text);
}

static void put_id(struct table *t, const char *key, struct id128 id, char prefix)
{
    char text[ID_STRING_BYTES];
    id_format(id, prefix, text);
    put(t, key, VALUE_TEXT, text);
}

/* ---- Questions ---- */

static uint32_t instances_of(const struct runtime *f)
{
    uint32_t count = 0;
    struct instance *i;
    DL_FOREACH(f->instances, i) {
        count++;
    }
    return count;
}

static void function_row(const struct core *c, struct table *t, const struct catalog_function *f)
{
    const struct catalog_revision *r = catalog_current(f);
    const struct runtime *soft = runtime_find(c, f->name);
    row_begin(t);
    put(t, "name", VALUE_TEXT, f->name);
    put(t, "runtime", VALUE_TEXT, r->spec.runtime);
    put_digest(t, "revision", &f->current);
    put_number(t, "index", f->index);
    put_number(t, "instances", soft == NULL ? 0 : instances_of(soft));
    put_number(t, "ready", soft == NULL ? 0 : soft->ready);
    put_number(t, "starting", soft == NULL ? 0 : soft->starting);
    put_number(t, "queued", soft == NULL ? 0 : soft->queued);
    const struct job_function *jobs = jobs_function_find(&c->catalog.jobs, f->name);
    put_number(t, "durable_queued", jobs == NULL ? 0 : jobs->queued);
    put_number(t, "durable_running", jobs == NULL ? 0 : jobs->running);
    put_number(t, "dead", jobs == NULL ? 0 : jobs->dead);
}

static struct status ask_functions(const struct core *c, const struct query *q, struct table *t,
                                   struct errmsg *msg)
{
    (void)q;
    (void)msg;
    for (struct catalog_function *f = c->catalog.functions; f != NULL; f = f->hh.next) {
        function_row(c, t, f);
    }
    return status_ok();
}

static struct status find_function(const struct core *c, const char *name,
                                   const struct catalog_function **out, struct errmsg *msg)
{
    *out = catalog_function_find(&c->catalog, name);
    return *out != NULL ? status_ok()
                        : status_fail(msg, STATUS_NOT_FOUND, "no function is named %.80s", name);
}

static void put_egress(struct table *t, const struct function_spec *s)
{
    char text[MANIFEST_EGRESS_MAX * EGRESS_RULE_BYTES] = "none";
    size_t used = 0;
    for (size_t i = 0; i < s->egress_count && used < sizeof text; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i == 0 ? "" : ",",
                                 s->egress[i].text);
    }
    put(t, "egress", VALUE_TEXT, text);
}

static struct status ask_function(const struct core *c, const struct query *q, struct table *t,
                                  struct errmsg *msg)
{
    const struct catalog_function *f;
    TRY(find_function(c, q->name, &f, msg));
    const struct function_spec *s = &catalog_current(f)->spec;
    function_row(c, t, f);
    put(t, "handler", VALUE_TEXT, s->handler);
    put_number(t, "cpu_millis", s->cpu_millis);
    put_number(t, "memory_bytes", s->memory_bytes);
    put_number(t, "tmp_bytes", s->tmp_bytes);
    put_number(t, "processes_max", s->processes_max);
    put_number(t, "scale_min", s->scale_min);
    put_number(t, "scale_max", s->scale_max);
    put_number(t, "concurrency", s->concurrency);
    put_number(t, "idle_ms", s->idle_ms);
    put_number(t, "queue_max", s->queue_max);
    put_number(t, "timeout_ms", s->timeout_ms);
    put_number(t, "startup_timeout_ms", s->startup_timeout_ms);
    put_number(t, "package_bytes", s->package_bytes);
    put_number(t, "retries_max", s->retries_max);
    put_number(t, "retry_backoff_ms", s->retry_backoff_ms);
    put_number(t, "retry_factor_milli", s->retry_factor_milli);
    put_number(t, "retry_cap_ms", s->retry_cap_ms);
    put_number(t, "running_max", s->running_max);
    put_number(t, "rate_milli", s->rate_milli);
    put_number(t, "rate_burst", s->rate_burst);
    put_number(t, "durable_queue_max", s->durable_queue_max);
    put_number(t, "queue_age_ms", s->queue_age_ms);
    put_number(t, "poison_max", s->poison_max);
    put_number(t, "schedules", s->schedules_count);
    put(t, "isolation", VALUE_TEXT, isolation_is_gvisor(s) ? "gvisor" : "cell");
    put(t, "data_class", VALUE_TEXT, s->data_class[0] == '\0' ? "internal" : s->data_class);
    put_egress(t, s);
    put(t, "image", VALUE_TEXT, s->image[0] == '\0' ? IMAGE_DEFAULT : s->image);
    put_number(t, "gpu_count", s->gpu_count);
    if (s->gpu_count > 0) {
        put(t, "gpu_model", VALUE_TEXT, s->gpu_model);
        put_number(t, "gpu_memory_bytes", s->gpu_memory_bytes);
    }
    return status_ok();
}

static void image_row(const struct core *c, struct table *t, const struct catalog_image *i)
{
    const char *user = images_user(&c->catalog, i, true);
    char hex[DIGEST_STRING_BYTES];
    digest_format(&i->spec.digest, hex);
    row_begin(t);
    put(t, "name", VALUE_TEXT, i->spec.name);
    put(t, "digest", VALUE_TEXT, hex);
    put_number(t, "bytes", i->spec.bytes);
    put(t, "used_by", VALUE_TEXT, user == NULL ? "" : user);
    put_number(t, "created_ms", i->time_ms);
    put_number(t, "index", i->index);
}

static struct status ask_images(const struct core *c, const struct query *q, struct table *t,
                                struct errmsg *msg)
{
    (void)q;
    (void)msg;
    for (const struct catalog_image *i = c->catalog.images.images; i != NULL; i = i->hh.next) {
        image_row(c, t, i);
    }
    return status_ok();
}

static void put_texts(struct table *t, const char *key, const struct text *texts, size_t count)
{
    struct buffer all = {0};
    for (size_t i = 0; i < count; i++) {
        struct status s = buffer_append(&all, texts[i].text, strlen(texts[i].text));
        s = status_is_ok(s) ? buffer_append(&all, i + 1 == count ? "" : " ", i + 1 < count) : s;
        (void)mem_must(status_is_ok(s) ? t : NULL);
    }
    struct status ended = buffer_append(&all, "", 1);
    (void)mem_must(status_is_ok(ended) ? t : NULL);
    put(t, key, VALUE_TEXT, (const char *)all.data);
    buffer_close(&all);
}

/* name: NAME or NAME@sha256:DIGEST. */
static struct status ask_image(const struct core *c, const struct query *q, struct table *t,
                               struct errmsg *msg)
{
    const struct catalog_image *i;
    TRY(images_resolve(&c->catalog.images, q->name, &i, msg));
    image_row(c, t, i);
    put_number(t, "chunks", image_chunks_count(i->spec.bytes));
    put_texts(t, "env", i->spec.env, i->spec.env_count);
    put(t, "workdir", VALUE_TEXT, i->spec.workdir);
    put_texts(t, "entrypoint", i->spec.entrypoint, i->spec.entrypoint_count);
    return status_ok();
}

static struct status ask_history(const struct core *c, const struct query *q, struct table *t,
                                 struct errmsg *msg)
{
    const struct catalog_function *f;
    TRY(find_function(c, q->name, &f, msg));
    struct catalog_revision *r;
    DL_FOREACH(f->revisions, r) {
        row_begin(t);
        put_digest(t, "revision", &r->id);
        put_number(t, "index", r->index);
        put_number(t, "time_ms", r->time_ms);
        put_bool(t, "current", digest_compare(&r->id, &f->current) == 0);
    }
    return status_ok();
}

static const char *node_state(const struct core *c, const struct catalog_node *k)
{
    const struct node *n = node_find(c, k->name);
    if (n == NULL || n->lost) {
        return "lost";
    }
    if (n->peer == 0) {
        return "suspect";
    }
    if (!n->registered) {
        return "joining";
    }
    return k->mode == NODE_MODE_CORDONED   ? "cordoned"
           : k->mode == NODE_MODE_DRAINING ? "draining"
                                           : "ready";
}

static bool gpu_whole(const struct gpu_report *g)
{
    return g->parent[0] == '\0';
}

/* How many GPUs the node has, MIG instances not counted, and of which model. */
static void put_gpus(struct table *t, const struct node *n)
{
    const char *model = "";
    uint64_t count = 0;
    for (size_t i = 0; n != NULL && i < n->gpu.gpus_count; i++) {
        const struct gpu_report *g = &n->gpu.gpus[i];
        if (gpu_whole(g)) {
            model = count == 0 || strcmp(model, g->model) == 0 ? g->model : "mixed";
            count++;
        }
    }
    char text[GPU_TEXT_BYTES + 16];
    bool simulated = n != NULL && n->gpu.state == GPU_STATE_SIMULATED;
    (void)snprintf(text, sizeof text, "%s%s", model, simulated ? " (simulated)" : "");
    put_number(t, "gpu_count", count);
    put(t, "gpu_model", VALUE_TEXT, text);
}

static void node_row(const struct core *c, struct table *t, const struct catalog_node *k)
{
    const struct node *n = node_find(c, k->name);
    row_begin(t);
    put(t, "name", VALUE_TEXT, k->name);
    put(t, "state", VALUE_TEXT, node_state(c, k));
    put(t, "reason", VALUE_TEXT, k->reason);
    put_number(t, "instances", n == NULL ? 0 : n->instances);
    put_number(t, "cpu_millis", n == NULL ? 0 : n->cpu_millis);
    put_number(t, "cpu_reserved_millis", n == NULL ? 0 : n->cpu_used_millis);
    put_number(t, "cpu_used_millis", n == NULL ? 0 : n->beat.cpu_used_millis);
    put_number(t, "memory_bytes", n == NULL ? 0 : n->memory_bytes);
    put_number(t, "memory_reserved_bytes", n == NULL ? 0 : n->memory_used_bytes);
    put_number(t, "memory_used_bytes", n == NULL ? 0 : n->beat.memory_used_bytes);
}

static struct status ask_nodes(const struct core *c, const struct query *q, struct table *t,
                               struct errmsg *msg)
{
    (void)q;
    (void)msg;
    for (struct catalog_node *k = c->catalog.nodes; k != NULL; k = k->hh.next) {
        node_row(c, t, k);
        put_gpus(t, node_find(c, k->name));
    }
    return status_ok();
}

/* "all", or which walls of cells are not there. */
static void put_walls(struct table *t, const struct node *n)
{
    char text[WALLS_TEXT_BYTES + 16];
    (void)snprintf(text, sizeof text, "%s%s",
                   n->walls_not_needed[0] == '\0' ? "all" : "not needed: ", n->walls_not_needed);
    put(t, "walls", VALUE_TEXT, n->walls_said ? text : "unknown");
}

static struct status ask_node(const struct core *c, const struct query *q, struct table *t,
                              struct errmsg *msg)
{
    const struct catalog_node *k = catalog_node_find(&c->catalog, q->name);
    if (k == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no node is named %.80s; see skep node list",
                           q->name);
    }
    node_row(c, t, k);
    const struct node *n = node_find(c, k->name);
    if (n == NULL) {
        put_gpus(t, n);
        return status_ok();
    }
    put_number(t, "load1_milli", n->beat.load1_milli);
    put_number(t, "psi_cpu_milli", n->beat.psi_cpu_milli);
    put_number(t, "psi_memory_milli", n->beat.psi_memory_milli);
    put_number(t, "psi_io_milli", n->beat.psi_io_milli);
    put_number(t, "disk_free_bytes", n->beat.disk_free_bytes);
    char labels[REASON_BYTES_MAX] = "";
    size_t used = 0;
    for (size_t i = 0; i < n->labels_count && used < sizeof labels; i++) {
        used += (size_t)snprintf(labels + used, sizeof labels - used, "%s%s=%s", i == 0 ? "" : ",",
                                 n->labels[i].key, n->labels[i].value);
    }
    put(t, "labels", VALUE_TEXT, labels);
    put_walls(t, n);
    put_bool(t, "egress", n->egress);
    put(t, "gvisor", VALUE_TEXT, n->gvisor[0] != '\0' ? n->gvisor : "none");
    put(t, "gvisor_why", VALUE_TEXT, n->gvisor_why);
    put_gpus(t, n);
    if (n->gpu_said) {
        put(t, "gpu_state", VALUE_TEXT, gpu_state_name(n->gpu.state));
        put(t, "gpu_why", VALUE_TEXT, n->gpu.why);
        put(t, "gpu_driver", VALUE_TEXT, n->gpu.driver);
        put(t, "gpu_cuda", VALUE_TEXT, n->gpu.cuda);
    }
    return status_ok();
}

/* ---- Isolation checks ---- */

static const char *isolation_state(const struct node *n)
{
    const struct node_isolation *i = &n->isolation;
    return i->waiting || i->wanted ? "running"
           : i->report_ms == 0     ? (i->canary ? "not checked yet" : "no canary")
           : i->failed[0] != '\0'  ? "breached"
           : i->code != STATUS_OK  ? "not run"
                                   : "held";
}

static uint64_t verdicts_of(const struct node *n, enum isolation_verdict verdict)
{
    uint64_t count = 0;
    for (size_t k = 0; k < n->isolation.results_count; k++) {
        count += n->isolation.results[k].verdict == verdict;
    }
    return count;
}

/* The last round of one node, or of all. */
static struct status ask_isolation(const struct core *c, const struct query *q, struct table *t,
                                   struct errmsg *msg)
{
    if (q->name[0] != '\0' && node_find(c, q->name) == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no node is named %.80s; see skep node list",
                           q->name);
    }
    for (const struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        if (q->name[0] != '\0' && strcmp(q->name, n->name) != 0) {
            continue;
        }
        const struct catalog_node *k = catalog_node_find(&c->catalog, n->name);
        row_begin(t);
        put(t, "node", VALUE_TEXT, n->name);
        put(t, "isolation", VALUE_TEXT, "cell");
        put(t, "checks", VALUE_TEXT, isolation_state(n));
        put_number(t, "held", verdicts_of(n, ISOLATION_HELD));
        put_number(t, "breached", verdicts_of(n, ISOLATION_BREACHED));
        put_number(t, "not_applicable", verdicts_of(n, ISOLATION_NOT_APPLICABLE));
        put_number(t, "not_run", verdicts_of(n, ISOLATION_NOT_RUN));
        put_number(t, "time_ms", n->isolation.report_ms);
        put_number(t, "round", n->isolation.round);
        put(t, "failed", VALUE_TEXT, n->isolation.failed);
        put(t, "why", VALUE_TEXT, n->isolation.message);
        put(t, "node_state", VALUE_TEXT, k == NULL ? "joining" : node_state(c, k));
        put_number(t, "interval_ms", isolation_interval_ms(c));
    }
    return status_ok();
}

/* The single checks of a node's last round. */
static struct status ask_isolation_checks(const struct core *c, const struct query *q,
                                          struct table *t, struct errmsg *msg)
{
    const struct node *n = node_find(c, q->name);
    if (n == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no node is named %.80s; see skep node list",
                           q->name);
    }
    for (size_t k = 0; k < n->isolation.results_count; k++) {
        const struct isolation_result *r = &n->isolation.results[k];
        row_begin(t);
        put(t, "check", VALUE_TEXT, r->check);
        put(t, "verdict", VALUE_TEXT, isolation_verdict_name(r->verdict));
        put(t, "detail", VALUE_TEXT, r->detail);
    }
    return status_ok();
}

/* ---- GPUs ---- */

/* What the driver has not told is left out. */
static void put_known(struct table *t, const struct gpu_report *g, uint32_t known, const char *key,
                      uint64_t value)
{
    if ((g->known & known) != 0) {
        put_number(t, key, value);
    }
}

static void gpu_row(struct table *t, const struct node *n, const struct gpu_report *g)
{
    bool silent = n->gpu.state == GPU_STATE_SILENT;
    char text[32];
    if (gpu_whole(g)) {
        (void)snprintf(text, sizeof text, "%u", g->index);
    } else {
        (void)snprintf(text, sizeof text, "%u:%u", g->index, g->mig_index);
    }
    row_begin(t);
    put(t, "node", VALUE_TEXT, n->name);
    put(t, "gpu", VALUE_TEXT, text);
    put(t, "uuid", VALUE_TEXT, g->uuid);
    put(t, "parent", VALUE_TEXT, g->parent);
    put(t, "model", VALUE_TEXT, g->model);
    put(t, "mig_profile", VALUE_TEXT, g->profile);
    put_bool(t, "mig", g->mig);
    put(t, "pci", VALUE_TEXT, g->pci);
    put_bool(t, "simulated", g->simulated);
    put(t, "health", VALUE_TEXT, silent ? "unknown" : gpu_health_name(g->health));
    put(t, "why", VALUE_TEXT, silent ? n->gpu.why : g->why);
    put_known(t, g, GPU_KNOWS_MEMORY, "memory_bytes", g->memory_bytes);
    put_known(t, g, GPU_KNOWS_MEMORY, "memory_used_bytes", g->memory_used_bytes);
    put_known(t, g, GPU_KNOWS_BUSY, "busy_percent", g->busy_percent);
    put_known(t, g, GPU_KNOWS_TEMPERATURE, "temperature_c", g->temperature_c);
    put_known(t, g, GPU_KNOWS_POWER, "power_w", (g->power_mw + 500) / 1000);
    put_known(t, g, GPU_KNOWS_PROCESSES, "processes", g->processes);
    put_known(t, g, GPU_KNOWS_ECC, "ecc_uncorrected", g->ecc_uncorrected);
    put_known(t, g, GPU_KNOWS_ROWS, "rows_remapped", g->rows_remapped);
    put_known(t, g, GPU_KNOWS_PAGES, "pages_retired", g->pages_retired);
    put_known(t, g, GPU_KNOWS_XID, "xid_count", g->xid_count);
    if (g->xid_count > 0) {
        put_known(t, g, GPU_KNOWS_XID, "xid", g->xid);
        put_known(t, g, GPU_KNOWS_XID, "xid_time_ms", g->xid_time_ms);
    }
    char used_by[ID_STRING_BYTES] = "";
    const struct instance *user = node_gpu_user(n, g->uuid);
    if (user != NULL) {
        id_format(user->id, INSTANCE_PREFIX, used_by);
    }
    put(t, "used_by", VALUE_TEXT, used_by);
    put(t, "dirty", VALUE_TEXT, g->dirty);
}

/* Of one node, or of all. */
static struct status ask_gpus(const struct core *c, const struct query *q, struct table *t,
                              struct errmsg *msg)
{
    if (q->name[0] != '\0' && catalog_node_find(&c->catalog, q->name) == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no node is named %.80s; see skep node list",
                           q->name);
    }
    for (const struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        bool asked = q->name[0] == '\0' || strcmp(q->name, n->name) == 0;
        for (size_t i = 0; asked && i < n->gpu.gpus_count; i++) {
            gpu_row(t, n, &n->gpu.gpus[i]);
        }
    }
    return status_ok();
}

static struct status ask_instances(const struct core *c, const struct query *q, struct table *t,
                                   struct errmsg *msg)
{
    (void)msg;
    static const char *const states[] = {"", "starting", "ready", "stopping", "ended"};
    for (struct instance *i = c->instances; i != NULL; i = i->hh.next) {
        if (q->name[0] != '\0' && strcmp(q->name, i->function->name) != 0) {
            continue;
        }
        row_begin(t);
        put_id(t, "instance", i->id, INSTANCE_PREFIX);
        put(t, "function", VALUE_TEXT, i->function->name);
        put(t, "node", VALUE_TEXT, i->node->name);
        put(t, "state", VALUE_TEXT, states[i->state]);
        put_number(t, "running", i->inflight + i->foreign);
        put_number(t, "concurrency", i->concurrency);
        put_number(t, "startup_us", i->startup_us);
        put_number(t, "memory_bytes", i->usage.memory_bytes);
        put_number(t, "memory_peak_bytes", i->usage.memory_peak_bytes);
        put_number(t, "cpu_us", i->usage.cpu_us);
        put_digest(t, "revision", &i->revision);
        put_number(t, "gpus", i->gpus);
    }
    return status_ok();
}

static struct status ask_tokens(const struct core *c, const struct query *q, struct table *t,
                                struct errmsg *msg)
{
    (void)q;
    (void)msg;
    for (struct catalog_token *k = c->catalog.tokens; k != NULL; k = k->hh.next) {
        row_begin(t);
        put(t, "token", VALUE_TEXT, k->id);
        put(t, "role", VALUE_TEXT, k->role);
        put(t, "name", VALUE_TEXT, k->name);
        put_number(t, "expires_ms", k->expires_ms);
        put(t, "used_by", VALUE_TEXT, k->used_by);
    }
    return status_ok();
}

static struct status ask_revoked(const struct core *c, const struct query *q, struct table *t,
                                 struct errmsg *msg)
{
    (void)q;
    (void)msg;
    for (struct catalog_revoked *r = c->catalog.revoked; r != NULL; r = r->hh.next) {
        row_begin(t);
        put(t, "revoked", VALUE_TEXT, r->what);
        put(t, "reason", VALUE_TEXT, r->reason);
        put_number(t, "time_ms", r->time_ms);
    }
    return status_ok();
}

static const char *job_state(const struct job *j)
{
    static const char *const states[] = {"", "queued", "done", "dead", "canceled"};
    if (j->state != INVOCATION_QUEUED) {
        return states[j->state];
    }
    return j->work != NULL ? "running" : j->busy ? "ending" : j->delayed ? "delayed" : "queued";
}

/* Why a durable invocation is where it is. */
static void why_invocation(const struct core *c, const char *name, struct table *t)
{
    struct id128 id;
    struct errmsg ignored = {.text = ""};
    const struct job *j = NULL;
    if (status_is_ok(id_parse(name, INVOCATION_PREFIX, &id, &ignored))) {
        j = jobs_find(&c->catalog.jobs, id);
    }
    if (j == NULL) {
        return;
    }
    char text[REASON_BYTES_MAX];
    const struct runtime *f = runtime_find(c, j->function->name);
    if (j->work != NULL) {
        (void)snprintf(text, sizeof text, "attempt %u runs on %s", j->work->attempt,
                       j->work->instance->node->name);
    } else if (j->delayed) {
        (void)snprintf(text, sizeof text, "waits for its time (delay, schedule or retry): %" PRIu64,
                       j->not_before_ms);
    } else if (j->lane != NULL && f != NULL) {
        (void)snprintf(text, sizeof text,
                       "waits for a slot of %s: %" PRIu64
                       " wait in all, %u instances ready, %u starting, %u attempts run",
                       f->name, f->jobs->waiting, f->ready, f->starting, f->jobs->running);
    } else {
        (void)snprintf(text, sizeof text, "%s after %u attempts; see skep result", job_state(j),
                       j->attempts);
    }
    row_begin(t);
    put_number(t, "time_ms", c->catalog.time_ms);
    put(t, "subject", VALUE_TEXT, name);
    put(t, "decision", VALUE_TEXT, text);
}

/* The journal, oldest first; name filters by subject. */
static struct status ask_why(const struct core *c, const struct query *q, struct table *t,
                             struct errmsg *msg)
{
    (void)msg;
    why_invocation(c, q->name, t);
    uint64_t first = c->journal_count > CORE_JOURNAL_MAX ? c->journal_count - CORE_JOURNAL_MAX : 0;
    for (uint64_t k = first; k < c->journal_count; k++) {
        const struct journal_entry *e = &c->journal[k % CORE_JOURNAL_MAX];
        if (q->name[0] != '\0' && strcmp(e->subject, q->name) != 0 &&
            strstr(e->text, q->name) == NULL) {
            continue;
        }
        row_begin(t);
        put_number(t, "time_ms", e->unix_ms);
        put(t, "subject", VALUE_TEXT, e->subject);
        put(t, "decision", VALUE_TEXT, e->text);
    }
    return status_ok();
}

/* ---- Durable invocations ---- */

enum { JOB_ROWS_MAX = 1000, PREFIX_TEXT = ID_STRING_BYTES };

static void job_row(const struct core *c, struct table *t, const struct job *j)
{
    struct arena a = {0};
    struct state_job s;
    jobs_content(&c->catalog.jobs, j, &a, &s);
    row_begin(t);
    put_id(t, "invocation", j->id, INVOCATION_PREFIX);
    put(t, "function", VALUE_TEXT, s.function);
    put(t, "tenant", VALUE_TEXT, s.tenant);
    put(t, "state", VALUE_TEXT, job_state(j));
    put_number(t, "priority", s.priority);
    put_number(t, "attempts", j->attempt > s.attempts ? j->attempt : s.attempts);
    put_number(t, "crashes", s.crashes);
    put(t, "code", VALUE_TEXT, status_name(status_from_wire(s.code)));
    put(t, "message", VALUE_TEXT, s.message);
    put(t, "key", VALUE_TEXT, s.key);
    put(t, "node", VALUE_TEXT, j->work != NULL ? j->work->instance->node->name : s.node);
    put_number(t, "payload_bytes", s.payload_bytes);
    put_number(t, "output_bytes", s.output_bytes);
    put_number(t, "created_ms", s.created_ms);
    put_number(t, "not_before_ms", s.not_before_ms);
    put_number(t, "deadline_ms", s.deadline_at_ms);
    put_number(t, "ended_ms", s.ended_ms);
    put_number(t, "expires_ms", s.expires_ms);
    arena_close(&a);
}

/* At most JOB_ROWS_MAX of them, oldest first. */
static void job_rows(const struct core *c, struct table *t, const char *function, int only)
{
    size_t rows = 0;
    for (struct job *j = c->catalog.jobs.jobs; j != NULL && rows < JOB_ROWS_MAX; j = j->hh.next) {
        bool wanted = (function[0] == '\0' || strcmp(function, j->function->name) == 0) &&
                      (only == 0 || j->state == only);
        if (wanted) {
            job_row(c, t, j);
            rows++;
        }
    }
}

static struct status ask_invocations(const struct core *c, const struct query *q, struct table *t,
                                     struct errmsg *msg)
{
    (void)msg;
    job_rows(c, t, q->name, 0);
    return status_ok();
}

static struct status ask_dead(const struct core *c, const struct query *q, struct table *t,
                              struct errmsg *msg)
{
    (void)msg;
    job_rows(c, t, q->name, INVOCATION_DEAD);
    return status_ok();
}

/* name: an id or a prefix of one; all that fit, so that a prefix that is too short shows. */
static struct status ask_invocation(const struct core *c, const struct query *q, struct table *t,
                                    struct errmsg *msg)
{
    size_t size = strlen(q->name);
    if (size >= PREFIX_TEXT) {
        return status_fail(msg, STATUS_INVALID, "%.40s is no invocation's id", q->name);
    }
    struct id128 id;
    struct errmsg ignored = {.text = ""};
    if (status_is_ok(id_parse(q->name, INVOCATION_PREFIX, &id, &ignored))) {
        const struct job *j = jobs_find(&c->catalog.jobs, id);
        if (j != NULL) {
            job_row(c, t, j);
        }
    } else {
        size_t rows = 0;
        for (struct job *j = c->catalog.jobs.jobs; j != NULL && rows < 10; j = j->hh.next) {
            char text[ID_STRING_BYTES];
            id_format(j->id, INVOCATION_PREFIX, text);
            if (strncmp(text, q->name, size) == 0) {
                job_row(c, t, j);
                rows++;
            }
        }
    }
    return t->count > 0 ? status_ok()
                        : status_fail(msg, STATUS_NOT_FOUND,
                                      "no durable invocation %.40s is known (any more: results "
                                      "leave after their ttl)",
                                      q->name);
}

static struct status ask_schedules(const struct core *c, const struct query *q, struct table *t,
                                   struct errmsg *msg)
{
    (void)msg;
    for (struct catalog_function *f = c->catalog.functions; f != NULL; f = f->hh.next) {
        const struct function_spec *s = &catalog_current(f)->spec;
        for (size_t i = 0; i < s->schedules_count; i++) {
            if (q->name[0] != '\0' && strcmp(q->name, f->name) != 0) {
                continue;
            }
            const struct schedule_spec *k = &s->schedules[i];
            uint64_t last = jobs_last_fired(&c->catalog.jobs, f->name, k->name);
            struct cron cron;
            struct errmsg ignored = {.text = ""};
            uint64_t from = last == 0 ? catalog_current(f)->time_ms : last;
            row_begin(t);
            put(t, "function", VALUE_TEXT, f->name);
            put(t, "schedule", VALUE_TEXT, k->name);
            put(t, "cron", VALUE_TEXT, k->cron);
            put_number(t, "last_ms", last);
            put_number(t, "next_ms",
                       status_is_ok(cron_parse(k->cron, &cron, &ignored)) ? cron_next(&cron, from)
                                                                          : 0);
            put_number(t, "catch_up", k->catch_up);
        }
    }
    return status_ok();
}

static struct status ask_tenants(const struct core *c, const struct query *q, struct table *t,
                                 struct errmsg *msg)
{
    (void)msg;
    for (struct job_tenant *n = c->catalog.jobs.tenants; n != NULL; n = n->hh.next) {
        if (q->name[0] != '\0' && strcmp(q->name, n->name) != 0) {
            continue;
        }
        row_begin(t);
        put(t, "tenant", VALUE_TEXT, n->name);
        put_number(t, "queued", n->queued);
        put_number(t, "running", n->running);
        put_number(t, "held", n->jobs);
        put_number(t, "running_max", n->running_max);
        put_number(t, "rate_milli", n->rate_milli);
        put_number(t, "queued_max", n->queued_max);
        put_number(t, "weight", n->weight);
    }
    return status_ok();
}

static struct status ask_settings(const struct core *c, const struct query *q, struct table *t,
                                  struct errmsg *msg)
{
    (void)q;
    (void)msg;
    for (struct catalog_setting *s = c->catalog.settings; s != NULL; s = s->hh.next) {
        row_begin(t);
        put(t, "key", VALUE_TEXT, s->key);
        put(t, "value", VALUE_TEXT, s->value);
    }
    return status_ok();
}

static const struct {
    const char *what;
    struct status (*ask)(const struct core *c, const struct query *q, struct table *t,
                         struct errmsg *msg);
} questions[] = {
    {"functions", ask_functions},
    {"images", ask_images},
    {"image", ask_image},
    {"function", ask_function},
    {"history", ask_history},
    {"nodes", ask_nodes},
    {"node", ask_node},
    {"gpus", ask_gpus},
    {"isolation", ask_isolation},
    {"isolation_checks", ask_isolation_checks},
    {"instances", ask_instances},
    {"tokens", ask_tokens},
    {"revoked", ask_revoked},
    {"why", ask_why},
    {"invocations", ask_invocations},
    {"invocation", ask_invocation},
    {"dead", ask_dead},
    {"schedules", ask_schedules},
    {"tenants", ask_tenants},
    {"settings", ask_settings},
};

void query_receive(struct core *c, struct core_time now, uint64_t peer, const struct message *m)
{
    (void)now;
    if (!c->leader) {
        send_not_leader(c, peer, m);
        return;
    }
    struct table t = {0};
    struct errmsg msg = {.text = ""};
    struct status s = status_fail(&msg, STATUS_INVALID, "no such question: %.60s", m->query.what);
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        if (strcmp(questions[i].what, m->query.what) == 0) {
            s = questions[i].ask(c, &m->query, &t, &msg);
            break;
        }
    }
    const struct message answer = {.type = MESSAGE_RECORDS,
                                   .request = m->request,
                                   .records = {.code = s.code,
                                               .message = status_is_ok(s) ? "" : msg.text,
                                               .rows = status_is_ok(s) ? t.rows : NULL,
                                               .rows_count = status_is_ok(s) ? t.count : 0}};
    c->env.send(c->env.data, peer, &answer);
    arena_close(&t.arena);
}
