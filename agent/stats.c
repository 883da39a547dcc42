#include "agent/stats.h"

#include "agent/gpu_metrics.h"
#include "common/mem.h"

struct stats {
    struct metrics *metrics;
    struct agent_counts counts; /* what the callbacks read */
    struct distribution *startups;
    struct distribution *runs;
    struct gpu_metrics *gpus;
};

/* A number of agent_counts that is a series. */
struct row {
    struct metric_def def;
    size_t offset;
    bool gauge;
    const char *label, *value; /* or NULL */
};

#define AT(member) offsetof(struct agent_counts, member)
#define STARTS_HELP "Starts of instances, by outcome."
#define REFUSED_HELP "Invocations refused, by reason."
#define INSTANCES_HELP "Live instances, by state."

static const struct row rows[] = {
    {{"skep_agent_starts_total", STARTS_HELP, 1, NULL, 0},
     AT(core.starts),
     false,
     "outcome",
     "begun"},
    {{"skep_agent_starts_total", STARTS_HELP, 1, NULL, 0},
     AT(core.starts_failed),
     false,
     "outcome",
     "failed"},
    {{"skep_agent_starts_total", STARTS_HELP, 1, NULL, 0},
     AT(core.starts_refused),
     false,
     "outcome",
     "refused"},
    {{"skep_agent_fenced_total", "Commands refused for their term or connection.", 1, NULL, 0},
     AT(core.fenced),
     false,
     NULL,
     NULL},
    {{"skep_agent_invocations_total", "Invocations handed to instances.", 1, NULL, 0},
     AT(core.invokes),
     false,
     NULL,
     NULL},
    {{"skep_agent_invocations_refused_total", REFUSED_HELP, 1, NULL, 0},
     AT(core.invokes_refused_lease),
     false,
     "reason",
     "lease"},
    {{"skep_agent_invocations_refused_total", REFUSED_HELP, 1, NULL, 0},
     AT(core.invokes_refused_busy),
     false,
     "reason",
     "busy"},
    {{"skep_agent_invocations_refused_total", REFUSED_HELP, 1, NULL, 0},
     AT(core.invokes_refused_gone),
     false,
     "reason",
     "gone"},
    {{"skep_agent_invocations_repeated_total", "Invocations sent again that run already.", 1, NULL,
      0},
     AT(core.invokes_repeated),
     false,
     NULL,
     NULL},
    {{"skep_agent_results_total", "Results of attempts.", 1, NULL, 0},
     AT(core.results),
     false,
     NULL,
     NULL},
    {{"skep_agent_results_failed_total", "Results other than OK.", 1, NULL, 0},
     AT(core.results_failed),
     false,
     NULL,
     NULL},
    {{"skep_agent_results_late_total", "Results of attempts that were over.", 1, NULL, 0},
     AT(core.results_late),
     false,
     NULL,
     NULL},
    {{"skep_agent_results_held", "Results that wait for a leader.", 1, NULL, 0},
     AT(core.results_held),
     true,
     NULL,
     NULL},
    {{"skep_agent_results_held_bytes", "Their bytes.", 1, NULL, 0},
     AT(core.results_held_bytes),
     true,
     NULL,
     NULL},
    {{"skep_agent_results_dropped_total", "Results that waited too long in too large a crowd.", 1,
      NULL, 0},
     AT(core.results_held_dropped),
     false,
     NULL,
     NULL},
    {{"skep_agent_invocations_refused_total", REFUSED_HELP, 1, NULL, 0},
     AT(core.invokes_conflict),
     false,
     "reason",
     "conflict"},
    {{"skep_agent_results_kept", "Results of durable attempts that are not acknowledged.", 1, NULL,
      0},
     AT(core.results_kept),
     true,
     NULL,
     NULL},
    {{"skep_agent_results_kept_bytes", "Their bytes.", 1, NULL, 0},
     AT(core.results_kept_bytes),
     true,
     NULL,
     NULL},
    {{"skep_agent_results_acknowledged_total", "Results of durable attempts acknowledged.", 1, NULL,
      0},
     AT(core.results_acked),
     false,
     NULL,
     NULL},
    {{"skep_agent_results_again_total", "Results sent again for want of an acknowledgement.", 1,
      NULL, 0},
     AT(core.results_again),
     false,
     NULL,
     NULL},
    {{"skep_agent_results_kept_dropped_total",
      "Results of durable attempts lost because too many were kept.", 1, NULL, 0},
     AT(core.results_kept_dropped),
     false,
     NULL,
     NULL},
    {{"skep_agent_timeouts_total", "Attempts over their timeout.", 1, NULL, 0},
     AT(core.timeouts),
     false,
     NULL,
     NULL},
    {{"skep_agent_cancels_total", "Attempts canceled.", 1, NULL, 0},
     AT(core.cancels),
     false,
     NULL,
     NULL},
    {{"skep_agent_egress_able", "1 when instances can have a network here.", 1, NULL, 0},
     AT(egress.able),
     true,
     NULL,
     NULL},
    {{"skep_agent_egress_cells", "Instances with a network.", 1, NULL, 0},
     AT(egress.cells),
     true,
     NULL,
     NULL},
    {{"skep_agent_egress_refused_packets", "Packets of cells refused since the rules were made.", 1,
      NULL, 0},
     AT(egress.refused),
     true,
     NULL,
     NULL},
    {{"skep_agent_egress_failures_total", "Networks that could not be made.", 1, NULL, 0},
     AT(egress.failed),
     false,
     NULL,
     NULL},
    {{"skep_agent_kills_total", "Instances killed for not giving up an attempt.", 1, NULL, 0},
     AT(core.kills),
     false,
     NULL,
     NULL},
    {{"skep_agent_crashes_total", "Instances that ended unasked.", 1, NULL, 0},
     AT(core.crashes),
     false,
     NULL,
     NULL},
    {{"skep_agent_messages_unexpected_total", "Messages that meant nothing here.", 1, NULL, 0},
     AT(core.messages_unexpected),
     false,
     NULL,
     NULL},
    {{"skep_agent_instances", INSTANCES_HELP, 1, NULL, 0},
     AT(core.instances_starting),
     true,
     "state",
     "starting"},
    {{"skep_agent_instances", INSTANCES_HELP, 1, NULL, 0},
     AT(core.instances_ready),
     true,
     "state",
     "ready"},
    {{"skep_agent_instances", INSTANCES_HELP, 1, NULL, 0},
     AT(core.instances_stopping),
     true,
     "state",
     "stopping"},
    {{"skep_agent_attempts", "Attempts that run.", 1, NULL, 0},
     AT(core.attempts),
     true,
     NULL,
     NULL},
    {{"skep_agent_cpu_promised_millis", "CPU promised to instances.", 1, NULL, 0},
     AT(core.cpu_millis_used),
     true,
     NULL,
     NULL},
    {{"skep_agent_memory_promised_bytes", "Memory promised to instances.", 1, NULL, 0},
     AT(core.memory_bytes_used),
     true,
     NULL,
     NULL},
    {{"skep_agent_cpu_capacity_millis", "CPU for instances.", 1, NULL, 0},
     AT(cpu_millis),
     true,
     NULL,
     NULL},
    {{"skep_agent_memory_capacity_bytes", "Memory for instances.", 1, NULL, 0},
     AT(memory_bytes),
     true,
     NULL,
     NULL},
    {{"skep_agent_term", "Highest term of a leader seen.", 1, NULL, 0},
     AT(core.term),
     true,
     NULL,
     NULL},
    {{"skep_agent_lease", "1 while the leader's lease is held.", 1, NULL, 0},
     AT(lease),
     true,
     NULL,
     NULL},
    {{"skep_agent_schedulers", "Schedulers connected.", 1, NULL, 0},
     AT(schedulers),
     true,
     NULL,
     NULL},
    {{"skep_node_memory_used_bytes", "Memory in use on the machine.", 1, NULL, 0},
     AT(machine.memory_used_bytes),
     true,
     NULL,
     NULL},
    {{"skep_node_memory_bytes", "Memory of the machine.", 1, NULL, 0},
     AT(machine.memory_total_bytes),
     true,
     NULL,
     NULL},
    {{"skep_node_disk_free_bytes", "Free bytes on the data folder's disk.", 1, NULL, 0},
     AT(machine.disk_free_bytes),
     true,
     NULL,
     NULL},
    {{"skep_link_dialled_total", "Connections made.", 1, NULL, 0},
     AT(link.dialled),
     false,
     NULL,
     NULL},
    {{"skep_link_closed_total", "Connections closed.", 1, NULL, 0},
     AT(link.closed),
     false,
     NULL,
     NULL},
    {{"skep_link_connections", "Connections open.", 1, NULL, 0},
     AT(link.connections),
     true,
     NULL,
     NULL},
    {{"skep_link_frames_sent_total", "Frames sent.", 1, NULL, 0},
     AT(link.frames_sent),
     false,
     NULL,
     NULL},
    {{"skep_link_frames_received_total", "Frames received.", 1, NULL, 0},
     AT(link.frames_received),
     false,
     NULL,
     NULL},
    {{"skep_link_sent_bytes_total", "Bytes sent.", 1, NULL, 0},
     AT(link.bytes_sent),
     false,
     NULL,
     NULL},
    {{"skep_link_received_bytes_total", "Bytes received.", 1, NULL, 0},
     AT(link.bytes_received),
     false,
     NULL,
     NULL},
    {{"skep_link_send_queue_bytes", "Bytes that wait to be sent.", 1, NULL, 0},
     AT(link.send_queue_bytes),
     true,
     NULL,
     NULL},
};

