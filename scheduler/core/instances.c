/* Instances and the functions' soft side: starting, stopping, adopting, scaling. */
#include "scheduler/core/autoscale.h"
#include "scheduler/core/core_internal.h"
#include "scheduler/core/placement.h"

#include <stdio.h>
#include <string.h>

enum { REFUSED_BACKOFF_MS = 200, START_GUARD_MS = 15000, STARVED_US = 2000000 };

struct runtime *runtime_find(const struct core *c, const char *name)
{
    struct runtime *f;
    HASH_FIND_STR(c->runtimes, name, f);
    return f;
}

struct instance *instance_find(const struct core *c, struct id128 id)
{
    struct instance *i;
    HASH_FIND(hh, c->instances, &id, sizeof id, i);
    return i;
}

void instance_foreign_add(struct instance *i, struct id128 invocation, uint32_t attempt)
{
    struct foreign *f = mem_must(mem_zalloc(1, sizeof *f));
    f->invocation = invocation;
    f->attempt = attempt;
    DL_APPEND(i->foreigners, f);
    i->foreign++;
}

static void foreign_drop(struct instance *i, struct foreign *f)
{
    CHECK(i->foreign > 0);
    DL_DELETE(i->foreigners, f);
    i->foreign--;
    mem_free(f);
}

bool instance_foreign_take(struct instance *i, struct id128 invocation, uint32_t attempt)
{
    struct foreign *f;
    DL_FOREACH(i->foreigners, f) {
        if (f->attempt == attempt && id_compare(f->invocation, invocation) == 0) {
            foreign_drop(i, f);
            return true;
        }
    }
    return false;
}

static void foreign_clear(struct instance *i)
{
    while (i->foreigners != NULL) {
        foreign_drop(i, i->foreigners);
    }
}

static bool is_current(const struct instance *i)
{
    const struct catalog_revision *current = i->function->current;
    return current != NULL && digest_compare(&i->revision, &current->id) == 0;
}

static bool node_draining(const struct core *c, const struct node *n)
{
    const struct catalog_node *known = catalog_node_find(&c->catalog, n->name);
    return known != NULL && known->mode == NODE_MODE_DRAINING;
}

bool instance_usable(const struct instance *i)
{
    return i->state == INSTANCE_READY && is_current(i) && node_ready(i->node) && !i->leaving &&
           !i->evicting;
}

void instance_refile(struct instance *i)
{
    struct runtime *f = i->function;
    bool want = instance_usable(i) && i->inflight + i->foreign < i->concurrency;
    if (i->in_free) {
        DL_DELETE2(f->free, i, free_prev, free_next);
        i->in_free = false;
    }
    if (want) {
        /* Most recently used first, so that the surplus stays idle and can stop. */
        DL_PREPEND2(f->free, i, free_prev, free_next);
        i->in_free = true;
    }
}

static void recount(struct runtime *f)
{
    f->starting = 0;
    f->ready = 0;
    struct instance *i;
    DL_FOREACH(f->instances, i) {
        f->starting += is_current(i) && i->state == INSTANCE_STARTING;
        f->ready += is_current(i) && i->state == INSTANCE_READY;
    }
}

/* ---- Life of one instance ---- */

static struct instance *instance_new(struct core *c, struct core_time now, struct runtime *f,
                                     struct node *n, struct id128 id, const struct digest *revision)
{
    struct instance *i = mem_must(mem_zalloc(1, sizeof *i));
    i->id = id;
    i->function = f;
    i->node = n;
    i->revision = *revision;
    i->state = INSTANCE_STARTING;
    i->created_us = now.mono_us;
    i->used_us = now.mono_us;
    HASH_ADD(hh, c->instances, id, sizeof i->id, i);
    DL_APPEND(f->instances, i);
    n->instances++;
    return i;
}

static void charge(struct instance *i, uint32_t cpu_millis, uint64_t memory_bytes)
{
    i->cpu_millis = cpu_millis;
    i->memory_bytes = memory_bytes;
    i->node->cpu_used_millis += cpu_millis;
    i->node->memory_used_bytes += memory_bytes;
}

