/* skep bench call: many calls of one function, at most --concurrency in flight, and how long they
 * took. */
#include "cli/cli.h"

#include "common/histogram.h"
#include "common/mem.h"

#include <inttypes.h>
#include <string.h>
#include <sys/resource.h>
#include <uv.h>

enum { PAYLOAD_DEFAULT = 256, DURATION_MS_DEFAULT = 5000 };

struct bench {
    const char *function;
    struct buffer payload;
    struct histogram took;
    uint64_t ok, failed;
    char first_error[ERRMSG_BYTES_MAX];
};

static enum client_fill fill(void *data, uint32_t place, struct message *m)
{
    (void)place;
    const struct bench *b = data;
    *m = (struct message){
        .type = MESSAGE_CALL,
        .call = {.function = b->function, .payload = bytes_of(b->payload.data, b->payload.size)}};
    return CLIENT_FILLED;
}

static void done(void *data, uint32_t place, const struct message *answer, uint64_t took_us)
{
    (void)place;
    struct bench *b = data;
    const char *text, *leader;
    struct status s = client_answer_status(answer, &text, &leader);
    if (status_is_ok(s)) {
        b->ok++;
        histogram_record(&b->took, took_us);
        return;
    }
    b->failed++;
    if (b->first_error[0] == '\0') {
        (void)snprintf(b->first_error, sizeof b->first_error, "%s: %s", status_name(s.code), text);
    }
}

static double cpu_us(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* The first call may start an instance: it is not measured, and connects. */
static struct status warm_up(struct client *c, struct bench *b, struct errmsg *msg)
{
    struct arena a = {0};
    struct message m, answer;
    (void)fill(b, 0, &m);
    struct status s = client_ask(c, &m, CLIENT_REQUEST_MS, &a, &answer, msg);
    if (status_is_ok(s)) {
        const char *text, *leader;
        s = client_answer_status(&answer, &text, &leader);
        if (!status_is_ok(s)) {
            (void)status_fail(msg, s.code, "%s", text);
        }
    }
    arena_close(&a);
    return s;
}

static void print(const struct bench *b, double seconds, double cpu)
{
    (void)printf("calls %" PRIu64 " count\nfailed %" PRIu64 " count\nrate %.0f calls/s\n", b->ok,
                 b->failed, (double)b->ok / seconds);
    (void)printf("p50 %" PRIu64 " us\np99 %" PRIu64 " us\nmax %" PRIu64 " us\n",
                 histogram_percentile(&b->took, 50), histogram_percentile(&b->took, 99),
                 b->took.max);
    (void)printf("client_cpu %.1f us/call\n", b->ok == 0 ? 0.0 : cpu / (double)b->ok);
    if (b->failed > 0) {
        (void)printf("# first failure: %s\n", b->first_error);
    }
}

static int run(struct cli *cli, struct client *c, struct bench *b, uint64_t duration_ms)
{
    struct errmsg msg = {.text = ""};
    struct status s = warm_up(c, b, &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    uint64_t start_us = uv_hrtime() / 1000;
    double cpu = cpu_us();
    const struct client_load load = {
        .data = b,
        .outstanding = cli->options.concurrency > 0 ? (uint32_t)cli->options.concurrency : 1,
        .until_us = start_us + duration_ms * 1000,
        .fill = fill,
        .done = done};
    s = client_load_run(c, &load, &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    print(b, (double)(uv_hrtime() / 1000 - start_us) / 1e6, cpu_us() - cpu);
    return b->failed == 0 ? CLI_DONE : CLI_FAILED;
}

int verb_bench_call(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    uint64_t duration_ms = 0;
    struct status s =
        duration_of("--duration", cli->options.duration, DURATION_MS_DEFAULT, &duration_ms, &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    int size = cli->options.payload > 0 ? cli->options.payload : PAYLOAD_DEFAULT;
    if (cli->options.concurrency > CLIENT_INFLIGHT_MAX || size > PAYLOAD_BYTES_MAX) {
        return cli_usage("--concurrency may be up to %d, --payload up to %d", CLIENT_INFLIGHT_MAX,
                         PAYLOAD_BYTES_MAX);
    }
    struct bench b = {.function = cli->args[0]};
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    (void)mem_must(status_is_ok(buffer_reserve(&b.payload, (size_t)size)) ? b.payload.data : NULL);
    memset(b.payload.data, 'x', (size_t)size);
    b.payload.size = (size_t)size;
    code = run(cli, c, &b, duration_ms);
    buffer_close(&b.payload);
    client_close(c);
    return code;
}
