/* skep result and skep cancel: what became of durable invocations. The output goes to standard
 * output as it is; why there is none, to standard error. */
#include "cli/durable.h"

#include "cli/lines.h"
#include "common/mem.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum {
    WINDOW = 64,                 /* questions in flight for many ids */
    WINDOW_BYTES_MAX = 64 << 20, /* of outputs that wait for their turn */
    AGAIN_MS = 100,              /* an answer that came early is asked for again after this */
    ID_LINE_BYTES_MAX = 256,
};

static uint64_t now_us(void)
{
    return uv_hrtime() / 1000;
}

struct status id_list_put(struct id_list *l, struct id128 id)
{
    if (l->count == IDS_MAX) {
        return status_of(STATUS_LIMIT);
    }
    if (l->count == l->capacity) {
        size_t capacity = l->capacity == 0 ? 256 : 2 * l->capacity;
        struct id128 *items = mem_realloc(l->items, capacity * sizeof *items);
        if (items == NULL) {
            return status_of(STATUS_NOMEM);
        }
        l->items = items;
        l->capacity = capacity;
    }
    l->items[l->count++] = id;
    return status_ok();
}

void id_list_close(struct id_list *l)
{
    mem_free(l->items);
    *l = (struct id_list){0};
}

/* ---- Ids ---- */

static const char *field(const struct record *r, const char *key)
{
    for (size_t i = 0; i < r->fields_count; i++) {
        if (strcmp(r->fields[i].key, key) == 0) {
            return r->fields[i].value;
        }
    }
    return "";
}

static int ambiguous(const char *text, const struct records *r)
{
    char list[ERRMSG_BYTES_MAX];
    size_t used = (size_t)snprintf(list, sizeof list, "%.30s is the beginning of", text);
    for (size_t i = 0; i < r->rows_count && i < 5 && used < sizeof list; i++) {
        used += (size_t)snprintf(list + used, sizeof list - used, "%s %.40s", i == 0 ? "" : ",",
                                 field(&r->rows[i], "invocation"));
    }
    if (r->rows_count > 5 && used < sizeof list) {
        (void)snprintf(list + used, sizeof list - used, " and %zu more", r->rows_count - 5);
    }
    return cli_fail(status_of(STATUS_INVALID), list);
}

bool invocation_find(struct cli *cli, struct client *c, const char *text, struct id128 *out,
                     int *code)
{
    struct errmsg msg = {.text = ""};
    if (strlen(text) >= ID_STRING_BYTES - 1 || strncmp(text, "v-", ID_PREFIX_BYTES) != 0) {
        struct status s = id_parse(text, INVOCATION_PREFIX, out, &msg);
        *code = status_is_ok(s) ? *code : cli_fail(s, msg.text);
        return status_is_ok(s);
    }
    struct arena a = {0};
    struct message answer;
    bool found = false;
    const struct message m = {.type = MESSAGE_QUERY, .query = {.what = "invocation", .name = text}};
    if (cli_ask(cli, c, &m, CLIENT_REQUEST_MS, &a, &answer, code)) {
        if (answer.type != MESSAGE_RECORDS || answer.records.rows_count == 0) {
            *code = cli_fail(status_of(STATUS_NOT_FOUND), "no invocation has this id");
        } else if (answer.records.rows_count > 1) {
            *code = ambiguous(text, &answer.records);
        } else {
            struct status s = id_parse(field(&answer.records.rows[0], "invocation"),
                                       INVOCATION_PREFIX, out, &msg);
            found = status_is_ok(s);
            *code = found ? *code : cli_fail(s, msg.text);
        }
    }
    arena_close(&a);
    return found;
}

/* Every id on standard input. */
static bool ids_read(struct cli *cli, struct client *c, struct id_list *out, int *code)
{
    struct lines l = {.fd = STDIN_FILENO, .line_bytes_max = ID_LINE_BYTES_MAX};
    struct errmsg msg = {.text = ""};
    struct bytes line;
    struct status s = status_ok();
    enum lines_next next;
    while (status_is_ok(s) && (next = lines_take(&l, true, &line, &s, &msg)) != LINES_END &&
           next != LINES_FAILED) {
        char text[ID_LINE_BYTES_MAX + 1];
        struct id128 id;
        if (next == LINES_LATER || line.size == 0) {
            continue;
        }
        memcpy(text, line.data, line.size);
        text[line.size] = '\0';
        if (!invocation_find(cli, c, text, &id, code)) {
            lines_close(&l);
            return false;
        }
        s = id_list_put(out, id);
        if (!status_is_ok(s)) {
            s = status_fail(&msg, STATUS_INVALID, "at most %d ids are taken at once", IDS_MAX);
        }
    }
    lines_close(&l);
    *code = status_is_ok(s) ? *code : cli_fail(s, msg.text);
    return status_is_ok(s);
}

