"""A mirror in memory (transfer.content.Mirror), with a knob for each thing that may happen behind the HTTP edge.

Always true here: every delivery that was given out is in ``deliveries``, and says whether it was closed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from p2pdist.errors import NotFoundError
from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.media_types import OCI_MANIFEST
from p2pdist.oci.reference import Repository
from p2pdist.store.port import BlobInfo
from p2pdist.transfer.content import BytesSpan, FileSpan, ServedManifest, Source, Span
from p2pdist.upstream.port import UpstreamPage


class FileReader:
    """A file as a BlobReader; closed with its delivery."""

    def __init__(self, path: Path, digest: Digest) -> None:
        self._path = path
        self._file = path.open("rb")
        size = path.stat().st_size
        self._info = BlobInfo(digest, size, "", 0.0, 0.0, pinned=False, shared=True)

    @property
    def info(self) -> BlobInfo:
        return self._info

    @property
    def path(self) -> Path | None:
        return self._path

    def fileno(self) -> int | None:
        return self._file.fileno()

    async def read(self, offset: int, length: int) -> bytes:
        return await asyncio.to_thread(os.pread, self._file.fileno(), length, offset)

    def close(self) -> None:
        self._file.close()


@dataclass
class FakeBlob:
    """One blob and how it behaves. ``parts`` says where its bytes come from: (length, source) in order; the last one
    goes on to the end. ``path``: give FileSpans of this file. ``fail_at``: raise ``error`` before that offset.
    ``gate``: wait for it before the offset ``gate_at``. ``surplus``: bytes given beyond what was asked for (a bug)."""

    data: bytes = b""
    path: Path | None = None
    media_type: str = ""
    parts: tuple[tuple[int, Source], ...] = ((0, Source.STORE),)
    span: int = 64 * 1024
    error: Exception | None = None
    fail_at: int | None = None
    gate: asyncio.Event | None = None
    gate_at: int = 0
    surplus: bytes = b""

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path else len(self.data)

    def source_at(self, offset: int) -> tuple[Source, int]:
        """The source of the byte at ``offset``, and where that source's part ends."""
        end = 0
        for length, source in self.parts[:-1]:
            end += length
            if offset < end:
                return source, end
        return self.parts[-1][1], self.size


class FakeDelivery:
    """A delivery of a FakeBlob."""

    def __init__(self, digest: Digest, blob: FakeBlob) -> None:
        self.blob = blob
        self.closed = False
        self.given = 0
        self.reached_client: int | None = None
        self._digest = digest
        self._reader = FileReader(blob.path, digest) if blob.path else None

    @property
    def stat(self) -> BlobStat:
        return BlobStat(self._digest, self.blob.size, self.blob.media_type)

    async def spans(self, start: int, stop: int) -> AsyncGenerator[Span, None]:
        blob, position = self.blob, start
        while position < stop:
            if blob.gate is not None and position >= blob.gate_at:
                await blob.gate.wait()
            if blob.fail_at is not None and position >= blob.fail_at:
                if blob.error is not None:
                    raise blob.error
                return
            source, end = blob.source_at(position)
            for edge in (blob.fail_at, blob.gate_at if blob.gate else None):
                if edge is not None and position < edge:
                    end = min(end, edge)
            end = min(end, stop, position + blob.span)
            self.given += end - position
            if self._reader is not None:
                yield FileSpan(self._reader, position, end - position, source)
            else:
                yield BytesSpan(blob.data[position:end], source)
            position = end
        if blob.surplus:
            yield BytesSpan(blob.surplus, Source.STORE)

    def reached(self, total: int) -> None:
        self.reached_client = total

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True
        if self._reader is not None:
            self._reader.close()


@dataclass
class FakeMirror:
    """See the module. ``error`` is raised by every use case; ``asked`` lists the calls."""

    registries: set[str] = field(default_factory=lambda: {"docker.io"})
    manifests: dict[tuple[Repository, str | Digest], ServedManifest] = field(default_factory=dict)
    blobs: dict[Digest, FakeBlob] = field(default_factory=dict)
    page: UpstreamPage = field(default_factory=lambda: UpstreamPage(b"{}", {}))
    error: Exception | None = None
    deliveries: list[FakeDelivery] = field(default_factory=list)
    asked: list[tuple[object, ...]] = field(default_factory=list)

    def add_manifest(
        self,
        repository: Repository,
        tag: str,
        body: bytes,
        media_type: str = OCI_MANIFEST,
        source: Source = Source.UPSTREAM,
    ) -> Digest:
        """Hold a manifest under a tag and its digest."""
        digest = Digest.of(body)
        served = ServedManifest(digest, media_type, len(body), body, source)
        self.manifests[repository, tag] = self.manifests[repository, digest] = served
        return digest

    def add_blob(self, data: bytes, blob: FakeBlob | None = None) -> Digest:
        """Hold a blob, in memory unless ``blob`` says otherwise."""
        digest = Digest.of(data)
        self.blobs[digest] = blob or FakeBlob(data)
        return digest

    def allows(self, registry: str) -> bool:
        return registry in self.registries

    def _note(self, *call: object) -> None:
        self.asked.append(call)
        if self.error is not None:
            raise self.error

    async def manifest(
        self, repository: Repository, target: str | Digest, *, accept: tuple[str, ...] = ()
    ) -> ServedManifest:
        self._note("manifest", repository, target, accept)
        found = self.manifests.get((repository, target))
        if found is None:
            raise NotFoundError(f"{repository} has no manifest {target}")
        return found

    def _blob(self, repository: Repository, digest: Digest) -> FakeBlob:
        found = self.blobs.get(digest)
        if found is None:
            raise NotFoundError(f"{repository} has no blob {digest}")
        return found

    async def blob_stat(self, repository: Repository, digest: Digest) -> BlobStat:
        self._note("blob_stat", repository, digest)
        blob = self._blob(repository, digest)
        return BlobStat(digest, blob.size, blob.media_type)

    async def blob(self, repository: Repository, digest: Digest) -> FakeDelivery:
        self._note("blob", repository, digest)
        delivery = FakeDelivery(digest, self._blob(repository, digest))
        self.deliveries.append(delivery)
        return delivery

    async def tags(self, repository: Repository, query: dict[str, str]) -> UpstreamPage:
        self._note("tags", repository, query)
        return self.page

    async def referrers(self, repository: Repository, digest: Digest, query: dict[str, str]) -> UpstreamPage:
        self._note("referrers", repository, digest, query)
        return self.page
