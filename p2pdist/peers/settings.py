"""The numbers that the client of other peers works with."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PeerClientSettings:
    """Times in seconds. ``head_start`` is what an endpoint gets before the next one is tried beside it."""

    connect_timeout: float = 1.0
    first_byte_timeout: float = 2.0
    progress_timeout: float = 3.0
    piece_timeout: float = 36.0
    head_start: float = 0.15
    keepalive: float = 30.0
    max_connections: int = 256
    ssl: ssl.SSLContext | None = None
