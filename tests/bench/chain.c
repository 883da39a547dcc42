#include "tests/bench/chain.h"

#include "tests/lib/test_pki.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    READY_FD = 4,
    PROCESSES = 3,
    LATENCIES_MAX = 4 << 20,
    WARM_UP_NS = 300 * 1000 * 1000,
};

static const char relay_mode[] = "--chain-relay";
static const char last_mode[] = "--chain-last";
static const char echo_mode[] = "--chain-echo";

void chain_must(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "chain: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

void chain_load_start(struct chain_message *m, uint32_t slot)
{
    memset(m, 0, sizeof *m);
    m->slot = slot;
    m->sent_ns = now_ns();
}

bool chain_load_back(struct chain_load *load, struct chain_message *m)
{
    uint64_t now = now_ns();
    if (m->sent_ns >= load->measure_from_ns && now < load->end_ns) {
        load->calls++;
        if (load->latencies_count < load->latencies_max) {
            load->latencies_ns[load->latencies_count++] = now - m->sent_ns;
        }
    }
    if (now >= load->end_ns) {
        load->ended++;
        return false;
    }
    m->sent_ns = now;
    return true;
}

bool chain_load_over(const struct chain_load *load)
{
    return load->ended == load->outstanding;
}

void chain_ready(uint16_t port)
{
    chain_must(write(READY_FD, &port, sizeof port) == (ssize_t)sizeof port, "tell the port");
    (void)close(READY_FD);
}

static int echo_main(void)
{
    uint8_t packet[2 * CHAIN_MESSAGE_BYTES];
    ssize_t n;
    while ((n = recv(CHAIN_ECHO_FD, packet, sizeof packet, 0)) > 0) {
        if (send(CHAIN_ECHO_FD, packet, (size_t)n, MSG_NOSIGNAL) != n) {
            return 1;
        }
    }
    return 0;
}

/* Starts this program again; fds are put at CHAIN_ECHO_FD and READY_FD unless -1. */
static pid_t process_start(const char *mode, const struct tls_identity *own, uint16_t next_port,
                           int echo_fd, int ready_fd)
{
    char port[16];
    (void)snprintf(port, sizeof port, "%u", next_port);
    char self[] = "/proc/self/exe";
    const char *argv[] = {self, mode, port, own->ca_pem, own->cert_pem, own->key_pem, NULL};
    posix_spawn_file_actions_t actions;
    chain_must(posix_spawn_file_actions_init(&actions) == 0, "spawn");
    if (echo_fd >= 0) {
        chain_must(posix_spawn_file_actions_adddup2(&actions, echo_fd, CHAIN_ECHO_FD) == 0, "dup");
    }
    if (ready_fd >= 0) {
        chain_must(posix_spawn_file_actions_adddup2(&actions, ready_fd, READY_FD) == 0, "dup");
    }
    pid_t pid = 0;
    chain_must(posix_spawn(&pid, self, &actions, NULL, (char *const *)(void *)argv, environ) == 0,
               "start a process");
    (void)posix_spawn_file_actions_destroy(&actions);
    return pid;
}

/* Moved out of the way of the numbers that children get. */
static int fd_high(int fd)
{
    int high = fcntl(fd, F_DUPFD_CLOEXEC, 64);
    chain_must(high >= 0, "fcntl");
    (void)close(fd);
    return high;
}

static pid_t relay_start(const char *mode, const struct tls_identity *own, uint16_t next_port,
                         int echo_fd, uint16_t *port)
{
    int ready[2];
    chain_must(pipe2(ready, O_CLOEXEC) == 0, "pipe");
    ready[0] = fd_high(ready[0]);
    ready[1] = fd_high(ready[1]);
    pid_t pid = process_start(mode, own, next_port, echo_fd, ready[1]);
    (void)close(ready[1]);
    chain_must(read(ready[0], port, sizeof *port) == (ssize_t)sizeof *port, "a relay's port");
    (void)close(ready[0]);
    return pid;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double cpu_us(const struct rusage *u)
{
    return (double)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1e6 +
           (double)(u->ru_utime.tv_usec + u->ru_stime.tv_usec);
}

/* What the processes used while they were measured. */
struct usage {
    double cpu_us;
    double switches;
};

static void usage_add(struct usage *u, const struct rusage *r, double sign)
{
    u->cpu_us += sign * cpu_us(r);
    u->switches += sign * (double)(r->ru_nvcsw + r->ru_nivcsw);
}

static void report(const char *prefix, struct chain_load *load, double seconds,
                   const struct usage *used)
{
    qsort(load->latencies_ns, load->latencies_count, sizeof *load->latencies_ns, compare);
    size_t n = load->latencies_count;
    chain_must(n > 0, "no call came back");
    printf("%s_p50_us %.1f us\n", prefix, (double)load->latencies_ns[n / 2] / 1e3);
    printf("%s_p99_us %.1f us\n", prefix, (double)load->latencies_ns[n * 99 / 100] / 1e3);
    printf("%s_calls_per_s %.0f 1/s\n", prefix, (double)load->calls / seconds);
    /* The warm-up's calls cost too: their share is taken off. */
    double share = seconds / (seconds + WARM_UP_NS / 1e9) / (double)load->calls;
    printf("%s_cpu_us_per_call %.2f us\n", prefix, used->cpu_us * share);
    printf("%s_switches_per_call %.1f 1\n", prefix, used->switches * share);
}

static int run(const struct chain_roles *roles, unsigned outstanding, double seconds)
{
    struct test_ca ca;
    struct test_certificate c;
    test_ca_open(&ca, "bench");
    test_certificate_for(&c, &ca, "skep://bench/scheduler/s1");
    const struct tls_identity own = test_identity(&ca, &c);
    int echo[2];
    chain_must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, echo) == 0, "socketpair");
    echo[0] = fd_high(echo[0]);
    echo[1] = fd_high(echo[1]);
    pid_t pids[PROCESSES];
    uint16_t last_port = 0;
    uint16_t port = 0;
    pids[0] = process_start(echo_mode, &own, 0, echo[1], -1);
    pids[1] = relay_start(last_mode, &own, 0, echo[0], &last_port);
    pids[2] = relay_start(relay_mode, &own, last_port, -1, &port);
    (void)close(echo[0]);
    (void)close(echo[1]);

    struct chain_load load = {.outstanding = outstanding, .latencies_max = LATENCIES_MAX};
    load.latencies_ns = malloc(LATENCIES_MAX * sizeof *load.latencies_ns);
    chain_must(load.latencies_ns != NULL, "memory");
    struct rusage before;
    struct rusage after;
    (void)getrusage(RUSAGE_SELF, &before);
    load.measure_from_ns = now_ns() + WARM_UP_NS;
    load.end_ns = load.measure_from_ns + (uint64_t)(seconds * 1e9);
    roles->client(&own, port, &load);
    (void)getrusage(RUSAGE_SELF, &after);
    struct usage used = {0};
    usage_add(&used, &before, -1);
    usage_add(&used, &after, 1);
    for (size_t i = 0; i < PROCESSES; i++) {
        struct rusage child;
        int status = 0;
        chain_must(wait4(pids[i], &status, 0, &child) == pids[i] && status == 0,
                   "a process failed");
        usage_add(&used, &child, 1);
    }
    report(roles->prefix, &load, seconds, &used);
    free(load.latencies_ns);
    test_certificate_close(&c);
    test_ca_close(&ca);
    return 0;
}

