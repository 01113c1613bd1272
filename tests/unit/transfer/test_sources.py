"""Where a fetch gets its bytes: peers before upstream, the next source at the same byte, liars found and banned."""

from __future__ import annotations

import asyncio

import pytest

from p2pdist.errors import DigestMismatchError, NotFoundError, P2PDistError, UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.swarm.peer_health import Standing
from p2pdist.testing.memory_peers import MemoryPeer
from p2pdist.transfer.context import TransferPolicy
from tests.unit.transfer.world import APP, KIB, MIB, SIZE, World, blob, pull, reading, until


def standing(world: World, peer: MemoryPeer) -> Standing:
    return world.health.standing(peer.id, world.clock.now())


async def test_peers_come_first_and_upstream_is_not_touched() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    await world.store.link(APP, [digest], sizes={digest: SIZE})
    await world.peer("anna", data)
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    assert client.moved == {"peer": SIZE}
    assert world.upstream.requests == []


async def test_a_peers_bytes_are_not_seen_before_the_digest_holds() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    anna = await world.peer("anna", data, gate_at=SIZE - 1)
    async with world.agent() as agent, reading(agent, digest) as slow:
        first = asyncio.ensure_future(slow.take())
        await world.manual.settle()
        assert not first.done()
        anna.gate.set()
        await first
        assert await slow.take_rest() == data


