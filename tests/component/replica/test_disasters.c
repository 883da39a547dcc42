/* Damaged and full disks, lost files, and a cluster of one out of what is left: each is told with
 * a line that names the file, and nothing acknowledged is lost while a majority lives. */
#include "scheduler/replica/folder.h"
#include "tests/component/replica/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { MIB = 1 << 20, SMALL_DISK_MIB = 192 };

static bool mark_covers(struct cluster *c, uint64_t index)
{
    return folder_mark_read(c->nodes[0].folder) >= index;
}

/* As a crash leaves it: the segment is still open. */
static void copy_running(const struct node *n, const char *to)
{
    char command[CLUSTER_PATH_BYTES_MAX * 3];
    (void)snprintf(command, sizeof command, "cp -r --sparse=always %s %s", n->folder, to);
    assert_int_equal(system(command), 0);
}

static void a_truncated_open_segment_is_noticed(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    struct node *n = &c->nodes[0];
    cluster_commit(c, 300, 256, 16);
    WAIT(c, mark_covers, 300);
    char copy[CLUSTER_PATH_BYTES_MAX + 8], path[CLUSTER_PATH_BYTES_MAX * 2];
    (void)snprintf(copy, sizeof copy, "%s.copy", n->folder);
    copy_running(n, copy);
    node_stop(n);
    node_wipe(n);
    assert_int_equal(rmdir(n->folder), 0);
    assert_int_equal(rename(copy, n->folder), 0);
    node_find_file(n, "open-1", path); /* those after it are only prepared */
    assert_int_equal(truncate(path, 8192), 0);
    node_assert_corrupt(n, "entry");
    /* The mark goes with the folder: an emptied one starts. */
    node_wipe(n);
    node_start(n);
    cluster_end(c);
}

static void what_a_crash_leaves_is_no_damage(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    struct node *n = &c->nodes[0];
    cluster_commit(c, 300, 256, 16);
    WAIT(c, mark_covers, 300);
    char copy[CLUSTER_PATH_BYTES_MAX + 8];
    (void)snprintf(copy, sizeof copy, "%s.copy", n->folder);
    copy_running(n, copy);
    node_stop(n);
    node_wipe(n);
    assert_int_equal(rmdir(n->folder), 0);
    assert_int_equal(rename(copy, n->folder), 0);
    node_start(n);
    WAIT(c, all_agree, 300);
    cluster_end(c);
}

static void a_damaged_snapshot_is_named(void **state)
{
    (void)state;
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 1, 1);
    c->config.snapshot_threshold = 64;
    c->config.snapshot_trailing = 16;
    struct node *n = &c->nodes[0];
    node_start(n);
    cluster_commit(c, 300, 64, 8);
    WAIT(c, has_snapshot, 1);
    node_stop(n);
    char command[CLUSTER_PATH_BYTES_MAX + 200];
    (void)snprintf(command, sizeof command,
                   "for f in %s/snapshot-*; do case $f in *.meta) ;; *) printf X | dd of=$f bs=1 "
                   "seek=500000 conv=notrunc status=none;; esac; done",
                   n->folder);
    assert_int_equal(system(command), 0);
    node_assert_corrupt(n, "snapshot-");
    cluster_end(c);
}

static void lost_metadata_is_named(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    struct node *n = &c->nodes[0];
    cluster_commit(c, 20, 64, 8);
    node_stop(n);
    /* They are written in turn: 1 with version 1, 2 with 2, 1 with 3. */
    char path[CLUSTER_PATH_BYTES_MAX + 16];
    (void)snprintf(path, sizeof path, "%s/metadata2", n->folder);
    (void)unlink(path);
    (void)snprintf(path, sizeof path, "%s/metadata1", n->folder);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    uint8_t three = 3;
    assert_int_equal(pwrite(fd, &three, 1, 8), 1);
    (void)close(fd);
    node_assert_corrupt(n, "metadata2");
    assert_int_equal(unlink(path), 0);
    node_assert_corrupt(n, "metadata1");
    struct replica_config config = c->config;
    config.folder = n->folder;
    config.id = 1;
    config.address = n->address;
    struct replica_member m = {.id = 1, .role = REPLICA_VOTER, .address = "127.0.0.1:7001"};
    struct errmsg msg = {0};
    assert_int_equal(replica_bootstrap(&config, &m, 1, &msg).code, STATUS_CORRUPT);
    cluster_end(c);
}

