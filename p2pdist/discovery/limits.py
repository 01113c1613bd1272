"""How much one sender may ask for, and how often the same complaint is logged. Pure: the caller tells the time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Bucket:
    """A token bucket: ``rate`` tokens a second, at most ``burst`` saved up."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now

    def take(self, tokens: float, now: float) -> bool:
        """Take ``tokens`` if they are there."""
        self._refill(now)
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def reserve(self, now: float) -> float:
        """Take one token, on credit if need be; returns the seconds to wait until it is there."""
        self._refill(now)
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now


class PerSender:
    """A bucket for each sender; the senders kept are bounded, the one quiet for longest is forgotten first."""

    def __init__(self, rate: float, burst: float, senders: int = 4096) -> None:
        self._rate = rate
        self._burst = burst
        self._most = senders
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def take(self, sender: Hashable, tokens: float, now: float) -> bool:
        bucket = self._buckets.get(sender)
        if bucket is None:
            bucket = self._buckets[sender] = Bucket(self._rate, self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(sender)
        return bucket.take(tokens, now)


class Seldom:
    """Says whether it is time to log a kind of complaint again: once per ``every`` seconds."""

    def __init__(self, every: float = 60.0) -> None:
        self._every = every
        self._last: dict[str, float] = {}

    def due(self, kind: str, now: float) -> bool:
        if now - self._last.get(kind, -self._every) < self._every:
            return False
        self._last[kind] = now
        return True
