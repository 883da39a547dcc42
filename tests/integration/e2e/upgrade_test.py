"""Programs of neighbouring versions work together, program by program up and down; those further apart refuse each other."""

import json
import os
import re
import signal
import threading

from cluster import BIN, DONE, UNKNOWN, UNREACHABLE, USAGE, ClusterCase, run, wait_for

VERSIONS = os.environ.get("SKEP_VERSIONS", "")
NEXT, FAR = os.path.join(VERSIONS, "next"), os.path.join(VERSIONS, "far")
SPEAKS = {BIN: "1", NEXT: "1-2", FAR: "2-3"}
SNAPSHOT_ENTRIES = 1024  # after how many entries (at the most half as many more) a snapshot is due
BATCH = 2 * SNAPSHOT_ENTRIES
CONNECTED_SECONDS = 30


class Stream:
    """Spawns and calls in turn on a thread, with the command line of one version and another in turn."""

    def __init__(self, cluster):
        self.cluster, self.spawned, self.calls, self.wrong = cluster, {}, 0, []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        number = 0
        while not self._ends.is_set():
            number += 1
            skep = os.path.join(BIN if number % 2 == 0 else NEXT, "skep")
            try:
                self._spawn(skep, number)
                self._call(skep, number)
            except AssertionError as late:
                self.wrong.append(str(late))

    def _spawn(self, skep, number):
        done = run([skep, "spawn", "hello", "--data", f"s{number}", "--key", f"stream-{number}"], env=self.cluster.environ)
        if done.returncode == DONE:
            self.spawned[done.stdout.decode().strip()] = f"hello, s{number}\n"
        else:
            self.wrong.append(f"{skep} spawn: {done.returncode}: {done.stderr!r}")

    def _call(self, skep, number):
        """A call is not durable: one that loses its leader or its agent may end with that; it is never wrong."""
        done = run([skep, "call", "hello", "--data", f"c{number}"], env=self.cluster.environ)
        if done.returncode == DONE and done.stdout == f"hello, c{number}\n".encode():
            self.calls += 1
        elif done.returncode not in (UNKNOWN, UNREACHABLE):
            self.wrong.append(f"{skep} call: {done.returncode}: {done.stdout!r} {done.stderr!r}")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join()

    def goes_on(self):
        """Waits for another spawn and another successful call."""
        spawned, calls = len(self.spawned), self.calls
        wait_for(lambda: self.wrong or (len(self.spawned) > spawned + 1 and self.calls > calls + 1), "spawns and calls go on", 40)
        if self.wrong:
            raise AssertionError(self.wrong)


