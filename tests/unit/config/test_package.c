#include "common/chunks.h"
#include "common/mem.h"
#include "common/package.h"
#include "tests/unit/config/folder.h"
#include "tests/unit/config/tar.h"

#include <dirent.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Packs the folder; the archive as bytes, freed with buffer_close. */
static struct buffer packed(const struct folder *f)
{
    struct package p;
    struct errmsg msg = {""};
    struct buffer out = {0};
    struct status s = package_open(&p, f->path, &msg);
    assert_string_equal(msg.text, "");
    assert_true(status_is_ok(s));
    assert_true(status_is_ok(buffer_reserve(&out, p.size)));
    assert_int_equal(pread(p.fd, out.data, p.size, 0), (ssize_t)p.size);
    out.size = p.size;
    package_close(&p);
    return out;
}

static void pack_refused(const struct folder *f, enum status_code code, const char *message)
{
    struct package p;
    struct errmsg msg = {""};
    struct status s = package_open(&p, f->path, &msg);
    assert_string_equal(msg.text, message);
    assert_int_equal(s.code, code);
}

static struct status unpack(const struct buffer *archive, const struct folder *f,
                            struct errmsg *msg)
{
    char path[PATH_BYTES];
    return package_unpack_bytes(bytes_of(archive->data, archive->size), folder_path(f, "out", path),
                                msg);
}

static unsigned entries_of(const char *path)
{
    unsigned count = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *d = readdir(dir); d != NULL; d = readdir(dir)) {
        count += strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
    }
    (void)closedir(dir);
    return count;
}

/* The archive, which it closes, is refused and nothing is left. */
static void unpack_refused(struct buffer *archive, enum status_code code, const char *message)
{
    struct folder f;
    struct errmsg msg = {""};
    folder_open(&f);
    struct status s = unpack(archive, &f, &msg);
    assert_string_equal(msg.text, message);
    assert_int_equal(s.code, code);
    assert_int_equal(entries_of(f.path), 0);
    folder_close(&f);
    buffer_close(archive);
}

static void fill_example(const struct folder *f, bool backwards)
{
    for (int i = 0; i < 4; i++) {
        switch (backwards ? 3 - i : i) {
        case 0:
            text_put(f, "main.py", "print('hi')\n");
            break;
        case 1:
            file_put(f, "tool", "#!/bin/sh\n", 10, 0700);
            break;
        case 2:
            folder_put(f, "lib");
            text_put(f, "lib/a.txt", "");
            link_put(f, "lib/up", "../main.py");
            break;
        default:
            text_put(f, "lib-extra", "x");
            break;
        }
    }
}

/* ---- Packing ---- */

static void the_same_folder_gives_the_same_bytes(void **state)
{
    struct folder a;
    struct folder b;
    char path[PATH_BYTES];
    (void)state;
    folder_open(&a);
    folder_open(&b);
    fill_example(&a, false);
    fill_example(&b, true);
    const struct timespec times[2] = {{.tv_sec = 12345}, {.tv_sec = 99999}};
    assert_int_equal(utimensat(AT_FDCWD, folder_path(&b, "main.py", path), times, 0), 0);
    assert_int_equal(chmod(path, 0600), 0);
    struct buffer first = packed(&a);
    struct buffer second = packed(&b);
    assert_true(bytes_equal(bytes_of(first.data, first.size), bytes_of(second.data, second.size)));
    buffer_close(&first);
    buffer_close(&second);
    folder_close(&a);
    folder_close(&b);
}

static void the_archive_of_an_example_is_golden(void **state)
{
    static const char golden[] = "09c488e5573d049499889abee51e60ea640add724672b73e53dc9766cbe71e4c";
    char hex[DIGEST_STRING_BYTES];
    struct digest digest;
    struct folder f;
    (void)state;
    folder_open(&f);
    fill_example(&f, false);
    struct buffer archive = packed(&f);
    struct bytes part = bytes_of(archive.data, archive.size);
    assert_true(status_is_ok(digest_of(&part, 1, &digest)));
    digest_format(&digest, hex);
    assert_string_equal(hex, golden);
    buffer_close(&archive);
    folder_close(&f);
}

