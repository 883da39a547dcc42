"""Load from the client's host, and what it was promised: spawn_load's processes and their journals."""

import os
import signal
import subprocess
import time

from cluster import numbers, run, spawn, wait_for
from hosts import BIN, CLIENT

FUNCTION = "once"
GRACE_SECONDS = 90
TOOL = os.path.join(BIN, "spawn_load")


class Load:
    """One spawn_load and its journal."""

    def __init__(self, hosts, name, mode, *options):
        self.hosts, self.name, self.mode = hosts, name, mode
        self.journal = os.path.join(hosts.folder, f"{name}.journal")
        self.options = list(map(str, options))
        self.keys = [] if mode == "call" else ["--keys", name]
        self.process = None
        self._read = 0
        self._sent = []  # when each success was asked for, in the order in which they came

    def _args(self, mode, *more):
        return self.hosts.network.inside(CLIENT, TOOL, "--contexts", self.hosts.contexts, "--function", FUNCTION, "--mode",
                                         mode, "--journal", self.journal, *self.keys, *self.options, *more)

    def start(self, *more):
        self.process = spawn(self._args(self.mode, "--grace", GRACE_SECONDS, *more), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def stop(self):
        """No new work; waits for what is outstanding. Returns the tool's numbers."""
        self.process.send_signal(signal.SIGTERM)
        return self.finish()

    def finish(self):
        out, _ = self.process.communicate(timeout=GRACE_SECONDS + 60)
        text = out.decode(errors="replace")
        if self.process.returncode != 0:
            raise AssertionError(f"load {self.name}: {text}")
        return numbers(text)

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def successes(self):
        """How many came so far."""
        self._look()
        return len(self._sent)

    def succeeded_since(self, since):
        """Has anything succeeded that was asked after `since` (time.monotonic())?"""
        self._look()
        return any(sent > since for sent in reversed(self._sent[-256:]))

    def _look(self):
        if not os.path.exists(self.journal):
            return
        wanted = b"c" if self.mode == "call" else b"a"
        with open(self.journal, "rb") as f:
            f.seek(self._read)
            text = f.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read += len(text)
        for line in text.splitlines():
            if line.startswith(wanted):
                self._sent.append(int(line.split()[2]) / 1e6)

    def check(self):
        """Asks for everything that was promised. Returns the tool's numbers, and what is wrong."""
        options = ["--outstanding", "64", "--interval-ms", "0", "--seconds", "300", "--grace", "5"]
        result = run(self._args("check", *options), timeout=400)
        text = (result.stdout + result.stderr).decode(errors="replace")
        return numbers(text), [] if result.returncode == 0 else [f"{self.name}: {text}"]


class Workload:
    """What goes on all the time: spawns whose outcomes are waited for, and calls."""

    def __init__(self, hosts, payload, calls_only):
        self.hosts = hosts
        self.loads = [Load(hosts, "calls", "call", "--outstanding", 4, "--interval-ms", 20, "--payload", payload)]
        if not calls_only:
            options = ["--outstanding", 32, "--interval-ms", 3, "--payload", payload]
            self.loads.insert(0, Load(hosts, "spawns", "finish", *options))
        self.bursts = []

    def start(self):
        for load in self.loads:
            load.start()

    def burst(self, count, payload):
        """A further load of large payloads, which goes on by itself."""
        load = Load(self.hosts, f"burst{len(self.bursts)}", "spawn", "--outstanding", 8, "--payload", payload)
        load.start("--count", count)
        self.bursts.append(load)

    def progress(self, what, seconds=60):
        """Waits until each load has succeeded with something asked from now on; returns how long that took."""
        since = time.monotonic()
        wait_for(lambda: all(load.succeeded_since(since) for load in self.loads), f"spawns and calls succeed {what}", seconds)
        return time.monotonic() - since

    def successes(self):
        return {load.name: load.successes() for load in self.loads}

    def ended(self):
        return [load.name for load in self.loads if load.process.poll() is not None]

    def stop(self):
        return {load.name: load.stop() for load in self.loads} | {load.name: load.finish() for load in self.bursts}

    def kill(self):
        for load in self.loads + self.bursts:
            load.kill()

    def promised(self):
        return [load for load in self.loads + self.bursts if load.mode != "call"]
