"""What goes first when room is needed. Pure: the caller says what may go, oldest use first, and acts on the answer.

The order, and why:
1. partial blobs that nobody writes, oldest first: no client can have them without a fetch anyway;
2. blobs larger than ``SMALL``, least recently used first: layers, which are what fills a disk;
3. the small ones (manifests, configs), least recently used first: they free next to nothing, and losing one makes a
   whole image unreadable.
Nothing goes in vain: no victim is named when all of them together would not do, and none that the others make needless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2pdist.oci.digest import Digest

SMALL = 64 * 1024


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that may go, and the bytes that this frees."""

    digest: Digest
    size: int
    partial: bool = False


def choose_victims(candidates: Iterable[Candidate], need: int) -> list[Candidate]:
    """Whom to evict to free ``need`` bytes; [] when nothing is needed, or when no choice would free as much.

    ``candidates`` come least recently used first and are read only as far as the answer needs.
    """
    if need <= 0:
        return []
    large: list[Candidate] = []
    small: list[Candidate] = []
    freed = 0
    for candidate in candidates:
        if not candidate.partial and candidate.size <= SMALL:
            small.append(candidate)
            continue
        large.append(candidate)
        freed += candidate.size
        if freed >= need:
            return _spare(large, freed - need)
    for candidate in small:
        large.append(candidate)
        freed += candidate.size
        if freed >= need:
            return _spare(large, freed - need)
    return []


def _spare(chosen: list[Candidate], surplus: int) -> list[Candidate]:
    """``chosen`` without those that the others make needless, sparing the last chosen first."""
    kept: list[Candidate] = []
    for candidate in reversed(chosen):
        if candidate.size <= surplus:
            surplus -= candidate.size
        else:
            kept.append(candidate)
    return kept[::-1]


def reachable(roots: Iterable[Digest], children: Callable[[Digest], Iterable[Digest]]) -> set[Digest]:
    """Everything that can be reached from ``roots``; ``children`` is asked once for each digest."""
    seen: set[Digest] = set()
    waiting = list(roots)
    while waiting:
        digest = waiting.pop()
        if digest not in seen:
            seen.add(digest)
            waiting.extend(children(digest))
    return seen
