"""Which nodes a lookup asks next, and when it is over. Pure: no sockets, no time.

Rules (in place of kademlia's crawler, whose rounds wait for every contact of the round):
- Candidates are asked from the nearest on, at most ``alpha`` at a time (``sparing``: no more than may be ``enough``),
  and none that is further away than ``width`` others that live (answered) or may yet (asked).
- One that is slow no longer holds a place among the asked nor among the ``width``; its answer still counts.
- Over when the ``width`` nearest, leaving out the slow and the dead, have all answered; or when ``enough`` of them
  hold what is looked for. With no answer at all, the slow are waited for.

Transitions: fresh -> asked -> (slow ->) live | dead.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

MAX_CANDIDATES = 256
MAX_ASKED = 64


class HasId(Protocol):
    """A node with a place in the 160-bit space."""

    @property
    def long_id(self) -> int: ...


N = TypeVar("N", bound=HasId)


class _State(enum.Enum):
    FRESH = "fresh"
    ASKED = "asked"
    SLOW = "slow"
    LIVE = "live"
    DEAD = "dead"


class Lookup(Generic[N]):
    """The search for the ``width`` live nodes nearest to ``target``."""

    def __init__(
        self, target: int, *, width: int, alpha: int, enough: int | None = None, sparing: bool = False
    ) -> None:
        self._target = target
        self._width = width
        self._alpha = alpha
        self._enough = enough
        self._sparing = sparing
        self._order: list[tuple[int, int]] = []
        self._nodes: dict[int, N] = {}
        self._states: dict[int, _State] = {}
        self._asked = 0
        self._in_flight = 0
        self._holders = 0

    def learn(self, nodes: Iterable[N]) -> None:
        """Take candidates in; those known already are left as they are."""
        for node in nodes:
            if node.long_id not in self._nodes and len(self._nodes) < MAX_CANDIDATES:
                self._nodes[node.long_id] = node
                self._states[node.long_id] = _State.FRESH
                insort(self._order, (node.long_id ^ self._target, node.long_id))

    def next(self) -> list[N]:
        """The nodes to ask now; they count as asked from here on."""
        chosen: list[N] = []
        places = 0
        most = self._alpha
        if self._sparing and self._enough is not None:
            most = min(most, self._enough - self._holders)
        for _, name in self._order:
            if places == self._width or self._in_flight >= most or self._asked == MAX_ASKED:
                break
            state = self._states[name]
            if state in (_State.SLOW, _State.DEAD):
                continue
            places += 1
            if state is _State.FRESH:
                self._states[name] = _State.ASKED
                self._asked += 1
                self._in_flight += 1
                chosen.append(self._nodes[name])
        return chosen

    def answered(self, node: N, *, holds: bool = False) -> None:
        """It answered (also after it was slow or given up); ``holds``: it has what is looked for."""
        state = self._states[node.long_id]
        if state is not _State.LIVE:
            self._leave(state)
            self._states[node.long_id] = _State.LIVE
            self._holders += holds

    def slow(self, node: N) -> None:
        """It has not answered for longer than is usual."""
        if self._states[node.long_id] is _State.ASKED:
            self._in_flight -= 1
            self._states[node.long_id] = _State.SLOW

    def missed(self, node: N) -> None:
        """It has not answered for longer than it may take."""
        state = self._states[node.long_id]
        if state is not _State.LIVE:
            self._leave(state)
            self._states[node.long_id] = _State.DEAD

    @property
    def over(self) -> bool:
        if self._enough is not None and self._holders >= self._enough:
            return True
        live = 0
        for state in self._by_distance():
            if live == self._width:
                return True
            if state is _State.LIVE:
                live += 1
            elif state is _State.ASKED or (state is _State.FRESH and self._asked < MAX_ASKED):
                return False
        return live > 0 or _State.SLOW not in self._states.values()

    def nearest(self) -> list[N]:
        """The nearest that answered, at most ``width``, nearest first."""
        live = (self._nodes[name] for _, name in self._order if self._states[name] is _State.LIVE)
        return [node for node, _ in zip(live, range(self._width), strict=False)]

    def stragglers(self) -> list[N]:
        """Those asked, without an answer yet, that would be among the nearest if they answered."""
        near: list[N] = []
        live = 0
        for _, name in self._order:
            if live == self._width:
                break
            live += self._states[name] is _State.LIVE
            if self._states[name] in (_State.ASKED, _State.SLOW):
                near.append(self._nodes[name])
        return near

    def _by_distance(self) -> Iterator[_State]:
        return (self._states[name] for _, name in self._order)

    def _leave(self, state: _State) -> None:
        if state is _State.ASKED:
            self._in_flight -= 1
