#!/usr/bin/env python3
"""Three schedulers and four agents, each on a host of its own, are broken in many ways under load. Afterwards, from the outside:

- no acknowledged spawn is lost: each has exactly one outcome;
- no result was accepted twice: an outcome, once seen, stays the same (the function's output differs each time it runs);
- a key gives the id that it gave before;
- the cluster is whole again, no daemon ended by itself or told of its own mistake, and no process is left.

    tests/chaos/chaos.py BUILD [--minutes N] [--seed N] [--only FAULT] [--logs]

Without --minutes each fault of faults.py comes once, in order; with it, faults are drawn until the time is over.

The suite runs in network, mount, process and IPC namespaces of its own, with no way out. Whatever happens to it, they end with
it, and with them every process, address, mount and file that it made. It needs root, nftables and iproute2; faketime's library
for moved clocks (time namespaces do not move CLOCK_REALTIME).
"""

import argparse
import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "lib")]

# pylint: disable=wrong-import-position
import faults  # noqa: E402
from cluster import collect_orphans, wait_for  # noqa: E402
from hosts import BIN, Hosts, left, mount_private  # noqa: E402
from load import Workload  # noqa: E402

INSIDE = "SKEP_CHAOS_INSIDE"
FOLDER = "/mnt"  # a file system of our own is mounted there, where only the suite sees it: nothing can stay behind
PR_SET_PDEATHSIG = 1
HOLD_SECONDS = 2.0
PAYLOAD_BYTES = 1024


# ---- Outside ----


