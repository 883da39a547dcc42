#include "agent/isolation.h"

#include "agent/bait.h"
#include "agent/canary/check_table.h"
#include "agent/canary_report.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>

enum phase { PHASE_IDLE, PHASE_OTHER_STARTS, PHASE_CANARY_STARTS, PHASE_RUNS, PHASE_ENDS };
enum { OTHER, CANARY, CELLS };

/* One of the round's two instances. */
struct cell {
    struct id128 id;
    bool alive; /* started, and its end has not been told */
};

struct isolation {
    uv_loop_t *loop;
    struct instances *instances;
    char folder[4096]; /* of the program: the code of the instances */
    char handler[256];
    const char *data;
    struct isolation_env env;
    uv_timer_t deadline;
    enum phase phase;
    struct cell cells[CELLS];
    uint64_t peer, term, round; /* who is answered */
    struct bait bait;
    bool baited;
    struct buffer addresses; /* lines of targets */
    struct canary_report report;
    enum status_code code;
    char message[ISOLATION_DETAIL_BYTES];
    void (*closed)(void *data);
    void *closed_data;
};

struct status isolation_open(struct isolation **out, uv_loop_t *loop, struct instances *instances,
                             const char *canary, const char *data, const struct isolation_env *env,
                             struct errmsg *msg)
{
    const char *slash = strrchr(canary, '/');
    struct isolation *t = mem_zalloc(1, sizeof *t);
    if (t == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    if (slash == NULL || strlen(canary) >= sizeof t->folder ||
        strlen(slash) >= sizeof t->handler - 2) {
        mem_free(t);
        return status_fail(msg, STATUS_INVALID, "the canary's path is not absolute, or too long");
    }
    t->loop = loop;
    t->instances = instances;
    t->data = data;
    t->env = *env;
    (void)snprintf(t->folder, sizeof t->folder, "%.*s", (int)(slash - canary), canary);
    (void)snprintf(t->handler, sizeof t->handler, ".%s", slash);
    CHECK(uv_timer_init(loop, &t->deadline) == 0);
    t->deadline.data = t;
    bait_sweep(data);
    *out = t;
    return status_ok();
}

/* ---- The end of a round ---- */

static void report_send(struct isolation *t)
{
    const struct message m = {
        .type = MESSAGE_ISOLATION_REPORT,
        .term = t->term,
        .isolation_report = {.round = t->round,
                             .isolation = "cell",
                             .code = (uint32_t)t->code,
                             .message = t->message,
                             .results = t->report.results,
                             .results_count = t->code == STATUS_OK ? t->report.count : 0}};
    (void)t->env.send(t->env.data, t->peer, &m); /* a lost one is a round that did not run */
}

/* Tells and forgets the round once both instances are gone. */
static void maybe_idle(struct isolation *t)
{
    if (t->phase != PHASE_ENDS || t->cells[OTHER].alive || t->cells[CANARY].alive) {
        return;
    }
    (void)uv_timer_stop(&t->deadline);
    if (t->baited) {
        bait_take(&t->bait);
        t->baited = false;
    }
    t->phase = PHASE_IDLE;
    report_send(t);
}

/* The first code and message count. */
static void round_end(struct isolation *t, enum status_code code, const char *message)
{
    if (t->phase == PHASE_ENDS || t->phase == PHASE_IDLE) {
        return;
    }
    t->phase = PHASE_ENDS;
    t->code = code;
    (void)snprintf(t->message, sizeof t->message, "%s", message);
    if (code != STATUS_OK) {
        LOG_WARN("isolation checks not run", LOG_STR("why", message));
    }
    for (size_t i = 0; i < CELLS; i++) {
        if (t->cells[i].alive) {
            instances_stop(t->instances, t->cells[i].id, true);
        }
    }
    maybe_idle(t);
}

static void on_deadline(uv_timer_t *timer)
{
    round_end(timer->data, STATUS_TIMEOUT, "the canary did not answer in time");
}

/* ---- The instances ---- */

static struct id128 fresh_id(void)
{
    uint64_t random[2] = {0, 0};
    (void)uv_random(NULL, NULL, random, sizeof random, 0, NULL);
    return id_make(clock_unix_ms(clock_real()), random[0], random[1]);
}

static struct status cell_begin(struct isolation *t, size_t which, struct errmsg *msg)
{
    char bait[4 * BAIT_TEXT_BYTES];
    bait_of_other(&t->bait, bait);
    struct pair env = {.key = "SKEP_CANARY_BAIT", .value = bait};
    struct function_spec spec = {
        .name = "skep-canary",
        .runtime = "c",
        .handler = t->handler,
        .cpu_millis = ISOLATION_CPU_MILLIS,
        .memory_bytes = ISOLATION_MEMORY_BYTES,
        .tmp_bytes = 1 << 20,
        .processes_max = ISOLATION_PROCESSES_MAX,
        .concurrency = 1,
        .timeout_ms = ISOLATION_ROUND_MS,
        .data_class = "",
        .image = "",
        .isolation = "",
        .gpu_model = "",
        .env = &env,
        .env_count = which == OTHER ? 1 : 0,
    };
    struct cell *c = &t->cells[which];
    c->id = fresh_id();
    const struct start start = {.instance = c->id, .spec = &spec};
    struct status s = instances_start_own(t->instances, &start, t->folder, msg);
    c->alive = status_is_ok(s);
    return s;
}

static void cell_begin_or_end(struct isolation *t, size_t which)
{
    struct errmsg msg = {.text = ""};
    struct status s = cell_begin(t, which, &msg);
    if (!status_is_ok(s)) {
        round_end(t, s.code, msg.text);
    }
}

static void canary_invoke(struct isolation *t)
{
    struct buffer targets = {0};
    struct errmsg msg = {.text = "out of memory"};
    int other = instances_cell_pid(t->instances, t->cells[OTHER].id);
    struct status s = bait_targets(&t->bait, other, &targets);
    if (status_is_ok(s)) {
        s = buffer_append(&targets, t->addresses.data, t->addresses.size);
    }
    if (status_is_ok(s)) {
        const struct invoke i = {.invocation = fresh_id(),
                                 .attempt = 1,
                                 .instance = t->cells[CANARY].id,
                                 .timeout_ms = ISOLATION_ROUND_MS,
                                 .payload = bytes_of(targets.data, targets.size)};
        s = instances_invoke(t->instances, &i, t->term, &msg);
    }
    buffer_close(&targets);
    t->phase = PHASE_RUNS;
    if (!status_is_ok(s)) {
        round_end(t, s.code, msg.text);
    }
}

/* Which of the two it is; CELLS: neither. */
static size_t which_of(const struct isolation *t, struct id128 instance)
{
    for (size_t i = 0; i < CELLS; i++) {
        if (t->cells[i].alive && id_compare(t->cells[i].id, instance) == 0) {
            return i;
        }
    }
    return CELLS;
}

bool isolation_ready(struct isolation *t, struct id128 instance)
{
    size_t which = which_of(t, instance);
    if (which == OTHER && t->phase == PHASE_OTHER_STARTS) {
        t->phase = PHASE_CANARY_STARTS;
        cell_begin_or_end(t, CANARY);
    } else if (which == CANARY && t->phase == PHASE_CANARY_STARTS) {
        canary_invoke(t);
    }
    return which != CELLS;
}

bool isolation_ended(struct isolation *t, struct id128 instance, const char *message)
{
    size_t which = which_of(t, instance);
    if (which == CELLS) {
        return false;
    }
    char text[ISOLATION_DETAIL_BYTES];
    (void)snprintf(text, sizeof text, "%s ended: %s",
                   which == OTHER ? "the other cell" : "the canary", message);
    t->cells[which].alive = false;
    round_end(t, STATUS_CRASHED, text);
    maybe_idle(t);
    return true;
}

bool isolation_result(struct isolation *t, const struct result *r)
{
    if (which_of(t, r->instance) == CELLS) {
        return false;
    }
    struct errmsg msg = {.text = ""};
    struct status s = status_of(status_from_wire(r->code));
    if (!status_is_ok(s)) {
        (void)snprintf(msg.text, sizeof msg.text, "%s", r->message);
    } else {
        s = status_prefix(&msg, canary_report_decode(r->output, &t->report, &msg),
                          "the canary's answer");
    }
    if (status_is_ok(s)) {
        canary_report_prove(&t->report, t->bait.nonce);
        canary_report_prove(&t->report, t->bait.other_nonce);
        canary_report_complete(&t->report);
    }
    round_end(t, s.code, status_is_ok(s) ? "" : msg.text);
    return true;
}

/* ---- The beginning ---- */

/* Only what needs no resolver: a cell has none. */
static struct status addresses_take(struct isolation *t, const struct isolation_check *check)
{
    t->addresses.size = 0;
    for (size_t i = 0; i < check->addresses_count; i++) {
        const char *text = check->addresses[i].text;
        if (strpbrk(text, "\r\n=") == NULL && strlen(text) < BAIT_TEXT_BYTES) {
            TRY(buffer_printf(&t->addresses, "address=%s\n", text));
        }
    }
    return status_ok();
}

static struct status round_begin(struct isolation *t, const struct isolation_check *check,
                                 struct errmsg *msg)
{
    if (check->isolation[0] != '\0' && strcmp(check->isolation, "cell") != 0) {
        return status_fail(msg, STATUS_UNSUPPORTED, "there is no canary for isolation %.40s",
                           check->isolation);
    }
    if (t->env.memory_left(t->env.data) < ISOLATION_MEMORY_LEFT_BYTES) {
        return status_fail(msg, STATUS_LIMIT, "no room: the machine has too little memory left");
    }
    TRY(addresses_take(t, check));
    TRY(bait_lay(&t->bait, t->data, msg));
    t->baited = true;
    return cell_begin(t, OTHER, msg);
}

void isolation_check(struct isolation *t, uint64_t peer, const struct message *m)
{
    t->peer = peer;
    t->term = m->term;
    t->round = m->isolation_check.round;
    if (t->phase != PHASE_IDLE) {
        return;
    }
    t->report.count = 0;
    t->phase = PHASE_OTHER_STARTS;
    (void)uv_timer_start(&t->deadline, on_deadline, ISOLATION_ROUND_MS, 0);
    struct errmsg msg = {.text = "out of memory"};
    struct status s = round_begin(t, &m->isolation_check, &msg);
    if (!status_is_ok(s)) {
        round_end(t, s.code, msg.text);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct isolation *t = handle->data;
    void (*closed)(void *data) = t->closed;
    void *data = t->closed_data;
    buffer_close(&t->addresses);
    mem_free(t);
    closed(data);
}

/* The instances are killed here, and swept by the next agent should they outlive this one. */
void isolation_close(struct isolation *t, void (*closed)(void *data), void *data)
{
    for (size_t i = 0; i < CELLS; i++) {
        if (t->cells[i].alive) {
            instances_stop(t->instances, t->cells[i].id, true);
        }
    }
    if (t->baited) {
        bait_take(&t->bait);
    }
    t->closed = closed;
    t->closed_data = data;
    uv_close((uv_handle_t *)&t->deadline, on_closed);
}
