"""Who answers for which bytes: whose stand there now, and nobody for what was replaced or only passed on."""

from __future__ import annotations

from p2pdist.oci.digest import Digest
from p2pdist.testing.clock import ManualClock
from p2pdist.testing.memory_peers import MemoryPeer
from p2pdist.testing.memory_store import MemoryStore
from p2pdist.transfer.evidence import NOBODY, Evidence, collect_evidence, differing
from tests.unit.transfer.world import MIB, blob

ANNA, BERT = MemoryPeer("anna").provider(), MemoryPeer("bert").provider()


def test_bytes_that_were_replaced_are_no_longer_held_against_who_sent_them() -> None:
    evidence = Evidence(0)
    evidence.add(0, 100, ANNA)
    evidence.add(20, 100, BERT)
    evidence.add(0, 20, None)
    assert evidence.parts == [(0, 20, None), (20, 100, BERT.peer)]
    assert evidence.peers == {BERT.peer: BERT}


def test_who_sent_all_of_it_alone_is_the_one() -> None:
    evidence = Evidence(0)
    evidence.add(0, 50, ANNA)
    assert evidence.sole(100) is None
    evidence.add(50, 100, ANNA)
    assert evidence.sole(100) == ANNA.peer
    evidence.add(99, 100, None)
    assert evidence.sole(100) is None


def test_who_only_passed_it_on_does_not_answer_for_it() -> None:
    evidence = Evidence(0)
    evidence.add(0, 100, ANNA)
    evidence.blame(0, 100, None)
    assert evidence.peers == {}
    assert evidence.sole(100) is None
    assert evidence.of_others
    evidence.blame(0, 100, BERT)
    assert evidence.sole(100) == BERT.peer


async def test_slices_tell_the_liar_from_those_before_and_after_it() -> None:
    data, clock = blob(3 * MIB), ManualClock()
    store, digest = MemoryStore(1 << 30, clock), Digest.of(data)
    ingest, evidence = await store.ingest(digest, len(data)), Evidence(0)
    for start, provider in ((0, ANNA), (MIB, BERT), (2 * MIB, None)):
        part = data[start : start + MIB] if provider is not BERT else bytes(MIB)
        await ingest.write(start, part)
        evidence.add(start, start + MIB, provider)
    evidence.blame(0, 5, None)

    before = await collect_evidence(ingest, evidence)
    await ingest.discard()
    await store.put(digest, data)
    reader = await store.open(digest)
    assert reader is not None
    assert {part.peer for part in await differing(reader, before)} == {BERT.peer}
    assert {part.peer for part in before} == {ANNA.peer, BERT.peer, None, NOBODY}
    reader.close()
