#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "common/mem.h"
#include "tests/unit/pki/pki_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/pki-test-XXXXXX";
static char file[sizeof folder + 8];

static int setup(void **state)
{
    (void)state;
    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    (void)snprintf(file, sizeof file, "%s/file", folder);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    (void)unlink(file);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(folder); /* fails when a test left a file behind */
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void put_file(const void *data, size_t size, mode_t mode)
{
    FILE *f = fopen(file, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(file, mode), 0);
}

static void written_text_is_read_back(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    char *text = NULL;
    assert_ok(pki_write(file, true, "first", &msg), &msg);
    assert_ok(pki_write(file, true, "second", &msg), &msg);
    assert_ok(pki_read(file, true, &text, &msg), &msg);
    assert_string_equal(text, "second");
    pki_key_free(text);
}

/* Whatever the umask and the file before it. */
static void modes_are_0600_for_secrets_and_0644_otherwise(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    mode_t before = umask(0);
    put_file("x", 1, 0666);
    assert_ok(pki_write(file, true, "secret", &msg), &msg);
    assert_int_equal(mode_of(file), 0600);
    umask(0077);
    assert_ok(pki_write(file, false, "public", &msg), &msg);
    assert_int_equal(mode_of(file), 0644);
    umask(before);
}

static void secret_open_to_others_is_refused(void **state)
{
    (void)state;
    static const mode_t modes[] = {0640, 0604, 0620, 0601, 0644};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        put_file("key", 3, modes[i]);
        struct errmsg msg = {""};
        char *text = NULL;
        assert_fails(pki_read(file, true, &text, &msg), STATUS_DENIED, &msg, "run 'chmod 600 ");
        assert_null(text);
        assert_ok(pki_read(file, false, &text, &msg), &msg);
        mem_free(text);
    }
}

static void missing_file_and_folder_are_not_found(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    char *text = NULL;
    assert_fails(pki_read(file, false, &text, &msg), STATUS_NOT_FOUND, &msg, file);
    assert_int_equal(pki_write("/nonexistent/x/y", false, "x", &msg).code, STATUS_NOT_FOUND);
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    struct errmsg msg = {""};
    char *text = NULL;
    assert_fails(pki_read(folder, false, &text, &msg), STATUS_INVALID, &msg, "not a file");
    assert_int_equal(mkfifo(file, 0600), 0);
    assert_fails(pki_read(file, true, &text, &msg), STATUS_INVALID, &msg, "not a file");
}

static void text_with_nul_is_refused(void **state)
{
    (void)state;
    put_file("a\0b", 3, 0600);
    struct errmsg msg = {""};
    char *text = NULL;
    assert_fails(pki_read(file, true, &text, &msg), STATUS_INVALID, &msg, "not a PEM text");
}

static void size_limit_at_its_boundary(void **state)
{
    (void)state;
    char *big = calloc(1, PKI_PEM_BYTES_MAX + 2);
    assert_non_null(big);
    struct errmsg msg = {""};
    char *text = NULL;
    memset(big, 'a', PKI_PEM_BYTES_MAX);
    assert_ok(pki_write(file, false, big, &msg), &msg);
    assert_ok(pki_read(file, false, &text, &msg), &msg);
    assert_string_equal(text, big);
    mem_free(text);
    text = NULL;
    big[PKI_PEM_BYTES_MAX] = 'a';
    assert_fails(pki_write(file, false, big, &msg), STATUS_LIMIT, &msg, "over 16384 bytes");
    put_file(big, PKI_PEM_BYTES_MAX + 1, 0600);
    assert_fails(pki_read(file, false, &text, &msg), STATUS_LIMIT, &msg, "over 16384 bytes");
    assert_null(text);
    free(big);
}

static void path_too_long_is_refused(void **state)
{
    (void)state;
    char path[PATH_MAX + 10];
    memset(path, 'a', sizeof path);
    path[sizeof path - 1] = '\0';
    struct errmsg msg = {""};
    assert_int_equal(pki_write(path, false, "x", &msg).code, STATUS_INVALID);
}

/* A folder in the way makes the rename fail; teardown sees that no temporary file stayed. */
static void failed_write_leaves_nothing_behind(void **state)
{
    (void)state;
    assert_int_equal(mkdir(file, 0700), 0);
    struct errmsg msg = {""};
    assert_false(status_is_ok(pki_write(file, false, "x", &msg)));
    assert_int_equal(rmdir(file), 0);
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        assert_true(e->d_name[0] == '.');
    }
    (void)closedir(d);
}

static void out_of_memory_is_reported(void **state)
{
    (void)state;
    put_file("x", 1, 0600);
    struct errmsg msg = {""};
    char *text = NULL;
    mem_fault(0, 1);
    struct status s = pki_read(file, true, &text, &msg);
    assert_int_equal(mem_fault_clear(), 1);
    assert_int_equal(s.code, STATUS_NOMEM);
    assert_null(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(written_text_is_read_back, remove_file),
        cmocka_unit_test_teardown(modes_are_0600_for_secrets_and_0644_otherwise, remove_file),
        cmocka_unit_test_teardown(secret_open_to_others_is_refused, remove_file),
        cmocka_unit_test(missing_file_and_folder_are_not_found),
        cmocka_unit_test_teardown(what_is_no_file_is_refused, remove_file),
        cmocka_unit_test_teardown(text_with_nul_is_refused, remove_file),
        cmocka_unit_test_teardown(size_limit_at_its_boundary, remove_file),
        cmocka_unit_test(path_too_long_is_refused),
        cmocka_unit_test_teardown(failed_write_leaves_nothing_behind, remove_file),
        cmocka_unit_test_teardown(out_of_memory_is_reported, remove_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
