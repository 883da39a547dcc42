#include "common/net/revocations.h"

#include "common/check.h"
#include "common/mem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct revocations {
    pthread_rwlock_t lock;
    char **what; /* sorted */
    size_t count;
};

struct revocations *revocations_new(void)
{
    struct revocations *r = mem_zalloc(1, sizeof *r);
    if (r != NULL && pthread_rwlock_init(&r->lock, NULL) != 0) {
        mem_free(r);
        return NULL;
    }
    return r;
}

static void list_free(char **what, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mem_free(what[i]);
    }
    mem_free(what);
}

void revocations_free(struct revocations *r)
{
    if (r == NULL) {
        return;
    }
    list_free(r->what, r->count);
    (void)pthread_rwlock_destroy(&r->lock);
    mem_free(r);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct status revocations_set(struct revocations *r, const char *const *what, size_t count)
{
    char **copy = mem_zalloc(count, sizeof *copy);
    if (copy == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (size_t i = 0; i < count; i++) {
        copy[i] = mem_strdup(what[i]);
        if (copy[i] == NULL) {
            list_free(copy, i);
            return status_of(STATUS_NOMEM);
        }
    }
    qsort(copy, count, sizeof *copy, compare);
    CHECK(pthread_rwlock_wrlock(&r->lock) == 0);
    char **old = r->what;
    size_t old_count = r->count;
    r->what = copy;
    r->count = count;
    CHECK(pthread_rwlock_unlock(&r->lock) == 0);
    list_free(old, old_count);
    return status_ok();
}

bool revocations_hit(struct revocations *r, const struct identity *peer)
{
    char who[IDENTITY_URI_BYTES];
    (void)snprintf(who, sizeof who, "%s/%s", role_name(peer->role), peer->name.text);
    const char *by_name = who, *by_serial = peer->serial;
    CHECK(pthread_rwlock_rdlock(&r->lock) == 0);
    bool hit =
        r->count > 0 && (bsearch(&by_name, r->what, r->count, sizeof *r->what, compare) != NULL ||
                         bsearch(&by_serial, r->what, r->count, sizeof *r->what, compare) != NULL);
    CHECK(pthread_rwlock_unlock(&r->lock) == 0);
    return hit;
}
