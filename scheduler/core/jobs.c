/* The table of jobs and the places where they lie. */
#include "scheduler/core/jobs_internal.h"

#include <stdio.h>
#include <string.h>

enum { BUCKET_TOKEN = 1000000, KEY_TEXT_BYTES = 2 * NAME_BYTES_MAX + SPAWN_KEY_BYTES_MAX + 3 };

static int compare_numbers(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b ? 1 : 0;
}

/* Jobs that a backup brought may share an index. */
static int compare_order(const struct job *a, const struct job *b)
{
    int by_index = compare_numbers(a->index, b->index);
    return by_index != 0 ? by_index : id_compare(a->id, b->id);
}

static int compare_ends(const struct job *a, const struct job *b)
{
    int by_time = compare_numbers(a->end_ms, b->end_ms);
    return by_time != 0 ? by_time : compare_order(a, b);
}

static int compare_wakes(const struct job *a, const struct job *b)
{
    int by_time = compare_numbers(a->not_before_ms, b->not_before_ms);
    return by_time != 0 ? by_time : compare_order(a, b);
}

/* RB_GENERATE_STATIC as libbsd has it needs a macro that only its overlay headers define. */
#define UNUSED_STATIC __attribute__((unused)) static
RB_GENERATE_INTERNAL(job_ends, job, by_end, compare_ends, UNUSED_STATIC)
RB_GENERATE_INTERNAL(job_wakes, job, by_wake, compare_wakes, UNUSED_STATIC)

/* ---- Lookup ---- */

struct job *jobs_find(const struct job_table *t, struct id128 id)
{
    struct job *j;
    HASH_FIND(hh, t->jobs, &id, sizeof id, j);
    return j;
}

struct job_function *jobs_function_find(const struct job_table *t, const char *name)
{
    struct job_function *f;
    HASH_FIND_STR(t->functions, name, f);
    return f;
}

struct job_function *jobs_function_get(struct job_table *t, const char *name)
{
    struct job_function *f = jobs_function_find(t, name);
    if (f == NULL) {
        f = mem_must(mem_zalloc(1, sizeof *f));
        (void)snprintf(f->name, sizeof f->name, "%s", name);
        HASH_ADD_STR(t->functions, name, f);
    }
    return f;
}

void jobs_function_release(struct job_table *t, struct job_function *f)
{
    if (f->jobs > 0 || f->held) {
        return;
    }
    HASH_DEL(t->functions, f);
    mem_free(f);
}

struct job_tenant *jobs_tenant_find(const struct job_table *t, const char *name)
{
    struct job_tenant *n;
    HASH_FIND_STR(t->tenants, name, n);
    return n;
}

static struct job_tenant *tenant_get(struct job_table *t, const char *name)
{
    struct job_tenant *n = jobs_tenant_find(t, name);
    if (n == NULL) {
        n = mem_must(mem_zalloc(1, sizeof *n));
        (void)snprintf(n->name, sizeof n->name, "%s", name);
        n->weight = 1;
        HASH_ADD_STR(t->tenants, name, n);
    }
    return n;
}

static size_t key_text(char out[KEY_TEXT_BYTES], const char *function, const char *tenant,
                       const char *key)
{
    int n = snprintf(out, KEY_TEXT_BYTES, "%s%c%s%c%s", function, 0, tenant, 0, key);
    return (size_t)n + 1;
}

struct job_key *job_key_find(const struct job_table *t, const char *function, const char *tenant,
                             const char *key)
{
    char text[KEY_TEXT_BYTES];
    size_t size = key_text(text, function, tenant, key);
    struct job_key *k;
    HASH_FIND(hh, t->keys, text, size, k);
    return k;
}

static void key_add(struct job_table *t, struct job *j, const struct state_job *s)
{
    char text[KEY_TEXT_BYTES];
    size_t size = key_text(text, s->function, s->tenant, s->key);
    struct job_key *k = mem_must(mem_zalloc(1, sizeof *k + size));
    memcpy(k->text, text, size);
    k->job = j;
    k->check = s->key_check;
    HASH_ADD_KEYPTR(hh, t->keys, k->text, size, k);
    j->key = k;
}

/* ---- Payloads outside the log ---- */

void jobs_payload_ref(struct job_table *t, const struct digest *d)
{
    if (digest_is_zero(d)) {
        return;
    }
    struct job_payload *p;
    HASH_FIND(hh, t->payloads, d, sizeof *d, p);
    if (p == NULL) {
        p = mem_must(mem_zalloc(1, sizeof *p));
        p->digest = *d;
        HASH_ADD(hh, t->payloads, digest, sizeof p->digest, p);
    }
    p->refs++;
}

