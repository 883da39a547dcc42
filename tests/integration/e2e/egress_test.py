"""Functions that reach out: a whole cluster on a machine of its own (a network namespace), with a wire to a world that echoes.

The addresses are of 198.18.0.0/15 and 203.0.113.0/24, which RFCs 2544 and 5737 set aside for tests and documents; the world also
has the address that clouds give to their metadata services.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import threading
import unittest

from cluster import ClusterCase, wait_for

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
OWN, WORLD, OTHER, METADATA = "198.18.0.1", "198.18.0.2", "203.0.113.5", "169.254.169.254"
PORTS = 4430, 4431, 4432

REACH = """
import errno, os, socket
def one(host, port):
    try:
        with socket.create_connection((host, port), 10) as s:
            s.sendall(b"x")
            return s.recv(1).decode()
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
def handle(p):
    return [one(host, port) for host, port in p]
"""

RESOLVER = """
def handle(p):
    with open("/etc/resolv.conf") as f:
        return f.read()
"""

libc = ctypes.CDLL(None, use_errno=True)


def checked(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def command(*args):
    done = subprocess.run(args, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def echo(ready):
    """Lives in the world: answers every byte with itself, on all its addresses."""
    with open("/run/netns/world", "rb") as f:
        checked(libc.setns(f.fileno(), CLONE_NEWNET), "setns")
    servers = [socket.create_server(("0.0.0.0", port)) for port in PORTS]
    for server in servers:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
    ready.set()


def serve(server):
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(connection.recv(1))


def setUpModule():
    if os.geteuid() != 0:
        raise unittest.SkipTest("networks need root")
    checked(libc.unshare(CLONE_NEWNET | CLONE_NEWNS), "unshare")
    checked(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount")
    command("mount", "-t", "tmpfs", "-o", "size=1m", "none", "/run")  # `ip netns` keeps its names there
    command("ip", "netns", "add", "world")
    command("ip", "link", "set", "lo", "up")
    command("ip", "link", "add", "wire", "type", "veth", "peer", "name", "eth0", "netns", "world")
    command("ip", "address", "add", f"{OWN}/24", "dev", "wire")
    command("ip", "link", "set", "wire", "up")
    for address in f"{WORLD}/24", f"{OTHER}/32", f"{METADATA}/32":
        command("ip", "-n", "world", "address", "add", address, "dev", "eth0")
    command("ip", "-n", "world", "link", "set", "eth0", "up")
    command("ip", "route", "add", "default", "via", WORLD)
    ready = threading.Event()
    threading.Thread(target=echo, args=(ready,), daemon=True).start()
    if not ready.wait(20):
        raise AssertionError("the world does not answer")


def pairs():
    """The links of cells on this machine."""
    return [name for _, name in socket.if_nameindex() if name.startswith("skep")]


def forwards():
    with open("/proc/sys/net/ipv4/ip_forward", encoding="ascii") as f:
        return f.read().strip()


class Egress(ClusterCase):
    SCHEDULERS, AGENTS = 1, 1

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        if pairs() or "skep" in command("nft", "list", "tables") or forwards() != "0":
            raise AssertionError(f"left behind: {pairs()} {command('nft', 'list', 'tables')} {forwards()}")

    def setUp(self):
        wait_for(lambda: [n["state"] for n in self.cluster.nodes().values()] == ["ready"], "a ready node")

    def deploy(self, name, code=REACH, egress=None, **settings):
        if egress is not None:
            settings["network"] = "{egress: [" + ", ".join(f'"{rule}"' for rule in egress) + "]}"
        self.cluster.deploy_python(name, code, resources="{cpu: 100m, memory: 64Mi}", **settings)
        self.addCleanup(self.delete, name)

    def delete(self, name):
        self.cluster.skep("function", "delete", name, "--yes", check=False)
        wait_for(lambda: not pairs(), "the networks are gone")

    def reach(self, name, *targets):
        data = "[" + ", ".join(f'["{host}", {port}]' for host, port in targets) + "]"
        return self.cluster.rows("call", name, "--data", data)[0]

    def answers(self, name, *targets):
        return json.loads(self.reach(name, *targets)["output"])

    def configure(self, lines):
        """Restarts the agent with these lines in its configuration, until the test ends."""
        path = os.path.join(self.cluster.data, "n1", "config.yaml")
        with open(path, encoding="utf-8") as f:
            before = f.read()

        def again(text):
            self.cluster.kill("n1", signal.SIGTERM)
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            self.cluster.restart("n1")

        self.addCleanup(again, before)
        again(before + lines)

    def test_a_function_reaches_what_its_rules_name_and_nothing_else(self):
        self.assertEqual(forwards(), "0")
        self.deploy("out", egress=[f"{WORLD}:4430", "0.0.0.0/0:4432"])
        answers = self.answers("out", (WORLD, 4430), (WORLD, 4431), (OTHER, 4432), (METADATA, 4432), (OWN, 4432))
        metadata = answers.pop(3)
        self.assertEqual(answers, ["x", "EHOSTUNREACH", "x", "EHOSTUNREACH"])
        self.assertIn(metadata, ["ENETUNREACH", "EHOSTUNREACH"])  # the sentry's answer, or the node's
        self.assertEqual(len(pairs()), 1)
        (shown,) = self.cluster.rows("function", "show", "out")
        self.assertEqual(shown["egress"], f"{WORLD}/32:4430/tcp,0.0.0.0/0:4432/tcp")
        wait_for(lambda: self.cluster.metric("skep_agent_egress_refused_packets", "n1") >= 2, "refused packets are counted")
        self.assertEqual(self.cluster.metric("skep_agent_egress_cells", "n1"), 1)

    def test_a_function_without_rules_has_its_loopback_alone(self):
        self.deploy("alone")
        self.assertEqual(self.answers("alone", (WORLD, 4430)), ["ENETUNREACH"])
        self.assertEqual(pairs(), [])

    def test_a_network_outlives_its_agent_and_goes_with_its_instance(self):
        self.deploy("long", egress=[f"{WORLD}:4430"])
        first = self.reach("long", (WORLD, 4430), (WORLD, 4431))
        self.cluster.kill("n1")
        self.cluster.restart("n1")
        second = self.reach("long", (WORLD, 4430), (WORLD, 4431))
        self.assertEqual((second["instance"], second["output"]), (first["instance"], first["output"]))
        pid = self.cluster.cell_pid("n1", second["instance"])
        self.cluster.kill("n1")
        os.kill(pid, signal.SIGKILL)
        self.cluster.skep("function", "delete", "long", "--yes")
        self.cluster.restart("n1")
        wait_for(lambda: not pairs(), "the dead instance's network is removed")

    def test_a_node_without_egress_is_no_place_and_says_so(self):
        (before,) = self.cluster.rows("node", "show", "n1")
        self.assertIs(before["egress"], True)
        self.configure("network: {egress: off}\n")
        wait_for(lambda: self.cluster.rows("node", "show", "n1")[0].get("egress") is False, "the node says so")
        self.deploy("nowhere", egress=[f"{WORLD}:4430"])
        refused = self.cluster.skep("call", "nowhere", "--data", "[]", "--timeout", "1s", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("1 without network egress", self.cluster.skep("why", "nowhere").stdout.decode())

    def test_names_are_asked_of_the_configured_resolver(self):
        self.configure(f"network: {{resolver: {WORLD}, pool: 100.66.0.0/24}}\n")
        self.deploy("names", code=RESOLVER, egress=["10.0.0.0/8:443"])
        self.assertEqual(self.cluster.call("names").decode(), f'"nameserver {WORLD}\\n"')
        self.assertEqual(pairs(), ["skep64420000"])


if __name__ == "__main__":
    unittest.main()
