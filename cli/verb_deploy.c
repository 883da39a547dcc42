/* skep deploy: the folder becomes a deterministic package, the package chunks; the chunks that the
 * cluster lacks are sent, then the specification. */
#include "cli/cli.h"

#include "common/chunks.h"
#include "common/manifest_load.h"
#include "common/mem.h"
#include "common/package.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

struct deployment {
    struct cli *cli;
    struct client *client;
    struct manifest manifest;
    struct package package;
    struct chunk_list chunks;
    struct arena arena;
};

static struct pair *pairs_of(struct arena *a, const struct text_pair *from, size_t count)
{
    struct pair *out = mem_must(arena_zalloc(a, count, sizeof *out));
    for (size_t i = 0; i < count; i++) {
        out[i] = (struct pair){.key = from[i].key, .value = from[i].value};
    }
    return out;
}

static struct text *texts_of(struct arena *a, char *const *from, size_t count)
{
    struct text *out = mem_must(arena_zalloc(a, count, sizeof *out));
    for (size_t i = 0; i < count; i++) {
        out[i].text = from[i];
    }
    return out;
}

static struct schedule_spec *schedules_of(struct arena *a, const struct manifest *m)
{
    struct schedule_spec *out = mem_must(arena_zalloc(a, m->schedules_count, sizeof *out));
    for (size_t i = 0; i < m->schedules_count; i++) {
        const struct manifest_schedule *s = &m->schedules[i];
        out[i] = (struct schedule_spec){.name = s->name.text,
                                        .cron = s->cron,
                                        .payload = bytes_of(s->payload, strlen(s->payload)),
                                        .catch_up = s->catch_up};
    }
    return out;
}

static struct function_spec spec_of(struct deployment *d)
{
    const struct manifest *m = &d->manifest;
    return (struct function_spec){
        .name = m->name.text,
        .runtime = runtime_name(m->runtime),
        .handler = m->handler == NULL ? "" : m->handler,
        .image = m->image == NULL ? "" : m->image,
        .command = texts_of(&d->arena, m->command, m->command_count),
        .command_count = m->command_count,
        .cpu_millis = m->cpu_millis,
        .memory_bytes = m->memory_bytes,
        .tmp_bytes = m->tmp_bytes,
        .processes_max = m->processes_max,
        .scale_min = m->scale_min,
        .scale_max = m->scale_max,
        .concurrency = m->concurrency,
        .idle_ms = m->idle_ms,
        .queue_max = m->queue_max,
        .timeout_ms = m->timeout_ms,
        .startup_timeout_ms = m->startup_timeout_ms,
        .env = pairs_of(&d->arena, m->env, m->env_count),
        .env_count = m->env_count,
        .require = pairs_of(&d->arena, m->require, m->require_count),
        .require_count = m->require_count,
        .retries_max = m->retries_max,
        .retry_backoff_ms = m->retry_backoff_ms,
        .retry_factor_milli = m->retry_factor_milli,
        .retry_cap_ms = m->retry_cap_ms,
        .running_max = m->running_max,
        .rate_milli = m->rate_milli,
        .rate_burst = m->rate_burst,
        .queue_age_ms = m->queue_age_ms,
        .poison_max = m->poison_max,
        .durable_queue_max = m->durable_queue_max,
        .data_class = data_class_name(m->data_class),
        /* Empty, as clients of before say it. */
        .isolation = m->isolation == ISOLATION_CELL ? "" : isolation_name(m->isolation),
        .schedules = schedules_of(&d->arena, m),
        .schedules_count = m->schedules_count,
        .egress = texts_of(&d->arena, m->egress, m->egress_count),
        .egress_count = m->egress_count,
        .gpu_count = m->gpu_count,
        .gpu_model = m->gpu_model == NULL ? "" : m->gpu_model,
        .gpu_memory_bytes = m->gpu_memory_bytes,
        .chunks = bytes_of(d->chunks.digests, d->chunks.count * DIGEST_BYTES),
        .package_bytes = d->chunks.bytes};
}

static void progress(size_t done, size_t all)
{
    if (isatty(STDERR_FILENO) != 0) {
        (void)fprintf(stderr, "\rupload %zu/%zu chunks%s", done, all, done == all ? "\n" : "");
    } else if (done == all) {
        (void)fprintf(stderr, "uploaded %zu chunks\n", all);
    }
}

static size_t index_of(const struct deployment *d, const uint8_t *digest)
{
    for (size_t i = 0; i < d->chunks.count; i++) {
        if (memcmp(d->chunks.digests[i].v, digest, DIGEST_BYTES) == 0) {
            return i;
        }
    }
    return d->chunks.count;
}

static bool put_chunk(struct deployment *d, const uint8_t *digest, int *code)
{
    struct errmsg msg = {.text = ""};
    struct buffer data = {0};
    struct arena a = {0};
    struct message answer;
    bool sent = false;
    size_t at = index_of(d, digest);
    if (at == d->chunks.count) {
        *code = cli_fail(status_of(STATUS_INTERNAL),
                         "the scheduler asked for a chunk that the package does not have");
        return false;
    }
    struct status s = chunk_of_package(&d->package, at, &data, &msg);
    if (!status_is_ok(s)) {
        *code = cli_fail(s, msg.text);
    } else {
        const struct message put = {
            .type = MESSAGE_CHUNK_PUT,
            .chunk_put = {.digest = d->chunks.digests[at], .data = bytes_of(data.data, data.size)}};
        sent = cli_ask(d->cli, d->client, &put, CLIENT_REQUEST_MS, &a, &answer, code);
    }
    buffer_close(&data);
    arena_close(&a);
    return sent;
}

