"""One end of a swarm link: the connection that carries the control messages of two agents, after it has left HTTP.

Frames are a length (4 bytes, big-endian), a MAC (16 bytes, bound to the request that opened the link, to the direction
and to the frame's place) and the payload; a length of 0 is a sign of life, which only who opened the link gives.
Always true here: frames are handed to the inbox in their order, as their proven sender's, and only when their MAC holds;
a bad MAC or length ends the connection; while the inbox is at work on a frame, and after MAX_AT_ONCE of them in one turn
of the loop, no more is read. Who opened it may not stay silent for SILENCE seconds, and ends it when neither side has had
anything to say for IDLE; the other side does not begin to speak on it after QUIET, so nothing is lost by that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from p2pdist.errors import P2PDistError, UnreachableError
from p2pdist.peers.swarm_port import SwarmInbox, Work
from p2pdist.peers.upgrade import Answer, HeadReader
from p2pdist.records import PeerId
from p2pdist.wire.sealed_frames import FrameReader, FrameSeal
from p2pdist.wire.swarm_messages import LINK_FRAMES

logger = logging.getLogger(__name__)

PATH = "/p2p/v1/link"
BOTH_PATH = PATH + "?both=1"
BOTH_HEADER = "P2PDist-Both"
IDLE = 30.0
QUIET = 15.0
SILENCE = 20.0
ALIVE_EVERY = 5.0
MAX_AT_ONCE = 256
_ALIVE = bytes(4)
_HIGH_WATER = 256 * 1024
_GATHER = 64 * 1024


class LinkWire(asyncio.Protocol):
    """``seal``: of what this end says (None: the other takes nothing); ``frames``: what the other says (None: nothing).

    Made for a connection that another protocol has had until now; ``before``, if given, is told of its end. ``begin`` it,
    then ``serve`` it. ``on_room`` is called when it takes frames again.
    """

    def __init__(
        self,
        peer: PeerId,
        inbox: SwarmInbox,
        transport: asyncio.Transport,
        *,
        opened: bool,
        seal: FrameSeal | None,
        frames: FrameReader | None,
        before: asyncio.Protocol | None = None,
    ) -> None:
        self.peer = peer
        self.retired = False
        self.on_room: Callable[[], None] = lambda: None
        self._inbox = inbox
        self._transport = transport
        self._opened = opened
        self._seal = seal
        self._frames = frames
        self._before = before
        self._loop = asyncio.get_running_loop()
        self._gathered: list[bytes] = []
        self._size = 0
        self._sent = False
        self._paused = False
        self._quiet = self._silent = self._still = 0.0
        self._heard = self._spoke = False
        self._work: Work | None = None
        self._error: Exception | None = None
        self._over = False
        self._news = asyncio.Event()

    @property
    def takes(self) -> bool:
        """Whether a frame can be written now."""
        return not self._paused and not self._over

    @property
    def is_over(self) -> bool:
        return self._over

    @property
    def is_for_sending(self) -> bool:
        """Whether frames may be given to it at all: who opened it may be about to close one that was long quiet."""
        return self._seal is not None and not self._over and (self._opened or not self.is_quiet)

    @property
    def is_quiet(self) -> bool:
        """Whether neither side has said anything for long."""
        return self._quiet >= QUIET

    def begin(self, *, welcome: bytes = b"", rest: bytes = b"") -> None:
        """Take the connection over: say ``welcome``, if anything; ``rest`` came already."""
        if welcome:
            self._transport.write(welcome)
        self._transport.set_write_buffer_limits(_HIGH_WATER)
        self._transport.resume_reading()  # what came in the meantime may have stopped it
        if rest:
            self.data_received(rest)

    def write(self, frame: bytes) -> None:
        """What is sent in one turn of the loop goes out at its end, in one write."""
        assert self._seal is not None
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(LINK_FRAMES.pack(self._seal.next(frame), frame))
        self._size += len(frame)
        if self._size >= _GATHER:
            self._flush()

    def _flush(self) -> None:
        if not self._gathered:
            return
        self._sent = True
        parts, self._gathered, self._size = self._gathered, [], 0
        if not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """End it; what waits in it is lost."""
        self._end()
        self._transport.abort()

    async def serve(self) -> None:
        """Serve until it is over; raises ValueError for what the other side did not make, TimeoutError for silence, and
        what the inbox's work raised."""
        due = self._loop.time() + ALIVE_EVERY
        try:
            while not self._over:
                try:
                    async with asyncio.timeout_at(due):
                        await self._news.wait()
                except TimeoutError:
                    due = self._loop.time() + ALIVE_EVERY
                    self._look()
                self._news.clear()
                await self._catch_up()
        finally:
            if self._work is not None:
                self._work.close()
        if self._error is not None:
            raise self._error

    # -- time --

    def _look(self) -> None:
        """Every ALIVE_EVERY seconds."""
        self._silent = 0.0 if self._heard else self._silent + ALIVE_EVERY
        if self._paused:
            self._still += ALIVE_EVERY
            if self._still >= IDLE:
                self._end(TimeoutError("it takes nothing any more"))
            self._heard = False
            return
        self._flush()
        self._quiet = 0.0 if self._sent or self._spoke else self._quiet + ALIVE_EVERY
        if not self._opened:
            if self._silent >= SILENCE:
                self._end(TimeoutError("not even a sign of life"))
        elif self._quiet >= IDLE:
            self.retired = True
            self._end()
        elif not self._sent:
            self._transport.write(_ALIVE)
        self._heard = self._spoke = self._sent = False

    # -- what comes --

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
        assert self._frames is not None
        try:
            for _ in range(MAX_AT_ONCE):
                frame = self._frames.next()
                if frame is None:
                    return None
                self._spoke = True
                work = self._inbox.received(self.peer, frame)
                if work is not None:
                    return work
        except ValueError as error:
            self._end(error)
            return None
        return asyncio.sleep(0)  # the others want a turn too

    def _end(self, error: Exception | None = None) -> None:
        self._over, self._error = True, self._error or error
        self._news.set()

    # -- asyncio.Protocol --

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        if self._frames is None:
            self._end(ValueError("something came where nothing is to be said"))
            self._transport.abort()
            return
        self._heard = True
        self._frames.push(data)
        if self._work is None:
            self._work = self._hand_over()
            if self._work is not None:
                self._transport.pause_reading()
                self._news.set()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused, self._still = False, 0.0
        if not self._over:
            self.on_room()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        if self._before is not None:
            self._before.connection_lost(exc)


