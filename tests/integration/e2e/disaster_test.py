"""Disks are lost, damaged and wiped: what a majority had is never lost, and there is a way back from each."""

import glob
import os
import re
import shutil

from cluster import BIN, DONE, FAILED, UNREACHABLE, ClusterCase, run, wait_for

REJOINS_SECONDS = 60


class Disaster(ClusterCase):
    @classmethod
    def prepare(cls):
        cls.cluster.deploy_example("hello")
        cls.cluster.call("hello")

    def setUp(self):
        wait_for(lambda: len(self.voters()) == 3 and self.cluster.leader(), "three voters, one of which leads",
                 REJOINS_SECONDS)
        wait_for(lambda: all(row["connected"] for row in self.cluster.status()), "all connected", REJOINS_SECONDS)

    def voters(self):
        return [row["name"] for row in self.cluster.status() if row["role"] == "voter"]

    def follower(self):
        leader = wait_for(self.cluster.leader, "a leader")
        return next(name for name in ("s3", "s2", "s1") if name != leader)

    def config(self, name):
        return os.path.join(self.cluster.data, name, "config.yaml")

    def raft(self, name):
        return os.path.join(self.cluster.data, name, "data", "raft")

    def scheduler(self, verb, name, *options):
        """Runs skep-scheduler VERB on a scheduler's configuration."""
        return run([os.path.join(BIN, "skep-scheduler"), verb, "--config", self.config(name), *options])

    def wipe(self, name):
        done = self.scheduler("wipe", name, "--yes")
        self.assertEqual(done.returncode, DONE, done.stderr)

    def add(self, name):
        self.cluster.skep("cluster", "add", name, "--address", self.cluster.address(name), timeout=120)

    def dies(self, name):
        """Starts a scheduler that cannot run; returns what it says."""
        done = run([os.path.join(BIN, "skep-scheduler"), "--config", self.config(name)])
        self.assertEqual(done.returncode, FAILED, done.stderr)
        return done.stderr.decode(errors="replace")

    def test_a_wiped_member_is_removed_and_added_again(self):
        cluster = self.cluster
        name = self.follower()
        cluster.kill(name)
        cluster.skep("cluster", "remove", name, "--yes")
        self.wipe(name)
        cluster.restart(name)
        # It founds nothing of its own and is nobody until it is added.
        self.assertEqual(len(self.voters()), 2)
        self.add(name)
        wait_for(lambda: len(self.voters()) == 3, "three voters", REJOINS_SECONDS)
        self.assertEqual(cluster.call("hello"), b"hello, world\n")

    def test_a_dead_member_is_removed_by_itself_and_promoted_when_it_is_back(self):
        cluster = self.cluster
        name = self.follower()
        cluster.skep("setting", "set", "schedulers.dead_after", "10s")
        cluster.kill(name)
        wait_for(lambda: sorted(self.voters()) == sorted({"s1", "s2", "s3"} - {name}), "two voters remain", REJOINS_SECONDS)
        self.assertEqual(cluster.call("hello"), b"hello, world\n")
        cluster.skep("setting", "set", "schedulers.dead_after", "0s")
        self.wipe(name)
        self.fails(UNREACHABLE, "cluster", "add", name, "--address", cluster.address(name), timeout=90, says="does not catch up")
        self.assertEqual(len(self.voters()), 2)
        cluster.restart(name)
        cluster.skep("cluster", "promote", name, timeout=120)
        wait_for(lambda: name in self.voters(), f"{name} votes again", REJOINS_SECONDS)

    def test_a_damaged_segment_on_a_follower(self):
        cluster = self.cluster
        name = self.follower()
        for i in range(20):
            cluster.skep("setting", "set", "tenant.nobody.running", str(i + 1))
        cluster.kill(name, 15)  # its open segment is closed
        segments = sorted(glob.glob(f"{self.raft(name)}/0*-0*"))
        self.assertTrue(segments, os.listdir(self.raft(name)))
        damaged = segments[-1]
        with open(damaged, "r+b") as f:
            f.seek(os.path.getsize(damaged) // 2)
            byte = f.read(1)
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte[0] ^ 0x55]))
        said = self.dies(name)
        self.assertIn(os.path.basename(damaged), said)
        self.assertIn("skep-scheduler wipe", said)
        self.assertEqual(cluster.call("hello"), b"hello, world\n")
        cluster.skep("cluster", "remove", name, "--yes")
        self.wipe(name)
        cluster.restart(name)
        self.add(name)
        wait_for(lambda: len(self.voters()) == 3, "three voters", REJOINS_SECONDS)
        cluster.skep("cluster", "transfer", name)
        wait_for(lambda: cluster.leader() == name, f"{name} leads")
        self.assertIn("hello", [row["name"] for row in cluster.rows("function", "list")])

    def test_the_majority_is_lost(self):
        cluster = self.cluster
        survivor = wait_for(cluster.leader, "a leader")
        others = [name for name in ("s1", "s2", "s3") if name != survivor]
        functions = cluster.rows("function", "list")
        running = self.scheduler("recover", survivor)
        self.assertEqual(running.returncode, FAILED)
        self.assertIn(b"in use by another process", running.stderr)
        for name in ("s1", "s2", "s3"):
            cluster.kill(name)
        for name in others:
            shutil.rmtree(self.raft(name))
            os.makedirs(self.raft(name), mode=0o700)
            self.wipe(name)
        looked = cluster.skep("cluster", "recover", "--config", self.config(survivor)).stdout.decode()
        self.assertRegex(looked, r"the last entry is \d+ of term \d+")
        self.assertGreater(int(re.search(r"last entry is (\d+)", looked).group(1)), 1)
        cluster.skep("cluster", "recover", "--config", self.config(survivor), "--yes")
        cluster.restart(survivor)
        wait_for(lambda: cluster.leader() == survivor, "the survivor leads alone")
        self.assertEqual([row["name"] for row in cluster.rows("function", "list")],
                         [row["name"] for row in functions])
        for name in others:
            cluster.restart(name)
            self.add(name)
        wait_for(lambda: len(self.voters()) == 3, "three voters", REJOINS_SECONDS)
        wait_for(lambda: cluster.skep("call", "hello", check=False).stdout == b"hello, world\n", "calls go on",
                 REJOINS_SECONDS)

    def test_recover_without_a_configuration_prints_the_steps(self):
        said = self.cluster.skep("cluster", "recover").stdout.decode()
        self.assertIn("skep-scheduler wipe", said)
        self.assertIn("skep cluster add", said)
