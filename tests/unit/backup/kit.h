/* A CA, a scheduler and a backup in memory, for tests. */
#ifndef TESTS_UNIT_BACKUP_KIT_H
#define TESTS_UNIT_BACKUP_KIT_H

#include "common/backup/backup.h"
#include "tests/lib/test_pki.h"

#define KIT_CLUSTER "prod"

struct kit {
    struct test_ca ca, other_ca;
    struct test_certificate scheduler, agent, user, foreign; /* foreign: of another cluster */
    struct test_certificate impostor; /* a scheduler of this cluster, by another CA */
};

int kit_setup(void **state);
int kit_teardown(void **state);

/* Writes a backup: a state of state_bytes, two chunks and a payload. signer: whose certificate. */
void kit_backup(const struct test_certificate *signer, size_t state_bytes,
                const struct backup_seal *seal, struct buffer *out);
/* The state that it holds. */
void kit_state(size_t bytes, struct buffer *out);

/* A seal that turns bits and appends the block's place. */
extern const struct backup_seal kit_seal;

/* Reads a whole backup from memory. verified: what backup_reader_verify says; collected: the state,
 * may be NULL. */
struct kit_read {
    struct status read, verified;
    struct errmsg msg;
    struct backup_totals totals;
    struct backup_header header;
    char signer[NAME_BYTES_MAX + 1];
    unsigned blocks[BACKUP_END + 1];
};
void kit_read(struct bytes file, const struct backup_seal *seal, const char *ca_pem,
              struct buffer *collected, struct kit_read *out);

#endif
