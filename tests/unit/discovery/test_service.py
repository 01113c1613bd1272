"""What a node answers: records bound to their sender, limits per sender, answers that fit in a datagram."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.discovery.records import RecordStore
from p2pdist.discovery.routing import ContactTable
from p2pdist.discovery.service import KEYS_PER_MESSAGE, PROVIDERS, TAGS, Limits, Service
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.records import ContentKey, Endpoint, PeerId, TagRecord
from p2pdist.testing.clock import ManualClock
from p2pdist.wire import codec, dht_messages
from p2pdist.wire.datagram import MAX_PAYLOAD
from p2pdist.wire.dht_messages import Message, Method

ME, ANNA, BERT = (PeerId(bytes([i]) * 20) for i in (1, 2, 3))
SOURCE = Endpoint("10.0.0.9", 5051)
KEY = bytes(20)


class Served:
    def __init__(self, limits: Limits | None = None) -> None:
        self.clock = ManualClock()
        self.records = RecordStore(random.Random(1))
        self.table = ContactTable(ME, 20)
        self.service = Service(self.records, self.table, self.clock, limits or Limits())

    def ask(self, sender: PeerId, method: Method, *body: object, endpoint: Endpoint | None = None) -> object:
        return self.service.answer(Message(1, sender, ME, endpoint, method, body), SOURCE)


def test_a_record_is_its_senders_and_lies_where_the_datagram_came_from() -> None:
    served = Served()
    assert served.ask(ANNA, Method.ANNOUNCE, KEY, 60_000, True, "rack-1") == (True, 0, False, [])
    assert served.ask(BERT, Method.ANNOUNCE, KEY, 60_000, False, "", endpoint=Endpoint("10.9.9.9", 1))[1] == 1  # type: ignore[index]

    _, records = served.ask(PeerId(b"9" * 20), Method.FIND, KEY, PROVIDERS)  # type: ignore[misc]
    providers = {p.peer: p for p in map(codec.decode_provider, records)}

    assert providers[ANNA].endpoints == (SOURCE,)
    assert providers[ANNA].zone == "rack-1"
    assert providers[BERT].endpoints == (Endpoint("10.9.9.9", 1),)


def test_a_record_at_an_address_that_means_whoever_reads_it_lies_where_the_datagram_came_from() -> None:
    served = Served()
    served.ask(ANNA, Method.ANNOUNCE, KEY, 60_000, True, "", endpoint=Endpoint("127.0.0.1", 5050))
    (provider,) = served.records.providers(ContentKey(KEY), 10, 0.0)
    assert provider.endpoints == (SOURCE,)


def test_a_tag_in_anothers_name_is_refused() -> None:
    served = Served()
    record = codec.encode_tag_record(TagRecord(BERT, Digest.of(b""), "m", 1, 0.0))
    with pytest.raises(InvalidInputError):
        served.ask(ANNA, Method.PUT_TAG, KEY, 1000, record)
    assert served.ask(BERT, Method.PUT_TAG, KEY, 1000, record) == (True,)
    assert len(served.ask(ANNA, Method.FIND, KEY, TAGS)[1]) == 1  # type: ignore[index]


def test_renewal_names_what_is_missing() -> None:
    served = Served()
    served.ask(ANNA, Method.ANNOUNCE, KEY, 60_000, True, "")
    other = ContentKey(b"o" * 20)
    assert served.ask(ANNA, Method.RENEW, 60_000, KEY + other.raw) == (other.raw,)
    served.ask(ANNA, Method.WITHDRAW, KEY)
    assert served.ask(ANNA, Method.RENEW, 60_000, KEY) == (KEY,)


def test_one_cannot_withdraw_anothers_record() -> None:
    served = Served()
    served.ask(ANNA, Method.ANNOUNCE, KEY, 60_000, True, "")
    served.ask(BERT, Method.WITHDRAW, KEY)
    served.ask(BERT, Method.LEAVE)
    assert len(served.records) == 1


def test_one_that_leaves_is_no_contact_any_more() -> None:
    served = Served()
    served.table.heard(ANNA, SOURCE, b"s", 0.0)
    served.ask(ANNA, Method.LEAVE)
    assert len(served.table) == 0


def test_too_many_requests_are_left_unanswered_until_time_has_passed() -> None:
    served = Served(Limits(requests=10, requests_burst=5))
    assert [served.ask(ANNA, Method.PING) for _ in range(7)] == [()] * 5 + [None] * 2
    assert served.ask(BERT, Method.PING) == ()


async def test_the_limit_is_a_rate() -> None:
    served = Served(Limits(requests=10, requests_burst=1))
    assert served.ask(ANNA, Method.PING) == ()
    assert served.ask(ANNA, Method.PING) is None
    await served.clock.advance(0.1)
    assert served.ask(ANNA, Method.PING) == ()


def test_too_many_writes_are_not_kept() -> None:
    served = Served(Limits(writes=1, writes_burst=3))
    for i in range(6):
        served.ask(ANNA, Method.ANNOUNCE, bytes([i]) * 20, 60_000, True, "")
    assert len(served.records) == 3
    assert served.ask(ANNA, Method.RENEW, 60_000, KEY * 3) is None


def test_the_fullest_answers_fit() -> None:
    served = Served()
    for i in range(1, 65):
        sender = PeerId(bytes([i, 255]) * 10)
        served.table.heard(sender, Endpoint("2001:db8::1", 5051), b"s", 0.0)
        served.ask(sender, Method.ANNOUNCE, KEY, 60_000, True, "z" * 64, endpoint=Endpoint("2001:db8::1", 1))
    for method, body in (
        (Method.FIND, (KEY, PROVIDERS)),
        (Method.FIND, (b"k" * 20, PROVIDERS)),
        (Method.ANNOUNCE, (KEY, 60_000, True, "z" * 64)),
        (Method.RENEW, (60_000, b"k" * 20 * KEYS_PER_MESSAGE)),
    ):
        answer = served.ask(BERT, method, *body)
        assert isinstance(answer, tuple)
        message = Message(0xFFFFFFFF, ME, BERT, Endpoint("2001:db8::1", 65535), None, answer)
        assert len(dht_messages.encode_message(message)) <= MAX_PAYLOAD
        assert method is not Method.ANNOUNCE or len(answer[3]) >= 8


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=70) | st.binary(max_size=70) | st.just(KEY),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=8,
)


@given(st.sampled_from(list(Method)), st.lists(values, max_size=6))
def test_any_body_is_answered_or_refused(method: Method, body: list[object]) -> None:
    with contextlib.suppress(InvalidInputError):
        Served().ask(ANNA, method, *body)
