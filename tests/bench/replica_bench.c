/* Commits a second through three replicas in one process on one loop, messages passed in memory,
 * each replica with its own files, beside raw pwrite + fdatasync of as many bytes on the same
 * disk in the same run.
 *
 *     replica_bench [FOLDER]     prints "name value unit" lines; about 2 s a case
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

static struct status on_snapshot(void *data, struct buffer *out)
{
    (void)data;
    return buffer_put_u64(out, 1);
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

static void nodes_open(struct bench *b, const char *folder)
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
                                        .snapshot_threshold = 1 << 16,
                                        .random_seed = n->id};
        struct replica_events events = {.data = n,
                                        .send = on_send,
                                        .on_apply = on_apply,
                                        .on_proposed = on_proposed,
                                        .on_role = on_role,
                                        .snapshot = on_snapshot,
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
    CHECK(uv_loop_close(&b->loop) == 0);
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
    nodes_open(&b, folder);
    uint64_t end = uv_hrtime() + (uint64_t)SETUP_MS_MAX * 1000000;
    while (leader_of(&b) == NULL && uv_hrtime() < end) {
        turn(&b);
    }
    CHECK(leader_of(&b) != NULL);
    bench_commit(&b, 1);
    bench_commit(&b, 64);
    bench_commit(&b, 1024);
    nodes_close(&b);
    mem_free(b.started_ns);
    mem_free(b.samples_us);
    return nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0 ? 0 : 1;
}
