#include "common/mem.h"
#include "scheduler/backup/s3.h"
#include "scheduler/backup/target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const struct name cluster = {"prod"};

/* 2027-01-31T08:30:05Z */
static const uint64_t when_ms = UINT64_C(1801384205) * 1000;

struct place {
    char folder[64], to[96];
    struct config_backup config;
    atomic_bool canceled;
    struct target *target;
    int fd;
};

static int setup(void **state)
{
    struct place *p = mem_must(mem_zalloc(1, sizeof *p));
    (void)snprintf(p->folder, sizeof p->folder, "/tmp/skep-target.XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    (void)snprintf(p->to, sizeof p->to, "file:%s", p->folder);
    p->config = (struct config_backup){.to = p->to, .keep = 2};
    assert_int_equal(target_open(&p->target, &p->config, &cluster, &p->canceled, NULL).code,
                     STATUS_OK);
    FILE *content = tmpfile();
    assert_non_null(content);
    p->fd = dup(fileno(content));
    (void)fputs("a backup", content);
    (void)fclose(content);
    *state = p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    struct target_list list = {.count = 0};
    (void)chmod(p->folder, 0700);
    if (status_is_ok(target_list(p->target, &list, NULL))) {
        for (size_t i = 0; i < list.count; i++) {
            (void)status_is_ok(target_remove(p->target, list.items[i].name, NULL));
        }
    }
    target_list_close(&list);
    target_close(p->target);
    (void)close(p->fd);
    int removed = rmdir(p->folder);
    mem_free(p);
    return removed;
}

static void put(struct place *p, uint64_t index)
{
    char name[TARGET_NAME_BYTES];
    target_name(&cluster, when_ms + index * 1000, index, name);
    assert_int_equal(target_put(p->target, name, p->fd, 8, NULL).code, STATUS_OK);
}

static void names_tell_time_and_index(void **state)
{
    (void)state;
    char name[TARGET_NAME_BYTES];
    struct target_entry e;
    target_name(&cluster, when_ms + 999, 77, name);
    assert_string_equal(name, "prod-20270131T083005Z-77.skepbackup");
    assert_true(target_name_parse(&cluster, name, strlen(name), &e));
    assert_int_equal(e.time_ms, when_ms);
    assert_int_equal(e.index, 77);
}

static void other_names_are_not_ours(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "prod",
        "prod-",
        "prod-20270131T083005Z-.skepbackup",
        "prod-20270131T083005Z-7.skepbackup.new",
        "prod-20270131T083005Z-7.skep",
        "prod-20271331T083005Z-7.skepbackup",
        "prod-20270230T083005Z-7.skepbackup",
        "prod-20270131T243005Z-7.skepbackup",
        "prod-20270131 083005Z-7.skepbackup",
        "prod2-20270131T083005Z-7.skepbackup",
        "test-20270131T083005Z-7.skepbackup",
        ".new.prod-20270131T083005Z-7.skepbackup",
        "prod-20270131T083005Z-99999999999999999999.skepbackup",
        "prod-20270131T083005Z--7.skepbackup",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct target_entry e;
        assert_false(target_name_parse(&cluster, names[i], strlen(names[i]), &e));
    }
}

static void a_folder_lists_newest_first(void **state)
{
    struct place *p = *state;
    struct target_list list;
    put(p, 1);
    put(p, 3);
    put(p, 2);
    assert_int_equal(target_list(p->target, &list, NULL).code, STATUS_OK);
    assert_int_equal(list.count, 3);
    assert_int_equal(list.items[0].index, 3);
    assert_int_equal(list.items[2].index, 1);
    assert_int_equal(list.items[0].bytes, 8);
    target_list_close(&list);
}

static void a_folder_keeps_what_is_not_ours(void **state)
{
    struct place *p = *state;
    struct target_list list;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/notes.txt", p->folder);
    (void)close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    put(p, 1);
    assert_int_equal(target_list(p->target, &list, NULL).code, STATUS_OK);
    assert_int_equal(list.count, 1);
    target_list_close(&list);
    assert_int_equal(unlink(path), 0);
}

