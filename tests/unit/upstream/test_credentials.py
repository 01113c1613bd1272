"""Whose name a registry is asked in: the configuration, Docker's config.json, its helpers."""

from __future__ import annotations

import base64
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.testing.clock import ManualClock
from p2pdist.upstream import credential_helper
from p2pdist.upstream.credential_helper import HelperError, run_helper
from p2pdist.upstream.credentials import Credentials, DockerConfig, HostCredentials, registry_of_key
from p2pdist.upstream.settings import RegistrySettings, UpstreamSettings


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))


def source(config: Path | None, clock: ManualClock | None = None, **registry: str) -> HostCredentials:
    registries = {name: RegistrySettings(name) for name in ("docker.io", "quay.io", "registry.test:5000")}
    if registry:
        registries["quay.io"] = RegistrySettings("quay.io", **registry)
    return HostCredentials(UpstreamSettings(registries, config, helper_timeout=20), clock or ManualClock())


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("quay.io", "quay.io"),
        ("https://quay.io", "quay.io"),
        ("https://Quay.io/v2/", "quay.io"),
        ("http://registry.test:5000/", "registry.test:5000"),
        ("quay.io/some/repository", ""),
        ("", ""),
    ],
)
def test_the_registry_a_key_stands_for(key: str, registry: str) -> None:
    assert registry_of_key(key) == registry


async def test_the_configuration_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write(
        file, {"auths": {"quay.io": {"auth": encoded("file:one")}, "docker.io": {"auth": encoded("hub:two")}}}
    )
    found = source(file, username="configured", password="three")
    assert await found.find("quay.io") == Credentials("configured", "three")
    assert await found.find("docker.io") == Credentials("hub", "two")
    assert await found.find("registry.test:5000") is None


async def test_no_file_is_no_credentials(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await source(None).find("docker.io") is None
    assert await source(tmp_path / "absent.json").find("docker.io") is None
    assert not caplog.records


async def test_the_forms_of_an_entry(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    write(
        file,
        {
            "auths": {
                "https://index.docker.io/v1/": {"auth": encoded("user:pass:word\0")},
                "docker.io": {"auth": encoded("other:one")},
                "quay.io": {"username": "u", "password": "p"},
                "registry.test:5000": {"auth": encoded("u:"), "identitytoken": "refresh"},
            }
        },
    )
    found = source(file)
    assert await found.find("docker.io") == Credentials("user", "pass:word")
    assert await found.find("quay.io") == Credentials("u", "p")
    assert await found.find("registry.test:5000") == Credentials("u", identity_token="refresh")


async def test_the_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    found = source(file)
    assert await found.find("quay.io") is None
    write(file, {"auths": {"quay.io": {"auth": encoded("u:first")}}})
    assert await found.find("quay.io") == Credentials("u", "first")
    write(file, {"auths": {"quay.io": {"auth": encoded("u:second, longer")}}})
    assert await found.find("quay.io") == Credentials("u", "second, longer")
    file.unlink()
    assert await found.find("quay.io") is None


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000, b" " * 2_000_000])
async def test_a_file_that_cannot_be_read_is_warned_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(content)
    found = source(file)
    with caplog.at_level(logging.WARNING):
        assert await found.find("quay.io") is None
        assert await found.find("docker.io") is None
    assert len(caplog.records) == 1
    assert str(file) in caplog.text


async def test_an_entry_that_cannot_be_read_leaves_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "config.json"
    auths = {
        "quay.io": {"auth": "!!c2VjcmV0"},
        "docker.io": {"auth": encoded("u:p")},
        "x": 5,
        "y": {"auth": encoded("q")},
    }
    write(file, {"auths": auths})
    found = source(file)
    assert await found.find("docker.io") == Credentials("u", "p")
    assert await found.find("quay.io") is None
    assert "quay.io" in caplog.text
    assert "c2VjcmV0" not in caplog.text


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=8) | st.integers(),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["auths", "credHelpers", "credsStore", "auth", "identitytoken", "quay.io", "a"]
                ),
                x,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_any_json_is_a_config_or_a_value_error(document: Any) -> None:
    try:
        config = DockerConfig.parse(json.dumps(document).encode())
    except ValueError:
        assert not isinstance(document, dict)
        return
    assert all(isinstance(item, Credentials) for item in config.auths.values())


def test_no_secret_is_shown() -> None:
    assert "secret" not in repr(Credentials("u", "secret", "secret"))


# -- helpers --


@pytest.fixture
def helpers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on PATH; each helper appends what it was asked for to ``asked``."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


