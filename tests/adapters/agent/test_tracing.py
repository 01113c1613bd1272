"""Traces of a running agent, as a real OTLP receiver decodes them; and what a bad receiver does to pulls: nothing."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from p2pdist.agent.app import run_parts
from p2pdist.config.load import load_config
from p2pdist.errors import ConfigError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.telemetry import tracing
from p2pdist.telemetry.tracing import MAX_QUEUED, Tracing
from p2pdist.testing.registry import FakeRegistry
from tests.adapters.agent.collector import Collector, ReceivedSpan, collecting

CONFIG = """
[agent]
name = "host-1"
zone = "rack-7"
data_dir = "{data}"
drain_timeout = "1s"
[mirror]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[telemetry]
traces = "{traces}"
[registries."registry.example"]
url = "{registry}"
"""
LAYER = b"a layer" * 100_000
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}'
)
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Client:
    def __init__(self, mirror: str, session: aiohttp.ClientSession, admin: str = "") -> None:
        self._base = f"http://{mirror}/v2/team/app"
        self._session = session
        self._admin = admin

    async def ask(self, path: str, method: str = "GET", *headers: tuple[str, str]) -> tuple[int, bytes]:
        url = f"{self._base}/{path}?ns=registry.example"
        async with self._session.request(method, url, headers=headers) as answer:
            return answer.status, await answer.read()

    async def wait_for_users(self, count: int) -> None:
        """Return when so many runtimes wait for the blob that is being fetched."""
        async with asyncio.timeout(30):
            while True:
                async with self._session.get(f"http://{self._admin}/api/v1/transfers") as answer:
                    if [row["users"] for row in (await answer.json())["transfers"]] == [count]:
                        return
                await asyncio.sleep(0.01)


@asynccontextmanager
async def agent(directory: Path, registry: FakeRegistry, traces: str) -> AsyncIterator[Client]:
    file = directory / "config.toml"
    file.write_text(CONFIG.format(data=directory / "data", traces=traces, registry=registry.url))
    async with run_parts(load_config(file, {}, {})) as running, aiohttp.ClientSession() as session:
        yield Client(running.listeners["mirror"], session, running.listeners["admin"])


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as running:
        running.put_blob("team/app", LAYER)
        running.put_manifest("team/app", MANIFEST, MANIFEST_TYPE, "v1")
        yield running


def under(collector: Collector, parent: ReceivedSpan) -> list[ReceivedSpan]:
    return [span for span in collector.spans if span.parent == parent.id and span.trace == parent.trace]


def one(spans: list[ReceivedSpan]) -> ReceivedSpan:
    assert len(spans) == 1, spans
    return spans[0]


async def test_a_blob_that_upstream_refuses_once(tmp_path: Path, registry: FakeRegistry) -> None:
    """From the client's own span down to the second try at upstream."""
    digest = Digest.of(LAYER)
    async with collecting() as collector:
        async with agent(tmp_path, registry, collector.url) as client:
            registry.faults.fail_kinds, registry.faults.error_times = ["blob"], 1
            context = ("traceparent", f"00-{TRACE}-{PARENT}-01")
            assert await client.ask(f"blobs/{digest}", "GET", context) == (200, LAYER)
            assert await client.ask(f"blobs/{digest}") == (200, LAYER)
        first, again = collector.named("mirror blob")
        assert (first.trace, first.parent) == (TRACE, PARENT)
        assert first.resource.items() >= {
            "service.name": "p2pdist", "service.instance.id": "host-1", "p2pdist.zone": "rack-7"
        }.items()  # fmt: skip
        assert (
            first.attributes.items()
            >= {
                "http.request.method": "GET",
                "http.response.status_code": 200,
                "p2pdist.registry": "registry.example",
                "p2pdist.repository": "team/app",
                "p2pdist.kind": "blob",
                "p2pdist.digest": str(digest),
                "p2pdist.store_bytes": 0,
                "p2pdist.peer_bytes": 0,
                "p2pdist.upstream_bytes": len(LAYER),
            }.items()
        )
        assert first.error is None
        size, fetch = sorted(under(collector, first), key=lambda span: span.name, reverse=True)
        assert (size.name, fetch.name) == ("upstream stat", "fetch blob")
        tries = under(collector, size)
        assert [span.attributes["http.response.status_code"] for span in tries] == [503, 200]
        assert [span.attributes.get("http.request.resend_count") for span in tries] == [None, 1]
        assert [span.error for span in tries] == ["", None]
        assert fetch.attributes["p2pdist.upstream_bytes"] == len(LAYER)
        question = one(under(collector, fetch))
        assert question.name == "upstream blob"
        assert one(under(collector, question)).attributes["http.response.status_code"] == 200
        assert again.attributes["p2pdist.store_bytes"] == len(LAYER)
        assert again.parent == ""
        assert under(collector, again) == []


