"""The receiving end of the swarm's control messages (peers/swarm_links.py tells the format)."""

from __future__ import annotations

import asyncio
import logging

from aiohttp import web

from p2pdist.api.peer_gate import CREDENTIALS
from p2pdist.peers.swarm_port import SwarmInbox
from p2pdist.wire.http_auth import FrameSeal, HttpAuth
from p2pdist.wire.swarm_messages import MAX_FRAME

logger = logging.getLogger(__name__)

PATH = "/p2p/v1/swarm"
SILENCE = 20.0


class SwarmDoor:
    """Reads frames from neighbours and hands them to the inbox; a bad MAC or length ends the connection."""

    def __init__(self, inbox: SwarmInbox, auth: HttpAuth) -> None:
        self._inbox = inbox
        self._auth = auth

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """The handler of ``POST /p2p/v1/swarm``; answers when the sender has ended."""
        credentials = request[CREDENTIALS]
        seal = self._auth.frames(credentials)
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    frame = await self._frame(request, seal)
                if frame:
                    await self._inbox.received(credentials.peer, frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            return web.Response(body=b"bye\n")
        except (TimeoutError, ValueError) as error:
            logger.info("swarm link from peer %s ended: %r", credentials.peer.short, error)
            response = web.Response(status=400, body=b"bad frame\n")
            response.force_close()
            return response

    async def _frame(self, request: web.Request, seal: FrameSeal) -> bytes:
        length = int.from_bytes(await request.content.readexactly(4), "big")
        if length == 0:
            return b""
        if length > MAX_FRAME:
            raise ValueError(f"a frame of {length} bytes")
        mac = await request.content.readexactly(FrameSeal.SIZE)
        frame = await request.content.readexactly(length)
        if mac != seal.next(frame):
            raise ValueError("a frame that the sender did not make")
        return frame
