#include "common/manifest.h"

#include "common/check.h"
#include "common/cron.h"
#include "common/egress_rule.h"
#include "common/image_ref.h"
#include "common/mem.h"
#include "common/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const runtime_names[RUNTIME_COUNT_] = {
    [RUNTIME_PYTHON] = "python",
    [RUNTIME_C] = "c",
    [RUNTIME_COMMAND] = "command",
};

const char *runtime_name(enum runtime runtime)
{
    CHECK((size_t)runtime < RUNTIME_COUNT_);
    return runtime_names[runtime];
}

struct status runtime_parse(const char *text, enum runtime *out, struct errmsg *msg)
{
    for (size_t i = 0; i < RUNTIME_COUNT_; i++) {
        if (strcmp(text, runtime_names[i]) == 0) {
            *out = (enum runtime)i;
            return status_ok();
        }
    }
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, strlen(text), quoted);
    return status_fail(msg, STATUS_INVALID,
                       "\"%s\" is not a runtime; there are python, c and command", quoted);
}

static const char *const data_class_names[DATA_CLASS_COUNT_] = {
    [DATA_CLASS_PUBLIC] = "public",
    [DATA_CLASS_INTERNAL] = "internal",
    [DATA_CLASS_PHI] = "phi",
};

const char *data_class_name(enum data_class data_class)
{
    CHECK((size_t)data_class < DATA_CLASS_COUNT_);
    return data_class_names[data_class];
}

struct status data_class_parse(const char *text, enum data_class *out, struct errmsg *msg)
{
    for (size_t i = 0; i < DATA_CLASS_COUNT_; i++) {
        if (strcmp(text, data_class_names[i]) == 0) {
            *out = (enum data_class)i;
            return status_ok();
        }
    }
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, strlen(text), quoted);
    return status_fail(msg, STATUS_INVALID,
                       "\"%s\" is not a class of data; there are public, internal and phi", quoted);
}

static const char *const isolation_names[ISOLATION_COUNT_] = {
    [ISOLATION_CELL] = "cell",
    [ISOLATION_GVISOR] = "gvisor",
};

const char *isolation_name(enum isolation_kind isolation)
{
    CHECK((size_t)isolation < ISOLATION_COUNT_);
    return isolation_names[isolation];
}

struct status isolation_parse(const char *text, enum isolation_kind *out, struct errmsg *msg)
{
    for (size_t i = 0; i < ISOLATION_COUNT_; i++) {
        if (strcmp(text, isolation_names[i]) == 0) {
            *out = (enum isolation_kind)i;
            return status_ok();
        }
    }
    if (strcmp(text, "trusted") == 0) {
        return status_fail(msg, STATUS_UNSUPPORTED,
                           "\"trusted\" is not offered: no function runs with less than a cell");
    }
    char quoted[QUOTE_STRING_BYTES];
    text_quote(text, strlen(text), quoted);
    return status_fail(msg, STATUS_INVALID, "\"%s\" is no isolation; there are cell and gvisor",
                       quoted);
}

void manifest_init(struct manifest *m)
{
    *m = (struct manifest){
        .cpu_millis = MANIFEST_CPU_MILLIS_DEFAULT,
        .memory_bytes = MANIFEST_MEMORY_BYTES_DEFAULT,
        .tmp_bytes = MANIFEST_TMP_BYTES_DEFAULT,
        .processes_max = MANIFEST_PROCESSES_DEFAULT,
        .scale_min = MANIFEST_SCALE_MIN_DEFAULT,
        .scale_max = MANIFEST_SCALE_MAX_DEFAULT,
        .concurrency = MANIFEST_CONCURRENCY_DEFAULT,
        .idle_ms = MANIFEST_IDLE_MS_DEFAULT,
        .queue_max = MANIFEST_QUEUE_DEFAULT,
        .timeout_ms = MANIFEST_TIMEOUT_MS_DEFAULT,
        .startup_timeout_ms = MANIFEST_STARTUP_TIMEOUT_MS_DEFAULT,
        .retries_max = MANIFEST_RETRIES_DEFAULT,
        .retry_backoff_ms = MANIFEST_BACKOFF_MS_DEFAULT,
        .retry_factor_milli = MANIFEST_FACTOR_MILLI_DEFAULT,
        .retry_cap_ms = MANIFEST_CAP_MS_DEFAULT,
        .durable_queue_max = MANIFEST_DURABLE_QUEUE_DEFAULT,
        .poison_max = MANIFEST_POISON_DEFAULT,
        .data_class = DATA_CLASS_INTERNAL,
        .isolation = ISOLATION_CELL,
    };
}

