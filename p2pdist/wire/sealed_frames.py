"""Frames that follow one proven request: length (big-endian) | MAC (16) | payload, from one side of a connection.

Pure. The key of the MACs comes from the request (http_auth.py, HttpAuth.frames), and each is bound to its frame's place:
what was forged, replayed, left out or put elsewhere does not pass. A length beyond the format's is refused as soon as it
is read, so at most one frame is kept that is not whole.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError


class FrameSeal:
    """Makes the MACs of a sequence of frames, each bound to its place; both sides make them in the same order."""

    SIZE = 16

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._count = 0

    def next(self, frame: bytes) -> bytes:
        """The MAC of the next frame, SIZE bytes."""
        self._count += 1
        salt = self._count.to_bytes(16, "big")
        return hashlib.blake2b(frame, digest_size=self.SIZE, key=self._key, salt=salt).digest()


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """How long a length and a payload are, in bytes. ``signs_of_life``: a length of 0, alone, is one, and no frame."""

    length_bytes: int
    longest: int
    signs_of_life: bool = False

    def pack(self, mac: bytes, payload: bytes) -> bytes:
        """One frame as it is sent."""
        return len(payload).to_bytes(self.length_bytes, "big") + mac + payload


class FrameReader:
    """Cuts what arrives into frames and checks them."""

    def __init__(self, form: FrameFormat, seal: FrameSeal) -> None:
        self._length_bytes = form.length_bytes
        self._longest = form.longest
        self._signs_of_life = form.signs_of_life
        self._seal = seal
        self._data = b""
        self._at = 0

    def push(self, data: bytes) -> None:
        """So much has arrived; keeps it until ``next`` has been through it."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> bytes | None:
        """The payload of the next frame that is whole; raises InvalidInputError for one that the sender did not make."""
        data, at, size = self._data, self._at, self._length_bytes
        while True:
            length = int.from_bytes(data[at : at + size], "big") if at + size <= len(data) else -1
            if length > self._longest:
                raise InvalidInputError(f"a frame of {length} bytes")
            if length or not self._signs_of_life:
                break
            at += size
        start = at + size + FrameSeal.SIZE
        stop = start + length
        if length < 0 or stop > len(data):
            self._at = at
            return None
        payload = data[start:stop]
        if not hmac.compare_digest(data[at + size : start], self._seal.next(payload)):
            raise InvalidInputError("a frame that the sender did not make")
        self._at = stop
        return payload
