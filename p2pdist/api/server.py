"""Listeners for clients on this host (mirror, admin): binding, bounds on connections, and a graceful end.

Always true here:
- at most ``max_connections`` are open; one more is closed at once, never left to wait;
- a connection that opens with a TLS hello is closed at once: containers/image tries TLS first, even where it is told
  not to, and waits 10 s for an answer that plain HTTP never gives;
- the first request's headers arrive within ``header_timeout`` seconds, a later one's within ``idle_timeout``; lines and
  number of headers are bounded;
- when its client leaves, a handler is cancelled at once;
- at the end the listening socket closes first, so that new connections are refused and go elsewhere.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from p2pdist.errors import ConfigError

_TLS_HANDSHAKE = b"\x16"  # RFC 8446 section 5.1, ContentType handshake
_MAX_HEADER_LINE = 8190
_MAX_HEADERS = 64
_MAX_PORT = 65535
SERVER = "p2pdist"  # and no version: strangers need not know what this is made of


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """``key`` is the configuration key that errors name; times are in seconds. ``linger``: how long a body that nobody
    asked for is read and thrown away, so that its sender reads the answer. ``bad_request``: what is answered to what is
    no HTTP, and its media type."""

    key: str
    max_connections: int = 512
    header_timeout: float = 10.0
    idle_timeout: float = 90.0
    linger: float = 2.0
    bad_request: tuple[bytes, str] = (b"bad request\n", "text/plain")


class Listener:
    """Serves one application on one address from ``start`` to ``close``."""

    def __init__(self, app: web.Application, settings: ListenerSettings) -> None:
        self._settings = settings
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        self._server: asyncio.Server | None = None
        self._address: tuple[str, int] | None = None
        self._open: set[_Connection] = set()
        self._draining = False
        app.on_response_prepare.append(self._finish_headers)

    async def start(self, host: str, port: int) -> None:
        """Bind and serve; ``host`` "" is every address, ``port`` 0 any free one. Raises ConfigError when it cannot."""
        if not 0 <= port <= _MAX_PORT:  # uvloop would take it modulo 65536
            raise ConfigError(f"{self._settings.key}: port {port} is not within 0 to {_MAX_PORT}")
        await self._runner.setup()
        server = self._runner.server
        assert server is not None
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: _Connection(server, self._settings, self._open), host or None, port, backlog=512
            )
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(explain_bind_failure(self._settings.key, host, port, error)) from error
        bound = self._server.sockets[0].getsockname()
        self._address = (bound[0], bound[1])

    @property
    def address(self) -> tuple[str, int]:
        """The (first) address that is, or was, bound."""
        assert self._address is not None, "not started"
        return self._address

    @property
    def port(self) -> int:
        """The port of ``address``."""
        return self.address[1]

    @property
    def listening(self) -> bool:
        """Whether new connections are accepted."""
        return self._server is not None and not self._draining

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._open)

    async def close(self, drain: float = 0.0) -> None:
        """Refuse new connections, let requests in progress end within ``drain`` seconds, then cut the rest."""
        self._draining = True
        if self._server is not None:
            self._server.close()
        server = self._runner.server
        if server is not None:
            await asyncio.sleep(0)  # what has been accepted already becomes a request in progress
            server.pre_shutdown()
            cut = asyncio.get_running_loop().call_later(drain, self._cut)
            try:
                # The bound of aiohttp's own is only a net below ours: cut connections end their handlers.
                await server.shutdown(drain + 5.0)
            finally:
                cut.cancel()
        self._cut()
        await self._runner.cleanup()

    def _cut(self) -> None:
        for connection in list(self._open):
            connection.abort()

    async def _finish_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Server"] = SERVER
        if self._draining:
            response.headers["Connection"] = "close"


class _Connection(web.RequestHandler):
    """aiohttp's connection, with the module's bounds."""

    def __init__(self, server: web.Server, settings: ListenerSettings, open_: set[_Connection]) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as aiohttp's own runner passes it: no access log
            keepalive_timeout=settings.idle_timeout,
            max_line_size=_MAX_HEADER_LINE,
            max_field_size=_MAX_HEADER_LINE,
            max_headers=_MAX_HEADERS,
            lingering_time=settings.linger,
        )
        self._settings = settings
        self._all = open_
        self._socket: asyncio.Transport | None = None
        self._begun = False
        self._deadline: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """Close now, whatever has not been sent yet."""
        if self._socket is not None:
            self._socket.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        if len(self._all) >= self._settings.max_connections:
            transport.abort()
            return
        self._all.add(self)
        self._socket = transport
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(self._settings.header_timeout, self._check_first_request)
        super().connection_made(transport)

    def _check_first_request(self) -> None:
        if self._request_count == 0:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._socket is None:
            return
        if not self._begun and data:
            self._begun = True
            if data[:1] == _TLS_HANDSHAKE:
                self.abort()
                return
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._socket is None:
            return
        self._socket = None
        self._all.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is not HTTP gets a constant answer and no line in the log, which noise must not be able to fill."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        body, content_type = self._settings.bad_request
        headers = {"Content-Type": content_type, "Server": SERVER}
        response = web.Response(status=400, body=body, headers=headers)
        response.force_close()
        return response


def explain_bind_failure(key: str, host: str, port: int, error: OSError, *, udp: bool = False) -> str:
    """What is wrong with the address in the configuration's ``key``, and how to mend it."""
    where = f"{key} = {f'[{host}]' if ':' in host else host}:{port}"
    if error.errno == errno.EADDRINUSE:
        kind, option = ("UDP: ", "u") if udp else ("", "t")
        return (
            f"{where}: {kind}another program listens there already (ss -l{option}np 'sport = :{port}' names it); "
            f"stop it, or set {key} to a free port"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{where}: not permitted; use a port above 1023, or give the agent CAP_NET_BIND_SERVICE"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{where}: this host has no such address; set {key} to one of its own (ip address), or to :{port}"
        )
    if isinstance(error, socket.gaierror):
        return (
            f"{where}: {host!r} is no address and does not resolve; set {key} to an IP address of this host"
        )
    return f"{where}: cannot listen there ({error}); set {key} to another address"
