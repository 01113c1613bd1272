"""Debug bundles: from a running agent with secrets, from one that answers in part, and from none."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pdist.agent.admin_token import read_admin_token
from p2pdist.agent.app import run_parts
from p2pdist.agent.diagnostics import MAX_ROWS, Diagnostics
from p2pdist.cli import bundle
from p2pdist.cli.main import run
from p2pdist.config.load import load_config
from p2pdist.errors import StoreError
from p2pdist.telemetry.logs import set_up_logging
from p2pdist.telemetry.recent import keep_recent_lines
from p2pdist.wire.keys import ClusterKey
from tests.adapters.cli.admin_server import fake_admin

KEY = ClusterKey(bytes(range(32)))
PASSWORDS = ("hunter2-in-a-file", "hunter3-in-the-toml", "hunter4-for-docker")
WRITTEN = """
[agent]
name = "h/1"
data_dir = "{at}/data"
drain_timeout = "1s"
docker_config = "{at}/docker.json"
[mirror]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[peer]
listen = "127.0.0.1:0"
cluster_key_file = "{at}/cluster.key"
[registries."ghcr.io"]
username = "puller"
password_file = "{at}/password"
[registries."quay.io"]
username = "puller"
password = "hunter3-in-the-toml"
"""


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("P2PDIST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("p2pdist.cli.options.DEFAULT_CONFIG", tmp_path / "absent.toml")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def configured(at: Path) -> Path:
    for name, text in (
        ("cluster.key", KEY.text()),
        ("password", PASSWORDS[0]),
        ("docker.json", json.dumps({"auths": {"gcr.io": {"auth": "dXNlcjpodW50ZXI0LWZvci1kb2NrZXI="}}})),
    ):
        (at / name).touch(0o600)
        (at / name).write_text(text)
    file = at / "config.toml"
    file.write_text(WRITTEN.format(at=at))
    return file


def unpacked(file: Path) -> tuple[str, dict[str, bytes]]:
    """The bundle's one directory, and its files."""
    found = {}
    with tarfile.open(file) as tar:
        for member in tar.getmembers():
            content = tar.extractfile(member)
            assert content is not None
            found[member.name] = content.read()
    (directory,) = {name.partition("/")[0] for name in found}
    return directory, {name.partition("/")[2]: data for name, data in found.items()}


async def test_a_running_agent_s_bundle_has_everything_but_secrets(tmp_path: Path) -> None:
    set_up_logging("debug")
    keep_recent_lines()
    target = tmp_path / "out.tar.gz"
    async with run_parts(load_config(configured(tmp_path), {}, {})) as running:
        token = read_admin_token(tmp_path / "data")
        logging.getLogger("p2pdist.x").warning("somebody logs %s and %s", KEY.text(), PASSWORDS[1])
        logging.getLogger("p2pdist.x").warning("and %s, and %s", PASSWORDS[2], token)
        words = ["status", "--bundle", str(target), "--admin", running.listeners["admin"]]
        assert await asyncio.to_thread(run, words) == 0
    directory, files = unpacked(target)
    assert directory == "p2pdist-h_1"
    assert set(files) == {
        "status.json", "peers.json", "transfers.json", "images.json", "pins.json", "command.json",
        "configuration.json", "process.json", "metrics.txt", "log.txt",
    }  # fmt: skip
    whole = b"".join(files.values())
    for secret in (KEY.text(), KEY.raw.hex(), token, *PASSWORDS, "aHVudGVy", "dXNlcjpo"):
        assert secret.encode() not in whole
    assert b"somebody logs *** and ***" in files["log.txt"]
    assert b"and ***, and ***" in files["log.txt"]
    assert json.loads(files["configuration.json"])["registries"]["ghcr.io"]["password"] == "***"
    assert json.loads(files["process.json"])["pid"] == os.getpid()
    assert json.loads(files["process.json"])["data_dir"]["bytes_free"] > 0
    assert b"# TYPE p2pdist_client_bytes_total counter" in files["metrics.txt"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.glob(".p2pdist-bundle-*")] == []


