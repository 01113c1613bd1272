"""The pull API as runtimes see it: which request gets which answer, to the header."""

from __future__ import annotations

import json

import pytest

from p2pdist.errors import (
    BusyError,
    DeniedError,
    DigestMismatchError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    StalledError,
    StoreError,
    StoreFullError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.oci.media_types import OCI_INDEX
from p2pdist.oci.reference import Repository
from p2pdist.testing.fake_mirror import FakeBlob
from p2pdist.transfer.content import Source
from p2pdist.upstream.port import UpstreamPage
from tests.adapters.api.registry_edge import NGINX, Edge, pull_lines

MANIFEST = b'{"schemaVersion":2}'
LAYER = bytes(range(256)) * 16
ABSENT = Digest.of(b"absent")


async def test_ping_says_which_api_this_is(edge: Edge) -> None:
    for path in ("/v2/", "/v2", "/v2/?ns=elsewhere.test"):
        answer = await edge.get(path)
        assert (answer.status, answer.body) == (200, b"{}")
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert "WWW-Authenticate" not in answer.headers
    assert (await edge.head("/v2/")).status == 200


async def test_manifest_by_tag(edge: Edge) -> None:
    digest = edge.mirror.add_manifest(NGINX, "1.27", MANIFEST, OCI_INDEX)
    answer = await edge.get("/v2/library/nginx/manifests/1.27")
    assert (answer.status, answer.body) == (200, MANIFEST)
    assert answer.headers["Docker-Content-Digest"] == str(digest)
    assert answer.headers["Content-Type"] == OCI_INDEX
    assert answer.headers["Content-Length"] == str(len(MANIFEST))
    assert answer.headers["ETag"] == f'"{digest}"'
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert edge.counts.delivered == {("docker.io", "upstream"): len(MANIFEST)}
    assert edge.counts.pulled == [("manifest", "upstream")]


async def test_manifest_by_digest_may_be_kept_for_ever(edge: Edge) -> None:
    digest = edge.mirror.add_manifest(NGINX, "1.27", MANIFEST, source=Source.PEER)
    answer = await edge.get(f"/v2/library/nginx/manifests/{digest}")
    assert answer.body == MANIFEST
    assert "immutable" in answer.headers["Cache-Control"]
    assert edge.counts.delivered == {("docker.io", "peer"): len(MANIFEST)}


async def test_head_tells_the_same_and_moves_nothing(edge: Edge) -> None:
    edge.mirror.add_manifest(NGINX, "1.27", MANIFEST)
    blob = edge.mirror.add_blob(LAYER)
    for path in ("/v2/library/nginx/manifests/1.27", f"/v2/library/nginx/blobs/{blob}"):
        head, get = await edge.head(path), await edge.get(path)
        told = {name: value for name, value in get.headers.items() if name != "Date"}
        assert (head.status, head.body) == (200, b"")
        assert {name: value for name, value in head.headers.items() if name != "Date"} == told
    assert edge.counts.total == len(MANIFEST) + len(LAYER)
    assert [call[0] for call in edge.mirror.asked] == ["manifest", "manifest", "blob_stat", "blob"]


async def test_blob(edge: Edge) -> None:
    parts = ((1000, Source.PEER), (500, Source.UPSTREAM), (0, Source.STORE))
    digest = edge.mirror.add_blob(LAYER, FakeBlob(LAYER, parts=parts, span=300))
    answer = await edge.get(f"/v2/library/nginx/blobs/{digest}")
    assert (answer.status, answer.body) == (200, LAYER)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Docker-Content-Digest"] == str(digest)
    assert "Content-Encoding" not in answer.headers
    assert edge.counts.delivered == {
        ("docker.io", "peer"): 1000,
        ("docker.io", "upstream"): 500,
        ("docker.io", "store"): len(LAYER) - 1500,
    }
    assert edge.counts.pulled == [("blob", "upstream")]
    assert edge.mirror.deliveries[0].closed


async def test_no_content_is_encoded_again(edge: Edge) -> None:
    digest = edge.mirror.add_blob(LAYER)
    answer = await edge.get(f"/v2/library/nginx/blobs/{digest}", Accept_Encoding="zstd;q=1.0,gzip;q=0.8")
    assert answer.body == LAYER
    assert "Content-Encoding" not in answer.headers


async def test_empty_blob(edge: Edge) -> None:
    digest = edge.mirror.add_blob(b"")
    for headers in ({}, {"Range": "bytes=0-"}):
        answer = await edge.get(f"/v2/library/nginx/blobs/{digest}", **headers)
        assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
    assert edge.counts.total == 0


@pytest.mark.parametrize("path", ["manifests/1.27", "manifests/{manifest}", "blobs/{blob}"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_the_client_has_is_not_sent_again(edge: Edge, path: str, method: str) -> None:
    manifest = edge.mirror.add_manifest(NGINX, "1.27", MANIFEST)
    blob = edge.mirror.add_blob(LAYER)
    held = blob if path.startswith("blobs") else manifest
    path = f"/v2/library/nginx/{path.format(manifest=manifest, blob=blob)}"
    for value in (f'"{held}"', f'W/"{held}", "other"', "*"):
        answer = await edge.ask(method, path, headers={"If-None-Match": value})
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == f'"{held}"'
        assert answer.headers["Docker-Content-Digest"] == str(held)
        assert "Content-Type" not in answer.headers
    assert edge.counts.total == 0
    assert edge.mirror.deliveries == []
    assert (await edge.ask(method, path, headers={"If-None-Match": '"other"'})).status == 200


@pytest.mark.parametrize(
    ("path", "registry", "name"),
    [
        ("library/nginx", "docker.io", "library/nginx"),
        ("nginx", "docker.io", "library/nginx"),
        ("docker.io/nginx", "docker.io", "library/nginx"),
        ("docker.io/library/nginx", "docker.io", "library/nginx"),
        ("registry-1.docker.io/library/nginx", "docker.io", "library/nginx"),
        ("r.test:5000/app", "r.test:5000", "app"),
        ("r.test%3A5000/a/b/c", "r.test:5000", "a/b/c"),
        ("localhost/app", "localhost", "app"),
        ("team/manifests/app", "docker.io", "team/manifests/app"),
        ("app?ns=r.test%3A5000", "r.test:5000", "app"),
        ("nginx?ns=docker.io", "docker.io", "library/nginx"),
        ("app?ns=R.test:5000", "r.test:5000", "app"),
        ("docker.io/app?ns=r.test:5000", "r.test:5000", "docker.io/app"),
    ],
)
async def test_three_ways_to_name_the_registry(edge: Edge, path: str, registry: str, name: str) -> None:
    edge.mirror.registries |= {"r.test:5000", "localhost"}
    repository = Repository(registry, name)
    edge.mirror.add_manifest(repository, "v1", MANIFEST)
    path, question, query = path.partition("?")
    answer = await edge.get(f"/v2/{path}/manifests/v1{question}{query}")
    assert answer.status == 200
    assert edge.mirror.asked[0][:3] == ("manifest", repository, "v1")


async def test_accept_headers_reach_the_use_case_as_media_ranges(edge: Edge) -> None:
    edge.mirror.add_manifest(NGINX, "v1", MANIFEST)
    headers = [("Accept", "a/b, c/d;q=0.5"), ("Accept", "*/*"), ("User-Agent", "docker/20.10")]
    await edge.ask("GET", "/v2/library/nginx/manifests/v1", headers=headers)
    await edge.ask("GET", "/v2/library/nginx/manifests/v1", skip_auto_headers=["Accept"])
    accepts = [call[3] for call in edge.mirror.asked]
    assert accepts[0] == ("a/b", "c/d;q=0.5", "*/*")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("library/nginx/blobs/sha256:abc", 400, "DIGEST_INVALID"),
        ("library/nginx/blobs/md5:" + "0" * 32, 400, "DIGEST_INVALID"),
        ("library/nginx/blobs/sha256:" + "G" * 64, 400, "DIGEST_INVALID"),
        ("library/nginx/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        ("library/nginx/referrers/latest", 400, "DIGEST_INVALID"),
        ("library/nginx/manifests/.bad", 400, "TAG_INVALID"),
        ("library/nginx/manifests/" + "a" * 129, 400, "TAG_INVALID"),
        ("library/nginx/manifests/", 400, "TAG_INVALID"),
        ("library/NGINX/manifests/v1", 400, "NAME_INVALID"),
        ("library/ng%0Ainx/manifests/v1", 400, "NAME_INVALID"),
        ("library//nginx/manifests/v1", 400, "NAME_INVALID"),
        ("..%2F..%2Fetc/manifests/v1", 400, "NAME_INVALID"),
        ("docker.io/manifests/v1", 400, "NAME_INVALID"),
        ("nginx/manifests/v1?ns=", 400, "NAME_INVALID"),
        ("nginx/manifests/v1?ns=http://x", 400, "NAME_INVALID"),
        ("a/" * 300 + "a/manifests/v1", 400, "NAME_INVALID"),
        ("a/" * 2000 + "a/manifests/v1", 400, "NAME_INVALID"),
        ("library/nginx/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"),
        ("library/nginx/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("library/nginx/tags/list?last=" + "x" * 3000, 400, "PAGINATION_NUMBER_INVALID"),
        ("_catalog", 404, "UNSUPPORTED"),
        ("library/nginx", 404, "UNSUPPORTED"),
        ("library/nginx/tags/other", 404, "UNSUPPORTED"),
        ("library/nginx/blobs/uploads/1", 404, "UNSUPPORTED"),
        ("other.test/app/manifests/v1", 403, "DENIED"),
        ("app/manifests/v1?ns=other.test", 403, "DENIED"),
    ],
)
async def test_malformed_and_unknown_requests_reach_no_use_case(
    edge: Edge, path: str, status: int, code: str
) -> None:
    answer = await edge.get(f"/v2/{path}")
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert edge.mirror.asked == []
    assert (await edge.head(f"/v2/{path}")).status == status


async def test_a_registry_that_is_not_configured_is_refused_with_the_key_to_add(edge: Edge) -> None:
    answer = await edge.get("/v2/other.test:5000/app/manifests/v1")
    message = json.loads(answer.body)["errors"][0]["message"]
    assert '[registries."other.test:5000"]' in message


async def test_outside_of_the_api_there_is_nothing(edge: Edge) -> None:
    for path in ("/", "/v1/_ping", "/metrics", "//v2/", "/V2/"):
        answer = await edge.get(path)
        assert (answer.status, answer.code) == (404, "UNSUPPORTED")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_pushes_get_a_clear_no(edge: Edge, method: str) -> None:
    for path in ("/v2/library/nginx/blobs/uploads/", "/v2/library/nginx/manifests/v1", "/v2/"):
        answer = await edge.ask(method, path, data=b"x" * 100_000)
        assert (answer.status, answer.code) == (405, "UNSUPPORTED")
        assert answer.headers["Allow"] == "GET, HEAD"
    assert edge.mirror.asked == []


async def test_a_push_that_asks_first_is_not_told_to_go_on(edge: Edge) -> None:
    reader, writer = await edge.connect()
    writer.write(
        b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\nExpect: 100-continue\r\n\r\n"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 405 ")
    writer.close()


ERRORS = [
    (NotFoundError("gone"), 404, None, None),
    (DeniedError("no"), 403, "DENIED", None),
    (BusyError("later", 7.2), 429, "TOOMANYREQUESTS", "8"),
    (BusyError("later"), 429, "TOOMANYREQUESTS", "1"),
    (BusyError("much later", 1e9), 429, "TOOMANYREQUESTS", "60"),
    (StoreFullError("full"), 507, "UNAVAILABLE", None),
    (StoreError("damaged"), 500, "UNKNOWN", None),
    (UnreachableError("down"), 502, "UNAVAILABLE", None),
    (ProtocolError("nonsense"), 502, "UNAVAILABLE", None),
    (StalledError("slow"), 504, "UNAVAILABLE", None),
    (DigestMismatchError("lies"), 502, "UNAVAILABLE", None),
    (InvalidInputError("what"), 400, "MANIFEST_INVALID", None),
    (TimeoutError(), 504, "UNAVAILABLE", None),
    (RuntimeError("secret inside"), 500, "UNKNOWN", None),
]


@pytest.mark.parametrize(("error", "status", "code", "retry"), ERRORS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("manifests/v1", "MANIFEST_UNKNOWN"),
        (f"blobs/{ABSENT}", "BLOB_UNKNOWN"),
        ("tags/list", "NAME_UNKNOWN"),
        (f"referrers/{ABSENT}", "NAME_UNKNOWN"),
    ],
)
async def test_each_error_behind_the_edge_has_its_answer(
    edge: Edge, path: str, missing: str, error: Exception, status: int, code: str | None, retry: str | None
) -> None:
    edge.mirror.error = error
    answer = await edge.get(f"/v2/library/nginx/{path}")
    assert (answer.status, answer.code) == (status, code or missing)
    assert answer.headers.get("Retry-After") == retry
    assert b"secret inside" not in answer.body
    assert "WWW-Authenticate" not in answer.headers
    head = await edge.head(f"/v2/library/nginx/{path}")
    assert (head.status, head.body) == (status, b"")
    assert edge.counts.total == 0


async def test_unknown_content_is_404_of_its_kind(edge: Edge) -> None:
    assert (await edge.get("/v2/library/nginx/manifests/none")).code == "MANIFEST_UNKNOWN"
    assert (await edge.get(f"/v2/library/nginx/blobs/{ABSENT}")).code == "BLOB_UNKNOWN"


async def test_credentials_are_neither_asked_for_nor_minded(edge: Edge) -> None:
    edge.mirror.add_manifest(NGINX, "v1", MANIFEST)
    answer = await edge.get("/v2/library/nginx/manifests/v1", Authorization="Basic bm9ib2R5Om5vdGhpbmc=")
    assert answer.status == 200


async def test_tags_and_referrers_pass_through(edge: Edge) -> None:
    edge.mirror.page = UpstreamPage(
        b'{"tags":["a"]}',
        {"Content-Type": "application/json", "OCI-Filters-Applied": "artifactType", "Set-Cookie": "x=y"},
    )
    answer = await edge.get("/v2/library/nginx/tags/list?n=10&last=a&ns=docker.io")
    assert (answer.status, answer.body) == (200, b'{"tags":["a"]}')
    assert "Set-Cookie" not in answer.headers
    answer = await edge.get(f"/v2/library/nginx/referrers/{ABSENT}?artifactType=a/b")
    assert answer.headers["OCI-Filters-Applied"] == "artifactType"
    assert edge.mirror.asked == [
        ("tags", NGINX, {"n": "10", "last": "a"}),
        ("referrers", NGINX, ABSENT, {"artifactType": "a/b"}),
    ]
    assert edge.counts.total == 0


@pytest.mark.parametrize("filters", ["", "x" * 300, "artifact\u00e9"])
async def test_filters_that_cannot_stand_in_a_header_are_left_out(edge: Edge, filters: str) -> None:
    edge.mirror.page = UpstreamPage(b"{}", {"Content-Type": "a\u00e9", "OCI-Filters-Applied": filters})
    answer = await edge.get(f"/v2/library/nginx/referrers/{ABSENT}?artifactType=a/b")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert "OCI-Filters-Applied" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "link", "expected"),
    [
        ("library/nginx/tags/list?n=2", '</v2/library/nginx/tags/list?n=2&last=b>; rel="next"',
         '</v2/library/nginx/tags/list?n=2&last=b>; rel="next"'),
        ("docker.io/nginx/tags/list", '</v2/library/nginx/tags/list?last=b>; rel="next"',
         '</v2/docker.io/nginx/tags/list?last=b>; rel="next"'),
        ("nginx/tags/list?ns=docker.io", '</v2/library/nginx/tags/list?ns=evil.test&last=b>; rel="next"',
         '</v2/nginx/tags/list?last=b&ns=docker.io>; rel="next"'),
        ("nginx/tags/list", "nonsense", None),
    ],
)  # fmt: skip
async def test_the_next_page_is_at_this_mirror_as_the_client_named_it(
    edge: Edge, asked: str, link: str, expected: str | None
) -> None:
    edge.mirror.page = UpstreamPage(b"{}", {"Link": link})
    answer = await edge.get(f"/v2/{asked}")
    assert answer.headers.get("Link") == expected


