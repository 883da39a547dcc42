/* skep-scheduler: reads its configuration, opens the server and runs the loop until SIGTERM or
 * SIGINT. Its exit code is 0 after an orderly stop, 1 after a failure to start or a fatal error, 2
 * for wrong usage. */
#include "common/config.h"
#include "common/log.h"
#include "scheduler/api/server.h"
#include "scheduler/join.h"
#include "scheduler/recover.h"

#include <openssl/crypto.h>
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
    static uv_loop_t loop; /* Threads of what could not start may wake it until the very end. */
    struct daemon d = {.server = NULL};
    struct errmsg msg = {.text = ""};
    if (uv_loop_init(&loop) != 0) {
        LOG_ERROR("cannot start", LOG_STR("why", "no event loop"));
        return EXIT_FAILURE;
    }
    const struct server_events events = {
        .data = &d, .on_stopped = on_stopped, .on_fatal = on_fatal};
    struct status opened = server_open(&d.server, &loop, config, &events, &msg);
    if (!status_is_ok(opened)) {
        LOG_ERROR("cannot start", LOG_STR("code", status_name(opened.code)),
                  LOG_STR("why", msg.text));
        return EXIT_FAILURE;
    }
    static const int numbers[SIGNALS] = {SIGTERM, SIGINT};
    for (int i = 0; i < SIGNALS; i++) {
        d.signals[i].data = &d;
        if (uv_signal_init(&loop, &d.signals[i]) != 0 ||
            uv_signal_start(&d.signals[i], on_signal, numbers[i]) != 0) {
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

struct options {
    char *config;
    char *token_file, *name, *address, *data, *config_out, *cluster_key;
    int version, yes;
};

static int usage(const char *what)
{
    (void)fprintf(stderr,
                  "skep-scheduler: %s\n"
                  "usage: skep-scheduler --config FILE\n"
                  "       skep-scheduler recover|wipe --config FILE [--yes]\n"
                  "       skep-scheduler join --token-file FILE --name NAME --address HOST:PORT "
                  "--data DIR --config-out FILE [--cluster-key file:PATH]\n",
                  what);
    return EXIT_USAGE;
}

static int main_join(const struct options *o)
{
    if (o->token_file == NULL || o->name == NULL || o->address == NULL || o->data == NULL ||
        o->config_out == NULL) {
        return usage("join needs --token-file, --name, --address, --data and --config-out");
    }
    const struct join_options join = {.token_file = o->token_file,
                                      .name = o->name,
                                      .address = o->address,
                                      .data = o->data,
                                      .config_out = o->config_out,
                                      .cluster_key = o->cluster_key};
    struct errmsg msg = {.text = ""};
    log_open("scheduler", LOG_LEVEL_ERROR, LOG_FORMAT_KV, STDERR_FILENO);
    if (!status_is_ok(join_scheduler(&join, &msg))) {
        (void)fprintf(stderr, "skep-scheduler: %s\n", msg.text);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

static int main_recover(const struct options *o, bool wipe)
{
    if (o->config == NULL) {
        return usage("recover and wipe need --config FILE");
    }
    struct scheduler_config *config = NULL;
    struct errmsg msg = {.text = ""};
    log_open("scheduler", LOG_LEVEL_ERROR, LOG_FORMAT_KV, STDERR_FILENO);
    struct status s = scheduler_config_load(o->config, &config, &msg);
    if (status_is_ok(s)) {
        s = wipe ? wipe_scheduler(config, o->yes != 0, &msg)
                 : recover_scheduler(config, o->yes != 0, &msg);
        scheduler_config_close(config);
    }
    if (!status_is_ok(s)) {
        (void)fprintf(stderr, "skep-scheduler: %s\n", msg.text);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

static int main_run(const struct options *o)
{
    if (o->config == NULL) {
        return usage("--config FILE is required");
    }
    /* Keys are in memory: no core dumps, no ptrace by others of the same user. */
    (void)prctl(PR_SET_DUMPABLE, 0);
    (void)signal(SIGPIPE, SIG_IGN);
    struct scheduler_config *config = NULL;
    struct errmsg msg = {.text = ""};
    if (!status_is_ok(scheduler_config_load(o->config, &config, &msg))) {
        (void)fprintf(stderr, "skep-scheduler: %s\n", msg.text);
        return EXIT_FAILURE;
    }
    log_open("scheduler", config->log.level, config->log.format, STDERR_FILENO);
    int code = run(config);
    scheduler_config_close(config);
    return code;
}

static int dispatch(poptContext context, const struct options *o)
{
    if (o->version != 0) {
        (void)puts("skep-scheduler " SKEP_VERSION);
        return EXIT_SUCCESS;
    }
    const char *verb = poptGetArg(context);
    if (poptPeekArg(context) != NULL) {
        return usage("too many arguments");
    }
    if (verb == NULL) {
        return main_run(o);
    }
    bool wipe = strcmp(verb, "wipe") == 0;
    if (wipe || strcmp(verb, "recover") == 0) {
        return main_recover(o, wipe);
    }
    return strcmp(verb, "join") == 0 ? main_join(o) : usage("unknown verb");
}

int main(int argc, const char **argv)
{
    /* nng's threads may still be freeing connections when main returns: OpenSSL stays usable. */
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
    struct options o = {.config = NULL};
    const struct poptOption table[] = {
        {"config", 'c', POPT_ARG_STRING, &o.config, 0, "configuration of the scheduler", "FILE"},
        {"token-file", 0, POPT_ARG_STRING, &o.token_file, 0,
         "join: the token; - reads it from standard input", "FILE"},
        {"name", 0, POPT_ARG_STRING, &o.name, 0, "join: the scheduler's name", "NAME"},
        {"address", 0, POPT_ARG_STRING, &o.address, 0, "join: where it listens and is reached",
         "HOST:PORT"},
        {"data", 0, POPT_ARG_STRING, &o.data, 0, "join: the data folder", "DIR"},
        {"cluster-key", 0, POPT_ARG_STRING, &o.cluster_key, 0,
         "join: file:PATH, credential:NAME or pkcs11:URI of a sealed cluster's key", "KEY"},
        {"config-out", 0, POPT_ARG_STRING, &o.config_out, 0,
         "join: where the configuration is written", "FILE"},
        {"yes", 'y', POPT_ARG_NONE, &o.yes, 0, "recover, wipe: do it, do not only look", NULL},
        {"version", 'V', POPT_ARG_NONE, &o.version, 0, "print the version", NULL},
        POPT_AUTOHELP POPT_TABLEEND};
    poptContext context = poptGetContext("skep-scheduler", argc, argv, table, 0);
    int parsed = poptGetNextOpt(context);
    int code = parsed < -1 ? usage(poptStrerror(parsed)) : dispatch(context, &o);
    (void)poptFreeContext(context);
    char *const texts[] = {o.config, o.token_file, o.name,       o.address,
                           o.data,   o.config_out, o.cluster_key};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        free(texts[i]);
    }
    return code;
}
