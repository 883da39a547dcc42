/* A backup file of unknown origin, read to its end; with and without what opens sealed blocks. */
#include "common/backup/backup.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct status memory_read(void *data, void *into, size_t size, size_t *got,
                                 struct errmsg *msg)
{
    struct bytes *from = data;
    (void)msg;
    size_t n = from->size < size ? from->size : size;
    if (n > 0) {
        memcpy(into, from->data, n);
    }
    *from = bytes_of(from->data + n, from->size - n);
    *got = n;
    return status_ok();
}

static struct status open_sealed(void *data, struct bytes about, struct bytes sealed,
                                 struct buffer *out, struct errmsg *msg)
{
    (void)data;
    (void)about;
    (void)msg;
    return buffer_append(out, sealed.data, sealed.size);
}

static const char ca[] = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct backup_seal seal = {.open = open_sealed};
    for (int opened = 0; opened < 2; opened++) {
        struct bytes file = bytes_of(data, size);
        const struct backup_source source = {.data = &file, .read = memory_read};
        struct backup_reader *r = NULL;
        struct errmsg msg = {.text = ""};
        struct status s = backup_reader_open(&r, &source, &msg);
        if (!status_is_ok(s)) {
            continue;
        }
        if (opened == 1) {
            backup_reader_seal(r, &seal);
        }
        struct backup_block b = {.kind = BACKUP_STATE};
        while (status_is_ok(s) && b.kind != BACKUP_END) {
            s = backup_reader_next(r, &b, &msg);
        }
        if (status_is_ok(s)) {
            s = backup_reader_verify(r, ca, NULL, &msg);
        }
        backup_reader_close(r);
    }
    return 0;
}
