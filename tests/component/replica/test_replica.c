#include "tests/component/replica/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

static struct node *a_follower(struct cluster *c)
{
    struct node *leader = cluster_wait_leader(c);
    for (size_t i = 0; i < c->count; i++) {
        if (c->nodes[i].replica != NULL && &c->nodes[i] != leader) {
            return &c->nodes[i];
        }
    }
    fail();
    return NULL;
}

static void three_replicas_elect_and_apply_the_same_sequence(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    cluster_commit(c, 1000, 256, 64);
    WAIT(c, all_agree, 1000);
    struct node *leader = cluster_wait_leader(c);
    assert_int_equal(replica_status(leader->replica).proposals, 0);
    assert_true(leader->applied_calls > 0);
    cluster_end(c);
}

static void a_single_voter_commits_alone(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    cluster_commit(c, 100, 3, 10);
    node_stop(&c->nodes[0]);
    node_start(&c->nodes[0]);
    WAIT(c, all_agree, 100);
    cluster_end(c);
}

static void commands_of_every_length_come_back_unchanged(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    for (size_t size = 0; size <= 17; size++) {
        cluster_commit(c, 1, size, 1);
    }
    cluster_commit(c, 1, REPLICA_COMMAND_BYTES_MAX, 1);
    WAIT(c, all_agree, 19);
    cluster_end(c);
}

static void followers_refuse_proposals(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    struct node *follower = a_follower(c);
    uint64_t ticket;
    assert_int_equal(node_propose(follower, 1, 8, &ticket).code, STATUS_NOT_LEADER);
    cluster_end(c);
}

static bool follower_knows_leader(struct cluster *c, uint64_t id)
{
    struct node *leader = cluster_leader(c);
    return leader != NULL && c->nodes[id - 1].role.leader_id == leader->id;
}

static void followers_are_told_the_leader(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    struct node *follower = a_follower(c);
    WAIT(c, follower_knows_leader, follower->id);
    struct replica_status st = replica_status(follower->replica);
    assert_false(st.leader);
    assert_string_equal(st.leader_address, cluster_leader(c)->address);
    cluster_end(c);
}

static void oversized_commands_are_over_the_limit(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    struct node *leader = cluster_wait_leader(c);
    uint64_t ticket;
    assert_int_equal(node_propose(leader, 1, REPLICA_COMMAND_BYTES_MAX + 1, &ticket).code,
                     STATUS_LIMIT);
    assert_int_equal(replica_status(leader->replica).proposals, 0);
    cluster_end(c);
}

static void proposals_over_the_limit_are_refused_and_the_rest_commit(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    struct node *leader = cluster_wait_leader(c);
    uint64_t ticket;
    for (unsigned i = 0; i < REPLICA_PROPOSALS_MAX; i++) {
        assert_int_equal(node_propose(leader, i, 8, &ticket).code, STATUS_OK);
    }
    assert_int_equal(node_propose(leader, 1, 8, &ticket).code, STATUS_LIMIT);
    WAIT(c, all_agree, REPLICA_PROPOSALS_MAX);
    assert_int_equal(node_propose(leader, 1, 8, &ticket).code, STATUS_OK);
    WAIT(c, all_agree, REPLICA_PROPOSALS_MAX + 1);
    cluster_end(c);
}

static void a_new_leader_follows_a_crash_and_the_old_one_catches_up_from_disk(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    cluster_commit(c, 200, 100, 20);
    struct node *old = cluster_wait_leader(c);
    node_stop(old);
    struct node *leader = cluster_wait_leader(c);
    assert_ptr_not_equal(leader, old);
    cluster_commit(c, 200, 100, 20);
    node_start(old);
    WAIT(c, all_agree, 400);
    cluster_end(c);
}

