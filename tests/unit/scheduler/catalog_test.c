#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scheduler/core/catalog.h"

#include <stdio.h>
#include <string.h>

enum { HOUR_MS = 3600 * 1000 };

struct fixture {
    struct catalog catalog;
    uint64_t index;
    uint64_t time_ms; /* of the next command */
    struct errmsg msg;
    struct function_spec spec;
};

static int setup(void **state)
{
    struct fixture *f = mem_must(mem_zalloc(1, sizeof *f));
    f->time_ms = 1000;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    catalog_close(&f->catalog);
    mem_free(f);
    return 0;
}

static struct status apply(struct fixture *f, struct command cmd)
{
    cmd.time_ms = f->time_ms;
    f->msg.text[0] = '\0';
    return catalog_apply(&f->catalog, ++f->index, &cmd, &f->msg);
}

/* Applies what must be refused with this code and text, and changes nothing but index and time. */
static void refused(struct fixture *f, struct command cmd, enum status_code code, const char *text)
{
    struct arena a = {0};
    struct state before, after;
    assert_int_equal(catalog_export(&f->catalog, &a, &before).code, STATUS_OK);
    uint64_t index = f->catalog.index, time_ms = f->catalog.time_ms,
             digest = catalog_digest(&f->catalog);
    assert_int_equal(apply(f, cmd).code, code);
    if (strstr(f->msg.text, text) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", f->msg.text, text);
    }
    assert_int_equal(f->catalog.index, f->index);
    assert_int_equal(catalog_export(&f->catalog, &a, &after).code, STATUS_OK);
    f->catalog.index = index;
    f->catalog.time_ms = time_ms;
    assert_int_equal(catalog_digest(&f->catalog), digest);
    f->catalog.index = after.index;
    f->catalog.time_ms = after.time_ms;
    arena_close(&a);
}

static struct digest revision_n(unsigned n)
{
    struct digest d = {{(uint8_t)n, (uint8_t)(n >> 8), 7}};
    return d;
}

static struct command deploy(struct fixture *f, const char *name, unsigned revision,
                             uint64_t check_index)
{
    f->spec.name = name;
    return (struct command){.type = COMMAND_DEPLOY,
                            .command_deploy = {.spec = &f->spec,
                                               .revision = revision_n(revision),
                                               .check_index = check_index}};
}

static struct command rollback(const char *name, unsigned revision)
{
    return (struct command){
        .type = COMMAND_FUNCTION_ROLLBACK,
        .command_function_rollback = {.name = name, .revision = revision_n(revision)}};
}

static struct command named(enum command_type type, const char *name)
{
    struct command c = {.type = type};
    if (type == COMMAND_FUNCTION_DELETE) {
        c.command_function_delete.name = name;
    } else if (type == COMMAND_NODE_ADMIT) {
        c.command_node_admit.name = name;
    } else if (type == COMMAND_NODE_REMOVE) {
        c.command_node_remove.name = name;
    } else {
        c.command_scheduler_remove.name = name;
    }
    return c;
}

static struct command node_set(const char *name, uint32_t mode)
{
    return (struct command){.type = COMMAND_NODE_SET,
                            .command_node_set = {.name = name, .mode = mode}};
}

static struct command token_create(const char *id, const char *role, const char *name,
                                   uint64_t expires_ms)
{
    return (struct command){
        .type = COMMAND_TOKEN_CREATE,
        .command_token_create = {.id = id, .role = role, .name = name, .expires_ms = expires_ms}};
}

static struct command token_use(const char *id, const char *role, const char *name)
{
    return (struct command){.type = COMMAND_TOKEN_USE,
                            .command_token_use = {.id = id, .role = role, .name = name}};
}

static struct command revoke(const char *what, const char *reason)
{
    return (struct command){.type = COMMAND_REVOKE,
                            .command_revoke = {.what = what, .reason = reason}};
}

static struct command setting(const char *key, const char *value)
{
    return (struct command){.type = COMMAND_SETTING,
                            .command_setting = {.key = key, .value = value}};
}

static struct command scheduler_put(const char *name, const char *address)
{
    return (struct command){.type = COMMAND_SCHEDULER_PUT,
                            .command_scheduler_put = {.name = name, .address = address}};
}

