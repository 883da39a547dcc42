/* The part of NVIDIA's management library (libnvidia-ml.so.1, NVML) that is used here, loaded at
 * run time: no machine needs it to build or to run this program. Types and numbers as the NVML API
 * reference gives them (docs.nvidia.com/deploy/nvml-api); names are ours.
 *
 * Nothing that comes out of the library is believed: texts may lack their NUL, numbers may be
 * nonsense. Each call may take seconds, or never return: nvml_begin marks when the one that runs
 * now was made.
 *
 * Thread: one; only nvml_silent_us may be asked on others. */
#ifndef AGENT_GPU_NVML_H
#define AGENT_GPU_NVML_H

#include "common/status.h"

#include <stdatomic.h>
#include <stdint.h>

#define NVML_LIBRARY "libnvidia-ml.so.1"

/* nvmlReturn_t: those that mean something here. */
enum nvml_code {
    NVML_SUCCESS = 0,
    NVML_UNINITIALIZED = 1,
    NVML_NOT_SUPPORTED = 3,
    NVML_NO_PERMISSION = 4,
    NVML_NOT_FOUND = 6,
    NVML_INSUFFICIENT_SIZE = 7,
    NVML_DRIVER_NOT_LOADED = 9,
    NVML_TIMEOUT = 10,
    NVML_LIBRARY_NOT_FOUND = 12,
    NVML_FUNCTION_NOT_FOUND = 13, /* also: this library lacks the symbol */
    NVML_GPU_IS_LOST = 15,
    NVML_RESET_REQUIRED = 16,
    NVML_LIB_RM_VERSION_MISMATCH = 18,
};

struct nvml_device; /* a handle of the library's */
struct nvml_set;

