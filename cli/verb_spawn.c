/* skep spawn: durable invocations. Each is printed as its id once it is committed. Every one has
 * an idempotency key, the user's or one that is made up here, so that a lost answer is no riddle:
 * the spawn is sent again and the same id comes back.
 *
 * A batch (--each): lines are read as places in the window come free, many spawns are in flight,
 * and ids are printed in the order of the lines. */
#include "cli/durable.h"

#include "cli/lines.h"
#include "common/clock.h"
#include "common/dates.h"
#include "common/mem.h"

#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    EACH_OUTSTANDING = 256,
    EACH_BYTES_MAX = 64 << 20, /* of payloads in flight */
    KEY_ROOM = SPAWN_KEY_BYTES_MAX + 1,
    LINE_DIGITS_MAX = 20,
};

/* A line of the batch, from its reading until it is printed. */
struct each_line {
    struct buffer payload;
    char key[KEY_ROOM];
    uint64_t number;
    bool used, done, existing;
    struct id128 id;
    struct status status;
    char text[ERRMSG_BYTES_MAX];
};

struct each {
    struct cli *cli;
    struct spawn form; /* what all lines share */
    const char *key;
    struct lines lines;
    struct each_line window[EACH_OUTSTANDING];
    uint32_t line_of[EACH_OUTSTANDING]; /* by the client's place */
    uint64_t next, printed;             /* lines */
    size_t bytes;
    uint64_t accepted, refused;
    bool stopped; /* no more lines are taken */
    struct status failed;
    struct errmsg why;
    struct id_list ids;
    uint64_t input_bytes; /* 0: not known */
    struct progress progress;
};

/* ---- What is asked for ---- */

static struct status key_make(char out[KEY_ROOM], struct errmsg *msg)
{
    uint64_t random[2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        return status_fail(msg, STATUS_IO, "the system gives no random bytes");
    }
    char id[ID_STRING_BYTES];
    id_format(id_make(clock_unix_ms(clock_real()), random[0], random[1]), INVOCATION_PREFIX, id);
    (void)snprintf(out, KEY_ROOM, "cli-%s", id + ID_PREFIX_BYTES);
    return status_ok();
}

static struct status time_options(const struct options *o, struct spawn *s, struct errmsg *msg)
{
    TRY(duration_of("--delay", o->delay, 0, &s->delay_ms, msg));
    TRY(duration_of("--deadline", o->deadline, 0, &s->deadline_ms, msg));
    TRY(duration_of("--ttl", o->ttl, 0, &s->ttl_ms, msg));
    TRY(timeout_of(o->timeout, &s->timeout_ms, msg));
    if (s->ttl_ms > SPAWN_TTL_MS_MAX) {
        return status_fail(msg, STATUS_INVALID, "--ttl: at most 168h, 7 days, is allowed");
    }
    if (o->at != NULL && o->delay != NULL) {
        return status_fail(msg, STATUS_INVALID, "give one of --delay and --at");
    }
    if (o->at != NULL) {
        TRY(status_prefix(msg, date_parse(o->at, &s->at_ms, msg), "--at"));
    }
    return status_ok();
}

static struct status spawn_options(const struct cli *cli, struct spawn *s, char key[KEY_ROOM],
                                   struct errmsg *msg)
{
    const struct options *o = &cli->options;
    *s = (struct spawn){.function = cli->args[0], .key = key};
    if (o->priority < 0 || o->priority > SPAWN_PRIORITY_MAX) {
        return status_fail(msg, STATUS_INVALID, "--priority: %d is not between 1 and %d",
                           o->priority, SPAWN_PRIORITY_MAX);
    }
    s->priority = (uint32_t)o->priority;
    size_t key_max = SPAWN_KEY_BYTES_MAX - (o->each != 0 ? LINE_DIGITS_MAX + 1 : 0);
    if (o->key != NULL && (o->key[0] == '\0' || strlen(o->key) > key_max)) {
        return status_fail(msg, STATUS_INVALID, "--key: 1 to %zu bytes are allowed%s", key_max,
                           o->each != 0 ? " with --each" : "");
    }
    if (o->key != NULL) {
        (void)snprintf(key, KEY_ROOM, "%s", o->key);
    } else {
        TRY(key_make(key, msg));
    }
    return time_options(o, s, msg);
}

/* ---- One ---- */

static void print_id(const struct cli *cli, struct id128 invocation, bool existing)
{
    char id[ID_STRING_BYTES];
    id_format(invocation, INVOCATION_PREFIX, id);
    if (cli->json) {
        (void)printf("{\"invocation\": \"%s\", \"existing\": %s}\n", id,
                     existing ? "true" : "false");
    } else {
        (void)printf("%s\n", id);
    }
}

/* A spawn that may have been made: how to find out. */
static int spawn_unknown(const struct spawn *s, const char *text)
{
    int code = cli_fail(status_of(STATUS_UNKNOWN), text);
    (void)fprintf(stderr,
                  "skep: spawn it again with --key %s: if it was accepted, that prints its id\n",
                  s->key);
    return code;
}

