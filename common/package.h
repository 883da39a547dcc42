/* A function's code as one archive: a deterministic tar (pax restricted) of a folder, and its safe
 * unpacking.
 *
 * The same folder gives the same bytes on every machine: entries sorted by path, times 0, owner 0,
 * modes 0644 or 0755. Only files, folders and symbolic links that stay inside travel. Unpacking
 * trusts nothing: an archive comes from a peer.
 *
 * A link's target is taken when it is relative, climbs with ".." only at its start, and not above
 * the folder. Since entries are made only below real folders, no chain of such links leads out.
 *
 * Thread: any, blocking; no shared state. */
#ifndef COMMON_PACKAGE_H
#define COMMON_PACKAGE_H

#include "common/buffer.h"
#include "common/status.h"

#include <stdint.h>

enum {
    PACKAGE_FILES_MAX = 10000,     /* files, folders and links together */
    PACKAGE_BYTES_MAX = 256 << 20, /* of the archive, and of what it unpacks to */
    PACKAGE_PATH_BYTES_MAX = 1024,
    PACKAGE_DEPTH_MAX = 64,
};

/* The archive, in an unnamed memory file. */
struct package {
    int fd; /* read with pread from 0 */
    uint64_t size;
    size_t entries_count;
};

/* Packs the folder. INVALID for what cannot travel (outward links, devices, sockets, fifos, names
 * that are not printable UTF-8), LIMIT, NOT_FOUND, DENIED, IO, NOMEM; the message names the path.
 * *out is written only on success. */
NODISCARD struct status package_open(struct package *out, const char *folder, struct errmsg *msg);
void package_close(struct package *p);

/* Hands out the next piece of an archive; size 0 at its end. The bytes stay until the next call. */
typedef struct status (*package_read_fn)(void *data, struct bytes *piece, struct errmsg *msg);

/* Unpacks into folder, which is made by this call and complete when it appears: the work happens in
 * a sibling "FOLDER.XXXXXX". Files get mode 0444 or 0555, folders 0555, all owned by the caller,
 * and are on disk before the folder has its name. CORRUPT for what is no archive of ours or is cut,
 * INVALID for what may not travel, LIMIT, EXISTS for a folder that holds something, IO, NOMEM, or
 * what read fails with. Nothing is left after a failure, but after a crash a sibling may be. */
NODISCARD struct status package_unpack(package_read_fn read, void *data, const char *folder,
                                       struct errmsg *msg);
NODISCARD struct status package_unpack_bytes(struct bytes archive, const char *folder,
                                             struct errmsg *msg);

/* Removes a folder and all in it, read-only folders too. A folder that is not there is fine. Links
 * are not followed. */
NODISCARD struct status package_remove(const char *folder, struct errmsg *msg);

/* Is this the path of an entry: relative, clean (no empty, "." or ".." parts), of printable UTF-8,
 * within the limits? */
bool package_path_ok(const char *path, size_t size);
/* May a link at path point to target? */
bool package_link_ok(const char *path, const char *target);

#endif
