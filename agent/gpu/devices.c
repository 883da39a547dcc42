#include "agent/gpu/devices.h"

#include "common/clock.h"
#include "common/dates.h"

#include <stdio.h>
#include <string.h>

enum {
    PROCESSES_MAX = 1 << 20, /* larger numbers are nonsense, and so on */
    TEMPERATURE_MAX = 200,
    POWER_MW_MAX = 100 * 1000 * 1000,
    PAGES_MAX = 1 << 20,
    MIG_ON = 1,
    MINOR_MAX = 1 << 20,
};

void gpu_snapshot_bind(struct gpu_snapshot *s)
{
    for (size_t i = 0; i < s->count; i++) {
        struct gpu_device *d = &s->devices[i];
        d->report.uuid = d->uuid;
        d->report.model = d->model;
        d->report.pci = d->pci;
        d->report.parent = d->parent;
        d->report.profile = d->profile;
        d->report.why = d->why;
        d->report.dirty = "";
    }
}

/* ---- Health ---- */

uint32_t xid_health(uint32_t xid)
{
    /* Caused by programs; the device is well afterwards. */
    static const uint32_t harmless[] = {13, 31, 43, 45, 68, 109};
    /* The device goes on by itself: a row remapped, an error contained, many corrected. */
    static const uint32_t cured[] = {63, 92, 94};
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        if (harmless[i] == xid) {
            return GPU_HEALTH_OK;
        }
    }
    for (size_t i = 0; i < sizeof cured / sizeof cured[0]; i++) {
        if (cured[i] == xid) {
            return GPU_HEALTH_DEGRADED;
        }
    }
    return GPU_HEALTH_FAILED;
}

/* The worst that was said stays. */
static void unwell(struct gpu_device *g, uint32_t health, const char *why)
{
    if (health > g->report.health) {
        g->report.health = health;
        (void)snprintf(g->why, sizeof g->why, "%.*s", GPU_TEXT_BYTES, why);
    }
}

/* Did the device answer? What it is lost for is its health; all else is just not known. */
static bool told(struct gpu_device *g, int code)
{
    char text[32];
    if (code == NVML_GPU_IS_LOST || code == NVML_RESET_REQUIRED) {
        unwell(g, GPU_HEALTH_FAILED, nvml_code_text(code, text));
    }
    return code == NVML_SUCCESS;
}

static struct gpu_errors *errors_of(struct devices *d, const char *uuid, bool make)
{
    for (size_t i = 0; i < d->errors_count; i++) {
        if (strcmp(d->errors[i].uuid, uuid) == 0) {
            return &d->errors[i];
        }
    }
    if (!make || d->errors_count == GPUS_MAX) {
        return NULL;
    }
    struct gpu_errors *e = &d->errors[d->errors_count++];
    *e = (struct gpu_errors){0};
    (void)snprintf(e->uuid, sizeof e->uuid, "%s", uuid);
    return e;
}

static void errors_add(struct devices *d, const char *uuid, uint32_t xid)
{
    struct gpu_errors *e = errors_of(d, uuid, true);
    if (e == NULL) {
        return;
    }
    e->xid = xid;
    e->count++;
    e->time_ms = clock_unix_ms(clock_real());
    if (xid_health(xid) > e->health) {
        e->health = xid_health(xid);
        e->health_xid = xid;
        e->health_time_ms = e->time_ms;
    }
}

static void errors_read(struct devices *d, struct gpu_device *g, bool listened)
{
    const struct gpu_errors *e = errors_of(d, g->uuid, false);
    if (listened || e != NULL) {
        g->report.known |= GPU_KNOWS_XID;
    }
    if (e == NULL) {
        return;
    }
    g->report.xid = e->xid;
    g->report.xid_count = e->count;
    g->report.xid_time_ms = e->time_ms;
    if (e->health != GPU_HEALTH_OK) {
        char when[DATE_STRING_BYTES], why[GPU_TEXT_BYTES];
        date_format(e->health_time_ms, when);
        (void)snprintf(why, sizeof why, "Xid %u at %s", e->health_xid, when);
        unwell(g, e->health, why);
    }
}

