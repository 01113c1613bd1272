"""Savings are exact: every byte is charged to its source once, then it is the store's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.oci.digest import Digest
from p2pdist.transfer.content import Source
from p2pdist.transfer.ledger import MAX_BLOBS, Ledger

BLOB = Digest.of(b"blob")
SIZE = 60


def test_bytes_are_the_sources_once_and_the_stores_ever_after() -> None:
    ledger = Ledger()
    ledger.fetched(BLOB, 0, 10, Source.UPSTREAM)
    ledger.fetched(BLOB, 10, 30, Source.PEER)

    assert ledger.charge(BLOB, 5, 40) == [
        (5, 10, Source.UPSTREAM),
        (10, 30, Source.PEER),
        (30, 40, Source.STORE),
    ]
    assert ledger.charge(BLOB, 0, 40) == [(0, 5, Source.UPSTREAM), (5, 40, Source.STORE)]
    assert ledger.charge(BLOB, 0, 40) == [(0, 40, Source.STORE)]
    assert not ledger.has_uncharged(BLOB)


def test_what_a_client_did_not_get_is_given_back() -> None:
    ledger = Ledger()
    ledger.fetched(BLOB, 0, 10, Source.UPSTREAM)
    charged = ledger.charge(BLOB, 0, 10)

    ledger.give_back(BLOB, charged)

    assert ledger.charge(BLOB, 0, 10) == [(0, 10, Source.UPSTREAM)]


def test_bytes_that_were_thrown_away_are_forgotten() -> None:
    ledger = Ledger()
    ledger.fetched(BLOB, 0, 10, Source.PEER)
    ledger.forget(BLOB)
    assert ledger.charge(BLOB, 0, 10) == [(0, 10, Source.STORE)]


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    ledger = Ledger()
    blobs = [Digest.of(str(i).encode()) for i in range(MAX_BLOBS + 1)]
    for blob in blobs:
        ledger.fetched(blob, 0, 1, Source.PEER)
    assert not ledger.has_uncharged(blobs[0])
    assert ledger.has_uncharged(blobs[1])


spans = st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: (min(pair), max(pair)))
steps = st.lists(st.tuples(st.sampled_from(["peer", "upstream", "charge"]), spans), max_size=40)


@given(steps)
def test_charges_equal_a_byte_by_byte_account(script: list[tuple[str, tuple[int, int]]]) -> None:
    ledger = Ledger()
    account = [Source.STORE] * SIZE
    for what, (start, stop) in script:
        if what == "charge":
            segments = ledger.charge(BLOB, start, stop)
            charged = [source for low, high, source in segments for _ in range(low, high)]
            assert charged == account[start:stop]
            assert all(low < high for low, high, _ in segments)
            account[start:stop] = [Source.STORE] * (stop - start)
        else:
            ledger.fetched(BLOB, start, stop, Source(what))
            account[start:stop] = [Source(what)] * (stop - start)
