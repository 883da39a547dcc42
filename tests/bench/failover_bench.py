#!/usr/bin/env python3
"""The leader is killed under load: how long until something succeeds again that was asked for afterwards.

    tests/bench/failover_bench.py BUILD [--runs N] [--outstanding N] [--what spawn|call] [--folder DIR]

Three schedulers, one agent. Each run kills the leader with SIGKILL under load, and takes the time from the kill to the first
acknowledgement of a request that was sent after it; then the killed one is started again, and the next run begins when it has
caught up. Prints failover_* lines, the election timeout among them (the default: followers wait one to two of it).
"""
import argparse
import os
import statistics
import sys
import tempfile
import time

from benchlib import Cluster, show, wait_for

ELECTION_TIMEOUT_MS = 500  # CONFIG_ELECTION_TIMEOUT_MS_DEFAULT
SCHEDULERS = ("s1", "s2", "s3")


class Journal:
    """Reads what spawn_load has written since the last look: when each success was asked for, and when it came."""

    def __init__(self, path, what):
        self.path, self.mark, self.at = path, "a" if what == "spawn" else "c", 0

    def new(self):
        if not os.path.exists(self.path):
            return []
        with open(self.path, encoding="ascii") as f:
            f.seek(self.at)
            text = f.read()
        text = text[: text.rfind("\n") + 1]
        self.at += len(text)
        rows = [line.split() for line in text.splitlines()]
        return [(int(row[2]) / 1e6, int(row[1]) / 1e6) for row in rows if row[0] == self.mark]

    def first_sent_after(self, moment, seconds=60):
        """When the first success came of what was asked for after the moment."""
        came = []

        def look():
            came.extend(done for sent, done in self.new() if sent > moment)
            return came

        wait_for(look, "something succeeds", seconds)
        return min(came)


def caught_up(cluster):
    applied = [cluster.metric("skep_raft_applied_index", name, check=False) for name in SCHEDULERS]
    return min(applied) > 0 and max(applied) - min(applied) < 5000


def one_run(cluster, journal):
    leader = wait_for(cluster.leader, "a leader")
    journal.first_sent_after(time.monotonic())
    at = time.monotonic()
    cluster.kill(leader)
    took = journal.first_sent_after(at) - at
    cluster.restart(leader)
    wait_for(lambda: caught_up(cluster), f"{leader} has caught up")
    return took


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--outstanding", type=int, default=16)
    parser.add_argument("--what", choices=("spawn", "call"), default="spawn")
    parser.add_argument("--folder", default=tempfile.gettempdir())
    options = parser.parse_args()
    print(f"# load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors")
    took = []
    with Cluster(options.build, options.folder) as cluster:
        path = os.path.join(cluster.folder, "journal")
        more = ["--keys", "failover"] if options.what == "spawn" else []
        load = cluster.start_load("--mode", options.what, "--outstanding", options.outstanding, "--journal", path,
                                  "--interval-ms", 1, *more)
        try:
            journal = Journal(path, options.what)
            for _ in range(options.runs):
                took.append(one_run(cluster, journal) * 1000)
        finally:
            load.terminate()
            text = load.communicate()[0]
        if load.returncode != 0:
            sys.exit(text)
        lost = cluster.check_load("failover", path) if options.what == "spawn" else {}
    show("failover_election_timeout", ELECTION_TIMEOUT_MS, "ms")
    show("failover_runs", len(took), "count")
    show("failover_p50", statistics.median(took), "ms")
    show("failover_min", min(took), "ms")
    show("failover_max", max(took), "ms")
    if lost:
        show("failover_promised", lost["promised"], "count")
        show("failover_lost", lost["missing"] + lost["open"], "count")
    else:
        print("".join(f"# {line}\n" for line in text.splitlines() if not line.endswith(" 0 count")), end="")


if __name__ == "__main__":
    main()
