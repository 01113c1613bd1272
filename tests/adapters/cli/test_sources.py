"""``p2pdist import`` into a running agent, and ``pull --everywhere`` against a scripted one."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from p2pdist.agent.admin_token import FILE, make_admin_token
from p2pdist.agent.app import Running, run_parts
from p2pdist.cli import everywhere
from p2pdist.cli.main import run
from p2pdist.config.load import load_config
from p2pdist.testing.images import Image, build_artifact, build_image, write_layout
from p2pdist.testing.layers import build_layer
from tests.adapters.cli.admin_server import FakeAdmin, fake_admin

CONFIG = """
[agent]
data_dir = "{data}"
drain_timeout = "1s"
[mirror]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[registries."registry.example.test:5000"]
url = "http://127.0.0.1:1"
"""
IMAGES = [build_image("app", tag, [build_layer(f"layer {tag}", 200_000, seed=1)]) for tag in ("v1", "v2")]
EVERYWHERE = ["pull", "--everywhere", "app:v1"]


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The configuration that commands find by themselves."""
    for name in [name for name in os.environ if name.startswith("P2PDIST_")]:
        monkeypatch.delenv(name)
    file = tmp_path / "config.toml"
    file.write_text(CONFIG.format(data=tmp_path / "data"))
    monkeypatch.setenv("P2PDIST_CONFIG", str(file))
    return file


@pytest.fixture
async def agent(config: Path) -> AsyncIterator[Running]:
    async with run_parts(load_config(config, {}, {})) as running:
        yield running


async def command(agent: Running, *words: str) -> int:
    """A command line against the agent, whose loop goes on meanwhile."""
    return await asyncio.to_thread(run, [*words, "--admin", agent.listeners["admin"]])


def layout(directory: Path, *images: Image) -> str:
    write_layout(images, directory / "layout")
    return str(directory / "layout")


async def pulled(agent: Running, path: str) -> bytes:
    url = f"http://{agent.listeners['mirror']}/v2/{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200
        return await answer.read()