/* False: it was not accepted, the reason is printed and *code says so. */
static bool spawn_ask(struct client *c, const struct spawn *s, struct spawn_reply *out, int *code)
{
    struct arena a = {0};
    struct message answer;
    struct errmsg msg = {.text = ""};
    const struct message m = {.type = MESSAGE_SPAWN, .spawn = *s};
    const char *text = msg.text, *leader;
    struct status status = client_ask(c, &m, CLIENT_REQUEST_MS, &a, &answer, &msg);
    if (status.code == STATUS_TIMEOUT) {
        status = status_of(STATUS_UNKNOWN);
    } else if (status_is_ok(status)) {
        status = client_answer_status(&answer, &text, &leader);
        if (status_is_ok(status) && answer.type != MESSAGE_SPAWN_REPLY) {
            status = status_of(STATUS_INTERNAL);
            text = "an answer of another kind came";
        }
    }
    bool made = status_is_ok(status);
    if (made) {
        *out = answer.spawn_reply; /* Its texts are not read. */
    } else {
        *code = status.code == STATUS_UNKNOWN ? spawn_unknown(s, text) : cli_fail(status, text);
    }
    arena_close(&a);
    return made;
}

static int spawn_one(struct cli *cli, struct client *c, const struct spawn *s)
{
    int code = CLI_DONE;
    struct spawn_reply r;
    if (!spawn_ask(c, s, &r, &code)) {
        return code;
    }
    if (cli->options.wait == 0) {
        print_id(cli, r.invocation, r.existing);
        return fflush(stdout) == 0 ? CLI_DONE : CLI_FAILED;
    }
    bool told = false;
    code = outcome_print(cli, c, r.invocation, WAIT_MS_ALWAYS, &told);
    if (!told) {
        char id[ID_STRING_BYTES];
        id_format(r.invocation, INVOCATION_PREFIX, id);
        (void)fprintf(stderr, "skep: it was accepted: skep result %s --wait\n", id);
    }
    return code;
}

/* ---- A batch ---- */

static void each_stop(struct each *e, struct status s)
{
    if (!e->stopped) {
        e->stopped = true;
        e->failed = s;
    }
}

static enum client_fill each_fill(void *data, uint32_t place, struct message *m)
{
    struct each *e = data;
    struct each_line *l = &e->window[e->next % EACH_OUTSTANDING];
    if (e->stopped) {
        return CLIENT_NO_MORE;
    }
    if (l->used || e->bytes >= EACH_BYTES_MAX) {
        return CLIENT_LATER;
    }
    struct bytes text;
    struct status s = status_ok();
    switch (lines_take(&e->lines, false, &text, &s, &e->why)) {
    case LINES_LINE:
        break;
    case LINES_LATER:
        return CLIENT_LATER;
    case LINES_END:
        return CLIENT_NO_MORE;
    case LINES_FAILED:
        each_stop(e, s);
        return CLIENT_NO_MORE;
    }
    l->payload.size = 0;
    (void)mem_must(status_is_ok(buffer_append(&l->payload, text.data, text.size)) ? e : NULL);
    l->number = e->lines.number;
    (void)snprintf(l->key, sizeof l->key, "%s-%" PRIu64, e->key, l->number);
    l->used = true;
    l->done = false;
    l->status = status_ok();
    e->bytes += text.size;
    e->line_of[place] = (uint32_t)(e->next % EACH_OUTSTANDING);
    e->next++;
    *m = (struct message){.type = MESSAGE_SPAWN, .spawn = e->form};
    m->spawn.key = l->key;
    m->spawn.payload = bytes_of(l->payload.data, l->payload.size);
    return CLIENT_FILLED;
}

static void line_print(struct each *e, struct each_line *l)
{
    bool wait = e->cli->options.wait != 0;
    if (l->done && status_is_ok(l->status)) {
        e->accepted++;
        if (!wait) {
            print_id(e->cli, l->id, l->existing);
        }
    } else {
        e->refused++;
        if (!wait) {
            (void)fputs(e->cli->json ? "{\"invocation\": null}\n" : "-\n", stdout);
        }
        progress_end(&e->progress);
        (void)fprintf(stderr, "skep: line %" PRIu64 ": ", l->number);
        const char *text = l->done ? l->text : "not known whether it was accepted";
        output_safe(stderr, bytes_of(text, strlen(text)));
        (void)fputc('\n', stderr);
    }
    if (wait) {
        struct status s =
            id_list_put(&e->ids, l->done && status_is_ok(l->status) ? l->id : (struct id128){0});
        if (!status_is_ok(s)) {
            (void)status_fail(&e->why, s.code, "at most %d lines may be waited for", IDS_MAX);
            each_stop(e, status_of(STATUS_INVALID));
        }
    }
    e->bytes -= l->payload.size;
    if (l->payload.capacity > (64 << 10)) {
        buffer_close(&l->payload);
    }
    l->payload.size = 0;
    l->used = false;
}

