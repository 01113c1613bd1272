"""The receiving end of the swarm's control messages (peers/swarm_links.py tells the format).

Always true here: frames are handed to the inbox in their order, as their proven sender's, and only when their MAC holds;
a bad MAC or length, or a peer that says nothing for SILENCE seconds, ends the connection; while the inbox is at work on
a frame, and after MAX_AT_ONCE of them in one turn of the loop, no more is read; at most MAX_LINKS links of one peer.
"""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from p2pdist.api.peer_gate import CREDENTIALS
from p2pdist.api.switching import Switch, busy
from p2pdist.errors import P2PDistError
from p2pdist.peers.swarm_port import SwarmInbox, Work
from p2pdist.records import PeerId
from p2pdist.wire.http_auth import Credentials, HttpAuth
from p2pdist.wire.sealed_frames import FrameReader
from p2pdist.wire.swarm_messages import LINK_FRAMES

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
        self._switch = Switch(auth, "p2pdist-link")

    async def open(self, request: web.Request) -> web.StreamResponse:
        """The handler of ``GET /p2p/v1/link``: takes the connection over until it ends."""
        return await self._switch.take_over(request, MAX_LINKS, self._link)

    def _link(
        self, credentials: Credentials, transport: asyncio.Transport, before: asyncio.Protocol
    ) -> _Link:
        return _Link(self._inbox, credentials.peer, self._frames(credentials), transport, before)

    def _frames(self, credentials: Credentials) -> FrameReader:
        return FrameReader(LINK_FRAMES, self._auth.frames(credentials))

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """The handler of ``POST /p2p/v1/swarm``, for peers that know no links; answers when the sender has ended."""
        credentials = request[CREDENTIALS]
        if self._switch.open_of(credentials.peer) >= MAX_LINKS:
            return busy()
        frames = self._frames(credentials)
        try:
            with self._switch.counted(credentials.peer):
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

    async def run(self, welcome: bytes) -> None:
        """Say ``welcome``, and take frames until the connection ends."""
        self._transport.write(welcome)
        try:
            await self._read()
        except (TimeoutError, ValueError, P2PDistError) as error:
            logger.info("swarm link from peer %s ended: %r", self._peer.short, error)

    async def _read(self) -> None:
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
