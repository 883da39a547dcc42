/* skep dev: a whole cluster on this machine. Each daemon is a process of its own with its own
 * certificate and folder:
 *
 *     DATA/dev.state           one line a daemon: KIND NAME PID STARTTIME (start time as in
 *     /proc/PID/stat, against reused pids)
 *     DATA/ca, DATA/user       the authority, and the certificate of the context "dev"
 *     DATA/cluster.key         the key that the schedulers seal their disks under
 *     DATA/NAME/               config.yaml, cert.pem, key.pem, ca.crt, log, data/
 *
 * Start: certificates -> configurations -> processes -> wait until the leader sees all nodes ready
 * -> context. Stop: agents' instances, agents, schedulers, then the folder and the context; each
 * process is asked first and killed if it does not go. */
#include "cli/cli.h"

#include "common/cleanup.h"
#include "common/mem.h"
#include "common/package.h"
#include "common/pki/pki.h"
#include "common/process_stat.h"
#include "common/seal/wrap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    DEV_SCHEDULERS_MAX = CONFIG_SCHEDULERS_MAX,
    DEV_AGENTS_MAX = 64,
    DEV_DAEMONS_MAX = DEV_SCHEDULERS_MAX + DEV_AGENTS_MAX,
    READY_MS = 60000,
    STOP_MS = 10000,
    POLL_MS = 20,
    CERTIFICATE_DAYS = 30,
};

static const char context_name[] = "dev";

struct daemon {
    char kind[16]; /* scheduler or agent */
    char name[16];
    pid_t pid;
    uint64_t started; /* ticks */
    int port;
};

struct dev {
    char data[CONFIG_PATH_BYTES_MAX - 256];
    char bin[CONFIG_PATH_BYTES_MAX - 256]; /* the folder of this program and the daemons */
    struct daemon daemons[DEV_DAEMONS_MAX];
    size_t count;
    int schedulers, agents;
    wall_set walls_not_needed; /* of every agent */
};

static void wait_a_little(void)
{
    const struct timespec t = {.tv_nsec = POLL_MS * 1000000L};
    (void)nanosleep(&t, NULL);
}

static uint64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- Where things are ---- */

static struct status find_data(struct dev *d, const char *given, struct errmsg *msg)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char path[sizeof d->data];
    int used;
    if (given != NULL && given[0] == '/') {
        used = snprintf(path, sizeof path, "%s", given);
    } else if (given != NULL) {
        char *here = getcwd(NULL, 0);
        used = snprintf(path, sizeof path, "%s/%s", here == NULL ? "" : here, given);
        free(here);
    } else if (state != NULL && state[0] == '/') {
        used = snprintf(path, sizeof path, "%s/skep/dev", state);
    } else if (home != NULL && home[0] == '/') {
        used = snprintf(path, sizeof path, "%s/.local/state/skep/dev", home);
    } else {
        return status_fail(msg, STATUS_INVALID, "HOME is not set: give --data DIR");
    }
    if (used < 0 || (size_t)used >= sizeof path) {
        return status_fail(msg, STATUS_INVALID, "the path of the data folder is too long");
    }
    memcpy(d->data, path, sizeof path);
    return status_ok();
}

static struct status find_bin(struct dev *d, struct errmsg *msg)
{
    char path[sizeof d->bin];
    ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
    if (size <= 0) {
        return status_fail(msg, STATUS_IO, "/proc/self/exe: %s", strerror(errno));
    }
    path[size] = '\0';
    (void)snprintf(d->bin, sizeof d->bin, "%s", dirname(path));
    return status_ok();
}

static void path_of(const struct dev *d, const char *name, const char *file,
                    char out[CONFIG_PATH_BYTES_MAX + 1])
{
    (void)snprintf(out, CONFIG_PATH_BYTES_MAX + 1, "%s/%s%s%s", d->data, name,
                   file[0] == '\0' ? "" : "/", file);
}

