/* Dead letters, schedules, tenants, settings, and lists of durable invocations. */
#include "cli/durable.h"

#include <string.h>

static const char *first_arg(const struct cli *cli)
{
    return cli->argc > 0 ? cli->args[0] : "";
}

int verb_invocation_list(struct cli *cli)
{
    static const char *const columns[] = {"invocation", "function", "tenant",     "state",
                                          "attempts",   "priority", "created_ms", NULL};
    return cli_query(cli, "invocations", first_arg(cli), columns);
}

int verb_invocation_show(struct cli *cli)
{
    return cli_query(cli, "invocation", first_arg(cli), NULL);
}

/* ---- Dead letters ---- */

int verb_dead_list(struct cli *cli)
{
    static const char *const columns[] = {"invocation", "function", "tenant",  "attempts",
                                          "ended_ms",   "code",     "message", NULL};
    return cli_query(cli, "dead", first_arg(cli), columns);
}

/* One by its id, those on standard input, or all of a function. */
static int dead_act(struct cli *cli, const char *action, const char *done)
{
    const char *function = cli->options.function;
    if ((function != NULL) == (cli->argc > 0)) {
        return cli_usage("name one dead letter by its id, - for ids on standard input, or "
                         "--function NAME for all of a function");
    }
    if (function == NULL) {
        return invocations_act(cli, action, done);
    }
    struct pair arg = {.key = "function", .value = cli->options.function};
    return cli_admin(cli, action, "", &arg, 1, done);
}

int verb_dead_redrive(struct cli *cli)
{
    return dead_act(cli, "dead.redrive", "queued again");
}

int verb_dead_purge(struct cli *cli)
{
    bool all = cli->options.function != NULL;
    if (!all && strcmp(first_arg(cli), "-") == 0 && cli->options.yes == 0) {
        return cli_usage("ids from standard input are not asked about: give --yes");
    }
    if (!cli_confirm(cli, "Purge %s%.80s? Its input is lost",
                     all ? "all dead letters of function " : "dead letter ",
                     all ? cli->options.function : first_arg(cli))) {
        return CLI_USAGE;
    }
    return dead_act(cli, "dead.purge", "purged");
}

/* ---- Schedules, tenants, settings ---- */

int verb_schedule_list(struct cli *cli)
{
    static const char *const columns[] = {"function", "schedule", "cron", "last_ms",
                                          "next_ms",  "catch_up", NULL};
    return cli_query(cli, "schedules", first_arg(cli), columns);
}

int verb_tenant_list(struct cli *cli)
{
    static const char *const columns[] = {"tenant",     "queued",     "running", "running_max",
                                          "queued_max", "rate_milli", "weight",  NULL};
    return cli_query(cli, "tenants", "", columns);
}

int verb_setting_list(struct cli *cli)
{
    static const char *const columns[] = {"key", "value", NULL};
    return cli_query(cli, "settings", "", columns);
}

int verb_setting_set(struct cli *cli)
{
    struct pair value = {.key = "value", .value = cli->args[1]};
    return cli_admin(cli, "setting.set", cli->args[0], &value, 1, "set");
}
