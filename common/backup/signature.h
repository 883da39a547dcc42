/* The signature of a backup: ECDSA on P-256 over the file's digest by a scheduler's certificate.
 *
 * Thread: any; no shared state. */
#ifndef COMMON_BACKUP_SIGNATURE_H
#define COMMON_BACKUP_SIGNATURE_H

#include "common/buffer.h"
#include "common/ids.h"
#include "common/status.h"

/* Appends the signature to out. INVALID for a key that cannot sign, NOMEM. */
NODISCARD struct status backup_sign(const char *key_pem, const struct digest *digest,
                                    struct buffer *out, struct errmsg *msg);

/* Is the signature by the first certificate of cert_pem, is that one of a scheduler of the cluster,
 * and did a CA of ca_pem vouch for it at at_s (Unix)? signer: its name; may be NULL. DENIED. */
NODISCARD struct status backup_signature_check(const char *ca_pem, const char *cert_pem,
                                               const char *cluster, int64_t at_s,
                                               const struct digest *digest, struct bytes signature,
                                               char *signer, struct errmsg *msg);

#endif
