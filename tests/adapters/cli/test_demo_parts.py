"""The demo's parts: directory and processes, the images, and the pulling client against a real registry."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from p2pdist.cli.demo import images, workspace
from p2pdist.cli.demo.cluster import REGISTRY, agent_config
from p2pdist.cli.demo.command import first_failure
from p2pdist.cli.demo.figures import registry_bytes
from p2pdist.cli.demo.runtime import Runtime
from p2pdist.cli.demo.workspace import Child, Workspace, child_environment, free_ports, process_identity
from p2pdist.cli.errors import CommandError, ExitCode
from p2pdist.config.load import load_config
from p2pdist.testing.registry import FakeRegistry
from p2pdist.wire.keys import ClusterKey

SCALE = 0.002


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(workspace.tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_workspace_goes_or_is_kept(temporary: Path) -> None:
    one, kept = Workspace(), Workspace()
    one.remove()
    kept.keep()
    Workspace().remove()
    assert list(temporary.iterdir()) == [kept.path]


def test_what_a_killed_demo_left_is_removed_and_a_living_ones_is_not(temporary: Path) -> None:
    living = Workspace()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        dead = Workspace()
        (dead.path / "owner").write_text(process_identity(process.pid))
        process.kill()
    Workspace().remove()
    assert living.path.exists()
    assert not dead.path.exists()


def test_free_ports_are_distinct_and_free() -> None:
    ports = free_ports(6)
    assert len(set(ports)) == 6
    for port in ports:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.bind(("127.0.0.1", port))


def test_children_see_no_configuration_and_no_proxy() -> None:
    env = {
        "P2PDIST_STORE_MAX_SIZE": "1",
        "HTTP_PROXY": "x",
        "https_proxy": "y",
        "NOTIFY_SOCKET": "/z",
        "PATH": "/bin",
    }
    assert child_environment(env) == {"PATH": "/bin"}


async def test_a_child_that_ends_early_shows_its_log(tmp_path: Path) -> None:
    child = await Child.start("registry", ["p2pdist", "pull", "Not A Name"], tmp_path / "registry")
    await child.process.wait()
    with pytest.raises(CommandError, match="ended early") as caught:
        child.check()
    assert "lower-case components" in str(caught.value)


async def test_a_child_is_asked_to_stop(tmp_path: Path) -> None:
    child = await Child.start("python", ["http.server", "0", "--bind", "127.0.0.1"], tmp_path / "python")
    child.check()
    assert await child.stop() == -signal.SIGTERM
    assert await child.stop() == -signal.SIGTERM


PARENT = """
import asyncio, sys
from pathlib import Path
from p2pdist.cli.demo.workspace import Child

async def main():
    child = await Child.start("child", ["http.server", "0", "--bind", "127.0.0.1"], Path(sys.argv[1]))
    print(child.process.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_children_die_with_a_demo_that_is_killed_outright(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "child")], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        watch = os.pidfd_open(pid)
        try:
            parent.kill()
            assert select.select([watch], [], [], 60)[0], "the child outlived its parent"
        finally:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(watch, signal.SIGKILL)
            os.close(watch)


def test_the_layout_measures_what_its_files_hold(tmp_path: Path) -> None:
    found = images.build(tmp_path / "images", SCALE)
    files = sum(path.stat().st_size for path in (tmp_path / "images" / "blobs").glob("*/*"))
    assert found.unique_bytes == files
    assert found.image_bytes > 2.5 * found.unique_bytes
    assert found.names == [("svc-a", "1.0"), ("svc-b", "1.0"), ("svc-c", "1.0")]


async def test_a_runtime_fetches_each_content_once_and_counts_as_the_registry_does(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    found = images.build(tmp_path / "images", SCALE)
    advanced: list[int] = []
    async with FakeRegistry() as registry:
        registry.content.load_layout(found.layout)
        runtime = Runtime(session, registry.url, REGISTRY, advanced.append)
        await runtime.pull(found.names)
        assert runtime.bytes == sum(advanced) == found.unique_bytes
        assert registry_bytes(registry.counters.as_json()) == found.unique_bytes
        assert set(registry.counters.blob_requests.values()) == {1}
        assert all("?ns=registry.example.com" in path for path in registry.counters.paths)


async def test_a_runtime_refuses_wrong_bytes_and_passes_on_what_the_mirror_said(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    found = images.build(tmp_path / "images", SCALE)
    async with FakeRegistry() as registry:
        registry.content.load_layout(found.layout)
        registry.faults.flip_at, registry.faults.flip_times = 5, 1
        with pytest.raises(BaseExceptionGroup) as caught:
            await Runtime(session, registry.url, REGISTRY, lambda count: None).pull(found.names)
        error = first_failure(caught.value, lambda: "the logs")
        assert error.code is ExitCode.PROMISE_BROKEN
        assert "another digest" in str(error)
        assert "the logs" in str(error)
        with pytest.raises(BaseExceptionGroup) as caught:
            await Runtime(session, registry.url, REGISTRY, lambda count: None).pull([("svc-x", "1.0")])
        assert "answered 404" in str(first_failure(caught.value, lambda: ""))
    with pytest.raises(BaseExceptionGroup) as caught:
        await Runtime(session, registry.url, REGISTRY, lambda count: None).pull(found.names)
    assert first_failure(caught.value, lambda: "").code is ExitCode.FAILED


def test_an_agents_configuration_is_a_valid_one(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(ClusterKey.generate().text())
    file = tmp_path / "config.toml"
    file.write_text(
        agent_config("agent-1", tmp_path, 20001, 20002, 20003, ["127.0.0.1:20002"], key, "http://127.0.0.1:1")
    )
    config = load_config(file, {}, {})
    assert config.warnings == ()
    assert config.registries[REGISTRY].url == "http://127.0.0.1:1"
    assert config.peer.bootstrap == ("127.0.0.1:20002",)
