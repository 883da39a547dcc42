/* Protocol versions: which this build speaks, and whether it gets on with another program.
 *
 * A number stands for everything that programs of Skep tell one another: messages, the log's
 * commands, Raft's messages between schedulers, and what lies on disks and in backups. A build
 * speaks its own and the one before, so that neighbours work together and a cluster is upgraded,
 * and downgraded, program by program. The rule that makes this true: **what version N is the first
 * to write, version N-1 reads and applies already.** A new command, message or field is first read
 * by everybody for one version, and written from the next one on. docs/operations.md tells
 * operators about it.
 *
 * Two gates: hellos without a common version are refused (version_check), and a command or a state
 * with something in it that this build does not know is not read at all (codec.c): to leave a part
 * out would make replicas differ.
 *
 * Thread: any; no shared state. */
#ifndef PROTO_VERSION_H
#define PROTO_VERSION_H

#include "common/status.h"
#include "proto/message.h"

#include <stdint.h>

struct version_range {
    uint32_t min, max;
};

/* This build's. In a file of its own (version_own.c), so that tests can link programs of other
 * versions. */
extern const struct version_range version_own;

enum { VERSION_TEXT_BYTES = 32 };
/* "version 1", "versions 1 to 2" */
void version_text(struct version_range r, char out[VERSION_TEXT_BYTES]);

/* UNSUPPORTED when the peer that said this hello and this build have no version in common; msg
 * then says what each speaks and which of them has to be upgraded first. own and peer are what
 * people call the two, "scheduler s1". */
NODISCARD struct status version_check(const char *own, const char *peer, const struct hello *hello,
                                      struct errmsg *msg);

#endif
