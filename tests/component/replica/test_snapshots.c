/* Snapshots that are encoded while the loop goes on. */
#include "scheduler/replica/replica_internal.h"
#include "tests/component/replica/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <stdlib.h>
#include <cmocka.h>

/* Commands numbered enough that a snapshot is due; the first entries of a log are libraft's. */
enum { THRESHOLD = 64, TRAILING = 16, DUE = 2 * THRESHOLD };

static struct cluster *start(size_t count, struct gate *gate)
{
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, count, count);
    c->config.snapshot_threshold = THRESHOLD;
    c->config.snapshot_trailing = TRAILING;
    for (size_t i = 0; i < count; i++) {
        c->nodes[i].gate = gate;
        node_start(&c->nodes[i]);
    }
    return c;
}

static void end(struct cluster *c, struct gate *gate)
{
    cluster_close(c);
    free(c);
    gate_close(gate);
}

static void commands_commit_while_a_snapshot_is_being_encoded(void **state)
{
    (void)state;
    struct gate gate;
    gate_init(&gate);
    struct cluster *c = start(3, &gate);
    cluster_commit(c, DUE, 64, 8);
    struct node *leader = cluster_wait_leader(c);
    WAIT(c, is_pinned, leader->id);
    uint64_t pinned = leader->pinned_count;
    cluster_commit(c, 500, 64, 8);
    WAIT(c, all_agree, DUE + 500);
    assert_int_equal(gate_passed(&gate), 0); /* none has been encoded meanwhile */
    assert_int_equal(replica_status(leader->replica).snapshot_index, 0);
    assert_true(leader->applied_count >= pinned + 500);
    assert_int_equal(replica_status(leader->replica).snapshot_bytes, 0);
    gate_open(&gate, false);
    WAIT(c, has_snapshot, leader->id);
    assert_true(replica_status(leader->replica).snapshot_bytes > 0);
    end(c, &gate);
}

static void a_restart_from_such_a_snapshot_loses_nothing(void **state)
{
    (void)state;
    struct gate gate;
    gate_init(&gate);
    struct cluster *c = start(1, &gate);
    cluster_commit(c, DUE, 64, 8);
    WAIT(c, is_pinned, 1);
    cluster_commit(c, 20, 64, 8);
    struct node *n = &c->nodes[0];
    gate_open(&gate, false);
    WAIT(c, has_snapshot, 1);
    uint64_t hash = n->applied_hash;
    node_stop(n);
    node_start(n);
    WAIT(c, all_agree, DUE + 20);
    assert_int_equal(n->applied_hash, hash);
    assert_int_equal(n->restores, 1);
    end(c, &gate);
}

static void closing_waits_for_a_snapshot_that_is_being_encoded(void **state)
{
    (void)state;
    struct gate gate;
    gate_init(&gate);
    struct cluster *c = start(1, &gate);
    cluster_commit(c, DUE, 64, 8);
    WAIT(c, is_pinned, 1);
    node_stop(&c->nodes[0]);
    assert_int_equal(gate_passed(&gate), 1);
    assert_false(c->nodes[0].pinned);
    node_start(&c->nodes[0]);
    WAIT(c, all_agree, DUE);
    end(c, &gate);
}

static bool passed_at_least(struct cluster *c, uint64_t count)
{
    return gate_passed(c->nodes[0].gate) >= count && !c->nodes[0].pinned;
}

static bool commit_until_snapshot(struct cluster *c, uint64_t id)
{
    cluster_commit(c, 1, 64, 1);
    return has_snapshot(c, id);
}

static void a_snapshot_that_fails_is_taken_again(void **state)
{
    (void)state;
    struct gate gate;
    gate_init(&gate);
    struct cluster *c = start(1, &gate);
    gate_open(&gate, true);
    cluster_commit(c, DUE, 64, 8);
    WAIT(c, passed_at_least, 1);
    assert_int_equal(replica_status(c->nodes[0].replica).snapshot_index, 0);
    assert_false(c->nodes[0].fatal);
    gate_open(&gate, false);
    WAIT(c, commit_until_snapshot, 1);
    end(c, &gate);
}

static bool is_fatal(struct cluster *c, uint64_t id)
{
    return c->nodes[id - 1].fatal;
}

/* Memory checkers see whether what was encoded is freed. */
static void what_encodes_when_the_replica_fails_is_dropped(void **state)
{
    (void)state;
    struct gate gate;
    gate_init(&gate);
    struct cluster *c = start(1, &gate);
    cluster_commit(c, DUE, 64, 8);
    WAIT(c, is_pinned, 1);
    struct node *n = &c->nodes[0];
    guard_fail(&n->replica->guard, "write log", RAFT_IOERR);
    WAIT(c, is_fatal, 1);
    gate_open(&gate, false);
    WAIT(c, passed_at_least, 1);
    assert_int_equal(replica_status(n->replica).snapshot_index, 0);
    node_stop(n);
    n->fatal = false;
    node_start(n);
    WAIT(c, all_agree, DUE);
    end(c, &gate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_commit_while_a_snapshot_is_being_encoded),
        cmocka_unit_test(a_restart_from_such_a_snapshot_loses_nothing),
        cmocka_unit_test(closing_waits_for_a_snapshot_that_is_being_encoded),
        cmocka_unit_test(a_snapshot_that_fails_is_taken_again),
        cmocka_unit_test(what_encodes_when_the_replica_fails_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
