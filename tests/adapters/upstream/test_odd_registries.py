"""Registries, and proxies before them, that do what no specification asks for and the runtimes put up with."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
from aiohttp import web

from p2pdist.errors import DeniedError, ProtocolError
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from tests.adapters.upstream.world import DATA, MANIFEST, World, scripted

DIGEST = Digest.of(DATA)
SIZE = len(DATA)
Answer = Callable[[int, int], web.StreamResponse]


# -- ranges --


def refusing(status: int) -> Answer:
    return lambda start, stop: web.Response(status=status)


def another_range(start: int, stop: int) -> web.StreamResponse:
    return web.Response(status=206, body=DATA, headers={"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}"})


def multipart(start: int, stop: int) -> web.StreamResponse:
    part = f"--x\r\nContent-Range: bytes {start}-{stop - 1}/{SIZE}\r\n\r\n".encode() + DATA[start:stop]
    headers = {"Content-Type": "multipart/byteranges; boundary=x"}
    return web.Response(status=206, body=part + b"\r\n--x--\r\n", headers=headers)


@pytest.mark.parametrize(
    "answer",
    [
        *(pytest.param(refusing(status), id=str(status)) for status in (400, 403, 405, 406, 416, 501)),
        another_range,
        multipart,
    ],
)
async def test_one_that_cannot_do_ranges_is_asked_without(answer: Answer) -> None:
    ranged: list[bool] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        ranged.append("Range" in request.headers)
        if not ranged[-1]:
            return web.Response(body=DATA)
        return answer(request.http_range.start or 0, request.http_range.stop or SIZE)

    async with scripted(handler) as url, World(url) as world:
        async with world.client.blob(world.repository, DIGEST, 1000, 5000) as stream:
            assert b"".join([chunk async for chunk in stream.chunks()]) == DATA[1000:6000]
            assert not stream.ranged  # so that the others are not sent there for parts
            assert stream.size == SIZE
    assert ranged == [True, False]


async def test_a_refusal_that_has_nothing_to_do_with_the_range_stays_one() -> None:
    async def handler(_request: web.Request) -> web.StreamResponse:
        return web.json_response({"errors": [{"code": "DENIED", "message": "not yours"}]}, status=403)

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(DeniedError, match="not yours"):
            await world.blob(DIGEST, 1000, 5000)
        assert len(world.responses) == 2


# -- sizes --


async def _chunked(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    if request.method == "GET":
        for start in range(0, SIZE, 50_000):
            await response.write(DATA[start : start + 50_000])
    return response


@pytest.mark.parametrize(("offset", "length"), [(0, None), (100, 1000), (200_000, None)])
async def test_a_size_that_is_never_told_is_the_manifests(offset: int, length: int | None) -> None:
    async with scripted(_chunked) as url, World(url) as world:
        world.known[DIGEST] = SIZE
        assert await world.blob(DIGEST, offset, length) == DATA[offset:][:length]
        assert world.responses == [("blob", 200)]  # and no HEAD, which would not tell it either


async def test_a_size_that_nobody_knows_is_an_error() -> None:
    async with scripted(_chunked) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="does not tell its size"):
            await world.blob(DIGEST)


@pytest.mark.parametrize("delta", [-1000, 1000])
async def test_a_manifest_s_size_that_is_wrong_ends_the_body_where_it_says_or_fails(delta: int) -> None:
    async with scripted(_chunked) as url, World(url) as world:
        world.known[DIGEST] = SIZE + delta
        if delta < 0:
            assert await world.blob(DIGEST) == DATA[:delta]  # for the consumer to find
        else:
            with pytest.raises(ProtocolError, match="ended early"):
                await world.blob(DIGEST)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
async def test_one_that_has_no_head_is_asked_for_a_byte(status: int) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.method == "HEAD":
            return web.Response(status=status)
        return web.Response(
            status=206, body=DATA[:1], headers={"Content-Range": f"bytes 0-0/{SIZE}"}, content_type="a/b"
        )

    async with scripted(handler) as url, World(url) as world:
        stat = await world.client.stat(world.repository, DIGEST)
        assert (stat.size, stat.media_type) == (SIZE, "a/b")


# -- what comes compressed --


@pytest.mark.parametrize("target", ["v1", Digest.of(MANIFEST)])
@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("head", [True, False])
async def test_a_manifest_that_comes_compressed(target: str | Digest, honest: bool, head: bool) -> None:
    body = gzip.compress(MANIFEST) if honest else MANIFEST

    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip", "Docker-Content-Digest": str(Digest.of(MANIFEST))}
        return web.Response(body=body, headers=headers, content_type=media_types.OCI_MANIFEST)

    async with scripted(handler) as url, World(url) as world:
        found = await world.client.manifest(world.repository, target, head=head)
        assert (found.digest, found.size) == (Digest.of(MANIFEST), len(MANIFEST))
        assert found.body == (None if head else MANIFEST)


@pytest.mark.parametrize(
    ("encoding", "body", "match"),
    [
        ("br", MANIFEST, "compressed"),
        ("gzip", gzip.compress(MANIFEST)[:-10], "ended early"),
        ("gzip", b"\x1f\x8b" + bytes(50), "does not decompress"),
        ("gzip", gzip.compress(bytes(4 * 1024 * 1024 + 1)), "more than 4194304 bytes"),
        ("deflate", zlib.compress(MANIFEST), "compressed"),
    ],
)
async def test_what_does_not_come_out_of_it(encoding: str, body: bytes, match: str) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Encoding": encoding}
        return web.Response(body=body, headers=headers, content_type=media_types.OCI_MANIFEST)

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match=match):
            await world.client.manifest(world.repository, "v1")


async def test_a_blob_that_was_compressed_on_its_way_is_not_taken_for_one_of_another_size() -> None:
    packed = gzip.compress(DATA)

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=packed, headers={"Content-Encoding": "gzip"})

    async with scripted(handler) as url, World(url) as world:
        world.known[DIGEST] = SIZE
        with pytest.raises(ProtocolError, match="came compressed"):
            await world.blob(DIGEST)
        world.known[DIGEST] = len(
            packed
        )  # of what is stored compressed, and says so, the digest is that of the whole
        assert await world.blob(DIGEST) == packed


# -- tokens --


async def test_a_challenge_in_a_403_is_answered() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.json_response({"token": "good"})
        if request.headers.get("Authorization") == "Bearer good":
            return web.Response(body=DATA)
        challenge = f'Bearer realm="http://{request.host}/token"'
        return web.Response(status=403, headers={"WWW-Authenticate": challenge})

    async with scripted(handler) as url, World(url) as world:
        assert await world.blob(DIGEST) == DATA
        assert world.responses == [("blob", 403), ("token", 200), ("blob", 200)]


async def test_a_token_server_s_redirect_to_itself_is_followed_with_the_credentials() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/token"):
            assert request.headers["Authorization"].startswith("Basic ")
            if request.path == "/token":
                return web.Response(status=301, headers={"Location": f"/token/?{request.query_string}"})
            return web.json_response({"token": request.query["service"].replace(" ", "-")})
        if request.headers.get("Authorization") == "Bearer a-b":
            return web.Response(body=DATA)
        challenge = f'Bearer realm="http://{request.host}/token",service="a b"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with scripted(handler) as url:
        login = {"username": "user", "password": "secret"}
        async with World(url, registry=login) as world:
            assert await world.blob(DIGEST) == DATA


async def test_a_token_server_that_redirects_in_circles_is_left() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path == "/token":
            return web.Response(status=302, headers={"Location": "/token"})
        challenge = f'Bearer realm="http://{request.host}/token"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async with scripted(handler) as url, World(url) as world:
        with pytest.raises(ProtocolError, match="more than 5 times"):
            await world.blob(DIGEST)
        assert len(world.responses) == 6