static void what_is_packed_unpacks(void **state)
{
    struct folder f;
    struct folder to;
    char path[PATH_BYTES];
    char text[64] = "";
    struct stat st;
    struct errmsg msg = {""};
    (void)state;
    folder_open(&f);
    folder_open(&to);
    fill_example(&f, false);
    struct buffer archive = packed(&f);
    assert_true(status_is_ok(unpack(&archive, &to, &msg)));
    assert_int_equal(entries_of(folder_path(&to, "out", path)), 4);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0555);
    assert_int_equal(stat(folder_path(&to, "out/main.py", path), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0444);
    assert_int_equal(st.st_size, 12);
    assert_int_equal(stat(folder_path(&to, "out/tool", path), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0555);
    assert_int_equal(stat(folder_path(&to, "out/lib", path), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0555);
    assert_int_equal(readlink(folder_path(&to, "out/lib/up", path), text, sizeof text - 1), 10);
    assert_string_equal(text, "../main.py");
    assert_int_equal(entries_of(to.path), 1);
    buffer_close(&archive);
    folder_close(&f);
    folder_close(&to);
}

static void what_is_unpacked_packs_to_the_same_bytes(void **state)
{
    struct folder f;
    struct folder to;
    struct folder inner;
    struct errmsg msg = {""};
    char path[PATH_BYTES];
    (void)state;
    folder_open(&f);
    folder_open(&to);
    fill_example(&f, false);
    text_put(&f, "\xc3\xa9\xe6\x97\xa5.txt", "names travel as they are");
    struct buffer first = packed(&f);
    assert_true(status_is_ok(unpack(&first, &to, &msg)));
    (void)snprintf(inner.path, sizeof inner.path, "%s", folder_path(&to, "out", path));
    struct buffer second = packed(&inner);
    assert_true(bytes_equal(bytes_of(first.data, first.size), bytes_of(second.data, second.size)));
    buffer_close(&first);
    buffer_close(&second);
    folder_close(&f);
    folder_close(&to);
}

static void long_paths_travel(void **state)
{
    struct folder f;
    struct folder to;
    struct errmsg msg = {""};
    char name[PATH_BYTES / 2] = "";
    char out[PATH_BYTES];
    (void)state;
    folder_open(&f);
    folder_open(&to);
    for (int i = 0; i < 4; i++) {
        size_t used = strlen(name);
        memset(name + used, 'a' + i, 50);
        name[used + 50] = '\0';
        folder_put(&f, name);
        name[used + 50] = '/';
        name[used + 51] = '\0';
    }
    (void)snprintf(name + strlen(name), 8, "file");
    text_put(&f, name, "deep");
    struct buffer archive = packed(&f);
    assert_true(status_is_ok(unpack(&archive, &to, &msg)));
    (void)snprintf(out, sizeof out, "out/%s", name);
    assert_true(file_is(&to, out));
    buffer_close(&archive);
    folder_close(&f);
    folder_close(&to);
}

static void an_empty_folder_travels(void **state)
{
    struct folder f;
    struct folder to;
    struct errmsg msg = {""};
    (void)state;
    folder_open(&f);
    folder_open(&to);
    struct buffer archive = packed(&f);
    assert_true(status_is_ok(unpack(&archive, &to, &msg)));
    assert_true(file_is(&to, "out"));
    buffer_close(&archive);
    folder_close(&f);
    folder_close(&to);
}

static void outward_links_are_not_packed(void **state)
{
    static const char *const targets[] = {"/etc/passwd", "..",      "../x",   "../../x",
                                          "a/../../x",   "./../..", "lib/..", ""};
    (void)state;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0] - 1; i++) {
        struct folder f;
        folder_open(&f);
        link_put(&f, "link", targets[i]);
        pack_refused(&f, STATUS_INVALID, "link: a symbolic link that leads out of the folder");
        folder_close(&f);
    }
}

