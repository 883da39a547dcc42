/* Every message and command, a row a field: the plain structs (message.h) and the codec (codec.c)
 * are made from these rows, which say the same as skep.proto; the codec does not compile when they
 * differ in a name or a type.
 *
 * F(KIND, name) is a field, L(type, name) a list of nested ones, M(type, name) one nested one.
 * Kinds: U32, U64, BOOL, STR (never NULL after decoding), BYTES, ID (16 bytes), DIGEST (32
 * bytes). */
#ifndef PROTO_ROWS_H
#define PROTO_ROWS_H

/* ---- Nested parts ---- */
/* value_kind says how JSON output shows the value: 0 text, 1 number, 2 true or false. */
#define FIELDS_pair(F, L, M) F(STR, key) F(STR, value) F(U32, value_kind)
#define FIELDS_record(F, L, M) L(pair, fields)
/* One revision of a function, as deployed. chunks: SHA-256 digests of the package's chunks, one
 * behind the other. image: a name with its digest, empty: the node's own root. isolation: cell (or
 * empty) or gvisor. egress: CIDR:port each. gpu_count 0: none; gpu_model empty: any;
 * gpu_memory_bytes: of each, at least. */
#define FIELDS_function_spec(F, L, M)                                                              \
    F(STR, name)                                                                                   \
    F(STR, runtime)                                                                                \
    F(STR, handler)                                                                                \
    L(text, command)                                                                               \
    F(U32, cpu_millis)                                                                             \
    F(U64, memory_bytes)                                                                           \
    F(U64, tmp_bytes)                                                                              \
    F(U32, processes_max)                                                                          \
    F(U32, scale_min)                                                                              \
    F(U32, scale_max)                                                                              \
    F(U32, concurrency)                                                                            \
    F(U64, idle_ms)                                                                                \
    F(U32, queue_max)                                                                              \
    F(U64, timeout_ms)                                                                             \
    F(U64, startup_timeout_ms)                                                                     \
    L(pair, env)                                                                                   \
    L(pair, require)                                                                               \
    F(BYTES, chunks)                                                                               \
    F(U64, package_bytes)                                                                          \
    F(U32, retries_max)                                                                            \
    F(U64, retry_backoff_ms)                                                                       \
    F(U32, retry_factor_milli)                                                                     \
    F(U64, retry_cap_ms)                                                                           \
    F(U32, running_max)                                                                            \
    F(U32, rate_milli)                                                                             \
    F(U32, rate_burst)                                                                             \
    F(U64, queue_age_ms)                                                                           \
    F(U32, poison_max)                                                                             \
    F(U32, durable_queue_max)                                                                      \
    F(STR, data_class)                                                                             \
    L(schedule_spec, schedules)                                                                    \
    F(STR, image)                                                                                  \
    F(STR, isolation)                                                                              \
    L(text, egress)                                                                                \
    F(U32, gpu_count)                                                                              \
    F(STR, gpu_model)                                                                              \
    F(U64, gpu_memory_bytes)
#define FIELDS_text(F, L, M) F(STR, text)
/* A root file system for cells: an erofs image, its SHA-256 and size. lists: SHA-256 digests of
 * chunks that hold, one behind the other, the digests of the image's chunks. env (KEY=VALUE),
 * workdir and entrypoint: what its makers meant to run, for people. */
#define FIELDS_image_spec(F, L, M)                                                                 \
    F(STR, name)                                                                                   \
    F(DIGEST, digest)                                                                              \
    F(U64, bytes)                                                                                  \
    F(BYTES, lists)                                                                                \
    L(text, env)                                                                                   \
    F(STR, workdir)                                                                                \
    L(text, entrypoint)
/* gpus: the uuids of the devices that it holds. */
#define FIELDS_instance_report(F, L, M)                                                            \
    F(ID, instance)                                                                                \
    F(DIGEST, revision)                                                                            \
    F(STR, function)                                                                               \
    F(U32, state)                                                                                  \
    F(U32, concurrency)                                                                            \
    F(U32, inflight)                                                                               \
    F(U32, cpu_millis)                                                                             \
    F(U64, memory_bytes)                                                                           \
    F(U64, startup_us)                                                                             \
    F(STR, message)                                                                                \
    L(text, gpus)
