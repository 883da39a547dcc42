"""Functions that misbehave: each ends with an error that names the limit, and nobody else notices."""

from cluster import DONE, FAILED, Caller, ClusterCase, wait_for

FORKS = """
import os, time
def handle(p):
    while True:
        try:
            if os.fork() == 0:
                time.sleep(60)
        except OSError:
            if p == "die":
                os._exit(9)
            raise
"""

MEMORY = """
def handle(p):
    kept = []
    while True:
        kept.append(bytearray(1 << 20))
"""

DISK = """
def handle(p):
    for n in range(100000 if p else 1):
        with open(f"/tmp/full-{n}", "wb", buffering=0) as f:
            for _ in range(1 if p else 100000):
                f.write(b"x" * (1 << 20))
"""

LOOP = """
def handle(p):
    while True:
        pass
"""

PRINT = """
import os
def handle(p):
    block = (b"x" * 1023 + b"\\n") * 1024
    for _ in range(200):
        view = memoryview(block)
        while view:
            view = view[os.write(1, view):]
    return "printed"
"""

EXIT = """
import os
def handle(p):
    os._exit(7)
"""

CRASH = """
import ctypes
def handle(p):
    ctypes.string_at(0)
"""

RAISE = """
def handle(p):
    raise ValueError("no bees in here")
"""

LARGE = """
def handle(p):
    return bytes(5 << 20)
"""

NO_IMPORT = "import a_module_that_is_not_there\ndef handle(p):\n    pass\n"

SLOW_START = "import time\ntime.sleep(60)\ndef handle(p):\n    pass\n"

SMALL = "{cpu: 200m, memory: 64Mi, tmp: 8Mi, processes: 16}"


class Abuse(ClusterCase):
    SCHEDULERS = 1

    @classmethod
    def prepare(cls):
        cls.cluster.deploy_example("hello")
        cls.cluster.call("hello")

    def abuse(self, name, code, says, call=(), **settings):
        """Calls the function, which must fail with such an error, while hello goes on answering."""
        cluster = self.cluster
        settings = {"resources": SMALL, "timeout": "10s", **settings}
        cluster.deploy_python(name, code, **settings)
        self.addCleanup(cluster.skep, "function", "delete", name, "--yes", check=False)
        with Caller(cluster, "hello", "well", b"hello, well\n") as caller:
            wait_for(lambda: caller.good > 0, "hello answers")
            error = self.fails(FAILED, "call", name, *call, says=says)
            before = caller.good
            wait_for(lambda: caller.good > before, "hello still answers")
        self.assertEqual((caller.wrong, caller.failed), ([], []))
        return error

    def tearDown(self):
        self.assertEqual({row["state"] for row in self.cluster.nodes().values()}, {"ready"})
        self.assertEqual(self.cluster.call("hello", "after"), b"hello, after\n")

    def test_forking_without_end(self):
        self.abuse("forks", FORKS, r"(?i)process(es)? limit|Resource temporarily unavailable")

    def test_a_fork_bomb_that_dies_names_the_process_limit(self):
        self.abuse("bomb", FORKS, r"exit code 9 \(\d+ forks were refused by the processes limit\)|process limit", call=("--data", '"die"'))

    def test_filling_memory(self):
        self.abuse("memory", MEMORY, r"memory limit of 64 MiB")

    def test_filling_tmp(self):
        self.abuse("disk", DISK, r"No space left on device", call=("--data", "1"))

    def test_one_file_without_end(self):
        self.abuse("file", DISK, r"File too large|No space left on device")

    def test_looping_without_end(self):
        self.abuse("loop", LOOP, r"timeout of 1\d\d\d ms exceeded|deadline passed while the call ran", timeout="1s")

    def test_printing_without_end_is_bounded_and_no_error(self):
        cluster = self.cluster
        cluster.deploy_python("prints", PRINT, resources=SMALL)
        with Caller(cluster, "hello", "well", b"hello, well\n") as caller:
            self.assertEqual(cluster.call("prints"), b'"printed"')
        self.assertEqual((caller.wrong, caller.failed), ([], []))
        tail = cluster.skep("logs", "prints", "--tail", str(1 << 20)).stdout
        self.assertIn(b"x" * 1023 + b"\n", tail)
        self.assertLessEqual(len(tail), 2 << 20)
        du = sum(row["memory_bytes"] for row in cluster.ps("prints"))
        self.assertLess(du, 64 << 20)

    def test_exiting(self):
        self.abuse("exits", EXIT, r"exit code 7")

    def test_crashing(self):
        self.abuse("crashes", CRASH, r"signal 11|SIGSEGV")

    def test_raising(self):
        error = self.abuse("raises", RAISE, r"ValueError: no bees in here")
        self.assertIn("main.py:3", error)

    def test_a_result_over_4_mib(self):
        self.abuse("large", LARGE, r"output of 5242880 bytes is over the limit of 4194304 bytes")

    def test_a_module_that_cannot_be_imported(self):
        self.abuse("imports", NO_IMPORT, r"(?s)could not start.*a_module_that_is_not_there")

    def test_a_start_that_takes_too_long(self):
        self.abuse("slow", SLOW_START, r"could not start: not ready within the startup timeout", startup_timeout="500ms")

    def test_a_command_that_is_not_there(self):
        cluster = self.cluster
        cluster.deploy_files("nothing", {}, command='["./not-there"]')
        self.fails(FAILED, "call", "nothing", says=r"not-there")

    def test_a_queue_that_is_full(self):
        cluster = self.cluster
        cluster.deploy_python("queue", "import time\ndef handle(p):\n    time.sleep(3)\n", resources=SMALL,
                              scaling="{max: 1, queue: 2}")
        cluster.call("queue")
        running = [cluster.start_skep("call", "queue", stdout=-3, stderr=-3) for _ in range(3)]
        try:
            wait_for(lambda: cluster.rows("function", "show", "queue")[0]["queued"] == 2, "two wait")
            self.fails(FAILED, "call", "queue", says=r"2 calls of queue wait, as many as scaling.queue allows")
        finally:
            codes = [process.wait(30) for process in running]
        self.assertEqual(codes, [DONE] * 3)
