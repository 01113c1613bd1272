"""How a proven peer's connection leaves HTTP: what comes after the answer 101 are frames (flow.py, swarm_inbox.py)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, cast

from aiohttp import web

from p2pdist.api.peer_gate import CREDENTIALS, PEER_HEADER
from p2pdist.records import PeerId
from p2pdist.wire.http_auth import MAC_HEADER, Credentials, HttpAuth


class Switched(Protocol):
    """What takes a connection over: an asyncio.Protocol, which tells the end to the one that it replaced."""

    async def run(self, welcome: bytes) -> None:
        """Say ``welcome``, and serve until the connection ends."""


Take = Callable[[Credentials, asyncio.Transport, asyncio.Protocol], Switched]


class Switch:
    """Takes connections over, and counts those of each peer. ``name`` is the protocol that they switch to."""

    def __init__(self, auth: HttpAuth, name: str) -> None:
        self._auth = auth
        self._name = name
        self._open: Counter[PeerId] = Counter()

    def open_of(self, peer: PeerId) -> int:
        """How many this peer has."""
        return self._open[peer]

    @contextmanager
    def counted(self, peer: PeerId) -> Iterator[None]:
        """One more of this peer, for as long as this lasts."""
        self._open[peer] += 1
        try:
            yield
        finally:
            self._open[peer] -= 1
            if not self._open[peer]:
                del self._open[peer]

    async def take_over(
        self, request: web.Request, most: int, take: Take, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """Switch, unless the peer has ``most`` already, and serve until the connection ends.

        ``take`` makes what serves, from the credentials, the connection and the protocol that is replaced; ``headers`` go
        with the answer, under its seal.
        """
        credentials, transport = request[CREDENTIALS], request.transport
        if self._open[credentials.peer] >= most:
            return busy()
        if transport is None or transport.is_closing():
            return web.Response(status=400, body=b"gone\n")
        served = take(credentials, transport, cast(asyncio.Protocol, request.protocol))
        transport.set_protocol(cast(asyncio.Protocol, served))
        try:
            with self.counted(credentials.peer):
                await served.run(_welcome(self._auth, credentials, self._name, headers or {}))
        finally:
            transport.abort()
        return web.Response(status=400, body=b"over\n")  # the connection is gone: nobody gets this


def busy() -> web.Response:
    """The answer to a peer that has too many."""
    return web.Response(status=503, body=b"busy\n")


def _welcome(auth: HttpAuth, credentials: Credentials, protocol: str, more: Mapping[str, str]) -> bytes:
    """A sealed 101 that switches to ``protocol``."""
    headers = {"Connection": "Upgrade", "Upgrade": protocol, PEER_HEADER: auth.own.hex, **more}
    headers[MAC_HEADER] = auth.seal(credentials, 101, headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode("ascii")