#define FIELDS_attempt_report(F, L, M)                                                             \
    F(ID, invocation)                                                                              \
    F(U32, attempt)                                                                                \
    F(ID, instance)                                                                                \
    F(U64, attempt_term)                                                                           \
    F(BOOL, durable)
#define FIELDS_instance_usage(F, L, M)                                                             \
    F(ID, instance) F(U64, memory_bytes) F(U64, memory_peak_bytes) F(U64, cpu_us) F(U32, processes)

/* One GPU, or one MIG instance of a GPU: parent is then the GPU's uuid, profile like "1g.10gb", and
 * index the GPU's. known: which of the numbers the driver has told, of enum gpu_known. health and
 * xid: message.h. dirty: why no instance may have it although none holds it, empty: one may. */
#define FIELDS_gpu_report(F, L, M)                                                                 \
    F(U32, index)                                                                                  \
    F(U32, mig_index)                                                                              \
    F(STR, uuid)                                                                                   \
    F(STR, model)                                                                                  \
    F(STR, pci)                                                                                    \
    F(STR, parent)                                                                                 \
    F(STR, profile)                                                                                \
    F(BOOL, simulated)                                                                             \
    F(U32, known)                                                                                  \
    F(U64, memory_bytes)                                                                           \
    F(U64, memory_used_bytes)                                                                      \
    F(U32, busy_percent)                                                                           \
    F(U32, temperature_c)                                                                          \
    F(U32, power_mw)                                                                               \
    F(U32, processes)                                                                              \
    F(BOOL, mig)                                                                                   \
    F(U64, ecc_uncorrected)                                                                        \
    F(U32, rows_remapped)                                                                          \
    F(U32, pages_retired)                                                                          \
    F(U32, xid)                                                                                    \
    F(U64, xid_count)                                                                              \
    F(U64, xid_time_ms)                                                                            \
    F(U32, health)                                                                                 \
    F(STR, why)                                                                                    \
    F(STR, dirty)
/* All that is known of a node's GPUs. state: enum gpu_state; why says more about it. */
#define FIELDS_gpu_inventory(F, L, M)                                                              \
    F(U32, state) F(STR, why) F(STR, driver) F(STR, cuda) L(gpu_report, gpus)

/* What one check of a canary found (docs/isolation.md). verdict: enum isolation_verdict. */
#define FIELDS_isolation_result(F, L, M) F(STR, check) F(U32, verdict) F(STR, detail)

/* One line of a function's schedules: cron (five fields, UTC) or @every; catch_up: how many missed
 * times are made up for after an outage, 0: none. */
#define FIELDS_schedule_spec(F, L, M) F(STR, name) F(STR, cron) F(BYTES, payload) F(U32, catch_up)

/* ---- Any peer ---- */
#define FIELDS_hello(F, L, M) F(U32, version_min) F(U32, version_max) F(STR, build) F(STR, address)
/* The answer to whatever has no answer of its own. leader: where to ask instead, when code is
 * NOT_LEADER. */
#define FIELDS_reply(F, L, M)                                                                      \
    F(U32, code)                                                                                   \
    F(STR, message) F(STR, leader) F(U64, index) F(BYTES, detail) F(U32, retry_after_ms)

/* ---- Users ---- */
#define FIELDS_call(F, L, M) F(STR, function) F(BYTES, payload) F(U32, timeout_ms)
#define FIELDS_call_reply(F, L, M)                                                                 \
    F(U32, code)                                                                                   \
    F(STR, message)                                                                                \
    F(STR, leader)                                                                                 \
    F(BYTES, output)                                                                               \
    F(ID, invocation)                                                                              \
    F(ID, instance)                                                                                \
    F(STR, node)                                                                                   \
    F(BOOL, cold)                                                                                  \
    F(U64, queue_us)                                                                               \
    F(U64, run_us)                                                                                 \
    F(U32, retry_after_ms)
