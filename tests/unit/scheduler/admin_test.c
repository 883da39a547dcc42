#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/codec.h"
#include "tests/unit/scheduler/world.h"

#include <endian.h>

#include <stdio.h>
#include <string.h>

struct outcome_seen {
    unsigned count;
    enum status_code code;
    char message[256];
    uint64_t index;
};

static void on_done(void *data, struct status s, const char *message, uint64_t index)
{
    struct outcome_seen *seen = data;
    seen->count++;
    seen->code = s.code;
    seen->index = index;
    (void)snprintf(seen->message, sizeof seen->message, "%s", message);
}

static const struct command admit_n5 = {.type = COMMAND_NODE_ADMIT,
                                        .command_node_admit = {.name = "n5"}};

/* ---- Actions ---- */

static void an_action_answers_with_the_index_of_its_change(void **state)
{
    struct world *w = *state;
    user_admin(w, 7, "node.cordon", "n1", NULL, NULL);
    expect(w, "u1 reply 7 OK\n");
    assert_int_equal(w->last.index, w->index);
    assert_int_equal(catalog_node_find(core_catalog(w->core), "n1")->mode, NODE_MODE_CORDONED);
    user_admin(w, 8, "node.drain", "n1", NULL, NULL);
    assert_int_equal(catalog_node_find(core_catalog(w->core), "n1")->mode, NODE_MODE_DRAINING);
    user_admin(w, 9, "node.uncordon", "n1", NULL, NULL);
    assert_int_equal(catalog_node_find(core_catalog(w->core), "n1")->mode, NODE_MODE_NORMAL);
}

static void what_the_catalog_refuses_is_told(void **state)
{
    struct world *w = *state;
    user_admin(w, 7, "node.cordon", "n9", NULL, NULL);
    expect(w, "u1 reply 7 NOT_FOUND no node is named n9\n");
    user_admin(w, 8, "node.remove", "n9", NULL, NULL);
    expect(w, "u1 reply 8 NOT_FOUND no node is named n9\n");
    user_admin(w, 9, "function.delete", "none", NULL, NULL);
    expect(w, "u1 reply 9 NOT_FOUND no function is named none\n");
}

static void an_unknown_action_is_invalid(void **state)
{
    struct world *w = *state;
    user_admin(w, 7, "node.explode", "n1", NULL, NULL);
    expect(w, "u1 reply 7 INVALID no such action: node.explode\n");
}

static void revoking_reaches_the_catalog_and_the_agents(void **state)
{
    struct world *w = *state;
    user_admin(w, 7, "ca.revoke", "agent/n3", "reason", "stolen");
    expect(w, "a1 lead term=5 -agent/n3\nu1 reply 7 OK\n");
    assert_true(catalog_is_revoked(core_catalog(w->core), "", "agent", "n3"));
    user_admin(w, 8, "ca.revoke", "", NULL, NULL);
    expect(w, "u1 reply 8 INVALID name what to revoke: a certificate's serial, or role/name\n");
}

static void a_rollback_goes_to_the_revision_before_or_to_a_prefix(void **state)
{
    struct world *w = *state;
    world_deploy(w, "f", 2);
    world_deploy(w, "f", 3);
    user_admin(w, 7, "function.rollback", "f", NULL, NULL);
    expect(w, "u1 reply 7 OK\n");
    const struct catalog_function *f = catalog_function_find(core_catalog(w->core), "f");
    struct digest expected = world_revision(2);
    assert_int_equal(digest_compare(&f->current, &expected), 0);
    user_admin(w, 8, "function.rollback", "f", "revision", "01ab");
    expect(w, "u1 reply 8 OK\n");
    expected = world_revision(1);
    assert_int_equal(digest_compare(&f->current, &expected), 0);
}

