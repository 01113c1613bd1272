"""Every error that crosses a module boundary.

Rules: a type exists only where some caller acts differently on it. Adapters translate foreign
exceptions (aiohttp, sqlite3, OSError, kademlia) into these, chained with ``from``. A message says
what happened, to what, and what to do next; it never holds a secret.
"""

from __future__ import annotations


class P2PDistError(Exception):
    """Base of all errors raised on purpose by this package."""


class InvalidInputError(P2PDistError, ValueError):
    """Input from outside is malformed (digest, reference, range, message). The caller answers 4xx or drops it."""


class ConfigError(P2PDistError):
    """The configuration is unusable. The message names the key or file and how to mend it."""


class NotFoundError(P2PDistError):
    """The source answered, and does not have the content (or tag, or repository)."""


class DeniedError(P2PDistError):
    """The source refused these credentials, or a policy here forbids the request."""


class SourceError(P2PDistError):
    """A source (peer or upstream) failed in a way that another source, or a later try, may not."""


class UnreachableError(SourceError):
    """No connection, a broken one, or no first byte in time."""


class StalledError(SourceError):
    """Bytes stopped arriving, or arrive below the least useful rate."""


class BusyError(SourceError):
    """The source is alive but asks to be left alone; never a reason for a ban.

    ``retry_after`` is in seconds, None when the source named no time.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ProtocolError(SourceError):
    """The source answered, but with something that breaks its protocol (wrong length, bad header, bad MAC)."""


class DigestMismatchError(P2PDistError):
    """Content is complete and its digest is not the one it was asked for by."""


class StoreFullError(P2PDistError):
    """Content cannot be admitted: the quota, or the disk, has no room that may be freed."""


class StoreError(P2PDistError):
    """The store cannot work (unwritable, foreign, or damaged directory). The message says how to mend it."""
