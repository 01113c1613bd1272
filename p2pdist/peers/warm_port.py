"""Commands between agents: warm an image, and tell whom you know. Adapters: peers/warm_client.py, and fakes in tests.

Errors are those of the peers port; besides, DeniedError with the peer's words when it refuses, NotFoundError when it knows
of no such warm-up (or, of the command, when it is an older version). Every wait is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from p2pdist.records import PeerId
from p2pdist.wire.warm import Member, WarmStatus


@dataclass(frozen=True, slots=True)
class Order:
    """An image to fetch: a reference as text, and a platform ("" for the host's own)."""

    reference: str
    platform: str = ""


@dataclass(frozen=True, slots=True)
class HostName:
    """Who answers at an address."""

    peer: PeerId
    name: str
    zone: str


class WarmPeers(Protocol):
    """See the module's rules."""

    async def greet(self, member: Member) -> HostName:
        """Its name and zone."""

    async def members(self, member: Member) -> list[Member]:
        """Whom it knows, itself not among them."""

    async def start(self, member: Member, order: Order) -> WarmStatus:
        """Have it fetch the image; joins the warm-up that is under way there."""

    async def status(self, member: Member, order: Order) -> WarmStatus: ...