static void rollbacks_that_name_no_single_revision_are_refused(void **state)
{
    struct world *w = *state;
    user_admin(w, 6, "function.rollback", "f", NULL, NULL);
    expect(
        w,
        "u1 reply 6 NOT_FOUND function f has no earlier revision; see skep function history f\n");
    world_deploy(w, "f", 2);
    user_admin(w, 7, "function.rollback", "f", "revision", "0");
    expect(w, "u1 reply 7 INVALID revision 0 is ambiguous; give more digits\n");
    user_admin(w, 8, "function.rollback", "f", "revision", "ff");
    expect(w,
           "u1 reply 8 NOT_FOUND function f has no such revision; see skep function history f\n");
    user_admin(w, 9, "function.rollback", "none", NULL, NULL);
    expect(w, "u1 reply 9 NOT_FOUND no function is named none\n");
}

/* ---- Proposals ---- */

static void a_proposal_ends_with_the_outcome_of_its_apply(void **state)
{
    struct world *w = *state;
    struct outcome_seen seen = {0};
    core_submit(w->core, w->now, &admit_n5, on_done, &seen);
    assert_int_equal(seen.count, 0);
    world_commit(w);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.code, STATUS_OK);
    assert_int_equal(seen.index, w->index);
    const struct command set = {.type = COMMAND_NODE_SET, .command_node_set = {.name = "n9"}};
    core_submit(w->core, w->now, &set, on_done, &seen);
    world_commit(w);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.code, STATUS_NOT_FOUND);
    assert_string_equal(seen.message, "no node is named n9");
}

static void a_proposal_is_stamped_with_the_time(void **state)
{
    struct world *w = *state;
    struct outcome_seen seen = {0};
    w->now.unix_ms += 12345;
    core_submit(w->core, w->now, &admit_n5, on_done, &seen);
    world_commit(w);
    assert_int_equal(core_catalog(w->core)->time_ms, w->now.unix_ms);
}

static void a_follower_refuses_proposals_at_once(void **state)
{
    struct world *w = *state;
    struct outcome_seen seen = {0};
    core_submit(w->core, w->now, &admit_n5, on_done, &seen);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.code, STATUS_NOT_LEADER);
}

static void a_proposal_that_cannot_be_made_ends_at_once(void **state)
{
    struct world *w = *state;
    struct outcome_seen seen = {0};
    w->propose_code = STATUS_LIMIT;
    core_submit(w->core, w->now, &admit_n5, on_done, &seen);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.code, STATUS_LIMIT);
}

static void proposals_over_the_limit_are_refused(void **state)
{
    struct world *w = *state;
    struct outcome_seen seen = {0};
    w->hold = true;
    for (unsigned n = 0; n < CORE_PENDING_MAX; n++) {
        core_submit(w->core, w->now, &admit_n5, on_done, &seen);
    }
    assert_int_equal(seen.count, 0);
    user_admin(w, 7, "node.cordon", "n1", NULL, NULL);
    expect(w, "u1 reply 7 LIMIT too many changes are in flight; try again\n");
    world_commit(w);
    assert_int_equal(seen.count, CORE_PENDING_MAX);
}

static void a_proposal_whose_fate_is_not_known_says_so(void **state)
{
    struct world *w = *state;
    w->hold = true;
    user_admin(w, 7, "node.cordon", "n1", NULL, NULL);
    core_proposed(w->core, w->now, w->pending[0].ticket, status_of(STATUS_UNKNOWN), 0);
    expect(w, "u1 reply 7 UNKNOWN leadership was lost; the change may or may not have happened\n");
    core_proposed(w->core, w->now, w->pending[0].ticket, status_ok(), 1); /* Once is enough. */
    core_proposed(w->core, w->now, 999999, status_ok(), 1);
    expect(w, "");
}

static void an_outcome_that_was_not_kept_is_unknown(void **state)
{
    struct world *w = *state;
    struct outcome_seen seen = {0};
    w->hold = true;
    core_submit(w->core, w->now, &admit_n5, on_done, &seen);
    core_proposed(w->core, w->now, w->pending[0].ticket, status_ok(), w->index + 500);
    assert_int_equal(seen.code, STATUS_UNKNOWN);
}

