#include "simulations/sim_disk.h"

#include "common/check.h"
#include "common/mem.h"

#include <string.h>

void sim_disk_init(struct sim_disk *d)
{
    *d = (struct sim_disk){.first = 1};
}

static void drop_front(struct sim_disk *d, size_t n)
{
    CHECK(n <= d->count);
    if (n == 0) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        mem_free(d->entries[i].data);
    }
    memmove(d->entries, d->entries + n, (d->count - n) * sizeof *d->entries);
    d->count -= n;
    d->first += n;
}

void sim_disk_close(struct sim_disk *d)
{
    drop_front(d, d->count);
    mem_free(d->entries);
    sim_snapshot_close(&d->snapshot);
    sim_disk_init(d);
}

static void *copy_of(const void *data, size_t size)
{
    void *copy = mem_must(mem_alloc(size));
    if (size > 0) {
        memcpy(copy, data, size);
    }
    return copy;
}

void sim_disk_append(struct sim_disk *d, uint64_t term, unsigned short type, const void *data,
                     size_t size)
{
    if (d->count == d->capacity) {
        d->capacity = d->capacity == 0 ? 64 : d->capacity * 2;
        d->entries = mem_must(mem_realloc(d->entries, d->capacity * sizeof *d->entries));
    }
    d->entries[d->count++] =
        (struct sim_entry){.term = term, .type = type, .size = size, .data = copy_of(data, size)};
}

void sim_disk_truncate(struct sim_disk *d, uint64_t index)
{
    CHECK(index >= d->first);
    while (d->first + d->count > index) {
        d->count--;
        mem_free(d->entries[d->count].data);
    }
}

void sim_disk_snapshot(struct sim_disk *d, struct sim_snapshot *take, uint64_t trailing)
{
    sim_snapshot_close(&d->snapshot);
    d->snapshot = *take;
    *take = (struct sim_snapshot){0};
    uint64_t index = d->snapshot.index;
    if (trailing == 0) {
        drop_front(d, d->count);
        d->first = index + 1;
        return;
    }
    if (index > trailing && d->first < index - trailing) {
        uint64_t n = index - trailing - d->first;
        drop_front(d, n < d->count ? (size_t)n : d->count);
    }
}

void sim_disk_recover(struct sim_disk *d)
{
    if (d->first + d->count - 1 < d->snapshot.index) {
        drop_front(d, d->count);
        d->first = d->snapshot.index + 1;
    }
}

uint64_t sim_disk_last_index(const struct sim_disk *d)
{
    uint64_t last = d->first + d->count - 1;
    return last > d->snapshot.index ? last : d->snapshot.index;
}

static void *raft_copy_of(const void *data, size_t size)
{
    void *copy = mem_must(raft_malloc(size == 0 ? 8 : size));
    if (size > 0) {
        memcpy(copy, data, size);
    }
    return copy;
}

struct raft_entry *sim_disk_load_entries(const struct sim_disk *d)
{
    if (d->count == 0) {
        return NULL;
    }
    struct raft_entry *entries = mem_must(raft_calloc(d->count, sizeof *entries));
    for (size_t i = 0; i < d->count; i++) {
        const struct sim_entry *from = &d->entries[i];
        void *data = raft_copy_of(from->data, from->size);
        entries[i] = (struct raft_entry){
            .term = from->term, .type = from->type, .buf = {data, from->size}, .batch = data};
    }
    return entries;
}

static struct raft_configuration conf_copy(const struct raft_configuration *from)
{
    struct raft_configuration conf;
    raft_configuration_init(&conf);
    for (unsigned i = 0; i < from->n; i++) {
        const struct raft_server *s = &from->servers[i];
        CHECK(raft_configuration_add(&conf, s->id, s->address, s->role) == 0);
    }
    return conf;
}

struct raft_snapshot *sim_snapshot_load(const struct sim_snapshot *s)
{
    if (s->index == 0) {
        return NULL;
    }
    struct raft_snapshot *out = mem_must(raft_calloc(1, sizeof *out));
    struct raft_buffer *buf = mem_must(raft_calloc(1, sizeof *buf));
    *buf = (struct raft_buffer){raft_copy_of(s->data, s->size), s->size};
    *out = (struct raft_snapshot){.index = s->index,
                                  .term = s->term,
                                  .configuration = conf_copy(&s->conf),
                                  .configuration_index = s->conf_index,
                                  .bufs = buf,
                                  .n_bufs = 1};
    return out;
}

struct sim_snapshot sim_snapshot_of(const struct raft_snapshot *s)
{
    size_t size = 0;
    for (unsigned i = 0; i < s->n_bufs; i++) {
        size += s->bufs[i].len;
    }
    uint8_t *data = mem_must(mem_alloc(size));
    size_t at = 0;
    for (unsigned i = 0; i < s->n_bufs; i++) {
        memcpy(data + at, s->bufs[i].base, s->bufs[i].len);
        at += s->bufs[i].len;
    }
    return (struct sim_snapshot){.index = s->index,
                                 .term = s->term,
                                 .conf_index = s->configuration_index,
                                 .conf = conf_copy(&s->configuration),
                                 .size = size,
                                 .data = data};
}

void sim_snapshot_close(struct sim_snapshot *s)
{
    if (s->index != 0) {
        raft_configuration_close(&s->conf);
        mem_free(s->data);
    }
    *s = (struct sim_snapshot){0};
}
