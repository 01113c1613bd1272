"""The sending end of flows, as a member that is careful, careless or hostile sees it on the wire."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import groupby
from pathlib import Path

import pytest

from p2pdist.api import flow, flow_output
from p2pdist.api.flow_wants import MAX_BLOBS, MAX_WANTS
from p2pdist.errors import P2PDistError
from p2pdist.oci.digest import Digest
from p2pdist.peers.http_client import HttpPeers
from p2pdist.peers.settings import PeerClientSettings
from p2pdist.swarm.planner import LONGEST_PATIENCE
from p2pdist.swarm.settings import PlannerSettings
from p2pdist.testing.swarm_traffic import PIECE_WAIT
from p2pdist.testing.tls import TestAuthority
from p2pdist.wire.flow_frames import HEAD, MAX_REQUEST, REQUESTS, encode_want
from p2pdist.wire.flow_frames import Want as WantFrame
from tests.adapters.api.test_peer import authorized, wire_to
from tests.support_flow import Arriving, Asker, asker, open_descriptors, until
from tests.support_peers import PeerBench, ServedPeer
from tests.support_tls import peer_tls

KIB = 1024
MIB = 1024 * KIB
DATA = random.Random(1).randbytes(3 * MIB)
OTHER = random.Random(2).randbytes(MIB + 17)
ABSENT = Digest.of(b"absent")


@pytest.fixture(params=["plain", "tls"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> PeerBench:
    if request.param == "plain":
        return PeerBench(tmp_path)
    return PeerBench(tmp_path, peer_tls(tmp_path / "tls", TestAuthority()))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for seconds waits for moments."""
    monkeypatch.setattr(flow, "_CHECK", 0.02)
    monkeypatch.setattr(flow, "WAIT", 0.1)


def flow_to(bench: PeerBench, peer: ServedPeer, **options: object):  # type: ignore[no-untyped-def]
    tls = bench.tls.client_context() if bench.tls else None
    return asker(peer, tls=tls, **options)  # type: ignore[arg-type]


async def test_a_range_of_a_held_blob(bench: PeerBench) -> None:
    async with bench.peer() as seed, flow_to(bench, seed) as flow_:
        digest = seed.shelf.put(DATA)
        flow_.want(7, digest, 1000, 2 * MIB, len(DATA))
        assert await flow_.body(7, 2 * MIB) == DATA[1000 : 1000 + 2 * MIB]
        flow_.want(7, digest, len(DATA) - 1, 1, len(DATA))  # a handle may be used again
        assert await flow_.body(7, 1) == DATA[-1:]


async def test_wants_are_served_in_the_order_in_which_they_came(bench: PeerBench) -> None:
    """So pieces come one after the other, and can be passed on, rather than all at once, late."""
    async with bench.peer() as seed, flow_to(bench, seed) as flow_:
        digests = {3: seed.shelf.put(DATA), 1: seed.shelf.put(OTHER), 2: seed.shelf.put(DATA)}
        lengths = {3: 2 * MIB, 1: MIB, 2: MIB + 1}
        for handle, digest in digests.items():
            size = len(OTHER if handle == 1 else DATA)
            flow_.want(handle, digest, 5 * handle, lengths[handle], size)
        got, order = dict.fromkeys(digests, b""), list[int]()
        while sum(map(len, got.values())) < sum(lengths.values()):
            _, handle, data = await flow_.frame()
            assert isinstance(data, bytes)
            assert len(data) <= flow.FRAME
            got[handle] += data
            order.append(handle)
    for handle, data in got.items():
        assert data == (OTHER if handle == 1 else DATA)[5 * handle : 5 * handle + lengths[handle]]
    assert [handle for handle, _ in groupby(order)] == [3, 1, 2]


async def test_a_want_that_waits_lets_others_by_and_comes_before_later_ones_when_it_can(
    bench: PeerBench, tmp_path: Path
) -> None:
    blob = Arriving(tmp_path / "part", DATA)
    partials = {blob.digest: blob}
    async with bench.peer(partials=partials.get) as seed, flow_to(bench, seed) as flow_:
        whole = seed.shelf.put(OTHER)
        flow_.want(1, blob.digest, 0, 1000, blob.size)
        flow_.want(2, whole, 0, 1000, len(OTHER))
        assert await flow_.body(2, 1000) == OTHER[:1000]
        flow_.want(3, blob.digest, 1000, 1000, blob.size)
        await until(lambda: len(blob.watchers) == 1)
        blob.come(0, 2000)
        assert await flow_.body(1, 1000) == DATA[:1000]
        assert await flow_.body(3, 1000) == DATA[1000:2000]


