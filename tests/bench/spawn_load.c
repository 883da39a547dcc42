/* Load for a cluster, and the check of what it promised.
 *
 *     spawn_load --contexts FILE --function NAME [--mode spawn|finish|call|check] [--outstanding N]
 *                [--seconds S] [--count N] [--payload BYTES] [--delay-ms MS] [--journal FILE]
 *                [--keys PREFIX] [--grace S] [--interval-ms MS]
 *
 * spawn keeps N spawns outstanding; finish waits for the outcome of each too; call calls. With
 * --keys every spawn has an idempotency key, and is sent again with it until its answer is certain;
 * without, an unknown end is counted. check reads a journal (load_journal.h) that an earlier run
 * wrote with the same --keys and --payload and asks for everything in it: each invocation must have
 * ended, with the outcome that was seen before, twice the same, and its key must give its id. After
 * the time, the count or SIGTERM, what is outstanding gets --grace seconds.
 *
 * Prints `name value unit` lines. Exit code: 0, or 1 when something failed, was lost or differs, or
 * the journal could not be written. */
#include "common/check.h"
#include "common/clock.h"
#include "common/histogram.h"
#include "common/mem.h"
#include "tests/bench/load_journal.h"
#include "tests/bench/load_link.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    REQUEST_MS = 5000,
    OUTCOME_WAIT_MS = 5000,
    RETRY_US = 20 * 1000,
};

enum mode { MODE_SPAWN, MODE_FINISH, MODE_CALL, MODE_CHECK, MODE_COUNT_ };
static const char *const mode_names[] = {"spawn", "finish", "call", "check"};

enum step { STEP_FREE, STEP_SPAWN, STEP_CALL, STEP_OUTCOME, STEP_AGAIN, STEP_KEY };

struct job {
    enum step step;
    uint64_t number;
    struct id128 id;
    struct load_seen seen;
    uint64_t first_us, sent_us, retry_us;
};

struct options {
    const char *contexts, *function, *journal, *keys;
    enum mode mode;
    uint32_t outstanding, payload;
    uint64_t seconds, count, delay_ms, grace, interval_ms;
};

struct tool {
    struct options o;
    struct load_link *link;
    struct job *jobs;
    uint8_t *payload;
    FILE *journal;
    struct load_promises promises;
    uint64_t started, until_us, give_up_us, start_us, end_us, next_us;
    uint32_t active;
    bool ended;
    /* What came of it. */
    struct histogram acknowledged_us, finished_us;
    uint64_t existing, done, dead, canceled;
    uint64_t refused, limited, unknown, lost_connection, late;
    uint64_t stale, missing, changed, other_id, failed;
    char first_failure[ERRMSG_BYTES_MAX];
};

static volatile sig_atomic_t terminated;

static void on_signal(int number)
{
    (void)number;
    terminated = 1;
}

/* ---- Making questions ---- */

static void key_text(const struct tool *t, uint64_t number, char out[SPAWN_KEY_BYTES_MAX + 1])
{
    (void)snprintf(out, SPAWN_KEY_BYTES_MAX + 1, "%s-%" PRIu64, t->o.keys == NULL ? "" : t->o.keys,
                   number);
}

/* The payload begins with the key, so that each is another one. */
static struct bytes payload_of(struct tool *t, const char *key)
{
    memset(t->payload, 'x', t->o.payload);
    if (t->o.keys != NULL) {
        size_t size = strlen(key) < t->o.payload ? strlen(key) : t->o.payload;
        memcpy(t->payload, key, size);
    }
    return bytes_of(t->payload, t->o.payload);
}

