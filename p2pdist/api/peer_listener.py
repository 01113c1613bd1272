"""The peer listener: binds the peer application, and bounds what strangers may occupy.

Always true here: a connection that has not carried a proven request is closed ``stranger_timeout`` seconds after it was
made, whatever dribbles in on it (the TLS handshake has the same bound); there are at most ``max_strangers`` of these, at
most ``max_strangers_per_address`` from one address, and ``max_connections`` in all. Beyond, new ones are cut at once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from p2pdist.api.peer_gate import ProvenConnection
from p2pdist.api.server import SERVER

_MAX_HEADER_LINE = 4096
_MAX_HEADERS = 32


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Counts of connections; times in seconds. ``idle_timeout`` is for proven connections between requests."""

    max_connections: int = 1024
    max_strangers: int = 256
    max_strangers_per_address: int = 32
    stranger_timeout: float = 5.0
    idle_timeout: float = 60.0


class PeerListener:
    """Serves one application on one address from ``start`` to ``close``; ``grace`` is in seconds."""

    def __init__(
        self, app: web.Application, limits: ConnectionLimits | None = None, *, grace: float = 1.0
    ) -> None:
        app.on_response_prepare.append(_name_server)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=grace)
        self._door = _Door(limits or ConnectionLimits())
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> None:
        """Bind (``host`` "" is every address, port 0 any free one) and serve; raises OSError when it cannot."""
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        handshake = None if ssl_context is None else self._door.limits.stranger_timeout
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _PeerConnection(self._door, server),
            host or None,
            port,
            ssl=ssl_context,
            ssl_handshake_timeout=handshake,
            ssl_shutdown_timeout=handshake,
            backlog=512,
        )

    @property
    def port(self) -> int:
        """The port that is bound."""
        assert self._server is not None, "not started"
        return cast(int, self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """Open connections, strangers included."""
        return self._door.open

    @property
    def strangers(self) -> int:
        """Open connections that have proven nothing yet."""
        return self._door.strangers

    async def close(self) -> None:
        """Stop listening, let what is being sent end within ``grace``, cut the rest; takes twice that at most."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()


async def _name_server(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = SERVER


class _Door:
    """The counts behind the limits; decides who may come in."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.open = 0
        self._strangers: Counter[str] = Counter()

    @property
    def strangers(self) -> int:
        return self._strangers.total()

    def enter(self, address: str) -> bool:
        limits = self.limits
        if (
            self.open >= limits.max_connections
            or self.strangers >= limits.max_strangers
            or self._strangers[address] >= limits.max_strangers_per_address
        ):
            return False
        self.open += 1
        self._strangers[address] += 1
        return True

    def known(self, address: str) -> None:
        self._strangers[address] -= 1
        if self._strangers[address] <= 0:
            del self._strangers[address]

    def leave(self, address: str, *, stranger: bool) -> None:
        self.open -= 1
        if stranger:
            self.known(address)


class _PeerConnection(web.RequestHandler, ProvenConnection):
    """aiohttp's connection, with a door in front and a deadline for proving who one is."""

    def __init__(self, door: _Door, server: web.Server) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as aiohttp's own runner passes it: no access log
            keepalive_timeout=door.limits.idle_timeout,
            max_line_size=_MAX_HEADER_LINE,
            max_field_size=_MAX_HEADER_LINE,
            max_headers=_MAX_HEADERS,
            lingering_time=0.0,
        )
        self._door = door
        self._address = ""
        self._inside = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        address = transport.get_extra_info("peername")
        self._address = str(address[0]) if address else ""
        if not self._door.enter(self._address):
            cast(asyncio.Transport, transport).abort()
            return
        self._inside = True
        self._deadline = asyncio.get_running_loop().call_later(
            self._door.limits.stranger_timeout, self.force_close
        )
        super().connection_made(transport)

    def proven(self) -> None:
        if self._deadline is not None and self._inside:
            self._deadline.cancel()
            self._deadline = None
            self._door.known(self._address)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is not HTTP gets a constant answer, and no line in the log: strangers must not be able to fill it."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        response = web.Response(status=400, body=b"bad request\n", headers={"Server": SERVER})
        response.force_close()
        return response

    def data_received(self, data: bytes) -> None:
        if self._inside:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._inside:
            return
        self._inside = False
        stranger = self._deadline is not None
        if self._deadline is not None:
            self._deadline.cancel()
        self._door.leave(self._address, stranger=stranger)
        super().connection_lost(exc)
