"""Hosts as Linux namespaces on a bridge: their links can be shaped, cut and counted.

Each host has a network namespace, and a mount namespace in which /etc/hosts, /etc/containers and the runtimes' state
under /var and /run are its own. A sleeping process holds the two; ``Host.argv`` enters them through it. (Not
``ip netns exec``: that remounts /sys, hides the cgroups, and runc then fails.)
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.guard import Run, wait_until

CLONE_NEWNET = 0x40000000
SUBNET = "10.77.0"
UPSTREAM_OCTET = 250
# Directories that programs find by fixed paths, and that hosts must not share.
PRIVATE = ("/etc/containers", "/var/lib/containers", "/run/containers", "/run/libpod", "/var/lib/cni")


class CommandError(AssertionError):
    """A command failed; the message has its output."""


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return json.loads(self.body)


def command(
    argv: Sequence[str], *, seconds: float = 60, env: Mapping[str, str] | None = None, text: str = ""
) -> str:
    """Run to the end and return what it printed; CommandError when it fails or takes longer."""
    try:
        done = subprocess.run(
            argv, input=text or None, stdin=None if text else subprocess.DEVNULL, capture_output=True, text=True,
            timeout=seconds, env={**os.environ, **(env or {})}, check=False, errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        shown = (late.stderr or b"")[-4000:]
        raise CommandError(f"{' '.join(argv)}: still running after {seconds:.0f} s\n{shown!r}") from late
    if done.returncode != 0:
        raise CommandError(
            f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


class Host:
    """A host of the lab. Made by NetLab."""

    def __init__(self, run: Run, name: str, octet: int, switch: str, private: Mapping[str, str]) -> None:
        self.run_record = run
        self.name = name
        self.address = f"{SUBNET}.{octet}"
        self.directory = run.directory / name
        self.switch = switch
        self.env: dict[str, str] = {}
        self.namespace = run.namespace(name)
        self._wire()
        self._holder = self._hold(private)

    def argv(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` on this host, to die with the process that starts it."""
        enter = ["nsenter", "--target", str(self._holder.pid), "--net", "--mount", "--"]
        return ["setpriv", "--pdeathsig", "KILL", *enter, *argv]

    def run(self, *argv: str, seconds: float = 90, env: Mapping[str, str] | None = None) -> str:
        """Run a command here to its end; see ``command``."""
        return command(self.argv(argv), seconds=seconds, env={**self.env, **(env or {})})

    def connect(self, port: int, address: str = "127.0.0.1", seconds: float = 30) -> socket.socket:
        """A TCP connection that starts on this host; the caller closes it."""
        found: list[socket.socket | BaseException] = []

        def inside() -> None:  # a thread of its own, since setns moves the thread that calls it, and for good
            try:
                with (Path("/run/netns") / self.namespace).open() as namespace:
                    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                found.append(socket.create_connection((address, port), timeout=seconds))
            except BaseException as error:
                found.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    def request(
        self, method: str, port: int, path: str, *, address: str = "127.0.0.1",
        headers: Mapping[str, str] | None = None, body: bytes | None = None, seconds: float = 30,
    ) -> Reply:  # fmt: skip
        """An HTTP request from this host; OSError where nothing answers."""
        connection = http.client.HTTPConnection(address, port)
        connection.sock = self.connect(port, address, seconds)
        try:
            connection.request(method, path, body=body, headers={"Connection": "close", **(headers or {})})
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def listens(self, port: int, address: str = "127.0.0.1") -> bool:
        """Whether something accepts connections here."""
        try:
            self.connect(port, address, seconds=1).close()
        except OSError:
            return False
        return True

    def sent_bytes(self) -> int:
        """Bytes that left this host over its link, headers and all."""
        return self._link_bytes("tx")

    def received_bytes(self) -> int:
        """Bytes that reached this host over its link, headers and all."""
        return self._link_bytes("rx")

    def shape(self, mbit: int) -> None:
        """Limit the link to a rate, both ways; the burst holds one 64 KiB segment, or tbf would drop it."""
        rate = ["root", "tbf", "rate", f"{mbit}mbit", "burst", "128kb", "latency", "50ms"]
        command(["tc", "-n", self.namespace, "qdisc", "replace", "dev", "eth0", *rate])
        command(["tc", "-n", self.switch, "qdisc", "replace", "dev", f"v-{self.name}", *rate])

    def unshape(self) -> None:
        """Take the limit away."""
        for namespace, device in ((self.namespace, "eth0"), (self.switch, f"v-{self.name}")):
            if "tbf" in command(["tc", "-n", namespace, "qdisc", "show", "dev", device]):
                command(["tc", "-n", namespace, "qdisc", "delete", "dev", device, "root"])

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()

    def _wire(self) -> None:
        here, there = ["ip", "-n", self.namespace], ["ip", "-n", self.switch]
        command(["ip", "netns", "add", self.namespace])
        command([*here, "link", "set", "lo", "up"])
        peer = ["peer", "name", "eth0", "netns", self.namespace]
        command(["ip", "link", "add", f"v-{self.name}", "netns", self.switch, "type", "veth", *peer])
        command([*there, "link", "set", f"v-{self.name}", "master", "br0", "up"])
        command([*here, "addr", "add", f"{self.address}/24", "dev", "eth0"])
        command([*here, "link", "set", "eth0", "up"])

    def _hold(self, private: Mapping[str, str]) -> subprocess.Popen[bytes]:
        binds = []
        for path in PRIVATE:
            Path(path).mkdir(parents=True, exist_ok=True)
            own = self.directory / "private" / path.strip("/").replace("/", "-")
            own.mkdir(parents=True)
            binds.append((own, path))
        for path, text in private.items():
            own = self.directory / "private" / Path(path).name
            own.write_text(text)
            binds.append((own, path))
        ready = self.directory / "ready"
        mounts = "\n".join(f"mount --bind {own} {path}" for own, path in binds)
        script = f"set -e\n{mounts}\ntouch {ready}\nexec sleep infinity"
        enter = ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{self.namespace}"]
        holder = subprocess.Popen([*enter, "unshare", "-m", "--propagation", "slave", "sh", "-c", script])
        self.run_record.process(holder.pid)
        wait_until(ready.exists, 20, f"the mounts of {self.name}")
        return holder

    def private_path(self, path: str) -> Path:
        """Where the host's own version of a private directory is, as seen from outside."""
        return self.directory / "private" / path.strip("/").replace("/", "-")

    def _link_bytes(self, way: str) -> int:
        shown = json.loads(command(["ip", "-n", self.namespace, "-j", "-s", "link", "show", "eth0"]))
        return int(shown[0]["stats64"][way]["bytes"])