/* ---- One device ---- */

static void text_take(char out[GPU_TEXT_BYTES + 1], const char text[static NVML_TEXT_BYTES + 1])
{
    char copy[NVML_TEXT_BYTES + 1];
    memcpy(copy, text, sizeof copy);
    nvml_text_clean(copy, sizeof copy);
    (void)snprintf(out, GPU_TEXT_BYTES + 1, "%.*s", GPU_TEXT_BYTES - 1, copy);
}

static void names_read(struct nvml *n, struct nvml_device *h, struct gpu_device *g)
{
    char text[NVML_TEXT_BYTES + 1] = "";
    struct nvml_pci pci = {0};
    if (told(g, NVML(n, uuid, h, text, NVML_TEXT_BYTES))) {
        text_take(g->uuid, text);
    }
    memset(text, 0, sizeof text);
    if (told(g, NVML(n, name, h, text, NVML_TEXT_BYTES))) {
        text_take(g->model, text);
    }
    if (told(g, NVML(n, pci, h, &pci))) {
        char id[sizeof pci.bus_id + 1] = "";
        memcpy(id, pci.bus_id, sizeof pci.bus_id);
        nvml_text_clean(id, sizeof id);
        (void)snprintf(g->pci, sizeof g->pci, "%s", id);
    }
}

static void memory_read(struct nvml *n, struct nvml_device *h, struct gpu_device *g)
{
    struct nvml_memory_v2 v2 = {.version = NVML_MEMORY_V2};
    struct nvml_memory v1 = {0};
    if (told(g, NVML(n, memory_v2, h, &v2))) {
        v1.total = v2.total;
        v1.used = v2.used;
    } else if (!told(g, NVML(n, memory, h, &v1))) {
        return;
    }
    if (v1.total != 0 && v1.used <= v1.total) {
        g->report.known |= GPU_KNOWS_MEMORY;
        g->report.memory_bytes = v1.total;
        g->report.memory_used_bytes = v1.used;
    }
}

/* How many; the lists themselves are not wanted, which the library calls too small a buffer. One
 * that computes and draws counts twice. */
static void processes_read(struct nvml *n, struct nvml_device *h, struct gpu_device *g)
{
    unsigned count = 0, drawing = 0;
    int code = NVML(n, processes, h, &count, NULL);
    if ((code == NVML_INSUFFICIENT_SIZE || told(g, code)) && count <= PROCESSES_MAX) {
        g->report.known |= GPU_KNOWS_PROCESSES;
        g->report.processes = count;
    }
    code = NVML(n, graphics, h, &drawing, NULL);
    if ((code == NVML_INSUFFICIENT_SIZE || told(g, code)) && drawing <= PROCESSES_MAX) {
        g->report.processes += drawing;
    }
}

static void gauge_take(struct gpu_device *g, int code, uint32_t known, unsigned value, unsigned max,
                       uint32_t *out)
{
    if (told(g, code) && value <= max) {
        g->report.known |= known;
        *out = value;
    }
}

static void gauges_read(struct nvml *n, struct nvml_device *h, struct gpu_device *g)
{
    struct gpu_report *r = &g->report;
    struct nvml_utilization busy = {0};
    unsigned value = 0;
    int code = NVML(n, utilization, h, &busy);
    gauge_take(g, code, GPU_KNOWS_BUSY, busy.gpu, 100, &r->busy_percent);
    code = NVML(n, temperature, h, NVML_TEMPERATURE_GPU, &value);
    gauge_take(g, code, GPU_KNOWS_TEMPERATURE, value, TEMPERATURE_MAX, &r->temperature_c);
    value = 0;
    code = NVML(n, power, h, &value);
    gauge_take(g, code, GPU_KNOWS_POWER, value, POWER_MW_MAX, &r->power_mw);
}