#define FIELDS_chunk_query(F, L, M) F(BYTES, digests)
#define FIELDS_chunk_missing(F, L, M) F(BYTES, digests)
#define FIELDS_chunk_put(F, L, M) F(DIGEST, digest) F(BYTES, data)
#define FIELDS_chunk_get(F, L, M) F(DIGEST, digest)
#define FIELDS_chunk_data(F, L, M) F(U32, code) F(DIGEST, digest) F(BYTES, data)
/* check_index 0: deploy whatever is there; else only when the function was last changed by that
 * index. */
#define FIELDS_deploy(F, L, M) M(function_spec, spec) F(U64, check_index)
/* All its chunks have been uploaded. */
#define FIELDS_image_put(F, L, M) M(image_spec, spec)
#define FIELDS_query(F, L, M) F(STR, what) F(STR, name)
#define FIELDS_records(F, L, M) F(U32, code) F(STR, message) F(STR, leader) L(record, rows)
#define FIELDS_admin(F, L, M) F(STR, action) F(STR, name) L(pair, args)
/* From a user: selector is a function's name or an instance's id. From a leader to an agent:
 * instance. */
#define FIELDS_logs(F, L, M)                                                                       \
    F(STR, selector) F(ID, instance) F(BOOL, follow) F(U64, tail_bytes) F(BOOL, stop)
#define FIELDS_log_data(F, L, M)                                                                   \
    F(U32, code)                                                                                   \
    F(STR, message)                                                                                \
    F(STR, leader)                                                                                 \
    F(ID, instance)                                                                                \
    F(STR, node)                                                                                   \
    F(U64, offset)                                                                                 \
    F(U64, missed)                                                                                 \
    F(BYTES, data)                                                                                 \
    F(BOOL, end)
#define FIELDS_metrics_query(F, L, M) F(STR, target)
#define FIELDS_metrics_text(F, L, M) F(U32, code) F(STR, message) F(STR, leader) F(BYTES, text)

/* ---- Joining and renewal ---- */
#define FIELDS_join(F, L, M) F(STR, role) F(STR, name) F(STR, csr) F(STR, address)
/* keys: of a scheduler: the wrapped data keys of a sealed cluster, as DATA/keys has them. */
#define FIELDS_join_reply(F, L, M)                                                                 \
    F(U32, code)                                                                                   \
    F(STR, message)                                                                                \
    F(STR, leader)                                                                                 \
    F(STR, cert)                                                                                   \
    F(STR, ca)                                                                                     \
    F(STR, ca_key)                                                                                 \
    L(pair, schedulers)                                                                            \
    F(BYTES, keys)
#define FIELDS_renew(F, L, M) F(STR, csr)

/* ---- Leader to agent; the envelope's term fences them ---- */
#define FIELDS_lead(F, L, M) F(STR, leader) F(U32, lease_ms) L(pair, schedulers) L(text, revoked)
/* image_lists, image_bytes: of the image that spec names; empty without. gpus: the uuids of the
 * devices that the instance gets, spec's gpu_count of them. */
#define FIELDS_start(F, L, M)                                                                      \
    F(ID, instance)                                                                                \
    F(DIGEST, revision)                                                                            \
    M(function_spec, spec) F(BYTES, image_lists) F(U64, image_bytes) L(text, gpus)
#define FIELDS_stop(F, L, M) F(ID, instance) F(BOOL, kill) F(STR, reason)
#define FIELDS_invoke(F, L, M)                                                                     \
    F(ID, invocation)                                                                              \
    F(U32, attempt)                                                                                \
    F(ID, instance)                                                                                \
    F(U32, timeout_ms)                                                                             \
    F(BYTES, payload)                                                                              \
    F(BOOL, durable)                                                                               \
    F(DIGEST, payload_ref)                                                                         \
    F(U64, payload_bytes)
#define FIELDS_cancel(F, L, M) F(ID, invocation) F(U32, attempt) F(ID, instance) F(STR, reason)

/* A round of isolation checks. isolation: what kind of sandbox is to be tested, cell (or empty).
 * addresses: HOST:PORT that no sandbox may reach, those of the schedulers. */
