/* The guard's order of writes, over a base that only takes note, and over raft_uv's disk. */
#include "scheduler/replica/guard.h"
#include "scheduler/replica/uv_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include <cmocka.h>

enum { DEADLINE_MS = 3000, ENTRY_BYTES = 8, FIRST_ENTRIES = 10 };

/* ---- A base that takes note ---- */

struct base {
    struct raft_io io;
    struct raft raft;
    struct guard guard;
    char calls[64]; /* a: append, t: truncate, p: put */
    struct raft_io_append *appends[16];
    raft_io_append_cb append_cbs[16];
    size_t append_count;
    struct raft_io_snapshot_put *put;
    raft_io_snapshot_put_cb put_cb;
    struct raft_io_send *send_req;
    raft_io_send_cb send_cb;
    bool sent;
    unsigned done; /* completions libraft was told */
    unsigned failures;
    bool fatal;
};

static struct base *base_of(struct raft_io *io)
{
    return (struct base *)(void *)io;
}

static void note(struct base *b, char call)
{
    size_t at = strlen(b->calls);
    assert_true(at + 1 < sizeof b->calls);
    b->calls[at] = call;
}

static int base_append(struct raft_io *io, struct raft_io_append *req,
                       const struct raft_entry entries[], unsigned n, raft_io_append_cb cb)
{
    struct base *b = base_of(io);
    (void)entries;
    (void)n;
    note(b, 'a');
    b->appends[b->append_count] = req;
    b->append_cbs[b->append_count++] = cb;
    return 0;
}

static int base_truncate(struct raft_io *io, raft_index index)
{
    (void)index;
    note(base_of(io), 't');
    return 0;
}

static int base_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
                    const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
    struct base *b = base_of(io);
    (void)trailing;
    (void)snapshot;
    note(b, 'p');
    b->put = req;
    b->put_cb = cb;
    return 0;
}

static int base_send(struct raft_io *io, struct raft_io_send *req,
                     const struct raft_message *message, raft_io_send_cb cb)
{
    struct base *b = base_of(io);
    (void)message;
    b->sent = true;
    b->send_req = req;
    b->send_cb = cb;
    return 0;
}

static void on_fatal(void *data, const char *why)
{
    struct base *b = data;
    (void)why;
    b->fatal = true;
}

static void on_append(struct raft_io_append *req, int status)
{
    struct base *b = req->data;
    b->failures += status == 0 ? 0 : 1;
    b->done++;
}

static void on_close(struct raft_io *io)
{
    (void)io;
}

static void base_close(struct raft_io *io, raft_io_close_cb cb)
{
    cb(io);
}

static void on_put(struct raft_io_snapshot_put *req, int status)
{
    struct base *b = req->data;
    (void)status;
    b->done++;
}

static void base_init(struct base *b, uint32_t cures_off)
{
    *b = (struct base){0};
    b->io.append = base_append;
    b->io.close = base_close;
    b->io.truncate = base_truncate;
    b->io.snapshot_put = base_put;
    b->io.send = base_send;
    b->raft.log.offset = FIRST_ENTRIES; /* as if there were so many */
    guard_init(&b->guard, &b->io, &b->raft, on_fatal, b);
    b->guard.cures_off = cures_off;
}

static void end_append(struct base *b, size_t i, int status)
{
    b->append_cbs[i](b->appends[i], status);
}

/* A snapshot is being stored; then a leader's entries replace some of ours. What the base saw. */
static void replace_during_snapshot(uint32_t cures_off, const char *before, const char *after)
{
    struct base b;
    base_init(&b, cures_off);
    struct raft_snapshot snapshot = {.index = 5, .term = 1};
    struct raft_io_snapshot_put put = {.data = &b};
    struct raft_entry entry = {.term = 2, .type = RAFT_COMMAND};
    struct raft_io_append append = {.data = &b};
    struct raft_io *io = &b.guard.io;
    assert_int_equal(io->snapshot_put(io, 1, &put, &snapshot, on_put), 0);
    assert_int_equal(io->truncate(io, 8), 0);
    assert_int_equal(io->append(io, &append, &entry, 1, on_append), 0);
    assert_string_equal(b.calls, before);
    b.put_cb(b.put, 0);
    assert_string_equal(b.calls, before); /* its callback may still run in the base */
    guard_turn(&b.guard);
    assert_string_equal(b.calls, after);
    end_append(&b, 0, 0);
    assert_int_equal(b.done, 2);
    guard_end(&b.guard);
}

static void serial_truncates_after_a_snapshot(void **state)
{
    (void)state;
    replace_during_snapshot(0, "p", "pta");
    replace_during_snapshot(GUARD_SERIAL, "pta", "pta");
}