static void what_is_stored_is_the_whole_file(void **state)
{
    struct place *p = *state;
    char name[TARGET_NAME_BYTES], path[256], text[16] = "";
    struct stat st;
    put(p, 1);
    target_name(&cluster, when_ms + 1000, 1, name);
    (void)snprintf(path, sizeof path, "%s/%s", p->folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, text, sizeof text), 8);
    assert_string_equal(text, "a backup");
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    (void)close(fd);
}

static void a_failed_put_leaves_nothing(void **state)
{
    struct place *p = *state;
    struct target_list list;
    char name[TARGET_NAME_BYTES];
    target_name(&cluster, when_ms, 9, name);
    atomic_store(&p->canceled, true);
    assert_int_equal(target_put(p->target, name, p->fd, 8, NULL).code, STATUS_CANCELED);
    atomic_store(&p->canceled, false);
    /* The file is shorter than was said. */
    assert_int_equal(target_put(p->target, name, p->fd, 80, NULL).code, STATUS_IO);
    assert_int_equal(target_list(p->target, &list, NULL).code, STATUS_OK);
    assert_int_equal(list.count, 0);
    target_list_close(&list);
}

static void make(const struct place *p, const char *name, time_t age_s)
{
    char path[256];
    const struct timespec then = {.tv_sec = time(NULL) - age_s};
    const struct timespec times[2] = {then, then};
    (void)snprintf(path, sizeof path, "%s/%s", p->folder, name);
    (void)close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static int removed(const struct place *p, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", p->folder, name);
    return unlink(path);
}

static void what_a_killed_scheduler_was_writing_is_removed_after_an_hour(void **state)
{
    struct place *p = *state;
    struct target_list list;
    make(p, ".new.prod-20270131T083005Z-7.skepbackup", TARGET_NEW_S + 60);
    make(p, ".new.prod-20270131T083005Z-8.skepbackup", TARGET_NEW_S - 60);
    make(p, ".new.test-20270131T083005Z-7.skepbackup", TARGET_NEW_S + 60);
    make(p, ".new.prod-notes", TARGET_NEW_S + 60);
    assert_int_equal(target_list(p->target, &list, NULL).code, STATUS_OK);
    assert_int_equal(list.count, 0);
    target_list_close(&list);
    assert_int_equal(removed(p, ".new.prod-20270131T083005Z-7.skepbackup"), -1);
    assert_int_equal(removed(p, ".new.prod-20270131T083005Z-8.skepbackup"), 0);
    assert_int_equal(removed(p, ".new.test-20270131T083005Z-7.skepbackup"), 0);
    assert_int_equal(removed(p, ".new.prod-notes"), 0);
}

static void removing_what_is_gone_is_fine(void **state)
{
    struct place *p = *state;
    char name[TARGET_NAME_BYTES];
    target_name(&cluster, when_ms, 9, name);
    assert_int_equal(target_remove(p->target, name, NULL).code, STATUS_OK);
}

/* ---- S3's list ---- */

static struct status parse(const char *text, struct target_list *out, char *token)
{
    return s3_list_parse(bytes_of(text, strlen(text)), "skep/", &cluster, out, token, NULL);
}

static void a_bucket_s_list_is_read(void **state)
{
    (void)state;
    static const char text[] =
        "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"x\"><Name>b</Name>"
        "<IsTruncated>false</IsTruncated>"
        "<Contents><Key>skep/prod-20270131T083005Z-7.skepbackup</Key><Size>123</Size></Contents>"
        "<Contents><Key>skep/other</Key><Size>1</Size></Contents>"
        "<Contents><Key>prod-20270131T083005Z-8.skepbackup</Key><Size>1</Size></Contents>"
        "<Contents><Size>5</Size><Key>skep/prod-20270131T083006Z-9.skepbackup</Key></Contents>"
        "</ListBucketResult>";
    struct target_list list = {.count = 0};
    char token[S3_TOKEN_BYTES_MAX];
    assert_int_equal(parse(text, &list, token).code, STATUS_OK);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.items[0].bytes, 123);
    assert_int_equal(list.items[1].index, 9);
    assert_string_equal(token, "");
    target_list_close(&list);
}

