/* What writer and reader of backups share: the sizes of things on disk. */
#ifndef COMMON_BACKUP_BACKUP_INTERNAL_H
#define COMMON_BACKUP_BACKUP_INTERNAL_H

#include "common/backup/backup.h"

#define BACKUP_MAGIC "SKEPBKUP"
enum {
    BACKUP_MAGIC_BYTES = 8,
    BLOCK_HEAD_BYTES = 12, /* u8 kind, u8 flags, u16 0, u32 plain size, u32 stored size */
    BLOCK_PLAIN_BYTES_MAX = BACKUP_DATA_BYTES_MAX + DIGEST_BYTES,
    BLOCK_SEAL_BYTES_MAX = 256, /* what sealing may add */
    /* Zstandard's own bound for what cannot be compressed is below a 256th and 64 bytes. */
    BLOCK_STORED_BYTES_MAX =
        BLOCK_PLAIN_BYTES_MAX + BLOCK_PLAIN_BYTES_MAX / 256 + 64 + BLOCK_SEAL_BYTES_MAX,
    END_BYTES = 5 * 8,
    COMPRESSION_LEVEL = 3,
};
enum { BLOCK_COMPRESSED = 1, BLOCK_SEALED = 2 };

/* What a sealed block is bound to: its place in the file and what it claims to be. */
struct block_about {
    uint8_t bytes[13];
};
static inline struct block_about block_about_of(uint64_t ordinal, uint8_t kind, uint32_t plain)
{
    struct block_about a;
    for (unsigned i = 0; i < 8; i++) {
        a.bytes[i] = (uint8_t)(ordinal >> (8 * i));
    }
    a.bytes[8] = kind;
    for (unsigned i = 0; i < 4; i++) {
        a.bytes[9 + i] = (uint8_t)(plain >> (8 * i));
    }
    return a;
}

#endif
