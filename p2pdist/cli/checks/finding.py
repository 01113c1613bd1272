"""The outcome of one check."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    """``fail`` keeps the agent from starting or working; ``warn`` is worth a look."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it stands, and (unless it is ok) how to mend it."""

    name: str
    level: Level
    detail: str
    mend: str = ""


def ok(name: str, detail: str) -> Finding:
    return Finding(name, Level.OK, detail)


def warn(name: str, detail: str, mend: str) -> Finding:
    return Finding(name, Level.WARN, detail, mend)


def fail(name: str, detail: str, mend: str) -> Finding:
    return Finding(name, Level.FAIL, detail, mend)
