"""The swarm's control messages: one connection between two agents that have something to tell each other.

Whoever has something to say opens a link (link_wire.py) with a proven ``GET /p2p/v1/link?both=1``, unless the other has
opened one already. A peer of an earlier version takes frames on a link and sends none, and one that does not know links
gets the same frames as one long POST.
Always true here: what is said to a peer goes over one connection at a time; what waits for it is bounded; when that is
full, or the connection breaks or stands still, its frames are lost and this is reported once. DIALS links are opened
at a time (not counting those that find nobody within TURN seconds): of a hundred at once none is answered in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from p2pdist.errors import P2PDistError, UnreachableError
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.link_wire import ALIVE_EVERY, BOTH_HEADER, BOTH_PATH, IDLE, Greeting, LinkWire
from p2pdist.peers.swarm_port import SwarmInbox
from p2pdist.peers.upgrade import NotSwitchedError, Opened
from p2pdist.records import PeerId, Provider
from p2pdist.wire.http_auth import Credentials, HttpAuth
from p2pdist.wire.sealed_frames import FrameReader, FrameSeal
from p2pdist.wire.swarm_messages import LINK_FRAMES

logger = logging.getLogger(__name__)

POST_PATH = "/p2p/v1/swarm"
MAX_QUEUE = 2048
MAX_WAITING = 4 * 1024 * 1024
DIALS = 6
TURN = 0.5
PATIENCE = 8.0  # a host that has much to do is none that is gone
_ALIVE = bytes(4)
_KNOWS_NO_LINKS = frozenset({400, 404, 405, 426, 501})


class HttpSwarmLinks:
    """The SwarmLinks port. ``tasks`` owns the connections; ``inbox`` gets what comes, and hears of each link that broke."""

    def __init__(self, peers: HttpPeers, auth: HttpAuth, tasks: asyncio.TaskGroup, inbox: SwarmInbox) -> None:
        self._peers = peers
        self._auth = auth
        self._tasks = tasks
        self._inbox = inbox
        self._turns = Turns(DIALS, TURN)
        self._links: dict[PeerId, _Link] = {}

    def send(self, provider: Provider, frame: bytes) -> None:
        """As SwarmLinks.send."""
        link = self._links.get(provider.peer)
        if link is not None and link.is_broken:
            self._drop(provider.peer, link)
            return
        if link is None or not link.is_for_sending:
            link = self._links[provider.peer] = _Link()
            self._tasks.create_task(self._run(provider, link))
        if not link.put(frame):
            logger.info("peer %s does not take swarm messages; it is left alone", provider.peer.short)
            self._drop(provider.peer, link)

    def accepted(self, wire: LinkWire) -> None:
        """A peer has opened this one: what is said to it can go here, unless there is a way already."""
        link = self._links.setdefault(wire.peer, _Link())
        if link.wire is None or not link.is_for_sending:
            link.attach(wire)

    def ended(self, wire: LinkWire) -> None:
        """A link is over, whoever opened it."""
        link = self._links.get(wire.peer)
        if link is None or link.wire is not wire:
            return
        if wire.retired or (wire.is_quiet and not link.waits):
            del self._links[wire.peer]  # it is not lost: whatever comes next opens another link
        else:
            self._drop(wire.peer, link)

    def _drop(self, peer: PeerId, link: _Link) -> None:
        link.end()
        if self._links.get(peer) is link:
            del self._links[peer]
            self._inbox.lost(peer)

    async def _run(self, provider: Provider, link: _Link) -> None:
        try:
            async with self._turns.turn() as connected:
                if link.wire is not None:
                    return  # the peer opened one in the meantime
                opened = await self._peers.switched(
                    provider, BOTH_PATH, partial(Greeting, connected), PATIENCE
                )
            await self._serve(provider.peer, link, opened)
        except NotSwitchedError as error:
            await self._over_post(provider, link, error)
        except P2PDistError as error:
            self._failed(provider.peer, link, error)

    def _failed(self, peer: PeerId, link: _Link, error: Exception) -> None:
        if link.wire is None:
            logger.info("swarm link to peer %s: %s", peer.short, error)
            self._drop(peer, link)

    async def _serve(self, peer: PeerId, link: _Link, opened: Opened[Greeting]) -> None:
        wire = self._wire(peer, opened)
        try:
            if link.wire is None and not link.over.is_set():
                link.attach(wire)
            await wire.serve()
        except (TimeoutError, ValueError, P2PDistError) as error:
            logger.info("swarm link to peer %s ended: %r", peer.short, error)
        finally:
            wire.close()
            self.ended(wire)

    def _wire(self, peer: PeerId, opened: Opened[Greeting]) -> LinkWire:
        transport, rest = opened.connection.hand_over()
        frames = None
        if opened.answer.headers.get(BOTH_HEADER.lower()):
            frames = FrameReader(LINK_FRAMES, self._auth.frames(opened.credentials, back=True))
        seal = self._auth.frames(opened.credentials)
        wire = LinkWire(peer, self._inbox, transport, opened=True, seal=seal, frames=frames)
        transport.set_protocol(wire)
        wire.begin(rest=rest)
        return wire

    async def _over_post(self, provider: Provider, link: _Link, error: NotSwitchedError) -> None:
        failure: P2PDistError = error
        if error.status in _KNOWS_NO_LINKS:

            def body(credentials: Credentials) -> AsyncIterator[bytes]:
                return self._frames(provider.peer, link, self._auth.frames(credentials))

            try:
                await self._peers.push(provider, POST_PATH, body)
                failure = UnreachableError("it ended")
            except P2PDistError as other:
                failure = other
        self._failed(provider.peer, link, failure)

    async def _frames(self, peer: PeerId, link: _Link, seal: FrameSeal) -> AsyncIterator[bytes]:
        silent = 0.0
        while not link.over.is_set():
            waiting = link.take()
            if waiting:
                silent = 0.0
                yield b"".join([LINK_FRAMES.pack(seal.next(frame), frame) for frame in waiting])
            elif not await link.has_news_within(ALIVE_EVERY):
                silent += ALIVE_EVERY
                if silent >= IDLE:
                    self._retire(peer, link)
                    return
                yield _ALIVE

    def _retire(self, peer: PeerId, link: _Link) -> None:
        if self._links.get(peer) is link:
            del self._links[peer]


class _Link:
    """Frames for one peer: they wait here until there is a connection, and while it takes no more."""

    def __init__(self) -> None:
        self.wire: LinkWire | None = None
        self.over = asyncio.Event()
        self._news = asyncio.Event()
        self._waiting: list[bytes] = []
        self._size = 0

    @property
    def is_for_sending(self) -> bool:
        return self.wire is None or self.wire.is_for_sending

    @property
    def is_broken(self) -> bool:
        """Whether the connection ended, and not because there was nothing to say."""
        return self.wire is not None and self.wire.is_over and not self.wire.retired

    @property
    def waits(self) -> bool:
        return bool(self._waiting)

    def attach(self, wire: LinkWire) -> None:
        """From now on frames go over this one."""
        self.wire = wire
        wire.on_room = self._on_room
        self._on_room()

    def _on_room(self) -> None:
        for frame in self.take():
            self.put(frame)  # writing may pause again at any of them

    def put(self, frame: bytes) -> bool:
        """Send it, now or as soon as may be; False when too much waits already."""
        if self.wire is not None and self.wire.takes:
            self.wire.write(frame)
            return True
        if len(self._waiting) >= MAX_QUEUE or self._size + len(frame) > MAX_WAITING:
            return False
        self._waiting.append(frame)
        self._size += len(frame)
        self._news.set()
        return True

    def take(self) -> list[bytes]:
        """All that waits."""
        frames, self._waiting = self._waiting, []
        self._size = 0
        self._news.clear()
        return frames

    def end(self) -> None:
        self.over.set()
        self._news.set()
        if self.wire is not None:
            self.wire.close()

    async def has_news_within(self, seconds: float) -> bool:
        """Whether something came to wait, or all is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True


class Turns:
    """So many at a time; but who has got nowhere after ``seconds`` lets the next begin."""

    def __init__(self, most: int, seconds: float) -> None:
        self._free = asyncio.Semaphore(most)
        self._seconds = seconds

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Callable[[], None]]:
        """Gives what is to be called when it got somewhere."""
        await self._free.acquire()
        turn = _Turn(self._free)
        timer = asyncio.get_running_loop().call_later(self._seconds, turn.end)
        try:
            yield timer.cancel
        finally:
            timer.cancel()
            turn.end()


class _Turn:
    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free: asyncio.Semaphore | None = free

    def end(self) -> None:
        if self._free is not None:
            self._free.release()
            self._free = None