class Upgrade(ClusterCase):
    SCHEDULERS, AGENTS = 3, 1
    NAMES = ("s1", "s2", "s3")

    @classmethod
    def prepare(cls):
        cls.cluster.deploy_example("hello")
        for name in cls.NAMES:
            with open(os.path.join(cls.cluster.data, name, "config.yaml"), "a", encoding="utf-8") as f:
                f.write(f"raft: {{snapshot_entries: {SNAPSHOT_ENTRIES}}}\n")

    # -- What an operator does --

    def replace(self, name, programs):
        """Stops a daemon and starts it from another folder."""
        self.cluster.kill(name, signal.SIGTERM)
        self.cluster.programs_of[name] = programs
        self.cluster.restart(name)

    def members(self):
        """The schedulers by name, as the one that answers sees them; empty without a leader."""
        answer = self.cluster.skep("cluster", "status", "-o", "json", check=False)
        rows = json.loads(answer.stdout) if answer.returncode == DONE else []
        return {row["name"]: row for row in rows} if any(row["leader"] for row in rows) else {}

    def is_back(self, name, programs):
        members = self.members()
        return members and all(row["connected"] for row in members.values()) and members[name]["protocol"] == SPEAKS[programs]

    def replace_schedulers(self, programs, stream):
        """As docs/operations.md says: the leader last, after a transfer; and each is back before the next one goes."""
        leader = wait_for(self.cluster.leader, "a leader")
        order = sorted(self.NAMES, key=lambda name: name == leader)
        for name in order:
            if name == leader:
                self.cluster.skep("cluster", "transfer", order[0])
                wait_for(lambda: self.cluster.leader() == order[0], f"{order[0]} leads")
                stream.goes_on()
            self.replace(name, programs)
            wait_for(lambda n=name: self.is_back(n, programs), f"{name} is back", CONNECTED_SECONDS)
            stream.goes_on()

    def replace_agent(self, programs):
        self.replace("n1", programs)
        wait_for(lambda: "n1" in self.ready_nodes(), "n1 is back", CONNECTED_SECONDS)

    def ready_nodes(self):
        answer = self.cluster.skep("node", "list", "-o", "json", check=False)
        rows = json.loads(answer.stdout) if answer.returncode == DONE else []
        return [row["name"] for row in rows if row["state"] == "ready"]

    def snapshots(self, name):
        folder = os.path.join(self.cluster.data, name, "data", "raft")
        return {f for f in os.listdir(folder) if re.fullmatch(r"snapshot-\d+-\d+-\d+", f)}

    # -- Tests --

    def test_a_rolling_upgrade_and_back_under_load(self):
        with Stream(self.cluster) as stream:
            self.replace_schedulers(NEXT, stream)
            self.replace_agent(NEXT)
            stream.goes_on()
            before = {name: self.snapshots(name) for name in self.NAMES}
            written = self.write_with_next()
            # The older ones start from what the newer ones wrote: log and snapshot.
            for name in self.NAMES:
                wait_for(lambda n=name: self.snapshots(n) - before[n], f"{name} has written a snapshot")
            self.replace_schedulers(BIN, stream)
            self.replace_agent(BIN)
            stream.goes_on()
        self.assertEqual(stream.wrong, [])
        self.has_results({**stream.spawned, **written})
        self.assertEqual(self.cluster.call("newer"), b'"newer"')

    def write_with_next(self):
        """A function, and a batch that makes snapshots due; returns the outputs to be, by id."""
        folder = os.path.join(self.cluster.folder, "code", "newer")
        os.makedirs(folder)
        for path, text in (("skep.yaml", "name: newer\nruntime: python\nhandler: main.py:handle\n"),
                           ("main.py", "def handle(p):\n    return 'newer'\n")):
            with open(os.path.join(folder, path), "w", encoding="utf-8") as f:
                f.write(text)
        self.skep_of(NEXT, "deploy", folder)
        lines = "".join(f"b{i}\n" for i in range(BATCH)).encode()
        ids = self.skep_of(NEXT, "spawn", "hello", "--each", input=lines).decode().split()
        self.assertEqual(len(set(ids)), BATCH)
        return {invocation: f"hello, b{i}\n" for i, invocation in enumerate(ids)}

    def skep_of(self, programs, *args, **options):
        done = run([os.path.join(programs, "skep"), *args], env=self.cluster.environ, **options)
        self.assertEqual(done.returncode, DONE, done.stderr)
        return done.stdout

    def has_results(self, expected):
        """Each id has its result, which the command line ends with a line's end of its own."""
        ids = "".join(f"{invocation}\n" for invocation in expected).encode()
        got = self.skep_of(BIN, "result", "-", "--wait", input=ids).decode()
        self.assertEqual([line for line in got.splitlines() if line], "".join(expected.values()).splitlines())

    def test_a_command_line_two_versions_apart(self):
        done = run([os.path.join(FAR, "skep"), "cluster", "status"], env=self.cluster.environ)
        self.assertEqual(done.returncode, USAGE, done.stderr)
        self.assertRegex(done.stderr.decode(),
                         r"upgrade scheduler 127\.0\.0\.1:\d+ first, one version at a time: this skep speaks protocol "
                         r"versions 2 to 3 \(Skep .*\), scheduler .* version 1 \(Skep .*\)")

    def test_a_scheduler_two_versions_apart(self):
        cluster = self.cluster
        leader = wait_for(cluster.leader, "a leader")
        name = next(n for n in self.NAMES if n != leader)
        with Stream(cluster) as stream:
            self.replace(name, FAR)
            says = (rf"upgrade scheduler {leader} first, one version at a time: scheduler {name} speaks protocol versions 2 to 3 "
                    rf".*scheduler {leader} version 1 ")
            wait_for(lambda: re.search(says, cluster.log(name)), f"{name} refuses {leader}")
            said = (rf"upgrade scheduler {leader} first, one version at a time: scheduler {leader} speaks protocol version 1 "
                    rf".*scheduler {name} versions 2 to 3 ")
            wait_for(lambda: re.search(said, cluster.log(leader)), f"{leader} refuses {name}")
            stream.goes_on()
            self.assertFalse(wait_for(self.members, "a leader")[name]["connected"])
            self.assertEqual(cluster.leader(), leader)
            # Nobody else is named: the command line says why. With another one it goes there.
            alone = cluster.context("alone", os.path.join(cluster.data, "user"), (name,))
            self.fails(USAGE, "call", "hello", says="upgrade this skep first", env=alone)
            both = cluster.context("both", os.path.join(cluster.data, "user"), (name, leader))
            self.assertEqual(cluster.skep("call", "hello", env=both).stdout, b"hello, world\n")
            self.replace(name, BIN)
            wait_for(lambda: self.is_back(name, BIN), f"{name} is back", CONNECTED_SECONDS)
        self.assertEqual(stream.wrong, [])
        self.has_results(stream.spawned)

    def test_an_agent_two_versions_apart(self):
        cluster = self.cluster
        leader = wait_for(cluster.leader, "a leader")
        self.replace("n1", FAR)
        wait_for(lambda: re.search(rf"upgrade scheduler {leader} first, .*this agent speaks protocol versions 2 to 3 .*"
                                   rf"scheduler {leader} version 1 ", cluster.log("n1")), "the agent says why")
        wait_for(lambda: re.search(rf"upgrade scheduler {leader} first, .*agent n1 versions 2 to 3 ", cluster.log(leader)),
                 "the leader says why")
        spawned = cluster.skep("spawn", "hello", "--data", "later").stdout.decode().strip()
        self.replace_agent(BIN)
        self.has_results({spawned: "hello, later\n"})

    def test_a_joiner_two_versions_apart_keeps_its_token(self):
        cluster = self.cluster
        folder = os.path.join(cluster.folder, "joiner")
        token = cluster.skep("ca", "token", "--role", "agent", "--name", "n7").stdout

        def join(programs):
            return run([os.path.join(programs, "skep-agent"), "join", "--token-file", "-", "--name", "n7", "--data", folder,
                        "--config-out", os.path.join(cluster.folder, "joiner.yaml")], input=token)

        refused = join(FAR)
        self.assertNotEqual(refused.returncode, DONE)
        self.assertRegex(refused.stderr.decode(), "upgrade scheduler s[123] first, .*versions 2 to 3 .*version 1 ")
        joined = join(NEXT)
        self.assertEqual(joined.returncode, DONE, joined.stderr)
