/* Isolation checks: what the last rounds found, and a round at once. */
#include "cli/cli.h"

#include "common/mem.h"

#include <poll.h>
#include <string.h>

enum { POLL_MS = 200, WAIT_MS = 120 * 1000 };

static const char *const node_columns[] = {"node",           "checks",  "held",   "breached",
                                           "not_applicable", "not_run", "failed", "why",
                                           "node_state",     NULL};
static const char *const check_columns[] = {"check", "verdict", "detail", NULL};

/* A row a node, or one node with each of its checks. */
static int print_status(struct cli *cli, struct client *c, const char *node,
                        const struct records *nodes)
{
    if (node[0] == '\0') {
        return output_records(stdout, cli->json, nodes, node_columns);
    }
    int code = CLI_DONE;
    struct arena a = {0};
    struct records checks;
    if (cli_records(cli, c, "isolation_checks", node, &a, &checks, &code)) {
        code = output_whole(stdout, cli->json, nodes, "results", &checks, check_columns);
    }
    arena_close(&a);
    return code;
}

int verb_isolation_status(struct cli *cli)
{
    const char *node = cli->argc > 0 ? cli->args[0] : "";
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    struct arena a = {0};
    struct records nodes;
    if (cli_records(cli, c, "isolation", node, &a, &nodes, &code)) {
        code = print_status(cli, c, node, &nodes);
    }
    arena_close(&a);
    client_close(c);
    return code;
}

/* How many of the nodes are in that state. */
static size_t nodes_in(const struct records *nodes, const char *checks)
{
    size_t count = 0;
    for (size_t i = 0; i < nodes->rows_count; i++) {
        count += strcmp(record_value(&nodes->rows[i], "checks"), checks) == 0;
    }
    return count;
}

/* Waits for the round's end and prints what it found. */
static int await_round(struct cli *cli, struct client *c, const char *node)
{
    int code = CLI_DONE;
    for (int waited_ms = 0;; waited_ms += POLL_MS) {
        struct arena a = {0};
        struct records nodes;
        if (!cli_records(cli, c, "isolation", node, &a, &nodes, &code)) {
            arena_close(&a);
            return code;
        }
        bool over = nodes_in(&nodes, "running") == 0;
        if (over || waited_ms >= WAIT_MS) {
            code = print_status(cli, c, node, &nodes);
            bool failed = !over || nodes_in(&nodes, "breached") > 0;
            arena_close(&a);
            return code == CLI_DONE && failed ? CLI_FAILED : code;
        }
        arena_close(&a);
        (void)poll(NULL, 0, POLL_MS);
    }
}

int verb_isolation_run(struct cli *cli)
{
    const char *node = cli->argc > 0 ? cli->args[0] : "";
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    struct arena a = {0};
    struct message answer;
    const struct message m = {.type = MESSAGE_ADMIN,
                              .admin = {.action = "isolation.run", .name = node}};
    bool asked = cli_ask(cli, c, &m, CLIENT_REQUEST_MS, &a, &answer, &code);
    arena_close(&a);
    if (asked) {
        code = await_round(cli, c, node);
    }
    client_close(c);
    return code;
}
