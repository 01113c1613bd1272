"""Two agents' peer sides over real sockets: what passes, and what each failure looks like to the transfer layer."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pdist.api.peer import PeerServerSettings
from p2pdist.errors import (
    BusyError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    UnreachableError,
)
from p2pdist.oci.digest import Digest
from p2pdist.records import Endpoint, Provider
from p2pdist.testing.clock import ManualClock
from p2pdist.testing.tls import TestAuthority
from p2pdist.wire.http_verifier import Refusal
from tests.support_peers import OTHER_KEY, CountingClientHooks, PeerBench, fetch, peer_id
from tests.support_tls import peer_tls

DATA = random.Random(7).randbytes(3 * 1024 * 1024 + 17)


async def test_a_blob_travels_whole_and_is_counted_to_the_byte(bench: PeerBench) -> None:
    hooks = CountingClientHooks()
    async with bench.peer() as seed, bench.client(hooks=hooks) as peers:
        digest = seed.shelf.put(DATA, "application/vnd.oci.image.layer.v1.tar+gzip")
        async with peers.blob(seed.provider, digest) as stream:
            assert (stream.size, stream.start) == (len(DATA), 0)
            assert stream.media_type == "application/vnd.oci.image.layer.v1.tar+gzip"
            assert b"".join([chunk async for chunk in stream.chunks()]) == DATA
    assert hooks.bytes_received == len(DATA)
    assert hooks.bodies == [(peer_id("seed"), len(DATA))]
    assert await seed.bytes_sent() == len(DATA)
    assert seed.shelf.open_readers == 0


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 1), (1, None), (1_000_000, 1_500_000), (len(DATA) - 1, None), (len(DATA), None), (5, 0)],
)
async def test_a_part_is_resumed_at_its_byte(bench: PeerBench, offset: int, length: int | None) -> None:
    async with bench.peer() as seed, bench.client() as peers:
        digest = seed.shelf.put(DATA)
        stop = len(DATA) if length is None else offset + length
        assert await fetch(peers, seed.provider, digest, offset, length) == DATA[offset:stop]


async def test_empty_blobs_and_memory_stores_are_served_too(bench: PeerBench) -> None:
    bench.files = False
    async with bench.peer() as seed, bench.client() as peers:
        assert await fetch(peers, seed.provider, seed.shelf.put(b"")) == b""
        assert await fetch(peers, seed.provider, seed.shelf.put(DATA), 5) == DATA[5:]


async def test_stat_tells_size_and_type_without_a_body(bench: PeerBench) -> None:
    async with bench.peer() as seed, bench.client() as peers:
        digest = seed.shelf.put(b"{}", "application/vnd.oci.image.manifest.v1+json")
        stat = await peers.stat(seed.provider, digest)
        assert (stat.size, stat.media_type) == (2, "application/vnd.oci.image.manifest.v1+json")
        assert await seed.bytes_sent() == 0


async def test_absent_and_unshared_blobs_look_the_same(bench: PeerBench) -> None:
    async with bench.peer() as seed, bench.client() as peers:
        private = seed.shelf.put(b"private", shared=False)
        messages = []
        for digest in (private, Digest.of(b"nobody has this")):
            with pytest.raises(NotFoundError) as caught:
                await fetch(peers, seed.provider, digest)
            messages.append(str(caught.value).replace(str(digest), "DIGEST"))
            with pytest.raises(NotFoundError):
                await peers.stat(seed.provider, digest)
        assert messages[0] == messages[1]
        assert seed.shelf.open_readers == 0


async def test_a_range_beyond_the_blob_is_an_error(bench: PeerBench) -> None:
    async with bench.peer() as seed, bench.client() as peers:
        digest = seed.shelf.put(b"0123456789")
        for offset, length in ((11, None), (10, 1), (5, 6)):
            with pytest.raises(ProtocolError):
                await fetch(peers, seed.provider, digest, offset, length)
        with pytest.raises(InvalidInputError):
            peers.blob(seed.provider, digest, -1)


async def test_a_connection_is_used_again(bench: PeerBench) -> None:
    async with bench.peer() as seed, bench.client() as peers:
        digest = seed.shelf.put(DATA)
        for offset in range(5):
            assert await fetch(peers, seed.provider, digest, offset) == DATA[offset:]
            with pytest.raises(NotFoundError):
                await fetch(peers, seed.provider, Digest.of(b"absent"))
        assert seed.listener.connections == 1
        assert seed.listener.strangers == 0


async def test_a_busy_peer_says_when_to_come_back(bench: PeerBench) -> None:
    settings = PeerServerSettings(name="seed", max_uploads=1)
    async with bench.peer(settings=settings) as seed, bench.client() as peers:
        digest = seed.shelf.put(DATA * 10)
        small = seed.shelf.put(b"a manifest")
        async with peers.blob(seed.provider, digest) as stream:
            async for _ in stream.chunks():
                with pytest.raises(BusyError) as caught:
                    await fetch(peers, seed.provider, digest)
                assert caught.value.retry_after == 0.25
                assert await fetch(peers, seed.provider, small) == b"a manifest"
                break
        assert seed.hooks.times_busy == 1


async def test_one_peer_cannot_take_all_slots(bench: PeerBench) -> None:
    settings = PeerServerSettings(name="seed", max_uploads=4, max_uploads_per_peer=1)
    async with bench.peer(settings=settings) as seed, bench.client() as one, bench.client("other") as two:
        digest = seed.shelf.put(DATA * 10)
        async with one.blob(seed.provider, digest) as stream:
            await anext(stream.chunks())
            with pytest.raises(BusyError):
                await fetch(one, seed.provider, digest)
            assert await fetch(two, seed.provider, digest, 0, 100_000) == DATA[:100_000]


async def test_a_slot_comes_back_when_a_client_leaves_early(bench: PeerBench) -> None:
    settings = PeerServerSettings(name="seed", max_uploads=1)
    async with bench.peer(settings=settings) as seed, bench.client() as peers:
        digest = seed.shelf.put(DATA * 20)
        async with peers.blob(seed.provider, digest) as stream:
            await anext(stream.chunks())
        assert await seed.bytes_sent() < 20 * len(DATA)
        assert await fetch(peers, seed.provider, digest, 0, 100_000) == DATA[:100_000]


async def test_another_cluster_key_is_denied(bench: PeerBench) -> None:
    async with bench.peer() as seed, bench.client(key=OTHER_KEY) as peers:
        digest = seed.shelf.put(DATA)
        with pytest.raises(DeniedError):
            await fetch(peers, seed.provider, digest)
        with pytest.raises(DeniedError):
            await peers.stat(seed.provider, digest)
        assert seed.hooks.refusals == [Refusal.MAC, Refusal.MAC]
        assert await seed.bytes_sent() == 0


@pytest.mark.parametrize("skew", [-86_400.0, 3_600.0])
async def test_a_clock_that_is_wrong_costs_one_repetition(bench: PeerBench, skew: float) -> None:
    there, here = ManualClock(), ManualClock()
    here.set_wall(here.wall() + skew)
    async with bench.peer(clock=there) as seed, bench.client(clock=here) as peers:
        digest = seed.shelf.put(b"content")
        assert await fetch(peers, seed.provider, digest) == b"content"
        assert seed.hooks.refusals == [Refusal.TIME]
        assert await fetch(peers, seed.provider, digest) == b"content"
        assert seed.hooks.refusals == [Refusal.TIME]


async def test_a_dead_port_is_unreachable(bench: PeerBench) -> None:
    async with bench.peer() as seed:
        provider = seed.provider
    async with bench.client() as peers:
        with pytest.raises(UnreachableError):
            await fetch(peers, provider, Digest.of(b""))


async def test_unusable_addresses_are_never_asked(bench: PeerBench) -> None:
    endpoints = (Endpoint("metadata.internal", 80), Endpoint("0.0.0.0", 80), Endpoint("127.0.0.1", 0))
    async with bench.client() as peers:
        with pytest.raises(UnreachableError, match="no address"):
            await fetch(peers, Provider(peer_id("seed"), endpoints), Digest.of(b""))


async def test_dead_addresses_and_other_agents_at_an_address_are_passed_over(bench: PeerBench) -> None:
    """Container bridges have the same address on every host: it may lead to another agent."""
    async with bench.peer("dead") as gone:
        dead = gone.endpoint
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(bench.peer("other"))
        seed = await stack.enter_async_context(bench.peer("seed"))
        peers = await stack.enter_async_context(bench.client())
        digest = seed.shelf.put(DATA)
        provider = Provider(peer_id("seed"), (dead, other.endpoint, seed.endpoint))
        assert await fetch(peers, provider, digest) == DATA
        refused = len(other.hooks.refusals)
        assert refused
        assert await fetch(peers, provider, digest) == DATA
        assert len(other.hooks.refusals) == refused, "the way that worked is remembered"
        with pytest.raises(ProtocolError, match="answers where"):
            await fetch(peers, Provider(peer_id("seed"), (other.endpoint,)), digest)


async def test_ipv6(bench: PeerBench) -> None:
    async with bench.peer(host="::1") as seed, bench.client() as peers:
        digest = seed.shelf.put(DATA)
        assert await fetch(peers, seed.provider, digest, 3) == DATA[3:]


async def test_hello_tells_who_is_there(bench: PeerBench) -> None:
    settings = PeerServerSettings(name="höst 1", zone="rack/7", version="1.2.3")
    async with bench.peer(settings=settings) as seed, bench.client() as peers:
        for expected in (None, peer_id("seed")):
            hello = await peers.hello(seed.endpoint, expected)
            assert (hello.peer, hello.name, hello.zone, hello.version) == (
                peer_id("seed"),
                "höst 1",
                "rack/7",
                "1.2.3",
            )
        with pytest.raises(ProtocolError):
            await peers.hello(seed.endpoint, peer_id("somebody else"))
    async with bench.peer() as seed, bench.client(key=OTHER_KEY) as stranger:
        with pytest.raises(DeniedError):
            await stranger.hello(seed.endpoint)


async def test_a_certificate_of_another_authority_is_denied(tmp_path: Path) -> None:
    ours, theirs = TestAuthority("ours"), TestAuthority("theirs")
    member, outsider = peer_tls(tmp_path / "member", ours), peer_tls(tmp_path / "outsider", theirs)
    bench = PeerBench(tmp_path)
    async with bench.peer(tls=member) as seed:
        async with bench.client(tls=outsider) as peers:
            with pytest.raises(DeniedError, match="authority"):
                await fetch(peers, seed.provider, Digest.of(b""))
        async with bench.client() as plain:
            with pytest.raises(UnreachableError):
                await fetch(plain, seed.provider, Digest.of(b""))


async def test_environment_proxies_are_not_used(bench: PeerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with bench.peer() as seed, bench.client() as peers:
        assert await fetch(peers, seed.provider, seed.shelf.put(b"content")) == b"content"


async def test_a_damaged_file_cuts_the_body(bench: PeerBench) -> None:
    async with bench.peer() as seed, bench.client() as peers:
        digest = seed.shelf.put(DATA)
        seed.shelf.damage(digest, 100_000)
        with pytest.raises(UnreachableError):
            await fetch(peers, seed.provider, digest)
        assert await seed.bytes_sent() == 100_000