/* ---- Printing ---- */

static const char *state_name(uint32_t state)
{
    return state == INVOCATION_QUEUED     ? "queued"
           : state == INVOCATION_DONE     ? "done"
           : state == INVOCATION_DEAD     ? "dead"
           : state == INVOCATION_CANCELED ? "canceled"
                                          : "unknown";
}

static void put_number(json_t *o, const char *key, uint64_t value)
{
    (void)json_object_set_new(o, key, json_integer((json_int_t)value));
}

static void put_text(json_t *o, const char *key, const char *text)
{
    json_t *t = json_string(text);
    (void)json_object_set_new(o, key, t == NULL ? json_string("?") : t);
}

static void print_json(const struct outcome *r, size_t flags)
{
    char id[ID_STRING_BYTES];
    id_format(r->invocation, INVOCATION_PREFIX, id);
    json_t *o = json_object();
    put_text(o, "invocation", id);
    put_text(o, "function", r->function);
    put_text(o, "tenant", r->tenant);
    put_text(o, "state", state_name(r->state));
    put_text(o, "code", status_name(status_from_wire(r->result_code)));
    put_text(o, "message", r->result_message);
    put_number(o, "attempts", r->attempts);
    put_number(o, "crashes", r->crashes);
    put_number(o, "priority", r->priority);
    put_text(o, "key", r->key);
    put_number(o, "created_ms", r->created_ms);
    put_number(o, "not_before_ms", r->not_before_ms);
    put_number(o, "deadline_at_ms", r->deadline_at_ms);
    put_number(o, "ended_ms", r->ended_ms);
    put_number(o, "expires_ms", r->expires_ms);
    put_number(o, "run_us", r->run_us);
    put_text(o, "node", r->node);
    json_t *text = json_stringn((const char *)r->output.data, r->output.size);
    /* Bytes that are no UTF-8 text have no place in JSON; their number tells that they were
     * there. */
    (void)json_object_set_new(o, "output", text == NULL ? json_null() : text);
    put_number(o, "output_bytes", r->output.size);
    (void)json_dumpf(o, stdout, flags | JSON_PRESERVE_ORDER);
    (void)fputc('\n', stdout);
    json_decref(o);
}

/* Why there is no output. */
static void explain(const struct outcome *r)
{
    char id[ID_STRING_BYTES];
    id_format(r->invocation, INVOCATION_PREFIX, id);
    const char *why = r->result_message[0] != '\0' ? r->result_message
                                                   : status_text(status_from_wire(r->result_code));
    if (r->state == INVOCATION_QUEUED) {
        (void)fprintf(stderr, "skep: %s has not ended; %" PRIu32 " attempts so far\n", id,
                      r->attempts);
        return;
    }
    (void)fprintf(stderr, "skep: %s is %s after %" PRIu32 " attempts: ", id,
                  r->state == INVOCATION_DEAD ? "a dead letter" : state_name(r->state),
                  r->attempts);
    output_safe(stderr, bytes_of(why, strlen(why)));
    (void)fputc('\n', stderr);
}

static int outcome_code(const struct outcome *r)
{
    return r->state == INVOCATION_DONE     ? CLI_DONE
           : r->state == INVOCATION_QUEUED ? CLI_UNKNOWN
                                           : CLI_FAILED;
}

static int outcome_show(const struct cli *cli, const struct outcome *r, bool many)
{
    if (cli->json) {
        print_json(r, many ? JSON_COMPACT : JSON_INDENT(2));
        return outcome_code(r);
    }
    if (r->state != INVOCATION_DONE) {
        explain(r);
        (void)fputs(many ? "-\n" : "", stdout);
        return outcome_code(r);
    }
    if (r->output.size > 0) {
        (void)fwrite(r->output.data, 1, r->output.size, stdout);
    }
    if (many) {
        (void)fputc('\n', stdout);
    }
    return CLI_DONE;
}