static void a_restart_of_all_keeps_everything(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    cluster_commit(c, 300, 64, 30);
    WAIT(c, all_agree, 300);
    uint64_t hash = c->nodes[0].applied_hash;
    for (size_t i = 0; i < 3; i++) {
        node_stop(&c->nodes[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        node_start(&c->nodes[i]);
    }
    WAIT(c, all_agree, 300);
    assert_int_equal(c->nodes[0].applied_count, 300);
    assert_int_equal(c->nodes[0].applied_hash, hash);
    cluster_end(c);
}

static bool answered(struct cluster *c, uint64_t ticket)
{
    return c->answers[ticket].given;
}

static void proposals_in_flight_at_the_loss_of_leadership_are_unknown(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    struct node *old = cluster_wait_leader(c);
    cluster_isolate(c, old, true);
    uint64_t ticket;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(node_propose(old, 1, 8, &ticket).code, STATUS_OK);
    }
    WAIT(c, answered, ticket);
    assert_int_equal(c->answers[ticket].status.code, STATUS_UNKNOWN);
    assert_int_equal(c->answers[ticket - 9].status.code, STATUS_UNKNOWN);
    cluster_isolate(c, old, false);
    cluster_commit(c, 10, 8, 10);
    WAIT(c, all_agree, 10);
    cluster_end(c);
}

static void closing_answers_what_is_in_flight(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    struct node *leader = cluster_wait_leader(c);
    uint64_t ticket;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(node_propose(leader, 1, 4096, &ticket).code, STATUS_OK);
    }
    node_stop(leader);
    assert_true(c->answers[ticket].given);
    assert_true(c->answers[0].given);
    cluster_end(c);
}

static void lost_and_reordered_messages_change_nothing(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    c->drop_every = 7;
    c->reorder_every = 5;
    cluster_commit(c, 500, 64, 16);
    c->drop_every = 0;
    WAIT(c, all_agree, 500);
    cluster_end(c);
}

static struct replica_member member_of(const struct node *n, enum replica_member_role role)
{
    struct replica_member m = {.id = n->id, .role = role};
    (void)snprintf(m.address, sizeof m.address, "%s", n->address);
    return m;
}

static void low_snapshots(struct cluster *c)
{
    c->config.snapshot_threshold = 64;
    c->config.snapshot_trailing = 16;
}

/* A leader that loses its office on a busy machine does not know what became of it: asked again. */
static void add_again(struct cluster *c, const struct node *n)
{
    struct replica_member m = member_of(n, REPLICA_VOTER);
    do {
        replica_add(cluster_wait_leader(c)->replica, &m, change_answered, c);
        cluster_wait_change(c);
    } while (c->change_status.code == STATUS_UNKNOWN || c->change_status.code == STATUS_NOT_LEADER);
    assert_true(c->change_status.code == STATUS_OK || c->change_status.code == STATUS_EXISTS);
}

static void a_wiped_member_leaves_joins_again_and_gets_a_snapshot_in_parts(void **state)
{
    (void)state;
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 3, 3);
    low_snapshots(c);
    for (size_t i = 0; i < 3; i++) {
        node_start(&c->nodes[i]);
    }
    cluster_commit(c, 300, 64, 16);
    struct node *follower = a_follower(c);
    node_stop(follower);
    node_wipe(follower);
    cluster_commit(c, 100, 64, 16);
    struct node *leader = cluster_wait_leader(c);
    WAIT(c, has_snapshot, leader->id);
    replica_remove(leader->replica, follower->id, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_OK);
    node_start(follower);
    add_again(c, follower);
    WAIT(c, all_agree, 400);
    assert_true(follower->restores >= 1);
    assert_true(c->bulk_sent >= 4);
    /* And it starts from the installed snapshot again. */
    node_stop(follower);
    node_start(follower);
    WAIT(c, all_agree, 400);
    cluster_end(c);
}

static void a_lagging_member_gets_a_snapshot_over_a_bad_network(void **state)
{
    (void)state;
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 3, 3);
    low_snapshots(c);
    for (size_t i = 0; i < 3; i++) {
        node_start(&c->nodes[i]);
    }
    cluster_commit(c, 20, 64, 16);
    struct node *follower = a_follower(c);
    cluster_isolate(c, follower, true);
    cluster_commit(c, 300, 64, 16);
    WAIT(c, has_snapshot, cluster_wait_leader(c)->id);
    cluster_isolate(c, follower, false);
    c->drop_every = 5;
    WAIT(c, all_agree, 320);
    assert_true(follower->restores >= 1);
    cluster_end(c);
}

