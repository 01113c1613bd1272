"""What every transfer use case needs: the ports, and the shared policies. Built once by the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from p2pdist.clock import Clock
from p2pdist.discovery.port import Discovery
from p2pdist.peers.port import Peers
from p2pdist.store.port import Store
from p2pdist.swarm.peer_health import PeerHealth
from p2pdist.transfer.hooks import TransferHooks
from p2pdist.transfer.ledger import Ledger
from p2pdist.transfer.limits import TokenBucket
from p2pdist.upstream.port import Upstream


def _share_all(registry: str) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class TransferPolicy:
    """Times in seconds, sizes in bytes."""

    zone: str = ""
    tag_ttl: float = 60.0
    tag_stale: float = 7 * 86400.0
    hold_back: int = 64 * 1024
    """How much of a blob's end is kept from clients until its digest holds."""
    patience: float = 8.0
    """How long a client gets no byte before a slice is asked of upstream to show that the body is alive."""
    slice: int = 16 * 1024
    """How much that is: every host of a slow swarm asks for it."""
    peer_wait: float = 1.0
    """How long to wait for busy peers before upstream is asked."""
    slow_rate: int = 64 * 1024
    """A peer below this many bytes a second is left when there is another source."""
    shares: Callable[[str], bool] = _share_all
    """Whether a registry's content may go to, and come from, peers."""


@dataclass(slots=True)
class TransferContext:
    """The ports and what the use cases share."""

    store: Store
    discovery: Discovery
    peers: Peers
    upstream: Upstream
    clock: Clock
    health: PeerHealth
    policy: TransferPolicy
    hooks: TransferHooks
    download: TokenBucket
    upstream_limit: TokenBucket
    ledger: Ledger = field(default_factory=Ledger)
    slices: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Waiting clients ask upstream for their slices one after the other: it is slow enough."""
