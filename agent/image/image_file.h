/* The files of images on a node, and their mounts.
 *
 *     DATA/images/DIGEST.part     being fetched, or to be checked before it is used again
 *     DATA/images/DIGEST.erofs    complete and checked by this agent
 *     DATA/images/DIGEST.mnt/     where it is mounted, read-only, nodev, nosuid; one mount an image
 *
 * Thread: any, blocking; no shared state. */
#ifndef AGENT_IMAGE_IMAGE_FILE_H
#define AGENT_IMAGE_IMAGE_FILE_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/status.h"

#include <stdint.h>

enum { IMAGE_FILE_PATH_BYTES = 4096 };

/* FOLDER/DIGEST.SUFFIX; the folder's path is short enough (checked when it is opened). */
void image_file_path(const char *folder, const struct digest *image, const char *suffix,
                     char out[IMAGE_FILE_PATH_BYTES]);

/* Makes the part file, out of a complete one too, of the given size, and tells which chunks it does
 * not have. IO, LIMIT (the disk is full), NOMEM. */
NODISCARD struct status image_file_scan(const char *folder, const struct digest *image,
                                        uint64_t bytes, const struct digest *chunks,
                                        uint32_t chunks_count, bool *missing, struct errmsg *msg);
/* Writes one chunk. CORRUPT when its bytes have another digest. */
NODISCARD struct status image_file_put(const char *folder, const struct digest *image,
                                       uint32_t index, const struct digest *chunk,
                                       struct bytes data, struct errmsg *msg);
/* All chunks are there: checks the whole and gives it its name; it is on disk then. CORRUPT (the
 * part is removed), IO. */
NODISCARD struct status image_file_finish(const char *folder, const struct digest *image,
                                          struct errmsg *msg);

/* Mounts the complete file: as a file where the kernel can (Linux 6.12 with
 * CONFIG_EROFS_FS_BACKED_BY_FILE), else through a loop device. OK when it is mounted already.
 * UNSUPPORTED when this process may not mount, or the kernel has no erofs. */
NODISCARD struct status image_file_mount(const char *folder, const struct digest *image,
                                         struct errmsg *msg);
/* OK when it is not mounted. The folder of the mount is removed. */
NODISCARD struct status image_file_unmount(const char *folder, const struct digest *image,
                                           struct errmsg *msg);
bool image_file_mounted(const char *folder, const struct digest *image);
/* Removes the file, whole or part. */
void image_file_remove(const char *folder, const struct digest *image);

/* Unmounts all images below the data folder of an agent that has ended. IO for the first that could
 * not be. *count: how many. */
NODISCARD struct status image_files_unmount_all(const char *data, size_t *count,
                                                struct errmsg *msg);

/* For tests: mounts through a loop device, whatever the kernel can. */
NODISCARD struct status image_file_mount_loop(const char *file, const char *at, struct errmsg *msg);

#endif
