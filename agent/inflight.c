#include "agent/inflight.h"

#include "common/check.h"
#include "common/cleanup.h"
#include "common/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* The second kind has the slots' terms behind them. */
#define INFLIGHT_MAGIC_1 UINT32_C(0x736b6966)
#define INFLIGHT_MAGIC UINT32_C(0x736b6967)
enum { SLOT_BITS = 16 };

struct inflight_file {
    uint32_t magic;
    uint32_t slots;
    uint64_t generation;
    uint32_t ready; /* concurrency, 0: not ready */
    uint32_t zero;
    uint64_t startup_us;
    struct inflight_slot slot[];
};

static size_t slots_bytes(uint32_t slots)
{
    return sizeof(struct inflight_file) + slots * sizeof(struct inflight_slot);
}

static size_t file_bytes(uint32_t slots)
{
    return slots_bytes(slots) + slots * sizeof(uint64_t);
}

static struct status map(struct inflight *f, int fd, uint32_t slots, size_t bytes, const char *path,
                         struct errmsg *msg)
{
    uint16_t *free_slots = mem_alloc(slots * sizeof *free_slots);
    if (free_slots == NULL) {
        return status_fail(msg, STATUS_NOMEM, "%s: out of memory", path);
    }
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        mem_free(free_slots);
        return status_fail(msg, status_from_errno(errno), "map %s: %s", path, strerror(errno));
    }
    *f = (struct inflight){.file = at, .bytes = bytes, .free = free_slots};
    if (bytes == file_bytes(slots)) {
        f->terms = (uint64_t *)(void *)((uint8_t *)at + slots_bytes(slots));
    }
    return status_ok();
}

/* Lists the free slots, lowest last: it is taken first and stays warm. */
static void list_free(struct inflight *f)
{
    f->free_count = 0;
    for (uint32_t i = f->file->slots; i-- > 0;) {
        if (f->file->slot[i].token == 0) {
            f->free[f->free_count++] = (uint16_t)i;
        }
    }
}

struct status inflight_create(struct inflight *f, const char *path, uint32_t slots,
                              struct errmsg *msg)
{
    CHECK(slots > 0);
    CHECK(slots <= INFLIGHT_SLOTS_MAX);
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    /* Reserved, not only sized: a page that the disk has no room for would be a SIGBUS later. */
    int error = posix_fallocate(fd, 0, (off_t)file_bytes(slots));
    if (error != 0) {
        return status_fail(msg, status_from_errno(error), "reserve %s: %s", path, strerror(error));
    }
    TRY(map(f, fd, slots, file_bytes(slots), path, msg));
    f->file->slots = slots;
    f->file->magic = INFLIGHT_MAGIC;
    list_free(f);
    return status_ok();
}

static bool is_sound(const struct inflight_file *file, uint32_t magic, uint32_t slots)
{
    if (file->magic != magic || file->slots != slots || file->ready > INFLIGHT_SLOTS_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < slots; i++) {
        uint64_t token = file->slot[i].token;
        if (token != 0 && ((token & 0xffff) != i || token >> SLOT_BITS > file->generation)) {
            return false;
        }
    }
    return true;
}

struct status inflight_open(struct inflight *f, const char *path, struct errmsg *msg)
{
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return status_fail(msg, status_from_errno(errno), "open %s: %s", path, strerror(errno));
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return status_fail(msg, status_from_errno(errno), "stat %s: %s", path, strerror(errno));
    }
    uint32_t magic = 0;
    if (st.st_size < (off_t)slots_bytes(1) || st.st_size > (off_t)file_bytes(INFLIGHT_SLOTS_MAX) ||
        pread(fd, &magic, sizeof magic, 0) != (ssize_t)sizeof magic ||
        (magic != INFLIGHT_MAGIC && magic != INFLIGHT_MAGIC_1)) {
        return status_fail(msg, STATUS_CORRUPT, "%s: not a table of attempts", path);
    }
    bool terms = magic == INFLIGHT_MAGIC;
    size_t of_slot = sizeof(struct inflight_slot) + (terms ? sizeof(uint64_t) : 0);
    uint32_t slots = (uint32_t)(((size_t)st.st_size - sizeof(struct inflight_file)) / of_slot);
    size_t bytes = terms ? file_bytes(slots) : slots_bytes(slots);
    struct inflight opened;
    if (slots == 0 || slots > INFLIGHT_SLOTS_MAX || bytes > (size_t)st.st_size) {
        return status_fail(msg, STATUS_CORRUPT, "%s: not a table of attempts", path);
    }
    TRY(map(&opened, fd, slots, bytes, path, msg));
    if (!is_sound(opened.file, magic, slots)) {
        inflight_close(&opened);
        return status_fail(msg, STATUS_CORRUPT, "%s: not a table of attempts", path);
    }
    *f = opened;
    list_free(f);
    return status_ok();
}

