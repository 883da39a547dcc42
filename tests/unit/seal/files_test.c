/* What is sealed as a whole: snapshots, payload files, wrapped keys and the files they are in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"
#include "common/seal/keys_file.h"
#include "common/seal/payload_seal.h"
#include "common/seal/snapshot_seal.h"
#include "common/seal/wrap.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static const struct seal_key one = {{1, 2, 3}}, two = {{9}};
static char folder[] = "/tmp/seal-test-XXXXXX";
static char file[sizeof folder + 16], other[sizeof folder + 16];
static struct keyring *ring;

static struct bytes whole(const struct buffer *b)
{
    return bytes_of(b->data, b->size);
}

static int setup(void **state)
{
    (void)state;
    ring = keyring_new();
    (void)snprintf(folder + sizeof folder - 7, 7, "XXXXXX");
    if (ring == NULL || mkdtemp(folder) == NULL || !status_is_ok(keyring_put(ring, 1, &one)) ||
        !status_is_ok(keyring_put(ring, 2, &two))) {
        return -1;
    }
    (void)snprintf(file, sizeof file, "%s/file", folder);
    (void)snprintf(other, sizeof other, "%s/other", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    keyring_free(ring);
    (void)unlink(file);
    (void)unlink(other);
    return rmdir(folder); /* fails when a test left a file behind */
}

