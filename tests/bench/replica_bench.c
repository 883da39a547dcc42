/* Commits a second through three replicas in one process on one loop, messages passed in memory,
 * each replica with its own files, beside raw pwrite + fdatasync of as many bytes on the same
 * disk in the same run.
 *
 *     replica_bench [FOLDER [snapshots]]     prints "name value unit" lines; about 2 s a case
 *
 * And the longest commit while all three, at their own times, take snapshots of 100 MiB of state,
 * beside the longest with snapshots of a few bytes.
 *
 * The folder should be on the disk in question (the default, TMPDIR or /tmp, may be memory). */
#include "common/check.h"
#include "common/mem.h"
#include "scheduler/replica/replica.h"

#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum {
    NODES = 3,
    COMMAND_BYTES = 256,
    CASE_MS = 2000,
    RAW_MS = 1000,
    SETUP_MS_MAX = 20000,
    SAMPLES_MAX = 1 << 20,
    PATH_BYTES_MAX = 512,
    STATE_BYTES = 100 << 20,
    SNAPSHOT_THRESHOLD = 16384,
    SNAPSHOTS = 2, /* of each node */
    SNAPSHOT_MS_MAX = 60000,
};

struct packet {
    struct packet *next;
    uint64_t from;
    uint64_t to;
    size_t size;
    uint8_t data[];
};

struct bench;

struct node {
    struct bench *bench;
    struct replica *replica;
    uint64_t id;
    char address[32];
    char folder[PATH_BYTES_MAX];
    bool leader;
    uint64_t snapshots;
};

struct bench {
    uv_loop_t loop;
    struct node nodes[NODES];
    struct packet *first;
    struct packet **tail;
    uint64_t *started_ns; /* by ticket, modulo SAMPLES_MAX */
    uint32_t *samples_us;
    size_t samples;
    uint64_t tickets;
    uint64_t committed;
    uint64_t failed;
    unsigned open;
    uint8_t *state; /* of all nodes: what a snapshot holds; NULL: a few bytes */
    uint64_t pinned_ns;
    uint64_t pin_us_max; /* from a pin to its end */
    uint64_t turn_us_max;
};

static void on_send(void *data, uint64_t to, const char *address, bool bulk, struct bytes message)
{
    struct node *n = data;
    (void)address;
    (void)bulk;
    struct packet *p = mem_must(mem_alloc(sizeof *p + message.size));
    p->next = NULL;
    p->from = n->id;
    p->to = to;
    p->size = message.size;
    memcpy(p->data, message.data, message.size);
    *n->bench->tail = p;
    n->bench->tail = &p->next;
}

static void on_apply(void *data, uint64_t index, uint64_t term, struct bytes command)
{
    (void)data;
    (void)index;
    (void)term;
    (void)command;
}

static void on_proposed(void *data, uint64_t ticket, struct status s, uint64_t index)
{
    struct node *n = data;
    struct bench *b = n->bench;
    (void)index;
    if (!status_is_ok(s)) {
        b->failed++;
        return;
    }
    b->committed++;
    if (b->samples < SAMPLES_MAX) {
        uint64_t ns = uv_hrtime() - b->started_ns[ticket % SAMPLES_MAX];
        b->samples_us[b->samples++] = (uint32_t)(ns / 1000);
    }
}

static void on_role(void *data, const struct replica_status *st)
{
    struct node *n = data;
    n->leader = st->leader;
}

static void *on_snapshot_pin(void *data)
{
    struct node *n = data;
    n->bench->pinned_ns = uv_hrtime();
    return data;
}