async def test_what_is_imported_is_pulled_with_upstream_down(
    agent: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = IMAGES[0]
    name = "registry.example.test:5000/team/app:v9"
    assert await command(agent, "import", layout(tmp_path, wanted), "--as", name) == 0
    printed = capsys.readouterr().out
    assert f"imported {name}@{wanted.digest}" in printed
    ns = "?ns=registry.example.test:5000"
    assert await pulled(agent, f"team/app/manifests/v9{ns}") == wanted.manifest
    assert await pulled(agent, f"team/app/manifests/{wanted.digest}{ns}") == wanted.manifest
    layer = wanted.layers[0].digest
    assert await pulled(agent, f"team/app/blobs/{layer}{ns}") == wanted.blobs[layer]


async def test_the_second_time_nothing_is_sent(
    agent: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, sent = layout(tmp_path, *IMAGES), []
    for _ in range(2):
        assert await command(agent, "import", path, "--json") == 0
        sent.append([row["sent"] for row in json.loads(capsys.readouterr().out)["images"]])
    assert min(sent[0]) > 200_000
    assert sent[1] == [0, 0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--as", "app:v9"], "holds 2 images, and --as names one: app:v1, app:v2"),
        (["--select", "app:v1", "--as", "app@sha256:" + "0" * 64], "app:v1 has the digest"),
        (["--select", "app:v7"], "no image called app:v7; it holds: app:v1, app:v2"),
        (["--select", "app:v1", "--as", "elsewhere.example.test/app:v1"], "not configured here"),
    ],
)
async def test_what_cannot_be_imported_says_why(
    agent: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert await command(agent, "import", layout(tmp_path, *IMAGES), *words) == 1
    assert says in capsys.readouterr().err


async def test_one_of_several_is_selected_by_name_or_digest(
    agent: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = layout(tmp_path, *IMAGES)
    for select in ("app:v2", "docker.io/library/app:v2", str(IMAGES[1].digest)):
        assert await command(agent, "import", path, "--select", select, "--json") == 0
        (row,) = json.loads(capsys.readouterr().out)["images"]
        assert row["digest"] == str(IMAGES[1].digest)


async def test_what_another_image_of_the_archive_lacks_is_no_matter(
    agent: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = layout(tmp_path, *IMAGES)
    (Path(path) / "blobs/sha256" / IMAGES[1].layers[0].digest.hex).unlink()
    assert await command(agent, "import", path) == 1
    said = capsys.readouterr().err
    assert "app:v2 cannot be imported:" in said
    assert "lacks the blob" in said
    assert "--select NAME" in said
    assert await command(agent, "import", path, "--select", "app:v1") == 0
    assert await command(agent, "import", path, "--select", "app:v2") == 1


async def test_what_is_attached_to_an_image_needs_no_name_of_its_own(
    agent: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    signature = build_artifact("app", IMAGES[0], "application/x.signature", b"signed")
    path = layout(tmp_path, IMAGES[0], signature)
    index = json.loads((Path(path) / "index.json").read_text())
    del index["manifests"][1]["annotations"]
    (Path(path) / "index.json").write_text(json.dumps(index))
    for words in ((), ("--as", "app:v9")):
        assert await command(agent, "import", path, "--json", *words) == 0
        (row,) = json.loads(capsys.readouterr().out)["images"]
        assert row["digest"] == str(IMAGES[0].digest)
    assert await command(agent, "import", path, "--select", str(signature.digest), "--as", "app:sig") == 0


async def test_damaged_content_is_refused_by_the_agent(
    agent: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = layout(tmp_path, IMAGES[0])
    blob = Path(path) / "blobs/sha256" / IMAGES[0].layers[0].digest.hex
    blob.write_bytes(bytes(blob.stat().st_size))
    assert await command(agent, "import", path) == 1
    assert "is not that" in capsys.readouterr().err
    assert await command(agent, "images", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"images": []}


async def test_a_large_blob_that_is_refused_says_why(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    big = build_image("big", "v1", [build_layer("big", 30_000_000, seed=1)])
    small = load_config(config, {}, {"store.max_size": "1MiB"})
    async with run_parts(small) as agent:
        assert await command(agent, "import", layout(tmp_path, big)) == 1
    assert "raise store.max_size" in capsys.readouterr().err


async def test_an_image_without_a_full_name_needs_one(
    agent: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = layout(tmp_path, IMAGES[0])
    index = Path(path) / "index.json"
    index.write_text(index.read_text().replace("app:v1", "v1"))
    assert await command(agent, "import", path) == 1
    assert "add --as REF" in capsys.readouterr().err


async def test_what_is_no_archive_says_what_it_is(
    agent: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.tar").write_bytes(b"junk" * 1000)
    assert await command(agent, "import", str(tmp_path / "x.tar")) == 1
    assert "is not a tar" in capsys.readouterr().err


async def test_a_file_that_is_not_there(agent: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command(agent, "import", "/no/such/file.tar") == 1
    assert "cannot read /no/such/file.tar: No such file" in capsys.readouterr().err


async def test_the_token_is_new_at_each_start_and_for_the_agents_user_only(
    agent: Running, tmp_path: Path
) -> None:
    path = tmp_path / "data" / FILE
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    assert make_admin_token(tmp_path / "data") != before


def test_without_an_agent_the_way_out_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import", layout(tmp_path, IMAGES[0])]) == 1
    said = capsys.readouterr().err
    assert "no agent runs on that data directory" in said
    assert "--config FILE" in said


def event(name: str, state: str, **fields: Any) -> dict[str, Any]:
    return {"event": "host", "peer": name, "name": name, "state": state, "size": 10, "received": 0, **fields}


class TestEverywhere:
    @pytest.fixture
    def admin(self, tmp_path: Path) -> Any:
        (tmp_path / "data").mkdir()
        make_admin_token(tmp_path / "data")
        with fake_admin() as server:
            yield server

    def test_hosts_as_they_are_done(self, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
        admin.answers["POST /warm"] = [
            event("h1", "running", received=4),
            event("h2", "waiting", size=0),
            event("h1", "done", received=10, bytes={"peer": 7, "upstream": 3}, digest="sha256:a"),
            event("h2", "done", received=10, digest="sha256:a"),
            {"event": "done", "hosts": 2, "failed": 0},
        ]
        assert run([*EVERYWHERE, "--platform", "linux/arm64", "--admin", admin.address]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert printed == [
            "h1  10 B  from 7 B peer, 3 B upstream",
            "h2  10 B  from store",
            "docker.io/library/app:v1 is on all of 2 hosts",
        ]
        assert admin.asked == [
            ("POST /warm", {"reference": "docker.io/library/app:v1", "platform": "linux/arm64"})
        ]

    def test_a_host_that_failed_gives_the_exit_code(
        self, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
    ) -> None:
        admin.answers["POST /warm"] = [
            event("h1", "done", received=10),
            event("", "failed", where="10.0.0.2:5051", message="nobody\x1b is there"),
            {"event": "done", "hosts": 2, "failed": 1},
        ]
        assert run([*EVERYWHERE, "--admin", admin.address]) == 1
        said = capsys.readouterr()
        assert "10.0.0.2:5051: failed: nobody\N{REPLACEMENT CHARACTER} is there" in said.out
        assert "1 of 2 hosts do not have docker.io/library/app:v1" in said.err

    def test_for_scripts_the_events_as_they_are(
        self, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
    ) -> None:
        events = [event("h1", "failed"), {"event": "done", "hosts": 1, "failed": 1}]
        admin.answers["POST /warm"] = events
        assert run([*EVERYWHERE, "--json", "--admin", admin.address]) == 1
        assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == events

    @pytest.mark.parametrize("words", [(), ("--json",)])
    def test_interrupted_it_says_that_the_hosts_go_on(
        self,
        admin: FakeAdmin,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        words: tuple[str, ...],
    ) -> None:
        def interrupted(*_: object) -> object:
            raise KeyboardInterrupt

        monkeypatch.setattr(everywhere, "pass_on" if words else "follow_hosts", interrupted)
        admin.answers["POST /warm"] = [{"event": "done", "hosts": 1, "failed": 0}]
        assert run([*EVERYWHERE, *words, "--admin", admin.address]) == 130
        assert "the hosts go on" in capsys.readouterr().err

    def test_a_zone_with_nobody_in_it(self, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
        admin.answers["POST /warm"] = [{"event": "done", "hosts": 0, "failed": 0}]
        assert run(["pull", "--zone", "rack-9", "app:v1", "--admin", admin.address]) == 1
        assert "no agent is in that zone" in capsys.readouterr().err
        assert admin.asked[0][1]["zone"] == "rack-9"

    def test_a_host_whose_zone_is_not_known_is_told_and_does_not_count(
        self, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]
    ) -> None:
        dead = event("", "failed", where="10.0.0.2:5051", message="nobody is there") | {"event": "unknown"}
        admin.answers["POST /warm"] = [
            dead | {"peer": "dead"},
            event("h1", "done", received=10),
            {"event": "done", "hosts": 1, "failed": 0},
        ]
        assert run(["pull", "--zone", "rack-9", "app:v1", "--admin", admin.address]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == [
            "10.0.0.2:5051: left out, since it does not tell its zone: nobody is there",
            "docker.io/library/app:v1 is on the one host",
        ]

    def test_digests_that_differ_are_told(self, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
        admin.answers["POST /warm"] = [
            event("h1", "done", digest="sha256:a"),
            event("h2", "done", digest="sha256:b"),
            {"event": "done", "hosts": 2, "failed": 0},
        ]
        assert run([*EVERYWHERE, "--admin", admin.address]) == 0
        assert "different digests: sha256:a, sha256:b" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("events", "says"),
        [
            ([event("h1", "running")], "without saying how it went"),
            ([{"event": "error", "message": "it broke"}], "it broke"),
        ],
    )
    def test_an_answer_without_an_end(
        self, admin: FakeAdmin, capsys: pytest.CaptureFixture[str], events: list[Any], says: str
    ) -> None:
        admin.answers["POST /warm"] = events
        for words in ([], ["--json"]):
            assert run([*EVERYWHERE, *words, "--admin", admin.address]) == 1
            assert says in capsys.readouterr().err
