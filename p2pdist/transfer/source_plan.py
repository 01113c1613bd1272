"""Which source a fetch asks next: peers in order of health, then upstream, then what is left.

Rules:
- A peer that failed is not asked again for this blob, except in a last round when upstream has failed too (a slow source
  is better than none); then one that delivers something before it fails may be asked a few times more.
- Busy peers are waited for briefly before upstream is asked.
- Upstream is asked a bounded number of times without progress; its 404 or 403, and another size, are final.
- No more than ``PEER_TRIES`` peers are tried in a row without progress, and no source is begun with after ``GIVE_UP``
  seconds without any: whoever waits must not wait for long in vain.
"""

from __future__ import annotations

from p2pdist.clock import Clock
from p2pdist.errors import (
    BusyError,
    DeniedError,
    DigestMismatchError,
    NotFoundError,
    P2PDistError,
    ProtocolError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import PeerId, Provider
from p2pdist.swarm.peer_health import Standing
from p2pdist.transfer.context import TransferContext

UPSTREAM = None
"""Stands for the registry among the sources that ``next`` returns."""

UPSTREAM_TRIES = 2
UPSTREAM_TRIES_WITH_PROGRESS = 8
BUSY_WAITS = 2
PEER_TRIES = 8
PEER_RETRIES_WITH_PROGRESS = 8
GIVE_UP = 45.0
PACE_WINDOW = 3.0


def note_failure(context: TransferContext, peer: PeerId, error: P2PDistError, *, progressed: bool) -> None:
    """Tell the health table, and discovery where the peer did not answer at all, how an exchange failed."""
    health, now = context.health, context.clock.now()
    if isinstance(error, BusyError):
        health.busy(peer, now, error.retry_after)
    elif isinstance(error, StalledError):
        health.stalled(peer, now)
    elif not isinstance(error, NotFoundError):
        health.unreachable(peer, now)
    if isinstance(error, UnreachableError) and not progressed:
        context.discovery.suspect(peer)


class Pace:
    """Notices a source that delivers, but too slowly to stay with."""

    def __init__(self, clock: Clock, least_rate: float, name: str) -> None:
        self._clock = clock
        self._least = least_rate
        self._name = name
        self._since = clock.now()
        self._bytes = 0

    def paused(self, seconds: float) -> None:
        """Time that this host itself took, by its limits or its disk, is not the source's."""
        self._since += seconds

    def received(self, count: int) -> None:
        """Book ``count`` bytes; raises StalledError when a whole window stayed below the least rate."""
        self._bytes += count
        seconds = self._clock.now() - self._since
        if seconds < PACE_WINDOW:
            return
        rate = self._bytes / seconds
        self._since += seconds
        self._bytes = 0
        if rate < self._least:
            raise StalledError(f"{self._name} sends only {rate / 1024:.0f} KiB/s")


class SourcePlan:
    """The order of sources for one fetch; see the module's rules."""

    def __init__(
        self,
        context: TransferContext,
        repository: Repository,
        digest: Digest,
        *,
        only: Provider | None = None,
        peers: bool = True,
    ) -> None:
        self._context = context
        self._repository = repository
        self._digest = digest
        self._only = only
        self._peers = peers
        self._providers: dict[PeerId, Provider] | None = None
        self._dropped: set[PeerId] = set()
        self._busy: set[PeerId] = set()
        self._busy_waits = BUSY_WAITS
        self._upstream_tries = 0 if only else UPSTREAM_TRIES
        self._upstream_progress = UPSTREAM_TRIES_WITH_PROGRESS
        self._last_round = only is not None or not peers
        self._peer_tries = PEER_TRIES
        self._peer_progress = PEER_RETRIES_WITH_PROGRESS
        self._progressed_at = context.clock.now()
        self._error: P2PDistError | None = None
        self._upstream_error: P2PDistError | None = None

    async def next(self) -> Provider | None:
        """The source to ask now; raises the most telling error when none is left."""
        if self._providers is None:
            await self._look()
        while self._context.clock.now() - self._progressed_at <= GIVE_UP:
            candidates = self._candidates()
            if candidates and self._peer_tries > 0:
                return candidates[0]
            if self._busy and self._busy_waits:
                self._busy_waits -= 1
                await self._context.clock.sleep(self._context.policy.peer_wait)
                self._busy.clear()
                await self._look()
            elif self._upstream_tries > 0:
                return UPSTREAM
            elif not self._last_round:
                self._last_round = True
                self._dropped.clear()
                self._peer_tries = PEER_TRIES
                await self._look()
            else:
                break
        raise self._upstream_error or self._error or NotFoundError(f"no source has {self._digest}")

    async def _look(self) -> None:
        if self._only is not None:
            self._providers = {self._only.peer: self._only}
            return
        shares = self._peers and self._context.policy.shares(self._repository.registry)
        found = await self._context.discovery.find(self._digest) if shares else ()
        self._providers = {each.peer: each for each in found if each.complete}

    def _candidates(self) -> list[Provider]:
        assert self._providers is not None
        out = self._dropped | self._busy
        left = [each for each in self._providers.values() if each.peer not in out]
        health, now = self._context.health, self._context.clock.now()
        salt = self._digest.hex.encode()
        ordered = health.order(left, now, self._context.policy.zone, salt=salt)
        if ordered or not self._last_round:
            return ordered
        return [each for each in left if health.standing(each.peer, now) is not Standing.BANNED]

    def check_size(self, provider: Provider, offered: int, expected: int) -> None:
        """A peer whose blob has another size has another blob."""
        if offered != expected:
            raise ProtocolError(
                f"peer {provider.peer.short} offers {offered} bytes for {self._digest}, which has {expected}"
            )

    def pace(self, provider: Provider) -> Pace:
        """Watches a peer's rate; without alternatives any rate will do."""
        least = 0.0 if self._last_round else self._least_rate()
        return Pace(self._context.clock, least, f"peer {provider.peer.short}")

    def _least_rate(self) -> float:
        return float(self._context.policy.slow_rate)

    def succeeded(self, source: Provider | None) -> None:
        """The source delivered to the end."""
        self._progressed_at = self._context.clock.now()
        self._peer_tries = PEER_TRIES
        if source is not UPSTREAM:
            self._context.health.succeeded(source.peer, self._context.clock.now())

    def failed(self, source: Provider | None, error: P2PDistError, *, progressed: bool) -> None:
        """The source raised ``error``, after having delivered something or not."""
        if progressed:
            self._progressed_at = self._context.clock.now()
            self._peer_tries = PEER_TRIES
        if source is UPSTREAM:
            self._upstream_failed(error, progressed)
            return
        self._error = error
        self._peer_tries -= not progressed
        if isinstance(error, BusyError):
            self._busy.add(source.peer)
        elif progressed and self._last_round and self._peer_progress > 0:
            self._peer_progress -= 1
        else:
            self._dropped.add(source.peer)
        note_failure(self._context, source.peer, error, progressed=progressed)

    def _upstream_failed(self, error: P2PDistError, progressed: bool) -> None:
        self._upstream_error = error
        if isinstance(error, NotFoundError | DeniedError | DigestMismatchError):
            self._upstream_tries = 0
        elif progressed and self._upstream_progress > 0:
            self._upstream_progress -= 1
        else:
            self._upstream_tries -= 1
