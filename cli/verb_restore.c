/* skep backup restore: the file is checked and rehearsed first; then the cluster is asked whether
 * it is empty, by giving it the first piece; then code, payloads, and the state in pieces, the last
 * of which brings everything back at once. Whatever fails before it leaves the cluster empty.
 *
 * Code and payloads are kept by the scheduler that got them, leader or not, until the state names
 * them: all of them go to one scheduler, which is the leader before and after. The first piece is
 * given once more then, and only who has it takes the others. */
#include "cli/backup_file.h"
#include "cli/cli.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 512 << 10,
    /* Payloads that nothing names are swept away after ten minutes; those put longer ago than this
     * are put again once the state names them. */
    PAYLOADS_FRESH_S = 300,
    TRIES_MAX = 3,
};

struct restore_run {
    struct cli *cli;
    struct client *client;
    struct backup_file file;
    time_t payloads_begun;
    const char *leader; /* what is put goes there */
    bool moved;         /* and something did not */
    int code;
};

static bool ask(struct restore_run *r, const struct message *m)
{
    struct arena a = {0};
    struct message answer;
    bool good = cli_ask(r->cli, r->client, m, CLIENT_REQUEST_MS, &a, &answer, &r->code);
    if (good && answer.type == MESSAGE_PAYLOAD_HAVE && answer.payload_have.code != STATUS_OK) {
        struct status s = status_of(status_from_wire(answer.payload_have.code));
        r->code = cli_fail(s, "the scheduler does not take a payload");
        good = false;
    }
    arena_close(&a);
    return good;
}

static bool piece_put(struct restore_run *r, uint64_t offset)
{
    const struct buffer *state = &r->file.state;
    uint64_t left = state->size - offset;
    size_t size = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    const struct message m = {.type = MESSAGE_BACKUP_DATA,
                              .backup_data = {.message = "",
                                              .leader = "",
                                              .offset = offset,
                                              .total = state->size,
                                              .data = bytes_of(state->data + offset, size)}};
    return ask(r, &m);
}

/* A state of one piece would be restored at once: it goes in halves. */
static size_t first_size(const struct restore_run *r)
{
    size_t half = r->file.state.size / 2;
    return half < PIECE_BYTES ? half : PIECE_BYTES;
}

/* Is the cluster empty? Gives the first piece to its leader. */
static bool probe(struct restore_run *r)
{
    const struct buffer *state = &r->file.state;
    size_t size = first_size(r);
    const struct message m = {.type = MESSAGE_BACKUP_DATA,
                              .backup_data = {.message = "",
                                              .leader = "",
                                              .total = state->size,
                                              .data = bytes_of(state->data, size)}};
    return size > 0 && ask(r, &m);
}

static void show(const char *what, uint64_t done, uint64_t all)
{
    if (isatty(STDERR_FILENO) != 0) {
        (void)fprintf(stderr, "\r%s %" PRIu64 "/%" PRIu64 "%s", what, done, all,
                      done == all ? "\n" : "");
    }
}

static bool on_leader(struct restore_run *r)
{
    r->moved = strcmp(client_server(r->client), r->leader) != 0;
    return !r->moved;
}

/* Sends the file's chunks and payloads, or the payloads alone; false, and nothing said, when one
 * went elsewhere than to the leader. */
