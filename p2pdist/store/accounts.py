"""The books of a store: what is held, reserved, open, pinned, and in what order it was used. No I/O, no clock.

Rules:
- committed + reserved <= quota after every call. The one exception: a quota lowered below what is pinned, where
  nothing more is admitted until it fits again.
- Choosing victims, striking them off and reserving are one step (``reserve``), so that two callers never count on the
  same room. The caller then removes the files before it writes, so the disk keeps to the quota as well.
- What is open, pinned or being written is never a victim.
- Order of use is the order of calls, not of wall-clock times, which may jump.
- ``reserved`` is the full size of each open ingest, and what is held of each partial blob that nobody writes.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from p2pdist.errors import InvalidInputError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference
from p2pdist.retention.policy import Candidate, choose_victims
from p2pdist.store.port import BlobInfo, Usage

_MAX_EVICTED = 100_000


@dataclass(slots=True)
class Readers:
    """How many have a blob open: a count that outlasts the entry, when the blob is committed again meanwhile."""

    count: int = 0


@dataclass(slots=True)
class Entry:
    """A committed blob. ``verified`` is False while its digest was taken from its file's name and not checked yet."""

    size: int
    media_type: str
    committed_at: float
    used_at: float
    shared: bool
    verified: bool = True
    readers: Readers = field(default_factory=Readers)


@dataclass(frozen=True, slots=True)
class Partial:
    """What is left of an ingest that nobody writes: bytes held, since when (wall-clock seconds)."""

    held: int
    since: float


