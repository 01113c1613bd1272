"""The upstream registries, all docker-registry on the host ``up``, and what they say they sent.

``registry.example.test:5000`` speaks http; ``docker.io`` (registry-1.docker.io:443) speaks TLS with a certificate of
the lab's own authority, over the same storage; ``private.example.test:5001`` wants tokens. Bytes are counted from
their access logs: body bytes that the registry wrote, one line per request, written when the request ends.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import ssl
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from p2pdist.testing.tls import CertificateFiles, TestAuthority
from tests.e2e import tokenserver
from tests.e2e.guard import wait_until
from tests.e2e.netlab import Host
from tests.e2e.programs import Program

PLAIN = "registry.example.test:5000"
HUB = "docker.io"
PRIVATE = "private.example.test:5001"
TOKENS = "tokens.example.test:5080"
HUB_NAMES = ("docker.io", "registry-1.docker.io", "index.docker.io")
# Registries that the documents name; the hosts of tests/e2e/docs find them here, those of the lab do not know them.
OTHER_REGISTRIES = (
    "ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "mcr.microsoft.com", "public.ecr.aws", "registry.example.com",
)  # fmt: skip
NAMES = (*HUB_NAMES, *(where.partition(":")[0] for where in (PLAIN, PRIVATE, TOKENS)))
SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")

_LINE = re.compile(r'^(\S+) \S+ \S+ \[[^]]*\] "(\S+) (\S+) HTTP/[\d.]+" (\d+) (\d+)')


def without_port(registry: str) -> str:
    """How a mirror's path names a registry: a reference allows no colon in its path, so the port has to go."""
    return registry.partition(":")[0]


@dataclass(frozen=True, slots=True)
class Request:
    """One line of an access log."""

    client: str
    method: str
    path: str
    status: int
    size: int

    @property
    def kind(self) -> str:
        return "blob" if "/blobs/" in self.path else "manifest" if "/manifests/" in self.path else "other"


@dataclass(frozen=True)
class Served:
    """What the upstream answered over some time."""

    requests: tuple[Request, ...]

    def _gets(self, kind: str) -> list[Request]:
        return [r for r in self.requests if r.method == "GET" and r.kind == kind and r.status in (200, 206)]

    @property
    def blob_bytes(self) -> int:
        return sum(r.size for r in self._gets("blob"))

    @property
    def manifest_bytes(self) -> int:
        return sum(r.size for r in self._gets("manifest"))

    @property
    def content_bytes(self) -> int:
        """Blobs and manifests: what a metric of received bytes must agree with."""
        return self.blob_bytes + self.manifest_bytes

    @property
    def blob_requests(self) -> int:
        return len(self._gets("blob"))

    @property
    def manifest_requests(self) -> int:
        return sum(r.kind == "manifest" for r in self.requests)

    def requests_for(self, repository: str) -> list[Request]:
        """All requests for a repository's manifests and blobs."""
        return [r for r in self.requests if r.path.startswith(f"/v2/{repository}/")]

    def by(self, host: Host) -> Served:
        """Only what one host asked for."""
        return Served(tuple(r for r in self.requests if r.client == host.address))