def test_who_waits_for_a_piece_asks_elsewhere_before_it_is_refused() -> None:
    """A refusal says that the piece will not come; of one that is on its way round the ring that is not true."""
    longest = LONGEST_PATIENCE * PlannerSettings().relay_stall
    assert longest < flow.WAIT < PeerClientSettings().piece_timeout
    assert flow.WAIT == PIECE_WAIT  # what the simulator reckons with


async def test_a_store_without_files_serves_too(bench: PeerBench) -> None:
    bench.files = False
    async with bench.peer() as seed, flow_to(bench, seed) as flow_:
        flow_.want(1, seed.shelf.put(DATA), 10, 2 * MIB, len(DATA))
        assert await flow_.body(1, 2 * MIB) == DATA[10 : 10 + 2 * MIB]


async def test_what_is_refused_and_why(bench: PeerBench) -> None:
    async with bench.peer() as seed, flow_to(bench, seed) as flow_:
        shared, private = seed.shelf.put(DATA), seed.shelf.put(OTHER, shared=False)
        flow_.want(1, ABSENT, 0, 1, 1)
        assert await flow_.refused() == (1, 404)
        flow_.want(2, private, 0, 1, len(OTHER))
        assert await flow_.refused() == (2, 404)
        flow_.want(3, shared, 0, 1, len(DATA) + 1)
        assert await flow_.refused() == (3, 409)
        assert seed.shelf.open_readers == 0
        flow_.want(4, shared, 0, 1, len(DATA))  # a refusal is no end
        assert await flow_.body(4, 1) == DATA[:1]


async def test_a_handle_in_use_is_not_given_twice(bench: PeerBench, tmp_path: Path) -> None:
    blob = Arriving(tmp_path / "part", DATA)
    async with bench.peer(partials=lambda digest: blob) as seed, flow_to(bench, seed) as flow_:
        flow_.want(1, blob.digest, 0, 10, blob.size)
        flow_.want(1, blob.digest, 10, 10, blob.size)
        assert await flow_.refused() == (1, 404)
        blob.come(0, 100)
        assert await flow_.body(1, 10) == DATA[:10]


async def test_a_cancelled_want_ends(bench: PeerBench, tmp_path: Path) -> None:
    blob = Arriving(tmp_path / "part", DATA)
    async with bench.peer(partials=lambda digest: blob) as seed, flow_to(bench, seed) as flow_:
        blob.come(0, 100)
        flow_.want(1, blob.digest, 0, 1000, blob.size)
        flow_.want(2, blob.digest, 50, 1000, blob.size)
        first = {(await flow_.frame())[1] for _ in range(2)}
        assert first == {1, 2}
        flow_.cancel(1)
        flow_.cancel(99)  # unknown: nothing to do
        flow_.want(3, ABSENT, 0, 1, 1)
        blob.digest = Digest.of(b"another")
        _, handle, _ = await flow_.frame()  # the cancel before it has been taken
        while handle != 3:
            _, handle, _ = await flow_.frame()
        blob.come(100, 2000)
        assert await flow_.body(2, 950) == DATA[100:1050]


async def test_a_blob_that_is_still_arriving(bench: PeerBench, tmp_path: Path) -> None:
    """Bytes go out as they come; a frame never begins before its bytes are there."""
    blob = Arriving(tmp_path / "part", DATA)
    async with bench.peer(partials=lambda digest: blob) as seed, flow_to(bench, seed) as flow_:
        flow_.want(1, blob.digest, 1000, 3000, blob.size)
        flow_.want(2, blob.digest, 0, 10, blob.size)
        blob.come(0, 1500)
        got = Counter[int]()
        for _ in range(2):
            _, handle, data = await flow_.frame()
            assert isinstance(data, bytes)
            start = 1000 if handle == 1 else 0
            assert data == DATA[start : start + len(data)]
            got[handle] += len(data)
        assert got == {1: 500, 2: 10}
        blob.come(2000, len(DATA))  # not the next ones
        blob.come(1500, 1600)
        assert await flow_.body(1, 100) == DATA[1500:1600]
        blob.come(1600, 2000)
        assert await flow_.body(1, 2400) == DATA[1600:4000]
        await until(lambda: not blob.watchers)


