/* What sealing costs: lines "name value unit".
 *
 *     seal_bench            about three seconds */
#include "common/mem.h"
#include "common/seal/payload_seal.h"
#include "common/seal/snapshot_seal.h"

#include <stdio.h>
#include <time.h>

enum {
    ENTRY_BYTES = 256,
    ENTRIES = 400000,
    SNAPSHOT_MIB = 100,
    PAYLOAD_BYTES = 1 << 20,
    TURNS = 50
};

/* Of this process: what else runs on the machine does not count. */
static double now_s(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(struct status s)
{
    (void)mem_must(status_is_ok(s) ? &s : NULL);
}

static void bench_entries(const struct seal_key *key)
{
    static uint8_t entry[ENTRY_BYTES];
    struct sealer *s = mem_must(sealer_new());
    struct buffer sealed = {0}, plain = {0};
    const struct bytes aad = bytes_of("log", 3);
    double begin = now_s();
    for (int i = 0; i < ENTRIES; i++) {
        sealed.size = 0;
        must(sealer_seal(s, 1, key, aad, bytes_of(entry, sizeof entry), &sealed));
    }
    double middle = now_s();
    for (int i = 0; i < ENTRIES; i++) {
        plain.size = 0;
        must(sealer_open(s, key, aad, bytes_of(sealed.data, sealed.size), &plain));
    }
    double end = now_s();
    (void)printf("seal_256_bytes %.3f us\n", (middle - begin) * 1e6 / ENTRIES);
    (void)printf("open_256_bytes %.3f us\n", (end - middle) * 1e6 / ENTRIES);
    buffer_close(&sealed);
    buffer_close(&plain);
    sealer_free(s);
}

static void bench_snapshot(struct keyring *ring)
{
    static uint8_t block[PARTS_BYTES];
    struct parts plain = {0}, sealed = {0};
    struct buffer stored = {0}, opened = {0};
    struct snapshot_head head;
    struct errmsg msg = {.text = ""};
    for (int i = 0; i < SNAPSHOT_MIB; i++) {
        must(buffer_append(mem_must(parts_next(&plain)), block, sizeof block));
    }
    double begin = now_s();
    must(snapshot_seal(ring, 1, bytes_of("w", 1), &plain, &sealed));
    double end = now_s();
    (void)printf("seal_snapshot %.0f MiB/s\n", SNAPSHOT_MIB / (end - begin));
    for (size_t i = 0; i < sealed.count; i++) {
        must(buffer_append(&stored, sealed.items[i].data, sealed.items[i].size));
    }
    parts_close(&sealed);
    begin = now_s();
    must(snapshot_head_read(bytes_of(stored.data, stored.size), &head, &msg));
    must(snapshot_open(ring, &head, &opened, &msg));
    end = now_s();
    (void)printf("open_snapshot %.0f MiB/s\n", SNAPSHOT_MIB / (end - begin));
    buffer_close(&stored);
    buffer_close(&opened);
}

static void bench_payload(struct keyring *ring)
{
    static uint8_t payload[PAYLOAD_BYTES];
    static const struct digest digest = {{1}};
    struct buffer file = {0}, key_file = {0}, plain = {0};
    double begin = now_s();
    for (int i = 0; i < TURNS; i++) {
        file.size = 0;
        key_file.size = 0;
        must(payload_seal(ring, &digest, bytes_of(payload, sizeof payload), &file, &key_file));
    }
    double middle = now_s();
    for (int i = 0; i < TURNS; i++) {
        plain.size = 0;
        must(payload_open(ring, &digest, bytes_of(file.data, file.size),
                          bytes_of(key_file.data, key_file.size), &plain));
    }
    double end = now_s();
    (void)printf("seal_payload_1_mib %.0f us\n", (middle - begin) * 1e6 / TURNS);
    (void)printf("open_payload_1_mib %.0f us\n", (end - middle) * 1e6 / TURNS);
    buffer_close(&file);
    buffer_close(&key_file);
    buffer_close(&plain);
}

int main(void)
{
    struct seal_key key;
    struct keyring *ring = mem_must(keyring_new());
    must(seal_key_make(&key));
    must(keyring_put(ring, 1, &key));
    bench_entries(&key);
    bench_snapshot(ring);
    bench_payload(ring);
    seal_key_wipe(&key);
    keyring_free(ring);
    return 0;
}
