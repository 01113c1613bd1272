"""The image model on the admin listener: how images came to be, what tags pointed at, what they share.

    GET /api/v1/history?reference=REF[&platform=OS/ARCH]
        {reference, digest, manifest, image_id, platform, created, size, counted, history: [{created, created_by, comment,
         empty, layer, diff_id, media_type, size, held, hosts}]}, newest first
    GET /api/v1/history/tags[?reference=REF]
        {history: [{reference, digest, first_seen, resolved_at, current, held, held_bytes, size}]}, newest first
    GET /api/v1/df
        {images: [{references, past_references, digest, size, shared, unique, layers: {size, shared, unique}, complete,
         platforms, pulled_at}], store: {committed, reserved, quota, blobs}, separate, layered, saved, other,
         reclaimable, unpinned}
    GET /api/v1/diff?from=REF&to=REF[&platform=OS/ARCH]
        {from, to: {reference, digest, manifest, size}, shared, added, dropped: [{digest, media_type, size}],
         shared_bytes, moved_bytes, missing_bytes, moved: [{digest, size, held}]}

Sizes are bytes, times wall-clock seconds; ``created`` is RFC 3339 text, as the image has it. ``digest`` is what the
reference names, ``manifest`` the image's own, which differs below an index. ``held`` in the tags' history means whole.
Errors: 400 (not an image, malformed), 404 (not held here, nothing for the platform).
"""

from __future__ import annotations

from typing import Any, Protocol

from aiohttp import web

from p2pdist.api.responses import json_response
from p2pdist.errors import InvalidInputError
from p2pdist.oci.descriptor import Platform
from p2pdist.oci.platforms import parse_platform
from p2pdist.oci.reference import Reference


class ImageBackend(Protocol):
    """What the agent tells of its images; shapes as in the module. ``platform`` None is this host's."""

    async def history(self, reference: Reference, platform: Platform | None) -> dict[str, Any]: ...

    async def tag_history(self, reference: Reference | None) -> dict[str, Any]: ...

    async def disk_usage(self) -> dict[str, Any]: ...

    async def diff(self, old: Reference, new: Reference, platform: Platform | None) -> dict[str, Any]: ...


def add_image_routes(app: web.Application, backend: ImageBackend) -> None:
    """Have ``app`` answer the routes of this module."""
    views = _Views(backend)
    app.router.add_get("/api/v1/history", views.history)
    app.router.add_get("/api/v1/history/tags", views.tag_history)
    app.router.add_get("/api/v1/df", views.disk_usage)
    app.router.add_get("/api/v1/diff", views.diff)


class _Views:
    def __init__(self, backend: ImageBackend) -> None:
        self._backend = backend

    async def history(self, request: web.Request) -> web.StreamResponse:
        return json_response(
            await self._backend.history(_reference(request, "reference"), _platform(request))
        )

    async def tag_history(self, request: web.Request) -> web.StreamResponse:
        wanted = _reference(request, "reference") if "reference" in request.query else None
        return json_response(await self._backend.tag_history(wanted))

    async def disk_usage(self, request: web.Request) -> web.StreamResponse:
        return json_response(await self._backend.disk_usage())

    async def diff(self, request: web.Request) -> web.StreamResponse:
        old, new = _reference(request, "from"), _reference(request, "to")
        return json_response(await self._backend.diff(old, new, _platform(request)))


def _reference(request: web.Request, name: str) -> Reference:
    text = request.query.get(name, "")
    if not text:
        raise InvalidInputError(f'"{name}" must name an image, such as "docker.io/library/nginx:1.27"')
    return Reference.parse(text)


def _platform(request: web.Request) -> Platform | None:
    text = request.query.get("platform", "")
    return parse_platform(text) if text else None