static void a_restart_restores_the_snapshot_and_the_rest_of_the_log(void **state)
{
    (void)state;
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 1, 1);
    low_snapshots(c);
    node_start(&c->nodes[0]);
    cluster_commit(c, 500, 64, 8);
    struct node *n = &c->nodes[0];
    uint64_t hash = n->applied_hash;
    WAIT(c, has_snapshot, n->id);
    node_stop(n);
    node_start(n);
    WAIT(c, all_agree, 500);
    assert_int_equal(n->applied_count, 500);
    assert_int_equal(n->applied_hash, hash);
    assert_int_equal(n->restores, 1);
    cluster_end(c);
}

static enum replica_member_role role_of(struct node *at, uint64_t id)
{
    struct replica_member members[REPLICA_MEMBERS_MAX];
    size_t count = replica_members(at->replica, members);
    for (size_t i = 0; i < count; i++) {
        if (members[i].id == id) {
            return members[i].role;
        }
    }
    fail();
    return REPLICA_SPARE;
}

static void a_member_is_added_promoted_and_removed(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(4, 3);
    cluster_commit(c, 50, 64, 8);
    struct node *added = &c->nodes[3];
    node_start(added);
    struct node *leader = cluster_wait_leader(c);
    struct replica_member m = member_of(added, REPLICA_VOTER);
    replica_add(leader->replica, &m, change_answered, c);
    assert_false(c->change_done);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_OK);
    assert_int_equal(role_of(leader, 4), REPLICA_VOTER);
    cluster_commit(c, 50, 64, 8);
    WAIT(c, all_agree, 100);

    leader = cluster_wait_leader(c);
    uint64_t removed = leader->id == 4 ? 3 : 4;
    replica_remove(leader->replica, removed, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_OK);
    struct replica_member members[REPLICA_MEMBERS_MAX];
    assert_int_equal(replica_members(leader->replica, members), 3);
    node_stop(&c->nodes[removed - 1]);
    cluster_commit(c, 50, 64, 8);
    WAIT(c, all_agree, 150);
    cluster_end(c);
}

static void adding_again_is_no_change_and_another_address_exists(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    struct node *leader = cluster_wait_leader(c);
    struct node *other = a_follower(c);
    struct replica_member m = member_of(other, REPLICA_VOTER);
    replica_add(leader->replica, &m, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_OK);
    (void)snprintf(m.address, sizeof m.address, "127.0.0.1:1");
    replica_add(leader->replica, &m, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_EXISTS);
    cluster_end(c);
}

static void changes_need_the_leader(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    struct node *follower = a_follower(c);
    replica_remove(follower->replica, 1, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_NOT_LEADER);
    replica_transfer(follower->replica, 0, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_NOT_LEADER);
    cluster_end(c);
}

static void removing_an_unknown_or_the_last_member_is_refused(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    struct node *leader = cluster_wait_leader(c);
    replica_remove(leader->replica, 9, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_NOT_FOUND);
    replica_remove(leader->replica, 1, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_INVALID);
    cluster_end(c);
}

static bool leads(struct cluster *c, uint64_t id)
{
    struct node *leader = cluster_leader(c);
    return leader != NULL && leader->id == id;
}

static void leadership_moves_to_the_member_named(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    cluster_commit(c, 20, 64, 8);
    struct node *leader = cluster_wait_leader(c);
    struct node *target = a_follower(c);
    replica_transfer(leader->replica, target->id, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_OK);
    WAIT(c, leads, target->id);
    cluster_commit(c, 20, 64, 8);
    WAIT(c, all_agree, 40);
    cluster_end(c);
}

static void removing_the_leader_moves_leadership_first(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    cluster_commit(c, 20, 64, 8);
    struct node *old = cluster_wait_leader(c);
    replica_remove(old->replica, old->id, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_NOT_LEADER);
    assert_non_null(strstr(c->change_message, "transferred"));
    struct node *leader = cluster_wait_leader(c);
    assert_ptr_not_equal(leader, old);
    replica_remove(leader->replica, old->id, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_OK);
    node_stop(old);
    cluster_commit(c, 20, 64, 8);
    WAIT(c, all_agree, 40);
    cluster_end(c);
}

static unsigned refusals;
static unsigned grants;

static void count_answer(void *data, struct status s, const char *message)
{
    (void)data;
    (void)message;
    if (s.code == STATUS_LIMIT) {
        refusals++;
    } else {
        grants++;
    }
}

