"""What this agent thinks of each peer, from what happened with it: whom to ask, whom to leave alone, and until when.

Pure: time and the seed for tie-breaks are passed in. Always true here:
- ``_NEXT`` is the whole life of a peer's standing; a standing other than OK ends by itself when its time is up.
- Failures of one outage count once: what fails while the peer is backing off already does not lengthen the wait.
- A busy peer is alive: being busy never leads to a longer absence than it asked for (and at most MAX_BUSY).
- Only LIED bans, nothing but time lifts a ban, and a ban is the last thing that is forgotten when there is no room.
- At most ``capacity`` peers are remembered; the one heard of least recently goes first.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from p2pdist.records import PeerId, Provider

FIRST_BACKOFF = 1.0
MAX_BACKOFF = 30.0
DEFAULT_BUSY = 0.5
MIN_BUSY = 0.05
MAX_BUSY = 10.0
BAN = 600.0
CAPACITY = 4096
_RATE_WEIGHT = 0.3
_MIN_SAMPLE_SECONDS = 0.001


class Standing(enum.StrEnum):
    """Where a peer stands."""

    OK = "ok"
    BACKING_OFF = "backing off"
    BUSY = "busy"
    BANNED = "banned"


class Outcome(enum.StrEnum):
    """How an exchange with a peer ended."""

    SUCCEEDED = "succeeded"
    UNREACHABLE = "unreachable"
    STALLED = "stalled"
    SLOW = "slow"
    BUSY = "busy"
    LIED = "lied"


_FAILURES = frozenset({Outcome.UNREACHABLE, Outcome.STALLED, Outcome.SLOW})

_NEXT: dict[Standing, dict[Outcome, Standing]] = {
    Standing.OK: {
        Outcome.SUCCEEDED: Standing.OK,
        Outcome.UNREACHABLE: Standing.BACKING_OFF,
        Outcome.STALLED: Standing.BACKING_OFF,
        Outcome.SLOW: Standing.BACKING_OFF,
        Outcome.BUSY: Standing.BUSY,
        Outcome.LIED: Standing.BANNED,
    },
    Standing.BACKING_OFF: {
        Outcome.SUCCEEDED: Standing.OK,
        Outcome.UNREACHABLE: Standing.BACKING_OFF,
        Outcome.STALLED: Standing.BACKING_OFF,
        Outcome.SLOW: Standing.BACKING_OFF,
        Outcome.BUSY: Standing.BUSY,
        Outcome.LIED: Standing.BANNED,
    },
    Standing.BUSY: {
        Outcome.SUCCEEDED: Standing.OK,
        Outcome.UNREACHABLE: Standing.BACKING_OFF,
        Outcome.STALLED: Standing.BACKING_OFF,
        Outcome.SLOW: Standing.BACKING_OFF,
        Outcome.BUSY: Standing.BUSY,
        Outcome.LIED: Standing.BANNED,
    },
    Standing.BANNED: dict.fromkeys(Outcome, Standing.BANNED),
}


@dataclass(frozen=True, slots=True)
class Observation:
    """One exchange's end. ``retry_after``: seconds a busy peer asked for."""

    peer: PeerId
    outcome: Outcome
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer as people see it: ``seconds_left`` of the standing, ``rate`` in bytes a second (None: never measured)."""

    peer: PeerId
    standing: Standing
    seconds_left: float
    failures: int
    rate: float | None


@dataclass(slots=True)
class _Record:
    standing: Standing = Standing.OK
    until: float = 0.0
    failures: int = 0
    rate: float | None = None

    def at(self, now: float) -> Standing:
        return self.standing if now < self.until else Standing.OK


class PeerHealth:
    """See the module's rules. ``seed`` (say, the own peer id) makes different hosts prefer different peers."""

    def __init__(self, seed: bytes = b"", *, capacity: int = CAPACITY) -> None:
        self._seed = seed
        self._capacity = max(1, capacity)
        self._records: OrderedDict[PeerId, _Record] = OrderedDict()

    # -- what happened --

    def observe(self, event: Observation, now: float) -> Standing:
        """Book the end of an exchange; where the peer stands now."""
        record = self._record(event.peer, now)
        before = record.at(now)
        after = _NEXT[before][event.outcome]
        if event.outcome is Outcome.SUCCEEDED:
            record.failures = 0
        elif event.outcome in _FAILURES and before is not Standing.BACKING_OFF:
            record.failures += 1
        if not _stays(before, event.outcome):
            record.until = now + _duration(after, record.failures, event.retry_after)
        record.standing = after
        return after

    def succeeded(self, peer: PeerId, now: float) -> None:
        """It delivered to the end."""
        self.observe(Observation(peer, Outcome.SUCCEEDED), now)

    def unreachable(self, peer: PeerId, now: float) -> None:
        """No connection, a broken one, or an answer that breaks the protocol."""
        self.observe(Observation(peer, Outcome.UNREACHABLE), now)

    def stalled(self, peer: PeerId, now: float) -> None:
        """Its bytes stopped arriving."""
        self.observe(Observation(peer, Outcome.STALLED), now)

    def slow(self, peer: PeerId, now: float) -> None:
        """Its bytes arrive below the least useful rate."""
        self.observe(Observation(peer, Outcome.SLOW), now)

    def busy(self, peer: PeerId, now: float, retry_after: float | None = None) -> None:
        """It asked to be left alone for ``retry_after`` seconds (None: it named no time)."""
        self.observe(Observation(peer, Outcome.BUSY, retry_after), now)

    def banned(self, peer: PeerId, now: float) -> None:
        """Its content did not have the digest that it was offered by."""
        self.observe(Observation(peer, Outcome.LIED), now)

    def received(self, peer: PeerId, size: int, seconds: float, now: float) -> None:
        """Book a measured transfer for the ordering by speed; too short ones tell nothing and are dropped."""
        if size <= 0 or seconds < _MIN_SAMPLE_SECONDS:
            return
        record = self._record(peer, now)
        sample = size / seconds
        record.rate = sample if record.rate is None else record.rate + _RATE_WEIGHT * (sample - record.rate)

    # -- whom to ask --

    def standing(self, peer: PeerId, now: float) -> Standing:
        """Where the peer stands; OK when nothing is known of it."""
        record = self._records.get(peer)
        return Standing.OK if record is None else record.at(now)

    def usable(self, peer: PeerId, now: float) -> bool:
        """Whether the peer may be asked now."""
        return self.standing(peer, now) is Standing.OK

    def order(
        self, providers: Iterable[Provider], now: float, own_zone: str = "", *, salt: bytes = b""
    ) -> list[Provider]:
        """The usable providers, best first: same zone, then faster (by powers of two), then complete ones.

        Equals are ordered by a hash of the seed, ``salt`` and the peer, so that different hosts (and, with the digest as
        salt, different blobs) burden different peers. An unmeasured peer counts as the fastest: it has to be tried once.
        """
        usable = [each for each in providers if self.usable(each.peer, now)]
        speeds = {each.peer: self._speed(each.peer) for each in usable}
        best = max((speed for speed in speeds.values() if speed is not None), default=0)

        def key(provider: Provider) -> tuple[bool, int, bool, bytes]:
            speed = speeds[provider.peer]
            return (
                provider.zone != own_zone,
                -(best if speed is None else speed),
                not provider.complete,
                hashlib.blake2b(salt + provider.peer.raw, digest_size=8, key=self._seed[:64]).digest(),
            )

        return sorted(usable, key=key)

    def view(self, now: float) -> list[PeerView]:
        """Everything that is remembered, for status displays; heard of most recently first."""
        return [
            PeerView(peer, record.at(now), max(0.0, record.until - now), record.failures, record.rate)
            for peer, record in reversed(self._records.items())
        ]

    # -- memory --

    def _speed(self, peer: PeerId) -> int | None:
        record = self._records.get(peer)
        return None if record is None or record.rate is None else math.floor(math.log2(max(1.0, record.rate)))

    def _record(self, peer: PeerId, now: float) -> _Record:
        record = self._records.get(peer)
        if record is None:
            if len(self._records) >= self._capacity:
                self._forget_one(now)
            record = self._records[peer] = _Record()
        self._records.move_to_end(peer)
        return record

    def _forget_one(self, now: float) -> None:
        oldest = next(iter(self._records))
        forgettable = (p for p, record in self._records.items() if record.at(now) is not Standing.BANNED)
        del self._records[next(forgettable, oldest)]


def _stays(before: Standing, outcome: Outcome) -> bool:
    """Whether the time already set still holds: one outage counts once, and a ban is lengthened only by another lie."""
    if before is Standing.BANNED:
        return outcome is not Outcome.LIED
    return before is Standing.BACKING_OFF and outcome in _FAILURES


def _duration(standing: Standing, failures: int, retry_after: float | None) -> float:
    if standing is Standing.BACKING_OFF:
        return float(min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(max(0, failures - 1), 10)))
    if standing is Standing.BUSY:
        asked = DEFAULT_BUSY if retry_after is None or math.isnan(retry_after) else retry_after
        return min(MAX_BUSY, max(MIN_BUSY, asked))
    return BAN if standing is Standing.BANNED else 0.0