static int revisions(const struct fixture *f, const char *name)
{
    struct catalog_revision *r;
    int count;
    DL_COUNT(catalog_function_find(&f->catalog, name)->revisions, r, count);
    return count;
}

#define APPLY(f, cmd) assert_int_equal(apply(f, cmd).code, STATUS_OK)

/* One of everything. */
static void populate(struct fixture *f)
{
    APPLY(f, deploy(f, "alpha", 1, 0));
    APPLY(f, deploy(f, "alpha", 2, 0));
    APPLY(f, deploy(f, "beta", 3, 0));
    APPLY(f, rollback("alpha", 1));
    APPLY(f, named(COMMAND_NODE_ADMIT, "n1"));
    APPLY(f, named(COMMAND_NODE_ADMIT, "n2"));
    APPLY(f, node_set("n2", NODE_MODE_DRAINING));
    APPLY(f, token_create("t1", "agent", "", f->time_ms + HOUR_MS));
    APPLY(f, token_create("t2", "user", "ann", f->time_ms + HOUR_MS));
    APPLY(f, token_use("t1", "agent", "n9"));
    APPLY(f, revoke("agent/n3", "stolen"));
    APPLY(f, setting("a", "1"));
    APPLY(f, scheduler_put("s1", "127.0.0.1:1"));
}

/* ---- Functions ---- */

static void deploying_makes_a_function_and_its_revision(void **state)
{
    struct fixture *f = *state;
    f->spec.runtime = "python";
    f->time_ms = 5000;
    APPLY(f, deploy(f, "thumb", 1, 0));
    const struct catalog_function *fn = catalog_function_find(&f->catalog, "thumb");
    assert_non_null(fn);
    const struct catalog_revision *r = catalog_current(fn);
    assert_string_equal(r->spec.runtime, "python");
    assert_int_equal(r->index, 1);
    assert_int_equal(r->time_ms, 5000);
    assert_int_equal(fn->index, 1);
}

static void a_revision_keeps_its_own_copy_of_the_spec(void **state)
{
    struct fixture *f = *state;
    char handler[] = "old";
    f->spec.handler = handler;
    APPLY(f, deploy(f, "thumb", 1, 0));
    memcpy(handler, "new", 3);
    assert_string_equal(catalog_current(catalog_function_find(&f->catalog, "thumb"))->spec.handler,
                        "old");
}

static void deploying_again_makes_the_newest_current(void **state)
{
    struct fixture *f = *state;
    APPLY(f, deploy(f, "thumb", 1, 0));
    APPLY(f, deploy(f, "thumb", 2, 0));
    const struct catalog_function *fn = catalog_function_find(&f->catalog, "thumb");
    const struct digest second = revision_n(2);
    assert_int_equal(digest_compare(&fn->current, &second), 0);
    assert_int_equal(revisions(f, "thumb"), 2);
    APPLY(f,
          deploy(f, "thumb", 1, 0)); /* The same code: no third revision, but the newest again. */
    assert_int_equal(revisions(f, "thumb"), 2);
    const struct digest first = revision_n(1);
    assert_int_equal(digest_compare(&fn->revisions->prev->id, &first), 0);
    assert_int_equal(fn->index, 3);
}

static void a_deploy_at_another_index_is_a_conflict(void **state)
{
    struct fixture *f = *state;
    refused(f, deploy(f, "thumb", 1, 5), STATUS_CONFLICT,
            "function thumb was changed at index 0, not at 5");
    APPLY(f, deploy(f, "thumb", 1, 0)); /* index 2 */
    refused(f, deploy(f, "thumb", 2, 1), STATUS_CONFLICT, "changed at index 2, not at 1");
    APPLY(f, deploy(f, "thumb", 2, 2));
    refused(f, deploy(f, "thumb", 3, 2), STATUS_CONFLICT, "changed at index 4, not at 2");
}

static void a_bad_function_name_is_refused(void **state)
{
    struct fixture *f = *state;
    refused(f, deploy(f, "Not A Name", 1, 0), STATUS_INVALID, "function name");
}

