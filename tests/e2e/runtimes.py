"""The clients: each real runtime on each host, with the agent as its mirror, behind one small interface.

Every runtime is configured as docs tell an operator to do it: hosts.toml, registry-mirrors, registries.conf. To add a
runtime: a subclass of Runtime with a name, and an entry in RUNTIMES.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from abc import ABC, abstractmethod
from pathlib import Path

from tests.e2e.images import Pushed
from tests.e2e.netlab import CommandError, Host
from tests.e2e.programs import Program
from tests.e2e.upstream import HUB, PLAIN, PRIVATE, without_port

MIRROR = "127.0.0.1:5050"
# Where containerd goes when the mirror does not help.
SERVERS = {PLAIN: f"http://{PLAIN}", PRIVATE: f"http://{PRIVATE}", HUB: "https://registry-1.docker.io"}
_numbers = itertools.count(1)


class Runtime(ABC):
    """A container runtime on one host. ``runs`` says whether it can run what it pulled."""

    name = ""
    runs = True
    private = True  # whether it can use the mirror for other registries than docker.io

    def __init__(self, host: Host) -> None:
        self.host = host
        self.directory = host.directory / self.name
        self.directory.mkdir()

    def start(self) -> None:
        """Start its daemon, where it has one, without waiting."""
        return

    def wait(self) -> None:
        """Until the daemon answers."""
        return

    def stop(self) -> None:
        """Stop the daemon."""
        return

    @abstractmethod
    def pull(self, image: Pushed) -> None:
        """Pull; CommandError with the runtime's own words when it fails."""

    @abstractmethod
    def run(self, image: Pushed) -> str:
        """Run the pulled image's command without a network; returns what it printed."""

    @abstractmethod
    def forget(self, image: Pushed) -> None:
        """Remove the image and its content, so that the next pull asks again."""

    def reference(self, image: Pushed) -> str:
        return image.ref

    def logs(self) -> str:
        return ""


class Containerd(Runtime):
    """containerd, by ``ctr``."""

    name = "containerd"

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.socket = self.directory / "s"
        self.hosts = self.directory / "certs.d"
        for where, server in SERVERS.items():
            (self.hosts / where).mkdir(parents=True)
            mirror = f'[host."http://{MIRROR}"]\n  capabilities = ["pull", "resolve"]\n'
            (self.hosts / where / "hosts.toml").write_text(f'server = "{server}"\n\n{mirror}')
        config = self.directory / "config.toml"
        config.write_text(self._config())
        self._daemon = Program(host, self.name, ["containerd", "--config", str(config)])

    def start(self) -> None:
        self._daemon.start()

    def wait(self) -> None:
        self._daemon.wait(lambda: self.socket.exists() and self._answers())

    def stop(self) -> None:
        self._daemon.stop()

    def pull(self, image: Pushed) -> None:
        self._ctr("images", "pull", "--hosts-dir", str(self.hosts), self.reference(image))

    def run(self, image: Pushed) -> str:
        return self._ctr("run", "--rm", self.reference(image), f"run{next(_numbers)}")

    def forget(self, image: Pushed) -> None:
        self._ctr("images", "rm", "--sync", self.reference(image))

    def logs(self) -> str:
        return self._daemon.tail()

    def _ctr(self, *words: str, seconds: float = 90) -> str:
        return self.host.run("ctr", "--address", str(self.socket), *words, seconds=seconds)

    def _answers(self) -> bool:
        try:
            self._ctr("version", seconds=5)
        except CommandError:
            return False
        return True

    def _config(self) -> str:
        off = ["devmapper", "aufs", "btrfs", "zfs"]
        disabled = json.dumps([f"io.containerd.snapshotter.v1.{name}" for name in off])
        cri = '[plugins."io.containerd.grpc.v1.cri"'
        return (
            f'version = 2\nroot = "{self.directory}/root"\nstate = "{self.directory}/state"\n'
            f"disabled_plugins = {disabled}\n"
            f'[grpc]\naddress = "{self.socket}"\n'
            f'{cri}]\ndisable_tcp_service = true\nstream_server_port = "0"\n'
            f'{cri}.registry]\nconfig_path = "{self.hosts}"\n'
            f'{cri}.cni]\nconf_dir = "{self.directory}/cni"\n'
            f'[plugins."io.containerd.internal.v1.opt"]\npath = "{self.directory}/opt"\n'
        )


class Cri(Containerd):
    """containerd's CRI plugin, asked as a kubelet asks: one gRPC call, framed by hand and carried by curl."""

    name = "cri"
    runs = False  # running through CRI needs a pod sandbox image and CNI; ctr runs the same content

    def pull(self, image: Pushed) -> None:
        number = next(_numbers)
        request, answer = self.directory / f"{number}.req", self.directory / f"{number}.headers"
        message = _field(_field(self.reference(image).encode()))
        request.write_bytes(b"\0" + len(message).to_bytes(4, "big") + message)
        call = ["--http2-prior-knowledge", "--unix-socket", str(self.socket), "--data-binary", f"@{request}"]
        header = ["-H", "content-type: application/grpc", "-H", "te: trailers", "-D", str(answer)]
        url = "http://localhost/runtime.v1.ImageService/PullImage"
        self.host.run("curl", "--silent", "--show-error", "--output", "/dev/null", *call, *header, url)
        if "grpc-status: 0" not in answer.read_text().lower():
            raise CommandError(f"CRI PullImage {self.reference(image)}: {answer.read_text()}")

    def run(self, image: Pushed) -> str:
        raise NotImplementedError

    def forget(self, image: Pushed) -> None:
        # CRI keeps an image under several names, all of which hold its content.
        names = self._ctr("--namespace", "k8s.io", "images", "ls", "--quiet").split()
        self._ctr("--namespace", "k8s.io", "images", "rm", "--sync", *names)


