"""What people get wrong: one line that names the thing, the right exit code, and nothing else happens."""

import errno
import os
import socket
import stat

import certificates
from cluster import DENIED, DONE, FAILED, UNREACHABLE, USAGE, ClusterCase

PAYLOAD_MAX = 4 << 20

ECHO = "def handle(p: bytes):\n    return p\n"

MANIFESTS = {
    "unknown-key": ("name: f\nruntime: python\nhandler: main.py:handle\ncolour: red\n", r"skep\.yaml:4: .*colour"),
    "twice": ("name: f\nname: g\nruntime: python\nhandler: main.py:handle\n", r"skep\.yaml:2: .*name"),
    "no-name": ("runtime: python\nhandler: main.py:handle\n", r"skep\.yaml:\d+: .*name"),
    "no-runtime": ("name: f\nhandler: main.py:handle\n", r"skep\.yaml:\d+: .*(runtime|handler)"),
    "bad-runtime": ("name: f\nruntime: cobol\nhandler: main.py:handle\n", r"skep\.yaml:2: runtime: .*cobol.*python"),
    "bad-handler": ("name: f\nruntime: python\nhandler: main.py\n", r"skep\.yaml:3: handler: .*FILE\.py:FUNCTION"),
    "outside": ("name: f\nruntime: python\nhandler: ../main.py:handle\n", r"skep\.yaml:3: handler: "),
    "memory": ("name: f\nruntime: python\nhandler: main.py:handle\nresources: {memory: 5}\n", r"skep\.yaml:4: resources\.memory: "),
    "negative": ("name: f\nruntime: python\nhandler: main.py:handle\nscaling: {max: -1}\n", r"skep\.yaml:4: scaling\.max: "),
    "huge": ("name: f\nruntime: python\nhandler: main.py:handle\nscaling: {max: 99999}\n", r"skep\.yaml:4: scaling\.max: .*out of range"),
    "order": ("name: f\nruntime: python\nhandler: main.py:handle\nscaling: {min: 3, max: 2}\n", r"skep\.yaml:4: scaling\.min: "),
    "timeout": ("name: f\nruntime: python\nhandler: main.py:handle\ntimeout: soon\n", r"skep\.yaml:4: timeout: "),
    "slash": ("name: a/b\nruntime: python\nhandler: main.py:handle\n", r"skep\.yaml:1: name: "),
    "long-name": (f"name: {'n' * 300}\nruntime: python\nhandler: main.py:handle\n", r"skep\.yaml:1: name: "),
    "reserved": ("name: f\nruntime: python\nhandler: main.py:handle\nenv: {SKEP_X: y}\n", r"skep\.yaml:4: env\.SKEP_X: "),
    "not-yaml": ("name: [f\n", r"skep\.yaml:\d+: "),
    "empty": ("", r"skep\.yaml(:\d+)?: "),
    "binary": ("name: f\0g\n", r"skep\.yaml(:\d+)?: "),
}