#define FIELDS_isolation_check(F, L, M) F(U64, round) F(STR, isolation) L(text, addresses)

/* ---- Agent to schedulers ---- */
/* What came of it. code: OK when the canary answered, else why it did not, with message; results
 * are empty then. */
#define FIELDS_isolation_report(F, L, M)                                                           \
    F(U64, round)                                                                                  \
    F(STR, isolation) F(U32, code) F(STR, message) L(isolation_result, results)

/* gpu, in both: none when nothing is new, else one. walls_not_needed: names of common/wall.h, all
 * others stand; walls_said: false of agents of before, who do not say.
 * egress: can give instances a network. gvisor, in both: the platform that runsc works on, or
 * empty, and then gvisor_why; both empty: an agent of before gVisor. canary: the agent takes
 * isolation_check. */
#define FIELDS_node_register(F, L, M)                                                              \
    F(U64, boot)                                                                                   \
    F(U32, cpu_millis)                                                                             \
    F(U64, memory_bytes)                                                                           \
    L(pair, labels)                                                                                \
    L(instance_report, instances)                                                                  \
    L(attempt_report, attempts)                                                                    \
    L(gpu_inventory, gpu)                                                                          \
    F(BOOL, walls_said)                                                                            \
    L(text, walls_not_needed)                                                                      \
    F(BOOL, egress)                                                                                \
    F(STR, gvisor)                                                                                 \
    F(STR, gvisor_why)                                                                             \
    F(BOOL, canary)
#define FIELDS_heartbeat(F, L, M)                                                                  \
    F(U64, sequence)                                                                               \
    F(U32, cpu_used_millis)                                                                        \
    F(U64, memory_used_bytes)                                                                      \
    F(U64, memory_total_bytes)                                                                     \
    F(U32, load1_milli)                                                                            \
    F(U32, psi_cpu_milli)                                                                          \
    F(U32, psi_memory_milli)                                                                       \
    F(U32, psi_io_milli)                                                                           \
    F(U64, disk_free_bytes)                                                                        \
    L(instance_usage, instances)                                                                   \
    L(gpu_inventory, gpu)                                                                          \
    F(STR, gvisor)                                                                                 \
    F(STR, gvisor_why)
#define FIELDS_instance_event(F, L, M) M(instance_report, report) F(U32, code)
#define FIELDS_result(F, L, M)                                                                     \
    F(ID, invocation)                                                                              \
    F(U32, attempt)                                                                                \
    F(ID, instance)                                                                                \
    F(U32, code)                                                                                   \
    F(STR, message)                                                                                \
    F(BYTES, output)                                                                               \
    F(U64, run_us)                                                                                 \
    F(U64, attempt_term)                                                                           \
    F(BOOL, durable)                                                                               \
    F(DIGEST, output_ref)                                                                          \
    F(U64, output_bytes)

/* Durable work. payload_ref is set by the scheduler that took a payload over
 * SPAWN_INLINE_BYTES_MAX, never by a user. priority 0 means 5; deadline_ms: from now to the end of
 * all attempts; at_ms: not before this Unix time; ttl_ms: how long the outcome is kept. */
#define FIELDS_spawn(F, L, M)                                                                      \
    F(STR, function)                                                                               \
    F(BYTES, payload)                                                                              \
    F(DIGEST, payload_ref)                                                                         \
    F(U64, payload_bytes)                                                                          \
    F(STR, key)                                                                                    \
    F(U32, priority)                                                                               \
    F(U64, delay_ms)                                                                               \
    F(U64, at_ms)                                                                                  \
    F(U64, deadline_ms)                                                                            \
    F(U64, ttl_ms)                                                                                 \
    F(U32, timeout_ms)

#define FIELDS_spawn_reply(F, L, M)                                                                \
    F(U32, code)                                                                                   \
    F(STR, message)                                                                                \
    F(STR, leader)                                                                                 \
    F(ID, invocation)                                                                              \
    F(BOOL, existing)                                                                              \
    F(U32, retry_after_ms)

#define FIELDS_outcome_query(F, L, M) F(ID, invocation) F(U32, wait_ms)

