/* A backup file of unknown origin, read to its end; with and without what opens sealed blocks. */
#include "common/backup/backup.h"
#include "common/check.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { FILE_BYTES_MAX = 64 << 10 };

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

/* The whole backup, read to its end and verified under the CA. */
static struct status read_all(struct bytes file, const struct backup_seal *seal, const char *ca)
{
    const struct backup_source source = {.data = &file, .read = memory_read};
    struct backup_reader *r = NULL;
    struct errmsg msg = {.text = ""};
    TRY(backup_reader_open(&r, &source, &msg));
    if (seal != NULL) {
        backup_reader_seal(r, seal);
    }
    struct backup_block b = {.kind = BACKUP_STATE};
    struct status s = status_ok();
    while (status_is_ok(s) && b.kind != BACKUP_END) {
        s = backup_reader_next(r, &b, &msg);
    }
    if (status_is_ok(s)) {
        s = backup_reader_verify(r, ca, NULL, &msg);
    }
    backup_reader_close(r);
    return s;
}

static size_t file_read(const char *path, void *into, size_t size)
{
    FILE *f = fopen(path, "rbe");
    CHECK(f != NULL);
    size_t got = fread(into, 1, size, f);
    CHECK(got < size);
    (void)fclose(f);
    return got;
}

/* The CA of the corpus: its good file verifies under it, so that others get as far as that. */
static const char *corpus_ca(void)
{
    static char ca[FILE_BYTES_MAX];
    static uint8_t good[FILE_BYTES_MAX];
    if (ca[0] == '\0') {
        (void)file_read(CORPUS "/ca.pem", ca, sizeof ca);
        size_t size = file_read(CORPUS "/good", good, sizeof good);
        CHECK(status_is_ok(read_all(bytes_of(good, size), NULL, ca)));
    }
    return ca;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct backup_seal seal = {.open = open_sealed};
    (void)read_all(bytes_of(data, size), NULL, corpus_ca());
    (void)read_all(bytes_of(data, size), &seal, corpus_ca());
    return 0;
}
