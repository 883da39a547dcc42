/* skep backup: create (pull one from a scheduler, piece by piece), verify (digest, signature, and a
 * rehearsal of the restore), list (what the schedule has stored). */
#include "cli/backup_file.h"
#include "cli/cli.h"

#include "common/dates.h"
#include "common/mem.h"
#include "common/pki/pki.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAKE_MS = 30 * 60 * 1000, TRIES_MAX = 3 };

/* ---- The CA that a backup must be signed under ---- */

/* --ca FILE, or the context's. */
static struct status ca_read(struct cli *cli, char **pem, struct errmsg *msg)
{
    if (cli->options.ca != NULL) {
        return pki_read(cli->options.ca, false, pem, msg);
    }
    const struct context *context = NULL;
    if (cli->contexts == NULL) {
        TRY(contexts_load(&cli->contexts, msg));
    }
    if (!status_is_ok(context_find(cli->contexts, cli->options.context, &context, NULL))) {
        return status_fail(msg, STATUS_INVALID,
                           "no cluster is known here: give its CA's certificate with --ca FILE");
    }
    return pki_read(context->ca, false, pem, msg);
}

/* ---- create ---- */

static bool write_all(int fd, struct bytes data, struct errmsg *msg)
{
    for (size_t done = 0; done < data.size;) {
        ssize_t wrote = write(fd, data.data + done, data.size - done);
        if (wrote < 0 && errno != EINTR) {
            (void)status_fail(msg, STATUS_IO, "write the backup: %s", strerror(errno));
            return false;
        }
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return true;
}

static void show(uint64_t done, uint64_t all)
{
    if (isatty(STDERR_FILENO) != 0) {
        (void)fprintf(stderr, "\rbackup %" PRIu64 "/%" PRIu64 " KiB%s", done >> 10, all >> 10,
                      done == all ? "\n" : "");
    }
}

/* Pulls a whole backup into fd. *again: the scheduler we read from is gone; begin anew. */
static int pull(struct cli *cli, struct client *c, int fd, bool *again)
{
    uint64_t offset = 0;
    int code = CLI_DONE;
    bool end = false;
    while (!end && code == CLI_DONE) {
        struct arena a = {0};
        struct message answer;
        struct errmsg msg = {.text = ""};
        const char *text = msg.text, *leader;
        const struct message ask = {
            .type = MESSAGE_BACKUP_GET,
            .backup_get = {.stale = cli->options.stale != 0, .offset = offset}};
        struct status s = client_ask(c, &ask, MAKE_MS, &a, &answer, &msg);
        bool asked = status_is_ok(s);
        if (asked) {
            s = client_answer_status(&answer, &text, &leader);
        }
        *again = s.code == STATUS_UNKNOWN || (offset > 0 && s.code == STATUS_CONFLICT);
        if (!status_is_ok(s)) {
            code = *again ? CLI_UNKNOWN : cli_fail(s, asked ? text : msg.text);
        } else if (answer.type != MESSAGE_BACKUP_DATA || answer.backup_data.offset != offset ||
                   answer.backup_data.data.size == 0) {
            code = cli_fail(status_of(STATUS_INTERNAL), "an answer of another kind came");
        } else if (!write_all(fd, answer.backup_data.data, &msg)) {
            code = cli_fail(status_of(STATUS_IO), msg.text);
        } else {
            offset += answer.backup_data.data.size;
            end = answer.backup_data.end;
            show(offset, answer.backup_data.total);
        }
        arena_close(&a);
    }
    return code;
}

static int pull_again(struct cli *cli, struct client *c, int fd)
{
    int code = CLI_UNKNOWN;
    bool again = true;
    for (unsigned i = 0; i < TRIES_MAX && again; i++) {
        if (ftruncate(fd, 0) != 0 || lseek(fd, 0, SEEK_SET) != 0) {
            return cli_fail(status_of(STATUS_IO), strerror(errno));
        }
        code = pull(cli, c, fd, &again);
    }
    if (code == CLI_UNKNOWN) {
        return cli_fail(status_of(STATUS_UNAVAILABLE),
                        "the connection was lost while the backup was read; try again");
    }
    return code;
}

/* Digest and signature of what came; the content of a sealed one stays closed. */
static struct status check_new(struct cli *cli, const char *path, struct backup_file *f,
                               struct errmsg *msg)
{
    char *ca = NULL;
    TRY(ca_read(cli, &ca, msg));
    struct status s = backup_file_open(f, path, NULL, msg);
    if (status_is_ok(s)) {
        s = backup_file_check(f, ca, msg);
    }
    mem_free(ca);
    return s;
}

/* Gives the file its name, unless another file has it by now. */
static bool name_give(const char *temporary, const char *path)
{
    if (link(temporary, path) == 0) {
        (void)unlink(temporary);
        return true;
    }
    /* Not every file system has links. */
    return (errno == EPERM || errno == EOPNOTSUPP) &&
           renameat2(AT_FDCWD, temporary, AT_FDCWD, path, RENAME_NOREPLACE) == 0;
}

static int finish(struct cli *cli, int fd, const char *temporary, const char *path)
{
    struct errmsg msg = {.text = ""};
    struct backup_file f = {.fd = -1};
    struct status s = status_ok();
    if (fsync(fd) != 0) {
        s = status_fail(&msg, STATUS_IO, "%s: %s", temporary, strerror(errno));
    }
    if (status_is_ok(s)) {
        s = check_new(cli, temporary, &f, &msg);
    }
    if (status_is_ok(s) && !name_give(temporary, path)) {
        int error = errno;
        s = status_fail(&msg, status_from_errno(error), "%s: %s", path, strerror(error));
    }
    if (status_is_ok(s)) {
        s = pki_sync_folder(path, &msg);
    }
    if (status_is_ok(s)) {
        char digest[DIGEST_STRING_BYTES];
        digest_format(&f.digest, digest);
        if (cli->json) {
            json_t *o = json_pack("{s:s, s:s, s:I, s:s, s:b}", "file", path, "cluster",
                                  f.header.cluster, "index", (json_int_t)f.header.index, "digest",
                                  digest, "sealed", f.sealed ? 1 : 0);
            (void)json_dumpf(o, stdout, JSON_INDENT(2));
            (void)fputc('\n', stdout);
            json_decref(o);
        } else {
            (void)printf("%s: cluster %s at index %" PRIu64 ", SHA-256 %s, signed by %s%s\n", path,
                         f.header.cluster, f.header.index, digest, f.signer,
                         f.sealed ? ", sealed" : "");
        }
    }
    backup_file_close(&f);
    return status_is_ok(s) ? CLI_DONE : cli_fail(s, msg.text);
}

/* Making one takes its time; that there is no leader should not. */
static bool leader_find(struct cli *cli, struct client *c, int *code)
{
    struct arena a = {0};
    struct message answer;
    const struct message m = {.type = MESSAGE_QUERY, .query = {.what = "functions", .name = ""}};
    bool found = cli_ask(cli, c, &m, CLIENT_CONNECT_MS, &a, &answer, code);
    arena_close(&a);
    return found;
}

int verb_backup_create(struct cli *cli)
{
    const char *path = cli->args[0];
    char temporary[CONFIG_PATH_BYTES_MAX + 8];
    int used = snprintf(temporary, sizeof temporary, "%s.XXXXXX", path);
    if (used < 0 || (size_t)used >= sizeof temporary) {
        return cli_usage("the path of the file is too long");
    }
    if (access(path, F_OK) == 0) {
        return cli_usage("%s is there already", path);
    }
    int code = CLI_DONE;
    struct client *c = cli_connect(cli, &code);
    if (c == NULL || (cli->options.stale == 0 && !leader_find(cli, c, &code))) {
        client_close(c);
        return code;
    }
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0) {
        code = cli_fail(status_of(status_from_errno(errno)), strerror(errno));
    } else {
        code = pull_again(cli, c, fd);
        code = code == CLI_DONE ? finish(cli, fd, temporary, path) : code;
        (void)close(fd);
        if (code != CLI_DONE) {
            (void)unlink(temporary);
        }
    }
    client_close(c);
    return code;
}

