"""Scheduled backups into an S3 server that others wrote: s3rver of the npm registry, installed into a folder of its own.

Not one of the tests that always run: it needs the registry. By hand, with the environment that ctest gives backup_test:

    python3 -B -X dev -m unittest -v backup_npm
"""

import os
import signal
import socket
import subprocess
import unittest

from cluster import ClusterCase, free_ports, spawn, wait_for

SERVER = "s3rver@3.7.1"
INSTALL_SECONDS = 300


def answers(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class ForeignServer(ClusterCase):
    SCHEDULERS, AGENTS = 1, 1

    @classmethod
    def prepare(cls):
        cls.npm = os.path.join(cls.cluster.folder, "npm")
        os.makedirs(cls.npm)
        installed = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", SERVER], cwd=cls.npm,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=INSTALL_SECONDS, check=False)
        if installed.returncode != 0:
            raise unittest.SkipTest(f"npm install {SERVER}: {installed.stdout.decode(errors='replace')[-500:]}")

    def test_backups_are_stored_listed_and_removed(self):
        cluster, port = self.cluster, free_ports(1)[0]
        data = os.path.join(cluster.folder, "objects")
        os.makedirs(data)
        server = spawn(["node", os.path.join(self.npm, "node_modules/.bin/s3rver"), "-d", data, "-a", "127.0.0.1", "-p", port,
                        "--configure-bucket", "backups"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: answers(port), "the server listens")
            credentials = os.path.join(cluster.folder, "credentials")
            with open(credentials, "w", encoding="ascii") as f:
                f.write("aws_access_key_id = S3RVER\naws_secret_access_key = S3RVER\n")
            os.chmod(credentials, 0o600)
            with open(os.path.join(cluster.data, "s1", "config.yaml"), "a", encoding="utf-8") as f:
                f.write(f'backup: {{every: 1s, keep: 2, to: "s3://backups/skep", endpoint: "http://127.0.0.1:{port}", '
                        f'credentials: "{credentials}"}}\n')
            cluster.kill("s1", signal.SIGTERM)
            cluster.restart("s1")
            wait_for(cluster.leader, "a leader")
            wait_for(lambda: cluster.metric("skep_backups_removed_total") >= 2, "old backups were removed", 60)
            self.assertEqual(cluster.metric("skep_backup_store_failures_total"), 0)
            rows = cluster.rows("backup", "list")
            self.assertLessEqual(len(rows), 3)
            self.assertGreater(rows[0]["bytes"], 0)
            cluster.kill("s1", signal.SIGTERM)  # so that nothing is put or removed while the files are looked at
            stored = sorted(name for name in os.listdir(f"{data}/backups/skep") if name.endswith("._S3rver_object"))
            self.assertIn(len(stored), (2, 3))
            cluster.skep("backup", "verify", f"{data}/backups/skep/{stored[-1]}", "--cluster-key", f"{cluster.data}/cluster.key")
            cluster.restart("s1")
            wait_for(cluster.leader, "a leader")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    unittest.main()
