"""The swarm's control messages: one connection to each neighbour that has something to be told.

After the answer 101 to a proven ``GET /p2p/v1/link`` the connection carries frames from who opened it: the length
(4 bytes, big-endian), a MAC (16 bytes, bound to the request and to the frame's place) and the payload. A length of 0 is
a sign of life. A peer that does not know links gets the same frames as one long POST.
Always true here: one link per peer; what waits for it is bounded; when that is full, or the connection breaks or stands
still, the link's frames are lost and this is reported once; a link that says nothing for IDLE seconds is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from p2pdist.errors import P2PDistError, ProtocolError, UnreachableError
from p2pdist.peers.http_client import HttpPeers, Switched
from p2pdist.records import PeerId, Provider
from p2pdist.wire.http_auth import Credentials, HttpAuth
from p2pdist.wire.sealed_frames import FrameSeal
from p2pdist.wire.swarm_messages import LINK_FRAMES

logger = logging.getLogger(__name__)

PATH = "/p2p/v1/link"
POST_PATH = "/p2p/v1/swarm"
MAX_QUEUE = 2048
MAX_WAITING = 4 * 1024 * 1024
IDLE = 30.0
ALIVE_EVERY = 5.0
_ALIVE = bytes(4)
_HIGH_WATER = 256 * 1024
_GATHER = 64 * 1024
_KNOWS_NO_LINKS = frozenset({400, 404, 405, 426, 501})


class HttpSwarmLinks:
    """The SwarmLinks port. ``tasks`` owns the connections; ``on_lost`` is told of each link that broke."""

    def __init__(
        self,
        peers: HttpPeers,
        auth: HttpAuth,
        tasks: asyncio.TaskGroup,
        on_lost: Callable[[PeerId], None],
    ) -> None:
        self._peers = peers
        self._auth = auth
        self._tasks = tasks
        self._on_lost = on_lost
        self._links: dict[PeerId, _Link] = {}

    def send(self, provider: Provider, frame: bytes) -> None:
        link = self._links.get(provider.peer)
        if link is None:
            link = self._links[provider.peer] = _Link()
            self._tasks.create_task(self._run(provider, link))
        if not link.put(frame):
            logger.info("peer %s does not take swarm messages; it is left alone", provider.peer.short)
            self._drop(provider.peer, link)

    def _drop(self, peer: PeerId, link: _Link) -> None:
        link.end()
        if self._links.get(peer) is link:
            del self._links[peer]
            self._on_lost(peer)

    async def _run(self, provider: Provider, link: _Link) -> None:
        try:
            if not await self._over_link(provider, link):
                await self._over_post(provider, link)
        except P2PDistError as error:
            logger.info("swarm link to peer %s: %s", provider.peer.short, error)
        self._drop(provider.peer, link)

    async def _over_link(self, provider: Provider, link: _Link) -> bool:
        """Return when the link is over; False: the peer does not know what a link is."""
        async with self._peers.switched(provider, PATH) as answer:
            if answer in _KNOWS_NO_LINKS:
                return False
            if not isinstance(answer, Switched):
                raise ProtocolError(f"peer {provider.peer.short} answered {answer} to a link")
            wire = _Wire(link, answer, self._auth.frames(answer.credentials))
            while not await link.is_over_within(ALIVE_EVERY):
                if not wire.keep_alive():
                    self._retire(provider.peer, link)
                    return True
        raise UnreachableError("the connection ended")

    def _retire(self, peer: PeerId, link: _Link) -> None:
        """It is not lost: whatever comes next opens another link."""
        if self._links.get(peer) is link:
            del self._links[peer]

    async def _over_post(self, provider: Provider, link: _Link) -> None:
        def body(credentials: Credentials) -> AsyncIterator[bytes]:
            return self._frames(provider.peer, link, self._auth.frames(credentials))

        await self._peers.push(provider, POST_PATH, body)

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


class _Link:
    """Frames for one peer: they wait here until there is a connection, and while it takes no more."""

    def __init__(self) -> None:
        self.write: Callable[[bytes], None] | None = None
        self.over = asyncio.Event()
        self._news = asyncio.Event()
        self._waiting: list[bytes] = []
        self._size = 0

    def put(self, frame: bytes) -> bool:
        """Send it, now or as soon as may be; False when too much waits already."""
        if self.write is not None:
            self.write(frame)
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
        self.write = None
        self.over.set()
        self._news.set()

    async def has_news_within(self, seconds: float) -> bool:
        """Whether something came to wait, or all is over."""
        return await _within(seconds, self._news)

    async def is_over_within(self, seconds: float) -> bool:
        return await _within(seconds, self.over)


class _Wire(asyncio.Protocol):
    """A link's connection: takes it over from the protocol that opened it, and hands its end on to that."""

    def __init__(self, link: _Link, connection: Switched, seal: FrameSeal) -> None:
        self._link = link
        self._transport = connection.transport
        self._before = connection.protocol
        self._seal = seal
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._size = 0
        self._sent = False
        self._silent = 0.0
        self._still = 0.0
        self._transport.set_protocol(self)
        self._transport.set_write_buffer_limits(_HIGH_WATER)
        self._transport.resume_reading()  # what came in the meantime may have stopped it
        self.resume_writing()

    def _write(self, frame: bytes) -> None:
        """What is sent in one turn of the loop goes out at its end, in one write."""
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(LINK_FRAMES.pack(self._seal.next(frame), frame))
        self._size += len(frame)
        if self._size >= _GATHER:
            self._flush()

    def _flush(self) -> None:
        if not self._gathered:
            return
        self._sent = True
        parts, self._gathered, self._size = self._gathered, [], 0
        if not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def keep_alive(self) -> bool:
        """To be called every ALIVE_EVERY seconds; False when nothing has been sent for long."""
        if self._link.write is None:
            self._still += ALIVE_EVERY
            if self._still >= IDLE:
                self._end()
            return True
        self._flush()
        self._silent = 0.0 if self._sent else self._silent + ALIVE_EVERY
        if self._silent >= IDLE:
            return False
        if not self._sent:
            self._transport.write(_ALIVE)
        self._sent = False
        return True

    def _end(self) -> None:
        self._link.end()
        self._transport.abort()

    # -- asyncio.Protocol --

    def pause_writing(self) -> None:
        self._link.write = None

    def resume_writing(self) -> None:
        if self._link.over.is_set():
            return
        self._still = 0.0
        waiting = self._link.take()
        self._link.write = self._write
        for frame in waiting:
            self._link.put(frame)  # writing may pause again at any of them

    def data_received(self, data: bytes) -> None:
        logger.info("a peer sent something on a swarm link, where it has nothing to say")
        self._end()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.end()
        self._before.connection_lost(exc)


async def _within(seconds: float, event: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
