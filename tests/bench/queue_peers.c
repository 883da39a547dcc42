/* Jobs through the durable queues of other systems: submit, run by a worker that does nothing,
 * result back to the submitter.
 *
 *     queue_peers redis|beanstalkd|rabbitmq PORT CLIENTS WORKERS SECONDS BYTES
 *
 * Each client has one job on its way: it submits it, waits until the server has it on disk, and
 * waits for its result. Each worker takes a job, sends the result, and only then lets the job go,
 * so that none is lost when it dies. One blocking thread and connection each (two for rabbitmq).
 * Prints finished_* lines; a result that is not of the job it was waited for is counted as
 * wrong. */
#include "tests/bench/queue_peers.h"

#include "common/clock.h"
#include "common/histogram.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 1024, WARM_UP_US = 500 * 1000, COMMAND_BYTES = 2 * JOB_BYTES_MAX + 512 };

struct client {
    pthread_t thread;
    int number;
    uint64_t wrong;
    struct histogram took;
};

static struct client clients[CLIENTS_MAX];
static const struct queue *queue;
static int port;
static size_t job_bytes;
static uint64_t measure_us, end_us;

void peer_die(const char *what)
{
    (void)fprintf(stderr, "queue_peers: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- A connection that speaks in lines ---- */

struct line_link {
    int fd;
    char in[COMMAND_BYTES];
    size_t size, at;
};

static struct line_link *line_open(int to_port)
{
    struct line_link *l = calloc(1, sizeof *l);
    const struct sockaddr_in to = {.sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)to_port),
                                   .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    const int on = 1;
    if (l == NULL || (l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0 ||
        connect(l->fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        peer_die("connect");
    }
    (void)setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return l;
}

static void line_send(struct line_link *l, const char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = send(l->fd, data + done, size - done, MSG_NOSIGNAL);
        if (n <= 0) {
            peer_die("send");
        }
        done += (size_t)n;
    }
}

static char line_byte(struct line_link *l)
{
    if (l->at == l->size) {
        ssize_t n = recv(l->fd, l->in, sizeof l->in, 0);
        if (n <= 0) {
            peer_die("recv");
        }
        l->size = (size_t)n;
        l->at = 0;
    }
    return l->in[l->at++];
}

static void line_get(struct line_link *l, char *out, size_t out_size)
{
    size_t n = 0;
    for (char c = line_byte(l); c != '\n'; c = line_byte(l)) {
        if (c != '\r' && n + 1 < out_size) {
            out[n++] = c;
        }
    }
    out[n] = '\0';
}

/* size bytes and the end of the line. */
static void line_data(struct line_link *l, char *out, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        out[i] = line_byte(l);
    }
    (void)line_byte(l);
    (void)line_byte(l);
}

static void must_start(const char *line, const char *with)
{
    if (strncmp(line, with, strlen(with)) != 0) {
        (void)fprintf(stderr, "queue_peers: expected %s, got %s\n", with, line);
        exit(1);
    }
}

/* ---- redis ---- */

static size_t redis_put(char *out, const char *text, size_t size)
{
    int head = snprintf(out, 32, "$%zu\r\n", size);
    memcpy(out + head, text, size);
    memcpy(out + head + size, "\r\n", 2);
    return (size_t)head + size + 2;
}

static void redis_send(struct line_link *l, int count, const char *const *args, const size_t *sizes)
{
    char out[COMMAND_BYTES];
    size_t size = (size_t)snprintf(out, 32, "*%d\r\n", count);
    for (int i = 0; i < count; i++) {
        size += redis_put(out + size, args[i], sizes[i]);
    }
    line_send(l, out, size);
}

static void redis_number(struct line_link *l)
{
    char line[128];
    line_get(l, line, sizeof line);
    must_start(line, ":");
}

static void redis_bulk(struct line_link *l, char *out, size_t size)
{
    char line[128];
    line_get(l, line, sizeof line);
    must_start(line, "$");
    if (strtoul(line + 1, NULL, 10) != size) {
        peer_die("a value of another size");
    }
    line_data(l, out, size);
}

static void *redis_open(int to_port, int number, bool worker)
{
    (void)number;
    (void)worker;
    return line_open(to_port);
}

static void redis_submit(void *link, int number, const char *job, size_t size)
{
    (void)number;
    const char *args[] = {"LPUSH", "jobs", job};
    const size_t sizes[] = {5, 4, size};
    redis_send(link, 3, args, sizes);
    redis_number(link);
}

static void redis_result(void *link, int number, char *out, size_t size)
{
    char list[32], line[128], name[32];
    (void)snprintf(list, sizeof list, "reply:%06d", number);
    const char *args[] = {"BRPOP", list, "0"};
    const size_t sizes[] = {5, strlen(list), 1};
    redis_send(link, 3, args, sizes);
    line_get(link, line, sizeof line);
    must_start(line, "*2");
    redis_bulk(link, name, strlen(list));
    redis_bulk(link, out, size);
}

static void redis_work(void *link, int worker, size_t size)
{
    char job[JOB_BYTES_MAX], doing[32], list[32];
    (void)snprintf(doing, sizeof doing, "doing:%06d", worker);
    const char *take[] = {"BRPOPLPUSH", "jobs", doing, "0"};
    const size_t take_sizes[] = {10, 4, strlen(doing), 1};
    redis_send(link, 4, take, take_sizes);
    redis_bulk(link, job, size);
    (void)snprintf(list, sizeof list, "reply:%.6s", job);
    const char *reply[] = {"LPUSH", list, job}, *drop[] = {"LREM", doing, "1", job};
    const size_t reply_sizes[] = {5, strlen(list), size},
                 drop_sizes[] = {4, strlen(doing), 1, size};
    redis_send(link, 3, reply, reply_sizes);
    redis_number(link);
    redis_send(link, 4, drop, drop_sizes);
    redis_number(link);
}

/* ---- beanstalkd ---- */

static void beanstalk_ask(struct line_link *l, const char *command, const char *expect)
{
    char line[256];
    line_send(l, command, strlen(command));
    line_get(l, line, sizeof line);
    must_start(line, expect);
}

static void beanstalk_put(struct line_link *l, const char *job, size_t size)
{
    char out[COMMAND_BYTES], line[128];
    int head = snprintf(out, 64, "put 0 0 60 %zu\r\n", size);
    memcpy(out + head, job, size);
    memcpy(out + head + size, "\r\n", 2);
    line_send(l, out, (size_t)head + size + 2);
    line_get(l, line, sizeof line);
    must_start(line, "INSERTED");
}

/* Returns the job's id. */
static uint64_t beanstalk_reserve(struct line_link *l, char *out, size_t size)
{
    char line[128];
    line_send(l, "reserve\r\n", 9);
    line_get(l, line, sizeof line);
    uint64_t id = 0;
    size_t got = 0;
    if (sscanf(line, "RESERVED %" SCNu64 " %zu", &id, &got) != 2 || got != size) {
        must_start(line, "RESERVED of the right size");
    }
    line_data(l, out, size);
    return id;
}

static void beanstalk_delete(struct line_link *l, uint64_t id)
{
    char command[64];
    (void)snprintf(command, sizeof command, "delete %" PRIu64 "\r\n", id);
    beanstalk_ask(l, command, "DELETED");
}

static void *beanstalk_open(int to_port, int number, bool worker)
{
    struct line_link *l = line_open(to_port);
    char command[64];
    (void)snprintf(command, sizeof command, worker ? "watch jobs\r\n" : "watch r%06d\r\n", number);
    beanstalk_ask(l, command, "WATCHING");
    beanstalk_ask(l, "ignore default\r\n", "WATCHING");
    if (!worker) {
        beanstalk_ask(l, "use jobs\r\n", "USING");
    }
    return l;
}

static void beanstalk_submit(void *link, int number, const char *job, size_t size)
{
    (void)number;
    beanstalk_put(link, job, size);
}

static void beanstalk_result(void *link, int number, char *out, size_t size)
{
    (void)number;
    beanstalk_delete(link, beanstalk_reserve(link, out, size));
}

static void beanstalk_work(void *link, int worker, size_t size)
{
    (void)worker;
    char job[JOB_BYTES_MAX], command[64];
    uint64_t id = beanstalk_reserve(link, job, size);
    (void)snprintf(command, sizeof command, "use r%.6s\r\n", job);
    beanstalk_ask(link, command, "USING");
    beanstalk_put(link, job, size);
    beanstalk_delete(link, id);
}

static const struct queue redis = {redis_open, redis_submit, redis_result, redis_work};
static const struct queue beanstalkd = {beanstalk_open, beanstalk_submit, beanstalk_result,
                                        beanstalk_work};

/* ---- Clients and workers ---- */

static void *client_run(void *data)
{
    struct client *c = data;
    char job[JOB_BYTES_MAX], result[JOB_BYTES_MAX];
    void *link = queue->open(port, c->number, false);
    memset(job, 'x', sizeof job);
    for (uint64_t n = 0, now = clock_now_us(clock_real()); now < end_us; n++) {
        /* The number of the client, by which the worker finds it, and of the job. */
        (void)snprintf(job, 32, "%06d %012" PRIu64, c->number, n);
        queue->submit(link, c->number, job, job_bytes);
        queue->result(link, c->number, result, job_bytes);
        uint64_t after = clock_now_us(clock_real());
        c->wrong += memcmp(job, result, job_bytes) != 0;
        if (now >= measure_us && after < end_us) {
            histogram_record(&c->took, after - now);
        }
        now = after;
    }
    return NULL;
}

static void *worker_run(void *data)
{
    int number = (int)(intptr_t)data;
    void *link = queue->open(port, number, true);
    for (;;) { /* until the process ends */
        queue->work(link, number, job_bytes);
    }
    return NULL;
}

static int run(int clients_count, int workers_count, uint64_t seconds)
{
    static struct histogram all;
    uint64_t wrong = 0;
    measure_us = clock_now_us(clock_real()) + WARM_UP_US;
    end_us = measure_us + seconds * 1000000;
    for (int i = 0; i < workers_count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker_run, (void *)(intptr_t)i) != 0) {
            peer_die("pthread_create");
        }
        (void)pthread_detach(thread);
    }
    for (int i = 0; i < clients_count; i++) {
        clients[i].number = i;
        if (pthread_create(&clients[i].thread, NULL, client_run, &clients[i]) != 0) {
            peer_die("pthread_create");
        }
    }
    for (int i = 0; i < clients_count; i++) {
        (void)pthread_join(clients[i].thread, NULL);
        histogram_merge(&all, &clients[i].took);
        wrong += clients[i].wrong;
    }
    (void)printf("finished %" PRIu64 " count\nfinished_rate %.0f /s\n", all.count,
                 (double)all.count / (double)seconds);
    (void)printf("finished_p50 %" PRIu64 " us\nfinished_p99 %" PRIu64 " us\nwrong %" PRIu64
                 " count\n",
                 histogram_percentile(&all, 50), histogram_percentile(&all, 99), wrong);
    (void)fflush(stdout);
    _exit(wrong == 0 ? 0 : 1); /* the workers wait for jobs that will not come */
}

int main(int argc, char **argv)
{
    const struct {
        const char *name;
        const struct queue *queue;
    } queues[] = {{"redis", &redis}, {"beanstalkd", &beanstalkd}, {"rabbitmq", queue_rabbitmq()}};
    for (size_t i = 0; argc == 7 && i < sizeof queues / sizeof queues[0]; i++) {
        queue = strcmp(queues[i].name, argv[1]) == 0 ? queues[i].queue : queue;
    }
    int clients_count = argc == 7 ? (int)strtol(argv[3], NULL, 10) : 0;
    job_bytes = argc == 7 ? strtoul(argv[6], NULL, 10) : 0;
    if (queue == NULL || clients_count < 1 || clients_count > CLIENTS_MAX || job_bytes < 32 ||
        job_bytes > JOB_BYTES_MAX) {
        (void)fputs("usage: queue_peers redis|beanstalkd|rabbitmq PORT CLIENTS WORKERS SECONDS "
                    "BYTES\n",
                    stderr);
        return 2;
    }
    port = (int)strtol(argv[2], NULL, 10);
    return run(clients_count, (int)strtol(argv[4], NULL, 10), strtoul(argv[5], NULL, 10));
}