void text_pairs_close(struct text_pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mem_free(pairs[i].key);
        mem_free(pairs[i].value);
    }
    mem_free(pairs);
}

void manifest_close(struct manifest *m)
{
    mem_free(m->handler);
    mem_free(m->image);
    for (size_t i = 0; i < m->command_count; i++) {
        mem_free(m->command[i]);
    }
    mem_free(m->command);
    text_pairs_close(m->env, m->env_count);
    text_pairs_close(m->require, m->require_count);
    for (size_t i = 0; i < m->egress_count; i++) {
        mem_free(m->egress[i]);
    }
    mem_free(m->egress);
    for (size_t i = 0; i < m->schedules_count; i++) {
        mem_free(m->schedules[i].cron);
        mem_free(m->schedules[i].payload);
    }
    mem_free(m->schedules);
    mem_free(m->gpu_model);
    *m = (struct manifest){0};
}

struct status text_pairs_put(struct text_pair **pairs, size_t *count, const char *key,
                             const char *value)
{
    size_t at = 0;
    while (at < *count && strcmp((*pairs)[at].key, key) < 0) {
        at++;
    }
    if (at < *count && strcmp((*pairs)[at].key, key) == 0) {
        return status_of(STATUS_EXISTS);
    }
    struct text_pair pair = {mem_strdup(key), mem_strdup(value)};
    struct text_pair *grown = pair.key != NULL && pair.value != NULL
                                  ? mem_realloc(*pairs, (*count + 1) * sizeof *grown)
                                  : NULL;
    if (grown == NULL) {
        mem_free(pair.key);
        mem_free(pair.value);
        return status_of(STATUS_NOMEM);
    }
    memmove(grown + at + 1, grown + at, (*count - at) * sizeof *grown);
    grown[at] = pair;
    *pairs = grown;
    (*count)++;
    return status_ok();
}

struct status label_check(const char *key, const char *value, struct errmsg *msg)
{
    struct name name;
    TRY(name_parse("label", key, strlen(key), &name, msg));
    size_t size = strlen(value);
    char quoted[QUOTE_STRING_BYTES];
    text_quote(value, size, quoted);
    if (size == 0 || size > MANIFEST_LABEL_BYTES_MAX) {
        return status_fail(msg, size == 0 ? STATUS_INVALID : STATUS_LIMIT,
                           "a label's value has 1 to %d bytes, this has %zu",
                           MANIFEST_LABEL_BYTES_MAX, size);
    }
    for (size_t i = 0; i < size; i++) {
        char c = value[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!alnum && c != '.' && c != '_' && c != '-') {
            return status_fail(
                msg, STATUS_INVALID,
                "the label value \"%s\" may hold only letters, digits, '.', '_' and '-'", quoted);
        }
    }
    return status_ok();
}

/* ---- Validation ---- */

struct range {
    const char *key;
    enum unit unit;
    uint64_t value;
    uint64_t min;
    uint64_t max;
};

static struct status range_check(const struct range *r, struct errmsg *msg)
{
    if (r->value >= r->min && r->value <= r->max) {
        return status_ok();
    }
    char value[UNIT_STRING_BYTES];
    char min[UNIT_STRING_BYTES];
    char max[UNIT_STRING_BYTES];
    unit_format(r->unit, r->value, value);
    unit_format(r->unit, r->min, min);
    unit_format(r->unit, r->max, max);
    return status_fail(msg, STATUS_LIMIT, "%s is out of range; %s to %s are allowed", value, min,
                       max);
}

