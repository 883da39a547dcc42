/* A damaged batch behind the first of a closed segment. libraft 0.15 forgets 40 bytes of its own
 * there (damage.lsan): so this is a program of its own. */
#include "tests/component/replica/cluster.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static void flip_byte(const char *path, off_t at)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t byte;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    (void)close(fd);
}

/* Empties a damaged member, removes it, adds it again: the way back that the messages name. */
static void rejoin(struct cluster *c, struct node *n)
{
    struct node *leader = cluster_wait_leader(c);
    replica_remove(leader->replica, n->id, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_OK);
    node_wipe(n);
    node_start(n);
    struct replica_member m = {.id = n->id, .role = REPLICA_VOTER};
    (void)snprintf(m.address, sizeof m.address, "%s", n->address);
    replica_add(leader->replica, &m, change_answered, c);
    cluster_wait_change(c);
    assert_int_equal(c->change_status.code, STATUS_OK);
}

static struct node *follower_of(struct cluster *c)
{
    struct node *leader = cluster_wait_leader(c);
    return leader == &c->nodes[0] ? &c->nodes[1] : &c->nodes[0];
}

static void a_damaged_segment_is_named_and_the_member_rejoins(void **state)
{
    (void)state;
    struct cluster *c = cluster_begin(3, 3);
    cluster_commit(c, 200, 256, 16);
    WAIT(c, all_agree, 200);
    struct node *n = follower_of(c);
    node_stop(n);
    char path[CLUSTER_PATH_BYTES_MAX * 2];
    node_find_file(n, "0000000000000002-", path);
    flip_byte(path, 4000);
    node_assert_corrupt(n, strrchr(path, '/') + 1);
    rejoin(c, n);
    cluster_commit(c, 10, 64, 4);
    WAIT(c, all_agree, 210);
    cluster_end(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_damaged_segment_is_named_and_the_member_rejoins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
