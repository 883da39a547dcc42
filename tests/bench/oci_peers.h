/* Other container runtimes for cell_bench: one minimal OCI bundle whose process is the bench's
 * static program, with namespaces like a cell's, and the command lines of crun, runc and runsc for
 * it. Where a runtime is not installed its program is NULL.
 *
 * Thread: the caller's. Failures end the program. */
#ifndef TESTS_BENCH_OCI_PEERS_H
#define TESTS_BENCH_OCI_PEERS_H

#include <stddef.h>

enum { OCI_CRUN, OCI_RUNC, OCI_RUNSC, OCI_PEERS_COUNT_, OCI_ARGS_MAX = 16, OCI_TEXT_BYTES = 128 };

struct oci_peers {
    char folder[OCI_TEXT_BYTES];
    char state[OCI_TEXT_BYTES];
    char id[OCI_TEXT_BYTES];
    char *args[OCI_PEERS_COUNT_][OCI_ARGS_MAX]; /* args[i][0] NULL: not on this machine */
};

/* Writes the bundle; also takes the v2 hierarchy beside v1 out of this process's own mount
 * namespace (call cell_once_own_mounts before), which crun refuses. */
void oci_peers_open(struct oci_peers *p, const char *guest);
/* The command line for start number `serial`, borrowed until the next call. */
char *const *oci_peers_args(struct oci_peers *p, int peer, unsigned serial);
void oci_peers_close(struct oci_peers *p);

#endif
