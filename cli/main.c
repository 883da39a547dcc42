/* skep: finds the verb in a table, parses the options that the verb's row allows, and runs it. */
#include "cli/cli.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

#include <openssl/crypto.h>
#include <popt.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ARGS_ANY = 1000, OPTIONS_MAX = 40 };

/* Every option there is. kind: s text, i number, l long number, f flag. */
static const struct option_row {
    const char *name;
    char letter;
    char kind;
    size_t offset;
    const char *help, *arg;
} option_rows[] = {
    {"output", 'o', 's', offsetof(struct options, output), "table (default) or json", "FORMAT"},
    {"context", 0, 's', offsetof(struct options, context),
     "which cluster to talk to (skep context list)", "NAME"},
    {"data", 'd', 's', offsetof(struct options, data), "the payload; for dev: the data folder",
     "TEXT|DIR"},
    {"file", 'f', 's', offsetof(struct options, file),
     "the payload is this file; - is standard input", "FILE"},
    {"timeout", 't', 's', offsetof(struct options, timeout),
     "how long a call, an attempt or the waiting may take, as 500ms, 30s, 5m", "TIME"},
    {"cluster", 0, 's', offsetof(struct options, cluster), "the cluster's name", "NAME"},
    {"dir", 0, 's', offsetof(struct options, dir),
     "where the CA's certificate and key are or will be", "DIR"},
    {"out", 0, 's', offsetof(struct options, out), "where to write", "DIR"},
    {"role", 0, 's', offsetof(struct options, role), "scheduler, agent or user", "ROLE"},
    {"name", 'n', 's', offsetof(struct options, name), "the name of the joiner", "NAME"},
    {"reason", 0, 's', offsetof(struct options, reason), "why, for those who read it later",
     "TEXT"},
    {"address", 0, 's', offsetof(struct options, address), "where the scheduler listens",
     "HOST:PORT"},
    {"token-file", 0, 's', offsetof(struct options, token_file),
     "the token is in this file; - is standard input", "FILE"},
    {"revision", 0, 's', offsetof(struct options, revision),
     "a revision or the first digits of one", "DIGEST"},
    {"duration", 0, 's', offsetof(struct options, duration), "how long to run, as 5s", "TIME"},
    {"valid", 0, 's', offsetof(struct options, valid), "how long it is valid, as 15m", "TIME"},
    {"key", 'k', 's', offsetof(struct options, key),
     "idempotency key: one spawn a key; with --each, KEY-N for line N", "KEY"},
    {"delay", 0, 's', offsetof(struct options, delay), "not before this has passed, as 10m",
     "TIME"},
    {"at", 0, 's', offsetof(struct options, at), "not before, as 2027-01-31T08:30:00Z", "WHEN"},
    {"deadline", 0, 's', offsetof(struct options, deadline),
     "fail what has not succeeded by then, from now, as 1h", "TIME"},
    {"ttl", 0, 's', offsetof(struct options, ttl),
     "how long the result is kept (default 24h, at most 168h)", "TIME"},
    {"function", 0, 's', offsetof(struct options, function), "all of this function", "NAME"},
    {"priority", 'p', 'i', offsetof(struct options, priority),
     "1 to 9, the most urgent (default 5)", "N"},
    {"each", 0, 'f', offsetof(struct options, each),
     "one spawn a line of standard input; prints one id a line", NULL},
    {"wait", 'w', 'f', offsetof(struct options, wait), "wait for the end and print the result",
     NULL},
    {"ca", 0, 's', offsetof(struct options, ca),
     "the CA's certificate that a backup is signed under (default: the context's)", "FILE"},
    {"cluster-key", 0, 's', offsetof(struct options, cluster_key),
     "what opens a sealed backup: a file, file:PATH, credential:NAME or pkcs11:...", "KEY"},
    {"stale", 0, 'f', offsetof(struct options, stale),
     "from any scheduler, leader or not, as far as it knows", NULL},
    {"config", 0, 's', offsetof(struct options, config), "a scheduler's configuration", "FILE"},
    {"yes", 'y', 'f', offsetof(struct options, yes), "do not ask", NULL},
    {"detach", 0, 'f', offsetof(struct options, detach), "return once the cluster serves", NULL},
    {"follow", 0, 'f', offsetof(struct options, follow), "go on as more is printed", NULL},
    {"plan", 0, 'f', offsetof(struct options, plan), "say what would change and stop", NULL},
    {"schedulers", 0, 'i', offsetof(struct options, schedulers), "how many schedulers (default 1)",
     "N"},
    {"agents", 0, 'i', offsetof(struct options, agents), "how many agents (default 1)", "N"},
    {"walls-not-needed", 0, 's', offsetof(struct options, walls_not_needed),
     "walls of cells that this machine lacks (skep-agent walls), as cgroup_io,landlock", "NAMES"},
    {"concurrency", 0, 'i', offsetof(struct options, concurrency),
     "calls in flight at once (default 1)", "N"},
    {"payload", 0, 'i', offsetof(struct options, payload), "bytes of payload (default 256)",
     "BYTES"},
    {"tail", 0, 'i', offsetof(struct options, tail), "at most the last BYTES of each instance",
     "BYTES"},
    {"check-index", 0, 'l', offsetof(struct options, check_index),
     "only if the function is still at this index", "N"},
};
enum { OPTION_ROWS = sizeof option_rows / sizeof option_rows[0] };