static void send_stop(struct core *c, uint64_t peer, struct id128 id, bool kill, const char *reason)
{
    const struct message m = {.type = MESSAGE_STOP,
                              .term = c->term,
                              .stop = {.instance = id, .kill = kill, .reason = reason}};
    c->env.send(c->env.data, peer, &m);
}

static void instance_stop(struct core *c, struct core_time now, struct instance *i,
                          const char *reason)
{
    if (i->state == INSTANCE_STOPPING) {
        return;
    }
    i->state = INSTANCE_STOPPING;
    i->stop_sent_us = now.mono_us;
    c->stats.instances_stopped++;
    instance_refile(i);
    recount(i->function);
    journal_add(c, now, i->function->name, "stop an instance on %s: %s", i->node->name, reason);
    send_stop(c, i->node->peer, i->id, false, reason);
}

static void instance_remove(struct core *c, struct instance *i)
{
    struct runtime *f = i->function;
    CHECK(i->calls == NULL);
    foreign_clear(i);
    i->state = INSTANCE_ENDED;
    instance_refile(i);
    DL_DELETE(f->instances, i);
    HASH_DEL(c->instances, i);
    CHECK(i->node->instances > 0);
    i->node->instances--;
    i->node->cpu_used_millis -= i->cpu_millis;
    i->node->memory_used_bytes -= i->memory_bytes;
    node_gpus_release(i);
    mem_free(i);
    recount(f);
}

static bool refused_by_agent(enum status_code code)
{
    return code == STATUS_LIMIT || code == STATUS_CONFLICT || code == STATUS_UNAVAILABLE;
}

/* A start failed: wait before the next, twice as long each time; with nobody else to serve, those
 * who wait are told why. */
static void start_failed(struct core *c, struct core_time now, struct runtime *f,
                         enum status_code code, const char *message)
{
    if (refused_by_agent(code)) {
        f->backoff_until_us = now.mono_us + REFUSED_BACKOFF_MS * 1000;
        return;
    }
    c->stats.starts_failed++;
    uint64_t backoff_ms = START_BACKOFF_MS_MIN;
    for (uint32_t n = 0; n < f->failures && backoff_ms < START_BACKOFF_MS_MAX; n++) {
        backoff_ms *= 2;
    }
    if (backoff_ms > START_BACKOFF_MS_MAX) {
        backoff_ms = START_BACKOFF_MS_MAX;
    }
    f->failures++;
    f->backoff_until_us = now.mono_us + backoff_ms * 1000;
    if (f->ready == 0 && f->starting == 0) {
        char text[REASON_BYTES_MAX];
        (void)snprintf(text, sizeof text, "an instance could not start: %s", message);
        calls_fail_queue(c, now, f, code == STATUS_OK ? STATUS_CRASHED : code, text);
    }
}

void instance_gone(struct core *c, struct core_time now, struct instance *i, enum status_code code,
                   const char *message)
{
    struct runtime *f = i->function;
    bool starting = i->state == INSTANCE_STARTING;
    bool wanted = i->state != INSTANCE_STOPPING;
    if (wanted) {
        char text[ID_STRING_BYTES];
        id_format(i->id, INSTANCE_PREFIX, text);
        journal_add(c, now, f->name, "instance %s on %s ended: %s", text, i->node->name, message);
    }
    calls_fail_instance(c, now, i, code == STATUS_OK ? STATUS_CRASHED : code, message);
    bool current = is_current(i);
    if (!starting || !refused_by_agent(code)) {
        node_gpus_doubt(i);
    }
    instance_remove(c, i);
    if (starting && current) {
        start_failed(c, now, f, code, message);
    }
    instances_scale(c, now, f);
    runtime_release(c, f);
}

void instances_event(struct core *c, struct core_time now, struct node *n,
                     const struct instance_report *r, enum status_code code)
{
    struct instance *i = instance_find(c, r->instance);
    if (i == NULL || i->node != n) {
        c->stats.reports_stale++;
        if (r->state != INSTANCE_ENDED) {
            send_stop(c, n->peer, r->instance, true, "not known to the leader");
        }
        return;
    }
    if (r->state == INSTANCE_ENDED) {
        instance_gone(c, now, i, code, r->message[0] != '\0' ? r->message : status_text(code));
        return;
    }
    if (r->state == INSTANCE_READY && i->state == INSTANCE_STARTING) {
        i->state = INSTANCE_READY;
        i->startup_us = r->startup_us;
        i->used_us = now.mono_us;
        i->function->failures = 0;
        i->function->backoff_until_us = 0;
        recount(i->function);
        instance_refile(i);
        calls_dispatch(c, now, i->function);
    }
}

