/* The ioctl requests that programs make of NVIDIA's device nodes, for the filter of cells that have
 * such devices (cell_spec.gpu). The numbers are the kernel driver's:
 * NVIDIA/open-gpu-kernel-modules, kernel-open/common/inc/nv-ioctl-numbers.h and nv-ioctl-numa.h,
 * src/nvidia/arch/nvalloc/unix/include/nv_escape.h, kernel-open/nvidia-uvm/uvm_ioctl.h and
 * uvm_linux_ioctl.h. The choice is that of computing programs, as gVisor's nvproxy serves them
 * (google/gvisor, pkg/abi/nvgpu). What administers the device is not among them.
 *
 * /dev/nvidiactl and /dev/nvidiaN: requests _IOC(read and write, 'F', number, size of the
 * arguments), any size. The driver itself looks at the number only, whatever the type byte says, so
 * a filter must compare type and number, and refuse other types; sizes belong to the versions.
 *
 * /dev/nvidia-uvm: the request is the bare number, without direction, type and size. A filter sees
 * no descriptor, so these pass on all of them: ordinary files and sockets know none of these
 * numbers.
 *
 * Thread: any; constants only. */
#ifndef AGENT_CELL_GPU_IOCTLS_H
#define AGENT_CELL_GPU_IOCTLS_H

#define GPU_IOCTL_TYPE 0x46 /* 'F' */

/* X(name, number) */
#define GPU_IOCTLS(X)                                                                              \
    X(RM_ALLOC_MEMORY, 0x27)                                                                       \
    X(RM_FREE, 0x29)                                                                               \
    X(RM_CONTROL, 0x2A)                                                                            \
    X(RM_ALLOC, 0x2B)                                                                              \
    X(RM_DUP_OBJECT, 0x34)                                                                         \
    X(RM_SHARE, 0x35)                                                                              \
    X(RM_IDLE_CHANNELS, 0x41)                                                                      \
    X(RM_VID_HEAP_CONTROL, 0x4A)                                                                   \
    X(RM_MAP_MEMORY, 0x4E)                                                                         \
    X(RM_UNMAP_MEMORY, 0x4F)                                                                       \
    X(RM_ALLOC_CONTEXT_DMA2, 0x54)                                                                 \
    X(RM_MAP_MEMORY_DMA, 0x57)                                                                     \
    X(RM_UNMAP_MEMORY_DMA, 0x58)                                                                   \
    X(RM_UPDATE_DEVICE_MAPPING_INFO, 0x5E)                                                         \
    X(CARD_INFO, 200)                                                                              \
    X(REGISTER_FD, 201)                                                                            \
    X(ALLOC_OS_EVENT, 206)                                                                         \
    X(FREE_OS_EVENT, 207)                                                                          \
    X(CHECK_VERSION_STR, 210)                                                                      \
    X(ATTACH_GPUS_TO_FD, 212)                                                                      \
    X(SYS_PARAMS, 214)                                                                             \
    X(NUMA_INFO, 215)                                                                              \
    X(WAIT_OPEN_COMPLETE, 218)

/* X(name, request) */
#define GPU_UVM_IOCTLS(X)                                                                          \
    X(UVM_INITIALIZE, 0x30000001)                                                                  \
    X(UVM_DEINITIALIZE, 0x30000002)                                                                \
    X(UVM_CREATE_RANGE_GROUP, 23)                                                                  \
    X(UVM_DESTROY_RANGE_GROUP, 24)                                                                 \
    X(UVM_REGISTER_GPU_VASPACE, 25)                                                                \
    X(UVM_UNREGISTER_GPU_VASPACE, 26)                                                              \
    X(UVM_REGISTER_CHANNEL, 27)                                                                    \
    X(UVM_UNREGISTER_CHANNEL, 28)                                                                  \
    X(UVM_MAP_EXTERNAL_ALLOCATION, 33)                                                             \
    X(UVM_FREE, 34)                                                                                \
    X(UVM_REGISTER_GPU, 37)                                                                        \
    X(UVM_UNREGISTER_GPU, 38)                                                                      \
    X(UVM_PAGEABLE_MEM_ACCESS, 39)                                                                 \
    X(UVM_SET_PREFERRED_LOCATION, 42)                                                              \
    X(UVM_DISABLE_READ_DUPLICATION, 45)                                                            \
    X(UVM_MAP_DYNAMIC_PARALLELISM_REGION, 65)                                                      \
    X(UVM_ALLOC_SEMAPHORE_POOL, 68)                                                                \
    X(UVM_VALIDATE_VA_RANGE, 72)                                                                   \
    X(UVM_CREATE_EXTERNAL_RANGE, 73)                                                               \
    X(UVM_MM_INITIALIZE, 75)

#endif
