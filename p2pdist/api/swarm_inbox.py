"""Where peers open swarm links (peers/link_wire.py tells the format), and their older form.

Always true here: at most MAX_LINKS links of one peer; who says that it listens too (``both=1``) can be answered over the
link that it opened.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from aiohttp import web

from p2pdist.api.peer_gate import CREDENTIALS
from p2pdist.api.switching import Switch, busy
from p2pdist.errors import P2PDistError
from p2pdist.peers.link_wire import BOTH_HEADER, SILENCE, LinkWire
from p2pdist.peers.swarm_port import SwarmInbox
from p2pdist.wire.http_auth import Credentials, HttpAuth
from p2pdist.wire.sealed_frames import FrameReader
from p2pdist.wire.swarm_messages import LINK_FRAMES

logger = logging.getLogger(__name__)

POST_PATH = "/p2p/v1/swarm"
MAX_LINKS = 4


class Links(Protocol):
    """Who has something to say to peers: peers/swarm_links.py."""

    def accepted(self, wire: LinkWire) -> None:
        """A peer has opened this one."""

    def ended(self, wire: LinkWire) -> None:
        """It is over."""


class SwarmDoor:
    """Takes links from proven peers."""

    def __init__(self, inbox: SwarmInbox, auth: HttpAuth, links: Links | None = None) -> None:
        self._inbox = inbox
        self._auth = auth
        self._links = links
        self._switch = Switch(auth, "p2pdist-link")

    async def open(self, request: web.Request) -> web.StreamResponse:
        """The handler of ``GET /p2p/v1/link``: takes the connection over until it ends."""
        links = self._links if request.query.get("both") == "1" else None

        def link(
            credentials: Credentials, transport: asyncio.Transport, before: asyncio.Protocol
        ) -> _Accepted:
            wire = _Accepted(
                credentials.peer,
                self._inbox,
                transport,
                opened=False,
                seal=None if links is None else self._auth.frames(credentials, back=True),
                frames=self._frames(credentials),
                before=before,
            )
            wire.links = links
            return wire

        headers = {} if links is None else {BOTH_HEADER: "1"}
        return await self._switch.take_over(request, MAX_LINKS, link, headers)

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


class _Accepted(LinkWire):
    """A link that a peer has opened."""

    links: Links | None = None

    async def run(self, welcome: bytes) -> None:
        """As api.switching.Switched."""
        self.begin(welcome=welcome)
        if self.links is not None:
            self.links.accepted(self)
        try:
            await self.serve()
        except (TimeoutError, ValueError, P2PDistError) as error:
            logger.info("swarm link from peer %s ended: %r", self.peer.short, error)
        finally:
            if self.links is not None:
                self.links.ended(self)
