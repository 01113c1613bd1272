"""A node's upkeep, in the time of a manual clock: whom it meets, when it looks for others, what it hands over to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable

import pytest

from p2pdist.discovery.maintenance import Maintenance
from p2pdist.discovery.node import DiscoveryNode
from p2pdist.records import ContentKey, Endpoint
from p2pdist.testing.clock import ManualClock
from p2pdist.wire.dht_messages import Method
from tests.adapters.discovery.conftest import Cluster, until
from tests.conformance.discovery import BLOB, OTHER

KEY_OF_BLOB = ContentKey.of_blob(BLOB)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Counter[Maintenance]:
    """How often each has looked around."""
    counted: Counter[Maintenance] = Counter()
    look = Maintenance._look

    async def counting(self: Maintenance, quarter: int) -> bool:
        counted[self] += 1
        return await look(self, quarter)

    monkeypatch.setattr(Maintenance, "_look", counting)
    return counted


async def passes(seconds: float, clock: ManualClock, nodes: Iterable[DiscoveryNode]) -> None:
    """Let time go by; whatever that makes the nodes say is said and heard before it goes on."""
    for _ in range(int(seconds * 2)):
        await clock.advance(0.5)
        said = -1
        while said != (said := sum(node.counters().get("in", 0) for node in nodes)):
            await asyncio.sleep(0.002)


def holds(node: DiscoveryNode, clock: ManualClock) -> bool:
    return bool(node._server.records.providers(KEY_OF_BLOB, 1, clock.now()))


def out(node: DiscoveryNode) -> int:
    return node.counters().get("out", 0)


class TestLookingAround:
    async def test_those_that_start_together_know_nearly_all(
        self, cluster: Cluster, clock: ManualClock
    ) -> None:
        first = [await cluster.add(clock=clock) for _ in range(3)]
        names = tuple(f"127.0.0.1:{node.port}" for node in first)
        await asyncio.gather(*(cluster.add(clock=clock, bootstrap=names) for _ in range(29)))

        await passes(2.0, clock, cluster.nodes)

        assert min(len(node.contacts()) for node in cluster.nodes) >= 28

    async def test_it_ends_when_it_brings_no_news_and_begins_again_when_someone_new_is_heard(
        self, cluster: Cluster, clock: ManualClock, looks: Counter[Maintenance]
    ) -> None:
        nodes = [await cluster.add(clock=clock) for _ in range(4)]
        await passes(60, clock, nodes)
        assert all(looks[node._maintenance] >= 6 for node in nodes)
        looks.clear()
        await passes(60, clock, nodes)
        assert not looks

        await cluster.add(clock=clock)
        await passes(10, clock, cluster.nodes)
        assert all(looks[node._maintenance] >= 2 for node in nodes)
        await passes(60, clock, cluster.nodes)
        looks.clear()
        await passes(30, clock, cluster.nodes)
        assert not looks

    async def test_two_halves_that_meet_again_find_what_is_in_the_other(
        self, cluster: Cluster, clock: ManualClock
    ) -> None:
        halves: list[list[DiscoveryNode]] = []
        for _ in range(2):
            first = await cluster.add(clock=clock, bootstrap=())
            more = [await cluster.add(clock=clock, bootstrap=(f"127.0.0.1:{first.port}",)) for _ in range(4)]
            halves.append([first, *more])
        (*ones, one), (*others, other) = halves
        await passes(60, clock, cluster.nodes)
        assert all(node._server.settled(KEY_OF_BLOB) for node in cluster.nodes)
        await one.announce(BLOB)
        await other.announce(OTHER)
        assert await others[0].find(BLOB) == ()

        await ones[0]._server.protocol.greet([Endpoint("127.0.0.1", others[0].port)])
        await passes(12, clock, cluster.nodes)

        assert all(len(node.contacts()) == 9 for node in cluster.nodes)
        for node in others:
            assert [p.peer for p in await node.find(BLOB)] == [one._settings.peer]
        for node in ones:
            assert [p.peer for p in await node.find(OTHER)] == [other._settings.peer]


class TestHandingOver:
    async def test_what_one_has_confirmed_is_not_sent_again_after_a_suspicion(
        self, cluster: Cluster, clock: ManualClock
    ) -> None:
        anna, bert = await cluster.add(clock=clock), await cluster.add(clock=clock)
        await passes(1.0, clock, cluster.nodes)
        (known,) = bert._server.table.contacts()
        await anna.announce(BLOB)
        assert holds(bert, clock)
        anna.suspect(bert._settings.peer)
        assert anna.contacts() == ()
        await bert._server.protocol.ask(known, Method.PING, ())
        assert len(anna._publisher._news) == 1
        before = out(anna)

        await anna._publisher.hand_over()

        assert out(anna) == before

    async def test_what_one_has_not_confirmed_is_sent_again(
        self, cluster: Cluster, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        anna, bert = await cluster.add(clock=clock), await cluster.add(clock=clock)
        await passes(1.0, clock, cluster.nodes)
        (known,) = bert._server.table.contacts()
        with monkeypatch.context() as mute:
            mute.setattr(bert._server.protocol, "_send", lambda message, endpoint: None)
            await anna.announce(BLOB)
            await until(lambda: not anna.contacts())
        await bert._server.protocol.ask(known, Method.PING, ())
        before = out(anna)

        await anna._publisher.hand_over()
        assert out(anna) == before + 1
        anna._publisher.met(anna._server.table.contacts()[0])
        await anna._publisher.hand_over()
        assert out(anna) == before + 1  # it has confirmed now

    async def test_a_storing_node_that_was_restarted_is_given_its_records_anew(
        self, cluster: Cluster, clock: ManualClock
    ) -> None:
        nodes = [await cluster.add(clock=clock, name=f"host {number}") for number in range(10)]
        await passes(40, clock, nodes)
        owner = nodes[0]
        await owner.announce(BLOB)
        lost = next(node for node in nodes[1:] if holds(node, clock))
        name, port = f"host {nodes.index(lost)}", lost.port
        await cluster.crash(lost)

        again = await cluster.add(clock=clock, name=name, port=port)
        assert not holds(again, clock)
        await passes(20, clock, cluster.nodes)

        assert holds(again, clock)
        assert sum(holds(node, clock) for node in cluster.nodes) >= 8