static struct status make_folder(const char *path, struct errmsg *msg)
{
    char each[CONFIG_PATH_BYTES_MAX + 1];
    (void)snprintf(each, sizeof each, "%s", path);
    for (char *at = strchr(each + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(each, 0700);
        *at = '/';
    }
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    return status_ok();
}

/* ---- The state file ---- */

static struct status state_write(const struct dev *d, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 1];
    path_of(d, "dev.state", "", path);
    AUTO_FILE FILE *f = fopen(path, "we");
    if (f == NULL) {
        return status_fail(msg, status_from_errno(errno), "%s: %s", path, strerror(errno));
    }
    for (size_t i = 0; i < d->count; i++) {
        const struct daemon *k = &d->daemons[i];
        (void)fprintf(f, "%s %s %d %" PRIu64 " %d\n", k->kind, k->name, (int)k->pid, k->started,
                      k->port);
    }
    return fflush(f) == 0 ? status_ok()
                          : status_fail(msg, STATUS_IO, "%s: %s", path, strerror(errno));
}

static struct status state_read(struct dev *d, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 1];
    path_of(d, "dev.state", "", path);
    AUTO_FILE FILE *f = fopen(path, "re");
    if (f == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND,
                           "no development cluster is at %s; start one with skep dev --detach",
                           d->data);
    }
    int pid;
    for (d->count = 0; d->count < DEV_DAEMONS_MAX; d->count++) {
        struct daemon *k = &d->daemons[d->count];
        if (fscanf(f, "%15s %15s %d %" SCNu64 " %d", k->kind, k->name, &pid, &k->started,
                   &k->port) != 5) {
            break;
        }
        k->pid = pid;
    }
    return status_ok();
}

static bool alive(const struct daemon *k)
{
    uint64_t started = 0;
    return k->pid > 0 && status_is_ok(process_start_time(k->pid, &started)) &&
           started == k->started;
}

/* ---- Certificates and configurations ---- */

static struct status write_in(const struct dev *d, const char *name, const char *file, bool secret,
                              const char *text, struct errmsg *msg)
{
    char path[CONFIG_PATH_BYTES_MAX + 1];
    path_of(d, name, file, path);
    return pki_write(path, secret, text, msg);
}

static struct status issue(const struct dev *d, const char *ca, const char *ca_key, enum role role,
                           const char *name, const char *folder_name, struct errmsg *msg)
{
    struct identity id = {.role = role};
    char *csr = NULL, *key = NULL, *cert = NULL, folder[CONFIG_PATH_BYTES_MAX + 1];
    path_of(d, folder_name, "", folder);
    TRY(make_folder(folder, msg));
    TRY(name_parse("cluster", context_name, strlen(context_name), &id.cluster, msg));
    TRY(name_parse("name", name, strlen(name), &id.name, msg));
    TRY(pki_request_create(&csr, &key, msg));
    struct status s = pki_sign(ca, ca_key, csr, &id, (int64_t)time(NULL),
                               (int64_t)CERTIFICATE_DAYS * 24 * 3600, &cert, msg);
    if (status_is_ok(s)) {
        s = write_in(d, folder_name, "key.pem", true, key, msg);
    }
    if (status_is_ok(s)) {
        s = write_in(d, folder_name, "cert.pem", false, cert, msg);
    }
    if (status_is_ok(s)) {
        s = write_in(d, folder_name, "ca.crt", false, ca, msg);
    }
    mem_free(csr);
    pki_key_free(key);
    mem_free(cert);
    return s;
}

/* A port that is free now. Nothing keeps it free until the daemon takes it; a daemon that cannot
 * says so in its log. */
static struct status free_port(int *port, struct errmsg *msg)
{
    AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &size) != 0) {
        return status_fail(msg, STATUS_IO, "no free port on 127.0.0.1: %s", strerror(errno));
    }
    *port = ntohs(at.sin_port);
    return status_ok();
}

static struct status put_identity(const struct dev *d, const char *name, struct buffer *out)
{
    return buffer_printf(
        out, "data: %s/%s/data\nca: %s/%s/ca.crt\ncert: %s/%s/cert.pem\nkey: %s/%s/key.pem\n",
        d->data, name, d->data, name, d->data, name, d->data, name);
}