void inflight_close(struct inflight *f)
{
    if (f->file != NULL) {
        (void)munmap(f->file, f->bytes);
    }
    mem_free(f->free);
    *f = (struct inflight){0};
}

struct status inflight_put(struct inflight *f, struct id128 invocation, uint32_t attempt,
                           uint64_t durable_term, uint64_t due_unix_ms, uint64_t *token)
{
    if (f->free_count == 0) {
        return status_of(STATUS_LIMIT);
    }
    uint16_t index = f->free[--f->free_count];
    struct inflight_slot *s = &f->file->slot[index];
    CHECK(s->token == 0);
    uint64_t taken = ++f->file->generation << SLOT_BITS | index;
    s->invocation = invocation;
    s->attempt = attempt;
    s->sent = 0;
    s->due_unix_ms = due_unix_ms;
    if (f->terms != NULL) {
        f->terms[index] = durable_term;
    }
    /* Last: an agent killed in between leaves a free slot, not half an attempt. */
    __atomic_store_n(&s->token, taken, __ATOMIC_RELEASE);
    *token = taken;
    return status_ok();
}

struct inflight_slot *inflight_find(const struct inflight *f, uint64_t token)
{
    uint64_t index = token & 0xffff;
    if (f->file == NULL || token == 0 || index >= f->file->slots ||
        f->file->slot[index].token != token) {
        return NULL;
    }
    return &f->file->slot[index];
}

uint64_t inflight_term(const struct inflight *f, uint64_t token)
{
    return inflight_find(f, token) == NULL || f->terms == NULL ? 0 : f->terms[token & 0xffff];
}

uint64_t inflight_token(const struct inflight *f, struct id128 invocation, uint32_t attempt)
{
    for (uint32_t i = 0; f->file != NULL && i < f->file->slots; i++) {
        const struct inflight_slot *s = &f->file->slot[i];
        if (s->token != 0 && s->attempt == attempt && id_compare(s->invocation, invocation) == 0) {
            return s->token;
        }
    }
    return 0;
}

void inflight_remove(struct inflight *f, uint64_t token)
{
    struct inflight_slot *s = inflight_find(f, token);
    if (s == NULL) {
        return;
    }
    __atomic_store_n(&s->token, 0, __ATOMIC_RELEASE);
    f->free[f->free_count++] = (uint16_t)(token & 0xffff);
}

uint32_t inflight_slots(const struct inflight *f)
{
    return f->file == NULL ? 0 : f->file->slots;
}

struct inflight_slot *inflight_at(const struct inflight *f, uint32_t index)
{
    CHECK(index < f->file->slots);
    struct inflight_slot *s = &f->file->slot[index];
    return s->token == 0 ? NULL : s;
}

void inflight_set_ready(struct inflight *f, uint32_t concurrency, uint64_t startup_us)
{
    f->file->startup_us = startup_us;
    __atomic_store_n(&f->file->ready, concurrency, __ATOMIC_RELEASE);
}

bool inflight_ready(const struct inflight *f, uint32_t *concurrency, uint64_t *startup_us)
{
    if (f->file == NULL || f->file->ready == 0) {
        return false;
    }
    *concurrency = f->file->ready;
    *startup_us = f->file->startup_us;
    return true;
}