async def test_manifests_tags_and_what_is_refused(tmp_path: Path, registry: FakeRegistry) -> None:
    async with collecting() as collector:
        async with agent(tmp_path, registry, collector.url) as client:
            assert (await client.ask("manifests/v1"))[0] == 200
            assert (await client.ask(f"manifests/{Digest.of(MANIFEST)}", "HEAD"))[0] == 200
            assert (await client.ask("manifests/v2"))[0] == 404
            assert (await client.ask("tags/list"))[0] == 200
            assert (await client.ask("no/such/path"))[0] == 404
        by_tag, by_digest, missing = collector.named("mirror manifest")
        assert by_tag.attributes["p2pdist.tag"] == "v1"
        assert by_tag.attributes["p2pdist.digest"] == by_digest.attributes["p2pdist.digest"]
        assert {span.name for span in under(collector, by_tag)} == {"upstream manifest", "fetch manifest"}
        assert by_digest.attributes["http.request.method"] == "HEAD"
        assert missing.attributes["http.response.status_code"] == 404
        assert missing.error is None  # the agent did its part
        refused = one([span for span in under(collector, missing) if span.name == "upstream manifest"])
        assert refused.error is not None
        assert "team/app:v2" in refused.error
        listed = one(collector.named("mirror tags"))
        request = one(under(collector, one(under(collector, listed))))
        assert request.attributes["url.full"] == f"{registry.url}/v2/team/app/tags/list"
        assert one(collector.named("mirror")).attributes["http.response.status_code"] == 404


async def test_signed_urls_are_told_without_their_signature(tmp_path: Path, registry: FakeRegistry) -> None:
    registry.faults.redirect_blobs = True
    async with collecting() as collector:
        async with agent(tmp_path, registry, collector.url) as client:
            assert await client.ask(f"blobs/{Digest.of(LAYER)}") == (200, LAYER)
        urls = [str(span.attributes["url.full"]) for span in collector.named("GET")]
        assert any(not url.startswith(registry.url) for url in urls)
        assert not any("?" in url for url in urls)


async def test_a_broken_context_begins_a_trace_of_its_own(tmp_path: Path, registry: FakeRegistry) -> None:
    good = ("traceparent", f"00-{TRACE}-{PARENT}-01")
    async with collecting() as collector:
        async with agent(tmp_path, registry, collector.url) as client:
            for headers in [[good, good], [("traceparent", "00-zz-00-01")], [("traceparent", "0" * 5000)]]:
                assert (await client.ask("manifests/v1", "GET", *headers))[0] == 200
            unsampled = ("traceparent", f"00-{TRACE}-{PARENT}-00")
            assert (await client.ask("manifests/v1", "GET", unsampled))[0] == 200
        spans = collector.named("mirror manifest")
        assert [span.parent for span in spans] == ["", "", ""]  # and what the client does not record, is not
        assert len({span.trace for span in spans}) == 3


async def test_a_collector_that_hangs_holds_up_neither_pulls_nor_the_end(
    tmp_path: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "FLUSH_TIMEOUT", 0.2)
    async with collecting() as collector:
        collector.hangs = True
        async with agent(tmp_path, registry, collector.url) as client:
            assert await client.ask(f"blobs/{Digest.of(LAYER)}") == (200, LAYER)
            await collector.reached.wait()
            for _ in range(50):
                assert await client.ask(f"blobs/{Digest.of(LAYER)}") == (200, LAYER)
        assert not collector.released.is_set()
        assert collector.spans == []


