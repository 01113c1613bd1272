"""What peers gave, gathered for spans: exact in bytes, and bounded whatever a swarm does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from p2pdist.errors import BusyError, StalledError
from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.records import Endpoint, PeerId, Provider
from p2pdist.telemetry.peer_spans import MAX_PEERS, PeerPart, PeerTally, TracedPeers

DIGEST = Digest.of(b"content")


def provider(number: int) -> Provider:
    return Provider(PeerId(number.to_bytes(20)), (Endpoint("10.0.0.2", 5051),), "rack-1")


class Peer:
    """One peer: ``steps`` of its pieces and chunks arrive, then ``error`` is raised."""

    def __init__(self, steps: tuple[int, ...] = (), error: BaseException | None = None) -> None:
        self.steps = steps
        self.error = error

    async def stat(self, provider: Provider, digest: Digest) -> BlobStat:
        if self.error is not None:
            raise self.error
        return BlobStat(digest, 9)

    async def piece(
        self,
        provider: Provider,
        digest: Digest,
        offset: int,
        size: int,
        buffer: memoryview,
        on_progress: Callable[[int], None],
    ) -> None:
        for step in self.steps:
            on_progress(step)
        if self.error is not None:
            raise self.error

    @asynccontextmanager
    async def blob(
        self, provider: Provider, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[Peer]:
        if self.error is not None and not self.steps:
            raise self.error
        yield self

    size, start, media_type = 9, 0, "text/plain"

    async def chunks(self) -> AsyncIterator[bytes]:
        for step in self.steps:
            yield bytes(step)
        if self.error is not None:
            raise self.error


class Watch:
    def __init__(self, looks: bool = True) -> None:
        self.tally = PeerTally()
        self.looks = looks

    def peer_part(self, digest: Digest, provider: Provider, kind: str) -> PeerPart | None:
        return self.tally.of(provider) if self.looks else None


async def ask(peer: Peer, watch: Watch, progress: list[int] | None = None) -> None:
    told = progress if progress is not None else []
    await TracedPeers(peer, watch).piece(provider(1), DIGEST, 0, 9, memoryview(bytearray(9)), told.append)


def figures(watch: Watch) -> tuple[int, int, int]:
    (part,) = watch.tally.parts()
    return part.size, part.requests, part.failures


async def test_bytes_are_those_that_arrived() -> None:
    watch = Watch()
    progress: list[int] = []
    await ask(Peer((4, 9)), watch, progress)
    assert progress == [4, 9]
    assert figures(watch) == (9, 1, 0)
    with pytest.raises(StalledError):
        await ask(Peer((3, 5), StalledError("nothing came")), watch)
    assert figures(watch) == (14, 2, 1)
    with pytest.raises(asyncio.CancelledError):  # the swarm has it from elsewhere: no fault of the peer
        await ask(Peer((2,), asyncio.CancelledError()), watch)
    assert figures(watch) == (16, 3, 1)
    (part,) = watch.tally.parts()
    assert part.attributes() == {
        "p2pdist.peer": "00" * 19 + "01",
        "p2pdist.peer_zone": "rack-1",
        "server.address": "10.0.0.2",
        "server.port": 5051,
        "p2pdist.peer_bytes": 16,
        "p2pdist.requests": 3,
        "p2pdist.failures": 1,
        "p2pdist.last_error": "StalledError: nothing came",
        "p2pdist.active_ms": part.active // 1_000_000,
    }


async def test_streams_and_sizes_count_as_well() -> None:
    watch = Watch()
    peers = TracedPeers(Peer((4, 5)), watch)
    async with peers.blob(provider(1), DIGEST) as stream:
        assert (stream.size, stream.start, stream.media_type) == (9, 0, "text/plain")
        assert [len(chunk) async for chunk in stream.chunks()] == [4, 5]
    assert figures(watch) == (9, 1, 0)
    assert await peers.stat(provider(1), DIGEST) == BlobStat(DIGEST, 9)
    assert figures(watch) == (9, 2, 0)
    with pytest.raises(BusyError):
        await TracedPeers(Peer(error=BusyError("later", 1.0)), watch).stat(provider(1), DIGEST)
    with pytest.raises(BusyError):
        async with TracedPeers(Peer(error=BusyError("later", 1.0)), watch).blob(provider(1), DIGEST):
            pass
    assert figures(watch) == (9, 4, 2)


async def test_where_nobody_looks_the_port_is_used_as_it_is() -> None:
    watch, peer = Watch(looks=False), Peer((4,))
    progress: list[int] = []
    await ask(peer, watch, progress)
    assert progress == [4]
    async with TracedPeers(peer, watch).blob(provider(1), DIGEST) as stream:
        assert stream is peer
    assert watch.tally.parts() == []


def test_so_many_peers_have_a_part_and_the_others_one_together() -> None:
    tally = PeerTally()
    for number in [*range(MAX_PEERS + 5), *range(MAX_PEERS + 5)]:
        with tally.of(provider(number)).asked() as request:
            request.size = 10
    parts = tally.parts()
    assert len(parts) == MAX_PEERS + 1
    assert [part.size for part in parts] == [20] * MAX_PEERS + [100]
    assert parts[-1].attributes()["p2pdist.peers"] == 5
    assert "p2pdist.peer" not in parts[-1].attributes()


def test_time_in_which_two_requests_are_under_way_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr("time.time_ns", lambda: now[0] * 1_000_000)
    part = PeerPart(provider(1), 0)
    with part.asked():
        now[0] = 10
        with part.asked():
            now[0] = 30
        now[0] = 40
        assert part.attributes()["p2pdist.active_ms"] == 40
    now[0] = 100
    with part.asked():
        now[0] = 105
    assert (part.attributes()["p2pdist.active_ms"], part.ended) == (45, 105_000_000)


def test_an_error_s_text_is_bounded() -> None:
    part = PeerPart(provider(1), 0)
    with pytest.raises(StalledError), part.asked():
        raise StalledError("x" * 10_000)
    assert len(str(part.attributes()["p2pdist.last_error"])) == 200