static void revisions_over_the_limit_are_forgotten_oldest_first(void **state)
{
    struct fixture *f = *state;
    for (unsigned n = 1; n <= CATALOG_REVISIONS_MAX; n++) {
        APPLY(f, deploy(f, "thumb", n, 0));
    }
    assert_int_equal(revisions(f, "thumb"), CATALOG_REVISIONS_MAX);
    const struct catalog_function *fn = catalog_function_find(&f->catalog, "thumb");
    const struct digest first = revision_n(1), second = revision_n(2);
    assert_non_null(catalog_revision_find(fn, &first));
    APPLY(f, deploy(f, "thumb", 100, 0));
    assert_int_equal(revisions(f, "thumb"), CATALOG_REVISIONS_MAX);
    assert_null(catalog_revision_find(fn, &first));
    assert_non_null(catalog_revision_find(fn, &second));
}

static void the_current_revision_is_there_even_when_it_was_the_oldest(void **state)
{
    struct fixture *f = *state;
    for (unsigned n = 1; n <= CATALOG_REVISIONS_MAX; n++) {
        APPLY(f, deploy(f, "thumb", n, 0));
    }
    APPLY(f, rollback("thumb", 1));
    APPLY(f, deploy(f, "thumb", 100, 0)); /* Forgets revision 1, the current one until now. */
    const struct digest newest = revision_n(100);
    assert_int_equal(
        digest_compare(&catalog_current(catalog_function_find(&f->catalog, "thumb"))->id, &newest),
        0);
}

static void rolling_back_makes_an_older_revision_current(void **state)
{
    struct fixture *f = *state;
    APPLY(f, deploy(f, "thumb", 1, 0));
    APPLY(f, deploy(f, "thumb", 2, 0));
    APPLY(f, rollback("thumb", 1));
    const struct catalog_function *fn = catalog_function_find(&f->catalog, "thumb");
    const struct digest first = revision_n(1);
    assert_int_equal(digest_compare(&fn->current, &first), 0);
    assert_int_equal(fn->index, 3);
    refused(f, rollback("thumb", 9), STATUS_NOT_FOUND, "function thumb has no such revision");
    refused(f, rollback("none", 1), STATUS_NOT_FOUND, "no function is named none");
}

static void deleting_takes_a_function_away(void **state)
{
    struct fixture *f = *state;
    APPLY(f, deploy(f, "thumb", 1, 0));
    APPLY(f, named(COMMAND_FUNCTION_DELETE, "thumb"));
    assert_null(catalog_function_find(&f->catalog, "thumb"));
    refused(f, named(COMMAND_FUNCTION_DELETE, "thumb"), STATUS_NOT_FOUND,
            "no function is named thumb");
}

static void functions_over_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    char name[16];
    for (unsigned n = 0; n < CATALOG_FUNCTIONS_MAX; n++) {
        (void)snprintf(name, sizeof name, "f%u", n);
        APPLY(f, deploy(f, name, 1, 0));
    }
    refused(f, deploy(f, "more", 1, 0), STATUS_LIMIT, "the cluster has 10000 functions");
    APPLY(f, deploy(f, "f77", 2, 0)); /* One that is there may change. */
}

/* ---- Nodes ---- */

static void nodes_are_admitted_set_and_removed(void **state)
{
    struct fixture *f = *state;
    APPLY(f, named(COMMAND_NODE_ADMIT, "n1"));
    APPLY(f, named(COMMAND_NODE_ADMIT, "n1")); /* Twice is once. */
    assert_int_equal(HASH_COUNT(f->catalog.nodes), 1);
    assert_int_equal(catalog_node_find(&f->catalog, "n1")->index, 1);
    APPLY(f, node_set("n1", NODE_MODE_CORDONED));
    assert_int_equal(catalog_node_find(&f->catalog, "n1")->mode, NODE_MODE_CORDONED);
    assert_int_equal(catalog_node_find(&f->catalog, "n1")->index, 3);
    APPLY(f, named(COMMAND_NODE_REMOVE, "n1"));
    assert_null(catalog_node_find(&f->catalog, "n1"));
}

