from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.records import PeerId
from p2pdist.swarm.rendezvous import seed_of, weight

seeds = st.lists(st.integers(0, (1 << 64) - 1), min_size=1, max_size=12, unique=True)


@given(seeds, st.integers(0, 1 << 17), st.integers(0, (1 << 64) - 1))
def test_a_member_that_joins_takes_only_what_becomes_its_own(
    members: list[int], piece: int, new: int
) -> None:
    before = min(members, key=lambda seed: weight(seed, piece))
    after = min([*members, new], key=lambda seed: weight(seed, piece))
    assert after in (before, new)


def test_pieces_are_divided_evenly() -> None:
    members = [seed_of(PeerId(bytes([n]) * 20)) for n in range(8)]
    owners = Counter(min(members, key=lambda seed: weight(seed, piece)) for piece in range(8000))
    assert all(850 <= owners[member] <= 1150 for member in members)
