/* command_restore on cores without anything around them. */
#include "common/mem.h"
#include "common/parts.h"
#include "proto/codec.h"
#include "scheduler/core/catalog.h"
#include "scheduler/core/core.h"
#include "scheduler/core/restore.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { JOBS = 5, PIECE = 40 };

static const struct core_time now = {.mono_us = 1000000, .unix_ms = 1900000000000};

static void on_send(void *data, uint64_t peer, const struct message *m)
{
    (void)data;
    (void)peer;
    (void)m;
}

static struct status on_propose(void *data, uint64_t ticket, const struct command *c)
{
    (void)data;
    (void)ticket;
    (void)c;
    return status_of(STATUS_UNSUPPORTED);
}

static uint64_t on_random(void *data)
{
    (void)data;
    return 7;
}

struct replica_core {
    struct core *core;
    uint64_t index;
};

static struct replica_core begin(void)
{
    const struct core_env env = {.send = on_send, .propose = on_propose, .random = on_random};
    const struct core_config config = {0};
    return (struct replica_core){.core = mem_must(core_new(&env, &config))};
}

static struct status apply(struct replica_core *r, struct command c, struct errmsg *msg)
{
    c.time_ms = now.unix_ms;
    c.by = "user/test";
    return core_apply(r->core, now, ++r->index, &c, msg);
}

static void deploy(struct replica_core *r, const char *name)
{
    struct function_spec spec = {.name = name,
                                 .runtime = "python",
                                 .handler = "main.py:handle",
                                 .cpu_millis = 100,
                                 .memory_bytes = 1 << 20,
                                 .scale_max = 1,
                                 .concurrency = 1,
                                 .queue_max = 10,
                                 .timeout_ms = 1000,
                                 .startup_timeout_ms = 1000,
                                 .durable_queue_max = 1000,
                                 .data_class = ""};
    const struct command c = {.type = COMMAND_DEPLOY,
                              .command_deploy = {.spec = &spec, .revision = {{1}}}};
    assert_int_equal(apply(r, c, NULL).code, STATUS_OK);
}

static void spawn(struct replica_core *r, uint64_t n)
{
    const struct command c = {.type = COMMAND_SPAWN,
                              .command_spawn = {.invocation = {.high = n, .low = 1},
                                                .function = "f",
                                                .tenant = "t",
                                                .key = "",
                                                .payload = bytes_of("payload", 7),
                                                .priority = SPAWN_PRIORITY_DEFAULT,
                                                .deadline_at_ms = now.unix_ms + 1000,
                                                .ttl_ms = 1000,
                                                .schedule = ""}};
    assert_int_equal(apply(r, c, NULL).code, STATUS_OK);
}

static void setting(struct replica_core *r, const char *key, const char *value)
{
    const struct command c = {.type = COMMAND_SETTING,
                              .command_setting = {.key = key, .value = value}};
    assert_int_equal(apply(r, c, NULL).code, STATUS_OK);
}

static void admit(struct replica_core *r, const char *name)
{
    const struct command c = {.type = COMMAND_NODE_ADMIT, .command_node_admit = {.name = name}};
    assert_int_equal(apply(r, c, NULL).code, STATUS_OK);
}

/* The encoded state, one behind the other. */
static void save(const struct replica_core *r, struct buffer *out)
{
    struct parts parts = {0};
    struct core_pin *pin = core_pin(r->core);
    assert_non_null(pin);
    assert_int_equal(core_pin_encode(pin, &parts).code, STATUS_OK);
    core_unpin(r->core, pin);
    out->size = 0;
    for (size_t i = 0; i < parts.count; i++) {
        assert_int_equal(buffer_append(out, parts.items[i].data, parts.items[i].size).code,
                         STATUS_OK);
    }
    parts_close(&parts);
}

/* A cluster worth saving: function f, JOBS invocations, a setting, at a high index. */
static void saved(struct buffer *out)
{
    struct replica_core r = begin();
    r.index = 5000;
    deploy(&r, "f");
    for (uint64_t i = 1; i <= JOBS; i++) {
        spawn(&r, i);
    }
    setting(&r, "tenant.t.weight", "3");
    admit(&r, "oldnode");
    save(&r, out);
    core_free(r.core);
}

static struct command piece(const struct buffer *state, uint64_t id, size_t offset, size_t size)
{
    return (struct command){.type = COMMAND_RESTORE,
                            .command_restore = {.restore = {.high = id, .low = id},
                                                .offset = offset,
                                                .total = state->size,
                                                .data = bytes_of(state->data + offset, size)}};
}

static size_t piece_size(const struct buffer *state, size_t offset)
{
    return state->size - offset < PIECE ? state->size - offset : PIECE;
}