static bool job_send(struct tool *t, uint32_t at)
{
    struct job *j = &t->jobs[at];
    char key[SPAWN_KEY_BYTES_MAX + 1];
    key_text(t, j->number, key);
    struct message m = {.type = MESSAGE_OUTCOME_QUERY,
                        .outcome_query = {.invocation = j->id, .wait_ms = OUTCOME_WAIT_MS}};
    uint32_t timeout_ms = OUTCOME_WAIT_MS + REQUEST_MS;
    if (j->step == STEP_SPAWN || j->step == STEP_KEY) {
        timeout_ms = REQUEST_MS;
        m = (struct message){.type = MESSAGE_SPAWN,
                             .spawn = {.function = t->o.function,
                                       .payload = payload_of(t, key),
                                       .key = t->o.keys == NULL ? NULL : key,
                                       .delay_ms = t->o.delay_ms}};
    } else if (j->step == STEP_CALL) {
        timeout_ms = 2 * REQUEST_MS;
        m = (struct message){.type = MESSAGE_CALL,
                             .call = {.function = t->o.function, .payload = payload_of(t, key)}};
    }
    uint64_t now = clock_now_us(clock_real());
    if (!load_link_ask(t->link, at, &m, timeout_ms)) {
        j->retry_us = now + RETRY_US;
        return false;
    }
    j->sent_us = now;
    if (j->first_us == 0) {
        j->first_us = now;
    }
    return true;
}

static void look_for_end(struct tool *t, uint64_t now)
{
    uint64_t limit = t->o.mode == MODE_CHECK ? t->promises.count
                     : t->o.count == 0       ? UINT64_MAX
                                             : t->o.count;
    t->ended = t->ended || t->started == limit || terminated != 0 ||
               (t->until_us != 0 && now >= t->until_us);
}

/* False: no more work. */
static bool job_next(struct tool *t, struct job *j, uint64_t now)
{
    look_for_end(t, now);
    if (t->ended || now < t->next_us) {
        return false;
    }
    t->next_us = t->o.interval_ms == 0 ? 0 : now + t->o.interval_ms * 1000;
    *j = (struct job){.number = t->started++};
    if (t->o.mode == MODE_CHECK) {
        const struct load_promise *p = &t->promises.rows[j->number];
        *j = (struct job){.step = STEP_OUTCOME, .number = p->number, .id = p->id, .seen = p->seen};
    } else {
        j->step = t->o.mode == MODE_CALL ? STEP_CALL : STEP_SPAWN;
    }
    t->active++;
    return true;
}

/* ---- What became of them ---- */

static void job_free(struct tool *t, struct job *j)
{
    j->step = STEP_FREE;
    t->active--;
    t->end_us = clock_now_us(clock_real());
}

static void job_failed(struct tool *t, struct job *j, uint64_t *counter, const char *why,
                       const char *text)
{
    char id[ID_STRING_BYTES], what[ERRMSG_BYTES_MAX];
    id_format(j->id, INVOCATION_PREFIX, id);
    (void)snprintf(what, sizeof what, "%s%s, number %" PRIu64 ", %s", why, text, j->number, id);
    (*counter)++;
    if (t->first_failure[0] == '\0') {
        (void)snprintf(t->first_failure, sizeof t->first_failure, "%s", what);
    }
    job_free(t, j);
}

static void acknowledged(struct tool *t, struct job *j, const struct spawn_reply *r)
{
    uint64_t now = clock_now_us(clock_real());
    t->existing += r->existing ? 1 : 0;
    if (j->step == STEP_KEY) {
        if (id_compare(r->invocation, j->id) != 0) {
            job_failed(t, j, &t->other_id, "its key gave another id", "");
        } else {
            job_free(t, j);
        }
        return;
    }
    j->id = r->invocation;
    histogram_record(&t->acknowledged_us, now - j->first_us);
    if (t->journal != NULL) {
        char key[SPAWN_KEY_BYTES_MAX + 1];
        key_text(t, j->number, key);
        load_journal_acknowledged(t->journal, now, j->sent_us, key, j->id);
    }
    if (t->o.mode == MODE_FINISH) {
        j->step = STEP_OUTCOME;
    } else {
        job_free(t, j);
    }
}

