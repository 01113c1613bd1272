"""What comes over a flow from sources that stall, cut, lie about lengths and names, or speak no flow at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from p2pdist.clock import SystemClock
from p2pdist.errors import (
    BusyError,
    DeniedError,
    NotFoundError,
    P2PDistError,
    ProtocolError,
    StalledError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.peers.upgrade import MAX_HEAD
from p2pdist.records import Provider
from p2pdist.wire.flow_frames import DATA, HEAD
from p2pdist.wire.http_auth import CHALLENGE_HEADER
from tests.support_flow import UPGRADE, Source
from tests.support_peers import OTHER_KEY, CountingClientHooks, auth_of
from tests.support_scripted_peer import Exchange, scripted_peer

KIB = 1024
MIB = 1024 * KIB
BLOB = Digest.of(b"whatever")
SIZE = 64 * MIB
IMPATIENT = PeerClientSettings(connect_timeout=0.3, first_byte_timeout=0.3, piece_timeout=0.2)
Misdeed = Callable[[Source], Awaitable[None]]


@pytest.fixture
def hooks() -> CountingClientHooks:
    return CountingClientHooks()


@pytest.fixture
async def peers(hooks: CountingClientHooks, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HttpPeers]:
    monkeypatch.setattr("p2pdist.peers.flow._CHECK", 0.05)
    async with HttpPeers(IMPATIENT, auth_of("leech"), SystemClock(), hooks) as client:
        yield client


class Piece:
    """A piece that is asked for, in the midst of memory that is not to be touched."""

    def __init__(self, length: int) -> None:
        self.memory = bytearray(b"." * (length + 200))
        self.view = memoryview(self.memory)[100:-100]
        self.told: list[int] = []
        self.first = asyncio.Event()

    def moved(self, count: int) -> None:
        self.told.append(count)
        self.first.set()

    async def fetch(self, peers: HttpPeers, provider: Provider, offset: int = 0) -> None:
        await peers.piece(provider, BLOB, offset, SIZE, self.view, self.moved)

    @property
    def got(self) -> bytes:
        """What was stored; the memory around is as it was."""
        assert self.memory[:100] == self.memory[-100:] == b"." * 100
        return bytes(self.view)


async def until_closed(exchange: Exchange) -> None:
    try:
        while await exchange.reader.read(65536):
            pass
    except ConnectionError:
        pass


async def test_a_cancelled_caller_is_not_written_to_and_the_flow_goes_on(
    peers: HttpPeers, hooks: CountingClientHooks
) -> None:
    async def script(exchange: Exchange) -> None:
        source = Source.opened(exchange)
        first = await source.want()
        await source.data(first.handle, b"a" * 1000)
        await source.data(first.handle, b"a" * 200 * KIB, announced=600 * KIB)
        assert await source.cancelled() == first.handle
        await source.send(b"b" * 400 * KIB)  # the rest of the frame, and one that was on its way
        await source.data(first.handle, b"c" * 100)
        second = await source.want()
        await source.data(second.handle, b"d" * 500)
        await until_closed(exchange)

    async with scripted_peer(script) as peer:
        first, second = Piece(MIB), Piece(500)
        task = asyncio.ensure_future(first.fetch(peers, peer.provider))
        await first.first.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        before = first.got
        await second.fetch(peers, peer.provider)
        assert second.got == b"d" * 500
        assert first.got == before
        assert set(before) == set(b"a.")
        assert len(peer.requests) == 1
    assert hooks.bytes_received == 1000 + 600 * KIB + 100 + 500


async def test_a_source_that_stalls_is_left_alone_but_not_the_flow(peers: HttpPeers) -> None:
    """Before the first byte, between frames or in the midst of one: what comes late does no harm."""
    stalls = ((0, 0), (1000, 1000), (200 * KIB, 300 * KIB))

    async def script(exchange: Exchange) -> None:
        source = Source.opened(exchange)
        for sent, announced in stalls:
            want = await source.want()
            if sent:
                await source.data(want.handle, b"a" * sent, announced=announced)
            assert await source.cancelled() == want.handle
            await source.send(b"a" * (announced - sent))
            await source.data(want.handle, b"late")
        want = await source.want()
        await source.data(want.handle, b"b" * 10)
        await until_closed(exchange)

    async with scripted_peer(script) as peer:
        for sent, _ in stalls:
            piece = Piece(MIB)
            with pytest.raises(StalledError):
                await piece.fetch(peers, peer.provider)
            stored = piece.got.rstrip(b".")
            assert stored.strip(b"a") == b""
            assert len(stored) <= sent
        piece = Piece(10)
        await piece.fetch(peers, peer.provider)
        assert piece.got == b"b" * 10
        assert len(peer.requests) == 1


async def test_slow_is_not_stalled(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        source = Source.opened(exchange)
        want = await source.want()
        for _ in range(10):
            await source.data(want.handle, b"a")
            await asyncio.sleep(0.1)
        await until_closed(exchange)

    async with scripted_peer(script) as peer:
        piece = Piece(10)
        await piece.fetch(peers, peer.provider)
        assert piece.got == b"a" * 10


async def test_a_cut_ends_all_that_is_under_way_and_the_next_dials_anew(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        source = Source.opened(exchange)
        first = await source.want()
        if len(peer.requests) == 1:
            await source.want()
            await source.data(first.handle, b"a" * 500, announced=1000)
            return
        await source.data(first.handle, b"b" * 1000)
        await until_closed(exchange)

    async with scripted_peer(script) as peer:
        pieces = [Piece(1000), Piece(1000)]
        ends = await asyncio.gather(
            *(piece.fetch(peers, peer.provider) for piece in pieces), return_exceptions=True
        )
        assert [type(end) for end in ends] == [UnreachableError, UnreachableError]
        again = Piece(1000)
        await again.fetch(peers, peer.provider)
        assert again.got == b"b" * 1000
        assert len(peer.requests) == 2


async def more_than_asked(source: Source) -> None:
    await source.data((await source.want()).handle, b"x" * 1001)


async def more_in_the_end(source: Source) -> None:
    want = await source.want()
    await source.data(want.handle, b"a" * 600)
    await source.data(want.handle, b"x" * 401)


async def a_frame_of_nothing(source: Source) -> None:
    await source.data((await source.want()).handle, b"")


async def an_unknown_kind(source: Source) -> None:
    await source.send(HEAD.pack(7, (await source.want()).handle, 10) + b"x" * 10)


async def a_handle_never_given(source: Source) -> None:
    await source.data((await source.want()).handle + 1, b"x" * 10)


async def a_huge_frame_for_nobody(source: Source) -> None:
    await source.send(HEAD.pack(DATA, 0xFFFFFFFF, 0xFFFFFFFF) + b"x" * 100)


async def garbage(source: Source) -> None:
    await source.want()
    await source.send(b"\xff" * 5000)


async def http(source: Source) -> None:
    await source.want()
    await source.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")


@pytest.mark.parametrize(
    "misdeed",
    [
        more_than_asked,
        more_in_the_end,
        a_frame_of_nothing,
        an_unknown_kind,
        a_handle_never_given,
        a_huge_frame_for_nobody,
        garbage,
        http,
    ],
)
async def test_what_breaks_the_protocol_ends_the_flow(peers: HttpPeers, misdeed: Misdeed) -> None:
    ended = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await misdeed(Source.opened(exchange))
        await until_closed(exchange)
        ended.set()

    async with scripted_peer(script) as peer:
        piece = Piece(1000)
        with pytest.raises(ProtocolError):
            await piece.fetch(peers, peer.provider)
        assert b"x" not in piece.got
        async with asyncio.timeout(10):
            await ended.wait()


async def test_a_source_may_not_go_on_after_the_end(peers: HttpPeers) -> None:
    """A piece that is whole, or refused, is nobody's: more of it ends the flow for those that are under way."""

    async def script(exchange: Exchange) -> None:
        source = Source.opened(exchange)
        done, refused, other = [await source.want() for _ in range(3)]
        await source.data(done.handle, b"a" * 1000)
        await source.refuse(refused.handle, 404)
        await source.data(done.handle, b"b" * 10)
        await source.data(refused.handle, b"b" * 10)
        await source.data(other.handle, b"b" * 1000)
        await until_closed(exchange)

    async with scripted_peer(script) as peer:
        pieces = [Piece(1000) for _ in range(3)]
        ends = await asyncio.gather(
            *(piece.fetch(peers, peer.provider) for piece in pieces), return_exceptions=True
        )
        assert [type(end) for end in ends] == [type(None), NotFoundError, ProtocolError]
        assert pieces[0].got == b"a" * 1000
        assert b"b" not in pieces[1].got + pieces[2].got


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFoundError), (503, BusyError), (429, BusyError), (409, ProtocolError), (0, ProtocolError)],
)
async def test_refusals(peers: HttpPeers, status: int, error: type[P2PDistError]) -> None:
    async def script(exchange: Exchange) -> None:
        source = Source.opened(exchange)
        want = await source.want()
        await source.refuse(12345, status)  # of nothing that was asked for
        await source.refuse(want.handle, status)
        await source.data((await source.want()).handle, b"a" * 10)
        await until_closed(exchange)

    async with scripted_peer(script) as peer:
        with pytest.raises(error):
            await Piece(1000).fetch(peers, peer.provider)
        piece = Piece(10)
        await piece.fetch(peers, peer.provider)
        assert piece.got == b"a" * 10


