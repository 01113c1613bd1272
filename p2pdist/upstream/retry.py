"""When a request that failed is tried again, and how long is waited before: decided purely, waited for elsewhere.

Rules: tries are bounded in number, and in the time from the first one's start; a server that names a time is not asked
before it; waits grow and are spread by jitter, so that hosts that failed together do not come back together.
"""

from __future__ import annotations

import datetime
import email.utils
import re
from dataclasses import dataclass

from p2pdist.errors import UnreachableError

_SECONDS = re.compile(r"[0-9]{1,9}\Z")
_MAX_HEADER = 64


class LastingError(UnreachableError):
    """The registry cannot be reached for a reason that another try does not change, so none is made."""


RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """``tries`` in all; waits start about ``base`` and double up to ``cap``; none goes beyond ``budget``. Seconds."""

    tries: int = 4
    base: float = 0.2
    cap: float = 2.0
    budget: float = 10.0

    def wait(
        self, done: int, elapsed: float, jitter: float, retry_after: float | None = None
    ) -> float | None:
        """How long to wait after ``done`` tries and ``elapsed`` seconds, None to give up.

        ``jitter`` is uniform in [0, 1); ``retry_after`` is what the server asked for, which is never undercut.
        """
        backoff = min(self.cap, self.base * 2.0 ** max(0, done - 1)) * (0.5 + jitter / 2)
        pause = backoff if retry_after is None else retry_after + backoff * jitter
        if done >= self.tries or elapsed + pause > self.budget:
            return None
        return pause


def parse_retry_after(header: str | None, wall: float) -> float | None:
    """Seconds until what a Retry-After header names (RFC 9110 section 10.2.3), >= 0; None if absent or malformed.

    ``wall`` is the time now, in seconds since the epoch, for a header that holds a date.
    """
    if header is None or len(header) > _MAX_HEADER:
        return None
    text = header.strip()
    if _SECONDS.match(text):
        return float(text)
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    try:
        return max(0.0, date.timestamp() - wall)
    except (ValueError, OverflowError):
        return None