static struct status scheduler_write(const struct dev *d, const struct daemon *k,
                                     struct errmsg *msg)
{
    struct buffer text = {0};
    struct status s =
        buffer_printf(&text,
                      "cluster: %s\nid: %s\nlisten: 127.0.0.1:%d\nca_key: %s/ca/ca.key\n"
                      "seal: {cluster_key: \"file:%s/cluster.key\"}\n",
                      context_name, k->name, k->port, d->data, d->data);
    if (status_is_ok(s)) {
        s = put_identity(d, k->name, &text);
    }
    if (status_is_ok(s)) {
        s = buffer_printf(&text, "peers:\n");
    }
    for (int i = 0; i < d->schedulers && status_is_ok(s); i++) {
        s = buffer_printf(&text, "  - {id: %s, address: \"127.0.0.1:%d\"}\n", d->daemons[i].name,
                          d->daemons[i].port);
    }
    if (status_is_ok(s)) {
        s = buffer_append(&text, "", 1);
    }
    if (status_is_ok(s)) {
        s = write_in(d, k->name, "config.yaml", false, (const char *)text.data, msg);
    }
    buffer_close(&text);
    return s;
}

/* Walls that the machine lacks, and, as the agents share a machine, users of their own for the
 * cells of each; the first has the default's. */
static struct status put_cells(const struct dev *d, const struct daemon *k, struct buffer *out)
{
    int others = (int)(k - d->daemons) - d->schedulers;
    if (d->walls_not_needed == 0 && others == 0) {
        return status_ok();
    }
    char walls[WALLS_TEXT_BYTES];
    walls_format(d->walls_not_needed, walls);
    return buffer_printf(out, "cells: {walls_not_needed: [%s], uids: {first: %d}}\n", walls,
                         CONFIG_UID_FIRST_DEFAULT + others * CONFIG_UID_COUNT_DEFAULT);
}

static struct status agent_write(const struct dev *d, const struct daemon *k, struct errmsg *msg)
{
    struct buffer text = {0};
    struct sysinfo info;
    uint64_t memory =
        sysinfo(&info) == 0 ? (uint64_t)info.totalram * info.mem_unit : UINT64_C(1) << 30;
    /* The machine's memory is shared out, a quarter kept for everything else; processors are given
     * to every agent. */
    uint64_t share_mib = memory / 4 * 3 / (uint64_t)d->agents >> 20;
    struct status s =
        buffer_printf(&text, "cluster: %s\nname: %s\nschedulers:\n", context_name, k->name);
    for (int i = 0; i < d->schedulers && status_is_ok(s); i++) {
        s = buffer_printf(&text, "  - \"127.0.0.1:%d\"\n", d->daemons[i].port);
    }
    if (status_is_ok(s)) {
        s = put_identity(d, k->name, &text);
    }
    if (status_is_ok(s)) {
        s = buffer_printf(&text, "capacity: {cpu: %d, memory: %" PRIu64 "Mi}\nlabels: {node: %s}\n",
                          get_nprocs(), share_mib, k->name);
    }
    if (status_is_ok(s)) {
        s = put_cells(d, k, &text);
    }
    if (status_is_ok(s)) {
        s = buffer_append(&text, "", 1);
    }
    if (status_is_ok(s)) {
        s = write_in(d, k->name, "config.yaml", false, (const char *)text.data, msg);
    }
    buffer_close(&text);
    return s;
}

static struct status prepare_daemons(struct dev *d, const char *ca, const char *ca_key,
                                     struct errmsg *msg)
{
    for (int i = 0; i < d->schedulers + d->agents; i++) {
        struct daemon *k = &d->daemons[d->count++];
        bool scheduler = i < d->schedulers;
        (void)snprintf(k->kind, sizeof k->kind, "%s", scheduler ? "scheduler" : "agent");
        (void)snprintf(k->name, sizeof k->name, "%c%d", scheduler ? 's' : 'n',
                       scheduler ? i + 1 : i - d->schedulers + 1);
        TRY(issue(d, ca, ca_key, scheduler ? ROLE_SCHEDULER : ROLE_AGENT, k->name, k->name, msg));
        char folder[CONFIG_PATH_BYTES_MAX + 1];
        path_of(d, k->name, "data", folder);
        TRY(make_folder(folder, msg));
        if (scheduler) {
            TRY(free_port(&k->port, msg));
        }
    }
    for (size_t i = 0; i < d->count; i++) {
        const struct daemon *k = &d->daemons[i];
        TRY((int)i < d->schedulers ? scheduler_write(d, k, msg) : agent_write(d, k, msg));
    }
    return issue(d, ca, ca_key, ROLE_USER, "dev", "user", msg);
}

