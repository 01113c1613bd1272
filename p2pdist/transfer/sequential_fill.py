"""One source at a time, at the contiguous front: peers in order of health, then upstream (source_plan.py)."""

from __future__ import annotations

from p2pdist.errors import DigestMismatchError, P2PDistError, StoreFullError
from p2pdist.records import PeerId, Provider
from p2pdist.transfer.content import Source
from p2pdist.transfer.context import TransferContext
from p2pdist.transfer.fill import Target
from p2pdist.transfer.source_plan import SourcePlan


class SequentialFill:
    """A source that fails is left in mid-blob; the next one goes on at the same byte."""

    def __init__(
        self,
        context: TransferContext,
        *,
        without: frozenset[PeerId] = frozenset(),
        only: Provider | None = None,
    ) -> None:
        self._context = context
        self._without = without
        self._only = only

    async def run(self, target: Target) -> None:
        """As Fill.run."""
        plan = SourcePlan(self._context, target.repository, target.digest, self._without, self._only)
        while target.held.front < target.size:
            source = await plan.next()
            before = target.held.front
            try:
                if isinstance(source, Provider):
                    await self._stream_from_peer(target, source, plan)
                else:
                    await self._stream_from_upstream(target)
            except StoreFullError:
                raise
            except P2PDistError as error:
                plan.failed(source, error, progressed=target.held.front > before)
            else:
                plan.succeeded(source)

    async def _stream_from_peer(self, target: Target, provider: Provider, plan: SourcePlan) -> None:
        context, clock = self._context, self._context.clock
        started, offset = clock.now(), target.held.front
        begun = offset
        async with context.peers.blob(provider, target.digest, offset) as stream:
            plan.check_size(provider, stream.size, target.size)
            pace = plan.pace(provider)
            async for chunk in stream.chunks():
                await context.download.take(len(chunk))
                await target.receive(offset, chunk, Source.PEER, provider)
                offset += len(chunk)
                pace.received(len(chunk))
        now = clock.now()
        context.health.received(provider.peer, offset - begun, now - started, now)

    async def _stream_from_upstream(self, target: Target) -> None:
        context = self._context
        offset = target.held.front
        async with context.upstream.blob(target.repository, target.digest, offset) as stream:
            check_upstream_size(target, stream.size)
            async for chunk in stream.chunks():
                await context.upstream_limit.take(len(chunk))
                await context.download.take(len(chunk))
                await target.receive(offset, chunk, Source.UPSTREAM, None)
                offset += len(chunk)


def check_upstream_size(target: Target, offered: int) -> None:
    """A blob of another size cannot have the digest; raises DigestMismatchError."""
    if offered != target.size:
        raise DigestMismatchError(
            f"upstream says that {target.digest} has {offered} bytes where its manifest says {target.size}"
        )