/* What is known of a durable invocation; code is of the question, result_code of the work. */
#define FIELDS_outcome(F, L, M)                                                                    \
    F(U32, code)                                                                                   \
    F(STR, message)                                                                                \
    F(STR, leader)                                                                                 \
    F(ID, invocation)                                                                              \
    F(STR, function)                                                                               \
    F(STR, tenant)                                                                                 \
    F(U32, state)                                                                                  \
    F(U32, result_code)                                                                            \
    F(STR, result_message)                                                                         \
    F(BYTES, output)                                                                               \
    F(DIGEST, output_ref)                                                                          \
    F(U64, output_bytes)                                                                           \
    F(U32, attempts)                                                                               \
    F(U32, crashes)                                                                                \
    F(U32, priority)                                                                               \
    F(STR, key)                                                                                    \
    F(U64, created_ms)                                                                             \
    F(U64, not_before_ms)                                                                          \
    F(U64, deadline_at_ms)                                                                         \
    F(U64, ended_ms)                                                                               \
    F(U64, expires_ms)                                                                             \
    F(U64, run_us)                                                                                 \
    F(STR, node)

/* To an agent: the result of a durable attempt is committed (or was late) and need not be kept. */
#define FIELDS_result_ack(F, L, M) F(ID, invocation) F(U32, attempt) F(U64, attempt_term)

/* Payloads outside the log, between schedulers. code of payload_have: OK, or why it is not held. */
#define FIELDS_payload_put(F, L, M) F(DIGEST, digest) F(BYTES, data)

#define FIELDS_payload_have(F, L, M) F(DIGEST, digest) F(U32, code)

#define FIELDS_payload_get(F, L, M) F(DIGEST, digest)

#define FIELDS_payload_data(F, L, M) F(U32, code) F(DIGEST, digest) F(BYTES, data)

/* A user reads a backup piece by piece; the first question (offset 0) makes it. */
#define FIELDS_backup_get(F, L, M) F(BOOL, stale) F(U64, offset)

#define FIELDS_backup_data(F, L, M)                                                                \
    F(U32, code)                                                                                   \
    F(STR, message)                                                                                \
    F(STR, leader)                                                                                 \
    F(U64, offset)                                                                                 \
    F(U64, total)                                                                                  \
    F(BYTES, data)                                                                                 \
    F(BOOL, end)

/* ---- Scheduler to scheduler ---- */
#define FIELDS_raft(F, L, M) F(BYTES, data)

/* ---- Replicated commands ---- */
#define FIELDS_command_deploy(F, L, M)                                                             \
    M(function_spec, spec) F(DIGEST, revision) F(U64, check_index)
#define FIELDS_command_function_delete(F, L, M) F(STR, name)
#define FIELDS_command_function_rollback(F, L, M) F(STR, name) F(DIGEST, revision)
#define FIELDS_command_node_admit(F, L, M) F(STR, name)
#define FIELDS_command_node_set(F, L, M) F(STR, name) F(U32, mode) F(STR, reason)
#define FIELDS_command_node_remove(F, L, M) F(STR, name)
#define FIELDS_command_token_create(F, L, M) F(STR, id) F(STR, role) F(STR, name) F(U64, expires_ms)
#define FIELDS_command_token_use(F, L, M) F(STR, id) F(STR, role) F(STR, name)
#define FIELDS_command_revoke(F, L, M) F(STR, what) F(STR, reason)
#define FIELDS_command_setting(F, L, M) F(STR, key) F(STR, value)
#define FIELDS_command_scheduler_put(F, L, M) F(STR, name) F(STR, address)
#define FIELDS_command_scheduler_remove(F, L, M) F(STR, name)

/* schedule: the name of the function's schedule whose time schedule_at_ms this is; empty
 * otherwise. */
#define FIELDS_command_spawn(F, L, M)                                                              \
    F(ID, invocation)                                                                              \
    F(STR, function)                                                                               \
    F(STR, tenant)                                                                                 \
    F(STR, key)                                                                                    \
    F(BYTES, payload)                                                                              \
    F(DIGEST, payload_ref)                                                                         \
    F(U64, payload_bytes)                                                                          \
    F(U32, priority)                                                                               \
    F(U64, not_before_ms)                                                                          \
    F(U64, deadline_at_ms)                                                                         \
    F(U64, ttl_ms)                                                                                 \
    F(U32, timeout_ms)                                                                             \
    F(STR, schedule)                                                                               \
    F(U64, schedule_at_ms)

