/* What the files of the job table share. */
#ifndef SCHEDULER_CORE_JOBS_INTERNAL_H
#define SCHEDULER_CORE_JOBS_INTERNAL_H

#include "common/arena.h"
#include "scheduler/core/jobs.h"

/* jobs.c: the places where a job lies, by its state and times. */
struct job *job_new(struct job_table *t, const struct state_job *s, uint64_t now_ms);
void job_free(struct job_table *t, struct job *j);
/* Puts it where its state, not_before_ms and business say. */
void job_file(struct job_table *t, struct job *j, uint64_t now_ms, bool first);
void job_unfile(struct job_table *t, struct job *j);
/* Changes its state and when it ends, keeping the counts. */
void job_set(struct job_table *t, struct job *j, enum invocation_state state, uint64_t end_ms);
struct job_key *job_key_find(const struct job_table *t, const char *function, const char *tenant,
                             const char *key);
void job_changed(struct job_table *t, struct job *j, enum job_change change);
/* What the digest takes of it. */
uint64_t job_sum(const struct job *j);

struct job *jobs_first_end(struct job_table *t);
void jobs_payload_ref(struct job_table *t, const struct digest *d);
void jobs_payload_unref(struct job_table *t, const struct digest *d);

enum { REASON_TEXT = 320 };

/* jobs_snapshot.c: frames by slot. */
uint32_t slot_take(struct job_table *t);
void slot_release(struct job_table *t, uint32_t slot);
const struct job_frame *slot_frame(const struct job_table *t, uint32_t slot);
/* Encodes the content as the slot's frame, in place of the one before. */
void slot_put(struct job_table *t, uint32_t slot, const struct state_job *s);
void slot_put_bytes(struct job_table *t, uint32_t slot, struct bytes frame);
void pages_close(struct job_table *t);

#endif
