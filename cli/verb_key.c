/* Keys of encryption at rest: a new cluster key in a file, and the cluster's data keys. */
#include "cli/cli.h"

#include "common/seal/wrap.h"

int verb_key_create(struct cli *cli)
{
    struct errmsg msg = {.text = ""};
    struct status s = cluster_key_create(cli->args[0], &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    (void)printf(
        "made %s; give it to every scheduler (seal.cluster_key) and keep a copy apart from "
        "the backups: without it nothing that was sealed can be read\n",
        cli->args[0]);
    return CLI_DONE;
}

int verb_key_list(struct cli *cli)
{
    static const char *const columns[] = {
        "key", "seals", "wrapped_by", "cluster_key_current", "created_ms", "index", NULL};
    return cli_query(cli, "keys", "", columns);
}

int verb_key_rotate(struct cli *cli)
{
    return cli_admin(cli, "key.rotate", "", NULL, 0, "rotated");
}

int verb_key_rewrap(struct cli *cli)
{
    if (!cli_confirm(cli, "Wrap all data keys by the leader's current cluster key? Every scheduler "
                          "must have it.")) {
        return CLI_USAGE;
    }
    return cli_admin(cli, "key.rewrap", "", NULL, 0, "rewrapped");
}