static void a_folder_is_used_by_one_at_a_time(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(1, 1);
    uint64_t term, index;
    struct errmsg msg = {0};
    assert_int_equal(replica_folder_last(c->nodes[0].folder, &term, &index, &msg).code,
                     STATUS_CONFLICT);
    assert_non_null(strstr(msg.text, "in use"));
    cluster_end(c);
}

static void a_survivor_becomes_a_cluster_of_one_that_the_others_join(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    cluster_commit(c, 200, 64, 16);
    WAIT(c, all_agree, 200);
    uint64_t hash = c->nodes[0].applied_hash;
    for (size_t i = 0; i < 3; i++) {
        node_stop(&c->nodes[i]);
    }
    node_wipe(&c->nodes[1]);
    node_wipe(&c->nodes[2]);
    struct node *n = &c->nodes[0];
    uint64_t term = 0, index = 0;
    struct errmsg msg = {0};
    assert_int_equal(replica_folder_last(n->folder, &term, &index, &msg).code, STATUS_OK);
    assert_true(term > 0);
    assert_true(index > 200);
    assert_int_equal(replica_folder_last(c->nodes[1].folder, &term, &index, &msg).code,
                     STATUS_NOT_FOUND);
    struct replica_config config = c->config;
    config.folder = n->folder;
    config.id = n->id;
    config.address = n->address;
    struct replica_member m = {.id = n->id, .role = REPLICA_VOTER};
    (void)snprintf(m.address, sizeof m.address, "%s", n->address);
    assert_int_equal(replica_recover(&config, &m, &msg).code, STATUS_OK);
    node_start(n);
    WAIT(c, all_agree, 200);
    assert_int_equal(n->applied_hash, hash);
    assert_ptr_equal(cluster_wait_leader(c), n);
    for (size_t i = 1; i < 3; i++) {
        struct replica_member other = {.id = c->nodes[i].id, .role = REPLICA_VOTER};
        (void)snprintf(other.address, sizeof other.address, "%s", c->nodes[i].address);
        node_start(&c->nodes[i]);
        replica_add(n->replica, &other, change_answered, c);
        cluster_wait_change(c);
        assert_int_equal(c->change_status.code, STATUS_OK);
    }
    cluster_commit(c, 50, 64, 8);
    WAIT(c, all_agree, 250);
    cluster_end(c);
}

/* ---- Full disks ---- */

static bool refuses(struct cluster *c, uint64_t id)
{
    return replica_refusal(c->nodes[id - 1].replica) != NULL;
}

static bool accepts(struct cluster *c, uint64_t id)
{
    return !refuses(c, id);
}

static bool is_fatal(struct cluster *c, uint64_t id)
{
    return c->nodes[id - 1].fatal;
}

/* A small file system in the place of the node's folder; false: not allowed to. */
static bool small_disk(const struct node *n)
{
    char options[32];
    (void)snprintf(options, sizeof options, "size=%dm", SMALL_DISK_MIB);
    return mount("skep-test", n->folder, "tmpfs", 0, options) == 0;
}

/* Leaves so much free in a folder, by a file beside. */
static void fill(const struct node *n, uint64_t leave)
{
    char path[CLUSTER_PATH_BYTES_MAX + 8];
    struct folder_space space;
    (void)snprintf(path, sizeof path, "%s/fill", n->folder);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    /* Segments are being prepared meanwhile. */
    int rv;
    do {
        assert_true(status_is_ok(folder_space_read(n->folder, &space)));
        rv = space.free_bytes <= leave
                 ? 0
                 : fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)(space.free_bytes - leave));
    } while (rv != 0 && errno == ENOSPC);
    assert_int_equal(rv, 0);
    (void)close(fd);
}

static void unfill(const struct node *n)
{
    char path[CLUSTER_PATH_BYTES_MAX + 8];
    (void)snprintf(path, sizeof path, "%s/fill", n->folder);
    assert_int_equal(unlink(path), 0);
}