static uint64_t read_counter(void *data)
{
    return *(const uint64_t *)data;
}

static double read_gauge(void *data)
{
    return (double)*(const uint64_t *)data;
}

/* Of the machine's sample these are 32 bits wide. */
static double read_milli(void *data)
{
    return (double)*(const uint32_t *)data / 1000;
}

static const struct metric_def load_def = {"skep_node_load1", "Load average of one minute.", 1,
                                           NULL, 0};
static const struct metric_def cpu_def = {"skep_node_cpu_used", "Processors busy.", 1, NULL, 0};
static const struct metric_def psi_def = {
    "skep_node_pressure_ratio", "Share of the last 10 s in which somebody waited.", 1, NULL, 0};

static const uint64_t startup_bounds[] = {1000,    2000,    5000,     10000,   20000,
                                          50000,   100000,  200000,   500000,  1000000,
                                          2000000, 5000000, 10000000, 60000000};
static const uint64_t run_bounds[] = {50,     100,     200,     500,      1000,
                                      2000,   5000,    10000,   50000,    100000,
                                      500000, 1000000, 5000000, 10000000, 60000000};
static const struct metric_def startup_def = {"skep_agent_startup_seconds",
                                              "From a start to READY.", 1000000, startup_bounds,
                                              sizeof startup_bounds / sizeof startup_bounds[0]};