static void seen(struct tool *t, struct job *j, const struct outcome *o)
{
    uint64_t now = clock_now_us(clock_real());
    if (o->state == INVOCATION_QUEUED) {
        return; /* asked again */
    }
    const struct load_seen s = load_seen_of(o);
    if (j->seen.state != 0 && !load_seen_equal(&s, &j->seen)) {
        job_failed(t, j, &t->changed, "its outcome changed; now: ", o->result_message);
        return;
    }
    j->seen = s;
    if (j->step == STEP_AGAIN) {
        j->step = STEP_KEY;
        if (t->o.keys == NULL) {
            job_free(t, j);
        }
        return;
    }
    t->done += s.state == INVOCATION_DONE ? 1 : 0;
    t->dead += s.state == INVOCATION_DEAD ? 1 : 0;
    t->canceled += s.state == INVOCATION_CANCELED ? 1 : 0;
    if (t->o.mode == MODE_CHECK) {
        j->step = STEP_AGAIN;
        return;
    }
    histogram_record(&t->finished_us, now - j->first_us);
    if (t->journal != NULL) {
        load_journal_outcome(t->journal, now, j->sent_us, j->id, &s);
    }
    job_free(t, j);
}

static void called(struct tool *t, struct job *j)
{
    uint64_t now = clock_now_us(clock_real());
    histogram_record(&t->acknowledged_us, now - j->first_us);
    if (t->journal != NULL) {
        load_journal_call(t->journal, now, j->sent_us);
    }
    job_free(t, j);
}

/* Not an answer to the question: ask again, or give it up where that could do it twice. */
static void uncertain(struct tool *t, struct job *j, uint64_t *counter, uint64_t after_us)
{
    (*counter)++;
    j->retry_us = clock_now_us(clock_real()) + after_us;
    bool repeatable = (j->step != STEP_SPAWN || t->o.keys != NULL) && j->step != STEP_CALL;
    if (!repeatable && counter != &t->limited && counter != &t->refused) {
        job_free(t, j);
    }
}

static void answered(struct tool *t, struct job *j, const struct message *answer)
{
    const char *text;
    char why[32];
    uint32_t retry_ms;
    enum status_code code = load_answer_code(answer, &text, &retry_ms);
    switch (code) {
    case STATUS_OK:
        if (answer->type == MESSAGE_SPAWN_REPLY) {
            acknowledged(t, j, &answer->spawn_reply);
        } else if (answer->type == MESSAGE_OUTCOME) {
            seen(t, j, &answer->outcome);
        } else {
            called(t, j);
        }
        break;
    case STATUS_NOT_LEADER:
    case STATUS_UNAVAILABLE:
        uncertain(t, j, &t->refused, RETRY_US);
        break;
    case STATUS_LIMIT:
        uncertain(t, j, &t->limited, retry_ms == 0 ? RETRY_US : (uint64_t)retry_ms * 1000);
        break;
    case STATUS_UNKNOWN:
    case STATUS_TIMEOUT:
    case STATUS_IO:
        uncertain(t, j, &t->unknown, RETRY_US);
        break;
    case STATUS_NOT_FOUND:
        if (j->step == STEP_OUTCOME && t->o.mode == MODE_FINISH) {
            /* Of a leader that was, or of the next one before it knows all: it must come back. */
            uncertain(t, j, &t->stale, RETRY_US);
            break;
        }
        job_failed(t, j, j->step == STEP_OUTCOME ? &t->missing : &t->failed, "not found: ", text);
        break;
    default:
        (void)snprintf(why, sizeof why, "%s: ", status_name(code));
        job_failed(t, j, &t->failed, why, text);
    }
}

static void job_step(struct tool *t, uint32_t at)
{
    struct job *j = &t->jobs[at];
    uint64_t now = clock_now_us(clock_real());
    if (j->step == STEP_FREE ? job_next(t, j, now) : now >= j->retry_us) {
        (void)job_send(t, at);
    }
}

static void on_end(void *data, uint32_t slot, enum load_end how, const struct message *answer)
{
    struct tool *t = data;
    struct job *j = &t->jobs[slot];
    j->retry_us = 0;
    if (how == LOAD_ANSWERED) {
        answered(t, j, answer);
    } else {
        uncertain(t, j, how == LOAD_LOST ? &t->lost_connection : &t->late, RETRY_US);
    }
    job_step(t, slot);
}

