"""What the planner is told (events, past tense) and what it asks for (commands, imperative). Pieces are indexes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from p2pdist.records import PeerId


class Failure(enum.StrEnum):
    """How a request for a piece ended badly."""

    BUSY = "busy"
    MISSING = "missing"
    UNREACHABLE = "unreachable"
    WRONG = "wrong"


# -- events --


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """A neighbour is there, holding ``have`` and fetching ``claims`` from upstream."""

    peer: PeerId
    have: frozenset[int]
    claims: tuple[int, ...] = ()
    complete: bool = False
    near: bool = True
    zone: str = ""


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """A neighbour is gone, or is not to be used any more."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class MemberHas:
    """A neighbour holds more pieces."""

    peer: PeerId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MemberClaims:
    """A neighbour began to fetch these pieces from upstream."""

    peer: PeerId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MemberReleases:
    """A neighbour gave up claims without having the pieces."""

    peer: PeerId
    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MembersLag:
    """A neighbour says that these, it may be itself or this host among them, cannot keep up with the ring."""

    peer: PeerId
    lagging: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class ArcHalved:
    """A neighbour found its arc of the ring too long; it is 2 ** -``bits`` of the ring now."""

    peer: PeerId
    bits: int


@dataclass(frozen=True, slots=True)
class Progressed:
    """``size`` bytes of a piece arrived; ``source`` None is upstream."""

    piece: int
    source: PeerId | None
    size: int = 1


@dataclass(frozen=True, slots=True)
class PieceHeld:
    """A piece is whole here, wherever it came from."""

    piece: int


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """A request to a neighbour ended without the whole piece."""

    piece: int
    source: PeerId
    failure: Failure
    retry_after: float = 0.25


@dataclass(frozen=True, slots=True)
class PassedOnWrong:
    """What a neighbour passed on was not what its fetcher attested; it may have been deceived itself."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class UpstreamFailed:
    """Upstream gave less than was asked. ``final``: it never will (not found, denied)."""

    pieces: tuple[int, ...]
    final: bool
    retry_after: float = 1.0


@dataclass(frozen=True, slots=True)
class Announced:
    """This host announced itself; ``ahead`` incomplete members had done so before."""

    ahead: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A client waits for these pieces: they come first."""

    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ticked:
    """Some time went by (every quarter of a second or so)."""


Event = (
    MemberJoined
    | MemberLeft
    | MemberHas
    | MemberClaims
    | MemberReleases
    | MembersLag
    | ArcHalved
    | Progressed
    | PieceHeld
    | RequestFailed
    | PassedOnWrong
    | UpstreamFailed
    | Announced
    | Wanted
    | Ticked
)

# -- commands --


@dataclass(frozen=True, slots=True)
class AskPeer:
    """Request what is missing of a piece from a neighbour that holds it, or is receiving it."""

    peer: PeerId
    piece: int


@dataclass(frozen=True, slots=True)
class AskUpstream:
    """Request a run of pieces from upstream in one go."""

    pieces: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """Cancel a request in flight; ``source`` None is upstream (the piece's run is cut before it)."""

    piece: int
    source: PeerId | None


@dataclass(frozen=True, slots=True)
class Tell:
    """Let all neighbours know: pieces newly held, claimed, released; members that cannot keep up; that this host's arc is
    2 ** -``arc`` of the ring now (0: nothing new)."""

    have: tuple[int, ...] = ()
    claim: tuple[int, ...] = ()
    release: tuple[int, ...] = ()
    lagging: tuple[PeerId, ...] = ()
    arc: int = 0


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No source is left."""


Command = AskPeer | AskUpstream | Drop | Tell | GiveUp
