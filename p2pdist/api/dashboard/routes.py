"""The dashboard's routes on the admin listener, behind its guard.

    GET    /                    the page; what it loads is under
    GET    /dashboard/FILE      style, scripts, icon
    GET    /api/v1/overview     {status, savings, transfers, peers, images, beat, cursor, history}; ?after=CURSOR leaves
                                out the samples that the caller has
    GET    /api/v1/events       the same, as server-sent events
    GET    /api/v1/layers       ?reference=REF: {reference, digest, layers: [{digest, size, held, hosts, platform}]}

docs/admin-api.md shows each in full.
"""

from __future__ import annotations

from importlib import resources

from aiohttp import web

from p2pdist.api.dashboard.live import DashboardBackend, Live, LiveSettings
from p2pdist.api.responses import Refusal, json_response
from p2pdist.clock import Clock, SystemClock
from p2pdist.errors import InvalidInputError, NotFoundError
from p2pdist.oci.errors import ErrorCode
from p2pdist.oci.reference import Reference

PAGE = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Referrer-Policy": "no-referrer",
}


class Dashboard:
    """A part of the admin application: give it to ``build_admin_app``."""

    def __init__(
        self, backend: DashboardBackend, settings: LiveSettings | None = None, clock: Clock | None = None
    ) -> None:
        self._backend = backend
        self.live = Live(backend, settings or LiveSettings(), clock or SystemClock())
        self._assets = _read_assets()

    def __call__(self, app: web.Application) -> None:
        """Have ``app`` answer the routes of this module."""
        app.router.add_get("/", self.page)
        app.router.add_get("/dashboard/{file}", self.asset)
        app.router.add_get("/api/v1/overview", self.overview)
        app.router.add_get("/api/v1/events", self.events, allow_head=False)
        app.router.add_get("/api/v1/layers", self.layers)

    async def page(self, request: web.Request) -> web.StreamResponse:
        return self._file(PAGE)

    async def asset(self, request: web.Request) -> web.StreamResponse:
        return self._file(request.match_info["file"])

    def _file(self, name: str) -> web.Response:
        found = self._assets.get(name)
        if found is None:
            raise NotFoundError("the dashboard has no such file")
        content_type, body = found
        return web.Response(body=body, headers={"Content-Type": content_type, **_HEADERS})

    async def overview(self, request: web.Request) -> web.StreamResponse:
        body = await self.live.overview(request.query.get("after", ""))
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    async def events(self, request: web.Request) -> web.StreamResponse:
        # Another site's page cannot read the stream, but it could take up all places.
        if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            raise Refusal(403, ErrorCode.DENIED, "events are not given to pages of another site")
        last = request.headers.get("Last-Event-ID") or request.query.get("after", "")
        return await self.live.stream(request, last)

    async def layers(self, request: web.Request) -> web.StreamResponse:
        text = request.query.get("reference", "")
        if not text:
            raise InvalidInputError("name an image: api/v1/layers?reference=docker.io/library/nginx:1.27")
        return json_response(await self._backend.layers(Reference.parse(text)))


def _read_assets() -> dict[str, tuple[str, bytes]]:
    """All files of the page, once: {name: (Content-Type, body)}."""
    folder = resources.files("p2pdist.api.dashboard") / "assets"
    found = {}
    for file in folder.iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            found[file.name] = (_TYPES[suffix], file.read_bytes())
    return found
