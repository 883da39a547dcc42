/* skep-agent: one on each node.
 *
 *     skep-agent --config FILE                 runs; SIGTERM and SIGINT end it, its instances go on
 *     skep-agent join --token-file F --name NAME --data DIR --config-out FILE
 *     skep-agent stop-instances --data DIR     ends what a stopped agent left running
 *     skep-agent walls [--config FILE]         shows which walls of cells this machine can build
 *
 * Exit codes: 0 done, 1 failed, 2 usage. */
#include "agent/agent.h"
#include "agent/bait.h"
#include "agent/image/image_file.h"
#include "agent/instances.h"
#include "agent/walls_check.h"
#include "common/check.h"
#include "common/cleanup.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/net/join.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <popt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    EXIT_DONE = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    PATH_BYTES_MAX = 4096,
    LOCK_WAIT_MS = 10 * 1000
};

struct options {
    char *config;
    char *cell;
    char *runners;
    char *token_file;
    char *name;
    char *data;
    char *config_out;
    int version;
};

static int fail(const struct errmsg *msg)
{
    (void)fprintf(stderr, "skep-agent: %s\n", msg->text);
    return EXIT_FAILED;
}

static int usage(const char *what)
{
    (void)fprintf(
        stderr,
        "skep-agent: %s\n"
        "usage: skep-agent --config FILE [--cell FILE] [--runners DIR]\n"
        "       skep-agent join --token-file FILE --name NAME --data DIR --config-out FILE\n"
        "       skep-agent stop-instances --data DIR\n"
        "       skep-agent walls [--config FILE]\n",
        what);
    return EXIT_USAGE;
}

/* ---- Running ---- */

struct daemon {
    uv_loop_t loop;
    struct agent *agent;
    uv_signal_t terminate;
    uv_signal_t interrupt;
    bool stopping;
};

static void on_stopped(void *data)
{
    struct daemon *d = data;
    uv_close((uv_handle_t *)&d->terminate, NULL);
    uv_close((uv_handle_t *)&d->interrupt, NULL);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *d = handle->data;
    if (d->stopping) {
        return;
    }
    d->stopping = true;
    LOG_INFO("stopping; instances go on", LOG_INT("signal", number));
    agent_stop(d->agent, on_stopped, d);
}

static void signals_open(struct daemon *d)
{
    CHECK(uv_signal_init(&d->loop, &d->terminate) == 0);
    CHECK(uv_signal_init(&d->loop, &d->interrupt) == 0);
    d->terminate.data = d;
    d->interrupt.data = d;
    CHECK(uv_signal_start(&d->terminate, on_signal, SIGTERM) == 0);
    CHECK(uv_signal_start(&d->interrupt, on_signal, SIGINT) == 0);
}

/* The folder of our own executable. */
static struct status own_folder(char out[PATH_BYTES_MAX], struct errmsg *msg)
{
    ssize_t n = readlink("/proc/self/exe", out, PATH_BYTES_MAX - 1);
    if (n <= 0) {
        return status_fail(msg, STATUS_IO, "read /proc/self/exe: %s", strerror(errno));
    }
    out[n] = '\0';
    *strrchr(out, '/') = '\0';
    return status_ok();
}

/* The first of the places, relative to our folder, that is there. */
static struct status find_beside(const char *given, const char *const *places, size_t count,
                                 char out[PATH_BYTES_MAX], struct errmsg *msg)
{
    char folder[PATH_BYTES_MAX];
    TRY(own_folder(folder, msg));
    for (size_t i = 0; i < count; i++) {
        char path[PATH_BYTES_MAX + 64];
        (void)snprintf(path, sizeof path, "%s/%s", folder, places[i]);
        if (realpath(given != NULL ? given : path, out) != NULL) {
            return status_ok();
        }
    }
    return status_fail(msg, STATUS_NOT_FOUND, "%s: not found", given != NULL ? given : places[0]);
}

/* "": there is none. One that the configuration names must be there. */
static struct status canary_find(const struct agent_config *config, char out[PATH_BYTES_MAX],
                                 struct errmsg *msg)
{
    static const char *const places[] = {"../lib/skep/canary/skep-canary", "../canary/skep-canary"};
    struct status s = find_beside(config->cells_canary, places, 2, out, msg);
    if (!status_is_ok(s) && config->cells_canary == NULL) {
        out[0] = '\0';
        return status_ok();
    }
    return s;
}

static struct status paths_find(const struct options *o, char cell[PATH_BYTES_MAX],
                                char gvisor[PATH_BYTES_MAX], char runners[PATH_BYTES_MAX],
                                struct errmsg *msg)
{
    static const char *const gvisors[] = {"skep-gvisor", "../libexec/skep/skep-gvisor"};
    static const char *const cells[] = {"skep-cell", "../libexec/skep/skep-cell"};
    static const char *const folders[] = {"../lib/skep/runners", "../runners"};
    TRY(find_beside(o->cell, cells, 2, cell, msg));
    if (!status_is_ok(find_beside(NULL, gvisors, 2, gvisor, NULL))) {
        gvisor[0] = '\0'; /* A node without it. */
    }
    return find_beside(o->runners, folders, 2, runners, msg);
}

