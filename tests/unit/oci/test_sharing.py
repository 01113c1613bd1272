"""Shared, unique and saved bytes are sums that add up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.digest import Digest
from p2pdist.oci.sharing import Share, savings, separate, shares, union

DIGESTS = [Digest.of(bytes([number])) for number in range(8)]
BASE, NODE, LIBS, APP_A, APP_B, APP_C = DIGESTS[:6]
MB = 1_000_000
COMMON = {BASE: 120 * MB, NODE: 40 * MB, LIBS: 15 * MB}
SERVICES = {
    "svc-a": {**COMMON, APP_A: 2 * MB},
    "svc-b": {**COMMON, APP_B: 3 * MB},
    "svc-c": {**COMMON, APP_C: 1 * MB},
}


def test_the_worked_example() -> None:
    assert shares(SERVICES) == {
        "svc-a": Share(177 * MB, 175 * MB, 2 * MB),
        "svc-b": Share(178 * MB, 175 * MB, 3 * MB),
        "svc-c": Share(176 * MB, 175 * MB, 1 * MB),
    }
    one, many = savings(list(SERVICES.values()), 1), savings(list(SERVICES.values()), 64)
    assert (one.storage_separate, one.storage_layered) == (531 * MB, 181 * MB)
    assert (one.pulled_separate, one.pulled_layered, one.pulled_shared) == (531 * MB, 181 * MB, 181 * MB)
    assert (many.pulled_separate, many.pulled_layered, many.pulled_shared) == (
        64 * 531 * MB,
        64 * 181 * MB,
        181 * MB,
    )


def test_nothing_is_shared_with_oneself_and_nobody_pulls_for_no_host() -> None:
    assert shares({"only": SERVICES["svc-a"]}) == {"only": Share(177 * MB, 0, 177 * MB)}
    assert shares({}) == {}
    assert savings([], 3).pulled_shared == 0
    assert savings(list(SERVICES.values()), 0).pulled_shared == 0


@given(st.lists(st.sets(st.sampled_from(range(8))), max_size=6))
def test_sums_add_up(images: list[set[int]]) -> None:
    blobs = [{DIGESTS[number]: number + 1 for number in image} for image in images]
    found = shares(dict(enumerate(blobs)))
    whole = sum(union(blobs).values())
    assert all(share.total == share.shared + share.unique for share in found.values())
    assert sum(share.total for share in found.values()) == separate(blobs)
    assert sum(share.unique for share in found.values()) <= whole <= separate(blobs)
