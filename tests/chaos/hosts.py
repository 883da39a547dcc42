"""A cluster whose daemons each have a host of their own: namespace, certificate, folder, clock, and for schedulers a disk.

Everything lies in FOLDER, which is a tmpfs of the suite's own mount namespace:
    FOLDER/NAME/        config.yaml, cert.pem, key.pem, ca.crt, log, and clock where the clock can be moved
    FOLDER/NAME/data    a scheduler's is a small file system of its own, so that it can be filled
"""

import contextlib
import errno
import glob
import json
import os
import re
import signal
import subprocess

from cluster import BROKEN, DONE, _own, _own_lock, cmdline, collect_orphans, pid_alive, run, spawn, wait_for
from network import Network, command

BIN = os.environ.get("SKEP_BIN", "")
CLIENT = "c1"
PORT = 7400
DISK = "1g"  # room for what a burst leaves behind in log and snapshots, over raft.free_min
PAGE = 4096

# Preloaded before a scheduler whose clock can be moved. Only CLOCK_REALTIME moves, as on a machine whose clock is set:
# time namespaces move the other clocks and not this one.
FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), "")


class Host:
    """A daemon and the host it runs on."""

    def __init__(self, hosts, kind, name):
        self.hosts, self.kind, self.name = hosts, kind, name
        self.folder = os.path.join(hosts.folder, name)
        self.data = os.path.join(self.folder, "data")
        self.pid = 0
        self.clock = ""
        self.expected_to_end = False
        os.makedirs(self.data)
        self.address = hosts.network.add(name)

    def start(self):
        environment = dict(os.environ)
        if self.clock:
            # The library's locks are kept where it thinks they are private to a process tree: /dev/shm is our own.
            environment |= {"LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": self.clock, "FAKETIME_CACHE_DURATION": "1",
                            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
        program = os.path.join(BIN, f"skep-{self.kind}")
        args = self.hosts.network.inside(self.name, program, "--config", os.path.join(self.folder, "config.yaml"))
        with open(os.path.join(self.folder, "log"), "ab") as log:
            process = spawn(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment)
        with _own_lock:
            _own.discard(process.pid)  # collected as any orphan
            process.returncode = 0
        self.pid = process.pid
        self.expected_to_end = False

    def alive(self):
        return self.pid != 0 and pid_alive(self.pid)

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self, number=signal.SIGKILL):
        self.expected_to_end = True
        self.send_signal(number)
        wait_for(lambda: not self.alive(), f"{self.name} ended", 30)

    def log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    # -- The disk --

    def mount_disk(self):
        command("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "none", self.data)

    def fill_disk(self):
        """Leaves not one free page."""
        with open(os.path.join(self.data, "filler"), "ab") as f:
            size = 1 << 30
            while size >= PAGE:
                try:
                    os.posix_fallocate(f.fileno(), os.fstat(f.fileno()).st_size, size)
                except OSError as full:
                    if full.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def empty_disk(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.data, "filler"))

    # -- The clock --

    def set_clock(self, offset):
        """Moves the clock so many seconds from the true time; felt within a second or so."""
        temporary = f"{self.clock}.new"
        with open(temporary, "w", encoding="ascii") as f:
            f.write(f"{offset:+d}\n")
        os.rename(temporary, self.clock)


