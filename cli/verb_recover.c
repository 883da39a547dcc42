/* skep cluster recover: runs `skep-scheduler recover` on this machine, or says how a cluster that
 * has lost its majority is brought back. No scheduler is asked: there is no leader who could
 * answer. */
#include "cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int print_steps(void)
{
    (void)fputs("A cluster whose majority is lost for good comes back out of one survivor:\n"
                "  1. Stop all its schedulers that still run (systemctl stop skep-scheduler).\n"
                "  2. On each survivor look what its disk holds; nothing is changed yet:\n"
                "       skep cluster recover --config /etc/skep/scheduler.yaml\n"
                "     Take the one with the highest term, then the highest entry.\n"
                "  3. On that one alone:\n"
                "       skep cluster recover --config /etc/skep/scheduler.yaml --yes\n"
                "     and start it. It is the only member now and leads.\n"
                "  4. On every other one, survivor or new disk, before it starts again:\n"
                "       skep-scheduler wipe --config /etc/skep/scheduler.yaml --yes\n"
                "     Start it, and add it with: skep cluster add NAME --address HOST:PORT\n"
                "What only the lost disks had is gone. Run this on the schedulers' machines.\n",
                stdout);
    return CLI_DONE;
}

/* The program beside this one. */
static struct status scheduler_path(char *out, size_t size, struct errmsg *msg)
{
    char own[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    if (length < 0) {
        return status_fail(msg, STATUS_IO, "/proc/self/exe: %s", strerror(errno));
    }
    own[length] = '\0';
    char *slash = strrchr(own, '/');
    if (slash != NULL) {
        *slash = '\0';
    }
    int written = snprintf(out, size, "%s/skep-scheduler", own);
    return written > 0 && (size_t)written < size
               ? status_ok()
               : status_fail(msg, STATUS_LIMIT, "the path of this program is too long");
}

int verb_cluster_recover(struct cli *cli)
{
    if (cli->options.config == NULL) {
        return cli->options.yes == 0 ? print_steps()
                                     : cli_usage("--yes needs --config FILE, the scheduler's");
    }
    char path[PATH_MAX];
    struct errmsg msg = {.text = ""};
    struct status s = scheduler_path(path, sizeof path, &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    char recover[] = "recover", option[] = "--config", yes[] = "--yes";
    char *args[] = {path, recover, option, cli->options.config, cli->options.yes == 0 ? NULL : yes,
                    NULL};
    (void)execv(path, args);
    (void)status_fail(&msg, STATUS_IO, "%s: %s", path, strerror(errno));
    return cli_fail(status_of(STATUS_IO), msg.text);
}