int chain_main(int argc, char **argv, const struct chain_roles *roles)
{
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc == 6 && argv[1][0] == '-') {
        const struct tls_identity own = {
            .ca_pem = argv[3], .cert_pem = argv[4], .key_pem = argv[5]};
        if (strcmp(argv[1], echo_mode) == 0) {
            return echo_main();
        }
        if (strcmp(argv[1], relay_mode) == 0) {
            roles->relay(&own, (uint16_t)atoi(argv[2]));
            return 0;
        }
        if (strcmp(argv[1], last_mode) == 0) {
            roles->last(&own);
            return 0;
        }
    }
    static const struct option options[] = {{"outstanding", required_argument, NULL, 'o'},
                                            {"seconds", required_argument, NULL, 's'},
                                            {NULL, 0, NULL, 0}};
    long outstanding = 1;
    double seconds = 3;
    for (int o; (o = getopt_long(argc, argv, "o:s:", options, NULL)) != -1;) {
        if (o == 'o') {
            outstanding = strtol(optarg, NULL, 10);
        } else if (o == 's') {
            seconds = strtod(optarg, NULL);
        } else {
            return 2;
        }
    }
    if (outstanding < 1 || outstanding > CHAIN_OUTSTANDING_MAX || !(seconds > 0)) {
        (void)fprintf(stderr, "usage: %s [--outstanding N] [--seconds N]\n", argv[0]);
        return 2;
    }
    return run(roles, (unsigned)outstanding, seconds);
}
