/* Verbs that ask one question or send one action. */
#include "cli/cli.h"

#include "common/mem.h"

#include <string.h>

static const char *first_arg(const struct cli *cli)
{
    return cli->argc > 0 ? cli->args[0] : "";
}

int verb_version(struct cli *cli)
{
    (void)cli;
    (void)puts("skep " SKEP_VERSION);
    return CLI_DONE;
}

/* ---- Functions ---- */

int verb_function_list(struct cli *cli)
{
    static const char *const columns[] = {
        "name",   "runtime",        "revision",        "ready", "starting",
        "queued", "durable_queued", "durable_running", "dead",  NULL};
    return cli_query(cli, "functions", "", columns);
}

int verb_function_show(struct cli *cli)
{
    return cli_query(cli, "function", first_arg(cli), NULL);
}

int verb_function_history(struct cli *cli)
{
    static const char *const columns[] = {"revision", "index", "time_ms", "current", NULL};
    return cli_query(cli, "history", first_arg(cli), columns);
}

int verb_function_rollback(struct cli *cli)
{
    if (!cli_confirm(cli, "Roll function %s back?", first_arg(cli))) {
        return CLI_USAGE;
    }
    struct pair arg = {.key = "revision",
                       .value = cli->options.revision == NULL ? "" : cli->options.revision};
    return cli_admin(cli, "function.rollback", first_arg(cli), &arg, 1, "rolled back");
}

int verb_function_delete(struct cli *cli)
{
    if (!cli_confirm(cli, "Delete function %s?", first_arg(cli))) {
        return CLI_USAGE;
    }
    return cli_admin(cli, "function.delete", first_arg(cli), NULL, 0, "deleted");
}

/* ---- What runs ---- */

int verb_ps(struct cli *cli)
{
    static const char *const columns[] = {"instance", "function",    "node",         "state",
                                          "running",  "concurrency", "memory_bytes", NULL};
    return cli_query(cli, "instances", first_arg(cli), columns);
}

int verb_why(struct cli *cli)
{
    static const char *const columns[] = {"time_ms", "subject", "decision", NULL};
    return cli_query(cli, "why", first_arg(cli), columns);
}

int verb_metrics(struct cli *cli)
{
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    struct arena a = {0};
    struct message answer;
    const struct message m = {.type = MESSAGE_METRICS_QUERY,
                              .metrics_query = {.target = first_arg(cli)}};
    if (cli_ask(cli, c, &m, CLIENT_CONNECT_MS, &a, &answer, &code) &&
        answer.type == MESSAGE_METRICS_TEXT) {
        (void)fwrite(answer.metrics_text.text.data, 1, answer.metrics_text.text.size, stdout);
    }
    arena_close(&a);
    client_close(c);
    return code;
}

/* ---- Nodes ---- */

int verb_node_list(struct cli *cli)
{
    static const char *const columns[] = {"name",
                                          "state",
                                          "reason",
                                          "instances",
                                          "cpu_millis",
                                          "cpu_reserved_millis",
                                          "memory_bytes",
                                          "memory_reserved_bytes",
                                          "gpu_count",
                                          "gpu_model",
                                          NULL};
    return cli_query(cli, "nodes", "", columns);
}

/* The node, and its GPUs when its agent reports any. */
int verb_node_show(struct cli *cli)
{
    static const char *const columns[] = {"gpu",          "model",
                                          "mig_profile",  "health",
                                          "memory_bytes", "memory_used_bytes",
                                          "busy_percent", "temperature_c",
                                          "power_w",      "processes",
                                          "pci",          "uuid",
                                          "used_by",      "why",
                                          "dirty",        NULL};
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL) {
        return code;
    }
    struct arena a = {0}, gpus_arena = {0};
    struct records node, gpus = {0};
    bool ok = cli_records(cli, c, "node", first_arg(cli), &a, &node, &code);
    /* A scheduler of before knows no such question. */
    if (ok && node.rows_count == 1 && record_value(&node.rows[0], "gpu_state")[0] != '\0') {
        ok = cli_records(cli, c, "gpus", first_arg(cli), &gpus_arena, &gpus, &code);
    }
    if (ok) {
        code = output_whole(stdout, cli->json, &node, "gpus", &gpus, columns);
    }
    arena_close(&a);
    arena_close(&gpus_arena);
    client_close(c);
    return code;
}

int verb_node_cordon(struct cli *cli)
{
    struct pair reason = {.key = "reason",
                          .value = cli->options.reason == NULL ? "" : cli->options.reason};
    return cli_admin(cli, "node.cordon", first_arg(cli), &reason, 1, "cordoned");
}

