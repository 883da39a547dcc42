"""A development cluster of its own in a temporary folder, for end-to-end tests.

    cluster = Cluster(schedulers=3, agents=2)
    cluster.start()
    cluster.skep("call", "hello", "--data", "you")
    cluster.stop()          # asserts that nothing is left; ClusterCase does it after each class

The test process becomes a subreaper, so that every daemon, cell and runner whose parent has gone is its child: what is
left at the end is found exactly, whatever else runs on the machine, and no zombie lies about. Nothing sleeps for a fixed
time: wait_for asks a condition again and again until a deadline.

The environment: SKEP_BIN, the folder of the programs; SKEP_EXAMPLES, the folder of the examples, ready to deploy.
"""

import contextlib
import ctypes
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

PR_SET_CHILD_SUBREAPER = 36
MNT_DETACH = 2
POLL_SECONDS = 0.03
DEADLINE_SECONDS = 20
COMMAND_SECONDS = 60

DONE, FAILED, USAGE, UNREACHABLE, DENIED, UNKNOWN = 0, 1, 2, 3, 4, 5

# Of sanitizers and of CHECK.
BROKEN = re.compile(r"Sanitizer|runtime error:|: check failed: |event=fatal")

BIN = os.environ.get("SKEP_BIN", "")
EXAMPLES = os.environ.get("SKEP_EXAMPLES", "")


def wait_for(condition, what, deadline=DEADLINE_SECONDS):
    """Asks until the condition's answer is true and returns that answer; fails after `deadline` seconds."""
    until = time.monotonic() + deadline
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > until:
            raise AssertionError(f"not within {deadline} s: {what}; last answer: {answer!r}")
        time.sleep(POLL_SECONDS)


def free_ports(count):
    """Ports of 127.0.0.1 that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def numbers(text):
    """The `name value unit` lines of a tool."""
    return {parts[0]: float(parts[1]) for parts in map(str.split, text.splitlines()) if len(parts) == 3 and parts[0] != "#"}


# ---- Processes ----

# What this process started itself: subprocess collects those. All other children are orphans, ours to collect.
_own_lock = threading.Lock()
_own = set()


def spawn(args, **options):
    """subprocess.Popen, known to the collector of orphans."""
    with _own_lock:
        process = subprocess.Popen([str(a) for a in args], **options)
        _own.add(process.pid)
    return process


def run(args, timeout=COMMAND_SECONDS, **options):
    """Runs a command to its end; the result has returncode, stdout and stderr as bytes. Killed and failed when it is late."""
    source = options.pop("input", None)
    options.setdefault("stdin", subprocess.PIPE if source is not None else subprocess.DEVNULL)
    process = spawn(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    try:
        out, err = process.communicate(source, timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"took over {timeout} s: {args}; it printed {out[-2000:]!r} and {err[-2000:]!r}") from None
    return subprocess.CompletedProcess(args, process.returncode, out, err)


def _stat(pid):
    """(state, parent) of a process; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1])


def pid_alive(pid):
    """A process of several threads is a zombie while the last of them still holds its ports and memory."""
    stat = _stat(pid)
    if stat is None:
        return False
    try:
        return stat[0] not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def collect_orphans():
    """Reaps children that this process did not start."""
    with _own_lock:
        for pid in _pids():
            stat = _stat(pid)
            if stat is not None and stat[1] == os.getpid() and stat[0] == "Z" and pid not in _own:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def descendants():
    """Living processes below this one, but not the commands a test is running right now."""
    parents = {}
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None and stat[0] not in "ZX":
            parents[pid] = stat[1]
    found = []
    for pid in parents:
        at = pid
        while at in parents and at != os.getpid():
            at = parents[at]
        if at == os.getpid() and pid != os.getpid():
            found.append(pid)
    return found


# ---- Control groups ----


def cgroup_folders(names):
    """Folders under any controller that are named like one of the names."""
    names = set(names)
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
        roots = {line.split()[4] for line in f if " - cgroup" in line}
    for root in roots:
        for folder in glob.glob(f"{root}/**/skep/*/*", recursive=True):
            if os.path.basename(folder) in names:
                found.append(folder)
    return sorted(set(found))


# ---- The cluster ----