async def test_a_media_type_that_would_break_the_headers_is_replaced(edge: Edge) -> None:
    edge.mirror.add_manifest(NGINX, "v1", MANIFEST, "a/b\r\nX-Evil: 1")
    answer = await edge.get("/v2/library/nginx/manifests/v1")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert "X-Evil" not in answer.headers


async def test_one_log_line_a_pull(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "p2pdist.mirror")
    manifest = edge.mirror.add_manifest(NGINX, "v1", MANIFEST)
    blob = edge.mirror.add_blob(LAYER, FakeBlob(LAYER, parts=((96, Source.PEER), (0, Source.STORE))))
    await edge.head("/v2/library/nginx/manifests/v1")
    await edge.get("/v2/library/nginx/manifests/v1", User_Agent="containerd/2.1.9")
    await edge.get(f"/v2/library/nginx/blobs/{blob}")
    await edge.get(f"/v2/library/nginx/blobs/{ABSENT}")
    first, second, third = pull_lines(caplog.records)
    assert first["tag"] == "v1"
    assert first["digest"] == str(manifest)
    assert (first["client"], first["status"]) == ("containerd/2.1.9", 200)
    assert "tag" not in second
    assert (second["registry"], second["repository"]) == ("docker.io", "library/nginx")
    assert (second["bytes"], second["peer_bytes"], second["upstream_bytes"]) == (len(LAYER), 96, 0)
    assert (third["status"], third["bytes"]) == (404, 0)
    assert "outcome" in third
    assert caplog.messages[0] == "served manifest docker.io/library/nginx:v1"


async def test_a_registry_that_is_not_configured_leaves_one_line_in_the_log(
    edge: Edge, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert (await edge.get("/v2/app/manifests/v1?ns=other.test")).status == 403
        assert (await edge.head("/v2/other.test/app/manifests/v1")).status == 403
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "registry other.test is not configured here" in caplog.messages[0]
