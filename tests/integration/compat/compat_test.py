"""Ordinary programs in a cell and outside: every difference must stand in docs/compatibility.md with its reason.

CPython's own regression tests (Debian's libpython3.11-testsuite) and scripts around common tools run twice, in a cell by
cell_exec and as user 65534 in a network namespace that has only loopback; each at the same time as its twin. Needs root.
"""

import concurrent.futures
import fnmatch
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
CELL_EXEC = os.environ["SKEP_CELL_EXEC"]
DOCUMENT = os.environ["SKEP_COMPATIBILITY"]
SUITES = "/usr/lib/python3.11/test/test_os.py"
SECONDS = 280

# Module and, where the whole would take minutes, the patterns of what is run.
MODULES = [
    ("test_os", []),
    ("test_posix", []),
    ("test_pathlib", []),
    ("test_tempfile", []),
    ("test_json", []),
    ("test_threading", ["*.ThreadTests.*", "*LockTests.*", "*.EventTests.*", "*.BarrierTests.*", "*SemaphoreTests.*"]),
    ("test_subprocess", ["*.POSIXProcessTestCase.*", "*.RunFuncTestCase.*"]),
    ("test_socket", []),
    ("test_multiprocessing_fork", ["*WithProcessesTestQueue.*", "*WithProcessesTestLock.*", "*WithProcessesTestEvent.*",
                                   "*WithProcessesTestValue.*", "*WithManagerTestDict*"]),
]

# Name and a shell script that works in its current folder; its output must be the same in both.
PROGRAMS = {
    "busybox": "busybox seq 5 > a; busybox sort -rn a | busybox head -2; busybox ls -l a | busybox wc -l; busybox sha256sum a;"
               " busybox find . -type f; busybox tar cf t a; busybox tar tf t; busybox sh -c 'echo $((6*7))'",
    "git": "export HOME=$PWD GIT_AUTHOR_DATE=2024-01-01T00:00:00Z GIT_COMMITTER_DATE=2024-01-01T00:00:00Z;"
           " git init -q -b main r; cd r; git config user.email a@b; git config user.name n; echo x > f; git add f;"
           " git commit -qm first; git log --format=%H%s; cd ..; git clone -q r c; git -C c log --oneline | wc -l;"
           " git -C c fsck 2>&1 | tail -1",
    "gcc": "printf '#include <stdio.h>\\nint main(void) { puts(\"made\"); return 0; }\\n' > a.c; gcc -O1 -o a a.c; echo $?;"
           " file=$(od -An -tx1 -N4 a); echo $file",
    "gcc-run": "printf 'int main(void) { return 0; }\\n' > a.c; gcc -o a a.c && ./a; echo $?",
    "sqlite3": "sqlite3 d 'create table t(a, b); insert into t values (1, 2), (3, 4); begin; update t set a = a + 1; commit;"
               " select * from t; pragma integrity_check; pragma journal_mode=wal; insert into t values(9, 9);"
               " select count(*) from t; vacuum;'; sqlite3 d 'select sum(a) from t'",
    "python-sqlite3": "python3 -c 'import sqlite3; d = sqlite3.connect(\"d\"); d.execute(\"create table t(a)\");"
                      " d.executemany(\"insert into t values(?)\", [(i,) for i in range(1000)]); d.commit();"
                      " print(d.execute(\"select count(*), sum(a) from t\").fetchall());"
                      " d.backup(sqlite3.connect(\"e\")); print(sqlite3.connect(\"e\").execute(\"select max(a) from t\").fetchone())'",
    "tar": "mkdir -p d/e; echo 1 > d/a; ln -s a d/l; ln d/a d/h; tar czf t.tgz --mtime=@0 d; tar tzf t.tgz | sort; mkdir x;"
           " tar xzf t.tgz -C x; cat x/d/l; stat -c %h x/d/a; diff -r d x/d && echo equal",
    "awk": "seq 1000 | awk '{ s += $1; n[$1 % 7]++ } END { print s, n[3] }'",
    "sort": "seq 20000 | sort -R --random-source=/dev/zero | sort -n --parallel=2 -S 1M | sha256sum",
    "find": "mkdir -p a/b/c; touch a/1 a/b/2 a/b/c/3; find . -name '[0-9]' -newermt 2020-01-01 | sort; find . -type d -empty;"
            " find a -depth -delete; ls | wc -l",
    "perl": "perl -e 'my %h = map { $_ => $_ ** 2 } 1 .. 10; print join(\",\", map { $h{$_} } sort { $a <=> $b } keys %h), \"\\n\";"
            " open(my $f, \">\", \"p\"); print $f \"x\" x 70000; close $f; print -s \"p\", \"\\n\"; print `echo child`;'",
    "sed-grep-xargs": "seq 100 | sed -n 's/^\\(.\\)5$/\\1five/p' | grep -c five; seq 20 | xargs -n 5 -P 2 echo | wc -l",
    "identity": "id -u; id -un",
    "hostname": "cat /etc/hosts | wc -l; test -e /etc/resolv.conf; echo $?",
    "sysfs": "test -d /sys/kernel; echo $?",
    "proc": "test -e /proc/meminfo; echo $?; test -e /proc/self/status; echo $?",
    "loopback": "python3 -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0));"
                " c = socket.create_connection(s.getsockname()); a, _ = s.accept(); c.sendall(b\"over\"); print(a.recv(9))'",
    "terminal": "python3 -c 'import os; os.openpty()' 2>/dev/null; echo $?",
    "thread-limit": "python3 -c 'import threading; t = [threading.Thread(target=len, args=((),)) for _ in range(50)];"
                    " [x.start() for x in t]; [x.join() for x in t]; print(len(t))'",
}