static void ecc_read(struct nvml *n, struct nvml_device *h, struct gpu_device *g)
{
    unsigned long long errors = 0;
    char why[GPU_TEXT_BYTES];
    if (!told(g, NVML(n, ecc_errors, h, NVML_ECC_UNCORRECTED, NVML_ECC_VOLATILE, &errors))) {
        return;
    }
    g->report.known |= GPU_KNOWS_ECC;
    g->report.ecc_uncorrected = errors;
    if (errors > 0) {
        (void)snprintf(why, sizeof why, "%llu uncorrected memory errors since the driver loaded",
                       errors);
        unwell(g, GPU_HEALTH_DEGRADED, why);
    }
}

/* Ampere and later repair memory by remapping rows, earlier ones by retiring pages. */
static void rows_read(struct nvml *n, struct nvml_device *h, struct gpu_device *g)
{
    unsigned corrected = 0, uncorrected = 0, pending = 0, failed = 0;
    if (!told(g, NVML(n, remapped_rows, h, &corrected, &uncorrected, &pending, &failed)) ||
        corrected > PAGES_MAX || uncorrected > PAGES_MAX) {
        return;
    }
    g->report.known |= GPU_KNOWS_ROWS;
    g->report.rows_remapped = corrected + uncorrected;
    if (failed != 0) {
        unwell(g, GPU_HEALTH_FAILED, "a row of its memory could not be remapped");
    }
    if (pending != 0) {
        unwell(g, GPU_HEALTH_DEGRADED, "a row of its memory is remapped at the next reset");
    }
}

static void pages_read(struct nvml *n, struct nvml_device *h, struct gpu_device *g)
{
    static const int causes[] = {NVML_RETIRED_SINGLE_BIT, NVML_RETIRED_DOUBLE_BIT};
    uint32_t pages = 0;
    for (size_t i = 0; i < 2; i++) {
        unsigned count = 0;
        int code = NVML(n, retired_pages, h, causes[i], &count, NULL);
        if ((code != NVML_INSUFFICIENT_SIZE && !told(g, code)) || count > PAGES_MAX) {
            return;
        }
        pages += count;
    }
    g->report.known |= GPU_KNOWS_PAGES;
    g->report.pages_retired = pages;
    int pending = 0;
    if (told(g, NVML(n, retired_pending, h, &pending)) && pending != 0) {
        unwell(g, GPU_HEALTH_DEGRADED, "a page of its memory is retired at the next reset");
    }
}

/* A device that does not tell its name still has one here, so that people and metrics can tell it
 * from the others. */
static void uuid_default(struct gpu_device *g)
{
    if (g->uuid[0] == '\0') {
        (void)snprintf(g->uuid, sizeof g->uuid, "unknown-%u", g->report.index);
        unwell(g, GPU_HEALTH_FAILED, "the driver does not tell its UUID");
    }
}

static struct gpu_device *device_new(struct gpu_snapshot *s, uint32_t index)
{
    if (s->count == GPUS_MAX) {
        s->cut = true;
        return NULL;
    }
    struct gpu_device *g = &s->devices[s->count++];
    *g = (struct gpu_device){.report = {.index = index}};
    return g;
}

/* ---- MIG instances: devices of their own, with less to tell ---- */

/* "NVIDIA A100-SXM4-40GB MIG 1g.5gb"; where the name has no such end, the sizes make one. */
static void profile_read(struct nvml *n, struct nvml_device *h, struct gpu_device *g)
{
    static const char mark[] = " MIG ";
    char *at = strstr(g->model, mark);
    struct nvml_attributes a = {0};
    if (at != NULL) {
        (void)snprintf(g->profile, sizeof g->profile, "%s", at + sizeof mark - 1);
        *at = '\0';
    } else if (told(g, NVML(n, attributes, h, &a))) {
        (void)snprintf(g->profile, sizeof g->profile, "%ug.%llugb", a.gpu_slices,
                       (a.memory_mib + 1023) / 1024);
    }
}

