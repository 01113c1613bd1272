"""Bounded msgpack: its fields, and the DHT's records, as bytes and back.

Rules:
- Bytes from outside are decoded only through ``unpack_bounded``: their size, every length in them, and their depth
  are bounded before anything is built from them. Whatever is wrong with them is an InvalidInputError, nothing else.
- Values are arrays by position, never maps. A decoder takes longer arrays than it knows (a later version may add to
  the end) and refuses shorter ones. Of a list it leaves out what it does not understand and takes the others; the list
  itself is bounded first.
- An address is 4 or 16 bytes and a port of 2; a digest is one byte for its algorithm and its raw bytes.
- Durations are whole milliseconds.
- A cluster's members say the same small things again and again (who they are, where, what they provide): what such bytes
  mean is remembered, within bounds. Only what was found to be in order is.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import msgpack

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.records import (
    MAX_ENDPOINTS,
    MAX_RECORD_BYTES,
    MAX_ZONE,
    ContentKey,
    Endpoint,
    PeerId,
    Provider,
    TagRecord,
)

T = TypeVar("T")
KEY_BYTES = 20
MAX_MEDIA_TYPE = 127
MAX_SIZE = (1 << 63) - 1
MAX_AGE = 366 * 86400.0

_ALGORITHMS = ("sha256", "sha512")
_RAW_LENGTH = {"sha256": 32, "sha512": 64}
_PLAIN = frozenset((bytes, int, str, bool, float, type(None)))
_PACKER = msgpack.Packer(use_bin_type=True)
BAD_MSGPACK = (
    ValueError,
    TypeError,
    KeyError,
    OverflowError,
    RecursionError,
    msgpack.exceptions.UnpackException,
)


def pack(value: object) -> bytes:
    """``value`` (of None, bool, int, str, bytes, lists and tuples) in msgpack."""
    packed = _PACKER.pack(value)
    assert isinstance(packed, bytes)
    return packed


def unpack_bounded(
    data: bytes | bytearray | memoryview, *, max_bytes: int, max_items: int = 1024, max_depth: int = 6
) -> object:
    """The one value in ``data``: arrays as tuples, no maps and no extension types.

    ``max_items`` bounds each array, ``max_bytes`` the whole and so each string. Raises InvalidInputError.
    """
    if len(data) > max_bytes:
        raise InvalidInputError(f"a message of {len(data)} bytes; at most {max_bytes} are taken")
    try:
        value: object = msgpack.unpackb(
            data,
            use_list=False,
            raw=False,
            strict_map_key=True,
            max_str_len=max_bytes,
            max_bin_len=max_bytes,
            max_array_len=max_items,
            max_map_len=0,
            max_ext_len=0,
        )
        _check(value, max_depth)
    except BAD_MSGPACK as error:
        raise InvalidInputError(f"not a message: {type(error).__name__}: {str(error)[:120]}") from error
    return value


def _check(value: object, depth: int) -> None:
    if isinstance(value, tuple) and not isinstance(value, (msgpack.ExtType, msgpack.Timestamp)):
        if depth == 0:
            raise ValueError("nested too deeply")
        for item in value:
            if type(item) not in _PLAIN:
                _check(item, depth - 1)
    elif type(value) not in _PLAIN:
        raise ValueError("maps and extensions have no place here")


def as_tuple(value: object, shortest: int, longest: int | None = None) -> tuple[object, ...]:
    """``value`` as an array of at least ``shortest`` and, if given, at most ``longest`` items; raises InvalidInputError."""
    if (
        not isinstance(value, tuple)
        or len(value) < shortest
        or (longest is not None and len(value) > longest)
    ):
        raise InvalidInputError(f"an array of {shortest} or more items was expected")
    return value


def as_int(value: object, lowest: int, highest: int) -> int:
    """``value`` as a whole number within bounds; raises InvalidInputError."""
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise InvalidInputError(f"a whole number from {lowest} to {highest} was expected")
    return value


def as_bool(value: object) -> bool:
    """``value`` as a truth value; raises InvalidInputError."""
    if not isinstance(value, bool):
        raise InvalidInputError("true or false was expected")
    return value


def as_bytes(value: object, longest: int) -> bytes:
    """``value`` as at most ``longest`` bytes; raises InvalidInputError."""
    if not isinstance(value, bytes) or len(value) > longest:
        raise InvalidInputError(f"at most {longest} bytes were expected")
    return value


def as_text(value: object, longest: int) -> str:
    """``value`` as printable text of at most ``longest`` characters; raises InvalidInputError."""
    if not isinstance(value, str) or len(value) > longest or not value.isprintable():
        raise InvalidInputError(f"printable text of at most {longest} characters was expected")
    return value


def understood(read: Callable[[object], T], values: Iterable[object]) -> list[T]:
    """What ``read`` makes of those values that are no InvalidInputError to it; the caller has bounded their number."""
    made = []
    for value in values:
        try:
            made.append(read(value))
        except InvalidInputError:
            continue
    return made


def as_key(value: object) -> ContentKey:
    """``value`` as a key of the DHT; raises InvalidInputError."""
    raw = as_bytes(value, KEY_BYTES)
    if len(raw) != KEY_BYTES:
        raise InvalidInputError(f"a key is {KEY_BYTES} bytes, not {len(raw)}")
    return ContentKey(raw)


def join_keys(keys: Iterable[ContentKey]) -> bytes:
    """Many keys, one after the other."""
    return b"".join(key.raw for key in keys)


def split_keys(value: object, most: int) -> tuple[ContentKey, ...]:
    """What ``join_keys`` made, of at most ``most`` keys; raises InvalidInputError."""
    raw = as_bytes(value, most * KEY_BYTES)
    if len(raw) % KEY_BYTES:
        raise InvalidInputError("the keys are cut short")
    return tuple(ContentKey(raw[i : i + KEY_BYTES]) for i in range(0, len(raw), KEY_BYTES))


@functools.lru_cache(maxsize=4096)  # a lookup meets the same few hundred addresses again and again
def encode_endpoint(endpoint: Endpoint) -> bytes:
    """6 bytes for IPv4, 18 for IPv6; raises InvalidInputError for a host that is no address."""
    try:
        return ipaddress.ip_address(endpoint.host).packed + endpoint.port.to_bytes(2, "big")
    except (ValueError, OverflowError):
        raise InvalidInputError(f"{endpoint} is not an IP address and port") from None


def decode_endpoint(value: object) -> Endpoint:
    """What ``encode_endpoint`` made; raises InvalidInputError for anything no datagram could be sent to."""
    return read_endpoint(as_bytes(value, 18))


@functools.lru_cache(maxsize=4096)
def read_endpoint(raw: bytes) -> Endpoint:
    """The endpoint of these 6 or 18 bytes; raises InvalidInputError for anything no datagram could be sent to."""
    if len(raw) not in (6, 18):
        raise InvalidInputError(f"an endpoint is 6 or 18 bytes, not {len(raw)}")
    address = ipaddress.ip_address(raw[:-2])
    port = int.from_bytes(raw[-2:], "big")
    if port == 0 or address.is_unspecified or address.is_multicast:
        raise InvalidInputError(f"nothing can be reached at {address} port {port}")
    return Endpoint(str(address), port)


def encode_contact(peer: PeerId, endpoint: Endpoint) -> bytes:
    """26 or 38 bytes."""
    return peer.raw + encode_endpoint(endpoint)


def decode_contact(value: object) -> tuple[PeerId, Endpoint]:
    """What ``encode_contact`` made; raises InvalidInputError."""
    return _read_contact(as_bytes(value, 38))


@functools.lru_cache(maxsize=4096)
def _read_contact(raw: bytes) -> tuple[PeerId, Endpoint]:
    return read_peer(raw[:20]), decode_endpoint(raw[20:])


@functools.lru_cache(maxsize=4096)
def read_peer(raw: bytes) -> PeerId:
    """The peer of this id; raises InvalidInputError unless it is 20 bytes."""
    return PeerId(raw)


def encode_provider(provider: Provider) -> bytes:
    """At most MAX_RECORD_BYTES; raises InvalidInputError when the provider is beyond its bounds."""
    raw = pack(
        (
            provider.peer.raw,
            [encode_endpoint(endpoint) for endpoint in provider.endpoints],
            provider.zone,
            provider.complete,
        )
    )
    _within_bounds(raw, len(provider.endpoints) <= MAX_ENDPOINTS and len(provider.zone) <= MAX_ZONE)
    return raw


@functools.lru_cache(maxsize=2048)  # a peer says the same of everything that it provides
def decode_provider(data: bytes) -> Provider:
    """What ``encode_provider`` made, without the addresses that are not understood; raises InvalidInputError."""
    fields = as_tuple(unpack_bounded(data, max_bytes=MAX_RECORD_BYTES, max_items=16, max_depth=2), 4)
    endpoints = as_tuple(fields[1], 0, MAX_ENDPOINTS)
    return Provider(
        PeerId(as_bytes(fields[0], 20)),
        tuple(understood(decode_endpoint, endpoints)),
        as_text(fields[2], MAX_ZONE),
        as_bool(fields[3]),
    )


def encode_tag_record(record: TagRecord) -> bytes:
    """At most MAX_RECORD_BYTES; raises InvalidInputError when the record is beyond its bounds."""
    raw = pack(
        (
            record.peer.raw,
            _encode_digest(record.digest),
            record.media_type,
            record.size,
            to_ms(min(max(record.age, 0.0), MAX_AGE)),
        )
    )
    _within_bounds(raw, len(record.media_type) <= MAX_MEDIA_TYPE and 0 <= record.size <= MAX_SIZE)
    return raw


def decode_tag_record(data: bytes) -> TagRecord:
    """What ``encode_tag_record`` made; raises InvalidInputError."""
    fields = as_tuple(unpack_bounded(data, max_bytes=MAX_RECORD_BYTES, max_items=16, max_depth=1), 5)
    return TagRecord(
        PeerId(as_bytes(fields[0], 20)),
        _decode_digest(fields[1]),
        as_text(fields[2], MAX_MEDIA_TYPE),
        as_int(fields[3], 0, MAX_SIZE),
        as_int(fields[4], 0, to_ms(MAX_AGE)) / 1000,
    )


def to_ms(seconds: float) -> int:
    """Whole milliseconds."""
    return round(seconds * 1000)


def _within_bounds(raw: bytes, ok: bool) -> None:
    if not ok or len(raw) > MAX_RECORD_BYTES:
        raise InvalidInputError(f"a record of {len(raw)} bytes is beyond the bounds of records")


def _encode_digest(digest: Digest) -> bytes:
    return bytes([_ALGORITHMS.index(digest.algorithm)]) + bytes.fromhex(digest.hex)


def _decode_digest(value: object) -> Digest:
    raw = as_bytes(value, 65)
    if not raw or raw[0] >= len(_ALGORITHMS) or len(raw) != 1 + _RAW_LENGTH[_ALGORITHMS[raw[0]]]:
        raise InvalidInputError("a digest of an unknown algorithm or a wrong length")
    return Digest(_ALGORITHMS[raw[0]], raw[1:].hex())


def fitting(parts: Sequence[bytes], room: int) -> list[bytes]:
    """As many of the first ``parts`` as fit in ``room`` bytes once packed (3 bytes each for their lengths)."""
    taken = []
    for part in parts:
        room -= len(part) + 3
        if room < 0:
            break
        taken.append(part)
    return taken
