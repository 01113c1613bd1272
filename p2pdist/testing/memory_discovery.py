"""A cluster's shared knowledge in memory: the Discovery port without a network.

Always true here: what one member announces, the others find at once; order of announcement is kept; a member that is
``cut_off`` finds nothing, and is told that it is first, as one without contacts is.

    cluster = MemoryCluster()
    anna, bert = cluster.join("anna"), cluster.join("bert", zone="rack-2")
    await anna.announce(digest)
    assert await bert.find(digest) == (anna.provider(),)
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from p2pdist.clock import Clock
from p2pdist.discovery.port import Announcement, Contact
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import ContentKey, Endpoint, PeerId, Provider, TagRecord

NOWHERE = Endpoint("192.0.2.1", 5051)


class MemoryCluster:
    """What all members announced. With a ``clock`` tag records age; without, they stay as they are."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.providers: dict[ContentKey, dict[PeerId, Provider]] = {}
        self.tags: dict[ContentKey, dict[PeerId, tuple[TagRecord, float]]] = {}
        self.members: dict[PeerId, MemoryDiscovery] = {}
        self._clock = clock

    def join(
        self,
        name: str = "",
        *,
        peer: PeerId | None = None,
        endpoint: Endpoint = NOWHERE,
        zone: str = "",
    ) -> MemoryDiscovery:
        """A new member; its id is ``peer``, or else made from ``name``."""
        if peer is None:
            peer = PeerId(hashlib.blake2b(name.encode(), digest_size=20).digest())
        member = MemoryDiscovery(self, peer, endpoint, zone)
        self.members[peer] = member
        return member

    def leave(self, peer: PeerId) -> None:
        """The member and all that it announced are gone."""
        self.members.pop(peer, None)
        for providers in self.providers.values():
            providers.pop(peer, None)
        for tags in self.tags.values():
            tags.pop(peer, None)

    def now(self) -> float:
        return self._clock.now() if self._clock else 0.0


class MemoryDiscovery:
    """One member's view. ``suspected`` and ``announced`` record what it was told, in order."""

    def __init__(self, cluster: MemoryCluster, peer: PeerId, endpoint: Endpoint, zone: str) -> None:
        self.peer = peer
        self.endpoint = endpoint
        self.zone = zone
        self.cut_off = False
        self.suspected: list[PeerId] = []
        self.announced: list[tuple[Digest, bool]] = []
        self._cluster = cluster

    def provider(self, *, complete: bool = True) -> Provider:
        """The record by which others find this member."""
        return Provider(self.peer, (self.endpoint,), self.zone, complete)

    async def find(self, digest: Digest) -> tuple[Provider, ...]:
        return self._others(ContentKey.of_blob(digest))

    async def announce(self, digest: Digest, *, complete: bool = True) -> Announcement:
        self.announced.append((digest, complete))
        if self.cut_off:
            return Announcement((), first=True)
        records = self._cluster.providers.setdefault(ContentKey.of_blob(digest), {})
        records[self.peer] = self.provider(complete=complete)
        before = list(records)[: list(records).index(self.peer)]
        if not before:
            return Announcement((), first=True)
        return Announcement(self._others(ContentKey.of_blob(digest)), first=False)

    async def withdraw(self, digest: Digest) -> None:
        self._cluster.providers.get(ContentKey.of_blob(digest), {}).pop(self.peer, None)

    async def find_tag(self, repository: Repository, tag: str) -> tuple[TagRecord, ...]:
        if self.cut_off:
            return ()
        records = self._cluster.tags.get(ContentKey.of_tag(repository, tag), {})
        aged = [
            replace(record, age=record.age + self._cluster.now() - told)
            for peer, (record, told) in records.items()
            if peer != self.peer
        ]
        return tuple(sorted(aged, key=lambda record: record.age))

    async def announce_tag(self, repository: Repository, tag: str, record: TagRecord) -> None:
        if not self.cut_off:
            records = self._cluster.tags.setdefault(ContentKey.of_tag(repository, tag), {})
            records[self.peer] = (replace(record, peer=self.peer), self._cluster.now())

    def contacts(self) -> tuple[Contact, ...]:
        others = [] if self.cut_off else [m for m in self._cluster.members.values() if m is not self]
        return tuple(Contact(member.peer, member.endpoint, 0.0, 0.0) for member in others)

    def suspect(self, peer: PeerId) -> None:
        self.suspected.append(peer)

    def _others(self, key: ContentKey) -> tuple[Provider, ...]:
        if self.cut_off:
            return ()
        records = self._cluster.providers.get(key, {})
        return tuple(provider for peer, provider in records.items() if peer != self.peer)