/* Copies as an encoder would, one part after the other. */
static struct status on_snapshot_encode(void *data, const void *pin, struct parts *out)
{
    (void)data;
    const struct bench *b = ((const struct node *)pin)->bench;
    enum { PIECE = 512 };
    for (size_t at = 0; b->state != NULL && at < STATE_BYTES; at += PIECE) {
        struct buffer *part = parts_next(out);
        if (part == NULL) {
            return status_of(STATUS_NOMEM);
        }
        TRY(buffer_put_blob(part, bytes_of(b->state + at, PIECE)));
    }
    struct buffer *part = parts_next(out);
    return part == NULL ? status_of(STATUS_NOMEM) : buffer_put_u64(part, 1);
}

static void on_snapshot_unpin(void *data, void *pin)
{
    struct node *n = data;
    (void)pin;
    uint64_t us = (uv_hrtime() - n->bench->pinned_ns) / 1000;
    n->snapshots++;
    n->bench->pin_us_max = us > n->bench->pin_us_max ? us : n->bench->pin_us_max;
}

static struct status on_restore(void *data, struct bytes state)
{
    (void)data;
    (void)state;
    return status_ok();
}

static void on_fatal(void *data, const char *why)
{
    (void)data;
    fprintf(stderr, "replica_bench: %s\n", why);
    exit(1);
}