class Cluster:
    def __init__(self, schedulers=3, agents=2, programs=BIN, parent=None):
        """programs: their folder; parent: of the cluster's folder, the temporary folder by default."""
        self.schedulers, self.agents, self.programs = schedulers, agents, programs
        self.folder = tempfile.mkdtemp(prefix="skep-e2e.", dir=parent)
        self.data = os.path.join(self.folder, "data")
        self.contexts = os.path.join(self.folder, "config", "contexts.yaml")
        self.environ = {**os.environ, "SKEP_CONTEXTS": self.contexts}
        self.instances_seen = set()
        self.programs_of = {}  # of daemons that are started from another folder
        self._collector_ends = threading.Event()
        self._collector = None

    # -- Starting and stopping --

    def start(self):
        if os.geteuid() != 0:
            raise unittest.SkipTest("cells need root")
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")
        self._collector = threading.Thread(target=self._collect, daemon=True)
        self._collector.start()
        args = ["dev", "--schedulers", self.schedulers, "--agents", self.agents, "--data", self.data, "--detach"]
        started = self.skep(*args, check=False)
        if started.returncode != DONE:
            raise AssertionError(f"skep dev: {started.stderr.decode()}\n{self.logs()}")

    def _collect(self):
        while not self._collector_ends.wait(POLL_SECONDS):
            collect_orphans()

    def stop(self):
        """Ends the cluster and asserts that it ends whole and leaves nothing."""
        self.note_instances()
        left = []
        try:
            left += self.broken()
            stopped = self.skep("dev", "stop", "--data", self.data, check=False)
            if stopped.returncode != DONE:
                left.append(f"skep dev stop: {stopped.returncode}: {stopped.stderr.decode()}")
            left += self._left()
        finally:
            self.remove()
        if left:
            raise AssertionError("broken or left behind:\n  " + "\n  ".join(left))

    def _left(self):
        def ending():
            return not descendants()

        with contextlib.suppress(AssertionError):
            wait_for(ending, "all processes gone", 5)
        left = [f"process {pid}: {cmdline(pid)}" for pid in descendants()]
        left += [f"process {pid}: {cmdline(pid)}" for pid in _pids() if self.data in cmdline(pid) and pid_alive(pid)]
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
            left += [f"mount {line.strip()}" for line in f if self.folder in line]
        left += [f"cgroup {folder}" for folder in cgroup_folders(self.instances_seen)]
        if os.path.exists(self.data):
            left.append(f"folder {self.data}")
        return left

    def remove(self):
        """Kills and removes whatever there is, without asking."""
        self.note_instances()
        for _ in range(100):
            pids = set(descendants()) | {pid for pid in _pids() if self.folder in cmdline(pid) and pid_alive(pid)}
            pids.discard(os.getpid())
            if not pids:
                break
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            collect_orphans()
            time.sleep(POLL_SECONDS)
        self._collector_ends.set()
        if self._collector is not None:
            self._collector.join()
        collect_orphans()
        for folder in cgroup_folders(self.instances_seen):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
            mounts = [line.split()[4] for line in f if self.folder in line.split()[4]]
        for mount in mounts:
            ctypes.CDLL(None).umount2(mount.encode(), MNT_DETACH)
        for folder, _, _ in os.walk(self.folder):
            with contextlib.suppress(OSError):
                os.chmod(folder, 0o700)
        shutil.rmtree(self.folder, ignore_errors=True)

    def note_instances(self):
        """Remembers the ids of all instances that the agents have folders or logs of."""
        for pattern in ("instances/*", "ended/*.log"):
            for path in glob.glob(f"{self.data}/*/data/{pattern}"):
                self.instances_seen.add(os.path.basename(path).removesuffix(".log"))

    # -- The command line --

    def skep(self, *args, check=True, timeout=COMMAND_SECONDS, **options):
        """Runs skep. check: it must succeed. The result has returncode, stdout and stderr."""
        options.setdefault("env", self.environ)
        result = run([os.path.join(self.programs, "skep"), *args], timeout=timeout, **options)
        if check and result.returncode != DONE:
            raise AssertionError(f"skep {' '.join(map(str, args))[:200]}: {result.returncode}: {result.stderr.decode()}")
        return result

    def start_skep(self, *args, **options):
        options.setdefault("env", self.environ)
        return spawn([os.path.join(self.programs, "skep"), *args], stdin=subprocess.DEVNULL, **options)

    def rows(self, *args, **options):
        """The records that skep ARGS -o json prints."""
        answer = json.loads(self.skep(*args, "-o", "json", **options).stdout)
        return answer if isinstance(answer, list) else [answer]

    def call(self, name, data=None, **options):
        return self.skep("call", name, *([] if data is None else ["--data", data]), **options).stdout

    def call_json(self, name, data=None, **options):
        return json.loads(self.skep("call", name, "-o", "json", *([] if data is None else ["--data", data]), **options).stdout)

    def deploy_example(self, name):
        return self.skep("deploy", os.path.join(EXAMPLES, name))

    def deploy_python(self, name, code, **settings):
        """Deploys a Python function `handle` with these manifest lines: key=text, with _ for a dot's place none."""
        return self.deploy_files(name, {"main.py": code}, runtime="python", handler="main.py:handle", **settings)

    def deploy_files(self, name, files, check=True, **settings):
        folder = os.path.join(self.folder, "code", name)
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        files = {"skep.yaml": "".join(f"{k}: {v}\n" for k, v in {"name": name, **settings}.items()), **files}
        for path, text in files.items():
            with open(os.path.join(folder, path), "wb") as f:
                f.write(text if isinstance(text, bytes) else text.encode())
        return self.skep("deploy", folder, check=check)

    def context(self, name, folder, schedulers=("s1",)):
        """A contexts file with the certificate in the folder; returns the environment that uses it."""
        path = os.path.join(self.folder, f"{name}.yaml")
        addresses = ", ".join(f'"{self.address(s)}"' for s in schedulers)
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"current: {name}\ncontexts:\n  - {{name: {name}, schedulers: [{addresses}], ca: {folder}/ca.crt, "
                    f"cert: {folder}/cert.pem, key: {folder}/key.pem}}\n")
        os.chmod(path, 0o600)
        return {**self.environ, "SKEP_CONTEXTS": path}

    # -- Looking --

    def status(self):
        return self.rows("cluster", "status")

    def leader(self):
        """The leader's name, "" while there is none."""
        answer = self.skep("cluster", "status", "-o", "json", check=False)
        rows = json.loads(answer.stdout) if answer.returncode == DONE else []
        return next((row["name"] for row in rows if row["leader"]), "")

    def nodes(self):
        return {row["name"]: row for row in self.rows("node", "list")}

    def ps(self, function=None):
        return self.rows("ps", *([] if function is None else [function]))

    def cell_pid(self, node, instance):
        """The process of an instance's cell on a node."""
        with open(os.path.join(self.data, node, "data", "instances", instance, "cell.pid"), encoding="ascii") as f:
            return int(f.read().split()[0])

    def cells(self, node):
        """Processes of the cells of a node."""
        folder = os.path.join(self.data, node, "data") + "/"
        return [p for p in _pids() if "skep-cell" in cmdline(p) and folder in cmdline(p) and pid_alive(p)]

    def log(self, name):
        with open(os.path.join(self.data, name, "log"), encoding="utf-8", errors="replace") as f:
            return f.read()

    def logs(self, lines=15):
        """The last lines of every daemon's log, for failures."""
        text = ""
        for path in sorted(glob.glob(f"{self.data}/*/log")):
            with open(path, encoding="utf-8", errors="replace") as f:
                text += f"--- {path}\n" + "".join(f.readlines()[-lines:])
        return text

    def broken(self):
        """Lines by which a daemon tells of its own mistake."""
        found = []
        for path in glob.glob(f"{self.data}/*/log"):
            with open(path, encoding="utf-8", errors="replace") as f:
                text = f.read()
            for mark in BROKEN.finditer(text):
                found.append(f"{path}: {text[mark.start():mark.start() + 3000]}")
                break
        return found

    def metric(self, name, target=None, check=True):
        """The sum of a metric's samples at the scheduler that answers, or at the target. Without check: 0 when it cannot be asked."""
        text = self.skep("metrics", *([] if target is None else [target]), check=check).stdout.decode()
        values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", text, re.M)
        return sum(map(float, values))

    def metric_of(self, name, label, target=None):
        text = self.skep("metrics", *([] if target is None else [target])).stdout.decode()
        values = re.findall(rf"^{re.escape(name)}\{{{re.escape(label)}\}} ([0-9.e+]+)$", text, re.M)
        return sum(map(float, values))

    def address(self, scheduler):
        """HOST:PORT of a scheduler, from its configuration."""
        with open(os.path.join(self.data, scheduler, "config.yaml"), encoding="utf-8") as f:
            return re.search(r"^listen: \"?([^\"\n]*)", f.read(), re.M).group(1)

    # -- Breaking --

    def _state(self):
        with open(os.path.join(self.data, "dev.state"), encoding="ascii") as f:
            return [line.split() for line in f]

    def pid(self, name):
        return next(int(row[2]) for row in self._state() if row[1] == name)

    def kill(self, name, number=signal.SIGKILL):
        """Ends a daemon and waits until it has ended."""
        pid = self.pid(name)
        os.kill(pid, number)
        wait_for(lambda: not pid_alive(pid), f"{name} ended")
        collect_orphans()

    def restart(self, name):
        """Starts a daemon that has ended from its configuration, known to skep dev stop."""
        rows = self._state()
        row = next(r for r in rows if r[1] == name)
        row[2] = str(self.spawn_daemon(row[0], name))
        row[3] = _started(int(row[2]))
        with open(os.path.join(self.data, "dev.state"), "w", encoding="ascii") as f:
            f.writelines(" ".join(r) + "\n" for r in rows)

    def adopt(self, kind, name, pid, port=0):
        """Makes a further daemon known to skep dev stop."""
        with open(os.path.join(self.data, "dev.state"), "a", encoding="ascii") as f:
            f.write(f"{kind} {name} {pid} {_started(pid)} {port}\n")

    def spawn_daemon(self, kind, name):
        """Starts a daemon from DATA/NAME/config.yaml; returns its process id."""
        folder = os.path.join(self.data, name)
        program = os.path.join(self.programs_of.get(name, self.programs), f"skep-{kind}")
        with open(os.path.join(folder, "log"), "ab") as log:
            process = spawn([program, "--config", os.path.join(folder, "config.yaml")],
                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=self.environ)
        with _own_lock:
            _own.discard(process.pid)  # it lives on its own: collected as any orphan
            process.returncode = 0
        return process.pid


