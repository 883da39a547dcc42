"""Who may connect, as what, and for how long."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess

import certificates
from cluster import BIN, DENIED, DONE, FAILED, USAGE, Caller, ClusterCase, pid_alive, run, wait_for


class Security(ClusterCase):
    SCHEDULERS = 3

    @classmethod
    def prepare(cls):
        cls.cluster.deploy_example("hello")
        cls.cluster.call("hello")
        cls.ca = os.path.join(cls.cluster.data, "ca")

    def issue(self, role, name, ca=None, valid="1h"):
        out = os.path.join(self.cluster.folder, f"issued-{role}-{name}-{self._testMethodName}")
        self.cluster.skep("ca", "issue", role, name, "--cluster", "dev", "--dir", ca or self.ca, "--out", out,
                          "--valid", valid)
        return out

    # -- Connections --

    def probe(self, folder=None, version=ssl.TLSVersion.TLSv1_3):
        """Connects to s1 with the folder's certificate; returns whether s1 keeps the connection."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        tls.minimum_version = tls.maximum_version = version
        if folder is not None:
            tls.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
        host, port = self.cluster.address("s1").split(":")
        with socket.create_connection((host, int(port)), 10) as plain:
            try:
                with tls.wrap_socket(plain) as secured:
                    secured.settimeout(1)
                    return secured.recv(1) != b""
            except TimeoutError:
                return True
            except (ssl.SSLError, ConnectionError):
                return False

    def refused(self, reason, attempt):
        """The attempt is refused for the reason: counted, logged with the address, while a good client works."""
        cluster = self.cluster

        def count():
            return cluster.metric_of("skep_link_refused_total", f'reason="{reason}"', "s1")

        before = count()
        with Caller(cluster, "hello", "good", b"hello, good\n") as caller:
            self.assertFalse(attempt())
            wait_for(lambda: count() > before, f"the counter of {reason} rises")
            good = caller.good
            wait_for(lambda: caller.good > good, "a good client works")
        self.assertEqual((caller.wrong, caller.failed), ([], []))
        kind = reason.replace("_", " ")
        lines = [line for line in cluster.log("s1").splitlines()
                 if "connection refused" in line and re.search(rf'kind="?{kind}"? ', line)]
        self.assertGreaterEqual(len(lines), 1, cluster.log("s1"))
        self.assertIn("127.0.0.1", lines[0])
        return lines

    def test_no_certificate(self):
        self.refused("no_certificate", self.probe)

    def test_another_authority(self):
        other = os.path.join(self.cluster.folder, "other-ca")
        self.cluster.skep("ca", "init", "--cluster", "dev", "--dir", other)
        self.refused("untrusted", lambda: self.probe(self.issue("user", "eve", other)))

    def test_an_expired_certificate(self):
        out = os.path.join(self.cluster.folder, "expired")
        certificates.make(self.ca, "skep://dev/user/old", "20200101000000Z", "20200201000000Z", out)
        self.refused("expired", lambda: self.probe(out))

    def test_a_certificate_of_another_cluster_name(self):
        out = os.path.join(self.cluster.folder, "elsewhere")
        certificates.make(self.ca, "skep://prod/user/eve", "20200101000000Z", "20400101000000Z", out)
        self.refused("identity", lambda: self.probe(out))

    def test_tls_1_2(self):
        self.refused("protocol", lambda: self.probe(self.issue("user", "slow"), ssl.TLSVersion.TLSv1_2))

    def test_garbage_instead_of_tls(self):
        def attempt():
            host, port = self.cluster.address("s1").split(":")
            with socket.create_connection((host, int(port)), 10) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 8)
                with contextlib.suppress(ConnectionError):
                    while plain.recv(4096):
                        pass
            return False

        self.refused("protocol", attempt)

    def test_garbage_instead_of_frames(self):
        def attempt():
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            folder = self.issue("user", "noisy")
            tls.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
            host, port = self.cluster.address("s1").split(":")
            with socket.create_connection((host, int(port)), 10) as plain, tls.wrap_socket(plain) as secured:
                with contextlib.suppress(ssl.SSLError, ConnectionError):
                    secured.sendall(b"\xff" * 4096)
                    while secured.recv(4096):
                        pass
            return False

        self.refused("frame", attempt)

    def test_repeated_refusals_are_logged_once(self):
        for _ in range(20):
            self.assertFalse(self.probe())
        lines = [line for line in self.cluster.log("s1").splitlines() if 'kind="no certificate"' in line]
        self.assertLessEqual(len(lines), 2, lines)

    # -- Roles --

    def test_an_agent_is_no_user(self):
        cluster = self.cluster
        environ = cluster.context("agent", os.path.join(cluster.data, "n1"), ("s1", "s2", "s3"))
        for args in (("call", "hello"), ("node", "list"), ("ca", "token", "--role", "user"), ("logs", "hello")):
            with self.subTest(args):
                self.fails(DENIED, *args, env=environ)
        wait_for(lambda: cluster.nodes()["n1"]["state"] == "ready", "the agent itself is ready")

    def test_a_user_is_no_scheduler(self):
        cluster = self.cluster
        folder = self.issue("user", "proud")
        environ = cluster.context("proud", folder, ("s1", "s2", "s3"))
        self.assertEqual(cluster.skep("call", "hello", "--data", "u", env=environ).stdout, b"hello, u\n")

    # -- Revocation --

    def test_revocation_ends_a_live_connection(self):
        cluster = self.cluster
        environ = cluster.context("soon", self.issue("user", "soon"), ("s1", "s2", "s3"))
        follower = cluster.start_skep("logs", "hello", "--follow", env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            self.assertIn(b"hello is ready", follower.stdout.readline())
            cluster.skep("ca", "revoke", "user/soon", "--yes", "--reason", "left")
            _, error = follower.communicate(timeout=20)
            self.assertEqual(follower.returncode, DENIED, error)
        finally:
            follower.kill()
            follower.communicate()
        self.fails(DENIED, "call", "hello", env=environ, says="revoked")
        self.assertIn("user/soon", [row.get("revoked") for row in self.revoked()])
        for name in ("s1", "s2", "s3"):
            with self.subTest(name):
                self.fails(DENIED, "call", "hello", env=cluster.context("again", self.folder_of(environ), (name,)))

    def folder_of(self, environ):
        with open(environ["SKEP_CONTEXTS"], encoding="utf-8") as f:
            return re.search(r"cert: (.*)/cert\.pem", f.read()).group(1)

    def revoked(self):
        """The second list that skep ca list prints."""
        text = self.cluster.skep("ca", "list").stdout.decode()
        return [{"revoked": line.split()[0]} for line in text.splitlines() if line.strip()]

    def test_a_revoked_serial_shuts_out_one_certificate_only(self):
        cluster = self.cluster
        first, second = self.issue("user", "twice"), self.issue("user", "twice", valid="2h") + "-b"
        cluster.skep("ca", "issue", "user", "twice", "--cluster", "dev", "--dir", self.ca, "--out", second)
        out = run(["openssl", "x509", "-noout", "-serial", "-in", os.path.join(first, "cert.pem")]).stdout.decode()
        cluster.skep("ca", "revoke", out.strip().partition("=")[2].lower(), "--yes")
        old, new = cluster.context("old", first), cluster.context("new", second)
        # Followers learn of it with the next heartbeat; whoever is connected in that moment is cut off in the middle.
        wait_for(lambda: cluster.skep("call", "hello", env=old, check=False).returncode == DENIED, "all schedulers refuse it")
        self.fails(DENIED, "call", "hello", env=old, says="revoked")
        self.assertEqual(cluster.skep("call", "hello", "--data", "n", env=new).stdout, b"hello, n\n")

    # -- Joining --

    def token(self, role, *args):
        path = os.path.join(self.cluster.folder, f"token-{self._testMethodName}-{len(os.listdir(self.cluster.folder))}")
        text = self.cluster.skep("ca", "token", "--role", role, *args).stdout
        with open(path, "wb") as f:
            f.write(text)
        return path

    def join(self, token, name, code=DONE, says=None):
        """Joins as a user with a contexts file of its own; returns its environment."""
        environ = {**self.cluster.environ,
                   "SKEP_CONTEXTS": os.path.join(self.cluster.folder, f"joined-{name}", "contexts.yaml")}
        self.fails(code, "join", "--token-file", token, "--name", name, env=environ, says=says)
        return environ

    def test_a_user_joins_once_with_a_token(self):
        cluster = self.cluster
        token = self.token("user")
        environ = self.join(token, "ann")
        self.assertEqual(cluster.skep("call", "hello", "--data", "ann", env=environ).stdout, b"hello, ann\n")
        self.join(token, "bob", DENIED, "used")

    def test_a_token_is_for_its_role_and_name(self):
        self.join(self.token("agent"), "carl", DENIED, "agent")
        self.join(self.token("user", "--name", "dora"), "carl", DENIED, "dora")

    def test_a_token_expires(self):
        token = self.token("user", "--valid", "1s")
        environ = {**self.cluster.environ, "SKEP_CONTEXTS": os.path.join(self.cluster.folder, "late", "contexts.yaml")}
        names = iter(f"late-{n}" for n in range(10000))

        def refused():
            # A token that is young yet is used up by the first attempt: a new one each time is not what is asked here.
            result = self.cluster.skep("join", "--token-file", token, "--name", next(names), env=environ, check=False)
            return result if result.returncode != DONE else None

        result = wait_for(refused, "the token is refused")
        self.assertEqual(result.returncode, DENIED, result.stderr)

    def test_text_that_is_no_token(self):
        good = self.token("user")
        with open(good, encoding="ascii") as f:
            text = f.read().strip()
        flipped = text[:-20] + ("A" if text[-20] != "A" else "B") + text[-19:]
        for number, bad in enumerate(("", "garbage", text[:-9], flipped, "skep-join-v9." + text[13:], text * 5)):
            with self.subTest(number):
                path = os.path.join(self.cluster.folder, f"bad-token-{number}")
                with open(path, "w", encoding="ascii") as f:
                    f.write(bad)
                result = self.cluster.skep("join", "--token-file", path, "--name", "x", check=False)
                self.assertIn(result.returncode, (FAILED, USAGE), result.stderr)
                self.assertIn(b"token", result.stderr)

    def test_an_agent_joins_works_and_is_removed(self):
        cluster = self.cluster
        data, config = os.path.join(cluster.data, "n3", "data"), os.path.join(cluster.data, "n3", "config.yaml")
        os.makedirs(os.path.dirname(data))
        joined = run([os.path.join(BIN, "skep-agent"), "join", "--token-file", self.token("agent", "--name", "n3"),
                      "--name", "n3", "--data", data, "--config-out", config])
        self.assertEqual(joined.returncode, 0, joined.stderr)
        pid = cluster.spawn_daemon("agent", "n3")
        cluster.adopt("agent", "n3", pid)
        try:
            wait_for(lambda: cluster.nodes().get("n3", {}).get("state") == "ready", "n3 is ready")
            for node in ("n1", "n2"):
                cluster.skep("node", "cordon", node)
            cluster.deploy_python("third", "def handle(p):\n    return p\n", resources="{cpu: 100m, memory: 64Mi}")
            self.assertEqual(cluster.call_json("third", "3")["node"], "n3")
        finally:
            for node in ("n1", "n2"):
                cluster.skep("node", "uncordon", node)
        cluster.skep("node", "remove", "n3", "--yes")
        wait_for(lambda: "n3" not in cluster.nodes(), "n3 is not listed")
        self.assertEqual(cluster.call("third", "4"), b"4")
        wait_for(lambda: "revoked" in cluster.log("s1") + cluster.log("s2") + cluster.log("s3"), "n3 is refused")
        if pid_alive(pid):
            cluster.kill("n3", signal.SIGTERM)
        cluster.skep("function", "delete", "third", "--yes")

    # -- Renewal --

    def test_a_user_renews(self):
        cluster = self.cluster
        folder = self.issue("user", "renewer", valid="5m")
        environ = cluster.context("renewer", folder, ("s1", "s2", "s3"))
        with open(os.path.join(folder, "cert.pem"), "rb") as f:
            before = f.read()
        cluster.skep("ca", "renew", env=environ)
        with open(os.path.join(folder, "cert.pem"), "rb") as f:
            self.assertNotEqual(f.read(), before)
        self.assertEqual(cluster.skep("call", "hello", "--data", "r", env=environ).stdout, b"hello, r\n")

    def test_an_agent_renews_without_losing_connections(self):
        cluster = self.cluster
        folder = os.path.join(cluster.data, "n2")
        cluster.kill("n2", signal.SIGTERM)
        cluster.skep("ca", "issue", "agent", "n2", "--cluster", "dev", "--dir", self.ca, "--out", folder, "--valid", "60s")
        with open(os.path.join(folder, "cert.pem"), "rb") as f:
            short = f.read()
        at = {name: len(cluster.log(name)) for name in ("s1", "s2", "s3")}
        cluster.restart("n2")

        def renewed():
            with open(os.path.join(folder, "cert.pem"), "rb") as f:
                return f.read() != short

        wait_for(renewed, "the agent has a new certificate")
        wait_for(lambda: cluster.nodes()["n2"]["state"] == "ready", "n2 is ready")
        for name, size in at.items():
            lines = [line for line in cluster.log(name)[size:].splitlines() if "event=disconnected" in line]
            self.assertEqual([line for line in lines if "role=agent name=n2" in line], [], name)

