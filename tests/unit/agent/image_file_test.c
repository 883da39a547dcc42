/* Files of images on a node, and their mounts. The mounts need root and erofs in the kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/image/image_file.h"
#include "common/image/image.h"
#include "common/mem.h"
#include "common/package.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

struct fixture {
    char around[40], folder[64], source[64];
    struct image_built image;
    bool *missing;
    struct errmsg msg;
};

static int setup(void **state)
{
    struct fixture *f = mem_must(mem_zalloc(1, sizeof *f));
    char path[96];
    (void)snprintf(f->around, sizeof f->around, "/tmp/skep-image-file.XXXXXX");
    assert_non_null(mkdtemp(f->around));
    (void)snprintf(f->folder, sizeof f->folder, "%s/images", f->around);
    (void)snprintf(f->source, sizeof f->source, "%s/source", f->around);
    assert_int_equal(mkdir(f->folder, 0700) | mkdir(f->source, 0755), 0);
    for (unsigned i = 0; i < 3; i++) {
        (void)snprintf(path, sizeof path, "%s/file%u", f->source, i);
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        uint8_t *bytes = mem_must(mem_alloc(IMAGE_CHUNK_BYTES));
        memset(bytes, 'a' + (int)i, IMAGE_CHUNK_BYTES);
        assert_int_equal(write(fd, bytes, IMAGE_CHUNK_BYTES), IMAGE_CHUNK_BYTES);
        mem_free(bytes);
        (void)close(fd);
    }
    struct status s = image_build(f->source, &f->image, &f->msg);
    if (!status_is_ok(s)) {
        fail_msg("%s", f->msg.text);
    }
    f->missing = mem_must(mem_zalloc(f->image.chunks_count, sizeof *f->missing));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    size_t count;
    assert_int_equal(image_files_unmount_all(f->around, &count, &f->msg).code, STATUS_OK);
    image_built_close(&f->image);
    assert_int_equal(package_remove(f->around, &f->msg).code, STATUS_OK);
    mem_free(f->missing);
    mem_free(f);
    return 0;
}

static uint32_t scan(struct fixture *f)
{
    uint32_t count = 0;
    assert_int_equal(image_file_scan(f->folder, &f->image.digest, f->image.bytes, f->image.chunks,
                                     f->image.chunks_count, f->missing, &f->msg)
                         .code,
                     STATUS_OK);
    for (uint32_t i = 0; i < f->image.chunks_count; i++) {
        count += f->missing[i];
    }
    return count;
}

static void fill(struct fixture *f)
{
    struct buffer chunk = {0};
    for (uint32_t i = 0; i < f->image.chunks_count; i++) {
        if (f->missing[i]) {
            assert_int_equal(image_built_chunk(&f->image, i, &chunk, &f->msg).code, STATUS_OK);
            assert_int_equal(image_file_put(f->folder, &f->image.digest, i, &f->image.chunks[i],
                                            bytes_of(chunk.data, chunk.size), &f->msg)
                                 .code,
                             STATUS_OK);
        }
    }
    buffer_close(&chunk);
    assert_int_equal(image_file_finish(f->folder, &f->image.digest, &f->msg).code, STATUS_OK);
}

static void damage(struct fixture *f, const char *suffix, off_t at)
{
    char path[IMAGE_FILE_PATH_BYTES];
    image_file_path(f->folder, &f->image.digest, suffix, path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "?", 1, at), 1);
    (void)close(fd);
}

static void what_is_there_is_not_fetched_again(void **state)
{
    struct fixture *f = *state;
    assert_true(f->image.chunks_count >= 3);
    assert_int_equal(scan(f), f->image.chunks_count);
    fill(f);
    assert_int_equal(scan(f), 0);
}

static void a_damaged_chunk_alone_is_missing(void **state)
{
    struct fixture *f = *state;
    (void)scan(f);
    fill(f);
    damage(f, "erofs", IMAGE_CHUNK_BYTES + 5);
    assert_int_equal(scan(f), 1);
    assert_true(f->missing[1]);
    fill(f);
}

static void a_chunk_with_other_bytes_is_refused(void **state)
{
    struct fixture *f = *state;
    (void)scan(f);
    assert_int_equal(image_file_put(f->folder, &f->image.digest, 0, &f->image.chunks[0],
                                    bytes_of("x", 1), &f->msg)
                         .code,
                     STATUS_CORRUPT);
}

static void a_whole_with_another_digest_is_refused_and_removed(void **state)
{
    struct fixture *f = *state;
    char path[IMAGE_FILE_PATH_BYTES];
    (void)scan(f);
    fill(f);
    (void)scan(f);
    damage(f, "part", 3);
    assert_int_equal(image_file_finish(f->folder, &f->image.digest, &f->msg).code, STATUS_CORRUPT);
    image_file_path(f->folder, &f->image.digest, "part", path);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void needs_mounts(struct fixture *f)
{
    if (geteuid() != 0) {
        skip();
    }
    (void)scan(f);
    fill(f);
    if (image_file_mount(f->folder, &f->image.digest, &f->msg).code == STATUS_UNSUPPORTED) {
        skip();
    }
}

static void mount_holds(struct fixture *f, const char *at)
{
    char path[IMAGE_FILE_PATH_BYTES + 8];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/file2", at);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, IMAGE_CHUNK_BYTES);
    assert_int_equal(st.st_uid, 0);
    assert_true(open(path, O_WRONLY | O_CLOEXEC) < 0);
    (void)f;
}

static void it_is_mounted_once_and_unmounted_without_a_trace(void **state)
{
    struct fixture *f = *state;
    char at[IMAGE_FILE_PATH_BYTES];
    needs_mounts(f);
    image_file_path(f->folder, &f->image.digest, "mnt", at);
    assert_true(image_file_mounted(f->folder, &f->image.digest));
    assert_int_equal(image_file_mount(f->folder, &f->image.digest, &f->msg).code, STATUS_OK);
    mount_holds(f, at);
    assert_int_equal(image_file_unmount(f->folder, &f->image.digest, &f->msg).code, STATUS_OK);
    assert_false(image_file_mounted(f->folder, &f->image.digest));
    assert_int_not_equal(access(at, F_OK), 0);
    assert_int_equal(image_file_unmount(f->folder, &f->image.digest, &f->msg).code, STATUS_OK);
}

static void a_loop_device_does_where_files_cannot_be_mounted(void **state)
{
    struct fixture *f = *state;
    char at[IMAGE_FILE_PATH_BYTES];
    char file[IMAGE_FILE_PATH_BYTES];
    needs_mounts(f);
    assert_int_equal(image_file_unmount(f->folder, &f->image.digest, &f->msg).code, STATUS_OK);
    image_file_path(f->folder, &f->image.digest, "mnt", at);
    image_file_path(f->folder, &f->image.digest, "erofs", file);
    assert_int_equal(mkdir(at, 0700), 0);
    struct status s = image_file_mount_loop(file, at, &f->msg);
    if (s.code == STATUS_UNSUPPORTED) {
        skip(); /* no loop devices here */
    }
    assert_int_equal(s.code, STATUS_OK);
    mount_holds(f, at);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_there_is_not_fetched_again),
        TEST(a_damaged_chunk_alone_is_missing),
        TEST(a_chunk_with_other_bytes_is_refused),
        TEST(a_whole_with_another_digest_is_refused_and_removed),
        TEST(it_is_mounted_once_and_unmounted_without_a_trace),
        TEST(a_loop_device_does_where_files_cannot_be_mounted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
