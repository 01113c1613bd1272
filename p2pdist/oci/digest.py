"""Content digests, parsed once at the edge (OCI image-spec, descriptor.md, "Digests").

Always true here: a ``Digest`` that exists is well-formed and of a supported algorithm, so it is safe in
paths, URLs and messages. A raw digest string never travels inward.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from p2pdist.errors import InvalidInputError

_HEX_LENGTH = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")


class Hasher(Protocol):
    """What hashlib returns: feed it with update, ask it for hexdigest; copy forks its state."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...

    def copy(self) -> Hasher: ...


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """An algorithm (``sha256`` or ``sha512``) and its lower-case hex."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``algorithm:hex``; raises InvalidInputError for anything else."""
        algorithm, separator, hex_part = text[:160].partition(":")
        length = _HEX_LENGTH.get(algorithm)
        if not separator or length is None:
            raise InvalidInputError(
                f"digest {text[:160]!r} is not ALGORITHM:HEX with one of {', '.join(_HEX_LENGTH)}"
            )
        if len(text) != len(algorithm) + 1 + length or not _HEX.match(hex_part):
            raise InvalidInputError(f"digest {text[:160]!r} needs {length} lower-case hex digits")
        return cls(algorithm, hex_part)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
        """The digest of ``data``."""
        hasher = hashlib.new(algorithm, data)
        return cls(algorithm, hasher.hexdigest())

    def hasher(self) -> Hasher:
        """A fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, hasher: Hasher) -> bool:
        """Whether what was fed to ``hasher`` has this digest."""
        return hasher.hexdigest() == self.hex

    @property
    def short(self) -> str:
        """The first 12 hex digits, for people."""
        return self.hex[:12]

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
