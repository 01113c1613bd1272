from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from tests.support_tls import peer_tls


def test_unusable_files_are_named(tmp_path: Path) -> None:
    good, other = peer_tls(tmp_path / "one"), peer_tls(tmp_path / "two")
    missing, garbage = tmp_path / "missing.pem", tmp_path / "garbage.pem"
    garbage.write_text("not a certificate")
    for bad, named in (
        (replace(good, authority=missing), "missing.pem"),
        (replace(good, authority=garbage), "garbage.pem"),
        (replace(good, certificate=missing), "missing.pem"),
        (replace(good, key=other.key), "leaf.key"),
    ):
        for make in (bad.client_context, bad.server_context):
            with pytest.raises(ConfigError, match=named):
                make()
    assert good.client_context().verify_mode.name == "CERT_REQUIRED"
    assert good.server_context().verify_mode.name == "CERT_REQUIRED"
