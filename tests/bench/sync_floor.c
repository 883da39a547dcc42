/* The floor of durable work: a loop of pwrite and fdatasync in a file that has been written before.
 *
 *     sync_floor FOLDER SECONDS BYTES [BATCH]      BATCH records of BYTES are written for each
 *     sync */
#include "common/clock.h"
#include "common/histogram.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 64 << 20, PATH_BYTES = 4096 };

static struct histogram took;

static int die(const char *what)
{
    (void)fprintf(stderr, "sync_floor: %s: %s\n", what, strerror(errno));
    return 1;
}

/* Overwrites the file from its beginning when its end is reached. False: an error. */
static bool loop(int fd, const char *record, size_t size, uint64_t end_us)
{
    off_t at = 0;
    for (uint64_t now = clock_now_us(clock_real()); now < end_us;) {
        if (pwrite(fd, record, size, at) != (ssize_t)size || fdatasync(fd) != 0) {
            return false;
        }
        uint64_t after = clock_now_us(clock_real());
        histogram_record(&took, after - now);
        now = after;
        at = at + 2 * (off_t)size > FILE_BYTES ? 0 : at + (off_t)size;
    }
    return true;
}

int main(int argc, char **argv)
{
    size_t bytes = argc < 4 ? 0 : strtoul(argv[3], NULL, 10);
    size_t batch = argc < 5 ? 1 : strtoul(argv[4], NULL, 10);
    if (argc < 4 || argc > 5 || bytes == 0 || batch == 0 || bytes * batch > FILE_BYTES / 2) {
        (void)fputs("usage: sync_floor FOLDER SECONDS BYTES [BATCH]\n", stderr);
        return 2;
    }
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/sync_floor", argv[1]);
    char *whole = calloc(1, FILE_BYTES);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (whole == NULL || fd < 0) {
        return die(path);
    }
    (void)unlink(path);
    memset(whole, 'x', FILE_BYTES);
    if (pwrite(fd, whole, FILE_BYTES, 0) != FILE_BYTES || fdatasync(fd) != 0) {
        return die("write");
    }
    uint64_t seconds = strtoul(argv[2], NULL, 10);
    if (!loop(fd, whole, bytes * batch, clock_now_us(clock_real()) + seconds * 1000000)) {
        return die("fdatasync");
    }
    (void)printf("acknowledged_rate %.0f /s\n", (double)(took.count * batch) / (double)seconds);
    (void)printf("acknowledged_p50 %" PRIu64 " us\nacknowledged_p99 %" PRIu64 " us\n",
                 histogram_percentile(&took, 50), histogram_percentile(&took, 99));
    free(whole);
    return close(fd) == 0 ? 0 : 1;
}