static bool data_put(struct restore_run *r, bool chunks)
{
    struct errmsg msg = {.text = ""};
    struct status s = backup_file_rewind(&r->file, &msg);
    struct backup_block b = {.kind = BACKUP_STATE};
    uint64_t sent = 0, all = r->file.totals.payloads + (chunks ? r->file.totals.chunks : 0);
    r->payloads_begun = 0;
    r->moved = false;
    while (status_is_ok(s) && b.kind != BACKUP_END) {
        s = backup_reader_next(r->file.reader, &b, &msg);
        struct message m = {.type = MESSAGE_NONE};
        if (status_is_ok(s) && b.kind == BACKUP_CHUNK && chunks) {
            m.type = MESSAGE_CHUNK_PUT;
            m.chunk_put = (struct chunk_put){.digest = b.digest, .data = b.data};
        } else if (status_is_ok(s) && b.kind == BACKUP_PAYLOAD) {
            r->payloads_begun = r->payloads_begun == 0 ? time(NULL) : r->payloads_begun;
            m.type = MESSAGE_PAYLOAD_PUT;
            m.payload_put = (struct payload_put){.digest = b.digest, .data = b.data};
        }
        if (m.type != MESSAGE_NONE) {
            if (!ask(r, &m) || !on_leader(r)) {
                return false;
            }
            show("upload", ++sent, all);
        }
    }
    if (status_is_ok(s) &&
        digest_compare(backup_reader_digest(r->file.reader), &r->file.digest) != 0) {
        s = status_fail(&msg, STATUS_CORRUPT, "the file changed while it was read");
    }
    if (!status_is_ok(s)) {
        r->code = cli_fail(s, msg.text);
    }
    return status_is_ok(s);
}

/* Behind the first piece. */
static bool state_put(struct restore_run *r)
{
    for (uint64_t at = first_size(r); at < r->file.state.size; at += PIECE_BYTES) {
        if (!piece_put(r, at)) {
            return false;
        }
    }
    return true;
}

/* Puts code and payloads where the state will be put, and the state's first piece. */
static bool prepare(struct restore_run *r)
{
    for (unsigned i = 0; i < TRIES_MAX; i++) {
        if (!probe(r)) {
            return false;
        }
        r->leader = client_server(r->client);
        if (data_put(r, true) && probe(r) && on_leader(r)) {
            return true;
        }
        if (!r->moved) {
            return false; /* And why is said. */
        }
    }
    r->code = cli_fail(status_of(STATUS_UNAVAILABLE), "the leader changed; give the command again");
    return false;
}

/* What was swept away while the rest went up; the state names it now. */
static bool payloads_again(struct restore_run *r)
{
    for (unsigned i = 0; i < TRIES_MAX; i++) {
        r->code = CLI_DONE;
        r->leader = client_server(r->client);
        if (data_put(r, false)) {
            return true;
        }
    }
    if (r->code == CLI_DONE) {
        r->code = cli_fail(status_of(STATUS_UNAVAILABLE), "the leader changed");
    }
    (void)fputs("skep: the state is restored; payloads are missing\n", stderr);
    return false;
}

static bool run(struct restore_run *r)
{
    if (!prepare(r) || !state_put(r)) {
        return false;
    }
    bool stale = r->payloads_begun != 0 && time(NULL) - r->payloads_begun > PAYLOADS_FRESH_S;
    return !stale || payloads_again(r);
}

int verb_backup_restore(struct cli *cli)
{
    struct restore_run r = {.cli = cli, .file = {.fd = -1}};
    if (!backup_examine(cli, cli->args[0], &r.file, &r.code)) {
        backup_file_close(&r.file);
        return r.code;
    }
    const struct backup_summary *s = &r.file.summary;
    if (!cli_confirm(cli,
                     "Restore %" PRIu64 " functions and %" PRIu64
                     " invocations of cluster %s into this cluster?",
                     s->functions, s->jobs, r.file.header.cluster)) {
        r.code = CLI_USAGE;
    } else {
        r.client = cli_connect(cli, &r.code);
    }
    if (r.client != NULL) {
        if (run(&r)) {
            (void)printf("restored %" PRIu64 " functions (%" PRIu64 " revisions) and %" PRIu64
                         " invocations, %" PRIu64 " of them queued, from cluster %s at index "
                         "%" PRIu64 "\n",
                         s->functions, s->revisions, s->jobs, s->queued, r.file.header.cluster,
                         r.file.header.index);
        }
        client_close(r.client);
    }
    backup_file_close(&r.file);
    return r.code;
}
