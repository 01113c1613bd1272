"""The swarm's control messages over HTTP: one long POST to each neighbour, a frame at a time.

A frame is its length (4 bytes, big-endian), its MAC (16 bytes, bound to the request and to its place in it) and its
payload. A length of 0 is a sign of life. Always true here: one link per peer; a queue that is full, or a connection
that breaks, loses the link's frames and is reported once; a link that says nothing for IDLE seconds is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from p2pdist.errors import P2PDistError
from p2pdist.peers.http_client import HttpPeers
from p2pdist.records import PeerId, Provider
from p2pdist.wire.http_auth import Credentials, FrameSeal, HttpAuth

logger = logging.getLogger(__name__)

PATH = "/p2p/v1/swarm"
MAX_QUEUE = 2048
IDLE = 30.0
ALIVE_EVERY = 5.0
_ALIVE = bytes(4)


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
        self._links: dict[PeerId, asyncio.Queue[bytes]] = {}

    def send(self, provider: Provider, frame: bytes) -> None:
        queue = self._links.get(provider.peer)
        if queue is None:
            queue = self._links[provider.peer] = asyncio.Queue(MAX_QUEUE)
            self._tasks.create_task(self._run(provider, queue))
        try:
            queue.put_nowait(frame)
        except asyncio.QueueFull:
            logger.info("peer %s does not take swarm messages; it is left alone", provider.peer.short)
            self._drop(provider.peer, queue)

    def _drop(self, peer: PeerId, queue: asyncio.Queue[bytes]) -> None:
        if self._links.get(peer) is queue:
            del self._links[peer]
            self._on_lost(peer)

    async def _run(self, provider: Provider, queue: asyncio.Queue[bytes]) -> None:
        def body(credentials: Credentials) -> AsyncIterator[bytes]:
            return self._frames(provider.peer, queue, self._auth.frames(credentials))

        try:
            await self._peers.push(provider, PATH, body)
        except P2PDistError as error:
            logger.info("swarm link to peer %s: %s", provider.peer.short, error)
        self._drop(provider.peer, queue)

    async def _frames(
        self, peer: PeerId, queue: asyncio.Queue[bytes], seal: FrameSeal
    ) -> AsyncIterator[bytes]:
        silent = 0.0
        while self._links.get(peer) is queue:
            try:
                async with asyncio.timeout(ALIVE_EVERY):
                    frame = await queue.get()
            except TimeoutError:
                silent += ALIVE_EVERY
                if silent >= IDLE:
                    self._links.pop(peer, None)  # not lost: whatever comes next opens another link
                    return
                yield _ALIVE
                continue
            silent = 0.0
            yield _packed(frame, seal, queue)


def _packed(frame: bytes, seal: FrameSeal, queue: asyncio.Queue[bytes]) -> bytes:
    """``frame`` and all that wait behind it, in one write."""
    parts = []
    while True:
        parts += [len(frame).to_bytes(4, "big"), seal.next(frame), frame]
        if queue.empty():
            return b"".join(parts)
        frame = queue.get_nowait()
