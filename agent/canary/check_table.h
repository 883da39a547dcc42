/* Every check of the canary, a row each: X(function, "name", "what it tries"). The canary runs them
 * in this order, the agent expects an answer for each, and docs/isolation.md lists the same (a test
 * compares them). A name is never used again for something else: operators and alerts know it. */
#ifndef AGENT_CANARY_CHECK_TABLE_H
#define AGENT_CANARY_CHECK_TABLE_H

#define CANARY_CHECKS(X)                                                                           \
    /* Files of the host. */                                                                       \
    X(host_file, "host-file", "reads a bait file of the host by its path, also with .. in front")  \
    X(host_file_root, "host-file-root",                                                            \
      "the same through /proc/PID/root of every process it sees")                                  \
    X(host_file_cwd, "host-file-cwd", "the same through /proc/PID/cwd and ..")                     \
    X(host_file_link, "host-file-link", "the same through symbolic links of its own")              \
    X(host_file_handle, "host-file-handle", "opens files by handle, past all paths")               \
    X(leaked_descriptors, "leaked-descriptors", "looks for open descriptors it was not given")     \
    X(root_writable, "root-writable", "makes a file in /, /usr, /etc and /app")                    \
    X(tmp_flags, "tmp-flags", "looks whether /tmp and /dev/shm allow programs or devices")         \
    X(set_uid_files, "set-uid-files",                                                              \
      "looks for set-uid programs on a file system that heeds them")                               \
    /* Another cell of the node. */                                                                \
    X(other_file, "other-cell-file", "reads a bait file in another cell's /tmp and /dev/shm")      \
    X(other_process, "other-cell-process", "looks for another cell's process")                     \
    X(other_memory, "other-cell-memory", "reads another cell's memory")                            \
    X(other_socket, "other-cell-socket", "connects to another cell's abstract socket")             \
    X(other_port, "other-cell-port", "connects to another cell's port on 127.0.0.1")               \
    /* The agent and the host's processes. */                                                      \
    X(agent_process, "agent-process", "looks for the agent's process")                             \
    X(agent_memory, "agent-memory", "reads the agent's memory with process_vm_readv")              \
    X(agent_memory_file, "agent-memory-file", "reads the agent's memory through /proc/PID/mem")    \
    X(agent_descriptors, "agent-descriptors", "takes a descriptor of the agent with pidfd_getfd")  \
    X(processes_visible, "processes-visible", "counts processes that are not of its cell")         \
    X(trace_agent, "trace-agent", "attaches to the agent as a debugger")                           \
    X(trace, "trace", "calls ptrace at all")                                                       \
    X(shared_memory, "shared-memory", "attaches a bait segment of the host's shared memory")       \
    /* The network. */                                                                             \
    X(host_socket, "host-socket", "connects to a bait abstract socket of the host")                \
    X(host_port, "host-port", "connects to a bait port on the host's 127.0.0.1")                   \
    X(scheduler_ports, "scheduler-ports", "connects to the schedulers' ports")                     \
    X(metadata_address, "metadata-address", "connects to 169.254.169.254, the clouds' metadata")   \
    X(interfaces, "network-interfaces", "looks for interfaces other than loopback")                \
    X(raw_sockets, "raw-sockets", "opens raw IPv4 and IPv6 sockets")                               \
    X(packet_sockets, "packet-sockets", "opens packet sockets")                                    \
    X(netlink_sockets, "netlink-sockets", "opens netlink sockets")                                 \
    X(other_sockets, "other-sockets", "opens vsock, alg, xdp, can, bluetooth and other sockets")   \
    /* Namespaces and mounts. */                                                                   \
    X(user_namespaces, "user-namespaces", "makes a user namespace")                                \
    X(namespaces, "namespaces", "makes mount, net, pid, ipc, uts and cgroup namespaces")           \
    X(join_namespaces, "join-namespaces", "joins namespaces of the processes it sees")             \
    X(mounts, "mounts", "mounts, binds, remounts and unmounts")                                    \
    X(mount_files, "mount-files", "opens file systems with fsopen and open_tree")                  \
    X(change_root, "change-root", "calls chroot")                                                  \
    X(host_name, "host-name", "sets the host's name")                                              \
    /* Interfaces of the kernel. */                                                                \
    X(bpf, "bpf", "makes a BPF map")                                                               \
    X(perf, "perf", "opens a perf event")                                                          \
    X(io_uring, "io-uring", "makes an io_uring")                                                   \
    X(userfault, "userfaultfd", "makes a userfaultfd")                                             \
    X(host_key, "host-key", "reads a bait key of the host's kernel keyring")                       \
    X(keyrings, "keyrings", "uses kernel keyrings at all")                                         \
    X(kernel_modules, "kernel-modules", "loads a kernel module")                                   \
    X(kexec, "kexec", "loads another kernel")                                                      \
    X(kernel_log, "kernel-log", "reads the kernel's log")                                          \
    X(swap, "swap", "turns on swap space")                                                         \
    X(io_ports, "io-ports", "asks for the machine's I/O ports")                                    \
    X(calls_32, "32-bit-calls", "makes system calls of the i386 and x32 tables")                   \
    X(personality, "personality", "turns off address randomisation")                               \
    X(sysrq, "sysrq", "opens /proc/sysrq-trigger for writing")                                     \
    X(core_pattern, "core-pattern", "opens core_pattern, modprobe and other helpers for writing")  \
    X(cgroups, "cgroups", "opens a control group's files for writing")                             \
    /* What tells of the host. */                                                                  \
    X(proc_kallsyms, "proc-kallsyms", "opens /proc/kallsyms and /proc/modules")                    \
    X(proc_sched, "proc-sched", "opens /proc/sched_debug, schedstat and timer_list")               \
    X(proc_interrupts, "proc-interrupts",                                                          \
      "opens /proc/interrupts and softirqs, whose numbers time others")                            \
    X(proc_memory, "proc-memory", "opens /proc/kcore, kmsg, kpagecount, vmallocinfo and the like") \
    X(proc_keys, "proc-keys", "opens /proc/keys and key-users")                                    \
    X(proc_hardware, "proc-hardware", "opens /proc/iomem, ioports, diskstats and partitions")      \
    X(sys_files, "sys-files", "looks into /sys")                                                   \
    /* Devices. */                                                                                 \
    X(device_nodes, "device-nodes", "makes a device node")                                         \
    X(device_memory, "device-memory", "opens /dev/mem, kmem, port and kmsg")                       \
    X(device_control, "device-control",                                                            \
      "opens /dev/kvm, fuse, net/tun, loop-control and the like")                                  \
    X(device_disks, "device-disks", "opens block devices in /dev")                                 \
    X(device_others, "device-others", "looks for any other device in /dev")                        \
    /* Rights. */                                                                                  \
    X(become_root, "become-root", "calls setuid and setgid")                                       \
    X(uid_map, "uid-map", "looks whether its user is root outside")                                \
    X(groups, "groups", "looks for groups of the host that it is still in")                        \
    X(capabilities, "capabilities", "looks for capabilities")                                      \
    X(new_privileges, "new-privileges", "looks whether exec may give it rights")                   \
    X(system_call_filter, "system-call-filter", "looks whether it has a filter of system calls")

enum {
#define CANARY_COUNT(function, name, what) +1
    CANARY_CHECKS_COUNT = 0 CANARY_CHECKS(CANARY_COUNT),
#undef CANARY_COUNT
};

#endif
