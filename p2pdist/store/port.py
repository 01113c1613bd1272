"""The store port: content-addressed blobs, and what is known about them.

Always true here:
- Content is invisible until ``Ingest.commit`` has checked size and digest; then it is whole, and durable.
- committed bytes + reserved bytes of open ingests <= the quota, at every moment.
- What is open (BlobReader, Ingest) or pinned is never evicted.
- The caller owns what ``open`` and ``ingest`` return, and closes it.
Adapters: store/disk.py (an OCI image layout with an SQLite catalog), testing/memory_store.py. Both pass
tests/conformance/store.py. The store does blocking work off the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference, Repository


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A committed blob. ``committed_at`` and ``used_at`` are wall-clock seconds."""

    digest: Digest
    size: int
    media_type: str
    committed_at: float
    used_at: float
    pinned: bool
    shared: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes, and counts of committed blobs (``blobs``, and how many of them are ``pinned``), now.

    ``committed + reserved <= quota``.
    """

    committed: int
    reserved: int
    quota: int
    blobs: int
    pinned: int


@dataclass(frozen=True, slots=True)
class TagEntry:
    """One resolution of a tag: upstream said, at wall time ``resolved_at`` (refreshed while the digest stays the
    same; ``first_seen`` is when this digest was first the answer), that it names ``digest``."""

    repository: Repository
    tag: str
    digest: Digest
    media_type: str
    size: int
    first_seen: float
    resolved_at: float


class BlobReader(Protocol):
    """A committed blob, held from eviction until ``close``; reading counts as use for LRU."""

    @property
    def info(self) -> BlobInfo: ...

    @property
    def path(self) -> Path | None:
        """The file that holds exactly the blob, for sendfile; None where there is none (memory)."""

    def fileno(self) -> int | None:
        """An open descriptor of that file (do not close or seek it), or None."""

    async def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end."""

    def close(self) -> None: ...


class Ingest(Protocol):
    """A blob being written: sparse, resumable after kill -9, invisible until committed.

    One writer at a time per digest (``Store.ingest`` refuses a second). ``held`` is what has been written, as sorted,
    disjoint, non-adjacent (start, stop) offsets. The contiguous front is hashed as it grows, off the event loop.
    """

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...

    @property
    def front(self) -> int:
        """Length of the contiguous prefix that is held."""

    @property
    def resumed(self) -> int:
        """Bytes held when this ingest was opened (left by an earlier process)."""

    def held(self) -> tuple[tuple[int, int], ...]: ...

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write within [0, size); raises InvalidInputError beyond it, StoreFullError when the disk is full.

        Tasks may write at once. Bytes that are held already are replaced (dearly, when they differ: all is hashed
        again). After commit, close or discard it raises StoreError, and ``read`` gives b"".
        """

    async def read(self, offset: int, length: int) -> bytes:
        """Bytes that are held; stops at the first gap (b"" when ``offset`` is in one)."""

    def duplicate(self) -> int | None:
        """A new descriptor of the file that holds the bytes at their offsets, for sendfile; the caller closes it.

        None when there is no file, and after commit, close or discard.
        """

    async def commit(self, media_type: str = "", *, shared: bool = True) -> BlobInfo:
        """Check size and digest, sync, rename, sync the directory; afterwards the blob is visible.

        Raises DigestMismatchError (the ingest stays open; the caller resets or discards it).
        """

    async def reset(self) -> None:
        """Forget all bytes; keep the reservation."""

    async def close(self) -> None:
        """Stop; what is held stays on disk for a later ingest. The reservation shrinks to what is held."""

    async def discard(self) -> None:
        """Stop, and forget all bytes."""


class Store(Protocol):
    """See the module's rules. All sizes are bytes."""

    async def stat(self, digest: Digest) -> BlobInfo | None: ...

    async def open(self, digest: Digest) -> BlobReader | None:
        """The committed blob, or None."""

    async def read(self, digest: Digest, limit: int) -> bytes | None:
        """A whole small blob, or None when absent; raises InvalidInputError when it is over ``limit``."""

    async def ingest(self, digest: Digest, size: int) -> Ingest:
        """Reserve room (evicting what may go) and open, or resume, the writing of a blob.

        Raises StoreFullError when the room cannot be had; ValueError when this digest is being written already.
        """

    async def put(
        self, digest: Digest, data: bytes, media_type: str = "", *, shared: bool = True
    ) -> BlobInfo:
        """Ingest and commit a small blob in one step. Raises as ingest and commit do; waits for another put of it.

        When it is held, only what is newly known of it is kept: a media type, and that it may be shared.
        """

    async def delete(self, digest: Digest) -> bool:
        """Drop a committed blob now unless it is open or pinned; whether it was dropped."""

    async def blobs(self) -> list[BlobInfo]:
        """All committed blobs, most recently used first."""

    async def usage(self) -> Usage: ...

    async def collect(self, target: int | None = None) -> list[BlobInfo]:
        """Evict least recently used, unpinned, unopened blobs until committed bytes <= ``target`` (None: only what
        no tag's manifest reaches any more, and stale partials); what was dropped."""

    def evicted(self) -> list[Digest]:
        """Digests dropped (by eviction or delete) since this was last called; for withdrawing announcements."""

    async def link(
        self, repository: Repository, digests: Iterable[Digest], *, sizes: dict[Digest, int]
    ) -> None:
        """Remember that these blobs belong to ``repository``, and their sizes (learned from a manifest)."""

    async def known_size(self, digest: Digest) -> int | None:
        """A blob's size as committed, or as learned by ``link``."""

    async def repositories(self, digest: Digest) -> list[Repository]:
        """Those that this blob is known, by ``link``, to belong to; the oldest links are forgotten."""

    async def record_tag(self, entry: TagEntry) -> None:
        """Remember a resolution; the same digest as the newest one refreshes it, another one is appended."""

    async def tag(self, repository: Repository, tag: str) -> TagEntry | None:
        """The newest resolution."""

    async def tags(self, repository: Repository | None = None, *, history: bool = False) -> list[TagEntry]:
        """Newest resolution of each tag (with ``history`` all of them), newest first; at most 10,000."""

    async def tag_history(self, repository: Repository, tag: str) -> list[TagEntry]:
        """What one tag pointed at, newest first; at most 100. [] for a tag that was never resolved here."""

    async def pin(self, reference: Reference, digests: Iterable[Digest]) -> None:
        """Keep these blobs, besides those of earlier calls, from eviction until ``unpin(reference)``."""

    async def unpin(self, reference: Reference) -> bool: ...

    async def pins(self) -> list[Reference]: ...

    async def close(self) -> None: ...
