/* The table of walls, and the one in the documentation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/wall.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void a_wall_is_found_by_its_name(void **state)
{
    (void)state;
    enum wall wall = WALLS_COUNT_;
    struct errmsg msg = {""};
    assert_true(status_is_ok(wall_find_excusable("cgroup_io", &wall, &msg)));
    assert_int_equal(wall, WALL_CGROUP_IO);
    assert_string_equal(wall_row(wall)->name, "cgroup_io");
}

static void only_some_may_be_named_as_not_needed(void **state)
{
    (void)state;
    enum wall wall = WALL_UTS_NAMESPACE;
    struct errmsg msg = {""};
    assert_int_equal(wall_find_excusable("user_namespace", &wall, &msg).code, STATUS_DENIED);
    assert_non_null(strstr(msg.text, "always needed; these may be named: cgroup_namespace, landl"));
    assert_int_equal(wall_find_excusable("", &wall, &msg).code, STATUS_NOT_FOUND);
    assert_int_equal(wall_find_excusable("Landlock", &wall, &msg).code, STATUS_NOT_FOUND);
    assert_int_equal(wall, WALL_UTS_NAMESPACE);
}

static void sets_are_printed(void **state)
{
    (void)state;
    char text[WALLS_TEXT_BYTES];
    walls_format(0, text);
    assert_string_equal(text, "");
    walls_format(WALL_BIT(LANDLOCK) | WALL_BIT(CGROUP_IO), text);
    assert_string_equal(text, "landlock, cgroup_io");
    walls_format((UINT32_C(1) << WALLS_COUNT_) - 1, text); /* All fit. */
}

/* docs/security.md has each row of the code, in its order, and no other. */
static void the_documentation_has_the_table(void **state)
{
    (void)state;
    FILE *f = fopen(SECURITY_MD, "re");
    char line[1024];
    unsigned next = WALLS_COUNT_;
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL) {
        if (strcmp(line, "| wall | what it is for | how it is probed | may be left out |\n") == 0) {
            assert_non_null(fgets(line, sizeof line, f));
            next = 0;
            continue;
        }
        if (next < WALLS_COUNT_) {
            const struct wall_row *row = wall_row((enum wall)next);
            char expected[1024];
            (void)snprintf(expected, sizeof expected, "| `%s` | %s | %s | %s |\n", row->name,
                           row->purpose, row->probe, row->excusable ? "yes" : "no");
            assert_string_equal(line, expected);
            next++;
            if (next == WALLS_COUNT_) {
                assert_non_null(fgets(line, sizeof line, f));
                assert_string_equal(line, "\n");
                (void)fclose(f);
                return;
            }
        }
    }
    fail_msg("%s has no table of walls", SECURITY_MD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wall_is_found_by_its_name),
        cmocka_unit_test(only_some_may_be_named_as_not_needed),
        cmocka_unit_test(sets_are_printed),
        cmocka_unit_test(the_documentation_has_the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
