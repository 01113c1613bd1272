"""What a registry's answer means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import (
    BusyError,
    DeniedError,
    DigestMismatchError,
    NotFoundError,
    P2PDistError,
    ProtocolError,
    UnreachableError,
)
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.upstream import answers
from p2pdist.upstream.retry import LastingError

BODY = b'{"schemaVersion":2,"layers":[]}'


@pytest.mark.parametrize(
    ("status", "headers", "asked", "body"),
    [
        (200, {"Content-Length": "10"}, 0, answers.Body(0, 10, 10)),
        (200, {"Content-Length": "10"}, 4, answers.Body(0, 10, 10)),
        (200, {}, 0, answers.Body(0, None, None)),
        (206, {"Content-Range": "bytes 4-9/10", "Content-Length": "6"}, 4, answers.Body(4, 10, 10)),
        (206, {"Content-Range": "bytes 4-6/*"}, 4, answers.Body(4, 7, None)),
    ],
)
def test_bodies(status: int, headers: dict[str, str], asked: int, body: answers.Body) -> None:
    assert answers.read_body_headers(status, headers, asked, "blob") == body


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {}),
        (206, {"Content-Range": "bytes 5-9/10"}),
        (206, {"Content-Range": "bytes */10"}),
        (206, {"Content-Range": "bytes 4-9/10", "Content-Length": "7"}),
        (206, {"Content-Range": "bytes 4-9/8"}),
        (206, {"Content-Type": "multipart/byteranges"}),
        (200, {"Content-Length": "-1"}),
        (200, {"Content-Length": "9" * 40}),
        (204, {}),
        (300, {}),
    ],
)
def test_bodies_that_contradict_themselves(status: int, headers: dict[str, str]) -> None:
    with pytest.raises(ProtocolError):
        answers.read_body_headers(status, headers, 4, "blob")


def test_the_whole_size_from_any_answer() -> None:
    assert answers.whole_size(200, {"Content-Length": "7"}, "blob") == 7
    assert answers.whole_size(206, {"Content-Range": "bytes 0-0/7"}, "blob") == 7
    assert answers.whole_size(416, {"Content-Range": "bytes */7"}, "blob") == 7
    for status, headers in ((200, {}), (206, {"Content-Range": "bytes 0-0/*"}), (416, {}), (206, {})):
        with pytest.raises(ProtocolError):
            answers.whole_size(status, headers, "blob")


def test_a_manifest_s_digest_is_that_of_its_bytes() -> None:
    right, other = Digest.of(BODY), Digest.of(b"other")
    long = Digest.of(BODY, "sha512")
    header = {"Docker-Content-Digest": str(other)}
    assert answers.manifest_digest(BODY, "v1", {}, "m") == right
    assert answers.manifest_digest(BODY, "v1", {"Docker-Content-Digest": "nonsense"}, "m") == right
    assert answers.manifest_digest(BODY, "v1", {"Docker-Content-Digest": str(long)}, "m") == long
    assert answers.manifest_digest(BODY, right, header, "m") == right
    assert answers.manifest_digest(BODY, long, {"Docker-Content-Digest": str(right)}, "m") == long
    with pytest.raises(ProtocolError):
        answers.manifest_digest(BODY, "v1", header, "m")
    with pytest.raises(DigestMismatchError):
        answers.manifest_digest(BODY, other, header, "m")


@pytest.mark.parametrize(
    "vague", [{}, {"Content-Type": "application/json; charset=utf-8"}, {"Content-Type": "text/plain"}]
)
def test_a_type_that_tells_nothing_is_read_off_the_body(vague: dict[str, str]) -> None:
    assert answers.manifest_type(BODY, vague, "m") == media_types.OCI_MANIFEST
    with pytest.raises(ProtocolError, match="no manifest"):
        answers.manifest_type(b"<html>", vague, "m")


def test_a_type_that_tells_is_taken_without_its_parameters() -> None:
    headers = {"Content-Type": f"{media_types.DOCKER_LIST}; charset=utf-8"}
    assert answers.manifest_type(b"", headers, "m") == media_types.DOCKER_LIST


@pytest.mark.parametrize(
    ("link", "rewritten"),
    [
        ('</v2/a/tags/list?n=2&last=b>; rel="next"', '</v2/a/tags/list?n=2&last=b>; rel="next"'),
        ("<https://other.test/evil?last=b&n=2>;rel=next", '</v2/a/tags/list?last=b&n=2>; rel="next"'),
        ('<?last=b&x=%0d%0a&url=http://evil>; rel="next"', '</v2/a/tags/list?last=b>; rel="next"'),
        ('<?last=a%0d%0ab>; rel="next"', '</v2/a/tags/list?last=a%0D%0Ab>; rel="next"'),
        ('<?last=a>; rel="prev", <?last=c>; rel="next"', '</v2/a/tags/list?last=c>; rel="next"'),
        ('<?evil=1>; rel="next"', None),
        ('<?last=b>; rel="prev"', None),
        ("nonsense", None),
        ("<http://[?last=1>; rel=next", None),
        ("", None),
    ],
)
def test_links_lead_back_here(link: str, rewritten: str | None) -> None:
    assert answers.next_link({"Link": link}, "/v2/a/tags/list") == rewritten


@given(st.text(alphabet='<>?=&;,"rel=nextlas %0d\r\n', max_size=200))
def test_any_link_is_a_clean_header(link: str) -> None:
    rewritten = answers.next_link({"Link": link}, "/v2/a/tags/list")
    if rewritten is not None:
        assert rewritten.startswith("</v2/a/tags/list?")
        assert rewritten.isprintable()


@pytest.mark.parametrize(
    ("status", "retry_after", "error"),
    [
        (400, None, ProtocolError),
        (401, None, DeniedError),
        (403, None, DeniedError),
        (404, None, NotFoundError),
        (407, None, LastingError),
        (410, None, NotFoundError),
        (429, None, BusyError),
        (451, None, DeniedError),
        (500, None, UnreachableError),
        (502, None, UnreachableError),
        (503, None, UnreachableError),
        (501, None, ProtocolError),
        (505, None, ProtocolError),
        (503, 5.0, BusyError),
    ],
)
def test_refusals(status: int, retry_after: float | None, error: type[P2PDistError]) -> None:
    refusal = answers.refusal(status, "blob x of y", "DENIED: no", retry_after)
    assert type(refusal) is error
    assert "blob x of y" in str(refusal)
    assert "DENIED: no" in str(refusal)
    if isinstance(refusal, BusyError):
        assert refusal.retry_after == retry_after


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no\\nway"}]}', "DENIED: no way"),
        (b'{"errors":[]}', ""),
        (b'{"errors":[5]}', ""),
        (b"<html>", ""),
        (b"[" * 100_000, ""),
        (b'{"errors":[{"code":"' + b"x" * 10_000 + b'"}]}', "x" * 300),
    ],
)
def test_error_details_are_short_and_on_one_line(body: bytes, detail: str) -> None:
    assert answers.error_detail(body) == detail


@given(st.binary(max_size=100))
def test_any_error_body_is_read(body: bytes) -> None:
    assert answers.error_detail(body).isprintable()
