"""Who sent which part of a blob, kept until the digest holds; when it does not, what each part hashed to.

Rules: a part is whose bytes stand in it now, so that nobody answers for bytes that were replaced since; slices are at
most ``SLICE`` long, so that a liar is told apart from the honest peers before and after it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from p2pdist.records import PeerId, Provider
from p2pdist.store.port import BlobReader, Ingest
from p2pdist.transfer.intervals import IntervalMap

SLICE = 1024 * 1024
NOBODY = PeerId(bytes(20))
"""Stands for who sent bytes without having to answer for them."""


class Evidence:
    """``resumed`` bytes came with an earlier process, from nobody knows where."""

    def __init__(self, resumed: int) -> None:
        self.resumed = resumed
        self._providers: dict[PeerId, Provider] = {}
        self._parts: IntervalMap[PeerId | None] = IntervalMap()

    @property
    def parts(self) -> list[tuple[int, int, PeerId | None]]:
        """(start, stop, peer) in order; None is upstream."""
        return list(self._parts)

    @property
    def peers(self) -> dict[PeerId, Provider]:
        """Whose bytes are among those that stand."""
        present = {peer for _, _, peer in self._parts} - {NOBODY}
        return {peer: provider for peer, provider in self._providers.items() if peer in present}

    def add(self, start: int, stop: int, provider: Provider | None) -> None:
        """Note that ``provider`` (None: upstream) sent [start, stop)."""
        if provider is not None:
            self._providers[provider.peer] = provider
        self._parts.put(start, stop, provider.peer if provider else None)

    def blame(self, start: int, stop: int, provider: Provider | None) -> None:
        """Let ``provider`` (None: nobody) answer for [start, stop), whoever sent it."""
        if provider is not None:
            self._providers[provider.peer] = provider
        self._parts.put(start, stop, provider.peer if provider else NOBODY)

    @property
    def of_others(self) -> bool:
        """Whether any of it came from peers, or from an earlier process."""
        return self.resumed > 0 or any(peer is not None for _, _, peer in self._parts)

    def sole(self, size: int) -> PeerId | None:
        """The one peer that sent all ``size`` bytes, if so: whatever is wrong with them is its doing."""
        parts = self.parts
        sole = parts[0][2] if len(parts) == 1 and parts[0][:2] == (0, size) else None
        return None if sole == NOBODY else sole


@dataclass(frozen=True, slots=True)
class SliceHash:
    """What one source (None: upstream) sent for [start, start + length)."""

    peer: PeerId | None
    start: int
    length: int
    hash: bytes


def hash_bytes(data: bytes) -> bytes:
    """Short-lived, for comparison within this process."""
    return hashlib.blake2b(data, digest_size=16).digest()


async def collect_evidence(ingest: Ingest, evidence: Evidence) -> list[SliceHash]:
    """Hash every part, slice by slice, before they are thrown away."""
    found = []
    for start, stop, peer in evidence.parts:
        for low in range(start, stop, SLICE):
            data = await ingest.read(low, min(SLICE, stop - low))
            found.append(SliceHash(peer, low, len(data), hash_bytes(data)))
    return found


async def differing(reader: BlobReader, before: Iterable[SliceHash]) -> list[SliceHash]:
    """The slices that are not those of the blob, which is now committed."""
    return [part for part in before if hash_bytes(await reader.read(part.start, part.length)) != part.hash]
