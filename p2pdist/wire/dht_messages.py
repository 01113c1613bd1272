"""What the agents of the DHT say to each other: the payloads of datagrams, as codec.py packs them."""

from __future__ import annotations

import enum
from typing import NamedTuple

from p2pdist.errors import InvalidInputError
from p2pdist.records import Endpoint, PeerId
from p2pdist.wire.codec import (
    as_bytes,
    as_int,
    as_tuple,
    encode_endpoint,
    pack,
    read_endpoint,
    read_peer,
    unpack_bounded,
)


class Method(enum.IntEnum):
    """What one agent of the DHT asks of another."""

    PING = 1
    FIND = 2
    ANNOUNCE = 3
    PUT_TAG = 4
    RENEW = 5
    WITHDRAW = 6
    LEAVE = 7


_METHODS: dict[int, Method | None] = {0: None} | {method.value: method for method in Method}


class Message(NamedTuple):
    """A request (``method`` is set) or the answer to the request with this ``id``.

    ``to`` is None when the sender knows only an address; ``endpoint`` is where the sender says that it is reached,
    None when it is where the datagram comes from. ``body`` depends on the method: see discovery/service.py.
    """

    id: int
    sender: PeerId
    to: PeerId | None
    endpoint: Endpoint | None
    method: Method | None
    body: tuple[object, ...] = ()


def encode_message(message: Message) -> bytes:
    """The payload of one datagram."""
    return pack(
        (
            message.id,
            message.sender.raw,
            message.to.raw if message.to else b"",
            encode_endpoint(message.endpoint) if message.endpoint else b"",
            message.method or 0,
            message.body,
        )
    )


def decode_message(data: bytes, max_bytes: int) -> Message:
    """What ``encode_message`` made; raises InvalidInputError."""
    fields = as_tuple(unpack_bounded(data, max_bytes=max_bytes, max_items=128, max_depth=3), 6)
    to, endpoint, method = as_bytes(fields[2], 20), as_bytes(fields[3], 18), as_int(fields[4], 0, 255)
    if method not in _METHODS:
        raise InvalidInputError(f"a request for unknown method {method}")
    return Message(
        as_int(fields[0], 0, 0xFFFFFFFF),
        read_peer(as_bytes(fields[1], 20)),
        read_peer(to) if to else None,
        read_endpoint(endpoint) if endpoint else None,
        _METHODS[method],
        as_tuple(fields[5], 0),
    )