static struct status prepare(struct dev *d, struct errmsg *msg)
{
    struct name cluster;
    char *ca = NULL, *ca_key = NULL, folder[CONFIG_PATH_BYTES_MAX + 1];
    TRY(make_folder(d->data, msg));
    path_of(d, "cluster.key", "", folder);
    if (access(folder, F_OK) != 0) {
        TRY(cluster_key_create(folder, msg));
    }
    path_of(d, "ca", "", folder);
    TRY(make_folder(folder, msg));
    TRY(name_parse("cluster", context_name, strlen(context_name), &cluster, msg));
    TRY(pki_ca_create(&cluster, (int64_t)time(NULL), INT64_C(3650) * 24 * 3600, &ca, &ca_key, msg));
    struct status s = write_in(d, "ca", "ca.key", true, ca_key, msg);
    if (status_is_ok(s)) {
        s = write_in(d, "ca", "ca.crt", false, ca, msg);
    }
    if (status_is_ok(s)) {
        s = prepare_daemons(d, ca, ca_key, msg);
    }
    mem_free(ca);
    pki_key_free(ca_key);
    return s;
}

/* ---- Processes ---- */

static struct status spawn(char *const *argv, const char *log, pid_t *pid, struct errmsg *msg)
{
    extern char **environ;
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    (void)sigemptyset(&none);
    (void)posix_spawn_file_actions_init(&files);
    (void)posix_spawnattr_init(&attributes);
    int error = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    error = error != 0 ? error
                       : posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log,
                                                          O_WRONLY | O_CREAT | O_APPEND, 0600);
    error =
        error != 0 ? error : posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
    error = error != 0 ? error
                       : posix_spawnattr_setflags(&attributes,
                                                  POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
    error = error != 0 ? error : posix_spawnattr_setsigmask(&attributes, &none);
    error = error != 0 ? error : posix_spawn(pid, argv[0], &files, &attributes, argv, environ);
    (void)posix_spawn_file_actions_destroy(&files);
    (void)posix_spawnattr_destroy(&attributes);
    return error == 0
               ? status_ok()
               : status_fail(msg, status_from_errno(error), "%s: %s", argv[0], strerror(error));
}

static struct status daemon_start(const struct dev *d, struct daemon *k, struct errmsg *msg)
{
    char program[CONFIG_PATH_BYTES_MAX + 1], config[CONFIG_PATH_BYTES_MAX + 1],
        log[CONFIG_PATH_BYTES_MAX + 1];
    (void)snprintf(program, sizeof program, "%s/skep-%s", d->bin, k->kind);
    path_of(d, k->name, "config.yaml", config);
    path_of(d, k->name, "log", log);
    char option[] = "--config";
    char *argv[] = {program, option, config, NULL};
    TRY(spawn(argv, log, &k->pid, msg));
    return process_start_time(k->pid, &k->started);
}

/* The last line of a log, to say why a daemon ended. */
static void last_line(const struct dev *d, const char *name, char *out, size_t out_size)
{
    char path[CONFIG_PATH_BYTES_MAX + 1], line[1024];
    path_of(d, name, "log", path);
    AUTO_FILE FILE *f = fopen(path, "re");
    out[0] = '\0';
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        (void)snprintf(out, out_size, "%s", line);
    }
    out[strcspn(out, "\n")] = '\0';
}

static struct status check_alive(const struct dev *d, struct errmsg *msg)
{
    for (size_t i = 0; i < d->count; i++) {
        (void)waitpid(d->daemons[i].pid, NULL, WNOHANG);
        if (!alive(&d->daemons[i])) {
            char line[320];
            last_line(d, d->daemons[i].name, line, sizeof line);
            return status_fail(msg, STATUS_FAILED, "%s %s ended: %s", d->daemons[i].kind,
                               d->daemons[i].name, line);
        }
    }
    return status_ok();
}

