/* A libnvidia-ml.so.1 with the real functions' names, arguments and structs, and what they answer
 * from a file, $FAKE_NVML_FILE, which is read anew by each call. Lines KEY=VALUE:
 *
 *     count=2  driver=550.54.15  cuda=12040
 *     D.uuid= D.name= D.pci=             of device D: "0", or "0:1" for its second MIG instance;
 *     D.total= D.used= D.busy= D.temp= D.power= D.procs= D.ecc= D.rows= D.rows_pending=
 *     D.rows_failed= D.pages= D.pages_pending= D.mig= D.slices= D.mib= D.graphics= D.minor=
 *                                        a key that is not there: not supported
 *     D.xid= D.xid_number=               an error, told once for each larger number
 *     code.FUNCTION= D.code.FUNCTION=    what the function answers, whatever it would do
 *     hang.FUNCTION=1                    it does not return while the line is there
 *     raw.FUNCTION=1                     its text is bytes of 0xFF up to the buffer's end
 *     mark=PATH                          a file that the shutdown makes
 *
 * Built with FAKE_NVML_OLD it lacks what early drivers lack. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    TIMEOUT = 10,
    MISMATCH = 25,
    HANDLES_MAX = 64,
    MIGS_MAX = 8
};

struct handle {
    char key[16];
};
struct pci {
    char legacy[16];
    unsigned int domain, bus, device, id, subsystem;
    char bus_id[32];
};
struct memory {
    unsigned long long total, free, used;
};
struct memory_v2 {
    unsigned int version;
    unsigned long long total, reserved, free, used;
};
struct utilization {
    unsigned int gpu, memory;
};
struct event {
    void *device;
    unsigned long long type, data;
#ifndef FAKE_NVML_OLD
    unsigned int gpu_instance, compute_instance;
#endif
};
struct attributes {
    unsigned int counts[6], gpu_slices, compute_slices;
    unsigned long long mib;
};

static struct handle wholes[HANDLES_MAX];
static bool registered[HANDLES_MAX];
static long told[HANDLES_MAX];
static int the_set;

#define EXPORT __attribute__((visibility("default")))

static bool get(const char *key, char *out, size_t size)
{
    char line[512];
    size_t length = strlen(key);
    bool found = false;
    FILE *f = fopen(getenv("FAKE_NVML_FILE"), "re");
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, key, length) == 0 && line[length] == '=') {
            line[strcspn(line, "\n")] = '\0';
            (void)snprintf(out, size, "%s", line + length + 1);
            found = true;
        }
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return found;
}

static bool number(const char *device, const char *key, unsigned long long *out)
{
    char path[64], text[64];
    (void)snprintf(path, sizeof path, "%s%s%s", device, device[0] != '\0' ? "." : "", key);
    if (!get(path, text, sizeof text)) {
        return false;
    }
    *out = strtoull(text, NULL, 0);
    return true;
}

/* What every function begins with: hangs, and answers of its own. */
static int begin(const char *device, const char *function)
{
    char key[128];
    unsigned long long value;
    (void)snprintf(key, sizeof key, "hang.%s", function);
    while (number("", key, &value)) {
        (void)usleep(2000); /* lint: allow sleep-in-test: this is the driver that hangs */
    }
    (void)snprintf(key, sizeof key, "code.%s", function);
    if (number("", key, &value) || (device[0] != '\0' && number(device, key, &value))) {
        return (int)value;
    }
    return SUCCESS;
}
#define BEGIN(device)                                                                              \
    do {                                                                                           \
        int code_ = begin(device, __func__);                                                       \
        if (code_ != SUCCESS) {                                                                    \
            return code_;                                                                          \
        }                                                                                          \
    } while (0)