/* ---- verify ---- */

static void number_row(const struct cli *cli, const char *key, uint64_t value)
{
    (void)printf(cli->json ? ",\n  \"%s\": %" PRIu64 : "%-22s %" PRIu64 "\n", key, value);
}

static void text_row(const struct cli *cli, const char *key, const char *value, bool first)
{
    if (cli->json) {
        (void)printf("%s  \"%s\": \"%s\"", first ? "{\n" : ",\n", key, value);
    } else {
        (void)printf("%-22s %s\n", key, value);
    }
}

static void print(const struct cli *cli, const struct backup_file *f)
{
    char digest[DIGEST_STRING_BYTES], time[DATE_STRING_BYTES];
    digest_format(&f->digest, digest);
    date_format(f->header.time_ms, time);
    const struct backup_summary *s = &f->summary;
    text_row(cli, "cluster", f->header.cluster, true);
    text_row(cli, "made", time, false);
    text_row(cli, "made_by", f->header.scheduler, false);
    text_row(cli, "version", f->header.build, false);
    text_row(cli, "signed_by", f->signer, false);
    text_row(cli, "sha256", digest, false);
    text_row(cli, "sealed", f->sealed ? f->header.wrapped_by : "no", false);
    number_row(cli, "index", f->header.index);
    if (f->opened) {
        const struct {
            const char *key;
            uint64_t value;
        } rows[] = {{"functions", s->functions},
                    {"revisions", s->revisions},
                    {"queued", s->queued},
                    {"done", s->done},
                    {"dead", s->dead},
                    {"canceled", s->canceled},
                    {"payloads", s->payload_refs},
                    {"payloads_dropped", s->missing_payloads},
                    {"schedules", s->schedules},
                    {"settings", s->settings},
                    {"nodes", s->nodes},
                    {"schedulers", s->schedulers},
                    {"keys", s->keys},
                    {"state_bytes", f->totals.state_bytes},
                    {"chunks", f->totals.chunks},
                    {"data_bytes", f->totals.data_bytes}};
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            number_row(cli, rows[i].key, rows[i].value);
        }
    }
    (void)fputs(cli->json ? "\n}\n" : "", stdout);
}

