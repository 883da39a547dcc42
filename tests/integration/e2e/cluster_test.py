"""Schedulers come and go while the cluster serves."""

import os
import unittest

from cluster import BIN, FAILED, UNREACHABLE, USAGE, Caller, Cluster, ClusterCase, free_ports, run, wait_for


class Membership(ClusterCase):
    SCHEDULERS, AGENTS = 3, 1

    @classmethod
    def prepare(cls):
        cls.cluster.deploy_example("hello")
        cls.cluster.call("hello")
        # Deployed and never called: no agent has its code yet.
        cls.cluster.deploy_python("early", "def handle(p):\n    return 'from long ago'\n")

    def join(self, name):
        """A scheduler joins with a token and runs; it is not a member yet. Returns its address."""
        cluster = self.cluster
        folder, address = os.path.join(cluster.data, name), f"127.0.0.1:{free_ports(1)[0]}"
        os.makedirs(folder)
        token = cluster.skep("ca", "token", "--role", "scheduler", "--name", name).stdout
        joined = run([os.path.join(BIN, "skep-scheduler"), "join", "--token-file", "-", "--name", name, "--address", address,
                      "--data", os.path.join(folder, "data"), "--config-out", os.path.join(folder, "config.yaml"),
                      "--cluster-key", f"file:{cluster.data}/cluster.key"], input=token)
        self.assertEqual(joined.returncode, 0, joined.stderr)
        pid = cluster.spawn_daemon("scheduler", name)
        cluster.adopt("scheduler", name, pid, address.rpartition(":")[2])
        return address

    def members(self):
        return sorted(row["name"] for row in self.cluster.status())

    def test_a_cluster_moves_to_a_new_scheduler(self):
        cluster = self.cluster
        with Caller(cluster, "hello", "m", b"hello, m\n") as caller:
            wait_for(lambda: caller.good > 0, "calls succeed")
            address = self.join("s4")
            cluster.skep("cluster", "add", "s4", "--address", address)
            self.assertEqual(self.members(), ["s1", "s2", "s3", "s4"])
            wait_for(lambda: [r for r in cluster.status() if r["name"] == "s4" and r["role"] == "voter" and r["connected"]],
                     "s4 votes")
            wait_for(lambda: os.listdir(os.path.join(cluster.data, "s4", "data", "chunks")), "s4 has chunks")
            cluster.skep("cluster", "transfer", "s4")
            wait_for(lambda: cluster.leader() == "s4", "s4 leads")
            for name in ("s1", "s2", "s3"):
                cluster.skep("cluster", "remove", name, "--yes")
            environ = cluster.context("moved", os.path.join(cluster.data, "user"), ("s4",))
            status = cluster.rows("cluster", "status", env=environ)
            self.assertEqual([(row["name"], row["leader"]) for row in status], [("s4", True)])
            for name in ("s1", "s2", "s3"):
                cluster.kill(name)
            good = caller.good
            self.assertEqual(cluster.skep("call", "early", env=environ).stdout, b'"from long ago"')
            # The callers' context still names the three that are gone.
            self.assertGreaterEqual(caller.good, good)
        self.assertEqual(caller.wrong, [])
        self.assertEqual([code for _, code, _ in caller.failed if code not in (3, 5)], [], caller.failed)


class Mistakes(ClusterCase):
    SCHEDULERS, AGENTS = 1, 1

    def test_adding_without_an_address(self):
        self.fails(USAGE, "cluster", "add", "s9", says="--address")

    def test_adding_with_a_wrong_address(self):
        self.fails(USAGE, "cluster", "add", "s9", "--address", "nowhere", says="HOST:PORT")

    def test_removing_one_that_is_not_there(self):
        self.fails(FAILED, "cluster", "remove", "s9", "--yes", says="no scheduler is named s9")

    def test_transfer_to_one_that_is_not_there(self):
        self.fails(FAILED, "cluster", "transfer", "s9", says="no scheduler is named s9")

    def test_removing_the_only_one(self):
        self.fails(USAGE, "cluster", "remove", "s1", "--yes", says="the last voter cannot be removed")
        self.assertEqual(self.cluster.leader(), "s1")

    def test_adding_one_that_does_not_answer_gives_it_no_vote(self):
        cluster = self.cluster
        self.fails(UNREACHABLE, "cluster", "add", "s9", "--address", f"127.0.0.1:{free_ports(1)[0]}", timeout=90,
                   says="does not catch up")
        self.assertEqual(cluster.leader(), "s1")
        self.assertEqual([row["name"] for row in cluster.status() if row["role"] == "voter"], ["s1"])
        cluster.deploy_example("hello")
        self.assertEqual(cluster.call("hello"), b"hello, world\n")
        cluster.skep("cluster", "remove", "s9", "--yes")
        self.assertEqual([row["name"] for row in cluster.status()], ["s1"])

    def test_a_second_cluster_in_the_same_folder(self):
        self.fails(FAILED, "dev", "--data", self.cluster.data, "--detach", says="skep dev stop")


class OneDaemon(unittest.TestCase):
    def test_dev_stop_twice(self):
        cluster = Cluster(1, 1)
        self.addCleanup(cluster.remove)
        cluster.start()
        cluster.skep("dev", "status", "--data", cluster.data)
        cluster.stop()
        again = cluster.skep("dev", "stop", "--data", cluster.data, check=False)
        self.assertEqual(again.returncode, FAILED)
        self.assertIn(b"no development cluster", again.stderr)
