"""The record store keeps its bounds whatever is put into it, and answers with a fair sample."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pdist.discovery.records import RACE, Bounds, RecordStore
from p2pdist.oci.digest import Digest
from p2pdist.records import ContentKey, Endpoint, PeerId, Provider, TagRecord

KEY = ContentKey(bytes(20))


def peer(number: int) -> PeerId:
    return PeerId(number.to_bytes(20, "big"))


def provider(number: int, *, complete: bool = True, zone: str = "") -> Provider:
    return Provider(peer(number), (Endpoint("10.0.0.1", 5051),), zone, complete)


def tag(number: int, age: float = 0.0) -> TagRecord:
    return TagRecord(peer(number), Digest.of(b""), "m", 1, age)


def store(**bounds: float) -> RecordStore:
    return RecordStore(random.Random(1), Bounds(**bounds))  # type: ignore[arg-type]


def test_records_of_several_peers_lie_side_by_side() -> None:
    records = store()
    records.put(KEY, provider(1), 60, 0.0)
    records.put(KEY, provider(2), 60, 0.0)
    assert {p.peer for p in records.providers(KEY, 9, 1.0)} == {peer(1), peer(2)}
    assert [p.peer for p in records.providers(KEY, 9, 1.0, but=peer(1))] == [peer(2)]


def test_a_newer_record_replaces_only_its_own_and_keeps_its_place() -> None:
    records = store()
    records.put(KEY, provider(1, complete=False), 60, 0.0)
    records.put(KEY, provider(2), 60, 1.0)
    placed = records.put(KEY, provider(1), 60, 2.0)
    assert (placed.kept, placed.earlier) == (True, 0)
    assert records.put(KEY, provider(2), 60, 2.0).earlier == 1
    assert len(records) == 2


def test_a_record_is_gone_when_its_time_is_over_and_renewal_moves_that() -> None:
    records = store()
    records.put(KEY, provider(1), 60, 0.0)
    records.put(KEY, provider(2), 60, 0.0)
    assert records.renew(peer(1), [KEY], 60, 50.0) == []
    assert [p.peer for p in records.providers(KEY, 9, 60.0)] == [peer(1)]
    assert records.renew(peer(2), [KEY], 60, 61.0) == [KEY]
    records.sweep(200.0)
    assert (len(records), records.keys) == (0, 0)


def test_what_came_long_before_is_no_racer() -> None:
    records = store()
    records.put(KEY, provider(1), 60, 0.0)
    assert not records.put(KEY, provider(2), 60, RACE / 2).established
    assert records.put(KEY, provider(3), 60, RACE + 1).established


def test_a_life_is_neither_too_long_nor_too_short() -> None:
    records = store(shortest=1.0, longest=100.0)
    records.put(KEY, provider(1), 1e9, 0.0)
    records.put(KEY, provider(2), 0.0, 0.0)
    assert {p.peer for p in records.providers(KEY, 9, 0.5)} == {peer(1), peer(2)}
    assert {p.peer for p in records.providers(KEY, 9, 99.0)} == {peer(1)}
    assert records.providers(KEY, 9, 100.0) == []


def test_a_full_key_keeps_the_complete() -> None:
    records = store(per_key=3)
    for number in range(3):
        records.put(KEY, provider(number, complete=number == 0), 60, 0.0)
    assert records.put(KEY, provider(7), 60, 1.0).kept
    assert records.put(KEY, provider(8), 60, 1.0).kept
    assert {p.peer for p in records.providers(KEY, 9, 1.0)} == {peer(0), peer(7), peer(8)}
    refused = records.put(KEY, provider(9, complete=False), 60, 1.0)
    assert (refused.kept, refused.earlier) == (False, 3)


def test_a_full_key_stays_diverse() -> None:
    records = store(per_key=4)
    records.put(KEY, provider(0, zone="a"), 60, 0.0)
    for number in range(1, 4):
        records.put(KEY, provider(number, zone="b"), 60, 0.0)
    for number in range(4, 20):
        records.put(KEY, provider(number, zone="b"), 60, float(number))
    assert peer(0) in {p.peer for p in records.providers(KEY, 9, 20.0)}


def test_a_sender_has_only_so_many() -> None:
    records = store(per_sender=5)
    kept = [records.put(ContentKey(bytes([i]) * 20), provider(1), 60, 0.0).kept for i in range(8)]
    assert kept == [True] * 5 + [False] * 3
    assert records.put(KEY, provider(2), 60, 0.0).kept


def test_there_are_only_so_many_in_all() -> None:
    records = store(records=5)
    kept = [records.put(KEY, provider(i), 60, 0.0).kept for i in range(8)]
    assert kept == [True] * 5 + [False] * 3


def test_one_that_leaves_takes_all_along() -> None:
    records = store()
    for i in range(5):
        records.put(ContentKey(bytes([i]) * 20), provider(1), 60, 0.0)
    records.put(KEY, provider(2), 60, 0.0)
    records.withdraw(peer(1), [KEY, ContentKey(b"x" * 20)])
    assert len(records) == 5
    records.leave(peer(1))
    records.leave(peer(1))
    assert (len(records), records.keys) == (1, 1)


def test_a_sample_has_the_first_and_both_kinds() -> None:
    records = store()
    records.put(KEY, provider(0, complete=False), 60, 0.0)
    for number in range(1, 60):
        records.put(KEY, provider(number, complete=number % 2 == 0), 60, 0.0)
    seen = set()
    for _ in range(60):
        sample = records.providers(KEY, 12, 1.0)
        assert len(sample) == 12
        assert sample[0].peer == peer(0)
        assert sum(p.complete for p in sample) == 7
        seen |= {p.peer for p in sample}
    assert len(seen) == 60


def test_tags_age_here_and_the_oldest_makes_room() -> None:
    records = store(tags_per_key=2)
    records.put(KEY, tag(1, age=5.0), 600, 0.0)
    records.put(KEY, tag(2, age=50.0), 600, 0.0)
    records.put(KEY, tag(3, age=1.0), 600, 10.0)
    assert [(t.peer, t.age) for t in records.tags(KEY, 20.0)] == [(peer(3), 11.0), (peer(1), 25.0)]


def test_a_key_is_of_one_kind() -> None:
    records = store()
    records.put(KEY, tag(1), 60, 0.0)
    assert not records.put(KEY, provider(1), 60, 0.0).kept
    assert not records.put(KEY, provider(2), 60, 0.0).kept
    assert records.providers(KEY, 9, 0.0) == []


class StoreMachine(RuleBasedStateMachine):
    """Whatever happens, the bounds hold and the counts are those of what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.bounds = Bounds(per_key=3, tags_per_key=2, per_sender=4, records=9)
        self.records = RecordStore(random.Random(1), self.bounds)
        self.now = 0.0

    keys = st.integers(0, 5).map(lambda i: ContentKey(bytes([i]) * 20))
    peers = st.integers(0, 5)

    @rule(key=keys, number=peers, complete=st.booleans(), ttl=st.integers(0, 20), kind=st.booleans())
    def put(self, key: ContentKey, number: int, complete: bool, ttl: int, kind: bool) -> None:
        record = provider(number, complete=complete) if kind else tag(number)
        placed = self.records.put(key, record, ttl, self.now)
        held = [p.peer for p in self.records.providers(key, 99, self.now)]
        held += [t.peer for t in self.records.tags(key, self.now)]
        assert (peer(number) in held) >= placed.kept

    @rule(key=keys, number=peers)
    def withdraw(self, key: ContentKey, number: int) -> None:
        self.records.withdraw(peer(number), [key])
        assert peer(number) not in [p.peer for p in self.records.providers(key, 99, self.now)]

    @rule(number=peers)
    def leave(self, number: int) -> None:
        self.records.leave(peer(number))

    @rule(seconds=st.integers(0, 15))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def sweep(self) -> None:
        self.records.sweep(self.now)

    @invariant()
    def within_bounds(self) -> None:
        keys = self.records._keys
        assert all(entries for entries in keys.values())
        assert sum(len(entries) for entries in keys.values()) == len(self.records) <= 9
        assert all(len(entries) <= 3 for entries in keys.values())
        owned: dict[PeerId, set[ContentKey]] = {}
        for key, entries in keys.items():
            for owner in entries:
                owned.setdefault(owner, set()).add(key)
        assert owned == self.records._of
        assert all(len(mine) <= 4 for mine in owned.values())


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_bounds_are_what_the_design_says() -> None:
    assert Bounds().per_key == 64
    with pytest.raises(AttributeError):
        Bounds().per_key = 1  # type: ignore[misc]
