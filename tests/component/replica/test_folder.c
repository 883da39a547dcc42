/* The folder of a member that is stopped: wiped, cut off in its first start, recovered. */
#include "scheduler/replica/folder.h"
#include "tests/component/replica/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static struct cluster cluster;

/* One member that has committed something, and is down. */
static struct node *stopped(void)
{
    struct cluster *c = &cluster;
    cluster_open(c, 1, 1);
    node_start(&c->nodes[0]);
    cluster_commit(c, 20, 64, 8);
    node_stop(&c->nodes[0]);
    return &c->nodes[0];
}

static void path_in(const struct node *n, const char *name, char out[CLUSTER_PATH_BYTES_MAX * 2])
{
    (void)snprintf(out, CLUSTER_PATH_BYTES_MAX * 2, "%s/%s", n->folder, name);
}

static bool has(const struct node *n, const char *name)
{
    char path[CLUSTER_PATH_BYTES_MAX * 2];
    path_in(n, name, path);
    return access(path, F_OK) == 0;
}

static void make_file(const struct node *n, const char *name)
{
    char path[CLUSTER_PATH_BYTES_MAX * 2];
    path_in(n, name, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    (void)close(fd);
}

static void make_folder(const struct node *n, const char *name)
{
    char path[CLUSTER_PATH_BYTES_MAX * 2];
    path_in(n, name, path);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void remove_if_there(const struct node *n, const char *name)
{
    char path[CLUSTER_PATH_BYTES_MAX * 2];
    path_in(n, name, path);
    assert_true(unlink(path) == 0 || errno == ENOENT);
}

static size_t files_in(const struct node *n)
{
    size_t count = 0;
    DIR *d = opendir(n->folder);
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        count += e->d_name[0] == '.' ? 0 : 1;
    }
    (void)closedir(d);
    return count;
}

static void assert_lock_is_free(const struct node *n)
{
    struct errmsg msg = {0};
    int lock = -1;
    assert_int_equal(folder_lock(n->folder, &lock, &msg).code, STATUS_OK);
    (void)close(lock);
}

static void a_wiped_folder_holds_nothing_and_waits(void **state)
{
    (void)state;
    struct node *n = stopped();
    struct errmsg msg = {0};
    make_file(n, FOLDER_BALLAST);
    assert_false(replica_folder_waits(n->folder));
    assert_false(replica_folder_empty(n->folder));
    assert_int_equal(replica_wipe(n->folder, &msg).code, STATUS_OK);
    assert_true(replica_folder_waits(n->folder));
    assert_true(replica_folder_empty(n->folder));
    assert_int_equal(files_in(n), 2);
    assert_true(has(n, FOLDER_LOCK) && has(n, FOLDER_REJOIN));
    /* Again it changes nothing. */
    assert_int_equal(replica_wipe(n->folder, &msg).code, STATUS_OK);
    assert_int_equal(files_in(n), 2);
    assert_lock_is_free(n);
    cluster_close(&cluster);
}

static void a_folder_in_use_is_not_wiped(void **state)
{
    (void)state;
    struct node *n = stopped();
    struct errmsg msg = {0};
    node_start(n);
    assert_int_equal(replica_wipe(n->folder, &msg).code, STATUS_CONFLICT);
    assert_false(replica_folder_waits(n->folder));
    assert_false(replica_folder_empty(n->folder));
    cluster_close(&cluster);
}

static void wiping_removes_what_a_first_start_left(void **state)
{
    (void)state;
    struct node *n = stopped();
    struct errmsg msg = {0};
    make_folder(n, FOLDER_STAGING);
    make_file(n, FOLDER_STAGING "/metadata1");
    make_file(n, FOLDER_STAGING "/.probe");
    assert_int_equal(replica_wipe(n->folder, &msg).code, STATUS_OK);
    assert_false(has(n, FOLDER_STAGING));
    cluster_close(&cluster);
}

static void what_cannot_be_removed_is_told(void **state)
{
    (void)state;
    struct node *n = stopped();
    struct errmsg msg = {0};
    make_folder(n, "strange");
    assert_false(status_is_ok(replica_wipe(n->folder, &msg)));
    assert_non_null(strstr(msg.text, n->folder));
    assert_true(replica_folder_waits(n->folder)); /* and will not found a cluster */
    assert_lock_is_free(n);
    cluster_close(&cluster);
}

static void no_folder_waits_for_nothing(void **state)
{
    (void)state;
    struct errmsg msg = {0};
    assert_false(replica_folder_waits("/nonexistent"));
    assert_true(replica_folder_empty("/nonexistent"));
    assert_int_equal(replica_wipe("/nonexistent", &msg).code, STATUS_NOT_FOUND);
}

/* A wipe that was cut off leaves a log without metadata, which a staging folder excuses only on a
 * member's first start. */
static void a_staging_folder_excuses_no_wiped_member(void **state)
{
    (void)state;
    struct node *n = stopped();
    struct errmsg msg = {0};
    make_folder(n, FOLDER_STAGING);
    remove_if_there(n, "metadata1");
    remove_if_there(n, "metadata2");
    assert_int_equal(folder_check(n->folder, &msg).code, STATUS_OK);
    make_file(n, FOLDER_REJOIN);
    assert_int_equal(folder_check(n->folder, &msg).code, STATUS_CORRUPT);
    assert_non_null(strstr(msg.text, "metadata1"));
    assert_int_equal(replica_wipe(n->folder, &msg).code, STATUS_OK);
    assert_int_equal(folder_check(n->folder, &msg).code, STATUS_OK);
    cluster_close(&cluster);
}

static void a_damaged_folder_is_not_recovered(void **state)
{
    (void)state;
    struct node *n = stopped();
    char path[CLUSTER_PATH_BYTES_MAX * 2];
    node_find_file(n, "0000000000000002-", path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    uint64_t bytes = UINT64_MAX;
    assert_int_equal(pwrite(fd, &bytes, sizeof bytes, 8), sizeof bytes); /* its first checksums */
    (void)close(fd);
    const struct replica_config config = {.folder = n->folder, .id = n->id, .address = n->address};
    struct replica_member m = {.id = n->id, .role = REPLICA_VOTER};
    (void)snprintf(m.address, sizeof m.address, "%s", n->address);
    struct errmsg msg = {0};
    size_t files = files_in(n);
    assert_int_equal(replica_recover(&config, &m, &msg).code, STATUS_CORRUPT);
    assert_non_null(strstr(msg.text, strrchr(path, '/') + 1));
    assert_non_null(strstr(msg.text, "docs/operations.md"));
    assert_int_equal(files_in(n), files);
    assert_lock_is_free(n);
    cluster_close(&cluster);
}

static void a_folder_in_use_is_not_recovered(void **state)
{
    (void)state;
    struct node *n = stopped();
    node_start(n);
    const struct replica_config config = {.folder = n->folder, .id = n->id, .address = n->address};
    struct replica_member m = {.id = n->id, .role = REPLICA_VOTER};
    (void)snprintf(m.address, sizeof m.address, "%s", n->address);
    struct errmsg msg = {0};
    assert_int_equal(replica_recover(&config, &m, &msg).code, STATUS_CONFLICT);
    cluster_close(&cluster);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wiped_folder_holds_nothing_and_waits),
        cmocka_unit_test(a_folder_in_use_is_not_wiped),
        cmocka_unit_test(wiping_removes_what_a_first_start_left),
        cmocka_unit_test(what_cannot_be_removed_is_told),
        cmocka_unit_test(no_folder_waits_for_nothing),
        cmocka_unit_test(a_staging_folder_excuses_no_wiped_member),
        cmocka_unit_test(a_damaged_folder_is_not_recovered),
        cmocka_unit_test(a_folder_in_use_is_not_recovered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