/* ---- Context and readiness ---- */

static struct status context_write(const struct dev *d, struct cli *cli, struct errmsg *msg)
{
    char addresses[DEV_SCHEDULERS_MAX][32], *schedulers[DEV_SCHEDULERS_MAX];
    char files[3][CONFIG_PATH_BYTES_MAX + 1];
    struct context k = {.name = (char *)(uintptr_t)context_name, .schedulers = schedulers};
    for (size_t i = 0; i < d->count; i++) {
        if (strcmp(d->daemons[i].kind, "scheduler") == 0) {
            (void)snprintf(addresses[k.schedulers_count], sizeof addresses[0], "127.0.0.1:%d",
                           d->daemons[i].port);
            schedulers[k.schedulers_count] = addresses[k.schedulers_count];
            k.schedulers_count++;
        }
    }
    path_of(d, "user", "ca.crt", files[0]);
    path_of(d, "user", "cert.pem", files[1]);
    path_of(d, "user", "key.pem", files[2]);
    k.ca = files[0];
    k.cert = files[1];
    k.key = files[2];
    if (cli->contexts == NULL) {
        TRY(contexts_load(&cli->contexts, msg));
    }
    TRY(context_put(cli->contexts, &k, true, msg));
    return contexts_save(cli->contexts, msg);
}

static size_t ready_nodes(const struct message *answer)
{
    size_t ready = 0;
    for (size_t i = 0; answer->type == MESSAGE_RECORDS && i < answer->records.rows_count; i++) {
        const struct record *r = &answer->records.rows[i];
        for (size_t k = 0; k < r->fields_count; k++) {
            ready +=
                strcmp(r->fields[k].key, "state") == 0 && strcmp(r->fields[k].value, "ready") == 0;
        }
    }
    return ready;
}

static struct status wait_ready(const struct dev *d, struct cli *cli, struct errmsg *msg)
{
    const struct context *k = NULL;
    struct client *c = NULL;
    TRY(context_find(cli->contexts, context_name, &k, msg));
    uint64_t until = now_ms() + READY_MS;
    struct status s = status_of(STATUS_TIMEOUT);
    while (now_ms() < until) {
        TRY(check_alive(d, msg));
        struct arena a = {0};
        struct message answer;
        const struct message m = {.type = MESSAGE_QUERY, .query = {.what = "nodes", .name = ""}};
        if (c == NULL) {
            TRY(client_open(&c, k, msg));
        }
        bool asked = status_is_ok(client_ask(c, &m, 2000, &a, &answer, msg));
        bool ready = asked && ready_nodes(&answer) == (size_t)d->agents;
        arena_close(&a);
        if (!asked) {
            client_close(c);
            c = NULL;
        }
        if (ready) {
            s = status_ok();
            break;
        }
        wait_a_little();
    }
    client_close(c);
    return status_is_ok(s) ? s
                           : status_fail(msg, STATUS_TIMEOUT,
                                         "the cluster was not ready within %d s; see %s/*/log",
                                         READY_MS / 1000, d->data);
}

/* ---- Stopping ---- */

/* Asks with SIGTERM, then SIGKILL. It may be our child or nobody's: waitpid reaps it in the first
 * case. */
static void process_end(const struct daemon *k, int signal_first)
{
    if (!alive(k)) {
        return;
    }
    (void)kill(k->pid, signal_first);
    uint64_t until = now_ms() + STOP_MS;
    while (alive(k) && now_ms() < until) {
        (void)waitpid(k->pid, NULL, WNOHANG);
        wait_a_little();
    }
    if (alive(k)) {
        (void)kill(k->pid, SIGKILL);
        while (alive(k)) {
            (void)waitpid(k->pid, NULL, WNOHANG);
            wait_a_little();
        }
    }
}