/* ---- Questions ---- */

static void functions_are_listed_with_what_they_do_now(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_query(w, 7, "functions", "");
    expect(w, "u1 records 7 OK rows=1\n");
    expect_records(w, "name=f runtime=python revision=01ab");
    expect_records(w, "instances=1 ready=1 starting=0 queued=0");
}

static void a_function_is_shown_with_its_spec(void **state)
{
    struct world *w = *state;
    user_query(w, 7, "function", "f");
    expect(w, "u1 records 7 OK rows=1\n");
    expect_records(w, "handler=f.py:f cpu_millis=100 memory_bytes=100");
    expect_records(w, "scale_max=10 concurrency=1 idle_ms=1000 queue_max=2 timeout_ms=10000 "
                      "startup_timeout_ms=5000");
    user_query(w, 8, "function", "none");
    expect(w, "u1 records 8 NOT_FOUND rows=0 no function is named none\n");
}

static void a_history_lists_revisions_oldest_first(void **state)
{
    struct world *w = *state;
    world_deploy(w, "f", 2);
    user_query(w, 7, "history", "f");
    expect(w, "u1 records 7 OK rows=2\n");
    expect_records(w, "current=false\nrevision=02ab");
    expect_records(w, "current=true\n");
    user_query(w, 8, "history", "none");
    expect(w, "u1 records 8 NOT_FOUND rows=0 no function is named none\n");
}

/* The node's state as `nodes` shows it. */
static void node_is(struct world *w, const char *expected)
{
    char text[64];
    user_query(w, 7, "nodes", "");
    (void)snprintf(text, sizeof text, "name=n1 state=%s ", expected);
    expect_records(w, text);
    forget_lines(w);
}

static void a_node_is_shown_in_each_of_its_states(void **state)
{
    struct world *w = *state;
    node_is(w, "ready");
    user_admin(w, 1, "node.cordon", "n1", NULL, NULL);
    node_is(w, "cordoned");
    user_admin(w, 1, "node.drain", "n1", NULL, NULL);
    node_is(w, "draining");
    user_admin(w, 1, "node.uncordon", "n1", NULL, NULL);
    agent_close(w, 1);
    node_is(w, "suspect");
    agent_open(w, 1);
    node_is(w, "joining");
    agent_close(w, 1);
    world_run(w, 4000);
    node_is(w, "lost");
}

static void a_node_is_shown_with_its_measures_and_labels(void **state)
{
    struct world *w = *state;
    agent_open(w, 2);
    struct pair labels[] = {{.key = "zone", .value = "a"}, {.key = "disk", .value = "ssd"}};
    const struct node_register r = {.labels = labels, .labels_count = 2};
    agent_register(w, 2, &r);
    const struct message beat = {.type = MESSAGE_HEARTBEAT,
                                 .heartbeat = {.cpu_used_millis = 11,
                                               .memory_used_bytes = 22,
                                               .load1_milli = 33,
                                               .psi_cpu_milli = 44,
                                               .psi_memory_milli = 55,
                                               .psi_io_milli = 66,
                                               .disk_free_bytes = 77}};
    core_receive(w->core, w->now, 102, &beat);
    forget_lines(w);
    user_query(w, 7, "node", "n2");
    expect(w, "u1 records 7 OK rows=1\n");
    expect_records(w,
                   "cpu_millis=1000 cpu_reserved_millis=0 cpu_used_millis=11 memory_bytes=1000 "
                   "memory_reserved_bytes=0 memory_used_bytes=22 load1_milli=33 psi_cpu_milli=44 "
                   "psi_memory_milli=55 psi_io_milli=66 disk_free_bytes=77 labels=zone=a,disk=ssd");
    user_query(w, 8, "node", "n9");
    expect(w, "u1 records 8 NOT_FOUND rows=0 no node is named n9; see skep node list\n");
}

