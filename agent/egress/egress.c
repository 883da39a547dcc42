#include "agent/egress/egress.h"

#include "common/check.h"
#include "common/log.h"
#include "common/mem.h"

#include <stdio.h>
#include <string.h>
#include <utlist.h>

enum work_kind { WORK_ADD, WORK_REMOVE, WORK_ADOPT, WORK_SCHEDULERS, WORK_WATCH, WORK_END };

struct work {
    enum work_kind kind;
    char id[ID_STRING_BYTES];
    char **texts; /* rules, or addresses */
    size_t count;
    const struct egress_wait *wait;
    uint64_t refused;
    struct status status;
    struct errmsg msg;
    struct work *prev, *next;
};

struct egress {
    uv_loop_t *loop;
    char data[EGRESS_PATH_BYTES_MAX - ID_STRING_BYTES - 32];
    bool has_resolver;
    struct egress_host *host;
    struct errmsg why_not;
    bool able;
    struct work *queue; /* the first one is being done */
    uv_work_t running;
    struct egress_stats stats;
    char **schedulers; /* that cells are kept from */
    size_t schedulers_count;
    bool watching;
    void (*closed)(void *data);
    void *closed_data;
};

/* ---- Texts ---- */

static void texts_free(char **texts, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        mem_free(texts[i]);
    }
    mem_free(texts);
}

static bool texts_equal(char *const *a, const char *const *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(a[i], b[i]) != 0) {
            return false;
        }
    }
    return true;
}

/* NULL when out of memory. */
static char **texts_copy(const char *const *from, size_t count)
{
    char **out = mem_zalloc(count + 1, sizeof *out);
    for (size_t i = 0; out != NULL && i < count; i++) {
        out[i] = mem_strdup(from[i]);
        if (out[i] == NULL) {
            texts_free(out, count);
            return NULL;
        }
    }
    return out;
}

/* ---- The queue ---- */

static void work_free(struct work *w)
{
    texts_free(w->texts, w->count);
    mem_free(w);
}

static struct work *work_new(enum work_kind kind, const char *id)
{
    struct work *w = mem_zalloc(1, sizeof *w);
    if (w != NULL) {
        w->kind = kind;
        (void)snprintf(w->id, sizeof w->id, "%s", id);
    }
    return w;
}

/* On the pool; nothing of the loop's is touched but this piece of work. */
static void on_work(uv_work_t *running)
{
    struct egress *e = running->data;
    struct work *w = e->queue;
    switch (w->kind) {
    case WORK_ADD:
        w->status = egress_host_add(e->host, w->id, w->texts, w->count, &w->msg);
        break;
    case WORK_REMOVE:
        w->status = egress_host_remove(e->host, w->id, &w->msg);
        break;
    case WORK_ADOPT:
        w->status = egress_host_adopt(e->host, &w->msg);
        break;
    case WORK_SCHEDULERS:
        w->status = egress_host_schedulers(e->host, w->texts, w->count, &w->msg);
        break;
    case WORK_WATCH:
        w->status = egress_host_watch(e->host, &w->refused, &w->msg);
        break;
    case WORK_END:
        egress_host_end(e->host);
        break;
    }
}

static void begin(struct egress *e);

static void work_tell(struct egress *e, const struct work *w)
{
    bool good = status_is_ok(w->status);
    if (w->kind == WORK_ADD) {
        e->stats.cells += good ? 1 : 0;
        e->stats.failed += good ? 0 : 1;
        if (w->wait != NULL) {
            w->wait->done(w->wait->data, w->status, w->msg.text);
        }
    } else if (w->kind == WORK_REMOVE && good) {
        e->stats.cells -= e->stats.cells > 0 ? 1 : 0;
    } else if (w->kind == WORK_WATCH) {
        e->watching = false;
        e->stats.refused = good ? w->refused : e->stats.refused;
    }
    if (!good && w->kind != WORK_ADD) {
        LOG_WARN("cannot look after cells' networks", LOG_STR("instance", w->id),
                 LOG_STR("why", w->msg.text));
    }
}

static void on_done(uv_work_t *running, int status)
{
    struct egress *e = running->data;
    struct work *w = e->queue;
    CHECK(status == 0);
    DL_DELETE(e->queue, w);
    bool over = w->kind == WORK_END;
    work_tell(e, w);
    work_free(w);
    if (!over) {
        begin(e);
        return;
    }
    void (*closed)(void *data) = e->closed;
    void *data = e->closed_data;
    egress_host_close(e->host);
    texts_free(e->schedulers, e->schedulers_count);
    mem_free(e);
    closed(data);
}

static void begin(struct egress *e)
{
    if (e->queue != NULL) {
        int rc = uv_queue_work(e->loop, &e->running, on_work, on_done);
        CHECK(rc == 0);
    }
}

static void work_put(struct egress *e, struct work *w)
{
    bool idle = e->queue == NULL;
    DL_APPEND(e->queue, w);
    if (idle) {
        begin(e);
    }
}

/* ---- Opening and closing ---- */

