/* Which chunks an image has, and which chunks of the store nothing names any more. */
#include "scheduler/api/image_chunks.h"

#include "common/image_ref.h"
#include "common/log.h"
#include "scheduler/core/spec.h"

#include <string.h>

struct status image_digests(struct chunk_store *chunks, const struct image_spec *spec,
                            struct digests *out, struct errmsg *msg)
{
    struct buffer list = {0};
    struct status s = status_ok();
    uint32_t left = image_chunks_count(spec->bytes);
    for (size_t i = 0; i < spec->lists.size / DIGEST_BYTES && status_is_ok(s); i++) {
        struct digest d;
        memcpy(d.v, spec->lists.data + i * DIGEST_BYTES, DIGEST_BYTES);
        s = chunk_store_get(chunks, &d, &list, msg);
        size_t count = left < IMAGE_LIST_CHUNKS ? left : IMAGE_LIST_CHUNKS;
        if (status_is_ok(s) && list.size != count * DIGEST_BYTES) {
            s = status_fail(msg, STATUS_INVALID, "image %s: a list of its chunks does not fit",
                            spec->name);
        }
        s = status_is_ok(s) ? digests_add(out, &d) : s;
        for (size_t k = 0; k < count && status_is_ok(s); k++) {
            memcpy(d.v, list.data + k * DIGEST_BYTES, DIGEST_BYTES);
            s = digests_add(out, &d);
        }
        left -= (uint32_t)count;
    }
    buffer_close(&list);
    return s;
}

struct status code_digests(const struct catalog *c, struct digests *out)
{
    for (const struct catalog_function *f = c->functions; f != NULL; f = f->hh.next) {
        const struct catalog_revision *r;
        DL_FOREACH(f->revisions, r) {
            for (size_t i = 0; i < r->spec.chunks.size / DIGEST_BYTES; i++) {
                struct digest d;
                memcpy(d.v, r->spec.chunks.data + i * DIGEST_BYTES, DIGEST_BYTES);
                TRY(digests_add(out, &d));
            }
        }
    }
    return status_ok();
}

struct status named_digests(struct chunk_store *chunks, const struct catalog *c,
                            struct digests *out, struct errmsg *msg)
{
    TRY(code_digests(c, out));
    for (const struct catalog_image *i = c->images.images; i != NULL; i = i->hh.next) {
        TRY(image_digests(chunks, &i->spec, out, msg));
    }
    return status_ok();
}

static bool keep_named(void *data, const struct digest *digest)
{
    return digests_find(data, digest) != NULL;
}

void chunks_collect(struct server *s)
{
    const struct image_table *t = &core_catalog(s->core)->images;
    if (t->collect_index == s->collected_index) {
        return;
    }
    struct digests named = {.count = 0};
    struct errmsg msg = {.text = ""};
    struct status st = named_digests(s->chunks, core_catalog(s->core), &named, &msg);
    for (const struct deploy_job *j = s->deploys; j != NULL; j = j->hh.next) {
        for (size_t i = 0; i < j->digests.count && status_is_ok(st); i++) {
            st = digests_add(&named, &j->digests.items[i]);
        }
    }
    if (status_is_ok(st)) {
        uint64_t removed = 0;
        digests_sort(&named);
        st = chunk_store_collect_old(s->chunks, t->collect_before_ms, keep_named, &named, &removed,
                                     &msg);
        LOG_INFO("chunks that nothing names were removed", LOG_UINT("bytes", removed));
        s->collected_index = t->collect_index;
    }
    if (!status_is_ok(st) && st.code != STATUS_NOT_FOUND) { /* A list may still be on its way. */
        LOG_WARN("cannot collect chunks", LOG_STR("why", msg.text));
    }
    digests_close(&named);
}
