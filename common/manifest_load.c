#include "common/manifest_load.h"

#include "common/check.h"
#include "common/egress_rule.h"
#include "common/image_ref.h"
#include "common/mem.h"
#include "common/yamldoc.h"

#include <stdio.h>
#include <string.h>

/* ---- The file's shape, as libcyaml loads it: texts, NULL where not given ---- */

struct raw_gpu {
    char *model;
    char *memory;
    char *count;
};

struct raw_resources {
    char *cpu;
    char *memory;
    char *tmp;
    char *processes;
    struct raw_gpu gpu;
};

struct raw_scaling {
    char *min;
    char *max;
    char *concurrency;
    char *idle;
    char *queue;
};

struct raw_retries {
    char *max;
    char *backoff;
    char *factor;
    char *cap;
};

struct raw_limits {
    char *running;
    char *rate;
    char *burst;
    char *queue;
    char *queue_age;
    char *poison;
};

struct raw_schedule {
    char *name;
    char *cron;
    char *payload;
    char *catch_up;
};

/* libcyaml wants a part to have a size; what these hold is read from the tree. */
struct raw_part {
    char *unused;
};

struct raw_manifest {
    char *name;
    char *runtime;
    char *handler;
    char *image;
    char **command;
    uint32_t command_count;
    struct raw_resources resources;
    struct raw_scaling scaling;
    struct raw_part network;
    struct raw_part placement;
    struct raw_retries retries;
    struct raw_limits limits;
    struct raw_schedule *schedules;
    uint32_t schedules_count;
    char *timeout;
    char *startup_timeout;
    char *data_class;
    char *isolation;
};

static const cyaml_schema_value_t argument_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, YAMLDOC_BYTES_MAX)};

