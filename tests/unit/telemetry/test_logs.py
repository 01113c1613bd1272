"""Log lines: one for each event, readable, unforgeable, and without secrets."""

from __future__ import annotations

import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import ConfigError
from p2pdist.telemetry.logs import JsonFormatter, TextFormatter, escape, set_up_logging


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def line(form: str, message: str, /, *arguments: object, level: int = logging.INFO, **fields: object) -> str:
    record = logging.LogRecord("p2pdist.mirror", level, "x.py", 1, message, arguments, None)
    record.created = 1_700_000_000.1239
    if fields:
        record.__dict__["fields"] = fields
    return (JsonFormatter() if form == "json" else TextFormatter()).format(record)


def test_text_is_for_people() -> None:
    assert (
        line("text", "served blob %s", "nginx", bytes=5, client="docker/20.10 go", ok=True, none="")
        == '2023-11-14T22:13:20.123Z info    mirror: served blob nginx bytes=5 client="docker/20.10 go" ok=True none=""'
    )


def test_json_is_for_machines() -> None:
    assert json.loads(line("json", "served", bytes=5, ratio=0.5, message="mine", extra=None)) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "info",
        "logger": "p2pdist.mirror",
        "message": "served",
        "bytes": 5,
        "ratio": 0.5,
        "field_message": "mine",
        "extra": None,
    }


@given(message=st.text(), value=st.text(), name=st.text(min_size=1))
@pytest.mark.parametrize("form", ["text", "json"])
def test_whatever_is_in_it_an_event_is_one_printable_line(
    form: str, message: str, value: str, name: str
) -> None:
    found = line(form, "%s", message, **{name: value})
    assert found.isprintable()
    assert len(found.splitlines()) == 1


def test_a_line_cannot_be_forged() -> None:
    attack = "nginx\n2023-11-14T22:13:20Z error   mirror: all is lost \x1b[2J\u202e\u2028"
    found = line("text", "served %s", attack, client=attack)
    assert "\\n2023" in found
    assert "\x1b" not in found
    assert escape("a\r\n\x00\x1b\u2028b\ud800") == "a\\r\\n\\x00\\x1b\\u2028b\\ud800"


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "text",
    [
        "GET https://user:hunter2@registry.test/v2/ failed",
        "header Authorization: Bearer hunter2hunter2",
        "header Authorization: Basic aHVudGVyMg==hunter2",
        "redirect to https://s3.test/x?X-Amz-Credential=hunter2&X-Amz-Signature=hunter2&b=1",
        "token at https://auth.test/token?access_token=hunter2",
        "blob at https://cdn.test/x?Expires=5&Signature=hunter2&Key-Pair-Id=hunter2",
        "azure https://x.test/?sig=hunter2",
    ],
)
def test_what_looks_like_a_secret_does_not_get_out(form: str, text: str) -> None:
    assert "hunter2" not in line(form, "%s", text)
    assert "hunter2" not in line(form, "x", url=text)


@pytest.mark.parametrize("name", ["password", "registry_password", "token", "Authorization", "cluster_key"])
def test_fields_with_a_secrets_name_are_masked(name: str) -> None:
    assert line("text", "x", **{name: "hunter2"}).endswith("=***")


def test_names_that_only_sound_alike_are_not() -> None:
    assert line("text", "x", key="mirror.listen", keys=5).endswith("key=mirror.listen keys=5")
    assert "sha256:abc@x" in line("text", "docker.io/library/nginx sha256:abc@x")


def test_lines_are_bounded() -> None:
    found = line("text", "x" * 100_000, **{f"field{number}": "y" * 100_000 for number in range(100)})
    assert len(found) < 60_000
    assert "more)" in found


def test_a_traceback_is_a_field_of_the_line() -> None:
    try:
        raise ValueError("first\nsecond https://a:hunter2@b/")
    except ValueError as error:
        record = logging.LogRecord("p2pdist", logging.ERROR, "x.py", 1, "fault", (), None)
        record.exc_info = (type(error), error, error.__traceback__)
    found = TextFormatter().format(record)
    assert len(found.splitlines()) == 1
    assert "ValueError: first\\nsecond" in found
    assert "hunter2" not in found
    assert "Traceback" in json.loads(JsonFormatter().format(record))["traceback"]


def test_arguments_that_do_not_fit_do_not_cost_the_event() -> None:
    assert "with arguments that do not fit" in line("text", "%d bytes", "many")


def test_setting_up_sends_everything_of_the_level_there() -> None:
    stream = io.StringIO()
    set_up_logging("warning", "json", stream)
    logging.getLogger("p2pdist.store").info("not this")
    logging.getLogger("aiohttp.server").error("this")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("and this", UserWarning, stacklevel=1)
    found = [json.loads(each) for each in stream.getvalue().splitlines()]
    assert [event["logger"] for event in found] == ["aiohttp.server", "py.warnings"]
    set_up_logging("debug", "text", stream)
    assert len(logging.getLogger().handlers) == 1


def test_wrong_settings_name_the_key() -> None:
    with pytest.raises(ConfigError, match=r"agent\.log_level = 'loud' is none of debug"):
        set_up_logging("loud")
    with pytest.raises(ConfigError, match=r"agent\.log_format = 'xml' is none of text, json"):
        set_up_logging("info", "xml")


def test_the_journal_gets_priorities_and_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryFile("w+") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        set_up_logging("debug", "text", stream)
        logging.getLogger("p2pdist.agent").warning("careful")
        logging.getLogger("p2pdist.agent").debug("detail")
        stream.seek(0)
        assert stream.read().splitlines() == ["<4>warning agent: careful", "<7>debug   agent: detail"]
