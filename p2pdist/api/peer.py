"""What an agent answers to its peers: committed, shared blobs, and who it is.

Always true here:
- nothing but a constant refusal is done for a request before its sender has proven that it holds the cluster key;
- every answer to a proven request is sealed (wire/http_auth.py), errors too, so that no stranger can stand in;
- a blob that is absent and one that is not shared get the same answer;
- at most ``max_uploads`` bodies leave at once, and at most ``max_uploads_per_peer`` to one peer; who comes on top is
  told to come back (503). Small bodies (manifests, configs) have slots of their own: they never wait behind layers.

    GET|HEAD /p2p/v1/blobs/DIGEST   200, 206 (single Range), 404, 416, 503
    GET      /p2p/v1/flow           101: pieces of any blob over this connection (api/flow.py)
    GET      /p2p/v1/link           101: swarm messages over this connection (api/swarm_inbox.py)
    GET      /p2p/v1/hello          name, zone and version as P2PDist-* headers
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import quote

from aiohttp import web

from p2pdist.api.flow import FlowDoor
from p2pdist.api.flow_source import PartialBlob, Partials
from p2pdist.api.peer_gate import CREDENTIALS, HELLO_PATH, Gate
from p2pdist.api.sendfile import PROGRESS_TIMEOUT, Pace, send_file
from p2pdist.api.swarm_inbox import POST_PATH, Links, SwarmDoor
from p2pdist.api.warm import WarmDoor
from p2pdist.clock import Clock
from p2pdist.errors import BusyError, InvalidInputError, P2PDistError
from p2pdist.oci.digest import Digest
from p2pdist.oci.ranges import ByteRange, RangeNotSatisfiable, content_range, parse_range
from p2pdist.peers.link_wire import PATH as LINK_PATH
from p2pdist.peers.swarm_port import SwarmInbox
from p2pdist.records import PeerId
from p2pdist.store.port import BlobReader, Store
from p2pdist.swarm.geometry import MAX_PIECE
from p2pdist.wire.flow_frames import PATH as FLOW_PATH
from p2pdist.wire.http_auth import HttpAuth
from p2pdist.wire.http_verifier import Refusal

BLOBS_PATH = "/p2p/v1/blobs/"
MEDIA_TYPE_HEADER = "P2PDist-Media-Type"
RETRY_MS_HEADER = "P2PDist-Retry-Ms"
SMALL_BODY = 64 * 1024
_SMALL_SLOTS = 128
_PIECE_SLOTS = 512
_PIECE_WAIT = 3.0
_RETRY_SECONDS = 0.25
_READ = 256 * 1024


@dataclass(frozen=True, slots=True)
class PeerServerSettings:
    """Who this agent is, and how much it gives at once. ``progress_timeout`` is in seconds."""

    name: str = ""
    zone: str = ""
    version: str = ""
    max_uploads: int = 16
    max_uploads_per_peer: int = 8
    progress_timeout: float = PROGRESS_TIMEOUT


class PeerServerHooks:
    """Override what is of interest; each call is cheap and must not raise."""

    def sent(self, peer: PeerId, size: int) -> None:
        """``size`` body bytes of a blob went out to ``peer``."""

    def refused(self, reason: Refusal) -> None:
        """A request proved nothing; answered 401."""

    def busy(self, peer: PeerId) -> None:
        """No slot was free; answered 503."""


def build_peer_app(
    store: Store,
    auth: HttpAuth,
    clock: Clock,
    settings: PeerServerSettings,
    hooks: PeerServerHooks | None = None,
    pace: Pace | None = None,
    partials: Partials | None = None,
    inbox: SwarmInbox | None = None,
    warm: WarmDoor | None = None,
    links: Links | None = None,
) -> web.Application:
    """The application of the peer listener; ``pace`` holds the upload limit (see ``send_file``).

    ``partials`` finds blobs that are still arriving, which are sent on as they do; ``inbox`` takes swarm messages, and
    ``links`` answers over the connections that bring them.

    Run it with ``PeerListener`` (api/peer_listener.py), which bounds what strangers may occupy.
    """
    handlers = _PeerHandlers(store, settings, hooks or PeerServerHooks(), pace, partials or _no_partials)
    gate = Gate(auth, clock, handlers.hooks)
    app = web.Application(middlewares=[gate.middleware()])
    app.on_response_prepare.append(gate.seal)
    app.router.add_get(BLOBS_PATH + "{digest}", handlers.blob, allow_head=True)
    flows = FlowDoor(store, partials or _no_partials, auth, clock, handlers.hooks.sent, pace)
    app.router.add_get(FLOW_PATH, flows.open, allow_head=False)
    app.router.add_get(HELLO_PATH, handlers.hello, allow_head=False)
    if inbox is not None:
        swarm = SwarmDoor(inbox, auth, links)
        app.router.add_get(LINK_PATH, swarm.open, allow_head=False)
        app.router.add_post(POST_PATH, swarm.receive)
    if warm is not None:
        warm.register(app)
    return app


def _no_partials(digest: Digest) -> None:
    return None


class _Slots:
    """Counts what is on its way out; refuses with BusyError."""

    def __init__(self, total: int, per_peer: int) -> None:
        self._total = total
        self._per_peer = per_peer
        self._taken: Counter[PeerId] = Counter()

    @contextmanager
    def take(self, peer: PeerId) -> Iterator[None]:
        if self._taken.total() >= self._total or self._taken[peer] >= self._per_peer:
            raise BusyError("all upload slots are taken", _RETRY_SECONDS)
        self._taken[peer] += 1
        try:
            yield
        finally:
            self._taken[peer] -= 1
            if not self._taken[peer]:
                del self._taken[peer]


class _PeerHandlers:
    def __init__(
        self,
        store: Store,
        settings: PeerServerSettings,
        hooks: PeerServerHooks,
        pace: Pace | None,
        partials: Partials,
    ) -> None:
        self._partials = partials
        self.hooks = hooks
        self._store = store
        self._settings = settings
        self._pace = pace
        self._large = _Slots(settings.max_uploads, settings.max_uploads_per_peer)
        self._pieces = _Slots(_PIECE_SLOTS, _PIECE_SLOTS // 8)
        self._small = _Slots(_SMALL_SLOTS, _SMALL_SLOTS // 2)

    async def hello(self, request: web.Request) -> web.StreamResponse:
        """Who answers here; the values are percent-encoded, since names may hold anything."""
        settings = self._settings
        headers = {
            "P2PDist-Name": quote(settings.name[:128]),
            "P2PDist-Zone": quote(settings.zone[:64]),
            "P2PDist-Version": quote(settings.version[:64]),
        }
        return web.Response(body=b"hello\n", headers=headers)

    async def blob(self, request: web.Request) -> web.StreamResponse:
        try:
            digest = Digest.parse(request.match_info["digest"])
        except InvalidInputError:
            return web.Response(status=400, body=b"malformed digest\n")
        reader = await self._store.open(digest)
        if reader is None:
            return await self._partial(request, digest)
        try:
            return await self._answer(request, reader) if reader.info.shared else _not_found()
        finally:
            reader.close()

    async def _answer(self, request: web.Request, reader: BlobReader) -> web.StreamResponse:
        try:
            wanted, partial = _wanted(request, reader.info.size)
        except RangeNotSatisfiable as error:
            headers = {"Content-Range": error.content_range}
            return web.Response(status=416, body=b"no such range\n", headers=headers)
        response = _blob_head(reader, wanted, partial=partial)
        if request.method == "HEAD" or wanted is None:
            return response
        peer = request[CREDENTIALS].peer
        try:
            with self._slots(wanted.length).take(peer):
                await self._send(request, response, reader, wanted)
        except BusyError as error:
            self.hooks.busy(peer)
            return _busy(error.retry_after or _RETRY_SECONDS)
        return response

    def _slots(self, length: int) -> _Slots:
        if length <= SMALL_BODY:
            return self._small
        return self._pieces if length <= MAX_PIECE else self._large

    async def _partial(self, request: web.Request, digest: Digest) -> web.StreamResponse:
        """A part of a blob that is still arriving here: sent on as it comes, within bounds on every wait."""
        blob = self._partials(digest)
        if blob is None:
            return _not_found()
        try:
            wanted, _ = _wanted(request, blob.size)
        except RangeNotSatisfiable as error:
            headers = {"Content-Range": error.content_range}
            return web.Response(status=416, body=b"no such range\n", headers=headers)
        if wanted is None or request.method == "HEAD" or wanted.length > MAX_PIECE:
            return _not_found()
        peer = request[CREDENTIALS].peer
        try:
            with self._pieces.take(peer):
                return await self._send_partial(request, blob, wanted)
        except BusyError as error:
            self.hooks.busy(peer)
            return _busy(error.retry_after or _RETRY_SECONDS)

    async def _send_partial(
        self, request: web.Request, blob: PartialBlob, wanted: ByteRange
    ) -> web.StreamResponse:
        peer = request[CREDENTIALS].peer
        response = web.StreamResponse(status=206)
        response.content_length = wanted.length
        response.content_type = "application/octet-stream"
        response.headers["Content-Range"] = content_range(wanted, blob.size)
        file = blob.duplicate()
        if file is None:
            return _busy(_RETRY_SECONDS)
        try:
            position = wanted.start
            while position < wanted.stop:
                async with asyncio.timeout(_PIECE_WAIT):
                    stop = min(wanted.stop, await blob.wait_held(position))
                length = stop - position
                sent = await send_file(
                    request,
                    response,
                    file,
                    position,
                    length,
                    on_sent=lambda size: self.hooks.sent(peer, size),
                    pace=self._pace,
                    progress_timeout=self._settings.progress_timeout,
                )
                if sent < length:
                    return response
                position = stop
        except (TimeoutError, P2PDistError):
            if not response.prepared:
                return _not_found()
            if request.transport is not None:
                request.transport.abort()
        finally:
            os.close(file)
        return response

    async def _send(
        self, request: web.Request, response: web.StreamResponse, reader: BlobReader, wanted: ByteRange
    ) -> None:
        peer = request[CREDENTIALS].peer
        descriptor = reader.fileno()
        if descriptor is not None:
            await send_file(
                request,
                response,
                descriptor,
                wanted.start,
                wanted.length,
                on_sent=lambda size: self.hooks.sent(peer, size),
                pace=self._pace,
                progress_timeout=self._settings.progress_timeout,
            )
            return
        try:
            await self._send_reads(request, response, reader, wanted)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()

    async def _send_reads(
        self, request: web.Request, response: web.StreamResponse, reader: BlobReader, wanted: ByteRange
    ) -> None:
        await response.prepare(request)
        for offset in range(wanted.start, wanted.stop, _READ):
            data = await reader.read(offset, min(_READ, wanted.stop - offset))
            async with asyncio.timeout(self._settings.progress_timeout):
                await response.write(data)
            self.hooks.sent(request[CREDENTIALS].peer, len(data))
            if self._pace is not None:
                await self._pace(len(data))


def _wanted(request: web.Request, size: int) -> tuple[ByteRange | None, bool]:
    """The bytes to send (None: there are none), and whether the answer is a 206; several ranges are not honoured."""
    ranges = parse_range(request.headers.get("Range"), size) if request.method == "GET" else None
    if ranges is not None and len(ranges) == 1:
        return ranges[0], True
    return (ByteRange(0, size) if size else None), False


def _blob_head(reader: BlobReader, wanted: ByteRange | None, *, partial: bool) -> web.StreamResponse:
    response = web.StreamResponse(status=206 if partial else 200)
    response.content_length = wanted.length if wanted else 0
    response.content_type = "application/octet-stream"
    if partial and wanted is not None:
        response.headers["Content-Range"] = content_range(wanted, reader.info.size)
    media_type = reader.info.media_type
    if media_type.isascii() and media_type.isprintable():
        response.headers[MEDIA_TYPE_HEADER] = media_type[:256]
    return response


def _not_found() -> web.Response:
    return web.Response(status=404, body=b"not here\n")


def _busy(seconds: float) -> web.Response:
    headers = {"Retry-After": str(math.ceil(seconds)), RETRY_MS_HEADER: str(int(seconds * 1000))}
    return web.Response(status=503, body=b"busy\n", headers=headers)
