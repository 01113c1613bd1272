"""Where each byte came from, and whether a client has had it yet: what makes the savings exact.

Rules:
- A byte that was fetched for this host is charged to its source (peer or upstream) the first time a client gets it.
- From the second time on, and after a restart, it is a byte from the store.
- What was taken for a client that left before getting it is given back.
Bounded: the ``MAX_BLOBS`` most recently fetched blobs are remembered; older ones count as store.
"""

from __future__ import annotations

from collections import OrderedDict

from p2pdist.oci.digest import Digest
from p2pdist.transfer.content import Source
from p2pdist.transfer.intervals import IntervalMap

MAX_BLOBS = 4096

Segment = tuple[int, int, Source]


def fill_gaps(start: int, stop: int, segments: list[Segment]) -> list[Segment]:
    """``segments`` with the rest of [start, stop) as store, in order, neighbours of one source joined."""
    whole: list[Segment] = []

    def push(low: int, high: int, source: Source) -> None:
        if low >= high:
            return
        if whole and whole[-1][2] is source:
            whole[-1] = (whole[-1][0], high, source)
        else:
            whole.append((low, high, source))

    position = start
    for low, high, source in segments:
        push(position, low, Source.STORE)
        push(low, high, source)
        position = high
    push(position, stop, Source.STORE)
    return whole


class Ledger:
    """For each blob fetched lately: where the bytes that no client has had yet came from."""

    def __init__(self) -> None:
        self._maps: OrderedDict[Digest, IntervalMap[Source]] = OrderedDict()

    def fetched(self, digest: Digest, start: int, stop: int, source: Source) -> None:
        """Note bytes as they arrive."""
        if start >= stop:
            return
        found = self._maps.get(digest)
        if found is None:
            found = self._maps[digest] = IntervalMap()
            while len(self._maps) > MAX_BLOBS:
                self._maps.popitem(last=False)
        found.put(start, stop, source)

    def charge(self, digest: Digest, start: int, stop: int) -> list[Segment]:
        """What to book [start, stop) under, in order and without gaps; uncharged bytes become charged."""
        found = self._maps.get(digest)
        if found is None:
            return [(start, stop, Source.STORE)] if start < stop else []
        taken = found.take(start, stop)
        if not found:
            del self._maps[digest]
        return fill_gaps(start, stop, taken)

    def give_back(self, digest: Digest, segments: list[Segment]) -> None:
        """Undo a charge whose bytes the client did not get."""
        for start, stop, source in segments:
            if source is not Source.STORE:
                self.fetched(digest, start, stop, source)

    def forget(self, digest: Digest) -> None:
        """The bytes were thrown away."""
        self._maps.pop(digest, None)

    def has_uncharged(self, digest: Digest) -> bool:
        return digest in self._maps