FAULTS = {
    "dead": {"dead": True},
    "stalled at once": {"stall_at": 0},
    "stalled in mid-blob": {"stall_at": 100 * KIB},
    "cut at 1": {"cut_at": 1},
    "cut before the last byte": {"cut_at": SIZE - 1},
    "denied": {"denied": True},
    "of another size": {"wrong_size": SIZE + 1},
    "answering with another range": {"wrong_range": True},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("honest", [True, False])
async def test_a_peer_that_fails_is_left_and_the_fetch_goes_on_at_the_same_byte(
    fault: str, honest: bool
) -> None:
    world, data = World(), blob()
    digest = world.has(data)
    await world.store.link(APP, [digest], sizes={digest: SIZE})
    bad = await world.peer("bad", data, zone="near", **FAULTS[fault])
    world.policy = TransferPolicy(zone="near")
    good = await world.peer("good", data) if honest else None
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    rest = SIZE - bad.sent
    assert (good.sent if good else world.upstream.sent) == rest
    if good:
        assert world.upstream.requests == []
    assert standing(world, bad) is Standing.BACKING_OFF
    assert world.seen.bans == []


async def test_a_peer_that_says_not_found_stays_in_good_standing() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    anna = await world.peer("anna", data)
    anna.blobs.clear()
    async with world.agent() as agent:
        assert (await pull(agent, digest)).data == data
    assert standing(world, anna) is Standing.OK


async def test_a_peer_that_does_not_answer_is_reported_to_discovery() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    dead = await world.peer("dead", data, dead=True)
    cut = await world.peer("cut", data, cut_at=100 * KIB)
    async with world.agent() as agent:
        await pull(agent, digest)
    assert world.discovery.suspected == [dead.id]
    assert cut.sent == 100 * KIB


async def test_a_busy_peer_is_waited_for_briefly_and_never_punished() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    anna = await world.peer("anna", data, busy=True, retry_after=0.5)
    async with world.agent() as agent:
        client = asyncio.ensure_future(pull(agent, digest))
        await world.manual.advance(0.9)
        anna.busy = False
        await world.manual.advance(0.2)
        assert (await client).moved == {"peer": SIZE}
    assert world.upstream.asked("blob") == []


async def test_who_stays_busy_is_not_waited_for_when_upstream_is_there() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    await world.peer("anna", data, busy=True)
    async with world.agent() as agent:
        client = asyncio.ensure_future(pull(agent, digest))
        await world.manual.advance(2.1)
        assert (await client).moved == {"upstream": SIZE}


async def test_a_slow_peer_is_left_when_another_source_is_faster() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    slow = await world.peer("slow", data, gate_at=64 * KIB)
    async with world.agent() as agent:
        client = asyncio.ensure_future(pull(agent, digest))
        await until(lambda: slow.sent == 64 * KIB)
        await world.manual.advance(10.0)
        slow.gate.set()
        assert (await client).data == data
    assert slow.sent < SIZE
    assert world.upstream.sent == SIZE - 64 * KIB


async def test_an_own_limit_does_not_make_a_peer_slow() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    anna = await world.peer("anna", data)
    async with world.agent(download=16 * KIB) as agent:
        client = asyncio.ensure_future(pull(agent, digest))
        await world.manual.advance(SIZE / (16 * KIB) + 1)
        assert (await client).moved == {"peer": SIZE}
    assert standing(world, anna) is Standing.OK


async def test_a_slow_peer_is_better_than_none() -> None:
    world, data = World(), blob()
    await world.store.link(APP, [Digest.of(data)], sizes={Digest.of(data): SIZE})
    slow = await world.peer("slow", data, gate_at=64 * KIB)
    world.upstream.down = True
    async with world.agent() as agent:
        client = asyncio.ensure_future(pull(agent, Digest.of(data)))
        await until(lambda: slow.sent == 64 * KIB)
        await world.manual.advance(10.0)
        slow.gate.set()
        assert (await client).moved == {"peer": SIZE}


async def test_a_peer_that_keeps_cutting_is_asked_again_while_it_is_the_only_source() -> None:
    world, data = World(), blob()
    digest = Digest.of(data)
    await world.store.link(APP, [digest], sizes={digest: SIZE})
    anna = await world.peer("anna", data, cut_at=50 * KIB)
    world.upstream.down = True
    async with world.agent() as agent:
        fetch = await agent.blobs.fetch(APP, digest)
        assert fetch is not None
        await until(lambda: anna.sent == 50 * KIB)
        anna.cut_at = 200 * KIB
        await until(lambda: anna.sent == 200 * KIB or fetch.finished)
        anna.cut_at = None
        await fetch.wait_done()
    assert await world.store.stat(digest) is not None


# -- upstream's faults --


async def test_upstream_that_cuts_is_asked_for_the_rest() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    world.upstream.cut_at, world.upstream.cut_times = 100 * KIB, 1
    async with world.agent() as agent:
        assert (await pull(agent, digest)).data == data
    assert [r.offset for r in world.upstream.asked("blob")] == [0, 100 * KIB]
    assert world.upstream.sent == SIZE


async def test_when_every_source_is_gone_the_fetch_ends_at_once_and_clearly() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    await world.store.link(APP, [digest], sizes={digest: SIZE})
    for name in ("anna", "bert"):
        await world.peer(name, data, dead=True)
    world.upstream.down = True
    async with world.agent() as agent:
        with pytest.raises(UnreachableError, match=r"docker\.io"):
            await pull(agent, digest)
    assert len(world.upstream.asked("blob")) == 2
    assert [error for _, _, error in world.seen.lost] != []


async def test_a_crowd_of_dead_peers_does_not_keep_a_client_waiting() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    for number in range(40):
        await world.peer(f"dead-{number}", data, dead=True)
    async with world.agent() as agent:
        assert (await pull(agent, digest)).data == data
    assert len(world.peers.requests) <= 8


async def test_sources_that_take_their_time_to_fail_are_given_up_on() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    await world.store.link(APP, [digest], sizes={digest: SIZE})
    world.upstream.down = True

    class Sluggish(type(world.peers)):  # type: ignore[misc]
        def _admit(self, provider: object, digest: Digest) -> object:
            world.manual._now += 20.0
            return super()._admit(provider, digest)

    world.peers = Sluggish()
    for number in range(8):
        await world.peer(f"dead-{number}", data, dead=True)
    async with world.agent() as agent:
        with pytest.raises(P2PDistError):
            await pull(agent, digest)
    assert len(world.peers.requests) <= 3


@pytest.mark.parametrize(("knob", "error"), [("denied", "refused"), ("down", "does not answer")])
async def test_what_upstream_refuses_peers_may_still_hold(knob: str, error: str) -> None:
    world, data = World(), blob()
    digest = world.has(data)
    await world.store.link(APP, [digest], sizes={digest: SIZE})
    setattr(world.upstream, knob, True)
    async with world.agent() as agent:
        with pytest.raises(P2PDistError, match=error):
            await pull(agent, digest)
        await world.peer("anna", data)
        assert (await pull(agent, digest)).data == data


async def test_upstreams_wrong_bytes_are_cut_before_the_last_and_not_kept() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    world.upstream.wrong_at = 10
    async with world.agent(announcing=True) as agent, reading(agent, digest) as slow:
        with pytest.raises(DigestMismatchError):
            await slow.take_rest()
        assert len(slow.client.data) < SIZE
    assert await world.store.stat(digest) is None
    assert world.seen.mismatches == [("upstream", None)]
    assert world.discovery.announced == []


async def test_a_client_that_was_streamed_false_bytes_is_cut_though_the_blob_is_made_good() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    world.upstream.wrong_at, world.upstream.wrong_times = 10, 1
    world.upstream.cut_at, world.upstream.cut_times = 100 * KIB, 2
    async with world.agent() as agent, reading(agent, digest) as slow:
        await slow.take()
        await until(lambda: len(world.upstream.asked("blob")) == 1)
        anna = await world.peer("anna", data, gate_at=SIZE - 1)
        late = asyncio.ensure_future(pull(agent, digest))
        await world.manual.settle()
        anna.gate.set()
        with pytest.raises(DigestMismatchError):
            await slow.take_rest()
        assert len(slow.client.data) < SIZE
        await asyncio.gather(late, return_exceptions=True)  # cut as well, or not: it depends on when it came
        assert (await pull(agent, digest)).data == data
    assert world.seen.bans == []  # the peer told the truth


# -- liars --


async def test_a_liars_bytes_reach_no_client_and_the_right_ones_do() -> None:
    world, data = World(), blob()
    digest = world.has(data)
    liar = await world.peer("liar", data, wrong_at=SIZE - 5)
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    assert client.moved == {"upstream": SIZE}
    assert world.seen.bans == [liar.id]
    assert world.seen.mismatches == [("peer", liar.id)]
    assert standing(world, liar) is Standing.BANNED


@pytest.mark.parametrize("lie", [1, 2 * MIB + MIB // 2])
async def test_of_two_peers_only_the_liar_is_banned(lie: int) -> None:
    world, data = World(policy=TransferPolicy(zone="near")), blob(3 * MIB)
    digest = world.has(data)
    await world.store.link(APP, [digest], sizes={digest: len(data)})
    first = await world.peer("first", data, zone="near", cut_at=MIB, wrong_at=lie)
    second = await world.peer("second", data, wrong_at=lie if lie > MIB else None)
    liar = first if lie < MIB else second
    async with world.agent() as agent:
        assert (await pull(agent, digest)).data == data
    assert first.sent == MIB
    assert second.sent == 2 * MIB
    assert world.seen.bans == [liar.id]


async def test_a_liar_that_is_helped_by_upstream_is_still_found() -> None:
    world, data = World(), blob(2 * MIB)
    digest = world.has(data)
    liar = await world.peer("liar", data, wrong_at=5, cut_at=MIB)
    async with world.agent() as agent:
        assert (await pull(agent, digest)).data == data
    assert world.seen.bans == [liar.id]


async def test_an_honest_peer_is_not_blamed_for_upstreams_bytes() -> None:
    world, data = World(), blob(2 * MIB)
    digest = world.has(data)
    honest = await world.peer("honest", data, cut_at=MIB)
    world.upstream.wrong_at, world.upstream.wrong_times = MIB + 5, 1
    async with world.agent() as agent:
        assert (await pull(agent, digest)).data == data
    assert honest.sent == MIB
    assert world.seen.bans == []


async def test_in_an_outage_the_honest_peer_proves_the_liar_wrong() -> None:
    world, data = World(policy=TransferPolicy(zone="near")), blob()
    digest = Digest.of(data)
    await world.store.link(APP, [digest], sizes={digest: SIZE})
    liar = await world.peer("liar", data, zone="near", wrong_at=3)
    honest = await world.peer("honest", data)
    world.upstream.down = True
    async with world.agent() as agent:
        client = await pull(agent, digest)
    assert client.data == data
    assert client.moved == {"peer": SIZE}
    assert honest.sent == SIZE
    assert world.seen.bans == [liar.id]


async def test_in_an_outage_two_that_shared_a_blob_are_told_apart_each_alone() -> None:
    world, data = World(policy=TransferPolicy(zone="near")), blob(2 * MIB)
    digest = Digest.of(data)
    await world.store.link(APP, [digest], sizes={digest: len(data)})
    liar = await world.peer("liar", data, zone="near", wrong_at=3, cut_at=MIB)
    honest = await world.peer("honest", data)
    world.upstream.down = True
    async with world.agent() as agent:
        fetch = await agent.blobs.fetch(APP, digest)
        assert fetch is not None
        await until(lambda: honest.sent > 0)
        liar.cut_at = None
        await fetch.wait_done()
    assert world.seen.bans == [liar.id]
    assert await world.store.stat(digest) is not None


async def test_a_banned_peer_is_not_asked_again() -> None:
    world, data, other = World(), blob(), blob(seed=2)
    world.has(other)
    liar = await world.peer("liar", data, other, wrong_at=3)
    digest = world.has(data)
    async with world.agent() as agent:
        await pull(agent, digest)
        asked = len(world.peers.requests)
        assert (await pull(agent, Digest.of(other))).data == other
        assert len(world.peers.requests) == asked
    assert liar.sent == SIZE


async def test_when_all_lie_nothing_is_kept_and_the_client_is_told() -> None:
    world, data = World(), blob()
    digest = Digest.of(data)
    await world.store.link(APP, [digest], sizes={digest: SIZE})
    liars = [await world.peer(name, data, wrong_at=3) for name in ("one", "two")]
    world.upstream.down = True
    async with world.agent() as agent:
        with pytest.raises(P2PDistError):
            await pull(agent, digest)
    assert set(world.seen.bans) == {liar.id for liar in liars}
    assert await world.store.stat(digest) is None


# -- registries that do not share --


async def test_what_is_not_shared_asks_no_peer_and_tells_none() -> None:
    world, data = World(policy=TransferPolicy(shares=lambda registry: False)), blob()
    digest = world.has(data)
    anna = await world.peer("anna", data)
    async with world.agent(announcing=True) as agent:
        fetch = await agent.blobs.fetch(APP, digest)
        assert fetch is not None
        assert agent.blobs.arriving(digest) is None
        client = await pull(agent, digest)
        await world.manual.advance(10)
    assert client.moved == {"upstream": SIZE}
    assert world.peers.asked(anna) == []
    assert world.discovery.announced == []
    info = await world.store.stat(digest)
    assert info is not None
    assert not info.shared


async def test_nobody_knows_and_nobody_has_it() -> None:
    world = World()
    world.has(b"something")
    digest = Digest.of(b"other")
    await world.store.link(APP, [digest], sizes={digest: 5})
    async with world.agent() as agent:
        with pytest.raises(NotFoundError):
            await pull(agent, digest)