def run_inside():
    """Runs this program again in namespaces of its own."""
    for tool in ("nft", "ip", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            print(f"SKIP chaos: {tool} is not installed")
            return 77
    if os.geteuid() != 0:
        print("SKIP chaos: cells need root")
        return 77
    def die_with_parent():
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    args = ["unshare", "--net", "--mount", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-B",
            os.path.abspath(__file__), *sys.argv[1:]]
    process = subprocess.Popen(args, env={**os.environ, INSIDE: "1"}, preexec_fn=die_with_parent)

    def stop(*_):
        process.kill()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    code = process.wait()
    return code if code >= 0 else 128 - code


# ---- Inside ----


class Chaos:
    def __init__(self, hosts, load, draw):
        self.hosts, self.network, self.load, self.draw = hosts, hosts.network, load, draw
        self._never = threading.Event()

    # -- For faults --

    def leader(self):
        return self.wait(self.hosts.leader, "a leader")

    def follower(self):
        leader = self.leader()
        return self.draw.choice([h for h in self.hosts.schedulers if h is not leader])

    def any_scheduler(self):
        return self.draw.choice(self.hosts.schedulers)

    def any_agent(self):
        return self.draw.choice(self.hosts.agents)

    def pause(self, seconds):
        """Lets a fault last; nothing is concluded from the time."""
        self._never.wait(seconds)

    def hold(self, seconds=HOLD_SECONDS):
        """Lets a fault last at least so long, and until work has gone on in spite of it."""
        until = time.monotonic() + seconds
        took = self.load.progress("while it lasts")
        self.pause(max(0.0, until - time.monotonic()))
        print(f"    meanwhile work went on after {took:.2f} s", flush=True)

    def wait(self, condition, what, seconds=60):
        return wait_for(condition, what, seconds)

    def wait_healthy(self):
        self.wait(self.hosts.healthy, "a leader, all schedulers and all nodes")

    def connected(self, host):
        """Does the scheduler that is asked have it as a peer, or is it the one itself?"""
        return any(row["connected"] for row in self.hosts.rows("cluster", "status") if row["name"] == host.name)

    def transfer(self, host):
        def leads():
            leader = self.hosts.leader()
            if leader is not host and leader is not None:
                self.hosts.skep("cluster", "transfer", host.name, check=False)
            return leader is host

        self.wait(leads, f"{host.name} leads")

    # -- The run --

    def check_daemons(self):
        """No daemon has ended but those that a fault ended."""
        ended = [h.name for h in self.hosts.hosts.values() if not h.alive() and not h.expected_to_end]
        if ended:
            raise AssertionError(f"ended by themselves: {' '.join(ended)}\n{self.hosts.logs()}")

    def mend(self):
        """Undoes all faults and waits until work goes on; returns how long that took."""
        self.network.heal()
        for host in self.hosts.hosts.values():
            host.send_signal(signal.SIGCONT)
            if host.kind == "scheduler":
                host.empty_disk()
            if host.clock:
                host.set_clock(0)
            if not host.alive():
                host.start()
        return self.load.progress("after it was mended")

    def fault(self, which):
        before, since = self.load.successes(), time.monotonic()
        print(f"{which.__name__}", flush=True)
        which(self)
        self.check_daemons()
        if self.load.ended():
            raise AssertionError(f"the load has ended: {' '.join(self.load.ended())}")
        took = self.mend()
        self.wait_healthy()
        for host in self.hosts.hosts.values():
            host.expected_to_end = False  # A fault that it has survived excuses nothing that comes later.
        done = ", ".join(f"{name} {after - before[name]}" for name, after in self.load.successes().items())
        print(f"    {time.monotonic() - since:.1f} s in all; mended, work went on after {took:.2f} s; {done}", flush=True)

    def run(self, minutes, only):
        self.hosts.start()
        self.hosts.skep("deploy", os.path.join(BIN, "..", "tests", "chaos", "once"))
        self.load.start()
        self.load.progress("before all")
        without = set() if self.hosts.schedulers[0].clock else faults.NEEDS_CLOCKS
        without |= set() if self.load.promised() else faults.NEEDS_SPAWNS
        chosen = [f for f in faults.FAULTS if f not in without and only in (None, f.__name__)]
        for name in sorted(f.__name__ for f in without):
            print(f"left out: {name}")
        until = time.monotonic() + minutes * 60
        start = time.monotonic()
        for which in chosen:
            self.fault(which)
        while time.monotonic() < until:
            self.fault(self.draw.choice(chosen))
        print(f"chaos_seconds {time.monotonic() - start:.0f} s", flush=True)
        return self.verdict()

    def verdict(self):
        """What is wrong, in lines; none when all is well."""
        wrong = []
        for name, numbers in self.load.stop().items():
            print(f"{name}: " + ", ".join(f"{key} {value:.0f}" for key, value in numbers.items() if value), flush=True)
            wrong += [f"{name}: {numbers['open']:.0f} were never answered"] if numbers["open"] else []
        self.wait_healthy()
        for load in self.load.promised():
            wrong += self.check(load)
        # The same once more from another leader, which has only what is replicated.
        self.transfer(self.follower())
        for load in self.load.promised():
            wrong += self.check(load)
        self.check_daemons()
        wrong += self.hosts.broken(forgiven=("o space", "not enough space"))
        return wrong

    def check(self, load):
        since = time.monotonic()
        numbers, wrong = load.check()
        print(f"checked {load.name} in {time.monotonic() - since:.1f} s: " + ", ".join(f"{key} {value:.0f}" for key, value in numbers.items() if value), flush=True)
        ended = sum(numbers.get(key, 0) for key in ("done", "dead", "canceled"))
        if not wrong and ended != numbers["promised"]:
            wrong = [f"{load.name}: {numbers['promised']:.0f} promised, {ended:.0f} ended"]
        return wrong


def inside(options):
    mount_private(FOLDER)
    mount_private("/dev/shm")
    os.environ["TMPDIR"] = FOLDER
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"chaos: seed {seed}; election timeout 500 ms", flush=True)
    ends = threading.Event()
    collector = threading.Thread(target=lambda: [collect_orphans() for _ in iter(lambda: ends.wait(0.1), True)], daemon=True)
    collector.start()
    hosts = Hosts(FOLDER, schedulers=3, agents=4, clocks=options.clocks)
    load = Workload(hosts, PAYLOAD_BYTES, options.calls_only)
    try:
        wrong = Chaos(hosts, load, random.Random(seed)).run(options.minutes, options.only)
    except BaseException:
        print(hosts.logs(), file=sys.stderr)
        raise
    finally:
        load.kill()
    if options.logs:
        print(hosts.logs(1000))
    hosts.stop()
    ends.set()
    collector.join()
    wrong += left()
    if wrong:
        print(hosts.logs(), file=sys.stderr)
        print("WRONG:\n  " + "\n  ".join(wrong), file=sys.stderr)
    return 1 if wrong else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--only")
    parser.add_argument("--calls-only", action="store_true")
    parser.add_argument("--logs", action="store_true", help="print the daemons' logs at the end")
    parser.add_argument("--no-clocks", dest="clocks", action="store_false")
    options = parser.parse_args()
    names = [f.__name__ for f in faults.FAULTS]
    if options.only is not None and options.only not in names:
        parser.error(f"--only is one of {' '.join(names)}")
    if os.environ.get(INSIDE):
        return inside(options)
    os.environ["SKEP_BIN"] = os.path.abspath(os.path.join(options.build, "bin"))
    return run_inside()


if __name__ == "__main__":
    sys.exit(main())