static void serial_stores_a_snapshot_after_a_truncation(void **state)
{
    (void)state;
    struct base b;
    base_init(&b, 0);
    struct raft_snapshot snapshot = {.index = 5, .term = 1};
    struct raft_io_snapshot_put put = {.data = &b};
    struct raft_entry entry = {.term = 2, .type = RAFT_COMMAND};
    struct raft_io_append appends[2] = {{.data = &b}, {.data = &b}};
    struct raft_io *io = &b.guard.io;
    assert_int_equal(io->truncate(io, 8), 0);
    assert_int_equal(io->append(io, &appends[0], &entry, 1, on_append), 0);
    assert_int_equal(io->snapshot_put(io, 1, &put, &snapshot, on_put), 0);
    assert_int_equal(io->append(io, &appends[1], &entry, 1, on_append), 0);
    assert_string_equal(b.calls, "taa"); /* appends do not wait for a snapshot that waits */
    end_append(&b, 0, 0);
    assert_string_equal(b.calls, "taap");
    b.put_cb(b.put, 0);
    end_append(&b, 1, 0);
    assert_int_equal(b.done, 3);
    guard_end(&b.guard);
}

static void zero_leaves_nothing_of_the_heap_in_a_barrier(void **state)
{
    (void)state;
    for (unsigned off = 0; off < 2; off++) {
        struct base b;
        base_init(&b, off == 0 ? 0 : GUARD_ZERO);
        uint64_t word = UINT64_MAX;
        struct raft_entry entry = {.term = 2, .type = RAFT_BARRIER, .buf = {&word, sizeof word}};
        struct raft_io_append append = {.data = &b};
        assert_int_equal(b.guard.io.append(&b.guard.io, &append, &entry, 1, on_append), 0);
        assert_true(off == 0 ? word == 0 : word == UINT64_MAX);
        end_append(&b, 0, 0);
        guard_end(&b.guard);
    }
}

static void send_does_not_keep_a_transfers_request(void **state)
{
    (void)state;
    for (unsigned off = 0; off < 2; off++) {
        struct base b;
        base_init(&b, off == 0 ? 0 : GUARD_SEND);
        struct raft_io_send req = {0};
        struct raft_message m = {.type = RAFT_IO_TIMEOUT_NOW, .server_id = 2};
        assert_int_equal(b.guard.io.send(&b.guard.io, &req, &m, NULL), 0);
        assert_true(b.sent);
        assert_ptr_equal(b.send_req, off == 0 ? NULL : &req);
    }
}

static void fatal_tells_nothing_after_the_first_failed_write(void **state)
{
    (void)state;
    struct base b;
    base_init(&b, 0);
    struct raft_entry entry = {.term = 2, .type = RAFT_COMMAND};
    struct raft_io_append appends[2] = {{.data = &b}, {.data = &b}};
    struct raft_io *io = &b.guard.io;
    assert_int_equal(io->append(io, &appends[0], &entry, 1, on_append), 0);
    assert_int_equal(io->append(io, &appends[1], &entry, 1, on_append), 0);
    end_append(&b, 0, RAFT_NOSPACE);
    assert_true(b.fatal);
    end_append(&b, 1, 0);
    assert_int_equal(b.done, 0);
    assert_int_equal(b.guard.writes, 0);
    assert_int_equal(io->set_term(io, 9), 0); /* and the base is not asked any more */
    io->close(io, on_close);
    assert_int_equal(b.done, 2); /* now libraft may let go of the memory */
    assert_int_equal(b.failures, 0);
    guard_end(&b.guard);
}

/* ---- raft_uv ---- */

struct disk {
    char folder[64];
    uv_loop_t loop;
    struct raft_uv_transport transport;
    struct raft_io io;
    struct raft raft;
    struct guard guard;
    unsigned done;
    bool failed;
};

static void on_disk_fatal(void *data, const char *why)
{
    struct disk *d = data;
    (void)why;
    d->failed = true;
}

static void on_written(struct raft_io_append *req, int status)
{
    struct disk *d = req->data;
    d->failed = d->failed || status != 0;
    d->done++;
}

static void on_stored(struct raft_io_snapshot_put *req, int status)
{
    struct disk *d = req->data;
    d->failed = d->failed || status != 0;
    d->done++;
}

static void on_deadline(uv_timer_t *t)
{
    uv_stop(t->loop);
}

/* Until so many writes have ended; false: they do not. */
static bool wait_for(struct disk *d, unsigned done)
{
    uv_timer_t deadline;
    (void)uv_timer_init(&d->loop, &deadline);
    (void)uv_timer_start(&deadline, on_deadline, DEADLINE_MS, 0);
    while (d->done < done && !d->failed && uv_is_active((uv_handle_t *)&deadline)) {
        (void)uv_run(&d->loop, UV_RUN_ONCE);
        guard_turn(&d->guard);
    }
    uv_close((uv_handle_t *)&deadline, NULL);
    (void)uv_run(&d->loop, UV_RUN_NOWAIT);
    return d->done >= done && !d->failed;
}