/* Chunks go to the leader: the connection has followed it there. */
static bool upload(struct deployment *d, int *code)
{
    struct arena a = {0};
    struct message answer;
    const struct message ask = {
        .type = MESSAGE_CHUNK_QUERY,
        .chunk_query = {.digests = bytes_of(d->chunks.digests, d->chunks.count * DIGEST_BYTES)}};
    bool ok = cli_ask(d->cli, d->client, &ask, CLIENT_REQUEST_MS, &a, &answer, code);
    size_t missing = ok && answer.type == MESSAGE_CHUNK_MISSING
                         ? answer.chunk_missing.digests.size / DIGEST_BYTES
                         : 0;
    for (size_t i = 0; i < missing && ok; i++) {
        ok = put_chunk(d, answer.chunk_missing.digests.data + i * DIGEST_BYTES, code);
        progress(i + 1, missing);
    }
    arena_close(&a);
    return ok;
}

/* The leader's place is learnt from a question that only it answers; uploads would go astray
 * otherwise. */
static bool find_leader(struct deployment *d, struct arena *a, struct message *answer, int *code)
{
    const struct message ask = {.type = MESSAGE_QUERY, .query = {.what = "functions", .name = ""}};
    return cli_ask(d->cli, d->client, &ask, CLIENT_REQUEST_MS, a, answer, code);
}

static const char *known_revision(const struct message *answer, const char *name)
{
    for (size_t i = 0; answer->type == MESSAGE_RECORDS && i < answer->records.rows_count; i++) {
        const struct record *r = &answer->records.rows[i];
        const char *revision = NULL;
        bool match = false;
        for (size_t k = 0; k < r->fields_count; k++) {
            match = match || (strcmp(r->fields[k].key, "name") == 0 &&
                              strcmp(r->fields[k].value, name) == 0);
            revision = strcmp(r->fields[k].key, "revision") == 0 ? r->fields[k].value : revision;
        }
        if (match) {
            return revision;
        }
    }
    return NULL;
}

static void report(struct deployment *d, const struct reply *r)
{
    char revision[DIGEST_STRING_BYTES] = "";
    if (r->detail.size == DIGEST_BYTES) {
        struct digest digest;
        memcpy(digest.v, r->detail.data, DIGEST_BYTES);
        digest_format(&digest, revision);
    }
    if (d->cli->json) {
        (void)printf("{\"name\": \"%s\", \"revision\": \"%s\", \"index\": %" PRIu64 "}\n",
                     d->manifest.name.text, revision, r->index);
    } else {
        (void)printf("%s is deployed: revision %.12s, index %" PRIu64 "\n", d->manifest.name.text,
                     revision, r->index);
    }
}

static int send_deploy(struct deployment *d)
{
    int code = CLI_DONE;
    struct arena a = {0};
    struct message answer;
    struct function_spec spec = spec_of(d);
    if (!find_leader(d, &a, &answer, &code)) {
        arena_close(&a);
        return code;
    }
    const char *before = known_revision(&answer, d->manifest.name.text);
    if (d->cli->options.plan != 0) {
        (void)printf("%s function %s: %s, %" PRIu32 "m CPU, %" PRIu64
                     " bytes of memory, package of %" PRIu64
                     " bytes in %zu chunks; current revision: %.12s\n",
                     before == NULL ? "create" : "change", spec.name, spec.runtime, spec.cpu_millis,
                     spec.memory_bytes, spec.package_bytes, d->chunks.count,
                     before == NULL ? "none" : before);
        arena_close(&a);
        return CLI_DONE;
    }
    arena_close(&a);
    const struct message m = {.type = MESSAGE_DEPLOY,
                              .deploy = {.spec = &spec,
                                         .check_index = d->cli->options.check_index > 0
                                                            ? (uint64_t)d->cli->options.check_index
                                                            : 0}};
    if (upload(d, &code) && cli_ask(d->cli, d->client, &m, CLIENT_REQUEST_MS, &a, &answer, &code) &&
        answer.type == MESSAGE_REPLY) {
        report(d, &answer.reply);
    }
    arena_close(&a);
    return code;
}

static struct status prepare(struct deployment *d, const char *folder, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 1];
    int used = snprintf(path, sizeof path, "%s/%s", folder, MANIFEST_FILE);
    if (used < 0 || (size_t)used >= sizeof path) {
        return status_fail(msg, STATUS_INVALID, "the path of the folder is too long");
    }
    struct status s = manifest_load(path, &d->manifest, msg);
    if (!status_is_ok(s)) {
        /* A value beyond its limits is as wrong as any other. */
        return s.code == STATUS_LIMIT ? status_of(STATUS_INVALID) : s;
    }
    TRY(package_open(&d->package, folder, msg));
    return chunk_list_of_package(&d->package, &d->chunks, msg);
}

int verb_deploy(struct cli *cli)
{
    struct deployment d = {.cli = cli, .package = {.fd = -1}};
    struct errmsg msg = {.text = ""};
    struct status s = prepare(&d, cli->args[0], &msg);
    int code = CLI_DONE;
    if (!status_is_ok(s)) {
        code = cli_fail(s, msg.text);
        code = code == CLI_DENIED ? CLI_FAILED : code;
    } else {
        d.client = cli_connect(cli, &code);
        if (d.client != NULL) {
            code = send_deploy(&d);
            client_close(d.client);
        }
    }
    manifest_close(&d.manifest);
    if (d.package.fd >= 0) {
        package_close(&d.package);
    }
    chunk_list_close(&d.chunks);
    arena_close(&d.arena);
    return code;
}