/* The end of an attempt; the state machine decides whether it is the end of the invocation. */
#define FIELDS_command_finish(F, L, M)                                                             \
    F(ID, invocation)                                                                              \
    F(U32, attempt)                                                                                \
    F(U64, attempt_term)                                                                           \
    F(U32, code)                                                                                   \
    F(STR, message)                                                                                \
    F(BYTES, output)                                                                               \
    F(DIGEST, output_ref)                                                                          \
    F(U64, output_bytes)                                                                           \
    F(U64, run_us)                                                                                 \
    F(STR, node)                                                                                   \
    F(BOOL, crashed)

#define FIELDS_command_invocation_cancel(F, L, M) F(ID, invocation) F(STR, reason)

#define FIELDS_command_redrive(F, L, M) F(ID, invocation)

#define FIELDS_command_purge(F, L, M) F(ID, invocation)

/* Ends what is due at the command's time, at most `max` invocations. */
#define FIELDS_command_expire(F, L, M) F(U32, max)

/* A data key, wrapped by the cluster key; it seals from here on. rewrap: it is a known key, wrapped
 * by another cluster key. */
#define FIELDS_command_key_put(F, L, M)                                                            \
    F(U32, key) F(BYTES, wrapped) F(STR, wrapped_by) F(BOOL, rewrap)

/* A piece of a backup's state; the last one replaces the empty state. */
#define FIELDS_command_restore(F, L, M) F(ID, restore) F(U64, offset) F(U64, total) F(BYTES, data)

#define FIELDS_command_image_put(F, L, M) M(image_spec, spec)
/* name: NAME, all versions of it, or NAME@sha256:DIGEST. */
#define FIELDS_command_image_delete(F, L, M) F(STR, name)
/* Forgets versions that no revision uses and that are not their name's newest; chunks that nothing
 * names then go when they have not been asked for during grace_ms. */
#define FIELDS_command_image_gc(F, L, M) F(U64, grace_ms)

/* ---- The state machine's snapshot ---- */
#define FIELDS_state_image(F, L, M) M(image_spec, spec) F(U64, index) F(U64, time_ms)
#define FIELDS_state_revision(F, L, M)                                                             \
    F(DIGEST, revision) M(function_spec, spec) F(U64, index) F(U64, time_ms)
#define FIELDS_state_function(F, L, M)                                                             \
    F(STR, name) F(DIGEST, current) F(U64, index) L(state_revision, revisions)
#define FIELDS_state_node(F, L, M) F(STR, name) F(U32, mode) F(U64, index) F(STR, reason)
#define FIELDS_state_token(F, L, M)                                                                \
    F(STR, id) F(STR, role) F(STR, name) F(U64, expires_ms) F(STR, used_by)
#define FIELDS_state_revoked(F, L, M) F(STR, what) F(STR, reason) F(U64, time_ms)
/* A durable invocation. In a snapshot these follow the state, one frame each. */
#define FIELDS_state_job(F, L, M)                                                                  \
    F(ID, invocation)                                                                              \
    F(STR, function)                                                                               \
    F(STR, tenant)                                                                                 \
    F(STR, key)                                                                                    \
    F(BYTES, payload)                                                                              \
    F(DIGEST, payload_ref)                                                                         \
    F(U64, payload_bytes)                                                                          \
    F(U32, priority)                                                                               \
    F(U64, not_before_ms)                                                                          \
    F(U64, deadline_at_ms)                                                                         \
    F(U64, ttl_ms)                                                                                 \
    F(U32, timeout_ms)                                                                             \
    F(U64, index)                                                                                  \
    F(U64, created_ms)                                                                             \
    F(U32, state)                                                                                  \
    F(U32, attempts)                                                                               \
    F(U32, crashes)                                                                                \
    F(U64, ended_ms)                                                                               \
    F(U64, expires_ms)                                                                             \
    F(U32, code)                                                                                   \
    F(STR, message)                                                                                \
    F(BYTES, output)                                                                               \
    F(DIGEST, output_ref)                                                                          \
    F(U64, output_bytes)                                                                           \
    F(U64, run_us)                                                                                 \
    F(STR, node)                                                                                   \
    F(U64, key_check)                                                                              \
    F(U32, failures)                                                                               \
    F(U64, patience_ms)
