"""The receiving end of a flow (wire/flow_frames.py): pieces from one peer, straight into the callers' memory.

What a general HTTP client does for every few KiB that arrive is most of the cost of receiving (docs/decisions). Here the
kernel copies into the piece's own buffer, and is asked to report 128 KiB at a time (SO_RCVLOWAT); Python runs a few
times per piece.
Always true here: a cancelled caller's memory is not touched any more; nothing beyond what was asked for is stored,
and no more than was asked for is received (what is cancelled may still come); whatever breaks the protocol ends the
connection, and with it all that is under way on it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import cast

from p2pdist.errors import (
    BusyError,
    NotFoundError,
    P2PDistError,
    ProtocolError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.peers.upgrade import MAX_HEAD, Answer, parse_head
from p2pdist.wire.flow_frames import DATA, HEAD, REFUSED, REQUESTS, Want, encode_cancel, encode_want
from p2pdist.wire.sealed_frames import FrameSeal

_LOW_WATER = 128 * 1024
_LOWEST_WATER = 32 * 1024
_SLOW = 0.1
_SLOW_READ = 0.2
_SCRATCH = 64 * 1024
_CHECK = 0.5
_RETRY = 0.25
_END = b"\r\n\r\n"


class Intake:
    """What one caller wants: its memory, how much of it is filled, and the end."""

    __slots__ = ("done", "filled", "on_moved", "quiet", "seen", "view")

    def __init__(
        self, view: memoryview, on_moved: Callable[[int], None] | None, done: asyncio.Future[None]
    ) -> None:
        self.view = view
        self.filled = 0
        self.seen = 0
        self.quiet = 0.0
        self.on_moved = on_moved
        self.done = done

    def fail(self, error: P2PDistError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class FlowConnection(asyncio.BufferedProtocol):
    """See the module's rules. Made by ``loop.create_connection``; ``greet`` once, then ``want``.

    ``on_received`` is told of body bytes as they come, also of those that nobody wants any more. Times in seconds.
    """

    def __init__(
        self, on_received: Callable[[int], None], progress_timeout: float, idle_timeout: float
    ) -> None:
        self.alive = True
        self._idle_timeout = idle_timeout
        self._on_received = on_received
        self._progress_timeout = progress_timeout
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._seal: FrameSeal | None = None
        self._head = bytearray(MAX_HEAD)
        self._head_view = memoryview(self._head)
        self._head_size = 0
        self._open = False
        self._intakes: dict[int, Intake] = {}
        self._last_handle = 0
        self._into: Intake | None = None
        self._left = 0
        self._uncounted = 0
        self._scratch: memoryview | None = None
        self._low_water = 1
        self._wake_at = _LOW_WATER
        self._woken = self._told = 0.0
        self._forgone = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle = 0.0

    # -- for the caller --

    def greet(self, request: bytes) -> asyncio.Future[Answer]:
        """Send the request that opens the flow; its answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def begin(self, seal: FrameSeal) -> None:
        """The answer was good: from now on there may be wants."""
        self._seal = seal
        self._watch()

    def want(
        self,
        digest: Digest,
        offset: int,
        size: int,
        view: memoryview,
        on_moved: Callable[[int], None] | None,
    ) -> tuple[int, asyncio.Future[None]]:
        """Ask for ``len(view)`` bytes from ``offset`` of a blob of ``size``; done when ``view`` is full.

        Fails with NotFoundError, BusyError, StalledError, ProtocolError, UnreachableError.
        """
        self._last_handle = handle = (self._last_handle + 1) & 0xFFFFFFFF
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._intakes[handle] = Intake(view, on_moved, done)
        self._idle = 0.0
        self._request(encode_want(Want(handle, digest, offset, len(view), size)))
        return handle, done

    def cancel(self, handle: int) -> None:
        """Want it no longer; its memory is not touched any more."""
        intake = self._intakes.pop(handle, None)
        if intake is None:
            return
        self._forgone += len(intake.view) - intake.filled
        if self._into is intake:
            self._into = None
            self._forgone -= self._left
        if self.alive:
            self._request(encode_cancel(handle))

    def _request(self, payload: bytes) -> None:
        assert self._transport is not None
        assert self._seal is not None
        self._transport.write(REQUESTS.pack(self._seal.next(payload), payload))

    def close(self, error: P2PDistError | None = None) -> None:
        """End the connection; what is under way fails with ``error``."""
        if not self.alive:
            return
        self.alive = False
        self._into = None
        self._count()
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        failure = error or UnreachableError("the connection to the peer was closed")
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(failure)
        intakes, self._intakes = self._intakes, {}
        for intake in intakes.values():
            intake.fail(failure)
        if self._transport is not None:
            self._transport.abort()

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_CHECK, self._check)

    def _check(self) -> None:
        """Nothing waits forever."""
        if not self._intakes:
            self._idle += _CHECK
            if self._idle >= self._idle_timeout:
                self.close()
        for handle, intake in list(self._intakes.items()):
            intake.quiet = 0.0 if intake.filled > intake.seen else intake.quiet + _CHECK
            intake.seen = intake.filled
            if intake.quiet >= self._progress_timeout:
                self.cancel(handle)
                intake.fail(StalledError(f"no byte of a piece came for {intake.quiet:g} s"))
        if self.alive:
            self._watch()

    # -- asyncio.BufferedProtocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        if transport.get_extra_info("sslcontext") is None:
            # Setting an option of uvloop's stand-in makes and unmakes a socket each time.
            self._socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._left:
            if self._into is not None:
                return self._into.view[self._into.filled : self._into.filled + self._left]
            if self._scratch is None:
                self._scratch = memoryview(bytearray(_SCRATCH))
            return self._scratch[: self._left]
        return self._head_view[self._head_size : HEAD.size if self._open else MAX_HEAD]

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._left:
                self._take_body(nbytes)
            else:
                self._head_size += nbytes
                self._take_head()
        except P2PDistError as error:
            self.close(error)

    def eof_received(self) -> bool:
        self.close(UnreachableError("the peer ended the connection early"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.close(UnreachableError(f"the peer broke the connection: {exc!r}"))

    # -- what comes --

    def _take_head(self) -> None:
        if self._open:
            if self._head_size == HEAD.size:
                self._head_size = 0
                self._begin_frame(*HEAD.unpack_from(self._head))
            return
        end = self._head.find(_END, 0, self._head_size)
        if end < 0:
            if self._head_size >= MAX_HEAD:
                raise ProtocolError("an answer with endless headers")
            return
        answer, rest = parse_head(bytes(self._head_view[:end])), self._head_size - end - len(_END)
        self._open, self._head_size = answer.status == 101, 0
        if self._answer is None or self._answer.done() or (rest and self._open):
            raise ProtocolError("a flow that begins before it is asked for")
        self._answer.set_result(answer)

    def _begin_frame(self, kind: int, handle: int, number: int) -> None:
        intake = self._intakes.get(handle)
        if kind == REFUSED:
            if intake is not None:
                del self._intakes[handle]
                intake.fail(_refusal(number))
            return
        if kind != DATA or not number:
            raise ProtocolError("a flow frame of no known kind")
        if intake is not None and intake.filled + number > len(intake.view):
            raise ProtocolError("more bytes than were asked for")
        if intake is None:
            self._forgone -= number
            if self._forgone < 0:
                raise ProtocolError("bytes that nobody asked for")
        self._into, self._left = intake, number
        self._woken = self._told = self._loop.time()
        self._set_low_water()

    def _take_body(self, count: int) -> None:
        self._left -= count
        self._uncounted += count
        intake = self._into
        if intake is not None:
            intake.filled += count
        if self._left:
            self._look_at_pace()
            if self._low_water != min(self._left, self._wake_at):
                self._set_low_water()
            return
        self._count()
        self._set_low_water()
        if intake is None:
            return
        if intake.filled == len(intake.view):
            self._finish(intake)
        elif intake.on_moved is not None:
            intake.on_moved(intake.filled)

    def _look_at_pace(self) -> None:
        """A frame that takes long is told of while it comes, for what there is of it can be passed on; and what takes very
        long is read in smaller parts."""
        now, intake = self._loop.time(), self._into
        took, self._woken = now - self._woken, now
        if took > _SLOW_READ:
            self._wake_at = max(_LOWEST_WATER, self._wake_at // 2)
        elif took < _SLOW_READ / 4:
            self._wake_at = min(_LOW_WATER, self._wake_at * 2)
        if now - self._told >= _SLOW and intake is not None and intake.on_moved is not None:
            self._told = now
            intake.on_moved(intake.filled)

    def _count(self) -> None:
        if self._uncounted:
            self._on_received(self._uncounted)
            self._uncounted = 0

    def _finish(self, intake: Intake) -> None:
        self._into = None
        for handle, each in self._intakes.items():
            if each is intake:
                del self._intakes[handle]
                break
        if not intake.done.done():
            intake.done.set_result(None)

    def _set_low_water(self) -> None:
        mark = min(self._left, self._wake_at) if self._left else 1
        if self._socket is None or mark == self._low_water:
            return
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
            self._low_water = mark
        except OSError:
            self._socket.close()
            self._socket = None  # closed in the meantime: connection_lost comes


def _refusal(status: int) -> P2PDistError:
    if status == 404:
        return NotFoundError("the peer does not hold it")
    if status in (429, 503):
        return BusyError("the peer is busy", _RETRY)
    return ProtocolError(f"the peer refuses with {status}")
