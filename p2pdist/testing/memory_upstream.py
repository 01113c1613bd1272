"""Registries in memory, with a knob for each way in which a real one fails.

Always true here: the errors are those that the port names, raised where the real adapter raises them (a stall is raised
as StalledError at once: the fake waits for no timeout; ``gate_at`` is for tests that want to hold a body in mid-air and
let it go themselves). The real adapter resumes a cut body by itself, so a cut here is one that it gave up on. Every
request is recorded before it fails or succeeds; ``sent`` counts body bytes that a consumer took, blobs and manifests.

    upstream = MemoryUpstream("docker.io")
    digest = upstream.put_blob(repository, data)
    upstream.cut_at, upstream.cut_times = 70_000, 1             # the first body ends there, later ones do not
    async with upstream.blob(repository, digest) as stream: ...
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from p2pdist.errors import (
    BusyError,
    DeniedError,
    DigestMismatchError,
    InvalidInputError,
    NotFoundError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci import media_types
from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import parse_manifest
from p2pdist.oci.reference import Repository
from p2pdist.upstream.port import UpstreamManifest, UpstreamPage, UpstreamStream

ALWAYS = -1


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What was asked. ``kind``: manifest, manifest-head, stat, blob, tags, referrers, ping; ``target`` its tag or digest."""

    kind: str
    repository: Repository | None
    target: str
    offset: int = 0
    length: int | None = None


@dataclass(slots=True)
class _Held:
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest, tuple[bytes, str]] = field(default_factory=dict)
    tags: dict[str, Digest] = field(default_factory=dict)