/* ---- Reports of a whole node ---- */

static void adopt(struct core *c, struct core_time now, struct node *n,
                  const struct instance_report *r)
{
    struct runtime *f = runtime_find(c, r->function);
    bool wanted =
        f != NULL && f->current != NULL && digest_compare(&f->current->id, &r->revision) == 0;
    bool alive = r->state == INSTANCE_READY || r->state == INSTANCE_STARTING;
    if (!wanted || !alive || r->concurrency == 0 ||
        HASH_COUNT(c->instances) >= CORE_INSTANCES_MAX) {
        if (r->state != INSTANCE_ENDED) {
            send_stop(c, n->peer, r->instance, false, "of no current revision");
        }
        return;
    }
    struct instance *i = instance_new(c, now, f, n, r->instance, &r->revision);
    i->concurrency = r->concurrency;
    i->state = r->state;
    i->startup_us = r->startup_us;
    charge(i, r->cpu_millis, r->memory_bytes);
    for (size_t k = 0; k < r->gpus_count && k < GPUS_MAX; k++) {
        node_gpu_use(i, r->gpus[k].text);
    }
    journal_add(c, now, f->name, "adopted an instance on %s", n->name);
}

static bool in_report(const struct node_register *r, struct id128 id)
{
    for (size_t k = 0; k < r->instances_count; k++) {
        if (id_compare(r->instances[k].instance, id) == 0 &&
            r->instances[k].state != INSTANCE_ENDED) {
            return true;
        }
    }
    return false;
}

static bool attempt_reported(const struct node_register *r, const struct work *w)
{
    for (size_t k = 0; k < r->attempts_count; k++) {
        if (id_compare(r->attempts[k].invocation, w->id) == 0 &&
            r->attempts[k].attempt == w->attempt) {
            return true;
        }
    }
    return false;
}

/* Calls that ran here but that the agent no longer knows, and attempts it runs that nobody here
 * waits for. */
static void sync_attempts(struct core *c, struct core_time now, struct node *n,
                          const struct node_register *r)
{
    for (struct instance *i = c->instances; i != NULL; i = i->hh.next) {
        if (i->node != n) {
            continue;
        }
        foreign_clear(i);
        struct work *w, *next;
        DL_FOREACH_SAFE(i->calls, w, next) {
            if (!attempt_reported(r, w)) {
                calls_fail_one(c, now, w, STATUS_UNKNOWN,
                               "the agent restarted while the call ran; it may have been done");
            }
        }
    }
    for (size_t k = 0; k < r->attempts_count; k++) {
        struct instance *i = instance_find(c, r->attempts[k].instance);
        struct work *w;
        HASH_FIND(hh, c->calls, &r->attempts[k].invocation, sizeof(struct id128), w);
        bool ours = w != NULL && w->instance == i;
        if (i == NULL || i->node != n || ours || durable_adopt(c, now, i, &r->attempts[k])) {
            continue;
        }
        if (i->inflight + i->foreign < i->concurrency) {
            instance_foreign_add(i, r->attempts[k].invocation, r->attempts[k].attempt);
        }
    }
}

void instances_reported(struct core *c, struct core_time now, struct node *n,
                        const struct node_register *r)
{
    struct instance *i, *next;
    HASH_ITER(hh, c->instances, i, next) {
        if (i->node == n && !in_report(r, i->id)) {
            instance_gone(c, now, i,
                          i->state == INSTANCE_STARTING ? STATUS_UNAVAILABLE : STATUS_UNKNOWN,
                          "the instance was gone when its agent reported");
        }
    }
    for (size_t k = 0; k < r->instances_count; k++) {
        const struct instance_report *report = &r->instances[k];
        i = instance_find(c, report->instance);
        if (i == NULL) {
            adopt(c, now, n, report);
        } else if (i->node == n) {
            instances_event(c, now, n, report, STATUS_OK);
        }
    }
    sync_attempts(c, now, n, r);
    for (i = c->instances; i != NULL; i = i->hh.next) {
        if (i->node == n) {
            recount(i->function);
        }
    }
}

