"""Traces, where the configuration names a collector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from p2pdist import __version__
from p2pdist.config.model import Config
from p2pdist.errors import ConfigError
from p2pdist.peers.port import Peers
from p2pdist.transfer.hooks import TransferHooks
from p2pdist.upstream.port import Upstream

if TYPE_CHECKING:
    from p2pdist.telemetry.tracing import Tracing


@asynccontextmanager
async def tracing_to(config: Config) -> AsyncIterator[Tracing | None]:
    """Traces to the configured collector, sent off at the end; None when none is. Raises ConfigError."""
    if not config.telemetry.traces:
        yield None
        return
    try:
        # Late: opentelemetry is an extra, and costs memory that an agent without traces need not spend.
        from p2pdist.telemetry.tracing import Tracing
    except ImportError as error:
        raise ConfigError(
            f"telemetry.traces is set, and OpenTelemetry is not installed ({error}): pip install 'p2pdist[otel]', or take "
            "the key out"
        ) from error
    tracing = Tracing(
        config.telemetry.traces_url,
        {
            "service.name": "p2pdist",
            "service.version": __version__,
            "service.instance.id": config.agent.name,
            "host.name": config.agent.name,
            **({"p2pdist.zone": config.agent.zone} if config.agent.zone else {}),
        },
    )
    try:
        yield tracing
    finally:
        await asyncio.to_thread(tracing.close)


def traced(
    tracing: Tracing | None, upstream: Upstream, peers: Peers, hooks: TransferHooks
) -> tuple[Upstream, Peers, TransferHooks]:
    """The same, with spans drawn around them; as they are where there are no traces."""
    if tracing is None:
        return upstream, peers, hooks
    from p2pdist.telemetry.peer_spans import TracedPeers
    from p2pdist.telemetry.tracing import TracedUpstream, TraceTransfers

    return TracedUpstream(upstream, tracing), TracedPeers(peers, tracing), TraceTransfers(hooks, tracing)