static void a_truncated_list_names_its_next_page(void **state)
{
    (void)state;
    struct target_list list = {.count = 0};
    char token[S3_TOKEN_BYTES_MAX];
    assert_int_equal(parse("<ListBucketResult><IsTruncated>true</IsTruncated>"
                           "<NextContinuationToken>abc=</NextContinuationToken>",
                           &list, token)
                         .code,
                     STATUS_OK);
    assert_string_equal(token, "abc=");
    assert_int_equal(parse("<ListBucketResult><IsTruncated>true</IsTruncated>", &list, token).code,
                     STATUS_CORRUPT);
    assert_int_equal(parse("<html>no</html>", &list, token).code, STATUS_CORRUPT);
}

/* ---- Credentials ---- */

static struct status credentials(const char *text, struct s3_credentials *out)
{
    return s3_credentials_parse("f", text, strlen(text), out, NULL);
}

static void credentials_are_read_as_aws_writes_them(void **state)
{
    (void)state;
    struct s3_credentials c;
    assert_int_equal(credentials("# ours\n[default]\n aws_access_key_id = AKIA1 \r\n"
                                 "aws_secret_access_key=a/b+c=\nregion = x\n[other]\n"
                                 "aws_access_key_id = AKIA2\n",
                                 &c)
                         .code,
                     STATUS_OK);
    assert_string_equal(c.access_key, "AKIA1");
    assert_string_equal(c.secret_key, "a/b+c=");
    assert_string_equal(c.session_token, "");
}

static void half_credentials_are_refused(void **state)
{
    (void)state;
    struct s3_credentials c;
    assert_int_equal(credentials("aws_access_key_id = AKIA1\n", &c).code, STATUS_INVALID);
    assert_int_equal(credentials("", &c).code, STATUS_INVALID);
}

static void credentials_that_others_may_read_are_refused(void **state)
{
    (void)state;
    struct s3_credentials c;
    char path[] = "/tmp/skep-credentials.XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    static const char text[] = "aws_access_key_id = a\naws_secret_access_key = b\n";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    assert_int_equal(s3_credentials_read(path, &c, NULL).code, STATUS_OK);
    assert_int_equal(fchmod(fd, 0644), 0);
    assert_int_equal(s3_credentials_read(path, &c, NULL).code, STATUS_DENIED);
    (void)close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(s3_credentials_read(path, &c, NULL).code, STATUS_NOT_FOUND);
}

static void a_canceled_put_into_a_bucket_reads_no_further(void **state)
{
    struct place *p = *state;
    char path[] = "/tmp/skep-credentials.XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    static const char text[] = "aws_access_key_id = a\naws_secret_access_key = b\n";
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    (void)close(fd);
    const struct config_backup config = {.to = "s3://bucket",
                                         .region = "us-east-1",
                                         .endpoint = "http://127.0.0.1:1",
                                         .credentials = path};
    struct target *bucket;
    assert_int_equal(target_open(&bucket, &config, &cluster, &p->canceled, NULL).code, STATUS_OK);
    atomic_store(&p->canceled, true);
    /* Further on the file ends before the size that was said. */
    assert_int_equal(target_put(bucket, "name", p->fd, 80, NULL).code, STATUS_CANCELED);
    atomic_store(&p->canceled, false);
    target_close(bucket);
    assert_int_equal(unlink(path), 0);
}

/* ---- Configuration ---- */

