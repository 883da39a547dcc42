/* The images of this node: fetched in chunks from the schedulers, checked, mounted once, shared by
 * all instances that hold them.
 *
 *     get: lists of chunks -> what the file has already -> missing chunks, a few at a time, each
 *          checked -> the whole checked -> mounted -> all who wait are told
 *     the last one lets go -> unmounted; the file stays until room is needed (the one not used for
 *     longest goes first)
 *
 * A chunk that one scheduler does not have or that does not fit its digest is asked of another one.
 * After the agent's restart mounted images are taken over as they are; others are checked, chunk by
 * chunk, before they are mounted again, and what is damaged is fetched anew.
 *
 * Thread: the loop's; files are worked on by libuv's pool. Callbacks come from the loop. */
#ifndef AGENT_IMAGE_IMAGE_STORE_H
#define AGENT_IMAGE_IMAGE_STORE_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/image_ref.h"
#include "common/status.h"

#include <uv.h>

enum {
    IMAGE_STORE_WINDOW = 8,     /* chunks asked for or written at a time, of one image */
    IMAGE_STORE_TRIES_MAX = 16, /* failed questions of one fetch */
    IMAGE_STORE_IMAGES_MAX = 1024,
    IMAGE_STORE_PATH_BYTES = 4096,
};

struct image_store;

struct image_env {
    void *data;
    /* Asks a scheduler for one chunk; image_store_chunk answers it, later. turn: 0 the leader, then
     * others. UNAVAILABLE without any. */
    struct status (*ask)(void *data, const struct digest *digest, uint64_t ticket, uint32_t turn);
};

/* One who waits. In place until done is called or image_store_forget. */
struct image_wait {
    void (*done)(void *data, struct status s, const char *message);
    void *data;
    struct image_wait *prev, *next;
};

/* What to get: as struct start says it. */
struct image_wanted {
    struct digest digest;
    uint64_t bytes;
    struct bytes lists;
};

/* Opens DATA/images. bytes_max bounds the files together. IO, DENIED, LIMIT, NOMEM. */
NODISCARD struct status image_store_open(struct image_store **out, uv_loop_t *loop,
                                         const char *data, uint64_t bytes_max,
                                         const struct image_env *env, struct errmsg *msg);
/* Nobody is told anything any more; mounts stay, for the instances. The memory goes once what runs
 * on the pool has ended: run the loop until it is empty. NULL is fine. */
void image_store_close(struct image_store *s);

/* Where the image is mounted. */
void image_store_root(const struct image_store *s, const struct digest *image,
                      char out[IMAGE_STORE_PATH_BYTES]);

/* Makes sure that the image is mounted and holds it until image_store_put. *here: it is there
 * already, and done is not called. INVALID, LIMIT (no room for it beside what is in use), NOMEM. */
NODISCARD struct status image_store_get(struct image_store *s, const struct image_wanted *wanted,
                                        struct image_wait *wait, bool *here, struct errmsg *msg);
/* Waits no longer, and holds it no longer. */
void image_store_forget(struct image_store *s, const struct digest *image, struct image_wait *wait);
/* Holds an image that an adopted instance runs in. NOT_FOUND when it is not mounted. */
NODISCARD struct status image_store_hold(struct image_store *s, const struct digest *image);
void image_store_put(struct image_store *s, const struct digest *image);
/* All adopted instances hold theirs: images that nobody holds are unmounted. */
void image_store_settle(struct image_store *s);

/* The answer to an ask. status says why there is none. */
void image_store_chunk(struct image_store *s, uint64_t ticket, struct status status,
                       struct bytes data, const char *message);

struct image_store_stats {
    uint32_t files, mounted;
    uint64_t bytes; /* of all files */
};
struct image_store_stats image_store_stats(const struct image_store *s);

#endif
