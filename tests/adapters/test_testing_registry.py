"""The fake registry is what other tests are judged by, so each of its knobs is seen to work here, on real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.testing.clock import ManualClock
from p2pdist.testing.registry import FakeRegistry
from p2pdist.testing.tls import TestAuthority

BLOB = bytes(range(256)) * 40
MANIFEST = b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:%s","size":2},"layers":[]}' % (
    b"a" * 64
)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        found.put_blob("team/app", BLOB)
        found.put_manifest("team/app", MANIFEST, media_types.OCI_MANIFEST, "1.0")
        yield found


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


def blob_url(registry: FakeRegistry, digest: Digest | None = None) -> str:
    return f"{registry.url}/v2/team/app/blobs/{digest or Digest.of(BLOB)}"


def manifest_url(registry: FakeRegistry, target: str = "1.0") -> str:
    return f"{registry.url}/v2/team/app/manifests/{target}"


async def read(
    http: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None
) -> tuple[int, bytes, dict[str, str]]:
    async with http.get(url, headers=headers or {}) as response:
        return response.status, await response.read(), dict(response.headers)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"user:{password}".encode()).decode()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def read_until_cut(http: aiohttp.ClientSession, url: str) -> bytes:
    received = bytearray()
    async with http.get(url) as response:
        try:
            async for chunk in response.content.iter_any():
                received += chunk
        except aiohttp.ClientPayloadError:
            return bytes(received)
    raise AssertionError("the body came to its end")


async def test_a_blob_whole_in_part_and_by_head(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    status, body, headers = await read(http, blob_url(registry))
    assert (status, body) == (200, BLOB)
    assert headers["Docker-Content-Digest"] == str(Digest.of(BLOB))
    assert headers["Content-Type"] == "application/octet-stream"
    status, body, headers = await read(http, blob_url(registry), {"Range": "bytes=10-19"})
    assert (status, body, headers["Content-Range"]) == (206, BLOB[10:20], f"bytes 10-19/{len(BLOB)}")
    status, _, headers = await read(http, blob_url(registry), {"Range": "bytes=99999-"})
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(BLOB)}")
    async with http.head(blob_url(registry)) as response:
        assert (response.status, response.content_length) == (200, len(BLOB))
    assert registry.counters.blob_bytes[str(Digest.of(BLOB))] == len(BLOB) + 10
    assert (registry.counters.count("GET", "blob"), registry.counters.count("HEAD", "blob")) == (3, 1)


async def test_a_manifest_by_tag_and_by_digest(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    digest = Digest.of(MANIFEST)
    for target in ("1.0", str(digest)):
        status, body, headers = await read(http, manifest_url(registry, target))
        assert (status, body) == (200, MANIFEST)
        assert headers["Content-Type"] == media_types.OCI_MANIFEST
        assert headers["Docker-Content-Digest"] == str(digest)
    status, _, _ = await read(http, manifest_url(registry), {"If-None-Match": f'"{digest}"'})
    assert status == 304
    assert registry.counters.manifest_bytes == 2 * len(MANIFEST)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/team/app/manifests/2.0", 404, "MANIFEST_UNKNOWN"),
        ("/v2/team/none/manifests/1.0", 404, "NAME_UNKNOWN"),
        (f"/v2/team/app/blobs/{Digest.of(b'none')}", 404, "BLOB_UNKNOWN"),
        ("/v2/team/app/blobs/sha256:short", 400, "DIGEST_INVALID"),
        ("/v2/team/app/uploads", 404, "UNSUPPORTED"),
    ],
)
async def test_what_is_not_there(
    registry: FakeRegistry, http: aiohttp.ClientSession, path: str, status: int, code: str
) -> None:
    got, body, _ = await read(http, registry.url + path)
    assert (got, json.loads(body)["errors"][0]["code"]) == (status, code)


async def test_pushes_are_refused_and_ping_answers(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    async with http.post(f"{registry.url}/v2/team/app/blobs/uploads/") as response:
        assert response.status == 405
    assert (await read(http, f"{registry.url}/v2/"))[0] == 200


async def test_tags_come_in_pages(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    for tag in ("1.1", "1.2"):
        registry.set_tag("team/app", tag, Digest.of(MANIFEST))
    status, body, headers = await read(http, f"{registry.url}/v2/team/app/tags/list?n=2")
    assert (status, json.loads(body)["tags"]) == (200, ["1.0", "1.1"])
    assert headers["Link"] == '</v2/team/app/tags/list?n=2&last=1.1>; rel="next"'
    _, body, headers = await read(http, f"{registry.url}/v2/team/app/tags/list?n=2&last=1.1")
    assert json.loads(body)["tags"] == ["1.2"]
    assert "Link" not in headers


async def test_referrers(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    subject = Digest.of(MANIFEST)
    signature = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": media_types.OCI_MANIFEST,
            "artifactType": "application/x.signature",
            "config": {"mediaType": media_types.OCI_EMPTY, "digest": str(Digest.of(b"{}")), "size": 2},
            "layers": [],
            "subject": {
                "mediaType": media_types.OCI_MANIFEST,
                "digest": str(subject),
                "size": len(MANIFEST),
            },
        }
    ).encode()
    digest = registry.put_manifest("team/app", signature, media_types.OCI_MANIFEST)
    url = f"{registry.url}/v2/team/app/referrers/{subject}"
    status, body, headers = await read(http, url)
    assert (status, headers["Content-Type"]) == (200, media_types.OCI_INDEX)
    assert [item["digest"] for item in json.loads(body)["manifests"]] == [str(digest)]
    _, body, headers = await read(http, f"{url}?artifactType=application/x.other")
    assert (json.loads(body)["manifests"], headers["OCI-Filters-Applied"]) == ([], "artifactType")
    registry.faults.no_referrers = True
    assert (await read(http, url))[0] == 404


async def test_a_cut_sends_what_it_says_and_no_more(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.faults.cut_after, registry.faults.cut_times = 100, 1
    assert await read_until_cut(http, blob_url(registry)) == BLOB[:100]
    assert registry.counters.total_blob_bytes == 100
    assert (await read(http, blob_url(registry)))[1] == BLOB


async def test_a_cut_by_reset(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    registry.faults.update({"cut_after": 100, "cut_times": -1, "cut_by_reset": True})
    for _ in range(2):
        with pytest.raises(aiohttp.ClientError):
            await read(http, blob_url(registry))


async def test_a_flipped_byte_is_at_its_offset_in_any_range(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.faults.flip_at, registry.faults.flip_times = 300, 2
    _, whole, _ = await read(http, blob_url(registry))
    assert [at for at in range(len(BLOB)) if whole[at] != BLOB[at]] == [300]
    _, part, _ = await read(http, blob_url(registry), {"Range": "bytes=290-"})
    assert [at + 290 for at in range(len(part)) if part[at] != BLOB[290 + at]] == [300]
    assert (await read(http, blob_url(registry)))[1] == BLOB


async def test_faults_keep_to_one_digest_and_kind(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    other = registry.put_blob("team/app", b"other")
    registry.faults.update({"flip_times": -1, "only_digest": str(other)})
    assert (await read(http, blob_url(registry)))[1] == BLOB
    assert (await read(http, blob_url(registry, other)))[1] != b"other"
    assert (await read(http, manifest_url(registry)))[1] == MANIFEST
    registry.faults.update({"only_digest": "", "body_kinds": ["manifest"]})
    assert (await read(http, manifest_url(registry)))[1] != MANIFEST


async def test_a_stall_lasts_until_it_is_released(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.faults.stall_after, registry.faults.stall_times = 1000, 1
    async with http.get(blob_url(registry)) as response:
        assert await response.content.readexactly(1000) == BLOB[:1000]
        rest = asyncio.ensure_future(response.content.read())
        assert (await read(http, f"{registry.url}/v2/"))[0] == 200
        assert not rest.done()
        registry.release()
        assert await rest == BLOB[1000:]


async def test_a_hang_lasts_until_it_is_released(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    registry.faults.hang_times = 1
    held = asyncio.ensure_future(read(http, manifest_url(registry)))
    await until(lambda: registry.counters.count("GET", "manifest") == 1)
    assert (await read(http, manifest_url(registry)))[1] == MANIFEST
    assert not held.done()
    registry.release()
    assert (await held)[1] == MANIFEST


async def test_busy_and_error_come_as_often_as_asked(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.faults.update({"busy_times": 1, "retry_after": "7", "error_times": 2, "error_status": 502})
    status, _, headers = await read(http, blob_url(registry))
    assert (status, headers["Retry-After"]) == (429, "7")
    assert [(await read(http, blob_url(registry)))[0] for _ in range(3)] == [502, 502, 200]
    assert registry.counters.statuses == {429: 1, 502: 2, 200: 1}


async def test_ranges_ignored_or_answered_wrongly(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.faults.wrong_content_range = True
    status, _, headers = await read(http, blob_url(registry), {"Range": "bytes=5-9"})
    assert (status, headers["Content-Range"]) == (206, f"bytes 6-10/{len(BLOB) + 1}")
    registry.faults.ignore_range = True
    status, body, headers = await read(http, blob_url(registry), {"Range": "bytes=5-9"})
    assert (status, body) == (200, BLOB)
    assert "Accept-Ranges" not in headers


async def test_headers_left_out_or_wrong(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    registry.faults.update({"no_digest_header": True, "no_content_type": True})
    _, _, headers = await read(http, manifest_url(registry))
    assert not {"Docker-Content-Digest", "Content-Type"} & headers.keys()
    registry.faults.update({"no_digest_header": False, "wrong_digest_header": True, "no_head": True})
    _, _, headers = await read(http, manifest_url(registry))
    assert headers["Docker-Content-Digest"] != str(Digest.of(MANIFEST))
    async with http.head(manifest_url(registry)) as response:
        assert response.status == 405


async def test_strict_accept(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    registry.faults.strict_accept = True
    docker = {"Accept": media_types.DOCKER_MANIFEST}
    assert (await read(http, manifest_url(registry), docker))[0] == 404
    assert (await read(http, manifest_url(registry), {"Accept": media_types.OCI_MANIFEST}))[0] == 200


async def test_wrong_content_lengths(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    registry.faults.length_delta = 10
    assert await read_until_cut(http, blob_url(registry)) == BLOB
    registry.faults.length_delta = -10
    assert (await read(http, blob_url(registry)))[1] == BLOB[:-10]
    assert registry.counters.total_blob_bytes == 2 * len(BLOB) - 10


async def test_basic_auth(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    registry.faults.auth = "basic"
    status, _, headers = await read(http, blob_url(registry))
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="fake"')
    wrong = {"Authorization": basic("wrong")}
    assert (await read(http, blob_url(registry), wrong))[0] == 401
    right = {"Authorization": basic("password")}
    assert (await read(http, blob_url(registry), right))[0] == 200


async def test_tokens_are_scoped_and_expire(http: aiohttp.ClientSession) -> None:
    clock = ManualClock()
    async with FakeRegistry(clock=clock) as registry:
        registry.put_blob("team/app", BLOB)
        registry.faults.update({"auth": "bearer", "token_ttl": 60})
        status, _, headers = await read(http, blob_url(registry))
        realm = f"{registry.url}/token"
        scope = 'scope="repository:team/app:pull"'
        assert (status, headers["WWW-Authenticate"]) == (
            401,
            f'Bearer realm="{realm}",service="fake-registry",{scope}',
        )
        _, body, _ = await read(http, f"{realm}?service=fake-registry&scope=repository:team/other:pull")
        other = {"Authorization": f"Bearer {json.loads(body)['token']}"}
        _, _, headers = await read(http, blob_url(registry), other)
        assert 'error="insufficient_scope"' in headers["WWW-Authenticate"]
        _, body, _ = await read(http, f"{realm}?service=fake-registry&scope=repository:team/app:pull,push")
        right = {"Authorization": f"Bearer {json.loads(body)['token']}"}
        assert (await read(http, blob_url(registry), right))[0] == 200
        await clock.advance(60)
        _, _, headers = await read(http, blob_url(registry), right)
        assert 'error="invalid_token"' in headers["WWW-Authenticate"]
        assert registry.counters.tokens == 2


async def test_the_token_server_wants_the_right_credentials(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.faults.update({"auth": "bearer", "anonymous_tokens": False, "identity_token": "identity"})
    url = f"{registry.url}/token?scope=repository:team/app:pull"
    assert (await read(http, url))[0] == 401
    wrong = {"Authorization": basic("wrong")}
    assert (await read(http, url, wrong))[0] == 401
    right = {"Authorization": basic("password")}
    assert (await read(http, url, right))[0] == 200
    form = {"grant_type": "refresh_token", "scope": "repository:team/app:pull", "refresh_token": "identity"}
    async with http.post(f"{registry.url}/token", data=form) as response:
        token = (await response.json())["access_token"]
    assert (await read(http, blob_url(registry), {"Authorization": f"Bearer {token}"}))[0] == 200
    assert (registry.counters.tokens, registry.counters.refused_tokens) == (2, 2)


async def test_a_redirect_tells_a_leak(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    registry.faults.redirect_blobs = True
    assert (await read(http, blob_url(registry)))[1] == BLOB
    async with http.get(blob_url(registry), allow_redirects=False) as response:
        location = response.headers["Location"]
    assert (await read(http, location, {"Authorization": "Bearer secret"}))[0] == 400
    assert (await read(http, location.partition("?")[0]))[0] == 403
    assert (registry.counters.redirects_followed, registry.counters.authorization_leaks) == (3, 1)
    assert registry.counters.total_blob_bytes == len(BLOB)


async def test_faults_and_counters_over_http(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    await read(http, blob_url(registry))
    counters = json.loads((await read(http, f"{registry.url}/_counters"))[1])
    assert counters["requests"] == {"GET blob": 1}
    assert counters["total_blob_bytes"] == counters["blob_bytes"][str(Digest.of(BLOB))] == len(BLOB)
    async with http.post(f"{registry.url}/_faults", json={"busy_times": 1, "latency": 0}) as response:
        assert response.status == 200
    assert registry.faults.busy_times == 1
    for wrong in ({"buzy_times": 1}, {"busy_times": "1"}, {"busy_times": True}, {"update": 1}, [1]):
        async with http.post(f"{registry.url}/_faults", json=wrong) as response:
            assert response.status == 400
    async with http.delete(f"{registry.url}/_faults") as response:
        assert (await response.json())["busy_times"] == 0
    async with http.delete(f"{registry.url}/_counters"):
        assert registry.counters.as_json()["requests"] == {}


async def test_a_rate_limit_is_shared_and_loses_nothing(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.faults.rate = 1_000_000
    bodies = await asyncio.gather(*(read(http, blob_url(registry)) for _ in range(3)))
    assert [body for _, body, _ in bodies] == [BLOB] * 3


async def test_tls_with_an_authority_of_its_own(tmp_path: Path) -> None:
    files = TestAuthority().issue(tmp_path)
    async with FakeRegistry(ssl_context=files.server_context()) as registry, aiohttp.ClientSession() as http:
        registry.put_blob("team/app", BLOB)
        registry.faults.redirect_blobs = True
        assert registry.url.startswith("https://127.0.0.1:")
        async with http.get(blob_url(registry), ssl=files.client_context()) as response:
            assert await response.read() == BLOB
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await http.get(blob_url(registry))


async def test_it_comes_back_on_its_port(http: aiohttp.ClientSession) -> None:
    registry = FakeRegistry()
    async with registry:
        registry.put_blob("team/app", BLOB)
        first = registry.port
        registry.faults.stall_times = 1
        held = await http.get(blob_url(registry))
    with pytest.raises(aiohttp.ClientError):
        await held.read()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(blob_url(registry))
    async with registry:
        assert registry.port == first
        assert (await read(http, blob_url(registry)))[1] == BLOB
