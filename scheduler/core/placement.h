/* Which node a new instance goes to: filter, then score. Pure functions over a view of the nodes,
 * so that other policies can take this one's place behind the same interface.
 *
 * Thread: any; no shared state. */
#ifndef SCHEDULER_CORE_PLACEMENT_H
#define SCHEDULER_CORE_PLACEMENT_H

#include "common/status.h"
#include "proto/message.h"
#include "scheduler/core/gpus.h"

/* A node as placement sees it. Labels are borrowed. */
struct placement_node {
    const char *name;
    bool ready;    /* connected and registered, within its lease */
    uint32_t mode; /* enum node_mode */
    uint64_t cpu_millis, cpu_used_millis;
    uint64_t memory_bytes, memory_used_bytes;
    bool gvisor; /* runsc works there */
    const struct pair *labels;
    size_t labels_count;
    bool egress; /* can give an instance a network */
    struct placement_gpus gpus;
    uint32_t avoid; /* recent refusals of this revision: such nodes come last */
};

/* Why nodes were filtered out, for `skep why`. dirty: the node would have enough GPUs of the kind
 * if they were clean. */
struct placement_reasons {
    uint32_t not_ready, cordoned, labels, network, gvisor, cpu, memory, gpu, dirty;
};

/* The index of the best node, or -1 when none fits. Score: least allocated (the mean of the free
 * shares of CPU and memory after the placement), fewer refusals first. GPUs are packed: a function
 * that wants some goes where the fewest of the kind are left, one that wants none goes to nodes
 * without if it can. Equal scores go to the smaller name, so that the choice is deterministic. *why
 * is filled in both cases. */
int placement_choose(const struct placement_node *nodes, size_t count,
                     const struct function_spec *spec, struct placement_reasons *why);

/* "2 nodes: 1 cordoned, 1 has too little memory" */
void placement_explain(const struct placement_reasons *why, size_t count, char *out,
                       size_t out_size);

#endif
