/* The guard's order of writes, over a base that only takes note, and over raft_uv's disk. */
#include "scheduler/replica/guard.h"
#include "scheduler/replica/uv_host.h"

#include "common/mem.h"

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

enum {
    DEADLINE_MS = 3000,
    ENTRY_BYTES = 8,
    FIRST_ENTRIES = 10,
    REQUESTS = 8,
    MANY = 200, /* appends at once on raft_uv's disk */
    LARGE_BYTES = 15360,
};

/* ---- A base that takes note ---- */

struct base {
    struct raft_io io;
    struct raft raft;
    struct guard guard;
    char calls[64]; /* a: append, t: truncate, p: put */
    struct raft_io_append *appends[16];
    raft_io_append_cb append_cbs[16]; /* NULL: ended */
    const struct raft_entry *entries[16];
    unsigned counts[16];
    size_t append_count;
    struct raft_io_append requests[REQUESTS]; /* libraft's */
    struct raft_entry ours[REQUESTS];         /* an entry of each, its term says which */
    char told[REQUESTS + 1];                  /* which of them libraft was told of, in order */
    bool closed;
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
    note(b, 'a');
    b->appends[b->append_count] = req;
    b->entries[b->append_count] = entries;
    b->counts[b->append_count] = n;
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

static void end_append(struct base *b, size_t i, int status)
{
    raft_io_append_cb cb = b->append_cbs[i];
    b->append_cbs[i] = NULL;
    cb(b->appends[i], status);
}

static void base_close(struct raft_io *io, raft_io_close_cb cb)
{
    struct base *b = base_of(io);
    for (size_t i = 0; i < b->append_count; i++) {
        if (b->append_cbs[i] != NULL) {
            end_append(b, i, RAFT_CANCELED);
        }
    }
    b->closed = true;
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
    base_init(&b, GUARD_MERGE);
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
    guard_turn(&b.guard);
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
    base_init(&b, GUARD_MERGE);
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

/* ---- Appends that wait for another ---- */

static void on_told(struct raft_io_append *req, int status)
{
    struct base *b = req->data;
    size_t at = strlen(b->told);
    assert_true(at < REQUESTS);
    b->told[at] = (char)('0' + (req - b->requests));
    on_append(req, status);
}

/* libraft appends `n` entries at `entries` with request i. */
static void append_entries(struct base *b, size_t i, const struct raft_entry *entries, unsigned n,
                           raft_io_append_cb cb)
{
    struct raft_io *io = &b->guard.io;
    b->requests[i].data = b;
    b->raft.log.offset += n;
    assert_int_equal(io->append(io, &b->requests[i], entries, n, cb), 0);
}

static void append_one(struct base *b, size_t i)
{
    b->ours[i] = (struct raft_entry){.term = i, .type = RAFT_COMMAND};
    append_entries(b, i, &b->ours[i], 1, on_told);
}

/* Requests 0 to n - 1; the base has the first, unless it takes all at once. */
static void append_some(struct base *b, size_t n, uint32_t cures_off)
{
    base_init(b, cures_off);
    for (size_t i = 0; i < n; i++) {
        append_one(b, i);
    }
}

/* The base's append is of these requests, one entry each. */
static void assert_append(const struct base *b, size_t append, const char *requests)
{
    assert_true(append < b->append_count);
    assert_int_equal(b->counts[append], strlen(requests));
    for (unsigned i = 0; i < b->counts[append]; i++) {
        assert_int_equal(b->entries[append][i].term, requests[i] - '0');
    }
}

static void merge_gives_the_base_what_waits_as_one_append(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 4, GUARD_MERGE);
    assert_string_equal(b.calls, "aaaa");
    for (size_t i = 0; i < 4; i++) {
        end_append(&b, i, 0);
    }
    guard_end(&b.guard);
    append_some(&b, 4, 0);
    assert_string_equal(b.calls, "a");
    assert_append(&b, 0, "0");
    end_append(&b, 0, 0);
    assert_string_equal(b.calls, "a"); /* not from inside of the base */
    guard_turn(&b.guard);
    assert_string_equal(b.calls, "aa");
    assert_append(&b, 1, "123");
    end_append(&b, 1, 0);
    guard_turn(&b.guard);
    assert_string_equal(b.calls, "aa");
    guard_end(&b.guard);
}

static void merge_tells_of_each_append_in_its_order(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 4, 0);
    assert_int_equal(b.guard.unfinished, 4);
    end_append(&b, 0, 0);
    assert_string_equal(b.told, "0");
    guard_turn(&b.guard);
    append_one(&b, 4);
    assert_string_equal(b.told, "0");
    assert_int_equal(b.guard.writes, 4);
    end_append(&b, 1, 0);
    assert_string_equal(b.told, "0123");
    assert_int_equal(b.guard.writes, 1);
    guard_turn(&b.guard);
    end_append(&b, 2, 0);
    assert_string_equal(b.told, "01234");
    assert_int_equal(b.guard.writes, 0);
    assert_int_equal(b.guard.unfinished, 0);
    assert_int_equal(b.failures, 0);
    append_one(&b, 5); /* and nothing is in the way of the next */
    assert_string_equal(b.calls, "aaaa");
    end_append(&b, 3, 0);
    guard_end(&b.guard);
}