def _started(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
        return f.read().rpartition(")")[2].split()[19]


class ClusterCase(unittest.TestCase):
    """Tests that share one cluster, which is stopped after the last of them."""

    SCHEDULERS, AGENTS = 3, 2
    cluster = None

    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(cls.SCHEDULERS, cls.AGENTS)
        cls.addClassCleanup(cls._clean)
        cls.cluster.start()
        cls.prepare()

    @classmethod
    def prepare(cls):
        """What a class's tests need beyond the cluster."""

    @classmethod
    def tearDownClass(cls):
        cluster, cls.cluster = cls.cluster, None
        cluster.stop()

    @classmethod
    def _clean(cls):
        if cls.cluster is not None:
            cls.cluster.remove()
            cls.cluster = None

    def run(self, result=None):
        """Shows the daemons' logs with a failure."""
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before and self.cluster is not None:
            print(f"\n{self.cluster.logs()}", file=sys.stderr)
        return result

    def fails(self, code, *args, says=None, **options):
        """Runs skep, which must end with this code and say something that matches. Returns what it said."""
        result = self.cluster.skep(*args, check=False, **options)
        error = result.stderr.decode(errors="replace")
        shown = f"skep {' '.join(map(str, args))[:200]}: {result.returncode}: {result.stdout[:200]!r} {error}"
        self.assertEqual(result.returncode, code, shown)
        if says is not None:
            self.assertRegex(error, says, shown)
        return error


class Caller:
    """Calls a function in a loop on a thread of its own and keeps what came of it. A call whose schedulers have all gone
    waits for one of them to come back, as long as its own timeout lets it."""

    def __init__(self, cluster, function, data, expect):
        self.cluster, self.function, self.data, self.expect = cluster, function, data, expect
        self.good, self.wrong, self.failed = 0, [], []
        self.last_good = 0.0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._ends.is_set():
            try:
                result = self.cluster.skep("call", self.function, "--data", self.data, "--timeout", "30s", check=False)
            except AssertionError as late:
                self.failed.append((time.monotonic(), -1, str(late)))
                continue
            if result.returncode != DONE:
                self.failed.append((time.monotonic(), result.returncode, result.stderr.decode(errors="replace").strip()))
            elif result.stdout != self.expect:
                self.wrong.append(result.stdout)
            else:
                self.good += 1
                self.last_good = time.monotonic()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join()
