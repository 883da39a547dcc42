#include "common/seal/keyring.h"

#include "common/mem.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

struct slot {
    uint32_t id;
    struct seal_key key;
};

/* The slots lie in pages of their own, so that no other memory is locked and left out of dumps with
 * them. Sorted by nothing: at most KEYRING_KEYS_MAX are walked. */
struct keyring {
    pthread_mutex_t lock;
    struct slot *slots;
    size_t slots_bytes;
    size_t count;
    bool locked;
};

struct keyring *keyring_new(void)
{
    struct keyring *k = mem_zalloc(1, sizeof *k);
    if (k == NULL) {
        return NULL;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    k->slots_bytes = (KEYRING_KEYS_MAX * sizeof *k->slots + page - 1) / page * page;
    void *at =
        mmap(NULL, k->slots_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED || pthread_mutex_init(&k->lock, NULL) != 0) {
        if (at != MAP_FAILED) {
            (void)munmap(at, k->slots_bytes);
        }
        mem_free(k);
        return NULL;
    }
    k->slots = at;
    k->locked = mlock(k->slots, k->slots_bytes) == 0;
    (void)madvise(k->slots, k->slots_bytes, MADV_DONTDUMP);
    (void)madvise(k->slots, k->slots_bytes, MADV_WIPEONFORK);
    return k;
}

void keyring_free(struct keyring *k)
{
    if (k == NULL) {
        return;
    }
    mem_wipe(k->slots, k->slots_bytes);
    (void)munmap(k->slots, k->slots_bytes);
    (void)pthread_mutex_destroy(&k->lock);
    mem_free(k);
}

static const struct slot *slot_find(const struct keyring *k, uint32_t id)
{
    for (size_t i = 0; i < k->count; i++) {
        if (k->slots[i].id == id) {
            return &k->slots[i];
        }
    }
    return NULL;
}

static struct status put_locked(struct keyring *k, uint32_t id, const struct seal_key *key)
{
    const struct slot *known = slot_find(k, id);
    if (known != NULL) {
        return status_of(seal_key_equal(&known->key, key) ? STATUS_OK : STATUS_CONFLICT);
    }
    if (k->count == KEYRING_KEYS_MAX) {
        return status_of(STATUS_LIMIT);
    }
    k->slots[k->count++] = (struct slot){.id = id, .key = *key};
    return status_ok();
}

struct status keyring_put(struct keyring *k, uint32_t id, const struct seal_key *key)
{
    if (id == 0) {
        return status_of(STATUS_INVALID);
    }
    (void)pthread_mutex_lock(&k->lock);
    struct status s = put_locked(k, id, key);
    (void)pthread_mutex_unlock(&k->lock);
    return s;
}

struct status keyring_find(struct keyring *k, uint32_t id, struct seal_key *out)
{
    (void)pthread_mutex_lock(&k->lock);
    const struct slot *found = slot_find(k, id);
    if (found != NULL) {
        *out = found->key;
    }
    (void)pthread_mutex_unlock(&k->lock);
    return status_of(found != NULL ? STATUS_OK : STATUS_NOT_FOUND);
}

uint32_t keyring_current(struct keyring *k)
{
    uint32_t current = 0;
    (void)pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->count; i++) {
        current = k->slots[i].id > current ? k->slots[i].id : current;
    }
    (void)pthread_mutex_unlock(&k->lock);
    return current;
}

bool keyring_locked(const struct keyring *k)
{
    return k->locked;
}
