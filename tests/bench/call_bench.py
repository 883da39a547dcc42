#!/usr/bin/env python3
"""Warm calls through the whole path (client, scheduler, agent, instance and back), beside a floor and a peer in the same run.

    tests/bench/call_bench.py BUILD [--seconds N]

Prints `name value unit` lines: skep_* of a development cluster with one scheduler and one agent and the C runner, floor_* of a raw
libuv and OpenSSL TLS 1.3 chain with as many hops, gearman_* of gearmand (no TLS, one hop less), with 1 and 64 calls outstanding and
256-byte payloads. CPU is of all processes of the path, per call.
"""
import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time


def run(args, env=None, timeout=120):
    done = subprocess.run(args, env=env, timeout=timeout, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def cpu_us(pids):
    """User and system time of the processes, in microseconds."""
    ticks = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="ascii") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        except (FileNotFoundError, ProcessLookupError):
            pass
    return ticks * 1_000_000 / os.sysconf("SC_CLK_TCK")


def processes(needle):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if needle in f.read().decode(errors="replace"):
                    found.append(int(pid))
        except OSError:
            pass
    return found


def skep(build, seconds):
    with tempfile.TemporaryDirectory(prefix="skep-bench-") as folder:
        env = dict(os.environ, SKEP_CONTEXTS=f"{folder}/contexts.yaml")
        program = f"{build}/bin/skep"
        data = f"{folder}/dev"
        run([program, "dev", "--data", data, "--detach"], env)
        try:
            run([program, "deploy", f"{build}/tests/bench/echo_function"], env)
            run([program, "call", "echo", "--data", "x"], env)
            for outstanding in (1, 64):
                pids = processes(data) + processes("/app/./echo") + processes("/app/echo")
                before = cpu_us(pids)
                text = run([program, "bench", "call", "echo", "--concurrency", str(outstanding), "--duration",
                            f"{seconds}s"], env)
                used = cpu_us(pids) - before
                values = dict(line.split()[:2] for line in text.splitlines() if len(line.split()) == 3)
                calls = float(values["calls"])
                print(f"skep_{outstanding}_p50_us {values['p50']} us")
                print(f"skep_{outstanding}_p99_us {values['p99']} us")
                print(f"skep_{outstanding}_calls_per_s {values['rate']} calls/s")
                print(f"skep_{outstanding}_failed {values['failed']} count")
                print(f"skep_{outstanding}_cpu_us_per_call {used / calls + float(values['client_cpu']):.1f} us")
                sys.stdout.flush()
        finally:
            run([program, "dev", "stop", "--data", data], env)


def floor(build, seconds):
    for outstanding in (1, 64):
        text = run([f"{build}/bin/link_floor", "--outstanding", str(outstanding), "--seconds", str(seconds)])
        for line in text.splitlines():
            if line.startswith("floor_"):
                print(line.replace("floor_", f"floor_{outstanding}_", 1))
        sys.stdout.flush()


def gearman(build, seconds):
    if not os.path.exists("/usr/sbin/gearmand") or not os.path.exists(f"{build}/bin/gearman_peer"):
        print("# gearmand is not installed: no peer")
        return
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="skep-bench-") as folder:
        server = subprocess.Popen(["/usr/sbin/gearmand", "-L", "127.0.0.1", "-p", str(port), "-t", "2", "-l",
                                   f"{folder}/log", "-P", f"{folder}/pid"])
        try:
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with socket.socket() as s:
                    if s.connect_ex(("127.0.0.1", port)) == 0:
                        break
            for outstanding in (1, 64):
                text = run([f"{build}/bin/gearman_peer", str(port), str(outstanding), str(seconds)])
                print(text.replace("gearman_", f"gearman_{outstanding}_"), end="")
                sys.stdout.flush()
        finally:
            server.kill()
            server.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--only", choices=("skep", "floor", "gearman"))
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    for name, part in (("floor", floor), ("skep", skep), ("gearman", gearman)):
        if options.only in (None, name):
            part(build, options.seconds)


if __name__ == "__main__":
    main()
