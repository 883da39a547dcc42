"""Schedulers die: no answer is wrong, calls go on with a new leader, and the dead come back."""

import time

from cluster import DONE, UNKNOWN, UNREACHABLE, Caller, ClusterCase, wait_for

SERVES_AGAIN_SECONDS = 10
APPLIED = "skep_raft_applied_index "


class Failover(ClusterCase):
    @classmethod
    def prepare(cls):
        cls.cluster.deploy_example("hello")
        cls.cluster.call("hello")

    def setUp(self):
        wait_for(lambda: len(self.reachable()) == 3, "three schedulers, one of which leads")

    def reachable(self):
        """Names of the schedulers that the leader is connected to, itself included; none without a leader."""
        rows = self.cluster.status()
        return [row["name"] for row in rows if row["connected"]] if any(row["leader"] for row in rows) else []

    def applied(self, scheduler):
        """What a scheduler has applied; 0 while the one that is asked is not connected to it."""
        answer = self.cluster.skep("metrics", scheduler, check=False).stdout.decode()
        return int(next((line.split()[1] for line in answer.splitlines() if line.startswith(APPLIED)), 0))

    def catches_up(self, scheduler):
        """Waits until a scheduler has applied all that its leader has."""
        leader = self.cluster.leader()
        wanted = wait_for(lambda: self.applied(leader), "the leader's index")
        wait_for(lambda: self.applied(scheduler) >= wanted, f"{scheduler} applied {wanted}")

    def test_the_leader_dies_under_calls(self):
        cluster = self.cluster
        killed = cluster.leader()
        with Caller(cluster, "hello", "a", b"hello, a\n") as a, Caller(cluster, "hello", "b", b"hello, b\n") as b:
            wait_for(lambda: a.good > 2 and b.good > 2, "calls succeed")
            cluster.kill(killed)
            at = time.monotonic()
            wait_for(lambda: a.last_good > at and b.last_good > at, "calls succeed again", SERVES_AGAIN_SECONDS)
            print(f"calls succeeded again {max(a.last_good, b.last_good) - at:.2f} s after kill -9 of the leader")
            leader = wait_for(cluster.leader, "a leader")
            cluster.restart(killed)
            wait_for(lambda: killed in self.reachable(), f"{killed} is connected")
        self.assertNotEqual(leader, killed)
        self.assertEqual(a.wrong + b.wrong, [])
        # Only what ran at that moment may have an unknown end; all else was sent on to the new leader.
        self.assertLessEqual({code for _, code, _ in a.failed + b.failed}, {UNKNOWN}, a.failed + b.failed)
        self.assertLessEqual(len(a.failed) + len(b.failed), 4, a.failed + b.failed)
        cluster.deploy_python("after", "def handle(p):\n    return p\n")
        self.catches_up(killed)

    def test_a_deployment_outlives_its_leader(self):
        cluster = self.cluster
        cluster.deploy_python("lasting", "def handle(p):\n    return 'still here'\n")
        killed = cluster.leader()
        cluster.kill(killed)
        self.assertEqual(cluster.call("lasting"), b'"still here"')
        cluster.restart(killed)
        self.catches_up(killed)

    def test_without_a_majority_nothing_is_promised(self):
        cluster = self.cluster
        killed = [name for name in ("s1", "s2", "s3") if name != cluster.leader()]
        for name in killed:
            cluster.kill(name)
        wait_for(lambda: cluster.leader() == "", "the leader steps down")
        late = cluster.skep("call", "hello", "--data", "x", "--timeout", "1s", check=False)
        self.assertNotEqual(late.returncode, DONE)
        self.assertIn(late.returncode, (UNREACHABLE, UNKNOWN), late.stderr)
        for name in killed:
            cluster.restart(name)
        wait_for(cluster.leader, "a leader")
        self.assertEqual(cluster.call("hello", "again"), b"hello, again\n")
        for name in killed:
            self.catches_up(name)

    def test_leadership_is_handed_over(self):
        cluster = self.cluster
        before = cluster.leader()
        to = next(name for name in ("s1", "s2", "s3") if name != before)
        with Caller(cluster, "hello", "c", b"hello, c\n") as c:
            wait_for(lambda: c.good > 2, "calls succeed")
            cluster.skep("cluster", "transfer", to)
            wait_for(lambda: cluster.leader() == to, f"{to} leads")
            at = time.monotonic()
            wait_for(lambda: c.last_good > at, "calls succeed again")
        self.assertEqual(c.wrong, [])
        self.assertLessEqual({code for _, code, _ in c.failed}, {UNKNOWN}, c.failed)
