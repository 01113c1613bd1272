"""Which bytes of a part are there, as a small file beside it: what a later process may trust.

Format (big-endian): magic, the blob's size (u64), how many ranges (u32), start and stop of each (u64), CRC-32 of all
before. Rules: it names only bytes that were written before; at most ``MAX_RANGES`` of them, the first ones (naming
fewer is safe). What does not parse is worth nothing, and then neither is the part.
"""

from __future__ import annotations

import struct
import zlib

from p2pdist.errors import InvalidInputError
from p2pdist.retention.ranges import RangeSet

MAX_RANGES = 4096
_MAGIC = b"p2pheld1"
_HEADER = struct.Struct(">8sQI")
_CHECKSUM = struct.Struct(">I")
MAX_BYTES = _HEADER.size + 16 * MAX_RANGES + _CHECKSUM.size


def encode_held(size: int, held: RangeSet) -> bytes:
    """The file's bytes for a blob of ``size`` bytes."""
    bounds = held.first(MAX_RANGES).bounds
    body = _HEADER.pack(_MAGIC, size, len(bounds) // 2) + struct.pack(f">{len(bounds)}Q", *bounds)
    return body + _CHECKSUM.pack(zlib.crc32(body))


def parse_held(raw: bytes) -> tuple[int, RangeSet]:
    """The blob's size and what is held; raises InvalidInputError for anything that ``encode_held`` did not write."""
    if not _HEADER.size + _CHECKSUM.size <= len(raw) <= MAX_BYTES:
        raise InvalidInputError(f"a file of held ranges does not have {len(raw)} bytes")
    body, (checksum,) = raw[: -_CHECKSUM.size], _CHECKSUM.unpack(raw[-_CHECKSUM.size :])
    magic, size, count = _HEADER.unpack_from(body)
    if magic != _MAGIC or checksum != zlib.crc32(body) or len(body) != _HEADER.size + 16 * count:
        raise InvalidInputError("the file of held ranges is damaged")
    try:
        held = RangeSet(struct.unpack_from(f">{2 * count}Q", body, _HEADER.size))
    except ValueError as error:
        raise InvalidInputError(f"the file of held ranges is damaged: {error}") from error
    if held.bounds and held.bounds[-1] > size:
        raise InvalidInputError("the file of held ranges names bytes beyond the blob's end")
    return size, held
