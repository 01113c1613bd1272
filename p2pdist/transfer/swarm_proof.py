"""What a swarm session believes of the pieces that arrive, and who answers for one that is false.

Rules (attestation.py has those of digests): where members differ on a piece, upstream's word settles it. Who attested a
digest that is false, who passed on another piece than it fetched and attested, and who did so holding the whole blob, which
it has proven, is banned. Who only passed a piece on may have been deceived itself, and is left alone for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Iterable
from typing import Protocol

from p2pdist.errors import P2PDistError
from p2pdist.records import PeerId, Provider
from p2pdist.swarm import events as ev
from p2pdist.swarm.geometry import Geometry
from p2pdist.transfer.attestation import Attestations, Verdict
from p2pdist.transfer.content import Source
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.fill import Target
from p2pdist.transfer.swarm_words import Words
from p2pdist.wire.swarm_messages import PieceHasher

logger = logging.getLogger(__name__)


class Session(Protocol):
    """What is asked of the session (swarm_fill.py)."""

    @property
    def over(self) -> bool:
        """Whether it has ended, well or badly."""

    def provider(self, peer: PeerId) -> Provider | None:
        """A neighbour, if it is one."""

    def handle(self, event: ev.Event) -> None:
        """Tell the planner."""

    def settle(self, piece: int, work: Coroutine[None, None, None]) -> None:
        """Run the work; upstream is asked for the piece."""

    def dismiss(self, peer: PeerId) -> None:
        """Have nothing more to do with it."""


class Proof:
    """See the module's rules."""

    def __init__(
        self,
        context: TransferContext,
        target: Target,
        geometry: Geometry,
        attested: Attestations,
        words: Words,
        session: Session,
    ) -> None:
        self._context = context
        self._target = target
        self._geometry = geometry
        self._attested = attested
        self._words = words
        self._session = session
        self._senders: dict[int, tuple[PeerId, ...]] = {}
        self._whole: set[PeerId] = set()
        # Pieces whose one sender, when it was asked for them, held the whole blob; or fetched them for all, as it said.
        self._from_whole: set[int] = set()
        self._from_fetcher: set[int] = set()
        self._settling: set[int] = set()

    # -- who is asked --

    def holds_whole(self, peer: PeerId) -> None:
        """It says that it holds the blob, and so has proven its digest; having each piece is less."""
        self._whole.add(peer)

    def gone(self, peer: PeerId) -> None:
        """It is no neighbour any more."""
        self._whole.discard(peer)

    def is_whole(self, peer: PeerId) -> bool:
        """Whether it said that it holds the blob."""
        return peer in self._whole

    # -- what arrives --

    def came(
        self, piece: int, senders: Iterable[PeerId], digest: bytes, *, whole: bool, fetched: bool
    ) -> bool:
        """A piece is whole here, from these members; as ``arrived``. ``whole``, ``fetched``: what the last of them had
        said when it was asked."""
        self._senders[piece] = tuple(senders)
        (self._from_whole.add if whole else self._from_whole.discard)(piece)
        (self._from_fetcher.add if fetched else self._from_fetcher.discard)(piece)
        return self.arrived(piece, digest, from_upstream=False)

    def arrived(self, piece: int, digest: bytes, *, from_upstream: bool) -> bool:
        """A piece is whole here; whether it counts as held, and is not to be settled first."""
        verdict = self._attested.arrived(piece, digest, from_upstream=from_upstream)
        if not from_upstream:
            self._blame(piece)
            if verdict is Verdict.UNATTESTED and any(map(self._session.provider, self._senders[piece])):
                self._words.hold_back(piece, self._context.clock.now())
        self._judge(piece, verdict)
        self._vouch(piece, verdict)
        return piece not in self._settling

    def hear(self, sender: PeerId, have: Iterable[tuple[int, bytes]]) -> None:
        """A neighbour tells the digests of pieces that it holds."""
        for piece, digest in have:
            if piece >= self._geometry.count or self._session.over:
                return
            verdict = self._attested.said(piece, sender, digest)
            self._judge(piece, verdict)
            self._vouch(piece, verdict)
            if verdict is Verdict.AGREED:
                if not self._attested.is_true(piece):
                    self._blame(piece)
                self._words.attested(piece)

    def _blame(self, piece: int) -> None:
        """Who answers for a piece should the blob's digest not hold: who attested it first-hand, else the sender if it
        holds the blob whole, and so has proven it; one that only passed on what it got does not."""
        answering = self._attested.vouchers(piece)
        if not answering and piece in self._from_whole and len(self._senders[piece]) == 1:
            answering = set(self._senders[piece])
        peer = min(answering, default=None)
        self._target.blame(*self._geometry.span(piece), self._session.provider(peer) if peer else None)

    def _vouch(self, piece: int, verdict: Verdict) -> None:
        if verdict is Verdict.AGREED and not self._attested.is_true(piece):
            self._target.vouch(*self._geometry.span(piece))

    def _judge(self, piece: int, verdict: Verdict) -> None:
        if verdict is not Verdict.DISPUTED or self._session.over:
            return
        if self._attested.is_true(piece):
            self._ban_liars(piece)
        elif piece not in self._settling:
            self._settling.add(piece)
            self._session.settle(piece, self._settle(piece))

    # -- what is in dispute --

    async def _settle(self, piece: int) -> None:
        """Members differ on a piece: upstream's word decides. Without upstream, the blob's own digest will."""
        try:
            digest = await self._from_upstream(piece)
        except P2PDistError as error:
            logger.info("piece %d of %s stays in dispute: %s", piece, self._target.digest, error)
        else:
            before = self._attested.digest(piece)
            self._attested.arrived(piece, digest, from_upstream=True)
            if before not in (None, digest):
                self._passed_on_wrong(self._senders.get(piece, ()), piece)
            self._ban_liars(piece)
        self._settling.discard(piece)
        self._session.handle(ev.PieceHeld(piece))

    async def _from_upstream(self, piece: int) -> bytes:
        """Fetch the piece once more, and write it over what came; its digest."""
        start, stop = self._geometry.span(piece)
        hasher, parts = PieceHasher(), []
        async with self._context.upstream.blob(
            self._target.repository, self._target.digest, start, stop - start
        ) as stream:
            async for chunk in stream.chunks():
                hasher.update(chunk)
                parts.append(chunk)
        await self._target.receive(start, b"".join(parts), Source.UPSTREAM, None)
        return hasher.digest()

    def _passed_on_wrong(self, senders: tuple[PeerId, ...], piece: int) -> None:
        for sender in senders:
            fetched = piece in self._from_fetcher and self._attested.attested(piece, sender)
            if len(senders) == 1 and (piece in self._from_whole or fetched):
                self._ban(sender, piece)
            else:
                self._session.handle(ev.PassedOnWrong(sender))

    def _ban_liars(self, piece: int) -> None:
        for peer in self._attested.liars(piece):
            self._ban(peer, piece)

    def _ban(self, peer: PeerId, piece: int) -> None:
        context = self._context
        self._attested.forget(peer)
        context.health.banned(peer, context.clock.now())
        context.hooks.verify_failed("peer", self._target.digest, peer)
        context.hooks.banned(peer, f"passed on a wrong piece {piece} of {self._target.digest}")
        self._session.dismiss(peer)
