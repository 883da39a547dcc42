/* What most verbs share: contexts, connecting, asking, confirming. */
#include "cli/cli.h"

#include "common/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct status contexts_path(char *out, size_t out_size, struct errmsg *msg)
{
    const char *file = getenv("SKEP_CONTEXTS"), *config = getenv("XDG_CONFIG_HOME"),
               *home = getenv("HOME");
    int used;
    if (file != NULL && file[0] != '\0') {
        used = snprintf(out, out_size, "%s", file);
    } else if (config != NULL && config[0] == '/') {
        used = snprintf(out, out_size, "%s/skep/contexts.yaml", config);
    } else if (home != NULL && home[0] == '/') {
        used = snprintf(out, out_size, "%s/.config/skep/contexts.yaml", home);
    } else {
        return status_fail(msg, STATUS_INVALID,
                           "neither SKEP_CONTEXTS nor HOME is set: where are the contexts?");
    }
    if (used < 0 || (size_t)used >= out_size) {
        return status_fail(msg, STATUS_LIMIT, "the path of the contexts' file is too long");
    }
    return status_ok();
}

struct status contexts_load(struct context_config **out, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 1];
    TRY(contexts_path(path, sizeof path, msg));
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        *out = context_config_new();
        return *out == NULL ? status_of(STATUS_NOMEM) : status_ok();
    }
    return context_config_load(path, out, msg);
}

/* Makes the folders of the path, 0700. */
static void make_parents(const char *path)
{
    char folder[CONFIG_PATH_BYTES_MAX + 1];
    (void)snprintf(folder, sizeof folder, "%s", path);
    for (char *at = strchr(folder + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(folder, 0700);
        *at = '/';
    }
}

struct status contexts_save(const struct context_config *c, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 1];
    TRY(contexts_path(path, sizeof path, msg));
    make_parents(path);
    return context_config_save(c, path, msg);
}

struct client *cli_connect(struct cli *cli, int *code)
{
    struct errmsg msg = {.text = ""};
    struct client *client = NULL;
    struct status s = status_ok();
    if (cli->contexts == NULL) {
        s = contexts_load(&cli->contexts, &msg);
    }
    const struct context *context = NULL;
    if (status_is_ok(s) && cli->contexts->contexts_count == 0) {
        *code = CLI_UNREACHABLE;
        (void)cli_usage("no cluster is known here; start one with skep dev --detach, or join one "
                        "with skep join");
        return NULL;
    }
    if (status_is_ok(s)) {
        s = context_find(cli->contexts, cli->options.context, &context, &msg);
    }
    if (status_is_ok(s)) {
        s = client_open(&client, context, &msg);
    }
    if (!status_is_ok(s)) {
        *code = cli_fail(s, msg.text);
        return NULL;
    }
    return client;
}

bool cli_ask(struct cli *cli, struct client *c, const struct message *m, uint32_t timeout_ms,
             struct arena *a, struct message *answer, int *code)
{
    (void)cli;
    struct errmsg msg = {.text = ""};
    struct status s = client_ask(c, m, timeout_ms, a, answer, &msg);
    if (!status_is_ok(s)) {
        *code = cli_fail(s, msg.text);
        return false;
    }
    const char *text, *leader;
    s = client_answer_status(answer, &text, &leader);
    if (!status_is_ok(s)) {
        *code = cli_fail(s, text);
        return false;
    }
    return true;
}

bool cli_records(struct cli *cli, struct client *c, const char *what, const char *name,
                 struct arena *a, struct records *out, int *code)
{
    struct message answer;
    const struct message m = {.type = MESSAGE_QUERY, .query = {.what = what, .name = name}};
    if (!cli_ask(cli, c, &m, CLIENT_CONNECT_MS, a, &answer, code)) {
        return false;
    }
    if (answer.type != MESSAGE_RECORDS) {
        *code = cli_fail(status_of(STATUS_INTERNAL), "an answer of another kind came");
        return false;
    }
    *out = answer.records;
    return true;
}

int cli_query(struct cli *cli, const char *what, const char *name, const char *const *columns)
{
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    struct arena a = {0};
    struct records r;
    if (cli_records(cli, c, what, name, &a, &r, &code)) {
        code = output_records(stdout, cli->json, &r, columns);
    }
    arena_close(&a);
    client_close(c);
    return code;
}

int cli_admin(struct cli *cli, const char *action, const char *name, struct pair *args,
              size_t count, const char *done)
{
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    struct arena a = {0};
    struct message answer;
    const struct message m = {
        .type = MESSAGE_ADMIN,
        .admin = {.action = action, .name = name, .args = args, .args_count = count}};
    if (cli_ask(cli, c, &m, CLIENT_REQUEST_MS, &a, &answer, &code) &&
        answer.type == MESSAGE_REPLY) {
        if (answer.reply.detail.size > 0) {
            (void)fwrite(answer.reply.detail.data, 1, answer.reply.detail.size, stdout);
            (void)fputc('\n', stdout);
        } else {
            const char *said = answer.reply.message;
            (void)printf("%s%s%s\n", done, said[0] != '\0' ? ": " : "", said);
        }
    }
    arena_close(&a);
    client_close(c);
    return code;
}

bool cli_confirm(struct cli *cli, const char *format, ...)
{
    if (cli->options.yes != 0) {
        return true;
    }
    if (isatty(STDIN_FILENO) == 0) {
        (void)cli_usage("this cannot be undone: give --yes");
        return false;
    }
    va_list args;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputs(" [y/N] ", stderr);
    char answer[16] = "";
    return fgets(answer, sizeof answer, stdin) != NULL && (answer[0] == 'y' || answer[0] == 'Y');
}
