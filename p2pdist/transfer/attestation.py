"""What members say a piece's digest is, held against what arrived here: how a corrupting relay is caught at once.

Rules: a digest of bytes that this host got from upstream itself is the truth; whoever says otherwise lies. Two members
that differ leave the truth open: the piece is fetched from upstream (by the caller), which settles it. Only what came
from upstream is attested, so that nobody answers for what it passed on; of the rest it is said that it is held (HEARSAY).
Nor is what upstream set right after this host may have passed it on false, in whole or in part: whoever got it so would
take this host for the liar.
Pure; bounded by pieces x members.
"""

from __future__ import annotations

import enum

from p2pdist.records import PeerId

HEARSAY = bytes(16)
"""In place of a piece digest: held, but not from upstream."""


class Verdict(enum.Enum):
    """What is known about a piece that arrived."""

    UNATTESTED = enum.auto()
    AGREED = enum.auto()
    DISPUTED = enum.auto()


class Attestations:
    """One blob's piece digests."""

    def __init__(self) -> None:
        self._said: dict[int, dict[PeerId, bytes]] = {}
        self._here: dict[int, bytes] = {}
        self._true: set[int] = set()
        self._begun: set[int] = set()
        self._set_right: set[int] = set()

    def digest(self, piece: int) -> bytes | None:
        """The digest of what is held here."""
        return self._here.get(piece)

    def begun(self, piece: int) -> None:
        """Bytes of a piece came from a member, and may have gone on to others."""
        self._begun.add(piece)

    def arrived(self, piece: int, digest: bytes, *, from_upstream: bool) -> Verdict:
        """A piece is whole here."""
        if not from_upstream:
            self._begun.add(piece)
        elif piece in self._begun and piece not in self._true and self._here.get(piece) != digest:
            self._set_right.add(piece)
        if from_upstream or piece not in self._true:
            self._here[piece] = digest
        if from_upstream:
            self._true.add(piece)
        return self._verdict(piece)

    def said(self, piece: int, peer: PeerId, digest: bytes) -> Verdict:
        """A member tells the digest of a piece that it holds."""
        if digest == HEARSAY:
            return self._verdict(piece)
        self._said.setdefault(piece, {})[peer] = digest
        return self._verdict(piece)

    def first_hand(self, piece: int) -> bytes:
        """What this host may attest of a piece."""
        return self._here[piece] if piece in self._true and piece not in self._set_right else HEARSAY

    @property
    def known(self) -> tuple[tuple[int, bytes], ...]:
        """All that this host may attest."""
        return tuple((piece, self._here[piece]) for piece in sorted(self._true - self._set_right))

    def vouchers(self, piece: int) -> set[PeerId]:
        """Who attested what is held here."""
        here = self._here.get(piece)
        return {peer for peer, digest in self._said.get(piece, {}).items() if digest == here}

    def attested(self, piece: int, peer: PeerId) -> bool:
        """Whether the member told a digest of its own for the piece."""
        return peer in self._said.get(piece, {})

    def liars(self, piece: int) -> set[PeerId]:
        """Who said something else than the truth; none while the truth is not known."""
        if piece not in self._true:
            return set()
        return {peer for peer, digest in self._said.get(piece, {}).items() if digest != self._here[piece]}

    def is_true(self, piece: int) -> bool:
        return piece in self._true

    def forget(self, peer: PeerId) -> None:
        """What a banned member said counts for nothing."""
        for said in self._said.values():
            said.pop(peer, None)

    def _verdict(self, piece: int) -> Verdict:
        said = self._said.get(piece)
        here = self._here.get(piece)
        if not said or here is None:
            return Verdict.AGREED if piece in self._true else Verdict.UNATTESTED
        return Verdict.AGREED if set(said.values()) == {here} else Verdict.DISPUTED
