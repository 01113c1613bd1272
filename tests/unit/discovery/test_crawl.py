"""What a lookup reads of an answer: the records that it understands."""

from __future__ import annotations

from p2pdist.discovery.crawl import read_records
from p2pdist.discovery.routing import Neighbour
from p2pdist.discovery.service import PROVIDERS, TAGS
from p2pdist.oci.digest import Digest
from p2pdist.records import Endpoint, PeerId, Provider, TagRecord
from p2pdist.wire import codec

PEER = PeerId(b"p" * 20)
HERE = Endpoint("10.0.0.2", 5051)
TELLER = Neighbour(PEER, HERE)
GOOD = Provider(PeerId(b"g" * 20), (Endpoint("10.0.0.1", 5051),))
LATER = codec.pack((b"q" * 20, [b"\x07" * 10], "", True))  # its address has a form to come


def test_records_of_a_later_form_do_not_spoil_the_others() -> None:
    good = codec.encode_provider(GOOD)
    assert read_records((LATER, b"\xc1", 7, good, b"x" * 600), PROVIDERS, TELLER) == [GOOD]


def test_a_tag_of_a_later_form_does_not_spoil_the_others() -> None:
    tag = TagRecord(PEER, Digest.of(b""), "m", 1, 0.0)
    assert read_records((LATER, codec.encode_tag_record(tag)), TAGS, TELLER) == [tag]


def test_no_more_than_64_are_read() -> None:
    assert read_records((LATER,) * 64 + (codec.encode_provider(GOOD),), PROVIDERS, TELLER) == []


def test_one_that_names_no_address_that_is_understood_is_where_it_answers_from() -> None:
    own = codec.pack((PEER.raw, [b"\x07" * 10], "", True))
    assert read_records((own,), PROVIDERS, TELLER) == [Provider(PEER, (HERE,))]