static const struct metric_def run_def = {"skep_agent_run_seconds",
                                          "From an invocation to its result.", 1000000, run_bounds,
                                          sizeof run_bounds / sizeof run_bounds[0]};

static void rows_register(struct stats *s)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        struct metric_label label = {r->label, r->value};
        struct metric_labels labels = {&label, r->label != NULL ? 1 : 0};
        void *at = (uint8_t *)&s->counts + r->offset;
        if (r->gauge) {
            metrics_gauge_callback(s->metrics, &r->def, labels, read_gauge, at);
        } else {
            metrics_counter_callback(s->metrics, &r->def, labels, read_counter, at);
        }
    }
}

struct status stats_open(struct stats **out)
{
    struct stats *s = mem_zalloc(1, sizeof *s);
    if (s == NULL) {
        return status_of(STATUS_NOMEM);
    }
    struct status status = metrics_open(&s->metrics, 0);
    if (status_is_ok(status)) {
        status = gpu_metrics_open(&s->gpus, s->metrics);
    }
    if (!status_is_ok(status)) {
        metrics_free(s->metrics);
        mem_free(s);
        return status;
    }
    rows_register(s);
    struct probe_sample *m = &s->counts.machine;
    metrics_gauge_callback(s->metrics, &load_def, METRIC_NO_LABELS, read_milli, &m->load1_milli);
    metrics_gauge_callback(s->metrics, &cpu_def, METRIC_NO_LABELS, read_milli, &m->cpu_used_millis);
    metrics_gauge_callback(s->metrics, &psi_def, METRIC_LABELS({"resource", "cpu"}), read_milli,
                           &m->psi_cpu_milli);
    metrics_gauge_callback(s->metrics, &psi_def, METRIC_LABELS({"resource", "memory"}), read_milli,
                           &m->psi_memory_milli);
    metrics_gauge_callback(s->metrics, &psi_def, METRIC_LABELS({"resource", "io"}), read_milli,
                           &m->psi_io_milli);
    s->startups = metrics_distribution(s->metrics, &startup_def, METRIC_NO_LABELS);
    s->runs = metrics_distribution(s->metrics, &run_def, METRIC_NO_LABELS);
    *out = s;
    return status_ok();
}

void stats_close(struct stats *s)
{
    if (s != NULL) {
        gpu_metrics_close(s->gpus);
        metrics_free(s->metrics);
        mem_free(s);
    }
}

void stats_started(struct stats *s, uint64_t startup_us)
{
    distribution_record(s->startups, startup_us);
}

void stats_ran(struct stats *s, uint64_t run_us)
{
    distribution_record(s->runs, run_us);
}

void stats_gpus(struct stats *s, const struct gpu_inventory *gpu)
{
    gpu_metrics_set(s->gpus, gpu);
}

static const struct metric_def wall_def = {
    "skep_agent_wall", "1 for the state that the wall of cells is in: up or not_needed.", 1, NULL,
    0};

void stats_walls(struct stats *s, wall_set not_needed)
{
    for (unsigned i = 0; i < WALLS_COUNT_; i++) {
        bool up = (not_needed & (UINT32_C(1) << i)) == 0;
        const char *name = wall_row((enum wall)i)->name;
        struct gauge *g =
            metrics_gauge(s->metrics, &wall_def,
                          METRIC_LABELS({"wall", name}, {"state", up ? "up" : "not_needed"}));
        gauge_set(g, 1);
    }
}

struct status stats_print(struct stats *s, const struct agent_counts *counts, struct buffer *out)
{
    s->counts = *counts;
    return metrics_print(s->metrics, out);
}
