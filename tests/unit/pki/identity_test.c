#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/net/identity.h"

#include <string.h>

#include <cmocka.h>

static struct status parse(const char *uri, struct identity *out, struct errmsg *msg)
{
    return identity_parse(uri, strlen(uri), out, msg);
}

static void every_role_survives_the_round_trip(void **state)
{
    (void)state;
    for (unsigned role = ROLE_SCHEDULER; role < ROLE_COUNT_; role++) {
        const struct identity id = {.cluster = {"c-1"}, .role = (enum role)role, .name = {"n.2_x"}};
        char uri[IDENTITY_URI_BYTES];
        identity_format(&id, uri);
        struct identity back;
        assert_int_equal(parse(uri, &back, NULL).code, STATUS_OK);
        assert_string_equal(back.cluster.text, "c-1");
        assert_int_equal(back.role, role);
        assert_string_equal(back.name.text, "n.2_x");
        assert_string_equal(back.serial, "");
        assert_int_equal(back.not_after_s, 0);
    }
}

static void format_has_the_documented_form(void **state)
{
    (void)state;
    const struct identity id = {.cluster = {"hive"}, .role = ROLE_AGENT, .name = {"n1"}};
    char uri[IDENTITY_URI_BYTES];
    identity_format(&id, uri);
    assert_string_equal(uri, "skep://hive/agent/n1");
}

static void longest_names_fit(void **state)
{
    (void)state;
    struct identity id = {.role = ROLE_SCHEDULER};
    memset(id.cluster.text, 'c', NAME_BYTES_MAX);
    memset(id.name.text, 'n', NAME_BYTES_MAX);
    char uri[IDENTITY_URI_BYTES];
    identity_format(&id, uri);
    struct identity back;
    assert_int_equal(parse(uri, &back, NULL).code, STATUS_OK);
    assert_string_equal(back.name.text, id.name.text);
}

static void anything_else_is_refused_and_out_is_untouched(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "skep:",
        "skep://",
        "skep://c",
        "skep://c/agent",
        "skep://c/agent/",
        "skep:///agent/n",
        "skep://c//n",
        "skep://c/king/n",
        "skep://c/none/n",
        "skep://c/Agent/n",
        "skep://c/agent/n/",
        "skep://c/agent/n/x",
        "skep://c/agent/n?x",
        "skep://c/agent/N",
        "skep://C/agent/n",
        "skep://c@d/agent/n",
        "SKEP://c/agent/n",
        "http://c/agent/n",
        " skep://c/agent/n",
        "skep://c/agent/../scheduler/s",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct identity id = {.role = ROLE_USER, .name = {"before"}};
        struct errmsg msg = {""};
        assert_int_equal(parse(wrong[i], &id, &msg).code, STATUS_INVALID);
        assert_int_equal(id.role, ROLE_USER);
        assert_string_equal(id.name.text, "before");
        assert_true(msg.text[0] != '\0');
    }
}

/* A NUL would let a short C text differ from what was signed. */
static void nul_inside_is_refused(void **state)
{
    (void)state;
    static const char uri[] = "skep://c/agent/n\0.evil";
    struct identity id;
    assert_int_equal(identity_parse(uri, sizeof uri - 1, &id, NULL).code, STATUS_INVALID);
    static const char role[] = "skep://c/agent\0/n";
    assert_int_equal(identity_parse(role, sizeof role - 1, &id, NULL).code, STATUS_INVALID);
}

static void names_over_the_limit_are_refused(void **state)
{
    (void)state;
    char uri[400] = "skep://c/agent/";
    memset(uri + strlen(uri), 'n', NAME_BYTES_MAX + 1);
    struct identity id;
    assert_int_equal(parse(uri, &id, NULL).code, STATUS_INVALID);
}

static void role_texts_parse_back(void **state)
{
    (void)state;
    for (unsigned role = ROLE_SCHEDULER; role < ROLE_COUNT_; role++) {
        enum role back = ROLE_NONE;
        assert_int_equal(role_parse(role_name((enum role)role), &back, NULL).code, STATUS_OK);
        assert_int_equal(back, role);
    }
    enum role untouched = ROLE_USER;
    struct errmsg msg = {""};
    assert_int_equal(role_parse("none", &untouched, &msg).code, STATUS_INVALID);
    assert_int_equal(role_parse("", &untouched, &msg).code, STATUS_INVALID);
    assert_int_equal(untouched, ROLE_USER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_role_survives_the_round_trip),
        cmocka_unit_test(format_has_the_documented_form),
        cmocka_unit_test(longest_names_fit),
        cmocka_unit_test(anything_else_is_refused_and_out_is_untouched),
        cmocka_unit_test(nul_inside_is_refused),
        cmocka_unit_test(names_over_the_limit_are_refused),
        cmocka_unit_test(role_texts_parse_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