int verb_node_uncordon(struct cli *cli)
{
    return cli_admin(cli, "node.uncordon", first_arg(cli), NULL, 0, "uncordoned");
}

int verb_node_drain(struct cli *cli)
{
    return cli_admin(cli, "node.drain", first_arg(cli), NULL, 0, "draining");
}

int verb_node_remove(struct cli *cli)
{
    if (!cli_confirm(cli, "Remove node %s and revoke its certificates?", first_arg(cli))) {
        return CLI_USAGE;
    }
    char what[CONFIG_ADDRESS_BYTES_MAX];
    (void)snprintf(what, sizeof what, "agent/%s", first_arg(cli));
    struct pair reason = {.key = "reason", .value = "node removed"};
    int code = cli_admin(cli, "ca.revoke", what, &reason, 1, "revoked");
    return code == CLI_DONE ? cli_admin(cli, "node.remove", first_arg(cli), NULL, 0, "removed")
                            : code;
}

/* ---- The cluster ---- */

int verb_cluster_status(struct cli *cli)
{
    static const char *const columns[] = {"name",      "address", "role",         "leader",
                                          "connected", "term",    "commit_index", NULL};
    return cli_query(cli, "cluster", "", columns);
}

int verb_cluster_add(struct cli *cli)
{
    if (cli->options.address == NULL) {
        return cli_usage("--address HOST:PORT is required: where the new scheduler listens");
    }
    struct pair address = {.key = "address", .value = cli->options.address};
    return cli_admin(cli, "cluster.add", first_arg(cli), &address, 1, "added");
}

int verb_cluster_remove(struct cli *cli)
{
    if (!cli_confirm(cli, "Remove scheduler %s?", first_arg(cli))) {
        return CLI_USAGE;
    }
    return cli_admin(cli, "cluster.remove", first_arg(cli), NULL, 0, "removed");
}

int verb_cluster_promote(struct cli *cli)
{
    return cli_admin(cli, "cluster.promote", first_arg(cli), NULL, 0, "promoted");
}

int verb_cluster_transfer(struct cli *cli)
{
    return cli_admin(cli, "cluster.transfer", first_arg(cli), NULL, 0, "handed over");
}

/* ---- Contexts ---- */

int verb_context_list(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    struct status s = contexts_load(&cli->contexts, &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    struct record rows[CONFIG_CONTEXTS_MAX];
    struct pair fields[CONFIG_CONTEXTS_MAX][3];
    for (uint32_t i = 0; i < cli->contexts->contexts_count; i++) {
        const struct context *k = &cli->contexts->contexts[i];
        bool current =
            cli->contexts->current != NULL && strcmp(cli->contexts->current, k->name) == 0;
        fields[i][0] = (struct pair){.key = "name", .value = k->name};
        fields[i][1] = (struct pair){.key = "scheduler",
                                     .value = k->schedulers_count > 0 ? k->schedulers[0] : ""};
        fields[i][2] =
            (struct pair){.key = "current", .value = current ? "true" : "false", .value_kind = 2};
        rows[i] = (struct record){.fields = fields[i], .fields_count = 3};
    }
    static const char *const columns[] = {"name", "scheduler", "current", NULL};
    const struct records r = {.rows = rows, .rows_count = cli->contexts->contexts_count};
    return output_records(stdout, cli->json, &r, columns);
}

int verb_context_use(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    const struct context *found = NULL;
    struct status s = contexts_load(&cli->contexts, &msg);
    if (status_is_ok(s)) {
        s = context_find(cli->contexts, cli->args[0], &found, &msg);
    }
    if (status_is_ok(s)) {
        s = context_put(cli->contexts, found, true, &msg);
    }
    if (status_is_ok(s)) {
        s = contexts_save(cli->contexts, &msg);
    }
    return status_is_ok(s) ? CLI_DONE : cli_fail(s, msg.text);
}

int verb_context_remove(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    struct status s = contexts_load(&cli->contexts, &msg);
    if (status_is_ok(s)) {
        s = context_remove(cli->contexts, cli->args[0]);
        if (!status_is_ok(s)) {
            (void)status_fail(&msg, s.code, "no context is named %.80s", cli->args[0]);
        }
    }
    if (status_is_ok(s)) {
        s = contexts_save(cli->contexts, &msg);
    }
    return status_is_ok(s) ? CLI_DONE : cli_fail(s, msg.text);
}
