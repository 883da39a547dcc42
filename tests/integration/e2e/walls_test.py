"""Walls of cells: an agent starts with all of them, or without those that its configuration names."""

import contextlib
import json
import os
import signal
import subprocess
import unittest

from cluster import BIN, FAILED, ClusterCase, run, wait_for

WITHOUT = os.environ["SKEP_WITHOUT"]
AGENT = os.path.join(BIN, "skep-agent")
ECHO = "def handle(x):\n    return x\n"


class Walls(ClusterCase):
    SCHEDULERS, AGENTS = 1, 2

    @classmethod
    def setUpClass(cls):
        walls = subprocess.run([AGENT, "walls"], capture_output=True, check=False)
        if walls.returncode != 0:
            raise unittest.SkipTest(f"this machine lacks walls: {walls.stdout.decode()}")
        super().setUpClass()

    def setUp(self):
        wait_for(lambda: [n["state"] for n in self.cluster.nodes().values()] == ["ready", "ready"], "two ready nodes")

    def config(self, node):
        return os.path.join(self.cluster.data, node, "config.yaml")

    def configured(self, node, lines):
        """Ends the node's agent, and gives it these lines for its next start. Returns what undoes it."""
        with open(self.config(node), encoding="utf-8") as f:
            before = f.read()

        def write(text):
            with open(self.config(node), "w", encoding="utf-8") as f:
                f.write(text)

        def back():
            self.cluster.programs_of.pop(node, None)
            with contextlib.suppress(ProcessLookupError):  # one that did not start
                self.cluster.kill(node, signal.SIGTERM)
            write(before)
            self.cluster.restart(node)

        self.cluster.kill(node, signal.SIGTERM)
        write(before + lines)
        return back

    def lacking(self, node, *things):
        """The next starts of the node's agent happen on a machine that lacks these."""
        folder = os.path.join(self.cluster.folder, "lacking-" + "-".join(things))
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "skep-agent")
        with open(path, "w", encoding="utf-8") as f:
            f.write(f"#!/bin/sh\nexec {WITHOUT} {' '.join(things)} -- {AGENT} \"$@\"\n")
        os.chmod(path, 0o755)
        self.cluster.programs_of[node] = folder
        return path

    def refused(self, program, node, says):
        result = run([program, "--config", self.config(node)])
        error = result.stderr.decode()
        self.assertEqual(result.returncode, FAILED, error)
        self.assertIn(says, error.splitlines()[-1])
        return error

    def shows(self, node, walls):
        wait_for(lambda: self.cluster.rows("node", "show", node)[0].get("walls") == walls, f"{node} shows {walls}")

    def runs_on(self, node, name):
        """A function is served by this node."""
        others = [n for n in self.cluster.nodes() if n != node]
        for other in others:
            self.cluster.skep("node", "cordon", other)
        self.cluster.deploy_python(name, ECHO)
        self.assertEqual(self.cluster.call_json(name, "hi")["node"], node)
        for other in others:
            self.cluster.skep("node", "uncordon", other)
        self.cluster.skep("function", "delete", name, "--yes")

    def test_a_node_with_all_walls_says_so(self):
        self.shows("n1", "all")
        self.assertRegex(self.cluster.skep("node", "show", "n1").stdout.decode(), r"(?m)^walls +all$")
        self.assertEqual(self.cluster.metric_of("skep_agent_wall", 'state="up",wall="landlock"', "n1"), 1)
        self.assertEqual(self.cluster.metric("skep_agent_wall", "n1"), 20)

    def test_without_landlock_an_agent_starts_only_when_it_is_named(self):
        back = self.configured("n1", "")
        try:
            program = self.lacking("n1", "landlock")
            line = "cells: {walls_not_needed: [landlock]}"
            self.refused(program, "n1", f"walls of cells are missing: landlock; to run without, configure {line}")
            with open(self.config("n1"), "a", encoding="utf-8") as f:
                f.write(line + "\n")
            self.cluster.restart("n1")
            self.shows("n1", "not needed: landlock")
            self.assertEqual(self.cluster.metric_of("skep_agent_wall", 'state="not_needed",wall="landlock"', "n1"), 1)
            self.assertEqual(self.cluster.metric_of("skep_agent_wall", 'state="up",wall="seccomp"', "n1"), 1)
            self.runs_on("n1", "bare")
        finally:
            back()

    def test_without_control_groups_an_agent_starts_only_when_they_are_named(self):
        back = self.configured("n1", "")
        try:
            program = self.lacking("n1", "cgroups")
            names = "cgroup_memory, cgroup_swap, cgroup_cpu, cgroup_pids, cgroup_io"
            error = self.refused(program, "n1", f"configure cells: {{walls_not_needed: [{names}]}}")
            self.assertIn("no cgroup controller is mounted", error)
            with open(self.config("n1"), "a", encoding="utf-8") as f:
                f.write("cells: {cgroup: off}\n")
            self.cluster.restart("n1")
            self.shows("n1", f"not needed: {names}")
            self.runs_on("n1", "unlimited")
        finally:
            back()

    def test_without_user_namespaces_no_agent_starts(self):
        back = self.configured("n1", "cells: {walls_not_needed: [landlock]}\n")
        try:
            program = self.lacking("n1", "userns")
            self.refused(program, "n1", "walls that are always needed are missing: user_namespace")
            walls = run([program, "walls"])
            self.assertEqual(walls.returncode, FAILED)
            self.assertRegex(walls.stdout.decode(), r"(?m)^user_namespace +missing +Operation not permitted$")
            self.assertNotIn(b" up", walls.stdout)
        finally:
            back()

    def test_users_of_cells_belong_to_nobody_else(self):
        back = self.configured("n1", "cells: {uids: {first: 60000, count: 10000}}\n")
        try:
            self.refused(AGENT, "n1", "cells.uids: 60000 to 69999 overlap with nobody of /etc/passwd")
        finally:
            back()

    def living(self, node):
        """{instance: (its user in meta.json, the one its process runs as)} of ready instances."""
        found = {}
        for row in self.cluster.ps():
            folder = os.path.join(self.cluster.data, node, "data", "instances", row["instance"])
            if row["node"] != node or row["state"] != "ready" or not os.path.isdir(folder):
                continue
            with open(os.path.join(folder, "meta.json"), encoding="utf-8") as f:
                meta = json.load(f)["uid"]
            cell = self.cluster.cell_pid(node, row["instance"])
            with open(f"/proc/{cell}/task/{cell}/children", encoding="ascii") as f:
                first = f.read().split()[0]
            found[row["instance"]] = (meta, os.stat(f"/proc/{first}/task").st_uid)
        return found

    def test_no_two_living_cells_share_a_user_also_after_a_restart(self):
        cluster = self.cluster
        back = self.configured("n1", "cells: {uids: {first: 1900000000, count: 3}}\n")
        try:
            cluster.restart("n1")
            self.shows("n1", "all")
            cluster.skep("node", "cordon", "n2")
            cluster.deploy_python("one", ECHO, scaling="{min: 2, max: 2}")
            first = wait_for(lambda: len(self.living("n1")) == 2 and self.living("n1"), "two cells")
            self.assertEqual(len({uid for uid, _ in first.values()}), 2)
            for meta, real in first.values():
                self.assertEqual(meta, real)
                self.assertIn(real, range(1900000000, 1900000003))
            cluster.kill("n1")
            cluster.restart("n1")
            wait_for(lambda: cluster.nodes()["n1"]["state"] == "ready", "n1 is back")
            cluster.deploy_python("two", ECHO, scaling="{min: 1, max: 1}")
            after = wait_for(lambda: len(self.living("n1")) == 3 and self.living("n1"), "a third cell")
            self.assertEqual({i: after[i] for i in first}, first)
            self.assertEqual(len({uid for uid, _ in after.values()}), 3)
            cluster.deploy_python("three", ECHO)
            self.fails(FAILED, "call", "three", "--data", "x", "--timeout", "2s")
            self.assertIn("all 3 users of cells.uids are in use", cluster.log("n1"))
        finally:
            for name in ("one", "two", "three"):
                cluster.skep("function", "delete", name, "--yes", check=False)
            cluster.skep("node", "uncordon", "n2")
            back()

    def test_skep_dev_names_walls_for_its_agents(self):
        cluster = self.cluster
        folder = os.path.join(cluster.folder, "other")
        self.fails(2, "dev", "--walls-not-needed", "seccomp", "--data", folder, says="the wall seccomp is always needed")
        self.fails(2, "dev", "--walls-not-needed", "landlock,moat", "--data", folder, says="no wall is named")
        env = {**cluster.environ, "SKEP_CONTEXTS": os.path.join(cluster.folder, "other.yaml")}
        names = "landlock,cgroup_io"
        cluster.skep("dev", "--walls-not-needed", names, "--data", folder, "--detach", env=env)
        try:
            shown = cluster.skep("node", "show", "n1", env=env).stdout.decode()
            self.assertRegex(shown, r"(?m)^walls +not needed: landlock, cgroup_io$")
        finally:
            cluster.skep("dev", "stop", "--data", folder, env=env)
