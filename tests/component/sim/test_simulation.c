/* The simulator holds what it promises: seeds pass, a seed repeats itself, and every deliberate bug
 * is found by a check. */
#include "simulations/simulation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* Debug builds walk whole structures at every tick: fewer seeds take as long. */
#ifdef SKEP_CHECK_SLOW
enum { SEEDS = 2, SEEDS_STORM = 1, BUG_STEP = 4 };
#else
enum { SEEDS = 6, SEEDS_STORM = 3, BUG_STEP = 1 };
#endif
enum { SEEDS_BUG = 24, SAID_BYTES = 4096 };

static struct simulation_result run(const char *scenario, uint64_t seed)
{
    const struct simulation_options options = {.scenario = scenario, .seed = seed};
    struct simulation_result r;
    struct status ran = simulation_run(&options, &r);
    if (!status_is_ok(ran)) {
        fail_msg("%s seed %llu: %s", scenario, (unsigned long long)seed, r.failure);
    }
    return r;
}

static void run_seeds(const char *scenario, uint64_t first, uint64_t count)
{
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct simulation_result r = run(scenario, seed);
        assert_true(r.calls > 40);
        assert_true(r.calls_ok > r.calls / 4);
        assert_true(r.spawned > 40);
        assert_true(r.done > r.spawned / 2);
    }
}

static char *trace_of(uint64_t seed, size_t *size)
{
    char *text = NULL;
    FILE *trace = open_memstream(&text, size);
    assert_non_null(trace);
    const struct simulation_options options = {.scenario = "durable", .seed = seed, .trace = trace};
    struct simulation_result r;
    struct status ran = simulation_run(&options, &r);
    assert_true(status_is_ok(ran));
    (void)fclose(trace);
    return text;
}

static void the_same_seed_gives_the_same_trace(void **state)
{
    (void)state;
    size_t first_size, second_size, other_size;
    char *first = trace_of(7, &first_size);
    void *shift = malloc(54321); /* other addresses must not matter */
    char *second = trace_of(7, &second_size);
    char *other = trace_of(8, &other_size);
    free(shift);
    assert_true(first_size > 100000);
    assert_int_equal(first_size, second_size);
    assert_memory_equal(first, second, first_size);
    assert_true(other_size != first_size || memcmp(first, other, first_size) != 0);
    free(first);
    free(second);
    free(other);
}

static void the_spine_holds(void **state)
{
    (void)state;
    run_seeds("spine", 1, SEEDS);
}

static void a_storm_is_weathered(void **state)
{
    (void)state;
    run_seeds("storm", 1, SEEDS_STORM);
}

static void without_faults_every_call_succeeds(void **state)
{
    (void)state;
    run_seeds("quiet", 1, SEEDS);
}

static void durable_work_is_never_lost(void **state)
{
    (void)state;
    run_seeds("durable", 1, SEEDS);
}

static void clocks_may_jump(void **state)
{
    (void)state;
    run_seeds("clocks", 1, SEEDS);
}

static void members_may_come_and_go(void **state)
{
    (void)state;
    run_seeds("members", 1, SEEDS);
}

static void bare_replicas_hold_under_chaos(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        assert_true(run("raft", seed).commands > 0);
    }
}

/* Seeds that once found something in the product. The scenarios grow, so that they may take another
 * course by now. */
static void seeds_that_found_something_hold(void **state)
{
    (void)state;
    /* A node given up for its silence, whose connection had survived a short partition, never
     * became ready again: nobody asked it to register. */
    (void)run("spine", 4);
    (void)run("storm", 8);
    /* A held result of an attempt that had ended before its agent registered freed the slot of
     * another attempt, which still ran: the instance was sent more than its concurrency. */
    (void)run("storm", 3);
    /* A leader that had been stopped for seconds, and replaced meanwhile, answered that an
     * acknowledged invocation did not exist. */
    (void)run("durable", 10);
    /* A clock set forth and back: the committed time stood still until the clocks had caught up,
     * and so did every delay and every pause before a retry. */
    (void)run("clocks", 7);
    /* The end of an attempt that a new leader had taken over, after its loss had been counted, was
     * refused as late: its invocation was taken for busy and never tried again. */
    (void)run("durable", 5);
}

static void an_unknown_scenario_is_refused(void **state)
{
    (void)state;
    const struct simulation_options options = {.scenario = "no-such"};
    struct simulation_result r;
    assert_int_equal(simulation_run(&options, &r).code, STATUS_NOT_FOUND);
    assert_false(simulation_known("no-such"));
    assert_true(simulation_known("mix") && simulation_known("raft") && simulation_known("storm"));
}

/* ---- Deliberate bugs ---- */

