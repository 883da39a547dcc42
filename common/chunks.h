/* Packages in pieces: chunks of 256 KiB named by their SHA-256, and a folder that stores them.
 *
 * Thread: the owner's, blocking. One store has one owner at a time; nothing checks that. */
#ifndef COMMON_CHUNKS_H
#define COMMON_CHUNKS_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/package.h"
#include "common/status.h"

#include <stdint.h>

enum {
    CHUNK_BYTES = 256 << 10,
    CHUNKS_MAX = PACKAGE_BYTES_MAX / CHUNK_BYTES, /* of one package */
};

/* SHA-256 over the parts, one behind the other. NOMEM when OpenSSL has none. */
NODISCARD struct status digest_of(const struct bytes *parts, size_t count, struct digest *out);

/* The revision of a function: the digest of its canonical manifest (manifest_canonical) and its
 * chunks, in order. */
NODISCARD struct status revision_digest(struct bytes manifest, const struct digest *chunks,
                                        size_t count, struct digest *out);

/* The digests of a package's chunks, in order; the last chunk may be shorter. */
struct chunk_list {
    struct digest *digests;
    size_t count;
    uint64_t bytes;
};

/* LIMIT for more than PACKAGE_BYTES_MAX, IO, NOMEM. *out is written only on success and closed with
 * chunk_list_close. */
NODISCARD struct status chunk_list_of_bytes(struct bytes from, struct chunk_list *out,
                                            struct errmsg *msg);
NODISCARD struct status chunk_list_of_package(const struct package *p, struct chunk_list *out,
                                              struct errmsg *msg);
void chunk_list_close(struct chunk_list *l);

/* Replaces what out holds by chunk number index (from 0, within the package). IO, NOMEM. */
NODISCARD struct status chunk_of_package(const struct package *p, size_t index, struct buffer *out,
                                         struct errmsg *msg);

struct chunk_store;

/* Opens the folder, making it when it is not there, and removes what an interrupted put left.
 * bytes_max bounds all chunks together; what is there may exceed it, then nothing more is taken.
 * IO, DENIED, NOMEM. */
NODISCARD struct status chunk_store_open(struct chunk_store **out, const char *folder,
                                         uint64_t bytes_max, struct errmsg *msg);
void chunk_store_close(struct chunk_store *s); /* frees s; NULL is fine */

/* Stores a chunk; OK when it is there already. On return it is on disk. CORRUPT when the bytes have
 * another digest, INVALID when empty, LIMIT when longer than CHUNK_BYTES or the store (or the disk)
 * is full, IO. Unchanged after a failure. */
NODISCARD struct status chunk_store_put(struct chunk_store *s, const struct digest *digest,
                                        struct bytes data, struct errmsg *msg);
bool chunk_store_has(const struct chunk_store *s, const struct digest *digest);
/* The same, and the chunk counts as asked for at this time: see chunk_store_collect_old. */
bool chunk_store_renew(const struct chunk_store *s, const struct digest *digest);
/* Replaces what out holds by the chunk. NOT_FOUND. CORRUPT when the disk gave other bytes: the
 * chunk is then removed, so that it can be fetched and put again. */
NODISCARD struct status chunk_store_get(struct chunk_store *s, const struct digest *digest,
                                        struct buffer *out, struct errmsg *msg);
/* The same on any thread, beside the owner's use: a damaged chunk is left where it is. */
NODISCARD struct status chunk_store_read(const struct chunk_store *s, const struct digest *digest,
                                         struct buffer *out, struct errmsg *msg);
/* Removes every chunk that keep does not want. *removed_bytes may be NULL. IO for the first that
 * could not be removed. */
NODISCARD struct status chunk_store_collect(struct chunk_store *s,
                                            bool (*keep)(void *data, const struct digest *digest),
                                            void *data, uint64_t *removed_bytes,
                                            struct errmsg *msg);
/* The same, of chunks that were put and renewed before that Unix time only. */
NODISCARD struct status
chunk_store_collect_old(struct chunk_store *s, uint64_t before_ms,
                        bool (*keep)(void *data, const struct digest *digest), void *data,
                        uint64_t *removed_bytes, struct errmsg *msg);
uint64_t chunk_store_bytes(const struct chunk_store *s);

/* Reads a package's chunks one behind the other, for package_unpack(chunk_reader_read, &reader,
 * ...). The owner closes buffer. */
struct chunk_reader {
    struct chunk_store *store;
    const struct digest *digests;
    size_t count;
    size_t next;
    struct buffer buffer;
};
NODISCARD struct status chunk_reader_read(void *reader, struct bytes *piece, struct errmsg *msg);

#endif
