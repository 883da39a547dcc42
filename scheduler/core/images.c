#include "scheduler/core/images.h"

#include "common/check.h"
#include "scheduler/core/catalog.h"

#include <inttypes.h>
#include <string.h>

static struct status check_texts(const char *field, const struct text *texts, size_t count,
                                 size_t max, struct errmsg *msg)
{
    if (count > max) {
        return status_fail(msg, STATUS_LIMIT, "%s: %zu entries, at most %zu are allowed", field,
                           count, max);
    }
    for (size_t i = 0; i < count; i++) {
        if (strlen(texts[i].text) > IMAGE_TEXT_BYTES_MAX) {
            return status_fail(msg, STATUS_LIMIT, "%s: an entry of more than %d bytes", field,
                               IMAGE_TEXT_BYTES_MAX);
        }
    }
    return status_ok();
}

struct status image_spec_check(const struct image_spec *s, struct errmsg *msg)
{
    struct image_ref ref;
    TRY(image_ref_parse(s->name, &ref, msg));
    if (ref.pinned) {
        return status_fail(msg, STATUS_INVALID, "name: holds a digest");
    }
    if (s->bytes == 0 || s->bytes > IMAGE_BYTES_MAX) {
        return status_fail(msg, STATUS_LIMIT, "bytes: %" PRIu64 " is not between 1 and %" PRIu64,
                           s->bytes, IMAGE_BYTES_MAX);
    }
    if (s->lists.size != (size_t)image_lists_count(s->bytes) * DIGEST_BYTES) {
        return status_fail(msg, STATUS_INVALID, "lists: %zu bytes do not fit %" PRIu64 " bytes",
                           s->lists.size, s->bytes);
    }
    const struct text workdir = {.text = s->workdir};
    TRY(check_texts("workdir", &workdir, 1, 1, msg));
    TRY(check_texts("env", s->env, s->env_count, IMAGE_ENV_MAX, msg));
    return check_texts("entrypoint", s->entrypoint, s->entrypoint_count, IMAGE_WORDS_MAX, msg);
}

static void image_remove(struct image_table *t, struct catalog_image *i)
{
    HASH_DEL(t->images, i);
    arena_close(&i->arena);
    mem_free(i);
}

void images_close(struct image_table *t)
{
    while (t->images != NULL) {
        image_remove(t, t->images);
    }
    *t = (struct image_table){0};
}

const struct catalog_image *images_find(const struct image_table *t, const char *ref)
{
    struct catalog_image *i;
    HASH_FIND_STR(t->images, ref, i);
    return i;
}

static bool is_newest(const struct catalog_image *image)
{
    for (const struct catalog_image *i = image->hh.next; i != NULL; i = i->hh.next) {
        if (strcmp(i->spec.name, image->spec.name) == 0) {
            return false;
        }
    }
    return true;
}

struct status images_resolve(const struct image_table *t, const char *text,
                             const struct catalog_image **out, struct errmsg *msg)
{
    struct image_ref ref;
    TRY(image_ref_parse(text, &ref, msg));
    const struct catalog_image *found = NULL;
    for (const struct catalog_image *i = t->images; i != NULL; i = i->hh.next) {
        if (strcmp(i->spec.name, ref.name.text) == 0 &&
            (!ref.pinned || digest_compare(&i->spec.digest, &ref.digest) == 0)) {
            found = i;
        }
    }
    if (found == NULL) {
        return status_fail(msg, STATUS_NOT_FOUND, "no image is named %.150s", text);
    }
    *out = found;
    return status_ok();
}

const char *images_user(const struct catalog *c, const struct catalog_image *image, bool kept)
{
    for (const struct catalog_function *f = c->functions; f != NULL; f = f->hh.next) {
        const struct catalog_revision *r;
        DL_FOREACH(f->revisions, r) {
            bool counts = kept || digest_compare(&r->id, &f->current) == 0;
            if (counts && strcmp(r->spec.image, image->ref) == 0) {
                return f->name;
            }
        }
    }
    return NULL;
}

