"""What the runtimes are told, from the agent's configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.cli.setup.mirrors import mirrors_of
from p2pdist.config.load import load_config
from p2pdist.config.model import Config, ListenAddress, MirrorConfig, RegistryConfig
from p2pdist.errors import ConfigError

USUAL = ListenAddress("127.0.0.1", 5050)


def config(listen: ListenAddress = USUAL, *registries: RegistryConfig) -> Config:
    found = registries or (RegistryConfig("docker.io"),)
    return Config(mirror=MirrorConfig(listen), registries={each.name: each for each in found})


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        (ListenAddress("127.0.0.1", 5050), "127.0.0.1:5050"),
        (ListenAddress("10.0.0.7", 80), "10.0.0.7:80"),
        (ListenAddress("", 6060), "127.0.0.1:6060"),
        (ListenAddress("0.0.0.0", 6060), "127.0.0.1:6060"),
        (ListenAddress("::", 6060), "[::1]:6060"),
        (ListenAddress("::1", 6060), "[::1]:6060"),
    ],
)
def test_the_mirror_is_named_as_this_host_reaches_it(listen: ListenAddress, address: str) -> None:
    mirrors = mirrors_of(config(listen))
    assert mirrors.address == address
    assert mirrors.url == f"http://{address}"


def test_a_port_that_is_not_fixed_cannot_be_told() -> None:
    with pytest.raises(ConfigError, match="port 0"):
        mirrors_of(config(ListenAddress("127.0.0.1", 0)))


def test_nothing_mirrored_is_nothing_to_set_up() -> None:
    with pytest.raises(ConfigError, match="mirrors no registry"):
        mirrors_of(Config())


@pytest.mark.parametrize(
    ("name", "url", "upstream", "location", "plain"),
    [
        ("docker.io", "", "https://registry-1.docker.io", "docker.io", False),
        ("ghcr.io", "", "https://ghcr.io", "ghcr.io", False),
        ("r.example.com:5000", "", "https://r.example.com:5000", "r.example.com:5000", False),
        ("r.example.com:5000", "http://r.example.com:5000", "http://r.example.com:5000", "r.example.com:5000", True),
        ("r.example.com", "http://10.77.0.2:5000", "http://10.77.0.2:5000", "10.77.0.2:5000", True),
    ],
)  # fmt: skip
def test_upstream_is_where_the_agent_would_fetch_from(
    name: str, url: str, upstream: str, location: str, plain: bool
) -> None:
    (registry,) = mirrors_of(config(USUAL, RegistryConfig(name, url))).registries
    assert (registry.upstream, registry.location, registry.plain_http) == (upstream, location, plain)


def test_every_registry_of_a_configuration_file_and_no_disabled_one(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[registries."gcr.io"]\nenabled = false\n[registries."r.example.com"]\nca_file = "/ca.pem"\n'
    )
    mirrors = mirrors_of(load_config(file, {}, {}, secrets=False))
    names = [registry.name for registry in mirrors.registries]
    assert "gcr.io" not in names
    assert "docker.io" in names
    found = mirrors.named("r.example.com")
    assert found is not None
    assert found.ca_file == Path("/ca.pem")
    assert mirrors.named("gcr.io") is None
