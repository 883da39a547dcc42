#!/usr/bin/env python3
"""Durable spawns acknowledged per second, beside etcd and beside the disk, in one run.

    tests/bench/spawn_bench.py BUILD [--seconds N] [--outstanding 1,64,1024] [--folder DIR] [--only skep|etcd|floor]

Prints `name value unit` lines. All data is in DIR (default: the temporary folder), which should be on a real disk.
skep_N_*    three schedulers with mutual TLS and one cordoned agent: 256-byte payloads, N outstanding over one connection
etcd_N_*    three members without TLS, default settings: puts of 256 bytes over gRPC, N outstanding, at most 64 on a connection
floor_*     a loop of pwrite(256) and fdatasync in a file that has been written before; floor_N_*: N records for each sync
*_cpu_us    processor time of the servers (and the client) for each acknowledged one
"""
import argparse
import os
import tempfile

from benchlib import Cluster, cpu_seconds, folder, listening, processes, run, show, wait_for
from cluster import free_ports, numbers

PAYLOAD = 256


def report(name, values, cpu=None):
    for key in ("acknowledged_rate", "acknowledged_p50", "acknowledged_p99"):
        unit = "/s" if key.endswith("rate") else "us"
        show(f"{name}_{key.removeprefix('acknowledged_')}", values[key], unit)
    if cpu is not None:
        show(f"{name}_cpu_us", cpu * 1e6 / max(values["acknowledged"], 1), "us")


def skep(options):
    with Cluster(options.build, options.folder) as cluster:
        cluster.skep("node", "cordon", "n1")
        cluster.skep("node", "drain", "n1")
        pids = list(cluster.daemons().values())
        for outstanding in options.outstanding:
            before = cpu_seconds(pids)
            values = cluster.load("--mode", "spawn", "--outstanding", outstanding, "--seconds", options.seconds, "--payload", PAYLOAD)
            report(f"skep_{outstanding}", values, cpu_seconds(pids) - before)
            show(f"skep_{outstanding}_client_cpu_us", values["client_cpu"], "us")
            show(f"skep_{outstanding}_limited", values["limited"], "count")


def etcd(options):
    if not os.path.exists("/usr/bin/etcd"):
        print("# etcd-server is not installed: no peer")
        return
    ports = free_ports(6)
    clients, peers = ports[:3], ports[3:]
    cluster = ",".join(f"m{i}=http://127.0.0.1:{peers[i]}" for i in range(3))
    with folder(options.folder) as path:
        commands = [
            ["/usr/bin/etcd", "--name", f"m{i}", "--data-dir", f"{path}/m{i}", "--initial-cluster", cluster,
             "--initial-advertise-peer-urls", f"http://127.0.0.1:{peers[i]}", "--listen-peer-urls", f"http://127.0.0.1:{peers[i]}",
             "--advertise-client-urls", f"http://127.0.0.1:{clients[i]}", "--listen-client-urls",
             f"http://127.0.0.1:{clients[i]}", "--logger", "zap", "--log-level", "error"]
            for i in range(3)
        ]
        with processes(*commands, log=f"{path}/log") as members:
            endpoints = ",".join(f"127.0.0.1:{port}" for port in clients)
            env = dict(os.environ, ETCDCTL_API="3")
            wait_for(lambda: all(map(listening, clients)), "etcd listens")
            wait_for(lambda: "leader" in run(["etcdctl", "--endpoints", endpoints, "endpoint", "status", "-w", "json"], env=env,
                                             check=False), "etcd has a leader")
            for outstanding in options.outstanding:
                pids = [m.pid for m in members]
                before = cpu_seconds(pids)
                text = run([f"{options.build}/bin/etcd_load", outstanding, options.seconds, PAYLOAD, *clients])
                report(f"etcd_{outstanding}", numbers(text), cpu_seconds(pids) - before)


def floor(options):
    with folder(options.folder) as path:
        for batch in sorted({1, *options.outstanding}):
            text = run([f"{options.build}/bin/sync_floor", path, min(options.seconds, 5), PAYLOAD, batch])
            report("floor" if batch == 1 else f"floor_{batch}", numbers(text))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--outstanding", type=lambda text: [int(n) for n in text.split(",")], default=[1, 64, 1024])
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--only", choices=("floor", "skep", "etcd"))
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    print(f"# load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    for name, part in (("floor", floor), ("skep", skep), ("etcd", etcd)):
        if options.only in (None, name):
            part(options)


if __name__ == "__main__":
    main()