static void on_tick(void *data)
{
    struct tool *t = data;
    for (uint32_t i = 0; i < t->o.outstanding; i++) {
        if (!load_link_busy(t->link, i)) {
            job_step(t, i);
        }
    }
    look_for_end(t, clock_now_us(clock_real()));
    if (t->ended && t->give_up_us == 0) {
        t->give_up_us = clock_now_us(clock_real()) + t->o.grace * 1000000;
    }
    if (t->ended && (t->active == 0 || clock_now_us(clock_real()) > t->give_up_us)) {
        load_link_stop(t->link);
    }
}

/* ---- Printing ---- */

static double cpu_us(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void print_histogram(const char *name, const struct histogram *h, double seconds)
{
    (void)printf("%s %" PRIu64 " count\n%s_rate %.0f /s\n", name, h->count, name,
                 (double)h->count / seconds);
    (void)printf("%s_p50 %" PRIu64 " us\n%s_p99 %" PRIu64 " us\n%s_max %" PRIu64 " us\n", name,
                 histogram_percentile(h, 50), name, histogram_percentile(h, 99), name, h->max);
}

static void print(const struct tool *t)
{
    double seconds = (double)(t->end_us - t->start_us) / 1e6;
    if (t->o.mode == MODE_CHECK) {
        (void)printf("promised %zu count\n", t->promises.count);
    } else {
        print_histogram(t->o.mode == MODE_CALL ? "called" : "acknowledged", &t->acknowledged_us,
                        seconds);
    }
    if (t->o.mode == MODE_FINISH) {
        print_histogram("finished", &t->finished_us, seconds);
    }
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"existing", t->existing}, {"done", t->done},
        {"dead", t->dead},         {"canceled", t->canceled},
        {"refused", t->refused},   {"limited", t->limited},
        {"unknown", t->unknown},   {"lost_connection", t->lost_connection},
        {"late", t->late},         {"stale", t->stale},
        {"failed", t->failed},     {"missing", t->missing},
        {"changed", t->changed},   {"other_id", t->other_id},
        {"open", t->active},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        (void)printf("%s %" PRIu64 " count\n", counts[i].name, counts[i].value);
    }
    (void)printf("client_cpu %.1f us/request\n",
                 t->started == 0 ? 0.0 : cpu_us() / (double)t->started);
    if (t->first_failure[0] != '\0') {
        (void)printf("# first failure: %s\n", t->first_failure);
    }
}

/* ---- Starting ---- */

static uint64_t number_of(const char *name, const char *text, uint64_t max)
{
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > max) {
        (void)fprintf(stderr, "spawn_load: --%s: not a number up to %" PRIu64 "\n", name, max);
        exit(2);
    }
    return value;
}

static const struct option option_rows[] = {
    {"contexts", required_argument, NULL, 'C'},
    {"function", required_argument, NULL, 'f'},
    {"journal", required_argument, NULL, 'j'},
    {"keys", required_argument, NULL, 'k'},
    {"mode", required_argument, NULL, 'm'},
    {"outstanding", required_argument, NULL, 'o'},
    {"payload", required_argument, NULL, 'p'},
    {"seconds", required_argument, NULL, 's'},
    {"count", required_argument, NULL, 'n'},
    {"delay-ms", required_argument, NULL, 'd'},
    {"grace", required_argument, NULL, 'g'},
    {"interval-ms", required_argument, NULL, 'i'},
    {NULL, 0, NULL, 0},
};

