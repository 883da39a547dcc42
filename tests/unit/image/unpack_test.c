/* Layers that try to get out, to get at others, or to be too much. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/buffer.h"
#include "common/image/beneath.h"
#include "common/image/unpack.h"
#include "common/mem.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ARCHIVE_BYTES_MAX = 4 << 20 };

/* around/root is unpacked into; around/outside must stay as it is. */
struct fixture {
    char around[32];
    int around_fd, root;
    struct image_unpack unpack;
    struct errmsg msg;
    uint8_t bytes[ARCHIVE_BYTES_MAX];
    size_t used;
    struct archive *a;
};

static void file_write(int at, const char *name, const char *text)
{
    int fd = openat(at, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    (void)close(fd);
}

static int setup(void **state)
{
    struct fixture *f = mem_must(mem_zalloc(1, sizeof *f));
    (void)snprintf(f->around, sizeof f->around, "/tmp/skep-unpack.XXXXXX");
    assert_non_null(mkdtemp(f->around));
    f->around_fd = open(f->around, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(f->around_fd, "root", 0700), 0);
    assert_int_equal(mkdirat(f->around_fd, "outside", 0700), 0);
    file_write(f->around_fd, "outside/secret", "secret");
    f->root = openat(f->around_fd, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->root >= 0);
    image_unpack_init(&f->unpack, f->root);
    *state = f;
    return 0;
}

static void file_holds(int at, const char *name, const char *text)
{
    char found[64] = "";
    int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(read(fd, found, sizeof found - 1) >= 0);
    (void)close(fd);
    assert_string_equal(found, text);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    file_holds(f->around_fd, "outside/secret", "secret");
    assert_int_equal(fstatat(f->around_fd, "outside", &st, 0), 0);
    assert_int_equal(st.st_nlink, 2);
    assert_int_equal(fstatat(f->around_fd, "outside/secret", &st, 0), 0);
    assert_int_equal(st.st_nlink, 1);
    image_unpack_close(&f->unpack);
    (void)close(f->root);
    (void)close(f->around_fd);
    assert_int_equal(beneath_remove(AT_FDCWD, f->around), 0);
    mem_free(f);
    return 0;
}

/* ---- Making layers ---- */

static void layer(struct fixture *f)
{
    f->a = archive_write_new();
    assert_non_null(f->a);
    (void)archive_write_set_format_gnutar(f->a);
    assert_int_equal(archive_write_open_memory(f->a, f->bytes, sizeof f->bytes, &f->used),
                     ARCHIVE_OK);
}

static void entry(struct fixture *f, unsigned type, unsigned mode, const char *path,
                  const char *link, const char *data)
{
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, path);
    archive_entry_set_filetype(e, type);
    archive_entry_set_perm(e, (mode_t)mode);
    archive_entry_set_size(e, data == NULL ? 0 : (int64_t)strlen(data));
    if (type == AE_IFLNK) {
        archive_entry_set_symlink(e, link);
    } else if (link != NULL) {
        archive_entry_set_hardlink(e, link);
    }
    if (type == AE_IFCHR || type == AE_IFBLK) {
        archive_entry_set_rdev(e, 0x0103);
    }
    assert_int_equal(archive_write_header(f->a, e), ARCHIVE_OK);
    if (data != NULL) {
        assert_int_equal(archive_write_data(f->a, data, strlen(data)), (ssize_t)strlen(data));
    }
    archive_entry_free(e);
}

static void file(struct fixture *f, const char *path, const char *data)
{
    entry(f, AE_IFREG, 0644, path, NULL, data);
}

static struct status unpack(struct fixture *f)
{
    assert_int_equal(archive_write_close(f->a), ARCHIVE_OK);
    archive_write_free(f->a);
    int fd = memfd_create("layer", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, f->bytes, f->used), (ssize_t)f->used);
    f->msg.text[0] = '\0';
    struct status s = image_unpack_layer(&f->unpack, fd, &f->msg);
    (void)close(fd);
    return s;
}

