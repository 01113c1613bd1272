"""What agents tell each other about warm-ups: how one goes on a host, and which members a host knows.

Bodies are JSON, covered by a digest in a sealed header (``BODY_HEADER``), since the seal of an answer covers headers only.
Rules: what is encoded is within its bounds; what does not parse, or is beyond them, is InvalidInputError. Of a list, what is
not understood is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from p2pdist.errors import InvalidInputError
from p2pdist.records import Endpoint, PeerId
from p2pdist.wire.codec import understood

WARM_PATH = "/p2p/v1/warm"
MEMBERS_PATH = "/p2p/v1/members"
BODY_HEADER = "P2PDist-Body"
MAX_BODY = 64 * 1024
MAX_MEMBERS = 512
MAX_MESSAGE = 500
_MAX_BYTES = 2**63 - 1


class WarmState(StrEnum):
    """Where a warm-up stands on a host."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WarmStatus:
    """``received`` of ``size`` bytes are there, ``moved`` of them by source over the wire; ``message`` says why not."""

    state: WarmState
    size: int = 0
    received: int = 0
    moved: dict[str, int] = field(default_factory=dict, hash=False)
    digest: str = ""
    message: str = ""

    @property
    def ended(self) -> bool:
        return self.state in (WarmState.DONE, WarmState.FAILED)


@dataclass(frozen=True, slots=True)
class Member:
    """An agent of the cluster, and where it is reached."""

    peer: PeerId
    endpoint: Endpoint


def body_digest(body: bytes) -> str:
    """The value of BODY_HEADER."""
    return hashlib.sha256(body).hexdigest()


def encode_status(status: WarmStatus) -> bytes:
    return _encode(
        {
            "state": status.state.value,
            "size": status.size,
            "received": status.received,
            "moved": status.moved,
            "digest": status.digest,
            "message": status.message[:MAX_MESSAGE],
        }
    )


def parse_status(body: bytes) -> WarmStatus:
    """What ``encode_status`` wrote; raises InvalidInputError."""
    document = _load(body)
    try:
        state = WarmState(str(document.get("state")))
    except ValueError as error:
        raise InvalidInputError("a warm-up is in no state that is known") from error
    moved = document.get("moved")
    if not isinstance(moved, dict) or len(moved) > 8:
        raise InvalidInputError("a warm-up's sources are malformed")
    return WarmStatus(
        state,
        _count(document.get("size")),
        _count(document.get("received")),
        {str(name)[:32]: _count(count) for name, count in moved.items()},
        _text(document.get("digest"), 160),
        _text(document.get("message"), MAX_MESSAGE),
    )


def encode_message(message: str) -> bytes:
    """A refusal's body."""
    return _encode({"message": message[:MAX_MESSAGE]})


def parse_message(body: bytes) -> str:
    """What ``encode_message`` wrote; raises InvalidInputError."""
    return _text(_load(body).get("message"), MAX_MESSAGE)


def encode_members(members: Iterable[Member]) -> bytes:
    """The first MAX_MEMBERS of them."""
    rows = [[m.peer.hex, m.endpoint.host, m.endpoint.port] for m in members]
    return _encode({"members": rows[:MAX_MEMBERS]})


def parse_members(body: bytes) -> list[Member]:
    """What ``encode_members`` wrote, without the members that are not understood; raises InvalidInputError."""
    rows = _load(body).get("members")
    if not isinstance(rows, list) or len(rows) > MAX_MEMBERS:
        raise InvalidInputError("a list of members is malformed or too long")
    return understood(_member, rows)


def _member(row: object) -> Member:
    if not isinstance(row, list) or len(row) < 3:
        raise InvalidInputError("a member is not [peer, host, port]")
    peer, host, port = row[:3]
    if isinstance(port, bool) or not (isinstance(port, int) and 0 < port < 65536):
        raise InvalidInputError("a member's port is malformed")
    try:
        return Member(PeerId(bytes.fromhex(_text(peer, 40))), Endpoint(_text(host, 64), port))
    except ValueError as error:
        raise InvalidInputError("a member's peer id is malformed") from error


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _load(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_BODY:
        raise InvalidInputError(f"a body of {len(body)} bytes, and at most {MAX_BODY} are read")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("a body that is not JSON") from error
    if not isinstance(document, dict):
        raise InvalidInputError("a body that is no JSON object")
    return document


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_BYTES:
        raise InvalidInputError("a number of bytes is malformed")
    return value


def _text(value: object, most: int) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise InvalidInputError(f"a text is missing, or longer than {most} characters")
    return "".join(c if c.isprintable() else " " for c in value)
