/* skep logs: what instances write, with the instance in front of each line when there are
 * several. */
#include "cli/cli.h"

#include "common/mem.h"

#include <string.h>
#include <unistd.h>

enum { INSTANCES_MAX = 16, TAIL_BYTES_DEFAULT = 64 << 10 };

/* Where each instance's text stands, so that a prefix goes in front of lines and not of pieces. */
struct log_view {
    struct {
        struct id128 instance;
        bool in_line;
    } seen[INSTANCES_MAX];
    size_t count;
    bool terminal; /* standard output is one: nothing an instance writes may rule it */
    int code;
    char message[ERRMSG_BYTES_MAX];
};

static bool *line_state(struct log_view *l, struct id128 id)
{
    for (size_t i = 0; i < l->count; i++) {
        if (id_compare(l->seen[i].instance, id) == 0) {
            return &l->seen[i].in_line;
        }
    }
    size_t at = l->count < INSTANCES_MAX ? l->count++ : INSTANCES_MAX - 1;
    l->seen[at].instance = id;
    l->seen[at].in_line = false;
    return &l->seen[at].in_line;
}

static void print_data(struct log_view *l, const struct log_data *d)
{
    char name[ID_STRING_BYTES];
    id_format(d->instance, INSTANCE_PREFIX, name);
    bool *in_line = line_state(l, d->instance);
    for (size_t at = 0; at < d->data.size;) {
        const uint8_t *end = memchr(d->data.data + at, '\n', d->data.size - at);
        size_t size = end == NULL ? d->data.size - at : (size_t)(end - (d->data.data + at)) + 1;
        if (!*in_line) {
            (void)printf("%s ", name);
        }
        if (l->terminal) {
            output_safe(stdout, bytes_of(d->data.data + at, size));
        } else {
            (void)fwrite(d->data.data + at, 1, size, stdout);
        }
        *in_line = end == NULL;
        at += size;
    }
    (void)fflush(stdout);
}

static bool on_data(void *data, const struct message *m)
{
    struct log_view *l = data;
    if (m->type != MESSAGE_LOG_DATA) {
        const char *leader, *text;
        struct status s = client_answer_status(m, &text, &leader);
        l->code = cli_fail(status_is_ok(s) ? status_of(STATUS_INTERNAL) : s, text);
        return false;
    }
    if (m->log_data.code != STATUS_OK) {
        l->code = cli_fail(status_of(status_from_wire(m->log_data.code)), m->log_data.message);
    }
    if (m->log_data.missed > 0) {
        (void)fprintf(stderr, "skep: %llu bytes are no longer held\n",
                      (unsigned long long)m->log_data.missed);
    }
    print_data(l, &m->log_data);
    return !m->log_data.end;
}

int verb_logs(struct cli *cli)
{
    struct log_view l = {.code = CLI_DONE, .terminal = isatty(STDOUT_FILENO) != 0};
    struct errmsg msg = {.text = ""};
    struct client *c = cli_connect(cli, &l.code);
    if (c == NULL) {
        return l.code;
    }
    const struct message m = {.type = MESSAGE_LOGS,
                              .logs = {.selector = cli->args[0],
                                       .follow = cli->options.follow != 0,
                                       .tail_bytes = cli->options.tail > 0
                                                         ? (uint64_t)cli->options.tail
                                                         : TAIL_BYTES_DEFAULT}};
    struct status s = client_follow(c, &m, on_data, &l, &msg);
    if (!status_is_ok(s)) {
        l.code = cli_fail(s, msg.text);
    }
    client_close(c);
    return l.code;
}
