"""Runs a command and fails when it leaves a process, a temporary file or, where CI is set, a mount behind.

Orphans of the command become children of this process (PR_SET_CHILD_SUBREAPER), so that exactly the command's own
leftovers are seen, whatever else runs on the machine; they are killed after they have been named.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PR_SET_CHILD_SUBREAPER = 36
SETTLE_SECONDS = float(os.environ.get("SKEP_SETTLE_SECONDS", "5"))


def children():
    path = f"/proc/self/task/{os.getpid()}/children"
    with open(path, encoding="ascii") as f:
        return [int(pid) for pid in f.read().split()]


def reap():
    """Collects ended children; returns {pid: wait status}."""
    ended = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended[pid] = status


def wait_for(pid):
    """Waits for pid and collects every orphan that ends in the meantime, so that no zombie lies about."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def describe(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            text = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        text = ""
    return f"process {pid}: {text or '(no command line)'}"


def leftover_processes():
    """Gives what is ending anyway a moment, then names and kills the rest, their own children included."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while children() and time.monotonic() < deadline:
        reap()
        time.sleep(0.05)
    found = []
    while True:
        reap()
        rest = children()
        if not rest:
            return found
        for pid in rest:
            found.append(describe(pid))
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def mounts():
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as f:
        return {line.split()[4] for line in f}


def main():
    command = sys.argv[1:]
    if not command:
        sys.exit("usage: run_contained.py COMMAND...")
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        sys.exit("run_contained: PR_SET_CHILD_SUBREAPER is refused")
    # Short, because Unix socket paths are; open to all, because cells run as other users.
    scratch = tempfile.mkdtemp(prefix="skep-t.", dir="/tmp")
    os.chmod(scratch, 0o1777)
    mounts_before = mounts()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": scratch})
    code = wait_for(child.pid)
    left = leftover_processes()
    left += [f"file {os.path.join(scratch, name)}" for name in sorted(os.listdir(scratch))]
    if os.environ.get("CI"):
        left += [f"mount {path}" for path in sorted(mounts() - mounts_before)]
    shutil.rmtree(scratch, ignore_errors=True)
    for item in left:
        print(f"run_contained: left behind: {item}", file=sys.stderr)
    sys.exit(code if code != 0 else (1 if left else 0))


if __name__ == "__main__":
    main()