void jobs_payload_unref(struct job_table *t, const struct digest *d)
{
    struct job_payload *p = NULL;
    if (!digest_is_zero(d)) {
        HASH_FIND(hh, t->payloads, d, sizeof *d, p);
    }
    if (p == NULL || --p->refs > 0) {
        return;
    }
    struct digest gone = p->digest;
    HASH_DEL(t->payloads, p);
    mem_free(p);
    if (t->payload_dropped != NULL) {
        t->payload_dropped(t->data, &gone);
    }
}

/* ---- Digest ---- */

/* Finalizer of MurmurHash3 (Appleby, public domain). */
static uint64_t mix(uint64_t h)
{
    h = (h ^ (h >> 33)) * UINT64_C(0xff51afd7ed558ccd);
    h = (h ^ (h >> 33)) * UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ (h >> 33);
}

uint64_t job_sum(const struct job *j)
{
    const uint64_t words[] = {j->id.high,       j->id.low,   j->index,    j->created_ms,
                              j->not_before_ms, j->end_ms,   j->attempts, j->crashes,
                              j->failures,      j->priority, j->state};
    uint64_t h = 0;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        h = mix(h ^ words[i]) + i;
    }
    return h;
}

void job_changed(struct job_table *t, struct job *j, enum job_change change)
{
    if (t->changed != NULL) {
        t->changed(t->data, j, change);
    }
}

/* ---- Lanes ---- */

static struct job_lane *lane_get(struct job *j)
{
    struct job_lane **ring = &j->function->lanes[j->priority], *l;
    DL_FOREACH(*ring, l) {
        if (l->tenant == j->tenant) {
            return l;
        }
    }
    l = mem_must(mem_zalloc(1, sizeof *l));
    l->tenant = j->tenant;
    DL_APPEND(*ring, l);
    return l;
}

static void lane_leave(struct job *j)
{
    struct job_lane *l = j->lane;
    DL_DELETE(l->jobs, j);
    j->lane = NULL;
    j->function->waiting--;
    if (l->jobs == NULL) {
        DL_DELETE(j->function->lanes[j->priority], l);
        mem_free(l);
    }
}

static void lane_enter(struct job *j, bool first)
{
    struct job_lane *l = lane_get(j);
    if (first) {
        DL_PREPEND(l->jobs, j);
    } else {
        DL_APPEND(l->jobs, j);
    }
    j->lane = l;
    j->function->waiting++;
}

void job_unfile(struct job_table *t, struct job *j)
{
    if (j->lane != NULL) {
        lane_leave(j);
    }
    if (j->delayed) {
        RB_REMOVE(job_wakes, &t->wakes, j);
        j->delayed = false;
    }
}

void job_file(struct job_table *t, struct job *j, uint64_t now_ms, bool first)
{
    job_unfile(t, j);
    if (j->state != INVOCATION_QUEUED || j->busy) {
        return;
    }
    if (j->not_before_ms > now_ms) {
        RB_INSERT(job_wakes, &t->wakes, j);
        j->delayed = true;
    } else {
        lane_enter(j, first);
    }
}

/* ---- Life ---- */

static void count(struct job *j, bool in)
{
    uint64_t one = in ? 1 : UINT64_MAX;
    if (j->state == INVOCATION_QUEUED) {
        j->function->queued += one;
        j->tenant->queued += one;
    }
    if (j->state == INVOCATION_DEAD) {
        j->function->dead += one;
    }
}

void job_set(struct job_table *t, struct job *j, enum invocation_state state, uint64_t end_ms)
{
    RB_REMOVE(job_ends, &t->ends, j);
    count(j, false);
    j->state = (uint8_t)state;
    j->end_ms = end_ms;
    count(j, true);
    RB_INSERT(job_ends, &t->ends, j);
}

struct job *job_new(struct job_table *t, const struct state_job *s, uint64_t now_ms)
{
    struct job *j = mem_must(mem_zalloc(1, sizeof *j));
    j->id = s->invocation;
    j->index = s->index;
    j->created_ms = s->created_ms;
    j->not_before_ms = s->not_before_ms;
    j->state = (uint8_t)s->state;
    j->end_ms = s->state == INVOCATION_QUEUED ? s->deadline_at_ms : s->expires_ms;
    j->attempts = s->attempts;
    j->crashes = s->crashes;
    j->failures = s->failures;
    j->priority = (uint8_t)s->priority;
    j->function = jobs_function_get(t, s->function);
    j->tenant = tenant_get(t, s->tenant);
    j->function->jobs++;
    j->tenant->jobs++;
    j->slot = slot_take(t);
    if (s->key[0] != '\0') {
        key_add(t, j, s);
    }
    jobs_payload_ref(t, &s->payload_ref);
    jobs_payload_ref(t, &s->output_ref);
    count(j, true);
    RB_INSERT(job_ends, &t->ends, j);
    HASH_ADD(hh, t->jobs, id, sizeof j->id, j);
    t->sum += job_sum(j);
    job_file(t, j, now_ms, false);
    return j;
}

