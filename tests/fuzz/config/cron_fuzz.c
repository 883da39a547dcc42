/* Schedules' texts and RFC 3339 times. */
#include "common/check.h"
#include "common/cron.h"
#include "common/dates.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[512];
    struct errmsg msg;
    uint64_t after = 0, ms;
    if (size < sizeof after || size - sizeof after >= sizeof text) {
        return 0;
    }
    memcpy(&after, data, sizeof after);
    memcpy(text, data + sizeof after, size - sizeof after);
    text[size - sizeof after] = '\0';
    if (status_is_ok(date_parse(text, &ms, &msg))) {
        char again[DATE_STRING_BYTES];
        uint64_t back;
        date_format(ms, again);
        CHECK(status_is_ok(date_parse(again, &back, &msg)) && back == ms / 1000 * 1000);
    }
    struct cron c;
    if (!status_is_ok(cron_parse(text, &c, &msg))) {
        return 0;
    }
    for (int i = 0; i < 8; i++) {
        uint64_t next = cron_next(&c, after);
        CHECK(next == 0 || next > after);
        if (next == 0) {
            break;
        }
        /* Nothing lies between: asked from just before, the same comes. */
        CHECK(cron_next(&c, next - 1) == next);
        after = next;
    }
    return 0;
}