/* ---- Scaling ---- */

/* used: as of node_gpus_view. */
static struct placement_node view_node(const struct core *c, const struct node *n, bool *used)
{
    const struct catalog_node *known = catalog_node_find(&c->catalog, n->name);
    return (struct placement_node){.name = n->name,
                                   .ready = node_ready(n),
                                   .mode = known == NULL ? NODE_MODE_NORMAL : known->mode,
                                   .cpu_millis = n->cpu_millis,
                                   .cpu_used_millis = n->cpu_used_millis,
                                   .memory_bytes = n->memory_bytes,
                                   .memory_used_bytes = n->memory_used_bytes,
                                   .gvisor = n->gvisor[0] != '\0',
                                   .labels = n->labels,
                                   .labels_count = n->labels_count,
                                   .egress = n->egress,
                                   .gpus = node_gpus_view(n, used)};
}

struct view {
    size_t count;
    struct placement_node *nodes;
    struct node **of;
    bool (*used)[GPUS_MAX]; /* NULL: no GPU is wanted */
};

static struct view view_open(const struct core *c, bool gpus)
{
    struct view v = {.count = HASH_COUNT(c->nodes)};
    v.nodes = mem_must(mem_zalloc(v.count + 1, sizeof *v.nodes));
    v.of = mem_must(mem_zalloc(v.count + 1, sizeof(struct node *)));
    v.used = gpus ? mem_must(mem_zalloc(v.count + 1, sizeof *v.used)) : NULL;
    size_t k = 0;
    for (struct node *n = c->nodes; n != NULL; n = n->hh.next, k++) {
        v.of[k] = n;
        v.nodes[k] = view_node(c, n, gpus ? v.used[k] : NULL);
    }
    return v;
}

static void view_close(struct view *v)
{
    mem_free(v->nodes);
    mem_free(v->of);
    mem_free(v->used);
}

static void start_one(struct core *c, struct core_time now, struct runtime *f,
                      struct placement_node *view, struct node *n)
{
    const struct function_spec *spec = &f->current->spec;
    struct instance *i = instance_new(c, now, f, n, core_new_id(c, now), &f->current->id);
    i->concurrency = spec->concurrency;
    charge(i, spec->cpu_millis, spec->memory_bytes);
    c->stats.cold_starts++;
    recount(f);
    size_t chosen[GPUS_MAX];
    struct text gpus[GPUS_MAX];
    bool fits = gpus_choose(&view->gpus, spec, chosen);
    CHECK(fits);
    for (uint32_t k = 0; k < spec->gpu_count; k++) {
        gpus[k].text = n->gpu.gpus[chosen[k]].uuid;
        node_gpu_use(i, gpus[k].text);
        view->gpus.used[chosen[k]] = true;
    }
    view->cpu_used_millis += spec->cpu_millis;
    view->memory_used_bytes += spec->memory_bytes;
    struct function_spec copy = *spec;
    const struct catalog_image *image =
        spec->image[0] == '\0' ? NULL : images_find(&c->catalog.images, spec->image);
    const struct message m = {
        .type = MESSAGE_START,
        .term = c->term,
        .start = {.instance = i->id,
                  .revision = i->revision,
                  .spec = &copy,
                  .image_lists = image == NULL ? (struct bytes){0} : image->spec.lists,
                  .image_bytes = image == NULL ? 0 : image->spec.bytes,
                  .gpus = gpus,
                  .gpus_count = spec->gpu_count}};
    c->env.send(c->env.data, n->peer, &m);
}

bool core_settled(const struct core *c, struct core_time now)
{
    if (now.mono_us >= c->settle_until_us) {
        return true;
    }
    for (const struct catalog_node *k = c->catalog.nodes; k != NULL; k = k->hh.next) {
        const struct node *n = node_find(c, k->name);
        if (n == NULL || !n->registered) {
            return false;
        }
    }
    return true;
}

/* Could an instance of f run on this node if it were empty? If not, room there is of no use. */
static bool could_ever_fit(const struct core *c, const struct node *n, const struct runtime *f)
{
    struct placement_node empty = view_node(c, n, NULL);
    struct placement_reasons ignored;
    empty.cpu_used_millis = 0;
    empty.memory_used_bytes = 0;
    return placement_choose(&empty, 1, &f->current->spec, &ignored) == 0;
}

