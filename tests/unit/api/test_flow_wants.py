"""The book of what is wanted on a flow: its bounds, its order, and when blobs are let go of."""

from __future__ import annotations

from p2pdist.api.flow_source import BlobSource
from p2pdist.api.flow_wants import BUSY, GONE, MAX_BLOBS, MAX_WANTS, OTHER_SIZE, Wants
from p2pdist.oci.digest import Digest
from p2pdist.wire.flow_frames import Want

SIZE = 1000


class Bytes:
    """A source of which so much is there."""

    file = None
    cold = False
    size = SIZE

    def __init__(self, front: int = SIZE) -> None:
        self.front = front
        self.failed = False
        self.closed = 0

    def ready(self, offset: int) -> int:
        return offset if self.failed else max(offset, self.front)

    async def read(self, offset: int, length: int) -> bytes:
        return bytes(length)

    def close(self) -> None:
        self.closed += 1


class Shelf:
    def __init__(self) -> None:
        self.sources: dict[Digest, Bytes] = {}
        self.opened = 0

    def put(self, name: str, source: Bytes) -> Digest:
        digest = Digest.of(name.encode())
        self.sources[digest] = source
        return digest

    async def open(self, digest: Digest) -> BlobSource | None:
        self.opened += 1
        return self.sources.get(digest)


def want(handle: int, digest: Digest, offset: int = 0, size: int = SIZE) -> Want:
    return Want(handle, digest, offset, 10, size)


async def test_a_blob_is_opened_once_and_closed_with_its_last_want() -> None:
    shelf = Shelf()
    wants, source = Wants(shelf.open), Bytes()
    digest = shelf.put("a", source)
    assert [await wants.take(want(handle, digest), 0.0) for handle in (1, 2)] == [None, None]
    assert shelf.opened == 1
    wants.forget(1)
    wants.forget(1)
    assert (len(wants), source.closed) == (1, 0)
    wants.forget(2)
    assert (len(wants), source.closed) == (0, 1)


async def test_what_is_refused_leaves_nothing_open() -> None:
    shelf = Shelf()
    wants, source = Wants(shelf.open), Bytes()
    digest = shelf.put("a", source)
    assert await wants.take(want(1, Digest.of(b"absent")), 0.0) == GONE
    assert await wants.take(want(1, digest, size=SIZE + 1), 0.0) == OTHER_SIZE
    assert (len(wants), source.closed) == (0, 1)


async def test_wants_and_blobs_are_bounded() -> None:
    shelf = Shelf()
    wants = Wants(shelf.open)
    digests = [shelf.put(str(number), Bytes()) for number in range(MAX_BLOBS + 1)]
    assert {await wants.take(want(number, digests[number]), 0.0) for number in range(MAX_BLOBS)} == {None}
    assert await wants.take(want(MAX_BLOBS, digests[-1]), 0.0) == BUSY
    more = [await wants.take(want(number, digests[0]), 0.0) for number in range(MAX_BLOBS, MAX_WANTS + 1)]
    assert more == [None] * (MAX_WANTS - MAX_BLOBS) + [BUSY]


async def test_the_first_that_can_be_served_goes_first() -> None:
    shelf = Shelf()
    wants, late = Wants(shelf.open), Bytes(front=0)
    await wants.take(want(1, shelf.put("late", late)), 0.0)
    await wants.take(want(2, shelf.put("here", Bytes())), 0.0)
    first = wants.first_ready()
    assert first is not None
    assert first.handle == 2
    late.front = 5
    first = wants.first_ready()
    assert first is not None
    assert first.handle == 1


async def test_wants_of_a_failed_fetch_are_hopeless_and_those_of_the_next_are_not() -> None:
    shelf = Shelf()
    wants, old, new = Wants(shelf.open), Bytes(front=0), Bytes()
    digest = shelf.put("a", old)
    await wants.take(want(1, digest), 5.0)
    old.failed = True
    shelf.put("a", new)
    assert await wants.take(want(2, digest), 5.0) is None
    assert (old.closed, new.closed) == (1, 0)
    assert wants.hopeless(5.0) == [1]
    wants.forget(1)
    assert (old.closed, new.closed) == (1, 0)
    assert wants.hopeless(5.1) == [2]
    wants.close()
    assert (old.closed, new.closed) == (1, 1)
