#include "scheduler/core/spec.h"

#include "common/cron.h"
#include "common/egress_rule.h"
#include "common/image_ref.h"
#include "scheduler/core/isolation_policy.h"

#include <inttypes.h>
#include <string.h>

enum { DAY_MS = 24 * 3600 * 1000 };

static struct status check_range(const char *field, uint64_t value, uint64_t min, uint64_t max,
                                 struct errmsg *msg)
{
    if (value < min || value > max) {
        return status_fail(msg, STATUS_INVALID,
                           "%s: %" PRIu64 " is not between %" PRIu64 " and %" PRIu64, field, value,
                           min, max);
    }
    return status_ok();
}

static struct status check_text(const char *field, const char *text, bool required,
                                struct errmsg *msg)
{
    size_t size = strlen(text);
    if (required && size == 0) {
        return status_fail(msg, STATUS_INVALID, "%s: is empty", field);
    }
    if (size > SPEC_TEXT_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "%s: %zu bytes, at most %d are allowed", field, size,
                           SPEC_TEXT_BYTES_MAX);
    }
    return status_ok();
}

static struct status check_pairs(const char *field, const struct pair *pairs, size_t count,
                                 size_t max, struct errmsg *msg)
{
    if (count > max) {
        return status_fail(msg, STATUS_LIMIT, "%s: %zu entries, at most %zu are allowed", field,
                           count, max);
    }
    for (size_t i = 0; i < count; i++) {
        TRY(check_text(field, pairs[i].key, true, msg));
        TRY(check_text(field, pairs[i].value, false, msg));
        if (strchr(pairs[i].key, '=') != NULL) {
            return status_fail(msg, STATUS_INVALID, "%s: key \"%.60s\" holds '='", field,
                               pairs[i].key);
        }
    }
    return status_ok();
}

static struct status check_code(const struct function_spec *s, struct errmsg *msg)
{
    bool command = strcmp(s->runtime, "command") == 0;
    if (!command && strcmp(s->runtime, "python") != 0 && strcmp(s->runtime, "c") != 0) {
        return status_fail(msg, STATUS_INVALID, "runtime: \"%.40s\" is not python, c or command",
                           s->runtime);
    }
    TRY(check_text("handler", s->handler, !command, msg));
    TRY(check_range("command", s->command_count, command ? 1 : 0, command ? SPEC_COMMAND_MAX : 0,
                    msg));
    for (size_t i = 0; i < s->command_count; i++) {
        TRY(check_text("command", s->command[i].text, i == 0, msg));
    }
    struct image_ref ref;
    if (s->image != NULL && s->image[0] != '\0') {
        TRY(status_prefix(msg, image_ref_parse(s->image, &ref, msg), "image"));
    }
    if (s->chunks.size % DIGEST_BYTES != 0) {
        return status_fail(msg, STATUS_INVALID, "chunks: %zu bytes are no list of digests",
                           s->chunks.size);
    }
    uint64_t chunks = s->chunks.size / DIGEST_BYTES;
    TRY(check_range("chunks", chunks, 1, SPEC_CHUNKS_MAX, msg));
    return check_range("package_bytes", s->package_bytes, 1, chunks * CHUNK_BYTES_MAX, msg);
}

static struct status check_schedule(const struct function_spec *s, size_t at, struct errmsg *msg)
{
    const struct schedule_spec *k = &s->schedules[at];
    struct name name;
    struct cron cron;
    TRY(name_parse("schedule name", k->name, strlen(k->name), &name, msg));
    TRY(status_prefix(msg, cron_parse(k->cron, &cron, msg), "schedule %s: cron", name.text));
    if (k->payload.size > SPAWN_INLINE_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "schedule %s: payload of %zu bytes, at most %d",
                           name.text, k->payload.size, SPAWN_INLINE_BYTES_MAX);
    }
    for (size_t i = 0; i < at; i++) {
        if (strcmp(s->schedules[i].name, k->name) == 0) {
            return status_fail(msg, STATUS_INVALID, "two schedules are named %s", name.text);
        }
    }
    return check_range("schedule catch_up", k->catch_up, 0, SPEC_CATCH_UP_MAX, msg);
}

