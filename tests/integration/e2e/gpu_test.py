"""GPUs of nodes: simulated ones, and those of a fake driver."""

import os
import signal
import unittest

from cluster import ClusterCase, wait_for

SIMULATE = "gpu: {simulate: [{model: H100, memory: 80Gi, count: 2}, {model: T4, memory: 16Gi}]}\n"
FAKE = os.environ["SKEP_FAKE_NVML"]

SAYS = """count=1
driver=550.54.15
cuda=12040
0.uuid=GPU-5a3f
0.name=NVIDIA H100 80GB HBM3
0.pci=00000000:3B:00.0
0.total=85520809984
0.used=1048576
0.busy=37
0.temp=41
0.power=112345
0.procs=3
"""


class Gpu(ClusterCase):
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

    def show(self, node):
        (row,) = self.cluster.rows("node", "show", node)
        return row

    def showing(self, node, condition, what):
        def shown():
            row = self.show(node)
            return row if condition(row) else None

        return wait_for(shown, what)

    def says(self, text):
        """What the fake driver answers from now on."""
        path = os.path.join(self.cluster.folder, "nvml")
        with open(path + ".new", "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(path + ".new", path)
        return path

    def test_simulated_gpus_come_and_go_with_their_agent(self):
        cluster = self.cluster
        self.configure("n1", SIMULATE)
        row = self.showing("n1", lambda r: r["gpu_count"] == 3, "three simulated GPUs")
        self.assertEqual((row["gpu_state"], row["gpu_model"]), ("simulated", "mixed (simulated)"))
        self.assertEqual([g["uuid"] for g in row["gpus"]], ["SIM-n1-0", "SIM-n1-1", "SIM-n1-2"])
        self.assertEqual([g["model"] for g in row["gpus"]], ["H100", "H100", "T4"])
        self.assertEqual([g["memory_bytes"] for g in row["gpus"]], [80 << 30, 80 << 30, 16 << 30])
        self.assertTrue(all(g["simulated"] is True and g["health"] == "ok" for g in row["gpus"]))
        self.assertNotIn("temperature_c", row["gpus"][0])
        self.assertEqual({n["name"]: n["gpu_count"] for n in cluster.rows("node", "list")}, {"n1": 3, "n2": 0})
        table = cluster.skep("node", "show", "n1").stdout.decode()
        self.assertRegex(table, r"(?m)^gpu_state +simulated$")
        self.assertRegex(table, r"(?m)^gpu +model +mig_profile +health +memory_bytes")
        self.assertRegex(table, r"(?m)^2 +T4 +ok +17179869184 +0 ")
        wait_for(lambda: cluster.metric("skep_gpu_devices", "n1") == 3, "the metric")
        self.assertEqual(cluster.metric("skep_gpu_memory_bytes", "n1"), (160 + 16) << 30)

        cluster.kill("n1")
        row = self.showing("n1", lambda r: r["state"] == "lost", "the node is lost")
        self.assertEqual((row["gpu_count"], row["gpus"]), (0, []))
        cluster.restart("n1")
        self.showing("n1", lambda r: r["gpu_count"] == 3, "they are back")

    def test_a_new_leader_knows_the_gpus(self):
        cluster = self.cluster
        self.configure("n2", SIMULATE)
        self.showing("n2", lambda r: r["gpu_count"] == 3, "three simulated GPUs")
        leader = cluster.leader()
        cluster.kill(leader)
        wait_for(lambda: cluster.leader() not in ("", leader), "another leader")
        self.showing("n2", lambda r: r["gpu_count"] == 3, "the new leader shows them")
        cluster.restart(leader)

    def test_a_node_without_a_driver_says_so(self):
        self.configure("n1", "gpu: {library: /nonexistent/libnvidia-ml.so.1}\n")
        # The agent before said "none" too, of another library.
        row = self.showing("n1", lambda r: "/nonexistent/libnvidia-ml.so.1" in r.get("gpu_why", ""), "no driver there")
        self.assertEqual((row["gpu_state"], row["gpus"]), ("none", []))
        self.assertEqual(self.cluster.log("n1").count("/nonexistent/libnvidia-ml.so.1"), 1)

    def test_a_driver_s_gpu_is_shown_fails_and_falls_silent(self):
        cluster = self.cluster
        cluster.environ["FAKE_NVML_FILE"] = self.says(SAYS)
        self.configure("n2", f"gpu: {{library: {FAKE}}}\n")
        row = self.showing("n2", lambda r: r["gpu_count"] == 1, "the driver's GPU")
        self.assertEqual((row["gpu_state"], row["gpu_driver"], row["gpu_cuda"]), ("ok", "550.54.15", "12.4"))
        gpu = row["gpus"][0]
        self.assertEqual((gpu["uuid"], gpu["health"], gpu["power_w"], gpu["simulated"]), ("GPU-5a3f", "ok", 112, False))

        self.says(SAYS + "0.xid=79\n0.xid_number=1\n")
        row = self.showing("n2", lambda r: r["gpus"][0]["health"] == "failed", "the Xid is seen")
        self.assertRegex(row["gpus"][0]["why"], r"^Xid 79 at ")
        wait_for(lambda: "GPU unwell" in cluster.log("n2"), "the log says it")

        self.says(SAYS + "hang.nvmlDeviceGetMemoryInfo_v2=1\n")
        row = self.showing("n2", lambda r: r["gpu_state"] == "silent", "the driver hangs")
        self.assertRegex(row["gpu_why"], r"^not answering since 20\d\d-")
        self.assertEqual((row["state"], row["gpus"][0]["health"]), ("ready", "unknown"))
        self.says(SAYS)
        self.showing("n2", lambda r: r["gpu_state"] == "ok", "the driver answers again")


if __name__ == "__main__":
    unittest.main()