class Hosts:
    def __init__(self, folder, schedulers, agents, clocks):
        self.folder = folder
        self.network = Network()
        self.network.add(CLIENT)
        self.schedulers = [Host(self, "scheduler", f"s{i + 1}") for i in range(schedulers)]
        self.agents = [Host(self, "agent", f"n{i + 1}") for i in range(agents)]
        self.hosts = {h.name: h for h in self.schedulers + self.agents}
        self.contexts = os.path.join(folder, "contexts.yaml")
        self._prepare(clocks and FAKETIME != "")

    def _prepare(self, clocks):
        ca = os.path.join(self.folder, "ca")
        self.skep("ca", "init", "--cluster", "chaos", "--dir", ca)
        for host in self.hosts.values():
            self.skep("ca", "issue", host.kind, host.name, "--cluster", "chaos", "--dir", ca, "--out", host.folder)
        self.skep("key", "create", os.path.join(self.folder, "cluster.key"))
        user = os.path.join(self.folder, "user")
        self.skep("ca", "issue", "user", "chaos", "--cluster", "chaos", "--dir", ca, "--out", user)
        for host in self.schedulers:
            host.mount_disk()
            self._write(host, self._scheduler(host, ca))
        for host in self.agents:
            self._write(host, self._agent(host))
        addresses = ", ".join(f'"{h.address}:{PORT}"' for h in self.schedulers)
        with open(self.contexts, "w", encoding="ascii", opener=_private) as f:
            f.write(f"current: chaos\ncontexts:\n  - {{name: chaos, schedulers: [{addresses}], ca: {user}/ca.crt, "
                    f"cert: {user}/cert.pem, key: {user}/key.pem}}\n")
        if clocks:
            self.schedulers[0].clock = os.path.join(self.schedulers[0].folder, "clock")
            self.schedulers[0].set_clock(0)

    def _write(self, host, text):
        text += f"data: {host.data}\nca: {host.folder}/ca.crt\ncert: {host.folder}/cert.pem\nkey: {host.folder}/key.pem\n"
        with open(os.path.join(host.folder, "config.yaml"), "w", encoding="ascii") as f:
            f.write(text)

    def _scheduler(self, host, ca):
        peers = "".join(f'  - {{id: {h.name}, address: "{h.address}:{PORT}"}}\n' for h in self.schedulers)
        return (f"cluster: chaos\nid: {host.name}\nlisten: {host.address}:{PORT}\nca_key: {ca}/ca.key\n"
                f"seal: {{cluster_key: \"file:{self.folder}/cluster.key\"}}\nlimits: {{chunks: 16Mi}}\npeers:\n{peers}")

    def _agent(self, host):
        addresses = "".join(f'  - "{h.address}:{PORT}"\n' for h in self.schedulers)
        return (f"cluster: chaos\nname: {host.name}\ncapacity: {{cpu: 1, memory: 512Mi}}\ncells: {{cgroup: off}}\n"
                f"schedulers:\n{addresses}")

    def start(self):
        for host in self.hosts.values():
            host.start()
        wait_for(self.healthy, "a leader, and all nodes ready", 60)

    def stop(self):
        """Ends everything as an operator would."""
        for host in self.agents:
            host.kill(signal.SIGTERM)
            run([os.path.join(BIN, "skep-agent"), "stop-instances", "--data", host.data])
        for host in self.schedulers:
            host.kill(signal.SIGKILL)
        collect_orphans()

    # -- The command line, from the client's host --

    def skep(self, *args, check=True, timeout=60):
        result = run(self.network.inside(CLIENT, os.path.join(BIN, "skep"), *args), timeout=timeout,
                     env={**os.environ, "SKEP_CONTEXTS": self.contexts})
        if check and result.returncode != DONE:
            raise AssertionError(f"skep {' '.join(map(str, args))[:200]}: {result.returncode}: {result.stderr.decode()}")
        return result

    def rows(self, *args):
        answer = self.skep(*args, "-o", "json", check=False, timeout=30)
        return json.loads(answer.stdout) if answer.returncode == DONE else []

    def leader(self):
        """The host that leads; None while nobody is known to."""
        name = next((row["name"] for row in self.rows("cluster", "status") if row["leader"]), "")
        return self.hosts.get(name)

    def healthy(self):
        """All schedulers follow one leader, and all nodes are ready."""
        members = self.rows("cluster", "status")
        nodes = self.rows("node", "list")
        return (len(members) == len(self.schedulers) and all(row["connected"] for row in members)
                and sum(1 for row in members if row["leader"]) == 1
                and sum(1 for row in nodes if row["state"] == "ready") == len(self.agents))

    # -- Looking --

    def broken(self, forgiven=()):
        """Lines by which a daemon tells of its own mistake; a fatal line that says one of `forgiven` is none."""
        found = []
        for host in self.hosts.values():
            for line in host.log().splitlines():
                if BROKEN.search(line) and not any(text in line for text in forgiven):
                    found.append(f"{host.name}: {line}")
        return found

    def logs(self, lines=15):
        text = ""
        for host in self.hosts.values():
            text += f"--- {host.name}\n" + "\n".join(host.log().splitlines()[-lines:]) + "\n"
        return text


def left():
    """Processes of this process namespace other than this one."""
    collect_orphans()
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [f"process {pid}: {cmdline(pid)}" for pid in pids if pid != os.getpid() and pid_alive(pid)]


def mount_private(path):
    """A small file system of our own over a folder of the machine's."""
    command("mount", "-t", "tmpfs", "-o", "size=1g,mode=1777", "none", path)


def _private(path, flags):
    return os.open(path, flags, 0o600)