static void unpacks(struct fixture *f)
{
    struct status s = unpack(f);
    if (!status_is_ok(s)) {
        fail_msg("%s", f->msg.text);
    }
}

static void refused(struct fixture *f, enum status_code code, const char *says)
{
    assert_int_equal(unpack(f).code, code);
    if (strstr(f->msg.text, says) == NULL) {
        fail_msg("\"%s\" does not hold \"%s\"", f->msg.text, says);
    }
}

static bool there(const struct fixture *f, const char *path)
{
    struct stat st;
    return fstatat(f->root, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* ---- Getting out ---- */

static void paths_that_climb_are_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const paths[] = {"../outside/new", "a/../../outside/new", "..",
                                        "a/..",           "/../outside/new",     "./../x"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        layer(f);
        file(f, paths[i], "x");
        refused(f, STATUS_INVALID, "is not a path inside the image");
    }
}

static void absolute_paths_lie_below_the_root(void **state)
{
    struct fixture *f = *state;
    layer(f);
    file(f, "/etc/skep-unpack-test", "inside");
    unpacks(f);
    file_holds(f->root, "etc/skep-unpack-test", "inside");
    assert_int_not_equal(access("/etc/skep-unpack-test", F_OK), 0);
}

static void nothing_is_made_through_a_link(void **state)
{
    struct fixture *f = *state;
    layer(f);
    entry(f, AE_IFLNK, 0777, "out", "../outside", NULL);
    file(f, "out/new", "x");
    refused(f, STATUS_INVALID, "does not lie in a folder of the image");
    layer(f);
    entry(f, AE_IFLNK, 0777, "a", "../outside", NULL);
    entry(f, AE_IFDIR, 0755, "a/b", NULL, NULL);
    refused(f, STATUS_INVALID, "does not lie in a folder of the image");
}

static void a_file_replaces_a_link_and_does_not_follow_it(void **state)
{
    struct fixture *f = *state;
    layer(f);
    entry(f, AE_IFLNK, 0777, "f", "../outside/secret", NULL);
    file(f, "f", "mine");
    unpacks(f);
    file_holds(f->root, "f", "mine");
}

static void a_folder_that_becomes_a_link_swallows_nothing(void **state)
{
    struct fixture *f = *state;
    layer(f);
    entry(f, AE_IFDIR, 0755, "d", NULL, NULL);
    file(f, "d/x", "1");
    entry(f, AE_IFLNK, 0777, "d", "../outside", NULL);
    file(f, "d/secret", "2");
    refused(f, STATUS_INVALID, "does not lie in a folder of the image");
}

static void a_folder_replaces_a_link(void **state)
{
    struct fixture *f = *state;
    layer(f);
    entry(f, AE_IFLNK, 0777, "d", "../outside", NULL);
    entry(f, AE_IFDIR, 0700, "d", NULL, NULL);
    file(f, "d/secret", "2");
    unpacks(f);
    file_holds(f->root, "d/secret", "2");
}

static void hard_links_stay_inside(void **state)
{
    struct fixture *f = *state;
    static const char *const targets[] = {"../outside/secret", "missing", "l/secret", "."};
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        layer(f);
        entry(f, AE_IFLNK, 0777, "l", "../outside", NULL);
        entry(f, AE_IFREG, 0644, "h", targets[i], NULL);
        refused(f, STATUS_INVALID, "is a hard link to");
    }
    layer(f);
    entry(f, AE_IFREG, 0644, "h", "/etc/passwd", NULL);
    refused(f, STATUS_INVALID, "is a hard link to what is not there");
}

