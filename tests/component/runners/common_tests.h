/* What every runner must do alike. Each test gets a started harness made by a setup of the runner's
 * own, with an echo function. */
#ifndef TESTS_COMPONENT_RUNNERS_COMMON_TESTS_H
#define TESTS_COMPONENT_RUNNERS_COMMON_TESTS_H

#include "tests/component/runners/harness.h"

void check_echo(struct harness *h);
void check_empty(struct harness *h);
void check_four_mib_both_ways(struct harness *h);
void check_first_packet_resets(struct harness *h);
void check_malformed_packets_are_ignored(struct harness *h);
void check_cancel_of_an_unfinished_input(struct harness *h);
void check_frame_over_the_limit_is_ignored(struct harness *h);
void check_unfinished_frames_do_not_pile_up(struct harness *h);
void check_restored_is_acknowledged(struct harness *h);
void check_sigterm_stops(struct harness *h);

#endif