/* Gives the pieces from offset on; the answer of the last. */
static struct status restore(struct replica_core *r, const struct buffer *state, uint64_t id,
                             size_t from, struct errmsg *msg)
{
    struct status s = status_ok();
    for (size_t at = from; at < state->size && status_is_ok(s); at += PIECE) {
        s = apply(r, piece(state, id, at, piece_size(state, at)), msg);
    }
    return s;
}

static unsigned jobs_of(const struct replica_core *r)
{
    return HASH_COUNT(core_catalog(r->core)->jobs.jobs);
}

static void all_pieces_bring_the_state_back(void **state)
{
    (void)state;
    struct buffer s = {0};
    saved(&s);
    struct replica_core r = begin();
    admit(&r, "newnode");
    setting(&r, "own", "1");
    setting(&r, "tenant.t.weight", "9");
    assert_int_equal(restore(&r, &s, 1, 0, NULL).code, STATUS_OK);
    const struct catalog *c = core_catalog(r.core);
    assert_non_null(catalog_function_find(c, "f"));
    assert_int_equal(jobs_of(&r), JOBS);
    assert_string_equal(catalog_setting_find(c, "tenant.t.weight", ""), "3");
    assert_string_equal(catalog_setting_find(c, "own", ""), "1");
    assert_non_null(catalog_node_find(c, "newnode"));
    assert_null(catalog_node_find(c, "oldnode"));
    assert_int_equal(c->index, r.index);
    core_free(r.core);
    buffer_close(&s);
}

static void restored_invocations_stand_before_new_ones(void **state)
{
    (void)state;
    struct buffer s = {0};
    saved(&s);
    struct replica_core r = begin();
    assert_int_equal(restore(&r, &s, 1, 0, NULL).code, STATUS_OK);
    spawn(&r, 100);
    const struct job_table *t = &core_catalog(r.core)->jobs;
    const struct job *last = jobs_find(t, (struct id128){.high = 100, .low = 1});
    uint64_t n = 0;
    for (const struct job *j = t->jobs; j != NULL && j != last; j = j->hh.next) {
        assert_int_equal(j->id.high, ++n);
        assert_true(j->index < last->index);
    }
    assert_int_equal(n, JOBS);
    core_free(r.core);
    buffer_close(&s);
}

static void a_cluster_with_functions_refuses(void **state)
{
    (void)state;
    struct buffer s = {0};
    struct errmsg msg = {.text = ""};
    saved(&s);
    struct replica_core r = begin();
    deploy(&r, "mine");
    assert_int_equal(restore(&r, &s, 1, 0, &msg).code, STATUS_CONFLICT);
    assert_non_null(strstr(msg.text, "empty cluster"));
    assert_null(catalog_function_find(core_catalog(r.core), "f"));
    core_free(r.core);
    buffer_close(&s);
}

static void a_deploy_ends_a_restore_under_way(void **state)
{
    (void)state;
    struct buffer s = {0};
    saved(&s);
    struct replica_core r = begin();
    assert_int_equal(apply(&r, piece(&s, 1, 0, PIECE), NULL).code, STATUS_OK);
    deploy(&r, "mine");
    assert_int_equal(restore(&r, &s, 1, PIECE, NULL).code, STATUS_CONFLICT);
    core_free(r.core);
    buffer_close(&s);
}

static void pieces_out_of_order_are_refused(void **state)
{
    (void)state;
    struct buffer s = {0};
    saved(&s);
    struct replica_core r = begin();
    assert_int_equal(apply(&r, piece(&s, 1, PIECE, PIECE), NULL).code, STATUS_CONFLICT);
    assert_int_equal(apply(&r, piece(&s, 1, 0, PIECE), NULL).code, STATUS_OK);
    assert_int_equal(apply(&r, piece(&s, 1, 2 * PIECE, PIECE), NULL).code, STATUS_CONFLICT);
    assert_int_equal(apply(&r, piece(&s, 2, PIECE, PIECE), NULL).code, STATUS_CONFLICT);
    assert_int_equal(restore(&r, &s, 1, PIECE, NULL).code, STATUS_OK);
    assert_int_equal(jobs_of(&r), JOBS);
    core_free(r.core);
    buffer_close(&s);
}

static void a_piece_given_again_is_fine(void **state)
{
    (void)state;
    struct buffer s = {0};
    saved(&s);
    struct replica_core r = begin();
    assert_int_equal(apply(&r, piece(&s, 1, 0, PIECE), NULL).code, STATUS_OK);
    assert_int_equal(apply(&r, piece(&s, 1, PIECE, PIECE), NULL).code, STATUS_OK);
    assert_int_equal(restore(&r, &s, 1, PIECE, NULL).code, STATUS_OK);
    assert_int_equal(jobs_of(&r), JOBS);
    core_free(r.core);
    buffer_close(&s);
}