/* Each instance takes several descriptors. */
static void files_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* What must be known of the machine before anything else runs, and before there are threads. */
static struct status machine_check(const struct agent_config *config, struct errmsg *msg)
{
    static const struct user_files files = {"/etc/passwd", "/etc/group", "/etc/subuid",
                                            "/etc/subgid"};
    if (geteuid() == 0) {
        TRY(cell_users_check(config->cells_uid_first, config->cells_uid_count, &files, msg));
    }
    return cell_walls_check(config, msg);
}

static int run_daemon(const struct options *o, const struct agent_config *config)
{
    struct errmsg msg = {{0}};
    char cell[PATH_BYTES_MAX];
    char gvisor[PATH_BYTES_MAX];
    char runners[PATH_BYTES_MAX];
    char canary[PATH_BYTES_MAX];
    if (!status_is_ok(paths_find(o, cell, gvisor, runners, &msg)) ||
        !status_is_ok(canary_find(config, canary, &msg))) {
        return fail(&msg);
    }
    log_open("skep-agent", config->log.level, config->log.format, STDERR_FILENO);
    files_raise();
    (void)signal(SIGPIPE, SIG_IGN);
    if (!status_is_ok(machine_check(config, &msg))) {
        return fail(&msg);
    }
    const struct agent_paths paths = {.cell = cell,
                                      .gvisor = gvisor[0] != '\0' ? gvisor : NULL,
                                      .runners = runners,
                                      .canary = canary[0] != '\0' ? canary : NULL};
    struct daemon d = {0};
    int rc = uv_loop_init(&d.loop);
    CHECK(rc == 0);
    struct status s = agent_open(&d.agent, &d.loop, config, &paths, &msg);
    if (status_is_ok(s)) {
        LOG_INFO("agent runs", LOG_STR("node", config->name.text),
                 LOG_STR("cluster", config->cluster.text), LOG_STR("build", SKEP_VERSION));
        signals_open(&d);
    }
    (void)uv_run(&d.loop, UV_RUN_DEFAULT);
    rc = uv_loop_close(&d.loop);
    CHECK(rc == 0);
    return status_is_ok(s) ? EXIT_DONE : fail(&msg);
}

static int main_run(const struct options *o)
{
    if (o->config == NULL) {
        return usage("--config is missing");
    }
    struct errmsg msg = {{0}};
    struct agent_config *config;
    if (!status_is_ok(agent_config_load(o->config, &config, &msg))) {
        return fail(&msg);
    }
    int code = run_daemon(o, config);
    agent_config_close(config);
    return code;
}

/* ---- Joining ---- */

static struct status config_write(const struct options *o, const char *data,
                                  const struct join_result *r, struct errmsg *msg)
{
    struct buffer text = {0};
    struct status s = buffer_printf(&text, "cluster: %s\nname: %s\nschedulers: [",
                                    r->identity.cluster.text, o->name);
    for (size_t i = 0; status_is_ok(s) && i < r->schedulers_count; i++) {
        s = buffer_printf(&text, "%s\"%s\"", i > 0 ? ", " : "", r->schedulers[i]);
    }
    if (status_is_ok(s)) {
        s = buffer_printf(
            &text, "]\ndata: %s\nca: %s/pki/ca.pem\ncert: %s/pki/cert.pem\nkey: %s/pki/key.pem\n",
            data, data, data, data);
    }
    if (status_is_ok(s)) {
        s = buffer_append(&text, "", 1);
    }
    if (status_is_ok(s)) {
        /* The same care as for a certificate: whole or not at all. */
        s = pki_write(o->config_out, false, (const char *)text.data, msg);
    }
    buffer_close(&text);
    return s;
}

static struct status join_and_write(const struct options *o, const struct pki_token *token,
                                    struct errmsg *msg)
{
    char data[PATH_BYTES_MAX];
    if (mkdir(o->data, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "make %s: %s", o->data, strerror(errno));
    }
    if (realpath(o->data, data) == NULL) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", o->data, strerror(errno));
    }
    const struct join_request request = {
        .token = token, .role = ROLE_AGENT, .name = o->name, .address = ""};
    struct join_result result;
    TRY(join_run(&request, &result, msg));
    char folder[PATH_BYTES_MAX + 8];
    (void)snprintf(folder, sizeof folder, "%s/pki", data);
    struct status s = join_result_write(&result, folder, msg);
    if (status_is_ok(s)) {
        s = config_write(o, data, &result, msg);
    }
    if (status_is_ok(s)) {
        (void)printf("joined %s as agent %s; configuration in %s\n", result.identity.cluster.text,
                     o->name, o->config_out);
    }
    join_result_close(&result);
    return s;
}