static void put_file(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static size_t get_file(const char *path, uint8_t *out, size_t max)
{
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    size_t size = fread(out, 1, max, f);
    assert_int_equal(fclose(f), 0);
    return size;
}

/* ---- Snapshots ---- */

static const struct bytes wrapped = {(const uint8_t *)"wrapped", 7};

/* Three parts of different bytes, the first two full. */
static struct parts plain_parts(void)
{
    struct parts p = {0};
    static uint8_t block[PARTS_BYTES];
    for (int i = 0; i < 3; i++) {
        memset(block, 'a' + i, sizeof block);
        struct buffer *to = parts_next(&p);
        assert_true(status_is_ok(buffer_append(to, block, i < 2 ? sizeof block : 10)));
    }
    return p;
}

static struct buffer joined(const struct parts *p)
{
    struct buffer all = {0};
    for (size_t i = 0; i < p->count; i++) {
        assert_true(status_is_ok(buffer_append(&all, p->items[i].data, p->items[i].size)));
    }
    assert_int_equal(parts_size(p), all.size);
    return all;
}

static struct buffer sealed_snapshot(uint32_t key)
{
    struct parts plain = plain_parts(), sealed = {0};
    assert_true(status_is_ok(snapshot_seal(ring, key, wrapped, &plain, &sealed)));
    assert_int_equal(plain.count, 0);
    struct buffer all = joined(&sealed);
    parts_close(&sealed);
    return all;
}

static struct status opened(struct bytes snapshot, struct buffer *plain)
{
    struct snapshot_head head;
    struct errmsg msg = {.text = ""};
    TRY(snapshot_head_read(snapshot, &head, &msg));
    struct status s = snapshot_open(ring, &head, plain, &msg);
    assert_int_equal(msg.text[0] == '\0', status_is_ok(s));
    return s;
}

static void a_snapshot_opens_whole(void **state)
{
    (void)state;
    struct parts plain = plain_parts();
    struct buffer expected = joined(&plain), sealed = sealed_snapshot(1), got = {0};
    struct snapshot_head head;
    assert_true(snapshot_is_sealed(whole(&sealed)));
    assert_true(status_is_ok(snapshot_head_read(whole(&sealed), &head, NULL)));
    assert_true(bytes_equal(head.wrapped_keys, wrapped));
    assert_int_equal(head.key_id, 1);
    assert_int_equal(head.parts, 3);
    assert_true(status_is_ok(opened(whole(&sealed), &got)));
    assert_true(bytes_equal(whole(&got), whole(&expected)));
    assert_false(snapshot_is_sealed(whole(&expected)));
    parts_close(&plain);
    buffer_close(&expected);
    buffer_close(&sealed);
    buffer_close(&got);
}

static void two_snapshots_of_one_state_share_nothing(void **state)
{
    (void)state;
    struct buffer a = sealed_snapshot(1), b = sealed_snapshot(1);
    size_t head = 4 + 4 + 4 + wrapped.size + SNAPSHOT_SEAL_ID_BYTES + 8;
    assert_int_equal(a.size, b.size);
    assert_memory_not_equal(a.data + head + 4, b.data + head + 4, 64);
    /* Parts of one do not open in the other. */
    struct buffer got = {0};
    memcpy(b.data + head, a.data + head, a.size - head);
    assert_int_equal(opened(whole(&b), &got).code, STATUS_CORRUPT);
    buffer_close(&a);
    buffer_close(&b);
    buffer_close(&got);
}

/* Where part i lies, with its size in front. */
static struct bytes part_at(const struct buffer *sealed, size_t part)
{
    struct snapshot_head head;
    assert_true(status_is_ok(snapshot_head_read(whole(sealed), &head, NULL)));
    struct reader r = reader_of(head.rest);
    for (size_t i = 0; i < part; i++) {
        (void)reader_blob(&r, UINT32_MAX);
    }
    const uint8_t *at = r.rest.data;
    struct bytes body = reader_blob(&r, UINT32_MAX);
    assert_false(r.failed);
    return bytes_of(at, body.size + 4);
}

static void parts_cannot_change_places(void **state)
{
    (void)state;
    struct buffer sealed = sealed_snapshot(1), got = {0};
    struct bytes first = part_at(&sealed, 0), second = part_at(&sealed, 1);
    assert_int_equal(first.size, second.size);
    uint8_t *kept = mem_must(mem_dup(first.data, first.size));
    size_t at = (size_t)(first.data - sealed.data);
    memcpy(sealed.data + at, second.data, second.size);
    memcpy(sealed.data + at + first.size, kept, first.size);
    assert_int_equal(opened(whole(&sealed), &got).code, STATUS_CORRUPT);
    mem_free(kept);
    buffer_close(&sealed);
    buffer_close(&got);
}

static void parts_cannot_be_left_out_or_repeated(void **state)
{
    (void)state;
    struct buffer sealed = sealed_snapshot(1), got = {0};
    struct bytes last = part_at(&sealed, 2);
    size_t before = sealed.size;
    sealed.size -= last.size;
    assert_int_equal(opened(whole(&sealed), &got).code, STATUS_CORRUPT);
    /* Nor when the head says so. */
    size_t count_at = 4 + 4 + 4 + wrapped.size + SNAPSHOT_SEAL_ID_BYTES + 4;
    sealed.data[count_at] = 2;
    assert_int_equal(opened(whole(&sealed), &got).code, STATUS_CORRUPT);
    sealed.data[count_at] = 3;
    sealed.size = before;
    assert_true(status_is_ok(buffer_append(&sealed, "x", 1)));
    assert_int_equal(opened(whole(&sealed), &got).code, STATUS_CORRUPT);
    assert_int_equal(got.size, 0);
    buffer_close(&sealed);
    buffer_close(&got);
}

static void each_changed_byte_of_a_small_snapshot_is_found(void **state)
{
    (void)state;
    struct parts plain = {0}, sealed = {0};
    struct buffer got = {0};
    assert_true(status_is_ok(buffer_append(parts_next(&plain), "state", 5)));
    assert_true(status_is_ok(snapshot_seal(ring, 1, wrapped, &plain, &sealed)));
    struct buffer all = joined(&sealed);
    size_t keys_at = 12, id_at = keys_at + wrapped.size;
    for (size_t i = 0; i < all.size; i++) {
        if (i >= keys_at && i < id_at) {
            continue; /* wrapped keys vouch for themselves */
        }
        all.data[i] ^= 0x40;
        assert_false(status_is_ok(opened(whole(&all), &got)));
        all.data[i] ^= 0x40;
    }
    for (size_t size = 0; size < all.size; size++) {
        assert_false(status_is_ok(opened(bytes_of(all.data, size), &got)));
    }
    assert_int_equal(got.size, 0);
    parts_close(&sealed);
    buffer_close(&all);
    buffer_close(&got);
}

static void a_snapshot_needs_its_key(void **state)
{
    (void)state;
    struct buffer sealed = sealed_snapshot(2), got = {0};
    struct keyring *mine = ring, *foreign = keyring_new();
    assert_true(status_is_ok(keyring_put(foreign, 1, &one)));
    ring = foreign;
    assert_int_equal(opened(whole(&sealed), &got).code, STATUS_NOT_FOUND);
    assert_true(status_is_ok(keyring_put(foreign, 2, &one)));
    assert_int_equal(opened(whole(&sealed), &got).code, STATUS_CORRUPT);
    ring = mine;
    keyring_free(foreign);
    struct parts plain = plain_parts(), out = {0};
    assert_int_equal(snapshot_seal(ring, 3, wrapped, &plain, &out).code, STATUS_NOT_FOUND);
    assert_int_equal(plain.count, 0);
    parts_close(&out);
    buffer_close(&sealed);
    buffer_close(&got);
}

static void sealing_a_snapshot_survives_want_of_memory(void **state)
{
    (void)state;
    unsigned delivered = 1;
    for (unsigned delay = 0; delivered > 0; delay++) {
        struct parts plain = plain_parts(), sealed = {0};
        mem_fault(delay, 1);
        struct status s = snapshot_seal(ring, 1, wrapped, &plain, &sealed);
        delivered = mem_fault_clear();
        assert_int_equal(s.code, delivered > 0 ? STATUS_NOMEM : STATUS_OK);
        assert_int_equal(plain.count, 0);
        parts_close(&sealed);
    }
}

/* ---- Payloads ---- */

static const struct digest digest_a = {{0xaa, 1}}, digest_b = {{0xbb, 2}};

static void seal_payload(const char *text, struct buffer *data, struct buffer *key)
{
    assert_true(
        status_is_ok(payload_seal(ring, &digest_a, bytes_of(text, strlen(text)), data, key)));
}

static void a_payload_opens_with_its_key_file(void **state)
{
    (void)state;
    struct buffer data = {0}, key = {0}, plain = {0};
    seal_payload("payload", &data, &key);
    assert_int_equal(data.size, 7 + PAYLOAD_SEAL_EXTRA_BYTES);
    assert_int_equal(key.size, PAYLOAD_KEY_BYTES);
    assert_true(status_is_ok(payload_open(ring, &digest_a, whole(&data), whole(&key), &plain)));
    assert_true(bytes_equal(whole(&plain), bytes_of("payload", 7)));
    buffer_close(&data);
    buffer_close(&key);
    buffer_close(&plain);
}

static void a_payload_opens_after_rotation(void **state)
{
    (void)state;
    struct buffer data = {0}, key = {0}, plain = {0};
    seal_payload("payload", &data, &key);
    assert_true(status_is_ok(keyring_put(ring, 3, &one)));
    assert_true(status_is_ok(payload_open(ring, &digest_a, whole(&data), whole(&key), &plain)));
    buffer_close(&data);
    buffer_close(&key);
    buffer_close(&plain);
}

static void each_changed_byte_of_a_payloads_files_is_found(void **state)
{
    (void)state;
    struct buffer data = {0}, key = {0}, plain = {0};
    seal_payload("payload", &data, &key);
    for (size_t i = 0; i < data.size; i++) {
        data.data[i] ^= 0x10;
        assert_false(
            status_is_ok(payload_open(ring, &digest_a, whole(&data), whole(&key), &plain)));
        data.data[i] ^= 0x10;
    }
    for (size_t i = 0; i < key.size; i++) {
        key.data[i] ^= 0x10;
        assert_false(
            status_is_ok(payload_open(ring, &digest_a, whole(&data), whole(&key), &plain)));
        key.data[i] ^= 0x10;
    }
    for (size_t size = 0; size < key.size; size++) {
        assert_false(status_is_ok(
            payload_open(ring, &digest_a, whole(&data), bytes_of(key.data, size), &plain)));
    }
    for (size_t size = 0; size < data.size; size++) {
        assert_false(status_is_ok(
            payload_open(ring, &digest_a, bytes_of(data.data, size), whole(&key), &plain)));
    }
    assert_int_equal(plain.size, 0);
    buffer_close(&data);
    buffer_close(&key);
    buffer_close(&plain);
}

static void a_payload_is_not_another(void **state)
{
    (void)state;
    struct buffer data = {0}, key = {0}, data_2 = {0}, key_2 = {0}, plain = {0};
    seal_payload("payload", &data, &key);
    seal_payload("payload", &data_2, &key_2);
    assert_memory_not_equal(data.data + 5, data_2.data + 5, data.size - 5);
    assert_int_equal(payload_open(ring, &digest_b, whole(&data), whole(&key), &plain).code,
                     STATUS_CORRUPT);
    assert_int_equal(payload_open(ring, &digest_a, whole(&data), whole(&key_2), &plain).code,
                     STATUS_CORRUPT);
    buffer_close(&data);
    buffer_close(&key);
    buffer_close(&data_2);
    buffer_close(&key_2);
    buffer_close(&plain);
}

static void without_a_data_key_no_payload_is_taken(void **state)
{
    (void)state;
    struct keyring *empty = keyring_new();
    struct buffer data = {0}, key = {0}, plain = {0};
    assert_int_equal(payload_seal(empty, &digest_a, bytes_of("x", 1), &data, &key).code,
                     STATUS_UNAVAILABLE);
    assert_int_equal(data.size + key.size, 0);
    seal_payload("payload", &data, &key);
    assert_int_equal(payload_open(empty, &digest_a, whole(&data), whole(&key), &plain).code,
                     STATUS_NOT_FOUND);
    keyring_free(empty);
    buffer_close(&data);
    buffer_close(&key);
    buffer_close(&plain);
}

static void sealing_a_payload_survives_want_of_memory(void **state)
{
    (void)state;
    unsigned delivered = 1;
    for (unsigned delay = 0; delivered > 0; delay++) {
        struct buffer data = {0}, key = {0};
        mem_fault(delay, 1);
        struct status s = payload_seal(ring, &digest_a, bytes_of("x", 1), &data, &key);
        delivered = mem_fault_clear();
        assert_int_equal(s.code, delivered > 0 ? STATUS_NOMEM : STATUS_OK);
        assert_int_equal(data.size + key.size == 0, delivered > 0);
        buffer_close(&data);
        buffer_close(&key);
    }
}

/* A second name of the file shows what became of its blocks. */
static void a_shredded_key_is_overwritten_and_gone(void **state)
{
    (void)state;
    struct buffer data = {0}, key = {0};
    uint8_t left[2 * PAYLOAD_KEY_BYTES];
    seal_payload("payload", &data, &key);
    put_file(file, key.data, key.size);
    assert_int_equal(link(file, other), 0);
    assert_true(status_is_ok(payload_key_shred(file, NULL)));
    assert_int_equal(access(file, F_OK), -1);
    assert_int_equal(get_file(other, left, sizeof left), key.size);
    assert_memory_not_equal(left, key.data, key.size);
    assert_true(status_is_ok(payload_key_shred(file, NULL)));
    buffer_close(&data);
    buffer_close(&key);
}

static void only_a_file_is_shredded(void **state)
{
    (void)state;
    struct errmsg msg = {.text = ""};
    assert_int_equal(symlink("/dev/null", file), 0);
    assert_false(status_is_ok(payload_key_shred(file, &msg)));
    assert_string_not_equal(msg.text, "");
    assert_false(status_is_ok(payload_key_shred(folder, &msg)));
}

/* ---- Cluster keys ---- */

static struct cluster_key *key_at(const char *path)
{
    char from[PATH_MAX];
    struct cluster_key *c = NULL;
    struct errmsg msg = {.text = ""};
    (void)snprintf(from, sizeof from, "file:%s", path);
    assert_true(status_is_ok(cluster_key_open(from, NULL, &c, &msg)));
    return c;
}

static struct cluster_key *new_key(const char *path)
{
    assert_true(status_is_ok(cluster_key_create(path, NULL)));
    return key_at(path);
}

static void a_wrapped_key_opens_under_its_cluster_key_alone(void **state)
{
    (void)state;
    struct cluster_key *c = new_key(file), *again = key_at(file), *d = new_key(other);
    struct buffer out = {0};
    struct seal_key key;
    struct errmsg msg = {.text = ""};
    assert_int_equal(strlen(cluster_key_fingerprint(c)), WRAP_FINGERPRINT_BYTES - 1);
    assert_string_equal(cluster_key_fingerprint(c), cluster_key_fingerprint(again));
    assert_string_not_equal(cluster_key_fingerprint(c), cluster_key_fingerprint(d));
    assert_true(status_is_ok(cluster_key_wrap(c, 5, &one, &out, &msg)));
    assert_true(status_is_ok(cluster_key_unwrap(again, 5, whole(&out), &key, &msg)));
    assert_true(seal_key_equal(&key, &one));
    assert_int_equal(cluster_key_unwrap(d, 5, whole(&out), &key, &msg).code, STATUS_CORRUPT);
    assert_int_equal(cluster_key_unwrap(c, 6, whole(&out), &key, &msg).code, STATUS_CORRUPT);
    for (size_t i = 0; i < out.size; i++) {
        out.data[i] ^= 2;
        assert_false(status_is_ok(cluster_key_unwrap(c, 5, whole(&out), &key, &msg)));
        out.data[i] ^= 2;
    }
    for (size_t size = 0; size < out.size; size++) {
        assert_false(status_is_ok(cluster_key_unwrap(c, 5, bytes_of(out.data, size), &key, &msg)));
    }
    cluster_key_free(c);
    cluster_key_free(again);
    cluster_key_free(d);
    buffer_close(&out);
}

static void a_key_file_open_to_others_is_refused(void **state)
{
    (void)state;
    char from[PATH_MAX];
    struct cluster_key *c = NULL;
    struct errmsg msg = {.text = ""};
    assert_true(status_is_ok(cluster_key_create(file, NULL)));
    (void)snprintf(from, sizeof from, "file:%s", file);
    assert_int_equal(chmod(file, 0640), 0);
    assert_int_equal(cluster_key_open(from, NULL, &c, &msg).code, STATUS_DENIED);
    assert_non_null(strstr(msg.text, "chmod 600"));
    assert_int_equal(chmod(file, 0400), 0);
    assert_true(status_is_ok(cluster_key_open(from, NULL, &c, &msg)));
    cluster_key_free(c);
}

static void a_key_file_is_never_overwritten(void **state)
{
    (void)state;
    struct errmsg msg = {.text = ""};
    put_file(file, "x", 1);
    assert_int_equal(cluster_key_create(file, &msg).code, STATUS_EXISTS);
    assert_non_null(strstr(msg.text, file));
}

static void what_is_not_a_key_file_is_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "x",
        "skep-cluster-key-v1 ",
        "skep-cluster-key-v1 00112233",
        "skep-cluster-key-v2 "
        "0011223344556677889900112233445566778899001122334455667788990011\n",
        "skep-cluster-key-v1 "
        "0011223344556677889900112233445566778899001122334455667788990g11\n",
        "skep-cluster-key-v1 "
        "0011223344556677889900112233445566778899001122334455667788990011\nx",
    };
    char from[PATH_MAX];
    (void)snprintf(from, sizeof from, "file:%s", file);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct cluster_key *c = NULL;
        struct errmsg msg = {.text = ""};
        put_file(file, texts[i], strlen(texts[i]));
        assert_int_equal(chmod(file, 0600), 0);
        assert_int_equal(cluster_key_open(from, NULL, &c, &msg).code, STATUS_INVALID);
        assert_non_null(strstr(msg.text, "does not hold a cluster key"));
        assert_null(strstr(msg.text, "00112233"));
    }
}