static void take_option(struct options *o, int which, const char *value)
{
    switch (which) {
    case 'C':
        o->contexts = value;
        break;
    case 'f':
        o->function = value;
        break;
    case 'j':
        o->journal = value;
        break;
    case 'k':
        o->keys = value;
        break;
    case 'm':
        while (o->mode < MODE_COUNT_ && strcmp(mode_names[o->mode], value) != 0) {
            o->mode++;
        }
        break;
    case 'o':
        o->outstanding = (uint32_t)number_of("outstanding", value, LOAD_SLOTS_MAX);
        break;
    case 'p':
        o->payload = (uint32_t)number_of("payload", value, PAYLOAD_BYTES_MAX);
        break;
    case 's':
        o->seconds = number_of("seconds", value, 86400);
        break;
    case 'n':
        o->count = number_of("count", value, UINT32_MAX);
        break;
    case 'd':
        o->delay_ms = number_of("delay-ms", value, SPAWN_TTL_MS_MAX);
        break;
    case 'g':
        o->grace = number_of("grace", value, 3600);
        break;
    case 'i':
        o->interval_ms = number_of("interval-ms", value, 60000);
        break;
    default:
        exit(2);
    }
}

static void parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){.outstanding = 1, .payload = 256, .seconds = 0, .grace = 30};
    int which;
    while ((which = getopt_long(argc, argv, "", option_rows, NULL)) != -1) {
        take_option(o, which, optarg);
    }
    if (o->mode == MODE_COUNT_ || o->contexts == NULL || o->function == NULL ||
        o->outstanding == 0 || optind != argc || (o->mode == MODE_CHECK && o->journal == NULL)) {
        (void)fputs("usage: spawn_load --contexts FILE --function NAME [options]; see the head of "
                    "spawn_load.c\n",
                    stderr);
        exit(2);
    }
}

static struct status prepare(struct tool *t, struct errmsg *msg)
{
    if (t->o.mode == MODE_CHECK) {
        TRY(load_journal_read(t->o.journal, &t->promises, msg));
    } else if (t->o.journal != NULL) {
        t->journal = fopen(t->o.journal, "ae");
        if (t->journal == NULL) {
            return status_fail(msg, status_from_errno(errno), "%s: %s", t->o.journal,
                               strerror(errno));
        }
        (void)setvbuf(t->journal, NULL, _IOLBF, 0);
    }
    t->jobs = mem_must(mem_zalloc(t->o.outstanding, sizeof *t->jobs));
    t->payload = mem_must(mem_alloc(t->o.payload));
    struct context_config *contexts = NULL;
    const struct context *context = NULL;
    TRY(context_config_load(t->o.contexts, &contexts, msg));
    const struct load_events events = {.data = t, .on_end = on_end, .on_tick = on_tick};
    struct status s = context_find(contexts, NULL, &context, msg);
    if (status_is_ok(s)) {
        s = load_link_open(&t->link, context, t->o.outstanding, &events, msg);
    }
    context_config_close(contexts);
    return s;
}

/* False: not all of it was written, so that a check of it would miss promises. */
static bool journal_close(struct tool *t)
{
    bool good = t->journal == NULL || ferror(t->journal) == 0;
    if (t->journal != NULL) {
        good = fclose(t->journal) == 0 && good;
        t->journal = NULL;
    }
    if (!good) {
        (void)fprintf(stderr, "spawn_load: %s: not all could be written\n", t->o.journal);
    }
    return good;
}

static void finish(struct tool *t)
{
    if (t->link != NULL) {
        load_link_close(t->link);
    }
    load_promises_close(&t->promises);
    mem_free(t->jobs);
    mem_free(t->payload);
}

int main(int argc, char **argv)
{
    static struct tool t;
    struct errmsg msg = {.text = ""};
    parse(&t.o, argc, argv);
    const struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    struct status s = prepare(&t, &msg);
    if (!status_is_ok(s)) {
        (void)fprintf(stderr, "spawn_load: %s\n", msg.text);
        (void)journal_close(&t);
        finish(&t);
        return 1;
    }
    t.start_us = clock_now_us(clock_real());
    t.end_us = t.start_us + 1;
    t.until_us = t.o.seconds == 0 ? 0 : t.start_us + t.o.seconds * 1000000;
    load_link_run(t.link);
    print(&t);
    bool written = journal_close(&t);
    bool good = written && t.failed + t.missing + t.changed + t.other_id == 0 &&
                (t.active == 0 || t.o.mode == MODE_CALL);
    finish(&t);
    return good ? 0 : 1;
}
