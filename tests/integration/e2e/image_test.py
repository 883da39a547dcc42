"""Images: imported from what others make, shared by instances, kept while they are used, repaired when they are damaged."""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time

from cluster import DONE, FAILED, ClusterCase, wait_for

PROGRAMS = ("/bin/cat", "/bin/sh")
HOUR = 3600


def sha(data):
    return hashlib.sha256(data).hexdigest()


def libraries(program):
    """The files a program needs to start."""
    text = subprocess.run(["ldd", program], capture_output=True, check=True, text=True).stdout
    return sorted({word for word in text.split() if word.startswith("/")})


def root_files(texts):
    """Path to (bytes, mode): what a cell needs to run cat and sh, and these texts."""
    files = {path.lstrip("/"): (text.encode(), 0o644) for path, text in texts.items()}
    for program in PROGRAMS:
        for path in (program, *libraries(program)):
            with open(path, "rb") as f:
                files[path.lstrip("/")] = (f.read(), 0o755)
    return files


def tar_of(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, (data, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), mode
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def config_of(layers):
    return json.dumps({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["LANG=C.UTF-8"], "WorkingDir": "/srv", "Entrypoint": ["/bin/sh"], "Cmd": ["-i"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(layer)}" for layer in layers]},
    }).encode()


def write_files(folder, files):
    for path, (data, mode) in files.items():
        path = os.path.join(folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, mode)


def write_layout(folder, layers):
    """An OCI image layout with gzip layers; returns the path of the last layer's blob."""
    blobs = {}

    def blob(data, kind):
        blobs[f"blobs/sha256/{sha(data)}"] = (data, 0o644)
        return {"mediaType": kind, "digest": f"sha256:{sha(data)}", "size": len(data)}

    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    manifest = json.dumps({
        "schemaVersion": 2,
        "config": blob(config_of(layers), "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in packed],
    }).encode()
    index = {"schemaVersion": 2, "manifests": [blob(manifest, "application/vnd.oci.image.manifest.v1+json")]}
    write_files(folder, {
        **blobs,
        "oci-layout": (b'{"imageLayoutVersion": "1.0.0"}', 0o644),
        "index.json": (json.dumps(index).encode(), 0o644),
    })
    return os.path.join(folder, "blobs", "sha256", sha(packed[-1]))


def write_docker_archive(path, layers):
    config = config_of(layers)
    manifest = [{"Config": f"{sha(config)}.json", "RepoTags": ["x:1"],
                 "Layers": [f"{sha(layer)}/layer.tar" for layer in layers]}]
    files = {f"{sha(config)}.json": (config, 0o644), "manifest.json": (json.dumps(manifest).encode(), 0o644)}
    files |= {f"{sha(layer)}/layer.tar": (layer, 0o644) for layer in layers}
    with open(path, "wb") as f:
        f.write(gzip.compress(tar_of(files)))


class Images(ClusterCase):
    SCHEDULERS, AGENTS = 3, 1

    def setUp(self):
        self.work = os.path.join(self.cluster.folder, self.id().rsplit(".", 1)[-1])
        os.makedirs(self.work)

    def source(self, name, text):
        """A plain folder whose /etc/only says text."""
        folder = os.path.join(self.work, name)
        write_files(folder, root_files({"/etc/only": text}))
        return folder

    def take(self, name, source):
        (row,) = self.cluster.rows("image", "import", name, source)
        return row

    def deploy(self, function, image, **settings):
        return self.cluster.deploy_files(function, {}, command='["/bin/cat", "/etc/only"]', image=image, **settings)

    def images(self):
        return {f'{row["name"]}@sha256:{row["digest"]}': row for row in self.cluster.rows("image", "list")}

    def files(self, kind):
        folder = os.path.join(self.cluster.data, "n1", "data", "images")
        return {name for name in os.listdir(folder) if name.endswith(f".{kind}")} if os.path.isdir(folder) else set()

    def mounts(self, image):
        with open("/proc/self/mountinfo", encoding="utf-8") as f:
            return [line for line in f if self.cluster.data in line and f'{image["digest"]}.mnt ' in line]

    def delete(self, function):
        self.cluster.skep("function", "delete", function, "--yes")
        wait_for(lambda: not self.cluster.ps(function), f"no instance of {function}")

    def test_a_function_sees_its_image_and_nothing_else_of_the_node(self):
        image = self.take("plain", self.source("root", "from the image"))
        self.cluster.deploy_files("sees", {}, command="[/bin/sh, -c, 'cat /etc/only; test -e /usr/bin/python3 || printf \", alone\"']",
                                  image="plain")
        self.assertEqual(self.cluster.call("sees"), b"from the image, alone")
        (row,) = self.cluster.rows("function", "show", "sees")
        self.assertEqual(row["image"], f'plain@sha256:{image["digest"]}')
        self.delete("sees")

    def test_the_same_files_give_the_same_image_from_every_kind_of_source(self):
        files = root_files({"/etc/only": "same"})
        lower, upper = {**files, "etc/gone": (b"x", 0o644), "etc/only": (b"old", 0o644)}, {
            "etc/only": (b"same", 0o644), "etc/.wh.gone": (b"", 0o644)}
        layers = [tar_of(lower), tar_of(upper)]
        folder, layout = os.path.join(self.work, "root"), os.path.join(self.work, "layout")
        archive, docker = os.path.join(self.work, "oci.tar"), os.path.join(self.work, "docker.tar.gz")
        write_files(folder, files)
        write_layout(layout, layers)
        with tarfile.open(archive, "w") as tar:
            tar.add(layout, ".")
        write_docker_archive(docker, layers)
        digests = {self.take(name, source)["digest"] for name, source in
                   (("same-f", folder), ("same-l", layout), ("same-a", archive), ("same-d", docker))}
        self.assertEqual(len(digests), 1)
        (row,) = self.cluster.rows("image", "show", "same-l")
        self.assertEqual((row["env"], row["workdir"], row["entrypoint"]), ("LANG=C.UTF-8", "/srv", "/bin/sh -i"))
        self.deploy("same", "same-d")
        self.assertEqual(self.cluster.call("same"), b"same")
        self.delete("same")

    def test_a_damaged_layer_is_refused_by_its_name(self):
        layout = os.path.join(self.work, "layout")
        blob = write_layout(layout, [tar_of({"a": (b"x" * 1000, 0o644)})])
        with open(blob, "r+b") as f:
            f.seek(20)
            f.write(b"\xff\x00")
        says = self.fails(FAILED, "image", "import", "bad", layout, says="another digest")
        self.assertIn(os.path.basename(blob), says)

    def test_an_unknown_image_cannot_be_deployed(self):
        result = self.cluster.deploy_files("unknown", {}, check=False, command='["/bin/cat"]', image="nowhere")
        self.assertNotEqual(result.returncode, DONE)
        self.assertIn(b"nowhere", result.stderr)

    def test_a_used_image_stays_and_a_superseded_one_goes_with_its_chunks(self):
        first = self.take("versions", self.source("one", "one " * 300000))
        self.deploy("uses", "versions")
        self.fails(FAILED, "image", "delete", "versions", "--yes", says="function uses uses image versions")
        second = self.take("versions", self.source("two", "two"))
        self.assertEqual(self.cluster.call("uses"), b"one " * 300000)
        self.cluster.skep("image", "gc")
        self.assertIn(f'versions@sha256:{first["digest"]}', self.images())
        self.delete("uses")
        self.chunks_age()
        before = self.chunks_bytes()
        self.cluster.skep("image", "gc")
        self.assertNotIn(f'versions@sha256:{first["digest"]}', self.images())
        self.assertIn(f'versions@sha256:{second["digest"]}', self.images())
        wait_for(lambda: all(now < then for now, then in zip(self.chunks_bytes(), before)), "chunks removed everywhere")
        self.deploy("uses", "versions")
        self.assertEqual(self.cluster.call("uses"), b"two")
        self.delete("uses")

    def chunk_files(self, scheduler):
        for folder, _, names in os.walk(os.path.join(self.cluster.data, scheduler, "data", "chunks")):
            yield from (os.path.join(folder, name) for name in names)

    def chunks_age(self):
        """gc leaves alone what was asked for lately: it may belong to an upload."""
        long_ago = time.time() - 2 * HOUR
        for scheduler in ("s1", "s2", "s3"):
            for path in self.chunk_files(scheduler):
                os.utime(path, (long_ago, long_ago))

    def chunks_bytes(self):
        return [sum(os.path.getsize(p) for p in self.chunk_files(s)) for s in ("s1", "s2", "s3")]

    def test_instances_share_one_mount_which_goes_with_the_last_of_them(self):
        image = self.take("shared", self.source("root", "shared"))
        self.deploy("shares", "shared", scaling="{min: 2, max: 2}")
        wait_for(lambda: [i["state"] for i in self.cluster.ps("shares")] == ["ready", "ready"], "two instances")
        self.assertEqual(len(self.mounts(image)), 1)
        self.delete("shares")
        wait_for(lambda: not self.mounts(image), "unmounted")
        self.assertNotIn(f'{image["digest"]}.mnt', self.files("mnt"))

    def test_a_restarted_agent_takes_the_mount_over(self):
        image = self.take("stays", self.source("root", "stays"))
        self.deploy("adopts", "stays", scaling="{min: 1, max: 1}")
        self.assertEqual(self.cluster.call("adopts"), b"stays")
        (before,) = self.cluster.ps("adopts")
        self.cluster.kill("n1", signal.SIGKILL)
        self.cluster.restart("n1")
        wait_for(lambda: [i["instance"] for i in self.cluster.ps("adopts")] == [before["instance"]], "adopted")
        self.assertEqual(self.cluster.call("adopts"), b"stays")
        self.delete("adopts")
        wait_for(lambda: not self.mounts(image), "unmounted")

    def test_a_damaged_chunk_on_a_node_is_fetched_again(self):
        text = "intact " * 100000
        image = self.take("repair", self.source("root", text))
        self.deploy("repairs", "repair")
        self.assertEqual(self.cluster.call("repairs"), text.encode())
        self.delete("repairs")
        wait_for(lambda: not self.mounts(image), "unmounted")
        self.cluster.kill("n1", signal.SIGKILL)
        path = os.path.join(self.cluster.data, "n1", "data", "images", f'{image["digest"]}.erofs')
        with open(path, "r+b") as f:
            whole = f.read()
            f.seek(whole.index(b"intact intact"))
            f.write(b"broken")
        self.cluster.restart("n1")
        self.deploy("repairs", "repair")
        self.assertEqual(self.cluster.call("repairs"), text.encode())
        with open(path, "rb") as f:
            self.assertEqual(sha(f.read()), image["digest"])
        self.delete("repairs")

    def test_a_chunk_that_the_leader_lacks_comes_from_another_scheduler(self):
        self.take("elsewhere", self.source("root", "elsewhere"))
        self.deploy("finds", "elsewhere")
        leader = self.cluster.leader()
        for path in self.chunk_files(leader):
            os.remove(path)
        # The code itself is asked of the leader alone: it is given back to it.
        self.deploy("finds", "elsewhere")
        self.assertEqual(self.cluster.call("finds"), b"elsewhere")
        self.delete("finds")

    def test_an_import_leaves_no_temporary_file(self):
        folder = os.path.join(self.work, "tmp")
        os.makedirs(folder)
        self.cluster.skep("image", "import", "clean", self.source("root", "clean"), env={**self.cluster.environ, "TMPDIR": folder})
        self.assertEqual(os.listdir(folder), [])
        shutil.rmtree(folder)
