"""TLS material for tests of the peer protocol; the certificates come from p2pdist.testing.tls."""

from __future__ import annotations

from pathlib import Path

from p2pdist.peers.tls import PeerTls
from p2pdist.testing.tls import TestAuthority


def peer_tls(directory: Path, authority: TestAuthority | None = None) -> PeerTls:
    """One agent's files, signed by ``authority`` (default: one of its own, which nobody else trusts)."""
    files = (authority or TestAuthority()).issue(directory)
    return PeerTls(files.certificate, files.key, files.authority)
