#include "tests/component/runners/common_tests.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

enum { ENTROPY_BYTES = 48 };

void check_echo(struct harness *h)
{
    harness_invoke(h, 1, "\"hello\"");
    harness_expect(h, 1, STATUS_OK, "\"hello\"");
    harness_invoke(h, UINT64_MAX, "\"again\"");
    harness_expect(h, UINT64_MAX, STATUS_OK, "\"again\"");
}

void check_empty(struct harness *h)
{
    harness_invoke(h, 2, "");
    const struct runner_frame *f = harness_receive(h);
    assert_int_equal(f->type, RUNNER_RESULT);
    assert_int_equal(f->status, STATUS_OK);
    assert_int_equal(f->data.size, 0);
}

void check_four_mib_both_ways(struct harness *h)
{
    uint8_t *big = malloc(RUNNER_FRAME_BYTES_MAX);
    assert_non_null(big);
    for (size_t i = 0; i < RUNNER_FRAME_BYTES_MAX; i++) {
        big[i] = (uint8_t)(i * 2654435761u >> 13 | 0x80);
    }
    harness_send(h, RUNNER_INVOKE, 9, 0, big, RUNNER_FRAME_BYTES_MAX);
    const struct runner_frame *f = harness_receive(h);
    assert_int_equal(f->id, 9);
    assert_int_equal(f->status, STATUS_OK);
    assert_int_equal(f->data.size, RUNNER_FRAME_BYTES_MAX);
    assert_memory_equal(f->data.data, big, RUNNER_FRAME_BYTES_MAX);
    free(big);
}

void check_first_packet_resets(struct harness *h)
{
    harness_send_packet(h, 5, RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE, "\"old", 4);
    harness_send_packet(h, 5, RUNNER_FLAG_MORE, "er", 2);
    harness_send_packet(h, 5, RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE, "\"new", 4);
    harness_send_packet(h, 5, 0, "er\"", 3);
    harness_expect(h, 5, STATUS_OK, "\"newer\"");
}

void check_malformed_packets_are_ignored(struct harness *h)
{
    uint8_t packet[RUNNER_PACKET_BYTES_MAX + 100] = {0};
    harness_send_raw(h, packet, 1);
    harness_send_raw(h, packet, RUNNER_HEADER_BYTES);
    harness_send_raw(h, "", 0);
    packet[0] = RUNNER_INVOKE;
    packet[1] = 0x80;
    harness_send_raw(h, packet, RUNNER_HEADER_BYTES);
    packet[1] = RUNNER_FLAG_FIRST;
    packet[4] = 9;
    harness_send_raw(h, packet, RUNNER_HEADER_BYTES + 8);
    harness_send_raw(h, packet, sizeof packet);
    harness_send_packet(h, 77, 0, "tail of nothing", 15);
    harness_send(h, RUNNER_READY, 0, 0, NULL, 0);
    harness_invoke(h, 6, "\"still here\"");
    harness_expect(h, 6, STATUS_OK, "\"still here\"");
    harness_expect_log(h, "packet ignored");
}

void check_cancel_of_an_unfinished_input(struct harness *h)
{
    harness_send_packet(h, 5, RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE, "\"old", 4);
    harness_send(h, RUNNER_CANCEL, 5, 0, NULL, 0);
    harness_expect_prefix(h, 5, STATUS_CANCELED, "canceled");
    harness_send(h, RUNNER_CANCEL, 1234, 0, NULL, 0);
    harness_invoke(h, 6, "\"next\"");
    harness_expect(h, 6, STATUS_OK, "\"next\"");
}

void check_frame_over_the_limit_is_ignored(struct harness *h)
{
    static const uint8_t block[RUNNER_PACKET_DATA_MAX];
    uint8_t flags = RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE;
    for (size_t sent = 0; sent <= RUNNER_FRAME_BYTES_MAX; sent += sizeof block) {
        harness_send_packet(h, 5, flags, block, sizeof block);
        flags = RUNNER_FLAG_MORE;
    }
    harness_invoke(h, 6, "\"next\"");
    harness_expect(h, 6, STATUS_OK, "\"next\"");
    harness_expect_log(h, "over the limit");
}

void check_unfinished_frames_do_not_pile_up(struct harness *h)
{
    for (uint64_t id = 100; id < 100 + 4 * RUNNER_FRAMES_OPEN_MAX; id++) {
        harness_send_packet(h, id, RUNNER_FLAG_FIRST | RUNNER_FLAG_MORE, "\"x", 2);
    }
    harness_send_packet(h, 100 + 4 * RUNNER_FRAMES_OPEN_MAX - 1, 0, "y\"", 2);
    harness_expect(h, 100 + 4 * RUNNER_FRAMES_OPEN_MAX - 1, STATUS_OK, "\"xy\"");
}

void check_restored_is_acknowledged(struct harness *h)
{
    uint8_t entropy[ENTROPY_BYTES] = {1, 2, 3};
    harness_send(h, RUNNER_RESTORED, 42, 1700000000000000, entropy, sizeof entropy);
    const struct runner_frame *f = harness_receive(h);
    assert_int_equal(f->type, RUNNER_RESTORED);
    assert_int_equal(f->id, 42);
    assert_int_equal(f->status, STATUS_OK);
}

void check_sigterm_stops(struct harness *h)
{
    assert_int_equal(kill(h->pid, SIGTERM), 0);
    int status = harness_wait(h);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}