def test_no_agent_gives_what_the_host_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    target = tmp_path / "out.tar.gz"
    words = ["status", "--bundle", str(target), "--admin", address, "--config", str(configured(tmp_path))]
    assert run(words) == 3
    directory, files = unpacked(target)
    assert directory == "p2pdist-bundle"
    assert set(files) == {"command.json", "configuration.json", "missing.txt"}
    assert f"no agent answers at {address}".encode() in files["missing.txt"]
    assert json.loads(files["configuration.json"])["read_by"] == "command"
    assert PASSWORDS[1].encode() not in b"".join(files.values())
    assert "not in it: diagnostics and what follows: no agent answers" in capsys.readouterr().err


def test_an_older_agent_gives_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[nonsense]\n")
    target = tmp_path / "out.tar.gz"
    with fake_admin() as admin:
        admin.answers["GET /status"] = {"name": "../../old"}
        words = ["status", "--bundle", str(target), "--admin", admin.address]
        assert run([*words, "--config", str(tmp_path / "config.toml")]) == 0
    directory, files = unpacked(target)
    assert directory == "p2pdist-.._.._old"
    assert set(files) == {"status.json", "command.json", "missing.txt"}
    assert b"diagnostics: " in files["missing.txt"]
    assert b"configuration: " in files["missing.txt"]


def test_a_place_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_admin() as admin:
        target = tmp_path / "absent" / "out.tar.gz"
        assert run(["status", "--bundle", str(target), "--admin", admin.address]) == 1
    assert f"cannot write {target}: No such file or directory" in capsys.readouterr().err


def test_a_file_that_would_be_too_large_is_cut_and_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_FILE", 1000)
    target = tmp_path / "out.tar.gz"
    with fake_admin() as admin:
        admin.answers["GET /status"] = {"name": "old"}
        admin.answers["GET /images"] = {"images": ["x" * 10_000]}
        assert run(["status", "--bundle", str(target), "--admin", admin.address]) == 0
    _, files = unpacked(target)
    assert len(files["images.json"]) == 1000
    assert b"images.json: the first 1000 of 10" in files["missing.txt"]


class Ill:
    """An agent whose store does not answer any more, and which knows of more than a bundle may hold."""

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        raise StoreError("the catalog is locked")

    async def status(self) -> dict[str, Any]:
        raise RuntimeError("unforeseen")

    async def peers(self) -> list[dict[str, Any]]:
        return [{"peer": f"{at:040x}", "endpoint": PASSWORDS[1]} for at in range(5000)]

    async def images(self, most: int | None = None) -> list[dict[str, Any]]:
        assert most == MAX_ROWS
        return []

    async def transfers(self) -> list[dict[str, Any]]:
        return [{}] * 5000

    async def pins(self) -> list[str]:
        return [f"docker.io/library/app:{at}" for at in range(5000)]


async def test_what_an_ill_agent_cannot_tell_is_said_in_its_place(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = await Diagnostics(load_config(configured(tmp_path), {}, {}), KEY, Ill()).diagnostics()
    assert found["metrics"] == {"error": "StoreError: the catalog is locked"}
    assert found["pages"]["status"] == {"error": "RuntimeError: unforeseen"}
    assert [len(found["pages"][page][page]) for page in ("peers", "transfers", "pins")] == [MAX_ROWS] * 3
    assert found["pages"]["peers"]["peers"][0]["endpoint"] == "***"
    assert [record.message for record in caplog.records] == ["fault while diagnostics were collected"]
    target = tmp_path / "out.tar.gz"
    with fake_admin() as admin:
        admin.answers["GET /diagnostics"] = found
        assert (
            await asyncio.to_thread(run, ["status", "--bundle", str(target), "--admin", admin.address]) == 0
        )
    _, files = unpacked(target)
    assert b"status: RuntimeError: unforeseen" in files["missing.txt"]
    assert len(json.loads(files["peers.json"])["peers"]) == MAX_ROWS
