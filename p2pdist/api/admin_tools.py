"""What the handlers of the admin listener share: JSON bodies in, events as lines out, and the proof that some ask for."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from p2pdist.api.responses import Refusal, failure_of
from p2pdist.errors import InvalidInputError, P2PDistError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.errors import ErrorCode
from p2pdist.oci.platforms import parse_platform
from p2pdist.oci.reference import Reference

logger = logging.getLogger(__name__)


async def read_json(request: web.Request, timeout: float) -> dict[str, Any]:
    """The JSON object that was sent; {} for none. Bounded in size (by the application) and time (seconds)."""
    try:
        async with asyncio.timeout(timeout):
            data = await request.read()
    except TimeoutError as error:
        raise Refusal(408, ErrorCode.UNSUPPORTED, "the request's body did not arrive in time") from error
    try:
        body = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("the request's body is not JSON") from error
    if not isinstance(body, dict):
        raise InvalidInputError("the request's body must be a JSON object")
    return body


def reference_in(body: dict[str, Any]) -> Reference:
    """The body's ``reference``; raises InvalidInputError."""
    text = body.get("reference")
    if not isinstance(text, str):
        raise InvalidInputError('"reference" must name an image, such as "docker.io/library/nginx:1.27"')
    return Reference.parse(text)


def platform_in(body: dict[str, Any]) -> Platform | None:
    """The body's ``platform``, None when it is left out; raises InvalidInputError."""
    text = body.get("platform")
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise InvalidInputError('"platform" must be a text, such as "linux/arm64"')
    return parse_platform(text)


def require_token(request: web.Request, token: str) -> None:
    """Raise Refusal unless the request proves that its sender may read the agent's own files."""
    given = request.headers.get("Authorization", "")
    if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), f"Bearer {token}".encode()):
        raise Refusal(
            403,
            ErrorCode.DENIED,
            "this command wants the token in command.token of this agent's data directory: run it as root or as the "
            "agent's user, with the configuration of this agent (--config)",
        )


async def stream_events(
    request: web.Request, events: AsyncGenerator[dict[str, Any], None], write_timeout: float
) -> web.StreamResponse:
    """The events as lines. What fails before the first is answered as an error, afterwards as an event."""
    event = await anext(events, None)
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    try:
        await response.prepare(request)
        while event is not None:
            line = json.dumps(event, separators=(",", ":"), default=str).encode() + b"\n"
            async with asyncio.timeout(write_timeout):
                await response.write(line)
            event = await _next(events)
        await response.write_eof()
    except (OSError, TimeoutError):  # the client left, or does not read: the command ends with it
        if request.transport is not None:
            request.transport.abort()
    return response


async def _next(events: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any] | None:
    try:
        return await anext(events, None)
    except Exception as error:
        if not isinstance(error, P2PDistError):
            logger.exception("fault during a command")
        return {"event": "error", "message": failure_of(error).message}