static struct gpu_report gpu_named(const char *uuid)
{
    return (struct gpu_report){.uuid = uuid,
                               .model = "H100",
                               .pci = "0:1",
                               .parent = "",
                               .profile = "",
                               .why = "",
                               .known = GPU_KNOWS_MEMORY | GPU_KNOWS_POWER,
                               .memory_bytes = 80,
                               .memory_used_bytes = 5,
                               .power_mw = 1500};
}

/* Node n2, whose agent says this of its GPUs. */
static void have_gpus(struct world *w, struct gpu_inventory *i)
{
    agent_open(w, 2);
    const struct node_register r = {.gpu = i, .gpu_count = 1};
    agent_register(w, 2, &r);
    forget_lines(w);
}

static void beat_gpus(struct world *w, struct gpu_inventory *i)
{
    const struct message beat = {.type = MESSAGE_HEARTBEAT,
                                 .heartbeat = {.gpu = i, .gpu_count = i != NULL ? 1 : 0}};
    core_receive(w->core, w->now, 102, &beat);
    forget_lines(w);
}

static void gpus_are_listed_with_what_is_known(void **state)
{
    struct world *w = *state;
    struct gpu_report g[] = {gpu_named("GPU-1"), gpu_named("MIG-a")};
    g[0].mig = true;
    g[0].health = GPU_HEALTH_FAILED;
    g[0].why = "Xid 79";
    g[0].known |= GPU_KNOWS_XID;
    g[0].xid = 79;
    g[0].xid_count = 2;
    g[0].xid_time_ms = 9;
    g[1].parent = "GPU-1";
    g[1].profile = "1g.5gb";
    g[1].mig_index = 3;
    struct gpu_inventory i = {.state = GPU_STATE_OK,
                              .why = "",
                              .driver = "550",
                              .cuda = "12.4",
                              .gpus = g,
                              .gpus_count = 2};
    have_gpus(w, &i);
    user_query(w, 7, "gpus", "n2");
    expect(w, "u1 records 7 OK rows=2\n");
    expect_records(w, "node=n2 gpu=0 uuid=GPU-1 parent= model=H100 mig_profile= mig=true pci=0:1 "
                      "simulated=false health=failed why=Xid 79 memory_bytes=80 "
                      "memory_used_bytes=5 power_w=2 xid_count=2 xid=79 xid_time_ms=9");
    expect_records(w, "gpu=0:3 uuid=MIG-a parent=GPU-1 model=H100 mig_profile=1g.5gb mig=false");
    user_query(w, 8, "node", "n2");
    expect_records(w, "gpu_count=1 gpu_model=H100 gpu_state=ok gpu_why= gpu_driver=550 "
                      "gpu_cuda=12.4");
    user_query(w, 9, "nodes", "");
    expect_records(w, "gpu_count=1 gpu_model=H100");
    forget_lines(w);
    user_query(w, 10, "gpus", "");
    expect(w, "u1 records 10 OK rows=2\n");
    user_query(w, 11, "gpus", "n9");
    expect(w, "u1 records 11 NOT_FOUND rows=0 no node is named n9; see skep node list\n");
}

static void a_heartbeat_without_gpus_leaves_them_and_one_with_them_replaces_them(void **state)
{
    struct world *w = *state;
    struct gpu_report g[] = {gpu_named("GPU-1"), gpu_named("GPU-2")};
    struct gpu_inventory i = {.state = GPU_STATE_OK, .gpus = g, .gpus_count = 2};
    have_gpus(w, &i);
    beat_gpus(w, NULL);
    user_query(w, 7, "gpus", "n2");
    expect(w, "u1 records 7 OK rows=2\n");
    i.gpus_count = 1;
    beat_gpus(w, &i);
    user_query(w, 8, "gpus", "n2");
    expect(w, "u1 records 8 OK rows=1\n");
}

static void gpus_of_a_silent_driver_are_of_unknown_health(void **state)
{
    struct world *w = *state;
    struct gpu_report g = gpu_named("GPU-1");
    struct gpu_inventory i = {
        .state = GPU_STATE_SILENT, .why = "not answering since then", .gpus = &g, .gpus_count = 1};
    have_gpus(w, &i);
    user_query(w, 7, "gpus", "n2");
    expect_records(w, "health=unknown why=not answering since then");
}

