"""What comes back from peers that stall, cut, lie about lengths, talk without end, or are no peers at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from p2pdist.clock import SystemClock
from p2pdist.errors import (
    BusyError,
    DeniedError,
    P2PDistError,
    ProtocolError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.peers.body import MAX_CHUNK
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.records import Endpoint, Provider
from p2pdist.wire.http_auth import CHALLENGE_HEADER
from tests.support_peers import OTHER_KEY, auth_of, fetch, peer_id
from tests.support_scripted_peer import Exchange, scripted_peer

BLOB = Digest.of(b"whatever")
MIB = 1024 * 1024
IMPATIENT = PeerClientSettings(connect_timeout=0.5, first_byte_timeout=0.3, progress_timeout=0.4)


@pytest.fixture
async def peers() -> AsyncIterator[HttpPeers]:
    async with HttpPeers(IMPATIENT, auth_of("leech"), SystemClock()) as client:
        yield client


async def forever() -> None:
    await asyncio.Event().wait()


async def test_no_first_byte(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        await forever()

    async with scripted_peer(script) as peer:
        with pytest.raises(UnreachableError, match="did not answer in time"):
            await fetch(peers, peer.provider, BLOB)


async def test_a_server_that_never_accepts(peers: HttpPeers) -> None:
    """The address is from TEST-NET-1: nothing answers there, or the network says so at once."""
    provider = Provider(peer_id("scripted"), (Endpoint("192.0.2.1", 5051),))
    with pytest.raises(UnreachableError):
        await fetch(peers, provider, BLOB)


@pytest.mark.parametrize("held", [0, 1000, MIB])
async def test_a_stall_in_the_body(peers: HttpPeers, held: int) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.answer(200, {"Content-Length": str(2 * MIB)})
        await exchange.send(b"x" * held)
        await forever()

    got = bytearray()

    async def take_all() -> None:
        async with peers.blob(peer.provider, BLOB) as stream:
            async for chunk in stream.chunks():
                got.extend(chunk)

    async with scripted_peer(script) as peer:
        with pytest.raises(StalledError):
            await take_all()
    assert got == b"x" * held


async def test_a_cut_in_the_body(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.answer(200, {"Content-Length": str(2 * MIB)})
        await exchange.send(b"x" * 300_000)

    async with scripted_peer(script) as peer:
        with pytest.raises(UnreachableError):
            await fetch(peers, peer.provider, BLOB)


async def test_slow_is_not_stalled(peers: HttpPeers) -> None:
    """Fewer bytes at a time than the connection is told to report still arrive, as long as some come."""
    more = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        exchange.answer(200, {"Content-Length": str(MIB)})
        await exchange.send(b"x" * 1000)
        await more.wait()
        await exchange.send(b"x" * (MIB - 1000))

    got = 0
    async with scripted_peer(script) as peer:
        async with peers.blob(peer.provider, BLOB) as stream:
            async for chunk in stream.chunks():
                got += len(chunk)
                assert len(chunk) <= MAX_CHUNK
                if got >= 1000:
                    more.set()
    assert got == MIB


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (206, {"Content-Range": "bytes 0-9/100", "Content-Length": "10"}),
        (206, {"Content-Range": "bytes 10-18/100", "Content-Length": "9"}),
        (206, {"Content-Range": "bytes 10-20/100", "Content-Length": "11"}),
        (206, {"Content-Range": "bytes 10-19/15", "Content-Length": "10"}),
        (206, {"Content-Range": "bytes 10-19/*", "Content-Length": "10"}),
        (206, {"Content-Range": "bytes 10-19/100", "Content-Length": "11"}),
        (206, {"Content-Range": "nonsense", "Content-Length": "10"}),
        (206, {"Content-Length": "10"}),
        (206, {"Content-Range": "bytes 10-19/100", "Transfer-Encoding": "chunked"}),
        (200, {"Content-Length": "100"}),
        (416, {"Content-Range": "bytes */5", "Content-Length": "0"}),
        (302, {"Location": "http://127.0.0.1:9/", "Content-Length": "0"}),
        (500, {"Content-Length": "0"}),
    ],
)
async def test_answers_that_do_not_fit_the_question(
    peers: HttpPeers, status: int, headers: dict[str, str]
) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.answer(status, headers)
        await forever()

    async with scripted_peer(script) as peer:
        with pytest.raises(ProtocolError):
            await fetch(peers, peer.provider, BLOB, 10, 10)
        assert len(peer.requests) == 1


async def test_more_bytes_than_asked_for_are_not_taken(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.answer(206, {"Content-Range": "bytes 10-19/100", "Content-Length": "10"})
        await exchange.send(b"0123456789" + b"x" * MIB)

    got = b""
    async with scripted_peer(script) as peer:
        with suppress(ProtocolError):  # what comes too much may be noticed with the head, or after the body
            got = await fetch(peers, peer.provider, BLOB, 10, 10)
    assert got in (b"", b"0123456789")


async def test_a_stranger_at_a_peers_address_is_not_believed(peers: HttpPeers) -> None:
    async def unsealed(exchange: Exchange) -> None:
        exchange.answer(200, {"Content-Length": "5"}, sealed=False)
        await exchange.send(b"hello")

    async def sealed(exchange: Exchange) -> None:
        exchange.answer(200, {"Content-Length": "5"})
        await exchange.send(b"hello")

    async def not_found(exchange: Exchange) -> None:
        exchange.answer(404, {"Content-Length": "0"}, sealed=False)

    other_key, other_peer = auth_of("scripted", OTHER_KEY), auth_of("another member")
    for script, auth in ((unsealed, None), (sealed, other_key), (sealed, other_peer), (not_found, None)):
        async with scripted_peer(script, auth) as peer:
            with pytest.raises(ProtocolError, match="not from it"):
                await fetch(peers, peer.provider, BLOB)


@pytest.mark.parametrize("claimed", ["", "nonsense", "ab" * 20, peer_id("another member").hex])
async def test_who_answers_is_who_has_proven_it_and_not_who_it_says(peers: HttpPeers, claimed: str) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.answer(200, {"P2PDist-Peer": claimed, "Content-Length": "0"})

    async with scripted_peer(script) as peer:
        (endpoint,) = peer.provider.endpoints
        assert (await peers.hello(endpoint, peer.provider.peer)).peer == peer.provider.peer
        with pytest.raises(ProtocolError, match="not from it"):
            await peers.hello(endpoint)


async def test_a_recorded_answer_does_not_fit_another_request(peers: HttpPeers) -> None:
    recorded: list[bytes] = []

    async def script(exchange: Exchange) -> None:
        if not recorded:
            headers = {"Content-Length": "5", "P2PDist-Peer": exchange.auth.own.hex}
            mac = exchange.auth.seal(exchange.credentials, 200, headers)
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            recorded.append(f"HTTP/1.1 200 OK\r\n{lines}P2PDist-Mac: {mac}\r\n\r\nhello".encode())
        await exchange.send(recorded[0])

    async with scripted_peer(script) as peer:
        assert await fetch(peers, peer.provider, BLOB) == b"hello"
        with pytest.raises(ProtocolError, match="not from it"):
            await fetch(peers, peer.provider, BLOB)


async def test_refusing_forever_is_asked_twice_and_no_more(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        challenge = exchange.auth.challenge(exchange.credentials.nonce, exchange.credentials.time_ms + 1)
        exchange.answer(401, {CHALLENGE_HEADER: challenge, "Content-Length": "0"})

    async with scripted_peer(script) as peer:
        with pytest.raises(DeniedError):
            await fetch(peers, peer.provider, BLOB)
        assert len(peer.requests) == 2


async def test_a_stranger_cannot_shift_the_clock(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        stranger = auth_of("scripted", OTHER_KEY)
        challenge = stranger.challenge(exchange.credentials.nonce, 1)
        exchange.answer(401, {CHALLENGE_HEADER: challenge, "Content-Length": "0"}, sealed=False)

    async with scripted_peer(script) as peer:
        for _ in range(2):
            with pytest.raises(DeniedError):
                await fetch(peers, peer.provider, BLOB)
        assert len(peer.requests) == 2
        assert all("time=1," not in request for request in peer.requests)


@pytest.mark.parametrize(
    "piece",
    [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100, b"HTTP/1.1 200 OK\r\nX: ", b"noise", b"\0" * 100],
    ids=["many headers", "one endless header", "no HTTP", "zeros"],
)
async def test_endless_noise_instead_of_an_answer(peers: HttpPeers, piece: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(piece)
        while True:
            await exchange.send(b"y" * 10_000 if piece.endswith(b" ") else piece)

    async with scripted_peer(script) as peer:
        with pytest.raises((ProtocolError, UnreachableError)) as caught:
            await fetch(peers, peer.provider, BLOB)
        assert "mac=" not in str(caught.value)


async def test_headers_that_dribble_without_end(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\n")
        for number in range(10_000):
            await exchange.send(b"a")
            await asyncio.sleep(0.01 if number else 0)

    async with scripted_peer(script) as peer:
        with pytest.raises(UnreachableError, match="in time"):
            await fetch(peers, peer.provider, BLOB)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "3"}, 3.0),
        ({"Retry-After": "1", "P2PDist-Retry-Ms": "120"}, 0.12),
        ({"Retry-After": "999999999"}, 60.0),
        ({"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, None),
        ({}, None),
    ],
)
async def test_busy_is_read_within_bounds(
    peers: HttpPeers, headers: dict[str, str], seconds: float | None
) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.answer(503, {"Content-Length": "0", **headers})

    async with scripted_peer(script) as peer:
        with pytest.raises(BusyError) as caught:
            await fetch(peers, peer.provider, BLOB)
        assert caught.value.retry_after == seconds


async def test_no_error_tells_a_secret(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.answer(200, {"Content-Length": "5"}, sealed=False)

    async with scripted_peer(script) as peer:
        with pytest.raises(P2PDistError) as caught:
            await fetch(peers, peer.provider, BLOB)
        assert "mac=" not in str(caught.value)
        assert "nonce=" not in str(caught.value)
