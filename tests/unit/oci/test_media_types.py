from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci import media_types
from p2pdist.oci.media_types import acceptable, essence, is_header_safe

OCI, DOCKER, INDEX = media_types.OCI_MANIFEST, media_types.DOCKER_MANIFEST, media_types.OCI_INDEX


@pytest.mark.parametrize(
    "accept",
    [
        (),
        ("",),
        (OCI,),
        (OCI.upper(),),
        (f"{DOCKER}, {OCI}",),
        (DOCKER, OCI),
        ("*/*",),
        ("application/*",),
        (f"{OCI};q=0.001",),
        (f"{DOCKER},*/*;q=0.1",),
        (f"{OCI};level=1",),
        (f"*/*;q=0,{OCI}",),
        (f"{OCI};q=0, {OCI}",),  # named twice: one of them wants it
    ],
)
def test_taken(accept: tuple[str, ...]) -> None:
    assert acceptable(OCI, accept)


@pytest.mark.parametrize(
    "accept",
    [
        (DOCKER,),
        ("text/*",),
        (f"{OCI};q=0",),
        (f"{OCI}; Q=0.000, */*",),
        ("application/*;q=0,*/*",),
        ("application",),
        ("*",),
        (",".join([DOCKER] * 64 + [OCI]),),  # beyond the bound
        (*[DOCKER] * 64, OCI),
    ],
)
def test_refused(accept: tuple[str, ...]) -> None:
    assert not acceptable(OCI, accept)


def test_what_we_ask_for_takes_every_manifest() -> None:
    for media_type in media_types.MANIFESTS:
        assert acceptable(media_type, media_types.ACCEPT_ALL_MANIFESTS)
        assert acceptable(media_type, media_types.ACCEPT_ALL_MANIFESTS[:-1])


def test_the_sets_do_not_overlap() -> None:
    assert not media_types.INDEXES & media_types.IMAGE_MANIFESTS
    assert not media_types.LAYERS & media_types.MANIFESTS
    assert media_types.FOREIGN_LAYERS < media_types.LAYERS


@given(st.lists(st.text(max_size=80), max_size=5))
def test_any_header_gets_an_answer(accept: list[str]) -> None:
    assert acceptable(OCI, accept) in {True, False}


@pytest.mark.parametrize("text", ["a/b", "x", OCI, "application/x; charset=utf-8", "A/B", "b" * 256])
def test_what_a_header_may_hold(text: str) -> None:
    assert is_header_safe(text)


@pytest.mark.parametrize("text", ["", "a/b\r\nX: y", "a/b\n", "a\tb", "\u00e4/b", "a\x7f", "b" * 257])
def test_what_it_may_not(text: str) -> None:
    assert not is_header_safe(text)


def test_the_essence_has_no_parameters() -> None:
    assert essence(" Application/X ; charset=utf-8") == "application/x"
    assert essence("") == ""
