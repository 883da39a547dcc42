#!/usr/bin/env python3
"""From spawn to completion, beside durable queues of other systems, in one run.

    tests/bench/finish_bench.py BUILD [--seconds N] [--clients N] [--folder DIR] [--only skep|redis|beanstalkd|rabbitmq]

Prints `name value unit` lines. All data is in DIR (default: the temporary folder), which should be on a real disk.
skep_N_*    three schedulers and one agent, mutual TLS, a C function that does nothing (echo): N spawns of 256 bytes on their way, each
            from its spawn until its outcome is known to the client; afterwards all that was acknowledged is asked for again
redis_*     redis-server, appendfsync always: LPUSH, BRPOPLPUSH, LPUSH of the result, LREM; N clients, 4 workers, no TLS, one node
beanstalkd_*  beanstalkd -b -f0, likewise
rabbitmq_*  rabbitmq-server, durable queues, persistent messages, publisher confirms, likewise
"""
import argparse
import os
import tempfile

from benchlib import Cluster, cpu_seconds, folder, listening, processes, run, show, wait_for
from cluster import free_ports, numbers

PAYLOAD = 256
WORKERS = 4
RABBIT = "/usr/lib/rabbitmq/bin/rabbitmq-server"
SETTLE_SECONDS = 120


def report(name, values):
    show(f"{name}_finished_rate", values["finished_rate"], "/s")
    show(f"{name}_finished_p50", values["finished_p50"], "us")
    show(f"{name}_finished_p99", values["finished_p99"], "us")


def skep(options):
    name = f"skep_{options.clients}"
    with Cluster(options.build, options.folder) as cluster:
        journal = os.path.join(cluster.folder, "journal")
        common = ["--keys", "finish", "--journal", journal, "--payload", PAYLOAD]
        pids = list(cluster.daemons().values())
        before = cpu_seconds(pids)
        values = cluster.load("--mode", "finish", "--outstanding", options.clients, "--seconds", options.seconds, *common)
        used = cpu_seconds(pids) - before
        checked = cluster.check_load("finish", journal, "--payload", PAYLOAD)
        report(name, values)
        show(f"{name}_cpu_us", used * 1e6 / max(values["finished"], 1), "us")
        show(f"{name}_client_cpu_us", values["client_cpu"], "us")
        show(f"{name}_acknowledged", checked["promised"], "count")
        show(f"{name}_lost", checked["missing"] + checked["open"] + checked["dead"], "count")


def peer(options, name, port):
    report(f"{name}_{options.clients}",
           numbers(run([f"{options.build}/bin/queue_peers", name, port, options.clients, WORKERS, options.seconds, PAYLOAD])))


def lacks(program, package):
    if os.path.exists(program):
        return False
    print(f"# {package} is not installed: no peer")
    return True


def redis(options):
    if lacks("/usr/bin/redis-server", "redis-server"):
        return
    port = free_ports(1)[0]
    with folder(options.folder) as path:
        command = ["/usr/bin/redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", path, "--appendonly", "yes",
                   "--appendfsync", "always", "--save", ""]
        with processes(command, log=f"{path}/log"):
            wait_for(lambda: listening(port), "redis listens")
            peer(options, "redis", port)


def beanstalkd(options):
    if lacks("/usr/bin/beanstalkd", "beanstalkd"):
        return
    port = free_ports(1)[0]
    with folder(options.folder) as path:
        with processes(["/usr/bin/beanstalkd", "-l", "127.0.0.1", "-p", port, "-b", path, "-f0"], log=f"{path}/log"):
            wait_for(lambda: listening(port), "beanstalkd listens")
            peer(options, "beanstalkd", port)


def rabbitmq(options):
    if lacks(RABBIT, "rabbitmq-server"):
        return
    port, epmd, distribution = free_ports(3)
    with folder(options.folder) as path:
        env = dict(os.environ, HOME=path, ERL_EPMD_PORT=str(epmd), ERL_EPMD_ADDRESS="127.0.0.1", RABBITMQ_NODENAME="bench@localhost",
                   RABBITMQ_NODE_IP_ADDRESS="127.0.0.1", RABBITMQ_NODE_PORT=str(port), RABBITMQ_DIST_PORT=str(distribution),
                   RABBITMQ_MNESIA_BASE=f"{path}/data", RABBITMQ_LOG_BASE=f"{path}/logs", RABBITMQ_CONFIG_FILE=f"{path}/none",
                   RABBITMQ_ENABLED_PLUGINS_FILE=f"{path}/plugins", RABBITMQ_PID_FILE=f"{path}/pid")
        # The name server is started here, so that the node does not start one that outlives it.
        with processes(["/usr/bin/epmd", "-port", epmd, "-address", "127.0.0.1"], log=f"{path}/log", env=env):
            wait_for(lambda: listening(epmd), "epmd listens")
            with processes([RABBIT], log=f"{path}/log", env=env):
                wait_for(lambda: listening(port), "rabbitmq listens", SETTLE_SECONDS)
                peer(options, "rabbitmq", port)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parts = {"skep": skep, "redis": redis, "beanstalkd": beanstalkd, "rabbitmq": rabbitmq}
    parser.add_argument("--only", choices=parts)
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    print(f"# load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    for name, part in parts.items():
        if options.only in (None, name):
            part(options)


if __name__ == "__main__":
    main()
