/* Chaos of bare Raft (simulations/raft_chaos.h): with all cures no seed finds anything; and seeds
 * that diverge, lose, crash or get stuck with one cure switched off. What no seed was found for is
 * played by hand in test_guard_rules.c and test_guard_disk.c. */
#include "scheduler/replica/guard.h"
#include "simulations/raft_chaos.h"

#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Seeds of each mix; GUARD_SEEDS in the environment sets another number, GUARD_FIRST another first
 * one, for longer runs. */
#ifdef SKEP_CHECK_SLOW
enum { SEEDS = 20, JOBS = 2 };
#else
enum { SEEDS = 120, JOBS = 2 };
#endif

static uint64_t from_environment(const char *name, uint64_t fallback)
{
    const char *text = getenv(name);
    return text == NULL ? fallback : strtoull(text, NULL, 10);
}

static uint64_t run_seeds(const char *faults, uint64_t first, uint64_t count)
{
    uint64_t found = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct raft_chaos_options options = {.seed = seed, .faults = raft_chaos_faults(faults)};
        struct raft_chaos_result r = {.why = ""};
        int verdict = raft_chaos_run(&options, &r);
        if (verdict != 0) {
            (void)printf("faults %s seed %" PRIu64 ": %s: %s\n", faults, seed,
                         raft_chaos_verdict_name(r.verdict), r.why);
            found++;
        }
    }
    return found;
}

/* The seeds in JOBS processes: one that crashes says which by its last line. */
static void mix_is_clean(void **state)
{
    const char *faults = *state;
    uint64_t first = from_environment("GUARD_FIRST", 1);
    uint64_t count = from_environment("GUARD_SEEDS", SEEDS);
    assert_int_not_equal(raft_chaos_faults(faults), 0);
    pid_t jobs[JOBS];
    (void)fflush(NULL);
    for (uint64_t i = 0; i < JOBS; i++) {
        jobs[i] = fork();
        assert_true(jobs[i] >= 0);
        if (jobs[i] == 0) {
            uint64_t from = count * i / JOBS;
            uint64_t found = run_seeds(faults, first + from, count * (i + 1) / JOBS - from);
            (void)fflush(NULL);
            _exit(found == 0 ? 0 : 1);
        }
    }
    bool clean = true;
    for (size_t i = 0; i < JOBS; i++) {
        int ended = 0;
        assert_int_equal(waitpid(jobs[i], &ended, 0), jobs[i]);
        clean = clean && WIFEXITED(ended) && WEXITSTATUS(ended) == 0;
    }
    assert_true(clean);
}

static const struct {
    const char *cure;
    const char *faults;
    uint64_t seed;
    const char *was; /* what it came to when it was found */
} seeds[] = {
    {"clamp", "cpdse", 34, "unequal: states that differ after healing"},
    {"fatal", "cpdszf", 4, "diverged: servers that apply different commands"},
    {"fatal", "cpdszf", 13, "stuck: no leader"},
    {"mark", "cpdszre", 5, "lost"},
    {"mark", "cpdszre", 15, "lost"},
    {"conf", "cpdszm", 25, "SIGSEGV in a rollback"},
    {"conf", "cpdszm", 54, "unequal: configurations that differ"},
    {"close", "cpdsznq", 2373, "SIGSEGV in closing"},
    {"prevote", "cpdszmtrfne", 19, "stuck: no leader"},
};

/* A seed finds something without the cure, and nothing with it. */
static void each_cure_is_needed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++) {
        struct raft_chaos_options options = {.seed = seeds[i].seed,
                                             .faults = raft_chaos_faults(seeds[i].faults)};
        struct raft_chaos_result r = {.why = ""};
        int signal_number = 0;
        int with = raft_chaos_fork(&options, &r, &signal_number);
        if (with != 0 || signal_number != 0) {
            fail_msg("%s seed %" PRIu64 " with all cures: %s, signal %d", seeds[i].faults,
                     seeds[i].seed, r.why, signal_number);
        }
        options.cures_off = guard_cure_find(seeds[i].cure);
        assert_int_not_equal(options.cures_off, 0);
        int without = raft_chaos_fork(&options, &r, &signal_number);
        if (without == 0 && signal_number == 0) {
            fail_msg("%s seed %" PRIu64 " finds nothing without %s any more (it was: %s)",
                     seeds[i].faults, seeds[i].seed, seeds[i].cure, seeds[i].was);
        }
    }
}

static void cures_have_names(void **state)
{
    (void)state;
    for (unsigned i = 0; i < GUARD_CURES; i++) {
        assert_int_equal(guard_cure_find(guard_cure_name(i)), 1U << i);
    }
    assert_null(guard_cure_name(GUARD_CURES));
    assert_int_equal(guard_cure_find("no such"), 0);
}

int main(void)
{
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    log_open("test", LOG_LEVEL_ERROR, LOG_FORMAT_KV, nowhere); /* stops are part of the game */
    static char mixes[][16] = {"cpds",    "cpdsz",  "cpdsztve",      "cpdszf",
                               "cpdsznq", "cpdszm", "cpdszmtvfnrqe", "cpdszre"};
    struct CMUnitTest tests[sizeof mixes / sizeof mixes[0] + 2] = {
        cmocka_unit_test(cures_have_names),
        cmocka_unit_test(each_cure_is_needed),
    };
    for (size_t i = 0; i < sizeof mixes / sizeof mixes[0]; i++) {
        tests[i + 2] = (struct CMUnitTest){
            .name = mixes[i], .test_func = mix_is_clean, .initial_state = mixes[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