static void the_walls_of_a_node_are_shown(void **state)
{
    struct world *w = *state;
    static struct text missing[] = {{.text = "landlock"}, {.text = "cgroup_io"}};
    const struct node_register rows[] = {
        {.walls_said = true},
        {.walls_said = true, .walls_not_needed = missing, .walls_not_needed_count = 2},
        {.walls_said = false}, /* an agent of before */
    };
    static const char *const nodes[] = {"n2", "n3", "n4"};
    static const char *const says[] = {"walls=all ", "walls=not needed: landlock, cgroup_io ",
                                       "walls=unknown "};
    for (unsigned i = 0; i < 3; i++) {
        agent_open(w, 2 + i);
        agent_register(w, 2 + i, &rows[i]);
        forget_lines(w);
        user_query(w, 7 + i, "node", nodes[i]);
        expect_records(w, says[i]);
    }
}

static void more_walls_than_are_known_are_cut(void **state)
{
    struct world *w = *state;
    static struct text many[64];
    for (size_t i = 0; i < 64; i++) {
        many[i].text = "a_wall_of_a_version_of_after_with_a_name_of_more_than_forty_bytes";
    }
    const struct node_register r = {
        .walls_said = true, .walls_not_needed = many, .walls_not_needed_count = 64};
    agent_open(w, 2);
    agent_register(w, 2, &r);
    forget_lines(w);
    user_query(w, 7, "node", "n2");
    expect_records(w, "walls=not needed: a_wall_of_a_version_of_after_with_a_name, a_wall");
}

static void gpus_go_with_their_node(void **state)
{
    struct world *w = *state;
    struct gpu_report g = gpu_named("GPU-1");
    struct gpu_inventory i = {
        .state = GPU_STATE_SIMULATED, .driver = "550", .gpus = &g, .gpus_count = 1};
    have_gpus(w, &i);
    user_query(w, 7, "nodes", "");
    expect_records(w, "gpu_count=1 gpu_model=H100 (simulated)");
    agent_close(w, 2);
    user_query(w, 8, "gpus", "n2"); /* suspect: it may return */
    forget_lines(w);
    world_run(w, 4000);
    forget_lines(w);
    user_query(w, 9, "gpus", "n2");
    expect(w, "u1 records 9 OK rows=0\n");
    user_query(w, 10, "node", "n2");
    expect_records(w, "gpu_count=0 gpu_model=");
}

static void an_agent_without_gpus_in_its_registration_has_none(void **state)
{
    struct world *w = *state;
    struct gpu_report g = gpu_named("GPU-1");
    struct gpu_inventory i = {.state = GPU_STATE_OK, .gpus = &g, .gpus_count = 1};
    have_gpus(w, &i);
    agent_close(w, 2);
    agent_open(w, 2);
    agent_register_empty(w, 2);
    forget_lines(w);
    user_query(w, 7, "gpus", "n2");
    expect(w, "u1 records 7 OK rows=0\n");
}

static void what_an_agent_says_of_gpus_is_bounded_and_printable(void **state)
{
    struct world *w = *state;
    static struct gpu_report g[GPUS_MAX + 1];
    char model[2 * GPU_TEXT_BYTES];
    memset(model, 'x', sizeof model - 1);
    model[sizeof model - 1] = '\0';
    for (size_t k = 0; k <= GPUS_MAX; k++) {
        g[k] = gpu_named("\033[2J\n");
        g[k].model = model;
    }
    struct gpu_inventory i = {.state = 99, .gpus = g, .gpus_count = GPUS_MAX + 1};
    have_gpus(w, &i);
    user_query(w, 7, "gpus", "n2");
    expect(w, "u1 records 7 OK rows=64\n");
    expect_records(w, "uuid=?[2J? parent= ");
    model[GPU_TEXT_BYTES - 1] = '\0';
    char part[2 * GPU_TEXT_BYTES];
    (void)snprintf(part, sizeof part, "model=%s mig_profile=", model);
    expect_records(w, part);
    user_query(w, 8, "node", "n2");
    expect_records(w, "gpu_state=unknown");
}