static const cyaml_schema_field_t gpu_fields[] = {
    YAMLDOC_TEXT("model", struct raw_gpu, model),
    YAMLDOC_TEXT("memory", struct raw_gpu, memory),
    YAMLDOC_TEXT("count", struct raw_gpu, count),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t resources_fields[] = {
    YAMLDOC_TEXT("cpu", struct raw_resources, cpu),
    YAMLDOC_TEXT("memory", struct raw_resources, memory),
    YAMLDOC_TEXT("tmp", struct raw_resources, tmp),
    YAMLDOC_TEXT("processes", struct raw_resources, processes),
    YAMLDOC_PART("gpu", struct raw_resources, gpu, gpu_fields),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t scaling_fields[] = {
    YAMLDOC_TEXT("min", struct raw_scaling, min),
    YAMLDOC_TEXT("max", struct raw_scaling, max),
    YAMLDOC_TEXT("concurrency", struct raw_scaling, concurrency),
    YAMLDOC_TEXT("idle", struct raw_scaling, idle),
    YAMLDOC_TEXT("queue", struct raw_scaling, queue),
    CYAML_FIELD_IGNORE("buffer", CYAML_FLAG_OPTIONAL),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t network_fields[] = {
    CYAML_FIELD_IGNORE("egress", CYAML_FLAG_OPTIONAL),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t placement_fields[] = {
    CYAML_FIELD_IGNORE("require", CYAML_FLAG_OPTIONAL),
    CYAML_FIELD_IGNORE("prefer", CYAML_FLAG_OPTIONAL),
    CYAML_FIELD_IGNORE("spread", CYAML_FLAG_OPTIONAL),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t retries_fields[] = {
    YAMLDOC_TEXT("max", struct raw_retries, max),
    YAMLDOC_TEXT("backoff", struct raw_retries, backoff),
    YAMLDOC_TEXT("factor", struct raw_retries, factor),
    YAMLDOC_TEXT("cap", struct raw_retries, cap),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t limits_fields[] = {
    YAMLDOC_TEXT("running", struct raw_limits, running),
    YAMLDOC_TEXT("rate", struct raw_limits, rate),
    YAMLDOC_TEXT("burst", struct raw_limits, burst),
    YAMLDOC_TEXT("queue", struct raw_limits, queue),
    YAMLDOC_TEXT("queue_age", struct raw_limits, queue_age),
    YAMLDOC_TEXT("poison", struct raw_limits, poison),
    CYAML_FIELD_END,
};

static const cyaml_schema_field_t schedule_fields[] = {
    YAMLDOC_REQUIRED_TEXT("name", struct raw_schedule, name),
    YAMLDOC_REQUIRED_TEXT("cron", struct raw_schedule, cron),
    CYAML_FIELD_STRING_PTR("payload", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_schedule,
                           payload, 0, YAMLDOC_BYTES_MAX),
    YAMLDOC_TEXT("catch_up", struct raw_schedule, catch_up),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t schedule_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct raw_schedule, schedule_fields)};

static const cyaml_schema_field_t manifest_fields[] = {
    YAMLDOC_REQUIRED_TEXT("name", struct raw_manifest, name),
    YAMLDOC_TEXT("runtime", struct raw_manifest, runtime),
    YAMLDOC_TEXT("handler", struct raw_manifest, handler),
    CYAML_FIELD_SEQUENCE("command", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_manifest,
                         command, &argument_schema, 1, MANIFEST_COMMAND_ARGS_MAX),
    YAMLDOC_TEXT("image", struct raw_manifest, image),
    YAMLDOC_PART("resources", struct raw_manifest, resources, resources_fields),
    YAMLDOC_PART("scaling", struct raw_manifest, scaling, scaling_fields),
    CYAML_FIELD_IGNORE("snapshot", CYAML_FLAG_OPTIONAL),
    YAMLDOC_TEXT("isolation", struct raw_manifest, isolation),
    YAMLDOC_TEXT("timeout", struct raw_manifest, timeout),
    YAMLDOC_TEXT("startup_timeout", struct raw_manifest, startup_timeout),
    YAMLDOC_PART("retries", struct raw_manifest, retries, retries_fields),
    YAMLDOC_PART("limits", struct raw_manifest, limits, limits_fields),
    CYAML_FIELD_SEQUENCE("schedules", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct raw_manifest,
                         schedules, &schedule_schema, 1, MANIFEST_SCHEDULES_MAX),
    YAMLDOC_PART("network", struct raw_manifest, network, network_fields),
    CYAML_FIELD_IGNORE("env", CYAML_FLAG_OPTIONAL),
    CYAML_FIELD_IGNORE("secrets", CYAML_FLAG_OPTIONAL),
    YAMLDOC_PART("placement", struct raw_manifest, placement, placement_fields),
    YAMLDOC_TEXT("data_class", struct raw_manifest, data_class),
    CYAML_FIELD_END,
};

static const cyaml_schema_value_t manifest_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct raw_manifest, manifest_fields)};

/* ---- Keys whose effect this release does not have ---- */

/* only: the one value that asks for what happens anyway; NULL: the key is refused whatever it says.
 * */
static const struct {
    const char *path;
    const char *only;
} fixed[] = {
    {"scaling.buffer", "0"},    {"snapshot", "none"},       {"secrets", NULL},
    {"placement.prefer", NULL}, {"placement.spread", NULL},
};

static struct status fixed_check(const struct yamldoc *d, struct errmsg *msg)
{
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        const struct yamlnode *n = yamldoc_find(d, fixed[i].path);
        if (n == NULL) {
            continue;
        }
        if (fixed[i].only == NULL) {
            return yamldoc_fail(d, fixed[i].path, STATUS_UNSUPPORTED, msg,
                                "not supported by this release");
        }
        if (n->kind != YAMLNODE_SCALAR) {
            return yamldoc_fail(d, fixed[i].path, STATUS_UNSUPPORTED, msg,
                                "not supported by this release; only %s is", fixed[i].only);
        }
        if (strcmp(n->text, fixed[i].only) != 0) {
            char quoted[QUOTE_STRING_BYTES];
            text_quote(n->text, strlen(n->text), quoted);
            return yamldoc_fail(d, fixed[i].path, STATUS_UNSUPPORTED, msg,
                                "\"%s\" is not supported by this release; only %s is", quoted,
                                fixed[i].only);
        }
    }
    return status_ok();
}

/* ---- Values ---- */

static const struct yamldoc_number numbers[] = {
    YAMLDOC_NUMBER("resources.cpu", struct raw_manifest, resources.cpu, UNIT_CPU,
                   MANIFEST_CPU_MILLIS_MIN, MANIFEST_CPU_MILLIS_MAX, struct manifest, cpu_millis),
    YAMLDOC_NUMBER("resources.memory", struct raw_manifest, resources.memory, UNIT_BYTES,
                   MANIFEST_MEMORY_BYTES_MIN, MANIFEST_MEMORY_BYTES_MAX, struct manifest,
                   memory_bytes),
    YAMLDOC_NUMBER("resources.tmp", struct raw_manifest, resources.tmp, UNIT_BYTES,
                   MANIFEST_TMP_BYTES_MIN, MANIFEST_TMP_BYTES_MAX, struct manifest, tmp_bytes),
    YAMLDOC_NUMBER("resources.processes", struct raw_manifest, resources.processes, UNIT_COUNT,
                   MANIFEST_PROCESSES_MIN, MANIFEST_PROCESSES_MAX, struct manifest, processes_max),
    YAMLDOC_NUMBER("scaling.min", struct raw_manifest, scaling.min, UNIT_COUNT, 0,
                   MANIFEST_SCALE_MIN_MAX, struct manifest, scale_min),
    YAMLDOC_NUMBER("scaling.max", struct raw_manifest, scaling.max, UNIT_COUNT, 1,
                   MANIFEST_SCALE_MAX_MAX, struct manifest, scale_max),
    YAMLDOC_NUMBER("scaling.concurrency", struct raw_manifest, scaling.concurrency, UNIT_COUNT, 1,
                   MANIFEST_CONCURRENCY_MAX, struct manifest, concurrency),
    YAMLDOC_NUMBER("scaling.idle", struct raw_manifest, scaling.idle, UNIT_DURATION,
                   MANIFEST_IDLE_MS_MIN, MANIFEST_IDLE_MS_MAX, struct manifest, idle_ms),
    YAMLDOC_NUMBER("scaling.queue", struct raw_manifest, scaling.queue, UNIT_COUNT, 1,
                   MANIFEST_QUEUE_MAX, struct manifest, queue_max),
    YAMLDOC_NUMBER("timeout", struct raw_manifest, timeout, UNIT_DURATION, MANIFEST_TIMEOUT_MS_MIN,
                   MANIFEST_TIMEOUT_MS_MAX, struct manifest, timeout_ms),
    YAMLDOC_NUMBER("startup_timeout", struct raw_manifest, startup_timeout, UNIT_DURATION,
                   MANIFEST_STARTUP_TIMEOUT_MS_MIN, MANIFEST_STARTUP_TIMEOUT_MS_MAX,
                   struct manifest, startup_timeout_ms),
};

static const struct yamldoc_number durable_numbers[] = {
    YAMLDOC_NUMBER("retries.max", struct raw_manifest, retries.max, UNIT_COUNT, 0,
                   MANIFEST_RETRIES_MAX, struct manifest, retries_max),
    YAMLDOC_NUMBER("retries.backoff", struct raw_manifest, retries.backoff, UNIT_DURATION, 0,
                   MANIFEST_BACKOFF_MS_MAX, struct manifest, retry_backoff_ms),
    YAMLDOC_NUMBER("retries.factor", struct raw_manifest, retries.factor, UNIT_FACTOR,
                   MANIFEST_FACTOR_MILLI_MIN, MANIFEST_FACTOR_MILLI_MAX, struct manifest,
                   retry_factor_milli),
    YAMLDOC_NUMBER("retries.cap", struct raw_manifest, retries.cap, UNIT_DURATION, 0,
                   MANIFEST_BACKOFF_MS_MAX, struct manifest, retry_cap_ms),
    YAMLDOC_NUMBER("limits.running", struct raw_manifest, limits.running, UNIT_COUNT, 1,
                   MANIFEST_RUNNING_MAX, struct manifest, running_max),
    YAMLDOC_NUMBER("limits.rate", struct raw_manifest, limits.rate, UNIT_RATE, 1,
                   MANIFEST_RATE_MILLI_MAX, struct manifest, rate_milli),
    YAMLDOC_NUMBER("limits.burst", struct raw_manifest, limits.burst, UNIT_COUNT, 1,
                   MANIFEST_BURST_MAX, struct manifest, rate_burst),
    YAMLDOC_NUMBER("limits.queue", struct raw_manifest, limits.queue, UNIT_COUNT, 1,
                   MANIFEST_DURABLE_QUEUE_MAX, struct manifest, durable_queue_max),
    YAMLDOC_NUMBER("limits.queue_age", struct raw_manifest, limits.queue_age, UNIT_DURATION,
                   MANIFEST_QUEUE_AGE_MS_MIN, MANIFEST_QUEUE_AGE_MS_MAX, struct manifest,
                   queue_age_ms),
    YAMLDOC_NUMBER("limits.poison", struct raw_manifest, limits.poison, UNIT_COUNT, 1,
                   MANIFEST_POISON_MAX, struct manifest, poison_max),
};

/* A rate without a burst may start a second's worth at once; a backoff above the usual cap raises
 * it. */
static struct status durable_take(const struct yamldoc *d, const struct raw_manifest *raw,
                                  struct manifest *m, struct errmsg *msg)
{
    TRY(yamldoc_numbers(d, durable_numbers, sizeof durable_numbers / sizeof durable_numbers[0], raw,
                        m, msg));
    if (m->rate_milli != 0 && m->rate_burst == 0) {
        uint32_t second = (m->rate_milli + 999) / 1000;
        m->rate_burst = second > MANIFEST_BURST_MAX ? MANIFEST_BURST_MAX : second;
    }
    if (raw->retries.cap == NULL && m->retry_cap_ms < m->retry_backoff_ms) {
        m->retry_cap_ms = m->retry_backoff_ms;
    }
    if (raw->data_class != NULL) {
        return yamldoc_blame(d, "data_class",
                             data_class_parse(raw->data_class, &m->data_class, msg), msg);
    }
    return status_ok();
}

static struct status schedules_take(const struct yamldoc *d, const struct raw_manifest *raw,
                                    struct manifest *m, struct errmsg *msg)
{
    if (raw->schedules_count == 0) {
        return status_ok();
    }
    m->schedules = mem_zalloc(raw->schedules_count, sizeof m->schedules[0]);
    if (m->schedules == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (size_t i = 0; i < raw->schedules_count; i++) {
        const struct raw_schedule *from = &raw->schedules[i];
        struct manifest_schedule *s = &m->schedules[m->schedules_count++];
        char path[YAMLDOC_PATH_BYTES];
        uint64_t catch_up = 0;
        s->cron = mem_strdup(from->cron);
        s->payload = mem_strdup(from->payload == NULL ? "" : from->payload);
        if (s->cron == NULL || s->payload == NULL) {
            return status_of(STATUS_NOMEM);
        }
        (void)snprintf(path, sizeof path, "schedules[%zu].name", i);
        TRY(yamldoc_blame(
            d, path,
            name_parse("the schedule's name", from->name, strlen(from->name), &s->name, msg), msg));
        (void)snprintf(path, sizeof path, "schedules[%zu].catch_up", i);
        if (from->catch_up != NULL) {
            TRY(yamldoc_blame(
                d, path,
                unit_parse(UNIT_COUNT, from->catch_up, strlen(from->catch_up), &catch_up, msg),
                msg));
        }
        s->catch_up = catch_up > UINT32_MAX ? UINT32_MAX : (uint32_t)catch_up;
    }
    return status_ok();
}

static const struct yamldoc_number gpu_numbers[] = {
    YAMLDOC_NUMBER("resources.gpu.memory", struct raw_manifest, resources.gpu.memory, UNIT_BYTES,
                   MANIFEST_GPU_MEMORY_BYTES_MIN, MANIFEST_GPU_MEMORY_BYTES_MAX, struct manifest,
                   gpu_memory_bytes),
    YAMLDOC_NUMBER("resources.gpu.count", struct raw_manifest, resources.gpu.count, UNIT_COUNT, 1,
                   MANIFEST_GPU_COUNT_MAX, struct manifest, gpu_count),
};

/* Whoever names GPUs and no count wants one. */
static struct status gpu_take(const struct yamldoc *d, const struct raw_manifest *raw,
                              struct manifest *m, struct errmsg *msg)
{
    if (yamldoc_find(d, "resources.gpu") == NULL) {
        return status_ok();
    }
    m->gpu_count = 1;
    if (raw->resources.gpu.model != NULL) {
        m->gpu_model = mem_strdup(raw->resources.gpu.model);
        if (m->gpu_model == NULL) {
            return status_of(STATUS_NOMEM);
        }
    }
    return yamldoc_numbers(d, gpu_numbers, sizeof gpu_numbers / sizeof gpu_numbers[0], raw, m, msg);
}

/* Copies the mapping at path, whose keys are free. */
static struct status pairs_take(const struct yamldoc *d, const char *path, size_t max,
                                struct text_pair **pairs, size_t *count, struct errmsg *msg)
{
    const struct yamlnode *n = yamldoc_find(d, path);
    if (n == NULL) {
        return status_ok();
    }
    if (n->kind != YAMLNODE_MAP) {
        return yamldoc_fail(d, path, STATUS_INVALID, msg, "must be a mapping of keys to values");
    }
    if (n->count > max) {
        return yamldoc_fail(d, path, STATUS_LIMIT, msg, "has %u entries, at most %zu are allowed",
                            n->count, max);
    }
    for (const struct yamlnode *c = n->first; c != NULL; c = c->next) {
        if (c->kind != YAMLNODE_SCALAR) {
            char child[YAMLDOC_PATH_BYTES];
            (void)snprintf(child, sizeof child, "%s.%s", path, c->key);
            return yamldoc_fail(d, child, STATUS_INVALID, msg, "must be a single value");
        }
        struct status s = text_pairs_put(pairs, count, c->key, c->text);
        CHECK(s.code != STATUS_EXISTS); /* the tree has no duplicate keys */
        TRY(s);
    }
    return status_ok();
}

/* "none", or a list of rules, which become their canonical texts. */
static struct status egress_take(const struct yamldoc *d, struct manifest *m, struct errmsg *msg)
{
    static const char path[] = "network.egress";
    const struct yamlnode *n = yamldoc_find(d, path);
    if (n == NULL || (n->kind == YAMLNODE_SCALAR && strcmp(n->text, "none") == 0)) {
        return status_ok();
    }
    if (n->kind != YAMLNODE_LIST || n->count == 0) {
        return yamldoc_fail(d, path, STATUS_INVALID, msg,
                            "must be none or a list of rules, as [\"10.0.0.0/8:443\"]");
    }
    if (n->count > MANIFEST_EGRESS_MAX) {
        return yamldoc_fail(d, path, STATUS_LIMIT, msg, "has %u rules, at most %d are allowed",
                            n->count, MANIFEST_EGRESS_MAX);
    }
    m->egress = mem_zalloc(n->count, sizeof m->egress[0]);
    if (m->egress == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (const struct yamlnode *c = n->first; c != NULL; c = c->next) {
        struct egress_rule rule;
        char text[EGRESS_RULE_BYTES];
        char at[YAMLDOC_PATH_BYTES];
        (void)snprintf(at, sizeof at, "%s[%u]", path, c->index);
        if (c->kind != YAMLNODE_SCALAR) {
            return yamldoc_fail(d, at, STATUS_INVALID, msg,
                                "must be a single value; put the rule in quotes");
        }
        TRY(yamldoc_blame(d, at, egress_rule_parse(c->text, &rule, msg), msg));
        egress_rule_format(&rule, text);
        m->egress[m->egress_count] = mem_strdup(text);
        if (m->egress[m->egress_count] == NULL) {
            return status_of(STATUS_NOMEM);
        }
        m->egress_count++;
    }
    return status_ok();
}

static struct status runtime_take(const struct yamldoc *d, const struct raw_manifest *raw,
                                  struct manifest *m, struct errmsg *msg)
{
    if (raw->command_count > 0) {
        m->runtime = RUNTIME_COMMAND;
        if (raw->runtime != NULL) {
            return yamldoc_fail(d, "runtime", STATUS_INVALID, msg,
                                "goes without command; give one of them");
        }
        m->command = mem_zalloc(raw->command_count, sizeof m->command[0]);
        if (m->command == NULL) {
            return status_of(STATUS_NOMEM);
        }
        for (; m->command_count < raw->command_count; m->command_count++) {
            m->command[m->command_count] = mem_strdup(raw->command[m->command_count]);
            if (m->command[m->command_count] == NULL) {
                return status_of(STATUS_NOMEM);
            }
        }
        return status_ok();
    }
    if (raw->runtime == NULL) {
        return yamldoc_fail(d, "runtime", STATUS_INVALID, msg,
                            "is missing; give runtime: python, runtime: c or command: [...]");
    }
    struct status s = runtime_parse(raw->runtime, &m->runtime, msg);
    if (!status_is_ok(s)) {
        return yamldoc_blame(d, "runtime", s, msg);
    }
    if (m->runtime == RUNTIME_COMMAND) {
        return yamldoc_fail(d, "runtime", STATUS_INVALID, msg, "give command: [...] instead");
    }
    return status_ok();
}

static struct status manifest_fill(const struct yamldoc *d, const struct raw_manifest *raw,
                                   struct manifest *m, struct errmsg *msg)
{
    struct status s =
        name_parse("the function's name", raw->name, strlen(raw->name), &m->name, msg);
    if (!status_is_ok(s)) {
        return yamldoc_blame(d, "name", s, msg);
    }
    TRY(fixed_check(d, msg));
    TRY(runtime_take(d, raw, m, msg));
    if (raw->handler != NULL) {
        m->handler = mem_strdup(raw->handler);
        if (m->handler == NULL) {
            return status_of(STATUS_NOMEM);
        }
    }
    if (raw->image != NULL && strcmp(raw->image, IMAGE_DEFAULT) != 0) {
        m->image = mem_strdup(raw->image);
        if (m->image == NULL) {
            return status_of(STATUS_NOMEM);
        }
    }
    TRY(yamldoc_numbers(d, numbers, sizeof numbers / sizeof numbers[0], raw, m, msg));
    TRY(gpu_take(d, raw, m, msg));
    TRY(durable_take(d, raw, m, msg));
    TRY(schedules_take(d, raw, m, msg));
    if (raw->isolation != NULL) {
        TRY(yamldoc_blame(d, "isolation", isolation_parse(raw->isolation, &m->isolation, msg),
                          msg));
    }
    TRY(pairs_take(d, "env", MANIFEST_ENV_MAX, &m->env, &m->env_count, msg));
    TRY(pairs_take(d, "placement.require", MANIFEST_REQUIRE_MAX, &m->require, &m->require_count,
                   msg));
    TRY(egress_take(d, m, msg));
    char key[MANIFEST_KEY_BYTES];
    return yamldoc_blame(d, key, manifest_check(m, key, msg), msg);
}

/* Takes the document. */
static struct status manifest_take(struct yamldoc *d, struct manifest *out, struct errmsg *msg)
{
    struct manifest m;
    manifest_init(&m);
    void *raw = NULL;
    struct status s = yamldoc_load(d, &manifest_schema, &raw, msg);
    if (status_is_ok(s)) {
        s = manifest_fill(d, raw, &m, msg);
        if (s.code == STATUS_NOMEM) {
            (void)status_fail(msg, STATUS_NOMEM, "%s: out of memory", d->name);
        }
    }
    yamldoc_unload(&manifest_schema, raw);
    yamldoc_close(d);
    if (!status_is_ok(s)) {
        manifest_close(&m);
        return s;
    }
    *out = m;
    return status_ok();
}

struct status manifest_load(const char *path, struct manifest *out, struct errmsg *msg)
{
    struct yamldoc *d;
    TRY(yamldoc_open(&d, path, msg));
    return manifest_take(d, out, msg);
}

struct status manifest_parse(const char *name, struct bytes text, struct manifest *out,
                             struct errmsg *msg)
{
    struct yamldoc *d;
    TRY(yamldoc_parse(&d, name, text, msg));
    return manifest_take(d, out, msg);
}