static void commands_on_unknown_nodes_are_refused(void **state)
{
    struct fixture *f = *state;
    refused(f, named(COMMAND_NODE_ADMIT, "No Name"), STATUS_INVALID, "node name");
    refused(f, node_set("n1", NODE_MODE_NORMAL), STATUS_NOT_FOUND, "no node is named n1");
    refused(f, named(COMMAND_NODE_REMOVE, "n1"), STATUS_NOT_FOUND, "no node is named n1");
    APPLY(f, named(COMMAND_NODE_ADMIT, "n1"));
    refused(f, node_set("n1", NODE_MODE_DRAINING + 1), STATUS_INVALID, "node mode 3 is not known");
}

static void nodes_over_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    char name[16];
    for (unsigned n = 0; n < CATALOG_NODES_MAX; n++) {
        (void)snprintf(name, sizeof name, "n%u", n);
        APPLY(f, named(COMMAND_NODE_ADMIT, name));
    }
    refused(f, named(COMMAND_NODE_ADMIT, "more"), STATUS_LIMIT, "the cluster has 5000 nodes");
}

/* ---- Tokens ---- */

static void a_token_is_used_once(void **state)
{
    struct fixture *f = *state;
    APPLY(f, token_create("t1", "agent", "", f->time_ms + 1));
    refused(f, token_create("t1", "agent", "", f->time_ms + 1), STATUS_EXISTS, "token t1 exists");
    APPLY(f, token_use("t1", "agent", "n1"));
    assert_string_equal(catalog_token_find(&f->catalog, "t1")->used_by, "n1");
    refused(f, token_use("t1", "agent", "n1"), STATUS_DENIED, "join token t1 was used by n1");
}

static void a_token_is_for_its_role_and_name(void **state)
{
    struct fixture *f = *state;
    APPLY(f, token_create("t1", "agent", "n1", f->time_ms + 1));
    refused(f, token_use("t1", "scheduler", "n1"), STATUS_DENIED,
            "join token t1 is for role agent");
    refused(f, token_use("t1", "agent", "n2"), STATUS_DENIED, "join token t1 is for name n1");
    refused(f, token_use("t9", "agent", "n1"), STATUS_DENIED,
            "join token t9 is not known or has expired");
    APPLY(f, token_use("t1", "agent", "n1"));
}

static void a_token_expires_after_its_time(void **state)
{
    struct fixture *f = *state;
    APPLY(f, token_create("t1", "agent", "", 2000));
    APPLY(f, token_create("t2", "agent", "", 2000));
    f->time_ms = 2000;
    APPLY(f, token_use("t1", "agent", "n1"));
    f->time_ms = 2001;
    refused(f, token_use("t2", "agent", "n1"), STATUS_DENIED, "is not known or has expired");
    f->time_ms = 1000; /* The clock of another proposer is behind: time does not go back. */
    refused(f, token_use("t2", "agent", "n1"), STATUS_DENIED, "is not known or has expired");
    assert_int_equal(f->catalog.time_ms, 2001);
}

static void tokens_over_the_limit_are_refused_until_some_expire(void **state)
{
    struct fixture *f = *state;
    char id[16];
    for (unsigned n = 0; n < CATALOG_TOKENS_MAX; n++) {
        (void)snprintf(id, sizeof id, "t%u", n);
        APPLY(f, token_create(id, "agent", "", 2000));
    }
    refused(f, token_create("more", "agent", "", 9000), STATUS_LIMIT, "1000 join tokens are open");
    f->time_ms = 2001;
    APPLY(f, token_create("more", "agent", "", 9000));
    assert_int_equal(HASH_COUNT(f->catalog.tokens), 1);
}

static void token_texts_over_their_limits_are_refused(void **state)
{
    struct fixture *f = *state;
    char text[CATALOG_TEXT_BYTES_MAX + 1];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    refused(f, token_create(text, "agent", "", 9000), STATUS_LIMIT,
            "token id: 256 bytes, at most 255");
    refused(f, token_create("t", text, "", 9000), STATUS_LIMIT, "token role");
    refused(f, token_create("t", "agent", text, 9000), STATUS_LIMIT, "token name");
    APPLY(f, token_create("t", "agent", "", 9000));
    refused(f, token_use("t", "agent", text), STATUS_LIMIT, "joiner's name");
    text[CATALOG_TEXT_BYTES_MAX - 1] = '\0';
    APPLY(f, token_create(text, "agent", "", 9000));
}

/* ---- Revocations ---- */

