"""What instances write reaches people: while it runs, from several instances, whatever the bytes are."""

import concurrent.futures
import os
import subprocess

from cluster import ClusterCase, wait_for

WRITER = """
import sys
print("module is loaded")
def handle(p):
    print("out", p)
    print("err", p, file=sys.stderr)
    return p
"""

BYTES = """
import os
def handle(p):
    os.write(1, b"\\x1b[2J\\x00\\xff\\xfe plain\\n" + bytes(range(256)) + b"\\nend of bytes\\n")
"""

SLOW = """
import time
def handle(p):
    print("line of", p, flush=True)
    time.sleep(0.5)
"""


class Logs(ClusterCase):
    SCHEDULERS, AGENTS = 3, 2

    def lines(self, *args):
        return self.cluster.skep("logs", *args).stdout.decode(errors="replace").splitlines()

    def test_both_streams_are_shown_with_their_instance(self):
        cluster = self.cluster
        cluster.deploy_python("writer", WRITER)
        instance = cluster.call_json("writer", '"x"')["instance"]
        wanted = [f"{instance} {text}" for text in ("module is loaded", "out x", "err x")]
        wait_for(lambda: set(wanted) <= set(self.lines("writer")), "all lines are there")
        self.assertEqual(self.lines(instance), self.lines("writer"))

    def test_follow_shows_new_lines(self):
        cluster = self.cluster
        cluster.deploy_python("followed", WRITER)
        cluster.call("followed", '"before"')
        follower = cluster.start_skep("logs", "followed", "--follow", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.set_blocking(follower.stdout.fileno(), False)
        seen = bytearray()

        def shows(text):
            seen.extend(follower.stdout.read() or b"")
            return text in seen

        try:
            wait_for(lambda: shows(b"out before"), "what was written before")
            for number in range(3):
                cluster.call("followed", f'"now-{number}"')
                wait_for(lambda n=number: shows(f"out now-{n}".encode()), "a new line")
            cluster.skep("function", "delete", "followed", "--yes")
            follower.wait(20)
            self.assertEqual(follower.returncode, 0, follower.stderr.read())
        finally:
            follower.kill()
            follower.communicate()

    def test_an_ended_instance_is_still_heard(self):
        cluster = self.cluster
        cluster.deploy_python("gone", WRITER)
        instance = cluster.call_json("gone", '"last"')["instance"]
        cluster.skep("function", "delete", "gone", "--yes")
        wait_for(lambda: not cluster.ps("gone"), "the instance ended")
        self.assertIn(f"{instance} out last", self.lines(instance))

    def test_an_instance_that_never_was_is_an_error(self):
        self.fails(1, "logs", "i-01M86CCB7FXB2906H009VXA3PB")

    def test_tail_bounds_what_is_shown(self):
        cluster = self.cluster
        cluster.deploy_python("tailed", "def handle(p):\n    print('x' * 100)\n    print('last')\n")
        cluster.call("tailed")
        wait_for(lambda: self.lines("tailed", "--tail", "5") and self.lines("tailed", "--tail", "5")[0].endswith("last"),
                 "the last five bytes")

    def test_lines_of_several_instances_are_whole(self):
        cluster = self.cluster
        cluster.deploy_python("several", SLOW, resources="{cpu: 100m, memory: 64Mi}")
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda n: cluster.call("several", str(n)), range(6)))
        wait_for(lambda: len(self.lines("several")) == 6, "six lines")
        lines = [line.split(" ", 1) for line in self.lines("several")]
        self.assertEqual(sorted(text for _, text in lines), [f"line of {n}" for n in range(6)])
        self.assertLessEqual({name for name, _ in lines}, {row["instance"] for row in cluster.ps("several")})

    def test_bytes_that_are_no_text_do_no_harm(self):
        cluster = self.cluster
        cluster.deploy_python("bytes", BYTES)
        cluster.call("bytes")
        wait_for(lambda: b"end of bytes" in cluster.skep("logs", "bytes").stdout, "the end of the bytes")
        self.assertIn(b" plain\n", cluster.skep("logs", "bytes").stdout)

    def test_a_terminal_gets_no_escapes(self):
        cluster = self.cluster
        cluster.deploy_python("escapes", BYTES)
        cluster.call("escapes")
        wait_for(lambda: b"end of bytes" in cluster.skep("logs", "escapes").stdout, "the end of the bytes")
        main, terminal = os.openpty()
        try:
            shown = cluster.start_skep("logs", "escapes", stdout=terminal, stderr=subprocess.DEVNULL)
            os.close(terminal)
            terminal = -1
            text = b""
            while True:
                try:
                    text += os.read(main, 65536)
                except OSError:  # EIO: the other side is closed
                    break
            self.assertEqual(shown.wait(20), 0)
        finally:
            os.close(main)
            if terminal >= 0:
                os.close(terminal)
        self.assertIn(b"end of bytes", text)
        self.assertNotIn(b"\x1b", text)

    def test_error_texts_hold_no_escapes(self):
        cluster = self.cluster
        cluster.deploy_python("painter", "def handle(p):\n    raise ValueError('\\x1b[2J\\x07 paint \\u009b1m')\n")
        error = self.fails(1, "call", "painter", says=r"ValueError: .* paint ")
        self.assertEqual([c for c in error if c != "\n" and not c.isprintable() and c != "\ufffd"], [])

    def test_logs_of_what_has_ended_say_so(self):
        cluster = self.cluster
        cluster.deploy_python("crashed", "import os\ndef handle(p):\n    print('last words', flush=True)\n    os._exit(3)\n")
        self.fails(1, "call", "crashed", says="exit code 3")
        wait_for(lambda: cluster.ps("crashed") == [], "the instance is gone")
        self.fails(1, "logs", "crashed", says="no instance of it runs; skep why names those that ended")

    def test_metrics_count_calls(self):
        cluster = self.cluster
        cluster.deploy_python("counted", WRITER)
        before = cluster.metric("skep_calls_total", cluster.leader())
        for _ in range(3):
            cluster.call("counted", "1")
        self.assertEqual(cluster.metric("skep_calls_total", cluster.leader()), before + 3)

    def test_why_tells_what_was_decided(self):
        cluster = self.cluster
        cluster.deploy_python("explained", WRITER, resources="{cpu: 64, memory: 64Mi}")
        self.fails(1, "call", "explained", "--timeout", "500ms", says="skep why explained")
        decisions = [row["decision"] for row in cluster.rows("why", "explained")]
        self.assertTrue(any("too little CPU" in text for text in decisions), decisions)
        cluster.skep("function", "delete", "explained", "--yes")
