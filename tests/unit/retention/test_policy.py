from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.digest import Digest
from p2pdist.retention.policy import SMALL, Candidate, choose_victims, reachable


def digest(name: object) -> Digest:
    return Digest.of(str(name).encode())


def blob(name: object, size: int) -> Candidate:
    return Candidate(digest(name), size)


sizes = st.one_of(st.integers(0, 3 * SMALL), st.sampled_from([SMALL, SMALL + 1]))
candidates = st.lists(st.tuples(sizes, st.booleans()), max_size=12).map(
    lambda items: [Candidate(digest(number), size, part) for number, (size, part) in enumerate(items)]
)


@given(candidates, st.integers(-5, 12 * SMALL))
def test_frees_enough_and_nothing_in_vain(held: list[Candidate], need: int) -> None:
    victims = choose_victims(held, need)
    freed = sum(victim.size for victim in victims)
    assert set(victims) <= set(held)
    if need <= 0 or sum(candidate.size for candidate in held) < need:
        assert victims == []
    else:
        assert freed >= need
        assert all(freed - victim.size < need for victim in victims)


def test_the_least_recently_used_goes_first() -> None:
    old, middle, new = blob("old", 5 * SMALL), blob("middle", 5 * SMALL), blob("new", 5 * SMALL)
    assert choose_victims([old, middle, new], 6 * SMALL) == [old, middle]


def test_manifests_and_configs_go_last() -> None:
    manifest, layer = blob("manifest", 500), blob("layer", 2 * SMALL)
    assert choose_victims([manifest, layer], 100) == [layer]
    assert choose_victims([manifest, layer], 2 * SMALL + 1) == [layer, manifest]


def test_a_victim_that_a_later_one_makes_needless_is_spared() -> None:
    old, huge = blob("old", 2 * SMALL), blob("huge", 9 * SMALL)
    assert choose_victims([old, huge], 9 * SMALL) == [huge]


def test_a_small_partial_is_not_spared_as_a_manifest_is() -> None:
    part, layer = Candidate(digest("part"), 500, partial=True), blob("layer", 2 * SMALL)
    assert choose_victims([part, layer], 500) == [part]


def test_reads_no_more_candidates_than_it_needs() -> None:
    def endless() -> Iterator[Candidate]:
        yield blob("first", 2 * SMALL)
        raise AssertionError("asked for more")

    assert choose_victims(endless(), 1) == [blob("first", 2 * SMALL)]


def test_reachable_survives_cycles_and_asks_once() -> None:
    asked: list[Digest] = []
    graph = {digest("a"): [digest("b")], digest("b"): [digest("a"), digest("c")]}

    def children(of: Digest) -> list[Digest]:
        asked.append(of)
        return graph.get(of, [])

    assert reachable([digest("a"), digest("a")], children) == {digest("a"), digest("b"), digest("c")}
    assert sorted(asked) == sorted({digest("a"), digest("b"), digest("c")})
