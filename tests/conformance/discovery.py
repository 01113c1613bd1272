"""What every adapter of the Discovery port does. Subclass, and give a ``join`` fixture that adds one more member."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from p2pdist.discovery.port import Discovery
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.records import PeerId, TagRecord

BLOB = Digest.of(b"a layer")
OTHER = Digest.of(b"another layer", "sha512")
REPOSITORY = Repository.of("docker.io", "library/nginx")
NOBODY = PeerId(b"n" * 20)


@dataclass(frozen=True)
class Member:
    """One member of the cluster under test."""

    discovery: Discovery
    peer: PeerId
    zone: str = ""


Join = Callable[..., Awaitable[Member]]


def tag_record(digest: Digest, age: float) -> TagRecord:
    return TagRecord(NOBODY, digest, "application/vnd.oci.image.index.v1+json", 1234, age)


class DiscoveryConformance:
    """The suite."""

    @pytest.fixture
    def join(self) -> Join:
        raise NotImplementedError

    async def test_a_lone_agent_finds_nothing_and_is_first(self, join: Join) -> None:
        anna = (await join()).discovery

        assert await anna.find(BLOB) == ()
        announcement = await anna.announce(BLOB)
        assert announcement.first
        assert announcement.providers == ()
        assert anna.contacts() == ()

    async def test_what_one_announces_the_others_find(self, join: Join) -> None:
        anna, bert, carl = [await join(zone=zone) for zone in ("rack-1", "", "")]
        await anna.discovery.announce(BLOB)

        for other in (bert, carl):
            (provider,) = await other.discovery.find(BLOB)
            assert (provider.peer, provider.zone, provider.complete) == (anna.peer, "rack-1", True)
            assert provider.endpoints
        assert await bert.discovery.find(OTHER) == ()

    async def test_nobody_finds_itself(self, join: Join) -> None:
        anna, _ = await join(), await join()
        await anna.discovery.announce(BLOB)

        assert await anna.discovery.find(BLOB) == ()
        again = await anna.discovery.announce(BLOB)
        assert again.first
        assert again.providers == ()

    async def test_the_second_is_told_of_the_first(self, join: Join) -> None:
        anna, bert = await join(), await join()

        assert (await anna.discovery.announce(BLOB, complete=False)).first
        second = await bert.discovery.announce(BLOB, complete=False)

        assert not second.first
        assert [(p.peer, p.complete) for p in second.providers] == [(anna.peer, False)]

    async def test_of_many_in_the_same_instant_one_is_first(self, join: Join) -> None:
        crowd = [await join() for _ in range(8)]

        told = await asyncio.gather(*(m.discovery.announce(BLOB, complete=False) for m in crowd))

        assert sum(announcement.first for announcement in told) == 1
        assert all(announcement.first or announcement.providers for announcement in told)

    async def test_the_first_stays_first_when_it_is_complete(self, join: Join) -> None:
        anna, bert = await join(), await join()
        await anna.discovery.announce(BLOB, complete=False)
        await bert.discovery.announce(BLOB, complete=False)

        assert (await anna.discovery.announce(BLOB, complete=True)).first
        (provider,) = await bert.discovery.find(BLOB)
        assert provider.complete

    async def test_what_is_withdrawn_is_gone(self, join: Join) -> None:
        anna, bert, carl = await join(), await join(), await join()
        await anna.discovery.announce(BLOB)
        await bert.discovery.announce(BLOB)

        await anna.discovery.withdraw(BLOB)

        assert [p.peer for p in await carl.discovery.find(BLOB)] == [bert.peer]
        assert (await bert.discovery.announce(BLOB)).first

    async def test_withdrawing_what_was_never_announced_is_nothing(self, join: Join) -> None:
        await (await join()).discovery.withdraw(BLOB)

    async def test_resolutions_are_shared_youngest_first(self, join: Join) -> None:
        anna, bert, carl = await join(), await join(), await join()
        await anna.discovery.announce_tag(REPOSITORY, "1.27", tag_record(BLOB, 30.0))
        await bert.discovery.announce_tag(REPOSITORY, "1.27", tag_record(OTHER, 5.0))

        found = await carl.discovery.find_tag(REPOSITORY, "1.27")

        assert [(r.peer, r.digest) for r in found] == [(bert.peer, OTHER), (anna.peer, BLOB)]
        assert 5.0 <= found[0].age < 20.0
        assert (found[0].media_type, found[0].size) == ("application/vnd.oci.image.index.v1+json", 1234)
        assert await carl.discovery.find_tag(REPOSITORY, "1.28") == ()
        assert [r.peer for r in await anna.discovery.find_tag(REPOSITORY, "1.27")] == [bert.peer]

    async def test_a_later_resolution_takes_the_place_of_the_earlier(self, join: Join) -> None:
        anna, bert = await join(), await join()
        await anna.discovery.announce_tag(REPOSITORY, "1.27", tag_record(BLOB, 30.0))
        await anna.discovery.announce_tag(REPOSITORY, "1.27", tag_record(OTHER, 0.0))

        (found,) = await bert.discovery.find_tag(REPOSITORY, "1.27")

        assert found.digest == OTHER

    async def test_contacts_are_the_others(self, join: Join) -> None:
        anna, bert = await join(), await join()

        assert [c.peer for c in anna.discovery.contacts()] == [bert.peer]
        assert [c.peer for c in bert.discovery.contacts()] == [anna.peer]

    async def test_anyone_may_be_suspected(self, join: Join) -> None:
        anna, bert = await join(), await join()
        await bert.discovery.announce(BLOB)

        anna.discovery.suspect(bert.peer)
        anna.discovery.suspect(NOBODY)

        assert (await anna.discovery.announce(OTHER)).first