struct nvml_pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_memory_v2 {
    unsigned version; /* NVML_MEMORY_V2 */
    unsigned long long total, reserved, free, used;
};
#define NVML_MEMORY_V2 ((unsigned)sizeof(struct nvml_memory_v2) | 2U << 24)
struct nvml_utilization {
    unsigned gpu, memory; /* percent */
};
struct nvml_attributes {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpegs, ofas;
    unsigned gpu_slices, compute_slices;
    unsigned long long memory_mib;
};
struct nvml_event {
    struct nvml_device *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

enum {
    NVML_DRIVER_TEXT_BYTES = 80, /* what the library is told that the buffers have */
    NVML_TEXT_BYTES = 96,
    NVML_TEMPERATURE_GPU = 0,
    NVML_ECC_UNCORRECTED = 1,
    NVML_ECC_VOLATILE = 0, /* since the driver was loaded */
    NVML_RETIRED_SINGLE_BIT = 0,
    NVML_RETIRED_DOUBLE_BIT = 1,
    NVML_EVENT_XID = 8,
};

/* F(member, symbol, symbol of before or NULL, arguments): all functions that are called. */
#define NVML_FUNCTIONS(F)                                                                          \
    F(init, "nvmlInit_v2", NULL, (void))                                                           \
    F(shutdown, "nvmlShutdown", NULL, (void))                                                      \
    F(driver_version, "nvmlSystemGetDriverVersion", NULL, (char *, unsigned))                      \
    F(cuda_version, "nvmlSystemGetCudaDriverVersion_v2", "nvmlSystemGetCudaDriverVersion",         \
      (int *))                                                                                     \
    F(count, "nvmlDeviceGetCount_v2", NULL, (unsigned *))                                          \
    F(by_index, "nvmlDeviceGetHandleByIndex_v2", NULL, (unsigned, struct nvml_device **))          \
    F(uuid, "nvmlDeviceGetUUID", NULL, (struct nvml_device *, char *, unsigned))                   \
    F(name, "nvmlDeviceGetName", NULL, (struct nvml_device *, char *, unsigned))                   \
    F(pci, "nvmlDeviceGetPciInfo_v3", NULL, (struct nvml_device *, struct nvml_pci *))             \
    F(memory_v2, "nvmlDeviceGetMemoryInfo_v2", NULL,                                               \
      (struct nvml_device *, struct nvml_memory_v2 *))                                             \
    F(memory, "nvmlDeviceGetMemoryInfo", NULL, (struct nvml_device *, struct nvml_memory *))       \
    F(utilization, "nvmlDeviceGetUtilizationRates", NULL,                                          \
      (struct nvml_device *, struct nvml_utilization *))                                           \
    F(temperature, "nvmlDeviceGetTemperature", NULL, (struct nvml_device *, int, unsigned *))      \
    F(power, "nvmlDeviceGetPowerUsage", NULL, (struct nvml_device *, unsigned *))                  \
    F(ecc_errors, "nvmlDeviceGetTotalEccErrors", NULL,                                             \
      (struct nvml_device *, int, int, unsigned long long *))                                      \
    F(retired_pages, "nvmlDeviceGetRetiredPages", NULL,                                            \
      (struct nvml_device *, int, unsigned *, unsigned long long *))                               \
    F(retired_pending, "nvmlDeviceGetRetiredPagesPendingStatus", NULL,                             \
      (struct nvml_device *, int *))                                                               \
    F(remapped_rows, "nvmlDeviceGetRemappedRows", NULL,                                            \
      (struct nvml_device *, unsigned *, unsigned *, unsigned *, unsigned *))                      \
    F(processes, "nvmlDeviceGetComputeRunningProcesses_v3",                                        \
      "nvmlDeviceGetComputeRunningProcesses", (struct nvml_device *, unsigned *, void *))          \
    F(graphics, "nvmlDeviceGetGraphicsRunningProcesses_v3",                                        \
      "nvmlDeviceGetGraphicsRunningProcesses", (struct nvml_device *, unsigned *, void *))         \
    F(minor, "nvmlDeviceGetMinorNumber", NULL, (struct nvml_device *, unsigned *))                 \
    F(mig_mode, "nvmlDeviceGetMigMode", NULL, (struct nvml_device *, unsigned *, unsigned *))      \
    F(mig_count_max, "nvmlDeviceGetMaxMigDeviceCount", NULL, (struct nvml_device *, unsigned *))   \
    F(mig_by_index, "nvmlDeviceGetMigDeviceHandleByIndex", NULL,                                   \
      (struct nvml_device *, unsigned, struct nvml_device **))                                     \
    F(attributes, "nvmlDeviceGetAttributes_v2", NULL,                                              \
      (struct nvml_device *, struct nvml_attributes *))                                            \
    F(set_create, "nvmlEventSetCreate", NULL, (struct nvml_set **))                                \
    F(set_register, "nvmlDeviceRegisterEvents", NULL,                                              \
      (struct nvml_device *, unsigned long long, struct nvml_set *))                               \
    F(set_wait, "nvmlEventSetWait_v2", "nvmlEventSetWait",                                         \
      (struct nvml_set *, struct nvml_event *, unsigned))                                          \
    F(set_free, "nvmlEventSetFree", NULL, (struct nvml_set *))

struct nvml {
    void *library;
    _Atomic uint64_t call_us; /* when the call that runs now was made; 0: none runs */
#define NVML_MEMBER(member, symbol, before, arguments) int(*member) arguments;
    NVML_FUNCTIONS(NVML_MEMBER)
#undef NVML_MEMBER
};

/* Loads the library; path NULL: NVML_LIBRARY, as the loader finds it. The library is not
 * initialised by that. NOT_FOUND when there is none, UNSUPPORTED when it lacks what nothing works
 * without. *n is as closed then. */
NODISCARD struct status nvml_open(struct nvml *n, const char *path, struct errmsg *msg);
/* A closed one is fine. */
void nvml_close(struct nvml *n);

void nvml_begin(struct nvml *n);
int nvml_end(struct nvml *n, int code);
/* NVML(n, power, device, &mw): the code; FUNCTION_NOT_FOUND when the library has no such
 * function. */
#define NVML(n, member, ...)                                                                       \
    ((n)->member == NULL ? (int)NVML_FUNCTION_NOT_FOUND                                            \
                         : (nvml_begin(n), nvml_end((n), (n)->member(__VA_ARGS__))))

/* For how long the call that runs now has been running at that time; 0: none does. Any thread. */
uint64_t nvml_silent_us(struct nvml *n, uint64_t now_us);

/* "the driver is not loaded"; for others "error 7". */
const char *nvml_code_text(int code, char out[static 32]);

/* What the library wrote into a buffer of size bytes, of which it was told fewer: ended by a NUL,
 * blanks around it gone, other than printable ASCII as '?'. */
void nvml_text_clean(char *text, size_t size);

#endif
