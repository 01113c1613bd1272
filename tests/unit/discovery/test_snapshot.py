"""The file of contacts: what was kept is read back, and no file can keep a node from starting."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.discovery import snapshot
from p2pdist.discovery.addresses import HostPort
from p2pdist.records import Endpoint


def test_what_was_kept_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "contacts.json"
    snapshot.save(file, [Endpoint("10.0.0.1", 5051), Endpoint("fd00::1", 5052)])
    assert snapshot.load(file) == [HostPort("10.0.0.1", 5051), HostPort("fd00::1", 5052)]
    assert [path.name for path in tmp_path.iterdir()] == ["contacts.json"]


def test_only_so_many_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "contacts.json"
    snapshot.save(file, (Endpoint("10.0.0.1", port) for port in range(1, 1000)))
    assert len(snapshot.load(file)) == snapshot.MAX_CONTACTS


def test_no_file_is_nothing_to_speak_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert snapshot.load(tmp_path / "none.json") == []
    assert caplog.text == ""


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04pickle",
        b"[]",
        b'{"version": 2, "contacts": []}',
        b'{"version": 1, "contacts": 7}',
        b'{"version": 1, "contacts": ["nonsense"]}',
        b"[" * 60_000,
        b" " * 100_000,
    ],
)
def test_an_unusable_file_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    file = tmp_path / "contacts.json"
    file.write_bytes(content)
    assert snapshot.load(file) == []
    assert str(file) in caplog.text


def test_a_directory_that_cannot_be_written_is_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot.save(tmp_path / "gone" / "contacts.json", [Endpoint("10.0.0.1", 5051)])
    assert "could not be kept" in caplog.text
