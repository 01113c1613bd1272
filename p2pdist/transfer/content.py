"""What the use cases hand to the mirror's HTTP edge: manifests and blobs on their way to a client.

Always true here: before a blob's digest holds, only bytes that came from upstream, or that their fetcher attested, are
in a span, and never the blob's last ones. Each byte has one source, for the savings to be exact.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.upstream.port import UpstreamPage


class Source(enum.StrEnum):
    """Where bytes given to a client came from. A byte is STORE from the second time it is given."""

    STORE = "store"
    PEER = "peer"
    UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class ServedManifest:
    """A manifest for a client. ``source`` is STORE when nothing was moved for it; ``stale`` when upstream is down."""

    digest: Digest
    media_type: str
    size: int
    body: bytes
    source: Source
    stale: bool = False


@dataclass(frozen=True, slots=True)
class BytesSpan:
    """Bytes to write to the client."""

    data: bytes
    source: Source

    @property
    def length(self) -> int:
        return len(self.data)


class SpanReader(Protocol):
    """What file spans are read from (store.port.BlobReader is one)."""

    def fileno(self) -> int | None:
        """An open descriptor of the file (do not close or seek it), or None."""

    async def read(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; fewer only at the end."""


@dataclass(frozen=True, slots=True)
class FileSpan:
    """A part of a file to send to the client; ``reader`` stays open until the delivery is closed."""

    reader: SpanReader
    offset: int
    length: int
    source: Source


Span = BytesSpan | FileSpan


class Delivery(Protocol):
    """One client's view of one blob; an async context manager that holds what it needs until it is left."""

    @property
    def stat(self) -> BlobStat: ...

    def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        """The bytes [start, stop) in order; close it (``contextlib.aclosing``) when leaving early.

        Raises a P2PDistError when they cannot be had (any more): answer an error if nothing was sent yet, else cut the
        connection. A span that was yielded counts as given to the client, but for what ``reached`` says.
        """

    def reached(self, total: int) -> None:
        """At the end: of all that was yielded, only the first ``total`` bytes reached the client."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Mirror(Protocol):
    """The pull-through mirror's use cases. Errors are those of p2pdist.errors: NotFoundError (404), DeniedError (403),
    BusyError (429 or 503 with Retry-After), StoreFullError (507), other SourceErrors (502/504), InvalidInputError (400)."""

    def allows(self, registry: str) -> bool: ...

    async def manifest(
        self, repository: Repository, target: str | Digest, *, accept: tuple[str, ...] = ()
    ) -> ServedManifest:
        """By tag or digest; ``accept`` the client's media types, () for any."""

    async def blob_stat(self, repository: Repository, digest: Digest) -> BlobStat:
        """For HEAD; downloads nothing."""

    async def blob(self, repository: Repository, digest: Digest) -> Delivery:
        """For GET; returns once the size is known and a source delivers, so that headers may be sent.

        Use ``async with await mirror.blob(...) as delivery``.
        """

    async def tags(self, repository: Repository, query: dict[str, str]) -> UpstreamPage: ...

    async def referrers(
        self, repository: Repository, digest: Digest, query: dict[str, str]
    ) -> UpstreamPage: ...
