"""What the benchmarks share: a development cluster (tests/lib/cluster.py), peers' processes, and small tools."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

# pylint: disable=wrong-import-position
import cluster  # noqa: E402
from cluster import numbers, spawn  # noqa: E402

SECONDS = 60  # for what takes long on a busy machine
COMMAND_SECONDS = 600


def wait_for(condition, what, seconds=SECONDS):
    return cluster.wait_for(condition, what, seconds)


def run(args, timeout=COMMAND_SECONDS, check=True, **options):
    """What a command prints; ends the benchmark when it failed."""
    done = cluster.run(args, timeout, **options)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}: exit {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}")
    return done.stdout.decode()


def show(name, value, unit):
    print(f"{name} {value:.0f} {unit}" if value >= 100 or value == int(value) else f"{name} {value:.2f} {unit}", flush=True)


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
                started.append(spawn(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, start_new_session=True))
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # what a start script has started too
        for process in started:
            process.wait()


class Cluster(cluster.Cluster):
    """skep dev with the echo function deployed, for a block; what it leaves behind is a failure."""

    def __init__(self, build, parent=None, schedulers=3, agents=1):
        self.build = os.path.abspath(build)
        super().__init__(schedulers, agents, os.path.join(self.build, "bin"), parent)

    def __enter__(self):
        if os.geteuid() != 0:
            self.remove()
            print("SKIP bench: cells need root")
            sys.exit(77)
        try:
            self.start()
            self.skep("deploy", os.path.join(self.build, "tests/bench/echo_function"))
            self.call("echo", "x")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, failed, *_):
        if failed is None:
            self.stop()
        else:
            print(self.logs(), file=sys.stderr)
            self.remove()

    def skep(self, *args, timeout=COMMAND_SECONDS, **options):
        return super().skep(*args, timeout=timeout, **options)

    def _load(self, options):
        return [os.path.join(self.programs, "spawn_load"), "--contexts", self.contexts, "--function", "echo", *options]

    def load(self, *options):
        """Runs spawn_load and returns its numbers; ends the benchmark when it failed."""
        return numbers(run(self._load(options)))

    def start_load(self, *options):
        return spawn(self._load(options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def check_load(self, keys, journal, *options):
        """Asks for all that a load was promised, and returns the numbers; ends the benchmark when it was promised nothing."""
        values = self.load("--mode", "check", "--keys", keys, "--journal", journal, "--outstanding", 64, *options)
        if values["promised"] == 0:
            sys.exit("nothing was promised: there is nothing to lose")
        return values

    def daemons(self):
        """{name: process id}"""
        return {row[1]: int(row[2]) for row in self._state()}
