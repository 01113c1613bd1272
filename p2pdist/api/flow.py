"""The sending end of flows (wire/flow_frames.py): pieces of blobs that are held, or that are still arriving.

Always true here:
- only who has proven the cluster key opens a flow, and every request on it is sealed;
- a frame's bytes are all there before its head is sent, so that nothing on the connection waits for what is still to come;
- a peer that takes no byte for a while is cut off (flow_output.py);
- every want ends: sent, cancelled, or refused when nothing of it has come for WAIT seconds;
- what a flow may want and hold open is bounded (flow_wants.py); MAX_FLOWS flows a peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from aiohttp import web

from p2pdist.api.flow_output import FlowOutput, flow_output
from p2pdist.api.flow_source import BlobSource, Partials, open_source
from p2pdist.api.flow_wants import GONE, MAX_WANTS, OpenWant, Wants
from p2pdist.api.sendfile import Pace
from p2pdist.api.switching import Switch
from p2pdist.clock import Clock
from p2pdist.errors import InvalidInputError, P2PDistError
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId
from p2pdist.store.port import Store
from p2pdist.wire.flow_frames import REQUESTS, Cancel, Want, decode_request
from p2pdist.wire.http_auth import Credentials, HttpAuth
from p2pdist.wire.sealed_frames import FrameReader

logger = logging.getLogger(__name__)

FRAME = 512 * 1024
WAIT = 32.0
IDLE = 60.0
MAX_FLOWS = 4
_CHECK = 0.5

Sent = Callable[[PeerId, int], None]


class FlowDoor:
    """Opens flows for proven peers."""

    def __init__(
        self, store: Store, partials: Partials, auth: HttpAuth, clock: Clock, sent: Sent, pace: Pace | None
    ) -> None:
        self._store = store
        self._partials = partials
        self._auth = auth
        self._clock = clock
        self._sent = sent
        self._pace = pace
        self._switch = Switch(auth, "p2pdist-flow")

    async def open(self, request: web.Request) -> web.StreamResponse:
        """The handler of ``GET /p2p/v1/flow``: takes the connection over until it ends."""
        return await self._switch.take_over(request, MAX_FLOWS, partial(_Flow, self))

    async def source(self, digest: Digest, told: Callable[[], None]) -> BlobSource | None:
        """Where the blob's bytes are, if peers may have them."""
        return await open_source(self._store, self._partials, digest, told)

    def now(self) -> float:
        return self._clock.now()

    def requests(self, credentials: Credentials) -> FrameReader:
        return FrameReader(REQUESTS, self._auth.frames(credentials))

    def sent(self, peer: PeerId, size: int) -> None:
        """So many body bytes have left."""
        self._sent(peer, size)

    async def pace(self, size: int) -> None:
        """Wait until the upload limit allows more, after ``size`` bytes."""
        if self._pace is not None:
            await self._pace(size)


class _Flow(asyncio.Protocol):
    """One flow; it hands the connection's end on to the protocol that it replaced."""

    def __init__(
        self,
        door: FlowDoor,
        credentials: Credentials,
        transport: asyncio.Transport,
        before: asyncio.Protocol,
    ) -> None:
        self._door = door
        self._transport = transport
        self._peer = credentials.peer
        self._before = before
        self._requests = door.requests(credentials)
        self._arrived: list[Want | Cancel] = []
        self._news = asyncio.Event()
        self._wants = Wants(lambda digest: door.source(digest, self._news.set))
        self._room = asyncio.Event()
        self._room.set()
        self._over = False
        self._look_at = 0.0

    # -- asyncio.Protocol --

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        try:
            self._requests.push(data)
            while (payload := self._requests.next()) is not None:
                self._arrived.append(decode_request(payload))
            if len(self._arrived) > 2 * MAX_WANTS:
                raise InvalidInputError("too many flow requests at once")
        except InvalidInputError as error:
            logger.info("flow to peer %s ended: %s", self._peer.short, error)
            self._end()
        self._news.set()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        self._before.connection_lost(exc)

    def _end(self) -> None:
        self._over = True
        self._news.set()
        self._room.set()

    # -- serving --

    async def run(self, welcome: bytes) -> None:
        """Say ``welcome``, and serve until the connection ends."""
        out = flow_output(self._transport, partial(self._door.sent, self._peer), self._room)
        try:
            await out.write(welcome)
            await self._serve(out)
        except (OSError, TimeoutError, P2PDistError) as error:
            logger.info("flow to peer %s ended: %r", self._peer.short, error)
        finally:
            self._wants.close()
            out.close()

    async def _serve(self, out: FlowOutput) -> None:
        quiet = 0.0
        while not self._over:
            self._news.clear()
            await self._take_requests(out)
            await self._refuse_hopeless(out)
            want = self._wants.first_ready()
            if want is not None:
                quiet = 0.0
                await self._send(out, want)
                continue
            try:
                async with asyncio.timeout(_CHECK):
                    await self._news.wait()
            except TimeoutError:
                quiet = 0.0 if self._wants else quiet + _CHECK
                if quiet >= IDLE:
                    return

    async def _take_requests(self, out: FlowOutput) -> None:
        arrived, self._arrived = self._arrived, []
        for request in arrived:
            if isinstance(request, Cancel):
                self._wants.forget(request.handle)
                continue
            refusal = await self._wants.take(request, self._door.now())
            if refusal is not None:
                await out.refuse(request.handle, refusal)

    async def _refuse_hopeless(self, out: FlowOutput) -> None:
        """Looks once in _CHECK seconds, however busy the flow is with other wants."""
        now = self._door.now()
        if now < self._look_at:
            return
        self._look_at = now + _CHECK
        for handle in self._wants.hopeless(now - WAIT):
            self._wants.forget(handle)
            await out.refuse(handle, GONE)

    async def _send(self, out: FlowOutput, want: OpenWant) -> None:
        offset = want.position
        length = min(want.source.ready(offset), want.stop, offset + FRAME) - offset
        await out.data(want.handle, want.source, offset, length)
        want.position += length
        want.since = self._door.now()
        if want.position >= want.stop:
            self._wants.forget(want.handle)
        await self._door.pace(length)