static void on_told_append(struct raft_io_append *req, int status)
{
    struct base *b = req->data;
    on_told(req, status);
    append_one(b, (size_t)(req - b->requests) + 4);
}

static void merge_takes_what_libraft_appends_while_it_is_told(void **state)
{
    (void)state;
    struct base b;
    base_init(&b, 0);
    for (size_t i = 0; i < 3; i++) {
        b.ours[i] = (struct raft_entry){.term = i, .type = RAFT_COMMAND};
        append_entries(&b, i, &b.ours[i], 1, on_told_append);
    }
    end_append(&b, 0, 0);
    assert_string_equal(b.calls, "a");
    guard_turn(&b.guard);
    assert_append(&b, 1, "124");
    end_append(&b, 1, 0);
    assert_string_equal(b.told, "0124");
    assert_string_equal(b.calls, "aa");
    guard_turn(&b.guard);
    assert_append(&b, 2, "56");
    end_append(&b, 2, 0);
    assert_string_equal(b.told, "012456");
    assert_int_equal(b.guard.writes, 0);
    guard_end(&b.guard);
}

/* Another leader's entries replace two of three that wait; one of the two is part of an append. */
static void merge_leaves_a_truncation_where_it_is(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 4, 0);
    struct raft_io *io = &b.guard.io;
    assert_int_equal(io->truncate(io, FIRST_ENTRIES + 3), 0);
    b.raft.log.offset = FIRST_ENTRIES + 2;
    assert_int_equal(b.guard.cut, 2);
    append_one(&b, 4);
    append_one(&b, 5);
    end_append(&b, 0, 0);
    guard_turn(&b.guard);
    assert_string_equal(b.calls, "aat");
    assert_append(&b, 1, "123");
    end_append(&b, 1, 0);
    assert_int_equal(b.guard.cut, 0);
    assert_true(b.guard.truncating);
    guard_turn(&b.guard);
    assert_string_equal(b.calls, "aata");
    assert_append(&b, 2, "45");
    assert_true(b.guard.truncating);
    end_append(&b, 2, 0);
    assert_false(b.guard.truncating);
    assert_string_equal(b.told, "012345");
    guard_end(&b.guard);
}

static void merge_leaves_the_second_truncation_behind_the_first(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 2, 0);
    struct raft_io *io = &b.guard.io;
    for (size_t i = 2; i < 4; i++) {
        assert_int_equal(io->truncate(io, FIRST_ENTRIES + 1), 0);
        b.raft.log.offset = FIRST_ENTRIES;
        append_one(&b, i);
    }
    static const char *const calls[] = {"aat", "aata", "aatata"};
    for (size_t i = 0; i < 3; i++) {
        end_append(&b, i, 0);
        guard_turn(&b.guard);
        assert_true(strncmp(b.calls, calls[i], strlen(b.calls)) == 0);
    }
    assert_string_equal(b.calls, "aatata");
    end_append(&b, 3, 0);
    assert_string_equal(b.told, "0123");
    guard_end(&b.guard);
}

static void merge_lets_a_snapshot_of_the_own_state_by(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 2, 0);
    struct raft_snapshot snapshot = {.index = 5, .term = 1};
    struct raft_io_snapshot_put put = {.data = &b};
    struct raft_io *io = &b.guard.io;
    assert_int_equal(io->snapshot_put(io, 1, &put, &snapshot, on_put), 0);
    assert_string_equal(b.calls, "ap");
    end_append(&b, 0, 0);
    guard_turn(&b.guard);
    assert_string_equal(b.calls, "apa");
    end_append(&b, 1, 0);
    b.put_cb(b.put, 0);
    assert_int_equal(b.guard.writes, 0);
    guard_end(&b.guard);
}

static void merge_installs_a_snapshot_after_what_waits(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 3, 0);
    struct raft_snapshot snapshot = {.index = 50, .term = 1};
    struct raft_io_snapshot_put put = {.data = &b};
    struct raft_io *io = &b.guard.io;
    assert_int_equal(io->snapshot_put(io, 0, &put, &snapshot, on_put), 0);
    assert_string_equal(b.calls, "a");
    end_append(&b, 0, 0);
    guard_turn(&b.guard);
    assert_string_equal(b.calls, "aap");
    assert_append(&b, 1, "12");
    end_append(&b, 1, 0);
    assert_int_equal(b.guard.unfinished, 1);
    b.put_cb(b.put, 0);
    assert_int_equal(b.guard.writes, 0);
    assert_int_equal(b.guard.unfinished, 0);
    guard_end(&b.guard);
}

