"""GPUs of nodes: simulated ones, and those of a fake driver; functions that have them."""

import json
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

HANDLER = """import os, stat

def handle(payload):
    keys = ["SKEP_GPUS", "NVIDIA_VISIBLE_DEVICES", "FROM_CDI"]
    nodes = [n for n in sorted(os.listdir("/dev")) if n.startswith("nvidia")]
    for n in nodes:
        os.close(os.open("/dev/" + n, os.O_RDWR))
    return {"env": {k: os.environ[k] for k in keys if k in os.environ}, "nodes": nodes}
"""

TWO = SAYS.replace("count=1", "count=2").replace("procs=3", "procs=0") + """1.uuid=GPU-9c1b
1.name=NVIDIA H100 80GB HBM3
1.pci=00000000:5E:00.0
1.total=85520809984
1.used=1048576
1.procs=0
"""

# The nodes are /dev/null outside, so that a machine without GPUs has them.
CDI = {
    "cdiVersion": "0.6.0",
    "kind": "nvidia.com/gpu",
    "containerEdits": {
        "deviceNodes": [{"path": "/dev/nvidiactl", "hostPath": "/dev/null"}],
        "env": ["FROM_CDI=yes", "SKEP_GPUS=no"],
        "hooks": [{"hookName": "createContainer", "path": "/usr/bin/nvidia-ctk", "args": ["nvidia-ctk", "hook"]}],
    },
    "devices": [
        {"name": "GPU-5a3f", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0", "hostPath": "/dev/null"}]}},
        {"name": "1", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia1", "hostPath": "/dev/null"}]}},
    ],
}


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

    def gpus(self, node):
        return {g["uuid"]: g for g in self.show(node)["gpus"]}

    def ready(self, function, count):
        def found():
            rows = [i for i in self.cluster.ps(function) if i["state"] == "ready"]
            return rows if len(rows) == count else None

        return wait_for(found, f"{count} ready instances of {function}")

    def undeploy(self, name):
        self.cluster.skep("function", "delete", name, "--yes")
        wait_for(lambda: self.cluster.ps(name) == [], f"{name} is gone")

    def test_two_instances_have_the_two_gpus_and_the_third_waits(self):
        cluster = self.cluster
        self.configure("n1", SIMULATE)
        self.showing("n1", lambda r: r["gpu_count"] == 3, "three simulated GPUs")
        settings = {"resources": "{gpu: {model: H100}, cpu: 100m, memory: 64Mi}", "scaling": "{min: 3, max: 3}"}
        cluster.deploy_python("train", HANDLER, **settings)
        rows = self.ready("train", 2)
        self.assertEqual([(i["node"], i["gpus"]) for i in rows], [("n1", 1), ("n1", 1)])
        why = wait_for(
            lambda: [w["decision"] for w in cluster.rows("why", "train") if "no node fits" in w["decision"]], "the third waits"
        )
        self.assertIn("no node fits an instance: 2 nodes: 2 without a free GPU that fits", why)
        gpus = self.gpus("n1")
        self.assertEqual({gpus["SIM-n1-0"]["used_by"], gpus["SIM-n1-1"]["used_by"]}, {i["instance"] for i in rows})
        self.assertEqual(gpus["SIM-n1-2"]["used_by"], "")
        env = json.loads(cluster.call("train"))["env"]
        self.assertIn(env["SKEP_GPUS"], ["SIM-n1-0", "SIM-n1-1"])
        self.assertEqual(env["NVIDIA_VISIBLE_DEVICES"], env["SKEP_GPUS"])
        (function,) = cluster.rows("function", "show", "train")
        self.assertEqual((function["gpu_count"], function["gpu_model"]), (1, "H100"))

        cluster.kill("n1")  # Its cells live on, and the next agent knows what they hold.
        cluster.restart("n1")
        self.showing("n1", lambda r: r["state"] == "ready" and r["gpu_count"] == 3, "the agent is back")
        wait_for(
            lambda: {self.gpus("n1")[f"SIM-n1-{k}"]["used_by"] for k in (0, 1)} == {i["instance"] for i in rows},
            "the same instances hold the same devices",
        )
        leader = cluster.leader()
        cluster.kill(leader)
        wait_for(lambda: cluster.leader() not in ("", leader), "another leader")
        wait_for(
            lambda: {self.gpus("n1")[f"SIM-n1-{k}"]["used_by"] for k in (0, 1)} == {i["instance"] for i in rows},
            "the new leader knows it too",
        )
        cluster.restart(leader)
        self.undeploy("train")
        wait_for(lambda: {g["used_by"] + g["dirty"] for g in self.gpus("n1").values()} == {""}, "all are free and clean")

    def test_a_gpu_that_was_left_dirty_is_given_again_once_it_is_clean(self):
        cluster = self.cluster
        cluster.environ["FAKE_NVML_FILE"] = self.says(TWO)
        cdi = os.path.join(cluster.folder, "cdi")
        os.makedirs(cdi, exist_ok=True)
        with open(os.path.join(cdi, "nvidia.json"), "w", encoding="utf-8") as f:
            json.dump(CDI, f)
        with open(os.path.join(cdi, "broken.yaml"), "w", encoding="utf-8") as f:
            f.write("kind: [\n")
        self.configure("n2", f"gpu: {{library: {FAKE}, cdi: [{cdi}]}}\n")
        self.showing("n2", lambda r: r["gpu_count"] == 2, "the driver's GPUs")
        settings = {"resources": "{gpu: {memory: 70Gi}, cpu: 100m, memory: 64Mi}", "scaling": "{min: 2, max: 2}"}
        cluster.deploy_python("infer", HANDLER, **settings)
        self.addCleanup(self.undeploy, "infer")
        rows = self.ready("infer", 2)
        self.assertEqual({i["node"] for i in rows}, {"n2"})
        answer = json.loads(cluster.call("infer"))
        uuid = answer["env"]["SKEP_GPUS"]
        self.assertEqual(answer["env"]["FROM_CDI"], "yes")
        self.assertEqual(answer["nodes"], ["nvidia0" if uuid == "GPU-5a3f" else "nvidia1", "nvidiactl"])
        log = cluster.log("n2")
        self.assertRegex(log, r"GPUs given.*hooks_not_run=1")
        self.assertIn("CDI file passed over", log)

        self.says(TWO.replace("0.used=1048576", "0.used=9663676416"))
        first = self.gpus("n2")["GPU-5a3f"]
        self.assertEqual(first["dirty"], "")  # An instance holds it, which may use it.
        os.kill(cluster.cell_pid("n2", first["used_by"]), signal.SIGKILL)
        wait_for(lambda: self.gpus("n2")["GPU-5a3f"]["used_by"] == "", "its instance is gone")
        wait_for(lambda: self.gpus("n2")["GPU-5a3f"]["dirty"] == "9216 MiB in use, 1 when it was free", "it is dirty")
        wait_for(
            lambda: [w for w in cluster.rows("why", "infer") if "1 with GPUs that are dirty" in w["decision"]], "and nobody gets it"
        )
        wait_for(lambda: cluster.metric_of("skep_gpu_dirty", 'gpu="GPU-5a3f"', "n2") == 1, "the metric says it")
        self.ready("infer", 1)

        self.says(TWO.replace("0.procs=0", "0.procs=1"))
        wait_for(lambda: self.gpus("n2")["GPU-5a3f"]["dirty"] == "1 process that is no instance's", "somebody holds it")
        self.says(TWO)
        self.ready("infer", 2)
        self.assertEqual(self.gpus("n2")["GPU-5a3f"]["dirty"], "")


if __name__ == "__main__":
    unittest.main()
