#include "agent/gpu/clean.h"

#include <stdio.h>
#include <string.h>

static struct clean_device *device_of(struct clean *c, const char *uuid)
{
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->devices[i].uuid, uuid) == 0) {
            return &c->devices[i];
        }
    }
    return NULL;
}

/* Devices that went away make room: those that nobody holds. */
static void sweep(struct clean *c)
{
    size_t kept = 0;
    for (size_t i = 0; i < c->count; i++) {
        if (c->devices[i].here || c->devices[i].held) {
            c->devices[kept++] = c->devices[i];
        }
    }
    c->count = kept;
}

/* NULL: there are too many, which means that most are not there any more. */
static struct clean_device *device_get(struct clean *c, const char *uuid)
{
    struct clean_device *d = device_of(c, uuid);
    if (d == NULL && c->count == sizeof c->devices / sizeof c->devices[0]) {
        sweep(c);
    }
    if (d == NULL && c->count < sizeof c->devices / sizeof c->devices[0]) {
        d = &c->devices[c->count++];
        *d = (struct clean_device){.here = true};
        (void)snprintf(d->uuid, sizeof d->uuid, "%s", uuid);
    }
    return d;
}

void clean_use(struct clean *c, const char *const *uuids, size_t count, uint64_t due)
{
    for (size_t i = 0; i < c->count; i++) {
        c->devices[i].leaves = c->devices[i].held;
        c->devices[i].held = false;
    }
    for (size_t k = 0; k < count; k++) {
        struct clean_device *d = device_get(c, uuids[k]);
        if (d != NULL) {
            d->held = true;
            d->pending = false;
            d->why[0] = '\0';
        }
    }
    for (size_t i = 0; i < c->count; i++) {
        struct clean_device *d = &c->devices[i];
        if (d->leaves && !d->held) {
            d->pending = true;
            d->due = due;
        }
    }
}

static unsigned long long mib(uint64_t bytes)
{
    return (unsigned long long)(bytes >> 20);
}

/* Why the device is dirty, as it is now; "" when it is clean. */
static void judge(struct clean_device *d, const struct gpu_report *r, char *why, size_t size)
{
    bool memory = (r->known & GPU_KNOWS_MEMORY) != 0;
    bool processes = (r->known & GPU_KNOWS_PROCESSES) != 0;
    why[0] = '\0';
    if (!memory && !processes) {
        (void)snprintf(why, size, "the driver tells neither its memory nor its processes");
    } else if (processes && r->processes > 0) {
        (void)snprintf(why, size, "%u process%s that %s no instance's", r->processes,
                       r->processes == 1 ? "" : "es", r->processes == 1 ? "is" : "are");
    } else if (memory && d->measured &&
               r->memory_used_bytes > d->baseline + CLEAN_TOLERANCE_BYTES) {
        (void)snprintf(why, size, "%llu MiB in use, %llu when it was free",
                       mib(r->memory_used_bytes), mib(d->baseline));
    } else if (memory && (!d->measured || r->memory_used_bytes < d->baseline)) {
        d->baseline = r->memory_used_bytes;
        d->measured = true;
    }
}

/* True: another reason than before. */
static bool device_read(struct clean_device *d, const struct gpu_report *r, uint64_t number)
{
    char why[GPU_TEXT_BYTES] = "";
    if (!d->held && d->pending && number < d->due) {
        (void)snprintf(why, sizeof why, "is checked after its last instance");
    } else if (!d->held) {
        d->pending = false;
        judge(d, r, why, sizeof why);
    }
    bool changed = strcmp(d->why, why) != 0;
    memcpy(d->why, why, sizeof why);
    return changed;
}

bool clean_read(struct clean *c, struct gpu_inventory *i, uint64_t number)
{
    bool changed = false;
    bool now = i->state == GPU_STATE_OK || i->state == GPU_STATE_SIMULATED;
    for (size_t k = 0; k < c->count; k++) {
        c->devices[k].here = false;
    }
    for (size_t k = 0; k < i->gpus_count; k++) {
        struct clean_device *d = device_get(c, i->gpus[k].uuid);
        i->gpus[k].dirty = "";
        if (d == NULL || i->gpus[k].mig) {
            continue;
        }
        d->here = true;
        changed = (now && device_read(d, &i->gpus[k], number)) || changed;
        i->gpus[k].dirty = d->why;
    }
    return changed;
}

bool clean_waits(const struct clean *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const struct clean_device *d = &c->devices[i];
        if (d->here && !d->held && (d->pending || d->why[0] != '\0')) {
            return true;
        }
    }
    return false;
}
