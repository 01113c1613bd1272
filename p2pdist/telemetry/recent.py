"""The last log lines, kept in memory for a debug bundle.

Always true here: what is kept is bounded in lines and in characters, the oldest go first, and each line is as it was
logged: one line, secrets masked (telemetry/logs.py).
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

from p2pdist.telemetry.logs import TextFormatter

MAX_LINES: Final = 500
MAX_CHARACTERS: Final = 256 * 1024


class RecentLines(logging.Handler):
    """A handler that remembers."""

    def __init__(self, *, max_lines: int = MAX_LINES, max_characters: int = MAX_CHARACTERS) -> None:
        super().__init__()
        self.setFormatter(TextFormatter())
        self._lines: deque[str] = deque()
        self._characters = 0
        self._max_lines, self._max_characters = max_lines, max_characters

    def emit(self, record: logging.LogRecord) -> None:
        """Called with the handler's lock held; the bounds hold when it returns."""
        line = self.format(record)[: self._max_characters]
        self._lines.append(line)
        self._characters += len(line)
        while len(self._lines) > self._max_lines or self._characters > self._max_characters:
            self._characters -= len(self._lines.popleft())

    def lines(self) -> list[str]:
        """Oldest first."""
        self.acquire()
        try:
            return list(self._lines)
        finally:
            self.release()


def keep_recent_lines() -> RecentLines:
    """From now on remember what this process logs; replaces what an earlier call kept."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, RecentLines)]:
        root.removeHandler(old)
    recent = RecentLines()
    root.addHandler(recent)
    return recent


def recent_lines() -> list[str]:
    """What is remembered, oldest first; [] when nothing is kept."""
    handlers = logging.getLogger().handlers
    return next((handler.lines() for handler in handlers if isinstance(handler, RecentLines)), [])
