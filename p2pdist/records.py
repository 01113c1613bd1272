"""What agents tell each other about content: peers, endpoints, provider and tag records.

Always true here: a record that exists is within its bounds, so it may be stored and sent on. Times in records are
durations (seconds left, seconds ago), never wall-clock times, so that hosts need not agree on the time.
Encoding is in wire/codec.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository

MAX_ENDPOINTS = 4
MAX_ZONE = 64
MAX_RECORD_BYTES = 512


@dataclass(frozen=True, slots=True, order=True)
class PeerId:
    """20 random bytes, made on first start and kept in the data directory; also the agent's DHT node id."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != 20:
            raise InvalidInputError(f"a peer id is 20 bytes, not {len(self.raw)}")

    @property
    def hex(self) -> str:
        return self.raw.hex()

    @property
    def short(self) -> str:
        return self.raw.hex()[:10]

    def __str__(self) -> str:
        return self.raw.hex()


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An IP address (v4 or v6, no brackets) and the port of both the peer (TCP) and DHT (UDP) listeners."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Provider:
    """A peer that says that it holds (or is fetching) some content."""

    peer: PeerId
    endpoints: tuple[Endpoint, ...]
    zone: str = ""
    complete: bool = True


@dataclass(frozen=True, slots=True)
class TagRecord:
    """A peer's word that ``tag`` of ``repository`` named ``digest`` when upstream was last asked, ``age`` seconds ago."""

    peer: PeerId
    digest: Digest
    media_type: str
    size: int
    age: float


@dataclass(frozen=True, slots=True, order=True)
class ContentKey:
    """Where in the DHT's 160-bit space the records about one thing live."""

    raw: bytes

    @classmethod
    def of_blob(cls, digest: Digest) -> ContentKey:
        return cls(hashlib.blake2b(f"blob {digest}".encode(), digest_size=20).digest())

    @classmethod
    def of_tag(cls, repository: Repository, tag: str) -> ContentKey:
        return cls(hashlib.blake2b(f"tag {repository}:{tag}".encode(), digest_size=20).digest())