static void mig_device_read(struct nvml *n, struct gpu_snapshot *s, const struct gpu_device *whole,
                            unsigned at, struct nvml_device *h)
{
    struct gpu_device *g = device_new(s, whole->report.index);
    if (g == NULL) {
        return;
    }
    g->report.mig_index = at;
    names_read(n, h, g);
    profile_read(n, h, g);
    memory_read(n, h, g);
    processes_read(n, h, g);
    if (g->uuid[0] == '\0') {
        (void)snprintf(g->uuid, sizeof g->uuid, "unknown-%u:%u", whole->report.index, at);
        unwell(g, GPU_HEALTH_FAILED, "the driver does not tell its UUID");
    }
    _Static_assert(sizeof g->parent == sizeof whole->uuid, "copied whole");
    memcpy(g->parent, whole->uuid, sizeof g->parent);
    memcpy(g->pci, whole->pci, sizeof g->pci);
    if (whole->report.health != GPU_HEALTH_OK) {
        char why[GPU_TEXT_BYTES + 1];
        (void)snprintf(why, sizeof why, "its GPU: %.80s", whole->why);
        unwell(g, whole->report.health, why);
    }
}

static void mig_read(struct nvml *n, struct gpu_snapshot *s, struct gpu_device *whole,
                     struct nvml_device *h)
{
    unsigned mode = 0, pending = 0, count = 0;
    if (!told(whole, NVML(n, mig_mode, h, &mode, &pending)) || mode != MIG_ON) {
        return;
    }
    whole->report.mig = true;
    if (!told(whole, NVML(n, mig_count_max, h, &count))) {
        return;
    }
    for (unsigned i = 0; i < count && i < GPUS_MAX; i++) {
        struct nvml_device *instance = NULL;
        if (NVML(n, mig_by_index, h, i, &instance) == NVML_SUCCESS && instance != NULL) {
            mig_device_read(n, s, whole, i, instance);
        }
    }
}

/* ---- All devices ---- */

static void whole_read(struct devices *d, struct gpu_snapshot *s, unsigned index)
{
    struct gpu_device *g = device_new(s, index);
    struct nvml_device *h = d->handles[index];
    if (g == NULL) {
        return;
    }
    if (h == NULL) {
        char text[32];
        unwell(g, GPU_HEALTH_FAILED, nvml_code_text(d->codes[index], text));
        uuid_default(g);
        return;
    }
    names_read(&d->nvml, h, g);
    uuid_default(g);
    (void)snprintf(d->uuids[index], sizeof d->uuids[index], "%s", g->uuid);
    g->has_minor = told(g, NVML(&d->nvml, minor, h, &g->minor)) && g->minor <= MINOR_MAX;
    memory_read(&d->nvml, h, g);
    gauges_read(&d->nvml, h, g);
    processes_read(&d->nvml, h, g);
    ecc_read(&d->nvml, h, g);
    rows_read(&d->nvml, h, g);
    pages_read(&d->nvml, h, g);
    errors_read(d, g, d->listened[index]);
    mig_read(&d->nvml, s, g, h);
}

static struct status session_failed(struct gpu_snapshot *s, const char *what, int code)
{
    char text[32];
    bool none = code == NVML_DRIVER_NOT_LOADED || code == NVML_LIBRARY_NOT_FOUND;
    s->state = none ? GPU_STATE_NONE : GPU_STATE_FAILING;
    s->count = 0;
    (void)snprintf(s->why, sizeof s->why, "%s: %s", what, nvml_code_text(code, text));
    return status_of(STATUS_UNAVAILABLE);
}

struct status devices_read(struct devices *d, struct gpu_snapshot *s)
{
    unsigned count = 0;
    int code = NVML(&d->nvml, count, &count);
    if (code != NVML_SUCCESS) {
        return session_failed(s, "count the GPUs", code);
    }
    if (count != d->count_told) {
        return status_of(STATUS_CONFLICT);
    }
    s->count = 0;
    s->cut = count > GPUS_MAX;
    s->why[0] = '\0';
    for (unsigned i = 0; i < d->count; i++) {
        whole_read(d, s, i);
    }
    s->state = s->count == 0 ? GPU_STATE_NONE : GPU_STATE_OK;
    if (s->count == 0) {
        (void)snprintf(s->why, sizeof s->why, "the driver has no GPU");
    } else if (s->cut) {
        (void)snprintf(s->why, sizeof s->why, "only the first %d devices are shown", GPUS_MAX);
    }
    return status_ok();
}

