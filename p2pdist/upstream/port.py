"""The upstream port: the real registries, as their OCI Distribution pull API.

Always true here: only configured registries are asked; TLS is verified; credentials go to the registry and its token
server only, never to a redirect's target; every wait is bounded. Errors: NotFoundError, DeniedError (401, 403, or not
configured), BusyError (429, 503 with Retry-After, after bounded retries), UnreachableError, StalledError, ProtocolError.
Adapters: upstream/registry_client.py, testing/memory_upstream.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from p2pdist.oci.content import BlobStat, ContentStream
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository


@dataclass(frozen=True, slots=True)
class UpstreamManifest:
    """A manifest as upstream gave it. ``body`` is None when only its head was asked for; else its digest was checked."""

    digest: Digest
    media_type: str
    size: int
    body: bytes | None


@dataclass(frozen=True, slots=True)
class UpstreamPage:
    """A small JSON answer to pass through (tags list, referrers): status 200, body <= 4 MiB, the headers that matter
    (Content-Type, Link rewritten to a path and query, OCI-Filters-Applied)."""

    body: bytes
    headers: dict[str, str]


class UpstreamStream(ContentStream, Protocol):
    """A blob's body from upstream; ``ranged`` False: upstream ignores ranges, and what came before ``start`` was sent,
    and thrown away, too."""

    @property
    def ranged(self) -> bool: ...


class Upstream(Protocol):
    """See the module's rules. Offsets, lengths and sizes are bytes."""

    def allows(self, registry: str) -> bool:
        """Whether this registry is configured."""

    async def manifest(
        self, repository: Repository, target: str | Digest, *, accept: Sequence[str] = (), head: bool = False
    ) -> UpstreamManifest:
        """A manifest by tag or digest, at most 4 MiB; ``accept`` () means every known type and */*.

        A HEAD that names no digest is repeated as a GET. Raises DigestMismatchError when the body is not ``target``.
        """

    async def stat(self, repository: Repository, digest: Digest) -> BlobStat:
        """A blob's size by HEAD; never downloads it."""

    def blob(
        self, repository: Repository, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[UpstreamStream]:
        """The blob's bytes from ``offset``; where upstream ignores Range the adapter skips to it."""

    async def tags(self, repository: Repository, query: dict[str, str]) -> UpstreamPage:
        """The tags list; ``query`` holds only n and last."""

    async def referrers(self, repository: Repository, digest: Digest, query: dict[str, str]) -> UpstreamPage:
        """The referrers index; ``query`` holds only artifactType and page keys. NotFoundError where unsupported."""

    async def ping(self, registry: str) -> str:
        """Reach the registry's ``/v2/`` (with credentials where it asks); a line for people on how it answered."""
