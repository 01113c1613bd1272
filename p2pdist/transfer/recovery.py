"""What happens when a blob is whole and its digest does not hold.

Rules:
- It is fetched again: from upstream alone; failing that, from one peer at a time, which proves who tells the truth.
- Banned is only who is proven to have sent wrong bytes: alone all of them, or others than the blob that came out right.
- A partial of an earlier process proves nothing against anybody.
"""

from __future__ import annotations

from typing import Protocol

from p2pdist.errors import DeniedError, DigestMismatchError, NotFoundError, SourceError
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId, Provider
from p2pdist.retention.ranges import RangeSet
from p2pdist.store.port import BlobReader, Ingest
from p2pdist.swarm.peer_health import Standing
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.evidence import NOBODY, Evidence, SliceHash, collect_evidence, differing
from p2pdist.transfer.fill import Fill, Target
from p2pdist.transfer.sequential_fill import SequentialFill

MAX_WITNESSES = 8

_NOT_HAD = (SourceError, NotFoundError, DeniedError, DigestMismatchError)


class Restartable(Target, Protocol):
    """A fetch (transfer.fetch.BlobFetch) as its recovery sees it."""

    @property
    def reader(self) -> BlobReader | None: ...

    async def start_over(self) -> Evidence: ...

    async def commit(self) -> None: ...


class Recovery:
    """One use per mismatch; see the module's rules."""

    def __init__(
        self, context: TransferContext, fetch: Restartable, ingest: Ingest, evidence: Evidence
    ) -> None:
        self._context = context
        self._fetch = fetch
        self._ingest = ingest
        self._evidence = evidence
        self._banned: set[PeerId] = set()

    @property
    def _digest(self) -> Digest:
        return self._fetch.digest

    async def run(self, mismatch: DigestMismatchError) -> RangeSet:
        """Fetch again and commit; returns where the first bytes were false. Raises ``mismatch`` or why not."""
        evidence, suspects = self._evidence, self._evidence.peers
        self._failed_verification(evidence)
        if not evidence.of_others:
            raise mismatch
        before = await collect_evidence(self._ingest, evidence)
        sole = evidence.sole(self._fetch.size)
        if sole is not None:
            self._ban(sole)
        await self._make_good(suspects)
        wrong = await self._compare(before)
        for peer in {part.peer for part in wrong if part.peer is not None} - {NOBODY}:
            self._ban(peer)
        return RangeSet.of((part.start, part.start + part.length) for part in wrong)

    def _failed_verification(self, evidence: Evidence) -> None:
        suspect = next(iter(evidence.peers), None)
        source = "peer" if suspect or not evidence.resumed else "store"
        source = source if evidence.of_others else "upstream"
        self._context.hooks.verify_failed(source, self._digest, suspect)

    async def _make_good(self, suspects: dict[PeerId, Provider]) -> None:
        try:
            await self._try(SequentialFill(self._context, peers=False))
            return
        except _NOT_HAD as error:
            failure = error
        for provider in await self._witnesses(suspects):
            try:
                await self._try(SequentialFill(self._context, only=provider))
                return
            except DigestMismatchError:
                self._ban(provider.peer)
            except _NOT_HAD:
                continue
        raise failure

    async def _try(self, fill: Fill) -> None:
        evidence = await self._fetch.start_over()
        await fill.run(self._fetch)
        try:
            await self._fetch.commit()
        except DigestMismatchError:
            self._failed_verification(evidence)
            raise

    async def _witnesses(self, suspects: dict[PeerId, Provider]) -> list[Provider]:
        """Who else may have the blob: those not involved first."""
        context = self._context
        if not context.policy.shares(self._fetch.repository.registry):
            return []
        now = context.clock.now()
        others = [each for each in await context.discovery.find(self._digest) if each.peer not in suspects]
        ordered = context.health.order(others, now, context.policy.zone)
        asked = [*(each for each in ordered if each.complete), *suspects.values()]
        standing = context.health.standing
        return [each for each in asked if standing(each.peer, now) is not Standing.BANNED][:MAX_WITNESSES]

    async def _compare(self, before: list[SliceHash]) -> list[SliceHash]:
        """Which slices differ from the blob; none when it is gone again, for then nothing can be proven."""
        opened = self._fetch.reader or await self._context.store.open(self._digest)
        if opened is None:
            return []
        try:
            return await differing(opened, before)
        finally:
            if opened is not self._fetch.reader:
                opened.close()

    def _ban(self, peer: PeerId) -> None:
        if peer in self._banned:
            return
        self._banned.add(peer)
        self._context.health.banned(peer, self._context.clock.now())
        self._context.hooks.banned(peer, f"sent wrong bytes for {self._digest}")
