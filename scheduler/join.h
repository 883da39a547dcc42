/* skep-scheduler join: certificates and a configuration for one more scheduler, by a token. It
 * starts nothing: the new scheduler waits, once started, until `skep cluster add` makes it a
 * member.
 *
 * Thread: any, blocking. */
#ifndef SCHEDULER_JOIN_H
#define SCHEDULER_JOIN_H

#include "common/status.h"

struct join_options {
    const char *token_file; /* - is standard input */
    const char *name;
    const char *address; /* HOST:PORT: where it will listen and be reached */
    const char *data;    /* its folder, made when it is not there */
    const char *config_out;
    /* where its key of encryption at rest is (common/seal/wrap.h), or NULL */
    const char *cluster_key;
};

/* Writes DATA/pki and the configuration. What join_run says, and IO and others for the files. */
NODISCARD struct status join_scheduler(const struct join_options *o, struct errmsg *msg);

#endif