/* The cells of an agent outlive it: they are ended by its own program, which knows its folder. */
static void stop_instances(const struct dev *d, const struct daemon *k)
{
    char program[CONFIG_PATH_BYTES_MAX + 1], folder[CONFIG_PATH_BYTES_MAX + 1],
        log[CONFIG_PATH_BYTES_MAX + 1];
    (void)snprintf(program, sizeof program, "%s/skep-agent", d->bin);
    path_of(d, k->name, "data", folder);
    path_of(d, k->name, "log", log);
    char verb[] = "stop-instances", option[] = "--data";
    char *argv[] = {program, verb, option, folder, NULL};
    struct errmsg msg = {.text = ""};
    pid_t pid = 0;
    struct status s = spawn(argv, log, &pid, &msg);
    int outcome = 0;
    if (!status_is_ok(s) || waitpid(pid, &outcome, 0) != pid || outcome != 0) {
        (void)fprintf(stderr, "skep: could not end the instances of %s; see %s\n", k->name, log);
    }
}

static void stop_all(const struct dev *d)
{
    for (size_t i = d->count; i > 0; i--) {
        const struct daemon *k = &d->daemons[i - 1];
        if (strcmp(k->kind, "agent") == 0) {
            process_end(k, SIGTERM);
            stop_instances(d, k);
        }
    }
    /* A scheduler that hands leadership over while all go has nobody to hand it to: all are told at
     * once. */
    for (size_t i = 0; i < d->count; i++) {
        if (strcmp(d->daemons[i].kind, "scheduler") == 0 && alive(&d->daemons[i])) {
            (void)kill(d->daemons[i].pid, SIGKILL);
        }
    }
    for (size_t i = 0; i < d->count; i++) {
        if (strcmp(d->daemons[i].kind, "scheduler") == 0) {
            process_end(&d->daemons[i], SIGKILL);
        }
    }
}

static struct status clean_up(const struct dev *d, struct cli *cli, struct errmsg *msg)
{
    if (cli->contexts == NULL) {
        TRY(contexts_load(&cli->contexts, msg));
    }
    if (status_is_ok(context_remove(cli->contexts, context_name))) {
        TRY(contexts_save(cli->contexts, msg));
    }
    return package_remove(d->data, msg);
}

int verb_dev_stop(struct cli *cli)
{
    struct dev d = {.count = 0};
    struct errmsg msg = {.text = ""};
    struct status s = find_data(&d, cli->options.data, &msg);
    if (status_is_ok(s)) {
        s = find_bin(&d, &msg);
    }
    if (status_is_ok(s)) {
        s = state_read(&d, &msg);
    }
    if (status_is_ok(s)) {
        stop_all(&d);
        s = clean_up(&d, cli, &msg);
    }
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    (void)puts("stopped; nothing is left of it");
    return CLI_DONE;
}

int verb_dev_status(struct cli *cli)
{
    struct dev d = {.count = 0};
    struct errmsg msg = {.text = ""};
    struct status s = find_data(&d, cli->options.data, &msg);
    if (status_is_ok(s)) {
        s = state_read(&d, &msg);
    }
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    struct record rows[DEV_DAEMONS_MAX];
    struct pair fields[DEV_DAEMONS_MAX][4];
    char pids[DEV_DAEMONS_MAX][16];
    bool all = true;
    for (size_t i = 0; i < d.count; i++) {
        const struct daemon *k = &d.daemons[i];
        bool runs = alive(k);
        all = all && runs;
        (void)snprintf(pids[i], sizeof pids[i], "%d", (int)k->pid);
        fields[i][0] = (struct pair){.key = "name", .value = k->name};
        fields[i][1] = (struct pair){.key = "kind", .value = k->kind};
        fields[i][2] = (struct pair){.key = "pid", .value = pids[i], .value_kind = 1};
        fields[i][3] =
            (struct pair){.key = "running", .value = runs ? "true" : "false", .value_kind = 2};
        rows[i] = (struct record){.fields = fields[i], .fields_count = 4};
    }
    static const char *const columns[] = {"name", "kind", "pid", "running", NULL};
    const struct records r = {.rows = rows, .rows_count = d.count};
    int code = output_records(stdout, cli->json, &r, columns);
    return code == CLI_DONE && !all ? CLI_FAILED : code;
}

/* ---- Starting ---- */