/* ---- Sessions ---- */

static void versions_read(struct nvml *n, struct gpu_snapshot *s)
{
    char text[NVML_TEXT_BYTES + 1] = "";
    int cuda = 0;
    s->driver[0] = '\0';
    s->cuda[0] = '\0';
    if (NVML(n, driver_version, text, NVML_DRIVER_TEXT_BYTES) == NVML_SUCCESS) {
        text_take(s->driver, text);
    }
    if (NVML(n, cuda_version, &cuda) == NVML_SUCCESS && cuda > 0 && cuda < 1000000) {
        (void)snprintf(s->cuda, sizeof s->cuda, "%d.%d", cuda / 1000, cuda % 1000 / 10);
    }
}

static void listen_begin(struct devices *d)
{
    d->set = NULL;
    if (NVML(&d->nvml, set_create, &d->set) != NVML_SUCCESS) {
        d->set = NULL;
        return;
    }
    for (unsigned i = 0; i < d->count; i++) {
        d->listened[i] = d->handles[i] != NULL && NVML(&d->nvml, set_register, d->handles[i],
                                                       NVML_EVENT_XID, d->set) == NVML_SUCCESS;
    }
}

struct status devices_begin(struct devices *d, const char *path, struct gpu_snapshot *s)
{
    struct errmsg msg = {{0}};
    *s = (struct gpu_snapshot){.state = GPU_STATE_NONE};
    struct status status = nvml_open(&d->nvml, path, &msg);
    if (!status_is_ok(status)) {
        s->state = status.code == STATUS_NOT_FOUND ? GPU_STATE_NONE : GPU_STATE_FAILING;
        (void)snprintf(s->why, sizeof s->why, "%.*s", GPU_TEXT_BYTES - 1, msg.text);
        return status;
    }
    int code = NVML(&d->nvml, init);
    if (code != NVML_SUCCESS) {
        nvml_close(&d->nvml);
        return session_failed(s, "start NVML", code);
    }
    d->begun = true;
    versions_read(&d->nvml, s);
    code = NVML(&d->nvml, count, &d->count_told);
    if (code != NVML_SUCCESS) {
        return session_failed(s, "count the GPUs", code);
    }
    d->count = d->count_told < GPUS_MAX ? d->count_told : GPUS_MAX;
    for (unsigned i = 0; i < d->count; i++) {
        d->listened[i] = false;
        d->uuids[i][0] = '\0';
        d->handles[i] = NULL;
        d->codes[i] = NVML(&d->nvml, by_index, i, &d->handles[i]);
        if (d->codes[i] != NVML_SUCCESS) {
            d->handles[i] = NULL;
        }
    }
    listen_begin(d);
    return status_ok();
}

static bool listens(const struct devices *d)
{
    for (unsigned i = 0; d->set != NULL && d->nvml.set_wait != NULL && i < d->count; i++) {
        if (d->listened[i]) {
            return true;
        }
    }
    return false;
}

bool devices_listen(struct devices *d, uint32_t wait_ms, bool *waited)
{
    struct nvml_event event = {0};
    *waited = false;
    if (!listens(d)) {
        return false;
    }
    int code = NVML(&d->nvml, set_wait, d->set, &event, wait_ms);
    *waited = code == NVML_TIMEOUT;
    if (code != NVML_SUCCESS || (event.type & NVML_EVENT_XID) == 0) {
        return false;
    }
    for (unsigned i = 0; i < d->count; i++) {
        if (d->handles[i] == event.device && event.device != NULL && d->uuids[i][0] != '\0') {
            errors_add(d, d->uuids[i], event.data > UINT32_MAX ? 0 : (uint32_t)event.data);
            return true;
        }
    }
    return false;
}

void devices_end(struct devices *d)
{
    if (d->begun) {
        if (d->set != NULL) {
            (void)NVML(&d->nvml, set_free, d->set);
            d->set = NULL;
        }
        (void)NVML(&d->nvml, shutdown);
        d->begun = false;
    }
    d->count = 0;
    d->count_told = 0;
    nvml_close(&d->nvml);
}
