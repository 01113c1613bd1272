from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest


@given(st.binary(max_size=100), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_reads_back_and_matches_its_content(data: bytes, algorithm: str) -> None:
    digest = Digest.of(data, algorithm)
    assert Digest.parse(str(digest)) == digest
    assert digest.hex == hashlib.new(algorithm, data).hexdigest()
    hasher = digest.hasher()
    hasher.update(data)
    assert digest.matches(hasher)
    hasher.update(b"more")
    assert not digest.matches(hasher)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "A" * 64,
        "sha256:" + "g" * 64,
        "sha256:" + "a" * 63 + "\n",
        "sha256:" + "a" * 64 + "\n",
        "sha256:" + "\u0661" * 64,
        "sha512:" + "a" * 64,
        "md5:" + "a" * 32,
        "SHA256:" + "a" * 64,
        "sha256:../../../etc/passwd",
        "sha256:" + "a" * 1_000_000,
        " sha256:" + "a" * 64,
    ],
)
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Digest.parse(text)
    assert len(str(caught.value)) < 400


@given(st.text(max_size=200))
def test_what_parses_is_safe_in_a_path(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except InvalidInputError:
        return
    assert str(digest) == text
    assert set(digest.hex) <= set("0123456789abcdef")
