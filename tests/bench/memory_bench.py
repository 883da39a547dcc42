#!/usr/bin/env python3
"""A long queue: memory, and the time of a state snapshot, of a restart, and of a new scheduler's catch-up.

    tests/bench/memory_bench.py BUILD [--count N] [--folder DIR]          N: 10000; by hand 1000000

Three schedulers and a cordoned, drained agent: N invocations with payloads of 256 bytes wait. Prints memory_* lines:
spawned_per_s, rss_bytes_each (of each scheduler: its growth over N), restart_ms (SIGKILL of a follower; from its start until it
has applied all that the leader had then), catch_up_ms (a fourth scheduler, from `cluster add` until it has applied all), and
what the schedulers' metrics tell of snapshots.
"""
import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from benchlib import Cluster, free_ports, rss_bytes, show, wait_for

APPLIED = "skep_raft_applied_index"


def applied_all(cluster, name, wanted):
    return (cluster.metric(name, APPLIED) or 0) >= wanted


def restart(cluster, leader, seconds):
    name = next(n for n in cluster.daemons() if n.startswith("s") and n != leader)
    wanted = cluster.metric(leader, APPLIED)
    pid = cluster.daemons()[name]
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not os.path.exists(f"/proc/{pid}") or _state(pid) in "ZX", f"{name} ended")
    at = time.monotonic()
    process = cluster.start_scheduler(name)
    wait_for(lambda: applied_all(cluster, name, wanted), f"{name} has applied {wanted:.0f}", seconds)
    return process, (time.monotonic() - at) * 1000


def _state(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def catch_up(cluster, leader, seconds):
    """A fourth scheduler joins with a token."""
    path = os.path.join(cluster.data, "s4")
    os.makedirs(path)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    token = os.path.join(path, "token")
    with open(token, "w", encoding="ascii") as f:
        f.write(cluster.skep("ca", "token", "--role", "scheduler", "--name", "s4"))
    program = os.path.join(cluster.build, "bin/skep-scheduler")
    subprocess.run([program, "join", "--token-file", token, "--name", "s4", "--address", address, "--data", f"{path}/data",
                    "--config-out", f"{path}/config.yaml"], check=True, capture_output=True)
    with open(f"{path}/config.yaml", "a+", encoding="ascii") as f:
        f.seek(0)
        if "seal:" not in f.read():
            f.write(f'seal: {{cluster_key: "file:{cluster.data}/cluster.key"}}\n')
    process = cluster.start_scheduler("s4")
    wanted = cluster.metric(leader, APPLIED)
    at = time.monotonic()
    # On a machine with other load the leader may lose patience or its office; the command says so, and is given again.
    wait_for(lambda: "added" in cluster.skep("cluster", "add", "s4", "--address", address, check=False, timeout=seconds)
             or applied_all(cluster, "s4", wanted), "s4 is added", seconds)
    wait_for(lambda: applied_all(cluster, "s4", wanted), f"s4 has applied {wanted:.0f}", seconds)
    return process, (time.monotonic() - at) * 1000


def snapshots(cluster, leader):
    """The metrics that speak of snapshots, of the leader."""
    for line in cluster.skep("metrics", leader).splitlines():
        found = re.match(r"skep_(raft_\w*snapshot\w*)(?:\{[^}]*\})? ([0-9.e+-]+)$", line)
        if found:
            show(f"memory_{found.group(1)}", float(found.group(2)), "value")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    print(f"# load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    seconds = 120 + options.count // 2000
    with Cluster(options.build, options.folder) as cluster:
        cluster.skep("node", "cordon", "n1")
        cluster.skep("node", "drain", "n1")
        schedulers = {name: pid for name, pid in cluster.daemons().items() if name.startswith("s")}
        before = {name: rss_bytes(pid) for name, pid in schedulers.items()}
        values = cluster.load("--mode", "spawn", "--outstanding", 1024, "--count", options.count, "--payload", 256)
        leader = wait_for(cluster.leader, "a leader")
        wait_for(lambda: all(applied_all(cluster, n, options.count) for n in schedulers), "all have applied", seconds)
        show("memory_queued", cluster.metric(leader, "skep_durable_queued") or 0, "count")
        show("memory_spawned_per_s", values["acknowledged_rate"], "/s")
        for name, pid in schedulers.items():
            show(f"memory_{name}_rss_bytes_each", (rss_bytes(pid) - before[name]) / options.count, "bytes")
        snapshots(cluster, leader)
        first, took = restart(cluster, leader, seconds)
        show("memory_restart_ms", took, "ms")
        second, took = catch_up(cluster, leader, seconds)
        show("memory_catch_up_ms", took, "ms")
        queued = cluster.metric("s4", "skep_durable_queued") or 0
        show("memory_s4_queued", queued, "count")
    for process in (first, second):
        process.wait()
    if queued != options.count:
        sys.exit(f"the fourth scheduler has {queued:.0f} queued, not {options.count}")


if __name__ == "__main__":
    main()