static void instances_are_listed_with_their_usage(void **state)
{
    struct world *w = *state;
    have_warm(w);
    struct instance_usage usage = {.instance = instance_n(w, 1),
                                   .memory_bytes = 5,
                                   .memory_peak_bytes = 6,
                                   .cpu_us = 7,
                                   .processes = 1};
    const struct message beat = {.type = MESSAGE_HEARTBEAT,
                                 .heartbeat = {.instances = &usage, .instances_count = 1}};
    core_receive(w->core, w->now, 101, &beat);
    user_query(w, 7, "instances", "");
    expect(w, "u1 records 7 OK rows=1\n");
    expect_records(
        w, "function=f node=n1 state=ready running=0 concurrency=1 startup_us=777 memory_bytes=5 "
           "memory_peak_bytes=6 cpu_us=7 revision=01ab");
    user_query(w, 8, "instances", "f");
    expect(w, "u1 records 8 OK rows=1\n");
    user_query(w, 9, "instances", "g");
    expect(w, "u1 records 9 OK rows=0\n");
}

static void tokens_and_revocations_are_listed(void **state)
{
    struct world *w = *state;
    const struct command token = {
        .type = COMMAND_TOKEN_CREATE,
        .command_token_create = {
            .id = "t1", .role = "agent", .name = "n5", .expires_ms = UINT64_C(1) << 60}};
    const struct command use = {.type = COMMAND_TOKEN_USE,
                                .command_token_use = {.id = "t1", .role = "agent", .name = "n5"}};
    assert_int_equal(world_apply(w, &token).code, STATUS_OK);
    assert_int_equal(world_apply(w, &use).code, STATUS_OK);
    user_query(w, 7, "tokens", "");
    expect(w, "u1 records 7 OK rows=1\n");
    expect_records(w, "token=t1 role=agent name=n5 expires_ms=1152921504606846976 used_by=n5");
    user_admin(w, 8, "ca.revoke", "user/ann", "reason", "left");
    user_query(w, 9, "revoked", "");
    expect_records(w, "revoked=user/ann reason=left time_ms=");
}

static void an_unknown_question_is_invalid(void **state)
{
    struct world *w = *state;
    user_query(w, 7, "weather", "");
    expect(w, "u1 records 7 INVALID rows=0 no such question: weather\n");
}

static void decisions_are_kept_and_found_by_subject(void **state)
{
    struct world *w = *state;
    have_warm(w);
    user_query(w, 7, "why", "f");
    expect(w, "u1 records 7 OK rows=1\n");
    expect_records(w, "subject=f decision=start an instance on n1: 1 queued, 1 starting, 0 ready");
    user_query(w, 8, "why", "n1");
    expect_records(w, "subject=n1 decision=registered with 0 instances");
    user_query(w, 9, "why", "");
    expect_records(w, "subject=cluster decision=s1 leads in term 5");
}

static void the_journal_keeps_the_newest_and_no_more_than_its_limit(void **state)
{
    struct world *w = *state;
    for (unsigned n = 0; n < CORE_JOURNAL_MAX; n++) {
        agent_close(w, 1); /* one entry each time */
        agent_open(w, 1);
    }
    forget_lines(w);
    user_query(w, 7, "why", "");
    char line[64];
    (void)snprintf(line, sizeof line, "u1 records 7 OK rows=%d\n", CORE_JOURNAL_MAX);
    expect(w, line);
    assert_null(strstr(w->records, "leads in term"));
}

/* ---- State in and out ---- */