static void fifos_and_sockets_are_not_packed(void **state)
{
    struct folder f;
    char path[PATH_BYTES];
    (void)state;
    folder_open(&f);
    folder_put(&f, "lib");
    assert_int_equal(mkfifo(folder_path(&f, "lib/pipe", path), 0600), 0);
    pack_refused(&f, STATUS_INVALID, "lib/pipe: a fifo cannot be packed");
    assert_int_equal(unlink(path), 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/s", f.path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    pack_refused(&f, STATUS_INVALID, "s: a socket cannot be packed");
    (void)close(fd);
    folder_close(&f);
}

static void unprintable_names_are_not_packed(void **state)
{
    static const char *const names[] = {"a\nb",     "\xff",         "\x1b[31m",
                                        "\xc0\xaf", "\xed\xa0\x80", "\xc2\x85"};
    static const char *const quoted[] = {"a\\x0ab",    "\\xff",           "\\x1b[31m",
                                         "\\xc0\\xaf", "\\xed\\xa0\\x80", "\\xc2\\x85"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct folder f;
        char message[256];
        folder_open(&f);
        text_put(&f, names[i], "");
        (void)snprintf(message, sizeof message,
                       "%s: a path must be printable UTF-8 of at most 64 levels", quoted[i]);
        pack_refused(&f, STATUS_INVALID, message);
        folder_close(&f);
    }
}

static void a_missing_folder_is_not_found(void **state)
{
    const struct folder f = {"/nonexistent"};
    (void)state;
    pack_refused(&f, STATUS_NOT_FOUND, "/nonexistent: No such file or directory");
}

/* Makes nested folders of 200-byte names until the path has at least `bytes`; the tree is removed
 * level by level. */
static void paths_of_4096_bytes_are_refused(void **state)
{
    enum { NAME_BYTES = 200, LEVELS = 21 };
    char name[NAME_BYTES + 1];
    struct folder f;
    struct package p;
    struct errmsg msg = {""};
    int fds[LEVELS + 1];
    (void)state;
    folder_open(&f);
    memset(name, 'n', NAME_BYTES);
    name[NAME_BYTES] = '\0';
    fds[0] = open(f.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < LEVELS; i++) {
        assert_int_equal(mkdirat(fds[i], name, 0755), 0);
        fds[i + 1] = openat(fds[i], name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(fds[i + 1] >= 0);
    }
    assert_int_equal(package_open(&p, f.path, &msg).code, STATUS_LIMIT);
    assert_non_null(strstr(msg.text, "nnn"));
    assert_non_null(
        strstr(msg.text, "...: a path below it has 1205 bytes, at most 1024 are allowed"));
    for (int i = LEVELS; i >= 0; i--) {
        (void)close(fds[i]);
    }
    folder_close(&f);
}

static void ten_thousand_files_and_no_more(void **state)
{
    struct folder f;
    char path[PATH_BYTES];
    struct package p;
    struct errmsg msg = {""};
    (void)state;
    folder_open(&f);
    text_put(&f, "0", "");
    for (int i = 1; i <= PACKAGE_FILES_MAX; i++) {
        char name[16];
        char one[PATH_BYTES];
        (void)snprintf(name, sizeof name, "%d", i);
        assert_int_equal(link(folder_path(&f, "0", one), folder_path(&f, name, path)), 0);
    }
    assert_int_equal(package_open(&p, f.path, &msg).code, STATUS_LIMIT);
    assert_non_null(strstr(msg.text, ": there are more than 10000 files and folders"));
    assert_int_equal(unlink(path), 0);
    assert_true(status_is_ok(package_open(&p, f.path, &msg)));
    assert_int_equal(p.entries_count, PACKAGE_FILES_MAX);
    package_close(&p);
    folder_close(&f);
}

static void more_than_256_mib_are_refused_before_reading(void **state)
{
    struct folder f;
    char path[PATH_BYTES];
    (void)state;
    folder_open(&f);
    text_put(&f, "big", "");
    assert_int_equal(truncate(folder_path(&f, "big", path), (off_t)PACKAGE_BYTES_MAX + 1), 0);
    pack_refused(&f, STATUS_LIMIT, "big: the folder holds more than 256 MiB");
    folder_close(&f);
}

static void out_of_memory_while_packing_leaks_nothing(void **state)
{
    struct folder f;
    (void)state;
    folder_open(&f);
    fill_example(&f, false);
    unsigned delivered = 1;
    for (unsigned delay = 0; delivered > 0; delay++) {
        struct package p;
        struct errmsg msg = {""};
        mem_fault(delay, 1);
        struct status s = package_open(&p, f.path, &msg);
        delivered = mem_fault_clear();
        assert_int_equal(s.code, delivered > 0 ? STATUS_NOMEM : STATUS_OK);
        if (status_is_ok(s)) {
            package_close(&p);
        }
    }
    folder_close(&f);
}

/* ---- Hostile archives ---- */

static void paths_that_leave_the_folder_are_refused(void **state)
{
    static const char *const paths[] = {"../evil", "/evil",  "a/../../evil", "..",
                                        ".",       "./evil", "a//b",         ""};
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        struct buffer archive = {0};
        char message[128];
        tar_file(&archive, "good", "x");
        tar_file(&archive, paths[i], "evil");
        tar_end(&archive);
        (void)snprintf(message, sizeof message,
                       "archive entry \"%s\": is not a path inside the folder", paths[i]);
        unpack_refused(&archive, STATUS_INVALID, message);
    }
}

static void links_that_leave_the_folder_are_refused(void **state)
{
    static const char *const targets[] = {"/etc", "..", "../..", "a/../..", "./..", "../evil"};
    (void)state;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        struct buffer archive = {0};
        tar_header(&archive, TAR_SYMLINK, "link", targets[i], 0);
        tar_end(&archive);
        unpack_refused(&archive, STATUS_INVALID,
                       "archive entry \"link\": a symbolic link that leads out of the folder");
    }
}

