/* What a scheduler counts, for Prometheus: callbacks that read the counters where they are kept. */
#include "common/log.h"
#include "scheduler/api/backups_internal.h"
#include "scheduler/api/payloads.h"
#include "scheduler/api/server_internal.h"

enum { SOURCE_CORE, SOURCE_LINK, SOURCE_REPLICA, SOURCE_SERVER, SOURCE_BACKUPS, SOURCE_PAYLOADS };

/* One number and where it lives. */
struct stat_row {
    struct metric_def def;
    const char *label, *value; /* NULL: no label */
    int source;
    size_t offset;
    bool gauge;
};

#define CORE(field) SOURCE_CORE, offsetof(struct core_stats, field)
#define LINK(field) SOURCE_LINK, offsetof(struct link_stats, field)
#define REPLICA(field) SOURCE_REPLICA, offsetof(struct replica_status, field)
#define BACKUPS(field) SOURCE_BACKUPS, offsetof(struct backups, field)
#define SERVER(field) SOURCE_SERVER, offsetof(struct server, field)
#define PAYLOADS(field) SOURCE_PAYLOADS, offsetof(struct payloads_stats, field)
#define CALLS {"skep_calls_total", "Calls by how they ended.", 1, NULL, 0}, "outcome"
#define LINKS_REFUSED                                                                              \
    {"skep_link_refused_total", "Connections refused, by reason.", 1, NULL, 0}, "reason"
#define INVOCATIONS                                                                                \
    {"skep_durable_ended_total", "Durable invocations by how they ended.", 1, NULL, 0}, "outcome"
#define COUNTER(name, help) {name, help, 1, NULL, 0}, NULL, NULL