/* What finds each of them, in one of the first seeds of the scenario. */
static const struct {
    enum simulation_bug bug;
    const char *scenario;
    const char *said;
} bugs[] = {
    {SIMULATION_BUG_SKIP_APPLY, "spine", "differ after command"},
    {SIMULATION_BUG_APPLY_TWICE, "spine", "check failed: index > c->index"},
    {SIMULATION_BUG_ZOMBIE, "spine", "is over its capacity"},
    {SIMULATION_BUG_DOUBLE_MESSAGE, "spine", "twice"},
    {SIMULATION_BUG_STALE_TERM, "spine", "obeys both"},
    {SIMULATION_BUG_DROP_RESULT, "spine", "a slot leaked"},
    {SIMULATION_BUG_NO_ADOPT, "spine", "instances are there, the leader knows"},
    {SIMULATION_BUG_FALSE_OUTPUT, "spine", "has the output of another one"},
    {SIMULATION_BUG_DOUBLE_ACCEPT, "durable", "another success than was committed"},
    {SIMULATION_BUG_ACK_EARLY, "durable", "was acknowledged and is lost"},
    {SIMULATION_BUG_EXPIRE_EARLY, "durable", "died of its deadline after"},
    {SIMULATION_BUG_SNAPSHOT_KEY, "durable", "differ after command"},
    {SIMULATION_BUG_SNAPSHOT_JOB, "durable", "cannot restore"},
    {SIMULATION_BUG_ATTEMPT_RESET, "durable", "ran twice"},
    {SIMULATION_BUG_ANY_ATTEMPT, "durable", "is committed as attempt"},
    {SIMULATION_BUG_OLD_LEADER, "storm", "after term"},
    {SIMULATION_BUG_CANCEL_LOST, "durable", "is not linearizable"},
    {SIMULATION_BUG_STALE_READ, "durable", "is not linearizable"},
    {SIMULATION_BUG_SPAWN_TWICE, "durable", "is two invocations"},
    {SIMULATION_BUG_NO_KEY, "durable", "is two invocations"},
    {SIMULATION_BUG_NO_DELAY, "durable", "ms of delay"},
    {SIMULATION_BUG_NO_LIMIT, "quiet", "at once, 3 may"},
};

enum { BUGS = sizeof bugs / sizeof bugs[0] };

/* Runs in a process of its own, since a CHECK may end it. False: nothing was found. */
static bool finds(const char *scenario, enum simulation_bug bug, uint64_t seed,
                  char said[SAID_BYTES])
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        (void)close(ends[0]);
        const struct simulation_options options = {.scenario = scenario, .seed = seed, .bug = bug};
        struct simulation_result r;
        struct status ran = simulation_run(&options, &r);
        (void)fprintf(stderr, "%s\n", r.failure);
        _exit(status_is_ok(ran) ? 0 : 1);
    }
    (void)close(ends[1]);
    size_t size = 0;
    ssize_t got;
    while (size < SAID_BYTES - 1 && (got = read(ends[0], said + size, SAID_BYTES - 1 - size)) > 0) {
        size += (size_t)got;
    }
    said[size] = '\0';
    (void)close(ends[0]);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static bool found(size_t at, char said[SAID_BYTES])
{
    for (uint64_t seed = 1; seed <= SEEDS_BUG; seed++) {
        if (finds(bugs[at].scenario, bugs[at].bug, seed, said) &&
            strstr(said, bugs[at].said) != NULL) {
            return true;
        }
    }
    return false;
}

static void every_deliberate_bug_is_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < BUGS; i += BUG_STEP) {
        char said[SAID_BYTES] = "";
        if (!found(i, said)) {
            fail_msg("no seed of %s found bug %d; the last one said: %s", bugs[i].scenario,
                     (int)bugs[i].bug, said);
        }
    }
}

static void every_deliberate_bug_is_listed(void **state)
{
    (void)state;
    assert_int_equal(BUGS, SIMULATION_BUG_COUNT_ - 1);
    for (size_t i = 0; i < BUGS; i++) {
        assert_int_equal(bugs[i].bug, i + 1); /* 0 is none */
    }
}

static void bugs_are_known_by_name(void **state)
{
    (void)state;
    enum simulation_bug bug = SIMULATION_BUG_NONE;
    struct errmsg msg;
    assert_true(status_is_ok(simulation_bug_parse("zombie", &bug, &msg)));
    assert_int_equal(bug, SIMULATION_BUG_ZOMBIE);
    assert_int_equal(simulation_bug_parse("no-such", &bug, &msg).code, STATUS_NOT_FOUND);
    assert_int_equal(bug, SIMULATION_BUG_ZOMBIE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_trace),
        cmocka_unit_test(the_spine_holds),
        cmocka_unit_test(a_storm_is_weathered),
        cmocka_unit_test(without_faults_every_call_succeeds),
        cmocka_unit_test(durable_work_is_never_lost),
        cmocka_unit_test(clocks_may_jump),
        cmocka_unit_test(members_may_come_and_go),
        cmocka_unit_test(bare_replicas_hold_under_chaos),
        cmocka_unit_test(seeds_that_found_something_hold),
        cmocka_unit_test(an_unknown_scenario_is_refused),
        cmocka_unit_test(every_deliberate_bug_is_listed),
        cmocka_unit_test(every_deliberate_bug_is_found),
        cmocka_unit_test(bugs_are_known_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
