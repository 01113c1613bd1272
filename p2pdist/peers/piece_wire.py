"""One connection on which pieces are asked for over HTTP/1.1, and received straight into the caller's memory.

What a general HTTP client does for every few KiB that arrive is most of the cost of receiving (docs/decisions). Here the
kernel copies into the piece's own buffer, and is asked to report 128 KiB at a time (SO_RCVLOWAT); Python runs a few
times per piece. It understands exactly what an agent answers: a status line, headers within HEAD bytes, a body of the
announced Content-Length; anything else is a ProtocolError and ends the connection.
Always true here: one exchange at a time; nothing beyond the announced body is read.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from p2pdist.errors import P2PDistError, ProtocolError, UnreachableError

HEAD = 8192
SMALL_BODY = 4096
_LOW_WATER = 128 * 1024
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9])(?: |\Z)")
_END = b"\r\n\r\n"
_MAX_HEADERS = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and headers (names in lower case; a name that comes twice is refused)."""

    status: int
    headers: dict[str, str]


def parse_head(head: bytes) -> Answer:
    """A status line and headers, without the empty line; raises ProtocolError."""
    lines = head.split(b"\r\n")
    match = _STATUS.match(lines[0])
    if match is None or len(lines) > _MAX_HEADERS + 1:
        raise ProtocolError("what answers there is not an agent")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        key = name.decode("latin-1").lower()
        if not colon or not key or key != key.strip() or key in headers:
            raise ProtocolError("an answer with a malformed or repeated header")
        headers[key] = value.strip().decode("latin-1")
    return Answer(int(match[1]), headers)


def content_length(answer: Answer, longest: int) -> int:
    """The body's length; raises ProtocolError when it is not announced, or longer than ``longest``."""
    text = answer.headers.get("content-length", "")
    if "transfer-encoding" in answer.headers or not (text.isascii() and text.isdigit() and len(text) < 16):
        raise ProtocolError("an answer without a plain Content-Length")
    if int(text) > longest:
        raise ProtocolError(f"an answer of {int(text)} bytes where at most {longest} were asked for")
    return int(text)


class PieceConnection(asyncio.BufferedProtocol):
    """See the module's rules. Made by ``loop.create_connection``; used by one exchange at a time."""

    def __init__(self) -> None:
        self.moved = 0  # body bytes of the exchange so far
        self.alive = True
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._head = bytearray(HEAD)
        self._head_view = memoryview(self._head)
        self._head_size = 0
        self._body: memoryview | None = None
        self._error_body = bytearray()
        self._length = 0
        self._low_water = 1
        self._answer: Answer | None = None
        self._result: asyncio.Future[Answer] | None = None
        self._on_moved: Callable[[int], None] | None = None

    # -- for the caller --

    def ask(
        self, request: bytes, body: memoryview, on_moved: Callable[[int], None] | None = None
    ) -> asyncio.Future[Answer]:
        """Send one request; the result comes when its body is in ``body`` (errors: their body is dropped). ``on_moved``
        is told, as it grows, how much of a good answer's body is there."""
        assert self._transport is not None
        assert self._result is None, "one exchange at a time"
        self._head_size = self.moved = 0
        self._answer = None
        self._body = body
        self._on_moved = on_moved
        self._result = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._result

    def abort(self) -> None:
        """Close without a word; the caller's memory is not touched any more."""
        self.alive = False
        self._body = None
        if self._result is not None:
            self._result.cancel()
            self._result = None
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.BufferedProtocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if transport.get_extra_info("sslcontext") is None:
            self._socket = transport.get_extra_info("socket")

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._answer is None or self._body is None or self.moved >= self._length:
            if self._head_size >= HEAD:
                self._head_size = 0  # whatever comes now ends the connection anyway
            return self._head_view[self._head_size :]
        return self._body[self.moved : self._length]

    def buffer_updated(self, nbytes: int) -> None:
        if self._result is None:
            self.abort()  # nothing was asked for
        elif self._answer is None:
            self._head_size += nbytes
            self._read_head()
        else:
            self.moved += nbytes
            self._advance()

    def eof_received(self) -> bool:
        self._fail(UnreachableError("the peer ended the connection early"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(UnreachableError(f"the peer broke the connection: {exc!r}"))

    # -- the exchange --

    def _read_head(self) -> None:
        end = self._head.find(_END, 0, self._head_size)
        if end < 0:
            if self._head_size >= HEAD:
                self._fail(ProtocolError("an answer with endless headers"))
            return
        try:
            answer = parse_head(bytes(self._head_view[:end]))
            self._begin_body(answer, bytes(self._head_view[end + len(_END) : self._head_size]))
        except P2PDistError as error:
            self._fail(error)

    def _begin_body(self, answer: Answer, first: bytes) -> None:
        assert self._body is not None
        if answer.status not in (200, 206):
            self._error_body = bytearray(SMALL_BODY)
            self._body = memoryview(self._error_body)
            self._on_moved = None
        self._length = content_length(answer, len(self._body))
        if len(first) > self._length:
            raise ProtocolError("an answer with more bytes than it announced")
        self._body[: len(first)] = first
        self.moved = len(first)
        self._answer = answer
        self._advance()

    def _advance(self) -> None:
        left = self._length - self.moved
        self._set_low_water(min(left, _LOW_WATER) if left else 1)
        if self._result is None or self._answer is None:
            return
        if left:
            if self._on_moved is not None:
                self._on_moved(self.moved)
            return
        result, self._result, self._body = self._result, None, None
        if self._answer.headers.get("connection", "").lower() == "close":
            self.abort()
        if not result.done():
            result.set_result(self._answer)

    def _set_low_water(self, mark: int) -> None:
        if self._socket is None or mark == self._low_water:
            return
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
            self._low_water = mark
        except (OSError, ValueError):
            self._socket = None  # closed in the meantime: connection_lost comes

    def _fail(self, error: P2PDistError) -> None:
        result, self._result = self._result, None
        self.abort()
        if result is not None and not result.done():
            result.set_exception(error)
