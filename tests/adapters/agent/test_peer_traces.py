"""Traces of a pull that peers take part in: which of them gave what, in one span for each; and what goes wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from p2pdist.agent.app import Running, run_parts
from p2pdist.config.load import load_config
from p2pdist.errors import UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import PeerId
from p2pdist.telemetry import tracing
from p2pdist.testing.registry import FakeRegistry
from p2pdist.transfer.hooks import TransferHooks
from p2pdist.wire.keys import ClusterKey
from tests.adapters.agent.collector import Collector, ReceivedSpan, collecting
from tests.adapters.agent.test_tracing import MANIFEST, MANIFEST_TYPE, PARENT, TRACE, Client, one, under

CONFIG = """
[agent]
name = "{name}"
zone = "rack-{name}"
data_dir = "{at}/{name}"
drain_timeout = "0s"
docker_config = ""
[mirror]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[peer]
listen = "127.0.0.1:0"
bootstrap = [{bootstrap}]
cluster_key_file = "{at}/cluster.key"
[telemetry]
traces = "{traces}"
[registries."registry.example"]
url = "{registry}"
"""
LAYER = random.Random(5).randbytes(6 * 2**20)
DIGEST = Digest.of(LAYER)
SAMPLED = ("traceparent", f"00-{TRACE}-{PARENT}-01")


@dataclass
class Hosts:
    """Three agents: two hold the image, and the third, whose traces are collected, holds nothing."""

    third: Client
    holders: set[str]
    registry: FakeRegistry
    collector: Collector
    stack: AsyncExitStack

    async def traced(self) -> None:
        """The third stops, and with it all of its spans are here."""
        await self.stack.aclose()


async def _peers(session: aiohttp.ClientSession, agent: Running) -> list[str]:
    async with session.get(f"http://{agent.listeners['admin']}/api/v1/peers") as answer:
        return [row["peer"] for row in (await answer.json())["peers"]]


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Hosts]:
    key = tmp_path / "cluster.key"
    key.touch(0o600)
    key.write_text(ClusterKey(bytes(range(32))).text())
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as session:
        registry = await stack.enter_async_context(FakeRegistry())
        registry.put_blob("team/app", LAYER)
        registry.put_manifest("team/app", MANIFEST, MANIFEST_TYPE, "v1")
        collector = await stack.enter_async_context(collecting())
        own = await stack.enter_async_context(AsyncExitStack())
        agents: list[Running] = []
        for name in "123":
            file = tmp_path / f"{name}.toml"
            met = f'"{agents[0].listeners["peer"]}"' if agents else ""
            traces = collector.url if name == "3" else ""
            words = {
                "name": name,
                "at": tmp_path,
                "bootstrap": met,
                "traces": traces,
                "registry": registry.url,
            }
            file.write_text(CONFIG.format(**words))
            where = own if name == "3" else stack
            agents.append(await where.enter_async_context(run_parts(load_config(file, {}, {}))))
        async with asyncio.timeout(30):
            while any([len(await _peers(session, agent)) < 2 for agent in agents]):
                await asyncio.sleep(0.02)
        clients = [Client(agent.listeners["mirror"], session) for agent in agents]
        for holder in clients[:2]:
            assert (await holder.ask("manifests/v1"))[0] == 200
            assert await holder.ask(f"blobs/{DIGEST}") == (200, LAYER)
        holders = set(await _peers(session, agents[2]))
        yield Hosts(clients[2], holders, registry, collector, own)


def peer_bytes(spans: list[ReceivedSpan]) -> int:
    return sum(int(span.attributes["p2pdist.peer_bytes"]) for span in spans)


async def test_which_peer_gave_how_much_of_a_pull(hosts: Hosts) -> None:
    assert (await hosts.third.ask("manifests/v1", "GET", SAMPLED))[0] == 200
    assert await hosts.third.ask(f"blobs/{DIGEST}", "GET", SAMPLED) == (200, LAYER)
    await hosts.traced()
    fetch = one(hosts.collector.named("fetch blob"))
    gave = [span for span in under(hosts.collector, fetch) if span.name == "peer blob"]
    assert gave
    assert {str(span.attributes["p2pdist.peer"]) for span in gave} <= hosts.holders
    assert len({span.attributes["p2pdist.peer"] for span in gave}) == len(gave)  # not one for each piece
    assert peer_bytes(gave) == fetch.attributes["p2pdist.peer_bytes"] == len(LAYER)
    assert sum(int(span.attributes["p2pdist.requests"]) for span in gave) > len(gave)
    for span in gave:
        assert span.trace == TRACE
        assert span.attributes["p2pdist.digest"] == str(DIGEST)
        assert span.attributes["server.address"] == "127.0.0.1"
        assert span.attributes["p2pdist.peer_zone"] in ("rack-1", "rack-2")
        assert (span.attributes["p2pdist.failures"], span.error) == (0, None)
        assert fetch.began <= span.began < span.ended <= fetch.ended
    manifest = one(hosts.collector.named("fetch manifest"))
    asked = one(under(hosts.collector, manifest))
    assert asked.name == "peer manifest"
    assert peer_bytes([asked]) == len(MANIFEST) == manifest.attributes["p2pdist.peer_bytes"]
    assert not hosts.collector.named("upstream blob")


async def test_a_pull_that_is_not_sampled_is_not_watched(hosts: Hosts) -> None:
    unsampled = ("traceparent", f"00-{TRACE}-{PARENT}-00")
    assert await hosts.third.ask(f"blobs/{DIGEST}", "GET", unsampled) == (200, LAYER)
    await hosts.traced()
    assert hosts.collector.spans == []


async def test_content_that_is_false_is_an_event_of_its_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "FLUSH_TIMEOUT", 60.0)
    repository, peer = Repository("registry.example", "team/app"), PeerId(b"p" * 20)
    async with collecting() as collector:
        traces = tracing.Tracing(f"{collector.url}/v1/traces", {"service.name": "p2pdist"})
        hooks = tracing.TraceTransfers(TransferHooks(), traces)
        hooks.verify_failed("peer", DIGEST, peer)  # no fetch of it is in progress
        hooks.begun(repository, DIGEST, "blob")
        hooks.verify_failed("peer", DIGEST, peer)
        hooks.verify_failed("upstream", DIGEST, None)
        hooks.failed(repository, DIGEST, "blob", UnreachableError("nobody has it"))
        await asyncio.to_thread(traces.close)
        fetch = one(collector.spans)
    assert fetch.error == "nobody has it"
    assert fetch.events == (
        ("digest does not hold", {"p2pdist.source": "peer", "p2pdist.peer": peer.hex}),
        ("digest does not hold", {"p2pdist.source": "upstream"}),
    )
