#include "agent/runners/c/call.h"

#include "common/check.h"
#include "common/mem.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static_assert((int)SKEP_INPUT_BYTES_MAX == (int)RUNNER_FRAME_BYTES_MAX, "one limit, two names");
static_assert((int)SKEP_OUTPUT_BYTES_MAX == (int)RUNNER_FRAME_BYTES_MAX, "one limit, two names");

bool call_state_open(struct skep_call_state *s)
{
    char *error = mem_alloc(SKEP_ERROR_BYTES_MAX);
    if (error == NULL) {
        return false;
    }
    *s = (struct skep_call_state){.error = error, .deadline_ms = UINT64_MAX};
    return true;
}

void call_state_close(struct skep_call_state *s)
{
    buffer_close(&s->output);
    mem_free(s->error);
    s->error = NULL;
}

uint64_t clock_ms(void)
{
    struct timespec t;
    int failed = clock_gettime(CLOCK_MONOTONIC, &t);
    CHECK(failed == 0);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void call_begin(struct skep_call_state *s, uint64_t left_ms)
{
    if (s->output.capacity > CALL_KEPT_BYTES_MAX) {
        buffer_close(&s->output);
    }
    s->output.size = 0;
    s->output_error = STATUS_OK;
    s->error_size = 0;
    atomic_store(&s->canceled, false);
    uint64_t now_ms = clock_ms();
    bool limited = left_ms > 0 && left_ms < UINT64_MAX - now_ms;
    s->deadline_ms = limited ? now_ms + left_ms : UINT64_MAX;
}

struct runner_frame call_refuse(uint64_t id, enum status_code code, const char *text)
{
    return (struct runner_frame){
        .type = RUNNER_RESULT,
        .status = (uint16_t)code,
        .id = id,
        .data = bytes_of(text, strlen(text)),
    };
}

struct runner_frame call_run(struct skep_call *call, skep_handler *handler)
{
    struct skep_call_state *s = call->state;
    if (atomic_load(&s->canceled)) {
        return call_refuse(call->id, STATUS_CANCELED, "canceled before it began");
    }
    if (skep_left_ms(call) == 0) {
        return call_refuse(call->id, STATUS_TIMEOUT, "the deadline passed before it began");
    }
    int failed = handler(call);
    if (s->output_error == STATUS_LIMIT) {
        return call_refuse(call->id, STATUS_LIMIT, "the output is over the limit of 4194304 bytes");
    }
    if (s->output_error != STATUS_OK) {
        return call_refuse(call->id, s->output_error, "no memory for the output");
    }
    struct runner_frame result = {.type = RUNNER_RESULT, .id = call->id};
    if (failed == 0) {
        result.data = bytes_of(s->output.data, s->output.size);
        return result;
    }
    if (s->error_size == 0) {
        (void)skep_fail(call, "the handler returned %d", failed);
    }
    result.status = STATUS_FAILED;
    result.data = bytes_of(s->error, s->error_size);
    return result;
}

static int output_failed(struct skep_call_state *s, enum status_code code)
{
    s->output_error = code;
    buffer_close(&s->output);
    return -1;
}

int skep_write(struct skep_call *call, const void *data, size_t size)
{
    struct skep_call_state *s = call->state;
    if (s->output_error != STATUS_OK) {
        return -1;
    }
    if (size > SKEP_OUTPUT_BYTES_MAX - s->output.size) {
        return output_failed(s, STATUS_LIMIT);
    }
    struct status appended = buffer_append(&s->output, data, size);
    return status_is_ok(appended) ? 0 : output_failed(s, appended.code);
}

int skep_printf(struct skep_call *call, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int size = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    int result = -1;
    if (size < 0) {
        result = output_failed(call->state, STATUS_INVALID);
    } else if ((size_t)size < sizeof text) {
        result = skep_write(call, text, (size_t)size);
    } else {
        char *longer = mem_alloc((size_t)size + 1);
        if (longer == NULL) {
            result = output_failed(call->state, STATUS_NOMEM);
        } else {
            (void)vsnprintf(longer, (size_t)size + 1, format, again);
            result = skep_write(call, longer, (size_t)size);
            mem_free(longer);
        }
    }
    va_end(again);
    return result;
}

int skep_fail(struct skep_call *call, const char *format, ...)
{
    struct skep_call_state *s = call->state;
    va_list args;
    va_start(args, format);
    int size = vsnprintf(s->error, SKEP_ERROR_BYTES_MAX, format, args);
    va_end(args);
    size_t used = size < 0 ? 0 : (size_t)size;
    s->error_size = used < SKEP_ERROR_BYTES_MAX ? used : SKEP_ERROR_BYTES_MAX - 1;
    return -1;
}

uint64_t skep_left_ms(const struct skep_call *call)
{
    uint64_t deadline_ms = call->state->deadline_ms;
    if (deadline_ms == UINT64_MAX) {
        return UINT64_MAX;
    }
    uint64_t now_ms = clock_ms();
    return now_ms < deadline_ms ? deadline_ms - now_ms : 0;
}

bool skep_canceled(const struct skep_call *call)
{
    return atomic_load(&call->state->canceled);
}