/* Prints what is next in the order of the lines. */
static void each_print(struct each *e)
{
    for (struct each_line *l = &e->window[e->printed % EACH_OUTSTANDING]; l->used && l->done;
         l = &e->window[e->printed % EACH_OUTSTANDING]) {
        line_print(e, l);
        e->printed++;
    }
    progress_show(&e->progress, e->input_bytes != 0 ? e->lines.bytes : e->accepted, e->input_bytes,
                  "accepted");
}

static void each_done(void *data, uint32_t place, const struct message *answer, uint64_t took_us)
{
    struct each *e = data;
    (void)took_us;
    struct each_line *l = &e->window[e->line_of[place]];
    const char *text, *leader;
    l->status = client_answer_status(answer, &text, &leader);
    l->done = true;
    if (status_is_ok(l->status) && answer->type != MESSAGE_SPAWN_REPLY) {
        l->status = status_of(STATUS_INTERNAL);
        text = "an answer of another kind came";
    }
    if (status_is_ok(l->status)) {
        l->id = answer->spawn_reply.invocation;
        l->existing = answer->spawn_reply.existing;
    } else {
        (void)snprintf(l->text, sizeof l->text, "%s",
                       text[0] != '\0' ? text : status_text(l->status.code));
        if (answer->type == MESSAGE_CALL_REPLY) { /* Nobody answered: nor will the next. */
            (void)snprintf(e->why.text, sizeof e->why.text, "%s", l->text);
            each_stop(e, l->status);
        }
    }
    each_print(e);
}

/* Lines that were sent and have no answer: their fate is not known. */
static void each_rest(struct each *e)
{
    for (; e->printed < e->next; e->printed++) {
        line_print(e, &e->window[e->printed % EACH_OUTSTANDING]);
    }
}

/* Ids that are waited for are not printed: the key finds them again. */
static void each_key_tell(const struct each *e)
{
    (void)fprintf(stderr,
                  "skep: give the same lines again with --key %s to go on; "
                  "what was accepted is not made twice\n",
                  e->key);
}

static int each_end(struct each *e, struct client *c)
{
    int code = e->refused == 0 ? CLI_DONE : CLI_FAILED;
    bool told = true;
    progress_end(&e->progress);
    (void)fprintf(stderr, "skep: %" PRIu64 " accepted, %" PRIu64 " refused\n", e->accepted,
                  e->refused);
    if (!status_is_ok(e->failed)) {
        code = cli_fail(e->failed, e->why.text);
        each_key_tell(e);
    }
    if (fflush(stdout) != 0) {
        return CLI_FAILED;
    }
    if (e->cli->options.wait != 0) {
        int waited = outcomes_print(e->cli, c, &e->ids, WAIT_MS_ALWAYS, &told);
        code = code == CLI_DONE ? waited : code;
        if (!told && status_is_ok(e->failed)) {
            each_key_tell(e);
        }
    }
    return code;
}

static int spawn_each(struct cli *cli, struct client *c, const struct spawn *form)
{
    struct each *e = mem_must(mem_zalloc(1, sizeof *e));
    e->cli = cli;
    e->form = *form;
    e->key = form->key;
    e->lines = (struct lines){.fd = STDIN_FILENO, .line_bytes_max = PAYLOAD_BYTES_MAX};
    struct stat input;
    if (fstat(STDIN_FILENO, &input) == 0 && S_ISREG(input.st_mode)) {
        e->input_bytes = (uint64_t)input.st_size;
    }
    const struct client_load load = {.data = e,
                                     .outstanding = EACH_OUTSTANDING,
                                     .give_up_ms = CLIENT_REQUEST_MS,
                                     .until_us = UINT64_MAX,
                                     .fill = each_fill,
                                     .done = each_done};
    struct errmsg msg = {.text = ""};
    struct status s = client_load_run(c, &load, &msg);
    if (!status_is_ok(s)) {
        e->why = msg;
        each_stop(e, s);
    }
    each_rest(e);
    int code = each_end(e, c);
    for (size_t i = 0; i < EACH_OUTSTANDING; i++) {
        buffer_close(&e->window[i].payload);
    }
    lines_close(&e->lines);
    id_list_close(&e->ids);
    mem_free(e);
    return code;
}

int verb_spawn(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    struct spawn form;
    char key[KEY_ROOM];
    struct buffer payload = {0};
    const struct options *o = &cli->options;
    bool each = o->each != 0;
    struct status s = spawn_options(cli, &form, key, &msg);
    if (status_is_ok(s) && each && (o->data != NULL || o->file != NULL)) {
        s = status_fail(&msg, STATUS_INVALID,
                        "--each reads one payload a line from standard input; --data and --file do "
                        "not go with it");
    }
    if (status_is_ok(s) && !each) {
        s = payload_read(cli, &payload, &msg);
    }
    if (!status_is_ok(s)) {
        buffer_close(&payload);
        return cli_fail(s, msg.text);
    }
    form.payload = bytes_of(payload.data, payload.size);
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c != NULL) {
        code = each ? spawn_each(cli, c, &form) : spawn_one(cli, c, &form);
        client_close(c);
    }
    buffer_close(&payload);
    return code;
}