def helper(directory: Path, name: str, script: str) -> None:
    file = directory / f"docker-credential-{name}"
    file.write_text(f'#!/bin/sh\nread server\necho "$1 $server" >> "{directory}/asked"\n{script}\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def asked(directory: Path) -> list[str]:
    file = directory / "asked"
    return file.read_text().splitlines() if file.exists() else []


GOOD = """echo '{"ServerURL":"x","Username":"u","Secret":"s3cret"}'"""
NOTHING = "echo credentials not found in native keychain; exit 1"


async def test_a_helper_is_asked_by_the_key_that_docker_uses(tmp_path: Path, helpers: Path) -> None:
    helper(helpers, "good", GOOD)
    write(tmp_path / "config.json", {"credHelpers": {"quay.io": "good", "docker.io": "good"}})
    found = source(tmp_path / "config.json")
    assert await found.find("quay.io") == Credentials("u", "s3cret")
    assert await found.find("docker.io") == Credentials("u", "s3cret")
    assert await found.find("registry.test:5000") is None
    assert asked(helpers) == ["get quay.io", "get https://index.docker.io/v1/"]


async def test_a_helper_s_answer_is_kept_for_minutes_and_dropped_when_refused(
    tmp_path: Path, helpers: Path
) -> None:
    helper(helpers, "good", GOOD)
    write(tmp_path / "config.json", {"credsStore": "good"})
    clock = ManualClock()
    found = source(tmp_path / "config.json", clock)
    for _ in range(3):
        await found.find("quay.io")
    assert len(asked(helpers)) == 1
    await clock.advance(299)
    await found.find("quay.io")
    assert len(asked(helpers)) == 1
    await clock.advance(2)
    await found.find("quay.io")
    assert len(asked(helpers)) == 2
    found.refused("quay.io")
    await found.find("quay.io")
    assert len(asked(helpers)) == 3


async def test_an_identity_token_comes_under_docker_s_own_user_name(tmp_path: Path, helpers: Path) -> None:
    helper(helpers, "acr", """echo '{"Username":"<token>","Secret":"refresh"}'""")
    write(tmp_path / "config.json", {"credsStore": "acr"})
    assert await source(tmp_path / "config.json").find("quay.io") == Credentials(identity_token="refresh")


async def test_a_helper_with_nothing_means_the_file_or_anonymous(
    tmp_path: Path, helpers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    helper(helpers, "none", NOTHING)
    write(
        tmp_path / "config.json",
        {"credsStore": "none", "auths": {"docker.io": {"auth": encoded("u:p")}, "quay.io": {}}},
    )
    found = source(tmp_path / "config.json")
    assert await found.find("quay.io") is None
    assert await found.find("docker.io") == Credentials("u", "p")
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "script", "complaint"),
    [
        ("missing", None, "cannot be run"),
        ("fails", "echo s3cret; exit 3", "exit code 3"),
        ("nonsense", "echo s3cret", "JSON"),
        ("partial", """echo '{"Username":"s3cret"}'""", "Secret"),
        ("odd", """echo '{"Username":1,"Secret":"s3cret"}'""", "text"),
        ("huge", "while :; do echo s3cret; done", "more than"),
        ("../../bin/sh", None, "not a program's name"),
    ],
)
async def test_a_helper_that_fails_is_warned_of_and_means_anonymous(
    tmp_path: Path,
    helpers: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    script: str | None,
    complaint: str,
) -> None:
    if script is not None:
        helper(helpers, name, script)
    write(tmp_path / "config.json", {"credsStore": name})
    found = source(tmp_path / "config.json")
    assert await found.find("quay.io") is None
    assert await found.find("quay.io") is None
    assert len(caplog.records) == 1
    assert complaint in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_helper_that_hangs_is_killed_with_what_it_started(helpers: Path) -> None:
    helper(helpers, "hangs", f'sleep 1000 & echo $! > "{helpers}/child"; wait')
    with pytest.raises(HelperError, match="did not answer"):
        await run_helper("hangs", "quay.io", 0.5)
    child = helpers / "child"
    if child.exists():  # a loaded machine may have killed it before it came so far
        assert not _alive(int(child.read_text()))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_a_helper_that_does_not_read_its_input_still_works(helpers: Path) -> None:
    file = helpers / "docker-credential-deaf"
    file.write_text(f"#!/bin/sh\nexec 0<&-\n{GOOD}\n")
    file.chmod(0o755)
    assert await run_helper("deaf", "x" * (credential_helper.MAX_OUTPUT * 4), 20) == ("u", "s3cret")
