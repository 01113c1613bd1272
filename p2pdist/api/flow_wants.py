"""What is wanted on one flow: the wants that are not yet served to their end, and the blobs that they are of.

Always true here: at most MAX_WANTS wants and MAX_BLOBS open blobs; a blob is open while something of it is wanted; the bytes
of a fetch that failed are not sent to who wants the blob of the one that followed it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from p2pdist.api.flow_source import BlobSource
from p2pdist.oci.digest import Digest
from p2pdist.wire.flow_frames import Want

MAX_WANTS = 256
MAX_BLOBS = 32
BUSY, GONE, OTHER_SIZE = 503, 404, 409


class OpenBlob:
    """A source, and how many wants it has."""

    __slots__ = ("source", "wants")

    def __init__(self, source: BlobSource) -> None:
        self.source = source
        self.wants = 0


class OpenWant:
    """A want that is not yet served to its end; ``since`` is when something of it was sent last."""

    __slots__ = ("blob", "handle", "position", "since", "source", "stop")

    def __init__(self, want: Want, blob: OpenBlob, now: float) -> None:
        self.handle = want.handle
        self.position = want.offset
        self.stop = want.offset + want.length
        self.blob = blob
        self.source = blob.source
        self.since = now


class Wants:
    """See the module's rules. ``open_source`` finds a blob's bytes, if peers may have them."""

    def __init__(self, open_source: Callable[[Digest], Awaitable[BlobSource | None]]) -> None:
        self._open_source = open_source
        self._wants: dict[int, OpenWant] = {}
        self._blobs: dict[Digest, OpenBlob] = {}

    def __len__(self) -> int:
        return len(self._wants)

    async def take(self, want: Want, now: float) -> int | None:
        """Take a want on; else the status that refuses it."""
        if len(self._wants) >= MAX_WANTS:
            return BUSY
        if want.handle in self._wants:
            return GONE
        if len(self._blobs) >= MAX_BLOBS and want.digest not in self._blobs:
            return BUSY
        blob = await self._blob(want.digest)
        if blob is None:
            return GONE
        if blob.source.size != want.size:
            self._close_unwanted()
            return OTHER_SIZE
        blob.wants += 1
        self._wants[want.handle] = OpenWant(want, blob, now)
        return None

    async def _blob(self, digest: Digest) -> OpenBlob | None:
        blob = self._blobs.get(digest)
        if blob is not None and blob.source.failed:
            del self._blobs[digest]  # its wants are refused at the next look
            blob.source.close()
            blob = None
        if blob is None:
            source = await self._open_source(digest)
            if source is not None:
                blob = self._blobs[digest] = OpenBlob(source)
        return blob

    def forget(self, handle: int) -> None:
        """It is served, refused, or no longer wanted."""
        want = self._wants.pop(handle, None)
        if want is not None:
            want.blob.wants -= 1
            if not want.blob.wants:
                self._close_unwanted()

    def _close_unwanted(self) -> None:
        for digest, blob in list(self._blobs.items()):
            if not blob.wants:
                del self._blobs[digest]
                blob.source.close()

    def first_ready(self) -> OpenWant | None:
        """The first of which something can be sent: so pieces come one after the other, and not all at once, late."""
        for want in self._wants.values():
            if want.source.ready(want.position) > want.position:
                return want
        return None

    def hopeless(self, before: float) -> list[int]:
        """The handles of those of which nothing was sent since that time, or nothing more will come; to be refused."""
        return [handle for handle, want in self._wants.items() if want.since < before or want.source.failed]

    def close(self) -> None:
        """Let go of all blobs."""
        for blob in self._blobs.values():
            blob.source.close()
        self._blobs.clear()
        self._wants.clear()
