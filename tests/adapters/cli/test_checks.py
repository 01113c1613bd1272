"""What ``p2pdist check`` tries, on real sockets and directories."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from p2pdist.cli.checks import local, network, traces
from p2pdist.cli.checks.finding import Level
from p2pdist.cli.main import run
from p2pdist.config.model import (
    AgentConfig,
    Config,
    ListenAddress,
    MirrorConfig,
    PeerConfig,
    RegistryConfig,
    StoreConfig,
    TelemetryConfig,
)
from p2pdist.config.schema import DEFAULT_REGISTRIES
from p2pdist.errors import DeniedError, UnreachableError
from p2pdist.testing.registry import FakeRegistry
from p2pdist.testing.tls import TestAuthority
from tests.adapters.cli.admin_server import fake_admin


def mirror_at(port: int, host: str = "127.0.0.1") -> Config:
    return replace(
        Config(), mirror=MirrorConfig(ListenAddress(host, port)), peer=PeerConfig(insecure_open_cluster=True)
    )


def listening(kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    held = socket.socket(socket.AF_INET, kind)
    held.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        held.listen()
    return held


def test_a_free_port_and_one_that_another_program_holds() -> None:
    with listening() as held:
        port = held.getsockname()[1]
        finding = next(iter(local.check_ports(mirror_at(port), None)))
        assert finding.level is Level.FAIL
        assert f"127.0.0.1:{port} (TCP) is in use" in finding.detail
        assert "mirror.listen" in finding.mend
        ours = next(iter(local.check_ports(mirror_at(port), "host-1")))
        assert ours.level is Level.OK
        assert "running agent host-1" in ours.detail
    assert next(iter(local.check_ports(mirror_at(0), None))).level is Level.OK


def test_the_peer_port_is_udp_too() -> None:
    with listening(socket.SOCK_DGRAM) as held:
        port = held.getsockname()[1]
        peer = PeerConfig(listen=ListenAddress("127.0.0.1", port), insecure_open_cluster=True)
        config = replace(mirror_at(0), peer=peer)
        finding = list(local.check_ports(config, None))[2]
        assert finding.level is Level.FAIL
        assert "(UDP) is in use" in finding.detail
        alone = list(
            local.check_ports(replace(config, peer=replace(peer, insecure_open_cluster=False)), None)
        )[2]
        assert alone.level is Level.OK
        assert "off" in alone.detail


def test_an_address_of_another_host() -> None:
    finding = next(iter(local.check_ports(mirror_at(0, "192.0.2.1"), None)))
    assert finding.level is Level.FAIL
    assert "no address of this host" in finding.detail


def test_a_data_directory_that_is_there_will_be_made_or_cannot_be(tmp_path: Path) -> None:
    def findings(path: Path) -> list[tuple[Level, str]]:
        config = replace(Config(), agent=AgentConfig(data_dir=path), store=StoreConfig(max_size=2**20))
        return [(each.level, each.detail) for each in local.check_data_dir(config)]

    assert findings(tmp_path)[0] == (Level.OK, str(tmp_path))
    assert findings(tmp_path / "a" / "b")[0] == (Level.OK, f"{tmp_path}/a/b (will be made)")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert findings(tmp_path / "file" / "b")[0] == (Level.FAIL, f"{tmp_path}/file is not a directory")
    assert findings(Path("/proc/sys"))[0][0] is Level.FAIL


def test_a_store_that_the_disk_cannot_hold_is_a_warning(tmp_path: Path) -> None:
    config = replace(Config(), agent=AgentConfig(data_dir=tmp_path), store=StoreConfig(max_size=2**60))
    finding = list(local.check_data_dir(config))[1]
    assert finding.level is Level.WARN
    assert "store.max_size" in finding.mend


def test_containerds_content_that_is_there_is_not_or_is_no_directory(tmp_path: Path) -> None:
    def findings() -> list[tuple[Level, str]]:
        config = replace(Config(), store=StoreConfig(containerd_content=tmp_path))
        return [(each.level, each.detail) for each in local.check_containerd(config)]

    assert list(local.check_containerd(Config())) == []
    assert findings() == [(Level.WARN, f"there is no {tmp_path}/blobs/sha256")]
    (tmp_path / "blobs" / "sha256" / "blob").mkdir(parents=True)
    assert findings() == [(Level.OK, f"1 blobs in {tmp_path}, seeded from there")]
    (tmp_path / "blobs" / "sha256" / "blob").rmdir()
    (tmp_path / "blobs" / "sha256").rmdir()
    (tmp_path / "blobs" / "sha256").write_text("")
    assert findings()[0][0] is Level.FAIL


def test_traces_with_a_collector_without_one_and_without_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def findings(address: str, *, offline: bool = False) -> list[tuple[Level, str]]:
        config = replace(Config(), telemetry=TelemetryConfig(traces=address))
        return [(each.level, each.detail) for each in traces.check_traces(config, offline=offline)]

    assert findings("") == []
    with listening() as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/otlp"
        assert findings(url) == [(Level.OK, f"go to {url}/v1/traces")]
    assert findings(url, offline=True)[0][0] is Level.OK
    assert findings(url) == [(Level.WARN, f"nothing answers at {url} (Connection refused)")]
    monkeypatch.setattr(traces, "_PACKAGES", ("no_such_package.inside",))
    assert findings(url) == [(Level.FAIL, f"{url} is set, and no_such_package.inside is not installed")]


def test_a_clock_that_says_1970() -> None:
    assert local.check_clock(0.0).level is Level.FAIL
    assert local.check_clock(1.8e9).level is Level.OK


async def test_names_that_resolve_and_names_that_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await network.check_bootstrap("127.0.0.1:5051")).level is Level.OK

    def no_such_name(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(network.socket, "getaddrinfo", no_such_name)
    finding = await network.check_bootstrap("dns:agents.example:5051")
    assert finding.level is Level.WARN
    assert "agents.example does not resolve" in finding.detail


def test_a_lookup_that_hangs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        released.wait(60)
        return []

    monkeypatch.setattr(network.socket, "getaddrinfo", hang)
    try:
        with pytest.raises(TimeoutError):
            network.resolve("a.example", 1, bound=0.01)
    finally:
        released.set()


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (None, Level.OK),
        (DeniedError("401"), Level.FAIL),
        (UnreachableError("refused"), Level.WARN),
        (TimeoutError(), Level.WARN),
    ],
)
async def test_a_registry_that_answers_refuses_or_is_away(error: Exception | None, level: Level) -> None:
    async def ping(name: str) -> str:
        if error:
            raise error
        return "answers, anonymously"

    finding = await network.check_registry(RegistryConfig("r.example", url="http://127.0.0.1:1"), ping)
    assert finding.level is level
    assert bool(finding.mend) is (level is not Level.OK)


def test_tls_files_that_fit_and_files_that_do_not(tmp_path: Path) -> None:
    authority = TestAuthority()
    one, other = authority.issue(tmp_path / "one"), authority.issue(tmp_path / "other")

    def findings(key: Path) -> list[Level]:
        peer = PeerConfig(tls_cert_file=one.certificate, tls_key_file=key, tls_ca_file=one.authority)
        return [each.level for each in local.check_tls(replace(Config(), peer=peer))]

    assert findings(one.key) == [Level.OK]
    assert findings(other.key) == [Level.FAIL]
    assert list(local.check_tls(Config())) == []


@pytest.mark.usefixtures("quiet_environment")
async def test_registries_are_really_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    usual = "".join(f'[registries."{name}"]\nenabled = false\n' for name in DEFAULT_REGISTRIES)
    async with FakeRegistry() as registry:
        file.write_text(f"""
            {usual}
            [agent]
            data_dir = "{tmp_path}"
            docker_config = ""
            [mirror]
            listen = "127.0.0.1:0"
            [admin]
            listen = "127.0.0.1:0"
            [registries."r.example"]
            url = "{registry.url}"
            [registries."away.example"]
            url = "http://127.0.0.1:1"
        """)
        assert await asyncio.to_thread(run, ["check", "--json", "--config", str(file)]) == 0
        assert registry.counters.count("GET", "ping") == 1
    findings = {each["name"]: each for each in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["registry r.example"]["level"] == "ok"
    assert findings["registry away.example"]["level"] == "warn"


@pytest.fixture
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("P2PDIST_")]:
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("quiet_environment")
def test_a_sound_configuration_beside_its_running_agent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_admin() as admin:
        admin.answers["GET /status"] = {"name": "host-1", "version": "0.1.0"}
        file = tmp_path / "config.toml"
        file.write_text(f"""
            [agent]
            data_dir = "{tmp_path}"
            [store]
            max_size = "1MiB"
            [mirror]
            listen = "127.0.0.1:0"
            [admin]
            listen = "{admin.address}"
        """)
        assert run(["check", "--offline", "--config", str(file)]) == 0
        assert "held by the running agent host-1" in capsys.readouterr().out


@pytest.mark.usefixtures("quiet_environment")
def test_an_unsound_configuration_fails_with_the_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[store]\nmax_sise = 1\n[tag]")
    assert run(["check", "--json", "--config", str(file)]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert [finding["level"] for finding in answer["findings"]] == ["fail", "fail"]
    assert all(finding["mend"] for finding in answer["findings"])
