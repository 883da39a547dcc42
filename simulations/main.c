/* skep-sim: runs seeds of a scenario. Exit code 0: all held; 1: a check failed; 2: wrong usage. */
#include "simulations/simulation.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <popt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

struct arguments {
    char *seed, *seeds, *scenario, *bug;
    int count, jobs, trace, list;
};

static bool parse_number(const char *text, const char **end, uint64_t *out)
{
    char *stop;
    errno = 0;
    *out = strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0 && stop != text && *text != '-';
}

/* --seed N, --seeds A..B, --count N (from --seed on). */
static bool parse_seeds(const struct arguments *a, uint64_t *first, uint64_t *last)
{
    const char *end = "";
    *first = 1;
    if (a->seed != NULL && (!parse_number(a->seed, &end, first) || *end != '\0')) {
        return false;
    }
    *last = *first;
    if (a->count > 0) {
        *last = *first + (uint64_t)a->count - 1;
    }
    if (a->seeds == NULL) {
        return true;
    }
    return parse_number(a->seeds, &end, first) && strncmp(end, "..", 2) == 0 &&
           parse_number(end + 2, &end, last) && *end == '\0' && *first <= *last;
}

/* Prints the seed first: whatever ends the process, it is known. */
static struct status run_one(uint64_t seed, const struct simulation_options *base)
{
    struct simulation_options options = *base;
    struct simulation_result r = {.failure = ""};
    options.seed = seed;
    (void)printf("seed %" PRIu64 " ", seed);
    if (options.trace != NULL) {
        (void)printf("\n");
    }
    (void)fflush(stdout);
    struct status ran = simulation_run(&options, &r);
    (void)printf("hash %016" PRIx64 " events %" PRIu64 " virtual %" PRIu64 ".%03" PRIu64
                 " s calls %" PRIu64 " ok %" PRIu64 " spawned %" PRIu64 " done %" PRIu64
                 " commands %" PRIu64 " leaders %" PRIu64 "%s%s\n",
                 r.hash, r.events, r.virtual_ms / 1000, r.virtual_ms % 1000, r.calls, r.calls_ok,
                 r.spawned, r.done, r.commands, r.leaders,
                 r.failure[0] == '\0' ? "" : " FAILED: ", r.failure);
    (void)fflush(stdout);
    return ran;
}

/* ---- Several seeds at once: a process each, their lines in order of ending ---- */

enum { JOBS_MAX = 64, SAID_BYTES = 4096 };

struct job_process {
    pid_t pid; /* 0: free */
    int from;
    uint64_t seed;
};

static bool job_start(struct job_process *j, uint64_t seed, const struct simulation_options *base)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return false;
    }
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)dup2(ends[1], STDERR_FILENO);
        _exit(status_is_ok(run_one(seed, base)) ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    (void)close(ends[1]);
    if (child < 0) {
        (void)close(ends[0]);
        return false;
    }
    *j = (struct job_process){.pid = child, .from = ends[0], .seed = seed};
    return true;
}

/* Prints what the process said, waits for its end. A process that a CHECK has ended has failed. */
static bool job_end(struct job_process *j)
{
    char said[SAID_BYTES];
    ssize_t got;
    int status = 0;
    while ((got = read(j->from, said, sizeof said)) > 0) {
        (void)fwrite(said, 1, (size_t)got, stdout);
    }
    (void)close(j->from);
    (void)waitpid(j->pid, &status, 0);
    bool good = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS;
    if (!WIFEXITED(status)) {
        (void)printf("seed %" PRIu64 " FAILED: the process ended by signal %d\n", j->seed,
                     WTERMSIG(status));
    }
    (void)fflush(stdout);
    j->pid = 0;
    return good;
}

/* How many failed. When no more can be started, those that run are waited for, and the others have
 * failed. */
static uint64_t run_jobs(uint64_t first, uint64_t last, int jobs,
                         const struct simulation_options *base)
{
    struct job_process each[JOBS_MAX] = {{.pid = 0}};
    uint64_t next = first, failed = 0;
    int running = 0;
    bool more = true;
    while ((more && next <= last) || running > 0) {
        struct pollfd wait[JOBS_MAX];
        for (int i = 0; i < jobs; i++) {
            if (each[i].pid == 0 && more && next <= last) {
                more = job_start(&each[i], next, base);
                if (more) {
                    running++;
                    next++;
                } else {
                    (void)fprintf(stderr, "skep-sim: start a job: %s\n", strerror(errno));
                    failed += last - next + 1;
                }
            }
            wait[i] = (struct pollfd){.fd = each[i].pid == 0 ? -1 : each[i].from}; /* its end */
        }
        (void)poll(wait, (nfds_t)jobs, running > 0 ? -1 : 0);
        for (int i = 0; i < jobs; i++) {
            if (each[i].pid != 0 && wait[i].revents != 0) {
                failed += !job_end(&each[i]);
                running--;
            }
        }
    }
    return failed;
}