/* A path inside the code's folder: relative, no empty, "." (but at the start) or ".." parts. */
static bool relative_path(const char *path, size_t size)
{
    size_t at = size >= 2 && path[0] == '.' && path[1] == '/' ? 2 : 0;
    if (at == size) {
        return false;
    }
    while (at <= size) {
        const char *slash = memchr(path + at, '/', size - at);
        size_t end = slash != NULL ? (size_t)(slash - path) : size;
        size_t part = end - at;
        if (part == 0 || (part == 1 && path[at] == '.') ||
            (part == 2 && memcmp(path + at, "..", 2) == 0)) {
            return false;
        }
        at = end + 1;
    }
    return true;
}

static bool identifier(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && (i == 0 || c < '0' || c > '9')) {
            return false;
        }
    }
    return size > 0;
}

static bool printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7F) {
            return false;
        }
    }
    return true;
}

static struct status handler_check(const struct manifest *m, struct errmsg *msg)
{
    if (m->runtime == RUNTIME_COMMAND) {
        return m->handler == NULL
                   ? status_ok()
                   : status_fail(msg, STATUS_INVALID, "goes with runtime, not with command");
    }
    if (m->handler == NULL) {
        return status_fail(msg, STATUS_INVALID, "is missing; the %s runtime needs it",
                           runtime_name(m->runtime));
    }
    size_t size = strlen(m->handler);
    char quoted[QUOTE_STRING_BYTES];
    text_quote(m->handler, size, quoted);
    if (size > MANIFEST_HANDLER_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has %zu bytes, at most %d are allowed", size,
                           MANIFEST_HANDLER_BYTES_MAX);
    }
    if (m->runtime == RUNTIME_C) {
        return printable(m->handler) && relative_path(m->handler, size)
                   ? status_ok()
                   : status_fail(msg, STATUS_INVALID,
                                 "\"%s\" is not the path of a program inside the folder", quoted);
    }
    const char *colon = strrchr(m->handler, ':');
    size_t file = colon != NULL ? (size_t)(colon - m->handler) : 0;
    if (file <= 3 || memcmp(colon - 3, ".py", 3) != 0 || !relative_path(m->handler, file) ||
        !printable(m->handler) || !identifier(colon + 1, size - file - 1)) {
        return status_fail(msg, STATUS_INVALID, "\"%s\" is not of the form FILE.py:FUNCTION",
                           quoted);
    }
    return status_ok();
}

static struct status command_check(const struct manifest *m, struct errmsg *msg)
{
    if (m->runtime != RUNTIME_COMMAND) {
        return m->command_count == 0
                   ? status_ok()
                   : status_fail(msg, STATUS_INVALID, "goes without runtime and handler");
    }
    if (m->command_count == 0 || m->command_count > MANIFEST_COMMAND_ARGS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has %zu entries; 1 to %d are allowed",
                           m->command_count, MANIFEST_COMMAND_ARGS_MAX);
    }
    for (size_t i = 0; i < m->command_count; i++) {
        size_t size = strlen(m->command[i]);
        if (size > MANIFEST_COMMAND_ARG_BYTES_MAX) {
            return status_fail(msg, STATUS_LIMIT, "entry %zu has %zu bytes, at most %d are allowed",
                               i + 1, size, MANIFEST_COMMAND_ARG_BYTES_MAX);
        }
    }
    if (m->command[0][0] == '\0') {
        return status_fail(msg, STATUS_INVALID, "the first entry, the program, is empty");
    }
    return status_ok();
}

