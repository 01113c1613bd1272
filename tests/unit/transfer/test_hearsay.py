"""What is only hearsay: members that others speak of, and pieces that came of others in part."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import pytest

from p2pdist.errors import UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.transfer.attestation import HEARSAY
from p2pdist.wire.swarm_messages import Join, Leave, PieceHasher, Update, decode, encode
from tests.unit.transfer.test_swarm import DATA, PIECE, SIZE
from tests.unit.transfer.town import Town
from tests.unit.transfer.world import pull, until

Progress = Callable[[int], None]


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


async def test_a_piece_that_was_begun_from_a_peer_is_not_attested_though_upstream_gave_it_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came of it first may have gone on to others: whoever got it so would take this host for the liar."""
    town = Town()
    digest = town.has(DATA)
    town.upstream.gate_at = 0
    begun: list[int] = []
    async with town.members("anna", "bert") as (anna, bert):

        async def piece(
            provider: Provider, digest: Digest, offset: int, size: int, buffer: memoryview, moved: Progress
        ) -> None:
            buffer[:] = bytes(len(buffer))
            fetch = anna.blobs.arriving(digest)
            assert fetch is not None

            def is_passed_on() -> bool:
                moved(len(buffer))
                return fetch.held_from(offset) > offset

            await until(is_passed_on)
            begun.append(offset // PIECE)
            raise UnreachableError("hung up")

        monkeypatch.setattr(anna.context.peers, "piece", piece)
        client = asyncio.ensure_future(pull(anna, digest))
        await until(lambda: digest in anna.hub._sessions)
        session = anna.hub._sessions[digest]
        anna.hub.received(bert.id, encode(Join(digest, SIZE, bert.hub.own, frozenset(), (5,))))
        await until(lambda: bool(begun))
        anna.hub.received(bert.id, encode(Leave(digest)))
        town.upstream.gate.set()
        assert (await client).data == DATA
        said = session._attested  # type: ignore[attr-defined]
        assert [piece for piece in range(SIZE // PIECE) if said.first_hand(piece) == HEARSAY] == [5]


@pytest.mark.parametrize("proven", [False, True])
async def test_who_only_has_every_piece_may_have_been_deceived_and_who_holds_the_blob_knows_better(
    monkeypatch: pytest.MonkeyPatch, proven: bool
) -> None:
    """Between its last piece and its digest a member does not know yet that one of its pieces is false."""
    town = Town()
    digest = town.has(DATA)
    town.upstream.gate_at = 0
    truth = PieceHasher()
    truth.update(DATA[5 * PIECE : 6 * PIECE])
    async with town.members("anna", "bert", "carl") as (anna, bert, carl):

        async def piece(
            provider: Provider, digest: Digest, offset: int, size: int, buffer: memoryview, moved: Progress
        ) -> None:
            false = offset // PIECE == 5
            buffer[:] = bytes(len(buffer)) if false else DATA[offset : offset + len(buffer)]
            moved(len(buffer))

        monkeypatch.setattr(anna.context.peers, "piece", piece)
        client = asyncio.ensure_future(pull(anna, digest))
        await until(lambda: digest in anna.hub._sessions)
        own = dataclasses.replace(carl.hub.own, complete=False)
        anna.hub.received(carl.id, encode(Join(digest, SIZE, own, frozenset())))
        anna.hub.received(carl.id, encode(Update(digest, ((5, truth.digest()),))))
        anna.hub.received(carl.id, encode(Leave(digest)))  # what it said holds
        own = dataclasses.replace(bert.hub.own, complete=proven)
        anna.hub.received(bert.id, encode(Join(digest, SIZE, own, frozenset(range(SIZE // PIECE)))))
        town.upstream.gate.set()
        assert (await client).data == DATA
        assert anna.seen.bans == ([bert.id] if proven else [])
