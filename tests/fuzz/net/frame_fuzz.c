/* The frame reader, fed a stream in pieces: the first byte picks how it is cut. Whatever comes,
 * what is answered lies inside the limits, and cutting the stream elsewhere gives the same
 * frames. */
#include "common/check.h"
#include "common/net/frame.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PAYLOAD_MAX = 4096 };

struct outcome {
    unsigned frames;
    size_t bytes;
    uint32_t sum;
    enum status_code code;
};

static struct outcome run(const uint8_t *data, size_t size, size_t cut)
{
    struct outcome o = {0};
    struct frame_reader r;
    frame_reader_init(&r, PAYLOAD_MAX);
    for (size_t at = 0; at < size && o.code == STATUS_OK; at += cut) {
        size_t n = size - at < cut ? size - at : cut;
        uint8_t *piece = malloc(n); /* exact, so that reading past it is seen */
        CHECK(piece != NULL);
        memcpy(piece, data + at, n);
        frame_reader_feed(&r, bytes_of(piece, n));
        bool got = true;
        while (got && o.code == STATUS_OK) {
            struct frame f;
            o.code = frame_reader_next(&r, &f, &got, NULL).code;
            if (o.code == STATUS_OK && got) {
                CHECK(f.payload.size <= PAYLOAD_MAX);
                CHECK(f.kind >= FRAME_HEARTBEAT && f.kind <= FRAME_BYE);
                CHECK(f.kind != FRAME_HEARTBEAT || f.payload.size == 0);
                o.frames++;
                o.bytes += f.payload.size;
                for (size_t i = 0; i < f.payload.size; i++) {
                    o.sum = o.sum * 31 + f.payload.data[i];
                }
            }
        }
        free(piece);
    }
    frame_reader_close(&r);
    return o;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    struct outcome whole = run(data + 1, size - 1, size);
    struct outcome cut = run(data + 1, size - 1, (size_t)data[0] + 1);
    CHECK(whole.frames == cut.frames);
    CHECK(whole.bytes == cut.bytes);
    CHECK(whole.sum == cut.sum);
    CHECK(whole.code == cut.code);
    return 0;
}
