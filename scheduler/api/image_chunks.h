/* Which chunks an image has, and which chunks of the store nothing names any more.
 *
 * Thread: the loop's. */
#ifndef SCHEDULER_API_IMAGE_CHUNKS_H
#define SCHEDULER_API_IMAGE_CHUNKS_H

#include "scheduler/api/digests.h"
#include "scheduler/api/server_internal.h"

/* Adds an image's chunks: each list, and what it lists. NOT_FOUND or CORRUPT for a list that the
 * store does not have; INVALID for one of another length; NOMEM. */
NODISCARD struct status image_digests(struct chunk_store *chunks, const struct image_spec *spec,
                                      struct digests *out, struct errmsg *msg);
/* Adds the chunks of all revisions. NOMEM. */
NODISCARD struct status code_digests(const struct catalog *c, struct digests *out);
/* Adds all chunks that the catalog names. As image_digests. */
NODISCARD struct status named_digests(struct chunk_store *chunks, const struct catalog *c,
                                      struct digests *out, struct errmsg *msg);
/* After an image.gc: removes what neither the catalog nor a deploy under way names. */
void chunks_collect(struct server *s);

#endif