#define FIELDS_state_schedule(F, L, M) F(STR, function) F(STR, name) F(U64, fired_ms)
#define FIELDS_state_key(F, L, M)                                                                  \
    F(U32, key) F(BYTES, wrapped) F(STR, wrapped_by) F(U64, time_ms) F(U64, index)
#define FIELDS_state(F, L, M)                                                                      \
    F(U64, index)                                                                                  \
    F(U64, time_ms)                                                                                \
    L(state_function, functions)                                                                   \
    L(state_node, nodes)                                                                           \
    L(state_token, tokens)                                                                         \
    L(state_revoked, revoked)                                                                      \
    L(pair, settings)                                                                              \
    L(pair, schedulers)                                                                            \
    L(state_schedule, schedules)                                                                   \
    L(state_key, keys)                                                                             \
    F(U64, jobs_count)                                                                             \
    F(U64, jobs_late)                                                                              \
    L(state_image, images)                                                                         \
    F(U64, collect_index)                                                                          \
    F(U64, collect_before_ms)

/* Nested types first, in an order in which each is complete before it is used. Names in snake and
 * camel case. */
#define PARTS(P)                                                                                   \
    P(pair, Pair)                                                                                  \
    P(record, Record)                                                                              \
    P(text, Text)                                                                                  \
    P(schedule_spec, ScheduleSpec)                                                                 \
    P(function_spec, FunctionSpec)                                                                 \
    P(image_spec, ImageSpec)                                                                       \
    P(instance_report, InstanceReport)                                                             \
    P(attempt_report, AttemptReport)                                                               \
    P(instance_usage, InstanceUsage)                                                               \
    P(gpu_report, GpuReport)                                                                       \
    P(gpu_inventory, GpuInventory)                                                                 \
    P(isolation_result, IsolationResult)                                                           \
    P(state_revision, StateRevision)                                                               \
    P(state_job, StateJob)                                                                         \
    P(state_schedule, StateSchedule)                                                               \
    P(state_key, StateKey)                                                                         \
    P(state_function, StateFunction)                                                               \
    P(state_node, StateNode)                                                                       \
    P(state_token, StateToken)                                                                     \
    P(state_revoked, StateRevoked)                                                                 \
    P(state_image, StateImage)                                                                     \
    P(state, State)

