"""One agent's transfer layer on fakes, and a client of it, for tests that read as transcripts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field

from p2pdist.clock import Clock
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import PeerId
from p2pdist.swarm.peer_health import PeerHealth
from p2pdist.testing.clock import ManualClock
from p2pdist.testing.memory_discovery import MemoryCluster
from p2pdist.testing.memory_peers import MemoryPeer, MemoryPeers
from p2pdist.testing.memory_store import MemoryStore
from p2pdist.testing.memory_upstream import MemoryUpstream
from p2pdist.transfer.announce import Announcer
from p2pdist.transfer.blobs import BlobService
from p2pdist.transfer.content import BytesSpan, Delivery, Source, Span
from p2pdist.transfer.context import TransferContext, TransferPolicy
from p2pdist.transfer.hooks import TransferHooks
from p2pdist.transfer.limits import TokenBucket
from p2pdist.transfer.manifests import ManifestService
from p2pdist.transfer.mirror import PullThroughMirror
from p2pdist.transfer.pull import ImagePuller

APP = Repository("docker.io", "library/app")
KIB = 1024
MIB = 1024 * KIB
SIZE = 300 * KIB
HOLD = 64 * KIB


def blob(size: int = SIZE, seed: int = 1) -> bytes:
    """Bytes that are the same each time and like nothing else."""
    return random.Random(seed).randbytes(size)


@dataclass
class Seen(TransferHooks):
    """What the hooks were told."""

    done: list[tuple[Digest, str, dict[str, int]]] = field(default_factory=list)
    lost: list[tuple[Digest, str, Exception]] = field(default_factory=list)
    mismatches: list[tuple[str, PeerId | None]] = field(default_factory=list)
    bans: list[PeerId] = field(default_factory=list)

    def fetched(
        self, repository: Repository, digest: Digest, kind: str, seconds: float, by_source: dict[str, int]
    ) -> None:
        self.done.append((digest, kind, by_source))

    def failed(self, repository: Repository, digest: Digest, kind: str, error: Exception) -> None:
        self.lost.append((digest, kind, error))

    def verify_failed(self, source: str, digest: Digest, peer: PeerId | None) -> None:
        self.mismatches.append((source, peer))

    def banned(self, peer: PeerId, reason: str) -> None:
        self.bans.append(peer)


class _Stop(Exception):  # noqa: N818
    pass


class World:
    """Build it, turn the fakes' knobs, then ``async with world.agent() as agent``; again for a restart."""

    def __init__(
        self, *, clock: Clock | None = None, quota: int = 1 << 30, policy: TransferPolicy | None = None
    ) -> None:
        self.manual = ManualClock()
        self.clock: Clock = clock or self.manual
        self.store = MemoryStore(quota, self.clock)
        self.peers = MemoryPeers()
        self.upstream = MemoryUpstream("docker.io")
        self.cluster = MemoryCluster(self.clock)
        self.discovery = self.cluster.join("own")
        self.policy = policy or TransferPolicy()
        self.seen = Seen()
        self.health = PeerHealth(b"own")

    def has(self, data: bytes) -> Digest:
        """Upstream has a blob."""
        return self.upstream.put_blob(APP, data)

    async def peer(
        self, name: str, *blobs: bytes, complete: bool = True, zone: str = "", **knobs: object
    ) -> MemoryPeer:
        """A peer that holds, and has announced, some blobs."""
        peer = self.peers.add(name, {Digest.of(data): data for data in blobs}, zone=zone, **knobs)
        member = self.cluster.join(name, peer=peer.id, zone=zone)
        for data in blobs:
            await member.announce(Digest.of(data), complete=complete)
        return peer

    def context(self, download: int = 0, upstream: int = 0) -> TransferContext:
        return TransferContext(
            store=self.store,
            discovery=self.discovery,
            peers=self.peers,
            upstream=self.upstream,
            clock=self.clock,
            health=self.health,
            policy=self.policy,
            hooks=self.seen,
            download=TokenBucket(download, self.clock),
            upstream_limit=TokenBucket(upstream, self.clock),
        )

    @asynccontextmanager
    async def agent(self, *, announcing: bool = False, **limits: int) -> AsyncIterator[Agent]:
        """A started transfer layer; leaving it stops it as the agent does."""
        try:
            async with asyncio.TaskGroup() as tasks:
                agent = Agent(self.context(**limits), tasks)
                if announcing:
                    tasks.create_task(agent.announcer.run())
                yield agent
                raise _Stop
        except* _Stop:
            pass


class Agent:
    """The use cases, put together as the agent does."""

    def __init__(self, context: TransferContext, tasks: asyncio.TaskGroup) -> None:
        self.context = context
        self.announcer = Announcer(context.store, context.discovery, context.clock, context.policy)
        self.blobs = BlobService(context, tasks, self.announcer.committed)
        self.manifests = ManifestService(context, tasks, self.announcer.committed)
        self.puller = ImagePuller(self.manifests, self.blobs, context.store, context.clock)
        self.mirror = PullThroughMirror(context, self.blobs, self.manifests)


class Client:
    """A runtime that reads one body; ``data`` and ``by_source`` are what it has got."""

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.data = b""
        self.by_source = dict.fromkeys(Source, 0)

    async def read_all(self, start: int = 0, stop: int | None = None) -> bytes:
        end = self.delivery.stat.size if stop is None else stop
        async with aclosing(self.delivery.spans(start, end)) as spans:
            async for span in spans:
                await self.take(span)
        return self.data

    async def take(self, span: Span) -> None:
        data = span.data if isinstance(span, BytesSpan) else await span.reader.read(span.offset, span.length)
        assert len(data) == span.length > 0
        self.data += data
        self.by_source[span.source] += len(data)

    @property
    def moved(self) -> dict[str, int]:
        """Bytes by source, without the sources that gave none."""
        return {source.value: count for source, count in self.by_source.items() if count}


@asynccontextmanager
async def opened(agent: Agent, digest: Digest, repository: Repository = APP) -> AsyncIterator[Client]:
    async with await agent.mirror.blob(repository, digest) as delivery:
        yield Client(delivery)


async def pull(
    agent: Agent, digest: Digest, start: int = 0, stop: int | None = None, repository: Repository = APP
) -> Client:
    """Read a body to its end, as a client does; raises what the client sees as a cut or an error."""
    async with opened(agent, digest, repository) as client:
        await client.read_all(start, stop)
    return client


@asynccontextmanager
async def reading(agent: Agent, digest: Digest, start: int = 0) -> AsyncIterator[SlowClient]:
    """A client that takes a span when told to."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(opened(agent, digest))
        spans = client.delivery.spans(start, client.delivery.stat.size)
        await stack.enter_async_context(aclosing(spans))
        yield SlowClient(client, spans)


@dataclass
class SlowClient:
    client: Client
    spans: AsyncGenerator[Span, None]

    async def take(self) -> Span:
        """The next span, wholly consumed."""
        span = await anext(self.spans)
        await self.client.take(span)
        return span

    async def take_rest(self) -> bytes:
        """All that is still to come; raises what cuts it."""
        while len(self.client.data) < self.client.delivery.stat.size:
            await self.take()
        return self.client.data


async def until(condition: Callable[[], bool]) -> None:
    """Let everything else run until ``condition`` holds; fails after far more turns than anything takes."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")