static void a_state_goes_to_another_core_and_its_functions_run_there(void **state)
{
    struct world *w = *state;
    struct buffer whole = {0};
    world_snapshot(w, &whole);
    const struct core_config config = {0};
    struct world *other = world_new(&config);
    const struct bytes bytes = bytes_of(whole.data, whole.size);
    assert_int_equal(core_restore(other->core, other->now, bytes, NULL).code, STATUS_OK);
    buffer_close(&whole);
    other->index = w->index;
    assert_int_equal(catalog_digest(core_catalog(other->core)),
                     catalog_digest(core_catalog(w->core)));
    world_lead(other, WORLD_TERM);
    user_open(other, 1);
    agent_up(other, 1);
    user_call(other, 1, 1, "f", "", 0);
    expect(other, "a1 start i1 f\n");
    void *its_state = other;
    (void)world_teardown(&its_state);
}

static void a_bad_state_leaves_an_empty_core(void **state)
{
    struct world *w = *state;
    struct state_node node = {.name = "Not A Name"};
    const struct state bad = {.nodes = &node, .nodes_count = 1};
    struct errmsg msg = {.text = ""};
    struct buffer frame = {0}, whole = {0};
    assert_int_equal(state_encode(&bad, &frame).code, STATUS_OK);
    const uint32_t size = htole32((uint32_t)frame.size);
    assert_int_equal(buffer_append(&whole, &size, sizeof size).code, STATUS_OK);
    assert_int_equal(buffer_append(&whole, frame.data, frame.size).code, STATUS_OK);
    const struct bytes bytes = bytes_of(whole.data, whole.size);
    assert_int_equal(core_restore(w->core, w->now, bytes, &msg).code, STATUS_CORRUPT);
    buffer_close(&frame);
    buffer_close(&whole);
    assert_non_null(strstr(msg.text, "node name"));
    assert_null(core_catalog(w->core)->functions);
    core_check(w->core);
}

#define LED(name) cmocka_unit_test_setup_teardown(name, world_setup_led, world_teardown)
#define FRESH(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LED(an_action_answers_with_the_index_of_its_change),
        LED(what_the_catalog_refuses_is_told),
        LED(an_unknown_action_is_invalid),
        LED(revoking_reaches_the_catalog_and_the_agents),
        LED(a_rollback_goes_to_the_revision_before_or_to_a_prefix),
        LED(rollbacks_that_name_no_single_revision_are_refused),
        LED(a_proposal_ends_with_the_outcome_of_its_apply),
        LED(a_proposal_is_stamped_with_the_time),
        FRESH(a_follower_refuses_proposals_at_once),
        LED(a_proposal_that_cannot_be_made_ends_at_once),
        LED(proposals_over_the_limit_are_refused),
        LED(a_proposal_whose_fate_is_not_known_says_so),
        LED(an_outcome_that_was_not_kept_is_unknown),
        LED(functions_are_listed_with_what_they_do_now),
        LED(a_function_is_shown_with_its_spec),
        LED(a_history_lists_revisions_oldest_first),
        LED(a_node_is_shown_in_each_of_its_states),
        LED(a_node_is_shown_with_its_measures_and_labels),
        LED(gpus_are_listed_with_what_is_known),
        LED(a_heartbeat_without_gpus_leaves_them_and_one_with_them_replaces_them),
        LED(gpus_of_a_silent_driver_are_of_unknown_health),
        LED(gpus_go_with_their_node),
        LED(the_walls_of_a_node_are_shown),
        LED(more_walls_than_are_known_are_cut),
        LED(an_agent_without_gpus_in_its_registration_has_none),
        LED(what_an_agent_says_of_gpus_is_bounded_and_printable),
        LED(instances_are_listed_with_their_usage),
        LED(tokens_and_revocations_are_listed),
        LED(an_unknown_question_is_invalid),
        LED(decisions_are_kept_and_found_by_subject),
        LED(the_journal_keeps_the_newest_and_no_more_than_its_limit),
        LED(a_state_goes_to_another_core_and_its_functions_run_there),
        FRESH(a_bad_state_leaves_an_empty_core),
    };
    return cmocka_run_group_tests_name("admin and query", tests, NULL, NULL);
}
