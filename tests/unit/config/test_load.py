"""From a file, the environment and flags to a Config, or to an error that says what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.config import schema
from p2pdist.config.load import load_config
from p2pdist.config.model import Config, ListenAddress
from p2pdist.errors import ConfigError
from p2pdist.wire.keys import ClusterKey

EVERYTHING = """
[agent]
data_dir = "/data"
name = "host-1"
zone = "rack-7"
log_level = "DEBUG"
log_format = "json"
drain_timeout = "1m"
docker_config = ""
[mirror]
listen = "127.0.0.1:6050"
max_connections = 10
[peer]
listen = "[::]:6051"
advertise = "10.0.0.7"
bootstrap = ["10.0.0.1:5051", "dns:agents.example.internal:5051"]
max_uploads = 3
[admin]
listen = ":6052"
[store]
max_size = "10GiB"
[limits]
upload = "1MiB/s"
download = "8Mbit/s"
upstream = 1000
[tags]
ttl = "5m"
stale_if_upstream_down = "1d"
[registries."docker.io"]
username = "me"
password = "secret"
[registries."registry.example.test:5000"]
url = "http://10.77.0.2:5000"
share = false
[registries."gcr.io"]
enabled = false
"""


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "config.toml"
        file.write_text(text)
        return file

    return write


def failure(
    file: Path | None = None, env: dict[str, str] | None = None, overrides: dict[str, str] | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(file, env or {}, overrides or {})
    return str(caught.value)


def test_without_anything_it_is_a_single_host_mirror_of_the_usual_registries() -> None:
    config = load_config(None, {}, {})
    assert config.mirror.listen == ListenAddress("127.0.0.1", 5050)
    assert tuple(config.registries) == schema.DEFAULT_REGISTRIES
    assert config.agent.name
    assert config.warnings == ()


def test_every_key_of_the_file_arrives(write: Write) -> None:
    config = load_config(write(EVERYTHING), {}, {})
    assert config.agent.data_dir == Path("/data")
    assert (config.agent.name, config.agent.zone, config.agent.log_level) == ("host-1", "rack-7", "debug")
    assert config.agent.drain_timeout == 60
    assert (config.mirror.listen.port, config.mirror.max_connections) == (6050, 10)
    assert config.peer.listen == ListenAddress("::", 6051)
    assert config.peer.advertise == "10.0.0.7:6051"
    assert config.peer.bootstrap == ("10.0.0.1:5051", "dns:agents.example.internal:5051")
    assert config.store.max_size == 10 * 2**30
    assert (config.limits.upload, config.limits.download, config.limits.upstream) == (2**20, 10**6, 1000)
    assert (config.tags.ttl, config.tags.stale_if_upstream_down) == (300, 86400)
    assert config.registries["docker.io"].password == "secret"
    assert config.registries["registry.example.test:5000"].url == "http://10.77.0.2:5000"
    assert not config.registries["registry.example.test:5000"].share
    assert "gcr.io" not in config.registries
    assert "ghcr.io" in config.registries
    assert config.docker_config_file is None


def test_flags_win_over_the_environment_and_that_over_the_file(write: Write) -> None:
    file = write('[store]\nmax_size = "1GiB"\n[tags]\nttl = "1s"\n[agent]\nname = "file"')
    env = {"P2PDIST_STORE_MAX_SIZE": "2GiB", "P2PDIST_AGENT_NAME": "env"}
    config = load_config(file, env, {"agent.name": "flag"})
    assert (config.tags.ttl, config.store.max_size, config.agent.name) == (1, 2 * 2**30, "flag")


def test_a_list_in_the_environment_has_commas() -> None:
    config = load_config(None, {"P2PDIST_PEER_BOOTSTRAP": "10.0.0.1:5051, dns:a.example:5051"}, {})
    assert config.peer.bootstrap == ("10.0.0.1:5051", "dns:a.example:5051")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[store]\nmax_sise = 1", ['unknown key "max_sise" in [store]', "nearest known is max_size"]),
        ("[stor]\nmax_size = 1", ['unknown: ["stor"]', "nearest known is [store]"]),
        ("bootstrap = []", ["outside of any section", "[peer]"]),
        ('listen = "127.0.0.1:1"', ["outside of any section", "[mirror], [peer], [admin]"]),
        ("store = 1", ["store is a section"]),
        ('[store]\nmax_size = "50 apples"', ["[store] max_size", '"50 apples" is not a size', '"50GiB"']),
        ("[store]\nmax_size = true", ["true is not a size"]),
        ("[mirror]\nmax_connections = 0", ["0 is out of bounds", "1 to 65536"]),
        ('[mirror]\nlisten = "example.com:80"', ["[mirror] listen", "not an IP address"]),
        ('[tags]\nttl = "forever"', ['"forever" is not a duration', '"7d"']),
        ('[agent]\nlog_level = "loud"', ['"debug"', '"error"']),
        ('[agent]\ndata_dir = "data"', ["agent.data_dir", "absolute"]),
        ("[registries.docker.io]\nshare = false", ["a name with dots needs quotes"]),
        ('[registries."not a host"]', ["is not HOST or HOST:PORT"]),
        ('[registries."docker.io"]\n[registries."index.docker.io"]', ["given twice"]),
        ('[registries."docker.io"]\nurls = "x"', ['unknown key "urls"', "nearest known is url"]),
        ('[registries."a.example"]\nurl = "a.example"', ["http://"]),
        ('[registries."a.example"]\nusername = "me"', ["needs a password_file"]),
        ('[registries."a.example"]\npassword = "x"', ["needs a username"]),
        ('[registries."a.example"]\nusername = "me"\npassword = "x"\npassword_file = "y"', ["not both"]),
        ('registries = "docker.io"', ["[registries]"]),
        ('[admin]\nlisten = "127.0.0.1:5050"', ["mirror.listen", "admin.listen", "same port"]),
        ('[peer]\nlisten = ":5050"', ["mirror.listen", "peer.listen", "same port"]),
        ('[peer]\ntls_cert_file = "/x"', ["tls_key_file", "tls_ca_file", "or none of them"]),
        ('[peer]\nadvertise = "0.0.0.0:1"', ["others can reach"]),
        ("[agent\n", ["not valid TOML", "line 1"]),
        ("x = " + "9" * 5000, ["not valid TOML"]),
        ("x = " + "[" * 20000, ["nested too deeply"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_its_mend(write: Write, text: str, words: list[str]) -> None:
    file = write(text)
    message = failure(file)
    for word in words:
        assert word in message
    if (
        "agent.data_dir" not in message
        and "same port" not in message
        and "tls_" not in message
        and "registries" not in message
    ):
        assert str(file) in message


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    message = failure(write('[store]\nmax_size = "x"\n[tags]\nttl = "y"\nttt = 1'))
    assert len(message.splitlines()) == 3


def test_a_mistake_in_the_environment_names_the_variable() -> None:
    message = failure(env={"P2PDIST_STORE_MAX_SISE": "1"})
    assert "P2PDIST_STORE_MAX_SISE" in message
    assert "nearest known is P2PDIST_STORE_MAX_SIZE" in message
    assert "P2PDIST_TAGS_TTL in the environment" in failure(env={"P2PDIST_TAGS_TTL": "soon"})


def test_what_kubernetes_sets_for_a_service_is_left_alone() -> None:
    env = {
        "P2PDIST_SERVICE_HOST": "10.0.0.1",
        "P2PDIST_SERVICE_PORT": "5050",
        "P2PDIST_SERVICE_PORT_MIRROR": "5050",
        "P2PDIST_PORT": "tcp://10.0.0.1:5050",
        "P2PDIST_MIRROR_PORT_5050_TCP_ADDR": "10.0.0.1",
        "P2PDIST_CONFIG": "/x",
        "P2PDIST_VENV": "/y",
        "P2PDISTRIBUTION": "z",
    }
    assert load_config(None, env, {}) == load_config(None, {}, {})


def test_a_mistake_among_the_flags_names_the_key() -> None:
    assert "nearest known is store.max_size" in failure(overrides={"store.maxsize": "1"})
    assert "store.max_size on the command line" in failure(overrides={"store.max_size": "1"})


def test_a_file_that_is_not_there_or_not_a_file(tmp_path: Path) -> None:
    assert "No such file" in failure(tmp_path / "absent.toml")
    assert "directory" in failure(tmp_path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xff\xfe")
    assert "UTF-8" in failure(file)
    file.write_bytes(b"#" * (1024 * 1024 + 1))
    assert "larger" in failure(file)


def test_a_secret_is_never_repeated(write: Write) -> None:
    message = failure(write('[registries."a.example"]\nusername = "me"\npassword = ["hunter2"]'))
    assert "hunter2" not in message
    assert "password" in message
    config = load_config(write('[registries."a.example"]\nusername = "me"\npassword = "hunter2"'), {}, {})
    assert "hunter2" not in repr(config)


def test_relative_files_are_beside_the_configuration(write: Write, tmp_path: Path) -> None:
    key = tmp_path / "cluster.key"
    key.touch(0o600)
    key.write_text(ClusterKey.generate().text())
    config = load_config(write('[peer]\ncluster_key_file = "cluster.key"'), {}, {})
    assert config.peer.cluster_key_file == key


def test_the_docker_clients_file_is_found(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text("{}")
    assert load_config(None, {"HOME": str(home)}, {}).docker_config_file == home / ".docker" / "config.json"
    assert load_config(None, {"HOME": str(tmp_path)}, {}).docker_config_file is None
    assert load_config(None, {"DOCKER_CONFIG": str(home / ".docker")}, {}).docker_config_file is not None
    missing = {"P2PDIST_AGENT_DOCKER_CONFIG": str(tmp_path / "absent")}
    assert "agent.docker_config: there is no file" in failure(env=missing)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[peer]\nbootstrap = ["10.0.0.1:5051"]', "meets no other"),
        ("[peer]\ninsecure_open_cluster = true", "whoever reaches the peer port"),
        ('[mirror]\nlisten = "0.0.0.0:5050"', "not loopback"),
        ('[admin]\nlisten = ":5052"', "no password"),
    ],
)
def test_what_is_allowed_but_risky_gives_a_warning(write: Write, text: str, words: str) -> None:
    (warning,) = load_config(write(text), {}, {}).warnings
    assert words in warning


def test_the_same_port_on_two_addresses_is_no_clash(write: Write) -> None:
    assert load_config(write('[admin]\nlisten = "127.0.0.2:5050"'), {}, {}).admin.listen.port == 5050
    assert load_config(write('[admin]\nlisten = ":0"\n[mirror]\nlisten = ":0"'), {}, {})


NAMES = [section.name for section in schema.SECTIONS] + ["registries"]
KEYS = [key.name for section in (*schema.SECTIONS, schema.REGISTRY) for key in section.keys]
TOML_VALUE = st.one_of(
    st.integers().map(str),
    st.floats().map(lambda number: repr(number) if number == number else "nan"),
    st.booleans().map(lambda value: str(value).lower()),
    st.text(
        alphabet=st.characters(exclude_characters='"\\', exclude_categories=("Cc", "Cs")), max_size=20
    ).map(lambda text: f'"{text}"'),
    st.sampled_from(['"127.0.0.1:0"', '"1GiB"', '"5s"', '["a:1"]', "{}", "[[]]", "1979-05-27", '"/"']),
)
LINES = st.lists(
    st.one_of(
        st.sampled_from([f"[{name}]" for name in NAMES] + ['[registries."a.example"]', "[other]"]),
        st.tuples(st.sampled_from([*KEYS, "other"]), TOML_VALUE).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    ),
    max_size=12,
).map("\n".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(LINES.map(str.encode), st.binary(max_size=200)))
def test_any_file_gives_a_config_or_a_config_error(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "fuzz.toml"
    file.write_bytes(data)
    try:
        config = load_config(file, {}, {})
    except ConfigError:
        return
    assert isinstance(config, Config)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*schema.BY_ENV, "P2PDIST_X", "OTHER"]), st.text(max_size=20), max_size=4
    ),
    st.dictionaries(
        st.text(max_size=12) | st.sampled_from(["store.max_size", "agent.name", "peer.bootstrap"]),
        st.text(max_size=20),
        max_size=3,
    ),
)
def test_any_environment_and_flags_give_a_config_or_a_config_error(
    env: dict[str, str], overrides: dict[str, str]
) -> None:
    with contextlib.suppress(ConfigError):
        load_config(None, env, overrides)