/* Whether an answer holds an outcome; *s and *text otherwise say why not. */
static bool outcome_of(const struct message *answer, struct status *s, const char **text)
{
    const char *leader;
    *s = client_answer_status(answer, text, &leader);
    if (status_is_ok(*s) && answer->type != MESSAGE_OUTCOME) {
        *s = status_of(STATUS_INTERNAL);
        *text = "an answer of another kind came";
    }
    if (status_is_ok(*s) && answer->outcome.output.size == 0 && answer->outcome.output_bytes > 0) {
        *s = status_of(STATUS_UNAVAILABLE);
        *text = "the output is not held where the question went; ask again";
    }
    return status_is_ok(*s);
}

/* What outcome_of made of an answer passes: who waits asks again. */
static bool outcome_passes(const struct message *answer, struct status s)
{
    if (status_is_ok(s)) {
        return answer->outcome.state == INVOCATION_QUEUED;
    }
    /* A call_reply is the client's own: nobody answered. */
    return answer->type != MESSAGE_CALL_REPLY &&
           (s.code == STATUS_UNAVAILABLE || s.code == STATUS_LIMIT);
}

/* ---- One ---- */

static uint32_t wait_part(uint64_t until_us)
{
    uint64_t now = now_us();
    uint64_t rest_ms = until_us > now ? (until_us - now) / 1000 : 0;
    return rest_ms > OUTCOME_WAIT_MS ? OUTCOME_WAIT_MS : (uint32_t)rest_ms;
}

int outcome_print(struct cli *cli, struct client *c, struct id128 id, uint64_t wait_ms, bool *told)
{
    int code = CLI_DONE;
    uint64_t until_us = now_us() + wait_ms * 1000;
    for (bool last = false; !last;) {
        struct arena a = {0};
        struct message answer;
        struct errmsg msg = {.text = ""};
        const uint32_t part_ms = wait_ms == 0 ? 0 : wait_part(until_us);
        const struct message m = {.type = MESSAGE_OUTCOME_QUERY,
                                  .outcome_query = {.invocation = id, .wait_ms = part_ms}};
        uint64_t asked_us = now_us();
        struct status s = client_ask(c, &m, part_ms + CLIENT_REQUEST_MS, &a, &answer, &msg);
        const char *text = msg.text;
        bool answered = status_is_ok(s);
        *told = answered && outcome_of(&answer, &s, &text);
        last = !answered || wait_ms == 0 || now_us() >= until_us || !outcome_passes(&answer, s);
        if (last) {
            code = *told ? outcome_show(cli, &answer.outcome, false) : cli_fail(s, text);
        }
        arena_close(&a);
        if (!last && now_us() - asked_us < (uint64_t)AGAIN_MS * 1000) {
            client_pause(c, AGAIN_MS);
        }
    }
    return fflush(stdout) == 0 ? code : CLI_FAILED;
}

/* ---- Many ---- */

struct outcome_slot {
    bool asked, done;
    uint64_t asked_us, again_us;
    struct id128 id;
    struct outcome outcome; /* its texts and output lie in the arena */
    struct arena arena;
    size_t bytes;
    struct status status;
    char text[ERRMSG_BYTES_MAX];
};

struct outcomes {
    struct cli *cli;
    const struct id_list *ids;
    uint64_t until_us;
    bool wait;
    size_t next, printed;
    struct outcome_slot window[WINDOW];
    uint32_t slot_of[WINDOW]; /* by the client's place */
    size_t bytes;
    int code;
    bool stopped; /* nobody answers: no more is asked */
    struct status failed;
    struct errmsg why;
    struct progress progress;
};

static enum client_fill slot_ask(struct outcomes *o, uint32_t at, uint32_t place, struct message *m)
{
    struct outcome_slot *s = &o->window[at];
    s->asked = true;
    s->asked_us = now_us();
    o->slot_of[place] = at;
    *m = (struct message){
        .type = MESSAGE_OUTCOME_QUERY,
        .outcome_query = {.invocation = s->id, .wait_ms = o->wait ? wait_part(o->until_us) : 0}};
    return CLIENT_FILLED;
}

static void outcomes_print_next(struct outcomes *o);