static void nothing_is_written_through_a_link(void **state)
{
    struct buffer archive = {0};
    (void)state;
    tar_header(&archive, TAR_FOLDER, "real/", NULL, 0);
    tar_header(&archive, TAR_SYMLINK, "link", "real", 0);
    tar_file(&archive, "link/file", "evil");
    tar_end(&archive);
    unpack_refused(&archive, STATUS_INVALID,
                   "archive entry \"link/file\": does not lie in a folder of the archive");
}

static void a_file_over_a_link_is_refused(void **state)
{
    struct buffer archive = {0};
    (void)state;
    tar_file(&archive, "target", "good");
    tar_header(&archive, TAR_SYMLINK, "link", "target", 0);
    tar_file(&archive, "link", "evil");
    tar_end(&archive);
    unpack_refused(&archive, STATUS_EXISTS, "archive entry \"link\": is there twice");
}

static void hard_links_and_devices_are_refused(void **state)
{
    static const char types[] = {TAR_CHARACTER, TAR_BLOCK, TAR_FIFO};
    struct buffer archive = {0};
    (void)state;
    tar_file(&archive, "a", "x");
    tar_header(&archive, TAR_HARDLINK, "b", "a", 0);
    tar_end(&archive);
    unpack_refused(&archive, STATUS_INVALID, "archive entry \"b\": a hard link may not travel");
    for (size_t i = 0; i < sizeof types; i++) {
        struct buffer devices = {0};
        tar_header(&devices, types[i], "dev", NULL, 0);
        tar_end(&devices);
        unpack_refused(&devices, STATUS_INVALID,
                       "archive entry \"dev\": is neither a file, a folder nor a symbolic link");
    }
}

static void huge_sizes_are_refused_before_writing(void **state)
{
    struct buffer archive = {0};
    (void)state;
    tar_header(&archive, TAR_FILE, "big", NULL, UINT64_C(8) << 30);
    tar_data(&archive, "little");
    tar_end(&archive);
    unpack_refused(&archive, STATUS_LIMIT,
                   "archive entry \"big\": makes the package larger than 256 MiB");
}