/* One append of several fails; more wait behind it. */
static void a_merged_append_that_fails_is_held_in_order(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 3, 0);
    end_append(&b, 0, 0);
    guard_turn(&b.guard);
    append_one(&b, 3);
    append_one(&b, 4);
    end_append(&b, 1, RAFT_NOSPACE);
    assert_true(b.fatal);
    guard_turn(&b.guard);
    append_one(&b, 5);
    assert_string_equal(b.calls, "aa");
    assert_string_equal(b.told, "0");
    assert_int_equal(b.guard.writes, 0);
    assert_int_equal(b.guard.unfinished, 0);
    b.guard.io.close(&b.guard.io, on_close);
    assert_true(b.closed);
    assert_string_equal(b.told, "012345");
    assert_int_equal(b.failures, 0);
    guard_end(&b.guard);
}

static void without_fatal_each_of_a_merged_append_fails(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 3, GUARD_FATAL);
    end_append(&b, 0, 0);
    guard_turn(&b.guard);
    end_append(&b, 1, RAFT_NOSPACE);
    assert_string_equal(b.told, "012");
    assert_int_equal(b.failures, 2);
    assert_false(b.fatal);
    guard_end(&b.guard);
}

static void closing_lets_go_of_what_is_merged_and_of_what_waits(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 3, 0);
    end_append(&b, 0, 0);
    guard_turn(&b.guard);
    append_one(&b, 3);
    append_one(&b, 4);
    b.guard.io.close(&b.guard.io, on_close);
    assert_true(b.closed);
    assert_string_equal(b.calls, "aa"); /* what waited was not begun */
    assert_int_equal(b.done, 5);
    assert_int_equal(b.failures, 0);
    assert_int_equal(b.guard.writes, 0);
    guard_end(&b.guard);
}

/* Requests of so many entries and bytes wait. The base's next append has so many of them. */
static unsigned merged_of(const unsigned *counts, const uint64_t *bytes, size_t n)
{
    static struct raft_entry entries[GUARD_MERGE_ENTRIES_MAX + 1];
    struct base b;
    append_some(&b, 1, 0);
    for (size_t i = 0; i < GUARD_MERGE_ENTRIES_MAX + 1; i++) {
        entries[i] = (struct raft_entry){.term = 1, .type = RAFT_COMMAND};
    }
    unsigned total = 0;
    for (size_t i = 0; i < n; i++) {
        entries[total].buf.len = bytes[i];
        append_entries(&b, i + 1, &entries[total], counts[i], on_told);
        total += counts[i];
    }
    end_append(&b, 0, 0);
    guard_turn(&b.guard);
    unsigned merged = b.counts[1];
    for (size_t i = 1; i < b.append_count; i++) {
        end_append(&b, i, 0);
        guard_turn(&b.guard);
    }
    assert_int_equal(b.done, n + 1);
    guard_end(&b.guard);
    return merged;
}

static void merge_stops_at_so_many_entries(void **state)
{
    (void)state;
    static const uint64_t bytes[3] = {ENTRY_BYTES, ENTRY_BYTES, ENTRY_BYTES};
    const unsigned fit[3] = {GUARD_MERGE_ENTRIES_MAX - 2, 1, 1};
    const unsigned over[3] = {GUARD_MERGE_ENTRIES_MAX - 1, 1, 1};
    const unsigned large[2] = {GUARD_MERGE_ENTRIES_MAX, 1};
    assert_int_equal(merged_of(fit, bytes, 3), GUARD_MERGE_ENTRIES_MAX);
    assert_int_equal(merged_of(over, bytes, 3), GUARD_MERGE_ENTRIES_MAX);
    assert_int_equal(merged_of(large, bytes, 2), GUARD_MERGE_ENTRIES_MAX);
}

static void merge_stops_at_so_many_bytes(void **state)
{
    (void)state;
    static const unsigned counts[3] = {1, 1, 1};
    const uint64_t fit[3] = {GUARD_MERGE_BYTES_MAX - 16, 8, 8};
    const uint64_t over[3] = {GUARD_MERGE_BYTES_MAX - 8, 8, 8};
    const uint64_t large[3] = {GUARD_MERGE_BYTES_MAX + 8, 8, 8};
    assert_int_equal(merged_of(counts, fit, 3), 3);
    assert_int_equal(merged_of(counts, over, 3), 2);
    assert_int_equal(merged_of(counts, large, 3), 1);
}