static const struct verb {
    const char *noun, *verb; /* verb NULL: the noun alone */
    verb_run run;
    int args_min, args_max;
    const char *args, *options, *help; /* options: names with spaces between */
} verbs[] = {
    {"dev", "status", verb_dev_status, 0, 0, "", "data output",
     "show the development cluster on this machine"},
    {"dev", "stop", verb_dev_stop, 0, 0, "", "data", "stop it and remove everything it made"},
    {"dev", NULL, verb_dev, 0, 0, "", "schedulers agents data detach walls-not-needed",
     "run a whole cluster on this machine"},
    {"deploy", NULL, verb_deploy, 1, 1, "DIR", "context output plan check-index",
     "make the code in DIR a revision of its function"},
    {"call", NULL, verb_call, 1, 2, "NAME [-]", "context output data file timeout",
     "call a function and print its result"},
    {"spawn", NULL, verb_spawn, 1, 2, "NAME [-]",
     "context output data file each key priority delay at deadline ttl timeout wait",
     "promise that a function runs, and print the id"},
    {"result", NULL, verb_result, 1, 1, "ID|-", "context output wait timeout",
     "print what a spawned invocation gave"},
    {"cancel", NULL, verb_cancel, 1, 1, "ID|-", "context reason", "end a spawned invocation"},
    {"invocation", "list", verb_invocation_list, 0, 1, "[NAME]", "context output",
     "list spawned invocations, of a function"},
    {"invocation", "show", verb_invocation_show, 1, 1, "ID", "context output",
     "show one, without its input and output"},
    {"dead", "list", verb_dead_list, 0, 1, "[NAME]", "context output",
     "list dead letters, of a function"},
    {"dead", "show", verb_invocation_show, 1, 1, "ID", "context output", "show one"},
    {"dead", "redrive", verb_dead_redrive, 0, 1, "[ID|-]", "context function",
     "queue a dead letter again, as new"},
    {"dead", "purge", verb_dead_purge, 0, 1, "[ID|-]", "context function yes",
     "forget a dead letter and its input"},
    {"schedule", "list", verb_schedule_list, 0, 1, "[NAME]", "context output",
     "list schedules of functions"},
    {"tenant", "list", verb_tenant_list, 0, 0, "", "context output",
     "list tenants with their queues and limits"},
    {"setting", "list", verb_setting_list, 0, 0, "", "context output",
     "list the cluster's settings"},
    {"setting", "set", verb_setting_set, 2, 2, "KEY VALUE", "context",
     "set one; an empty value removes it"},
    {"logs", NULL, verb_logs, 1, 1, "NAME|INSTANCE", "context follow tail",
     "print what instances write"},
    {"ps", NULL, verb_ps, 0, 1, "[NAME]", "context output", "list instances"},
    {"why", NULL, verb_why, 0, 1, "[NAME]", "context output",
     "list decisions of the scheduler, about a function or a node"},
    {"metrics", NULL, verb_metrics, 0, 1, "[ID]", "context",
     "print a scheduler's or agent's metrics as Prometheus text"},
    {"function", "list", verb_function_list, 0, 0, "", "context output", "list functions"},
    {"function", "show", verb_function_show, 1, 1, "NAME", "context output", "show one function"},
    {"function", "history", verb_function_history, 1, 1, "NAME", "context output",
     "list a function's revisions"},
    {"function", "rollback", verb_function_rollback, 1, 1, "NAME", "context yes revision",
     "go back to the revision before, or to --revision"},
    {"function", "delete", verb_function_delete, 1, 1, "NAME", "context yes",
     "delete a function and stop its instances"},
    {"image", "import", verb_image_import, 2, 2, "NAME SOURCE", "context output",
     "make an OCI layout, an OCI or docker archive, or a folder a root for functions"},
    {"image", "list", verb_image_list, 0, 0, "", "context output", "list images"},
    {"image", "show", verb_image_show, 1, 1, "NAME[@sha256:DIGEST]", "context output",
     "show one image"},
    {"image", "delete", verb_image_delete, 1, 1, "NAME[@sha256:DIGEST]", "context yes",
     "delete an image that no current revision uses"},
    {"image", "gc", verb_image_gc, 0, 0, "", "context",
     "forget superseded versions that nothing uses, and chunks that nothing names"},
    {"node", "list", verb_node_list, 0, 0, "", "context output", "list nodes"},
    {"node", "show", verb_node_show, 1, 1, "NAME", "context output", "show one node"},
    {"node", "cordon", verb_node_cordon, 1, 1, "NAME", "context reason",
     "place nothing new on a node"},
    {"node", "uncordon", verb_node_uncordon, 1, 1, "NAME", "context", "end cordon or drain"},
    {"node", "drain", verb_node_drain, 1, 1, "NAME", "context",
     "cordon, and stop instances as they become idle"},
    {"node", "remove", verb_node_remove, 1, 1, "NAME", "context yes",
     "forget a node and revoke its certificate"},
    {"isolation", "status", verb_isolation_status, 0, 1, "[NODE]", "context output",
     "show what nodes' isolation checks found"},
    {"isolation", "run", verb_isolation_run, 0, 1, "[NODE]", "context output",
     "check nodes' isolation now; exit code 1 when a check failed"},
    {"cluster", "status", verb_cluster_status, 0, 0, "", "context output",
     "show the schedulers and who leads"},
    {"cluster", "add", verb_cluster_add, 1, 1, "NAME", "context address",
     "add a scheduler that has joined"},
    {"cluster", "remove", verb_cluster_remove, 1, 1, "NAME", "context yes", "remove a scheduler"},
    {"cluster", "promote", verb_cluster_promote, 1, 1, "NAME", "context",
     "give a scheduler that is a member its vote"},
    {"cluster", "recover", verb_cluster_recover, 0, 0, "", "config yes",
     "after losing the majority: on a scheduler's machine, make it the only member"},
    {"cluster", "transfer", verb_cluster_transfer, 0, 1, "[NAME]", "context",
     "hand leadership over"},
    {"ca", "init", verb_ca_init, 0, 0, "", "cluster dir", "make a cluster's certificate authority"},
    {"ca", "issue", verb_ca_issue, 2, 2, "ROLE NAME", "cluster dir out valid",
     "sign a certificate with the CA in --dir, without a cluster"},
    {"ca", "token", verb_ca_token, 0, 0, "", "context role name valid",
     "make a join token: single use, short-lived"},
    {"ca", "revoke", verb_ca_revoke, 1, 1, "SERIAL|ROLE/NAME", "context yes reason",
     "revoke certificates, on live connections too"},
    {"ca", "list", verb_ca_list, 0, 0, "", "context output", "list join tokens and revocations"},
    {"ca", "renew", verb_ca_renew, 0, 0, "", "context", "renew this context's certificate"},
    {"backup", "create", verb_backup_create, 1, 1, "FILE", "context output stale ca",
     "save the whole cluster in one file"},
    {"backup", "verify", verb_backup_verify, 1, 1, "FILE", "context output ca cluster-key",
     "check a backup and say what it would bring back"},
    {"backup", "restore", verb_backup_restore, 1, 1, "FILE", "context yes ca cluster-key",
     "bring a backup back into an empty cluster"},
    {"backup", "list", verb_backup_list, 0, 0, "", "context output",
     "list the scheduled backups that there are"},
    {"key", "create", verb_key_create, 1, 1, "FILE", "",
     "make a cluster key, which everything at rest is sealed under"},
    {"key", "list", verb_key_list, 0, 0, "", "context output",
     "list the data keys and what wraps them"},
    {"key", "rotate", verb_key_rotate, 0, 0, "", "context",
     "seal under a new data key from now on"},
    {"key", "rewrap", verb_key_rewrap, 0, 0, "", "context yes",
     "wrap the data keys by the cluster key that the leader has now"},
    {"join", NULL, verb_join, 0, 0, "", "token-file name context",
     "become a user of a cluster with a token"},
    {"context", "list", verb_context_list, 0, 0, "", "output",
     "list the clusters this command knows"},
    {"context", "use", verb_context_use, 1, 1, "NAME", "", "choose one"},
    {"context", "remove", verb_context_remove, 1, 1, "NAME", "", "forget one"},
    {"bench", "call", verb_bench_call, 1, 1, "NAME", "context concurrency duration payload",
     "measure calls of a function"},
    {"version", NULL, verb_version, 0, 0, "", "", "print the version"},
};
enum { VERBS = sizeof verbs / sizeof verbs[0] };