static bool all_changes_answered(struct cluster *c, uint64_t n)
{
    (void)c;
    return refusals + grants == n;
}

static void changes_over_the_limit_are_refused(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    struct node *leader = cluster_wait_leader(c);
    refusals = 0;
    grants = 0;
    for (int i = 0; i < REPLICA_CHANGES_MAX + 3; i++) {
        replica_remove(leader->replica, 9, count_answer, c);
    }
    WAIT(c, all_changes_answered, REPLICA_CHANGES_MAX + 3);
    assert_int_equal(refusals, 3);
    cluster_end(c);
}

static void malformed_messages_are_invalid_and_change_nothing(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    cluster_commit(c, 10, 8, 5);
    struct node *n = a_follower(c);
    struct replica_status before = replica_status(n->replica);
    static const uint8_t junk[][8] = {
        {0},
        {1},
        {1, 99, 0, 0},
        {2, 1, 0, 0},
        {1, 1, 0, 0, 1},
        {1, 2, 1, 0},
        {1, 3, 0, 0, 9, 9, 9, 9},
    };
    for (size_t i = 0; i < sizeof junk / sizeof junk[0]; i++) {
        for (size_t size = 0; size <= sizeof junk[0]; size++) {
            struct status s =
                replica_receive(n->replica, 9, "127.0.0.1:9", bytes_of(junk[i], size));
            assert_int_equal(s.code, STATUS_INVALID);
        }
    }
    assert_int_equal(replica_status(n->replica).term, before.term);
    cluster_commit(c, 10, 8, 5);
    WAIT(c, all_agree, 20);
    cluster_end(c);
}

static void a_vote_request_in_the_name_of_another_is_invalid(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    struct node *n = a_follower(c);
    uint8_t vote[4 + 33] = {1, 3, 0, 0, 99};
    vote[12] = 1; /* candidate 1 */
    uint64_t from = 2;
    struct status s = replica_receive(n->replica, n->id == 2 ? 3 : from, "127.0.0.1:9",
                                      bytes_of(vote, sizeof vote));
    assert_int_equal(s.code, STATUS_INVALID);
    cluster_end(c);
}

static void a_second_bootstrap_is_refused(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    struct replica_config config = c->config;
    config.folder = c->nodes[0].folder;
    config.id = 1;
    config.address = c->nodes[0].address;
    struct replica_member m = member_of(&c->nodes[0], REPLICA_VOTER);
    struct errmsg msg = {0};
    assert_int_equal(replica_bootstrap(&config, &m, 1, &msg).code, STATUS_EXISTS);
    cluster_end(c);
}

static void wrong_settings_are_invalid(void **state)
{
    (void)state;
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 1, 1);
    struct errmsg msg = {0};
    c->config.heartbeat_ms = 200;
    assert_int_equal(node_try_start(&c->nodes[0], &msg).code, STATUS_INVALID);
    assert_non_null(strstr(msg.text, "heartbeat"));
    c->config.heartbeat_ms = 20;
    node_start(&c->nodes[0]);
    cluster_end(c);
}

static void a_folder_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 1, 0);
    (void)snprintf(c->nodes[0].folder, sizeof c->nodes[0].folder, "%.200s/none", c->folder);
    struct errmsg msg = {0};
    assert_false(status_is_ok(node_try_start(&c->nodes[0], &msg)));
    assert_non_null(strstr(msg.text, "none"));
    cluster_end(c);
}

/* Overwrites the middle of every snapshot file of a node. */
static void damage_snapshots(const struct node *n)
{
    char command[CLUSTER_PATH_BYTES_MAX + 200];
    (void)snprintf(command, sizeof command,
                   "for f in %s/snapshot-*; do case $f in *.meta) ;; *) printf X | dd of=$f bs=1 "
                   "seek=5000 conv=notrunc status=none;; esac; done",
                   n->folder);
    assert_int_equal(system(command), 0);
}

static void a_damaged_snapshot_is_corrupt(void **state)
{
    (void)state;
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 1, 1);
    low_snapshots(c);
    node_start(&c->nodes[0]);
    cluster_commit(c, 200, 64, 8);
    node_stop(&c->nodes[0]);
    damage_snapshots(&c->nodes[0]);
    struct errmsg msg = {0};
    assert_int_equal(node_try_start(&c->nodes[0], &msg).code, STATUS_CORRUPT);
    assert_false(c->nodes[0].fatal); /* told by the return */
    cluster_end(c);
}

