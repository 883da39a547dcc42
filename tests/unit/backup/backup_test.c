#include "tests/unit/backup/kit.h"

#include "common/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STATE_BYTES = 3 << 20, SMALL = 5000 };

static void what_was_written_is_read(void **state)
{
    const struct kit *k = *state;
    struct buffer file = {0}, wanted = {0}, got = {0};
    struct kit_read r;
    kit_backup(&k->scheduler, STATE_BYTES, NULL, &file);
    kit_state(STATE_BYTES, &wanted);
    kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, &got, &r);
    assert_int_equal(r.read.code, STATUS_OK);
    assert_int_equal(r.verified.code, STATUS_OK);
    assert_true(bytes_equal(bytes_of(got.data, got.size), bytes_of(wanted.data, wanted.size)));
    assert_int_equal(r.totals.state_bytes, STATE_BYTES);
    assert_int_equal(r.totals.chunks, 2);
    assert_int_equal(r.totals.payloads, 1);
    assert_int_equal(r.totals.dropped, 1);
    assert_int_equal(r.blocks[BACKUP_CHUNK], 2);
    assert_string_equal(r.header.cluster, KIT_CLUSTER);
    assert_int_equal(r.header.index, 42);
    assert_string_equal(r.signer, "s1");
    buffer_close(&file);
    buffer_close(&wanted);
    buffer_close(&got);
}

static void a_sealed_one_hides_its_content(void **state)
{
    const struct kit *k = *state;
    struct buffer file = {0}, got = {0}, wanted = {0};
    struct kit_read r;
    kit_backup(&k->scheduler, SMALL, &kit_seal, &file);
    assert_null(memmem(file.data, file.size, "a payload", 9));
    kit_read(bytes_of(file.data, file.size), &kit_seal, k->ca.pem, &got, &r);
    assert_int_equal(r.read.code, STATUS_OK);
    kit_state(SMALL, &wanted);
    assert_true(bytes_equal(bytes_of(got.data, got.size), bytes_of(wanted.data, wanted.size)));
    buffer_close(&file);
    buffer_close(&got);
    buffer_close(&wanted);
}

static void a_sealed_one_is_verified_without_its_key(void **state)
{
    const struct kit *k = *state;
    struct buffer file = {0}, got = {0};
    struct kit_read r;
    kit_backup(&k->scheduler, SMALL, &kit_seal, &file);
    kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, &got, &r);
    assert_int_equal(r.read.code, STATUS_OK);
    assert_int_equal(r.verified.code, STATUS_OK);
    assert_int_equal(got.size, 0);
    assert_int_equal(r.totals.payloads, 1);
    buffer_close(&file);
    buffer_close(&got);
}

/* Whatever byte is changed, of whatever section, the file is not taken. */
static void any_changed_byte_is_found(void **state)
{
    const struct kit *k = *state;
    struct buffer file = {0};
    struct kit_read r;
    kit_backup(&k->scheduler, SMALL, NULL, &file);
    /* The certificate's text has line ends and a trailer in which some changes mean nothing. */
    size_t end = file.size - strlen(k->scheduler.pem);
    for (size_t i = 0; i < end; i += i < 300 || i + 400 > end ? 1 : 37) {
        file.data[i] ^= 0x21;
        kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, NULL, &r);
        if (status_is_ok(r.read) && status_is_ok(r.verified)) {
            fail_msg("a change of byte %zu of %zu is not found", i, file.size);
        }
        file.data[i] ^= 0x21;
    }
    buffer_close(&file);
}

static void a_changed_byte_of_the_signers_certificate_is_found(void **state)
{
    const struct kit *k = *state;
    struct buffer file = {0};
    struct kit_read r;
    kit_backup(&k->scheduler, SMALL, NULL, &file);
    size_t middle = file.size - strlen(k->scheduler.pem) / 2;
    file.data[middle] = file.data[middle] == 'A' ? 'B' : 'A';
    kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, NULL, &r);
    assert_int_equal(r.read.code, STATUS_OK);
    assert_int_equal(r.verified.code, STATUS_DENIED);
    buffer_close(&file);
}

