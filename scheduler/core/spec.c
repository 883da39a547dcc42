#include "scheduler/core/spec.h"

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
    if (s->chunks.size % DIGEST_BYTES != 0) {
        return status_fail(msg, STATUS_INVALID, "chunks: %zu bytes are no list of digests",
                           s->chunks.size);
    }
    uint64_t chunks = s->chunks.size / DIGEST_BYTES;
    TRY(check_range("chunks", chunks, 1, SPEC_CHUNKS_MAX, msg));
    return check_range("package_bytes", s->package_bytes, 1, chunks * CHUNK_BYTES_MAX, msg);
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
    TRY(check_pairs("env", s->env, s->env_count, SPEC_ENV_MAX, msg));
    return check_pairs("placement.require", s->require, s->require_count, SPEC_LABELS_MAX, msg);
}
