"""The answer with which a proven peer's connection leaves HTTP: what comes after it are frames (flow.py, swarm_inbox.py)."""

from __future__ import annotations

from p2pdist.api.peer_gate import PEER_HEADER
from p2pdist.wire.http_auth import MAC_HEADER, Credentials, HttpAuth


def welcome(auth: HttpAuth, credentials: Credentials, protocol: str) -> bytes:
    """A sealed 101 that switches to ``protocol``."""
    headers = {"Connection": "Upgrade", "Upgrade": protocol, PEER_HEADER: auth.own.hex}
    headers[MAC_HEADER] = auth.seal(credentials, 101, headers)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode("ascii")
