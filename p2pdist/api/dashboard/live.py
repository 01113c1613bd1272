"""What the dashboard shows, computed once for all who look, and streamed to those who stay (server-sent events).

Always true here:
- Nothing is computed while nobody looks. A section is computed at most every so many seconds (``SECTIONS``), and takes
  at most a twentieth of the time.
- A section is sent again only when it has changed, and only as it is then: a subscriber that reads slowly skips states.
- At most ``max_subscribers``; one that takes nothing for ``write_timeout`` seconds is cut.
- Something is sent at least every ``beat`` seconds, so that both sides notice a dead connection.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from p2pdist.clock import Clock
from p2pdist.errors import BusyError, P2PDistError
from p2pdist.oci.reference import Reference

logger = logging.getLogger(__name__)

# Seconds between two computations of the same section.
SECTIONS = {"status": 1.0, "savings": 1.0, "transfers": 1.0, "peers": 3.0, "images": 4.0}
_COST = 20.0
_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "X-Accel-Buffering": "no",  # nginx would hold events back until it has a buffer full
}


class DashboardBackend(Protocol):
    """What the agent tells; JSON values. Raises P2PDistError."""

    async def section(self, name: str) -> Any:
        """One of SECTIONS, bounded in size."""

    def beat(self) -> dict[str, float]:
        """{time, uptime}: the agent's wall clock, and its age, in seconds."""

    def history(self, cursor: str = "") -> dict[str, Any]:
        """The samples after ``cursor``; all of them when it is none, or of an earlier process."""

    def cursor(self) -> str:
        """A short word for the newest sample."""

    async def layers(self, reference: Reference) -> dict[str, Any]:
        """An image's layers, and how many hosts hold each; NotFoundError when the store does not hold its manifest."""


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """Times in seconds."""

    max_subscribers: int = 32
    interval: float = 1.0
    beat: float = 10.0
    write_timeout: float = 15.0
    retry: float = 3.0
    """How long a page waits before it connects again."""


@dataclass(slots=True)
class _Section:
    every: float
    version: int = 0
    body: bytes = b"null"
    due: float = 0.0


class Live:
    """See the module's rules."""

    def __init__(self, backend: DashboardBackend, settings: LiveSettings, clock: Clock) -> None:
        self._backend = backend
        self._settings = settings
        self._clock = clock
        self._sections = {name: _Section(every) for name, every in SECTIONS.items()}
        self._computing = asyncio.Lock()
        self._subscribers = 0

    @property
    def subscribers(self) -> int:
        """Streams that are open now."""
        return self._subscribers

    async def sections(self) -> dict[str, tuple[int, bytes]]:
        """Each section's version, which grows when it changes, and its JSON."""
        async with self._computing:
            for name, section in self._sections.items():
                if self._clock.now() >= section.due:
                    await self._compute(name, section)
            return {name: (section.version, section.body) for name, section in self._sections.items()}

    async def _compute(self, name: str, section: _Section) -> None:
        begun = self._clock.now()
        body = encode(await self._backend.section(name))
        ended = self._clock.now()
        if body != section.body:
            section.version += 1
            section.body = body
        section.due = ended + max(section.every, _COST * (ended - begun))

    async def overview(self, cursor: str) -> bytes:
        """All sections, the beat and the history after ``cursor`` as one JSON object."""
        parts = {name: body for name, (_, body) in (await self.sections()).items()}
        parts |= {
            "cursor": encode(self._backend.cursor()),
            "history": encode(self._backend.history(cursor)),
            "beat": encode(self._backend.beat()),
        }
        return b"{" + b",".join(encode(name) + b":" + body for name, body in parts.items()) + b"}\n"

    async def stream(self, request: web.Request, cursor: str) -> web.StreamResponse:
        """Events until the client leaves or does not read; raises BusyError when there are too many streams."""
        if self._subscribers >= self._settings.max_subscribers:
            raise BusyError(
                f"{self._subscribers} pages are being kept up to date already; ask api/v1/overview", 30.0
            )
        self._subscribers += 1
        try:
            await self.sections()  # what fails at once is answered as an error
            return await self._send(request, cursor)
        finally:
            self._subscribers -= 1

    async def _send(self, request: web.Request, cursor: str) -> web.StreamResponse:
        response = web.StreamResponse(headers=_HEADERS)
        try:
            await response.prepare(request)
            async with aclosing(self._events(cursor)) as batches:
                async for batch in batches:
                    async with asyncio.timeout(self._settings.write_timeout):
                        await response.write(batch)
        except (OSError, TimeoutError, P2PDistError) as error:
            logger.debug("a dashboard's stream ends: %r", error)
        except Exception:
            logger.exception("fault in a dashboard's stream")
        if (
            request.transport is not None
        ):  # an orderly end would tell the page nothing; it connects again anyway
            request.transport.abort()
        return response

    async def _events(self, cursor: str) -> AsyncGenerator[bytes, None]:
        """What is new, whenever something is."""
        sent: dict[str, int] = {}
        told = ""
        beaten = self._clock.now()
        yield b"retry: %d\n\n" % (1000 * self._settings.retry) + event("beat", encode(self._backend.beat()))
        while True:
            fresh = [
                event(name, body)
                for name, (version, body) in (await self.sections()).items()
                if sent.get(name) != version and not sent.update({name: version})
            ]
            newest = self._backend.cursor()
            if newest != told:
                fresh.append(event("history", encode(self._backend.history(told or cursor)), newest))
                told = newest
            if self._clock.now() - beaten >= self._settings.beat:
                fresh.append(event("beat", encode(self._backend.beat())))
                beaten = self._clock.now()
            if fresh:
                yield b"".join(fresh)
            await self._clock.sleep(self._settings.interval)


def encode(value: object) -> bytes:
    """JSON on one line."""
    return json.dumps(value, separators=(",", ":"), default=str).encode()


def event(name: str, data: bytes, cursor: str = "") -> bytes:
    """One event of a stream (HTML standard, "Server-sent events"); a client that comes back tells the last cursor."""
    mark = f"id: {cursor}\n" if cursor else ""
    return f"event: {name}\n{mark}data: ".encode() + data + b"\n\n"
