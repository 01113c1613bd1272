from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.wire.keys import ClusterKey


@given(st.binary(min_size=32, max_size=32))
def test_keys_round_trip_through_their_text(raw: bytes) -> None:
    text = ClusterKey(raw).text()
    assert len(text) == len("p2pdist1-") + 43
    assert ClusterKey.parse(f"  {text}\n") == ClusterKey(raw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p2pdist1-",
        "p2pdist1-" + "A" * 42,
        "p2pdist1-" + "A" * 44,
        "p2pdist2-" + "A" * 43,
        "A" * 43,
        "p2pdist1-" + "é" * 43,
        "p2pdist1-" + "A" * 20 + " " + "A" * 22,
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        ClusterKey.parse(text)
    assert "A" * 20 not in str(caught.value)


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    for candidate in (text, "p2pdist1-" + text):
        try:
            ClusterKey.parse(candidate)
        except InvalidInputError:
            continue


def test_each_purpose_has_its_own_key_and_none_is_the_cluster_key() -> None:
    key = ClusterKey.generate()
    derived = [key.derive("dht"), key.derive("peer-http"), ClusterKey.generate().derive("dht")]
    assert len({*derived, key.raw}) == 4
    assert all(len(each) == 32 for each in derived)
    assert key.derive("dht") == derived[0]


def test_derivation_is_fixed_for_all_versions() -> None:
    """HKDF-SHA256 with the salt ``p2pdist v1``: changing it would split a cluster during an update."""
    assert ClusterKey(bytes(range(32))).derive("dht").hex() == (
        "5f051b70157942257e17c873f22c8fec0fefd9f249942d44deb8af0a9a30395e"
    )


def test_generated_keys_differ_and_no_representation_shows_them() -> None:
    one, two = ClusterKey.generate(), ClusterKey.generate()
    assert one != two
    for shown in (repr(one), str(one), f"{one!r}"):
        assert one.text()[9:20] not in shown
        assert one.raw.hex()[:12] not in shown


def test_the_open_cluster_key_is_well_known() -> None:
    assert ClusterKey.open_cluster() == ClusterKey.open_cluster()
    assert len(ClusterKey.open_cluster().raw) == 32
