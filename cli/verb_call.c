/* skep call: one invocation. The output goes to standard output as it is; what went wrong to
 * standard error. */
#include "cli/cli.h"

#include "common/mem.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

enum { TIMEOUT_SLACK_MS = 5000, NO_TIMEOUT_MS = 24 * 3600 * 1000 };

struct status payload_read(const struct cli *cli, struct buffer *out, struct errmsg *msg)
{
    const struct options *o = &cli->options;
    const char *dash = cli->argc > 1 ? cli->args[1] : NULL;
    if ((o->data != NULL) + (o->file != NULL) + (dash != NULL) > 1) {
        return status_fail(msg, STATUS_INVALID, "give one of --data, --file and -");
    }
    if (dash != NULL && strcmp(dash, "-") != 0) {
        return status_fail(msg, STATUS_INVALID,
                           "unexpected \"%.40s\"; the payload is given by --data, --file or -",
                           dash);
    }
    if (o->file != NULL || dash != NULL) {
        return input_read(o->file != NULL ? o->file : "-", PAYLOAD_BYTES_MAX, out, msg);
    }
    if (o->data != NULL && strlen(o->data) > PAYLOAD_BYTES_MAX) {
        return status_fail(msg, STATUS_INVALID, "--data: %zu bytes, at most %d are allowed",
                           strlen(o->data), PAYLOAD_BYTES_MAX);
    }
    return buffer_append(out, o->data == NULL ? "" : o->data,
                         o->data == NULL ? 0 : strlen(o->data));
}

static void print_json(const struct call_reply *r)
{
    char invocation[ID_STRING_BYTES], instance[ID_STRING_BYTES];
    id_format(r->invocation, INVOCATION_PREFIX, invocation);
    id_format(r->instance, INSTANCE_PREFIX, instance);
    json_t *o = json_object();
    (void)json_object_set_new(o, "code", json_string(status_name(status_from_wire(r->code))));
    (void)json_object_set_new(o, "message", json_string(r->message));
    (void)json_object_set_new(o, "invocation", json_string(invocation));
    (void)json_object_set_new(o, "instance", json_string(instance));
    (void)json_object_set_new(o, "node", json_string(r->node));
    (void)json_object_set_new(o, "cold", json_boolean(r->cold));
    (void)json_object_set_new(o, "queue_us", json_integer((json_int_t)r->queue_us));
    (void)json_object_set_new(o, "run_us", json_integer((json_int_t)r->run_us));
    json_t *text = json_stringn((const char *)r->output.data, r->output.size);
    /* Bytes that are no UTF-8 text have no place in JSON; their number tells that they were
     * there. */
    (void)json_object_set_new(o, "output", text == NULL ? json_null() : text);
    (void)json_object_set_new(o, "output_bytes", json_integer((json_int_t)r->output.size));
    (void)json_dumpf(o, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    (void)fputc('\n', stdout);
    json_decref(o);
}

static int print_reply(struct cli *cli, const struct message *answer)
{
    if (answer->type != MESSAGE_CALL_REPLY) {
        const char *text, *leader;
        struct status s = client_answer_status(answer, &text, &leader);
        return cli_fail(status_is_ok(s) ? status_of(STATUS_INTERNAL) : s, text);
    }
    const struct call_reply *r = &answer->call_reply;
    if (cli->json) {
        print_json(r);
    } else if (r->code == STATUS_OK && r->output.size > 0) {
        (void)fwrite(r->output.data, 1, r->output.size, stdout);
    }
    if (fflush(stdout) != 0) {
        return CLI_FAILED;
    }
    enum status_code code = status_from_wire(r->code);
    if (code == STATUS_OK) {
        return CLI_DONE;
    }
    return cli->json ? (int)cli_exit_code(code) : cli_fail(status_of(code), r->message);
}

int verb_call(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    struct buffer payload = {0};
    uint32_t timeout_ms = 0;
    struct status s = payload_read(cli, &payload, &msg);
    if (status_is_ok(s)) {
        s = timeout_of(cli->options.timeout, &timeout_ms, &msg);
    }
    if (!status_is_ok(s)) {
        buffer_close(&payload);
        return cli_fail(s, msg.text);
    }
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c != NULL) {
        struct arena a = {0};
        struct message answer;
        const struct message m = {.type = MESSAGE_CALL,
                                  .call = {.function = cli->args[0],
                                           .payload = bytes_of(payload.data, payload.size),
                                           .timeout_ms = timeout_ms}};
        uint32_t wait_ms = timeout_ms != 0 ? timeout_ms + TIMEOUT_SLACK_MS : NO_TIMEOUT_MS;
        s = client_ask(c, &m, wait_ms, &a, &answer, &msg);
        code = status_is_ok(s) ? print_reply(cli, &answer) : cli_fail(s, msg.text);
        arena_close(&a);
        client_close(c);
    }
    buffer_close(&payload);
    return code;
}