def _field(data: bytes) -> bytes:
    """Field 1, length-delimited, of a protobuf message; short ones only."""
    assert len(data) < 128
    return b"\x0a" + bytes([len(data)]) + data


class Docker(Runtime):
    """dockerd with registry-mirrors: docker.io only."""

    name = "docker"
    private = False

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.socket = self.directory / "s"
        at = ["-H", f"unix://{self.socket}", "--data-root", f"{self.directory}/root"]
        run = ["--exec-root", f"{self.directory}/exec", "--pidfile", f"{self.directory}/pid"]
        net = [
            "--bridge=none",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
        ]
        self._daemon = Program(
            host, self.name, ["dockerd", *at, *run, *net, f"--registry-mirror=http://{MIRROR}"]
        )

    def start(self) -> None:
        self._daemon.start()

    def wait(self) -> None:
        self._daemon.wait(lambda: self.socket.exists() and self._answers())

    def stop(self) -> None:
        self._daemon.stop()

    def reference(self, image: Pushed) -> str:
        return image.name.removeprefix("library/")

    def pull(self, image: Pushed) -> None:
        self.docker("pull", "--quiet", self.reference(image))

    def run(self, image: Pushed) -> str:
        return self.docker("run", "--rm", "--network", "none", self.reference(image))

    def forget(self, image: Pushed) -> None:
        self.docker("rmi", "--force", self.reference(image))

    def logs(self) -> str:
        return self._daemon.tail()

    def docker(self, *words: str, seconds: float = 90) -> str:
        """The docker command line."""
        env = {"DOCKER_CONFIG": str(self.directory / "client")}
        return self.host.run("docker", "-H", f"unix://{self.socket}", *words, seconds=seconds, env=env)

    def _answers(self) -> bool:
        try:
            self.docker("version", seconds=5)
        except CommandError:
            return False
        return True


class Podman(Runtime):
    """podman, with the host's own /etc/containers."""

    name = "podman"

    def pull(self, image: Pushed) -> None:
        self.host.run("podman", "pull", "--quiet", self.reference(image))

    def run(self, image: Pushed) -> str:
        return self.host.run(
            "podman", "run", "--rm", "--network", "none", "--pull", "never", self.reference(image)
        )

    def forget(self, image: Pushed) -> None:
        self.host.run("podman", "rmi", "--force", self.reference(image))


class Buildah(Runtime):
    """buildah: ``from`` and ``run``."""

    name = "buildah"

    def pull(self, image: Pushed) -> None:
        self.host.run("buildah", "pull", "--quiet", "--policy", "always", self.reference(image))

    def run(self, image: Pushed) -> str:
        made = self.host.run("buildah", "from", "--pull-never", self.reference(image)).strip()
        try:
            return self.host.run("buildah", "run", "--isolation", "chroot", made, "/bin/cat", "/app/label")
        finally:
            self.host.run("buildah", "rm", made)

    def forget(self, image: Pushed) -> None:
        self.host.run("buildah", "rmi", "--force", self.reference(image))


class Skopeo(Runtime):
    """skopeo, copying into an OCI layout; "run" is to check every digest of what it wrote."""

    name = "skopeo"

    def pull(self, image: Pushed) -> None:
        target = self.directory / image.label
        self.host.run("skopeo", "copy", "--quiet", f"docker://{self.reference(image)}", f"oci:{target}:it")

    def run(self, image: Pushed) -> str:
        for blob in (self.directory / image.label / "blobs" / "sha256").iterdir():
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        assert (self.directory / image.label / "blobs" / "sha256" / image.biggest.digest.hex).exists()
        return image.label

    def forget(self, image: Pushed) -> None:
        shutil.rmtree(self.directory / image.label)


def configure_containers(host: Host) -> None:
    """Write the host's /etc/containers: the mirror, no signatures, and what rootful podman needs without systemd."""
    etc: Path = host.private_path("/etc/containers")
    registries = ['unqualified-search-registries = ["docker.io"]']
    for where, insecure in ((PLAIN, "true"), (PRIVATE, "true"), (HUB, "false")):
        registries.append(
            f'[[registry]]\nprefix = "{where}"\nlocation = "{where}"\ninsecure = {insecure}\n'
            f'[[registry.mirror]]\nlocation = "{MIRROR}/{without_port(where)}"\ninsecure = true'
        )
    (etc / "registries.conf").write_text("\n".join(registries) + "\n")
    (etc / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    (etc / "storage.conf").write_text(
        '[storage]\ndriver = "overlay"\ngraphroot = "/var/lib/containers/storage"\nrunroot = "/run/containers/storage"\n'
    )
    (etc / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    )


RUNTIMES: dict[str, type[Runtime]] = {
    kind.name: kind for kind in (Containerd, Cri, Docker, Podman, Buildah, Skopeo)
}
