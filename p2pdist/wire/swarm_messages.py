"""What the members of a swarm tell each other: one frame per message, msgpack arrays by position, bounded.

    Join     "I take part in this blob's swarm": what I hold and claim, whom I know, and whether an answer is wanted
    Update   pieces newly held (each with its piece digest), claimed, released
    Leave    "I take no part (any more)"

A piece digest is 16 bytes of BLAKE3, which costs a third of SHA-256. Piece sets travel as bit fields. Whatever is
malformed is an InvalidInputError; a member that is not understood is left out, as is one without an address.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import msgpack
from blake3 import blake3

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.records import PeerId, Provider
from p2pdist.wire.codec import (
    BAD_MSGPACK,
    as_bool,
    as_bytes,
    as_int,
    as_tuple,
    decode_provider,
    encode_provider,
    pack,
    understood,
)
from p2pdist.wire.sealed_frames import FrameFormat

MAX_FRAME = 64 * 1024
LINK_FRAMES = FrameFormat(4, MAX_FRAME, signs_of_life=True)
MAX_PIECES = 1 << 15
MAX_LISTED = 4096
MAX_MEMBERS = 32
MAX_LAGGING = 4
MAX_ARC = 16
PIECE_DIGEST = 16
_MAX_SIZE = 1 << 50
_JOIN, _UPDATE, _LEAVE = 1, 2, 3
_INTEGERS = {int}


class UnknownKindError(InvalidInputError):
    """A message in order as far as one can see, of a kind that this version does not know."""


class PieceHasher:
    """Makes a piece digest from parts as they come."""

    def __init__(self) -> None:
        self._hasher = blake3()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        self._hasher.update(data)

    def digest(self) -> bytes:
        return self._hasher.digest(length=PIECE_DIGEST)


@dataclass(frozen=True, slots=True)
class Join:
    """``size`` is the blob's; ``have`` are indexes of pieces; ``sender`` tells how to reach who joins; its arc is
    2 ** -``arc`` of the ring."""

    digest: Digest
    size: int
    sender: Provider
    have: frozenset[int]
    claims: tuple[int, ...] = ()
    members: tuple[Provider, ...] = ()
    answer: bool = False
    arc: int = 0


@dataclass(frozen=True, slots=True)
class Update:
    """``have`` are (piece, piece digest); ``lagging``: members that cannot keep up; ``arc``: as in Join, 0 is no news."""

    digest: Digest
    have: tuple[tuple[int, bytes], ...] = ()
    claim: tuple[int, ...] = ()
    release: tuple[int, ...] = ()
    lagging: tuple[PeerId, ...] = ()
    arc: int = 0


@dataclass(frozen=True, slots=True)
class Leave:
    """The sender takes no part in this blob's swarm."""

    digest: Digest


SwarmMessage = Join | Update | Leave


def to_bits(pieces: Iterable[int]) -> bytes:
    """A bit field, lowest piece in the highest bit of the first byte; trailing zero bytes left out."""
    field = bytearray()
    for piece in pieces:
        byte = piece >> 3
        if byte >= len(field):
            field.extend(bytes(byte + 1 - len(field)))
        field[byte] |= 0x80 >> (piece & 7)
    return bytes(field)


def from_bits(field: bytes) -> frozenset[int]:
    """What ``to_bits`` made."""
    return frozenset(
        (index << 3) + bit
        for index, byte in enumerate(field)
        if byte
        for bit in range(8)
        if byte & (0x80 >> bit)
    )


def encode(message: SwarmMessage) -> bytes:
    """One frame's payload, at most MAX_FRAME bytes; raises InvalidInputError beyond that."""
    frame = pack(_fields(message))
    if len(frame) > MAX_FRAME:
        raise InvalidInputError(f"a swarm message of {len(frame)} bytes; at most {MAX_FRAME} are sent")
    return frame