static enum client_fill outcomes_fill(void *data, uint32_t place, struct message *m)
{
    struct outcomes *o = data;
    if (o->stopped) {
        return CLIENT_NO_MORE;
    }
    /* The oldest first: with too much held, nobody else. */
    for (size_t n = o->printed; n < o->next; n++) {
        struct outcome_slot *s = &o->window[n % WINDOW];
        if (!s->asked && !s->done && now_us() >= s->again_us) {
            return slot_ask(o, (uint32_t)(n % WINDOW), place, m);
        }
        if (o->bytes >= WINDOW_BYTES_MAX) {
            return CLIENT_LATER;
        }
    }
    for (; o->next < o->ids->count && o->next - o->printed < WINDOW;) {
        uint32_t at = (uint32_t)(o->next % WINDOW);
        struct outcome_slot *s = &o->window[at];
        *s = (struct outcome_slot){.id = o->ids->items[o->next++]};
        if (!id_is_zero(s->id)) {
            return slot_ask(o, at, place, m);
        }
        s->done = true; /* a line of the batch that was refused */
        s->status = status_of(STATUS_FAILED);
        outcomes_print_next(o);
    }
    return o->next == o->ids->count && o->printed == o->next ? CLIENT_NO_MORE : CLIENT_LATER;
}

static void slot_print(struct outcomes *o, struct outcome_slot *s)
{
    int code = CLI_FAILED;
    if (status_is_ok(s->status)) {
        code = outcome_show(o->cli, &s->outcome, true);
    } else {
        (void)fputs(o->cli->json ? "null\n" : "-\n", stdout);
        if (s->text[0] != '\0') {
            char id[ID_STRING_BYTES];
            id_format(s->id, INVOCATION_PREFIX, id);
            (void)fprintf(stderr, "skep: %s: ", id);
            output_safe(stderr, bytes_of(s->text, strlen(s->text)));
            (void)fputc('\n', stderr);
        }
    }
    /* A failure says more than a wait that ended. */
    o->code = o->code == CLI_DONE || code == CLI_FAILED ? code : o->code;
}

static void outcomes_print_next(struct outcomes *o)
{
    while (o->printed < o->next && o->window[o->printed % WINDOW].done) {
        struct outcome_slot *s = &o->window[o->printed % WINDOW];
        progress_end(&o->progress);
        slot_print(o, s);
        o->bytes -= s->bytes;
        arena_close(&s->arena);
        o->printed++;
    }
    progress_show(&o->progress, o->printed, o->ids->count, "ended");
}

/* Copies what is printed of an outcome. */
static void slot_keep(struct outcomes *o, struct outcome_slot *s, const struct outcome *from)
{
    const struct {
        const char *from;
        const char **to;
    } texts[] = {{from->function, &s->outcome.function},
                 {from->tenant, &s->outcome.tenant},
                 {from->result_message, &s->outcome.result_message},
                 {from->key, &s->outcome.key},
                 {from->node, &s->outcome.node}};
    s->outcome = *from;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        *texts[i].to = mem_must(arena_text(&s->arena, texts[i].from, strlen(texts[i].from)));
    }
    s->outcome.output = bytes_of(
        mem_must(arena_text(&s->arena, from->output.size > 0 ? (const char *)from->output.data : "",
                            from->output.size)),
        from->output.size);
    s->bytes = from->output.size;
    o->bytes += s->bytes;
}

static void outcomes_done(void *data, uint32_t place, const struct message *answer,
                          uint64_t took_us)
{
    struct outcomes *o = data;
    (void)took_us;
    struct outcome_slot *s = &o->window[o->slot_of[place]];
    const char *text = "";
    s->asked = false;
    bool got = outcome_of(answer, &s->status, &text);
    if (o->wait && now_us() < o->until_us && outcome_passes(answer, s->status)) {
        s->again_us = s->asked_us + (uint64_t)AGAIN_MS * 1000;
        return;
    }
    s->done = true;
    if (got) {
        slot_keep(o, s, &answer->outcome);
    } else {
        (void)snprintf(s->text, sizeof s->text, "%s",
                       text[0] != '\0' ? text : status_text(s->status.code));
    }
    if (!got && !o->stopped && answer->type == MESSAGE_CALL_REPLY) {
        o->stopped = true; /* Nobody answered: nor will the next. */
        o->failed = s->status;
        (void)snprintf(o->why.text, sizeof o->why.text, "%s", s->text);
    }
    outcomes_print_next(o);
}

