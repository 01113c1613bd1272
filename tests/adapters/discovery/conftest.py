"""A cluster of DHT nodes on loopback, closed at the end of each test."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from p2pdist.clock import Clock, SystemClock
from p2pdist.discovery.node import DiscoveryNode
from p2pdist.discovery.settings import DiscoverySettings, Tuning
from p2pdist.records import PeerId

KEY = hashlib.sha256(b"the cluster's").digest()
TUNING = Tuning(lonely_retry=0.05, lonely_retry_cap=0.2, start_within=5.0)


async def until(condition: Callable[[], bool], within: float = 20.0) -> None:
    """Return when ``condition`` holds; fail when it does not in a long time."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.01)


class Cluster:
    """Makes nodes that know the ones made before."""

    def __init__(self) -> None:
        self.nodes: list[DiscoveryNode] = []
        self._numbers = itertools.count()

    async def add(
        self,
        *,
        name: str = "",
        key: bytes = KEY,
        host: str = "127.0.0.1",
        port: int = 0,
        bootstrap: tuple[str, ...] | None = None,
        zone: str = "",
        advertise: str = "",
        snapshot: Path | None = None,
        tuning: Tuning = TUNING,
        clock: Clock | None = None,
    ) -> DiscoveryNode:
        """A started node; by default it is told of the first three."""
        name = name or f"node {next(self._numbers)}"
        if bootstrap is None:
            bootstrap = tuple(f"127.0.0.1:{node.port}" for node in self.nodes[:3])
        settings = DiscoverySettings(
            peer=PeerId(hashlib.blake2b(name.encode(), digest_size=20).digest()),
            key=key,
            listen_host=host,
            listen_port=port,
            advertise=advertise,
            bootstrap=bootstrap,
            zone=zone,
            snapshot=snapshot,
            seed=7,
            tuning=replace(tuning, lonely_retry=0.05),
        )
        node = DiscoveryNode(settings, clock or SystemClock())
        await node.start()
        self.nodes.append(node)
        return node

    async def grow(self, count: int) -> list[DiscoveryNode]:
        return [await self.add() for _ in range(count)]

    async def crash(self, node: DiscoveryNode) -> None:
        """It is gone without a word."""
        self.nodes.remove(node)
        await node.abort()


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await asyncio.gather(*(node.abort() for node in made.nodes))
