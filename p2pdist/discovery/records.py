"""The records this node keeps for the cluster. Pure: the caller tells the time; the sample's dice are handed in.

Always true here (it takes the place of kademlia's storage, which keeps one value for each key):
- Under a key there is at most one record of each peer; a newer one replaces it and keeps its place in the order.
- A record is gone when its time is over, whether or not ``sweep`` has been called.
- Bounded: records of one key, of one sender, and in all. When a key is full, a complete provider takes the place of
  a partial one, of the zone that has most; a partial one takes the place of the partial one that ends first.
- All records of a key are of one kind, providers or tags: that of the first.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from p2pdist.records import ContentKey, PeerId, Provider, TagRecord
from p2pdist.wire import codec

Record = Provider | TagRecord
RACE = 2.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept. ``longest`` and ``shortest`` are the seconds a record may ask to live."""

    per_key: int = 64
    tags_per_key: int = 8
    per_sender: int = 16384
    records: int = 131_072
    shortest: float = 1.0
    longest: float = 7200.0


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a record came to stand: whether it was kept, how many others were under the key before it, and whether
    one of those came more than RACE seconds before, so that it cannot be of the same race."""

    kept: bool
    earlier: int
    established: bool


class _Entry:
    """``raw`` is a provider encoded: it is told more often than it changes."""

    __slots__ = ("ends", "order", "raw", "record", "since", "told")

    def __init__(self, record: Record, raw: bytes, order: int, now: float, ends: float) -> None:
        self.record = record
        self.raw = raw
        self.order = order
        self.since = now
        self.told = now
        self.ends = ends


class RecordStore:
    """Records by key and peer."""

    def __init__(self, dice: random.Random, bounds: Bounds = Bounds()) -> None:
        self._dice = dice
        self._bounds = bounds
        self._keys: dict[ContentKey, dict[PeerId, _Entry]] = {}
        self._of: dict[PeerId, set[ContentKey]] = {}
        self._same: dict[Provider, tuple[Provider, bytes]] = {}
        self._records = 0
        self._order = 0

    def __len__(self) -> int:
        return self._records

    @property
    def keys(self) -> int:
        """How many keys have records."""
        return len(self._keys)

    def put(self, key: ContentKey, record: Record, ttl: float, now: float) -> Placed:
        """Keep ``record`` under ``key`` for ``ttl`` seconds, if the bounds allow it."""
        entries = self._live(key, now)
        ends = now + min(max(ttl, self._bounds.shortest), self._bounds.longest)
        known = entries.get(record.peer)
        shared, raw = self._shared(record)
        if known is not None and type(known.record) is type(record):
            known.record, known.raw, known.ends, known.told = shared, raw, ends, now
            return _placed(entries, known, kept=True)
        self._order += 1
        entry = _Entry(shared, raw, self._order, now, ends)
        placed = _placed(entries, entry, kept=True)
        if not self._admit(key, entries, record):
            return Placed(False, placed.earlier, placed.established)
        self._keys.setdefault(key, entries)[record.peer] = entry
        self._of.setdefault(record.peer, set()).add(key)
        self._records += 1
        return placed

    def renew(self, peer: PeerId, keys: Iterable[ContentKey], ttl: float, now: float) -> list[ContentKey]:
        """Let the peer's records live ``ttl`` seconds from now; returns the keys under which it has none."""
        ends = now + min(max(ttl, self._bounds.shortest), self._bounds.longest)
        unknown = []
        for key in keys:
            entry = self._live(key, now).get(peer)
            if entry is None:
                unknown.append(key)
            else:
                entry.ends = ends
        return unknown

    def withdraw(self, peer: PeerId, keys: Iterable[ContentKey]) -> None:
        """Drop the peer's records under ``keys``."""
        for key in keys:
            if peer in self._keys.get(key, ()):
                self._drop(key, peer)

    def leave(self, peer: PeerId) -> None:
        """Drop every record of the peer."""
        self.withdraw(peer, list(self._of.get(peer, ())))

    def providers(self, key: ContentKey, most: int, now: float, but: PeerId | None = None) -> list[Provider]:
        """At most ``most`` of the providers under ``key``, without ``but``: the one there first, then a random sample
        of the complete ones, then of the partial ones (a third of the room is kept for these)."""
        sample = self._sample(self._providers(key, now, but), most)
        return [entry.record for entry in sample if isinstance(entry.record, Provider)]

    def told(self, key: ContentKey, most: int, room: int, now: float, but: PeerId) -> list[bytes]:
        """The same, encoded: as many as fit in ``room`` bytes. All of them in no order, where all fit."""
        entries = self._providers(key, now, but)
        if len(entries) > most or len(codec.fitting([entry.raw for entry in entries], room)) < len(entries):
            entries = self._sample(entries, most)
        return codec.fitting([entry.raw for entry in entries], room)

    def tags(self, key: ContentKey, now: float, but: PeerId | None = None) -> list[TagRecord]:
        """The tag records under ``key``, aged by the time they have been here, youngest first."""
        aged = []
        for entry in self._live(key, now).values():
            if isinstance(entry.record, TagRecord) and entry.record.peer != but:
                tag = entry.record
                age = tag.age + now - entry.told
                aged.append(TagRecord(tag.peer, tag.digest, tag.media_type, tag.size, age))
        return sorted(aged, key=lambda tag: tag.age)

    def holds(self, key: ContentKey, now: float, but: PeerId) -> bool:
        """Whether there is a record of anyone but ``but``."""
        entries = self._live(key, now)
        return len(entries) > (but in entries)

    def sweep(self, now: float) -> None:
        """Forget what has ended."""
        for key in list(self._keys):
            self._live(key, now)

    def _providers(self, key: ContentKey, now: float, but: PeerId | None) -> list[_Entry]:
        entries = self._live(key, now)
        left_out = entries.get(but) if but is not None else None
        return [e for e in entries.values() if e is not left_out and isinstance(e.record, Provider)]

    def _sample(self, entries: list[_Entry], most: int) -> list[_Entry]:
        if len(entries) < 2:
            return entries[:most]
        first = min(entries, key=lambda entry: entry.order)
        rest = [entry for entry in entries if entry is not first]
        self._dice.shuffle(rest)
        complete = [entry for entry in rest if _is_complete(entry)]
        partial = [entry for entry in rest if not _is_complete(entry)]
        share = max(most - 1 - len(partial), (most - 1) * 2 // 3)
        return [first, *complete[:share], *partial, *complete[share:]][:most]

    def _live(self, key: ContentKey, now: float) -> dict[PeerId, _Entry]:
        entries = self._keys.get(key)
        if entries is None:
            return {}
        for peer in [peer for peer, entry in entries.items() if entry.ends <= now]:
            self._drop(key, peer)
        return entries or {}

    def _drop(self, key: ContentKey, peer: PeerId) -> None:
        entries, keys = self._keys[key], self._of[peer]
        del entries[peer]
        keys.discard(key)
        self._records -= 1
        if not entries:
            del self._keys[key]
        if not keys:
            del self._of[peer]
            self._same = {record: same for record, same in self._same.items() if record.peer != peer}

    def _admit(self, key: ContentKey, entries: dict[PeerId, _Entry], record: Record) -> bool:
        if len(self._of.get(record.peer, ())) >= self._bounds.per_sender:
            return False
        kind = next(iter(entries.values())).record if entries else record
        if type(kind) is not type(record):
            return False
        most = self._bounds.per_key if isinstance(record, Provider) else self._bounds.tags_per_key
        if len(entries) >= most:
            victim = _victim(entries, record)
            if victim is None:
                return False
            self._drop(key, victim)
        return self._records < self._bounds.records

    def _shared(self, record: Record) -> tuple[Record, bytes]:
        """One object, and its bytes, for all of a peer's equal records: most differ only in their key."""
        if isinstance(record, TagRecord):
            return record, b""
        same = self._same.get(record)
        if same is None:
            if len(self._same) > 8192:
                self._same.clear()
            same = self._same[record] = (record, codec.encode_provider(record))
        return same


def _is_complete(entry: _Entry) -> bool:
    return isinstance(entry.record, Provider) and entry.record.complete


def _placed(entries: dict[PeerId, _Entry], mine: _Entry, *, kept: bool) -> Placed:
    before = [entry for entry in entries.values() if entry.order < mine.order]
    return Placed(kept, len(before), any(mine.since - entry.since > RACE for entry in before))


def _victim(entries: dict[PeerId, _Entry], record: Record) -> PeerId | None:
    """Who makes room for ``record`` under a full key, if anyone does."""
    if isinstance(record, TagRecord):
        oldest = min(entries.items(), key=lambda item: item[1].told - _age(item[1]))
        return oldest[0]
    zones = Counter(entry.record.zone for entry in entries.values() if isinstance(entry.record, Provider))
    zones[record.zone] += 1
    partial = [(peer, entry) for peer, entry in entries.items() if not _is_complete(entry)]
    if not partial and not record.complete:
        return None
    return min(partial or entries.items(), key=lambda item: (-zones[_zone(item[1])], item[1].ends))[0]


def _zone(entry: _Entry) -> str:
    return entry.record.zone if isinstance(entry.record, Provider) else ""


def _age(entry: _Entry) -> float:
    return entry.record.age if isinstance(entry.record, TagRecord) else 0.0