static struct status check_durable(const struct function_spec *s, struct errmsg *msg)
{
    const char *class = s->data_class == NULL ? "" : s->data_class;
    TRY(check_range("retries.max", s->retries_max, 0, SPEC_RETRIES_MAX, msg));
    TRY(check_range("retries.backoff", s->retry_backoff_ms, 0, DAY_MS, msg));
    TRY(check_range("retries.factor", s->retry_factor_milli,
                    s->retry_factor_milli == 0 ? 0 : SPEC_FACTOR_MILLI_MIN, SPEC_FACTOR_MILLI_MAX,
                    msg));
    TRY(check_range("retries.cap", s->retry_cap_ms, 0, DAY_MS, msg));
    TRY(check_range("limits.running", s->running_max, 0, SPEC_RUNNING_MAX, msg));
    TRY(check_range("limits.rate", s->rate_milli, 0, SPEC_RATE_MILLI_MAX, msg));
    TRY(check_range("limits.burst", s->rate_burst, 0, SPEC_BURST_MAX, msg));
    TRY(check_range("limits.queue", s->durable_queue_max, 0, SPEC_DURABLE_QUEUE_MAX, msg));
    TRY(check_range("limits.queue_age", s->queue_age_ms, 0, UINT64_C(7) * DAY_MS, msg));
    TRY(check_range("limits.poison", s->poison_max, 0, SPEC_POISON_MAX, msg));
    if (class[0] != '\0' && strcmp(class, "public") != 0 && strcmp(class, "internal") != 0 &&
        strcmp(class, "phi") != 0) {
        return status_fail(msg, STATUS_INVALID,
                           "data_class: \"%.40s\" is not public, internal or phi", class);
    }
    if (s->schedules_count > SCHEDULES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "schedules: %zu entries, at most %d are allowed",
                           s->schedules_count, SCHEDULES_MAX);
    }
    for (size_t i = 0; i < s->schedules_count; i++) {
        TRY(check_schedule(s, i, msg));
    }
    return status_ok();
}

static struct status check_egress(const struct function_spec *s, struct errmsg *msg)
{
    TRY(check_range("network.egress", s->egress_count, 0, MANIFEST_EGRESS_MAX, msg));
    for (size_t i = 0; i < s->egress_count; i++) {
        struct egress_rule rule;
        TRY(status_prefix(msg, egress_rule_parse(s->egress[i].text, &rule, msg), "network.egress"));
    }
    return status_ok();
}

static struct status check_gpu(const struct function_spec *s, struct errmsg *msg)
{
    const char *model = s->gpu_model == NULL ? "" : s->gpu_model;
    TRY(check_range("resources.gpu.count", s->gpu_count, 0, MANIFEST_GPU_COUNT_MAX, msg));
    TRY(check_range("resources.gpu.memory", s->gpu_memory_bytes, 0, MANIFEST_GPU_MEMORY_BYTES_MAX,
                    msg));
    if (strlen(model) > MANIFEST_GPU_MODEL_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "resources.gpu.model: more than %d bytes",
                           MANIFEST_GPU_MODEL_BYTES_MAX);
    }
    for (const char *at = model; *at != '\0'; at++) {
        if (*at < ' ' || *at > '~') {
            return status_fail(msg, STATUS_INVALID,
                               "resources.gpu.model: holds other than printable ASCII");
        }
    }
    if (s->gpu_count > 0 && s->isolation != NULL && strcmp(s->isolation, "gvisor") == 0) {
        return status_fail(msg, STATUS_INVALID,
                           "resources.gpu: isolation gvisor gives functions no GPUs");
    }
    if (s->gpu_count == 0 && (model[0] != '\0' || s->gpu_memory_bytes != 0)) {
        return status_fail(msg, STATUS_INVALID, "resources.gpu.count: 0 of a kind that is named");
    }
    return status_ok();
}

struct status function_spec_check(const struct function_spec *s, struct errmsg *msg)
{
    struct name name;
    TRY(name_parse("function name", s->name, strlen(s->name), &name, msg));
    TRY(check_code(s, msg));
    TRY(check_range("resources.cpu", s->cpu_millis, 1, SPEC_CPU_MILLIS_MAX, msg));
    TRY(check_range("resources.memory", s->memory_bytes, SPEC_MEMORY_BYTES_MIN,
                    SPEC_MEMORY_BYTES_MAX, msg));
    TRY(check_range("resources.tmp", s->tmp_bytes, 0, SPEC_MEMORY_BYTES_MAX, msg));
    TRY(check_range("resources.processes", s->processes_max, 1, SPEC_PROCESSES_MAX, msg));
    TRY(check_range("scaling.max", s->scale_max, 1, SPEC_SCALE_MAX, msg));
    TRY(check_range("scaling.min", s->scale_min, 0, s->scale_max, msg));
    TRY(check_range("scaling.concurrency", s->concurrency, 1, SPEC_CONCURRENCY_MAX, msg));
    TRY(check_range("scaling.queue", s->queue_max, 1, SPEC_QUEUE_MAX, msg));
    TRY(check_range("scaling.idle", s->idle_ms, 100, UINT64_C(30) * DAY_MS, msg));
    TRY(check_range("timeout", s->timeout_ms, 1, DAY_MS, msg));
    TRY(check_range("startup_timeout", s->startup_timeout_ms, 1, DAY_MS, msg));
    TRY(check_gpu(s, msg));
    TRY(check_durable(s, msg));
    TRY(check_egress(s, msg));
    TRY(isolation_check(s, msg));
    TRY(check_pairs("env", s->env, s->env_count, SPEC_ENV_MAX, msg));
    return check_pairs("placement.require", s->require, s->require_count, SPEC_LABELS_MAX, msg);
}

bool spec_is_sensitive(const struct function_spec *spec)
{
    return spec->data_class != NULL && strcmp(spec->data_class, "phi") == 0;
}