@pytest.mark.usefixtures("impatient")
async def test_a_blob_that_fails_is_refused(bench: PeerBench, tmp_path: Path) -> None:
    blob = Arriving(tmp_path / "part", DATA)
    async with bench.peer(partials=lambda digest: blob) as seed, flow_to(bench, seed) as flow_:
        blob.come(0, 10)
        flow_.want(1, blob.digest, 0, 100, blob.size)
        assert await flow_.body(1, 10) == DATA[:10]
        blob.fail()
        assert await flow_.refused() == (1, 404)
        flow_.want(2, blob.digest, 0, 100, blob.size)
        assert await flow_.refused() == (2, 404)
        assert not blob.watchers


@pytest.mark.usefixtures("impatient")
async def test_a_failed_blob_that_is_fetched_anew_serves_new_wants(bench: PeerBench, tmp_path: Path) -> None:
    """The old want must end, and never read from a descriptor that is closed."""
    old, new = Arriving(tmp_path / "old", DATA), Arriving(tmp_path / "new", DATA)
    current = [old]
    async with bench.peer(partials=lambda digest: current[0]) as seed, flow_to(bench, seed) as flow_:
        old.come(0, 10)
        flow_.want(1, old.digest, 0, 100, old.size)
        assert await flow_.body(1, 10) == DATA[:10]
        current[0] = new
        new.come(0, len(DATA))
        old.fail()
        flow_.want(2, new.digest, 0, 100, new.size)
        frames = sorted([await flow_.frame(), await flow_.frame()], key=lambda frame: frame[1])
        assert frames == [(2, 1, 404), (1, 2, DATA[:100])]
        old.failed = False
        old.come(10, 200)  # nobody listens any more
        flow_.want(3, new.digest, 5, 5, new.size)
        assert await flow_.body(3, 5) == DATA[5:10]


async def test_a_blob_that_is_committed_meanwhile_is_served_to_its_end(
    bench: PeerBench, tmp_path: Path
) -> None:
    """A commit renames the file: the descriptor of the want stays good."""
    blob = Arriving(tmp_path / "part", DATA)
    found = [blob]
    async with (
        bench.peer(partials=lambda digest: found[0] if found else None) as seed,
        flow_to(bench, seed) as flow_,
    ):
        blob.come(0, 10)
        flow_.want(1, blob.digest, 0, 100, blob.size)
        assert await flow_.body(1, 10) == DATA[:10]
        seed.shelf.put(DATA)
        found.clear()
        blob.path.rename(tmp_path / "whole")
        blob.path.write_bytes(b"")
        blob.path = tmp_path / "whole"
        blob.come(10, len(DATA))
        assert await flow_.body(1, 90) == DATA[10:100]
        flow_.want(2, blob.digest, 100, 100, blob.size)
        assert await flow_.body(2, 100) == DATA[100:200]


async def test_a_blob_without_a_file_is_not_served(bench: PeerBench, tmp_path: Path) -> None:
    blob = Arriving(tmp_path / "part", DATA)
    blob.has_file = False
    async with bench.peer(partials=lambda digest: blob) as seed, flow_to(bench, seed) as flow_:
        flow_.want(1, blob.digest, 0, 100, blob.size)
        assert await flow_.refused() == (1, 404)
        assert not blob.watchers


@pytest.mark.usefixtures("impatient")
async def test_a_want_of_which_nothing_comes_is_refused(bench: PeerBench, tmp_path: Path) -> None:
    blob = Arriving(tmp_path / "part", DATA)
    async with bench.peer(partials=lambda digest: blob) as seed, flow_to(bench, seed) as flow_:
        flow_.want(1, blob.digest, 0, 100, blob.size)
        assert await flow_.refused() == (1, 404)