static void without_memory_the_oldest_append_goes_alone(void **state)
{
    (void)state;
    struct base b;
    append_some(&b, 4, 0);
    end_append(&b, 0, 0);
    mem_fault(0, 1);
    guard_turn(&b.guard);
    assert_int_equal(mem_fault_clear(), 1);
    assert_append(&b, 1, "1");
    end_append(&b, 1, 0);
    guard_turn(&b.guard);
    assert_append(&b, 2, "23");
    end_append(&b, 2, 0);
    assert_string_equal(b.told, "0123");
    assert_false(b.fatal);
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

typedef bool (*disk_step)(const char *folder, uint32_t cures_off);

static bool disk_is_right(disk_step write, disk_step read, uint32_t cures_off)
{
    char folder[] = "/tmp/guard-disk-XXXXXX";
    assert_non_null(mkdtemp(folder));
    bool right = in_child(write, folder, cures_off) && in_child(read, folder, cures_off);
    folder_remove(folder);
    return right;
}

static void serial_keeps_raft_uvs_disk_going(void **state)
{
    (void)state;
    assert_true(disk_is_right(disk_replaces_during_snapshot, disk_was_replaced, 0));
    assert_false(disk_is_right(disk_replaces_during_snapshot, disk_was_replaced, GUARD_SERIAL));
}

static void large_fill(uint64_t *words, uint64_t index)
{
    for (size_t i = 0; i < LARGE_BYTES / sizeof *words; i++) {
        words[i] = index * 1000003 + i;
    }
}

/* Many large appends at once, more than go into one. */
static bool disk_takes_many(const char *folder, uint32_t cures_off)
{
    static struct disk d;
    static uint64_t words[MANY][LARGE_BYTES / sizeof(uint64_t)];
    static struct raft_io_append appends[MANY];
    static struct raft_entry entries[MANY];
    struct loaded none;
    if (!disk_open(&d, folder, cures_off, &none)) {
        return false;
    }
    int rv = 0;
    for (size_t i = 0; i < MANY && rv == 0; i++) {
        large_fill(words[i], i + 1);
        entries[i] =
            (struct raft_entry){.term = 1, .type = RAFT_COMMAND, .buf = {words[i], LARGE_BYTES}};
        appends[i].data = &d;
        d.raft.log.offset++;
        rv = d.guard.io.append(&d.guard.io, &appends[i], &entries[i], 1, on_written);
    }
    return rv == 0 && wait_for(&d, MANY);
}

static bool disk_has_many(const char *folder, uint32_t cures_off)
{
    static struct disk d;
    static uint64_t words[LARGE_BYTES / sizeof(uint64_t)];
    struct loaded l;
    if (!disk_open(&d, folder, cures_off, &l) || l.first != 1 || l.count != MANY) {
        return false;
    }
    for (size_t i = 0; i < MANY; i++) {
        large_fill(words, i + 1);
        if (l.entries[i].buf.len != LARGE_BYTES ||
            memcmp(l.entries[i].buf.base, words, LARGE_BYTES) != 0) {
            return false;
        }
    }
    return true;
}

static void merged_appends_are_found_again_on_raft_uvs_disk(void **state)
{
    (void)state;
    assert_true(disk_is_right(disk_takes_many, disk_has_many, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serial_truncates_after_a_snapshot),
        cmocka_unit_test(serial_stores_a_snapshot_after_a_truncation),
        cmocka_unit_test(zero_leaves_nothing_of_the_heap_in_a_barrier),
        cmocka_unit_test(send_does_not_keep_a_transfers_request),
        cmocka_unit_test(fatal_tells_nothing_after_the_first_failed_write),
        cmocka_unit_test(merge_gives_the_base_what_waits_as_one_append),
        cmocka_unit_test(merge_tells_of_each_append_in_its_order),
        cmocka_unit_test(merge_takes_what_libraft_appends_while_it_is_told),
        cmocka_unit_test(merge_leaves_a_truncation_where_it_is),
        cmocka_unit_test(merge_leaves_the_second_truncation_behind_the_first),
        cmocka_unit_test(merge_lets_a_snapshot_of_the_own_state_by),
        cmocka_unit_test(merge_installs_a_snapshot_after_what_waits),
        cmocka_unit_test(a_merged_append_that_fails_is_held_in_order),
        cmocka_unit_test(without_fatal_each_of_a_merged_append_fails),
        cmocka_unit_test(closing_lets_go_of_what_is_merged_and_of_what_waits),
        cmocka_unit_test(merge_stops_at_so_many_entries),
        cmocka_unit_test(merge_stops_at_so_many_bytes),
        cmocka_unit_test(without_memory_the_oldest_append_goes_alone),
        cmocka_unit_test(serial_keeps_raft_uvs_disk_going),
        cmocka_unit_test(merged_appends_are_found_again_on_raft_uvs_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
