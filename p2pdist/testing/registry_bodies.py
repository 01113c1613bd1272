"""How the fake registry sends bodies: at a rate, and with the faults that bodies may have."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass

from aiohttp import web

from p2pdist.oci.digest import Digest
from p2pdist.oci.ranges import ByteRange
from p2pdist.testing.registry_content import BlobSource, read_chunks
from p2pdist.testing.registry_faults import Counters, Faults, FaultyBody

CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class _Part:
    """The bytes [start, stop) of a body that is being sent."""

    kind: str
    digest: Digest
    source: BlobSource
    start: int
    stop: int


class Gate:
    """Holds requests, by a fault, until they are released."""

    def __init__(self) -> None:
        self.closing = False
        self._opened = asyncio.Event()

    def release(self, *, closing: bool = False) -> None:
        """Wake those that are held now; when ``closing``, to be cut, as are those that would be held later."""
        self.closing = closing
        self._opened.set()
        self._opened = asyncio.Event()

    async def wait(self) -> None:
        """Return when they are released next."""
        await self._opened.wait()


class BodySender:
    """Sends parts of manifests and blobs, and counts their bytes as they go."""

    def __init__(self, faults: Faults, counters: Counters, gate: Gate) -> None:
        self._faults = faults
        self._counters = counters
        self._gate = gate
        self._next_free = 0.0  # when the rate limit lets the next byte go, on the loop's clock

    async def send(
        self,
        request: web.Request,
        kind: str,
        digest: Digest,
        source: BlobSource,
        part: ByteRange | None,
        response: web.StreamResponse,
    ) -> web.StreamResponse:
        """Write the bytes of ``part`` (None: an empty body) with the faults that bodies may have."""
        length = part.length if part else 0
        if request.method == "HEAD" or part is None:
            response.content_length = length
            await response.prepare(request)
            return response
        body = FaultyBody(self._faults, kind, str(digest))
        told = max(0, length + self._faults.length_delta) if body.touched else length
        response.content_length = told
        await response.prepare(request)
        stop = part.start + min(length, told)
        whole = await self._write(response, body, _Part(kind, digest, source, part.start, stop))
        if not whole or told > length:
            cut_off(request, by_reset=self._faults.cut_by_reset)
        return response

    async def _write(self, response: web.StreamResponse, body: FaultyBody, part: _Part) -> bool:
        """Whether all of it was written; False is where it is to be cut."""
        sent = 0
        for chunk in read_chunks(part.source, part.start, part.stop, self._chunk_size()):
            piece = body.spoil(chunk, part.start + sent)
            while piece:
                head = piece[: body.until_event(sent)]
                await self._pace(len(head))
                await response.write(head)
                self._count(part, len(head))
                sent += len(head)
                piece = piece[len(head) :]
                if body.stalls_at(sent):
                    await self._gate.wait()
                if body.cuts_at(sent) or self._gate.closing:
                    return False
        return True

    def _count(self, part: _Part, sent: int) -> None:
        if part.kind == "blob":
            self._counters.blob_bytes[str(part.digest)] += sent
        else:
            self._counters.manifest_bytes += sent

    def _chunk_size(self) -> int:
        """Small enough under a rate limit that bytes flow evenly (twenty writes a second)."""
        return max(1, min(CHUNK, self._faults.rate // 20)) if self._faults.rate else CHUNK

    async def _pace(self, size: int) -> None:
        if not self._faults.rate:
            return
        loop = asyncio.get_running_loop()
        start = max(self._next_free, loop.time())
        self._next_free = start + size / self._faults.rate
        await asyncio.sleep(self._next_free - loop.time())


def cut_off(request: web.Request, *, by_reset: bool) -> None:
    """End the connection before the body's end: what was written arrives and then FIN, or RST at once."""
    transport = request.transport
    if transport is None:
        return
    if not by_reset:
        transport.close()
        return
    connection = transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
