"""One source at a time, in the first gap: peers in order of health, then upstream (source_plan.py)."""

from __future__ import annotations

from p2pdist.errors import DigestMismatchError, P2PDistError, StoreError, StoreFullError
from p2pdist.records import Provider
from p2pdist.transfer.content import Source
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.fill import Target
from p2pdist.transfer.source_plan import SourcePlan


class WrongSizeError(DigestMismatchError):
    """Upstream's blob has ``offered`` bytes, and its manifest (or another source) said otherwise."""

    def __init__(self, message: str, offered: int) -> None:
        super().__init__(message)
        self.offered = offered


class SequentialFill:
    """A source that fails is left in mid-blob; the next one goes on at the same byte.

    ``only``: nobody but this peer is asked; ``peers`` False: nobody but upstream.
    """

    def __init__(self, context: TransferContext, *, only: Provider | None = None, peers: bool = True) -> None:
        self._context = context
        self._only = only
        self._peers = peers

    async def run(self, target: Target) -> None:
        """As Fill.run."""
        plan = SourcePlan(self._context, target.repository, target.digest, only=self._only, peers=self._peers)
        while target.held.front < target.size:
            source = await plan.next()
            before = target.held.total
            try:
                if isinstance(source, Provider):
                    await self._stream_from_peer(target, source, plan)
                else:
                    await self._stream_from_upstream(target)
            except (StoreFullError, StoreError):
                raise
            except P2PDistError as error:
                plan.failed(source, error, progressed=target.held.total > before)
            else:
                plan.succeeded(source)

    async def _stream_from_peer(self, target: Target, provider: Provider, plan: SourcePlan) -> None:
        context, clock = self._context, self._context.clock
        started = clock.now()
        begun, length = _first_gap(target)
        offset = begun
        async with context.peers.blob(provider, target.digest, offset, length) as stream:
            plan.check_size(provider, stream.size, target.size)
            pace = plan.pace(provider)
            async for chunk in stream.chunks():
                pace.received(len(chunk))
                arrived = clock.now()
                await context.download.take(len(chunk))
                await target.receive(offset, chunk, Source.PEER, provider)
                pace.paused(clock.now() - arrived)
                offset += len(chunk)
        now = clock.now()
        context.health.received(provider.peer, offset - begun, now - started, now)

    async def _stream_from_upstream(self, target: Target) -> None:
        context = self._context
        offset, length = _first_gap(target)
        async with context.upstream.blob(target.repository, target.digest, offset, length) as stream:
            check_upstream_size(target, stream.size)
            async for chunk in stream.chunks():
                await context.upstream_limit.take(len(chunk))
                await context.download.take(len(chunk))
                await target.receive(offset, chunk, Source.UPSTREAM, None)
                offset += len(chunk)


def _first_gap(target: Target) -> tuple[int, int | None]:
    """Where the first bytes are missing, and how many up to the next that are held (None: up to the end)."""
    front = target.held.front
    following = [start for start, _ in target.held if start > front]
    return front, following[0] - front if following else None


def check_upstream_size(target: Target, offered: int) -> None:
    """A blob of another size cannot have the digest; raises WrongSizeError."""
    if offered != target.size:
        raise WrongSizeError(
            f"upstream says that {target.digest} has {offered} bytes where its manifest says {target.size}",
            offered,
        )
