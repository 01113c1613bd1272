"""``images``, ``history``, ``df`` and ``diff`` against scripted answers: what is asked, what is printed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pdist.cli.main import run
from tests.adapters.cli.admin_server import FakeAdmin, fake_admin
from tests.adapters.cli.test_commands import closed_port

DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
NGINX = "docker.io/library/nginx:1.27"
ASKED = f"GET /history?reference={NGINX}"
COMMAND = "CMD ['/bin/cat', '/etc/a-file-with-a-long-name/that-is-cut']"


def line(created_by: str, size: int, **more: Any) -> dict[str, Any]:
    return {"created": "2000-01-01T00:00:00Z", "created_by": created_by, "comment": "", "size": size, **more}


HISTORY: dict[str, Any] = {
    "image_id": "sha256:" + "12" * 32,
    "counted": False,
    "history": [
        line(COMMAND, 0, empty=True, layer=None, held=False, hosts=None),
        line("COPY a\tb /", 2_000_000, empty=False, layer=DIGEST, held=True, hosts=None),
        line("", 120_000_000, empty=False, layer=OTHER, held=True, hosts=None),
    ],
}
DF: dict[str, Any] = {
    "images": [
        {
            "references": [NGINX, "docker.io/library/nginx:latest"],
            "past_references": [],
            "digest": DIGEST,
            "layers": {"size": 177_000_000, "shared": 175_000_000, "unique": 2_000_000},
            "complete": True,
        },
        {"references": [], "past_references": ["ghcr.io/o/app:v1"], "digest": OTHER, "complete": False},
        {"references": [], "past_references": [], "digest": OTHER, "complete": True},
    ],
    "store": {"committed": 181_000_000, "quota": 1_000_000_000, "reserved": 5},
    "separate": 531_000_000, "layered": 181_000_000, "saved": 350_000_000, "other": 7, "reclaimable": 3, "unpinned": 9,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("P2PDIST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("p2pdist.cli.options.DEFAULT_CONFIG", tmp_path / "absent.toml")


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with fake_admin() as server:
        yield server


class Shell:
    """Runs commands against the scripted answers."""

    def __init__(self, admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> None:
        self.admin = admin
        self._capsys = capsys

    def lines(self, *words: str) -> list[str]:
        assert run([*words, "--admin", self.admin.address]) == 0
        return self._capsys.readouterr().out.splitlines()

    def fails(self, *words: str) -> tuple[int, str]:
        code = run([*words, "--admin", self.admin.address])
        captured = self._capsys.readouterr()
        assert captured.out == ""
        return code, captured.err


@pytest.fixture
def shell(admin: FakeAdmin, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(admin, capsys)


# -- history --


def test_a_history_for_people(shell: Shell) -> None:
    shell.admin.answers[ASKED] = HISTORY
    heading, _, *rows = shell.lines("history", "nginx:1.27")
    assert heading.split("  ")[0] == "LAYER"
    assert "HOSTS" not in heading
    assert "HELD" not in heading
    assert "COMMENT" not in heading
    assert [row.split()[0] for row in rows] == ["(empty)", "ab" * 6, "cd" * 6]
    assert rows[0].endswith("0B")
    assert "…" in rows[0]
    assert "COPY a b /" in rows[1]
    assert rows[2].endswith("120MB")


def test_a_history_in_a_cluster_with_gaps_shows_them(shell: Shell) -> None:
    rows = [
        line("one", 1, layer=DIGEST, held=False, hosts=3),
        line("two", 1, layer=OTHER, held=True, hosts=40),
        line("three", 1, layer=OTHER, held=True, hosts=None, comment="buildkit"),
        line("four", 1, layer=OTHER, held=False, hosts=None, foreign=True),
    ]
    shell.admin.answers[ASKED] = HISTORY | {"counted": True, "history": rows}
    heading, _, first, second, third, fourth = shell.lines("history", "nginx:1.27")
    assert fourth.split()[-1] == "foreign"
    assert heading.split()[-3:] == ["HOSTS", "HELD", "COMMENT"]
    assert first.split()[-2:] == ["3", "no"]
    assert second.split()[-2:] == ["40+", "yes"]
    assert third.split()[-2:] == ["yes", "buildkit"]


def test_a_history_as_docker_has_it(shell: Shell) -> None:
    shell.admin.answers[ASKED] = HISTORY

    def told(*words: str) -> list[str]:
        return shell.lines("history", *words, "nginx:1.27")

    assert told("--format", "{{.ID}} {{.Size}}") == ["12" * 6 + " 0B", "<missing> 2MB", "<missing> 120MB"]
    assert told("-q") == ["12" * 6, "<missing>", "<missing>"]
    assert told("-q", "--no-trunc")[0] == "sha256:" + "12" * 32
    assert told("--human=false", "--format", "{{.Size}}") == ["0", "2000000", "120000000"]
    assert told("-H=false", "--format", "{{.Size}}") == told("--no-human", "--format", "{{.Size}}")
    assert told("-H", "--format", "{{.Size}}") == told("--human=true", "--format", "{{.Size}}")
    assert told("--no-trunc", "--format", "{{.CreatedBy}}")[0] == COMMAND
    assert told("--format", "{{.CreatedBy}}")[0] == COMMAND[:44] + "…"
    assert told("--human=false", "--format", "{{.CreatedSince}}")[0].startswith(
        ("2000-01-01T", "1999-12-31T")
    )
    assert told("--format", r"table {{.ID}}\t{{.Layer}}")[:2] == [
        "IMAGE          LAYER",
        "12" * 6 + "   (empty)",
    ]
    assert json.loads(told("--format", "json")[0]).keys() == {
        "ID", "CreatedAt", "CreatedSince", "CreatedBy", "Size", "Comment",
    }  # fmt: skip
    assert told("--format", "table") == told()
    assert told("--json") == json.dumps(HISTORY, indent=2, sort_keys=True).splitlines()


def test_a_platform_is_asked_for_by_its_usual_name(shell: Shell) -> None:
    shell.admin.answers[f"{ASKED}&platform=linux/arm64"] = HISTORY
    assert shell.lines("history", "nginx:1.27", "--platform", "linux/aarch64")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("history",), "Missing argument 'REF'"),
        (("history", "Not A Name"), "lower-case"),
        (("history", "nginx", "--format", "{{.Sise}}"), "there is no field .Sise; the nearest is .Size"),
        (("history", "nginx", "--format", "{{range .}}"), "is not understood"),
        (("history", "nginx", "--platform", "linux"), "OS/ARCH"),
        (("diff", "nginx"), "Missing argument 'REF_B'"),
        (("diff", "nginx", "UPPER"), "lower-case"),
        (("images", "UPPER"), "lower-case"),
        (("images", ""), "lower-case"),
    ],
)
def test_what_is_mistyped_exits_2_and_asks_nobody(shell: Shell, words: tuple[str, ...], said: str) -> None:
    code, error = shell.fails(*words)
    assert (code, said in " ".join(error.split())) == (2, True), error
    assert shell.admin.asked == []


def test_what_the_agent_refuses_is_told(shell: Shell) -> None:
    refusal = b'{"error": {"status": 404, "message": "this store does not hold it"}}'
    shell.admin.answers |= {ASKED: (404, refusal), "GET /df": (404, refusal)}
    for words in (("history", "nginx:1.27"), ("df",)):
        assert shell.fails(*words) == (1, "p2pdist: error: this store does not hold it\n")


@pytest.mark.parametrize("words", [("history", "x"), ("df",), ("diff", "x", "y"), ("images", "--history")])
def test_without_an_agent_every_command_says_so(shell: Shell, words: tuple[str, ...]) -> None:
    shell.admin.address = f"127.0.0.1:{closed_port()}"
    code, error = shell.fails(*words)
    assert (code, f"no agent answers at {shell.admin.address}" in error) == (3, True)


@pytest.mark.parametrize(
    "answer", [{}, [], {"history": None}, {"history": [5, {}]}, {"history": [{"size": "x", "layer": 5}]}]
)
def test_an_answer_that_says_little(shell: Shell, answer: Any) -> None:
    shell.admin.answers |= {ASKED: answer, "GET /df": answer, "GET /history/tags": answer}
    shell.admin.answers[f"GET /diff?from={NGINX}&to={NGINX}"] = answer
    assert shell.lines("history", "nginx:1.27")
    assert shell.lines("df", "-v")
    assert shell.lines("images", "--history")
    assert shell.lines("diff", "nginx:1.27", "nginx:1.27")


def test_what_a_stranger_wrote_cannot_steer_the_terminal(shell: Shell) -> None:
    evil = line("\x1b[31mred\nnext", 1, layer=DIGEST, held=True, comment="\x07")
    shell.admin.answers[ASKED] = {"image_id": "\x1b]0;x", "history": [evil]}
    for words in ((), ("--format", "{{.ID}}{{.CreatedBy}}{{.Comment}}"), ("-q",)):
        printed = shell.lines("history", *words, "nginx:1.27")
        assert all(text.isprintable() for text in printed)
        assert len(printed) <= 3


# -- images --


def test_images_tell_when_they_were_pulled(shell: Shell) -> None:
    rows = [
        {"reference": NGINX, "digest": DIGEST, "size": 10, "complete": True, "pulled_at": 0.0, "age": 5},
        {"reference": "ghcr.io/o/app:v1", "digest": OTHER, "size": 10, "held": 5},
        {"reference": "docker.io/library/nginx:1.28", "digest": OTHER, "size": 1e9, "held": 1e9 - 1},
    ]
    shell.admin.answers["GET /images"] = {"images": rows}
    heading, _, first, second, third = shell.lines("images")
    assert "PULLED" in heading
    assert "d " in first  # since 1970: days ago
    assert "50.0 %" in second
    assert " 99.9 %" in third  # what lacks a byte is not all of it
    assert len(shell.lines("images", "nginx:1.27")) == 3
    assert len(shell.lines("images", "nginx")) == 4  # all its tags
    assert len(shell.lines("images", "nginx:latest")) == 2
    assert DIGEST in shell.lines("images", "nginx@" + DIGEST, "--no-trunc")[2]
    assert len(shell.lines("images", "nginx@sha256:" + "0" * 64)) == 2
    assert json.loads("".join(shell.lines("images", "nginx:1.27", "--json"))) == {"images": rows[:1]}


def test_the_history_of_tags(shell: Shell) -> None:
    def past(digest: str, **more: Any) -> dict[str, Any]:
        return {"reference": NGINX, "digest": digest, "first_seen": 0.0, "resolved_at": 0.0, **more}

    rows = [
        past(DIGEST, current=True, held=True, held_bytes=10, size=10),
        past(OTHER, current=False, held=False, held_bytes=5, size=10),
        past(OTHER, current=False, held=False, held_bytes=0, size=None),
    ]
    answer = {"history": rows}
    shell.admin.answers |= {"GET /history/tags": answer, f"GET /history/tags?reference={NGINX}": answer}
    _, _, now, part, gone = shell.lines("images", "--history")
    assert now.endswith("all   now")
    assert part.endswith("50.0 %")
    assert gone.endswith("gone")
    assert shell.lines("images", "--history", "nginx:1.27")[2] == now
    assert OTHER in shell.lines("images", "--history", "--no-trunc")[3]
    assert json.loads("".join(shell.lines("images", "--history", "--json"))) == answer
    shell.admin.answers["GET /history/tags"] = {"history": []}
    shell.lines("images", "--history")


# -- df and diff --


def test_df(shell: Shell) -> None:
    shell.admin.answers["GET /df"] = DF
    printed = shell.lines("df")
    assert printed[0].split(maxsplit=1)[1] == "3, 181 MB with their layers shared"
    assert printed[2] == "saved           350 MB (65.9 %)"
    assert printed[-1].endswith("3 B by p2pdist gc; 9 B may go when room is needed")
    assert json.loads("".join(shell.lines("df", "--json"))) == DF


def test_df_of_each_image(shell: Shell) -> None:
    shell.admin.answers["GET /df"] = DF
    heading, _, *rows = shell.lines("df", "-v")
    assert heading.split() == ["IMAGE", "DIGEST", "SIZE", "SHARED", "UNIQUE"]
    assert [row.split() for row in rows[:4]] == [
        ["<none>", "cd" * 6, "0B", "0B", "0B"],
        [NGINX, "ab" * 6, "177MB", "175MB", "2MB"],
        ["docker.io/library/nginx:latest", "ab" * 6, "177MB", "175MB", "2MB"],
        ["ghcr.io/o/app:v1", "cd" * 6, "0B", "0B", "0B", "incomplete,", "superseded"],
    ]
    assert rows[4] == ""


def test_diff(shell: Shell) -> None:
    answer = {
        "to": {"size": 100},
        "shared": [{"digest": DIGEST, "size": 75}],
        "added": [{"digest": OTHER, "size": 20}],
        "dropped": [{"digest": OTHER, "size": 19}],
        "shared_bytes": 75,
        "moved_bytes": 25,
        "missing_bytes": 20,
    }
    asked = f"/diff?from={NGINX}&to=ghcr.io/o/app@{DIGEST}"
    shell.admin.answers |= {f"GET {asked}": answer, f"GET {asked}&platform=linux/arm64": answer}
    names = ("nginx:1.27", f"ghcr.io/o/app@{DIGEST}")
    printed = shell.lines("diff", *names)
    assert [row.split() for row in printed[2:5]] == [
        ["ab" * 6, "75", "B", "both"],
        ["cd" * 6, "20", "B", "REF_B", "only"],
        ["cd" * 6, "19", "B", "REF_A", "only"],
    ]
    assert printed[6:] == [
        "shared: 1 layer, 75 B",
        "an update moves 25 B (25.0 % of the new image): 1 layer, and what is new of manifest and config",
        "of it 20 B are not in this store yet",
    ]
    assert json.loads("".join(shell.lines("diff", *names, "--platform", "linux/arm64", "--json"))) == answer


@pytest.mark.parametrize("command", ["history", "df", "diff", "images"])
def test_help_has_examples(shell: Shell, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    assert f"p2pdist {command} " in capsys.readouterr().out.partition("Examples:")[2]
