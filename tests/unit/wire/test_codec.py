"""The codec: whatever goes in comes out, and whatever strangers send is an InvalidInputError at worst."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.records import MAX_ENDPOINTS, ContentKey, Endpoint, PeerId, Provider, TagRecord
from p2pdist.wire import codec, dht_messages

peers = st.binary(min_size=20, max_size=20).map(PeerId)
addresses = st.one_of(
    st.sampled_from(["127.0.0.1", "10.0.0.9", "192.0.2.255", "::1", "fd00::1", "2001:db8::ffff"])
)
endpoints = st.builds(Endpoint, addresses, st.integers(1, 65535))
zones = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64)
providers = st.builds(Provider, peers, st.lists(endpoints, max_size=4).map(tuple), zones, st.booleans())
digests = st.one_of(
    st.binary(min_size=32, max_size=32).map(lambda raw: Digest("sha256", raw.hex())),
    st.binary(min_size=64, max_size=64).map(lambda raw: Digest("sha512", raw.hex())),
)
tag_records = st.builds(
    TagRecord,
    peers,
    digests,
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=127),
    st.integers(0, codec.MAX_SIZE),
    st.integers(0, 86_400_000).map(lambda ms: ms / 1000),
)
messages = st.builds(
    dht_messages.Message,
    st.integers(0, 0xFFFFFFFF),
    peers,
    st.none() | peers,
    st.none() | endpoints,
    st.none() | st.sampled_from(list(dht_messages.Method)),
    st.lists(st.booleans() | st.binary(max_size=40) | st.integers(0, 99), max_size=5).map(tuple),
)


@given(providers)
def test_a_provider_comes_back(provider: Provider) -> None:
    assert codec.decode_provider(codec.encode_provider(provider)) == provider


@given(tag_records)
def test_a_tag_record_comes_back(record: TagRecord) -> None:
    assert codec.decode_tag_record(codec.encode_tag_record(record)) == record


@given(messages)
def test_a_message_comes_back(message: dht_messages.Message) -> None:
    assert dht_messages.decode_message(dht_messages.encode_message(message), 1400) == message


@given(peers, endpoints)
def test_a_contact_comes_back_small(peer: PeerId, endpoint: Endpoint) -> None:
    raw = codec.encode_contact(peer, endpoint)
    assert len(raw) in (26, 38)
    assert codec.decode_contact(raw) == (peer, endpoint)


@given(st.lists(st.binary(min_size=20, max_size=20).map(ContentKey), max_size=10).map(tuple))
def test_keys_come_back(keys: tuple[ContentKey, ...]) -> None:
    assert codec.split_keys(codec.join_keys(keys), 10) == keys


def test_a_longer_array_of_a_later_version_is_read() -> None:
    provider = Provider(PeerId(bytes(20)), (), "", True)
    later = codec.pack((provider.peer.raw, [], "", True, "news", 7))
    assert codec.decode_provider(later) == provider


def test_an_address_of_a_later_form_does_not_spoil_the_others() -> None:
    known = Endpoint("10.0.0.1", 5051)
    later = codec.pack((bytes(20), [codec.encode_endpoint(known), b"\x07" * 10, 5], "", True))
    assert codec.decode_provider(later) == Provider(PeerId(bytes(20)), (known,), "", True)


def test_a_provider_of_which_no_address_is_understood_has_none() -> None:
    assert codec.decode_provider(codec.pack((bytes(20), [b"\x07" * 10], "", True))).endpoints == ()


def test_too_many_addresses_are_refused_before_they_are_read() -> None:
    with pytest.raises(InvalidInputError):
        codec.decode_provider(codec.pack((bytes(20), [b""] * (MAX_ENDPOINTS + 1), "", True)))


DECODERS = [
    codec.decode_provider,
    codec.decode_tag_record,
    codec.decode_endpoint,
    codec.decode_contact,
    lambda data: dht_messages.decode_message(data, 1400),
    lambda data: codec.unpack_bounded(data, max_bytes=1400),
    lambda data: codec.split_keys(data, 10),
    codec.as_key,
]

trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text() | st.integers(0, 99), inner, max_size=3)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("decode", DECODERS)
@given(st.binary(max_size=1500) | trees.map(lambda tree: msgpack.packb(tree, use_bin_type=True)))
def test_strangers_bytes_are_read_or_refused(decode, data) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(InvalidInputError):
        decode(data)


@pytest.mark.parametrize("decode", DECODERS)
@given(messages | providers | tag_records, st.integers(0, 400), st.integers(0, 255))
def test_damaged_bytes_are_read_or_refused(decode, value, at: int, byte: int) -> None:  # type: ignore[no-untyped-def]
    encode = {
        dht_messages.Message: dht_messages.encode_message,
        Provider: codec.encode_provider,
        TagRecord: codec.encode_tag_record,
    }
    raw = bytearray(encode[type(value)](value))
    raw[at % len(raw)] = byte
    with contextlib.suppress(InvalidInputError):
        decode(bytes(raw))


BOMBS = {
    "array of 4 billion": b"\xdd\xff\xff\xff\xff",
    "map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "string of 4 GB": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 GB": b"\xc6\xff\xff\xff\xff",
    "extension of 4 GB": b"\xc9\xff\xff\xff\xff\x01",
    "arrays a thousand deep": b"\x91" * 1300 + b"\xc0",
    "a hundred thousand deep": b"\x91" * 100_000,
    "maps as keys": b"\x81\x80\xc0",
    "lists as keys": b"\x81\x91\x01\xc0",
    "big arrays of big arrays": b"\xdc\xff\xff" * 460,
    "a timestamp": b"\xd6\xff" + struct.pack("!I", 1),
    "a timestamp beyond time": b"\xc7\x0c\xff" + b"\xff" * 12,
    "not UTF-8": b"\xa2\xff\xfe",
    "more than one value": b"\xc0\xc0",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_costs_no_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInputError):
            codec.unpack_bounded(BOMBS[name], max_bytes=1400)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_what_is_within_the_depth_is_read_and_one_deeper_is_not() -> None:
    assert codec.unpack_bounded(codec.pack([[[1]]]), max_bytes=99, max_depth=3) == (((1,),),)
    with pytest.raises(InvalidInputError):
        codec.unpack_bounded(codec.pack([[[1]]]), max_bytes=99, max_depth=2)


@pytest.mark.parametrize(
    "endpoint", [Endpoint("host.example", 1), Endpoint("1.2.3.4", 65536), Endpoint("fe80::1%eth0x!", -1)]
)
def test_what_is_no_endpoint_is_not_sent(endpoint: Endpoint) -> None:
    with pytest.raises(InvalidInputError):
        codec.encode_endpoint(endpoint)


@pytest.mark.parametrize(
    "raw", [b"\x00" * 4 + b"\x13\xbb", b"\xe0\x00\x00\x01\x13\xbb", b"\x0a\x00\x00\x01\x00\x00"]
)
def test_nowhere_is_no_endpoint(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        codec.decode_endpoint(raw)


def test_records_beyond_their_bounds_are_not_sent() -> None:
    peer, digest = PeerId(bytes(20)), Digest.of(b"")
    with pytest.raises(InvalidInputError):
        codec.encode_provider(Provider(peer, (), "z" * 65, True))
    with pytest.raises(InvalidInputError):
        codec.encode_provider(Provider(peer, (Endpoint("10.0.0.1", 1),) * 5, "", True))
    with pytest.raises(InvalidInputError):
        codec.encode_tag_record(TagRecord(peer, digest, "m" * 128, 1, 0.0))


def test_only_what_fits_is_taken() -> None:
    assert codec.fitting([b"a" * 10, b"b" * 10, b"c" * 10], 27) == [b"a" * 10, b"b" * 10]
