"""What tags point at now: pure, and shared by the stores.

Rules: a resolution with the digest that the tag has already refreshes it and keeps its ``first_seen``; any other digest
becomes the newest. At most ``MAX_TAGS`` tags are kept; the one that was resolved longest ago is forgotten first. Of what
they pointed at, the stores keep ``MAX_HISTORY`` resolutions a tag and ``MAX_RESOLUTIONS`` in all; the oldest go first,
and never the newest one of a tag.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.store.port import TagEntry

MAX_TAGS = 10_000
MAX_HISTORY = 100
MAX_RESOLUTIONS = 50_000

TagKey = tuple[Repository, str]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What recording a resolution changed: ``entry`` is the tag's newest now, ``moved`` when its digest is another."""

    entry: TagEntry
    moved: bool
    forgotten: TagKey | None = None


class TagBook:
    """See the module's rules."""

    def __init__(self, entries: Iterable[TagEntry] = ()) -> None:
        self._newest: dict[TagKey, TagEntry] = {}
        self._targets: Counter[Digest] = Counter()
        for entry in entries:
            self.record(entry)

    def record(self, entry: TagEntry) -> Recorded:
        key = (entry.repository, entry.tag)
        old = self._newest.get(key)
        moved = old is None or old.digest != entry.digest
        if old is not None and not moved:
            entry = replace(entry, first_seen=old.first_seen)
        self._forget(key)
        self._newest[key] = entry
        self._targets[entry.digest] += 1
        forgotten = None
        if len(self._newest) > MAX_TAGS:
            forgotten = min(self._newest, key=lambda item: self._newest[item].resolved_at)
            self._forget(forgotten)
        return Recorded(entry, moved, forgotten)

    def _forget(self, key: TagKey) -> None:
        old = self._newest.pop(key, None)
        if old is not None:
            self._targets -= Counter([old.digest])

    def get(self, repository: Repository, tag: str) -> TagEntry | None:
        return self._newest.get((repository, tag))

    def newest(self, repository: Repository | None = None) -> list[TagEntry]:
        """Newest resolution of each tag, newest first."""
        return newest_first(
            entry for entry in self._newest.values() if repository in (None, entry.repository)
        )

    def is_target(self, digest: Digest) -> bool:
        """Whether a tag points at it now."""
        return digest in self._targets

    def targets(self) -> set[Digest]:
        return set(self._targets)


def newest_first(entries: Iterable[TagEntry]) -> list[TagEntry]:
    """In the order of resolution, at most ``MAX_TAGS``."""
    return sorted(entries, key=lambda entry: entry.resolved_at, reverse=True)[:MAX_TAGS]
