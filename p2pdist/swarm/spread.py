"""How fast claimed pieces get about: from the claim, whoever's, until half of the neighbours hold the piece.

This is what tells a host with a slow uplink or downlink that it is one, without any measuring of rates: its pieces are
overtaken by pieces that others claimed later. Bounded by the number of pieces.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

LONGEST = 60.0
_WEIGHT = 0.2


class _Claimed:
    __slots__ = ("lacking", "mine", "since")

    def __init__(self, since: float, lacking: int, *, mine: bool) -> None:
        self.since = since
        self.lacking = lacking
        self.mine = mine


class Spread:
    """See the module's description."""

    def __init__(self) -> None:
        self._pieces: dict[int, _Claimed] = {}
        self._mine: set[int] = set()
        self.done = 0
        self._latest = float("-inf")
        self._typical: float | None = None

    def claimed(self, piece: int, lacking: int, now: float, *, mine: bool) -> None:
        """Somebody began to fetch the piece; ``lacking`` neighbours make it count as spread."""
        self.forget(piece)
        if lacking > 0:
            self._pieces[piece] = _Claimed(now, lacking, mine=mine)
            if mine:
                self._mine.add(piece)

    def forget(self, piece: int) -> None:
        """A claim was given up."""
        self._pieces.pop(piece, None)
        self._mine.discard(piece)

    def reported(self, pieces: Iterable[int], now: float) -> bool:
        """One more neighbour holds these; whether one of them counts as spread now."""
        done = False
        for piece in pieces:
            known = self._pieces.get(piece)
            if known is None:
                continue
            known.lacking -= 1
            if known.lacking <= 0:
                self._done(piece, known, now)
                done = True
        return done

    def left(self, have: Container[int], now: float) -> None:
        """A neighbour that held ``have`` is gone: the other pieces need not reach it any more."""
        self.reported([piece for piece in self._pieces if piece not in have], now)

    def _done(self, piece: int, known: _Claimed, now: float) -> None:
        self.forget(piece)
        took = now - known.since
        self._typical = took if self._typical is None else self._typical + _WEIGHT * (took - self._typical)
        self.done += known.mine
        self._latest = max(self._latest, known.since)

    @property
    def typical(self) -> float:
        """Seconds that a piece usually takes to spread; 0 when none has."""
        return self._typical or 0.0

    @property
    def unspread(self) -> int:
        """How many pieces claimed here are not spread."""
        return len(self._mine)

    @property
    def behind(self) -> bool:
        """Whether a piece claimed here was overtaken: others are quicker, so let them."""
        margin = 1.5 * (self._typical or 0.0)
        return any(self._pieces[piece].since < self._latest - margin for piece in self._mine)

    def laggard(self, piece: int, now: float) -> bool:
        """Whether the piece takes so much longer than usual that fetching it once more is worth its price."""
        known = self._pieces.get(piece)
        if known is None or self._typical is None:
            return False
        return known.since < self._latest and now - known.since > max(1.0, 2.5 * self._typical)

    def expire(self, now: float) -> None:
        """Pieces that do not spread because nobody asks for them count no longer."""
        limit = LONGEST if self._typical is None else max(3.0, 10.0 * self._typical)
        for piece in [piece for piece, known in self._pieces.items() if now - known.since > limit]:
            self.forget(piece)