static int main_join(const struct options *o)
{
    if (o->token_file == NULL || o->name == NULL || o->data == NULL || o->config_out == NULL) {
        return usage("join needs --token-file, --name, --data and --config-out");
    }
    struct errmsg msg = {{0}};
    struct name name;
    if (!status_is_ok(name_parse("name", o->name, strlen(o->name), &name, &msg))) {
        return fail(&msg);
    }
    log_open("skep-agent", LOG_LEVEL_WARN, LOG_FORMAT_KV, STDERR_FILENO);
    struct pki_token token;
    if (!status_is_ok(join_token_read(o->token_file, &token, &msg))) {
        return fail(&msg);
    }
    struct status s = join_and_write(o, &token, &msg);
    pki_token_close(&token);
    return status_is_ok(s) ? EXIT_DONE : fail(&msg);
}

/* ---- Ending what was left ---- */

/* An agent that was told to stop a moment ago may still be at it. */
static struct status lock_wait(const char *data, int *fd, struct errmsg *msg)
{
    char path[PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/agent.lock", data);
    *fd = open(path, O_RDWR | O_CLOEXEC);
    if (*fd < 0) {
        return errno == ENOENT ? status_ok()
                               : status_fail(msg, status_from_errno(errno), "open %s: %s", path,
                                             strerror(errno));
    }
    for (int waited_ms = 0; flock(*fd, LOCK_EX | LOCK_NB) != 0; waited_ms += 20) {
        if (waited_ms >= LOCK_WAIT_MS) {
            return status_fail(msg, STATUS_CONFLICT, "%s: its agent runs; stop that first", data);
        }
        (void)usleep(20 * 1000);
    }
    return status_ok();
}

static int main_stop_instances(const struct options *o)
{
    if (o->data == NULL) {
        return usage("stop-instances needs --data");
    }
    struct errmsg msg = {{0}};
    AUTO_CLOSE int fd = -1;
    if (!status_is_ok(lock_wait(o->data, &fd, &msg))) {
        return fail(&msg);
    }
    size_t count;
    struct status s = instances_kill_all(o->data, &count, &msg);
    char data[PATH_BYTES_MAX];
    bait_sweep(realpath(o->data, data) != NULL ? data : o->data);
    (void)printf("%zu instances ended\n", count);
    if (status_is_ok(s)) {
        s = image_files_unmount_all(o->data, &count, &msg);
    }
    return status_is_ok(s) ? EXIT_DONE : fail(&msg);
}

/* ---- Looking at the machine ---- */

static int main_walls(const struct options *o)
{
    struct errmsg msg = {{0}};
    struct agent_config *config = NULL;
    if (o->config != NULL && !status_is_ok(agent_config_load(o->config, &config, &msg))) {
        return fail(&msg);
    }
    bool all = cell_walls_print(config, stdout);
    agent_config_close(config);
    return all ? EXIT_DONE : EXIT_FAILED;
}

static const struct {
    const char *verb;
    int (*main)(const struct options *o);
} verbs[] = {
    {"run", main_run},
    {"join", main_join},
    {"stop-instances", main_stop_instances},
    {"walls", main_walls},
};

static int dispatch(poptContext context, const struct options *o)
{
    if (o->version != 0) {
        (void)printf("skep-agent %s\n", SKEP_VERSION);
        return EXIT_DONE;
    }
    const char *verb = poptGetArg(context);
    if (verb == NULL) {
        return main_run(o);
    }
    if (poptPeekArg(context) != NULL) {
        return usage("too many arguments");
    }
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(verbs[i].verb, verb) == 0) {
            return verbs[i].main(o);
        }
    }
    return usage("unknown verb");
}

static void options_close(struct options *o)
{
    char **const texts[] = {&o->config, &o->cell, &o->runners,   &o->token_file,
                            &o->name,   &o->data, &o->config_out};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        free(*texts[i]);
    }
}

int main(int argc, const char **argv)
{
    /* nng's threads may still be freeing connections when main returns: OpenSSL stays usable. */
    (void)OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
    struct options o = {0};
    const struct poptOption table[] = {
        {"config", 'c', POPT_ARG_STRING, &o.config, 0, "configuration of the agent", "FILE"},
        {"cell", 0, POPT_ARG_STRING, &o.cell, 0, "skep-cell, when it is not beside this program",
         "FILE"},
        {"runners", 0, POPT_ARG_STRING, &o.runners, 0, "folder of the runners", "DIR"},
        {"token-file", 0, POPT_ARG_STRING, &o.token_file, 0,
         "join: the token; - reads it from stdin", "FILE"},
        {"name", 0, POPT_ARG_STRING, &o.name, 0, "join: the node's name", "NAME"},
        {"data", 0, POPT_ARG_STRING, &o.data, 0, "join, stop-instances: the data folder", "DIR"},
        {"config-out", 0, POPT_ARG_STRING, &o.config_out, 0,
         "join: where the configuration is written", "FILE"},
        {"version", 0, POPT_ARG_NONE, &o.version, 0, "show the version", NULL},
        POPT_AUTOHELP POPT_TABLEEND,
    };
    poptContext context = poptGetContext("skep-agent", argc, argv, table, 0);
    int rc = poptGetNextOpt(context);
    int code = rc < -1 ? usage(poptStrerror(rc)) : dispatch(context, &o);
    (void)poptFreeContext(context);
    options_close(&o);
    return code;
}
