"""Payloads outside the log: large inputs and outputs of durable invocations survive schedulers, fill emptied folders, and go
when nothing names them."""

import glob
import hashlib
import json
import os
import shutil

from cluster import ClusterCase, wait_for

MIB = 1 << 20
SCHEDULERS = ("s1", "s2", "s3")

MEASURE = "import hashlib\ndef handle(p):\n    return [len(p), hashlib.sha256(p.encode()).hexdigest()]\n"
REPEAT = "def handle(p):\n    return p * 1000000\n"
FAIL = "def handle(p):\n    raise ValueError(len(p))\n"


class Payloads(ClusterCase):
    AGENTS = 1

    @classmethod
    def prepare(cls):
        cls.cluster.deploy_python("measure", MEASURE)
        cls.cluster.deploy_python("repeat", REPEAT)
        cls.cluster.deploy_python("broken", FAIL, retries="{max: 0}")
        cls.cluster.deploy_python("secret", MEASURE, data_class="phi")

    def setUp(self):
        wait_for(lambda: self.connected() == 3, "three schedulers, one of which leads")

    def connected(self):
        rows = self.cluster.status()
        return sum(row["connected"] for row in rows) if any(row["leader"] for row in rows) else 0

    def payload(self, size, seed):
        """The path of a JSON text of that many characters, and the text."""
        text = (seed * (size // len(seed) + 1))[:size]
        path = os.path.join(self.cluster.folder, "payload.json")
        with open(path, "w", encoding="ascii") as f:
            json.dump(text, f)
        return path, text

    def spawn(self, function, size, seed, *args):
        path, text = self.payload(size, seed)
        return self.cluster.skep("spawn", function, "--file", path, *args).stdout.decode().split()[0], text

    def result(self, invocation):
        return json.loads(self.cluster.skep("result", invocation, "--wait").stdout)

    def folder(self, scheduler):
        return os.path.join(self.cluster.data, scheduler, "data", "payloads")

    def kept(self, scheduler):
        """Names of the payloads that a scheduler has."""
        paths = glob.glob(f"{self.folder(scheduler)}/??/*")
        return {os.path.basename(os.path.dirname(p)) + os.path.basename(p) for p in paths if not p.endswith(".key")}

    def has(self, scheduler, text):
        return hashlib.sha256(json.dumps(text).encode()).hexdigest() in self.kept(scheduler)

    def test_a_large_payload_outlives_its_leader(self):
        invocation, text = self.spawn("measure", MIB, "outlives", "--delay", "3s")
        killed = self.cluster.leader()
        self.cluster.kill(killed)
        self.assertEqual(self.result(invocation), [MIB, hashlib.sha256(text.encode()).hexdigest()])
        self.cluster.restart(killed)

    def test_four_mebibytes_go_in_and_a_mebibyte_comes_out(self):
        invocation, text = self.spawn("measure", 4 * MIB - 2, "four")
        self.assertEqual(self.result(invocation), [4 * MIB - 2, hashlib.sha256(text.encode()).hexdigest()])
        invocation = self.cluster.skep("spawn", "repeat", "--data", '"x"').stdout.decode().split()[0]
        self.assertEqual(self.result(invocation), "x" * 1000000)

    def test_a_large_output_outlives_its_leader(self):
        invocation = self.cluster.skep("spawn", "repeat", "--data", '"y"').stdout.decode().split()[0]
        self.assertEqual(self.result(invocation), "y" * 1000000)
        killed = self.cluster.leader()
        self.cluster.kill(killed)
        self.assertEqual(self.result(invocation), "y" * 1000000)
        self.cluster.restart(killed)

    def test_five_mebibytes_are_refused(self):
        path, _ = self.payload(5 * MIB, "five")
        refused = self.cluster.skep("spawn", "measure", "--file", path, check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertRegex(refused.stderr.decode(), r"4 MiB|4194304")

    def test_an_emptied_folder_is_filled_again(self):
        invocation, text = self.spawn("measure", MIB, "emptied", "--delay", "1h")
        follower = next(name for name in SCHEDULERS if name != self.cluster.leader())
        wait_for(lambda: self.has(follower, text), f"{follower} has it")
        self.cluster.kill(follower)
        shutil.rmtree(self.folder(follower))
        self.cluster.restart(follower)
        wait_for(lambda: self.has(follower, text), f"{follower} has it again", 60)
        self.cluster.skep("cancel", invocation)

    def test_a_purged_dead_letter_takes_its_payload_along(self):
        invocation, text = self.spawn("broken", MIB, "purged")
        wait_for(lambda: self.cluster.rows("dead", "list", "broken"), "a dead letter")
        for name in SCHEDULERS:
            wait_for(lambda n=name: self.has(n, text), f"{name} has it")
        self.cluster.skep("dead", "purge", invocation, "--yes")
        for name in SCHEDULERS:
            wait_for(lambda n=name: not self.has(n, text), f"{name} has it no more", 60)

    def test_an_output_goes_when_its_time_is_over(self):
        before = {name: self.kept(name) for name in SCHEDULERS}
        invocation = self.cluster.skep("spawn", "repeat", "--data", '"z"', "--ttl", "5s").stdout.decode().split()[0]
        self.assertEqual(self.result(invocation), "z" * 1000000)
        self.assertTrue(any(self.kept(name) - before[name] for name in SCHEDULERS))
        for name in SCHEDULERS:
            wait_for(lambda n=name: not self.kept(n) - before[n], f"{name} has it no more", 60)

    def test_sensitive_payloads_are_files_whatever_their_size(self):
        invocation, text = self.spawn("secret", 10, "diagnosis", "--delay", "1h")
        for name in SCHEDULERS:
            wait_for(lambda n=name: self.has(n, text), f"{name} has it")
        self.cluster.skep("cancel", invocation)
