"""Agents and nodes: restarts, losses, draining, and scaling."""

import concurrent.futures
import os
import signal
import time

from cluster import Caller, ClusterCase, pid_alive, wait_for

COUNTER = """
import os, time
count = 0
def handle(p):
    global count
    count += 1
    if p:
        time.sleep(p)
    return count
"""


class Agents(ClusterCase):
    @classmethod
    def prepare(cls):
        cls.cluster.deploy_example("hello")

    def setUp(self):
        wait_for(lambda: [n["state"] for n in self.cluster.nodes().values()] == ["ready", "ready"], "two ready nodes")

    def deploy(self, name, **settings):
        """The counter, small, so that many fit; gone after the test."""
        settings.setdefault("resources", "{cpu: 100m, memory: 64Mi}")
        self.cluster.deploy_python(name, COUNTER, **settings)
        self.addCleanup(self.cluster.skep, "function", "delete", name, "--yes", check=False)

    def restore(self, node):
        """Ends what a test did to a node, however the test ends."""
        self.addCleanup(self.cluster.skep, "node", "uncordon", node)

    def instances(self, function, state="ready"):
        return [row for row in self.cluster.ps(function) if row["state"] == state]

    def test_instances_outlive_their_agent(self):
        cluster = self.cluster
        self.deploy("outlive")
        first = cluster.call_json("outlive")
        node, instance = first["node"], first["instance"]
        pid = cluster.cell_pid(node, instance)
        cluster.kill(node)
        self.assertTrue(pid_alive(pid))
        cluster.restart(node)
        second = cluster.call_json("outlive")
        self.assertEqual((second["instance"], second["output"]), (instance, "2"))
        self.assertEqual(cluster.cell_pid(node, instance), pid)

    def test_a_call_that_runs_is_answered_by_the_restarted_agent(self):
        cluster = self.cluster
        self.deploy("bridge")
        node = cluster.call_json("bridge")["node"]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            running = pool.submit(cluster.call_json, "bridge", "2.0")
            wait_for(lambda: [r for r in cluster.ps("bridge") if r["running"] == 1], "the call runs")
            cluster.kill(node)
            cluster.restart(node)
            self.assertEqual(running.result()["output"], "2")

    def test_an_orderly_stop_of_the_agent_leaves_instances(self):
        cluster = self.cluster
        self.deploy("orderly")
        first = cluster.call_json("orderly")
        cluster.kill(first["node"], signal.SIGTERM)
        cluster.restart(first["node"])
        second = cluster.call_json("orderly")
        self.assertEqual((second["instance"], second["output"]), (first["instance"], "2"))

    def test_a_node_dies(self):
        cluster = self.cluster
        self.deploy("moving")
        node = cluster.call_json("moving")["node"]
        cluster.kill(node)
        for pid in cluster.cells(node):
            os.kill(pid, signal.SIGKILL)
        at = time.monotonic()
        answer = cluster.call_json("moving")
        print(f"the call was answered elsewhere {time.monotonic() - at:.2f} s after its node died")
        self.assertNotEqual(answer["node"], node)
        self.assertEqual(answer["output"], "1")
        wait_for(lambda: cluster.nodes()[node]["state"] == "lost", f"{node} is lost")
        cluster.restart(node)
        wait_for(lambda: cluster.nodes()[node]["state"] == "ready", f"{node} is ready again")

    def test_a_killed_cell_is_replaced(self):
        cluster = self.cluster
        self.deploy("replaced")
        first = cluster.call_json("replaced")
        os.kill(cluster.cell_pid(first["node"], first["instance"]), signal.SIGKILL)
        second = wait_for(lambda: cluster.skep("call", "replaced", check=False).returncode == 0, "it answers again")
        self.assertTrue(second)
        self.assertNotIn(first["instance"], [row["instance"] for row in cluster.ps("replaced")])

    def test_drain_moves_work_and_uncordon_ends_it(self):
        cluster = self.cluster
        self.deploy("drained")
        node = cluster.call_json("drained")["node"]
        other = "n2" if node == "n1" else "n1"
        with Caller(cluster, "hello", "d", b"hello, d\n") as caller:
            wait_for(lambda: caller.good > 0, "calls succeed")
            self.restore(node)
            cluster.skep("node", "drain", node)
            self.assertEqual(cluster.nodes()[node]["state"], "draining")
            wait_for(lambda: not [r for r in cluster.ps() if r["node"] == node], f"{node} is empty")
            self.assertEqual(cluster.call_json("drained")["node"], other)
        self.assertEqual((caller.wrong, caller.failed), ([], []))
        cluster.skep("node", "uncordon", node)
        self.assertEqual(cluster.nodes()[node]["state"], "ready")

    def test_cordon_keeps_what_runs_and_places_nothing_new(self):
        cluster = self.cluster
        self.deploy("corded")
        first = cluster.call_json("corded")
        self.restore(first["node"])
        cluster.skep("node", "cordon", first["node"])
        self.assertEqual(cluster.nodes()[first["node"]]["state"], "cordoned")
        self.assertEqual(cluster.call_json("corded")["instance"], first["instance"])
        self.deploy("uncorded")
        self.assertNotEqual(cluster.call_json("uncorded")["node"], first["node"])

    def test_idle_instances_go(self):
        cluster = self.cluster
        self.deploy("idle", scaling="{idle: 500ms}")
        first = cluster.call_json("idle")
        wait_for(lambda: cluster.ps("idle") == [], "no instance is left")
        second = cluster.call_json("idle")
        self.assertTrue(second["cold"])
        self.assertNotEqual(second["instance"], first["instance"])

    def test_parallel_calls_use_several_instances(self):
        cluster = self.cluster
        self.deploy("wide", scaling="{concurrency: 1, max: 4}")
        used = set()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:

            def round_of_calls():
                used.update(a["instance"] for a in pool.map(lambda _: cluster.call_json("wide", "0.3"), range(4)))
                return len(used) >= 3

            wait_for(round_of_calls, "three instances answered")
        self.assertLessEqual(len(cluster.ps("wide")), 4)

    def test_min_keeps_instances_without_calls(self):
        cluster = self.cluster
        self.deploy("kept", scaling="{min: 2, idle: 100ms}")
        wait_for(lambda: len(self.instances("kept")) == 2, "two instances are ready")
        cluster.skep("function", "delete", "kept", "--yes")
        wait_for(lambda: self.cluster.ps("kept") == [], "none is left")
