"""Following a pull's events."""

from __future__ import annotations

import pytest

from p2pdist.cli.errors import CommandError
from p2pdist.cli.progress import Lines
from p2pdist.cli.pull import follow, source_of, summary
from p2pdist.oci.reference import Reference

DIGEST = "sha256:" + "ab" * 32


class Recorder:
    """A Show that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, int, str]] = []

    def layer(self, name: str, size: int, received: int, source: str) -> None:
        self.seen.append((name, size, received, source))


def layer(received: int, size: int = 100, **more: object) -> dict[str, object]:
    return {"event": "layer", "digest": DIGEST, "size": size, "received": received, **more}


def test_layers_are_shown_until_done() -> None:
    show = Recorder()
    done = follow([layer(10), layer(100, source="peer"), {"event": "done", "digest": DIGEST}], show)
    assert done["digest"] == DIGEST
    assert show.seen == [("abababababab", 100, 10, ""), ("abababababab", 100, 100, "peer")]


def test_an_error_event_is_an_error() -> None:
    with pytest.raises(CommandError, match="no such image"):
        follow([layer(1), {"event": "error", "message": "no such image"}], Recorder())


def test_a_stream_without_an_end_is_an_error() -> None:
    with pytest.raises(CommandError, match="without saying"):
        follow([layer(100)], Recorder())


def test_events_of_a_newer_agent_are_passed_over() -> None:
    events = [
        {"event": "weather", "digest": DIGEST},
        {},
        {"event": "layer"},
        layer(5, size=None, source=None),
        {"event": "done"},
    ]  # type: ignore[arg-type]
    show = Recorder()
    follow(events, show)
    assert show.seen == [("abababababab", 0, 5, "")]


def test_lines_tell_each_layer_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    for received in (0, 50, 100, 100):
        lines.layer("abab", 100, received, "peer")
    assert capsys.readouterr().out == "abab  100 B  from peer\n"


def test_the_summary_says_what_and_whence() -> None:
    name, reference = "docker.io/library/nginx:latest", Reference.parse("nginx")
    done = {"event": "done", "digest": DIGEST, "size": 1500, "moved": {"peer": 1000, "upstream": 0}}
    assert summary(reference, done) == f"pulled {name}@{DIGEST}, 1.5 kB, 1.0 kB from peer"
    assert summary(reference, {"size": 1500, "moved": {}}) == f"pulled {name}, 1.5 kB, all from the store"
    assert summary(reference, {"event": "done"}) == f"pulled {name}"


def test_a_layers_source_is_what_moved_else_the_store() -> None:
    assert source_of({"source": "peer", "moved": {"upstream": 1}}) == "peer"
    assert source_of({"moved": {"peer": 5, "upstream": 3}}) == "peer and upstream"
    assert source_of({"moved": {"peer": 0}}) == "store"
    assert source_of({}) == ""
