"""The receiving end of the swarm's control messages (peers/swarm_links.py tells the format)."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Iterator

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
        frames = FrameReader(self._auth.frames(credentials))
        try:
            while True:
                async with asyncio.timeout(SILENCE):
                    data = await request.content.readany()
                if not data:
                    return web.Response(body=b"bye\n")
                for frame in frames.feed(data):
                    await self._inbox.received(credentials.peer, frame)
        except ConnectionError:
            return web.Response(body=b"bye\n")
        except (TimeoutError, ValueError) as error:
            logger.info("swarm link from peer %s ended: %r", credentials.peer.short, error)
            response = web.Response(status=400, body=b"bad frame\n")
            response.force_close()
            return response


class FrameReader:
    """Cuts what arrives into frames and checks them; keeps at most one unfinished frame beside what came last."""

    def __init__(self, seal: FrameSeal) -> None:
        self._seal = seal
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The frames that are whole now; raises ValueError for a length or a MAC that the sender did not make."""
        data = self._rest + data
        at, head = 0, 4 + FrameSeal.SIZE
        while len(data) - at >= 4:
            length = int.from_bytes(data[at : at + 4], "big")
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes")
            if length == 0:
                at += 4
                continue
            if len(data) - at < head + length:
                break
            frame = data[at + head : at + head + length]
            if not hmac.compare_digest(data[at + 4 : at + head], self._seal.next(frame)):
                raise ValueError("a frame that the sender did not make")
            at += head + length
            yield frame
        self._rest = data[at:]