struct status egress_open(struct egress **out, uv_loop_t *loop, const char *data, const char *node,
                          const struct config_network *network, struct errmsg *msg)
{
    struct egress *e = mem_zalloc(1, sizeof *e);
    if (e == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    e->loop = loop;
    e->running.data = e;
    e->has_resolver = network->has_resolver;
    (void)snprintf(e->data, sizeof e->data, "%s", data);
    struct status s = egress_host_open(&e->host, data, node, network, msg);
    if (!status_is_ok(s)) {
        mem_free(e);
        return s;
    }
    if (network->off) {
        (void)status_fail(&e->why_not, STATUS_UNSUPPORTED, "network.egress is off on this node");
    } else {
        e->able = status_is_ok(egress_host_probe(e->host, &e->why_not));
    }
    e->stats.able = e->able ? 1 : 0;
    *out = e;
    return status_ok();
}

void egress_close(struct egress *e, void (*closed)(void *data), void *data)
{
    CHECK(e->closed == NULL);
    e->closed = closed;
    e->closed_data = data;
    work_put(e, mem_must(work_new(WORK_END, "")));
}

bool egress_able(const struct egress *e, const char **why)
{
    *why = e->why_not.text;
    return e->able;
}

/* ---- Instances ---- */

struct status egress_add(struct egress *e, struct id128 instance, const struct text *rules,
                         size_t count, struct egress_wait *wait, struct errmsg *msg)
{
    if (!e->able) {
        return status_fail(msg, STATUS_UNSUPPORTED, "no network egress on this node: %s",
                           e->why_not.text);
    }
    if (count > MANIFEST_EGRESS_MAX) {
        return status_fail(msg, STATUS_LIMIT, "network.egress: more than %d rules",
                           MANIFEST_EGRESS_MAX);
    }
    const char *texts[MANIFEST_EGRESS_MAX];
    char id[ID_STRING_BYTES];
    id_format(instance, INSTANCE_PREFIX, id);
    for (size_t i = 0; i < count; i++) {
        texts[i] = rules[i].text;
    }
    struct work *w = work_new(WORK_ADD, id);
    char **copy = texts_copy(texts, count);
    if (w == NULL || copy == NULL) {
        mem_free(w);
        texts_free(copy, copy != NULL ? count : 0);
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    w->texts = copy;
    w->count = count;
    w->wait = wait;
    work_put(e, w);
    return status_ok();
}

void egress_forget(struct egress *e, const struct egress_wait *wait)
{
    struct work *w;
    DL_FOREACH(e->queue, w) {
        if (w->wait == wait) {
            w->wait = NULL;
        }
    }
}

static void remove_named(void *arg, const char *id)
{
    struct egress *e = arg;
    struct work *w = work_new(WORK_REMOVE, id);
    if (w == NULL) {
        LOG_WARN("out of memory: a cell's network stays until the agent starts again",
                 LOG_STR("instance", id));
        return;
    }
    work_put(e, w);
}

void egress_remove(struct egress *e, struct id128 instance)
{
    char id[ID_STRING_BYTES];
    id_format(instance, INSTANCE_PREFIX, id);
    remove_named(e, id);
}

struct sweep {
    struct egress *egress;
    bool adopting;
    bool (*alive)(void *arg, struct id128 instance);
    void *arg;
};

static void sweep_one(void *arg, const char *text)
{
    struct sweep *s = arg;
    struct id128 id;
    struct status parsed = id_parse(text, INSTANCE_PREFIX, &id, NULL);
    CHECK(status_is_ok(parsed)); /* egress_host_each looks for ids */
    if (!s->adopting) {
        s->adopting = true;
        work_put(s->egress, mem_must(work_new(WORK_ADOPT, "")));
    }
    s->egress->stats.cells++;
    if (!s->alive(s->arg, id)) {
        LOG_INFO("network of a former life is removed", LOG_STR("instance", text));
        remove_named(s->egress, text);
    }
}

void egress_sweep(struct egress *e, bool (*alive)(void *arg, struct id128 instance), void *arg)
{
    struct sweep sweep = {.egress = e, .alive = alive, .arg = arg};
    egress_host_each(e->host, sweep_one, &sweep);
}

/* ---- The node ---- */

void egress_schedulers(struct egress *e, const char *const *addresses, size_t count)
{
    if (!e->able ||
        (count == e->schedulers_count && texts_equal(e->schedulers, addresses, count))) {
        return;
    }
    char **kept = texts_copy(addresses, count);
    char **copy = texts_copy(addresses, count);
    struct work *w = work_new(WORK_SCHEDULERS, "");
    if (kept == NULL || copy == NULL || w == NULL) {
        texts_free(kept, kept != NULL ? count : 0);
        texts_free(copy, copy != NULL ? count : 0);
        mem_free(w);
        return; /* the next word of the leader tries again */
    }
    texts_free(e->schedulers, e->schedulers_count);
    e->schedulers = kept;
    e->schedulers_count = count;
    w->texts = copy;
    w->count = count;
    work_put(e, w);
}

void egress_tick(struct egress *e)
{
    if (e->watching || e->stats.cells == 0) {
        return;
    }
    struct work *w = work_new(WORK_WATCH, "");
    if (w != NULL) {
        e->watching = true;
        work_put(e, w);
    }
}

struct egress_stats egress_stats(const struct egress *e)
{
    return e->stats;
}

void egress_paths(const struct egress *e, struct id128 instance, char netns[EGRESS_PATH_BYTES_MAX],
                  char resolv[EGRESS_PATH_BYTES_MAX])
{
    char id[ID_STRING_BYTES];
    id_format(instance, INSTANCE_PREFIX, id);
    (void)snprintf(netns, EGRESS_PATH_BYTES_MAX, "%s/netns/%s", e->data, id);
    (void)snprintf(resolv, EGRESS_PATH_BYTES_MAX, "%s", "");
    if (e->has_resolver) {
        (void)snprintf(resolv, EGRESS_PATH_BYTES_MAX, "%s/netns/resolv.conf", e->data);
    }
}
