#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/runner_port.h"
#include "common/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct fixture {
    uv_loop_t loop;
    uv_timer_t deadline;
    struct packet_batch batch;
    struct runner_port port;
    struct runner_frames remote; /* the runner's assembling */
    int fd;                      /* the runner's end */
    unsigned frames, cuts, sents, ends;
    struct runner_header last;
    struct buffer data;
    uint64_t cut_id, sent_id;
    bool late, closed;
};

static void on_frame(void *data, const struct runner_frame *frame)
{
    struct fixture *f = data;
    f->frames++;
    f->last = (struct runner_header){.type = frame->type, .status = frame->status, .id = frame->id};
    f->data.size = 0;
    assert_true(status_is_ok(buffer_append(&f->data, frame->data.data, frame->data.size)));
}

static void on_cut(void *data, uint8_t type, uint64_t id)
{
    struct fixture *f = data;
    (void)type;
    f->cuts++;
    f->cut_id = id;
}

static void on_sent(void *data, uint8_t type, uint64_t id)
{
    struct fixture *f = data;
    (void)type;
    f->sents++;
    f->sent_id = id;
}

static void on_end(void *data)
{
    struct fixture *f = data;
    f->ends++;
}

static void on_closed(void *data)
{
    struct fixture *f = data;
    f->closed = true;
}

static void on_deadline(uv_timer_t *timer)
{
    struct fixture *f = timer->data;
    f->late = true;
}

static int setup(void **state)
{
    struct fixture *f = mem_must(mem_zalloc(1, sizeof *f));
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(uv_loop_init(&f->loop), 0);
    assert_int_equal(uv_timer_init(&f->loop, &f->deadline), 0);
    f->deadline.data = f;
    assert_int_equal(uv_timer_start(&f->deadline, on_deadline, 30000, 0), 0);
    assert_true(status_is_ok(packet_batch_open(&f->batch)));
    const struct runner_port_events events = {f, on_frame, on_cut, on_sent, on_end};
    assert_true(
        status_is_ok(runner_port_open(&f->port, &f->loop, ends[0], &f->batch, &events, NULL)));
    f->fd = ends[1];
    *state = f;
    return 0;
}

#define UNTIL(f, condition)                                                                        \
    while (!(condition)) {                                                                         \
        assert_false((f)->late);                                                                   \
        (void)uv_run(&(f)->loop, UV_RUN_ONCE);                                                     \
    }

static int teardown(void **state)
{
    struct fixture *f = *state;
    runner_port_close(&f->port, on_closed);
    UNTIL(f, f->closed);
    uv_close((uv_handle_t *)&f->deadline, NULL);
    (void)uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    if (f->fd >= 0) {
        (void)close(f->fd);
    }
    runner_frames_close(&f->remote);
    buffer_close(&f->data);
    packet_batch_close(&f->batch);
    mem_free(f);
    return 0;
}

/* The runner sends one packet. */
static void packet(const struct fixture *f, uint8_t flags, uint64_t id, const char *text)
{
    uint8_t bytes[RUNNER_PACKET_BYTES_MAX];
    const struct runner_header h = {
        .type = RUNNER_RESULT, .flags = flags, .id = id, .size = (uint32_t)strlen(text)};
    runner_header_encode(&h, bytes);
    memcpy(bytes + RUNNER_HEADER_BYTES, text, strlen(text));
    size_t size = RUNNER_HEADER_BYTES + strlen(text);
    assert_int_equal(send(f->fd, bytes, size, MSG_NOSIGNAL), size);
}

