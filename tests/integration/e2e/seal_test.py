"""What schedulers keep on disk is sealed: no plaintext of a payload, only with the right key, through rotation, a change of
the cluster key, snapshots and restarts."""

import os
import re
import shutil
import socket
import stat
import tempfile
import unittest

from cluster import BIN, DONE, FAILED, USAGE, ClusterCase, run, wait_for

ECHO = "def handle(p):\n    return p\n"
# Over the log's inline limit, so that it becomes a file of its own.
LARGE = 64 << 10
# More entries than a snapshot waits for.
MANY = 9000


def files_below(folder):
    for at, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(at, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                yield path


class SealCase(ClusterCase):
    SCHEDULERS, AGENTS = 3, 1

    def schedulers(self):
        return [f"s{i + 1}" for i in range(self.SCHEDULERS)]

    def holding(self, mark):
        """Files of the schedulers' data folders that hold the text."""
        found = []
        for name in self.schedulers():
            for path in files_below(os.path.join(self.cluster.data, name, "data")):
                with open(path, "rb") as f:
                    if mark.encode() in f.read():
                        found.append(path)
        return found

    def config(self, name):
        return os.path.join(self.cluster.data, name, "config.yaml")

    def configure(self, name, seal):
        """Replaces the line of the configuration that says how it seals."""
        with open(self.config(name), encoding="utf-8") as f:
            lines = [line for line in f.read().split("\n") if not line.startswith("seal:")]
        with open(self.config(name), "w", encoding="utf-8") as f:
            f.write("\n".join([*seal, *lines]))

    def key_path(self, name="cluster.key"):
        return os.path.join(self.cluster.data, name)

    def kill_all(self):
        for name in self.schedulers():
            self.cluster.kill(name)

    def restart_all(self):
        for name in self.schedulers():
            self.cluster.restart(name)
        wait_for(self.cluster.leader, "a leader")

    def spawn(self, data, *args):
        """Spawns the function echo with the payload; returns the invocation's id."""
        path = os.path.join(self.cluster.folder, "payload")
        with open(path, "w", encoding="utf-8") as f:
            f.write(data)
        return self.cluster.skep("spawn", "echo", "--file", path, *args).stdout.decode().split()[0]

    def result(self, invocation):
        return self.cluster.skep("result", invocation, "--wait").stdout.decode()

    def start_fails(self, name, says):
        """The scheduler does not start, and its log's new part says why."""
        before = len(self.cluster.log(name))
        pid = self.cluster.spawn_daemon("scheduler", name)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), f"{name} ended")
        self.assertRegex(self.cluster.log(name)[before:], says)
        os.truncate(os.path.join(self.cluster.data, name, "log"), before)  # it was meant to


