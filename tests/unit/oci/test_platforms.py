from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.platforms import fitness, listing, parse_platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("Linux/X86_64", Platform("linux", "amd64")),
        ("linux/aarch64", Platform("linux", "arm64")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/armv6l", Platform("linux", "arm", "v6")),
        ("linux/arm/v5", Platform("linux", "arm", "v5")),
        ("windows/amd64", Platform("windows", "amd64")),
    ],
)
def test_names(text: str, expected: Platform) -> None:
    assert parse_platform(text) == expected


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux//v7", "x" * 200])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(InvalidInputError, match="OS/ARCH"):
        parse_platform(text)


variants = st.sampled_from(["", "v1", "v5", "v6", "v7", "v8", "v8.2", "v9", "vx", "v\u0661", "v999999999999"])
platforms = st.builds(
    Platform,
    st.sampled_from(["linux", "windows"]),
    st.sampled_from(["arm", "arm64", "amd64", "386"]),
    variants,
)


@given(platforms, platforms)
def test_nothing_fits_better_than_the_very_thing(have: Platform, want: Platform) -> None:
    assert fitness(want, want) >= fitness(have, want) >= 0
    if (have.os, have.architecture) != (want.os, want.architecture):
        assert fitness(have, want) == 0


def test_listing_is_short() -> None:
    many = [Platform("linux", f"arch{number}") for number in range(30)]
    assert listing(many).endswith("arch19 and 10 more")
    assert listing([None, Platform("linux", "amd64"), None]) == "unnamed, linux/amd64"
    assert listing([]) == "none"