/* ---- Help ---- */

static int print_help(FILE *to)
{
    (void)fputs("skep: run functions on a cluster\n\n", to);
    for (size_t i = 0; i < VERBS; i++) {
        char usage[80];
        (void)snprintf(usage, sizeof usage, "skep %s%s%s %s", verbs[i].noun,
                       verbs[i].verb == NULL ? "" : " ", verbs[i].verb == NULL ? "" : verbs[i].verb,
                       verbs[i].args);
        (void)fprintf(to, "  %-34s %s\n", usage, verbs[i].help);
    }
    (void)fputs("\nskep VERB --help lists a verb's options. Exit codes: 0 done, 1 the function or "
                "check failed, 2 usage,\n"
                "3 not reachable, 4 denied, 5 outcome unknown.\n",
                to);
    return to == stdout ? CLI_DONE : CLI_USAGE;
}

static bool listed(const char *list, const char *name)
{
    size_t size = strlen(name);
    for (const char *at = strstr(list, name); at != NULL; at = strstr(at + 1, name)) {
        if ((at == list || at[-1] == ' ') && (at[size] == ' ' || at[size] == '\0')) {
            return true;
        }
    }
    return false;
}

/* ---- Options ---- */

static void options_table(const struct verb *verb, struct options *o,
                          struct poptOption out[OPTIONS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        const struct option_row *row = &option_rows[i];
        if (!listed(verb->options, row->name)) {
            continue;
        }
        CHECK(count < OPTIONS_MAX - 2);
        unsigned kind = row->kind == 's'   ? POPT_ARG_STRING
                        : row->kind == 'i' ? POPT_ARG_INT
                        : row->kind == 'l' ? POPT_ARG_LONGLONG
                                           : POPT_ARG_NONE;
        out[count++] = (struct poptOption){row->name, row->letter, kind,    (char *)o + row->offset,
                                           0,         row->help,   row->arg};
    }
    const struct poptOption help[] = {POPT_AUTOHELP POPT_TABLEEND};
    out[count++] = help[0];
    out[count] = help[1];
}