static bool is_fatal(struct cluster *c, uint64_t id)
{
    return c->nodes[id - 1].fatal;
}

static void limit_file_bytes(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes == 0 ? limit.rlim_max : bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_full_disk_stops_the_replica_before_anything_is_acknowledged(void **state)
{
    (void)state;
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 1, 1);
    struct node *n = &c->nodes[0];
    assert_true(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    limit_file_bytes(1 << 20); /* less than a log segment */
    node_start(n);
    WAIT(c, is_fatal, 1);
    limit_file_bytes(0);
    uint64_t ticket;
    assert_int_equal(node_propose(n, 1, 8, &ticket).code, STATUS_NOT_LEADER);
    assert_int_equal(replica_receive(n->replica, 2, "x:1", bytes_of("", 0)).code,
                     STATUS_UNAVAILABLE);
    assert_int_equal(n->roles, 0);
    node_stop(n);
    n->fatal = false;
    node_start(n);
    cluster_commit(c, 10, 8, 2);
    WAIT(c, all_agree, 10);
    assert_false(n->fatal);
    cluster_end(c);
}

static void a_snapshot_that_cannot_be_written_stops_the_replica(void **state)
{
    (void)state;
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 1, 1);
    low_snapshots(c);
    node_start(&c->nodes[0]);
    cluster_commit(c, 10, 64, 8);
    char away[CLUSTER_PATH_BYTES_MAX + 8];
    (void)snprintf(away, sizeof away, "%s.away", c->nodes[0].folder);
    assert_int_equal(rename(c->nodes[0].folder, away), 0);
    uint64_t ticket;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(node_propose(&c->nodes[0], 1, 8, &ticket).code, STATUS_OK);
    }
    WAIT(c, is_fatal, 1);
    cluster_end(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_replicas_elect_and_apply_the_same_sequence),
        cmocka_unit_test(a_single_voter_commits_alone),
        cmocka_unit_test(commands_of_every_length_come_back_unchanged),
        cmocka_unit_test(followers_refuse_proposals),
        cmocka_unit_test(followers_are_told_the_leader),
        cmocka_unit_test(oversized_commands_are_over_the_limit),
        cmocka_unit_test(proposals_over_the_limit_are_refused_and_the_rest_commit),
        cmocka_unit_test(a_new_leader_follows_a_crash_and_the_old_one_catches_up_from_disk),
        cmocka_unit_test(a_restart_of_all_keeps_everything),
        cmocka_unit_test(proposals_in_flight_at_the_loss_of_leadership_are_unknown),
        cmocka_unit_test(closing_answers_what_is_in_flight),
        cmocka_unit_test(lost_and_reordered_messages_change_nothing),
        cmocka_unit_test(a_wiped_member_leaves_joins_again_and_gets_a_snapshot_in_parts),
        cmocka_unit_test(a_lagging_member_gets_a_snapshot_over_a_bad_network),
        cmocka_unit_test(a_restart_restores_the_snapshot_and_the_rest_of_the_log),
        cmocka_unit_test(a_member_is_added_promoted_and_removed),
        cmocka_unit_test(adding_again_is_no_change_and_another_address_exists),
        cmocka_unit_test(changes_need_the_leader),
        cmocka_unit_test(removing_an_unknown_or_the_last_member_is_refused),
        cmocka_unit_test(leadership_moves_to_the_member_named),
        cmocka_unit_test(removing_the_leader_moves_leadership_first),
        cmocka_unit_test(changes_over_the_limit_are_refused),
        cmocka_unit_test(malformed_messages_are_invalid_and_change_nothing),
        cmocka_unit_test(a_vote_request_in_the_name_of_another_is_invalid),
        cmocka_unit_test(a_second_bootstrap_is_refused),
        cmocka_unit_test(wrong_settings_are_invalid),
        cmocka_unit_test(a_folder_that_is_not_there_is_an_error),
        cmocka_unit_test(a_damaged_snapshot_is_corrupt),
        cmocka_unit_test(a_full_disk_stops_the_replica_before_anything_is_acknowledged),
        cmocka_unit_test(a_snapshot_that_cannot_be_written_stops_the_replica),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
