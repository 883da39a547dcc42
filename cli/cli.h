/* What the files of the command line share: options, verbs, output, exit codes.
 *
 * Thread: one. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "cli/client.h"
#include "common/config.h"
#include "proto/message.h"

#include <stdio.h>

enum exit_code {
    CLI_DONE = 0,
    CLI_FAILED = 1, /* the function or the check failed */
    CLI_USAGE = 2,
    CLI_UNREACHABLE = 3,
    CLI_DENIED = 4,
    CLI_UNKNOWN = 5, /* the outcome is not known */
};

/* The values of all options of all verbs; each verb's row says which it takes. */
struct options {
    char *output, *context, *data, *file, *timeout, *cluster, *dir, *out, *role, *name, *reason,
        *address, *token_file;
    char *revision, *duration, *ca_dir, *folder, *schedulers_list, *valid, *labels;
    char *key, *delay, *at, *deadline, *ttl, *function;
    int yes, detach, follow, plan, schedulers, agents, concurrency, payload, tail, port;
    char *ca, *cluster_key, *walls_not_needed;
    int each, wait, priority, stale;
    char *config;
    long long check_index;
};

struct cli {
    struct options options;
    int argc;
    char **args; /* behind the verb */
    bool json;
    struct context_config *contexts;
};

typedef int (*verb_run)(struct cli *cli);

/* Prints "skep: message" and answers the exit code that fits. */
int cli_fail(struct status s, const char *message);
int cli_usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
enum exit_code cli_exit_code(enum status_code code);

/* The contexts' file: $SKEP_CONTEXTS, else $XDG_CONFIG_HOME/skep/contexts.yaml, else
 * ~/.config/skep/contexts.yaml. */
NODISCARD struct status contexts_path(char *out, size_t out_size, struct errmsg *msg);
/* Reads it; a file that is not there gives an empty list. */
NODISCARD struct status contexts_load(struct context_config **out, struct errmsg *msg);
NODISCARD struct status contexts_save(const struct context_config *c, struct errmsg *msg);

/* Opens a client for the chosen context. On failure *code is the exit code and the message was
 * printed. */
struct client *cli_connect(struct cli *cli, int *code);
/* Asks and checks the answer's own code too; a failure is printed and *code set. True on
 * success. */
bool cli_ask(struct cli *cli, struct client *c, const struct message *m, uint32_t timeout_ms,
             struct arena *a, struct message *answer, int *code);

/* Asks a question and prints its records. columns: the keys a table shows, NULL-terminated (NULL:
 * all, as key and value lines). */
int cli_query(struct cli *cli, const char *what, const char *name, const char *const *columns);
/* Asks it over a connection that is there; the answer's records are borrowed from the arena. False
 * when that failed, which was printed then, with *code set. */
bool cli_records(struct cli *cli, struct client *c, const char *what, const char *name,
                 struct arena *a, struct records *out, int *code);
/* Sends an administrative action and prints what it answers. */
int cli_admin(struct cli *cli, const char *action, const char *name, struct pair *args,
              size_t count, const char *done);
/* Asks "WHAT? [y/N]" on a terminal; without one, --yes is required. */
bool cli_confirm(struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* output.c */
int output_records(FILE *to, bool json, const struct records *r, const char *const *columns);
/* One record and what it consists of: lines and, below them, a table; in JSON the parts are a list
 * in the record, under the key. */
int output_whole(FILE *to, bool json, const struct records *whole, const char *key,
                 const struct records *parts, const char *const *columns);
/* "" without the key. */
const char *record_value(const struct record *r, const char *key);
/* Writes a text of a function or a peer with each control character that could rule a terminal as
 * '?'. */
void output_safe(FILE *to, struct bytes text);
/* Reads a whole file, or standard input for "-", up to max bytes. */
NODISCARD struct status input_read(const char *path, size_t max, struct buffer *out,
                                   struct errmsg *msg);
/* The payload that --data, --file or - give, at most one of them. */
NODISCARD struct status payload_read(const struct cli *cli, struct buffer *out, struct errmsg *msg);
/* text NULL: otherwise. */
NODISCARD struct status duration_of(const char *what, const char *text, uint64_t otherwise_ms,
                                    uint64_t *ms, struct errmsg *msg);
/* --timeout of a call or an attempt: at most 24 h. text NULL: 0. */
NODISCARD struct status timeout_of(const char *text, uint32_t *ms, struct errmsg *msg);

/* Verbs, by file. */
int verb_call(struct cli *cli);
int verb_spawn(struct cli *cli);
int verb_cluster_promote(struct cli *cli);
int verb_cluster_recover(struct cli *cli);
int verb_result(struct cli *cli);
int verb_cancel(struct cli *cli);
int verb_invocation_list(struct cli *cli);
int verb_invocation_show(struct cli *cli);
int verb_dead_list(struct cli *cli);
int verb_dead_redrive(struct cli *cli);
int verb_dead_purge(struct cli *cli);
int verb_schedule_list(struct cli *cli);
int verb_tenant_list(struct cli *cli);
int verb_setting_list(struct cli *cli);
int verb_setting_set(struct cli *cli);
int verb_deploy(struct cli *cli);
int verb_image_import(struct cli *cli);
int verb_image_list(struct cli *cli);
int verb_image_show(struct cli *cli);
int verb_image_delete(struct cli *cli);
int verb_image_gc(struct cli *cli);
int verb_function_list(struct cli *cli);
int verb_function_show(struct cli *cli);
int verb_function_history(struct cli *cli);
int verb_function_rollback(struct cli *cli);
int verb_function_delete(struct cli *cli);
int verb_logs(struct cli *cli);
int verb_why(struct cli *cli);
int verb_ps(struct cli *cli);
int verb_metrics(struct cli *cli);
int verb_node_list(struct cli *cli);
int verb_node_show(struct cli *cli);
int verb_node_cordon(struct cli *cli);
int verb_node_uncordon(struct cli *cli);
int verb_node_drain(struct cli *cli);
int verb_node_remove(struct cli *cli);
int verb_isolation_status(struct cli *cli);
int verb_isolation_run(struct cli *cli);
int verb_cluster_status(struct cli *cli);
int verb_cluster_add(struct cli *cli);
int verb_cluster_remove(struct cli *cli);
int verb_cluster_transfer(struct cli *cli);
int verb_ca_init(struct cli *cli);
int verb_ca_issue(struct cli *cli);
int verb_ca_token(struct cli *cli);
int verb_ca_revoke(struct cli *cli);
int verb_ca_list(struct cli *cli);
int verb_ca_renew(struct cli *cli);
int verb_join(struct cli *cli);
int verb_key_create(struct cli *cli);
int verb_key_list(struct cli *cli);
int verb_key_rotate(struct cli *cli);
int verb_key_rewrap(struct cli *cli);
int verb_context_list(struct cli *cli);
int verb_context_use(struct cli *cli);
int verb_context_remove(struct cli *cli);
int verb_bench_call(struct cli *cli);
int verb_dev(struct cli *cli);
int verb_dev_status(struct cli *cli);
int verb_dev_stop(struct cli *cli);
int verb_backup_create(struct cli *cli);
int verb_backup_verify(struct cli *cli);
int verb_backup_restore(struct cli *cli);
int verb_backup_list(struct cli *cli);
int verb_version(struct cli *cli);

#endif