static struct status env_check(const struct text_pair *pair, struct errmsg *msg)
{
    size_t key_size = strlen(pair->key);
    size_t value_size = strlen(pair->value);
    if (!identifier(pair->key, key_size)) {
        return status_fail(
            msg, STATUS_INVALID,
            "a variable's name holds letters, digits and '_' and does not start with a digit");
    }
    if (key_size > MANIFEST_ENV_KEY_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "a variable's name has at most %d bytes",
                           MANIFEST_ENV_KEY_BYTES_MAX);
    }
    if (strncmp(pair->key, "SKEP_", 5) == 0) {
        return status_fail(msg, STATUS_INVALID, "names that start with SKEP_ are set by the agent");
    }
    if (value_size > MANIFEST_ENV_VALUE_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "the value has %zu bytes, at most %d are allowed",
                           value_size, MANIFEST_ENV_VALUE_BYTES_MAX);
    }
    return status_ok();
}

static void key_set(char key[MANIFEST_KEY_BYTES], const char *path)
{
    (void)snprintf(key, MANIFEST_KEY_BYTES, "%s", path);
}

static struct status pairs_check(const struct manifest *m, char key[MANIFEST_KEY_BYTES],
                                 struct errmsg *msg)
{
    char quoted[QUOTE_STRING_BYTES];
    key_set(key, "env");
    if (m->env_count > MANIFEST_ENV_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has %zu entries, at most %d are allowed",
                           m->env_count, MANIFEST_ENV_MAX);
    }
    for (size_t i = 0; i < m->env_count; i++) {
        text_quote(m->env[i].key, strlen(m->env[i].key), quoted);
        (void)snprintf(key, MANIFEST_KEY_BYTES, "env.%s", quoted);
        TRY(env_check(&m->env[i], msg));
    }
    key_set(key, "placement.require");
    if (m->require_count > MANIFEST_REQUIRE_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has %zu entries, at most %d are allowed",
                           m->require_count, MANIFEST_REQUIRE_MAX);
    }
    for (size_t i = 0; i < m->require_count; i++) {
        text_quote(m->require[i].key, strlen(m->require[i].key), quoted);
        (void)snprintf(key, MANIFEST_KEY_BYTES, "placement.require.%s", quoted);
        TRY(label_check(m->require[i].key, m->require[i].value, msg));
    }
    return status_ok();
}

static struct status schedule_check(const struct manifest_schedule *s, size_t at,
                                    char key[MANIFEST_KEY_BYTES], struct errmsg *msg)
{
    struct name name;
    struct cron cron;
    const struct range catch_up = {"", UNIT_COUNT, s->catch_up, 0, MANIFEST_CATCH_UP_MAX};
    (void)snprintf(key, MANIFEST_KEY_BYTES, "schedules[%zu].name", at);
    TRY(name_parse("the schedule's name", s->name.text, strnlen(s->name.text, sizeof s->name.text),
                   &name, msg));
    (void)snprintf(key, MANIFEST_KEY_BYTES, "schedules[%zu].cron", at);
    TRY(cron_parse(s->cron, &cron, msg));
    (void)snprintf(key, MANIFEST_KEY_BYTES, "schedules[%zu].catch_up", at);
    TRY(range_check(&catch_up, msg));
    (void)snprintf(key, MANIFEST_KEY_BYTES, "schedules[%zu].payload", at);
    if (strlen(s->payload) > MANIFEST_SCHEDULE_PAYLOAD_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has %zu bytes, at most %d are allowed",
                           strlen(s->payload), MANIFEST_SCHEDULE_PAYLOAD_BYTES_MAX);
    }
    return status_ok();
}

static struct status schedules_check(const struct manifest *m, char key[MANIFEST_KEY_BYTES],
                                     struct errmsg *msg)
{
    key_set(key, "schedules");
    if (m->schedules_count > MANIFEST_SCHEDULES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has %zu entries, at most %d are allowed",
                           m->schedules_count, MANIFEST_SCHEDULES_MAX);
    }
    for (size_t i = 0; i < m->schedules_count; i++) {
        TRY(schedule_check(&m->schedules[i], i, key, msg));
        for (size_t k = 0; k < i; k++) {
            if (strcmp(m->schedules[k].name.text, m->schedules[i].name.text) == 0) {
                (void)snprintf(key, MANIFEST_KEY_BYTES, "schedules[%zu].name", i);
                return status_fail(msg, STATUS_INVALID, "%s is the name of an earlier one too",
                                   m->schedules[i].name.text);
            }
        }
    }
    return status_ok();
}

