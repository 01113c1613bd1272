"""How commands fail: exit codes, and errors that carry the next thing to do."""

from __future__ import annotations

import enum

from p2pdist.errors import P2PDistError


class ExitCode(enum.IntEnum):
    """What the shell sees; documented in ``p2pdist --help``."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    PROMISE_BROKEN = 4
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class CommandError(P2PDistError):
    """A command failed: one line, a hint on what to do, and the exit code."""

    def __init__(self, message: str, hint: str = "", code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class AgentUnreachableError(CommandError):
    """Nobody answers at the admin address."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint, ExitCode.UNREACHABLE)