/* Would the end of i make room for an instance of f? One without GPUs makes none where those are
 * what is lacking. */
static bool makes_room(const struct core *c, const struct instance *i, const struct runtime *f)
{
    const struct function_spec *spec = &f->current->spec;
    if (spec->gpu_count > 0 && i->gpus == 0) {
        bool used[GPUS_MAX];
        const struct placement_gpus gpus = node_gpus_view(i->node, used);
        if (gpus_fit(&gpus, spec).free < spec->gpu_count) {
            return false;
        }
    }
    return could_ever_fit(c, i->node, f);
}

/* An idle instance that its function can do without, the least recently used one; NULL when there
 * is none, or when one is on its way out already: its room comes first. */
static struct instance *find_spare(const struct core *c, const struct runtime *wanting)
{
    struct instance *spare = NULL;
    for (struct instance *i = c->instances; i != NULL; i = i->hh.next) {
        const struct runtime *f = i->function;
        if (i->state == INSTANCE_STOPPING && node_ready(i->node)) {
            return NULL;
        }
        bool idle = instance_usable(i) && i->inflight + i->foreign == 0;
        if (!idle || f == wanting || f->queued + durable_demand(f) > 0 ||
            f->ready <= f->current->spec.scale_min) {
            continue;
        }
        bool older = spare == NULL || i->used_us < spare->used_us;
        if (older && makes_room(c, i, wanting)) {
            spare = i;
        }
    }
    return spare;
}

/* What the ready nodes have; at least 1 of each. */
struct totals {
    uint64_t cpu, memory_mib, gpus;
};

/* The largest of a function's shares of the ready nodes' CPU, memory and GPUs, in thousandths: its
 * dominant share (Ghodsi and others, NSDI 2011). extra: instances more than it has. */
static uint64_t dominant_share(const struct runtime *f, uint64_t extra, const struct totals *all)
{
    uint64_t cpu = 0, memory = 0, gpus = 0;
    const struct instance *i;
    DL_FOREACH(f->instances, i) {
        cpu += i->cpu_millis;
        memory += i->memory_bytes >> 20;
        gpus += i->gpus;
    }
    if (f->current != NULL) {
        cpu += extra * f->current->spec.cpu_millis;
        memory += extra * (f->current->spec.memory_bytes >> 20);
        gpus += extra * f->current->spec.gpu_count;
    }
    uint64_t share = cpu * 1000 / all->cpu, by_memory = memory * 1000 / all->memory_mib;
    share = share > by_memory ? share : by_memory;
    uint64_t by_gpus = gpus * 1000 / all->gpus;
    return share > by_gpus ? share : by_gpus;
}

/* The least recently used instance of the function that holds the most, if it holds more than f
 * would with one more; NULL when there is none, or when room is being made already. */
static struct instance *find_victim(const struct core *c, const struct runtime *f)
{
    struct totals all = {1, 1, 1};
    for (const struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        const struct placement_gpus gpus = node_gpus_view(n, NULL);
        all.cpu += node_ready(n) ? n->cpu_millis : 0;
        all.memory_mib += node_ready(n) ? n->memory_bytes >> 20 : 0;
        all.gpus += node_ready(n) ? gpus_usable(&gpus) : 0;
    }
    uint64_t most = dominant_share(f, 1, &all);
    struct instance *victim = NULL;
    for (struct runtime *g = c->runtimes; g != NULL; g = g->hh.next) {
        uint64_t share = g == f || g->current == NULL ? 0 : dominant_share(g, 0, &all);
        struct instance *i, *of_g = NULL;
        DL_FOREACH(g->instances, i) {
            if (i->evicting || i->state == INSTANCE_STOPPING) {
                return NULL;
            }
            bool older = share > most && (of_g == NULL || i->used_us < of_g->used_us);
            if (older && instance_usable(i) && makes_room(c, i, f)) {
                of_g = i;
            }
        }
        if (share > most && g->ready > g->current->spec.scale_min && of_g != NULL) {
            most = share;
            victim = of_g;
        }
    }
    return victim;
}

