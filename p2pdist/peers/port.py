"""The peers port: content from other agents, over authenticated HTTP.

Always true here: nothing that a peer sends is trusted; every wait is bounded (connect, first byte, progress); a peer
never makes this agent allocate more than one chunk. Errors: NotFoundError (does not hold it), BusyError (asks to come
back), UnreachableError, StalledError, ProtocolError, DeniedError (another cluster key).
Adapters: peers/http_client.py, testing/memory_peers.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from p2pdist.errors import UnreachableError
from p2pdist.oci.content import BlobStat, ContentStream
from p2pdist.oci.digest import Digest
from p2pdist.records import Provider


class Peers(Protocol):
    """See the module's rules. Offsets and lengths are bytes."""

    async def stat(self, provider: Provider, digest: Digest) -> BlobStat:
        """Size and media type of a blob that the peer holds whole."""

    def blob(
        self, provider: Provider, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ContentStream]:
        """The blob's bytes from ``offset`` (to the end, or ``length`` of them)."""

    async def piece(
        self,
        provider: Provider,
        digest: Digest,
        offset: int,
        size: int,
        buffer: memoryview,
        on_progress: Callable[[int], None],
    ) -> None:
        """Fill ``buffer`` from ``offset`` of a blob of ``size`` bytes, also of one that is still arriving there.

        ``on_progress`` is told, as bytes come, how many from the start are there. The cheapest way for parts of up to a few
        MiB.
        """


class NoPeers:
    """For an agent without a cluster: nobody is there."""

    async def stat(self, provider: Provider, digest: Digest) -> BlobStat:
        raise UnreachableError("this agent has no cluster")

    async def piece(
        self,
        provider: Provider,
        digest: Digest,
        offset: int,
        size: int,
        buffer: memoryview,
        on_progress: Callable[[int], None],
    ) -> None:
        raise UnreachableError("this agent has no cluster")

    def blob(
        self, provider: Provider, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[ContentStream]:
        raise UnreachableError("this agent has no cluster")
