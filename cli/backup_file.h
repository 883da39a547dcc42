/* A backup file on the command line's side: read whole once, checked, and its state put into a
 * throw-away state machine.
 *
 * Thread: one, blocking. */
#ifndef CLI_BACKUP_FILE_H
#define CLI_BACKUP_FILE_H

#include "common/backup/backup.h"
#include "common/seal/seal.h"

#include <stdio.h>

struct core;
struct backup_set;

/* What a backup would bring back. */
struct backup_summary {
    uint64_t functions, revisions, nodes, settings, schedulers, keys, schedules, tokens, revoked;
    uint64_t jobs, queued, done, dead, canceled, payload_refs;
    uint64_t missing_payloads; /* of them, not in the file: they had been dropped meanwhile */
};

/* All zeros but fd (-1) is closed. */
struct backup_file {
    int fd;
    struct backup_reader *reader;
    struct backup_header header; /* its wrapped is the reader's */
    struct backup_totals totals;
    struct digest digest;
    char signer[NAME_BYTES_MAX + 1];
    bool sealed, opened; /* opened: the content was readable */
    struct sealer *sealer;
    struct seal_key key;
    uint32_t key_id;
    struct backup_seal seal;
    struct buffer state;
    struct backup_set *held; /* chunks and payloads that the file holds */
    struct backup_summary summary;
};

/* cluster_key: where the cluster key comes from (common/seal/wrap.h); NULL: a sealed file stays
 * closed. Reads the header. */
NODISCARD struct status backup_file_open(struct backup_file *f, const char *path,
                                         const char *cluster_key, struct errmsg *msg);
void backup_file_close(struct backup_file *f);
/* Reads the whole file: digest, signature by ca_pem (NULL: not checked), and what it holds. */
NODISCARD struct status backup_file_check(struct backup_file *f, const char *ca_pem,
                                          struct errmsg *msg);
/* After backup_file_check of an open file: restores its state into a state machine of its own and
 * fills in the summary. CORRUPT for a state that cannot be restored, or that names code which the
 * file lacks. */
NODISCARD struct status backup_file_rehearse(struct backup_file *f, struct errmsg *msg);
/* verb_backup.c: opens, checks and rehearses the file as the options say; what fails is printed
 * and *code set. */
struct cli;
bool backup_examine(struct cli *cli, const char *path, struct backup_file *f, int *code);
/* Begins to read again, for backup_reader_next on f->reader. */
NODISCARD struct status backup_file_rewind(struct backup_file *f, struct errmsg *msg);

#endif