static void a_credential_is_read_from_systemds_folder(void **state)
{
    (void)state;
    struct cluster_key *c = NULL, *from_file = new_key(file);
    struct errmsg msg = {.text = ""};
    (void)unsetenv("CREDENTIALS_DIRECTORY");
    assert_int_equal(cluster_key_open("credential:file", NULL, &c, &msg).code, STATUS_NOT_FOUND);
    assert_non_null(strstr(msg.text, "LoadCredential"));
    assert_int_equal(setenv("CREDENTIALS_DIRECTORY", folder, 1), 0);
    assert_int_equal(chmod(file, 0440), 0); /* as an access list makes it look */
    assert_true(status_is_ok(cluster_key_open("credential:file", NULL, &c, &msg)));
    assert_string_equal(cluster_key_fingerprint(c), cluster_key_fingerprint(from_file));
    cluster_key_free(c);
    assert_int_equal(cluster_key_open("credential:none", NULL, &c, &msg).code, STATUS_NOT_FOUND);
    (void)unsetenv("CREDENTIALS_DIRECTORY");
    cluster_key_free(from_file);
}

static void only_the_three_forms_are_taken(void **state)
{
    (void)state;
    static const char *const good[] = {"file:/etc/k", "credential:skep-key",
                                       "pkcs11:token=skep;object=cluster"};
    static const char *const bad[] = {
        "",          "/etc/k",      "file:k",         "file:",
        "FILE:/etc", "credential:", "credential:a/b", "credential:.."};
    struct errmsg msg = {.text = ""};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(status_is_ok(cluster_key_check(good[i], &msg)));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(cluster_key_check(bad[i], &msg).code, STATUS_INVALID);
    }
}