/* Messages: names in snake, camel and upper case. */
#define MESSAGES(X)                                                                                \
    X(hello, Hello, HELLO)                                                                         \
    X(reply, Reply, REPLY)                                                                         \
    X(call, Call, CALL)                                                                            \
    X(call_reply, CallReply, CALL_REPLY)                                                           \
    X(chunk_query, ChunkQuery, CHUNK_QUERY)                                                        \
    X(chunk_missing, ChunkMissing, CHUNK_MISSING)                                                  \
    X(chunk_put, ChunkPut, CHUNK_PUT)                                                              \
    X(chunk_get, ChunkGet, CHUNK_GET)                                                              \
    X(chunk_data, ChunkData, CHUNK_DATA)                                                           \
    X(deploy, Deploy, DEPLOY)                                                                      \
    X(query, Query, QUERY)                                                                         \
    X(records, Records, RECORDS)                                                                   \
    X(admin, Admin, ADMIN)                                                                         \
    X(logs, Logs, LOGS)                                                                            \
    X(log_data, LogData, LOG_DATA)                                                                 \
    X(metrics_query, MetricsQuery, METRICS_QUERY)                                                  \
    X(metrics_text, MetricsText, METRICS_TEXT)                                                     \
    X(join, Join, JOIN)                                                                            \
    X(join_reply, JoinReply, JOIN_REPLY)                                                           \
    X(renew, Renew, RENEW)                                                                         \
    X(lead, Lead, LEAD)                                                                            \
    X(start, Start, START)                                                                         \
    X(stop, Stop, STOP)                                                                            \
    X(invoke, Invoke, INVOKE)                                                                      \
    X(cancel, Cancel, CANCEL)                                                                      \
    X(node_register, NodeRegister, NODE_REGISTER)                                                  \
    X(heartbeat, Heartbeat, HEARTBEAT)                                                             \
    X(instance_event, InstanceEvent, INSTANCE_EVENT)                                               \
    X(result, Result, RESULT)                                                                      \
    X(raft, Raft, RAFT)                                                                            \
    X(spawn, Spawn, SPAWN)                                                                         \
    X(spawn_reply, SpawnReply, SPAWN_REPLY)                                                        \
    X(outcome_query, OutcomeQuery, OUTCOME_QUERY)                                                  \
    X(outcome, Outcome, OUTCOME)                                                                   \
    X(result_ack, ResultAck, RESULT_ACK)                                                           \
    X(payload_put, PayloadPut, PAYLOAD_PUT)                                                        \
    X(payload_have, PayloadHave, PAYLOAD_HAVE)                                                     \
    X(payload_get, PayloadGet, PAYLOAD_GET)                                                        \
    X(payload_data, PayloadData, PAYLOAD_DATA)                                                     \
    X(backup_get, BackupGet, BACKUP_GET)                                                           \
    X(backup_data, BackupData, BACKUP_DATA)                                                        \
    X(image_put, ImagePut, IMAGE_PUT)                                                              \
    X(isolation_check, IsolationCheck, ISOLATION_CHECK)                                            \
    X(isolation_report, IsolationReport, ISOLATION_REPORT)

/* Replicated commands: names in snake, camel and upper case. */
#define COMMANDS(X)                                                                                \
    X(command_deploy, CommandDeploy, COMMAND_DEPLOY)                                               \
    X(command_function_delete, CommandFunctionDelete, COMMAND_FUNCTION_DELETE)                     \
    X(command_function_rollback, CommandFunctionRollback, COMMAND_FUNCTION_ROLLBACK)               \
    X(command_node_admit, CommandNodeAdmit, COMMAND_NODE_ADMIT)                                    \
    X(command_node_set, CommandNodeSet, COMMAND_NODE_SET)                                          \
    X(command_node_remove, CommandNodeRemove, COMMAND_NODE_REMOVE)                                 \
    X(command_token_create, CommandTokenCreate, COMMAND_TOKEN_CREATE)                              \
    X(command_token_use, CommandTokenUse, COMMAND_TOKEN_USE)                                       \
    X(command_revoke, CommandRevoke, COMMAND_REVOKE)                                               \
    X(command_setting, CommandSetting, COMMAND_SETTING)                                            \
    X(command_scheduler_put, CommandSchedulerPut, COMMAND_SCHEDULER_PUT)                           \
    X(command_scheduler_remove, CommandSchedulerRemove, COMMAND_SCHEDULER_REMOVE)                  \
    X(command_spawn, CommandSpawn, COMMAND_SPAWN)                                                  \
    X(command_finish, CommandFinish, COMMAND_FINISH)                                               \
    X(command_invocation_cancel, CommandInvocationCancel, COMMAND_INVOCATION_CANCEL)               \
    X(command_redrive, CommandRedrive, COMMAND_REDRIVE)                                            \
    X(command_purge, CommandPurge, COMMAND_PURGE)                                                  \
    X(command_expire, CommandExpire, COMMAND_EXPIRE)                                               \
    X(command_key_put, CommandKeyPut, COMMAND_KEY_PUT)                                             \
    X(command_restore, CommandRestore, COMMAND_RESTORE)                                            \
    X(command_image_put, CommandImagePut, COMMAND_IMAGE_PUT)                                       \
    X(command_image_delete, CommandImageDelete, COMMAND_IMAGE_DELETE)                              \
    X(command_image_gc, CommandImageGc, COMMAND_IMAGE_GC)

#endif