static void a_revocation_holds_by_serial_and_by_role_and_name(void **state)
{
    struct fixture *f = *state;
    assert_false(catalog_is_revoked(&f->catalog, "", "agent", "n1"));
    APPLY(f, revoke("0badcafe", "stolen"));
    APPLY(f, revoke("agent/n1", "gone"));
    assert_true(catalog_is_revoked(&f->catalog, "0badcafe", "user", "ann"));
    assert_true(catalog_is_revoked(&f->catalog, "77", "agent", "n1"));
    assert_true(catalog_is_revoked(&f->catalog, "", "agent", "n1"));
    assert_false(catalog_is_revoked(&f->catalog, "77", "user", "n1"));
    assert_false(catalog_is_revoked(&f->catalog, "77", "agent", "n11"));
    assert_false(catalog_is_revoked(&f->catalog, "0badcaf", "user", "ann"));
}

static void revoking_twice_keeps_the_first_reason(void **state)
{
    struct fixture *f = *state;
    APPLY(f, revoke("agent/n1", "first"));
    APPLY(f, revoke("agent/n1", "second"));
    assert_int_equal(HASH_COUNT(f->catalog.revoked), 1);
    assert_string_equal(f->catalog.revoked->reason, "first");
}

static void revocations_over_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    char what[16];
    for (unsigned n = 0; n < CATALOG_REVOKED_MAX; n++) {
        (void)snprintf(what, sizeof what, "%x", n);
        APPLY(f, revoke(what, ""));
    }
    refused(f, revoke("more", ""), STATUS_LIMIT, "10000 revocations are held");
    char text[CATALOG_TEXT_BYTES_MAX + 1];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    catalog_close(&f->catalog);
    f->index = 0;
    refused(f, revoke(text, ""), STATUS_LIMIT, "what to revoke");
    refused(f, revoke("a", text), STATUS_LIMIT, "reason");
}

/* ---- Settings and schedulers ---- */

static void settings_are_put_and_replaced(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(catalog_setting_find(&f->catalog, "a", "default"), "default");
    APPLY(f, setting("a", "1"));
    APPLY(f, setting("a", "2"));
    assert_string_equal(catalog_setting_find(&f->catalog, "a", "default"), "2");
    assert_int_equal(HASH_COUNT(f->catalog.settings), 1);
}

static void settings_over_their_limits_are_refused(void **state)
{
    struct fixture *f = *state;
    char text[CATALOG_TEXT_BYTES_MAX + 1], key[16];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    refused(f, setting(text, ""), STATUS_LIMIT, "setting: 256 bytes");
    refused(f, setting("a", text), STATUS_LIMIT, "a: 256 bytes");
    for (unsigned n = 0; n < CATALOG_SETTINGS_MAX; n++) {
        (void)snprintf(key, sizeof key, "k%u", n);
        APPLY(f, setting(key, "v"));
    }
    refused(f, setting("more", "v"), STATUS_LIMIT, "setting: there are 256");
    APPLY(f, setting("k7", "w"));
}

static void schedulers_are_put_and_removed(void **state)
{
    struct fixture *f = *state;
    char name[16];
    refused(f, named(COMMAND_SCHEDULER_REMOVE, "s1"), STATUS_NOT_FOUND, "no scheduler is named s1");
    for (unsigned n = 0; n < CATALOG_SCHEDULERS_MAX; n++) {
        (void)snprintf(name, sizeof name, "s%u", n);
        APPLY(f, scheduler_put(name, "127.0.0.1:1"));
    }
    refused(f, scheduler_put("more", "x"), STATUS_LIMIT, "scheduler: there are 16");
    APPLY(f, scheduler_put("s1", "127.0.0.1:2"));
    APPLY(f, named(COMMAND_SCHEDULER_REMOVE, "s1"));
    assert_int_equal(HASH_COUNT(f->catalog.schedulers), CATALOG_SCHEDULERS_MAX - 1);
}

/* ---- Snapshot and digest ---- */