@pytest.mark.usefixtures("impatient")
async def test_a_late_want_is_refused_however_busy_the_flow_is(bench: PeerBench, tmp_path: Path) -> None:
    """News of other parts of the blob, and of other wants, must not put the refusal off."""
    blob = Arriving(tmp_path / "part", DATA)

    async def news() -> None:
        while True:
            blob.tell()
            await asyncio.sleep(0)

    async with bench.peer(partials=lambda digest: blob) as seed, flow_to(bench, seed) as flow_:
        flow_.want(1, blob.digest, 0, 100, blob.size)
        noise = asyncio.ensure_future(news())
        try:
            async with asyncio.timeout(10):
                assert await flow_.refused() == (1, 404)
        finally:
            noise.cancel()


async def test_wants_are_bounded(bench: PeerBench, tmp_path: Path) -> None:
    blob = Arriving(tmp_path / "part", DATA)
    async with bench.peer(partials=lambda digest: blob) as seed, flow_to(bench, seed) as flow_:
        for handle in range(MAX_WANTS + 1):
            flow_.want(handle, blob.digest, 0, 1, blob.size)
        assert await flow_.refused() == (MAX_WANTS, 503)
        flow_.cancel(0)
        flow_.want(1000, blob.digest, 0, 1, blob.size)
        flow_.want(1001, blob.digest, 0, 1, blob.size)
        assert await flow_.refused() == (1001, 503)  # so the two before have been taken
        blob.come(0, 1)
        served = {(await flow_.frame())[1] for _ in range(MAX_WANTS)}
        assert served == {*range(1, MAX_WANTS), 1000}


async def test_open_blobs_are_bounded(bench: PeerBench, tmp_path: Path) -> None:
    count = MAX_BLOBS + 5
    blobs = [Arriving(tmp_path / f"part{index}", DATA[index : index + 100]) for index in range(count)]
    by_digest = {blob.digest: blob for blob in blobs}
    async with bench.peer(partials=by_digest.get) as seed, flow_to(bench, seed) as flow_:
        for handle, blob in enumerate(blobs):
            flow_.want(handle, blob.digest, 0, 100, blob.size)
        refused = [await flow_.refused() for _ in range(5)]
        assert refused == [(handle, 503) for handle in range(MAX_BLOBS, count)]
        assert sum(len(blob.watchers) for blob in blobs) == MAX_BLOBS
        blobs[0].come(0, 100)
        assert await flow_.body(0, 100) == DATA[:100]
        flow_.want(99, blobs[-1].digest, 0, 100, blobs[-1].size)  # there is room again
        blobs[-1].come(0, 100)
        assert await flow_.body(99, 100) == DATA[count - 1 : count + 99]


async def test_flows_of_one_peer_are_bounded(bench: PeerBench) -> None:
    async with bench.peer() as seed:
        digest = seed.shelf.put(DATA)
        flows = [flow_to(bench, seed) for _ in range(flow.MAX_FLOWS)]
        opened = [await each.__aenter__() for each in flows]
        async with flow_to(bench, seed, status=503):
            pass
        async with flow_to(bench, seed, name="another") as other:
            other.want(1, digest, 0, 1, len(DATA))
            assert await other.body(1, 1) == DATA[:1]
        for each in flows:
            await each.__aexit__(None, None, None)
        await until(lambda: seed.listener.connections == 0)
        assert len(opened) == flow.MAX_FLOWS
        async with flow_to(bench, seed):
            pass


async def stays(flow_: Asker, digest: Digest) -> None:
    flow_.want(1, digest, 0, 10, len(DATA))
    assert await flow_.body(1, 10) == DATA[:10]


