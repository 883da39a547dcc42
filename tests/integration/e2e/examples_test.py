"""The shipped examples on a cluster of three schedulers and two agents."""

import os
import struct

from cluster import EXAMPLES, ClusterCase


class Examples(ClusterCase):
    @classmethod
    def prepare(cls):
        for name in ("hello", "thumbnail", "wordcount"):
            cls.cluster.deploy_example(name)

    def test_hello_answers_its_payload(self):
        self.assertEqual(self.cluster.call("hello", "bee"), b"hello, bee\n")

    def test_thumbnail_makes_a_png_of_160_pixels(self):
        picture = os.path.join(EXAMPLES, "thumbnail", "skep.jpg")
        png = self.cluster.skep("call", "thumbnail", "--file", picture).stdout
        self.assertEqual(png[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(max(struct.unpack(">II", png[16:24])), 160)

    def test_wordcount_counts_its_standard_input(self):
        answer = self.cluster.skep("call", "wordcount", "-", input=b"the bee, the hive\nand The queen\n").stdout
        self.assertEqual(answer.decode().splitlines()[0], "3 the")
        self.assertIn(b"words 7\n", answer)

    def test_every_scheduler_serves_as_the_only_address(self):
        with open(self.cluster.contexts, encoding="utf-8") as f:
            text = f.read()
        addresses = {name: self.cluster.address(name) for name in ("s1", "s2", "s3")}
        for name, address in addresses.items():
            path = os.path.join(self.cluster.folder, f"only-{name}.yaml")
            lines = [line for line in text.splitlines(True)
                     if not any(other in line for other in addresses.values() if other != address)]
            with open(path, "w", encoding="utf-8") as f:
                f.writelines(lines)
            environ = {**self.cluster.environ, "SKEP_CONTEXTS": path}
            with self.subTest(name):
                self.assertIn(address, "".join(lines))
                self.assertEqual(self.cluster.call("hello", name, env=environ), f"hello, {name}\n".encode())

    def test_a_change_makes_a_revision_and_rollback_returns(self):
        cluster = self.cluster
        cluster.deploy_python("turn", "def handle(p):\n    return 'one'\n")
        cluster.deploy_python("turn", "def handle(p):\n    return 'two'\n")
        self.assertEqual(cluster.call("turn"), b'"two"')
        self.assertEqual(len(cluster.rows("function", "history", "turn")), 2)
        cluster.skep("function", "rollback", "turn", "--yes")
        self.assertEqual(cluster.call("turn"), b'"one"')
        cluster.skep("function", "delete", "turn", "--yes")
        self.fails(1, "call", "turn", says="no function is named turn")