/* One function holds everything and another has work and less than its share: the first gives an
 * instance back as soon as what runs there has ended. */
static void evict_for(struct core *c, struct core_time now, const struct runtime *f)
{
    struct instance *victim = find_victim(c, f);
    if (victim == NULL) {
        return;
    }
    victim->evicting = true;
    instance_refile(victim);
    (void)snprintf(c->starved, sizeof c->starved, "%s", f->name);
    c->starved_until_us = now.mono_us + STARVED_US;
    journal_add(c, now, victim->function->name,
                "an instance on %s gives way to %s, which has less than its share",
                victim->node->name, f->name);
}

/* Room is being made for another function: whoever has instances waits with more. */
static bool must_wait(const struct core *c, struct core_time now, const struct runtime *f)
{
    return c->starved[0] != '\0' && now.mono_us < c->starved_until_us && f->instances != NULL &&
           strcmp(c->starved, f->name) != 0;
}

/* Devices that an agent is checking now will be free without anybody giving way. */
static bool gpus_are_checked(const struct core *c, const struct runtime *f)
{
    for (const struct node *n = c->nodes; n != NULL; n = n->hh.next) {
        if (f->current->spec.gpu_count > 0 && node_ready(n) && n->gpu_unchecked) {
            return true;
        }
    }
    return false;
}

/* Calls wait and no node has room: what is kept warm for nobody gives way. */
static void make_room(struct core *c, struct core_time now, const struct runtime *f,
                      const struct placement_reasons *why)
{
    if (f->queued + durable_demand(f) == 0 || why->cpu + why->memory + why->gpu == 0 ||
        gpus_are_checked(c, f)) {
        return;
    }
    struct instance *spare = find_spare(c, f);
    if (spare != NULL) {
        char text[REASON_BYTES_MAX];
        (void)snprintf(text, sizeof text, "to make room for %s", f->name);
        instance_stop(c, now, spare, text);
    } else {
        evict_for(c, now, f);
    }
}

void instances_scale(struct core *c, struct core_time now, struct runtime *f)
{
    if (!c->leader || f->current == NULL) {
        return;
    }
    const struct function_spec *spec = &f->current->spec;
    const struct autoscale_view load = {.queued = f->queued + durable_demand(f),
                                        .starting = f->starting,
                                        .ready = f->ready,
                                        .concurrency = spec->concurrency,
                                        .scale_min = spec->scale_min,
                                        .scale_max = spec->scale_max,
                                        .backoff = now.mono_us < f->backoff_until_us};
    uint32_t wanted = autoscale_start(&load);
    if (wanted == 0 || !core_settled(c, now) || must_wait(c, now, f)) {
        return;
    }
    struct view view = view_open(c, spec->gpu_count > 0);
    for (; wanted > 0 && HASH_COUNT(c->instances) < CORE_INSTANCES_MAX; wanted--) {
        struct placement_reasons why;
        int at = placement_choose(view.nodes, view.count, spec, &why);
        if (at < 0) {
            char text[REASON_BYTES_MAX];
            placement_explain(&why, view.count, text, sizeof text);
            if (!f->pending_logged) {
                journal_add(c, now, f->name, "no node fits an instance: %s", text);
                f->pending_logged = true;
            }
            make_room(c, now, f, &why);
            break;
        }
        start_one(c, now, f, &view.nodes[at], view.of[at]);
        if (strcmp(c->starved, f->name) == 0) {
            c->starved[0] = '\0';
        }
        f->pending_logged = false;
        journal_add(c, now, f->name, "start an instance on %s: %u queued, %u starting, %u ready",
                    view.of[at]->name, f->queued + durable_demand(f), f->starting, f->ready);
    }
    view_close(&view);
}