@pytest.mark.parametrize("wrong", ["mac", "replayed", "too long", "no request", "impossible", "too many"])
async def test_what_is_malformed_or_forged_ends_the_flow(bench: PeerBench, wrong: str) -> None:
    async with bench.peer() as seed, flow_to(bench, seed) as flow_:
        digest = seed.shelf.put(DATA)
        await stays(flow_, digest)
        payload = encode_want(WantFrame(2, digest, 0, 10, len(DATA)))
        if wrong == "mac":
            flow_.writer.write(REQUESTS.pack(bytes(16), payload))
        elif wrong == "replayed":
            whole = REQUESTS.pack(flow_.seal.next(payload), payload)
            flow_.writer.write(whole)
            assert await flow_.body(2, 10) == DATA[:10]
            flow_.writer.write(whole)
        elif wrong == "too long":
            flow_.writer.write((MAX_REQUEST + 1).to_bytes(2, "big") + bytes(16))
        elif wrong == "no request":
            flow_.send(b"\7nonsense")
        elif wrong == "impossible":
            flow_.want(2, digest, len(DATA), 10, len(DATA))
        else:
            cancels = b"".join(
                REQUESTS.pack(flow_.seal.next(b"\2" + bytes(4)), b"\2" + bytes(4))
                for _ in range(2 * MAX_WANTS + 1)
            )
            flow_.writer.write(cancels)
        assert await flow_.ended() == 0
        await until(lambda: seed.listener.connections == 0)
        assert seed.shelf.open_readers == 0


async def test_a_flow_needs_the_key(bench: PeerBench) -> None:
    if bench.tls is not None:
        bench.tls = None  # who proves nothing is refused alike: in clear it can be written by hand
    async with bench.peer() as seed:
        async with wire_to(seed) as wire:
            assert (await wire.ask("GET", "/p2p/v1/flow")).status == 401
        for method in ("HEAD", "POST"):
            async with wire_to(seed) as wire:
                answer = await wire.ask(method, "/p2p/v1/flow", **authorized(method, "/p2p/v1/flow"))
                assert answer.status == 405


async def test_the_account_is_exact(bench: PeerBench, tmp_path: Path) -> None:
    """What was sent, refusals and heads aside; also of a want that was cancelled."""
    blob = Arriving(tmp_path / "part", OTHER)
    partials = {blob.digest: blob}.get
    async with bench.peer(partials=partials) as seed, flow_to(bench, seed) as flow_:
        digest = seed.shelf.put(DATA)
        flow_.want(1, digest, 3, 2 * MIB, len(DATA))
        await flow_.body(1, 2 * MIB)
        flow_.want(2, ABSENT, 0, 1, 1)
        await flow_.refused()
        blob.come(0, 777)
        flow_.want(3, blob.digest, 0, 1000, blob.size)
        await flow_.body(3, 777)
        flow_.cancel(3)
        flow_.want(4, ABSENT, 0, 1, 1)
        await flow_.refused()
        assert seed.hooks.bytes_sent == 2 * MIB + 777


async def test_the_account_is_exact_when_a_flow_is_cut_in_mid_frame(tmp_path: Path) -> None:
    """In clear the kernel's word counts: what it took has left this agent."""
    bench = PeerBench(tmp_path)
    async with bench.peer() as seed, flow_to(bench, seed) as flow_:
        data = random.Random(3).randbytes(16 * MIB)
        digest = seed.shelf.put(data)
        for handle in range(4):
            flow_.want(handle, digest, handle * 4 * MIB, 4 * MIB, len(data))
        _, _, body = await flow_.frame()
        assert isinstance(body, bytes)
        first = len(body)
        # Then nothing is read: the sender fills the buffers, and stands in the middle of a frame.
        flow_.reader._transport.pause_reading()  # type: ignore[attr-defined]
        sent = -1
        while sent != seed.hooks.bytes_sent:
            sent = seed.hooks.bytes_sent
            await asyncio.sleep(0.1)
        assert 0 < sent < 16 * MIB
        assert sent % flow.FRAME
        closing = asyncio.ensure_future(seed.listener.close())
        await until(lambda: seed.listener.connections == 0)
        flow_.reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert first + await body_bytes(flow_) == seed.hooks.bytes_sent
        await closing


async def body_bytes(flow_: Asker) -> int:
    """How many come until the end of the connection, heads aside."""
    data = await flow_.reader.read()
    count, at = 0, 0
    while at + HEAD.size < len(data):
        length = HEAD.unpack_from(data, at)[2]
        at += HEAD.size
        count += min(length, len(data) - at)
        at += length
    return count


