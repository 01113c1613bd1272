"""How a fetch gets its bytes: the contract between BlobFetch and its two ways (one source at a time, or a swarm)."""

from __future__ import annotations

from typing import Protocol

from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import Provider
from p2pdist.retention.ranges import RangeSet
from p2pdist.transfer.content import Source


class Target(Protocol):
    """What is being filled."""

    @property
    def repository(self) -> Repository: ...

    @property
    def digest(self) -> Digest: ...

    @property
    def size(self) -> int: ...

    @property
    def held(self) -> RangeSet: ...

    async def receive(
        self, offset: int, chunk: bytes | memoryview, source: Source, provider: Provider | None
    ) -> None:
        """Take bytes in, wherever they belong; ``provider`` is who sent them (None: upstream)."""

    def vouch(self, start: int, stop: int) -> None:
        """Bytes [start, stop) of a peer are as its fetcher got them from upstream, by the fetcher's own word: clients may
        have them before the blob's digest holds, as they may have what comes from upstream itself."""

    def blame(self, start: int, stop: int, provider: Provider | None) -> None:
        """Not who sent [start, stop) but ``provider`` (None: nobody) is to answer for it."""


class Fill(Protocol):
    """Fills a target: returns when everything is held, raises the most telling P2PDistError when no source is left."""

    async def run(self, target: Target) -> None: ...