static void turn(struct bench *b)
{
    (void)uv_run(&b->loop, b->first == NULL ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    struct packet *p = b->first;
    b->first = NULL;
    b->tail = &b->first;
    while (p != NULL) {
        struct packet *next = p->next;
        struct node *to = &b->nodes[p->to - 1];
        if (to->replica != NULL) {
            struct status s = replica_receive(to->replica, p->from, b->nodes[p->from - 1].address,
                                              bytes_of(p->data, p->size));
            (void)s; /* a closing replica refuses */
        }
        mem_free(p);
        p = next;
    }
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print_case(const char *name, uint64_t count, uint64_t ns, uint32_t *us, size_t samples)
{
    qsort(us, samples, sizeof *us, compare_u32);
    printf("%s_rate %.0f 1/s\n", name, (double)count * 1e9 / (double)ns);
    if (samples > 0) {
        printf("%s_p50 %" PRIu32 " us\n", name, us[samples / 2]);
        printf("%s_p99 %" PRIu32 " us\n", name, us[samples * 99 / 100]);
    }
    (void)fflush(stdout);
}

static void bench_raw(struct bench *b, const char *folder)
{
    char path[PATH_BYTES_MAX + 8];
    uint8_t block[COMMAND_BYTES] = {1};
    (void)snprintf(path, sizeof path, "%s/raw", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    uint64_t start = uv_hrtime();
    uint64_t count = 0;
    b->samples = 0;
    uint64_t before = start;
    while (before - start < (uint64_t)RAW_MS * 1000000 && b->samples < SAMPLES_MAX) {
        ssize_t n = pwrite(fd, block, sizeof block, (off_t)(count * sizeof block));
        if (n != (ssize_t)sizeof block || fdatasync(fd) != 0) {
            perror("replica_bench: raw write");
            exit(1);
        }
        uint64_t now = uv_hrtime();
        b->samples_us[b->samples++] = (uint32_t)((now - before) / 1000);
        before = now;
        count++;
    }
    (void)close(fd);
    (void)unlink(path);
    print_case("raw_pwrite_fdatasync", count, before - start, b->samples_us, b->samples);
}

static struct node *leader_of(struct bench *b)
{
    for (size_t i = 0; i < NODES; i++) {
        if (b->nodes[i].leader) {
            return &b->nodes[i];
        }
    }
    return NULL;
}

static void bench_commit(struct bench *b, unsigned outstanding)
{
    static const uint8_t command[COMMAND_BYTES] = {7};
    struct node *leader = leader_of(b);
    b->samples = 0;
    b->failed = 0;
    uint64_t base = b->committed;
    uint64_t proposed = 0;
    uint64_t start = uv_hrtime();
    uint64_t now = start;
    while (now - start < (uint64_t)CASE_MS * 1000000) {
        while (proposed - (b->committed - base) < outstanding) {
            b->started_ns[b->tickets % SAMPLES_MAX] = uv_hrtime();
            struct status s =
                replica_propose(leader->replica, b->tickets, bytes_of(command, sizeof command));
            if (!status_is_ok(s)) {
                fprintf(stderr, "replica_bench: propose: %s\n", status_text(s.code));
                exit(1);
            }
            b->tickets++;
            proposed++;
        }
        turn(b);
        now = uv_hrtime();
        if (b->failed > 0) {
            fprintf(stderr, "replica_bench: leadership was lost\n");
            exit(1);
        }
    }
    uint64_t committed = b->committed - base;
    while (b->committed - base < proposed && b->failed == 0) {
        turn(b);
    }
    char name[64];
    (void)snprintf(name, sizeof name, "replica_commit_3_nodes_%u_outstanding", outstanding);
    print_case(name, committed, now - start, b->samples_us, b->samples);
}

static bool all_have(const struct bench *b, uint64_t snapshots)
{
    for (size_t i = 0; i < NODES; i++) {
        if (b->nodes[i].snapshots < snapshots) {
            return false;
        }
    }
    return true;
}

/* Commits with 64 outstanding until each node has taken its snapshots. */
static void bench_snapshots(struct bench *b, const char *name, bool large)
{
    enum { OUTSTANDING = 64 };
    uint8_t *state = large ? mem_must(mem_alloc(STATE_BYTES)) : NULL;
    for (size_t i = 0; large && i < STATE_BYTES; i++) {
        state[i] = (uint8_t)(i * 2654435761U >> 13);
    }
    b->state = state;
    b->pin_us_max = 0;
    for (size_t i = 0; i < NODES; i++) {
        b->nodes[i].snapshots = 0;
    }
    struct node *leader = leader_of(b);
    static const uint8_t command[COMMAND_BYTES] = {7};
    uint64_t base = b->committed, proposed = 0, start = uv_hrtime(), now = start;
    b->samples = 0;
    b->turn_us_max = 0;
    while (!all_have(b, SNAPSHOTS) && now - start < (uint64_t)SNAPSHOT_MS_MAX * 1000000) {
        while (proposed - (b->committed - base) < OUTSTANDING) {
            b->started_ns[b->tickets % SAMPLES_MAX] = uv_hrtime();
            CHECK(status_is_ok(
                replica_propose(leader->replica, b->tickets, bytes_of(command, sizeof command))));
            b->tickets++;
            proposed++;
        }
        turn(b);
        uint64_t took_us = (uv_hrtime() - now) / 1000;
        b->turn_us_max = took_us > b->turn_us_max ? took_us : b->turn_us_max;
        now = uv_hrtime();
        CHECK(b->failed == 0);
    }
    uint64_t committed = b->committed - base;
    while (b->committed - base < proposed) {
        turn(b);
    }
    CHECK(all_have(b, SNAPSHOTS));
    print_case(name, committed, now - start, b->samples_us, b->samples);
    printf("%s_max %" PRIu32 " us\n", name, b->samples_us[b->samples - 1]);
    printf("%s_turn_max %" PRIu64 " us\n", name, b->turn_us_max);
    printf("%s_encode_max %" PRIu64 " us\n", name, b->pin_us_max);
    b->state = NULL;
    mem_free(state);
}

static void nodes_open(struct bench *b, const char *folder, uint32_t threshold)
{
    struct replica_member members[NODES] = {0};
    for (size_t i = 0; i < NODES; i++) {
        struct node *n = &b->nodes[i];
        n->bench = b;
        n->id = i + 1;
        (void)snprintf(n->address, sizeof n->address, "127.0.0.1:%zu", i + 1);
        (void)snprintf(n->folder, sizeof n->folder, "%.400s/%zu", folder, i + 1);
        CHECK(mkdir(n->folder, 0700) == 0);
        members[i].id = n->id;
        members[i].role = REPLICA_VOTER;
        (void)snprintf(members[i].address, sizeof members[i].address, "%s", n->address);
    }
    for (size_t i = 0; i < NODES; i++) {
        struct node *n = &b->nodes[i];
        struct errmsg msg = {0};
        struct replica_config config = {.folder = n->folder,
                                        .id = n->id,
                                        .address = n->address,
                                        .election_timeout_ms = 1000,
                                        .heartbeat_ms = 100,
                                        .snapshot_threshold = threshold,
                                        .random_seed = n->id};
        struct replica_events events = {.data = n,
                                        .send = on_send,
                                        .on_apply = on_apply,
                                        .on_proposed = on_proposed,
                                        .on_role = on_role,
                                        .snapshot_pin = on_snapshot_pin,
                                        .snapshot_encode = on_snapshot_encode,
                                        .snapshot_unpin = on_snapshot_unpin,
                                        .restore = on_restore,
                                        .on_fatal = on_fatal};
        struct status s = replica_bootstrap(&config, members, NODES, &msg);
        if (status_is_ok(s)) {
            s = replica_open(&n->replica, &b->loop, &config, &events, &msg);
        }
        if (!status_is_ok(s)) {
            fprintf(stderr, "replica_bench: %s\n", msg.text);
            exit(1);
        }
        b->open++;
    }
}

static void node_closed(void *data)
{
    struct node *n = data;
    n->bench->open--;
}

static void nodes_close(struct bench *b)
{
    for (size_t i = 0; i < NODES; i++) {
        struct replica *r = b->nodes[i].replica;
        b->nodes[i].replica = NULL;
        replica_close(r, node_closed, &b->nodes[i]);
    }
    while (b->open > 0) {
        turn(b);
    }
    while (b->first != NULL) {
        struct packet *next = b->first->next;
        mem_free(b->first);
        b->first = next;
    }
    b->tail = &b->first;
}

/* Opens three replicas in a folder of their own and waits for a leader. */
static void begin(struct bench *b, const char *folder, const char *name, uint32_t threshold)
{
    char path[PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%.380s/%s", folder, name);
    CHECK(mkdir(path, 0700) == 0);
    for (size_t i = 0; i < NODES; i++) {
        b->nodes[i] = (struct node){0};
    }
    nodes_open(b, path, threshold);
    uint64_t end = uv_hrtime() + (uint64_t)SETUP_MS_MAX * 1000000;
    while (leader_of(b) == NULL && uv_hrtime() < end) {
        turn(b);
    }
    CHECK(leader_of(b) != NULL);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    static struct bench b;
    const char *tmp = getenv("TMPDIR");
    char folder[PATH_BYTES_MAX];
    (void)snprintf(folder, sizeof folder, "%.300s/skep-replica-bench-XXXXXX",
                   argc > 1      ? argv[1]
                   : tmp == NULL ? "/tmp"
                                 : tmp);
    if (mkdtemp(folder) == NULL) {
        perror("replica_bench: make folder");
        return 1;
    }
    b.tail = &b.first;
    b.started_ns = mem_must(mem_zalloc(SAMPLES_MAX, sizeof *b.started_ns));
    b.samples_us = mem_must(mem_zalloc(SAMPLES_MAX, sizeof *b.samples_us));
    CHECK(uv_loop_init(&b.loop) == 0);
    bench_raw(&b, folder);
    begin(&b, folder, "commit", 1 << 16);
    if (argc <= 2) {
        bench_commit(&b, 1);
        bench_commit(&b, 64);
        bench_commit(&b, 1024);
    }
    nodes_close(&b);
    begin(&b, folder, "snapshot", SNAPSHOT_THRESHOLD);
    bench_snapshots(&b, "commit_during_small_snapshots", false);
    bench_snapshots(&b, "commit_during_100MiB_snapshots", true);
    nodes_close(&b);
    CHECK(uv_loop_close(&b.loop) == 0);
    mem_free(b.started_ns);
    mem_free(b.samples_us);
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 ? 0 : 1;
}
