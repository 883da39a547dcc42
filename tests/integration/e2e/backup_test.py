"""Backups: made, verified, restored into an empty cluster; on a schedule into a folder or a bucket."""

import glob
import json
import os
import re
import signal
import unittest

from cluster import DENIED, DONE, FAILED, UNREACHABLE, USAGE, Cluster, ClusterCase, wait_for
from s3_server import Bucket

MARK = "this-is-a-marked-payload"
ECHO = "def handle(p):\n    return p\n"


def keys(cluster, folder):
    """Copies what opens a backup out of a cluster that will be gone. Returns options for skep backup."""
    options = []
    for option, path in (("--ca", "ca/ca.crt"), ("--cluster-key", "cluster.key")):
        copy = os.path.join(folder, os.path.basename(path))
        with open(os.path.join(cluster.data, path), "rb") as source, open(copy, "wb") as to:
            to.write(source.read())
        os.chmod(copy, 0o600)
        options += [option, copy]
    return options


class Saved(ClusterCase):
    SCHEDULERS, AGENTS = 3, 1

    @classmethod
    def prepare(cls):
        cluster = cls.cluster
        cluster.deploy_python("echo", ECHO)
        cls.large = os.path.join(cluster.folder, "large")
        with open(cls.large, "w", encoding="ascii") as f:
            f.write(json.dumps(MARK * 4000))
        done = cluster.skep("spawn", "echo", "--data", json.dumps(MARK)).stdout.decode().strip()
        cluster.skep("spawn", "echo", "--file", cls.large, "--delay", "1h")
        cluster.skep("result", done, "--wait")
        cls.key = f"{cluster.data}/cluster.key"
        cls.file = os.path.join(cluster.folder, "saved")
        cluster.skep("backup", "create", cls.file)

    def path(self, name):
        return os.path.join(self.cluster.folder, name)

    def test_verify_says_what_would_come_back(self):
        said = json.loads(self.cluster.skep("backup", "verify", self.file, "--cluster-key", self.key, "-o", "json").stdout)
        wanted = {"cluster": "dev", "functions": 1, "revisions": 1, "queued": 1, "done": 1, "dead": 0, "payloads": 1,
                  "payloads_dropped": 0, "nodes": 1, "schedulers": 3, "keys": 1}
        self.assertEqual({k: said[k] for k in wanted}, wanted)
        self.assertGreater(said["index"], 0)
        self.assertIn(said["signed_by"], ("s1", "s2", "s3"))

    def test_a_sealed_backup_needs_its_key_and_hides_payloads(self):
        self.fails(FAILED, "backup", "verify", self.file, says="content is sealed: give the cluster key")
        other = self.path("other.key")
        self.cluster.skep("key", "create", other)
        self.fails(DENIED, "backup", "verify", self.file, "--cluster-key", other, says="the one given is")
        with open(self.file, "rb") as f:
            self.assertNotIn(MARK.encode(), f.read())

    def test_a_changed_backup_is_refused(self):
        with open(self.file, "rb") as f:
            content = bytearray(f.read())
        content[len(content) // 2] ^= 1
        with open(self.path("changed"), "wb") as f:
            f.write(content)
        content[len(content) // 2] ^= 1
        self.fails(FAILED, "backup", "verify", self.path("changed"), "--cluster-key", self.key)
        with open(self.path("cut"), "wb") as f:
            f.write(content[:-10])
        self.fails(FAILED, "backup", "verify", self.path("cut"), "--cluster-key", self.key)

    def test_another_ca_does_not_vouch_for_it(self):
        self.cluster.skep("ca", "init", "--cluster", "dev", "--dir", self.path("ca2"))
        self.fails(DENIED, "backup", "verify", self.file, "--ca", self.path("ca2/ca.crt"), "--cluster-key", self.key,
                   says="not signed by a certificate that the given CA vouches for")

    def test_a_cluster_that_is_not_empty_refuses_a_restore(self):
        self.fails(FAILED, "backup", "restore", self.file, "--yes", "--cluster-key", self.key,
                   says="this cluster has 1 functions and 2 durable invocations; a backup is restored into an empty cluster only")

    def test_a_file_that_is_there_is_not_overwritten(self):
        self.fails(USAGE, "backup", "create", self.file, says="is there already")

    def test_nothing_is_left_of_a_backup_that_was_sent(self):
        for name in ("s1", "s2", "s3"):
            self.assertEqual(os.listdir(os.path.join(self.cluster.data, name, "data", "backup-tmp")), [])
            for fd in glob.glob(f"/proc/{self.cluster.pid(name)}/fd/*"):
                self.assertNotIn("backup-tmp", os.readlink(fd) if os.path.islink(fd) else "")

    def test_without_a_schedule_the_list_says_so(self):
        self.fails(FAILED, "backup", "list", says="no scheduled backups are configured")

    def test_a_follower_gives_a_stale_one(self):
        follower = next(n for n in ("s1", "s2", "s3") if n != self.cluster.leader())
        env = self.cluster.context("follower", os.path.join(self.cluster.data, "user"), [follower])
        answer = self.cluster.skep("backup", "create", self.path("stale"), "--stale", "-o", "json", env=env)
        self.assertEqual(json.loads(answer.stdout)["cluster"], "dev")
        said = self.cluster.rows("backup", "verify", self.path("stale"), "--cluster-key", self.key)[0]
        self.assertEqual(said["made_by"], follower)


class Restored(unittest.TestCase):
    def test_everything_comes_back_in_a_new_cluster(self):
        first = Cluster(schedulers=1, agents=1)
        self.addCleanup(first.remove)
        first.start()
        first.deploy_python("echo", ECHO)
        first.skep("setting", "set", "tenant.default.weight", "2")
        done = first.skep("spawn", "echo", "--data", '"before"').stdout.decode().strip()
        self.assertEqual(json.loads(first.skep("result", done, "--wait").stdout), "before")
        large = os.path.join(first.folder, "large")
        with open(large, "w", encoding="ascii") as f:
            f.write(json.dumps("x" * 100000))
        first.kill("n1")
        queued = [first.skep("spawn", "echo", "--data", '"small"').stdout.decode().strip(),
                  first.skep("spawn", "echo", "--file", large).stdout.decode().strip()]

        second = Cluster(schedulers=3, agents=1)
        self.addCleanup(second.remove)
        saved = os.path.join(second.folder, "saved")
        first.skep("backup", "create", saved)
        options = keys(first, second.folder)
        first.stop()

        second.start()
        answer = second.skep("backup", "restore", saved, "--yes", *options).stdout.decode()
        self.assertIn("restored 1 functions (1 revisions) and 3 invocations, 2 of them queued, from cluster dev", answer)
        self.assertEqual(json.loads(second.call("echo", '"after"')), "after")
        self.assertEqual(json.loads(second.skep("result", done).stdout), "before")
        self.assertEqual(json.loads(second.skep("result", queued[0], "--wait").stdout), "small")
        self.assertEqual(json.loads(second.skep("result", queued[1], "--wait").stdout), "x" * 100000)
        settings = {row["key"]: row["value"] for row in second.rows("setting", "list")}
        self.assertEqual(settings.get("tenant.default.weight"), "2")
        # Code and payloads are not the leader's alone: the next one has them too.
        second.kill(second.leader())
        self.assertEqual(json.loads(second.call("echo", '"still"')), "still")
        self.assertEqual(json.loads(second.skep("result", queued[1], "--wait").stdout), "x" * 100000)
        second.stop()


class Leaderless(ClusterCase):
    SCHEDULERS, AGENTS = 3, 1

    def test_stale_works_without_a_leader(self):
        cluster = self.cluster
        cluster.deploy_python("echo", ECHO)
        cluster.call("echo", '"x"')
        left = "s1"
        wait_for(lambda: cluster.metric("skep_raft_applied_index", left) >= cluster.metric("skep_raft_applied_index"),
                 "s1 has applied everything")
        for name in ("s2", "s3"):
            cluster.kill(name)
        wait_for(lambda: cluster.metric("skep_raft_leader", left) == 0, "nobody leads")
        saved = os.path.join(cluster.folder, "saved")
        self.fails(UNREACHABLE, "backup", "create", saved)
        cluster.skep("backup", "create", saved, "--stale")
        said = cluster.rows("backup", "verify", saved, "--cluster-key", f"{cluster.data}/cluster.key")[0]
        self.assertEqual((said["made_by"], said["functions"]), (left, 1))
        for name in ("s2", "s3"):
            cluster.restart(name)
        wait_for(cluster.leader, "a leader")


class Scheduled(ClusterCase):
    SCHEDULERS, AGENTS = 1, 1

    def configure(self, section):
        """Gives the scheduler this backup section."""
        cluster = self.cluster
        path = os.path.join(cluster.data, "s1", "config.yaml")
        with open(path, encoding="utf-8") as f:
            text = re.sub(r"^backup:.*\n", "", f.read(), flags=re.M)
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"{text}backup: {section}\n")
        cluster.kill("s1", signal.SIGTERM)
        cluster.restart("s1")
        wait_for(cluster.leader, "a leader")

    def listed(self):
        answer = self.cluster.skep("backup", "list", "-o", "json", check=False)
        return json.loads(answer.stdout) if answer.returncode == DONE else []

    def verify(self, path):
        return self.cluster.rows("backup", "verify", path, "--cluster-key", f"{self.cluster.data}/cluster.key")[0]

    def test_a_folder_keeps_the_newest(self):
        cluster = self.cluster
        folder = os.path.join(cluster.folder, "backups")
        os.makedirs(folder)
        other = os.path.join(folder, "not-ours.txt")
        with open(other, "w", encoding="ascii"):
            pass
        cluster.deploy_python("echo", ECHO)
        self.configure(f'{{every: 1s, keep: 2, to: "file:{folder}"}}')
        wait_for(lambda: cluster.metric("skep_backups_removed_total") >= 2, "old backups were removed", 60)
        rows = wait_for(self.listed, "a list")
        self.assertLessEqual(len(rows), 3)
        self.assertEqual([r["name"] for r in rows], sorted((r["name"] for r in rows), reverse=True))
        self.assertTrue(os.path.exists(other))
        self.assertGreaterEqual(cluster.metric("skep_backups_stored_total"), 4)
        self.assertGreater(cluster.metric("skep_backup_stored_time_seconds"), 1e9)
        self.configure(f'{{every: 1h, keep: 2, to: "file:{folder}"}}')
        newest = sorted(n for n in os.listdir(folder) if n.endswith(".skepbackup"))[-1]
        self.assertEqual(self.verify(os.path.join(folder, newest))["functions"], 1)
        self.assertIn('event="scheduled backup stored"', cluster.log("s1"))

    def test_a_bucket_keeps_the_newest(self):
        cluster = self.cluster
        credentials = os.path.join(cluster.folder, "credentials")
        with open(credentials, "w", encoding="ascii") as f:
            f.write("[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = se/cret+key=\n")
        os.chmod(credentials, 0o600)
        with Bucket("backups", "AKIATEST", "se/cret+key=", "eu-test-1") as bucket:
            bucket.objects["skep/other-20270131T083005Z-7.skepbackup"] = b"of another cluster"
            self.configure(f'{{every: 1s, keep: 3, to: "s3://backups/skep", endpoint: "{bucket.endpoint}", '
                           f'region: eu-test-1, credentials: "{credentials}"}}')
            wait_for(lambda: cluster.metric("skep_backups_removed_total") >= 2, "old backups were removed", 60)
            rows = wait_for(self.listed, "a list")
            self.assertLessEqual(len(rows), 4)
            # A bucket that fails for a while is tried again.
            bucket.failing = True
            wait_for(lambda: cluster.metric("skep_backup_store_failures_total") >= 1, "a failure was counted", 60)
            stored = cluster.metric("skep_backups_stored_total")
            bucket.failing = False
            wait_for(lambda: cluster.metric("skep_backups_stored_total") > stored, "stored again", 60)
            self.assertEqual(bucket.refused, [])
            self.configure(f'{{every: 1h, keep: 3, to: "file:{cluster.folder}"}}')
            with bucket.lock:
                names = sorted(k for k in bucket.objects if k.startswith("skep/dev-"))
                content = bucket.objects[names[-1]]
                self.assertIn("skep/other-20270131T083005Z-7.skepbackup", bucket.objects)
            saved = os.path.join(cluster.folder, "from-bucket")
            with open(saved, "wb") as f:
                f.write(content)
            self.assertEqual(self.verify(saved)["cluster"], "dev")

    def test_a_wrong_secret_is_told(self):
        cluster = self.cluster
        credentials = os.path.join(cluster.folder, "wrong")
        with open(credentials, "w", encoding="ascii") as f:
            f.write("aws_access_key_id = AKIATEST\naws_secret_access_key = wrong\n")
        os.chmod(credentials, 0o600)
        with Bucket("backups", "AKIATEST", "right") as bucket:
            self.configure(f'{{every: 1s, to: "s3://backups", endpoint: "{bucket.endpoint}", credentials: "{credentials}"}}')
            self.fails(DENIED, "backup", "list", says="the bucket answers 403 SignatureDoesNotMatch")
            self.assertIn("SignatureDoesNotMatch", bucket.refused)
            self.assertEqual(bucket.objects, {})


if __name__ == "__main__":
    unittest.main()