static struct status image_add(struct image_table *t, const struct image_spec *spec, uint64_t index,
                               uint64_t time_ms, struct errmsg *msg)
{
    char ref[IMAGE_REF_BYTES];
    TRY(image_spec_check(spec, msg));
    image_ref_format(spec->name, &spec->digest, ref);
    struct catalog_image *i;
    HASH_FIND_STR(t->images, ref, i);
    if (i == NULL && HASH_COUNT(t->images) >= CATALOG_IMAGES_MAX) {
        return status_fail(msg, STATUS_LIMIT,
                           "the cluster has %d versions of images, the most it may have; skep "
                           "image gc forgets unused ones",
                           CATALOG_IMAGES_MAX);
    }
    if (i != NULL) {
        HASH_DEL(t->images, i); /* Put again: it becomes the newest. */
    } else {
        i = mem_must(mem_zalloc(1, sizeof *i));
        memcpy(i->ref, ref, sizeof i->ref);
        struct status copied = image_spec_copy(&i->arena, spec, &i->spec);
        (void)mem_must(status_is_ok(copied) ? i : NULL);
    }
    HASH_ADD_STR(t->images, ref, i);
    i->index = index;
    i->time_ms = time_ms;
    return status_ok();
}

struct status images_put(struct catalog *c, const struct image_spec *spec, struct errmsg *msg)
{
    return image_add(&c->images, spec, c->index, c->time_ms, msg);
}

static bool ref_matches(const struct catalog_image *i, const struct image_ref *ref)
{
    return strcmp(i->spec.name, ref->name.text) == 0 &&
           (!ref->pinned || digest_compare(&i->spec.digest, &ref->digest) == 0);
}

struct status images_delete(struct catalog *c, const char *name, struct errmsg *msg)
{
    struct image_ref ref;
    const struct catalog_image *any;
    TRY(images_resolve(&c->images, name, &any, msg));
    TRY(image_ref_parse(name, &ref, msg));
    struct catalog_image *i, *next;
    for (i = c->images.images; i != NULL; i = i->hh.next) {
        const char *user = ref_matches(i, &ref) ? images_user(c, i, false) : NULL;
        if (user != NULL) {
            return status_fail(msg, STATUS_CONFLICT,
                               "function %s uses image %s; deploy it with another one, or delete "
                               "it, first",
                               user, i->ref);
        }
    }
    HASH_ITER(hh, c->images.images, i, next) {
        if (ref_matches(i, &ref)) {
            image_remove(&c->images, i);
        }
    }
    return status_ok();
}

struct status images_collect(struct catalog *c, uint64_t grace_ms)
{
    struct catalog_image *i, *next;
    HASH_ITER(hh, c->images.images, i, next) {
        if (!is_newest(i) && images_user(c, i, true) == NULL) {
            image_remove(&c->images, i);
        }
    }
    c->images.collect_index = c->index;
    c->images.collect_before_ms = c->time_ms > grace_ms ? c->time_ms - grace_ms : 0;
    return status_ok();
}

struct status images_export(const struct image_table *t, struct arena *a, struct state *out)
{
    out->collect_index = t->collect_index;
    out->collect_before_ms = t->collect_before_ms;
    out->images = arena_zalloc(a, HASH_COUNT(t->images), sizeof out->images[0]);
    if (out->images == NULL) {
        return status_of(STATUS_NOMEM);
    }
    for (struct catalog_image *i = t->images; i != NULL; i = i->hh.next) {
        out->images[out->images_count++] =
            (struct state_image){.spec = &i->spec, .index = i->index, .time_ms = i->time_ms};
    }
    return status_ok();
}

struct status images_import(struct image_table *t, const struct state *s, struct errmsg *msg)
{
    for (size_t i = 0; i < s->images_count; i++) {
        const struct state_image *k = &s->images[i];
        TRY(image_add(t, k->spec, k->index, k->time_ms, msg));
    }
    t->collect_index = s->collect_index;
    t->collect_before_ms = s->collect_before_ms;
    return status_ok();
}