async def test_no_answer(peers: HttpPeers) -> None:
    async with scripted_peer(until_closed) as peer:
        with pytest.raises(UnreachableError, match="does not answer"):
            await Piece(10).fetch(peers, peer.provider)


@pytest.mark.parametrize(
    ("status", "error", "match"),
    [
        (401, DeniedError, "refuses"),
        (503, BusyError, "no room"),
        (429, BusyError, "no room"),
        (200, ProtocolError, "answered 200"),
        (404, ProtocolError, "answered 404"),
    ],
)
async def test_answers_that_open_no_flow(
    peers: HttpPeers, status: int, error: type[P2PDistError], match: str
) -> None:
    async def script(exchange: Exchange) -> None:
        challenge = exchange.auth.challenge(exchange.credentials.nonce, exchange.credentials.time_ms)
        exchange.answer(status, {CHALLENGE_HEADER: challenge, "Content-Length": "0"})

    async with scripted_peer(script) as peer:
        with pytest.raises(error, match=match):
            await Piece(10).fetch(peers, peer.provider)


async def test_a_stranger_at_a_peers_address_is_not_believed(peers: HttpPeers) -> None:
    async def unsealed(exchange: Exchange) -> None:
        exchange.answer(101, UPGRADE, sealed=False)
        await until_closed(exchange)

    async def sealed(exchange: Exchange) -> None:
        exchange.answer(101, UPGRADE)
        await until_closed(exchange)

    for script, auth in (
        (unsealed, None),
        (sealed, auth_of("scripted", OTHER_KEY)),
        (sealed, auth_of("another member")),
    ):
        async with scripted_peer(script, auth) as peer:
            with pytest.raises(ProtocolError, match="not from it"):
                await Piece(10).fetch(peers, peer.provider)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 X\r\n" + b"X: y\r\n" * 2000,
        b"HTTP/1.1 101 X\r\nX: " + b"y" * (2 * MAX_HEAD),
        b"HTTP/1.1 101 X\r\nX: y\r\nx: z\r\n\r\n",
        b"HTTP/1.1 101 X\r\nnonsense\r\n\r\n",
        b"HTTP/1.1 101 X\r\n" + b"".join(b"X%d: y\r\n" % number for number in range(40)) + b"\r\n",
        b"HTTP/1.0 101 X\r\n\r\n",
        b"HTTP/1.1 999 X\r\n\r\n",
        b"220 mail\r\n\r\n",
        b"\0" * (2 * MAX_HEAD),
        b"\r\n\r\n",
    ],
    ids=[
        "endless headers",
        "an endless header",
        "twice",
        "no colon",
        "40 headers",
        "1.0",
        "999",
        "mail",
        "zeros",
        "empty",
    ],
)
async def test_what_is_no_answer(peers: HttpPeers, answer: bytes) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.send(answer)
        await until_closed(exchange)

    async with scripted_peer(script) as peer:
        with pytest.raises(ProtocolError) as caught:
            await Piece(10).fetch(peers, peer.provider)
        assert "mac" not in str(caught.value)


