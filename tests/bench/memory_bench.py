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
import sys
import tempfile
import time

from benchlib import Cluster, rss_bytes, run, show, wait_for
from cluster import free_ports

APPLIED = "skep_raft_applied_index"


def applied_all(cluster, name, wanted):
    return cluster.metric(APPLIED, name, check=False) >= wanted


def restart(cluster, leader, seconds):
    name = next(n for n in cluster.daemons() if n.startswith("s") and n != leader)
    wanted = cluster.metric(APPLIED, leader)
    cluster.kill(name)
    at = time.monotonic()
    cluster.restart(name)
    wait_for(lambda: applied_all(cluster, name, wanted), f"{name} has applied {wanted:.0f}", seconds)
    return (time.monotonic() - at) * 1000


def catch_up(cluster, leader, seconds):
    """A fourth scheduler joins with a token."""
    path = os.path.join(cluster.data, "s4")
    os.makedirs(path)
    port = free_ports(1)[0]
    address = f"127.0.0.1:{port}"
    token = cluster.skep("ca", "token", "--role", "scheduler", "--name", "s4").stdout
    run([os.path.join(cluster.programs, "skep-scheduler"), "join", "--token-file", "-", "--name", "s4", "--address", address,
         "--data", f"{path}/data", "--config-out", f"{path}/config.yaml",
         "--cluster-key", f"file:{cluster.data}/cluster.key"], input=token)
    cluster.adopt("scheduler", "s4", cluster.spawn_daemon("scheduler", "s4"), port)
    wanted = cluster.metric(APPLIED, leader)
    at = time.monotonic()
    # On a machine with other load the leader may lose patience or its office; the command says so, and is given again.
    wait_for(lambda: b"added" in cluster.skep("cluster", "add", "s4", "--address", address, check=False, timeout=seconds).stdout
             or applied_all(cluster, "s4", wanted), "s4 is added", seconds)
    wait_for(lambda: applied_all(cluster, "s4", wanted), f"s4 has applied {wanted:.0f}", seconds)
    return (time.monotonic() - at) * 1000


def snapshots(cluster, leader):
    """The metrics that speak of snapshots, of the leader."""
    for line in cluster.skep("metrics", leader).stdout.decode().splitlines():
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
        show("memory_queued", cluster.metric("skep_durable_queued", leader), "count")
        show("memory_spawned_per_s", values["acknowledged_rate"], "/s")
        for name, pid in schedulers.items():
            show(f"memory_{name}_rss_bytes_each", (rss_bytes(pid) - before[name]) / options.count, "bytes")
        snapshots(cluster, leader)
        show("memory_restart_ms", restart(cluster, leader, seconds), "ms")
        show("memory_catch_up_ms", catch_up(cluster, leader, seconds), "ms")
        queued = cluster.metric("skep_durable_queued", "s4")
        show("memory_s4_queued", queued, "count")
    if queued != options.count:
        sys.exit(f"the fourth scheduler has {queued:.0f} queued, not {options.count}")


if __name__ == "__main__":
    main()
