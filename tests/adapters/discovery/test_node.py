"""The DHT node keeps to the port's suite, on real sockets; and it lives with the dead, the lying and the strange."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import random
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pdist.clock import SystemClock
from p2pdist.discovery.node import DiscoveryNode
from p2pdist.oci.digest import Digest
from p2pdist.records import ContentKey, Endpoint, PeerId
from p2pdist.wire import codec, dht_messages
from p2pdist.wire.dht_messages import Message, Method
from tests.adapters.discovery.conftest import KEY, Cluster, until
from tests.adapters.discovery.stranger import Stranger
from tests.conformance.discovery import (
    BLOB,
    OTHER,
    REPOSITORY,
    DiscoveryConformance,
    Join,
    Member,
    tag_record,
)


def peer_of(node: DiscoveryNode) -> PeerId:
    return node._settings.peer


def digest(number: int) -> Digest:
    return Digest.of(str(number).encode())


Strangers = Callable[..., Stranger]


@pytest.fixture
def strangers() -> Iterator[Strangers]:
    made: list[Stranger] = []

    def make(**about: Any) -> Stranger:
        made.append(Stranger(**about))
        return made[-1]

    yield make
    for stranger in made:
        stranger.socket.close()


class TestDiscoveryNode(DiscoveryConformance):
    @pytest.fixture
    def join(self, cluster: Cluster) -> Join:
        async def add(zone: str = "") -> Member:
            node = await cluster.add(zone=zone)
            await until(lambda: len(node.contacts()) == len(cluster.nodes) - 1)
            return Member(node, peer_of(node), zone)

        return add


class TestManyNodes:
    async def test_every_record_is_found_by_everyone(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(40)
        dice = random.Random(1)
        for number in range(30):
            owner, asker = dice.sample(nodes, 2)
            assert (await owner.announce(digest(number))).first
            assert [p.peer for p in await asker.find(digest(number))] == [peer_of(owner)]

    async def test_the_dead_hide_no_record(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(40)
        dice = random.Random(2)
        for node in dice.sample(nodes, 6):
            await cluster.crash(node)
        for number in range(30):
            owner, asker = dice.sample(cluster.nodes, 2)
            assert (await owner.announce(digest(number))).first
            assert [p.peer for p in await asker.find(digest(number))] == [peer_of(owner)]

    async def test_records_outlive_half_of_the_nodes_that_keep_them(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(24)
        owner, asker = nodes[0], nodes[1]
        await owner.announce(BLOB)
        key = ContentKey.of_blob(BLOB)
        keepers = [n for n in nodes[2:] if n._server.records.providers(key, 1, SystemClock().now())]
        for node in keepers[: len(keepers) // 2]:
            await cluster.crash(node)

        assert [p.peer for p in await asker.find(BLOB)] == [peer_of(owner)]

    async def test_a_crowd_in_one_instant_has_a_first(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(24)
        for number in range(5):
            told = await asyncio.gather(*(n.announce(digest(number), complete=False) for n in nodes[:16]))
            assert 1 <= sum(announcement.first for announcement in told) <= 2
            assert all(announcement.first or announcement.providers for announcement in told)

    async def test_a_popular_blob_is_answered_with_a_sample_that_fits(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(40)
        for node in nodes[1:]:
            await node.announce(BLOB)

        found = await nodes[0].find(BLOB)

        assert 16 <= len(found) <= 39
        assert len({p.peer for p in found}) == len(found)


class TestLeavingAndComingBack:
    async def test_one_that_closes_takes_its_records_along(self, cluster: Cluster) -> None:
        anna, bert, carl = await cluster.grow(3)
        await anna.announce(BLOB)
        await anna.announce(OTHER, complete=False)

        await anna.close()

        assert await bert.find(BLOB) == ()
        assert await carl.find(OTHER) == ()
        assert peer_of(anna) not in [c.peer for c in bert.contacts()]

    async def test_closing_is_quick_among_the_dead(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(6)
        await nodes[0].announce(BLOB)
        for node in nodes[1:]:
            await cluster.crash(node)

        async with asyncio.timeout(10):
            await nodes[0].close()

    async def test_closing_twice_or_before_starting_is_nothing(self, cluster: Cluster) -> None:
        anna = await cluster.add()
        await anna.close()
        await anna.close()
        await DiscoveryNode(anna._settings, SystemClock()).close()

    async def test_one_that_comes_back_is_trusted_again(self, cluster: Cluster) -> None:
        anna, bert = await cluster.add(name="anna"), await cluster.add(name="bert")
        port = bert.port
        await cluster.crash(bert)
        assert await anna.find(BLOB) == ()
        await until(lambda: not anna.contacts())

        bert = await cluster.add(name="bert", port=port, bootstrap=(f"127.0.0.1:{anna.port}",))
        await until(lambda: bool(anna.contacts()))
        await bert.announce(BLOB)

        assert [p.peer for p in await anna.find(BLOB)] == [peer_of(bert)]

    async def test_a_restarted_node_is_handed_what_it_lost(self, cluster: Cluster) -> None:
        anna, bert = await cluster.add(name="anna"), await cluster.add(name="bert")
        await anna.announce(BLOB)
        await anna.announce_tag(REPOSITORY, "latest", tag_record(BLOB, 1.0))
        port = bert.port
        await cluster.crash(bert)
        bert = await cluster.add(name="bert", port=port, bootstrap=(f"127.0.0.1:{anna.port}",))
        assert bert.state()["records"] == 0

        await anna._publisher.hand_over()

        assert bert.state()["records"] == 2

    async def test_renewal_puts_back_what_a_node_lost(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(4)
        for number in range(60):
            await nodes[0].announce(digest(number))
        nodes[1]._server.records.leave(peer_of(nodes[0]))
        assert nodes[1].state()["records"] == 0

        await nodes[0]._publisher.renew()

        assert nodes[1].state()["records"] == 60
        assert nodes[0].state()["announced"] == 60

    async def test_contacts_are_kept_over_a_restart(self, cluster: Cluster, tmp_path: Path) -> None:
        file = tmp_path / "dht-contacts.json"
        anna = await cluster.add()
        bert = await cluster.add(name="bert", snapshot=file)
        await bert.close()
        assert json.loads(file.read_text())["contacts"] == [f"127.0.0.1:{anna.port}"]

        bert = await cluster.add(name="bert", snapshot=file, bootstrap=())

        assert [c.peer for c in bert.contacts()] == [peer_of(anna)]

    async def test_a_damaged_file_of_contacts_is_no_hindrance(
        self, cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = tmp_path / "dht-contacts.json"
        file.write_bytes(b"\x80\x04 not json")
        anna = await cluster.add(snapshot=file)
        assert anna.contacts() == ()
        assert str(file) in caplog.text


class TestMeeting:
    async def test_a_node_finds_the_cluster_that_starts_after_it(self, cluster: Cluster) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
        anna = await cluster.add(bootstrap=(f"127.0.0.1:{port}",))
        assert anna.contacts() == ()

        bert = await cluster.add(port=port, bootstrap=())
        await until(lambda: [c.peer for c in anna.contacts()] == [peer_of(bert)])

    async def test_a_name_is_as_good_as_an_address(self, cluster: Cluster) -> None:
        anna = await cluster.add()
        bert = await cluster.add(bootstrap=(f"dns:localhost:{anna.port}",))
        assert [c.peer for c in bert.contacts()] == [peer_of(anna)]

    async def test_bad_bootstrap_addresses_are_named_and_left_out(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        anna = await cluster.add()
        bert = await cluster.add(
            bootstrap=("nowhere", "dns:no-such-host.invalid:5051", f"127.0.0.1:{anna.port}")
        )
        assert [c.peer for c in bert.contacts()] == [peer_of(anna)]
        assert "'nowhere' is not HOST:PORT" in caplog.text
        assert "no-such-host.invalid:5051 (peer.bootstrap or advertise) has no address" in caplog.text

    async def test_one_does_not_meet_itself(self, cluster: Cluster) -> None:
        anna = await cluster.add()
        await anna._server.protocol.greet([Endpoint("127.0.0.1", anna.port)])
        assert anna.contacts() == ()
        assert anna.counters()["own"] == 1
        assert Endpoint("127.0.0.1", anna.port) in anna._server.protocol.own

    async def test_ipv6_and_dual_stack_meet(self, cluster: Cluster) -> None:
        dual = await cluster.add(host="::")
        four = await cluster.add(host="127.0.0.1", bootstrap=(f"127.0.0.1:{dual.port}",))
        six = await cluster.add(host="::1", bootstrap=(f"[::1]:{dual.port}",))
        await six.announce(BLOB)
        await four.announce(OTHER)

        (over_six,) = await dual.find(BLOB)
        (over_four,) = await dual.find(OTHER)

        assert over_six.endpoints == (Endpoint("::1", six.port),)
        assert over_four.endpoints == (Endpoint("127.0.0.1", four.port),)

    async def test_the_advertised_address_is_the_one_others_learn(self, cluster: Cluster) -> None:
        anna = await cluster.add()
        bert = await cluster.add(advertise="192.0.2.7:5051")
        await bert.announce(BLOB)

        (provider,) = await anna.find(BLOB)

        assert provider.endpoints == (Endpoint("192.0.2.7", 5051),)

    async def test_a_port_in_use_is_an_os_error(self, cluster: Cluster) -> None:
        anna = await cluster.add()
        with pytest.raises(OSError, match="in use"):
            await cluster.add(port=anna.port)


class TestStrangers:
    async def test_noise_gets_no_answer(self, cluster: Cluster, strangers: Strangers) -> None:
        anna, stranger = await cluster.add(), strangers()
        dice = random.Random(3)
        for size in (0, 1, 40, 600, 1400, 9000):
            stranger.send(anna, dice.randbytes(size))
        await until(lambda: anna.counters().get("noise", 0) == 6)
        assert stranger.heard_nothing()
        assert anna.contacts() == ()

    async def test_another_key_gets_no_answer_and_is_named_once(
        self, cluster: Cluster, strangers: Strangers, caplog: pytest.LogCaptureFixture
    ) -> None:
        anna, stranger = await cluster.add(), strangers(key=bytes(32))
        for _ in range(3):
            stranger.send(anna, stranger.request(anna, Method.PING, ()))
        await until(lambda: anna.counters().get("wrong_key", 0) == 3)
        assert stranger.heard_nothing()
        assert caplog.text.count("sealed with another cluster key") == 1
        assert KEY.hex() not in caplog.text

    async def test_a_wrong_clock_is_told_with_the_mend(
        self, cluster: Cluster, strangers: Strangers, caplog: pytest.LogCaptureFixture
    ) -> None:
        anna, stranger = await cluster.add(), strangers(wall=SystemClock().wall() - 3600)
        stranger.send(anna, stranger.request(anna, Method.PING, ()))
        await until(lambda: anna.counters().get("skewed", 0) == 1)
        assert re.search(r"its clock is 360\d s behind this host's; set both hosts' clocks", caplog.text)

    async def test_a_recording_does_nothing_the_second_time(
        self, cluster: Cluster, strangers: Strangers
    ) -> None:
        anna, member = await cluster.add(), strangers()
        recorded = member.request(anna, Method.PING, ())
        member.send(anna, recorded)
        await member.heard()
        member.send(anna, recorded)
        await until(lambda: anna.counters().get("replayed", 0) == 1)
        assert member.heard_nothing()

    async def test_a_datagram_for_another_is_not_taken(self, cluster: Cluster, strangers: Strangers) -> None:
        anna, bert, member = await cluster.add(), await cluster.add(), strangers()
        member.send(bert, member.request(anna, Method.ANNOUNCE, (bytes(20), 1000, True, "")))
        await until(lambda: bert.counters().get("misdirected", 0) == 1)
        assert bert.state()["records"] == 0

    async def test_a_copied_data_directory_is_named(
        self, cluster: Cluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        anna = await cluster.add(name="anna")
        twin = await cluster.add(name="anna", bootstrap=())
        await twin._server.protocol.greet([Endpoint("127.0.0.1", anna.port)])
        assert "has this agent's peer id" in caplog.text

    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            b"\x91" * 1300,
            b"\xdd\xff\xff\xff\xff",
            codec.pack((1, b"short", b"", b"", 1, ())),
            codec.pack((1, b"p" * 20, b"", b"", 99, ())),
            codec.pack((1, b"p" * 20, b"", b"", 2, (b"short key", 1))),
            codec.pack((1, b"p" * 20, b"", b"", 3, (bytes(20), -5, True, ""))),
            codec.pack((1, b"p" * 20, b"", b"", 3, (bytes(20), 1000, True, "z" * 65))),
            codec.pack((1, b"p" * 20, b"", b"", 4, (bytes(20), 1000, b"\xc1"))),
            codec.pack((1, b"p" * 20, b"", b"", 5, (1000, b"x" * 21))),
        ],
    )
    async def test_a_member_that_talks_nonsense_is_counted(
        self, cluster: Cluster, strangers: Strangers, caplog: pytest.LogCaptureFixture, payload: bytes
    ) -> None:
        caplog.set_level(logging.WARNING)
        anna, member = await cluster.add(), strangers()
        member.send(anna, member.sealed(payload))
        await until(lambda: anna.counters().get("malformed", 0) == 1)
        assert anna.state()["records"] == 0
        assert member.heard_nothing()

    async def test_an_answer_in_anothers_name_does_not_count(
        self, cluster: Cluster, strangers: Strangers
    ) -> None:
        anna, bert = await cluster.grow(2)
        member = strangers()
        member.send(anna, member.request(anna, Method.PING, ()))
        await member.heard()
        answer = Message(7, member.peer, peer_of(anna), None, None, ())
        member.send(anna, member.sealed(dht_messages.encode_message(answer)))
        await until(lambda: anna.counters().get("unasked", 0) == 1)
        assert {c.peer for c in anna.contacts()} == {peer_of(bert), member.peer}


async def test_a_lie_about_contacts_costs_little(cluster: Cluster, strangers: Strangers) -> None:
    """A member that names a hundred nobodies: the lookup ends, and none of them becomes a contact."""
    anna = await cluster.add()
    liar = strangers()
    liar.send(anna, liar.request(anna, Method.PING, ()))
    await liar.heard()

    async def lie() -> None:
        while True:
            opened = liar.sealer.open(
                await asyncio.get_running_loop().sock_recv(liar.socket, 2000), SystemClock().now()
            )
            asked = dht_messages.decode_message(opened.payload, 1400)  # type: ignore[union-attr]
            nobodies = [
                codec.encode_contact(PeerId(hashlib.sha1(bytes([i])).digest()), Endpoint("127.0.0.1", 9))
                for i in range(30)
            ]
            answer = Message(asked.id, liar.peer, peer_of(anna), None, None, (nobodies, []))
            liar.send(anna, liar.sealed(dht_messages.encode_message(answer)))

    lying = asyncio.create_task(lie())
    try:
        async with asyncio.timeout(10):
            assert await anna.find(BLOB) == ()
        assert [c.peer for c in anna.contacts()] == [liar.peer]
    finally:
        lying.cancel()
        await asyncio.gather(lying, return_exceptions=True)


class TestWhereEveryoneIsKnown:
    async def test_announcing_takes_no_search(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(8)
        await settled(nodes)
        before = nodes[0].counters()["out"]

        await nodes[0].announce(BLOB, complete=False)

        assert nodes[0].counters()["out"] - before <= 4
        assert len(holders(nodes)) == 4
        await nodes[0].announce(BLOB)
        assert len(holders(nodes)) == 8

    async def test_a_nearer_node_that_is_not_known_is_found_after_all(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(8)
        await settled(nodes)
        key = int.from_bytes(ContentKey.of_blob(BLOB).raw, "big")
        *_, owner, nearest = sorted(nodes, key=lambda n: -(int.from_bytes(peer_of(n).raw, "big") ^ key))
        stranger = owner._server.table.known(peer_of(nearest))
        assert stranger is not None
        owner._server.table.remove_contact(stranger)

        await owner.announce(BLOB, complete=False)

        assert nearest in holders(nodes)

    async def test_one_that_is_dead_is_replaced(self, cluster: Cluster) -> None:
        nodes = await cluster.grow(10)
        await settled(nodes)
        key = int.from_bytes(ContentKey.of_blob(BLOB).raw, "big")
        nearest, *others = sorted(nodes, key=lambda n: int.from_bytes(peer_of(n).raw, "big") ^ key)
        await cluster.crash(nearest)

        assert (await others[-1].announce(BLOB)).first

        assert len(holders(others)) >= 8
        assert [p.peer for p in await others[0].find(BLOB)] == [peer_of(others[-1])]


async def settled(nodes: list[DiscoveryNode]) -> None:
    """Each knows all, and has asked around since."""
    await until(lambda: all(len(node.contacts()) == len(nodes) - 1 for node in nodes))
    for node in nodes:
        await node._maintenance.look_around()
    assert all(node._server.settled(ContentKey.of_blob(BLOB)) for node in nodes)


def holders(nodes: list[DiscoveryNode]) -> list[DiscoveryNode]:
    key, now = ContentKey.of_blob(BLOB), SystemClock().now()
    return [node for node in nodes if node._server.records.providers(key, 1, now)]