static int text_of(const char *device, const char *key, const char *function, char *out,
                   unsigned size)
{
    char path[64], value[256];
    unsigned long long raw;
    (void)snprintf(path, sizeof path, "raw.%s", function);
    if (number("", path, &raw)) {
        memset(out, 0xFF, size);
        return SUCCESS;
    }
    (void)snprintf(path, sizeof path, "%s%s%s", device, device[0] != '\0' ? "." : "", key);
    if (!get(path, value, sizeof value)) {
        return NOT_SUPPORTED;
    }
    if (strlen(value) >= size) {
        return INSUFFICIENT_SIZE;
    }
    memcpy(out, value, strlen(value) + 1);
    return SUCCESS;
}

static int narrow(const char *device, const char *key, unsigned *out)
{
    unsigned long long value;
    if (!number(device, key, &value)) {
        return NOT_SUPPORTED;
    }
    *out = (unsigned)value;
    return SUCCESS;
}

/* ---- The library and the system ---- */

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlInit_v2(void)
{
    BEGIN("");
    memset(registered, 0, sizeof registered);
    return SUCCESS;
}

EXPORT int nvmlShutdown(void);
EXPORT int nvmlShutdown(void)
{
    char path[256];
    if (get("mark", path, sizeof path)) {
        FILE *f = fopen(path, "we");
        if (f != NULL) {
            (void)fclose(f);
        }
    }
    return SUCCESS;
}

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned length);
EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    BEGIN("");
    return text_of("", "driver", __func__, version, length);
}

#ifdef FAKE_NVML_OLD
#define nvmlSystemGetCudaDriverVersion_v2 nvmlSystemGetCudaDriverVersion
#define nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceGetComputeRunningProcesses
#define nvmlDeviceGetGraphicsRunningProcesses_v3 nvmlDeviceGetGraphicsRunningProcesses
#define nvmlEventSetWait_v2 nvmlEventSetWait
#endif

EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version);
EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    BEGIN("");
    unsigned value;
    int code = narrow("", "cuda", &value);
    *version = code == SUCCESS ? (int)value : 0;
    return code;
}

EXPORT int nvmlDeviceGetCount_v2(unsigned *count);
EXPORT int nvmlDeviceGetCount_v2(unsigned *count)
{
    BEGIN("");
    *count = 0;
    (void)narrow("", "count", count);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **device);
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **device)
{
    char key[16];
    (void)snprintf(key, sizeof key, "%u", index);
    BEGIN(key);
    if (index >= HANDLES_MAX) {
        return INVALID_ARGUMENT;
    }
    memcpy(wholes[index].key, key, sizeof key);
    *device = &wholes[index];
    return SUCCESS;
}

/* ---- One device ---- */

EXPORT int nvmlDeviceGetUUID(struct handle *device, char *uuid, unsigned length);
EXPORT int nvmlDeviceGetUUID(struct handle *device, char *uuid, unsigned length)
{
    BEGIN(device->key);
    return text_of(device->key, "uuid", __func__, uuid, length);
}

EXPORT int nvmlDeviceGetName(struct handle *device, char *name, unsigned length);
EXPORT int nvmlDeviceGetName(struct handle *device, char *name, unsigned length)
{
    BEGIN(device->key);
    return text_of(device->key, "name", __func__, name, length);
}

EXPORT int nvmlDeviceGetPciInfo_v3(struct handle *device, struct pci *pci);
EXPORT int nvmlDeviceGetPciInfo_v3(struct handle *device, struct pci *pci)
{
    BEGIN(device->key);
    return text_of(device->key, "pci", __func__, pci->bus_id, sizeof pci->bus_id);
}

EXPORT int nvmlDeviceGetMemoryInfo(struct handle *device, struct memory *memory);
EXPORT int nvmlDeviceGetMemoryInfo(struct handle *device, struct memory *memory)
{
    BEGIN(device->key);
    memory->free = 0;
    return number(device->key, "total", &memory->total) &&
                   number(device->key, "used", &memory->used)
               ? SUCCESS
               : NOT_SUPPORTED;
}