static void any_cut_is_found(void **state)
{
    const struct kit *k = *state;
    struct buffer file = {0};
    struct kit_read r;
    kit_backup(&k->scheduler, SMALL, NULL, &file);
    for (size_t size = 0; size < file.size; size += size < 200 ? 1 : 41) {
        kit_read(bytes_of(file.data, size), NULL, k->ca.pem, NULL, &r);
        assert_int_equal(r.read.code, STATUS_CORRUPT);
        assert_string_not_equal(r.msg.text, "");
    }
    buffer_close(&file);
}

static void something_behind_the_end_is_found(void **state)
{
    const struct kit *k = *state;
    struct buffer file = {0};
    struct kit_read r;
    kit_backup(&k->scheduler, SMALL, NULL, &file);
    assert_int_equal(buffer_put_u8(&file, 0).code, STATUS_OK);
    kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, NULL, &r);
    assert_int_equal(r.read.code, STATUS_CORRUPT);
    buffer_close(&file);
}

static void only_a_scheduler_of_the_cluster_signs(void **state)
{
    const struct kit *k = *state;
    const struct test_certificate *wrong[] = {&k->agent, &k->user, &k->foreign, &k->impostor};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct buffer file = {0};
        struct kit_read r;
        kit_backup(wrong[i], SMALL, NULL, &file);
        kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, NULL, &r);
        assert_int_equal(r.read.code, STATUS_OK);
        assert_int_equal(r.verified.code, STATUS_DENIED);
        buffer_close(&file);
    }
}

static void another_key_than_the_certificates_is_refused(void **state)
{
    const struct kit *k = *state;
    struct test_certificate mixed = {.pem = k->scheduler.pem, .key_pem = k->agent.key_pem};
    struct buffer file = {0};
    struct kit_read r;
    kit_backup(&mixed, SMALL, NULL, &file);
    kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, NULL, &r);
    assert_int_equal(r.verified.code, STATUS_DENIED);
    buffer_close(&file);
}

static void a_certificate_that_had_ended_is_refused(void **state)
{
    const struct kit *k = *state;
    const struct test_certificate_spec spec = {
        .uri = "skep://prod/scheduler/s1", .not_before_s = -7200, .not_after_s = -3600};
    struct test_certificate old;
    struct buffer file = {0};
    struct kit_read r;
    test_certificate_open(&old, &k->ca, &spec);
    kit_backup(&old, SMALL, NULL, &file);
    kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, NULL, &r);
    assert_int_equal(r.verified.code, STATUS_DENIED);
    test_certificate_close(&old);
    buffer_close(&file);
}

static void a_later_format_is_told_apart(void **state)
{
    const struct kit *k = *state;
    struct buffer file = {0};
    struct kit_read r;
    kit_backup(&k->scheduler, SMALL, NULL, &file);
    file.data[8] = 2;
    kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, NULL, &r);
    assert_int_equal(r.read.code, STATUS_UNSUPPORTED);
    buffer_close(&file);
}

static struct status open_writer(struct backup_writer **w, int fd)
{
    const struct backup_header h = {.cluster = "c"};
    return backup_writer_open(w, fd, &h, NULL, NULL);
}

static void the_state_comes_first(void **state)
{
    (void)state;
    struct backup_writer *w = NULL;
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const struct digest d = {{0}};
    assert_int_equal(open_writer(&w, fd).code, STATUS_OK);
    assert_int_equal(backup_writer_data(w, BACKUP_CHUNK, &d, bytes_of("x", 1), NULL).code,
                     STATUS_OK);
    assert_int_equal(backup_writer_state(w, bytes_of("x", 1), NULL).code, STATUS_INVALID);
    backup_writer_close(w);
    (void)close(fd);
}

