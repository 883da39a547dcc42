/* The users of cells belong to nobody. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/walls_check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/skep-users-XXXXXX";
static char paths[4][64];
static const struct user_files files = {paths[0], paths[1], paths[2], paths[3]};

static void put(size_t file, const char *text)
{
    FILE *f = fopen(paths[file], "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state)
{
    (void)state;
    static const char *const names[] = {"passwd", "group", "subuid", "subgid"};
    memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < 4; i++) {
        (void)snprintf(paths[i], sizeof paths[i], "%s/%s", folder, names[i]);
    }
    put(0, "root:x:0:0::/root:/bin/sh\nada:x:3000:100::/home/ada:/bin/sh\nbroken\n");
    put(1, "users:x:100:\nwide:x:5000:\n");
    put(2, "ada:100000:65536\nnone:1:0\nbroken:x\n");
    put(3, "ada:300000:10\n");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        (void)unlink(paths[i]);
    }
    return rmdir(folder);
}

static void expect(uint32_t first, uint32_t count, const char *who)
{
    struct errmsg msg = {""};
    struct status s = cell_users_check(first, count, &files, &msg);
    if (who == NULL) {
        assert_string_equal(msg.text, "");
        assert_true(status_is_ok(s));
        return;
    }
    assert_int_equal(s.code, STATUS_CONFLICT);
    if (strstr(msg.text, who) == NULL) {
        fail_msg("%s", msg.text);
    }
}

static void a_range_without_users_is_free(void **state)
{
    (void)state;
    expect(2000000000, 65536, NULL);
    expect(3001, 1000, NULL);
    expect(165536, 1000, NULL);
    expect(99000, 1000, NULL);
}

static void a_user_a_group_or_a_subordinate_range_is_in_the_way(void **state)
{
    (void)state;
    expect(3000, 1, "overlap with ada of ");
    expect(2000, 1001, "passwd, who has 3000 to 3000; configure cells: {uids: ");
    expect(4999, 2, "overlap with wide of ");
    expect(165535, 10, "subuid, who has 100000 to 165535");
    expect(99999, 2, "overlap with ada of ");
    expect(300009, 1, "subgid, who has 300000 to 300009");
}

static void files_that_are_not_there_name_nobody(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(unlink(paths[i]), 0);
    }
    expect(3000, 1000000, NULL);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_range_without_users_is_free),
        T(a_user_a_group_or_a_subordinate_range_is_in_the_way),
        T(files_that_are_not_there_name_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