async def test_pace_is_told_what_was_sent(bench: PeerBench) -> None:
    paced = list[int]()

    async def pace(size: int) -> None:
        paced.append(size)

    async with bench.peer(pace=pace) as seed, flow_to(bench, seed) as flow_:
        flow_.want(1, seed.shelf.put(DATA), 0, 2 * MIB + 5, len(DATA))
        await flow_.body(1, 2 * MIB + 5)
        await until(lambda: sum(paced) == 2 * MIB + 5)
        assert seed.hooks.bytes_sent == 2 * MIB + 5


async def test_a_file_that_was_cut_short_ends_the_flow(bench: PeerBench) -> None:
    async with bench.peer() as seed, flow_to(bench, seed) as flow_:
        digest = seed.shelf.put(DATA)
        seed.shelf.damage(digest, 1000)
        flow_.want(1, digest, 0, 2000, len(DATA))
        assert await flow_.ended() <= 9 + 1000
        await until(lambda: seed.listener.connections == 0)


@pytest.mark.usefixtures("impatient")
async def test_a_flow_that_nobody_uses_is_closed(bench: PeerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "IDLE", 0.1)
    async with bench.peer() as seed, flow_to(bench, seed) as flow_:
        await stays(flow_, seed.shelf.put(DATA))
        assert await flow_.ended() == 0
        await until(lambda: seed.listener.connections == 0)


async def test_who_takes_no_byte_is_cut(bench: PeerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_output, "PROGRESS_TIMEOUT", 0.3)
    async with bench.peer() as seed, flow_to(bench, seed) as flow_:
        data = random.Random(3).randbytes(16 * MIB)
        digest = seed.shelf.put(data)
        flow_.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for handle in range(4):
            flow_.want(handle, digest, handle * 4 * MIB, 4 * MIB, len(data))
        await until(lambda: seed.listener.connections == 0)
        assert seed.shelf.open_readers == 0


async def test_nothing_is_left_of_flows_that_end_in_any_way(bench: PeerBench, tmp_path: Path) -> None:
    blob = Arriving(tmp_path / "part", OTHER)
    async with bench.peer(partials={blob.digest: blob}.get) as seed:
        digest = seed.shelf.put(DATA)
        await asyncio.to_thread(int)  # the pool's first thread
        before = open_descriptors()
        for way in range(4):
            async with flow_to(bench, seed) as flow_:
                await stays(flow_, digest)
                flow_.want(2, blob.digest, 0, 10, blob.size)  # open to the end
                if way == 1:
                    flow_.writer.write(b"\xff" * 100)
                    await flow_.ended()
                elif way == 2:
                    flow_.want(3, digest, 0, 2 * MIB, len(DATA))
                    await flow_.frame()
                elif way == 3 and bench.tls is None:
                    flow_.writer.write_eof()
                    await flow_.ended()
            await until(lambda: seed.listener.connections == 0)
        await until(lambda: open_descriptors() <= before)
        assert seed.shelf.open_readers == 0
        assert not blob.watchers


async def test_a_listener_that_closes_does_not_wait_for_open_flows(bench: PeerBench, tmp_path: Path) -> None:
    blob = Arriving(tmp_path / "part", OTHER)
    async with bench.peer(partials={blob.digest: blob}.get) as seed:
        async with flow_to(bench, seed) as flow_:
            await stays(flow_, seed.shelf.put(DATA))
            flow_.want(2, blob.digest, 0, 10, blob.size)
            async with asyncio.timeout(5):
                await seed.listener.close()
            assert await flow_.ended() == 0
        assert not blob.watchers
        assert seed.shelf.open_readers == 0


async def test_the_real_client_meets_a_peer_that_restarts(bench: PeerBench) -> None:
    """The flow of before is not used again; what is asked for next goes over a new one."""
    async with bench.client() as peers:
        port = 0
        for _ in range(2):
            async with bench.peer(port=port) as seed:
                port = seed.listener.port
                digest, buffer = seed.shelf.put(DATA), bytearray(1000)
                await fetched(peers, seed, digest, buffer)
                assert buffer == DATA[:1000]


async def fetched(peers: HttpPeers, seed: ServedPeer, digest: Digest, buffer: bytearray) -> None:
    """One that was restarted may be noticed with the first request only."""
    for left in (1, 0):
        try:
            await peers.piece(seed.provider, digest, 0, len(DATA), memoryview(buffer), lambda count: None)
            return
        except P2PDistError:
            if not left:
                raise
