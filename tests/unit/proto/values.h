/* Messages, commands and states in which every field is set to a value of its own, made from the
 * rows, and their comparison: a field that the codec loses makes two of them differ. */
#ifndef TESTS_UNIT_PROTO_VALUES_H
#define TESTS_UNIT_PROTO_VALUES_H

#include "common/arena.h"
#include "proto/message.h"

/* Every field set, two items in each list. Everything lives in the arena. */
struct message value_message(struct arena *a, enum message_type type);
struct command value_command(struct arena *a, enum command_type type);
struct state value_state(struct arena *a);
struct state_job value_state_job(struct arena *a);
struct function_spec value_spec(struct arena *a);
/* All zeros and NULL, but for nested parts that must be there. */
struct message value_message_empty(struct arena *a, enum message_type type);

/* NULL texts equal empty ones. */
bool message_equal(const struct message *a, const struct message *b);
bool command_equal(const struct command *a, const struct command *b);
bool state_equal(const struct state *a, const struct state *b);
bool state_jobs_equal(const struct state_job *a, const struct state_job *b);
bool spec_equal(const struct function_spec *a, const struct function_spec *b);

#endif