class Greeting(asyncio.Protocol):
    """A link while it is being opened: reads the answer, and keeps what comes after it until the link begins.

    ``on_connected`` is called when there is a connection.
    """

    def __init__(self, on_connected: Callable[[], None]) -> None:
        self._on_connected = on_connected
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._reader = HeadReader()
        self._rest = b""
        self._over = False

    def greet(self, request: bytes) -> asyncio.Future[Answer]:
        assert self._transport is not None
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        self._fail(UnreachableError("the connection was closed"))
        if self._transport is not None:
            self._transport.abort()

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """The connection, and what came on it; whoever takes it sets its protocol at once. Raises UnreachableError."""
        if self._over or self._transport is None:
            raise UnreachableError("the peer ended the connection early")
        return self._transport, self._rest

    def _fail(self, error: P2PDistError) -> None:
        self._over = True
        if not self._answer.done():
            self._answer.set_exception(error)

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass of asyncio.Transport
        self._on_connected()

    def data_received(self, data: bytes) -> None:
        if self._answer.done():
            self._rest += data
            return
        try:
            whole = self._reader.push(data)
        except P2PDistError as error:
            self._fail(error)
            return
        if whole is not None:
            assert self._transport is not None
            self._transport.pause_reading()
            answer, self._rest = whole
            self._answer.set_result(answer)

    def eof_received(self) -> None:
        self._fail(UnreachableError("the peer ended the connection early"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(UnreachableError(f"the peer broke the connection: {exc!r}"))
