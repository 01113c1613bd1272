"""Which status and OCI error code each error of this package is answered with: the one place that decides it.

Rules:
- A refusal never challenges: the mirror would be sent the client's real credentials (401 does not occur).
- BusyError is 429 with Retry-After, never 503: for a blob, podman and skopeo wait and retry on 429 and give up on 503,
  and every other runtime goes on to upstream on either.
- What is not an error of this package is a fault here: 500, with a message that tells nothing of the inside.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

from aiohttp import web

from p2pdist.errors import (
    BusyError,
    DeniedError,
    DigestMismatchError,
    InvalidInputError,
    NotFoundError,
    P2PDistError,
    SourceError,
    StalledError,
    StoreError,
    StoreFullError,
)
from p2pdist.oci.errors import ErrorCode, error_body
from p2pdist.oci.ranges import RangeNotSatisfiable

_MAX_RETRY_AFTER = 60.0
_DEFAULT_RETRY_AFTER = 1.0

# The first that matches decides; subclasses stand before their bases.
_STATUS: tuple[tuple[type[Exception], int, ErrorCode], ...] = (
    (RangeNotSatisfiable, 416, ErrorCode.RANGE_INVALID),
    (InvalidInputError, 400, ErrorCode.MANIFEST_INVALID),
    (NotFoundError, 404, ErrorCode.NAME_UNKNOWN),
    (DeniedError, 403, ErrorCode.DENIED),
    (BusyError, 429, ErrorCode.TOOMANYREQUESTS),
    (StalledError, 504, ErrorCode.UNAVAILABLE),
    (TimeoutError, 504, ErrorCode.UNAVAILABLE),
    (SourceError, 502, ErrorCode.UNAVAILABLE),
    (DigestMismatchError, 502, ErrorCode.UNAVAILABLE),
    (StoreFullError, 507, ErrorCode.UNAVAILABLE),
    (StoreError, 500, ErrorCode.UNKNOWN),
    (P2PDistError, 500, ErrorCode.UNKNOWN),
)


class Refusal(P2PDistError):  # noqa: N818 - an answer that was decided at the edge, not a fault
    """A request that the edge itself answers with an error."""

    def __init__(
        self, status: int, code: ErrorCode, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is answered."""

    status: int
    code: ErrorCode
    message: str
    headers: dict[str, str] = field(default_factory=dict)


def failure_of(error: Exception, not_found: ErrorCode = ErrorCode.NAME_UNKNOWN) -> Failure:
    """How to answer ``error``; ``not_found`` is the code for content of the kind that was asked for."""
    if isinstance(error, Refusal):
        return Failure(error.status, error.code, str(error), error.headers)
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            chosen = not_found if kind is NotFoundError else code
            return Failure(status, chosen, str(error) or kind.__name__, _headers_for(error))
    return Failure(500, ErrorCode.UNKNOWN, "internal error; the agent's log says more")


def _headers_for(error: Exception) -> dict[str, str]:
    if isinstance(error, BusyError):
        wait = _DEFAULT_RETRY_AFTER if error.retry_after is None else error.retry_after
        return {"Retry-After": str(math.ceil(min(max(wait, _DEFAULT_RETRY_AFTER), _MAX_RETRY_AFTER)))}
    if isinstance(error, RangeNotSatisfiable):
        return {"Content-Range": error.content_range}
    return {}


def oci_response(failure: Failure) -> web.Response:
    """The answer with an OCI error body."""
    body = error_body(failure.code, failure.message)
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store", **failure.headers}
    return web.Response(status=failure.status, body=body, headers=headers)


def json_response(data: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """``data`` as JSON."""
    body = json.dumps(data, separators=(",", ":"), default=str).encode() + b"\n"
    return web.Response(
        status=status, body=body, headers={"Content-Type": "application/json", **(headers or {})}
    )


def header_safe(media_type: str, default: str) -> str:
    """A media type from outside, or ``default`` when it could not stand in a header."""
    usable = media_type.isascii() and media_type.isprintable() and 0 < len(media_type) <= 255
    return media_type if usable else default
