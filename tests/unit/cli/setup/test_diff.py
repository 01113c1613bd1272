"""The diff of a dry run."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2pdist.cli.setup.diff import unified


def test_a_change() -> None:
    assert unified("/f", b"a\nb\n", b"a\nc\n") == ["--- /f", "+++ /f", "@@ -1,2 +1,2 @@", " a", "-b", "+c"]


def test_a_new_file_and_one_that_goes() -> None:
    assert unified("/f", None, b"a\n") == ["--- /dev/null", "+++ /f", "@@ -0,0 +1 @@", "+a"]
    assert unified("/f", b"a\n", None) == ["--- /f", "+++ /dev/null", "@@ -1 +0,0 @@", "-a"]


def test_an_empty_file_is_not_no_file() -> None:
    assert unified("/f", None, b"") == ["--- /dev/null", "+++ /f"]
    assert unified("/f", b"", b"") == unified("/f", None, None) == []


def test_a_last_line_without_an_end_is_marked() -> None:
    assert unified("/f", b"a", b"a\n")[3:] == ["-a", "\\ No newline at end of file", "+a"]


def test_what_is_in_a_file_cannot_move_the_cursor() -> None:
    shown = "".join(unified("/f", b"\x1b[2J\r\xff\n", b"\tb\n"))
    assert "\x1b" not in shown
    assert "\r" not in shown
    assert "\t" in shown


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(st.text("ab\n", max_size=12), st.text("ab\n", max_size=12))
def test_the_lines_added_are_those_of_the_new_text(before: str, after: str) -> None:
    lines = unified("/f", before.encode(), after.encode())[2:]
    kept = [line[1:] for line in lines if line[:1] in " +"]
    if lines and "\\ No newline at end of file" not in lines:
        assert "".join(f"{line}\n" for line in kept) in after
    assert bool(lines) is (before != after)