/* ---- The file of wrapped keys ---- */

static void the_keys_file_holds_what_was_written_last(void **state)
{
    (void)state;
    struct buffer got = {0};
    struct stat st;
    assert_int_equal(keys_file_read(file, &got, NULL).code, STATUS_NOT_FOUND);
    assert_true(status_is_ok(keys_file_write(file, bytes_of("first", 5), NULL)));
    assert_true(status_is_ok(keys_file_write(file, bytes_of("second", 6), NULL)));
    assert_true(status_is_ok(keys_file_read(file, &got, NULL)));
    assert_true(bytes_equal(whole(&got), bytes_of("second", 6)));
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    buffer_close(&got);
}

/* That nothing is left beside it, the end of each test checks. */
static void a_keys_file_that_cannot_be_replaced_leaves_no_temporary(void **state)
{
    (void)state;
    struct errmsg msg = {.text = ""};
    assert_int_equal(mkdir(file, 0700), 0);
    assert_false(status_is_ok(keys_file_write(file, bytes_of("content", 7), &msg)));
    assert_non_null(strstr(msg.text, file));
    assert_int_equal(rmdir(file), 0);
}

static void a_damaged_keys_file_is_told_from_a_foreign_one(void **state)
{
    (void)state;
    uint8_t bytes[128];
    struct buffer got = {0};
    struct errmsg msg = {.text = ""};
    assert_true(status_is_ok(keys_file_write(file, bytes_of("content", 7), NULL)));
    size_t size = get_file(file, bytes, sizeof bytes);
    for (size_t i = 0; i < size; i++) {
        bytes[i] ^= 1;
        put_file(file, bytes, size);
        assert_int_equal(keys_file_read(file, &got, &msg).code, STATUS_CORRUPT);
        bytes[i] ^= 1;
    }
    for (size_t cut = 0; cut < size; cut++) {
        put_file(file, bytes, cut);
        assert_int_equal(keys_file_read(file, &got, &msg).code, STATUS_CORRUPT);
    }
    assert_int_equal(got.size, 0);
    buffer_close(&got);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(a_snapshot_opens_whole),
        T(two_snapshots_of_one_state_share_nothing),
        T(parts_cannot_change_places),
        T(parts_cannot_be_left_out_or_repeated),
        T(each_changed_byte_of_a_small_snapshot_is_found),
        T(a_snapshot_needs_its_key),
        T(sealing_a_snapshot_survives_want_of_memory),
        T(a_payload_opens_with_its_key_file),
        T(a_payload_opens_after_rotation),
        T(each_changed_byte_of_a_payloads_files_is_found),
        T(a_payload_is_not_another),
        T(without_a_data_key_no_payload_is_taken),
        T(sealing_a_payload_survives_want_of_memory),
        T(a_shredded_key_is_overwritten_and_gone),
        T(only_a_file_is_shredded),
        T(a_wrapped_key_opens_under_its_cluster_key_alone),
        T(a_key_file_open_to_others_is_refused),
        T(a_key_file_is_never_overwritten),
        T(what_is_not_a_key_file_is_refused),
        T(a_credential_is_read_from_systemds_folder),
        T(only_the_three_forms_are_taken),
        T(the_keys_file_holds_what_was_written_last),
        T(a_keys_file_that_cannot_be_replaced_leaves_no_temporary),
        T(a_damaged_keys_file_is_told_from_a_foreign_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
