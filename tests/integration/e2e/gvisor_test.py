"""isolation: gvisor: the same functions, under gVisor's kernel, on the nodes that have it."""

import glob
import os
import shutil
import signal
import unittest

from cluster import DENIED, EXAMPLES, FAILED, USAGE, ClusterCase, cmdline, pid_alive, wait_for

RUNSC = "/usr/bin/runsc"
DEADLINE = 60

PROGRAM = """
import os, time
count = 0
def handle(p):
    global count
    count += 1
    if p == "kernel":
        return os.uname().release
    if p == "hog":
        return len(bytearray(os.urandom(1 << 20) * 400))
    if p == "sleep":
        time.sleep(60)
    return count
"""


def runsc_processes(folder):
    """All processes of runsc that work for this cluster."""
    return [p for p in map(int, filter(str.isdigit, os.listdir("/proc")))
            if "runsc" in cmdline(p) and folder in cmdline(p) and pid_alive(p)]


@unittest.skipIf(not os.path.exists(RUNSC), "no runsc")
class Gvisor(ClusterCase):
    SCHEDULERS, AGENTS = 1, 2

    @classmethod
    def prepare(cls):
        """n1 has gVisor, n2 is told to do without."""
        cluster = cls.cluster
        cluster.kill("n2", signal.SIGTERM)
        with open(os.path.join(cluster.data, "n2", "config.yaml"), "a", encoding="utf-8") as f:
            f.write("gvisor: {enabled: off}\n")
        cluster.restart("n2")
        wait_for(lambda: cls.show("n1")["gvisor"] != "none", "gVisor on n1", DEADLINE)
        wait_for(lambda: "configuration" in cls.show("n2")["gvisor_why"], "none on n2", DEADLINE)

    @classmethod
    def show(cls, node):
        (row,) = cls.cluster.rows("node", "show", node)
        return row

    def deploy(self, name, **settings):
        settings.setdefault("resources", "{cpu: 1, memory: 64Mi}")
        result = self.cluster.deploy_python(name, PROGRAM, isolation="gvisor", **settings)
        self.addCleanup(self.cluster.skep, "function", "delete", name, "--yes", check=False)
        return result

    def deploy_example(self, name):
        """An example with one more line in its manifest."""
        folder = os.path.join(self.cluster.folder, "code", f"example-{name}")
        shutil.copytree(os.path.join(EXAMPLES, name), folder)
        with open(os.path.join(folder, "skep.yaml"), "a", encoding="utf-8") as f:
            f.write("isolation: gvisor\n")
        self.cluster.skep("deploy", folder)
        self.addCleanup(self.cluster.skep, "function", "delete", name, "--yes", check=False)

    def folder_of(self, answer):
        return os.path.join(self.cluster.data, answer["node"], "data", "instances", answer["instance"])

    def assert_nothing_left(self, folder):
        wait_for(lambda: not os.path.exists(folder), "the folder is gone", DEADLINE)
        wait_for(lambda: not runsc_processes(folder), "no runsc is left", DEADLINE)
        instance = os.path.basename(folder)
        wait_for(lambda: not glob.glob(f"/sys/fs/cgroup/**/{instance}", recursive=True), "no control group is left", DEADLINE)

    def test_python_runs_on_gvisors_kernel(self):
        self.deploy("kernel")
        answer = self.cluster.call_json("kernel", '"kernel"')
        self.assertEqual(answer["output"], '"4.4.0"')
        self.assertNotEqual(os.uname().release, "4.4.0")
        self.assertEqual(answer["node"], "n1")
        (row,) = self.cluster.rows("function", "show", "kernel")
        self.assertEqual(row["isolation"], "gvisor")

    def test_a_c_function_runs(self):
        self.deploy_example("hello")
        self.assertIn(b"you", self.cluster.call("hello", "you"))

    def test_a_command_runs(self):
        cluster = self.cluster
        cluster.deploy_files("loud", {}, command='["/usr/bin/tr", "a-z", "A-Z"]', isolation="gvisor")
        self.addCleanup(cluster.skep, "function", "delete", "loud", "--yes", check=False)
        self.assertEqual(cluster.call("loud", "words"), b"WORDS")

    def test_the_memory_limit_is_named(self):
        self.deploy("hog")
        answer = self.cluster.skep("call", "hog", "--data", '"hog"', check=False)
        self.assertEqual(answer.returncode, FAILED)
        self.assertIn("memory limit of 64 MiB reached", answer.stderr.decode())

    def test_a_call_over_its_time_ends_and_the_next_one_works(self):
        cluster = self.cluster
        self.deploy("slow", timeout="1s")
        answer = cluster.skep("call", "slow", "--data", '"sleep"', check=False)
        self.assertEqual(answer.returncode, FAILED)
        self.assertIn("time", answer.stderr.decode())
        self.assertEqual(cluster.call("slow"), b"1")

    def test_a_deleted_function_leaves_nothing(self):
        cluster = self.cluster
        self.deploy("leaving")
        folder = self.folder_of(cluster.call_json("leaving"))
        self.assertTrue(runsc_processes(folder))
        cluster.skep("function", "delete", "leaving", "--yes")
        self.assert_nothing_left(folder)

    def test_a_killed_supervisor_leaves_nothing(self):
        cluster = self.cluster
        self.deploy("killed")
        answer = cluster.call_json("killed")
        folder = self.folder_of(answer)
        cluster.note_instances()
        os.kill(cluster.cell_pid(answer["node"], answer["instance"]), signal.SIGKILL)
        self.assert_nothing_left(folder)
        self.assertEqual(cluster.call("killed"), b"1")

    def test_instances_outlive_their_agent(self):
        cluster = self.cluster
        self.deploy("outlive")
        first = cluster.call_json("outlive")
        cluster.kill("n1")
        cluster.restart("n1")
        second = cluster.call_json("outlive")
        self.assertEqual((second["instance"], second["output"]), (first["instance"], "2"))
        wait_for(lambda: self.show("n1")["gvisor"] != "none", "gVisor on n1 again", DEADLINE)

    def test_why_names_nodes_without_it(self):
        cluster = self.cluster
        cluster.skep("node", "cordon", "n1")
        self.addCleanup(cluster.skep, "node", "uncordon", "n1")
        self.deploy("nowhere")
        cluster.start_skep("call", "nowhere", "--timeout", "2s", stdout=-3, stderr=-3).wait()
        said = wait_for(lambda: "without gVisor" in (text := cluster.skep("why", "nowhere").stdout.decode()) and text, "a reason")
        self.assertIn("1 without gVisor", said)

    def test_a_cluster_that_demands_it_refuses_less(self):
        cluster = self.cluster
        cluster.skep("setting", "set", "isolation.required", "gvisor")
        self.addCleanup(cluster.skep, "setting", "set", "isolation.required", "")
        refused = cluster.deploy_files("less", {}, check=False, command='["/bin/true"]')
        self.assertEqual(refused.returncode, DENIED)
        self.assertIn("isolation.required", refused.stderr.decode())
        self.deploy("enough")
        wrong = cluster.skep("setting", "set", "isolation.required", "walls", check=False)
        self.assertEqual(wrong.returncode, USAGE)
        self.assertIn("is not cell or gvisor", wrong.stderr.decode())

    def test_trusted_is_refused_with_a_reason(self):
        refused = self.cluster.deploy_files("trust", {}, check=False, command='["/bin/true"]', isolation="trusted")
        self.assertEqual(refused.returncode, USAGE)
        self.assertIn("no function runs with less than a cell", refused.stderr.decode())


if __name__ == "__main__":
    unittest.main()
