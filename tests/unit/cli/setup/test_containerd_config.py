"""What containerd's config.toml says, and the lines that an operator is told to add to it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from p2pdist.cli.setup.containerd_config import Advice, advise, directories, imports, parse
from p2pdist.errors import InvalidInputError

MAIN = Path("/etc/containerd/config.toml")
CERTS = "/etc/containerd/certs.d"
V2 = '[plugins."io.containerd.grpc.v1.cri".registry]'
V3 = "[plugins.'io.containerd.cri.v1.images'.registry]"


def ask(*texts: str, wanted: str = CERTS) -> Advice:
    files = [
        parse(MAIN if at == 0 else Path(f"/etc/containerd/conf.d/{at}.toml"), text.encode())
        for at, text in enumerate(texts)
    ]
    return advise(files, MAIN, wanted)


def said(advice: Advice) -> str:
    return "\n\n".join(advice.paragraphs)


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("", "[plugins.cri.registry]"),
        ("version = 1\n", "[plugins.cri.registry]"),
        (
            "version = 2\n[plugins]\n  [plugins.'io.containerd.grpc.v1.cri'.cni]\n    bin_dir = '/usr/lib/cni'\n",
            V2,
        ),
        ("version = 2\n" + V2.replace(".registry", ".registry.headers") + "\n", V2),
        ("version = 3\n", V3),
        ("version = 4\n", V3),
    ],
)
def test_the_lines_to_add_make_containerd_read_the_directory(text: str, header: str) -> None:
    advice = ask(text)
    assert not advice.works
    added = re.search(rf"^{re.escape(header)}\n  config_path = .*$", said(advice), re.MULTILINE)
    assert added is not None, said(advice)
    after = ask(f"{text}\n{added[0]}\n")
    assert after.works
    assert not after.paragraphs
    assert "systemctl restart containerd" in said(advice)


def test_without_a_file_each_version_has_its_lines() -> None:
    told = said(ask())
    for version in (2, 3):
        whole = re.search(rf"^version = {version}\n\[.*\n  config_path = .*$", told, re.MULTILINE)
        assert whole is not None
        assert ask(whole[0]).works


@pytest.mark.parametrize("setting", ["", 'config_path = ""\n', "  config_path = ''\n"])
def test_a_table_that_is_there_is_not_to_be_added_twice(setting: str) -> None:
    text = f"version = 2\n\n  {V2}\n{setting}"
    told = said(ask(text))
    assert "line 3" in told
    assert "end" not in told
    assert ("change config_path to" in told) is bool(setting)
    if not setting:
        (line,) = re.findall(r"^  config_path = .*$", told, re.MULTILINE)
        assert ask(f"{text}{line}\n").works
    else:
        (line,) = re.findall(r"^config_path = .*$", told, re.MULTILINE)
        assert ask(text.replace(setting, f"{line}\n")).works


def test_another_directory_is_told() -> None:
    advice = ask(f"version = 2\n{V2}\nconfig_path = '/else'\n")
    assert not advice.works
    assert "containerd reads /else" in said(advice)
    assert "--certs-dir" in said(advice)


def test_a_list_of_directories_works_with_a_warning() -> None:
    text = f"version = 3\n{V3}\nconfig_path = '{CERTS}:/etc/docker/certs.d'\n"
    assert directories([parse(MAIN, text.encode())]) == (CERTS, "/etc/docker/certs.d")
    advice = ask(text)
    assert advice.works
    assert f'set it to "{CERTS}" alone' in said(advice)


def test_a_slash_at_the_end_makes_no_difference() -> None:
    assert ask(f"version = 2\n{V2}\nconfig_path = '{CERTS}/'\n").works


def test_an_imported_file_wins() -> None:
    main = f"version = 2\nimports = ['/etc/containerd/conf.d/*.toml', 1]\n{V2}\nconfig_path = '/else'\n"
    assert imports(parse(MAIN, main.encode())) == ("/etc/containerd/conf.d/*.toml",)
    assert ask(main, f"version = 2\n{V2}\nconfig_path = '{CERTS}'\n").works
    assert not ask(main, "version = 2\n").works


@pytest.mark.parametrize(
    ("tables", "names"),
    [
        (
            V2.replace(".registry", ".registry.mirrors.'docker.io'") + "\nendpoint = ['https://m']",
            "registry.mirrors",
        ),
        (
            V2.replace(".registry", ".registry.configs.'r.example.com'.tls") + "\nca_file = '/ca'",
            "registry.configs",
        ),
    ],
)
def test_older_tables_are_in_the_way(tables: str, names: str) -> None:
    told = said(ask(f"version = 2\n{tables}\n"))
    assert names in told
    assert "keep containerd's CRI plugin from loading" in told


def test_credentials_in_older_tables_are_not_in_the_way() -> None:
    auth = V2.replace(".registry", ".registry.configs.'r.example.com'.auth") + "\nusername = 'u'"
    assert "older tables" not in said(ask(f"version = 2\n{auth}\n"))


@pytest.mark.parametrize("name", ["cri", "io.containerd.grpc.v1.cri"])
def test_cri_that_is_off_is_told(name: str) -> None:
    assert "CRI is off" in said(ask(f'version = 2\ndisabled_plugins = ["{name}"]\n'))
    assert "CRI is off" not in said(ask("version = 2\ndisabled_plugins = ['x', 1]\n"))


@pytest.mark.parametrize(
    "text",
    ["plugins = 1", "version = 'x'", "[plugins.cri]\nregistry = 1", "imports = 1", "disabled_plugins = 1"],
)
def test_odd_values_are_no_settings(text: str) -> None:
    assert tomllib.loads(text)
    assert not ask(text).works
    assert imports(parse(MAIN, text.encode())) == ()


@pytest.mark.parametrize("data", [b"version = ", b"\xff", b"a = " + b"[" * 10_000])
def test_a_malformed_file_is_an_error_that_names_it(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match=str(MAIN)):
        parse(MAIN, data)