static void what_is_exported_imports_to_the_same_digest(void **state)
{
    struct fixture *f = *state;
    populate(f);
    struct arena a = {0};
    struct state s;
    assert_int_equal(catalog_export(&f->catalog, &a, &s).code, STATUS_OK);
    struct catalog copy = {0};
    assert_int_equal(catalog_import(&copy, &s, &f->msg).code, STATUS_OK);
    assert_int_equal(catalog_digest(&copy), catalog_digest(&f->catalog));
    assert_int_equal(copy.index, f->catalog.index);
    const struct digest first = revision_n(1);
    assert_int_equal(digest_compare(&catalog_function_find(&copy, "alpha")->current, &first), 0);
    /* And both go on the same way. */
    struct command next = deploy(f, "alpha", 9, 0);
    next.time_ms = 999999;
    assert_int_equal(catalog_apply(&copy, f->index + 1, &next, NULL).code, STATUS_OK);
    assert_int_equal(catalog_apply(&f->catalog, f->index + 1, &next, NULL).code, STATUS_OK);
    assert_int_equal(catalog_digest(&copy), catalog_digest(&f->catalog));
    catalog_close(&copy);
    arena_close(&a);
}

static void importing_replaces_what_was_there(void **state)
{
    struct fixture *f = *state;
    populate(f);
    const struct state empty = {.index = 3, .time_ms = 4};
    struct catalog expected = {.index = 3, .time_ms = 4};
    assert_int_equal(catalog_import(&f->catalog, &empty, &f->msg).code, STATUS_OK);
    assert_int_equal(catalog_digest(&f->catalog), catalog_digest(&expected));
}

static void exporting_without_room_is_told(void **state)
{
    struct fixture *f = *state;
    populate(f);
    bool done = false;
    for (size_t max = 16; max < (64 << 10) && !done; max += 16) {
        struct arena a = {.bytes_max = max};
        struct state s;
        struct status exported = catalog_export(&f->catalog, &a, &s);
        done = status_is_ok(exported);
        assert_true(done || exported.code == STATUS_NOMEM);
        arena_close(&a);
    }
    assert_true(done);
}

/* Imports the state of `populate` after `change` and expects CORRUPT, an empty catalog and this
 * text. */
static void corrupt(struct fixture *f, void (*change)(struct state *s, const char *text),
                    const char *expected)
{
    char text[CATALOG_TEXT_BYTES_MAX + 1];
    memset(text, 'X', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct arena a = {0};
    struct state s;
    assert_int_equal(catalog_export(&f->catalog, &a, &s).code, STATUS_OK);
    change(&s, text);
    struct catalog copy = {0};
    struct errmsg msg = {.text = ""};
    assert_int_equal(catalog_import(&copy, &s, &msg).code, STATUS_CORRUPT);
    if (strstr(msg.text, expected) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", msg.text, expected);
    }
    struct catalog empty = {0};
    assert_int_equal(catalog_digest(&copy), catalog_digest(&empty));
    arena_close(&a);
}

static void bad_function(struct state *s, const char *text)
{
    s->functions[0].name = text;
}
static void no_current(struct state *s, const char *text)
{
    (void)text;
    s->functions[1].current.v[0] ^= 1;
}
static void bad_node(struct state *s, const char *text)
{
    s->nodes[1].name = text;
}
static void bad_token(struct state *s, const char *text)
{
    s->tokens[1].used_by = text;
}
static void bad_revoked(struct state *s, const char *text)
{
    s->revoked[0].reason = text;
}
static void bad_setting(struct state *s, const char *text)
{
    s->settings[0].value = text;
}
static void bad_scheduler(struct state *s, const char *text)
{
    s->schedulers[0].key = text;
}

static void a_corrupt_state_is_refused_and_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    populate(f);
    corrupt(f, bad_function, "function name");
    corrupt(f, no_current, "function beta lacks its current revision");
    corrupt(f, bad_node, "node name");
    corrupt(f, bad_token, "token used by: 256 bytes");
    corrupt(f, bad_revoked, "reason: 256 bytes");
    corrupt(f, bad_setting, "a: 256 bytes");
    corrupt(f, bad_scheduler, "scheduler: 256 bytes");
}

/* Every field that catalog.h lists: changed alone, the digest is another one, and the first
 * again when changed back. */