class Upstream:
    """The registries and the token server. ``served`` tells what was sent since a ``mark``."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.directory = directory
        directory.mkdir()
        authority = TestAuthority("e2e lab authority")
        self.tls: CertificateFiles = authority.issue(directory / "tls", *HUB_NAMES, *OTHER_REGISTRIES)
        # Go reads one bundle in place of the system's: so programs trust the lab besides the real world.
        self.bundle = directory / "bundle.pem"
        system = SYSTEM_BUNDLE.read_bytes() if SYSTEM_BUNDLE.exists() else b""
        self.bundle.write_bytes(system + self.tls.authority.read_bytes())
        signer = authority.issue(directory / "signer", tokenserver.ISSUER)
        public = directory / "public"
        self._registries = {
            PLAIN: self._registry("plain", public, "5000", ""),
            HUB: self._registry("hub", public, "443", self._tls_section()),
            PRIVATE: self._registry(
                "private", directory / "private", "5001", "", self._token_section(signer)
            ),
        }
        serve = [sys.executable, "-m", "tests.e2e.tokenserver", host.address, "5080"]
        argv = [*serve, str(signer.certificate), str(signer.key)]
        self._tokens = Program(host, "tokens", argv, {"PYTHONPATH": str(Path(__file__).parents[2])})
        self._marks = itertools.count(1)

    def start(self) -> None:
        """Start what does not run, and wait until all accept connections."""
        programs = [*self._registries.values(), self._tokens]
        for program in programs:
            if not program.running:
                program.start()
        for program, port in zip(programs, (5000, 443, 5001, 5080), strict=True):
            program.wait(lambda port=port: self.host.listens(port, self.host.address))  # type: ignore[misc]

    def stop(self) -> None:
        """Stop all of them: connections to them are refused from now on."""
        for program in [*self._registries.values(), self._tokens]:
            program.stop()

    def mark(self) -> dict[str, int]:
        """A point in time, for ``served``."""
        self._flush()
        return {name: self._size(program) for name, program in self._registries.items()}

    def served(self, since: dict[str, int]) -> Served:
        """All requests that ended since the mark."""
        self._flush()
        lines: list[str] = []
        for name, program in self._registries.items():
            with program.log.open("rb") as log:
                log.seek(since[name])
                lines += log.read().decode(errors="replace").splitlines()
        return Served(tuple(_requests(lines)))

    def push(self, files: Path, name: str, *, private: bool = False) -> str:
        """Push a directory of skopeo's ``dir:`` form, byte for byte; returns the registry it is in."""
        where = PRIVATE if private else PLAIN
        creds = ["--dest-creds", f"pusher:{tokenserver.USERS['pusher']}"] if private else []
        copy = [
            "skopeo",
            "--insecure-policy",
            "copy",
            "--quiet",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            *creds,
        ]
        self.host.run(*copy, f"dir:{files}", f"docker://{where}/{name}")
        return where

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(program.tail() for program in [*self._registries.values(), self._tokens])

    def _flush(self) -> None:
        """Have each log hold the line of every request that ended before: a request of our own, waited for, says so."""
        ports = {PLAIN: 5000, HUB: 443, PRIVATE: 5001}
        for where, program in self._registries.items():
            if not program.running:
                continue
            wanted = f"mark={next(self._marks)}"
            self._get(ports[where], f"/v2/?{wanted}", tls=where == HUB)
            before = max(0, self._size(program) - 65536)
            _await_line(program, wanted, before)

    def _get(self, port: int, path: str, *, tls: bool) -> None:
        with self.host.connect(port, self.host.address) as plain:
            request = f"GET {path} HTTP/1.0\r\nHost: up\r\n\r\n".encode()
            if not tls:
                _exchange(plain, request)
                return
            with self.tls.client_context().wrap_socket(plain, server_hostname=HUB) as sealed:
                _exchange(sealed, request)

    @staticmethod
    def _size(program: Program) -> int:
        return program.log.stat().st_size if program.log.exists() else 0

    def _registry(self, name: str, storage: Path, port: str, tls: str, auth: str = "") -> Program:
        storage.mkdir(exist_ok=True)
        config = self.directory / f"{name}.yml"
        config.write_text(
            f"version: 0.1\nlog:\n  level: error\n  accesslog: {{disabled: false}}\n"
            f"storage:\n  filesystem: {{rootdirectory: {storage}}}\n"
            f"http:\n  addr: {self.host.address}:{port}\n  secret: e2e\n{tls}{auth}"
        )
        return Program(self.host, f"registry-{name}", ["docker-registry", "serve", str(config)])

    def _tls_section(self) -> str:
        return f"  tls:\n    certificate: {self.tls.certificate}\n    key: {self.tls.key}\n"

    @staticmethod
    def _token_section(signer: CertificateFiles) -> str:
        return (
            f"auth:\n  token:\n    realm: http://{TOKENS}/token\n    service: {tokenserver.SERVICE}\n"
            f"    issuer: {tokenserver.ISSUER}\n    rootcertbundle: {signer.certificate}\n"
        )


def _exchange(connection: socket.socket | ssl.SSLSocket, request: bytes) -> None:
    connection.sendall(request)
    while connection.recv(65536):
        pass


def _await_line(program: Program, wanted: str, offset: int) -> None:
    wait_until(
        lambda: wanted in _read_from(program.log, offset), 10, f"{wanted} in the log of {program.name}"
    )


def _read_from(log: Path, offset: int) -> str:
    with log.open("rb") as file:
        file.seek(offset, os.SEEK_SET)
        return file.read().decode(errors="replace")


def _requests(lines: Iterable[str]) -> Iterable[Request]:
    for line in lines:
        if found := _LINE.match(line):
            client, method, path, status, size = found.groups()
            yield Request(client, method, path, int(status), int(size))