def listed_differences():
    """The patterns of the document's table: the code in the first column of each row."""
    with open(DOCUMENT, encoding="utf-8") as f:
        return re.findall(r"^\| `([^`]+)` \|", f.read(), re.M)


def run_inside(argv):
    command = [CELL_EXEC, "-s", str(SECONDS), "-M", "1024", "-T", "256", "-P", "300", "-C", "2000", "-w", "/tmp",
               "-e", "HOME=/tmp", "-e", "PATH=/usr/bin:/bin", "-e", "LC_ALL=C.UTF-8", "-m", f"{HERE}:/compat"] + argv
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
                          timeout=SECONDS + 60)


def run_outside(argv):
    folder = tempfile.mkdtemp(prefix="skep-compat-")
    runner = os.path.join(folder, "compat")
    work = os.path.join(folder, "work")
    try:
        shutil.copytree(HERE, runner, ignore=shutil.ignore_patterns("__pycache__"))
        os.mkdir(work)
        for path in (folder, work):
            os.chmod(path, 0o755)
            os.chown(path, 65534, 65534)
        argv = [word.replace("/compat/", runner + "/") for word in argv]
        shell = 'ip link set lo up && cd "$0" && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"'
        return subprocess.run(["unshare", "-n", "--", "/bin/sh", "-c", shell, work] + argv, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                              timeout=SECONDS, env={"HOME": work, "TMPDIR": work, "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
                                                    "LC_ALL": "C.UTF-8"})
    finally:
        shutil.rmtree(folder)


def run_both(argv):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        inside = pool.submit(run_inside, argv)
        outside = pool.submit(run_outside, argv)
        return inside.result(), outside.result()


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class Compatibility(unittest.TestCase):
    """Each test compares; the document says which differences are meant."""

    listed = listed_differences()

    def check(self, differences):
        """differences: (id, text) pairs."""
        unlisted = [f"{name}: {text}" for name, text in differences
                    if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self.listed)]
        if unlisted:
            self.fail("\n".join(["differences that docs/compatibility.md does not list:"] + unlisted))

    def test_programs_say_in_a_cell_what_they_say_outside(self):
        differences = []
        for name, script in PROGRAMS.items():
            inside, outside = run_both(["/bin/sh", "-c", script])
            if (inside.returncode, inside.stdout) != (outside.returncode, outside.stdout):
                differences.append((name, f"inside {inside.returncode} {inside.stdout[-600:]!r} {inside.stderr[-300:]!r}, "
                                          f"outside {outside.returncode} {outside.stdout[-600:]!r}"))
        self.check(differences)


def ends_of(result):
    lines = [line for line in result.stdout.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise AssertionError(f"the suite did not end: {result.returncode} {result.stdout[-2000:]} {result.stderr}")
    return json.loads(lines[-1][len("RESULT "):])


def suite_test(module, patterns):
    def test(self):
        if not os.path.exists(SUITES):
            self.skipTest("libpython3.11-testsuite is not installed")
        inside, outside = run_both(["/usr/bin/python3", "-B", "/compat/suite_runner.py", "test." + module] + patterns)
        ends, wanted = ends_of(inside), ends_of(outside)
        good = sum(end == "ok" for end in ends.values())
        print(f"{module}: {good} of {sum(end == 'ok' for end in wanted.values())} as outside", flush=True)
        self.assertGreater(good, 10)
        self.check([(name, f"{ends.get(name, 'not run')} inside, ok outside") for name, end in wanted.items()
                    if end == "ok" and ends.get(name) != "ok"])

    return test


for suite, wanted_patterns in MODULES:
    setattr(Compatibility, f"test_python_{suite}", suite_test(suite, wanted_patterns))


if __name__ == "__main__":
    unittest.main()
