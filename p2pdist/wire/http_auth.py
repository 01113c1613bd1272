"""How peers prove to each other, over HTTP, that they hold the cluster key (docs/security.md).

Pure: key, nonces and times are passed in. Times are milliseconds since the Unix epoch, of a clock that does not jump
(``SteadyWall``). The scheme, all MACs HMAC-SHA256 with the key derived for ``peer-http``:

    request   Authorization: P2PDist v1 peer=HEX,time=MS,nonce=B64,mac=B64
              mac over method, path and query, Range, sender, recipient, time, nonce
    answer    P2PDist-Mac: B64, over the request's mac, the sender, the status and the control headers
    refusal   401 and P2PDist-Challenge: peer=HEX,time=MS,mac=B64, mac over the request's nonce, the sender and its time

Always true here:
- What a MAC covers is a list of length-prefixed fields under a label of its own: no two messages look alike.
- A request is good for one recipient, once, and for a while (http_verifier.py).
- An honest sender whose clock is off learns the recipient's time from the refusal, which is bound to its own nonce, and
  asks once more. A stranger can neither make a request, nor answer one, nor shift a sender's idea of the time.
- Parsing costs a bounded time and raises InvalidInputError only; MACs are compared in constant time.
Bodies are not covered: blobs are proven by their digest. TLS adds secrecy, which this scheme does not have.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError
from p2pdist.records import PeerId
from p2pdist.wire.sealed_frames import FrameSeal

CHALLENGE_HEADER = "P2PDist-Challenge"
MAC_HEADER = "P2PDist-Mac"
NONCE_BYTES = 16
_MAX_HEADER = 512
_MAX_CONTROL_HEADERS = 32
_PLAIN_CONTROL = frozenset({"content-length", "content-range", "retry-after"})
_OWN_CONTROL = "p2pdist-"
_UNCOVERED = frozenset({MAC_HEADER.lower(), CHALLENGE_HEADER.lower()})

_AUTHORIZATION = re.compile(
    r"P2PDist v1 peer=([0-9a-f]{40}),time=([0-9]{1,15}),nonce=([A-Za-z0-9_-]{22}),mac=([A-Za-z0-9_-]{43})\Z"
)
_CHALLENGE = re.compile(r"peer=([0-9a-f]{40}),time=([0-9]{1,15}),mac=([A-Za-z0-9_-]{43})\Z")
_MAC = re.compile(r"[A-Za-z0-9_-]{43}\Z")


@dataclass(frozen=True, slots=True)
class SteadyWall:
    """Wall time that does not jump: the wall clock at the start of the process, and the monotonic time since then."""

    wall: float
    now: float

    def ms(self, now: float) -> int:
        """Milliseconds since the epoch at monotonic time ``now`` (seconds)."""
        return max(0, int((self.wall + now - self.now) * 1000))


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked: the method, the path with its query as it goes over the wire, and the Range header ("" for none)."""

    method: str
    path: str
    range: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A parsed Authorization header; nothing in it is proven yet."""

    peer: PeerId
    time_ms: int
    nonce: bytes
    mac: bytes

    @classmethod
    def parse(cls, header: str) -> Credentials:
        """Read the header; raises InvalidInputError."""
        match = _AUTHORIZATION.match(header) if len(header) <= _MAX_HEADER else None
        if match is None:
            raise InvalidInputError("not an Authorization header of the P2PDist v1 scheme")
        peer, time, nonce, mac = match.groups()
        return cls(PeerId(bytes.fromhex(peer)), int(time), _unb64(nonce), _unb64(mac))

    def header(self) -> str:
        """The header's value."""
        return f"P2PDist v1 peer={self.peer.hex},time={self.time_ms},nonce={_b64(self.nonce)},mac={_b64(self.mac)}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """A proven refusal: who refused, and what time it is there."""

    peer: PeerId
    time_ms: int


class HttpAuth:
    """Makes and checks the MACs of one agent; holds the derived key and who the agent is, and no other state."""

    def __init__(self, key: bytes, own: PeerId) -> None:
        self._key = key
        self.own = own

    def sign(self, target: Target, to: PeerId | None, time_ms: int, nonce: bytes) -> Credentials:
        """Credentials for one request to ``to``; None: to whoever answers, which only ``hello`` accepts.

        ``nonce`` is NONCE_BYTES fresh random bytes.
        """
        mac = self._request_mac(target, self.own, to, time_ms, nonce)
        return Credentials(self.own, time_ms, nonce, mac)

    def proves(self, credentials: Credentials, target: Target, *, anyone: bool = False) -> bool:
        """Whether the sender holds the key and meant this agent (or, with ``anyone``, whoever answers)."""
        given = credentials
        recipients: tuple[PeerId | None, ...] = (self.own, None) if anyone else (self.own,)
        return any(
            hmac.compare_digest(
                given.mac, self._request_mac(target, given.peer, to, given.time_ms, given.nonce)
            )
            for to in recipients
        )

    def challenge(self, nonce: bytes, time_ms: int) -> str:
        """The value of CHALLENGE_HEADER for the request that had ``nonce``."""
        mac = self._challenge_mac(nonce, self.own, time_ms)
        return f"peer={self.own.hex},time={time_ms},mac={_b64(mac)}"

    def read_challenge(self, header: str, nonce: bytes) -> Challenge:
        """Check a refusal of the request that had ``nonce``; raises InvalidInputError when no member made it."""
        match = _CHALLENGE.match(header) if len(header) <= _MAX_HEADER else None
        if match is None:
            raise InvalidInputError("the challenge is malformed")
        peer, time_ms = PeerId(bytes.fromhex(match[1])), int(match[2])
        if not hmac.compare_digest(_unb64(match[3]), self._challenge_mac(nonce, peer, time_ms)):
            raise InvalidInputError("the challenge was not made with this cluster's key")
        return Challenge(peer, time_ms)

    def seal(self, credentials: Credentials, status: int, headers: Mapping[str, str]) -> str:
        """The value of MAC_HEADER for the answer to a request."""
        return _b64(self._response_mac(credentials.mac, self.own, status, headers.items()))

    def check_seal(
        self, header: str, credentials: Credentials, sender: PeerId, status: int, headers: Mapping[str, str]
    ) -> None:
        """Check that ``sender`` gave this answer to this request; raises InvalidInputError."""
        if not _MAC.match(header):
            raise InvalidInputError("the answer has no well-formed MAC")
        expected = self._response_mac(credentials.mac, sender, status, headers.items())
        if not hmac.compare_digest(_unb64(header), expected):
            raise InvalidInputError(
                "the answer was not made with this cluster's key by the peer that was asked"
            )

    def frames(self, credentials: Credentials, *, back: bool = False) -> FrameSeal:
        """Seals, or checks, the frames that follow one proven request; ``back``: those that the other side sends."""
        label = b"p2pdist frames back v1" if back else b"p2pdist frames v1"
        return FrameSeal(self._mac(label, credentials.mac))

    def _request_mac(
        self, target: Target, sender: PeerId, to: PeerId | None, time_ms: int, nonce: bytes
    ) -> bytes:
        return self._mac(
            b"p2pdist request v1",
            target.method.encode("utf-8", "surrogateescape"),
            target.path.encode("utf-8", "surrogateescape"),
            target.range.encode("utf-8", "surrogateescape"),
            sender.raw,
            b"" if to is None else to.raw,
            str(time_ms).encode(),
            nonce,
        )

    def _challenge_mac(self, nonce: bytes, sender: PeerId, time_ms: int) -> bytes:
        return self._mac(b"p2pdist challenge v1", nonce, sender.raw, str(time_ms).encode())

    def _response_mac(
        self, request_mac: bytes, sender: PeerId, status: int, headers: Iterable[tuple[str, str]]
    ) -> bytes:
        fields = [request_mac, sender.raw, str(status).encode()]
        for name, value in control_headers(headers):
            fields += [name.encode(), value.encode("utf-8", "surrogateescape")]
        return self._mac(b"p2pdist response v1", *fields)

    def _mac(self, *fields: bytes) -> bytes:
        message = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
        return hmac.digest(self._key, message, "sha256")


def control_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers that a response's MAC covers, lower-cased and sorted; raises InvalidInputError for too many."""
    covered = sorted(
        (lower, value)
        for name, value in headers
        if (lower := name.lower()) in _PLAIN_CONTROL
        or (lower.startswith(_OWN_CONTROL) and lower not in _UNCOVERED)
    )
    if len(covered) > _MAX_CONTROL_HEADERS:
        raise InvalidInputError(f"{len(covered)} control headers in one answer are too many")
    return covered


class PeerOffsets:
    """How far other peers' clocks are ahead of ours (milliseconds), for those where it matters; bounded, oldest out."""

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._offsets: OrderedDict[PeerId, int] = OrderedDict()

    def time_for(self, peer: PeerId, now_ms: int) -> int:
        """The time to put into a request to ``peer``."""
        return max(0, now_ms + self._offsets.get(peer, 0))

    def learn(self, challenge: Challenge, now_ms: int) -> None:
        """Adopt the time that a proven refusal told."""
        self._offsets[challenge.peer] = challenge.time_ms - now_ms
        self._offsets.move_to_end(challenge.peer)
        while len(self._offsets) > self._capacity:
            self._offsets.popitem(last=False)


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    """``text`` has matched a pattern of the alphabet and length before."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:  # pragma: no cover - the patterns exclude it
        raise InvalidInputError("malformed base64url") from error
