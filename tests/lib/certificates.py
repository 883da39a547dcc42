"""Certificates that skep itself would not make: with any times, for tests of refusals. Signs with the openssl program."""

import os
import subprocess
import tempfile

CONFIG = """
[ca]
default_ca = test
[test]
database = index
serial = serial
new_certs_dir = .
default_md = sha256
policy = any
x509_extensions = leaf
unique_subject = no
[any]
commonName = optional
[leaf]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
subjectAltName = URI:{uri}
"""


def make(ca_folder, uri, start, end, out):
    """Writes OUT/cert.pem, key.pem and ca.crt, signed by ca_folder's CA. start and end: YYYYMMDDHHMMSSZ."""
    os.makedirs(out, exist_ok=True)
    key, cert = os.path.join(out, "key.pem"), os.path.join(out, "cert.pem")
    ca, ca_key = os.path.join(ca_folder, "ca.crt"), os.path.join(ca_folder, "ca.key")
    with tempfile.TemporaryDirectory(prefix="skep-ca.") as folder:

        def openssl(*args):
            subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True)

        with open(os.path.join(folder, "config"), "w", encoding="ascii") as f:
            f.write(CONFIG.format(uri=uri))
        with open(os.path.join(folder, "index"), "w", encoding="ascii"):
            pass
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem")
        openssl("req", "-new", "-key", "key.pem", "-subj", "/CN=test", "-out", "request")
        openssl("ca", "-batch", "-config", "config", "-rand_serial", "-cert", ca, "-keyfile", ca_key, "-in", "request",
                "-startdate", start, "-enddate", end, "-notext", "-out", "cert.pem")
        for name, path in (("key.pem", key), ("cert.pem", cert)):
            with open(os.path.join(folder, name), "rb") as f, open(path, "wb", opener=_private) as copy:
                copy.write(f.read())
    with open(ca, "rb") as f, open(os.path.join(out, "ca.crt"), "wb") as copy:
        copy.write(f.read())


def _private(path, flags):
    return os.open(path, flags, 0o600)
