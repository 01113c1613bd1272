"""A flow: pieces of any number of blobs from one agent to another, over one connection.

After the answer 101 to a proven ``GET /p2p/v1/flow`` both sides speak frames:

    who asks     length (2) | MAC (16) | op (1) | ...      sealed_frames.py
                 WANT    handle (4) offset (8) length (4) size of the blob (8) digest (text)
                 CANCEL  handle (4)
    who answers  kind (1) | handle (4) | number (4)
                 DATA     the next ``number`` bytes of what ``handle`` wants follow
                 REFUSED  ``number`` is why, as an HTTP status

Numbers are big-endian. Whatever is malformed is an InvalidInputError, and ends the connection. Answers carry no MAC: the
bytes are proven by the piece's digest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.wire.sealed_frames import FrameFormat

PATH = "/p2p/v1/flow"
MAX_REQUEST = 512
MAX_WANT = 4 * 1024 * 1024
REQUESTS = FrameFormat(2, MAX_REQUEST)
HEAD = struct.Struct(">BII")
"""Of what the answering side sends: kind, handle, number."""
DATA, REFUSED = 1, 2
_WANT, _CANCEL = 1, 2
_WANT_FIELDS = struct.Struct(">BIQIQ")
_CANCEL_FIELDS = struct.Struct(">BI")
_MAX_OFFSET = 1 << 50


@dataclass(frozen=True, slots=True)
class Want:
    """``length`` bytes from ``offset`` of a blob of ``size`` bytes; ``handle`` names them in the answers."""

    handle: int
    digest: Digest
    offset: int
    length: int
    size: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """What the handle wants is no longer wanted."""

    handle: int


def encode_want(want: Want) -> bytes:
    """A request's payload."""
    fields = _WANT_FIELDS.pack(_WANT, want.handle, want.offset, want.length, want.size)
    return fields + str(want.digest).encode("ascii")


def encode_cancel(handle: int) -> bytes:
    """A request's payload."""
    return _CANCEL_FIELDS.pack(_CANCEL, handle)


def decode_request(payload: bytes) -> Want | Cancel:
    """What the two functions above made; raises InvalidInputError."""
    op = payload[0] if payload else 0
    if op == _CANCEL and len(payload) == _CANCEL_FIELDS.size:
        return Cancel(_CANCEL_FIELDS.unpack(payload)[1])
    if op != _WANT or len(payload) <= _WANT_FIELDS.size:
        raise InvalidInputError("a flow request of no known kind")
    _, handle, offset, length, size = _WANT_FIELDS.unpack_from(payload)
    if not 0 < length <= MAX_WANT or size > _MAX_OFFSET or offset + length > size:
        raise InvalidInputError("a flow request for bytes that cannot be")
    try:
        digest = Digest.parse(payload[_WANT_FIELDS.size :].decode("ascii"))
    except UnicodeDecodeError as error:
        raise InvalidInputError("a flow request for no digest") from error
    return Want(handle, digest, offset, length, size)
