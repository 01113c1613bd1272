"""docker-registry on a host of the lab, as upstream or as a pull-through cache, and what its access log says it sent."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.guard import wait_until
from tests.e2e.netlab import Host
from tests.e2e.programs import Program

PORT = 5000
_LINE = re.compile(r'^(\S+) \S+ \S+ \[[^]]*\] "(\S+) (\S+) HTTP/[\d.]+" (\d+) (\d+)')


@dataclass(frozen=True, slots=True)
class Sent:
    """What a registry answered over some time: body bytes of blobs that it wrote, and requests by kind."""

    blob_bytes: int
    blob_requests: int
    manifest_requests: int
    failed: int


def read_log(lines: Iterable[str]) -> Sent:
    """Sum an access log up. A body that was cut counts with the bytes that were written of it."""
    blob_bytes = blobs = manifests = failed = 0
    for line in lines:
        if not (found := _LINE.match(line)):
            continue
        method, path, status, size = found[2], found[3], int(found[4]), int(found[5])
        if "/blobs/" in path:
            blobs += method == "GET"
            blob_bytes += size if method == "GET" and status in (200, 206) else 0
        elif "/manifests/" in path:
            manifests += 1
        failed += status >= 400
    return Sent(blob_bytes, blobs, manifests, failed)


class Registry:
    """One docker-registry; ``upstream`` (a URL) makes it a pull-through cache of that."""

    def __init__(self, host: Host, directory: Path, upstream: str = "") -> None:
        self.host = host
        directory.mkdir(parents=True)
        config = directory / "config.yml"
        proxy = f"proxy: {{remoteurl: '{upstream}'}}\n" if upstream else ""
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: false}}\n"
            f"storage: {{filesystem: {{rootdirectory: {directory / 'storage'}}}}}\n"
            f"http: {{addr: '{host.address}:{PORT}', secret: lab}}\n{proxy}"
        )
        self.program = Program(host, f"registry-{directory.name}", ["docker-registry", "serve", str(config)])

    @property
    def address(self) -> str:
        return f"{self.host.address}:{PORT}"

    def start(self) -> None:
        """Until it listens."""
        self.program.start()
        self.program.wait(lambda: self.host.listens(PORT, self.host.address))

    def mark(self) -> int:
        """Where its log ends now."""
        return self.program.log.stat().st_size if self.program.log.exists() else 0

    def sent(self, since: int) -> Sent:
        """What it sent since a mark, of requests that have ended."""
        self._flush()
        with self.program.log.open("rb") as log:
            log.seek(since)
            return read_log(log.read().decode(errors="replace").splitlines())

    def stop(self) -> None:
        self.program.stop()

    def _flush(self) -> None:
        """A request of our own, seen in the log, says that earlier lines are there."""
        before = self.mark()
        if self.program.running:
            self.host.request("GET", PORT, "/v2/", address=self.host.address)
            wait_until(lambda: self.mark() > before, 10, "a line in the registry's log")
