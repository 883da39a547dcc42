"""What the benchmarks of durable work share: a development cluster of its own, peers' processes, and small tools."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

POLL_SECONDS = 0.05


def run(args, env=None, timeout=600, check=True):
    done = subprocess.run([str(a) for a in args], env=env, timeout=timeout, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def numbers(text):
    """The `name value unit` lines of a tool."""
    return {parts[0]: float(parts[1]) for parts in map(str.split, text.splitlines()) if len(parts) == 3 and parts[0] != "#"}


def show(name, value, unit):
    print(f"{name} {value:.0f} {unit}" if value >= 100 or value == int(value) else f"{name} {value:.2f} {unit}", flush=True)


def wait_for(condition, what, seconds=60):
    until = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > until:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(POLL_SECONDS)  # lint: allow sleep-in-test: between two looks at the condition


def free_ports(count):
    """Ports of 127.0.0.1 that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def listening(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def cpu_seconds(pids):
    """User and system time of the processes so far."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def folder(parent):
    path = tempfile.mkdtemp(prefix="skep-bench-", dir=parent)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def processes(*commands, log, env=None):
    """Runs commands, each a process group, until the block ends, and kills them then."""
    started = []
    try:
        with open(log, "ab") as out:
            for command in commands:
                started.append(subprocess.Popen([str(a) for a in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                                env=env, start_new_session=True))
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a start script has started too
        for process in started:
            process.wait()


class Cluster:
    """skep dev in a folder of its own, with the echo function deployed."""

    def __init__(self, build, parent=None, schedulers=3, agents=1):
        self.build = os.path.abspath(build)
        self.parent, self.schedulers, self.agents = parent, schedulers, agents

    def __enter__(self):
        if os.geteuid() != 0:
            print("SKIP bench: cells need root")
            sys.exit(77)
        self.path = tempfile.mkdtemp(prefix="skep-bench-", dir=self.parent)
        self.data = os.path.join(self.path, "dev")
        self.contexts = os.path.join(self.path, "contexts.yaml")
        self.env = dict(os.environ, SKEP_CONTEXTS=self.contexts)
        try:
            self.skep("dev", "--schedulers", self.schedulers, "--agents", self.agents, "--data", self.data, "--detach")
            self.skep("deploy", os.path.join(self.build, "tests/bench/echo_function"))
            self.skep("call", "echo", "--data", "x")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.skep("dev", "stop", "--data", self.data, check=False)
        shutil.rmtree(self.path, ignore_errors=True)

    def skep(self, *args, check=True, timeout=600):
        return run([os.path.join(self.build, "bin/skep"), *args], self.env, timeout, check)

    def load(self, *options):
        """Runs spawn_load and returns its numbers; ends the benchmark when it failed."""
        args = [os.path.join(self.build, "bin/spawn_load"), "--contexts", self.contexts, "--function", "echo", *options]
        return numbers(run(args, self.env))

    def start_load(self, *options):
        args = [os.path.join(self.build, "bin/spawn_load"), "--contexts", self.contexts, "--function", "echo", *options]
        return subprocess.Popen([str(a) for a in args], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)

    def daemons(self):
        """{name: process id}"""
        with open(os.path.join(self.data, "dev.state"), encoding="ascii") as f:
            return {row.split()[1]: int(row.split()[2]) for row in f}

    def leader(self):
        """The leader's name; "" while there is none."""
        text = self.skep("cluster", "status", "-o", "json", check=False)
        rows = json.loads(text) if text.strip() else []
        return next((row["name"] for row in rows if row["leader"]), "")

    def metric(self, scheduler, name):
        """A metric's value at a scheduler; None when it cannot be asked."""
        for line in self.skep("metrics", scheduler, check=False).splitlines():
            if line.split(" ")[0] == name:
                return float(line.split()[1])
        return None

    def start_scheduler(self, name):
        """Starts a scheduler that has ended again; returns its process. Known to skep dev stop."""
        path = os.path.join(self.data, name)
        with open(os.path.join(path, "log"), "ab") as log:
            args = [os.path.join(self.build, "bin/skep-scheduler"), "--config", os.path.join(path, "config.yaml")]
            process = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.register("scheduler", name, process.pid)
        return process

    def register(self, kind, name, pid):
        """Makes a daemon known to skep dev stop, in place of the one of that name."""
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            started = f.read().rpartition(")")[2].split()[19]
        state = os.path.join(self.data, "dev.state")
        with open(state, encoding="ascii") as f:
            rows = [row for row in f if row.split()[1] != name]
        with open(state, "w", encoding="ascii") as f:
            f.writelines(rows + [f"{kind} {name} {pid} {started} 0\n"])
