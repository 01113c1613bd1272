"""Compressed archives: read as if they were not, and bounded whatever they say."""

from __future__ import annotations

import bz2
import gzip
import importlib
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.cli.archives import compressed
from p2pdist.errors import InvalidInputError
from tests.unit.cli.archives.test_archives import as_tar, bytes_of, images_in, layout

Pack = Callable[[bytes], bytes]
PACKS: dict[str, Pack] = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
ZSTD = b"\x28\xb5\x2f\xfd"
try:
    zstd: Any = importlib.import_module("compression.zstd")
except ImportError:
    zstd = None
else:
    PACKS["zstd"] = lambda data: bytes(
        zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})
    )


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where archives are decompressed into; nothing may be left there."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return as_tar(layout(tmp_path))


def refused(path: Path, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as raised:
        images_in(path)
    assert str(path) in str(raised.value)
    assert os.listdir(os.environ["TMPDIR"]) == []


def packed(plain: Path, data: bytes) -> Path:
    path = plain.with_suffix(".packed")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", PACKS)
def test_it_holds_what_the_plain_one_holds(plain: Path, name: str) -> None:
    data = plain.read_bytes()
    path = packed(plain, PACKS[name](data))
    assert bytes_of(path) == bytes_of(plain) != {}
    assert os.listdir(os.environ["TMPDIR"]) == []


@pytest.mark.parametrize("name", PACKS)
def test_several_streams_with_zeros_between_and_behind_are_one(plain: Path, name: str) -> None:
    data, pack = plain.read_bytes(), PACKS[name]
    parts = [pack(data[:1000]), bytes(4), pack(b""), pack(data[1000:]), bytes(100_000)]
    assert bytes_of(packed(plain, b"".join(parts))) == bytes_of(plain)


def test_what_the_usual_program_writes(plain: Path) -> None:
    subprocess.run(["gzip", "-9", "--keep", plain], check=True, timeout=30)
    assert bytes_of(plain.with_suffix(".tar.gz")) == bytes_of(plain)


@pytest.mark.parametrize("name", PACKS)
def test_one_that_is_cut_off_anywhere(plain: Path, name: str) -> None:
    data = PACKS[name](plain.read_bytes())
    for stop in (len(data) - 1, len(data) - 9, len(data) // 2, 8):
        refused(packed(plain, data[:stop]), "cut off")


@pytest.mark.parametrize("name", PACKS)
@pytest.mark.parametrize("tail", [b"x", b"trailing garbage", b"\0" * 70_000 + b"late", b"\x1f", b"BZ"])
def test_one_with_something_behind_it(plain: Path, name: str, tail: bytes) -> None:
    refused(packed(plain, PACKS[name](plain.read_bytes()) + tail), "something after the end")


@pytest.mark.parametrize("name", PACKS)
def test_one_that_is_damaged(plain: Path, name: str) -> None:
    data = bytearray(PACKS[name](plain.read_bytes()))
    data[len(data) // 2] ^= 0x55
    refused(packed(plain, bytes(data)), "damaged|cut off")


@pytest.mark.parametrize("name", PACKS)
def test_a_bomb_stops_at_the_bound(plain: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "MAX_SMALL", 2**20)
    bomb = packed(plain, PACKS[name](bytes(24 * 2**20)))
    written: list[int] = []
    check = compressed._check_room

    def watch(out: Any, where: str) -> None:
        written.append(out.tell())
        check(out, where)

    monkeypatch.setattr(compressed, "_check_room", watch)
    monkeypatch.setattr(compressed, "_CHECK_EVERY", 1)
    refused(bomb, "more than 100 times as large")
    assert max(written) <= max(2**20, 100 * bomb.stat().st_size)


def test_many_small_bombs_are_one_bomb(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "MAX_SMALL", 2**20)
    refused(packed(plain, gzip.compress(bytes(100_000)) * 50), "more than 100 times as large")


def test_a_disk_without_room_is_left_alone(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "SPARE", 2**70)
    refused(packed(plain, gzip.compress(plain.read_bytes())), "set TMPDIR to a directory with more room")


def test_a_scratch_directory_that_is_not_there(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(plain, gzip.compress(plain.read_bytes()))
    monkeypatch.setenv("TMPDIR", str(plain.parent / "absent"))
    with pytest.raises(InvalidInputError, match=r"absent.*set TMPDIR"):
        images_in(path)


def test_an_xz_that_wants_much_memory(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = lzma.compress(plain.read_bytes(), preset=6)
    monkeypatch.setattr(compressed, "MAX_WINDOW", 2**20)
    refused(packed(plain, data), "not readable as xz")


def test_one_compressed_twice(plain: Path) -> None:
    refused(packed(plain, bz2.compress(gzip.compress(plain.read_bytes()))), "gzip inside of bzip2")


def test_what_this_python_cannot_read_is_named(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str) -> Any:
        if name == "compression.zstd":
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without)
    refused(packed(plain, ZSTD + bytes(100)), "compressed with zstd, which this Python cannot read")


@given(st.data())
def test_noise_is_an_archive_or_an_invalid_input(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    name = data.draw(st.sampled_from(sorted(PACKS)))
    body = bytearray(PACKS[name](data.draw(st.binary(max_size=200))))
    for at in data.draw(st.lists(st.integers(0, len(body) - 1), max_size=4)):
        body[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path_factory.getbasetemp() / "noise.tar"
    path.write_bytes(bytes(body) + data.draw(st.binary(max_size=20)))
    with pytest.raises(InvalidInputError):
        images_in(path)