class Seal(SealCase):
    @classmethod
    def prepare(cls):
        cls.cluster.deploy_python("echo", ECHO)

    def setUp(self):
        wait_for(self.cluster.leader, "a leader")

    def test_no_payload_is_on_any_disk_in_plain(self):
        mark = "inline-mark-7c1e"
        large = "large-mark-93ab"
        delayed = "delayed-mark-55d0"
        setting = "setting-mark-41f7"
        self.cluster.skep("setting", "set", "tenant.marked.weight", "7")
        self.cluster.skep("ca", "revoke", "user/nobody", "--reason", setting, "--yes")
        small = self.spawn(f'"{mark}"')
        big = self.spawn('"' + (large * (LARGE // len(large))) + '"')
        waits = self.spawn(f'"{delayed}"', "--delay", "1h", "--ttl", "2h")
        self.assertIn(mark, self.result(small))
        self.assertIn(large, self.result(big))
        marks = (mark, large, delayed, setting)
        for text in marks:
            self.assertEqual(self.holding(text), [], text)
        self.kill_all()
        for text in marks:
            self.assertEqual(self.holding(text), [], text)
        # What is there is not just absent: it comes back.
        self.restart_all()
        self.assertIn(mark, self.result(small))
        self.assertIn(large, self.result(big))
        shown = self.cluster.rows("invocation", "show", waits)[0]
        self.assertEqual(shown["state"], "delayed", shown)
        self.assertIn(setting, self.cluster.skep("ca", "list", "-o", "json").stdout.decode())
        # The search sees the schedulers' files: code is not sealed.
        self.assertEqual(len({p.split("/data/chunks/")[0] for p in self.holding("def handle(p)")}), 3)

    def test_snapshots_are_sealed(self):
        mark = "snapshot-mark-b8e2"
        self.kill_all()
        for name in self.schedulers():
            with open(os.path.join(self.cluster.data, name, "config.yaml"), "a", encoding="utf-8") as f:
                f.write("raft: {snapshot_entries: 4096}\n")
        self.restart_all()
        lines = "".join(f'"{mark} {i}"\n' for i in range(MANY)).encode()
        spawned = self.cluster.skep("spawn", "echo", "--each", "--delay", "1h", "--ttl", "2h", input=lines,
                                    timeout=120).stdout.decode().split()
        self.assertEqual(len(spawned), MANY)

        def snapshots():
            found = {}
            for name in self.schedulers():
                raft = os.path.join(self.cluster.data, name, "data", "raft")
                found[name] = [f for f in os.listdir(raft) if re.fullmatch(r"snapshot-\d+-\d+-\d+", f)]
            return all(found.values()) and found

        wait_for(snapshots, "each scheduler has a snapshot", 60)
        self.assertEqual(self.holding(mark), [])
        self.kill_all()
        self.assertEqual(self.holding(mark), [])
        self.restart_all()
        shown = self.cluster.rows("invocation", "show", spawned[0])[0]
        self.assertEqual(shown["state"], "delayed", shown)

    def test_rotation_needs_no_restart(self):
        before = self.spawn('"under the old key"')
        keys = self.cluster.rows("key", "list")
        said = self.cluster.skep("key", "rotate").stdout.decode()
        self.assertIn(f"data key {len(keys) + 1} seals from now on", said)
        after = self.spawn('"under the new key"')
        rows = self.cluster.rows("key", "list")
        self.assertEqual(len(rows), len(keys) + 1)
        self.assertEqual([row["seals"] for row in rows], [False] * len(keys) + [True])
        self.kill_all()
        self.restart_all()
        self.assertIn("under the old key", self.result(before))
        self.assertIn("under the new key", self.result(after))

    def test_no_key_no_start(self):
        name = next(n for n in self.schedulers() if n != self.cluster.leader())
        key, aside = self.key_path(), self.key_path("aside.key")
        self.cluster.kill(name)
        own = self.cluster.rows("key", "list")[0]["wrapped_by"]
        os.rename(key, aside)
        try:
            self.start_fails(name, rf"cannot start.*cluster key: read {re.escape(key)}: No such file")
            self.cluster.skep("key", "create", key)
            self.start_fails(name, rf"cannot start.*the state was sealed by cluster key {own}, this scheduler has [0-9a-f]+")
            self.fails(FAILED, "key", "create", key, says="is there already")
            os.chmod(key, 0o644)
            self.start_fails(name, r"is open to others \(mode 0644\)")
            os.unlink(key)
        finally:
            os.rename(aside, key)
        sealed = f'seal: {{cluster_key: "file:{key}"}}'
        self.configure(name, [])
        self.start_fails(name, rf"was sealed by cluster key {own}, this scheduler has none: name it in seal.cluster_key")
        # Nor when it knows of the key by the log alone.
        os.rename(os.path.join(self.cluster.data, name, "data", "keys"), aside)
        self.start_fails(name, rf"sealed by cluster key {own}, this scheduler has none|the log is sealed")
        self.configure(name, [sealed])
        self.cluster.restart(name)
        self.catches_up(name)
        # Written by the scheduler's maintenance, not by the apply.
        wait_for(lambda: os.path.exists(os.path.join(self.cluster.data, name, "data", "keys")), "the keys' file")
        os.unlink(aside)

    def catches_up(self, name):
        def applied(scheduler):
            text = self.cluster.skep("metrics", scheduler, check=False).stdout.decode()
            return int(next((line.split()[1] for line in text.splitlines() if line.startswith("skep_raft_applied_index ")), 0))

        wanted = wait_for(lambda: applied(self.cluster.leader()), "the leader's index")
        wait_for(lambda: applied(name) >= wanted, f"{name} applied {wanted}")

    def test_the_cluster_key_is_replaced_online(self):
        """New and old key in the configuration, one scheduler after the other; rewrap; then without the old one."""
        old, new = self.key_path(), self.key_path("second.key")
        self.cluster.skep("key", "create", new)
        kept = self.spawn('"sealed before"')
        for name in self.schedulers():
            self.configure(name, [f'seal: {{cluster_key: "file:{new}", cluster_key_old: "file:{old}"}}'])
            self.cluster.kill(name)
            self.cluster.restart(name)
            wait_for(self.cluster.leader, "a leader")
            self.catches_up(name)
        self.assertFalse(any(row["cluster_key_current"] for row in self.cluster.rows("key", "list")))
        count = len(self.cluster.rows("key", "list"))
        said = self.cluster.skep("key", "rewrap", "--yes").stdout.decode()
        self.assertIn(f"{count} of {count} data keys wrapped by cluster key", said)
        self.assertIn(f"0 of {count} data keys", self.cluster.skep("key", "rewrap", "--yes").stdout.decode())
        self.assertTrue(all(row["cluster_key_current"] for row in self.cluster.rows("key", "list")))
        self.cluster.skep("key", "rotate")
        self.kill_all()
        for name in self.schedulers():
            self.configure(name, [f'seal: {{cluster_key: "file:{new}"}}'])
        self.restart_all()
        self.assertIn("sealed before", self.result(kept))
        # For the tests that follow.
        os.replace(new, old)
        for name in self.schedulers():
            self.configure(name, [f'seal: {{cluster_key: "file:{old}"}}'])

    def test_a_new_scheduler_needs_the_key(self):
        cluster = self.cluster
        folder = os.path.join(cluster.data, "s4")
        os.mkdir(folder)
        token = cluster.skep("ca", "token", "--role", "scheduler", "--name", "s4").stdout
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        joined = run([os.path.join(BIN, "skep-scheduler"), "join", "--token-file", "-", "--name", "s4", "--address",
                      f"127.0.0.1:{port}", "--data", os.path.join(folder, "data"), "--config-out", self.config("s4")],
                     input=token)
        self.assertEqual(joined.returncode, DONE, joined.stderr)
        self.assertIn(b"give it the cluster's key", joined.stdout)
        with open(os.path.join(folder, "log"), "wb"):
            pass
        self.start_fails("s4", "was sealed by cluster key [0-9a-f]{16}, this scheduler has none: name it")
        self.configure("s4", [f'seal: {{cluster_key: "file:{self.key_path()}"}}'])
        cluster.adopt("scheduler", "s4", cluster.spawn_daemon("scheduler", "s4"), port)
        cluster.skep("cluster", "add", "s4", "--address", f"127.0.0.1:{port}")
        self.catches_up("s4")
        cluster.skep("cluster", "remove", "s4", "--yes")


class Unsealed(SealCase):
    """The control: what the search finds when nothing is sealed, and sealing what was not."""

    SCHEDULERS, AGENTS = 1, 1

    def test_the_search_finds_what_is_not_sealed_until_it_is(self):
        cluster, mark = self.cluster, "plain-mark-6d2a"
        cluster.kill("s1")
        data = os.path.join(cluster.data, "s1", "data")
        os.rename(data, data + ".sealed")
        os.mkdir(data, 0o700)
        self.configure("s1", [])
        cluster.restart("s1")
        wait_for(cluster.leader, "a leader")
        self.assertEqual(len(re.findall("nothing on disk is sealed", cluster.log("s1"))), 1)
        cluster.deploy_python("echo", ECHO)
        first = self.spawn(f'"{mark}"')
        self.assertIn(mark, self.result(first))
        self.assertNotEqual(self.holding(mark), [])
        self.fails(USAGE, "key", "rotate", says="is not sealed")
        # From here on it is sealed; what was written before can still be read.
        cluster.kill("s1")
        self.configure("s1", [f'seal: {{cluster_key: "file:{self.key_path()}"}}'])
        cluster.restart("s1")
        wait_for(lambda: cluster.leader() and cluster.rows("key", "list"), "a data key")
        sealed = "sealed-mark-2f19"
        second = self.spawn(f'"{sealed}"')
        self.assertIn(sealed, self.result(second))
        self.assertIn(mark, self.result(first))
        self.assertEqual(self.holding(sealed), [])


class Token(SealCase):
    """The cluster key is an RSA key on a PKCS#11 token, which it never leaves."""

    SCHEDULERS, AGENTS = 1, 1
    MODULE = "/usr/lib/softhsm/libsofthsm2.so"

    @classmethod
    def setUpClass(cls):
        if shutil.which("softhsm2-util") is None:
            raise unittest.SkipTest("no softhsm2")
        cls.folder = tempfile.mkdtemp(prefix="skep-token.")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        os.mkdir(os.path.join(cls.folder, "tokens"))
        conf = os.path.join(cls.folder, "softhsm2.conf")
        with open(conf, "w", encoding="ascii") as f:
            f.write(f"directories.tokendir = {cls.folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n")
        os.environ["SOFTHSM2_CONF"] = conf
        cls.addClassCleanup(os.environ.pop, "SOFTHSM2_CONF")
        pem = os.path.join(cls.folder, "key.pem")
        for args in (["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", pem],
                     ["softhsm2-util", "--init-token", "--free", "--label", "skep", "--pin", "4821", "--so-pin", "9377"],
                     ["softhsm2-util", "--import", pem, "--token", "skep", "--label", "cluster", "--id", "01", "--pin", "4821"]):
            made = run(args)
            if made.returncode != DONE:
                raise AssertionError(f"{args[0]}: {made.stderr}")
        os.unlink(pem)
        super().setUpClass()

    def seal(self, pin, more=""):
        path = os.path.join(self.folder, "pin")
        with open(path, "w", encoding="ascii") as f:
            f.write(pin)
        return [f'seal: {{cluster_key: "{self.uri()}", pkcs11_module: {self.MODULE}{more}}}']

    def uri(self):
        return f"pkcs11:token=skep;object=cluster?pin-source=file:{self.folder}/pin"

    def test_a_token_wraps_the_data_keys(self):
        cluster = self.cluster
        cluster.kill("s1")
        data = os.path.join(cluster.data, "s1", "data")
        os.rename(data, data + ".before")
        os.mkdir(data, 0o700)
        self.configure("s1", self.seal("4821"))
        cluster.restart("s1")
        wait_for(lambda: cluster.leader() and cluster.rows("key", "list"), "a data key")
        cluster.deploy_python("echo", ECHO)
        cluster.skep("key", "rotate")
        mark = "token-mark-0b77"
        kept = self.spawn(f'"{mark}"')
        self.assertIn(mark, self.result(kept))
        self.assertEqual(self.holding(mark), [])
        cluster.kill("s1")
        self.configure("s1", self.seal("1111"))
        self.start_fails("s1", "cannot start.*cluster key: the token has no such key pair, or wants its PIN")
        self.assertNotIn("1111", cluster.log("s1"))
        # From the token to a file.
        self.configure("s1", self.seal("4821"))
        key = self.key_path()
        self.configure("s1", [f'seal: {{cluster_key: "file:{key}", cluster_key_old: "{self.uri()}", '
                              f'pkcs11_module: {self.MODULE}}}'])
        cluster.restart("s1")
        wait_for(cluster.leader, "a leader")
        self.assertIn("2 of 2 data keys", cluster.skep("key", "rewrap", "--yes").stdout.decode())
        cluster.kill("s1")
        self.configure("s1", [f'seal: {{cluster_key: "file:{key}"}}'])
        cluster.restart("s1")
        wait_for(cluster.leader, "a leader")
        self.assertIn(mark, self.result(kept))


if __name__ == "__main__":
    unittest.main()
