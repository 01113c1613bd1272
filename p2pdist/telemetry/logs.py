"""Logging: one line for each event on standard error, for people (text) or for machines (json).

Always true here:
- an event is one line, whatever is in it: control characters, line ends and what is not printable are escaped, so that
  nobody outside can forge a line; a line is bounded in length;
- secrets do not get out: fields with a secret's name are masked, and so is what looks like one in texts (credentials in a
  URL or an Authorization header, tokens and signatures in a query);
- under systemd's journal, which has its own clock, lines carry a priority and no time.

Structured fields are given with the standard library's means: ``logger.info("text", extra={"fields": {...}})``.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import TextIO

from p2pdist.errors import ConfigError

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")
_MAX_MESSAGE = 4096
_MAX_VALUE = 1024
_MAX_TRACEBACK = 16384
_MAX_FIELDS = 40
_MASK = "***"
# sd-daemon(3): syslog(3)'s severities
_PRIORITY = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
_SECRET_NAME = re.compile(
    r"password|passwd|secret|token|authorization|credential|(?:cluster|private|api)_?key", re.IGNORECASE
)
_SECRETS = (
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9+/=._~-]{4,}", re.IGNORECASE), rf"\1 {_MASK}"),
    (re.compile(r"(://)[^/\s@'\"]{1,512}@"), rf"\1{_MASK}@"),
    (
        re.compile(
            r"([?&](?:[a-z0-9_.-]{0,40}?(?:token|signature|credential|secret|password)|sig|key-pair-id|policy)=)"
            r"[^&\s'\"<>]+",
            re.IGNORECASE,
        ),
        rf"\1{_MASK}",
    ),
)
_MAYBE_SECRET = re.compile(r"[?&@]|bearer|basic", re.IGNORECASE)
_PLAIN_VALUE = re.compile(r"[^\s\"=\\]+\Z")


def set_up_logging(level: str = "info", form: str = "text", stream: TextIO | None = None) -> None:
    """Send all logging of this process, warnings included, to ``stream`` (standard error). Raises ConfigError."""
    if level not in LEVELS:
        raise ConfigError(f"agent.log_level = {level!r} is none of {', '.join(LEVELS)}")
    if form not in FORMATS:
        raise ConfigError(f"agent.log_format = {form!r} is none of {', '.join(FORMATS)}")
    # Of no interest here, and looked up for each record otherwise (logging HOWTO, "Optimization").
    logging.logProcesses = logging.logMultiprocessing = logging.logThreads = False
    target = stream or sys.stderr
    handler = logging.StreamHandler(target)
    journal = _is_journal(target)
    handler.setFormatter(JsonFormatter(journal=journal) if form == "json" else TextFormatter(journal=journal))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(True)


def _is_journal(stream: TextIO) -> bool:
    """Whether ``stream`` is connected to the journal (systemd.exec(5), JOURNAL_STREAM: device and inode)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _LineFormatter(logging.Formatter):
    """What both formats share."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        line = self._line(record)
        return f"<{_PRIORITY.get(record.levelno, 6)}>{line}" if self._journal else line

    def _line(self, record: logging.LogRecord) -> str:
        raise NotImplementedError

    def _message(self, record: logging.LogRecord) -> str:
        try:
            message = record.getMessage()
        except Exception:  # a wrong format string must not cost the event
            message = f"{record.msg!s} (with arguments that do not fit)"
        return _shorten(_without_secrets(message), _MAX_MESSAGE)

    def _extra(self, record: logging.LogRecord) -> dict[str, object]:
        given = getattr(record, "fields", None)
        fields = {
            str(name): _safe_value(str(name), value)
            for name, value in list(given.items() if isinstance(given, Mapping) else ())[:_MAX_FIELDS]
        }
        if record.exc_info and record.exc_info[0] is not None:
            trace = _without_secrets(self.formatException(record.exc_info))
            fields["traceback"] = trace if len(trace) <= _MAX_TRACEBACK else "..." + trace[-_MAX_TRACEBACK:]
        return fields


class TextFormatter(_LineFormatter):
    """``TIME LEVEL LOGGER: MESSAGE key=value ...``; values that need it are quoted, as in JSON."""

    def _line(self, record: logging.LogRecord) -> str:
        # The same record comes to standard error and to the lines that are remembered (recent.py): it is written once.
        text: str | None = getattr(record, "p2pdist_text", None)
        if text is None:
            text = record.p2pdist_text = self._text(record)
        return text if self._journal else f"{_timestamp(record.created)} {text}"

    def _text(self, record: logging.LogRecord) -> str:
        parts = [
            f"{record.levelname.lower():<7}",
            f"{_short_name(record.name)}:",
            escape(self._message(record)),
        ]
        parts += [f"{escape(name)}={_text_value(value)}" for name, value in self._extra(record).items()]
        return " ".join(parts)


class JsonFormatter(_LineFormatter):
    """One JSON object: time (RFC 3339, UTC), level, logger, message, and the fields."""

    def _line(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
        }
        event |= {
            (f"field_{name}" if name in event else name): value for name, value in self._extra(record).items()
        }
        return json.dumps(event, default=str)


def escape(text: str) -> str:
    """``text`` with whatever is not printable (line ends, terminal controls, bidirectional marks) backslash-escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape_char(char) for char in text)


def _escape_char(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


@lru_cache(maxsize=512)
def _names_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _safe_value(name: str, value: object) -> object:
    if _names_secret(name):
        return _MASK
    if value is None or isinstance(value, bool | int | float):
        return value
    return _shorten(_without_secrets(str(value)), _MAX_VALUE)


def _text_value(value: object) -> str:
    text = str(value)
    return text if _PLAIN_VALUE.match(text) and text.isprintable() else json.dumps(text)


def _without_secrets(text: str) -> str:
    if not _MAYBE_SECRET.search(text):  # a cheap look first: hardly any text has one
        return text
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more)"


def _timestamp(seconds: float) -> str:
    return f"{_whole_second(int(seconds))}.{int(seconds * 1000) % 1000:03d}Z"


@lru_cache(maxsize=4)
def _whole_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _short_name(name: str) -> str:
    return name.removeprefix("p2pdist.")
