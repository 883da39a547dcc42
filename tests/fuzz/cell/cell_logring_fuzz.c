/* A log file from a hostile writer: the first 8 bytes of the input are the reader's offset, the
 * rest is the file, padded with a hole to the size its header claims so that the deeper checks are
 * reached. */
#include "agent/cell/logring.h"
#include "common/check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEADER_BYTES = 64, READ_MAX = 1 << 16 };

static void read_some(const char *path, uint64_t offset)
{
    struct logring ring = {0};
    struct buffer out = {0};
    struct errmsg msg = {""};
    uint64_t missed = 0;
    if (!status_is_ok(logring_open(&ring, path, &msg))) {
        return;
    }
    uint64_t end = logring_end(&ring);
    if (status_is_ok(logring_read(&ring, &offset, READ_MAX, &out, &missed))) {
        CHECK(out.size <= READ_MAX && offset <= end);
    }
    buffer_close(&out);
    logring_close(&ring);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[] = "/tmp/skep-logring-fuzz-XXXXXX";
    uint64_t offset = 0;
    if (size < sizeof offset) {
        return 0;
    }
    memcpy(&offset, data, sizeof offset);
    data += sizeof offset;
    size -= sizeof offset;
    int fd = mkstemp(path);
    CHECK(fd >= 0);
    CHECK(write(fd, data, size) == (ssize_t)size);
    read_some(path, offset);
    uint64_t ring_bytes = 0;
    if (size >= 16) {
        memcpy(&ring_bytes, data + 8, sizeof ring_bytes);
        if (ring_bytes <= LOGRING_BYTES_MAX &&
            ftruncate(fd, (off_t)(HEADER_BYTES + ring_bytes)) == 0) {
            read_some(path, offset);
        }
    }
    (void)close(fd);
    (void)unlink(path);
    return 0;
}
