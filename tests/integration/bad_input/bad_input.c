/* Every file under manifest/, scheduler/, agent/ and context/ is refused by the loader of that kind
 * with exactly the message that its first line, a comment, says; FILE stands for the file's path. A
 * new case is a new file. */
#include "common/cleanup.h"
#include "common/config.h"
#include "common/manifest_load.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static struct status load_manifest(const char *path, struct errmsg *msg)
{
    struct manifest m;
    struct status s = manifest_load(path, &m, msg);
    if (status_is_ok(s)) {
        manifest_close(&m);
    }
    return s;
}

static struct status load_scheduler(const char *path, struct errmsg *msg)
{
    struct scheduler_config *c = NULL;
    struct status s = scheduler_config_load(path, &c, msg);
    scheduler_config_close(c);
    return s;
}

static struct status load_agent(const char *path, struct errmsg *msg)
{
    struct agent_config *c = NULL;
    struct status s = agent_config_load(path, &c, msg);
    agent_config_close(c);
    return s;
}

static struct status load_context(const char *path, struct errmsg *msg)
{
    struct context_config *c = NULL;
    struct status s = context_config_load(path, &c, msg);
    context_config_close(c);
    return s;
}

/* The first line without "# ", its FILE replaced by the path. */
static void expected_of(const char *path, char *out, size_t size)
{
    char line[ERRMSG_BYTES_MAX + 8];
    AUTO_FILE FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof line, f));
    line[strcspn(line, "\n")] = '\0';
    assert_int_equal(strncmp(line, "# FILE:", 7), 0);
    (void)snprintf(out, size, "%s%s", path, line + 6);
}

/* Returns the number of files that were not refused as they say, each printed. */
static unsigned refuse_all(const char *kind,
                           struct status (*load)(const char *path, struct errmsg *msg),
                           unsigned *files)
{
    char folder[512];
    (void)snprintf(folder, sizeof folder, "%s/%s", BAD_INPUT_FOLDER, kind);
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    unsigned wrong = 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] == '.') {
            continue;
        }
        char path[1024];
        (void)snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        char expected[2 * ERRMSG_BYTES_MAX];
        expected_of(path, expected, sizeof expected);
        struct errmsg msg = {""};
        struct status s = load(path, &msg);
        (*files)++;
        if (status_is_ok(s) || strcmp(msg.text, expected) != 0) {
            print_message("%s: %s\n  says    %s\n  and not %s\n", path, status_name(s.code),
                          msg.text, expected);
            wrong++;
        }
    }
    (void)closedir(dir);
    return wrong;
}

static void bad_manifests_are_refused_by_file_line_and_key(void **state)
{
    (void)state;
    unsigned files = 0;
    assert_int_equal(refuse_all("manifest", load_manifest, &files), 0);
    assert_true(files > 100);
}

static void bad_scheduler_configurations_are_refused_by_file_line_and_key(void **state)
{
    (void)state;
    unsigned files = 0;
    assert_int_equal(refuse_all("scheduler", load_scheduler, &files), 0);
    assert_true(files > 30);
}

static void bad_agent_configurations_are_refused_by_file_line_and_key(void **state)
{
    (void)state;
    unsigned files = 0;
    assert_int_equal(refuse_all("agent", load_agent, &files), 0);
    assert_true(files > 15);
}

static void bad_contexts_are_refused_by_file_line_and_key(void **state)
{
    (void)state;
    unsigned files = 0;
    assert_int_equal(refuse_all("context", load_context, &files), 0);
    assert_true(files > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_manifests_are_refused_by_file_line_and_key),
        cmocka_unit_test(bad_scheduler_configurations_are_refused_by_file_line_and_key),
        cmocka_unit_test(bad_agent_configurations_are_refused_by_file_line_and_key),
        cmocka_unit_test(bad_contexts_are_refused_by_file_line_and_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