static int run(const struct arguments *a)
{
    struct simulation_options options = {.scenario = a->scenario,
                                         .trace = a->trace != 0 ? stdout : NULL};
    uint64_t first, last;
    struct errmsg msg = {.text = ""};
    if (!parse_seeds(a, &first, &last)) {
        (void)fprintf(stderr, "skep-sim: --seed takes a number, --seeds A..B\n");
        return EXIT_USAGE;
    }
    if (a->bug != NULL && !status_is_ok(simulation_bug_parse(a->bug, &options.bug, &msg))) {
        (void)fprintf(stderr, "skep-sim: %s; see --list\n", msg.text);
        return EXIT_USAGE;
    }
    if (a->scenario != NULL && !simulation_known(a->scenario)) {
        (void)fprintf(stderr, "skep-sim: no such scenario; see --list\n");
        return EXIT_USAGE;
    }
    if (options.bug != SIMULATION_BUG_NONE && a->scenario != NULL &&
        strcmp(a->scenario, "raft") == 0) {
        (void)fprintf(stderr, "skep-sim: raft takes no bugs\n");
        return EXIT_USAGE;
    }
    if (a->jobs > JOBS_MAX || (a->jobs > 1 && a->trace != 0)) {
        (void)fprintf(stderr, "skep-sim: --jobs takes at most %d, and no --trace\n", JOBS_MAX);
        return EXIT_USAGE;
    }
    if (a->jobs > 1) {
        uint64_t failed = run_jobs(first, last, a->jobs, &options);
        (void)printf("%" PRIu64 " of %" PRIu64 " seeds failed\n", failed, last - first + 1);
        return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    int result = EXIT_SUCCESS;
    for (uint64_t seed = first; seed <= last; seed++) {
        result = status_is_ok(run_one(seed, &options)) ? result : EXIT_FAILURE;
    }
    return result;
}

int main(int argc, const char **argv)
{
    struct arguments a = {0};
    const struct poptOption options[] = {
        {"seed", '\0', POPT_ARG_STRING, &a.seed, 0, "one seed, or the first of --count", "N"},
        {"count", '\0', POPT_ARG_INT, &a.count, 0, "how many seeds", "N"},
        {"seeds", '\0', POPT_ARG_STRING, &a.seeds, 0, "these seeds", "A..B"},
        {"jobs", '\0', POPT_ARG_INT, &a.jobs, 0, "how many seeds at once", "N"},
        {"scenario", '\0', POPT_ARG_STRING, &a.scenario, 0, "what happens (spine)", "NAME"},
        {"bug", '\0', POPT_ARG_STRING, &a.bug, 0, "make a mistake that a check must find", "NAME"},
        {"trace", '\0', POPT_ARG_NONE, &a.trace, 0, "print every event", NULL},
        {"list", '\0', POPT_ARG_NONE, &a.list, 0, "list scenarios and bugs", NULL},
        POPT_AUTOHELP POPT_TABLEEND};
    /* The parts' own logs say nothing that the checks do not. */
    log_open("skep-sim", LOG_LEVEL_ERROR, LOG_FORMAT_KV, open("/dev/null", O_WRONLY | O_CLOEXEC));
    poptContext context = poptGetContext("skep-sim", argc, argv, options, 0);
    int parsed = poptGetNextOpt(context);
    int result = EXIT_USAGE;
    if (parsed != -1 || poptPeekArg(context) != NULL) {
        (void)fprintf(stderr, "skep-sim: %s\n",
                      parsed < -1 ? poptStrerror(parsed) : "takes options only; see --help");
    } else if (a.list != 0) {
        simulation_list(stdout);
        result = EXIT_SUCCESS;
    } else {
        result = run(&a);
    }
    poptFreeContext(context);
    free(a.seed);     /* lint: allow malloc: popt allocates these */
    free(a.seeds);    /* lint: allow malloc: popt allocates these */
    free(a.scenario); /* lint: allow malloc: popt allocates these */
    free(a.bug);      /* lint: allow malloc: popt allocates these */
    return result;
}
