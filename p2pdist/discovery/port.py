"""The discovery port: who holds what, told by the cluster's DHT.

Always true here: no call raises for a dead or lying contact, and each returns within its bound (``find`` and
``announce``: 1 s at the very worst, milliseconds normally). Records come from authenticated members only, are bounded
in size and number, and expire. An agent's own records are never among the results.
Adapters: discovery/node.py (kademlia), testing/memory_discovery.py, and ``NoDiscovery`` below for a lone agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import Endpoint, PeerId, Provider, TagRecord


@dataclass(frozen=True, slots=True)
class Announcement:
    """What announcing found: the providers that had announced before; ``first`` when there were none at all."""

    providers: tuple[Provider, ...]
    first: bool


@dataclass(frozen=True, slots=True)
class Contact:
    """A member of the DHT that answered lately. ``rtt`` and ``seen`` (since the last answer) are in seconds."""

    peer: PeerId
    endpoint: Endpoint
    rtt: float | None
    seen: float


class Discovery(Protocol):
    """See the module's rules."""

    async def find(self, digest: Digest) -> tuple[Provider, ...]:
        """Providers of a blob, best sample first known; () when none."""

    async def announce(self, digest: Digest, *, complete: bool = True) -> Announcement:
        """Join and find in one step. The record is renewed before it expires until ``withdraw``."""

    async def withdraw(self, digest: Digest) -> None:
        """Take back an announcement; never raises."""

    async def find_tag(self, repository: Repository, tag: str) -> tuple[TagRecord, ...]:
        """Resolutions other members hold, youngest first."""

    async def announce_tag(self, repository: Repository, tag: str, record: TagRecord) -> None:
        """Share a resolution made here (``record.peer`` is ignored: it is this agent)."""

    def contacts(self) -> tuple[Contact, ...]: ...

    def suspect(self, peer: PeerId) -> None:
        """The transfer layer could not reach this peer: do not wait for it."""


class NoDiscovery:
    """The discovery of an agent without a cluster: finds nothing, and says at once that it is first."""

    async def find(self, digest: Digest) -> tuple[Provider, ...]:
        return ()

    async def announce(self, digest: Digest, *, complete: bool = True) -> Announcement:
        return Announcement((), first=True)

    async def withdraw(self, digest: Digest) -> None:
        return None

    async def find_tag(self, repository: Repository, tag: str) -> tuple[TagRecord, ...]:
        return ()

    async def announce_tag(self, repository: Repository, tag: str, record: TagRecord) -> None:
        return None

    def contacts(self) -> tuple[Contact, ...]:
        return ()

    def suspect(self, peer: PeerId) -> None:
        return None
