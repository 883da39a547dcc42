/* Amounts: what is accepted formats to something that reads back as the same. The first byte picks
 * the unit. */
#include "common/check.h"
#include "common/units.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t value;
    uint64_t again = 0;
    struct errmsg msg = {""};
    char text[UNIT_STRING_BYTES];
    if (size == 0) {
        return 0;
    }
    enum unit unit = (enum unit)(data[0] % UNITS_COUNT);
    if (!status_is_ok(unit_parse(unit, (const char *)data + 1, size - 1, &value, &msg))) {
        CHECK(msg.text[0] != '\0');
        CHECK(strpbrk(msg.text, "\n\r\x1b") == NULL);
        return 0;
    }
    unit_format(unit, value, text);
    CHECK(status_is_ok(unit_parse(unit, text, strlen(text), &again, &msg)));
    CHECK(again == value);
    return 0;
}
