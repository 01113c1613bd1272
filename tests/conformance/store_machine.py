"""A Hypothesis machine that drives a store at random beside a model of it, and checks the port's rules after each step.

The model keeps only facts: bytes that were written, what is open, pinned and committed. What was evicted it learns from
the store, and then checks that it was allowed to go.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pdist.errors import DigestMismatchError, StoreFullError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Reference
from p2pdist.retention.policy import SMALL
from p2pdist.store.port import BlobReader, Ingest, Store
from p2pdist.testing.clock import ManualClock
from tests.conformance.store import content

QUOTA = 6 * SMALL
NAMES = range(8)
SIZES = dict(enumerate([0, 1, 700, SMALL, SMALL + 1, 100_000, 200_000, QUOTA]))
names = st.sampled_from(NAMES)
PIN = Reference.parse("pinned")


def data_of(name: int) -> bytes:
    return content(name, SIZES[name])


def digest_of(name: int) -> Digest:
    return Digest.of(data_of(name))


class StoreMachine(RuleBasedStateMachine):
    """Subclasses say how to open a store; a persistent one is also closed and opened again."""

    persistent = False

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.committed: dict[Digest, bytes] = {}
        self.ingests: dict[int, Ingest] = {}
        self.written: dict[int, bytearray] = {}
        self.readers: list[tuple[int, BlobReader]] = []
        self.pinned: set[Digest] = set()
        self.store: Store = self.run(self.open_store())

    def run(self, awaitable: Any) -> Any:
        async def call() -> Any:
            return await awaitable

        return self.runner.run(call())

    async def open_store(self) -> Store:
        raise NotImplementedError

    def teardown(self) -> None:
        for _, reader in self.readers:
            reader.close()
        self.run(self.store.close())
        self.runner.close()

    # -- steps --

    @rule(name=names)
    def put(self, name: int) -> None:
        digest = digest_of(name)
        if name in self.ingests and digest not in self.committed:
            with pytest.raises(ValueError, match="written already"):
                self.run(self.store.put(digest, data_of(name)))
            return
        try:
            self.run(self.store.put(digest, data_of(name)))
        except StoreFullError:
            self.must_be_full(name)
        else:
            self.learn_evictions()
            self.committed[digest] = data_of(name)

    @rule(name=names)
    def ingest(self, name: int) -> None:
        if name in self.ingests:
            with pytest.raises(ValueError, match="written already"):
                self.run(self.store.ingest(digest_of(name), SIZES[name]))
            return
        try:
            ingest = self.run(self.store.ingest(digest_of(name), SIZES[name]))
        except StoreFullError:
            self.must_be_full(name)
            return
        self.ingests[name] = ingest
        self.written[name] = bytearray(data_of(name))
        for start, stop in ingest.held():
            self.written[name][start:stop] = self.run(ingest.read(start, stop - start))
        self.learn_evictions()

    @precondition(lambda self: self.ingests)
    @rule(data=st.data(), at=st.floats(0, 1), length=st.floats(0, 1), wrong=st.booleans())
    def write(self, data: st.DataObject, at: float, length: float, wrong: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.ingests)))
        start = int(at * SIZES[name])
        stop = start + int(length * (SIZES[name] - start))
        piece = bytes(stop - start) if wrong else data_of(name)[start:stop]
        self.run(self.ingests[name].write(start, piece))
        self.written[name][start:stop] = piece
        assert self.run(self.ingests[name].read(start, stop - start)) == piece

    @precondition(lambda self: self.ingests)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.ingests)))
        ingest = self.ingests[name]
        complete = sum(stop - start for start, stop in ingest.held()) == SIZES[name]
        if complete and bytes(self.written[name]) == data_of(name):
            self.run(ingest.commit())
            del self.ingests[name]
            self.committed[digest_of(name)] = data_of(name)
        else:
            with pytest.raises(DigestMismatchError):
                self.run(ingest.commit())

    @precondition(lambda self: self.ingests)
    @rule(data=st.data(), how=st.sampled_from(["close", "discard"]))
    def end(self, data: st.DataObject, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.ingests)))
        self.run(getattr(self.ingests.pop(name), how)())

    @precondition(lambda self: self.ingests)
    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.ingests)))
        self.run(self.ingests[name].reset())
        self.written[name] = bytearray(data_of(name))
        assert self.ingests[name].held() == ()

    @rule(name=names)
    def open_reader(self, name: int) -> None:
        reader = self.run(self.store.open(digest_of(name)))
        assert (reader is not None) == (digest_of(name) in self.committed)
        if reader is not None:
            self.readers.append((name, reader))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def close_reader(self, data: st.DataObject) -> None:
        name, reader = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        assert self.run(reader.read(0, SIZES[name] + 1)) == data_of(name)
        reader.close()

    @rule(name=names)
    def pin(self, name: int) -> None:
        self.run(self.store.pin(PIN, [digest_of(name)]))
        self.pinned.add(digest_of(name))

    @rule()
    def unpin(self) -> None:
        assert self.run(self.store.unpin(PIN)) == bool(self.pinned)
        self.pinned.clear()

    @rule(name=names)
    def delete(self, name: int) -> None:
        digest = digest_of(name)
        may_go = digest in self.committed and digest not in self.protected()
        assert self.run(self.store.delete(digest)) == may_go
        self.learn_evictions()
        assert (digest in self.committed) == (digest in self.protected() and digest in self.committed)

    @rule(target_size=st.one_of(st.none(), st.integers(0, QUOTA)))
    def collect(self, target_size: int | None) -> None:
        before = set(self.committed)
        gone = {info.digest for info in self.run(self.store.collect(target_size))}
        self.learn_evictions()
        assert before - gone == set(self.committed)
        # An empty blob may stay: dropping it would free nothing.
        if target_size is not None and any(self.committed[d] for d in set(self.committed) - self.protected()):
            assert self.run(self.store.usage()).committed <= target_size

    @precondition(lambda self: self.persistent)
    @rule()
    def reopen(self) -> None:
        for _, reader in self.readers:
            reader.close()
        self.readers.clear()
        self.run(self.store.close())
        self.ingests.clear()
        self.store = self.run(self.open_store())

    # -- the rules --

    def protected(self) -> set[Digest]:
        opened = {digest_of(name) for name, _ in self.readers} | {digest_of(name) for name in self.ingests}
        return opened | self.pinned

    def learn_evictions(self) -> None:
        gone = set(self.store.evicted())
        assert not gone & self.protected()
        for digest in gone:
            del self.committed[digest]

    def must_be_full(self, name: int) -> None:
        protected = self.protected() | {digest_of(name)}
        kept = sum(len(data) for digest, data in self.committed.items() if digest in protected)
        reserved = sum(SIZES[other] for other in self.ingests)
        assert kept + reserved + SIZES[name] > QUOTA

    @invariant()
    def the_quota_holds_and_the_books_are_right(self) -> None:
        usage = self.run(self.store.usage())
        assert usage.committed + usage.reserved <= usage.quota
        assert usage.committed == sum(len(data) for data in self.committed.values())
        assert usage.reserved >= sum(SIZES[name] for name in self.ingests)
        assert usage.blobs == len(self.committed)
        assert usage.pinned == len(self.pinned & set(self.committed))

    @invariant()
    def what_is_committed_is_whole_and_all_else_invisible(self) -> None:
        assert {info.digest for info in self.run(self.store.blobs())} == set(self.committed)
        for name in NAMES:
            info = self.run(self.store.stat(digest_of(name)))
            assert (info is not None) == (digest_of(name) in self.committed)
            assert info is None or info.pinned == (digest_of(name) in self.pinned)
