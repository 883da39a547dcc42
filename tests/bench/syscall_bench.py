"""What system calls cost: natively, in a cell, and under runsc where it is installed, in the same run.

usage: syscall_bench.py BUILD_FOLDER [--rounds N] [--runs N]

Loops of open/read/close, stat, pread, a ping-pong over pipes and getppid (one static program), and Python importing 100
modules of its library. Runs are interleaved, the best of each counts. Prints `PLACE_NAME VALUE UNIT` lines and, for cells
and runsc, the ratio to native. Cells and runsc need root for what they are measured with here.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

IMPORTS = """
import sys, time
names = sorted(n for n in sys.stdlib_module_names if not n.startswith("_") and n not in {skip})
begin = time.perf_counter_ns()
done = 0
for name in names:
    if done == 100:
        break
    try:
        __import__(name)
        done += 1
    except ImportError:
        pass
print("python_imports_100", time.perf_counter_ns() - begin, "ns", flush=True)
"""
# These say or open something when they are imported.
SKIP = {"antigravity", "this", "idlelib", "turtledemo", "tkinter", "turtle", "lib2to3"}


def lines_of(output):
    """{name: value} of `name value ns` lines."""
    found = {}
    for line in output.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == "ns":
            found[words[0]] = float(words[1])
    return found


def run(argv):
    """Pipes for all of standard input and output: runsc changes the owner of what it is given."""
    result = subprocess.run(argv, input="", capture_output=True, text=True, check=False, timeout=300)
    if result.returncode != 0:
        sys.exit(f"{argv[0]}: {result.returncode}: {result.stdout} {result.stderr}")
    return lines_of(result.stdout)


class Runsc:
    """A bundle with the machine's /usr, like a cell's root."""

    def __init__(self, guest):
        self.folder = tempfile.mkdtemp(prefix="skep-runsc-")
        self.guest = guest
        self.serial = 0
        root = os.path.join(self.folder, "rootfs")
        for name in ("usr", "proc", "tmp", "dev", "etc"):
            os.makedirs(os.path.join(root, name))
        for name in ("bin", "lib", "lib64"):
            os.symlink(f"usr/{name}", os.path.join(root, name))
        shutil.copy(guest, os.path.join(root, "guest"))

    def run(self, argv):
        self.serial += 1
        config = {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 65534, "gid": 65534}, "args": argv, "cwd": "/", "noNewPrivileges": True,
                        "env": ["PATH=/usr/bin:/bin"]},
            "root": {"path": "rootfs", "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
        }
        with open(os.path.join(self.folder, "config.json"), "w", encoding="utf-8") as f:
            json.dump(config, f)
        return run(["runsc", "--root", os.path.join(self.folder, "state"), "--ignore-cgroups", "--network=none",
                    "--platform=ptrace", "run", "--bundle", self.folder, f"skep-bench-{os.getpid()}-{self.serial}"])

    def close(self):
        shutil.rmtree(self.folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build")
    parser.add_argument("--rounds", type=int, default=20000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-runsc", action="store_true")
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    guest = os.path.join(options.build, "tests/bench/syscall_bench_guest")
    cell_exec = [os.path.join(options.build, "tests/cell_exec"), "-M", "512", "-C", "2000", "-s", "300"]
    loops = [str(options.rounds)]
    python = ["/usr/bin/python3", "-I", "-c", IMPORTS.replace("{skip}", repr(SKIP))]
    runsc = Runsc(guest) if shutil.which("runsc") and os.geteuid() == 0 and not options.no_runsc else None
    places = {
        "native": lambda argv: run([guest] + argv[1:] if argv[0] == "/guest" else argv),
        "cell": lambda argv: run(cell_exec + ["-m", f"{guest}:/guest"] + argv),
    }
    if runsc is not None:
        places["runsc"] = runsc.run
    best = {place: {} for place in places}
    try:
        for _ in range(options.runs):
            for place, call in places.items():
                for argv in (["/guest"] + loops, python):
                    for name, value in call(argv).items():
                        best[place][name] = min(value, best[place].get(name, value))
    finally:
        if runsc is not None:
            runsc.close()
    for name in best["native"]:
        for place in places:
            print(f"{place}_{name} {best[place][name]:.0f} ns")
        for place in places:
            if place != "native":
                print(f"{place}_{name}_ratio {best[place][name] / best['native'][name]:.2f} times")
    if len(best["native"]) != 6 or any(best[place].keys() != best["native"].keys() for place in places):
        sys.exit("not everything was measured")


if __name__ == "__main__":
    main()