/* The verb that the first words name; *used says how many words it takes. */
static const struct verb *find_verb(int argc, char **argv, int *used)
{
    for (size_t i = 0; i < VERBS; i++) {
        if (argc < 2 || strcmp(argv[1], verbs[i].noun) != 0) {
            continue;
        }
        if (verbs[i].verb == NULL) {
            *used = 1;
            return &verbs[i];
        }
        if (argc > 2 && strcmp(argv[2], verbs[i].verb) == 0) {
            *used = 2;
            return &verbs[i];
        }
    }
    return NULL;
}

static int unknown_verb(int argc, char **argv)
{
    if (argc < 2) {
        return print_help(stderr);
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        return print_help(stdout);
    }
    for (size_t i = 0; i < VERBS; i++) {
        if (strcmp(verbs[i].noun, argv[1]) == 0) {
            return cli_usage("%s needs one of its verbs, such as: skep %s %s; see skep --help",
                             argv[1], verbs[i].noun, verbs[i].verb == NULL ? "" : verbs[i].verb);
        }
    }
    return cli_usage("no such verb: %.40s; see skep --help", argv[1]);
}

static int parse_args(const struct verb *verb, poptContext context, struct cli *cli)
{
    int parsed = poptGetNextOpt(context);
    if (parsed < -1) {
        return cli_usage("%s: %s; see skep %s%s%s --help", poptBadOption(context, 0),
                         poptStrerror(parsed), verb->noun, verb->verb == NULL ? "" : " ",
                         verb->verb == NULL ? "" : verb->verb);
    }
    cli->args = (char **)(uintptr_t)poptGetArgs(context);
    for (cli->argc = 0; cli->args != NULL && cli->args[cli->argc] != NULL; cli->argc++) {
    }
    if (cli->argc < verb->args_min || cli->argc > verb->args_max) {
        return cli_usage("usage: skep %s%s%s %s; see --help", verb->noun,
                         verb->verb == NULL ? "" : " ", verb->verb == NULL ? "" : verb->verb,
                         verb->args);
    }
    const char *output = cli->options.output;
    if (output != NULL && strcmp(output, "json") != 0 && strcmp(output, "table") != 0) {
        return cli_usage("-o %.40s: not table or json", output);
    }
    cli->json = output != NULL && strcmp(output, "json") == 0;
    return CLI_DONE;
}