static const struct stat_row rows[] = {
    {COUNTER("skep_calls_received_total", "Calls taken."), CORE(calls), false},
    {CALLS, "ok", CORE(calls_ok), false},
    {CALLS, "failed", CORE(calls_failed), false},
    {CALLS, "timeout", CORE(calls_timeout), false},
    {CALLS, "limit", CORE(calls_limit), false},
    {CALLS, "crashed", CORE(calls_crashed), false},
    {CALLS, "unknown", CORE(calls_unknown), false},
    {COUNTER("skep_calls_requeued_total", "Calls that an agent refused before running."),
     CORE(calls_requeued), false},
    {COUNTER("skep_instance_starts_total", "Instances asked for."), CORE(cold_starts), false},
    {COUNTER("skep_instance_start_failures_total", "Instances that did not become ready."),
     CORE(starts_failed), false},
    {COUNTER("skep_instance_stops_total", "Instances stopped by scaling."), CORE(instances_stopped),
     false},
    {COUNTER("skep_results_late_total", "Results that nobody waited for."), CORE(results_late),
     false},
    {COUNTER("skep_reports_stale_total", "Reports about instances that are not known."),
     CORE(reports_stale), false},
    {COUNTER("skep_calls_queued", "Calls that wait for an instance."), CORE(queued), true},
    {COUNTER("skep_calls_running", "Calls on instances."), CORE(running), true},
    {COUNTER("skep_instances", "Instances."), CORE(instances), true},
    {COUNTER("skep_instances_ready", "Instances that serve."), CORE(instances_ready), true},
    {COUNTER("skep_nodes_ready", "Nodes that take work."), CORE(nodes_ready), true},
    {LINKS_REFUSED, "no_certificate", LINK(refused_no_certificate), false},
    {LINKS_REFUSED, "untrusted", LINK(refused_untrusted), false},
    {LINKS_REFUSED, "expired", LINK(refused_expired), false},
    {LINKS_REFUSED, "revoked", LINK(refused_revoked), false},
    {LINKS_REFUSED, "protocol", LINK(refused_protocol), false},
    {LINKS_REFUSED, "identity", LINK(refused_identity), false},
    {LINKS_REFUSED, "timeout", LINK(refused_timeout), false},
    {LINKS_REFUSED, "limit", LINK(refused_limit), false},
    {LINKS_REFUSED, "frame", LINK(refused_frame), false},
    {COUNTER("skep_link_accepted_total", "Connections accepted."), LINK(accepted), false},
    {COUNTER("skep_link_closed_total", "Connections closed."), LINK(closed), false},
    {COUNTER("skep_link_sent_bytes_total", "Bytes sent over links."), LINK(bytes_sent), false},
    {COUNTER("skep_link_received_bytes_total", "Bytes received over links."), LINK(bytes_received),
     false},
    {COUNTER("skep_link_connections", "Open connections."), LINK(connections), true},
    {COUNTER("skep_link_send_queue_bytes", "Bytes that wait to be sent."), LINK(send_queue_bytes),
     true},
    {{"skep_messages_refused_total", "Messages refused, by reason.", 1, NULL, 0},
     "reason",
     "role",
     SERVER(refused_role),
     false},
    {{"skep_messages_refused_total", "Messages refused, by reason.", 1, NULL, 0},
     "reason",
     "hello",
     SERVER(refused_hello),
     false},
    {{"skep_messages_refused_total", "Messages refused, by reason.", 1, NULL, 0},
     "reason",
     "malformed",
     SERVER(refused_malformed),
     false},
    {COUNTER("skep_spawns_received_total", "Durable spawns taken."), CORE(spawns), false},
    {COUNTER("skep_spawns_limited_total", "Durable spawns refused for a limit."),
     CORE(spawns_limit), false},
    {INVOCATIONS, "done", CORE(jobs_done), false},
    {INVOCATIONS, "dead", CORE(jobs_dead), false},
    {INVOCATIONS, "canceled", CORE(jobs_canceled), false},
    {COUNTER("skep_durable_attempts_total", "Attempts of durable invocations started."),
     CORE(attempts_durable), false},
    {COUNTER("skep_durable_attempts_lost_total", "Attempts lost with their node."),
     CORE(attempts_lost), false},
    {COUNTER("skep_durable_results_late_total", "Ends of attempts that came after the first."),
     CORE(jobs_late), false},
    {COUNTER("skep_schedules_fired_total", "Invocations made by schedules."), CORE(schedules_fired),
     false},
    {COUNTER("skep_durable_held", "Durable invocations held, ended ones too."), CORE(jobs), true},
    {COUNTER("skep_durable_queued", "Durable invocations that have not ended."), CORE(jobs_queued),
     true},
    {COUNTER("skep_durable_bytes", "Bytes of durable invocations held."), CORE(jobs_bytes), true},
    {COUNTER("skep_payloads", "Payloads outside the log, on this disk."), PAYLOADS(count), true},
    {COUNTER("skep_payloads_bytes", "Bytes of their files."), PAYLOADS(bytes), true},
    {COUNTER("skep_payloads_missing", "Payloads that the state names and this disk lacks."),
     PAYLOADS(missing), true},
    {COUNTER("skep_payloads_storing", "Payloads that wait for a majority."), PAYLOADS(storing),
     true},
    {COUNTER("skep_payloads_storing_bytes", "Bytes of them."), PAYLOADS(storing_bytes), true},
    {COUNTER("skep_payloads_loading", "Messages that wait for their payload."), PAYLOADS(loading),
     true},
    {COUNTER("skep_payloads_stored_total", "Payloads that a majority got."), PAYLOADS(stored),
     false},
    {COUNTER("skep_payloads_refused_total", "Payloads that could not be stored."),
     PAYLOADS(refused), false},
    {COUNTER("skep_payloads_fetched_total", "Payloads fetched from other schedulers."),
     PAYLOADS(fetched), false},
    {COUNTER("skep_payloads_deleted_total", "Payloads deleted."), PAYLOADS(deleted), false},
    {COUNTER("skep_payloads_corrupt_total", "Payloads found damaged on this disk."),
     PAYLOADS(corrupt), false},
    {COUNTER("skep_payloads_load_failures_total", "Messages whose payload nobody had."),
     PAYLOADS(load_failures), false},
    {COUNTER("skep_backups_made_total", "Backups made, for users and by the schedule."),
     BACKUPS(made), false},
    {COUNTER("skep_backup_failures_total", "Backups that could not be made."), BACKUPS(failed),
     false},
    {COUNTER("skep_backups_stored_total", "Scheduled backups stored."), BACKUPS(stored), false},
    {COUNTER("skep_backup_store_failures_total", "Steps of scheduled backups that failed."),
     BACKUPS(store_failures), false},
    {COUNTER("skep_backups_removed_total", "Scheduled backups removed as too old."),
     BACKUPS(removed), false},
    {COUNTER("skep_backup_stored_time_seconds", "When this scheduler last stored one (Unix)."),
     BACKUPS(stored_at_s), true},
    {COUNTER("skep_backup_stored_bytes", "The size of the last one stored."), BACKUPS(stored_bytes),
     true},
    {COUNTER("skep_backup_stored_microseconds", "How long the last one stored took."),
     BACKUPS(stored_us), true},
    {COUNTER("skep_isolation_rounds_total", "Rounds of isolation checks that were answered."),
     CORE(isolation_rounds), false},
    {COUNTER("skep_isolation_not_run_total", "Rounds of isolation checks that could not run."),
     CORE(isolation_not_run), false},
    {COUNTER("skep_isolation_nodes_breached", "Nodes whose last round had a failed check."),
     CORE(isolation_nodes_breached), true},
    {COUNTER("skep_raft_term", "The current term."), REPLICA(term), true},
    {COUNTER("skep_raft_commit_index", "The last committed entry."), REPLICA(commit_index), true},
    {COUNTER("skep_raft_applied_index", "The last applied entry."), REPLICA(applied_index), true},
    {COUNTER("skep_raft_last_index", "The last entry of the log."), REPLICA(last_index), true},
    {COUNTER("skep_raft_snapshot_index", "The last entry in a snapshot."), REPLICA(snapshot_index),
     true},
    {COUNTER("skep_raft_snapshot_bytes", "The size of the last snapshot that was made here."),
     REPLICA(snapshot_bytes), true},
    {COUNTER("skep_raft_snapshot_milliseconds", "How long the last one took, to the disk."),
     REPLICA(snapshot_ms), true},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

/* The families' definitions must live as long as the process; a row names its server for the
 * callback. */
struct stat_handle {
    const struct server *server;
    const struct stat_row *row;
};

struct stats {
    struct stat_handle handles[ROWS];
};

static uint64_t at(const void *base, size_t offset)
{
    return *(const uint64_t *)(const void *)((const char *)base + offset);
}

static uint64_t read_row(void *data)
{
    const struct stat_handle *h = data;
    const struct server *s = h->server;
    if (h->row->source == SOURCE_CORE) {
        struct core_stats stats = core_stats(s->core);
        return at(&stats, h->row->offset);
    }
    if (h->row->source == SOURCE_LINK) {
        struct link_stats stats = link_hub_stats(s->hub);
        return at(&stats, h->row->offset);
    }
    if (h->row->source == SOURCE_REPLICA) {
        struct replica_status stats = replica_status(s->replica);
        return at(&stats, h->row->offset);
    }
    if (h->row->source == SOURCE_PAYLOADS) {
        struct payloads_stats stats = payloads_stats(s->payloads);
        return at(&stats, h->row->offset);
    }
    if (h->row->source == SOURCE_BACKUPS) {
        return at(s->backups, h->row->offset);
    }
    return at(s, h->row->offset);
}

static double read_gauge(void *data)
{
    return (double)read_row(data);
}

static double read_leader(void *data)
{
    const struct server *s = data;
    return core_is_leader(s->core) ? 1 : 0;
}

struct status stats_open(struct server *s, struct errmsg *msg)
{
    static const struct metric_def leader = {"skep_raft_leader", "1 on the leader.", 1, NULL, 0};
    struct status status = metrics_open(&s->metrics, 0);
    s->stats = status_is_ok(status) ? mem_zalloc(1, sizeof *s->stats) : NULL;
    if (s->stats == NULL) {
        return status_fail(msg, STATUS_NOMEM, "out of memory");
    }
    for (size_t i = 0; i < ROWS; i++) {
        struct stat_handle *h = &s->stats->handles[i];
        *h = (struct stat_handle){s, &rows[i]};
        const struct metric_label label = {rows[i].label, rows[i].value};
        const struct metric_labels labels = {&label, rows[i].label == NULL ? 0 : 1};
        if (rows[i].gauge) {
            metrics_gauge_callback(s->metrics, &rows[i].def, labels, read_gauge, h);
        } else {
            metrics_counter_callback(s->metrics, &rows[i].def, labels, read_row, h);
        }
    }
    metrics_gauge_callback(s->metrics, &leader, METRIC_NO_LABELS, read_leader, s);
    return status_ok();
}

void stats_isolation_failed(void *server, const char *node, const char *check, const char *detail)
{
    static const struct metric_def failed = {"skep_isolation_failed_total",
                                             "Isolation checks that got through.", 1, NULL, 0};
    struct server *s = server;
    counter_add(
        metrics_counter(s->metrics, &failed, METRIC_LABELS({"node", node}, {"check", check})), 1);
    LOG_ERROR("isolation check failed", LOG_STR("node", node), LOG_STR("check", check),
              LOG_STR("detail", detail));
}

struct status stats_print(struct server *s, struct buffer *out)
{
    return metrics_print(s->metrics, out);
}
