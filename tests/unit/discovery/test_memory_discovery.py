"""The fake cluster keeps to the port's suite."""

from __future__ import annotations

import itertools

import pytest

from p2pdist.discovery.port import NoDiscovery
from p2pdist.testing.memory_discovery import MemoryCluster
from tests.conformance.discovery import BLOB, REPOSITORY, DiscoveryConformance, Join, Member, tag_record


class TestMemoryDiscovery(DiscoveryConformance):
    @pytest.fixture
    def join(self) -> Join:
        cluster, numbers = MemoryCluster(), itertools.count()

        async def add(zone: str = "") -> Member:
            member = cluster.join(str(next(numbers)), zone=zone)
            return Member(member, member.peer, zone)

        return add


async def test_a_member_cut_off_is_alone_and_one_that_left_is_gone() -> None:
    cluster = MemoryCluster()
    anna, bert, carl = (cluster.join(name) for name in ("anna", "bert", "carl"))
    await anna.announce(BLOB)
    bert.cut_off = True

    assert await bert.find(BLOB) == ()
    assert (await bert.announce(BLOB)).first
    assert bert.contacts() == ()

    cluster.leave(anna.peer)
    assert await carl.find(BLOB) == ()


async def test_no_discovery_finds_nothing_and_is_first() -> None:
    nobody = NoDiscovery()
    assert await nobody.find(BLOB) == ()
    assert (await nobody.announce(BLOB)).first
    await nobody.withdraw(BLOB)
    await nobody.announce_tag(REPOSITORY, "latest", tag_record(BLOB, 0.0))
    assert await nobody.find_tag(REPOSITORY, "latest") == ()
    assert nobody.contacts() == ()
    nobody.suspect(tag_record(BLOB, 0.0).peer)