static void tick_instance(struct core *c, struct core_time now, struct instance *i)
{
    struct runtime *f = i->function;
    bool idle = i->inflight + i->foreign == 0;
    bool leaving = node_draining(c, i->node);
    if (leaving != i->leaving) {
        i->leaving = leaving;
        instance_refile(i);
    }
    if (i->state == INSTANCE_STOPPING && now.mono_us - i->stop_sent_us > STOP_REPEAT_MS * 1000) {
        i->stop_sent_us = now.mono_us;
        send_stop(c, i->node->peer, i->id, true, "again");
    } else if (i->state == INSTANCE_STARTING) {
        uint64_t limit_ms =
            START_GUARD_MS + (is_current(i) ? f->current->spec.startup_timeout_ms : 0);
        if (now.mono_us - i->created_us > limit_ms * 1000) {
            send_stop(c, i->node->peer, i->id, true, "did not become ready in time");
            instance_gone(c, now, i, STATUS_TIMEOUT, "it did not become ready in time");
        }
    } else if (i->state == INSTANCE_READY && idle && !is_current(i)) {
        instance_stop(c, now, i, "of no current revision");
    } else if (i->state == INSTANCE_READY && idle && i->evicting) {
        instance_stop(c, now, i, "to make room for a function with less than its share");
    } else if (i->state == INSTANCE_READY && idle && leaving) {
        instance_stop(c, now, i, "the node is draining");
    } else if (i->state == INSTANCE_READY && idle) {
        const struct autoscale_view view = {.queued = f->queued + durable_demand(f),
                                            .ready = f->ready,
                                            .concurrency = i->concurrency,
                                            .scale_min = f->current->spec.scale_min,
                                            .scale_max = f->current->spec.scale_max};
        if (autoscale_may_stop(&view, (now.mono_us - i->used_us) / 1000,
                               f->current->spec.idle_ms)) {
            instance_stop(c, now, i, "idle for scaling.idle");
        }
    }
}

void instances_tick(struct core *c, struct core_time now)
{
    struct instance *i, *next;
    HASH_ITER(hh, c->instances, i, next) {
        tick_instance(c, now, i);
    }
    struct runtime *f, *next_runtime;
    HASH_ITER(hh, c->runtimes, f, next_runtime) {
        calls_dispatch(c, now, f); /* Before scaling: what finds a slot needs none made. */
        instances_scale(c, now, f);
        runtime_release(c, f);
    }
}

/* ---- Functions ---- */

void runtime_release(struct core *c, struct runtime *f)
{
    if (f->current == NULL && f->instances == NULL && f->queue == NULL) {
        if (f->jobs != NULL) {
            f->jobs->held = false;
            jobs_function_release(&c->catalog.jobs, f->jobs);
        }
        HASH_DEL(c->runtimes, f);
        mem_free(f);
    }
}

void runtimes_sync(struct core *c, struct core_time now)
{
    struct runtime *f, *next;
    HASH_ITER(hh, c->runtimes, f, next) {
        const struct catalog_function *known = catalog_function_find(&c->catalog, f->name);
        const struct catalog_revision *current = known == NULL ? NULL : catalog_current(known);
        if (f->current != current) {
            f->failures = 0; /* Another revision may start where the last one could not. */
            f->backoff_until_us = 0;
        }
        f->current = current;
    }
    for (struct catalog_function *k = c->catalog.functions; k != NULL; k = k->hh.next) {
        f = runtime_find(c, k->name);
        if (f == NULL) {
            f = mem_must(mem_zalloc(1, sizeof *f));
            memcpy(f->name, k->name, sizeof f->name);
            f->current = catalog_current(k);
            HASH_ADD_STR(c->runtimes, name, f);
        }
    }
    HASH_ITER(hh, c->runtimes, f, next) {
        f->jobs = jobs_function_get(&c->catalog.jobs, f->name);
        f->jobs->held = true;
        if (f->current == NULL) {
            calls_fail_queue(c, now, f, STATUS_NOT_FOUND, "the function was deleted");
        }
        struct instance *i;
        DL_FOREACH(f->instances, i) {
            instance_refile(i);
        }
        recount(f);
        runtime_release(c, f);
    }
}

void instances_clear(struct core *c)
{
    struct instance *i, *next;
    HASH_ITER(hh, c->instances, i, next) {
        instance_remove(c, i);
    }
    struct runtime *f, *next_runtime;
    HASH_ITER(hh, c->runtimes, f, next_runtime) {
        CHECK(f->queue == NULL);
        if (f->jobs != NULL) {
            f->jobs->held = false;
            jobs_function_release(&c->catalog.jobs, f->jobs);
        }
        HASH_DEL(c->runtimes, f);
        mem_free(f);
    }
}