#define DIFFERS(place)                                                                             \
    do {                                                                                           \
        uint64_t was = catalog_digest(&f->catalog);                                                \
        *(unsigned char *)(void *)(place) ^= 1;                                                    \
        if (catalog_digest(&f->catalog) == was) {                                                  \
            fail_msg("the digest does not see " #place);                                           \
        }                                                                                          \
        *(unsigned char *)(void *)(place) ^= 1;                                                    \
        assert_int_equal(catalog_digest(&f->catalog), was);                                        \
    } while (0)

static void the_digest_sees_every_field(void **state)
{
    struct fixture *f = *state;
    f->spec.runtime = "python";
    populate(f);
    struct catalog *c = &f->catalog;
    DIFFERS(&c->index);
    DIFFERS(&c->time_ms);
    DIFFERS(c->functions->name);
    DIFFERS(&c->functions->current);
    DIFFERS(&c->functions->index);
    DIFFERS(&c->functions->revisions->id);
    DIFFERS(&c->functions->revisions->index);
    DIFFERS(&c->functions->revisions->time_ms);
    DIFFERS(&c->functions->revisions->spec.scale_max);
    DIFFERS((uintptr_t)c->functions->revisions->spec.runtime);
    DIFFERS(c->nodes->name);
    DIFFERS(&c->nodes->mode);
    DIFFERS(&c->nodes->index);
    DIFFERS(c->tokens->id);
    DIFFERS(c->tokens->role);
    DIFFERS(c->tokens->name);
    DIFFERS(&c->tokens->expires_ms);
    DIFFERS(c->tokens->used_by);
    DIFFERS(c->revoked->what);
    DIFFERS(c->revoked->reason);
    DIFFERS(&c->revoked->time_ms);
    DIFFERS(c->settings->key);
    DIFFERS(c->settings->value);
    DIFFERS(c->schedulers->key);
    DIFFERS(c->schedulers->value);
}

static void the_digest_tells_tables_apart(void **state)
{
    struct fixture *f = *state;
    APPLY(f, setting("s1", "127.0.0.1:1"));
    uint64_t as_setting = catalog_digest(&f->catalog);
    catalog_close(&f->catalog);
    f->index = 0;
    APPLY(f, scheduler_put("s1", "127.0.0.1:1"));
    assert_int_not_equal(catalog_digest(&f->catalog), as_setting);
}

static void the_same_commands_give_the_same_digest(void **state)
{
    struct fixture *f = *state;
    struct fixture other = {.time_ms = f->time_ms};
    populate(f);
    populate(&other);
    assert_int_equal(catalog_digest(&other.catalog), catalog_digest(&f->catalog));
    catalog_close(&other.catalog);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(deploying_makes_a_function_and_its_revision),
        TEST(a_revision_keeps_its_own_copy_of_the_spec),
        TEST(deploying_again_makes_the_newest_current),
        TEST(a_deploy_at_another_index_is_a_conflict),
        TEST(a_bad_function_name_is_refused),
        TEST(revisions_over_the_limit_are_forgotten_oldest_first),
        TEST(the_current_revision_is_there_even_when_it_was_the_oldest),
        TEST(rolling_back_makes_an_older_revision_current),
        TEST(deleting_takes_a_function_away),
        TEST(functions_over_the_limit_are_refused),
        TEST(nodes_are_admitted_set_and_removed),
        TEST(commands_on_unknown_nodes_are_refused),
        TEST(nodes_over_the_limit_are_refused),
        TEST(a_token_is_used_once),
        TEST(a_token_is_for_its_role_and_name),
        TEST(a_token_expires_after_its_time),
        TEST(tokens_over_the_limit_are_refused_until_some_expire),
        TEST(token_texts_over_their_limits_are_refused),
        TEST(a_revocation_holds_by_serial_and_by_role_and_name),
        TEST(revoking_twice_keeps_the_first_reason),
        TEST(revocations_over_the_limit_are_refused),
        TEST(settings_are_put_and_replaced),
        TEST(settings_over_their_limits_are_refused),
        TEST(schedulers_are_put_and_removed),
        TEST(what_is_exported_imports_to_the_same_digest),
        TEST(importing_replaces_what_was_there),
        TEST(exporting_without_room_is_told),
        TEST(a_corrupt_state_is_refused_and_leaves_nothing),
        TEST(the_digest_sees_every_field),
        TEST(the_digest_tells_tables_apart),
        TEST(the_same_commands_give_the_same_digest),
    };
    return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
