"""Which of the requests that prove the cluster key (http_auth.py) are admitted: each once, and only while it is fresh.

Pure: times are passed in, in milliseconds since the Unix epoch, of a clock that does not jump.
Always true here: a request is good for one recipient, once, and within ``window`` of the recipient's time. A recipient
that must forget MACs to stay within its memory, or by a restart, refuses everything as old as what it forgot: no replay
gets in by it. What proves nothing costs one MAC, and no memory.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError
from p2pdist.wire.http_auth import Credentials, HttpAuth, Target

WINDOW_MS = 120_000
REPLAY_CAPACITY = 65_536
_BUCKET_MS = 1000


class Refusal(enum.StrEnum):
    """Why a request was not accepted; for logs and counters, never told to the sender."""

    MALFORMED = "malformed"
    MAC = "mac"
    TIME = "time"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Refused:
    """Answer 401 with ``challenge`` as CHALLENGE_HEADER (None: the sender does not even speak the scheme)."""

    reason: Refusal
    challenge: str | None


class Verifier:
    """Admits each good request once; see the module's rules.

    ``started_ms``: the time at its start. Older requests may have been admitted by the process before, so they are
    refused, and their senders told a time that will do.
    """

    def __init__(
        self,
        auth: HttpAuth,
        started_ms: int = 0,
        *,
        window_ms: int = WINDOW_MS,
        capacity: int = REPLAY_CAPACITY,
    ) -> None:
        self._auth = auth
        self._window = window_ms
        self._seen = _SeenMacs(capacity, started_ms)

    def admit(
        self, header: str | None, target: Target, now_ms: int, *, anyone: bool = False
    ) -> Credentials | Refused:
        """Check one request's Authorization header; its credentials when it is good."""
        try:
            credentials = Credentials.parse(header or "")
        except InvalidInputError:
            return Refused(Refusal.MALFORMED, None)
        if not self._auth.proves(credentials, target, anyone=anyone):
            return self._refused(Refusal.MAC, credentials, now_ms)
        self._seen.expire(now_ms - self._window)
        if abs(credentials.time_ms - now_ms) > self._window or self._seen.too_old(credentials.time_ms):
            return self._refused(Refusal.TIME, credentials, now_ms)
        if not self._seen.add(credentials.time_ms, credentials.mac):
            return self._refused(Refusal.REPLAY, credentials, now_ms)
        return credentials

    def _refused(self, reason: Refusal, credentials: Credentials, now_ms: int) -> Refused:
        good_ms = max(now_ms, self._seen.earliest_ms)
        return Refused(reason, self._auth.challenge(credentials.nonce, good_ms))


class _SeenMacs:
    """The MACs of admitted requests by the second they were made in; what is forgotten is refused from then on."""

    def __init__(self, capacity: int, started_ms: int) -> None:
        self._capacity = capacity
        self._buckets: dict[int, set[bytes]] = {}
        self._count = 0
        self._floor = started_ms // _BUCKET_MS if started_ms else -1

    @property
    def earliest_ms(self) -> int:
        return (self._floor + 1) * _BUCKET_MS

    def too_old(self, time_ms: int) -> bool:
        return time_ms // _BUCKET_MS <= self._floor

    def add(self, time_ms: int, mac: bytes) -> bool:
        """Remember; False when it is known already. ``time_ms`` is not ``too_old``."""
        bucket = self._buckets.setdefault(time_ms // _BUCKET_MS, set())
        short = mac[:16]
        if short in bucket:
            return False
        bucket.add(short)
        self._count += 1
        while self._count > self._capacity:
            self._forget(min(self._buckets))
        return True

    def expire(self, before_ms: int) -> None:
        last = before_ms // _BUCKET_MS - 1
        if last > self._floor:
            for second in [second for second in self._buckets if second <= last]:
                self._forget(second)
            self._floor = max(self._floor, last)

    def _forget(self, second: int) -> None:
        self._count -= len(self._buckets.pop(second))
        self._floor = max(self._floor, second)
