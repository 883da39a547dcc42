/* The peer of the call benchmark: the same work on gearmand, which knows neither TLS nor a second
 * hop. Starts nothing but its own worker processes; the server is started by call_bench.py.
 *
 *     gearman_peer PORT OUTSTANDING SECONDS      prints gearman_calls_per_s, gearman_p50_us,
 *     gearman_p99_us */
#include <libgearman/gearman.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 4, PAYLOAD_BYTES = 256, SAMPLES_MAX = 2000000, OUTSTANDING_MAX = 1024 };

static uint64_t now_us(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static gearman_return_t echo(gearman_job_st *job, void *context)
{
    (void)context;
    return gearman_job_send_data(job, gearman_job_workload(job), gearman_job_workload_size(job));
}

static void work(in_port_t port)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    gearman_worker_st *w = gearman_worker_create(NULL);
    gearman_function_t fn = gearman_function_create(echo);
    (void)gearman_worker_add_server(w, "127.0.0.1", port);
    (void)gearman_worker_define_function(w, "echo", 4, fn, 0, NULL);
    while (gearman_worker_work(w) == GEARMAN_SUCCESS) {
    }
    _exit(0);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void report(uint32_t *took, size_t count, double seconds)
{
    qsort(took, count, sizeof *took, compare);
    printf("gearman_calls_per_s %.0f calls/s\n", (double)count / seconds);
    printf("gearman_p50_us %u us\ngearman_p99_us %u us\n", took[count / 2], took[count * 99 / 100]);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fputs("usage: gearman_peer PORT OUTSTANDING SECONDS\n", stderr);
        return 2;
    }
    in_port_t port = (in_port_t)strtol(argv[1], NULL, 10);
    int outstanding = (int)strtol(argv[2], NULL, 10);
    uint64_t span_us = (uint64_t)strtol(argv[3], NULL, 10) * 1000000;
    if (outstanding < 1 || outstanding > OUTSTANDING_MAX) {
        return 2;
    }
    pid_t workers[WORKERS];
    for (int i = 0; i < WORKERS; i++) {
        workers[i] = fork();
        if (workers[i] == 0) {
            work(port);
        }
    }
    char payload[PAYLOAD_BYTES];
    memset(payload, 'x', sizeof payload);
    gearman_client_st *c = gearman_client_create(NULL);
    (void)gearman_client_add_server(c, "127.0.0.1", port);
    uint32_t *took = calloc(SAMPLES_MAX, sizeof *took);
    gearman_task_st tasks[OUTSTANDING_MAX];
    size_t count = 0;
    uint64_t start = now_us(), until = start + span_us;
    while (now_us() < until && took != NULL && count + (size_t)outstanding < SAMPLES_MAX) {
        uint64_t begun = now_us();
        gearman_return_t code;
        for (int i = 0; i < outstanding; i++) {
            (void)gearman_client_add_task(c, &tasks[i], NULL, "echo", NULL, payload, sizeof payload,
                                          &code);
        }
        (void)gearman_client_run_tasks(c);
        uint32_t each = (uint32_t)(now_us() - begun);
        for (int i = 0; i < outstanding; i++) {
            took[count++] = each;
            gearman_task_free(&tasks[i]);
        }
    }
    if (count > 0) {
        report(took, count, (double)(now_us() - start) / 1e6);
    }
    for (int i = 0; i < WORKERS; i++) {
        (void)kill(workers[i], SIGKILL);
        (void)waitpid(workers[i], NULL, 0);
    }
    gearman_client_free(c);
    free(took);
    return count > 0 ? 0 : 1;
}
