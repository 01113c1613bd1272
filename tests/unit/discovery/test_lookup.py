"""Lookups as transcripts; and, for any network, that they end, near what they look for."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.discovery.lookup import MAX_ASKED, MAX_CANDIDATES, Lookup


@dataclass(frozen=True)
class N:
    long_id: int


def nodes(*ids: int) -> list[N]:
    return [N(i) for i in ids]


def lookup(*ids: int, width: int = 3, alpha: int = 2, enough: int | None = None) -> Lookup[N]:
    made: Lookup[N] = Lookup(0, width=width, alpha=alpha, enough=enough)
    made.learn(nodes(*ids))
    return made


def test_the_nearest_are_asked_first_and_not_too_many_at_a_time() -> None:
    search = lookup(9, 4, 7, 1)

    assert search.next() == nodes(1, 4)
    assert search.next() == []
    search.answered(N(4))
    assert search.next() == nodes(7)
    search.answered(N(1))
    assert not search.over
    search.answered(N(7))
    assert search.over
    assert search.nearest() == nodes(1, 4, 7)


def test_a_nearer_one_that_is_learned_of_is_asked_before_the_end() -> None:
    search = lookup(4, 7, 9, alpha=3)
    search.next()
    search.learn(nodes(2))
    for node in nodes(4, 7, 9):
        search.answered(node)

    assert not search.over
    assert search.next() == nodes(2)
    search.answered(N(2))
    assert search.over
    assert search.nearest() == nodes(2, 4, 7)


def test_the_slow_are_not_waited_for_and_give_up_their_place() -> None:
    search = lookup(1, 2, 3, 4, alpha=3)
    search.next()
    search.slow(N(1))
    assert search.next() == nodes(4)
    for node in nodes(2, 3, 4):
        search.answered(node)

    assert search.over
    assert search.nearest() == nodes(2, 3, 4)
    assert search.stragglers() == nodes(1)


def test_a_slow_answer_still_counts() -> None:
    search = lookup(1, 2, alpha=2)
    search.next()
    search.slow(N(1))
    search.answered(N(1))
    search.answered(N(2))
    assert search.over
    assert search.nearest() == nodes(1, 2)


def test_when_nobody_has_answered_the_slow_are_waited_for() -> None:
    search = lookup(1)
    search.next()
    search.slow(N(1))
    assert not search.over
    search.missed(N(1))
    assert search.over
    assert search.nearest() == []


def test_the_dead_are_replaced() -> None:
    search = lookup(1, 2, 3, 4, alpha=3)
    search.next()
    search.missed(N(2))
    assert search.next() == nodes(4)


def test_enough_holders_end_it() -> None:
    search = lookup(1, 2, 3, alpha=3, enough=2)
    search.next()
    search.answered(N(2), holds=True)
    assert not search.over
    search.answered(N(3), holds=True)
    assert search.over
    search.answered(N(3), holds=True)


def test_nobody_to_ask_is_the_end() -> None:
    assert lookup().over


def test_endless_hearsay_is_bounded() -> None:
    search = lookup(alpha=8, width=8)
    search.learn(N(i) for i in range(1, 2 * MAX_CANDIDATES))
    asked = 0
    while batch := search.next():
        for node in batch:
            asked += 1
            search.missed(node)
    assert asked == MAX_ASKED
    assert search.over


@given(
    st.sets(st.integers(1, 1 << 16), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
    st.floats(0, 0.5),
)
def test_any_lookup_ends_at_the_nearest_that_live(ids: set[int], dice, dead_share: float) -> None:  # type: ignore[no-untyped-def]
    """Everyone knows the eight nearest to anything (dead or not); each asked node answers, is slow first, or is dead."""
    dead = {i for i in ids if dice.random() < dead_share}
    everyone = sorted(ids)
    search = lookup(dice.choice(everyone), width=4, alpha=3)
    flying: list[N] = []
    turns = 0
    while not search.over:
        turns += 1
        assert turns < 1000
        asked = search.next()
        assert len(asked) <= 3
        flying += asked
        if not flying:
            break
        node = flying.pop(dice.randrange(len(flying)))
        if node.long_id in dead:
            search.slow(node)
            if dice.random() < 0.5:
                search.missed(node)
            else:
                flying.append(node) if dice.random() < 0.5 else search.missed(node)
        else:
            search.learn(nodes(*everyone[:24]))
            search.answered(node)

    found = [node.long_id for node in search.nearest()]
    assert not set(found) & dead
    assert found == sorted(found)
    if found:
        alive_told = [i for i in everyone[:24] if i not in dead]
        assert (
            set(alive_told[:4]) <= set(found) | {node.long_id for node in search.stragglers()}
            or len(found) == 4
        )
        assert all(i <= max(found) for i in alive_told[: len(found)])


def test_a_sparing_one_asks_no_more_than_may_be_enough() -> None:
    some = nodes(*range(1, 9))
    search: Lookup[N] = Lookup(0, width=8, alpha=4, enough=3, sparing=True)
    search.learn(some)
    assert search.next() == some[:3]
    search.answered(some[0], holds=True)
    assert search.next() == []
    search.answered(some[1], holds=False)
    assert search.next() == some[3:4]