void job_free(struct job_table *t, struct job *j)
{
    job_changed(t, j, JOB_GONE);
    CHECK(j->work == NULL);
    CHECK(j->waiters == NULL);
    struct arena a = {0};
    struct state_job s;
    jobs_content(t, j, &a, &s);
    jobs_payload_unref(t, &s.payload_ref);
    jobs_payload_unref(t, &s.output_ref);
    arena_close(&a);
    t->sum -= job_sum(j);
    job_unfile(t, j);
    RB_REMOVE(job_ends, &t->ends, j);
    count(j, false);
    if (j->key != NULL) {
        HASH_DEL(t->keys, j->key);
        mem_free(j->key);
    }
    HASH_DEL(t->jobs, j);
    slot_release(t, j->slot);
    struct job_function *f = j->function;
    struct job_tenant *n = j->tenant;
    mem_free(j);
    f->jobs--;
    jobs_function_release(t, f);
    if (--n->jobs == 0) {
        HASH_DEL(t->tenants, n);
        mem_free(n);
    }
}

void jobs_clear(struct job_table *t)
{
    struct job *j, *next;
    void (*dropped)(void *, const struct digest *) = t->payload_dropped;
    t->payload_dropped = NULL; /* A table that is closed names nothing, but nothing is deleted. */
    HASH_ITER(hh, t->jobs, j, next) {
        job_free(t, j);
    }
    t->payload_dropped = dropped;
}

void jobs_close(struct job_table *t)
{
    jobs_clear(t);
    struct job_function *f, *next_function;
    HASH_ITER(hh, t->functions, f, next_function) {
        HASH_DEL(t->functions, f);
        mem_free(f);
    }
    struct job_schedule *s, *next_schedule;
    HASH_ITER(hh, t->schedules, s, next_schedule) {
        HASH_DEL(t->schedules, s);
        mem_free(s);
    }
    pages_close(t);
    *t = (struct job_table){
        .changed = t->changed, .payload_dropped = t->payload_dropped, .data = t->data};
}

/* ---- For the leader ---- */

size_t jobs_wake(struct job_table *t, uint64_t now_ms, size_t max)
{
    size_t woken = 0;
    for (; woken < max; woken++) {
        struct job *j = RB_MIN(job_wakes, &t->wakes);
        if (j == NULL || j->not_before_ms > now_ms) {
            break;
        }
        job_file(t, j, now_ms, false);
    }
    return woken;
}

struct job *jobs_first_end(struct job_table *t)
{
    return RB_MIN(job_ends, &t->ends);
}

uint64_t jobs_next_end(const struct job_table *t)
{
    struct job_ends *ends = (struct job_ends *)(uintptr_t)&t->ends; /* RB_MIN only reads */
    const struct job *j = RB_MIN(job_ends, ends);
    return j == NULL ? UINT64_MAX : j->end_ms;
}

bool bucket_take(struct job_bucket *b, uint32_t rate_milli, uint32_t burst, uint64_t now_us)
{
    if (rate_milli == 0) {
        return true;
    }
    uint64_t full = (uint64_t)(burst == 0 ? 1 : burst) * BUCKET_TOKEN;
    uint64_t gone_us = b->at_us == 0 ? UINT64_MAX : now_us - b->at_us;
    /* A token a second is one millionth a microsecond; rate_milli is in thousandths of that. */
    uint64_t limit_us = full / rate_milli * 1000 + 1000;
    uint64_t credit = gone_us >= limit_us ? full : gone_us * rate_milli / 1000;
    if (credit > 0) { /* Else the time counts on: fractions are not lost. */
        b->level = full - b->level < credit ? full : b->level + credit;
        b->at_us = now_us;
    }
    if (b->level < BUCKET_TOKEN) {
        return false;
    }
    b->level -= BUCKET_TOKEN;
    return true;
}

void bucket_give(struct job_bucket *b, uint32_t rate_milli)
{
    b->level += rate_milli == 0 ? 0 : BUCKET_TOKEN;
}

static bool tenant_may_start(struct job_tenant *n, uint64_t now_us)
{
    if (n->running_max > 0 && n->running >= n->running_max) {
        return false;
    }
    return bucket_take(&n->bucket, n->rate_milli, n->rate_milli / 1000 + 1, now_us);
}

