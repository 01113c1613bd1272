from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.testing.tls import TestAuthority
from tests.support_peers import PeerBench
from tests.support_tls import peer_tls


@pytest.fixture(params=["plain", "tls"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> PeerBench:
    """Peers and clients of one cluster: every test runs in clear and under TLS."""
    if request.param == "plain":
        return PeerBench(tmp_path)
    return PeerBench(tmp_path, peer_tls(tmp_path / "tls", TestAuthority()))