struct loaded {
    raft_term term;
    raft_id vote;
    struct raft_snapshot *snapshot;
    raft_index first;
    struct raft_entry *entries;
    size_t count;
};

/* What is made here is left as it is: the process ends. */
static bool disk_open(struct disk *d, const char *folder, uint32_t cures_off, struct loaded *out)
{
    if (uv_loop_init(&d->loop) != 0 || uv_disk_init(&d->io, &d->transport, &d->loop, folder) != 0) {
        return false;
    }
    guard_init(&d->guard, &d->io, &d->raft, on_disk_fatal, d);
    d->guard.cures_off = cures_off;
    struct raft_io *io = &d->guard.io;
    return io->init(io, 1, "h:1") == 0 && io->load(io, &out->term, &out->vote, &out->snapshot,
                                                   &out->first, &out->entries, &out->count) == 0;
}

/* Entries 1 to 10, then at once a snapshot of 5, a truncation at 8 and two new entries, as when a
 * follower takes a snapshot while another leader's entries arrive. True: all of it ends. */
static bool disk_replaces_during_snapshot(const char *folder, uint32_t cures_off)
{
    static struct disk d;
    static uint64_t words[FIRST_ENTRIES + 2];
    static struct raft_io_append appends[2] = {{.data = &d}, {.data = &d}};
    static struct raft_io_snapshot_put put = {.data = &d};
    static uint64_t state = 1;
    static struct raft_buffer buf = {&state, sizeof state};
    static struct raft_snapshot snapshot = {
        .index = 5, .term = 1, .bufs = &buf, .n_bufs = 1, .configuration_index = 1};
    struct raft_entry entries[FIRST_ENTRIES + 2];
    for (size_t i = 0; i < FIRST_ENTRIES + 2; i++) {
        entries[i] = (struct raft_entry){.term = i < FIRST_ENTRIES ? 1 : 2,
                                         .type = RAFT_COMMAND,
                                         .buf = {&words[i], ENTRY_BYTES}};
    }
    struct loaded none;
    raft_configuration_init(&snapshot.configuration);
    if (!disk_open(&d, folder, cures_off, &none) ||
        raft_configuration_add(&snapshot.configuration, 1, "h:1", RAFT_VOTER) != 0) {
        return false;
    }
    struct raft_io *io = &d.guard.io;
    d.raft.log.offset = FIRST_ENTRIES;
    if (io->append(io, &appends[0], entries, FIRST_ENTRIES, on_written) != 0 || !wait_for(&d, 1)) {
        return false;
    }
    int rv = io->snapshot_put(io, 1, &put, &snapshot, on_stored);
    rv = rv != 0 ? rv : io->truncate(io, 8);
    d.raft.log.offset = 9;
    rv = rv != 0 ? rv : io->append(io, &appends[1], entries + FIRST_ENTRIES, 2, on_written);
    return rv == 0 && wait_for(&d, 3);
}

/* True: the disk holds just that. */
static bool disk_was_replaced(const char *folder, uint32_t cures_off)
{
    static struct disk d;
    struct loaded l;
    return disk_open(&d, folder, cures_off, &l) && l.count > 0 && l.first + l.count - 1 == 9 &&
           l.entries[l.count - 1].term == 2;
}

static void folder_remove(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e = dir == NULL ? NULL : readdir(dir); e != NULL; e = readdir(dir)) {
        if (e->d_name[0] != '.') {
            (void)unlinkat(dirfd(dir), e->d_name, 0);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    (void)rmdir(folder);
}

static bool in_child(bool (*run)(const char *folder, uint32_t cures_off), const char *folder,
                     uint32_t cures_off)
{
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        _exit(run(folder, cures_off) ? 0 : 1);
    }
    int ended = 0;
    assert_int_equal(waitpid(pid, &ended, 0), pid);
    return WIFEXITED(ended) && WEXITSTATUS(ended) == 0;
}

static bool disk_is_right(uint32_t cures_off)
{
    char folder[] = "/tmp/guard-disk-XXXXXX";
    assert_non_null(mkdtemp(folder));
    bool right = in_child(disk_replaces_during_snapshot, folder, cures_off) &&
                 in_child(disk_was_replaced, folder, cures_off);
    folder_remove(folder);
    return right;
}

static void serial_keeps_raft_uvs_disk_going(void **state)
{
    (void)state;
    assert_true(disk_is_right(0));
    assert_false(disk_is_right(GUARD_SERIAL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serial_truncates_after_a_snapshot),
        cmocka_unit_test(serial_stores_a_snapshot_after_a_truncation),
        cmocka_unit_test(zero_leaves_nothing_of_the_heap_in_a_barrier),
        cmocka_unit_test(send_does_not_keep_a_transfers_request),
        cmocka_unit_test(fatal_tells_nothing_after_the_first_failed_write),
        cmocka_unit_test(serial_keeps_raft_uvs_disk_going),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