/* The runner takes one packet; true when a frame is complete. */
static bool runner_take(struct fixture *f, struct runner_frame *frame)
{
    static uint8_t bytes[RUNNER_PACKET_BYTES_MAX];
    ssize_t n = recv(f->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    bool complete = false;
    if (n > 0) {
        assert_true(status_is_ok(
            runner_frames_take(&f->remote, bytes_of(bytes, (size_t)n), frame, &complete, NULL)));
    }
    return complete;
}

static void frames_arrive_whole(void **state)
{
    struct fixture *f = *state;
    packet(f, RUNNER_FLAG_FIRST, 1, "one");
    packet(f, RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE, 2, "tw");
    packet(f, 0, 2, "o");
    UNTIL(f, f->frames == 2);
    assert_int_equal(f->last.id, 2);
    assert_int_equal(f->data.size, 3);
    assert_memory_equal(f->data.data, "two", 3);
}

static void more_than_a_batch_arrives(void **state)
{
    struct fixture *f = *state;
    enum { COUNT = 3 * RUNNER_PORT_BATCH_MAX + 1 };
    for (unsigned i = 0; i < COUNT; i++) {
        packet(f, RUNNER_FLAG_FIRST, i, "x");
    }
    runner_port_drain(&f->port);
    assert_int_equal(f->frames, COUNT);
}

static void the_tail_of_a_lost_frame_is_told(void **state)
{
    struct fixture *f = *state;
    packet(f, RUNNER_FLAG_MORE, 7, "mid");
    packet(f, 0, 7, "end");
    UNTIL(f, f->cuts == 1);
    assert_int_equal(f->cut_id, 7);
    assert_int_equal(f->frames, 0);
}

static void garbage_is_passed_over(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(send(f->fd, "garbage", 7, MSG_NOSIGNAL), 7);
    packet(f, RUNNER_FLAG_FIRST, 1, "one");
    UNTIL(f, f->frames == 1);
    assert_int_equal(f->port.packets_bad, 1);
}

static void a_small_frame_goes_at_once(void **state)
{
    struct fixture *f = *state;
    const struct runner_frame frame = {
        .type = RUNNER_INVOKE, .id = 5, .arg = 9, .data = bytes_of("in", 2)};
    bool queued = true;
    assert_true(status_is_ok(runner_port_send(&f->port, &frame, &queued)));
    assert_false(queued);
    struct runner_frame got;
    assert_true(runner_take(f, &got));
    assert_int_equal(got.id, 5);
    assert_int_equal(got.arg, 9);
    assert_int_equal(got.data.size, 2);
    assert_int_equal(f->sents, 0);
}

static void what_does_not_fit_waits_and_arrives_in_order(void **state)
{
    struct fixture *f = *state;
    uint8_t *data = malloc(RUNNER_FRAME_BYTES_MAX);
    for (size_t i = 0; i < RUNNER_FRAME_BYTES_MAX; i++) {
        data[i] = (uint8_t)(i * 31 >> 3);
    }
    const struct runner_frame big = {
        .type = RUNNER_INVOKE, .id = 1, .data = bytes_of(data, RUNNER_FRAME_BYTES_MAX)};
    const struct runner_frame small = {.type = RUNNER_INVOKE, .id = 2};
    bool queued = false;
    assert_true(status_is_ok(runner_port_send(&f->port, &big, &queued)));
    assert_true(queued);
    queued = false;
    assert_true(status_is_ok(runner_port_send(&f->port, &small, &queued)));
    assert_true(queued);
    struct runner_frame got;
    while (!runner_take(f, &got)) {
        assert_false(f->late);
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(got.id, 1);
    assert_int_equal(got.data.size, RUNNER_FRAME_BYTES_MAX);
    assert_memory_equal(got.data.data, data, RUNNER_FRAME_BYTES_MAX);
    while (!runner_take(f, &got)) {
        assert_false(f->late);
        (void)uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    assert_int_equal(got.id, 2);
    assert_int_equal(f->sents, 2);
    assert_int_equal(f->port.queue_bytes, 0);
    free(data);
}

static void the_queue_has_a_limit(void **state)
{
    struct fixture *f = *state;
    uint8_t *data = calloc(1, RUNNER_FRAME_BYTES_MAX);
    const struct runner_frame big = {
        .type = RUNNER_INVOKE, .id = 1, .data = bytes_of(data, RUNNER_FRAME_BYTES_MAX)};
    bool queued;
    unsigned taken = 0;
    struct status s = status_ok();
    while (taken < 100 && status_is_ok(s)) {
        s = runner_port_send(&f->port, &big, &queued);
        taken += status_is_ok(s);
    }
    assert_int_equal(s.code, STATUS_LIMIT);
    assert_int_equal(taken, RUNNER_PORT_QUEUE_BYTES_MAX / RUNNER_FRAME_BYTES_MAX - 1);
    free(data);
}

static void a_frame_over_the_limit_is_refused(void **state)
{
    struct fixture *f = *state;
    uint8_t *data = calloc(1, RUNNER_FRAME_BYTES_MAX + 1);
    const struct runner_frame big = {.type = RUNNER_INVOKE,
                                     .data = bytes_of(data, RUNNER_FRAME_BYTES_MAX + 1)};
    bool queued;
    assert_int_equal(runner_port_send(&f->port, &big, &queued).code, STATUS_LIMIT);
    free(data);
}

static void the_runners_end_is_told_once(void **state)
{
    struct fixture *f = *state;
    packet(f, RUNNER_FLAG_FIRST, 1, "last words");
    (void)close(f->fd);
    f->fd = -1;
    UNTIL(f, f->ends == 1);
    assert_int_equal(f->frames, 1);
    const struct runner_frame frame = {.type = RUNNER_STOP};
    bool queued;
    assert_int_equal(runner_port_send(&f->port, &frame, &queued).code, STATUS_UNAVAILABLE);
    runner_port_drain(&f->port);
    assert_int_equal(f->ends, 1);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(frames_arrive_whole),
        T(more_than_a_batch_arrives),
        T(the_tail_of_a_lost_frame_is_told),
        T(garbage_is_passed_over),
        T(a_small_frame_goes_at_once),
        T(what_does_not_fit_waits_and_arrives_in_order),
        T(the_queue_has_a_limit),
        T(a_frame_over_the_limit_is_refused),
        T(the_runners_end_is_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