def _fields(message: SwarmMessage) -> tuple[object, ...]:
    name = str(message.digest)
    if isinstance(message, Join):
        return (
            _JOIN,
            name,
            message.size,
            encode_provider(message.sender),
            to_bits(message.have),
            list(message.claims),
            [encode_provider(member) for member in message.members],
            message.answer,
            *((message.arc,) if message.arc else ()),
        )
    if isinstance(message, Update):
        pieces = [piece for piece, _ in message.have]
        digests = b"".join(digest for _, digest in message.have)
        fields = (_UPDATE, name, pieces, digests, list(message.claim), list(message.release))
        lagging = [peer.raw for peer in message.lagging]
        if message.arc:
            return (*fields, lagging, message.arc)
        return (*fields, lagging) if lagging else fields
    return (_LEAVE, name)


def decode(frame: bytes) -> SwarmMessage:
    """What ``encode`` made; raises InvalidInputError."""
    fields = _unpack(frame)
    kind, name = fields[0], fields[1]
    if type(name) is not str:
        raise InvalidInputError("a swarm message names its blob's digest")
    if kind == _UPDATE and type(kind) is int:
        return _decode_update(_named(name), fields)
    if kind == _JOIN and type(kind) is int:
        return _decode_join(_named(name), fields)
    if kind == _LEAVE and type(kind) is int:
        return Leave(_named(name))
    raise UnknownKindError("a swarm message of unknown kind")


def _unpack(frame: bytes) -> tuple[object, ...]:
    """An array of two fields or more, each of them yet to be looked at; what no field may be is not looked for."""
    if len(frame) > MAX_FRAME:
        raise InvalidInputError(f"a swarm message of {len(frame)} bytes; at most {MAX_FRAME} are taken")
    try:
        fields: object = msgpack.unpackb(
            frame, use_list=False, max_array_len=MAX_LISTED, max_map_len=0, max_ext_len=0
        )
    except BAD_MSGPACK as error:
        raise InvalidInputError(f"not a swarm message: {type(error).__name__}: {str(error)[:120]}") from error
    return as_tuple(fields, 2)


@functools.lru_cache(maxsize=256)  # all messages about a blob name it
def _named(name: str) -> Digest:
    return Digest.parse(name)


def _decode_join(digest: Digest, fields: tuple[object, ...]) -> Join:
    as_tuple(fields, 8)
    members = as_tuple(fields[6], 0, MAX_MEMBERS)
    return Join(
        digest,
        as_int(fields[2], 0, _MAX_SIZE),
        decode_provider(as_bytes(fields[3], 512)),
        from_bits(as_bytes(fields[4], MAX_PIECES // 8)),
        _pieces(fields[5]),
        tuple(understood(_member, members)),
        as_bool(fields[7]),
        _arc(fields, 8),
    )


def _member(value: object) -> Provider:
    member = decode_provider(as_bytes(value, 512))
    if not member.endpoints:
        raise InvalidInputError("a member that cannot be reached")
    return member


def _decode_update(digest: Digest, fields: tuple[object, ...]) -> Update:
    as_tuple(fields, 6)
    pieces, digests = _pieces(fields[2]), fields[3]
    if type(digests) is not bytes or len(digests) != len(pieces) * PIECE_DIGEST:
        raise InvalidInputError("each piece that is held comes with its digest")
    parts = [digests[at : at + PIECE_DIGEST] for at in range(0, len(digests), PIECE_DIGEST)]
    have = tuple(zip(pieces, parts, strict=True))
    return Update(digest, have, _pieces(fields[4]), _pieces(fields[5]), _lagging(fields), _arc(fields, 7))


def _arc(fields: tuple[object, ...], at: int) -> int:
    """A field that earlier versions do not have."""
    return as_int(fields[at], 0, MAX_ARC) if len(fields) > at else 0


def _lagging(fields: tuple[object, ...]) -> tuple[PeerId, ...]:
    """A field that earlier versions do not have."""
    if len(fields) < 7:
        return ()
    return tuple(PeerId(as_bytes(peer, 20)) for peer in as_tuple(fields[6], 0, MAX_LAGGING))


def _pieces(value: object) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > MAX_LISTED:
        raise InvalidInputError(f"an array of at most {MAX_LISTED} pieces was expected")
    if value and (set(map(type, value)) != _INTEGERS or min(value) < 0 or max(value) >= MAX_PIECES):
        raise InvalidInputError(f"pieces are whole numbers below {MAX_PIECES}")
    return value