#ifndef FAKE_NVML_OLD
EXPORT int nvmlDeviceGetMemoryInfo_v2(struct handle *device, struct memory_v2 *memory);
EXPORT int nvmlDeviceGetMemoryInfo_v2(struct handle *device, struct memory_v2 *memory)
{
    BEGIN(device->key);
    if (memory->version != (sizeof *memory | 2U << 24)) {
        return MISMATCH;
    }
    memory->free = 0;
    memory->reserved = 0;
    return number(device->key, "total", &memory->total) &&
                   number(device->key, "used", &memory->used)
               ? SUCCESS
               : NOT_SUPPORTED;
}
#endif

EXPORT int nvmlDeviceGetUtilizationRates(struct handle *device, struct utilization *busy);
EXPORT int nvmlDeviceGetUtilizationRates(struct handle *device, struct utilization *busy)
{
    BEGIN(device->key);
    busy->memory = 1;
    return narrow(device->key, "busy", &busy->gpu);
}

EXPORT int nvmlDeviceGetTemperature(struct handle *device, int sensor, unsigned *temperature);
EXPORT int nvmlDeviceGetTemperature(struct handle *device, int sensor, unsigned *temperature)
{
    BEGIN(device->key);
    return sensor == 0 ? narrow(device->key, "temp", temperature) : INVALID_ARGUMENT;
}

EXPORT int nvmlDeviceGetPowerUsage(struct handle *device, unsigned *power);
EXPORT int nvmlDeviceGetPowerUsage(struct handle *device, unsigned *power)
{
    BEGIN(device->key);
    return narrow(device->key, "power", power);
}

EXPORT int nvmlDeviceGetTotalEccErrors(struct handle *device, int type, int counter,
                                       unsigned long long *errors);
EXPORT int nvmlDeviceGetTotalEccErrors(struct handle *device, int type, int counter,
                                       unsigned long long *errors)
{
    BEGIN(device->key);
    if (type != 1 || counter != 0) {
        return INVALID_ARGUMENT;
    }
    return number(device->key, "ecc", errors) ? SUCCESS : NOT_SUPPORTED;
}

EXPORT int nvmlDeviceGetRetiredPages(struct handle *device, int cause, unsigned *count,
                                     unsigned long long *addresses);
EXPORT int nvmlDeviceGetRetiredPages(struct handle *device, int cause, unsigned *count,
                                     unsigned long long *addresses)
{
    unsigned pages;
    BEGIN(device->key);
    int code = narrow(device->key, "pages", &pages);
    if (code != SUCCESS) {
        return code;
    }
    *count = cause == 1 ? pages : 0;
    return *count == 0 || addresses != NULL ? SUCCESS : INSUFFICIENT_SIZE;
}

EXPORT int nvmlDeviceGetRetiredPagesPendingStatus(struct handle *device, int *pending);
EXPORT int nvmlDeviceGetRetiredPagesPendingStatus(struct handle *device, int *pending)
{
    unsigned value;
    BEGIN(device->key);
    int code = narrow(device->key, "pages_pending", &value);
    *pending = code == SUCCESS ? (int)value : 0;
    return code;
}

EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(struct handle *device, unsigned *count,
                                                   void *infos);
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(struct handle *device, unsigned *count,
                                                   void *infos)
{
    BEGIN(device->key);
    int code = narrow(device->key, "procs", count);
    return code != SUCCESS || *count == 0 || infos != NULL ? code : INSUFFICIENT_SIZE;
}

EXPORT int nvmlDeviceGetMinorNumber(struct handle *device, unsigned *minor);
EXPORT int nvmlDeviceGetMinorNumber(struct handle *device, unsigned *minor)
{
    BEGIN(device->key);
    return narrow(device->key, "minor", minor);
}

EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(struct handle *device, unsigned *count,
                                                    void *infos);
EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(struct handle *device, unsigned *count,
                                                    void *infos)
{
    BEGIN(device->key);
    int code = narrow(device->key, "graphics", count);
    return code != SUCCESS || *count == 0 || infos != NULL ? code : INSUFFICIENT_SIZE;
}

