"""The clients of a lab run: one process that pulls images on many hosts, each as containerd does.

Always true here: a host's threads have entered its network namespace before they make a connection; every body is read
into a buffer, hashed and dropped; every wait has a bound. Reads one plan (JSON) from standard input and writes events
(JSON, one a line) to standard output: ``progress``, ``done`` and at last ``end``. Times are seconds since the plan's
``start``, an instant of CLOCK_MONOTONIC, which all processes of a machine share.

The way of a pull: HEAD the tag, GET the manifest by digest, then config and layers, three at once. Where a request to the
mirror fails, the rest of that blob (Range) is asked again of the mirror once, then of the upstream registry.
"""

from __future__ import annotations

import ctypes
import hashlib
import http.client
import json
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

CLONE_NEWNET = 0x40000000
AT_ONCE = 3
BUFFER = 256 * 1024
STALL_SECONDS = 30.0
PROGRESS_EVERY = 0.25
TROUBLES = 5  # so many failures of a host are quoted
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
        "*/*",
    )
)


class PullError(Exception):
    """A pull that no endpoint could finish."""


class FalseBodyError(PullError):
    """A body that has not the digest it was asked for: as with containerd, the pull fails, and nobody else is asked."""


@dataclass
class Tally:
    """What one host has pulled so far; written by its threads, read by the reporter."""

    host: str
    bytes: int = 0
    fallback_bytes: int = 0
    retries: int = 0
    troubles: list[str] = field(default_factory=list)
    first_byte: float | None = None
    started: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, count: int, now: float, *, fallback: bool) -> None:
        with self.lock:
            self.bytes += count
            self.fallback_bytes += count if fallback else 0
            if self.first_byte is None:
                self.first_byte = now


