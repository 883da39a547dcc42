/* What this machine uses and has: read from /proc and from the agent's own limits. Linux;
 * sources: proc(5), Documentation/accounting/psi.rst of the kernel.
 *
 * Thread: the owner's; reads a handful of small files. */
#ifndef AGENT_PROBE_PROBE_H
#define AGENT_PROBE_PROBE_H

#include "common/status.h"

#include <stdint.h>

struct probe_sample {
    uint32_t cpu_used_millis; /* of all processors, since the sample before; 0 in the first */
    uint64_t memory_used_bytes;
    uint64_t memory_total_bytes; /* the machine's, or the agent's cgroup limit when lower */
    uint32_t load1_milli;
    uint32_t
        /* share of the last 10 s in which somebody waited, in 1/1000; 0 where the kernel does
         * not say */
        psi_cpu_milli;
    uint32_t psi_memory_milli;
    uint32_t psi_io_milli;
    uint64_t disk_free_bytes;
};

struct probe {
    char data[4096];
    uint64_t busy_ticks; /* of the last sample */
    uint64_t sample_us;
    uint64_t memory_limit; /* of our cgroup; UINT64_MAX without */
};

/* data: the folder whose disk counts. */
void probe_init(struct probe *p, const char *data);
/* What cannot be read is 0. now_us is monotonic. */
void probe_read(struct probe *p, uint64_t now_us, struct probe_sample *out);

/* The parts, for tests: each reads the text of its file. False when it is not there. */
bool probe_parse_stat(const char *text, uint64_t *busy_ticks);
bool probe_parse_meminfo(const char *text, uint64_t *total_bytes, uint64_t *available_bytes);
bool probe_parse_psi(const char *text, uint32_t *some_milli);
bool probe_parse_milli(const char *text, uint32_t *milli); /* "0.52 ..." */

#endif