static void files_without_their_folder_are_refused(void **state)
{
    struct buffer archive = {0};
    (void)state;
    tar_file(&archive, "lib/a", "x");
    tar_end(&archive);
    unpack_refused(&archive, STATUS_INVALID,
                   "archive entry \"lib/a\": does not lie in a folder of the archive");
}

static void a_file_is_no_folder(void **state)
{
    struct buffer archive = {0};
    (void)state;
    tar_file(&archive, "lib", "x");
    tar_file(&archive, "lib/a", "x");
    tar_end(&archive);
    unpack_refused(&archive, STATUS_INVALID,
                   "archive entry \"lib/a\": does not lie in a folder of the archive");
}

static void an_entry_may_come_once(void **state)
{
    struct buffer archive = {0};
    (void)state;
    tar_file(&archive, "a", "x");
    tar_file(&archive, "a", "y");
    tar_end(&archive);
    unpack_refused(&archive, STATUS_EXISTS, "archive entry \"a\": is there twice");
}

static void unprintable_names_are_quoted_in_the_refusal(void **state)
{
    struct buffer archive = {0};
    (void)state;
    tar_file(&archive, "a\n\x1b[2J", "x");
    tar_end(&archive);
    unpack_refused(&archive, STATUS_INVALID,
                   "archive entry \"a\\x0a\\x1b[2J\": is not a path inside the folder");
}

static void cut_archives_are_corrupt(void **state)
{
    struct folder f;
    (void)state;
    folder_open(&f);
    fill_example(&f, false);
    struct buffer archive = packed(&f);
    size_t whole = archive.size;
    /* The last 1,024 bytes are the end mark; libarchive takes its absence at a header's place for
     * the end. */
    for (size_t size = 1; size < whole - 1024; size += 97) {
        struct folder to;
        struct errmsg msg = {""};
        if (size % TAR_BLOCK_BYTES == 0) {
            continue;
        }
        folder_open(&to);
        archive.size = size;
        assert_int_equal(unpack(&archive, &to, &msg).code, STATUS_CORRUPT);
        assert_int_equal(strncmp(msg.text, "the archive cannot be read: ", 28), 0);
        assert_int_equal(entries_of(to.path), 0);
        folder_close(&to);
    }
    buffer_close(&archive);
    folder_close(&f);
}

static void noise_is_corrupt(void **state)
{
    struct buffer archive = {0};
    char noise[3000];
    (void)state;
    memset(noise, 'N', sizeof noise - 1);
    noise[sizeof noise - 1] = '\0';
    tar_data(&archive, noise);
    unpack_refused(&archive, STATUS_CORRUPT,
                   "the archive cannot be read: Unrecognized archive format");
}

static void too_many_entries_are_refused(void **state)
{
    struct buffer archive = {0};
    (void)state;
    for (int i = 0; i <= PACKAGE_FILES_MAX; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "%d", i);
        tar_header(&archive, TAR_FILE, name, NULL, 0);
    }
    tar_end(&archive);
    unpack_refused(&archive, STATUS_LIMIT, "archive entry \"10000\": is one file too many");
}

static void a_full_folder_is_not_replaced(void **state)
{
    struct folder f;
    struct buffer archive = {0};
    struct errmsg msg = {""};
    (void)state;
    folder_open(&f);
    folder_put(&f, "out");
    text_put(&f, "out/mine", "x");
    tar_file(&archive, "a", "x");
    tar_end(&archive);
    assert_int_equal(unpack(&archive, &f, &msg).code, STATUS_EXISTS);
    assert_true(file_is(&f, "out/mine"));
    assert_int_equal(entries_of(f.path), 1);
    buffer_close(&archive);
    folder_close(&f);
}

static void out_of_memory_while_unpacking_leaves_nothing(void **state)
{
    struct folder f;
    struct buffer archive = {0};
    (void)state;
    folder_open(&f);
    tar_header(&archive, TAR_FOLDER, "lib/", NULL, 0);
    tar_header(&archive, TAR_FOLDER, "lib/b/", NULL, 0);
    tar_file(&archive, "lib/b/c", "x");
    tar_end(&archive);
    unsigned delivered = 1;
    for (unsigned delay = 0; delivered > 0; delay++) {
        struct errmsg msg = {""};
        mem_fault(delay, 1);
        struct status s = unpack(&archive, &f, &msg);
        delivered = mem_fault_clear();
        assert_int_equal(s.code, delivered > 0 ? STATUS_NOMEM : STATUS_OK);
        assert_int_equal(entries_of(f.path), delivered > 0 ? 0 : 1);
    }
    buffer_close(&archive);
    folder_close(&f);
}

