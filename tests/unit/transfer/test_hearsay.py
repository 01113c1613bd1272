"""Members that only others speak of: whoever cannot be reached is not dialled again at every word of it."""

from __future__ import annotations

import asyncio

import pytest

from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.wire.swarm_messages import Join, decode, encode
from tests.unit.transfer.test_swarm import DATA, SIZE
from tests.unit.transfer.town import Town
from tests.unit.transfer.world import pull, until


async def test_one_that_cannot_be_reached_is_not_dialled_again_at_each_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    town = Town()
    digest = town.has(DATA)
    town.upstream.gate_at = SIZE // 2
    nobody = Provider(PeerId(b"n" * 20), (Endpoint("192.0.2.1", 80),), complete=False)
    async with town.members("anna", "bert") as (anna, bert):
        client = asyncio.ensure_future(pull(anna, digest))
        await until(lambda: digest in anna.hub._sessions)
        dialled: list[PeerId] = []

        def send(provider: Provider, frame: bytes) -> None:
            if isinstance(decode(frame), Join):
                dialled.append(provider.peer)

        monkeypatch.setattr(anna.hub, "send", send)
        word = encode(Join(digest, SIZE, bert.hub.own, frozenset(), (), (nobody,)))
        for _ in range(5):
            anna.hub.received(bert.id, word)
            anna.hub.lost(nobody.peer)
        assert dialled.count(nobody.peer) == 1
        anna.hub.received(nobody.peer, encode(Join(digest, SIZE, nobody, frozenset(), (), (), True)))
        assert dialled.count(nobody.peer) == 2  # its own word counts
        monkeypatch.undo()
        for gone in (nobody.peer, bert.id):
            anna.hub.lost(gone)
        town.upstream.gate.set()
        assert (await client).data == DATA