static void options_free(struct options *o)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (option_rows[i].kind == 's') {
            free(*(char **)(void *)((char *)o + option_rows[i].offset));
        }
    }
}

int main(int argc, char **argv)
{
    /* nng's threads may still be freeing connections when main returns: OpenSSL stays usable. */
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    /* What went wrong is told once, as this program's own message. */
    log_open("skep", LOG_LEVEL_ERROR, LOG_FORMAT_KV, STDERR_FILENO);
    int used = 0;
    const struct verb *verb = find_verb(argc, argv, &used);
    if (verb == NULL) {
        return unknown_verb(argc, argv);
    }
    struct cli cli = {.argc = 0};
    struct poptOption options[OPTIONS_MAX];
    options_table(verb, &cli.options, options);
    char title[64], usage[96];
    (void)snprintf(title, sizeof title, "skep %s%s%s", verb->noun, verb->verb == NULL ? "" : " ",
                   verb->verb == NULL ? "" : verb->verb);
    argv[used] = title;
    poptContext context =
        poptGetContext(title, argc - used, (const char **)(uintptr_t)(argv + used), options, 0);
    (void)snprintf(usage, sizeof usage, "[OPTION...] %s\n\n%s", verb->args, verb->help);
    poptSetOtherOptionHelp(context, usage);
    int code = parse_args(verb, context, &cli);
    if (code == CLI_DONE) {
        code = verb->run(&cli);
    }
    poptFreeContext(context);
    options_free(&cli.options);
    context_config_close(cli.contexts);
    return code;
}