class MemoryUpstream:
    """The Upstream port over a dict; change the knobs at any time. Positions are offsets in the blob, in bytes.

    ``down``, ``denied`` and ``busy`` concern every request; the ``_at`` knobs concern blob bodies, and
    each happens ``_times`` times (ALWAYS: every time). Without ``ranges`` a body is sent, and counted, from its start.
    """

    def __init__(self, *registries: str) -> None:
        self.registries = set(registries or ("docker.io",))
        self.requests: list[UpstreamRequest] = []
        self.sent = 0
        self.sent_by_digest: dict[Digest, int] = {}
        self.open_streams = 0
        self.down = False
        self.denied = False
        self.busy = False
        self.retry_after: float | None = None
        self.cut_at: int | None = None
        self.cut_times = ALWAYS
        self.stall_at: int | None = None
        self.stall_times = ALWAYS
        self.wrong_at: int | None = None
        self.wrong_times = ALWAYS
        self.wrong_size: int | None = None
        self.ranges = True
        self.gate_at: int | None = None
        self.gate = asyncio.Event()
        self.answer_gate: asyncio.Event | None = None
        self.chunk = 64 * 1024
        self._held: dict[Repository, _Held] = {}

    # -- content --

    def put_blob(self, repository: Repository, data: bytes, digest: Digest | None = None) -> Digest:
        """Add a blob; a ``digest`` that is not its own makes a corrupt one."""
        digest = digest or Digest.of(data)
        self._hold(repository).blobs[digest] = data
        return digest

    def put_manifest(self, repository: Repository, body: bytes, media_type: str, tag: str = "") -> Digest:
        """Add a manifest, and point ``tag`` at it."""
        digest = Digest.of(body)
        self._hold(repository).manifests[digest] = (body, media_type)
        if tag:
            self.set_tag(repository, tag, digest)
        return digest

    def set_tag(self, repository: Repository, tag: str, digest: Digest) -> None:
        """Move a tag."""
        self._hold(repository).tags[tag] = digest

    def _hold(self, repository: Repository) -> _Held:
        return self._held.setdefault(repository, _Held())

    def asked(self, kind: str, target: object = None) -> list[UpstreamRequest]:
        """The requests of one kind (and for one tag or digest), in order."""
        return [r for r in self.requests if r.kind == kind and (target is None or r.target == str(target))]

    # -- the port --

    def allows(self, registry: str) -> bool:
        return registry in self.registries

    async def manifest(
        self, repository: Repository, target: str | Digest, *, accept: Sequence[str] = (), head: bool = False
    ) -> UpstreamManifest:
        held = await self._admit("manifest-head" if head else "manifest", repository, str(target))
        digest = target if isinstance(target, Digest) else held.tags.get(target)
        found = held.manifests.get(digest) if digest is not None else None
        if digest is None or found is None or not media_types.acceptable(found[1], accept):
            raise NotFoundError(f"{repository} has no manifest {target}")
        body, media_type = found
        if head:
            return UpstreamManifest(digest, media_type, len(body), None)
        self.sent += len(body)
        if Digest.of(body, digest.algorithm) != digest:
            raise DigestMismatchError(f"{repository} sent another manifest than {target}")
        return UpstreamManifest(digest, media_type, len(body), body)

    async def stat(self, repository: Repository, digest: Digest) -> BlobStat:
        held = await self._admit("stat", repository, str(digest))
        return BlobStat(digest, self._size(self._blob_of(held, repository, digest)), media_types.OCTET_STREAM)

    def blob(
        self, repository: Repository, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[UpstreamStream]:
        return self._open(repository, digest, offset, length)

    async def tags(self, repository: Repository, query: dict[str, str]) -> UpstreamPage:
        held = await self._admit("tags", repository, "list")
        found = [tag for tag in sorted(held.tags) if tag > query.get("last", "")]
        page = found[: int(query.get("n", len(found)))]
        headers = {"Content-Type": media_types.JSON}
        if page and len(page) < len(found):
            headers["Link"] = f'</v2/{repository.path}/tags/list?n={query["n"]}&last={page[-1]}>; rel="next"'
        return UpstreamPage(json.dumps({"name": repository.path, "tags": page}).encode(), headers)

    async def referrers(self, repository: Repository, digest: Digest, query: dict[str, str]) -> UpstreamPage:
        held = await self._admit("referrers", repository, str(digest))
        found: list[dict[str, object]] = []
        for each, (body, media_type) in held.manifests.items():
            manifest = parse_manifest(body, media_type)
            wanted = query.get("artifactType", manifest.artifact_type) == manifest.artifact_type
            if manifest.subject is not None and manifest.subject.digest == digest and wanted:
                found.append(
                    {
                        "mediaType": media_type,
                        "digest": str(each),
                        "size": len(body),
                        "artifactType": manifest.artifact_type,
                    }
                )
        index = {"schemaVersion": 2, "mediaType": media_types.OCI_INDEX, "manifests": found}
        headers = {"Content-Type": media_types.OCI_INDEX}
        if "artifactType" in query:
            headers["OCI-Filters-Applied"] = "artifactType"
        return UpstreamPage(json.dumps(index).encode(), headers)

    async def ping(self, registry: str) -> str:
        self.requests.append(UpstreamRequest("ping", None, registry))
        await self._check(registry)
        return f"{registry} answers from memory"

    async def close(self) -> None:
        """Nothing is held open; here because the real adapter has it."""

    # -- inside --

    async def _admit(
        self, kind: str, repository: Repository, target: str, offset: int = 0, length: int | None = None
    ) -> _Held:
        self.requests.append(UpstreamRequest(kind, repository, target, offset, length))
        await self._check(repository.registry)
        if repository not in self._held:
            raise NotFoundError(f"no repository {repository}")
        return self._held[repository]

    async def _check(self, registry: str) -> None:
        if registry not in self.registries:
            raise DeniedError(f"registry {registry} is not configured here; add [registries.{registry!r}]")
        if self.answer_gate is not None:
            await self.answer_gate.wait()
        if self.down:
            raise UnreachableError(f"registry {registry} does not answer")
        if self.denied:
            raise DeniedError(f"registry {registry} refused the credentials")
        if self.busy:
            raise BusyError(f"registry {registry} asks to be left alone", self.retry_after)

    @staticmethod
    def _blob_of(held: _Held, repository: Repository, digest: Digest) -> bytes:
        if digest not in held.blobs:
            raise NotFoundError(f"{repository} has no blob {digest}")
        return held.blobs[digest]

    def _size(self, data: bytes) -> int:
        return len(data) if self.wrong_size is None else self.wrong_size

    @asynccontextmanager
    async def _open(
        self, repository: Repository, digest: Digest, offset: int, length: int | None
    ) -> AsyncIterator[UpstreamStream]:
        held = await self._admit("blob", repository, str(digest), offset, length)
        data = self._blob_of(held, repository, digest)
        stop = len(data) if length is None else offset + length
        if not 0 <= offset <= stop <= len(data):
            raise InvalidInputError(f"range {offset}-{stop} is outside of blob {digest} of {len(data)} bytes")
        self.open_streams += 1
        try:
            yield _MemoryStream(self, repository, digest, data, offset, stop)
        finally:
            self.open_streams -= 1

    def take(self, knob: str) -> bool:
        """Whether the fault ``knob`` happens now; uses one of its times up."""
        left: int = getattr(self, f"{knob}_times")
        if left > 0:
            setattr(self, f"{knob}_times", left - 1)
        return left != 0

    def book(self, digest: Digest, count: int) -> None:
        """Count body bytes of a blob."""
        self.sent += count
        self.sent_by_digest[digest] = self.sent_by_digest.get(digest, 0) + count


class _MemoryStream:
    def __init__(
        self,
        upstream: MemoryUpstream,
        repository: Repository,
        digest: Digest,
        data: bytes,
        start: int,
        stop: int,
    ) -> None:
        self._upstream = upstream
        self._name = f"{digest} of {repository}"
        self._digest = digest
        self._data = data
        self._start = start
        self._stop = stop

    @property
    def size(self) -> int:
        wrong = self._upstream.wrong_size
        return len(self._data) if wrong is None else wrong

    @property
    def start(self) -> int:
        return self._start

    @property
    def ranged(self) -> bool:
        return self._upstream.ranges

    @property
    def media_type(self) -> str:
        return media_types.OCTET_STREAM

    async def chunks(self) -> AsyncIterator[bytes]:
        position = self._start
        if not self._upstream.ranges:
            self._upstream.book(self._digest, position)
        while position < self._stop:
            await self._fail_at(position)
            stop = min(self._next_mark(position), position + self._upstream.chunk, self._stop)
            data = self._bytes(position, stop)
            self._upstream.book(self._digest, len(data))
            yield data
            position = stop
            await asyncio.sleep(0)

    def _next_mark(self, position: int) -> int:
        marks = (self._upstream.stall_at, self._upstream.cut_at, self._upstream.gate_at)
        return min((mark for mark in marks if mark is not None and mark > position), default=self._stop)

    async def _fail_at(self, position: int) -> None:
        """Do what the knobs say for reaching ``position``: a knob at k lets exactly the bytes before k through."""
        upstream = self._upstream
        if upstream.gate_at is not None and position >= upstream.gate_at:
            await upstream.gate.wait()
        if upstream.down:
            raise UnreachableError(f"upstream went away at byte {position} of {self._name}")
        if upstream.cut_at is not None and position >= upstream.cut_at and upstream.take("cut"):
            raise UnreachableError(f"upstream cut the connection at byte {position} of {self._name}")
        if upstream.stall_at is not None and position >= upstream.stall_at and upstream.take("stall"):
            raise StalledError(f"upstream stalled at byte {position} of {self._name}")

    def _bytes(self, start: int, stop: int) -> bytes:
        data = self._data[start:stop]
        wrong = self._upstream.wrong_at
        if wrong is None or not start <= wrong < stop or not self._upstream.take("wrong"):
            return data
        at = wrong - start
        return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
