"""Where a redirect may lead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from p2pdist.errors import DeniedError, ProtocolError
from p2pdist.upstream.redirects import redirect_target

HERE = URL("https://registry.test/v2/a/blobs/sha256:0")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://cdn.test/x?Signature=a%2Fb+c~&X=%7E", "https://cdn.test/x?Signature=a%2Fb+c~&X=%7E"),
        ("/other%2Fpath?q=1", "https://registry.test/other%2Fpath?q=1"),
        ("//cdn.test/x", "https://cdn.test/x"),
        ("https://cdn.test/x#fragment", "https://cdn.test/x"),
        ("https://cdn.test/with space", "https://cdn.test/with%20space"),
    ],
)
def test_what_is_followed(location: str, target: str) -> None:
    assert str(redirect_target(HERE, location, plain_http=False, what="blob")) == target


@pytest.mark.parametrize(
    "location",
    ["", "ftp://x/", "file:///etc/passwd", "https://user:pw@x/", "http://[::1", "x" * 9000],
)
def test_what_is_not(location: str) -> None:
    with pytest.raises(ProtocolError):
        redirect_target(HERE, location, plain_http=True, what="blob")


def test_a_downgrade_is_refused_unless_the_registry_is_without_tls_itself() -> None:
    with pytest.raises(DeniedError, match=r"cdn\.test:80 without TLS"):
        redirect_target(HERE, "http://cdn.test/x?secret", plain_http=False, what="blob")
    plain = URL("http://registry.test/v2/")
    assert redirect_target(plain, "http://cdn.test/x", plain_http=True, what="blob").host == "cdn.test"


@given(st.text(max_size=60) | st.from_regex(r"(https?:)?//?[a-z%\[\]@:/?# \x00-\x1f]{0,20}"))
def test_any_location_is_a_clean_url_or_a_clean_error(location: str) -> None:
    try:
        target = redirect_target(HERE, location, plain_http=False, what="blob")
    except (ProtocolError, DeniedError):
        return
    assert target.scheme == "https"
    assert target.host
    assert target.user is None
    assert str(target).isascii()
    assert str(target).isprintable()
