"""The lab's client against a real registry on loopback: what it pulls is checked, and what fails is made good or told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from p2pdist.oci.digest import Digest
from p2pdist.testing.images import Image, build_image
from p2pdist.testing.layers import build_layer
from tests.lab import client
from tests.lab.client import PullError, Tally, pull_image

IMAGE = build_image("bench/app", "v1", [build_layer("l0", 300_000), build_layer("l1", 70_000)])
REFERENCE = {"repository": "bench/app", "tag": "v1"}


class Registry(BaseHTTPRequestHandler):
    """A registry of one image; ``faults`` are the ways in which the next blob requests fail."""

    protocol_version = "HTTP/1.1"
    image: Image
    faults: list[str]
    asked: list[str]

    def do_HEAD(self) -> None:
        self._manifest()

    def do_GET(self) -> None:
        if "/manifests/" in self.path:
            self._manifest()
            return
        wanted = Digest.parse(self.path.partition("?")[0].rpartition("/")[2])
        body = self.image.blobs[wanted]
        assert isinstance(body, bytes)
        self.asked.append(self.headers.get("Range") or "whole")
        fault = self.faults.pop(0) if len(body) > 200_000 and self.faults else ""
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        if fault == "refuse":
            self._answer(503, b"")
            return
        if fault == "lie":
            body = body[:-1] + bytes([body[-1] ^ 1])
        self._answer(206 if start else 200, body[start:], cut=fault == "cut")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Silence."""

    def _manifest(self) -> None:
        body = self.image.manifest
        self._answer(200, body, ("Docker-Content-Digest", str(Digest.of(body))))

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str], cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = cut


@contextmanager
def registry(*faults: str) -> Iterator[tuple[dict[str, object], list[str]]]:
    """A running one: its endpoint as a plan names it, and the ranges that blobs were asked with."""
    asked: list[str] = []
    handler = type("Handler", (Registry,), {"image": IMAGE, "faults": list(faults), "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield {"address": "127.0.0.1", "port": server.server_port, "query": "?ns=x"}, asked
        finally:
            server.shutdown()
            thread.join()


def pull(*endpoints: dict[str, object], held: set[str] | None = None) -> Tally:
    tally = Tally("h1")
    pull_image({"endpoints": list(endpoints)}, REFERENCE, set() if held is None else held, tally, 0.0)
    return tally


def test_a_whole_image_is_pulled_and_every_byte_counted() -> None:
    with registry() as (endpoint, asked):
        tally = pull(endpoint)

    assert tally.bytes == IMAGE.size
    assert asked == ["whole"] * 3
    assert (tally.retries, tally.fallback_bytes) == (0, 0)
    assert tally.first_byte is not None


def test_what_is_held_is_not_asked_for_again() -> None:
    held: set[str] = set()
    with registry() as (endpoint, asked):
        pull(endpoint, held=held)
        again = pull(endpoint, held=held)

    assert again.bytes == 0
    assert len(asked) == 3


def test_a_body_that_was_cut_goes_on_at_the_same_byte() -> None:
    with registry("cut") as (endpoint, asked):
        tally = pull(endpoint)

    assert tally.bytes == IMAGE.size
    assert tally.retries == 1
    assert "cut after" in tally.troubles[0]
    assert any(text.startswith("bytes=") and text != "bytes=0-" for text in asked)


def test_after_two_failures_upstream_is_asked_and_that_is_counted() -> None:
    with registry("refuse", "refuse") as (mirror, _), registry() as (upstream, asked):
        tally = pull(mirror, upstream)

    assert tally.bytes == IMAGE.size
    assert tally.fallback_bytes == max(layer.size for layer in IMAGE.layers)
    assert asked == ["whole"]


def test_a_mirror_that_is_not_there_is_left_for_upstream() -> None:
    with registry() as (gone, _):
        pass
    with registry() as (upstream, _):
        tally = pull(gone, upstream)

    assert tally.fallback_bytes == IMAGE.size


def test_a_false_byte_is_never_taken_for_the_blob() -> None:
    with registry("lie") as (mirror, _), registry() as (upstream, asked):
        with pytest.raises(PullError, match="asked for sha256"):
            pull(mirror, upstream)

    assert asked == []


def test_when_no_endpoint_is_left_the_pull_says_why() -> None:
    with registry("refuse", "refuse") as (endpoint, _), pytest.raises(PullError, match="503"):
        pull(endpoint)


def test_events_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    client.emit(event="progress", at=1.5, bytes=[1, 2])

    assert json.loads(capsys.readouterr().out) == {"event": "progress", "at": 1.5, "bytes": [1, 2]}