async def test_frames_before_the_first_want_are_refused(peers: HttpPeers) -> None:
    async def script(exchange: Exchange) -> None:
        headers = {"P2PDist-Peer": exchange.auth.own.hex, **UPGRADE}
        headers["P2PDist-Mac"] = exchange.auth.seal(exchange.credentials, 101, headers)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await exchange.send(f"HTTP/1.1 101 X\r\n{lines}\r\n".encode() + HEAD.pack(DATA, 1, 10) + b"x" * 10)
        await until_closed(exchange)

    async with scripted_peer(script) as peer:
        piece = Piece(10)
        with pytest.raises(ProtocolError, match="before it is asked"):
            await piece.fetch(peers, peer.provider)
        assert piece.got == b"." * 10


async def test_a_frame_that_comes_slowly_is_told_of_while_it_comes(
    peers: HttpPeers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a host passes on what it has of it, long before the frame is whole."""
    monkeypatch.setattr("p2pdist.peers.flow._SLOW", 0.0)  # whatever time it takes is long
    monkeypatch.setattr("p2pdist.peers.flow._SLOW_READ", 0.0)
    part, size = 128 * 1024, 512 * 1024
    piece = Piece(size)

    async def script(exchange: Exchange) -> None:
        source = Source.opened(exchange)
        want = await source.want()
        await source.data(want.handle, b"a" * part, announced=size)
        for _ in range(3):
            await piece.first.wait()
            piece.first.clear()
            await exchange.send(b"a" * part)
        await until_closed(exchange)

    async with scripted_peer(script) as peer, asyncio.timeout(20):
        await piece.fetch(peers, peer.provider)
    assert piece.got == b"a" * size
    assert len(piece.told) >= 3
    assert piece.told == sorted(set(piece.told))
    assert piece.told[-1] < size
