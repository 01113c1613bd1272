"""An agent beside a containerd: it serves what lies there, says so, and leaves it alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from p2pdist.agent.app import run_parts
from p2pdist.config.load import load_config
from p2pdist.oci.digest import Digest

CONFIG = """
[agent]
data_dir = "{directory}/data"
drain_timeout = "1s"
[mirror]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[store]
containerd_content = "content"
[registries."registry.example.test"]
url = "http://127.0.0.1:1"
{more}
"""
LAYER = b"layer" * 1000


class Served:
    def __init__(self, mirror: str, admin: str, session: aiohttp.ClientSession) -> None:
        self._mirror, self._admin, self._session = mirror, admin, session

    async def status(self) -> dict[str, Any]:
        async with self._session.get(f"http://{self._admin}/api/v1/status") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def blob(self, digest: Digest) -> tuple[int, bytes]:
        url = f"http://{self._mirror}/v2/registry.example.test/app/blobs/{digest}"
        async with self._session.get(url) as answer:
            return answer.status, await answer.read()

    async def metric(self, name: str) -> float:
        async with self._session.get(f"http://{self._admin}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    async def until(self, blobs: int) -> None:
        async with asyncio.timeout(30):
            while (await self.status())["containerd"]["blobs"] != blobs:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def agent(directory: Path, more: str = "") -> AsyncIterator[Served]:
    file = directory / "config.toml"
    file.write_text(CONFIG.format(directory=directory, more=more))
    async with run_parts(load_config(file, {}, {})) as running, aiohttp.ClientSession() as session:
        yield Served(running.listeners["mirror"], running.listeners["admin"], session)


def put(directory: Path, data: bytes) -> Path:
    path = directory / "content" / "blobs" / "sha256" / Digest.of(data).hex
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
    return path


async def test_what_containerd_holds_is_served_with_upstream_down(tmp_path: Path) -> None:
    path = put(tmp_path, LAYER)
    async with agent(tmp_path) as served:
        await served.until(1)
        status = await served.status()
        assert status["containerd"] == {
            "path": f"{tmp_path}/content",
            "blobs": 1,
            "size": 5000,
            "unchecked": 0,
            "trouble": "",
        }
        assert status["store"]["committed"] == 0
        assert await served.metric("p2pdist_seeded_blobs") == 1
        assert await served.metric("p2pdist_seeded_bytes") == 5000
        assert await served.metric("p2pdist_seeding_pending_blobs") == 0
        assert await served.blob(Digest.of(LAYER)) == (200, LAYER)
        path.unlink()
        assert (await served.blob(Digest.of(LAYER)))[0] >= 500  # of upstream, which is down
        await served.until(0)
        assert await served.metric("p2pdist_seeded_blobs") == 0
        assert await served.metric("p2pdist_seeded_bytes") == 0


async def test_a_restart_takes_up_what_was_checked(tmp_path: Path) -> None:
    put(tmp_path, LAYER)
    async with agent(tmp_path) as served:
        await served.until(1)
    marks = tmp_path / "data" / "containerd.checked"
    assert marks.read_text().startswith(str(Digest.of(LAYER)))
    async with agent(tmp_path) as served:
        await served.until(1)


async def test_why_nothing_is_seeded_is_told(tmp_path: Path) -> None:
    async with agent(tmp_path) as served:
        async with asyncio.timeout(30):
            while not (trouble := (await served.status())["containerd"]["trouble"]):
                await asyncio.sleep(0.02)
        assert f"there is no content in {tmp_path}/content/blobs" in trouble


async def test_what_is_shared_is_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with agent(tmp_path):
        assert f"all of containerd's content in {tmp_path}/content is shared" in caplog.text
    caplog.clear()
    async with agent(tmp_path, "share = false"):
        assert "not all registries are shared (registry.example.test)" in caplog.text


async def test_what_other_hosts_may_not_have_is_not_offered(tmp_path: Path) -> None:
    put(tmp_path, LAYER)
    async with agent(tmp_path, "share = false") as served:
        await served.until(1)
        assert await served.metric("p2pdist_seeded_blobs") == 0
        assert await served.metric("p2pdist_seeded_bytes") == 0