/* Those that were to be asked again when it stopped. */
static void outcomes_rest(struct outcomes *o)
{
    for (size_t n = o->printed; n < o->next; n++) {
        struct outcome_slot *s = &o->window[n % WINDOW];
        if (!s->done) {
            s->done = true;
            s->status = o->failed;
            (void)snprintf(s->text, sizeof s->text, "%s", o->why.text);
        }
    }
    outcomes_print_next(o);
}

int outcomes_print(struct cli *cli, struct client *c, const struct id_list *ids, uint64_t wait_ms,
                   bool *told)
{
    struct outcomes *o = mem_must(mem_zalloc(1, sizeof *o));
    o->cli = cli;
    o->ids = ids;
    o->wait = wait_ms > 0;
    o->until_us = now_us() + wait_ms * 1000;
    const struct client_load load = {.data = o,
                                     .outstanding = WINDOW,
                                     .give_up_ms = OUTCOME_WAIT_MS + CLIENT_REQUEST_MS,
                                     .until_us = UINT64_MAX,
                                     .fill = outcomes_fill,
                                     .done = outcomes_done};
    struct errmsg msg = {.text = ""};
    struct status s = client_load_run(c, &load, &msg);
    if (o->stopped) {
        outcomes_rest(o);
        s = o->failed;
        msg = o->why;
    }
    progress_end(&o->progress);
    for (size_t i = 0; i < WINDOW; i++) {
        arena_close(&o->window[i].arena);
    }
    int code = o->code;
    mem_free(o);
    *told = status_is_ok(s);
    if (fflush(stdout) != 0) {
        return CLI_FAILED;
    }
    return *told ? code : cli_fail(s, msg.text);
}

/* ---- Verbs ---- */

int verb_result(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    uint64_t wait_ms = 0;
    if (cli->options.timeout != NULL && cli->options.wait == 0) {
        return cli_usage("--timeout says how long --wait waits; give both");
    }
    struct status s =
        duration_of("--timeout", cli->options.timeout, WAIT_MS_ALWAYS, &wait_ms, &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    wait_ms = wait_ms > WAIT_MS_ALWAYS ? WAIT_MS_ALWAYS : wait_ms;
    wait_ms = cli->options.wait == 0 ? 0 : wait_ms;
    int code = CLI_DONE;
    bool told = false;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    struct id128 id;
    struct id_list ids = {0};
    if (strcmp(cli->args[0], "-") == 0) {
        code = ids_read(cli, c, &ids, &code) ? outcomes_print(cli, c, &ids, wait_ms, &told) : code;
    } else if (invocation_find(cli, c, cli->args[0], &id, &code)) {
        code = outcome_print(cli, c, id, wait_ms, &told);
    }
    id_list_close(&ids);
    client_close(c);
    return code;
}

/* Sends one action about an invocation. */
static int invocation_act(struct cli *cli, struct client *c, const char *action, struct id128 id,
                          const char *done)
{
    int code = CLI_DONE;
    char text[ID_STRING_BYTES];
    id_format(id, INVOCATION_PREFIX, text);
    struct pair reason = {.key = "reason",
                          .value = cli->options.reason == NULL ? "" : cli->options.reason};
    struct arena a = {0};
    struct message answer;
    const struct message m = {
        .type = MESSAGE_ADMIN,
        .admin = {.action = action, .name = text, .args = &reason, .args_count = 1}};
    if (cli_ask(cli, c, &m, CLIENT_REQUEST_MS, &a, &answer, &code)) {
        (void)printf("%s %s\n", text, done);
    }
    arena_close(&a);
    return code;
}

int invocations_act(struct cli *cli, const char *action, const char *done)
{
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    struct id128 id;
    struct id_list ids = {0};
    if (strcmp(cli->args[0], "-") == 0) {
        bool read = ids_read(cli, c, &ids, &code);
        for (size_t i = 0; read && i < ids.count; i++) {
            int one = invocation_act(cli, c, action, ids.items[i], done);
            code = one == CLI_DONE ? code : one;
            if (one == CLI_UNREACHABLE) {
                break;
            }
        }
    } else if (invocation_find(cli, c, cli->args[0], &id, &code)) {
        code = invocation_act(cli, c, action, id, done);
    }
    id_list_close(&ids);
    client_close(c);
    return code;
}

int verb_cancel(struct cli *cli)
{
    return invocations_act(cli, "invocation.cancel", "canceled");
}