static struct status failing_read(void *data, struct bytes *piece, struct errmsg *msg)
{
    struct buffer *archive = data;
    if (archive->size > 0) {
        *piece = bytes_of(archive->data, archive->size);
        archive->size = 0;
        return status_ok();
    }
    return status_fail(msg, STATUS_UNAVAILABLE, "the peer went away");
}

static void a_failing_source_is_reported(void **state)
{
    struct folder f;
    char path[PATH_BYTES];
    struct buffer archive = {0};
    struct errmsg msg = {""};
    (void)state;
    folder_open(&f);
    tar_header(&archive, TAR_FILE, "a", NULL, 5000);
    assert_int_equal(
        package_unpack(failing_read, &archive, folder_path(&f, "out", path), &msg).code,
        STATUS_UNAVAILABLE);
    assert_string_equal(msg.text, "the peer went away");
    assert_int_equal(entries_of(f.path), 0);
    buffer_close(&archive);
    folder_close(&f);
}

static void link_rules(void **state)
{
    (void)state;
    assert_true(package_link_ok("a/b/l", "../../c"));
    assert_true(package_link_ok("a/b/l", "c/d"));
    assert_true(package_link_ok("a/l", ".."));
    assert_false(package_link_ok("a/b/l", "../../../c"));
    assert_false(package_link_ok("l", ".."));
    assert_false(package_link_ok("a/b/l", "c/.."));
    assert_false(package_link_ok("a/b/l", "../c/../d"));
    assert_false(package_link_ok("a/b/l", "/c"));
    assert_false(package_link_ok("a/b/l", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_folder_gives_the_same_bytes),
        cmocka_unit_test(the_archive_of_an_example_is_golden),
        cmocka_unit_test(what_is_packed_unpacks),
        cmocka_unit_test(what_is_unpacked_packs_to_the_same_bytes),
        cmocka_unit_test(long_paths_travel),
        cmocka_unit_test(an_empty_folder_travels),
        cmocka_unit_test(outward_links_are_not_packed),
        cmocka_unit_test(fifos_and_sockets_are_not_packed),
        cmocka_unit_test(unprintable_names_are_not_packed),
        cmocka_unit_test(a_missing_folder_is_not_found),
        cmocka_unit_test(paths_of_4096_bytes_are_refused),
        cmocka_unit_test(ten_thousand_files_and_no_more),
        cmocka_unit_test(more_than_256_mib_are_refused_before_reading),
        cmocka_unit_test(out_of_memory_while_packing_leaks_nothing),
        cmocka_unit_test(paths_that_leave_the_folder_are_refused),
        cmocka_unit_test(links_that_leave_the_folder_are_refused),
        cmocka_unit_test(nothing_is_written_through_a_link),
        cmocka_unit_test(a_file_over_a_link_is_refused),
        cmocka_unit_test(hard_links_and_devices_are_refused),
        cmocka_unit_test(huge_sizes_are_refused_before_writing),
        cmocka_unit_test(files_without_their_folder_are_refused),
        cmocka_unit_test(a_file_is_no_folder),
        cmocka_unit_test(an_entry_may_come_once),
        cmocka_unit_test(unprintable_names_are_quoted_in_the_refusal),
        cmocka_unit_test(cut_archives_are_corrupt),
        cmocka_unit_test(noise_is_corrupt),
        cmocka_unit_test(too_many_entries_are_refused),
        cmocka_unit_test(a_full_folder_is_not_replaced),
        cmocka_unit_test(out_of_memory_while_unpacking_leaves_nothing),
        cmocka_unit_test(a_failing_source_is_reported),
        cmocka_unit_test(link_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
