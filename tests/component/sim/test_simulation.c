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
enum { SEEDS_SPINE = 6, SEEDS_STORM = 2 };
#else
enum { SEEDS_SPINE = 20, SEEDS_STORM = 6 };
#endif
enum { SEEDS_QUIET = 6, SEEDS_BUG = 6, SAID_BYTES = 2048 };

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
        assert_true(r.calls > 100);
        assert_true(r.calls_ok > r.calls / 4);
    }
}

static void the_same_seed_gives_the_same_trace(void **state)
{
    (void)state;
    struct simulation_result first = run("spine", 7);
    void *shift = malloc(54321); /* other addresses must not matter */
    struct simulation_result second = run("spine", 7);
    free(shift);
    assert_int_equal(first.hash, second.hash);
    assert_int_equal(first.events, second.events);
    assert_int_not_equal(first.hash, run("spine", 8).hash);
}

static void the_spine_holds(void **state)
{
    (void)state;
    run_seeds("spine", 1, SEEDS_SPINE);
}

static void a_storm_is_weathered(void **state)
{
    (void)state;
    run_seeds("storm", 1, SEEDS_STORM);
}

static void without_faults_every_call_succeeds(void **state)
{
    (void)state;
    run_seeds("quiet", 1, SEEDS_QUIET);
}

/* Seeds that once found something in the product. */
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
}

static void an_unknown_scenario_is_refused(void **state)
{
    (void)state;
    const struct simulation_options options = {.scenario = "no-such"};
    struct simulation_result r;
    assert_int_equal(simulation_run(&options, &r).code, STATUS_NOT_FOUND);
}

/* ---- Deliberate bugs ---- */

/* Runs in a process of its own, since a CHECK may end it. False: nothing was found. */
static bool finds(enum simulation_bug bug, uint64_t seed, char said[SAID_BYTES])
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        (void)close(ends[0]);
        const struct simulation_options options = {.seed = seed, .bug = bug};
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

/* Some seed of a few must fail, and say what was wrong. */
static void assert_found(enum simulation_bug bug, const char *expected)
{
    char said[SAID_BYTES] = "";
    for (uint64_t seed = 1; seed <= SEEDS_BUG; seed++) {
        if (finds(bug, seed, said) && strstr(said, expected) != NULL) {
            return;
        }
    }
    fail_msg("no seed found it; the last one said: %s", said);
}

static void a_command_not_applied_is_found(void **state)
{
    (void)state;
    assert_found(SIMULATION_BUG_SKIP_APPLY, "differ after command");
}

static void a_command_applied_twice_is_found(void **state)
{
    (void)state;
    assert_found(SIMULATION_BUG_APPLY_TWICE, "check failed: index > c->index");
}

static void instances_that_live_on_unseen_are_found(void **state)
{
    (void)state;
    assert_found(SIMULATION_BUG_ZOMBIE, "is over its capacity");
}

static void a_message_delivered_twice_is_found(void **state)
{
    (void)state;
    assert_found(SIMULATION_BUG_DOUBLE_MESSAGE, "twice");
}

static void two_leaders_of_one_term_are_found(void **state)
{
    (void)state;
    assert_found(SIMULATION_BUG_STALE_TERM, "obeys both");
}

static void a_lost_result_is_found_as_a_leaked_slot(void **state)
{
    (void)state;
    assert_found(SIMULATION_BUG_DROP_RESULT, "a slot leaked");
}

static void an_agent_that_forgets_its_instances_is_found(void **state)
{
    (void)state;
    assert_found(SIMULATION_BUG_NO_ADOPT, "is over its capacity");
}

static void a_wrong_output_is_found(void **state)
{
    (void)state;
    assert_found(SIMULATION_BUG_FALSE_OUTPUT, "has the output of another one");
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
        cmocka_unit_test(seeds_that_found_something_hold),
        cmocka_unit_test(an_unknown_scenario_is_refused),
        cmocka_unit_test(a_command_not_applied_is_found),
        cmocka_unit_test(a_command_applied_twice_is_found),
        cmocka_unit_test(instances_that_live_on_unseen_are_found),
        cmocka_unit_test(a_message_delivered_twice_is_found),
        cmocka_unit_test(two_leaders_of_one_term_are_found),
        cmocka_unit_test(a_lost_result_is_found_as_a_leaked_slot),
        cmocka_unit_test(an_agent_that_forgets_its_instances_is_found),
        cmocka_unit_test(a_wrong_output_is_found),
        cmocka_unit_test(bugs_are_known_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