/* The next lane of the ring whose tenant may start one; its turn is counted. */
static struct job_lane *lane_choose(struct job_lane **ring, uint64_t now_us)
{
    struct job_lane *l;
    int lanes;
    DL_COUNT(*ring, l, lanes);
    for (int i = 0; i < lanes; i++) {
        l = *ring;
        bool may = tenant_may_start(l->tenant, now_us);
        if (may && ++l->served < l->tenant->weight) {
            return l;
        }
        l->served = 0; /* Its turn is over, or it cannot use it. */
        if (l->next != NULL) {
            DL_DELETE(*ring, l);
            DL_APPEND(*ring, l);
        }
        if (may) {
            return l;
        }
    }
    return NULL;
}

struct job *jobs_pick(struct job_table *t, struct job_function *f, uint64_t now_us)
{
    for (int priority = SPAWN_PRIORITY_MAX; priority > 0 && f->waiting > 0; priority--) {
        struct job_lane *l =
            f->lanes[priority] == NULL ? NULL : lane_choose(&f->lanes[priority], now_us);
        if (l != NULL) {
            struct job *j = l->jobs;
            jobs_take(t, j);
            return j;
        }
    }
    return NULL;
}

void jobs_take(struct job_table *t, struct job *j)
{
    CHECK(!j->busy);
    CHECK(j->state == INVOCATION_QUEUED);
    job_unfile(t, j);
    j->busy = true;
}

void jobs_unbusy(struct job_table *t, struct job *j, uint64_t now_ms, bool first)
{
    j->busy = false;
    job_file(t, j, now_ms, first);
}

/* ---- Schedules ---- */

static void schedule_key(char out[2 * NAME_BYTES_MAX + 2], const char *function,
                         const char *schedule)
{
    (void)snprintf(out, 2 * NAME_BYTES_MAX + 2, "%s/%s", function, schedule);
}

void jobs_fired(struct job_table *t, const char *function, const char *schedule, uint64_t at_ms)
{
    char key[2 * NAME_BYTES_MAX + 2];
    schedule_key(key, function, schedule);
    struct job_schedule *s;
    HASH_FIND_STR(t->schedules, key, s);
    if (s == NULL) {
        s = mem_must(mem_zalloc(1, sizeof *s));
        memcpy(s->key, key, sizeof s->key);
        HASH_ADD_STR(t->schedules, key, s);
    }
    s->fired_ms = at_ms;
}

uint64_t jobs_last_fired(const struct job_table *t, const char *function, const char *schedule)
{
    char key[2 * NAME_BYTES_MAX + 2];
    schedule_key(key, function, schedule);
    const struct job_schedule *s;
    HASH_FIND_STR(t->schedules, key, s);
    return s == NULL ? 0 : s->fired_ms;
}

static bool names_schedule(const struct function_spec *spec, const char *name)
{
    for (size_t i = 0; spec != NULL && i < spec->schedules_count; i++) {
        if (strcmp(spec->schedules[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

void jobs_schedules_keep(struct job_table *t, const char *function,
                         const struct function_spec *spec)
{
    size_t size = strlen(function);
    struct job_schedule *s, *next;
    HASH_ITER(hh, t->schedules, s, next) {
        bool own = strncmp(s->key, function, size) == 0 && s->key[size] == '/';
        if (own && !names_schedule(spec, s->key + size + 1)) {
            HASH_DEL(t->schedules, s);
            mem_free(s);
        }
    }
}

/* ---- Invariants ---- */

void jobs_check(const struct job_table *t)
{
    uint64_t sum = 0, waiting = 0, queued = 0, in_lanes = 0, bytes = 0;
    for (const struct job *j = t->jobs; j != NULL; j = j->hh.next) {
        sum += job_sum(j);
        bytes += slot_frame(t, j->slot)->size;
        queued += j->state == INVOCATION_QUEUED;
        in_lanes += j->lane != NULL;
        CHECK_IMPLIES(j->state != INVOCATION_QUEUED, j->lane == NULL && !j->delayed);
        CHECK_IMPLIES(j->busy, j->lane == NULL && !j->delayed);
        CHECK_IMPLIES(j->state == INVOCATION_QUEUED && !j->busy, j->delayed || j->lane != NULL);
        CHECK_IMPLIES(j->work != NULL, j->busy);
    }
    for (const struct job_function *f = t->functions; f != NULL; f = f->hh.next) {
        waiting += f->waiting;
        queued -= f->queued;
    }
    CHECK(sum == t->sum);
    CHECK(bytes == t->bytes);
    CHECK(queued == 0);
    CHECK(waiting == in_lanes);
}