static struct cluster *start_small(uint64_t ballast, uint64_t free_min)
{
    struct cluster *c = malloc(sizeof *c);
    assert_non_null(c);
    cluster_open(c, 1, 0);
    struct node *n = &c->nodes[0];
    if (!small_disk(n)) {
        cluster_close(c);
        free(c);
        skip();
    }
    c->config.ballast_bytes = ballast;
    c->config.free_bytes_min = free_min;
    struct replica_config config = c->config;
    config.folder = n->folder;
    config.id = n->id;
    config.address = n->address;
    struct replica_member m = {.id = n->id, .role = REPLICA_VOTER};
    (void)snprintf(m.address, sizeof m.address, "%s", n->address);
    struct errmsg msg = {0};
    assert_true(status_is_ok(replica_bootstrap(&config, &m, 1, &msg)));
    node_start(n);
    return c;
}

static void end_small(struct cluster *c)
{
    node_stop(&c->nodes[0]);
    assert_int_equal(umount2(c->nodes[0].folder, MNT_DETACH), 0);
    cluster_end(c);
}

static void a_nearly_full_disk_refuses_with_a_line_that_names_it(void **state)
{
    (void)state;
    struct cluster *c = start_small(0, 40 * MIB);
    struct node *n = &c->nodes[0];
    cluster_commit(c, 50, 64, 8);
    fill(n, 30 * MIB);
    WAIT(c, refuses, 1);
    const char *why = replica_refusal(n->replica);
    print_message("%s\n", why);
    assert_non_null(strstr(why, n->folder));
    assert_non_null(strstr(why, "40 must stay free"));
    uint64_t ticket;
    assert_int_equal(node_propose(n, 1, 8, &ticket).code, STATUS_LIMIT);
    assert_false(n->fatal);
    unfill(n);
    WAIT(c, accepts, 1);
    cluster_commit(c, 50, 64, 8);
    WAIT(c, all_agree, 100);
    end_small(c);
}

static bool commit_until_fatal(struct cluster *c, uint64_t id)
{
    uint64_t ticket;
    struct node *n = &c->nodes[id - 1];
    if (n->fatal) {
        return true;
    }
    (void)status_is_ok(node_propose(n, 1, 256 << 10, &ticket));
    return false;
}

static bool is_acknowledged(const struct cluster *c, uint64_t ticket)
{
    return c->answers[ticket].given && status_is_ok(c->answers[ticket].status);
}

static void a_full_disk_stops_the_member_which_loses_nothing(void **state)
{
    (void)state;
    struct cluster *c = start_small(16 * MIB, 0);
    struct node *n = &c->nodes[0];
    (void)cluster_wait_leader(c);
    fill(n, MIB);
    WAIT(c, commit_until_fatal, 1);
    WAIT(c, is_fatal, 1);
    uint64_t acknowledged = 0;
    for (uint64_t i = 0; i < c->tickets; i++) {
        acknowledged += is_acknowledged(c, i);
    }
    node_stop(n);
    assert_true(acknowledged > 0);
    /* Started on the full disk it gives its ballast up. */
    char path[CLUSTER_PATH_BYTES_MAX + 16];
    (void)snprintf(path, sizeof path, "%s/%s", n->folder, FOLDER_BALLAST);
    assert_int_equal(access(path, F_OK), 0);
    n->fatal = false;
    struct errmsg msg = {0};
    if (!status_is_ok(node_try_start(n, &msg))) {
        n->replica = NULL;
    }
    assert_int_not_equal(access(path, F_OK), 0);
    node_stop(n);
    unfill(n);
    n->fatal = false;
    node_start(n);
    cluster_commit(c, 10, 64, 4);
    WAIT(c, all_agree, acknowledged + 10);
    end_small(c);
}

/* Mounts are seen by nobody else, and go with the process. */
static void own_mounts(void)
{
    if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
        return;
    }
    (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

int main(void)
{
    own_mounts();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_truncated_open_segment_is_noticed),
        cmocka_unit_test(what_a_crash_leaves_is_no_damage),
        cmocka_unit_test(a_damaged_snapshot_is_named),
        cmocka_unit_test(lost_metadata_is_named),
        cmocka_unit_test(a_folder_is_used_by_one_at_a_time),
        cmocka_unit_test(a_survivor_becomes_a_cluster_of_one_that_the_others_join),
        cmocka_unit_test(a_nearly_full_disk_refuses_with_a_line_that_names_it),
        cmocka_unit_test(a_full_disk_stops_the_member_which_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