async def test_a_collector_that_is_not_there_is_told_of_once(
    tmp_path: Path,
    registry: FakeRegistry,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracing, "EXPORT_TIMEOUT", 0.2)
    monkeypatch.setattr(tracing, "FLUSH_TIMEOUT", 60.0)
    async with collecting() as collector:
        gone = collector.url
    with caplog.at_level(logging.INFO):
        async with agent(tmp_path, registry, gone) as client:
            assert await client.ask(f"blobs/{Digest.of(LAYER)}") == (200, LAYER)
    told = [record.message for record in caplog.records if "traces" in record.message]
    assert len(told) == 1
    assert f"cannot be delivered to {gone}/v1/traces" in told[0]
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_what_waits_is_bounded_and_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    async with collecting() as collector:
        collector.hangs = True
        traces = Tracing(f"{collector.url}/v1/traces", {"service.name": "p2pdist"}, delay=0.05)
        draw(traces, "first")
        await collector.reached.wait()
        for _ in range(MAX_QUEUED):
            draw(traces, "lost")
        for _ in range(MAX_QUEUED):
            draw(traces, "kept")
        collector.hangs = False
        collector.released.set()
        monkeypatch.setattr(tracing, "FLUSH_TIMEOUT", 60.0)
        await asyncio.to_thread(traces.close)
        assert len(collector.named("kept")) == MAX_QUEUED
        assert len(collector.spans) == MAX_QUEUED + 1


def draw(traces: Tracing, name: str) -> None:
    with traces.request("GET", {}) as describe:
        describe(name, {}, "")


async def test_without_the_package_the_way_out_is_named(
    tmp_path: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "p2pdist.telemetry.tracing", None)
    with pytest.raises(ConfigError, match=r"pip install 'p2pdist\[otel\]'"):
        async with agent(tmp_path, registry, "http://127.0.0.1:4318"):
            pass


OFF = """
import asyncio, sys
from pathlib import Path
from p2pdist.agent.app import run_parts
from p2pdist.config.load import load_config
import p2pdist.cli.main

async def main():
    async with run_parts(load_config(Path(sys.argv[1]), {}, {})):
        pass

asyncio.run(main())
print([name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "google", "requests")])
"""


def test_an_agent_without_traces_imports_none_of_it(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(data=tmp_path / "data", traces="", registry="http://127.0.0.1:1"))
    command = [sys.executable, "-c", OFF, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


async def test_who_joins_a_fetch_has_a_link_to_it(tmp_path: Path, registry: FakeRegistry) -> None:
    digest, context = Digest.of(LAYER), ("traceparent", f"00-{TRACE}-{PARENT}-01")
    async with collecting() as collector:
        async with agent(tmp_path, registry, collector.url) as client:
            registry.faults.update({"stall_after": 300_000, "stall_times": 1, "body_kinds": ["blob"]})
            first = asyncio.ensure_future(client.ask(f"blobs/{digest}", "GET", context))
            await client.wait_for_users(1)
            second = asyncio.ensure_future(client.ask(f"blobs/{digest}"))
            await client.wait_for_users(2)
            registry.release()
            assert (await first, await second) == ((200, LAYER), (200, LAYER))
            assert await client.ask(f"blobs/{digest}") == (200, LAYER)
            assert (await client.ask("manifests/v1"))[0] == 200
        fetch = one(collector.named("fetch blob"))
        began, joined, held = sorted(
            collector.named("mirror blob"), key=lambda span: (span.trace != TRACE, span.began)
        )
        assert (fetch.trace, fetch.parent) == (began.trace, began.id)
        assert joined.trace != began.trace
        assert (began.links, joined.links, held.links) == ((), ((fetch.trace, fetch.id),), ())
        assert one(collector.named("mirror manifest")).links == ()


async def test_so_many_fetches_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_MAX_KNOWN", 3)
    async with collecting() as collector:
        traces = Tracing(f"{collector.url}/v1/traces", {"service.name": "p2pdist"})
        for number in range(10):
            repository, digest = Repository("registry.example", "team/app"), Digest.of(bytes([number]))
            traces.fetch_begun(repository, digest, "blob")
            traces.fetch_ended(repository, digest, "blob", 1.0, {}, "")
        assert list(traces._known) == [str(Digest.of(bytes([number]))) for number in (7, 8, 9)]
        await asyncio.to_thread(traces.close)
