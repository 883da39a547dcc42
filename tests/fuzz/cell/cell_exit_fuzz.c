/* exit.json: any bytes decode or are refused, and what decodes survives the round trip. */
#include "agent/cell/cell.h"
#include "common/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cell_event event;
    struct cell_event back;
    struct buffer json = {0};
    struct errmsg msg = {""};
    if (!status_is_ok(cell_exit_decode(bytes_of(data, size), &event, &msg))) {
        CHECK(msg.text[0] != '\0');
        return 0;
    }
    CHECK(event.end < CELL_ENDS_COUNT_);
    CHECK(status_is_ok(cell_exit_encode(&event, &json)));
    CHECK(status_is_ok(cell_exit_decode(bytes_of(json.data, json.size), &back, &msg)));
    CHECK(back.end == event.end && back.detail == event.detail && back.pid == event.pid);
    buffer_close(&json);
    return 0;
}
