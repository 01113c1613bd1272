"""Who sent which part of a blob, kept until the digest holds; when it does not, what each part hashed to.

The parts are at most ``SLICE`` long, so that a liar is told apart from the honest peers before and after it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId, Provider
from p2pdist.store.port import BlobReader, Ingest, Store

SLICE = 1024 * 1024


class Evidence:
    """Contiguous contributions in the order they came; ``resumed`` bytes at the start came with an earlier process."""

    def __init__(self, resumed: int) -> None:
        self.resumed = resumed
        self.peers: dict[PeerId, Provider] = {}
        self._parts: list[tuple[int, int, PeerId]] = []

    @property
    def parts(self) -> list[tuple[int, int, PeerId]]:
        return list(self._parts)

    def add(self, start: int, stop: int, provider: Provider | None) -> None:
        """Note that ``provider`` (None: upstream) sent [start, stop)."""
        if provider is None:
            return
        peer = provider.peer
        self.peers[peer] = provider
        if self._parts and self._parts[-1][1] == start and self._parts[-1][2] == peer:
            start = self._parts.pop()[0]
        self._parts.append((start, stop, peer))


@dataclass(frozen=True, slots=True)
class SliceHash:
    """What one peer sent for [start, start + length)."""

    peer: PeerId
    start: int
    length: int
    hash: bytes


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


async def collect_evidence(ingest: Ingest, evidence: Evidence) -> list[SliceHash]:
    """Hash every peer's parts, slice by slice, before they are thrown away."""
    found = []
    for start, stop, peer in evidence.parts:
        for low in range(start, stop, SLICE):
            data = await ingest.read(low, min(SLICE, stop - low))
            found.append(SliceHash(peer, low, len(data), _hash(data)))
    return found


async def differing_peers(
    reader: BlobReader | None, store: Store, digest: Digest, before: list[SliceHash]
) -> set[PeerId]:
    """The peers whose slices are not those of the blob that is now committed."""
    if not before:
        return set()
    opened = reader or await store.open(digest)
    if opened is None:
        return set()
    try:
        liars = set()
        for part in before:
            if _hash(await opened.read(part.start, part.length)) != part.hash:
                liars.add(part.peer)
        return liars
    finally:
        if reader is None:
            opened.close()
