"""What a swarm session tells its neighbours, gathered: who needs a piece gets it along the ring, whenever it is told.

Rules: claims and what ends them go at once, with all that waits; what came from upstream soon, since often a claim follows
and goes with it; the rest late, and the later the more neighbours there are. A piece that nobody attests is held back for
ATTEST_WAIT, for it may still be found false.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pdist.oci.digest import Digest
from p2pdist.swarm import events as ev
from p2pdist.transfer.attestation import Attestations
from p2pdist.wire.swarm_messages import MAX_LAGGING, Update, encode

FLUSH_DELAY = 0.8
LONGEST_DELAY = 5.0
FIRST_HAND_DELAY = 0.1
ATTEST_WAIT = 0.3


class Words:
    """See the module's rules. ``send`` sends a frame to all neighbours, and ``count`` tells how many these are."""

    def __init__(
        self, digest: Digest, attested: Attestations, send: Callable[[bytes], None], count: Callable[[], int]
    ) -> None:
        self._digest = digest
        self._attested = attested
        self._send = send
        self._count = count
        self._waiting: list[ev.Tell] = []
        self._held_back: dict[int, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, words: ev.Tell) -> None:
        """Tell it in its time."""
        self._waiting.append(words)
        if words.claim or words.release or words.lagging or words.arc:
            self.flush()
        elif any(self._attested.is_true(piece) for piece in words.have):
            self._flush_within(FIRST_HAND_DELAY)
        else:
            self._flush_within(min(LONGEST_DELAY, FLUSH_DELAY * max(1.0, self._count() / 8)))

    def hold_back(self, piece: int, now: float) -> None:
        """Say nothing of the piece until it is attested, or ``tell_unattested`` finds that nobody does."""
        self._held_back[piece] = now

    def attested(self, piece: int) -> None:
        """A piece that is held here was attested: it can be told of."""
        if self._held_back.pop(piece, None) is not None:
            self.tell(ev.Tell(have=(piece,)))

    def tell_unattested(self, now: float) -> None:
        """What nobody attested within a short time is told all the same: the blob's digest is still to hold."""
        late = tuple(piece for piece, since in self._held_back.items() if since <= now - ATTEST_WAIT)
        for piece in late:
            del self._held_back[piece]
        if late:
            self.tell(ev.Tell(have=late))

    def flush(self) -> None:
        """Tell all that waits, now."""
        self._stop_timer()
        told, self._waiting = self._waiting, []
        pieces = [piece for each in told for piece in each.have if piece not in self._held_back]
        update = Update(
            self._digest,
            tuple((piece, self._attested.first_hand(piece)) for piece in pieces),
            tuple(piece for each in told for piece in each.claim),
            tuple(piece for each in told for piece in each.release),
            tuple(dict.fromkeys(peer for each in told for peer in each.lagging))[:MAX_LAGGING],
            max((each.arc for each in told), default=0),
        )
        if update != Update(self._digest):
            self._send(encode(update))

    def _flush_within(self, delay: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None and self._timer.when() <= loop.time() + delay:
            return
        self._stop_timer()
        self._timer = loop.call_later(delay, self.flush)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