class BadInput(ClusterCase):
    SCHEDULERS, AGENTS = 1, 1

    @classmethod
    def prepare(cls):
        cls.cluster.deploy_example("hello")
        cls.cluster.deploy_python("echo", ECHO, resources="{cpu: 100m, memory: 128Mi}")

    def folder(self):
        """A folder that could be deployed as function `f`."""
        path = os.path.join(self.cluster.folder, self._testMethodName)
        os.makedirs(path)
        with open(os.path.join(path, "skep.yaml"), "w", encoding="ascii") as f:
            f.write("name: f\nruntime: python\nhandler: main.py:handle\n")
        with open(os.path.join(path, "main.py"), "w", encoding="ascii") as f:
            f.write(ECHO)
        return path

    def one_line(self, error):
        self.assertEqual(len(error.splitlines()), 1, error)

    def tearDown(self):
        names = [row["name"] for row in self.cluster.rows("function", "list")]
        self.assertEqual(sorted(names), ["echo", "hello"])

    # -- Manifests and folders --

    def test_manifests_with_errors(self):
        folder = self.folder()
        for name, (text, says) in MANIFESTS.items():
            with self.subTest(name):
                with open(os.path.join(folder, "skep.yaml"), "w", encoding="utf-8") as f:
                    f.write(text)
                self.one_line(self.fails(USAGE, "deploy", folder, says=says))

    def test_a_folder_without_a_manifest(self):
        folder = self.folder()
        os.unlink(os.path.join(folder, "skep.yaml"))
        self.one_line(self.fails(FAILED, "deploy", folder, says=r"skep\.yaml"))

    def test_a_folder_that_is_not_there(self):
        self.one_line(self.fails(FAILED, "deploy", "/nowhere/at/all", says="/nowhere/at/all"))

    def test_a_handler_that_is_not_there_fails_the_call_with_the_reason(self):
        cluster = self.cluster
        cluster.deploy_files("lost", {"other.py": ECHO}, runtime="python", handler="main.py:handle")
        self.addCleanup(cluster.skep, "function", "delete", "lost", "--yes", check=False)
        self.fails(FAILED, "call", "lost", says=r"main\.py")
        cluster.skep("function", "delete", "lost", "--yes")

    def test_a_link_that_leads_out(self):
        folder = self.folder()
        os.symlink("/etc/passwd", os.path.join(folder, "out"))
        self.one_line(self.fails(USAGE, "deploy", folder, says=r"out: "))

    def test_a_link_that_climbs_out(self):
        folder = self.folder()
        os.symlink("../../../etc/passwd", os.path.join(folder, "climb"))
        self.one_line(self.fails(USAGE, "deploy", folder, says=r"climb: "))

    def test_a_fifo(self):
        folder = self.folder()
        os.mkfifo(os.path.join(folder, "pipe"))
        self.one_line(self.fails(USAGE, "deploy", folder, says=r"pipe: "))

    def test_a_socket(self):
        folder = self.folder()
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(os.path.join(folder, "sock"))
            self.one_line(self.fails(USAGE, "deploy", folder, says=r"sock: "))

    def test_a_device(self):
        folder = self.folder()
        try:
            os.mknod(os.path.join(folder, "null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
        except OSError as error:
            self.assertEqual(error.errno, errno.EPERM)
            return  # no devices can be made here, so none can be deployed either
        self.one_line(self.fails(USAGE, "deploy", folder, says=r"null: "))

    def test_a_path_that_is_too_long(self):
        folder = self.folder()
        fd = os.open(folder, os.O_RDONLY)
        for _ in range(6):
            os.mkdir("d" * 200, dir_fd=fd)
            inner = os.open("d" * 200, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = inner
        os.close(fd)
        self.one_line(self.fails(FAILED, "deploy", folder, says=r"d{20}.*bytes"))

    def test_a_name_that_is_no_text(self):
        folder = self.folder().encode()
        with open(os.path.join(folder, b"\x1b[31mred\xff"), "wb"):
            pass
        error = self.fails(USAGE, "deploy", folder.decode(), says="red")
        self.one_line(error)
        self.assertNotIn("\x1b", error)

    def test_too_many_files(self):
        folder = self.folder()
        os.mkdir(os.path.join(folder, "many"))
        for number in range(10_001):
            os.close(os.open(os.path.join(folder, "many", str(number)), os.O_CREAT | os.O_WRONLY, 0o600))
        self.one_line(self.fails(FAILED, "deploy", folder, says="more than 10000 files"))

    def test_too_many_bytes(self):
        folder = self.folder()
        with open(os.path.join(folder, "hole"), "wb") as f:
            f.truncate((256 << 20) + 1)
        self.one_line(self.fails(FAILED, "deploy", folder, says="256"))

    # -- Calls --

    def call_file(self, size):
        path = os.path.join(self.cluster.folder, "payload")
        with open(path, "wb") as f:
            f.write((b"0123456789abcdef" * ((size >> 4) + 1))[:size])
        return self.cluster.skep("call", "echo", "--file", path, check=False), path

    def test_the_largest_payload_returns_whole(self):
        result, path = self.call_file(PAYLOAD_MAX)
        self.assertEqual(result.returncode, DONE, result.stderr)
        with open(path, "rb") as f:
            self.assertEqual(result.stdout, f.read())

    def test_one_byte_more(self):
        result, _ = self.call_file(PAYLOAD_MAX + 1)
        self.assertIn(result.returncode, (FAILED, USAGE), result.stderr)
        self.assertIn(b"4194304", result.stderr)

    def test_payloads_of_all_bytes(self):
        payload = bytes(range(256)) * 3
        self.assertEqual(self.cluster.skep("call", "echo", "-", input=payload).stdout, payload)
        self.assertEqual(self.cluster.skep("call", "echo", "-", input=b"").stdout, b"")

    def test_names_of_functions(self):
        for name in ("nobody", "a/b", "../hello", "n" * 300, "-", "hello\n", "hello ", "HELLO", "\u00fc", "%s%n"):
            with self.subTest(name):
                error = self.fails(FAILED, "call", "--", name, says="no function is named")
                self.assertLess(len(error), 300)

    def test_two_payloads(self):
        self.fails(USAGE, "call", "echo", "--data", "a", "--file", "b", says="one of")

    def test_a_payload_that_is_not_there(self):
        self.fails(FAILED, "call", "echo", "--file", "/nowhere/at/all", says="/nowhere/at/all")

    def test_a_timeout_that_is_none(self):
        self.fails(USAGE, "call", "echo", "--timeout", "soon", says="--timeout")

    # -- The command line --

    def test_verbs_and_options(self):
        for args in ((), ("fly",), ("node",), ("node", "fly"), ("call",), ("call", "a", "-", "c"), ("ps", "-o", "xml"),
                     ("ps", "--colour"), ("dev", "--schedulers", "0x"), ("dev", "--schedulers", "99")):
            with self.subTest(args):
                self.fails(USAGE, *args, says="skep")

    def test_help_is_no_error(self):
        self.assertIn(b"exit codes", self.cluster.skep("--help").stdout.lower())
        self.assertIn(b"--timeout", self.cluster.skep("call", "--help").stdout)

    def test_things_that_are_not_there(self):
        for args in (("node", "show", "n9"), ("node", "cordon", "n9"), ("node", "drain", "n9"), ("function", "show", "f9"),
                     ("function", "rollback", "f9", "--yes"), ("function", "delete", "f9", "--yes"), ("logs", "f9"),
                     ("metrics", "s9")):
            with self.subTest(args):
                self.one_line(self.fails(FAILED, *args, says=args[-1] if args[-1] != "--yes" else args[-2]))

    def test_destructive_verbs_ask(self):
        self.fails(USAGE, "function", "delete", "hello", says="--yes")
        self.assertEqual(self.cluster.call("hello"), b"hello, world\n")

    # -- Contexts --

    def environ(self, text):
        path = os.path.join(self.cluster.folder, f"contexts-{self._testMethodName}.yaml")
        if text is not None:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        return {**self.cluster.environ, "SKEP_CONTEXTS": path}

    def test_no_cluster_is_known(self):
        self.one_line(self.fails(UNREACHABLE, "call", "hello", env=self.environ(None), says="skep dev --detach"))

    def test_a_context_that_is_not_there(self):
        self.one_line(self.fails(FAILED, "call", "hello", "--context", "prod", says="prod.*there are: dev"))

    def test_a_contexts_file_with_errors(self):
        self.one_line(self.fails(USAGE, "ps", env=self.environ("contexts: 5\n"), says=r"contexts-.*\.yaml:1: "))

    def test_a_scheduler_that_is_not_there(self):
        cluster = self.cluster
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{s.getsockname()[1]}"
            user = os.path.join(cluster.data, "user")
            environ = self.environ(f'contexts: [{{name: x, schedulers: ["{address}"], ca: {user}/ca.crt, '
                                   f"cert: {user}/cert.pem, key: {user}/key.pem}}]\n")
            self.one_line(self.fails(UNREACHABLE, "call", "hello", env=environ, says=f"no scheduler can be reached: {address}"))

    def test_certificates_at_the_wrong_time(self):
        cluster = self.cluster
        ca = os.path.join(cluster.data, "ca")
        for name, start, end, says in (("old", "20200101000000Z", "20200201000000Z", "expired"),
                                       ("future", "20900101000000Z", "20910101000000Z", "not valid (before|yet)|not yet valid|clock")):
            with self.subTest(name):
                out = os.path.join(cluster.folder, f"certificate-{name}")
                certificates.make(ca, f"skep://dev/user/{name}", start, end, out)
                self.one_line(self.fails(DENIED, "call", "hello", env=cluster.context(name, out), says=says))

    def test_a_key_that_others_can_read(self):
        cluster = self.cluster
        out = os.path.join(cluster.folder, "open-key")
        certificates.make(os.path.join(cluster.data, "ca"), "skep://dev/user/open", "20200101000000Z", "20400101000000Z", out)
        os.chmod(os.path.join(out, "key.pem"), 0o644)
        self.one_line(self.fails(DENIED, "call", "hello", env=cluster.context("open", out), says=r"key\.pem"))

    def test_a_certificate_file_that_is_none(self):
        cluster = self.cluster
        out = os.path.join(cluster.folder, "no-certificate")
        certificates.make(os.path.join(cluster.data, "ca"), "skep://dev/user/none", "20200101000000Z", "20400101000000Z", out)
        with open(os.path.join(out, "cert.pem"), "w", encoding="ascii") as f:
            f.write("nothing\n")
        self.one_line(self.fails(USAGE, "call", "hello", env=cluster.context("none", out), says="certificate"))