static void where_backups_go_is_checked(void **state)
{
    (void)state;
    static const char *const good[] = {"file:/var/backups", "s3://bucket", "s3://bucket/",
                                       "s3://my.bucket-1/a/b_c"};
    static const char *const bad[] = {"/var/backups",    "file:backups",     "s3://",
                                      "s3://Bucket",     "s3://ab",          "s3://bucket//a",
                                      "s3://bucket/a b", "s3://bucket/../a", "gs://bucket"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(backup_to_check(good[i], NULL).code, STATUS_OK);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(backup_to_check(bad[i], NULL).code, STATUS_INVALID);
    }
}

static void endpoints_are_checked(void **state)
{
    (void)state;
    static const char *const good[] = {"https://s3.example.org", "http://127.0.0.1:9000",
                                       "https://[::1]:9000/"};
    static const char *const bad[] = {"s3.example.org", "https://", "https:///x",
                                      "https://a/b",    "ftp://a",  "https://a?b"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_int_equal(backup_endpoint_check(good[i], NULL).code, STATUS_OK);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(backup_endpoint_check(bad[i], NULL).code, STATUS_INVALID);
    }
}

static void a_backup_section_is_read(void **state)
{
    (void)state;
    static const char head[] =
        "cluster: c\nid: s1\nlisten: 127.0.0.1:7400\ndata: /d\nca: /a\n"
        "cert: /b\nkey: /k\npeers: [{id: s1, address: \"127.0.0.1:7400\"}]\n";
    static const struct {
        const char *section;
        enum status_code code;
    } cases[] = {
        {"backup: {to: \"file:/b\"}\n", STATUS_OK},
        {"backup: {every: 1h, keep: 3, to: \"s3://bucket/p\", credentials: /c}\n", STATUS_OK},
        {"backup: {every: 1h}\n", STATUS_INVALID},
        {"backup: {to: \"s3://bucket\"}\n", STATUS_INVALID},
        {"backup: {to: \"file:/b\", region: x}\n", STATUS_INVALID},
        {"backup: {to: \"file:/b\", keep: 0}\n", STATUS_INVALID},
        {"backup: {to: \"file:/b\", every: 1ms}\n", STATUS_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[1024];
        struct scheduler_config *c = NULL;
        struct errmsg msg = {.text = ""};
        (void)snprintf(text, sizeof text, "%s%s", head, cases[i].section);
        struct status s = scheduler_config_parse("f", bytes_of(text, strlen(text)), &c, &msg);
        if ((s.code == STATUS_OK) != (cases[i].code == STATUS_OK)) {
            fail_msg("%s: %s %s", cases[i].section, status_name(s.code), msg.text);
        }
        if (i == 1) {
            assert_int_equal(c->backup.every_ms, 3600 * 1000);
            assert_int_equal(c->backup.keep, 3);
            assert_string_equal(c->backup.region, "us-east-1");
        }
        scheduler_config_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_tell_time_and_index),
        cmocka_unit_test(other_names_are_not_ours),
        cmocka_unit_test_setup_teardown(a_folder_lists_newest_first, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_keeps_what_is_not_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_stored_is_the_whole_file, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_put_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(
            what_a_killed_scheduler_was_writing_is_removed_after_an_hour, setup, teardown),
        cmocka_unit_test_setup_teardown(a_canceled_put_into_a_bucket_reads_no_further, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(removing_what_is_gone_is_fine, setup, teardown),
        cmocka_unit_test(a_bucket_s_list_is_read),
        cmocka_unit_test(a_truncated_list_names_its_next_page),
        cmocka_unit_test(credentials_are_read_as_aws_writes_them),
        cmocka_unit_test(half_credentials_are_refused),
        cmocka_unit_test(credentials_that_others_may_read_are_refused),
        cmocka_unit_test(where_backups_go_is_checked),
        cmocka_unit_test(endpoints_are_checked),
        cmocka_unit_test(a_backup_section_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
