/* skep-scheduler: reads its configuration, opens the server and runs the loop until SIGTERM or SIGINT. Its exit code is 0 after an orderly stop, 1
 * after a failure to start or a fatal error, 2 for wrong usage. */
#include "common/config.h"
#include "common/log.h"
#include "scheduler/api/server.h"

#include <popt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <uv.h>

enum { EXIT_USAGE = 2, SIGNALS = 2 };

struct daemon {
    struct server *server;
    uv_signal_t signals[SIGNALS];
};

static void on_stopped(void *data)
{
    struct daemon *d = data;
    LOG_INFO("stopped");
    for (int i = 0; i < SIGNALS; i++) {
        uv_close((uv_handle_t *)&d->signals[i], NULL);
    }
}

/* Fail-stop: what is on disk decides when we come back; memory does not. */
static void on_fatal(void *data, const char *why)
{
    (void)data;
    LOG_ERROR("fatal", LOG_STR("why", why));
    _exit(EXIT_FAILURE);
}

static void on_signal(uv_signal_t *signal, int number)
{
    struct daemon *d = signal->data;
    LOG_INFO("stopping", LOG_INT("signal", number));
    server_stop(d->server);
}

static int run(const struct scheduler_config *config)
{
    uv_loop_t loop;
    struct daemon d = {.server = NULL};
    struct errmsg msg = {.text = ""};
    if (uv_loop_init(&loop) != 0) {
        LOG_ERROR("cannot start", LOG_STR("why", "no event loop"));
        return EXIT_FAILURE;
    }
    const struct server_events events = {.data = &d, .on_stopped = on_stopped, .on_fatal = on_fatal};
    struct status opened = server_open(&d.server, &loop, config, &events, &msg);
    if (!status_is_ok(opened)) {
        LOG_ERROR("cannot start", LOG_STR("code", status_name(opened.code)), LOG_STR("why", msg.text));
        return EXIT_FAILURE;
    }
    static const int numbers[SIGNALS] = {SIGTERM, SIGINT};
    for (int i = 0; i < SIGNALS; i++) {
        d.signals[i].data = &d;
        if (uv_signal_init(&loop, &d.signals[i]) != 0 || uv_signal_start(&d.signals[i], on_signal, numbers[i]) != 0) {
            LOG_ERROR("cannot start", LOG_STR("why", "no signal handler"));
            return EXIT_FAILURE;
        }
    }
    LOG_INFO("started", LOG_STR("id", config->id.text), LOG_STR("cluster", config->cluster.text),
             LOG_STR("advertise", config->advertise), LOG_UINT("port", server_port(d.server)),
             LOG_STR("version", SKEP_VERSION));
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&loop);
    return EXIT_SUCCESS;
}

int main(int argc, const char **argv)
{
    char *path = NULL;
    int version = 0;
    const struct poptOption options[] = {
        {"config", 'c', POPT_ARG_STRING, &path, 0, "configuration (required)", "FILE"},
        {"version", 'V', POPT_ARG_NONE, &version, 0, "print the version and exit", NULL},
        POPT_AUTOHELP POPT_TABLEEND};
    poptContext context = poptGetContext("skep-scheduler", argc, argv, options, 0);
    int parsed = poptGetNextOpt(context);
    if (parsed < -1 || poptPeekArg(context) != NULL) {
        (void)fprintf(stderr, "skep-scheduler: %s: %s\n", poptBadOption(context, 0),
                      parsed < -1 ? poptStrerror(parsed) : "unexpected argument");
        poptFreeContext(context);
        return EXIT_USAGE;
    }
    poptFreeContext(context);
    if (version != 0) {
        (void)puts("skep-scheduler " SKEP_VERSION);
        return EXIT_SUCCESS;
    }
    if (path == NULL) {
        (void)fputs("skep-scheduler: --config FILE is required\n", stderr);
        return EXIT_USAGE;
    }
    /* Keys are in memory: no core dumps, no ptrace by others of the same user. */
    (void)prctl(PR_SET_DUMPABLE, 0);
    (void)signal(SIGPIPE, SIG_IGN);
    struct scheduler_config *config = NULL;
    struct errmsg msg = {.text = ""};
    struct status loaded = scheduler_config_load(path, &config, &msg);
    free(path);
    if (!status_is_ok(loaded)) {
        (void)fprintf(stderr, "skep-scheduler: %s\n", msg.text);
        return EXIT_FAILURE;
    }
    log_open("scheduler", config->log.level, config->log.format, STDERR_FILENO);
    int code = run(config);
    scheduler_config_close(config);
    return code;
}
