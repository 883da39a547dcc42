/* A backup of a cluster in one self-contained file, written and read as a stream: one block is in
 * memory at a time. docs/backup.md describes the format; in short:
 *
 *     "SKEPBKUP" | u32 version | u32 size, header | blocks ... | END block |
 *     SHA-256 of everything before | signature | the signer's certificate
 *
 * Blocks hold a piece of the state's frames (core_pin_encode), a chunk of code or a payload; each
 * is compressed (Zstandard) and, in a sealed cluster, sealed. The signature is a scheduler's: its
 * certificate must be of the cluster that the header names, and in force when the backup was made.
 * What a reader hands out is only to be trusted once it has come to the end and was verified.
 *
 * Thread: any, the owner's; blocking. */
#ifndef COMMON_BACKUP_BACKUP_H
#define COMMON_BACKUP_BACKUP_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/status.h"

#include <stdint.h>

enum {
    BACKUP_VERSION = 1,
    BACKUP_HEADER_BYTES_MAX = 8 << 10,
    BACKUP_TEXT_BYTES_MAX = 255,
    BACKUP_WRAPPED_BYTES_MAX = 4 << 10,
    BACKUP_PIECE_BYTES = 1 << 20,     /* of the state, in one block */
    BACKUP_DATA_BYTES_MAX = 4 << 20,  /* of a payload, the largest thing there is */
    BACKUP_STATE_BYTES_MAX = 1 << 30, /* of all pieces together */
    BACKUP_SIGNATURE_BYTES_MAX = 256,
    BACKUP_CERT_BYTES_MAX = 16 << 10,
};

struct backup_header {
    char cluster[BACKUP_TEXT_BYTES_MAX + 1];
    char scheduler[BACKUP_TEXT_BYTES_MAX + 1]; /* who made it */
    char build[BACKUP_TEXT_BYTES_MAX + 1];     /* its version */
    uint64_t time_ms;                          /* Unix */
    uint64_t index;                            /* of the last command in the state */
    /* The key that the blocks are sealed with, wrapped by the cluster's key, and by which one. An
     * empty wrapped: the blocks are not sealed. wrapped is borrowed: from whoever filled it in, or
     * from the reader. */
    struct bytes wrapped;
    char wrapped_by[BACKUP_TEXT_BYTES_MAX + 1];
};

enum backup_kind { BACKUP_STATE = 1, BACKUP_CHUNK = 2, BACKUP_PAYLOAD = 3, BACKUP_END = 4 };

/* What a whole backup holds, in its END block. dropped: payloads that the state names and that
 * were gone, because their invocation had ended, when their turn came. */
struct backup_totals {
    uint64_t state_bytes, chunks, payloads, dropped, data_bytes;
};

/* Seals and opens blocks; data is the owner's. `about` is bound to the block: opening it with
 * another one fails. Appends to out. */
struct backup_seal {
    void *data;
    struct status (*seal)(void *data, struct bytes about, struct bytes plain, struct buffer *out);
    struct status (*open)(void *data, struct bytes about, struct bytes sealed, struct buffer *out,
                          struct errmsg *msg);
};

/* ---- Writing ---- */

struct backup_writer;

/* Begins a backup in fd, which stays the caller's. seal NULL: unsealed (header->wrapped must be
 * empty then, and must not be otherwise). seal is borrowed. INVALID for texts over their limits,
 * NOMEM, IO. */
NODISCARD struct status backup_writer_open(struct backup_writer **out, int fd,
                                           const struct backup_header *header,
                                           const struct backup_seal *seal, struct errmsg *msg);
void backup_writer_close(struct backup_writer *w); /* frees w; NULL is fine */
/* Pieces of the state, of any size, in order. LIMIT. */
NODISCARD struct status backup_writer_state(struct backup_writer *w, struct bytes piece,
                                            struct errmsg *msg);
/* kind: BACKUP_CHUNK or BACKUP_PAYLOAD. Only after all of the state. */
NODISCARD struct status backup_writer_data(struct backup_writer *w, enum backup_kind kind,
                                           const struct digest *digest, struct bytes data,
                                           struct errmsg *msg);
/* Writes the end, signs and syncs. */
NODISCARD struct status backup_writer_finish(struct backup_writer *w, uint64_t dropped,
                                             const char *cert_pem, const char *key_pem,
                                             struct errmsg *msg);
struct backup_totals backup_writer_totals(const struct backup_writer *w);

/* ---- Reading: a bounded decoder of outside bytes ---- */

/* Fills up to size bytes, *got 0 at the end. */
struct backup_source {
    void *data;
    struct status (*read)(void *data, void *into, size_t size, size_t *got, struct errmsg *msg);
};
struct status backup_source_fd(void *fd, void *into, size_t size, size_t *got, struct errmsg *msg);

struct backup_reader;

/* Reads the header. CORRUPT, UNSUPPORTED (a later version), NOMEM, and what the source says. */
NODISCARD struct status backup_reader_open(struct backup_reader **out,
                                           const struct backup_source *source, struct errmsg *msg);
void backup_reader_close(struct backup_reader *r); /* frees r; NULL is fine */
/* Good until the reader is closed. */
const struct backup_header *backup_reader_header(const struct backup_reader *r);
/* What opens the blocks of a sealed backup; borrowed. To be called before the first next. Without
 * it blocks are stepped over with their data empty: digest and signature are checked all the
 * same. */
void backup_reader_seal(struct backup_reader *r, const struct backup_seal *seal);

struct backup_block {
    enum backup_kind kind;
    struct digest digest; /* of a chunk or payload */
    struct bytes data;    /* good until the next call */
};

/* The next block. BACKUP_END comes once the file's own digest and totals are found right, and
 * nothing comes after it. CORRUPT says where. */
NODISCARD struct status backup_reader_next(struct backup_reader *r, struct backup_block *out,
                                           struct errmsg *msg);
struct backup_totals backup_reader_totals(const struct backup_reader *r);
/* After BACKUP_END: the digest of the file. */
const struct digest *backup_reader_digest(const struct backup_reader *r);
/* After BACKUP_END: was it signed by a scheduler of the header's cluster, by the CA of ca_pem?
 * DENIED says what is wrong. signer: its name (NAME_BYTES_MAX + 1 bytes; may be NULL). */
NODISCARD struct status backup_reader_verify(const struct backup_reader *r, const char *ca_pem,
                                             char *signer, struct errmsg *msg);

#endif
