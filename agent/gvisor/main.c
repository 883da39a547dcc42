/* skep-gvisor: runs one instance under runsc, by the same contract as skep-cell (cell.h).
 *
 *     skep-gvisor FOLDER [FD]           from the specification in FOLDER to its exit report
 *     skep-gvisor probe FOLDER RUNSC PLATFORM RUNNERS [ROOT]
 *                                       "ok PLATFORM" or "no REASON" on standard output
 *
 * Single-threaded from start to end. */
#include "agent/cell/agent_port.h"
#include "agent/cell/home.h"
#include "agent/gvisor/bundle.h"
#include "agent/gvisor/probe.h"
#include "agent/gvisor/watch.h"
#include "common/cleanup.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROBE_ARGS_MIN = 6, PROBE_ARGS_MAX = 7, PROBE_NICE = 10 };

struct instance {
    uint64_t born_us;
    struct cell_spec spec;
    struct agent_port port;
    struct logring log;
    struct cgroup cgroup;
    struct cell_event event;
    bool port_open;
};

/* Both ends of the runner channel: *runner_fd is the sandbox's, the port takes the agent's. */
static struct status channel_open(struct instance *i, int agent_fd, int *runner_fd,
                                  struct errmsg *msg)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
        return status_fail(msg, status_from_errno(errno), "socketpair: %s", strerror(errno));
    }
    struct status s = agent_port_open(&i->port, agent_fd, pair[0], msg);
    if (!status_is_ok(s)) {
        (void)close(pair[1]);
        return s;
    }
    i->port_open = true;
    *runner_fd = pair[1];
    return status_ok();
}

static struct status instance_run(struct instance *i, int folder_fd, int agent_fd,
                                  struct errmsg *msg)
{
    AUTO_CLOSE int runner_fd = -1;
    AUTO_CLOSE int signal_fd = -1;
    TRY(channel_open(i, agent_fd, &runner_fd, msg));
    TRY(home_read_spec(&i->spec, msg));
    TRY(home_signals(&signal_fd, msg));
    uint64_t log_bytes = i->spec.log_bytes != 0 ? i->spec.log_bytes : CELL_LOG_BYTES_DEFAULT;
    TRY(status_prefix(msg, logring_create(&i->log, folder_fd, "log", log_bytes, msg), "step log"));
    TRY(bundle_write(&i->spec, msg));
    struct watch w = {
        .spec = &i->spec,
        .port = &i->port,
        .cgroup = &i->cgroup,
        .oom_fd = -1,
        .signal_fd = signal_fd,
        .born_us = i->born_us,
    };
    TRY(sandbox_start(&i->spec, runner_fd, &i->cgroup, &w.sandbox, msg));
    /* The agent must see the end of the channel when the sandbox ends. */
    (void)close(fd_steal(&runner_fd));
    logpump_init(&w.log, &i->log, w.sandbox.log_fd, watch_clock_us());
    struct status watched = cgroup_watch_oom(&i->cgroup, &w.oom_fd, &w.oom_events, msg);
    if (!status_is_ok(watched)) {
        (void)kill(w.sandbox.pid, SIGKILL); /* Not yet reaped: the number is its own. */
    }
    watch_run(&w);
    i->event = w.event;
    return watched;
}

static void setup_failed(struct instance *i, struct status s, const struct errmsg *msg)
{
    i->event.end = CELL_END_SETUP;
    i->event.detail = 0;
    (void)snprintf(i->event.message, sizeof i->event.message, "%.255s",
                   msg->text[0] != '\0' ? msg->text : status_text(s.code));
}

/* The group goes first, then the report is put in place, then the agent is told. */
static void instance_end(struct instance *i)
{
    struct errmsg msg = {""};
    struct buffer json = {0};
    i->event.kind = CELL_EVENT_EXITED;
    if (!cgroup_close(&i->cgroup)) {
        (void)fprintf(stderr, "skep-gvisor: the control group could not be removed\n");
    }
    struct status s = cell_exit_encode(&i->event, &json);
    if (status_is_ok(s)) {
        s = home_put("exit.json", bytes_of(json.data, json.size), &msg);
    }
    if (!status_is_ok(s)) {
        (void)fprintf(stderr, "skep-gvisor: exit report: %s\n", msg.text);
    }
    if (i->port_open) {
        agent_port_accept(&i->port); /* Who connected in the last instant hears of the end too. */
        agent_port_tell(&i->port, &i->event);
        agent_port_close(&i->port);
    }
    buffer_close(&json);
    logring_close(&i->log);
    cell_spec_close(&i->spec);
}

static int main_run(const char *folder, const char *agent_fd_text)
{
    static struct instance instance;
    instance.born_us = watch_clock_us();
    int agent_fd = home_descriptors(agent_fd_text);
    if (agent_fd < -1) {
        (void)fprintf(stderr, "skep-gvisor: %s: not a SOCK_SEQPACKET descriptor\n", agent_fd_text);
        return HOME_EXIT_USAGE;
    }
    struct errmsg msg = {""};
    AUTO_CLOSE int folder_fd = -1;
    struct status s = home_enter(folder, &folder_fd, &msg);
    if (status_is_ok(s)) {
        s = home_put_pid(&msg);
    }
    if (!status_is_ok(s)) {
        (void)fprintf(stderr, "skep-gvisor: %s\n", msg.text);
        return HOME_EXIT_USAGE;
    }
    s = instance_run(&instance, folder_fd, agent_fd, &msg);
    if (!status_is_ok(s)) {
        setup_failed(&instance, s, &msg);
    }
    int code = instance.event.end == CELL_END_SETUP ? HOME_EXIT_SETUP : HOME_EXIT_RAN;
    instance_end(&instance);
    return code;
}

/* What follows from the answer is the agent's matter: it is no failure of ours. */
static int main_probe(int argc, char **argv)
{
    struct errmsg msg = {""};
    const char *found = "";
    (void)home_descriptors(NULL);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setpriority(PRIO_PROCESS, 0, PROBE_NICE); /* Nobody waits for it. */
    struct status s = probe_platforms(argv[2], argv[3], argv[4], argv[5],
                                      argc == PROBE_ARGS_MAX ? argv[6] : "", &found, &msg);
    bool ok = status_is_ok(s);
    (void)printf("%s %s\n", ok ? "ok" : "no", ok ? found : msg.text);
    return HOME_EXIT_RAN;
}

int main(int argc, char **argv)
{
    (void)umask(022); /* The sandbox's user looks at the modes of what we make. */
    if (argc >= PROBE_ARGS_MIN && argc <= PROBE_ARGS_MAX && strcmp(argv[1], "probe") == 0) {
        return main_probe(argc, argv);
    }
    if (argc != 2 && argc != 3) {
        (void)fprintf(stderr, "usage: skep-gvisor FOLDER [FD]\n"
                              "       skep-gvisor probe FOLDER RUNSC PLATFORM RUNNERS [ROOT]\n");
        return HOME_EXIT_USAGE;
    }
    return main_run(argv[1], argc == 3 ? argv[2] : NULL);
}