class Accounts:
    """See the module's rules. All sizes are bytes, all times wall-clock seconds."""

    def __init__(self, quota: int) -> None:
        self.quota = quota
        self.committed = 0
        self.reserved = 0
        self._blobs: OrderedDict[Digest, Entry] = OrderedDict()
        self._writing: dict[Digest, int] = {}
        self._partials: OrderedDict[Digest, Partial] = OrderedDict()
        self._pins: dict[Reference, set[Digest]] = {}
        self._pinned: Counter[Digest] = Counter()
        self._evicted: dict[Digest, None] = {}

    # -- what is held --

    def get(self, digest: Digest) -> Entry | None:
        return self._blobs.get(digest)

    def info(self, digest: Digest) -> BlobInfo | None:
        entry = self._blobs.get(digest)
        return None if entry is None else self._info(digest, entry)

    def _info(self, digest: Digest, entry: Entry) -> BlobInfo:
        return BlobInfo(
            digest,
            entry.size,
            entry.media_type,
            entry.committed_at,
            entry.used_at,
            bool(self._pinned) and digest in self._pinned,
            entry.shared,
        )

    def infos(self) -> list[BlobInfo]:
        """All blobs, most recently used first."""
        return [self._info(digest, entry) for digest, entry in reversed(self._blobs.items())]

    def digests(self) -> Iterator[Digest]:
        """All blobs, least recently used first."""
        return iter(self._blobs)

    def usage(self) -> Usage:
        pinned = sum(digest in self._blobs for digest in self._pinned)
        return Usage(self.committed, self.reserved, self.quota, len(self._blobs), pinned)

    def load(self, digest: Digest, entry: Entry) -> None:
        """Take over a blob of an earlier process; call in order of use, oldest first."""
        self._blobs[digest] = entry
        self.committed += entry.size

    def load_partial(self, digest: Digest, held: int, since: float) -> None:
        """Take over a partial blob of an earlier process; call oldest first."""
        self._partials[digest] = Partial(held, since)
        self.reserved += held

    # -- use --

    def touch(self, digest: Digest, wall: float) -> None:
        self._blobs[digest].used_at = wall
        self._blobs.move_to_end(digest)

    def hold(self, digest: Digest, wall: float) -> Entry:
        """Count a reader until ``release``; what it has open is never evicted. KeyError when it is not held."""
        self.touch(digest, wall)
        entry = self._blobs[digest]
        entry.readers.count += 1
        return entry

    def release(self, entry: Entry) -> None:
        """A reader that ``hold`` counted is gone."""
        entry.readers.count -= 1

    # -- writing --

    def being_written(self, digest: Digest) -> bool:
        return digest in self._writing

    def partial(self, digest: Digest) -> int:
        """Bytes held of a partial that nobody writes."""
        partial = self._partials.get(digest)
        return partial.held if partial else 0

    def reserve(self, digest: Digest, size: int) -> list[Candidate]:
        """Room for ``size`` bytes; returns whom the caller must now remove.

        A partial of ``digest`` is absorbed; ``digest`` itself, when it is held, does not go to make room for itself.
        Raises ValueError when ``digest`` is being written, StoreFullError when the room cannot be had.
        """
        if size < 0:
            raise InvalidInputError(f"blob {digest} cannot have {size} bytes")
        if digest in self._writing:
            raise ValueError(f"{digest} is being written already")
        own = self.partial(digest)
        need = self.committed + self.reserved - own + size - self.quota
        victims = choose_victims(self._evictable(digest), need)
        if need > 0 and not victims:
            raise StoreFullError(self._full_message(digest, size))
        for victim in victims:
            self._strike(victim)
        self.reserved += size - own
        self._partials.pop(digest, None)
        self._writing[digest] = size
        return victims

    def _full_message(self, digest: Digest, size: int) -> str:
        free = self.quota - self.committed - self.reserved
        return (
            f"no room for {digest} of {size} bytes: {free} of {self.quota} are free, and what else is held is open, "
            "pinned or being written, or too small to help; raise store.max_size or unpin images"
        )

    def commit(
        self, digest: Digest, *, media_type: str, wall: float, shared: bool, size: int | None = None
    ) -> Entry:
        """The ingest of ``digest`` became a blob; a blob that was held already keeps its readers and sharing."""
        reserved = self._writing.pop(digest, 0)
        self.reserved -= reserved
        size = reserved if size is None else size
        old = self._blobs.pop(digest, None)
        entry = Entry(size, media_type, wall, wall, shared)
        if old is not None:
            self.committed -= old.size
            entry.readers, entry.shared = old.readers, shared or old.shared
            entry.media_type = media_type or old.media_type
        self._blobs[digest] = entry
        self.committed += size
        self._evicted.pop(digest, None)
        return entry

    def shrink(self, digest: Digest, held: int, wall: float) -> None:
        """The ingest of ``digest`` was closed with ``held`` bytes kept."""
        self.reserved += held - self._writing.pop(digest)
        if held:
            self._partials[digest] = Partial(held, wall)

    # -- going --

    def _evictable(self, exempt: Digest | None = None) -> Iterator[Candidate]:
        for digest, partial in self._partials.items():
            if digest != exempt:
                yield Candidate(digest, partial.held, partial=True)
        yield from self._evictable_blobs(exempt)

    def _evictable_blobs(self, exempt: Digest | None = None) -> Iterator[Candidate]:
        for digest, entry in self._blobs.items():
            if digest != exempt and self.may_go(digest):
                yield Candidate(digest, entry.size)

    def may_go(self, digest: Digest) -> bool:
        """Whether this blob is neither open, pinned, nor being written."""
        entry = self._blobs[digest]
        return not entry.readers.count and digest not in self._pinned and digest not in self._writing

    def _strike(self, victim: Candidate) -> None:
        if victim.partial:
            self.reserved -= self._partials.pop(victim.digest).held
        else:
            self.drop(victim.digest)

    def drop(self, digest: Digest) -> Entry:
        """Strike off a blob, whoever uses it: its file is gone, or will be."""
        entry = self._blobs.pop(digest)
        self.committed -= entry.size
        self._evicted[digest] = None
        if len(self._evicted) > _MAX_EVICTED:
            del self._evicted[next(iter(self._evicted))]
        return entry

    def drop_partials(self, before: float) -> list[Candidate]:
        """Strike off partials that were left before that time."""
        stale = [
            Candidate(digest, partial.held, partial=True)
            for digest, partial in self._partials.items()
            if partial.since < before
        ]
        for victim in stale:
            self._strike(victim)
        return stale

    def trim(self) -> list[Candidate]:
        """Come down to a quota that was lowered; whom the caller must remove. [] when that cannot be done."""
        victims = choose_victims(self._evictable(), self.committed + self.reserved - self.quota)
        for victim in victims:
            self._strike(victim)
        return victims

    def shed(self, target: int) -> list[BlobInfo]:
        """Strike off blobs, as the policy orders them, until committed <= ``target`` or no more may go."""
        available = sum(candidate.size for candidate in self._evictable_blobs())
        victims = choose_victims(self._evictable_blobs(), min(self.committed - target, available))
        return self._struck(victim.digest for victim in victims)

    def sweep(self, garbage: Iterable[Digest]) -> list[BlobInfo]:
        """Strike off those of ``garbage`` that are held and may go."""
        return self._struck([item for item in garbage if item in self._blobs and self.may_go(item)])

    def _struck(self, digests: Iterable[Digest]) -> list[BlobInfo]:
        gone = [(digest, self._info(digest, self._blobs[digest])) for digest in digests]
        for digest, _ in gone:
            self.drop(digest)
        return [info for _, info in gone]

    def evicted(self) -> list[Digest]:
        """Blobs struck off since the last call and not committed again; the 100,000 newest."""
        result, self._evicted = list(self._evicted), {}
        return result

    # -- pins --

    def pin(self, reference: Reference, digests: Iterable[Digest]) -> None:
        """Pin more blobs under ``reference``; they need not be held yet."""
        pinned = self._pins.setdefault(reference, set())
        fresh = set(digests) - pinned
        pinned |= fresh
        self._pinned.update(fresh)

    def unpin(self, reference: Reference) -> bool:
        gone = self._pins.pop(reference, None)
        if gone is None:
            return False
        self._pinned -= Counter(gone)  # also forgets those whose count reaches zero
        return True

    def pins(self) -> list[Reference]:
        return sorted(self._pins, key=str)

    def pinned_digests(self) -> set[Digest]:
        return set(self._pinned)
