/* The images of the cluster, a part of the catalog: versions of a name, each a record that says
 * what its chunks are. A version never changes; the newest of a name is what the name means to a
 * deploy.
 *
 * Thread: the core's. */
#ifndef SCHEDULER_CORE_IMAGES_H
#define SCHEDULER_CORE_IMAGES_H

#include "common/arena.h"
#include "common/hash.h"
#include "common/image_ref.h"
#include "common/status.h"
#include "proto/message.h"

enum { CATALOG_IMAGES_MAX = 1000 }; /* versions of all names */

struct catalog;

struct catalog_image {
    char ref[IMAGE_REF_BYTES]; /* NAME@sha256:DIGEST */
    struct image_spec spec;    /* in arena */
    struct arena arena;
    uint64_t index;   /* of the command that put it last */
    uint64_t time_ms; /* Unix, of the same */
    UT_hash_handle hh;
};

struct image_table {
    struct catalog_image *images; /* of each name, the newest is the last */
    /* The last gc: chunks that nothing names may go when nobody asked for them since then. */
    uint64_t collect_index, collect_before_ms; /* Unix */
};

/* Is it one that this cluster can hold? INVALID, LIMIT; the message names the field. */
NODISCARD struct status image_spec_check(const struct image_spec *spec, struct errmsg *msg);

void images_close(struct image_table *t);
/* By NAME@sha256:DIGEST; NULL when there is none. */
const struct catalog_image *images_find(const struct image_table *t, const char *ref);
/* By NAME, its newest version, or by NAME@sha256:DIGEST. INVALID, NOT_FOUND: naming it. */
NODISCARD struct status images_resolve(const struct image_table *t, const char *text,
                                       const struct catalog_image **out, struct errmsg *msg);
/* The name of a function whose current revision (or, with kept, any revision) uses it; NULL when
 * none does. */
const char *images_user(const struct catalog *c, const struct catalog_image *image, bool kept);

/* The commands. */
struct status images_put(struct catalog *c, const struct image_spec *spec, struct errmsg *msg);
struct status images_delete(struct catalog *c, const char *name, struct errmsg *msg);
struct status images_collect(struct catalog *c, uint64_t grace_ms);

/* As catalog_export, catalog_import. An import leaves what is there already. */
NODISCARD struct status images_export(const struct image_table *t, struct arena *a,
                                      struct state *out);
NODISCARD struct status images_import(struct image_table *t, const struct state *s,
                                      struct errmsg *msg);

#endif