class Endpoint:
    """One address that serves the pull API, and a kept-alive connection to it. Belongs to one thread."""

    def __init__(self, address: str, port: int, query: str) -> None:
        self.query = query
        self._where = (address, port)
        self._connection: http.client.HTTPConnection | None = None

    def request(self, method: str, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        """The answer's head; PullError unless it is 200 or 206."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._where, timeout=STALL_SECONDS)
        self._connection.request(method, path + self.query, headers=headers)
        answer = self._connection.getresponse()
        if answer.status not in (200, 206):
            self.close()
            raise PullError(f"{method} {path}: {answer.status}")
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Fetcher:
    """One thread's way to a host's endpoints: the mirror (where there is one), then upstream."""

    def __init__(self, host: dict[str, Any], tally: Tally, start: float) -> None:
        self._endpoints = [Endpoint(e["address"], e["port"], e["query"]) for e in host["endpoints"]]
        self._tally, self._start = tally, start
        self._buffer = memoryview(bytearray(BUFFER))

    def manifest(self, repository: str, tag: str) -> bytes:
        """The manifest that a tag names, asked as containerd does: HEAD, then GET by digest."""
        for turn, endpoint in enumerate(self._endpoints):
            try:
                path = f"/v2/{repository}/manifests/"
                head = endpoint.request("HEAD", path + tag, {"Accept": ACCEPT})
                digest = head.getheader("Docker-Content-Digest") or tag
                head.read()
                body = endpoint.request("GET", path + digest, {"Accept": ACCEPT}).read()
            except (OSError, http.client.HTTPException, PullError) as error:
                endpoint.close()
                self._failed(error, last=turn + 1 == len(self._endpoints))
                continue
            check("sha256:" + hashlib.sha256(body).hexdigest(), digest)
            return body
        raise PullError("no endpoint")

    def blob(self, repository: str, digest: str, size: int) -> None:
        """Read a blob to its end and check it; what is missing after a failure is asked for again."""
        hasher, got = hashlib.new(digest.partition(":")[0]), 0
        turns = [(n, e) for n, e in enumerate(self._endpoints) for _ in range(2 if n == 0 else 1)]
        path = f"/v2/{repository}/blobs/{digest}"
        for turn, (number, endpoint) in enumerate(turns):
            headers = {"Range": f"bytes={got}-"} if got else {}
            try:
                answer = endpoint.request("GET", path, headers)
                if got and answer.status != 206:
                    raise PullError(f"{path}: Range ignored")
                while got < size:
                    count = answer.readinto(self._buffer)
                    if not count:
                        raise PullError(f"{path}: cut after {got} of {size} bytes")
                    hasher.update(self._buffer[:count])
                    got += count
                    self._tally.add(count, time.monotonic() - self._start, fallback=number > 0)
                answer.read()
            except (OSError, http.client.HTTPException, PullError) as error:
                endpoint.close()
                self._failed(error, last=turn + 1 == len(turns))
                continue
            check(f"{hasher.name}:{hasher.hexdigest()}", digest)
            return

    def _failed(self, error: Exception, *, last: bool) -> None:
        with self._tally.lock:
            self._tally.retries += 1
            if len(self._tally.troubles) < TROUBLES:
                self._tally.troubles.append(f"{time.monotonic() - self._start:.1f} s: {error!r}")
        if last:
            raise error if isinstance(error, PullError) else PullError(repr(error))

    def close(self) -> None:
        for endpoint in self._endpoints:
            endpoint.close()


def check(found: str, wanted: str) -> None:
    """FalseBodyError unless a body has the digest it was asked for (a tag is no digest)."""
    if ":" in wanted and found != wanted:
        raise FalseBodyError(f"asked for {wanted}, got {found}")


_output = threading.Lock()


def emit(**event: object) -> None:
    """One event on standard output."""
    with _output:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def enter(namespace: str) -> None:
    """Move the calling thread into a network namespace, for good."""
    with open(namespace) as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


def pull_image(
    host: dict[str, Any], image: dict[str, str], held: set[str], tally: Tally, start: float
) -> None:
    """Pull one image on a host whose namespace the calling thread is in (threads started from here are too).

    Blobs in ``held`` are not asked for again; those of this image are added.
    """
    repository, tag = image["repository"], image["tag"]
    fetcher = Fetcher(host, tally, start)
    try:
        manifest = json.loads(fetcher.manifest(repository, tag))
    finally:
        fetcher.close()
    wanted: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    for descriptor in [manifest["config"], *manifest["layers"]]:
        if descriptor["digest"] not in held:
            held.add(descriptor["digest"])
            wanted.put(descriptor)
    errors: list[str] = []

    def work() -> None:
        own = Fetcher(host, tally, start)
        try:
            while not errors:
                descriptor = wanted.get_nowait()
                own.blob(repository, descriptor["digest"], descriptor["size"])
        except queue.Empty:
            pass
        except PullError as error:
            errors.append(str(error))
        finally:
            own.close()

    workers = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise PullError("; ".join(errors))


def pull_host(host: dict[str, Any], tally: Tally, start: float) -> None:
    """All images of one host, one after another, from its instant on; says how it went."""
    error = ""
    held: set[str] = set()
    enter(host["namespace"])
    time.sleep(max(0.0, start + host["at"] - time.monotonic()))
    tally.started = time.monotonic() - start
    try:
        for image in host["images"]:
            pull_image(host, image, held, tally, start)
    except (PullError, OSError, http.client.HTTPException, ValueError, KeyError) as failure:
        error = str(failure) or repr(failure)
    emit(
        event="done", host=tally.host, started=tally.started, ended=time.monotonic() - start, bytes=tally.bytes,
        first_byte=tally.first_byte, fallback_bytes=tally.fallback_bytes, retries=tally.retries, troubles=tally.troubles,
        error=error,
    )  # fmt: skip


def report(tallies: list[Tally], start: float, over: threading.Event) -> None:
    """A line of progress now and then, until the pulls are over."""
    while not over.wait(PROGRESS_EVERY):
        emit(event="progress", at=time.monotonic() - start, bytes=[tally.bytes for tally in tallies])


def main() -> None:
    plan = json.load(sys.stdin)
    start = plan["start"]
    tallies = [Tally(host["host"]) for host in plan["hosts"]]
    pulls = [
        threading.Thread(target=pull_host, args=(host, tally, start))
        for host, tally in zip(plan["hosts"], tallies, strict=True)
    ]
    over = threading.Event()
    reporter = threading.Thread(target=report, args=(tallies, start, over))
    for thread in (*pulls, reporter):
        thread.start()
    for pull in pulls:
        pull.join()
    over.set()
    reporter.join()
    times = os.times()
    emit(event="end", at=time.monotonic() - start, cpu=times.user + times.system)


if __name__ == "__main__":
    main()