static void a_hard_link_to_a_link_is_the_link(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    layer(f);
    entry(f, AE_IFLNK, 0777, "l", "../outside/secret", NULL);
    entry(f, AE_IFREG, 0644, "h", "l", NULL);
    file(f, "h", "mine");
    unpacks(f);
    file_holds(f->root, "h", "mine");
    assert_int_equal(fstatat(f->root, "l", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISLNK(st.st_mode));
}

static void hard_links_work(void **state)
{
    struct fixture *f = *state;
    struct stat a, b;
    layer(f);
    file(f, "a", "both");
    entry(f, AE_IFREG, 0644, "d/b", "./a", NULL);
    entry(f, AE_IFREG, 0644, "a", "a", NULL);
    unpacks(f);
    assert_int_equal(fstatat(f->root, "a", &a, 0), 0);
    assert_int_equal(fstatat(f->root, "d/b", &b, 0), 0);
    assert_true(a.st_ino == b.st_ino);
}

/* ---- What is not kept ---- */

static void devices_pipes_and_special_bits_are_left_out(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    layer(f);
    entry(f, AE_IFCHR, 0666, "null", NULL, NULL);
    entry(f, AE_IFBLK, 0666, "disk", NULL, NULL);
    entry(f, AE_IFIFO, 0666, "pipe", NULL, NULL);
    entry(f, AE_IFREG, 06755, "su", NULL, "x");
    entry(f, AE_IFDIR, 03777, "tmp", NULL, NULL);
    entry(f, AE_IFREG, 0, "closed", NULL, "x");
    unpacks(f);
    assert_false(there(f, "null") || there(f, "disk") || there(f, "pipe"));
    assert_int_equal(f->unpack.skipped, 3);
    assert_int_equal(fstatat(f->root, "su", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0755);
    assert_int_equal(fstatat(f->root, "tmp", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 01777);
    assert_int_equal(fstatat(f->root, "closed", &st, 0), 0);
    assert_int_equal(st.st_mode & 07777, 0400);
}

/* ---- Whiteouts ---- */

static void lower(struct fixture *f)
{
    layer(f);
    file(f, "d/a", "1");
    file(f, "d/b", "1");
    file(f, "d/e/c", "1");
    file(f, "top", "1");
    entry(f, AE_IFLNK, 0777, "link", "../outside", NULL);
    unpacks(f);
}

static void a_whiteout_removes_what_lower_layers_have(void **state)
{
    struct fixture *f = *state;
    lower(f);
    layer(f);
    file(f, "d/.wh.a", "");
    file(f, ".wh.top", "");
    file(f, ".wh.missing", "");
    file(f, "d/.wh.e", "");
    file(f, ".wh.link", "");
    file(f, "d/.wh..wh.plnk", "");
    unpacks(f);
    assert_false(there(f, "d/a") || there(f, "top") || there(f, "d/e") || there(f, "link"));
    assert_true(there(f, "d/b"));
    assert_false(there(f, "d/.wh.a"));
}

static void what_the_same_layer_brings_survives_its_whiteouts(void **state)
{
    struct fixture *f = *state;
    lower(f);
    layer(f);
    file(f, "d/a", "2");
    file(f, "d/e/new", "2");
    file(f, "d/.wh.a", "");
    file(f, "d/.wh.e", "");
    unpacks(f);
    file_holds(f->root, "d/a", "2");
    file_holds(f->root, "d/e/new", "2");
    assert_false(there(f, "d/e/c"));
}

static void an_opaque_folder_hides_lower_layers_whenever_it_comes(void **state)
{
    struct fixture *f = *state;
    lower(f);
    layer(f);
    file(f, "d/new", "2");
    file(f, "d/.wh..wh..opq", "");
    file(f, "d/newer", "2");
    unpacks(f);
    assert_true(there(f, "d/new") && there(f, "d/newer") && there(f, "top"));
    assert_false(there(f, "d/a") || there(f, "d/b") || there(f, "d/e"));
    layer(f);
    file(f, ".wh..wh..opq", "");
    file(f, "only", "3");
    unpacks(f);
    assert_false(there(f, "d") || there(f, "top"));
    assert_true(there(f, "only"));
}

static void whiteouts_do_not_reach_out(void **state)
{
    struct fixture *f = *state;
    static const char *const paths[] = {".wh...", ".wh.", ".wh..", "d/.wh..."};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        layer(f);
        file(f, paths[i], "");
        refused(f, STATUS_INVALID, "is a whiteout of nothing");
    }
    lower(f);
    layer(f);
    file(f, "link/.wh.secret", "");
    refused(f, STATUS_INVALID, "does not lie in a folder of the image");
    layer(f);
    file(f, "link/.wh..wh..opq", "");
    refused(f, STATUS_INVALID, "does not lie in a folder of the image");
    layer(f);
    file(f, "d/../../outside/.wh.secret", "");
    refused(f, STATUS_INVALID, "is not a path inside the image");
}

/* ---- Too much ---- */

static void too_many_bytes_are_refused(void **state)
{
    struct fixture *f = *state;
    f->unpack.bytes_max = 8;
    layer(f);
    file(f, "a", "12345678");
    unpacks(f);
    layer(f);
    file(f, "b", "1");
    refused(f, STATUS_LIMIT, "makes the image too large");
}

static void too_many_entries_are_refused(void **state)
{
    struct fixture *f = *state;
    f->unpack.entries = IMAGE_ENTRIES_MAX - 1;
    layer(f);
    file(f, "a", "1");
    unpacks(f);
    layer(f);
    file(f, "b", "1");
    refused(f, STATUS_LIMIT, "is one entry too many");
}

static void too_deep_and_too_long_names_are_refused(void **state)
{
    struct fixture *f = *state;
    char deep[2 * IMAGE_DEPTH_MAX + 3];
    for (size_t i = 0; i <= IMAGE_DEPTH_MAX; i++) {
        deep[2 * i] = 'd';
        deep[2 * i + 1] = '/';
    }
    deep[2 * IMAGE_DEPTH_MAX + 1] = '\0';
    layer(f);
    file(f, deep + 2, "1"); /* as deep as may be */
    unpacks(f);
    layer(f);
    file(f, deep, "1");
    refused(f, STATUS_INVALID, "is not a path inside the image");
    char name[258];
    memset(name, 'n', sizeof name - 1);
    name[256] = '\0';
    layer(f);
    file(f, name, "1");
    refused(f, STATUS_INVALID, "is not a path inside the image");
}

static void what_is_no_archive_is_refused(void **state)
{
    struct fixture *f = *state;
    int fd = memfd_create("layer", MFD_CLOEXEC);
    assert_int_equal(write(fd, "this is not an archive at all", 29), 29);
    assert_int_equal(image_unpack_layer(&f->unpack, fd, &f->msg).code, STATUS_CORRUPT);
    (void)close(fd);
    layer(f);
    file(f, "a", "0123456789");
    assert_int_equal(archive_write_close(f->a), ARCHIVE_OK);
    archive_write_free(f->a);
    fd = memfd_create("layer", MFD_CLOEXEC);
    assert_int_equal(write(fd, f->bytes, 515), 515); /* cut within the file */
    assert_int_equal(image_unpack_layer(&f->unpack, fd, &f->msg).code, STATUS_CORRUPT);
    (void)close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(paths_that_climb_are_refused),
        TEST(absolute_paths_lie_below_the_root),
        TEST(nothing_is_made_through_a_link),
        TEST(a_file_replaces_a_link_and_does_not_follow_it),
        TEST(a_folder_that_becomes_a_link_swallows_nothing),
        TEST(a_folder_replaces_a_link),
        TEST(hard_links_stay_inside),
        TEST(a_hard_link_to_a_link_is_the_link),
        TEST(hard_links_work),
        TEST(devices_pipes_and_special_bits_are_left_out),
        TEST(a_whiteout_removes_what_lower_layers_have),
        TEST(what_the_same_layer_brings_survives_its_whiteouts),
        TEST(an_opaque_folder_hides_lower_layers_whenever_it_comes),
        TEST(whiteouts_do_not_reach_out),
        TEST(too_many_bytes_are_refused),
        TEST(too_many_entries_are_refused),
        TEST(too_deep_and_too_long_names_are_refused),
        TEST(what_is_no_archive_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
