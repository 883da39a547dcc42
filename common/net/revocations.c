#include "common/net/revocations.h"

#include "common/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct revocations {
    char **what; /* sorted */
    size_t count;
};

struct revocations *revocations_new(void)
{
    return mem_zalloc(1, sizeof(struct revocations));
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
    list_free(r->what, r->count);
    r->what = copy;
    r->count = count;
    return status_ok();
}

bool revocations_hit(const struct revocations *r, const struct identity *peer)
{
    char who[IDENTITY_URI_BYTES];
    (void)snprintf(who, sizeof who, "%s/%s", role_name(peer->role), peer->name.text);
    const char *by_name = who, *by_serial = peer->serial;
    return r->count > 0 &&
           (bsearch(&by_name, r->what, r->count, sizeof *r->what, compare) != NULL ||
            bsearch(&by_serial, r->what, r->count, sizeof *r->what, compare) != NULL);
}
