#include "tests/unit/backup/kit.h"

#include "common/check.h"
#include "common/chunks.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int kit_setup(void **state)
{
    struct kit *k = mem_must(mem_zalloc(1, sizeof *k));
    test_ca_open(&k->ca, "skep prod");
    test_ca_open(&k->other_ca, "skep other");
    test_certificate_for(&k->scheduler, &k->ca, "skep://prod/scheduler/s1");
    test_certificate_for(&k->agent, &k->ca, "skep://prod/agent/n1");
    test_certificate_for(&k->user, &k->ca, "skep://prod/user/eve");
    test_certificate_for(&k->foreign, &k->ca, "skep://other/scheduler/s1");
    test_certificate_for(&k->impostor, &k->other_ca, "skep://prod/scheduler/s1");
    *state = k;
    return 0;
}

int kit_teardown(void **state)
{
    struct kit *k = *state;
    test_certificate_close(&k->scheduler);
    test_certificate_close(&k->agent);
    test_certificate_close(&k->user);
    test_certificate_close(&k->foreign);
    test_certificate_close(&k->impostor);
    test_ca_close(&k->ca);
    test_ca_close(&k->other_ca);
    mem_free(k);
    return 0;
}

void kit_state(size_t bytes, struct buffer *out)
{
    CHECK(status_is_ok(buffer_reserve(out, bytes)));
    uint32_t x = 1;
    for (size_t i = 0; i < bytes; i++) {
        x = x * 1664525 + 1013904223;
        out->data[out->size++] = (uint8_t)(i % 3 == 0 ? x >> 24 : i / 64);
    }
}

static struct status seal(void *data, struct bytes about, struct bytes plain, struct buffer *out)
{
    (void)data;
    for (size_t i = 0; i < plain.size; i++) {
        TRY(buffer_put_u8(out, plain.data[i] ^ 0x5A));
    }
    return buffer_append(out, about.data, about.size);
}

static struct status open_sealed(void *data, struct bytes about, struct bytes sealed,
                                 struct buffer *out, struct errmsg *msg)
{
    (void)data;
    if (sealed.size < about.size ||
        memcmp(sealed.data + sealed.size - about.size, about.data, about.size) != 0) {
        return status_fail(msg, STATUS_CORRUPT, "sealed as another block");
    }
    for (size_t i = 0; i < sealed.size - about.size; i++) {
        TRY(buffer_put_u8(out, sealed.data[i] ^ 0x5A));
    }
    return status_ok();
}

const struct backup_seal kit_seal = {.seal = seal, .open = open_sealed};

static void data_put(struct backup_writer *w, enum backup_kind kind, const char *text)
{
    const struct bytes data = bytes_of(text, strlen(text));
    struct digest d;
    CHECK(status_is_ok(digest_of(&data, 1, &d)));
    CHECK(status_is_ok(backup_writer_data(w, kind, &d, data, NULL)));
}

void kit_backup(const struct test_certificate *signer, size_t state_bytes,
                const struct backup_seal *with, struct buffer *out)
{
    struct backup_header h = {.cluster = KIT_CLUSTER,
                              .scheduler = "s1",
                              .build = "0.1.0",
                              .time_ms = (uint64_t)time(NULL) * 1000,
                              .index = 42};
    if (with != NULL) {
        h.wrapped = bytes_of("wrapped key", 11);
        (void)snprintf(h.wrapped_by, sizeof h.wrapped_by, "fingerprint");
    }
    int fd = memfd_create("backup", MFD_CLOEXEC);
    struct backup_writer *w = NULL;
    struct buffer state = {0};
    CHECK(fd >= 0);
    kit_state(state_bytes, &state);
    CHECK(status_is_ok(backup_writer_open(&w, fd, &h, with, NULL)));
    CHECK(status_is_ok(backup_writer_state(w, bytes_of(state.data, state.size / 2), NULL)));
    CHECK(status_is_ok(backup_writer_state(
        w, bytes_of(state.data + state.size / 2, state.size - state.size / 2), NULL)));
    data_put(w, BACKUP_CHUNK, "code");
    data_put(w, BACKUP_CHUNK, "more code");
    data_put(w, BACKUP_PAYLOAD, "a payload");
    CHECK(status_is_ok(backup_writer_finish(w, 1, signer->pem, signer->key_pem, NULL)));
    backup_writer_close(w);
    buffer_close(&state);
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    out->size = 0;
    CHECK(status_is_ok(buffer_reserve(out, (size_t)st.st_size)));
    CHECK(pread(fd, out->data, (size_t)st.st_size, 0) == st.st_size);
    out->size = (size_t)st.st_size;
    (void)close(fd);
}

/* Hands out odd sizes. */
static struct status memory_read(void *data, void *into, size_t size, size_t *got,
                                 struct errmsg *msg)
{
    struct bytes *from = data;
    (void)msg;
    size_t n = from->size < size ? from->size : size;
    n = n > 1000 ? 1000 : n;
    if (n > 0) {
        memcpy(into, from->data, n);
    }
    *from = bytes_of(from->data + n, from->size - n);
    *got = n;
    return status_ok();
}

void kit_read(struct bytes file, const struct backup_seal *with, const char *ca_pem,
              struct buffer *collected, struct kit_read *out)
{
    *out = (struct kit_read){.read = status_ok(), .verified = status_of(STATUS_INVALID)};
    const struct backup_source source = {.data = &file, .read = memory_read};
    struct backup_reader *r = NULL;
    out->read = backup_reader_open(&r, &source, &out->msg);
    if (!status_is_ok(out->read)) {
        return;
    }
    if (with != NULL) {
        backup_reader_seal(r, with);
    }
    struct backup_block b = {.kind = BACKUP_STATE};
    while (status_is_ok(out->read) && b.kind != BACKUP_END) {
        out->read = backup_reader_next(r, &b, &out->msg);
        if (status_is_ok(out->read)) {
            out->blocks[b.kind]++;
            if (b.kind == BACKUP_STATE && collected != NULL) {
                CHECK(status_is_ok(buffer_append(collected, b.data.data, b.data.size)));
            }
        }
    }
    out->totals = backup_reader_totals(r);
    out->header = *backup_reader_header(r);
    out->header.wrapped = bytes_of(NULL, 0);
    if (status_is_ok(out->read)) {
        out->verified = backup_reader_verify(r, ca_pem, out->signer, &out->msg);
    }
    backup_reader_close(r);
}