#ifndef FAKE_NVML_OLD
EXPORT int nvmlDeviceGetRemappedRows(struct handle *device, unsigned *corrected,
                                     unsigned *uncorrected, unsigned *pending, unsigned *failed);
EXPORT int nvmlDeviceGetRemappedRows(struct handle *device, unsigned *corrected,
                                     unsigned *uncorrected, unsigned *pending, unsigned *failed)
{
    BEGIN(device->key);
    *uncorrected = 0;
    *pending = 0;
    *failed = 0;
    (void)narrow(device->key, "rows_pending", pending);
    (void)narrow(device->key, "rows_failed", failed);
    return narrow(device->key, "rows", corrected);
}

/* ---- MIG ---- */

static struct handle migs[HANDLES_MAX][MIGS_MAX];

EXPORT int nvmlDeviceGetMigMode(struct handle *device, unsigned *current, unsigned *pending);
EXPORT int nvmlDeviceGetMigMode(struct handle *device, unsigned *current, unsigned *pending)
{
    BEGIN(device->key);
    int code = narrow(device->key, "mig", current);
    *pending = code == SUCCESS ? *current : 0;
    return code;
}

EXPORT int nvmlDeviceGetMaxMigDeviceCount(struct handle *device, unsigned *count);
EXPORT int nvmlDeviceGetMaxMigDeviceCount(struct handle *device, unsigned *count)
{
    BEGIN(device->key);
    *count = 7;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(struct handle *device, unsigned index,
                                               struct handle **out);
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(struct handle *device, unsigned index,
                                               struct handle **out)
{
    BEGIN(device->key);
    struct handle *h = &migs[device - wholes][index % MIGS_MAX];
    char key[32], name[64];
    (void)snprintf(h->key, sizeof h->key, "%.8s:%u", device->key, index % MIGS_MAX);
    (void)snprintf(key, sizeof key, "%s.name", h->key);
    if (!get(key, name, sizeof name)) {
        return NOT_FOUND;
    }
    *out = h;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetAttributes_v2(struct handle *device, struct attributes *a);
EXPORT int nvmlDeviceGetAttributes_v2(struct handle *device, struct attributes *a)
{
    BEGIN(device->key);
    memset(a, 0, sizeof *a);
    return number(device->key, "mib", &a->mib) ? narrow(device->key, "slices", &a->gpu_slices)
                                               : NOT_SUPPORTED;
}
#endif

/* ---- Events ---- */

EXPORT int nvmlEventSetCreate(void **set);
EXPORT int nvmlEventSetCreate(void **set)
{
    BEGIN("");
    *set = &the_set;
    return SUCCESS;
}

EXPORT int nvmlEventSetFree(void *set);
EXPORT int nvmlEventSetFree(void *set)
{
    return set == &the_set ? SUCCESS : INVALID_ARGUMENT;
}

EXPORT int nvmlDeviceRegisterEvents(struct handle *device, unsigned long long types, void *set);
EXPORT int nvmlDeviceRegisterEvents(struct handle *device, unsigned long long types, void *set)
{
    BEGIN(device->key);
    if (set != &the_set || types != 8) {
        return INVALID_ARGUMENT;
    }
    registered[device - wholes] = true;
    return SUCCESS;
}

EXPORT int nvmlEventSetWait_v2(void *set, struct event *event, unsigned timeout_ms);
EXPORT int nvmlEventSetWait_v2(void *set, struct event *event, unsigned timeout_ms)
{
    BEGIN("");
    for (unsigned i = 0; i < HANDLES_MAX && set == &the_set; i++) {
        unsigned long long xid, seen;
        if (registered[i] && number(wholes[i].key, "xid_number", &seen) && (long)seen > told[i] &&
            number(wholes[i].key, "xid", &xid)) {
            told[i] = (long)seen;
            event->device = &wholes[i];
            event->type = 8;
            event->data = xid;
            return SUCCESS;
        }
    }
    (void)usleep(timeout_ms * 1000); /* lint: allow sleep-in-test: what the function does */
    return TIMEOUT;
}