static void a_new_restore_takes_the_place_of_one_under_way(void **state)
{
    (void)state;
    struct buffer s = {0};
    saved(&s);
    struct replica_core r = begin();
    assert_int_equal(apply(&r, piece(&s, 1, 0, PIECE), NULL).code, STATUS_OK);
    assert_int_equal(restore(&r, &s, 2, 0, NULL).code, STATUS_OK);
    assert_int_equal(jobs_of(&r), JOBS);
    core_free(r.core);
    buffer_close(&s);
}

static void a_broken_state_changes_nothing(void **state)
{
    (void)state;
    struct buffer s = {0};
    saved(&s);
    for (size_t i = 0; i < s.size; i += 3) {
        struct replica_core r = begin();
        admit(&r, "newnode");
        s.data[i] ^= 0xFF;
        struct status st = restore(&r, &s, 1, 0, NULL);
        const struct catalog *c = core_catalog(r.core);
        assert_non_null(catalog_node_find(c, "newnode"));
        if (!status_is_ok(st)) {
            assert_int_equal(HASH_COUNT(c->functions), 0);
            assert_int_equal(jobs_of(&r), 0);
        }
        s.data[i] ^= 0xFF;
        core_free(r.core);
    }
    buffer_close(&s);
}

static void sizes_beyond_the_limits_are_refused(void **state)
{
    (void)state;
    struct buffer s = {0};
    saved(&s);
    struct replica_core r = begin();
    struct command c = piece(&s, 1, 0, PIECE);
    c.command_restore.total = (uint64_t)RESTORE_BYTES_MAX + 1;
    assert_int_equal(apply(&r, c, NULL).code, STATUS_LIMIT);
    c = piece(&s, 1, 0, PIECE);
    c.command_restore.total = PIECE - 1;
    assert_int_equal(apply(&r, c, NULL).code, STATUS_INVALID);
    c = piece(&s, 1, 0, 0);
    assert_int_equal(apply(&r, c, NULL).code, STATUS_INVALID);
    core_free(r.core);
    buffer_close(&s);
}

/* A replica that gets the first pieces by a snapshot ends as the others do. */
static void pieces_travel_in_snapshots(void **state)
{
    (void)state;
    struct buffer s = {0}, snapshot = {0};
    saved(&s);
    struct replica_core a = begin(), b = begin();
    assert_int_equal(apply(&a, piece(&s, 1, 0, PIECE), NULL).code, STATUS_OK);
    assert_int_equal(apply(&a, piece(&s, 1, PIECE, PIECE), NULL).code, STATUS_OK);
    save(&a, &snapshot);
    assert_int_equal(core_restore(b.core, now, bytes_of(snapshot.data, snapshot.size), NULL).code,
                     STATUS_OK);
    b.index = a.index;
    assert_int_equal(restore(&a, &s, 1, 2 * (size_t)PIECE, NULL).code, STATUS_OK);
    assert_int_equal(restore(&b, &s, 1, 2 * (size_t)PIECE, NULL).code, STATUS_OK);
    assert_int_equal(jobs_of(&b), JOBS);
    assert_int_equal(catalog_digest(core_catalog(a.core)), catalog_digest(core_catalog(b.core)));
    core_free(a.core);
    core_free(b.core);
    buffer_close(&s);
    buffer_close(&snapshot);
}

static void a_pinned_snapshot_outlives_the_restore(void **state)
{
    (void)state;
    struct buffer s = {0};
    struct parts parts = {0};
    saved(&s);
    struct replica_core r = begin();
    assert_int_equal(apply(&r, piece(&s, 1, 0, PIECE), NULL).code, STATUS_OK);
    struct core_pin *pin = core_pin(r.core);
    assert_non_null(pin);
    assert_int_equal(restore(&r, &s, 1, PIECE, NULL).code, STATUS_OK);
    assert_int_equal(core_pin_encode(pin, &parts).code, STATUS_OK);
    core_unpin(r.core, pin);
    assert_int_equal(jobs_of(&r), JOBS);
    parts_close(&parts);
    core_free(r.core);
    buffer_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_pieces_bring_the_state_back),
        cmocka_unit_test(restored_invocations_stand_before_new_ones),
        cmocka_unit_test(a_cluster_with_functions_refuses),
        cmocka_unit_test(a_deploy_ends_a_restore_under_way),
        cmocka_unit_test(pieces_out_of_order_are_refused),
        cmocka_unit_test(a_piece_given_again_is_fine),
        cmocka_unit_test(a_new_restore_takes_the_place_of_one_under_way),
        cmocka_unit_test(a_broken_state_changes_nothing),
        cmocka_unit_test(sizes_beyond_the_limits_are_refused),
        cmocka_unit_test(pieces_travel_in_snapshots),
        cmocka_unit_test(a_pinned_snapshot_outlives_the_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
