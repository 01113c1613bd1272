"""Several agents' transfer layers in one event loop, joined by links and peer requests in memory.

town = Town()
async with town.members("anna", "bert") as agents:
    clients = await asyncio.gather(*(pull(agent, digest) for agent in agents))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from p2pdist.clock import Clock, SystemClock
from p2pdist.errors import NotFoundError, ProtocolError, UnreachableError
from p2pdist.oci.content import BlobStat, ContentStream
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId, Provider
from p2pdist.swarm.geometry import MAX_PIECE
from p2pdist.swarm.peer_health import PeerHealth
from p2pdist.testing.memory_discovery import MemoryCluster, MemoryDiscovery
from p2pdist.testing.memory_store import MemoryStore
from p2pdist.testing.memory_upstream import MemoryUpstream
from p2pdist.transfer.announce import Announcer
from p2pdist.transfer.blobs import BlobService
from p2pdist.transfer.context import TransferContext, TransferPolicy
from p2pdist.transfer.limits import TokenBucket
from p2pdist.transfer.manifests import ManifestService
from p2pdist.transfer.mirror import PullThroughMirror
from p2pdist.transfer.swarm_hub import SwarmHub
from tests.unit.transfer.world import APP, Agent, Seen

CHUNK = 64 * 1024
PIECE_WAIT = 3.0


@dataclass
class Town:
    """What all agents share. ``policies`` by name override the default one."""

    upstream: MemoryUpstream = field(default_factory=lambda: MemoryUpstream("docker.io"))
    clock: Clock = field(default_factory=SystemClock)
    policies: dict[str, TransferPolicy] = field(default_factory=dict)
    agents: dict[PeerId, Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.cluster = MemoryCluster(self.clock)

    def has(self, data: bytes) -> Digest:
        return self.upstream.put_blob(APP, data)

    @asynccontextmanager
    async def members(self, *names: str) -> AsyncIterator[list[Member]]:
        """Started agents; leaving stops those that still run."""
        async with AsyncExitStack() as stack:
            yield [await stack.enter_async_context(self.member(name)) for name in names]

    @asynccontextmanager
    async def member(self, name: str) -> AsyncIterator[Member]:
        member = Member(self, name)
        await member.start()
        try:
            yield member
        finally:
            await member.kill()


class Member(Agent):
    """One agent, and what it is made to do wrong. ``served`` counts bytes it gave to others."""

    def __init__(self, town: Town, name: str) -> None:
        self.town = town
        self.name = name
        self.dead = False
        self.lies = False
        self.mute = False
        self.served = 0
        self.seen = Seen()
        self.discovery: MemoryDiscovery = town.cluster.join(name)
        self.store = MemoryStore(1 << 30, town.clock)
        self.hub = SwarmHub(self.store)
        self.hub.connect(self, self.discovery.provider())
        self.inbox: asyncio.Queue[tuple[PeerId, bytes]] = asyncio.Queue()
        self._life: asyncio.Task[None] | None = None
        self._born = asyncio.Event()
        town.agents[self.id] = self

    @property
    def id(self) -> PeerId:
        return self.discovery.peer

    async def start(self) -> None:
        self._life = asyncio.ensure_future(self._live())
        await self._born.wait()

    async def _live(self) -> None:
        town = self.town
        async with asyncio.TaskGroup() as tasks:
            context = TransferContext(
                store=self.store,
                discovery=self.discovery,
                peers=Roads(town, self),
                upstream=town.upstream,
                clock=town.clock,
                health=PeerHealth(self.id.raw),
                policy=town.policies.get(self.name, TransferPolicy()),
                hooks=self.seen,
                download=TokenBucket(0, town.clock),
                upstream_limit=TokenBucket(0, town.clock),
            )
            self.context = context
            self.announcer = Announcer(self.store, self.discovery, town.clock, context.policy)
            self.blobs = BlobService(context, tasks, self.announcer.committed, self.hub)
            self.manifests = ManifestService(context, tasks, self.announcer.committed)
            self.mirror = PullThroughMirror(context, self.blobs, self.manifests)
            tasks.create_task(self.announcer.run())
            tasks.create_task(self._read_mail())
            self._born.set()

    async def _read_mail(self) -> None:
        while True:
            sender, frame = await self.inbox.get()
            work = self.hub.received(sender, frame)
            if work is not None:
                await work

    async def kill(self) -> None:
        """Gone, as after kill -9: no farewell, and its records stay."""
        self.dead = True
        if self._life is not None:
            self._life.cancel()
            await asyncio.gather(self._life, return_exceptions=True)
            self._life = None

    def send(self, provider: Provider, frame: bytes) -> None:
        """As SwarmLinks.send."""
        other = self.town.agents.get(provider.peer)
        if self.dead or self.mute:
            return
        if other is None or other.dead:
            asyncio.get_running_loop().call_soon(self.hub.lost, provider.peer)
        else:
            other.inbox.put_nowait((self.id, frame))


class Roads:
    """The Peers port of one member: what it asks the others, answered as their peer listeners do."""

    def __init__(self, town: Town, own: Member) -> None:
        self._town = town
        self._own = own

    def _other(self, provider: Provider) -> Member:
        other = self._town.agents.get(provider.peer)
        if other is None or other.dead:
            raise UnreachableError(f"{provider.peer.short} does not answer")
        return other

    async def stat(self, provider: Provider, digest: Digest) -> BlobStat:
        info = await self._other(provider).store.stat(digest)
        if info is None or not info.shared:
            raise NotFoundError("not here")
        return BlobStat(digest, info.size, info.media_type)

    async def piece(
        self,
        provider: Provider,
        digest: Digest,
        offset: int,
        size: int,
        buffer: memoryview,
        on_progress: Callable[[int], None],
    ) -> None:
        filled = 0
        async with self.blob(provider, digest, offset, len(buffer)) as stream:
            if stream.size != size:
                raise ProtocolError("another size")
            async for chunk in stream.chunks():
                buffer[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
                on_progress(filled)

    @asynccontextmanager
    async def blob(
        self, provider: Provider, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[ContentStream]:
        other = self._other(provider)
        info, fetch = await other.store.stat(digest), other.blobs.arriving(digest)
        if info is not None and info.shared:
            stop = info.size if length is None else offset + length
            yield Road(other, digest, info.size, offset, stop, info.media_type)
        elif info is None and fetch is not None and length is not None and length <= MAX_PIECE:
            yield Road(other, digest, fetch.size, offset, offset + length, "")
        else:
            raise NotFoundError("not here")


@dataclass
class Road:
    """A ContentStream from another member: from its store, or as it arrives there."""

    other: Member
    digest: Digest
    size: int
    start: int
    stop: int
    media_type: str

    async def chunks(self) -> AsyncIterator[bytes]:
        position = self.start
        while position < self.stop:
            data = await self._next(position, min(self.stop, position + CHUNK))
            if self.other.dead or not data:
                raise UnreachableError("cut")
            if self.other.lies:
                data = bytes([data[0] ^ 0xFF]) + data[1:]
            self.other.served += len(data)
            yield data
            position += len(data)
            await asyncio.sleep(0)

    async def _next(self, position: int, stop: int) -> bytes:
        fetch = self.other.blobs.arriving(self.digest)
        if fetch is not None and not fetch.finished:
            try:
                async with asyncio.timeout(PIECE_WAIT):
                    stop = min(stop, await fetch.wait_held(position))
            except TimeoutError as error:
                raise ProtocolError("cut: the piece does not come") from error
            data = await fetch.read(position, stop - position)
            if data:
                return data
        body = await self.other.store.read(self.digest, self.size)
        return body[position:stop] if body else b""
