"""The admin listener's route for debug bundles (``p2pdist status --bundle``).

GET    /api/v1/diagnostics  {configuration: {section: {key: value}}, process: {...}, metrics: text, log: [line],
                            pages: {status, peers, transfers, images, pins: as the routes of these names, bounded}}

No secret is in it. What could not be had is {error: text} in its place. It stands behind the same guard as the other
routes (api/admin.py).
"""

from __future__ import annotations

from typing import Any, Protocol

from aiohttp import web

from p2pdist.api.responses import json_response


class DiagnosticsBackend(Protocol):
    """What the agent tells of itself."""

    async def diagnostics(self) -> dict[str, Any]:
        """Shaped as in the module; plain JSON values."""


def add_diagnostics(app: web.Application, backend: DiagnosticsBackend) -> None:
    """Give an admin application the route."""

    async def diagnostics(request: web.Request) -> web.StreamResponse:
        return json_response(await backend.diagnostics())

    app.router.add_get("/api/v1/diagnostics", diagnostics)