static void data_over_the_limit_is_refused(void **state)
{
    (void)state;
    struct backup_writer *w = NULL;
    struct buffer large = {0};
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    const struct digest d = {{0}};
    kit_state(BACKUP_DATA_BYTES_MAX + 1, &large);
    assert_int_equal(open_writer(&w, fd).code, STATUS_OK);
    assert_int_equal(
        backup_writer_data(w, BACKUP_PAYLOAD, &d, bytes_of(large.data, BACKUP_DATA_BYTES_MAX), NULL)
            .code,
        STATUS_OK);
    assert_int_equal(
        backup_writer_data(w, BACKUP_PAYLOAD, &d, bytes_of(large.data, large.size), NULL).code,
        STATUS_LIMIT);
    backup_writer_close(w);
    buffer_close(&large);
    (void)close(fd);
}

static void a_full_disk_is_a_failure(void **state)
{
    const struct kit *k = *state;
    struct backup_writer *w = NULL;
    struct errmsg msg = {.text = ""};
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    const struct backup_header h = {.cluster = "c"};
    assert_int_equal(backup_writer_open(&w, fd, &h, NULL, &msg).code, STATUS_LIMIT);
    assert_null(w);
    (void)k;
    (void)close(fd);
}

static void out_of_memory_is_a_failure_at_every_allocation(void **state)
{
    const struct kit *k = *state;
    struct buffer file = {0};
    kit_backup(&k->scheduler, SMALL, NULL, &file);
    for (unsigned delay = 0;; delay++) {
        struct kit_read r;
        mem_fault(delay, 1);
        kit_read(bytes_of(file.data, file.size), NULL, k->ca.pem, NULL, &r);
        if (mem_fault_clear() == 0) {
            assert_int_equal(r.verified.code, STATUS_OK);
            break;
        }
        assert_true(r.read.code == STATUS_NOMEM || r.verified.code == STATUS_NOMEM);
    }
    buffer_close(&file);
}

/* Bytes of a released format, with the CA that they are signed under: they stay readable. */
static void golden_bytes_are_read(void **state)
{
    (void)state;
    struct buffer file = {0}, ca = {0};
    struct kit_read r;
    const struct {
        const char *path;
        struct buffer *to;
    } files[] = {{GOLDEN "/good", &file}, {GOLDEN "/ca.pem", &ca}};
    for (size_t i = 0; i < 2; i++) {
        FILE *f = fopen(files[i].path, "rbe");
        assert_non_null(f);
        assert_int_equal(buffer_reserve(files[i].to, 64 << 10).code, STATUS_OK);
        files[i].to->size = fread(files[i].to->data, 1, (64 << 10) - 1, f);
        (void)fclose(f);
    }
    assert_int_equal(buffer_put_u8(&ca, 0).code, STATUS_OK);
    kit_read(bytes_of(file.data, file.size), NULL, (const char *)ca.data, NULL, &r);
    assert_int_equal(r.read.code, STATUS_OK);
    assert_int_equal(r.verified.code, STATUS_OK);
    assert_int_equal(r.totals.chunks, 2);
    assert_string_equal(r.header.cluster, KIT_CLUSTER);
    buffer_close(&file);
    buffer_close(&ca);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(a_sealed_one_hides_its_content),
        cmocka_unit_test(a_sealed_one_is_verified_without_its_key),
        cmocka_unit_test(any_changed_byte_is_found),
        cmocka_unit_test(a_changed_byte_of_the_signers_certificate_is_found),
        cmocka_unit_test(any_cut_is_found),
        cmocka_unit_test(something_behind_the_end_is_found),
        cmocka_unit_test(only_a_scheduler_of_the_cluster_signs),
        cmocka_unit_test(another_key_than_the_certificates_is_refused),
        cmocka_unit_test(a_certificate_that_had_ended_is_refused),
        cmocka_unit_test(a_later_format_is_told_apart),
        cmocka_unit_test(the_state_comes_first),
        cmocka_unit_test(data_over_the_limit_is_refused),
        cmocka_unit_test(a_full_disk_is_a_failure),
        cmocka_unit_test(out_of_memory_is_a_failure_at_every_allocation),
        cmocka_unit_test(golden_bytes_are_read),
    };
    return cmocka_run_group_tests(tests, kit_setup, kit_teardown);
}