/* Opens, checks and rehearses; what fails is printed and *code set. */
bool backup_examine(struct cli *cli, const char *path, struct backup_file *f, int *code)
{
    struct errmsg msg = {.text = ""};
    char *ca = NULL;
    struct status s = ca_read(cli, &ca, &msg);
    if (status_is_ok(s)) {
        s = backup_file_open(f, path, cli->options.cluster_key, &msg);
    }
    if (status_is_ok(s)) {
        s = backup_file_check(f, ca, &msg);
    }
    if (status_is_ok(s) && f->opened) {
        s = backup_file_rehearse(f, &msg);
    }
    mem_free(ca);
    if (!status_is_ok(s)) {
        *code = cli_fail(s, msg.text);
        return false;
    }
    if (!f->opened) {
        (void)snprintf(msg.text, sizeof msg.text,
                       "digest and signature are good, but the content is sealed: give the cluster "
                       "key %s with --cluster-key",
                       f->header.wrapped_by);
        *code = cli_fail(status_of(STATUS_FAILED), msg.text);
        return false;
    }
    return true;
}

int verb_backup_verify(struct cli *cli)
{
    struct backup_file f = {.fd = -1};
    int code = CLI_DONE;
    if (backup_examine(cli, cli->args[0], &f, &code) || f.signer[0] != '\0') {
        print(cli, &f);
    }
    backup_file_close(&f);
    return code;
}

/* ---- list ---- */

int verb_backup_list(struct cli *cli)
{
    static const char *const columns[] = {"name", "time", "index", "bytes", NULL};
    return cli_query(cli, "backups", "", columns);
}