class NetLab:
    """A bridge, ``count`` hosts h1.. on 10.77.0.0/24, and ``up`` (10.77.0.250) where the upstream registries live."""

    def __init__(self, run: Run, count: int, upstream_names: Sequence[str]) -> None:
        self.switch = run.namespace("sw")
        command(["ip", "netns", "add", self.switch])
        command(["ip", "-n", self.switch, "link", "add", "br0", "type", "bridge"])
        command(["ip", "-n", self.switch, "link", "set", "br0", "up"])
        up_address = f"{SUBNET}.{UPSTREAM_OCTET}"
        lines = ["127.0.0.1 localhost", f"{up_address} up {' '.join(upstream_names)}"]
        lines += [f"{SUBNET}.{n} h{n}" for n in range(1, count + 1)]
        # No name server: what is not in /etc/hosts does not exist, at once.
        private = {
            "/etc/hosts": "\n".join(lines) + "\n",
            "/etc/resolv.conf": "nameserver 127.0.0.1\noptions timeout:1\n",
        }
        self.up = Host(run, "up", UPSTREAM_OCTET, self.switch, private)
        self.hosts = [Host(run, f"h{n}", n, self.switch, private) for n in range(1, count + 1)]

    def part(self, one: Host, other: Host) -> None:
        """Drop every packet between two hosts, until ``heal``."""
        rules = "\n".join(
            f"add rule bridge part forward ip saddr {a.address} ip daddr {b.address} counter drop"
            for a, b in ((one, other), (other, one))
        )
        chain = (
            "add table bridge part\nadd chain bridge part forward { type filter hook forward priority 0; }\n"
        )
        command(["nsenter", f"--net=/run/netns/{self.switch}", "nft", "-f", "-"], text=chain + rules + "\n")

    def isolate_upstream(self) -> None:
        """Drop every packet between the upstream and any host, until ``heal``."""
        for host in self.hosts:
            self.part(host, self.up)

    def heal(self) -> None:
        """Undo all partitions and link rates."""
        remove = "add table bridge part\ndelete table bridge part\n"
        command(["nsenter", f"--net=/run/netns/{self.switch}", "nft", "-f", "-"], text=remove)
        for host in (self.up, *self.hosts):
            host.unshape()

    def close(self) -> None:
        for host in (self.up, *self.hosts):
            host.close()
