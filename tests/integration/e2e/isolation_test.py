"""The isolation monitor: rounds on real nodes, and what a node with a hole gets."""

import json
import os
import signal
import unittest

from cluster import BIN, FAILED, ClusterCase, wait_for

# It says that it read the host's file.
FAKE = os.path.join(os.path.dirname(BIN), "tests", "canary", "fake_canary")


class Isolation(ClusterCase):
    SCHEDULERS, AGENTS = 3, 2

    def setUp(self):
        wait_for(lambda: [n["state"] for n in self.cluster.nodes().values()] == ["ready", "ready"], "two ready nodes")

    def configure(self, node, lines):
        """Restarts a node's agent with these lines in its configuration, until the test ends."""
        path = os.path.join(self.cluster.data, node, "config.yaml")
        with open(path, encoding="utf-8") as f:
            before = f.read()

        def again(text):
            self.cluster.kill(node, signal.SIGTERM)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            self.cluster.restart(node)

        self.addCleanup(again, before)
        again(before + lines)

    def status(self, node):
        (row,) = self.cluster.rows("isolation", "status", node)
        return row

    def test_a_healthy_node_holds(self):
        cluster = self.cluster
        rows = cluster.rows("isolation", "run")
        self.assertEqual(sorted((r["node"], r["checks"], r["breached"], r["not_run"]) for r in rows),
                         [("n1", "held", 0, 0), ("n2", "held", 0, 0)], rows)
        row = self.status("n1")
        self.assertGreater(row["held"], 60)
        verdicts = {r["check"]: r["verdict"] for r in row["results"]}
        self.assertEqual(len(row["results"]), row["held"] + row["not_applicable"])
        for check in ("host-file", "other-cell-socket", "agent-memory", "scheduler-ports", "metadata-address"):
            self.assertEqual(verdicts[check], "held", row["results"])
        self.assertEqual({n["state"] for n in cluster.rows("node", "list")}, {"ready"})
        table = cluster.skep("isolation", "status").stdout.decode()
        self.assertRegex(table, r"(?m)^n1 +held +\d+ +0 ")
        self.assertEqual(cluster.rows("ps"), [])
        self.assertGreaterEqual(cluster.metric("skep_isolation_rounds_total", cluster.leader()), 2)

    def test_rounds_come_by_themselves_and_leave_nothing(self):
        cluster = self.cluster
        cluster.skep("setting", "set", "isolation.interval", "1s")
        self.addCleanup(cluster.skep, "setting", "set", "isolation.interval", "")
        before = self.status("n2")["round"]
        wait_for(lambda: self.status("n2")["round"] > before + 2, "two more rounds")
        cluster.skep("setting", "set", "isolation.interval", "0s")
        wait_for(lambda: self.status("n2")["checks"] == "held", "the last one has ended")
        wait_for(lambda: not os.listdir(os.path.join(cluster.data, "n2", "data", "instances")), "its folders are gone")

    def test_a_node_with_a_hole_is_cordoned_with_the_reason(self):
        cluster = self.cluster
        self.configure("n1", f"cells: {{canary: {FAKE}}}\n")
        self.addCleanup(cluster.skep, "node", "uncordon", "n1")
        wait_for(lambda: self.cluster.nodes()["n1"]["state"] == "ready", "the node is back")
        ran = wait_for(lambda: (lambda r: r if r.returncode == FAILED and b"host-file" in r.stdout else None)(
            cluster.skep("isolation", "run", "n1", "-o", "json", check=False)), "a failed round")
        row = json.loads(ran.stdout)
        row = row[0] if isinstance(row, list) else row
        self.assertEqual((row["checks"], row["failed"]), ("breached", "host-file"))
        node = wait_for(lambda: (lambda n: n if n["state"] == "cordoned" else None)(
            next(n for n in cluster.rows("node", "list") if n["name"] == "n1")), "the cordon")
        self.assertEqual(node["reason"], "isolation check host-file failed")
        self.assertEqual(cluster.rows("node", "show", "n1")[0]["reason"], node["reason"])
        self.assertTrue(any("isolation check host-file failed" in r["decision"] for r in cluster.rows("why", "n1")))
        leader = cluster.leader()
        metrics = cluster.skep("metrics", leader).stdout.decode()
        self.assertRegex(metrics, r'skep_isolation_failed_total\{check="host-file",node="n1"\} [1-9]')
        self.assertIn("isolation check failed", cluster.log(leader))
        # New instances go elsewhere.
        cluster.deploy_python("where", "def handle(data):\n    return b'here'\n", scaling="{min: 2, max: 2}",
                              resources="{cpu: 50m, memory: 64Mi}")
        self.addCleanup(cluster.skep, "function", "delete", "where", "--yes")
        rows = wait_for(lambda: (lambda r: r if len(r) == 2 else None)(cluster.rows("ps", "where")), "two instances")
        self.assertEqual({r["node"] for r in rows}, {"n2"})


if __name__ == "__main__":
    unittest.main()
