/* Names below a root folder that no link can lead out of.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_IMAGE_BENEATH_H
#define COMMON_IMAGE_BENEATH_H

#include <stdbool.h>

/* Writes the path without its leading "/" and "./" and trailing "/"; "" for the root itself. False
 * for NULL, for one with a ".." or an empty or "." part inside, with a part over NAME_MAX, deeper
 * than that or over IMAGE_PATH_BYTES_MAX. out has room for IMAGE_PATH_BYTES_MAX + 1. */
bool beneath_path_clean(const char *path, char *out, unsigned depth_max);

/* Opens the folder of a clean path's last part, never through a link; with make, folders that are
 * missing are made. *name is the last part. -1 with errno. */
int beneath_parent(int root, const char *path, bool make, const char **name);

/* Removes the file, link or folder with all in it. -1 with errno. */
int beneath_remove(int parent, const char *name);

/* Removes what is in the folder at a clean path ("": the root) except what keep keeps; in folders
 * that are kept the same happens. ENOENT and ENOTDIR when there is no such folder. */
int beneath_prune(int root, const char *path, bool (*keep)(void *data, const char *path),
                  void *data);

#endif
