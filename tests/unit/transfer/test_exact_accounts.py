"""Whatever clients ask for, whoever leaves, whichever source fails: the bytes by source are what the sources sent."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pdist.errors import P2PDistError
from p2pdist.oci.digest import Digest
from p2pdist.transfer.content import Source
from p2pdist.transfer.context import TransferPolicy
from tests.unit.transfer.world import KIB, Agent, World, blob, opened, pull

SIZE = 200 * KIB
DATA = blob(SIZE)
offsets = st.integers(0, SIZE)


@dataclass(frozen=True)
class Visit:
    """A client that wants [start, stop), and of which the kernel takes ``takes`` bytes at most."""

    start: int
    stop: int
    takes: int


visits = st.builds(
    lambda first, second, takes: Visit(min(first, second), max(first, second), takes),
    offsets,
    offsets,
    st.one_of(st.just(SIZE), offsets),
)


async def visit(agent: Agent, digest: Digest, wish: Visit, totals: dict[Source, int]) -> None:
    """As the HTTP edge does: bytes count when taken; at the end the delivery is told how many were."""
    left = wish.takes
    async with opened(agent, digest) as client:
        async with aclosing(client.delivery.spans(wish.start, wish.stop)) as spans:
            async for span in spans:
                before = len(client.data)
                await client.take(span)
                assert client.data[before:] == DATA[wish.start + before : wish.start + len(client.data)]
                taken = min(left, span.length)
                totals[span.source] += taken
                left -= taken
                if not left:
                    break
        client.delivery.reached(wish.takes - left)


@given(
    st.lists(visits, max_size=5),
    st.lists(visits, max_size=3),
    st.one_of(st.none(), offsets),
    st.one_of(st.none(), offsets),
    st.booleans(),
)
@settings(max_examples=150, deadline=None)
async def test_bytes_by_source_are_what_each_source_sent(
    together: list[Visit], later: list[Visit], peer_cut: int | None, upstream_cut: int | None, peered: bool
) -> None:
    world = World(policy=TransferPolicy(hold_back=16 * KIB))
    digest = world.has(DATA)
    world.upstream.chunk = 24 * KIB
    world.upstream.cut_at, world.upstream.cut_times = upstream_cut, 1
    peer = await world.peer("anna", DATA, cut_at=peer_cut, chunk=40 * KIB) if peered else None
    totals = dict.fromkeys(Source, 0)
    async with world.agent() as agent:
        await asyncio.gather(*(visit(agent, digest, wish, totals) for wish in together))
        for wish in later:
            await visit(agent, digest, wish, totals)
        given_out = dict(totals)
        # Whoever comes next gets the rest: together it is each byte once from where it came, then all from the store.
        await visit(agent, digest, Visit(0, SIZE, SIZE), totals)
        assert totals[Source.UPSTREAM] == world.upstream.sent
        assert totals[Source.PEER] == (peer.sent if peer else 0)
        assert totals[Source.UPSTREAM] + totals[Source.PEER] == SIZE
        assert (await pull(agent, digest)).moved == {"store": SIZE}
    assert all(totals[source] >= given_out[source] for source in Source)


@pytest.mark.parametrize("cut", [0, 1, 50 * KIB, SIZE - 1])
async def test_what_a_failed_fetch_left_is_charged_when_it_is_resumed_in_one_life(cut: int) -> None:
    world = World()
    digest = world.has(DATA)
    world.upstream.cut_at = cut
    async with world.agent() as agent:
        with pytest.raises(P2PDistError):
            await visit(agent, digest, Visit(0, SIZE, SIZE), dict.fromkeys(Source, 0))
        world.upstream.cut_at = None
        totals = dict.fromkeys(Source, 0)
        await visit(agent, digest, Visit(0, SIZE, SIZE), totals)
    assert world.upstream.sent == SIZE
    assert totals[Source.UPSTREAM] + totals[Source.STORE] == SIZE
