/* The one codec between the plain structs and protobuf bytes. Decoding is bounded: by the arena's
 * limit and by CODEC_LIST_MAX. Nothing but codec.c touches generated code.
 *
 * Thread: any; no shared state. */
#ifndef PROTO_CODEC_H
#define PROTO_CODEC_H

#include "common/arena.h"
#include "common/buffer.h"
#include "common/status.h"
#include "proto/message.h"

enum {
    CODEC_LIST_MAX = 100000,
    /* The form of the envelope, not the protocol's version: everybody has to be able to read a
     * hello. */
    ENVELOPE_FORM = 1,
};

/* Appends the encoded envelope. NOMEM, out is unchanged then. STR fields that are NULL are sent as
 * empty. */
NODISCARD struct status message_encode(const struct message *m, struct buffer *out);
/* Decodes one envelope; everything in *out lives in the arena (and bytes of it are not shared with
 * `in`). Fields that this build does not know are skipped. INVALID names the message and field,
 * UNSUPPORTED for an envelope's form or a body this build does not know, LIMIT when the arena is
 * full. *out is written only on success. */
NODISCARD struct status message_decode(struct bytes in, struct arena *a, struct message *out,
                                       struct errmsg *msg);

/* What is replicated or kept: a field that this build does not know is UNSUPPORTED here, wherever
 * it is nested, because who left it out would differ from the others. */
NODISCARD struct status command_encode(const struct command *c, struct buffer *out);
NODISCARD struct status command_decode(struct bytes in, struct arena *a, struct command *out,
                                       struct errmsg *msg);

NODISCARD struct status state_encode(const struct state *s, struct buffer *out);
NODISCARD struct status state_decode(struct bytes in, struct arena *a, struct state *out,
                                     struct errmsg *msg);

NODISCARD struct status state_job_encode(const struct state_job *j, struct buffer *out);
NODISCARD struct status state_job_decode(struct bytes in, struct arena *a, struct state_job *out,
                                         struct errmsg *msg);

/* Encodes one revision's spec: its SHA-256 is the revision's id. */
NODISCARD struct status function_spec_encode(const struct function_spec *f, struct buffer *out);
NODISCARD struct status function_spec_decode(struct bytes in, struct arena *a,
                                             struct function_spec *out, struct errmsg *msg);

#endif
