"""The receiving end of the swarm's control messages (peers/swarm_links.py tells the format).

Always true here: frames are handed to the inbox in their order, as their proven sender's, and only when their MAC holds;
a bad MAC or length, or a peer that says nothing for SILENCE seconds, ends the connection; while the inbox is at work on
a frame, and after MAX_AT_ONCE of them in one turn of the loop, no more is read; at most MAX_LINKS links of one peer.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from aiohttp import web

from p2pdist.api.peer_gate import CREDENTIALS
from p2pdist.api.switching import welcome
from p2pdist.errors import P2PDistError
from p2pdist.peers.swarm_port import SwarmInbox, Work
from p2pdist.records import PeerId
from p2pdist.wire.http_auth import FrameSeal, HttpAuth
from p2pdist.wire.swarm_messages import MAX_FRAME

logger = logging.getLogger(__name__)

PATH = "/p2p/v1/link"
POST_PATH = "/p2p/v1/swarm"
SILENCE = 20.0
MAX_LINKS = 4
MAX_AT_ONCE = 256
_CHECK = 5.0


class SwarmDoor:
    """Takes links from proven peers."""

    def __init__(self, inbox: SwarmInbox, auth: HttpAuth) -> None:
        self._inbox = inbox
        self._auth = auth
        self._links: Counter[PeerId] = Counter()

    @contextmanager
    def _counted(self, peer: PeerId) -> Iterator[None]:
        self._links[peer] += 1
        try:
            yield
        finally:
            self._links[peer] -= 1
            if not self._links[peer]:
                del self._links[peer]

    async def open(self, request: web.Request) -> web.StreamResponse:
        """The handler of ``GET /p2p/v1/link``: takes the connection over until it ends."""
        credentials, transport = request[CREDENTIALS], request.transport
        if self._links[credentials.peer] >= MAX_LINKS:
            return _busy()
        if transport is None or transport.is_closing():
            return web.Response(status=400, body=b"gone\n")
        frames = FrameReader(self._auth.frames(credentials))
        link = _Link(
            self._inbox, credentials.peer, frames, transport, cast(asyncio.Protocol, request.protocol)
        )
        try:
            with self._counted(credentials.peer):
                transport.set_protocol(link)
                transport.write(welcome(self._auth, credentials, "p2pdist-link"))
                await link.run()
        except (TimeoutError, ValueError, P2PDistError) as error:
            logger.info("swarm link from peer %s ended: %r", credentials.peer.short, error)
        finally:
            transport.abort()
        return web.Response(status=400, body=b"over\n")  # the connection is gone: nobody gets this

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """The handler of ``POST /p2p/v1/swarm``, for peers that know no links; answers when the sender has ended."""
        credentials = request[CREDENTIALS]
        if self._links[credentials.peer] >= MAX_LINKS:
            return _busy()
        frames = FrameReader(self._auth.frames(credentials))
        try:
            with self._counted(credentials.peer):
                while True:
                    async with asyncio.timeout(SILENCE):
                        data = await request.content.readany()
                    if not data:
                        return web.Response(body=b"bye\n")
                    frames.push(data)
                    while (frame := frames.next()) is not None:
                        work = self._inbox.received(credentials.peer, frame)
                        if work is not None:
                            await work
        except ConnectionError:
            return web.Response(body=b"bye\n")
        except (TimeoutError, ValueError) as error:
            logger.info("swarm link from peer %s ended: %r", credentials.peer.short, error)
            response = web.Response(status=400, body=b"bad frame\n")
            response.force_close()
            return response


def _busy() -> web.Response:
    return web.Response(status=503, body=b"busy\n")


class _Link(asyncio.Protocol):
    """One link; it hands the connection's end on to the protocol that it replaced."""

    def __init__(
        self,
        inbox: SwarmInbox,
        peer: PeerId,
        frames: FrameReader,
        transport: asyncio.Transport,
        before: asyncio.Protocol,
    ) -> None:
        self._inbox = inbox
        self._peer = peer
        self._frames = frames
        self._transport = transport
        self._before = before
        self._work: Work | None = None
        self._error: ValueError | None = None
        self._news = asyncio.Event()
        self._heard = False
        self._over = False

    async def run(self) -> None:
        """Return when the connection has ended; raises ValueError for what the sender did not make, TimeoutError."""
        silent = 0.0
        try:
            while not self._over:
                try:
                    async with asyncio.timeout(_CHECK):
                        await self._news.wait()
                except TimeoutError:
                    silent = 0.0 if self._heard else silent + _CHECK
                    self._heard = False
                    if silent >= SILENCE:
                        raise
                self._news.clear()
                await self._catch_up()
        finally:
            if self._work is not None:
                self._work.close()
        if self._error is not None:
            raise self._error

    async def _catch_up(self) -> None:
        """Do what frames ask for that takes time, and then read on."""
        if self._work is None:
            return
        while work := self._work:
            await work
            self._work = self._hand_over()
        if not self._over and not self._transport.is_closing():
            self._transport.resume_reading()

    def _hand_over(self) -> Work | None:
        """All frames that are whole, up to one that takes time: what is to be awaited before the next."""
        try:
            for _ in range(MAX_AT_ONCE):
                frame = self._frames.next()
                if frame is None:
                    return None
                work = self._inbox.received(self._peer, frame)
                if work is not None:
                    return work
        except ValueError as error:
            self._end(error)
            return None
        return asyncio.sleep(0)  # the others want a turn too

    def _end(self, error: ValueError | None = None) -> None:
        self._over, self._error = True, self._error or error
        self._news.set()

    # -- asyncio.Protocol --

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._heard = True
        self._frames.push(data)
        if self._work is None:
            self._work = self._hand_over()
            if self._work is not None:
                self._transport.pause_reading()
                self._news.set()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._before.connection_lost(exc)


class FrameReader:
    """Cuts what arrives into frames and checks them."""

    def __init__(self, seal: FrameSeal) -> None:
        self._seal = seal
        self._data = b""
        self._at = 0

    def push(self, data: bytes) -> None:
        """So much has arrived; keeps it until ``next`` has been through it."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> bytes | None:
        """The next frame that is whole; raises ValueError for a length or a MAC that the sender did not make."""
        data, at = self._data, self._at
        while True:
            start = at + 4 + FrameSeal.SIZE
            length = int.from_bytes(data[at : at + 4], "big") if at + 4 <= len(data) else -1
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            if length:
                break
            at += 4
        stop = start + length
        if length < 0 or stop > len(data):
            self._at = at
            return None
        frame = data[start:stop]
        if not hmac.compare_digest(data[at + 4 : start], self._seal.next(frame)):
            raise ValueError("a frame that the sender did not make")
        self._at = stop
        return frame
