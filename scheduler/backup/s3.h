/* A bucket that speaks S3, by libcurl, which signs requests (AWS Signature Version 4). Addresses
 * are ENDPOINT/BUCKET/PREFIX/NAME, which every implementation understands.
 *
 * Thread: one at a time, blocking. curl_global_init is the program's, at its start. */
#ifndef SCHEDULER_BACKUP_S3_H
#define SCHEDULER_BACKUP_S3_H

#include "common/buffer.h"
#include "scheduler/backup/target.h"

#define S3_PUT_BYTES_MAX (UINT64_C(5) << 30) /* of one PUT: S3's own limit */
enum { S3_ANSWER_BYTES_MAX = 8 << 20, S3_TOKEN_BYTES_MAX = 2048 };

struct s3;

NODISCARD struct status s3_open(struct s3 **out, const struct config_backup *config,
                                const atomic_bool *canceled, struct errmsg *msg);
void s3_close(struct s3 *s); /* NULL is fine */
NODISCARD struct status s3_list(struct s3 *s, const struct name *cluster, struct target_list *out,
                                struct errmsg *msg);
NODISCARD struct status s3_put(struct s3 *s, const char *name, int fd, uint64_t bytes,
                               struct errmsg *msg);
NODISCARD struct status s3_remove(struct s3 *s, const char *name, struct errmsg *msg);

/* s3_list.c: the part of ListObjectsV2's answer that we need; a bounded decoder of outside bytes.
 * prefix: what stands in keys before our names. Adds our backups to out; token is empty on the last
 * page. CORRUPT, LIMIT, NOMEM. */
NODISCARD struct status s3_list_parse(struct bytes answer, const char *prefix,
                                      const struct name *cluster, struct target_list *out,
                                      char token[S3_TOKEN_BYTES_MAX], struct errmsg *msg);
/* The text of the answer's first element of that name; empty when there is none. For messages. */
void s3_element(struct bytes answer, const char *element, char *out, size_t out_size);

/* credentials.c: a file of lines KEY = VALUE as AWS's tools write it, of mode 0600. */
enum { S3_SECRET_BYTES_MAX = 2048 };
struct s3_credentials {
    char access_key[S3_SECRET_BYTES_MAX];
    char secret_key[S3_SECRET_BYTES_MAX];
    char session_token[S3_SECRET_BYTES_MAX]; /* empty: none */
};
NODISCARD struct status s3_credentials_read(const char *path, struct s3_credentials *out,
                                            struct errmsg *msg);
NODISCARD struct status s3_credentials_parse(const char *path, const char *text, size_t size,
                                             struct s3_credentials *out, struct errmsg *msg);

#endif
