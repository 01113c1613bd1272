"""How an agent starts: what it warns of, and what it says about ports that it cannot have."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from p2pdist.agent.app import run_parts
from p2pdist.config.load import load_config
from p2pdist.config.model import Config
from p2pdist.wire.keys import ClusterKey

LONE = """
[agent]
data_dir = "{data}"
drain_timeout = "1s"
[mirror]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:{admin}"
[peer]
listen = "127.0.0.1:{peer}"
bootstrap = ["192.0.2.1:5051"]
"""
WARNING = "peer.bootstrap is given, but no peer.cluster_key_file"


def config_file(directory: Path, *, admin: int = 0, peer: int = 0, key: bool = False) -> Path:
    text = LONE.format(data=directory / "data", admin=admin, peer=peer)
    if key:
        secret = directory / "cluster.key"
        secret.touch(0o600)
        secret.write_text(ClusterKey(bytes(range(32))).text())
        text = text.replace('bootstrap = ["192.0.2.1:5051"]', f'cluster_key_file = "{secret}"')
    file = directory / "config.toml"
    file.write_text(text)
    return file


def config_for(directory: Path, *, key: bool = False) -> Config:
    return load_config(config_file(directory, key=key), {}, {})


def in_use(kind: socket.SocketKind) -> socket.socket:
    taken = socket.socket(socket.AF_INET, kind)
    taken.bind(("127.0.0.1", 0))
    if kind is socket.SOCK_STREAM:
        taken.listen()
    return taken


async def test_what_the_configuration_is_warned_of_stands_in_the_status(tmp_path: Path) -> None:
    async with run_parts(config_for(tmp_path)) as running, aiohttp.ClientSession() as session:
        async with session.get(f"http://{running.listeners['admin']}/api/v1/status") as response:
            warnings = (await response.json())["warnings"]
    assert len(warnings) == 1
    assert WARNING in warnings[0]


def failed_start(file: Path) -> str:
    """What ``p2pdist agent`` says when it does not start."""
    command = [sys.executable, "-m", "p2pdist", "agent", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    return done.stderr


def test_the_warnings_are_logged_though_the_start_fails(tmp_path: Path) -> None:
    with in_use(socket.SOCK_STREAM) as taken:
        said = failed_start(config_file(tmp_path, admin=taken.getsockname()[1]))
    assert WARNING in said
    assert "another program listens there already" in said


@pytest.mark.parametrize(
    ("kind", "tells"),
    [
        (socket.SOCK_STREAM, "another program listens there already (ss -ltnp"),
        (socket.SOCK_DGRAM, "UDP: another program listens there already (ss -lunp"),
    ],
)
def test_a_peer_port_in_use_names_the_key_and_the_way_out(
    tmp_path: Path, kind: socket.SocketKind, tells: str
) -> None:
    with in_use(kind) as taken:
        port = taken.getsockname()[1]
        said = failed_start(config_file(tmp_path, peer=port, key=True))
    assert f"peer.listen = 127.0.0.1:{port}: {tells}" in said
    assert "set peer.listen to a free port" in said


async def test_a_member_tells_what_its_dht_does_and_what_it_holds(tmp_path: Path) -> None:
    async with run_parts(config_for(tmp_path, key=True)) as running, aiohttp.ClientSession() as session:
        async with session.get(f"http://{running.listeners['admin']}/metrics") as response:
            text = await response.text()
        async with session.get(f"http://{running.listeners['admin']}/api/v1/peers") as response:
            assert await response.json() == {"peers": []}
    state = [line for line in text.splitlines() if line.startswith("p2pdist_dht_state{")]
    assert [line.partition('"')[2].partition('"')[0] for line in state] == [
        "announced", "contacts", "keys", "records",
    ]  # fmt: skip
    events = [line for line in text.splitlines() if line.startswith("p2pdist_dht_events_total{")]
    assert not [line for line in events if "contacts" in line]


async def test_the_admin_listener_answers_to_the_names_it_was_given(tmp_path: Path) -> None:
    file = config_file(tmp_path)
    file.write_text(file.read_text().replace("[admin]\n", '[admin]\nnames = ["proxy.example.internal"]\n'))
    async with run_parts(load_config(file, {}, {})) as running, aiohttp.ClientSession() as session:
        url = f"http://{running.listeners['admin']}/api/v1/status"
        async with session.get(url, headers={"Host": "proxy.example.internal"}) as answer:
            assert answer.status == 200
        async with session.get(url, headers={"Host": "other.example.internal"}) as answer:
            assert answer.status == 403
            assert "admin.names" in (await answer.json())["error"]["message"]
