/* Bytes of a link's frame: decoding never reads past them, and what decodes encodes to what
 * decodes the same. */
#include "common/check.h"
#include "proto/codec.h"
#include "tests/unit/proto/values.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a = {.bytes_max = 1 << 20};
    struct arena b = {.bytes_max = 4 << 20};
    struct errmsg msg = {.text = ""};
    struct message m, back;
    if (status_is_ok(message_decode(bytes_of(data, size), &a, &m, &msg))) {
        struct buffer out = {0};
        CHECK(status_is_ok(message_encode(&m, &out)));
        CHECK(status_is_ok(message_decode(bytes_of(out.data, out.size), &b, &back, &msg)));
        CHECK(message_equal(&m, &back));
        buffer_close(&out);
    } else {
        CHECK(msg.text[0] != '\0');
    }
    arena_close(&a);
    arena_close(&b);
    return 0;
}