static struct status egress_check(const struct manifest *m, char key[MANIFEST_KEY_BYTES],
                                  struct errmsg *msg)
{
    key_set(key, "network.egress");
    if (m->egress_count > MANIFEST_EGRESS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has %zu rules, at most %d are allowed",
                           m->egress_count, MANIFEST_EGRESS_MAX);
    }
    for (size_t i = 0; i < m->egress_count; i++) {
        struct egress_rule rule;
        char text[EGRESS_RULE_BYTES];
        (void)snprintf(key, MANIFEST_KEY_BYTES, "network.egress[%zu]", i);
        TRY(egress_rule_parse(m->egress[i], &rule, msg));
        egress_rule_format(&rule, text);
        if (strcmp(text, m->egress[i]) != 0) {
            return status_fail(msg, STATUS_INVALID, "is not in its canonical form, %s", text);
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(m->egress[k], text) == 0) {
                return status_fail(msg, STATUS_INVALID, "%s is there twice", text);
            }
        }
    }
    return status_ok();
}

static struct status durable_check(const struct manifest *m, char key[MANIFEST_KEY_BYTES],
                                   struct errmsg *msg)
{
    const struct range ranges[] = {
        {"retries.max", UNIT_COUNT, m->retries_max, 0, MANIFEST_RETRIES_MAX},
        {"retries.backoff", UNIT_DURATION, m->retry_backoff_ms, 0, MANIFEST_BACKOFF_MS_MAX},
        {"retries.factor", UNIT_FACTOR, m->retry_factor_milli, MANIFEST_FACTOR_MILLI_MIN,
         MANIFEST_FACTOR_MILLI_MAX},
        {"retries.cap", UNIT_DURATION, m->retry_cap_ms, 0, MANIFEST_BACKOFF_MS_MAX},
        {"limits.running", UNIT_COUNT, m->running_max, 0, MANIFEST_RUNNING_MAX},
        {"limits.rate", UNIT_RATE, m->rate_milli, 0, MANIFEST_RATE_MILLI_MAX},
        {"limits.burst", UNIT_COUNT, m->rate_burst, 0, MANIFEST_BURST_MAX},
        {"limits.queue", UNIT_COUNT, m->durable_queue_max, 1, MANIFEST_DURABLE_QUEUE_MAX},
        {"limits.queue_age", UNIT_DURATION, m->queue_age_ms,
         m->queue_age_ms == 0 ? 0 : MANIFEST_QUEUE_AGE_MS_MIN, MANIFEST_QUEUE_AGE_MS_MAX},
        {"limits.poison", UNIT_COUNT, m->poison_max, 1, MANIFEST_POISON_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        key_set(key, ranges[i].key);
        TRY(range_check(&ranges[i], msg));
    }
    key_set(key, "retries.cap");
    if (m->retry_cap_ms < m->retry_backoff_ms) {
        return status_fail(msg, STATUS_INVALID, "is less than retries.backoff");
    }
    key_set(key, "limits.burst");
    if (m->rate_burst != 0 && m->rate_milli == 0) {
        return status_fail(msg, STATUS_INVALID, "goes with limits.rate");
    }
    return schedules_check(m, key, msg);
}

static struct status gpu_check(const struct manifest *m, char key[MANIFEST_KEY_BYTES],
                               struct errmsg *msg)
{
    const struct range ranges[] = {
        {"resources.gpu.count", UNIT_COUNT, m->gpu_count, 0, MANIFEST_GPU_COUNT_MAX},
        {"resources.gpu.memory", UNIT_BYTES, m->gpu_memory_bytes,
         m->gpu_memory_bytes == 0 ? 0 : MANIFEST_GPU_MEMORY_BYTES_MIN,
         MANIFEST_GPU_MEMORY_BYTES_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        key_set(key, ranges[i].key);
        TRY(range_check(&ranges[i], msg));
    }
    key_set(key, "resources.gpu.model");
    if (m->gpu_model == NULL) {
        return status_ok();
    }
    size_t size = strlen(m->gpu_model);
    if (size == 0 || size > MANIFEST_GPU_MODEL_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "has %zu bytes; 1 to %d are allowed", size,
                           MANIFEST_GPU_MODEL_BYTES_MAX);
    }
    for (size_t i = 0; i < size; i++) {
        if (m->gpu_model[i] < ' ' || m->gpu_model[i] > '~') {
            return status_fail(msg, STATUS_INVALID, "holds other than printable ASCII");
        }
    }
    return status_ok();
}

struct status manifest_check(const struct manifest *m, char key[MANIFEST_KEY_BYTES],
                             struct errmsg *msg)
{
    CHECK((size_t)m->runtime < RUNTIME_COUNT_);
    struct name name;
    key_set(key, "name");
    TRY(name_parse("the function's name", m->name.text, strnlen(m->name.text, sizeof m->name.text),
                   &name, msg));
    key_set(key, "handler");
    TRY(handler_check(m, msg));
    key_set(key, "command");
    TRY(command_check(m, msg));
    key_set(key, "image");
    struct image_ref ref;
    TRY(m->image == NULL ? status_ok() : image_ref_parse(m->image, &ref, msg));
    const struct range ranges[] = {
        {"resources.cpu", UNIT_CPU, m->cpu_millis, MANIFEST_CPU_MILLIS_MIN,
         MANIFEST_CPU_MILLIS_MAX},
        {"resources.memory", UNIT_BYTES, m->memory_bytes, MANIFEST_MEMORY_BYTES_MIN,
         MANIFEST_MEMORY_BYTES_MAX},
        {"resources.tmp", UNIT_BYTES, m->tmp_bytes, MANIFEST_TMP_BYTES_MIN, MANIFEST_TMP_BYTES_MAX},
        {"resources.processes", UNIT_COUNT, m->processes_max, MANIFEST_PROCESSES_MIN,
         MANIFEST_PROCESSES_MAX},
        {"scaling.min", UNIT_COUNT, m->scale_min, 0, MANIFEST_SCALE_MIN_MAX},
        {"scaling.max", UNIT_COUNT, m->scale_max, 1, MANIFEST_SCALE_MAX_MAX},
        {"scaling.concurrency", UNIT_COUNT, m->concurrency, 1, MANIFEST_CONCURRENCY_MAX},
        {"scaling.idle", UNIT_DURATION, m->idle_ms, MANIFEST_IDLE_MS_MIN, MANIFEST_IDLE_MS_MAX},
        {"scaling.queue", UNIT_COUNT, m->queue_max, 1, MANIFEST_QUEUE_MAX},
        {"timeout", UNIT_DURATION, m->timeout_ms, MANIFEST_TIMEOUT_MS_MIN, MANIFEST_TIMEOUT_MS_MAX},
        {"startup_timeout", UNIT_DURATION, m->startup_timeout_ms, MANIFEST_STARTUP_TIMEOUT_MS_MIN,
         MANIFEST_STARTUP_TIMEOUT_MS_MAX},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
        key_set(key, ranges[i].key);
        TRY(range_check(&ranges[i], msg));
    }
    key_set(key, "scaling.min");
    if (m->scale_min > m->scale_max) {
        return status_fail(msg, STATUS_INVALID,
                           "%" PRIu32 " is more than scaling.max, which is %" PRIu32, m->scale_min,
                           m->scale_max);
    }
    key_set(key, "scaling.concurrency");
    if (m->runtime == RUNTIME_COMMAND && m->concurrency != 1) {
        return status_fail(msg, STATUS_INVALID,
                           "must be 1 with command: each invocation is a process of its own");
    }
    TRY(gpu_check(m, key, msg));
    TRY(durable_check(m, key, msg));
    TRY(egress_check(m, key, msg));
    return pairs_check(m, key, msg);
}

/* ---- The canonical text ---- */

/* KEY SIZE:BYTES and a newline: no text can be mistaken for another key. */
static struct status put_text(struct buffer *out, const char *key, const char *text)
{
    return buffer_printf(out, "%s %zu:%s\n", key, strlen(text), text);
}

static struct status put_number(struct buffer *out, const char *key, uint64_t value)
{
    return buffer_printf(out, "%s %" PRIu64 "\n", key, value);
}

static struct status put_pairs(struct buffer *out, const char *key, const struct text_pair *pairs,
                               size_t count)
{
    TRY(put_number(out, key, count));
    for (size_t i = 0; i < count; i++) {
        TRY(put_text(out, "key", pairs[i].key));
        TRY(put_text(out, "value", pairs[i].value));
    }
    return status_ok();
}

static struct status canonical(const struct manifest *m, struct buffer *out)
{
    TRY(buffer_printf(out, "skep-manifest 2\n"));
    TRY(put_text(out, "name", m->name.text));
    TRY(put_text(out, "runtime", runtime_name(m->runtime)));
    TRY(put_text(out, "handler", m->handler != NULL ? m->handler : ""));
    TRY(m->image == NULL ? status_ok() : put_text(out, "image", m->image));
    TRY(put_number(out, "command", m->command_count));
    for (size_t i = 0; i < m->command_count; i++) {
        TRY(put_text(out, "argument", m->command[i]));
    }
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {
        {"cpu_millis", m->cpu_millis},
        {"memory_bytes", m->memory_bytes},
        {"tmp_bytes", m->tmp_bytes},
        {"processes_max", m->processes_max},
        {"scale_min", m->scale_min},
        {"scale_max", m->scale_max},
        {"concurrency", m->concurrency},
        {"idle_ms", m->idle_ms},
        {"queue_max", m->queue_max},
        {"timeout_ms", m->timeout_ms},
        {"startup_timeout_ms", m->startup_timeout_ms},
        {"retries_max", m->retries_max},
        {"retry_backoff_ms", m->retry_backoff_ms},
        {"retry_factor_milli", m->retry_factor_milli},
        {"retry_cap_ms", m->retry_cap_ms},
        {"running_max", m->running_max},
        {"rate_milli", m->rate_milli},
        {"rate_burst", m->rate_burst},
        {"durable_queue_max", m->durable_queue_max},
        {"queue_age_ms", m->queue_age_ms},
        {"poison_max", m->poison_max},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        TRY(put_number(out, numbers[i].key, numbers[i].value));
    }
    TRY(put_text(out, "data_class", data_class_name(m->data_class)));
    if (m->isolation != ISOLATION_CELL) { /* Without it the text is what it was before. */
        TRY(put_text(out, "isolation", isolation_name(m->isolation)));
    }
    TRY(put_number(out, "schedules", m->schedules_count));
    for (size_t i = 0; i < m->schedules_count; i++) {
        TRY(put_text(out, "schedule", m->schedules[i].name.text));
        TRY(put_text(out, "cron", m->schedules[i].cron));
        TRY(put_text(out, "payload", m->schedules[i].payload));
        TRY(put_number(out, "catch_up", m->schedules[i].catch_up));
    }
    TRY(put_pairs(out, "env", m->env, m->env_count));
    TRY(put_pairs(out, "require", m->require, m->require_count));
    /* Only where there are some, so that what needs none keeps its digest. */
    for (size_t i = 0; i < m->egress_count; i++) {
        TRY(put_text(out, "egress", m->egress[i]));
    }
    if (m->gpu_count == 0) {
        return status_ok();
    }
    TRY(put_number(out, "gpu_count", m->gpu_count));
    TRY(put_text(out, "gpu_model", m->gpu_model != NULL ? m->gpu_model : ""));
    return put_number(out, "gpu_memory_bytes", m->gpu_memory_bytes);
}

struct status manifest_canonical(const struct manifest *m, struct buffer *out)
{
    size_t before = out->size;
    struct status s = canonical(m, out);
    if (!status_is_ok(s)) {
        out->size = before;
    }
    return s;
}