static struct status start_all(struct dev *d, struct cli *cli, struct errmsg *msg)
{
    TRY(prepare(d, msg));
    for (size_t i = 0; i < d->count; i++) {
        TRY(daemon_start(d, &d->daemons[i], msg));
        TRY(state_write(d, msg));
    }
    TRY(context_write(d, cli, msg));
    return wait_ready(d, cli, msg);
}

static struct status check_numbers(struct dev *d, const struct options *o, struct errmsg *msg)
{
    d->schedulers = o->schedulers == 0 ? 1 : o->schedulers;
    d->agents = o->agents == 0 ? 1 : o->agents;
    if (d->schedulers < 1 || d->schedulers > DEV_SCHEDULERS_MAX) {
        return status_fail(msg, STATUS_INVALID, "--schedulers: not between 1 and %d",
                           DEV_SCHEDULERS_MAX);
    }
    if (d->agents < 1 || d->agents > DEV_AGENTS_MAX) {
        return status_fail(msg, STATUS_INVALID, "--agents: not between 1 and %d", DEV_AGENTS_MAX);
    }
    return status_ok();
}

static struct status check_walls(struct dev *d, const char *names, struct errmsg *msg)
{
    for (const char *at = names; at != NULL && *at != '\0';) {
        char name[64];
        enum wall wall = WALLS_COUNT_;
        size_t size = strcspn(at, ",");
        (void)snprintf(name, sizeof name, "%.*s", (int)size, at);
        if (!status_is_ok(wall_find_excusable(name, &wall, msg))) {
            return status_prefix(msg, status_of(STATUS_INVALID), "--walls-not-needed");
        }
        d->walls_not_needed |= UINT32_C(1) << wall;
        at += size + (at[size] == ',' ? 1 : 0);
    }
    return status_ok();
}

static struct status check_absent(struct dev *d, struct errmsg *msg)
{
    struct dev known = *d;
    if (!status_is_ok(state_read(&known, NULL))) {
        return status_ok();
    }
    for (size_t i = 0; i < known.count; i++) {
        if (alive(&known.daemons[i])) {
            return status_fail(msg, STATUS_EXISTS,
                               "a development cluster runs at %s; skep dev stop ends it", d->data);
        }
    }
    return status_fail(msg, STATUS_EXISTS,
                       "a development cluster that has ended is at %s; skep dev stop removes it",
                       d->data);
}

static int run_until_signal(struct dev *d, struct cli *cli, const sigset_t *signals)
{
    struct errmsg msg = {.text = ""};
    int number = 0;
    (void)puts("the cluster runs until Ctrl-C");
    (void)fflush(stdout);
    (void)sigwait(signals, &number);
    stop_all(d);
    struct status s = clean_up(d, cli, &msg);
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    (void)puts("stopped; nothing is left of it");
    return CLI_DONE;
}

int verb_dev(struct cli *cli)
{
    struct dev d = {.count = 0};
    struct errmsg msg = {.text = ""};
    struct status s = check_numbers(&d, &cli->options, &msg);
    if (status_is_ok(s)) {
        s = check_walls(&d, cli->options.walls_not_needed, &msg);
    }
    if (status_is_ok(s)) {
        s = find_data(&d, cli->options.data, &msg);
    }
    if (status_is_ok(s)) {
        s = find_bin(&d, &msg);
    }
    if (status_is_ok(s)) {
        s = check_absent(&d, &msg);
    }
    if (!status_is_ok(s)) {
        return cli_fail(s, msg.text);
    }
    sigset_t signals;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigprocmask(SIG_BLOCK, &signals, NULL);
    s = start_all(&d, cli, &msg);
    if (!status_is_ok(s)) {
        stop_all(&d);
        (void)cli_fail(s, msg.text);
        (void)fprintf(stderr, "skep: the logs are in %s; skep dev stop removes them\n", d.data);
        return (int)cli_exit_code(s.code);
    }
    (void)printf("%d scheduler%s and %d agent%s run; context dev is the current one\n",
                 d.schedulers, d.schedulers == 1 ? "" : "s", d.agents, d.agents == 1 ? "" : "s");
    if (cli->options.detach != 0) {
        return CLI_DONE;
    }
    return run_until_signal(&d, cli, &signals);
}
