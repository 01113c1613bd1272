"""How the fake registry answers: routes, ranges, and each fault at the place where a real registry would have it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

from aiohttp import web

from p2pdist.errors import InvalidInputError
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.errors import ErrorCode, error_body
from p2pdist.oci.ranges import ByteRange, RangeNotSatisfiable, content_range, etag_of, parse_range
from p2pdist.oci.reference import parse_tag_or_digest
from p2pdist.testing.registry_auth import Doorkeeper
from p2pdist.testing.registry_bodies import BodySender, Gate, cut_off
from p2pdist.testing.registry_content import (
    BlobSource,
    RegistryContent,
    RepositoryContent,
    blob_size,
    encode,
)
from p2pdist.testing.registry_faults import Counters, Faults

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<target>[^/]+)\Z")
_KINDS = {"manifests": "manifest", "blobs": "blob", "tags": "tags", "referrers": "referrers"}

Answer = web.StreamResponse
Handler = Callable[[web.Request, RepositoryContent, str], Awaitable[Answer]]


class RegistryHandlers:
    """Two aiohttp applications over one content: the registry, and the blob store that it may redirect to."""

    def __init__(
        self, content: RegistryContent, faults: Faults, counters: Counters, doorkeeper: Doorkeeper
    ) -> None:
        self._content, self._faults, self._counters, self._doorkeeper = content, faults, counters, doorkeeper
        self._gate = Gate()
        self._bodies = BodySender(faults, counters, self._gate)
        self.blob_store_port = 0
        self._by_kind: dict[str, Handler] = {
            "manifest": self._manifest,
            "blob": self._blob,
            "tags": self._tags,
            "referrers": self._referrers,
        }

    def release(self, *, closing: bool = False) -> None:
        """As Gate.release."""
        self._gate.release(closing=closing)

    def registry_app(self) -> web.Application:
        """The registry itself, with its token server and control pages."""
        app = web.Application()
        app.on_response_prepare.append(_drop_empty_content_type)
        app.router.add_route("*", "/token", self._token)
        app.router.add_get("/_counters", self._get_counters)
        app.router.add_delete("/_counters", self._reset_counters)
        app.router.add_get("/_faults", self._get_faults)
        app.router.add_post("/_faults", self._set_faults)
        app.router.add_delete("/_faults", self._reset_faults)
        app.router.add_post("/_release", self._release)
        app.router.add_route("*", "/{tail:.*}", self._counted)
        return app

    def blob_store_app(self) -> web.Application:
        """The object store behind redirects: it wants a signature in the query, and no Authorization header."""
        app = web.Application()
        app.on_response_prepare.append(_drop_empty_content_type)
        app.router.add_get("/store/{name:.+}/{digest}", self._stored_blob)
        return app

    # -- the way in ----------------------------------------------------------------------------------------

    async def _counted(self, request: web.Request) -> Answer:
        match = _PATH.match(request.path)
        ping = request.path in {"/v2/", "/v2"}
        kind = _KINDS[match["kind"]] if match else ("ping" if ping else "other")
        self._counters.arrived(request.method, kind, request.path_qs)
        answer = await self._answer(request, kind, match)
        self._counters.statuses[answer.status] += 1
        return answer

    async def _answer(self, request: web.Request, kind: str, match: re.Match[str] | None) -> Answer:
        if (early := await self._fault_before_answer(request, kind)) is not None:
            return early
        if request.method not in {"GET", "HEAD"}:
            return _error(405, ErrorCode.UNSUPPORTED, "this registry is read-only")
        if refused := self._doorkeeper.challenge(request, match["name"] if match else ""):
            return refused
        if match is None:
            return (
                web.json_response({})
                if kind == "ping"
                else _error(404, ErrorCode.UNSUPPORTED, "no such page")
            )
        repository = self._content.repositories.get(match["name"])
        if repository is None:
            return _error(404, ErrorCode.NAME_UNKNOWN, f"no repository {match['name']}")
        try:
            return await self._by_kind[kind](request, repository, match["target"])
        except InvalidInputError as error:
            return _error(400, ErrorCode.DIGEST_INVALID, str(error))

    async def _fault_before_answer(self, request: web.Request, kind: str) -> Answer | None:
        faults = self._faults
        if faults.latency:
            await asyncio.sleep(faults.latency)
        if kind not in faults.fail_kinds:
            return None
        if faults.take("hang"):
            await self._gate.wait()
            if self._gate.closing:
                cut_off(request, by_reset=False)
        if faults.take("busy"):
            headers = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            return _error(429, ErrorCode.TOOMANYREQUESTS, "slow down", headers)
        if faults.take("error"):
            return _error(faults.error_status, ErrorCode.UNAVAILABLE, "an injected failure")
        if request.method == "HEAD" and faults.no_head:
            return _error(405, ErrorCode.UNSUPPORTED, "no HEAD here")
        return None

    # -- answers -------------------------------------------------------------------------------------------

    async def _manifest(self, request: web.Request, repository: RepositoryContent, target: str) -> Answer:
        found = repository.find_manifest(parse_tag_or_digest(target))
        accept = request.headers.getall("Accept", [])
        if found and self._faults.strict_accept and not media_types.acceptable(found.media_type, accept):
            found = None
        if found is None:
            return _error(404, ErrorCode.MANIFEST_UNKNOWN, f"no manifest {target}")
        headers = self._headers(found.digest, found.media_type)
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        whole = ByteRange(0, len(found.body))
        return await self._bodies.send(
            request, "manifest", found.digest, found.body, whole, web.StreamResponse(headers=headers)
        )

    async def _blob(self, request: web.Request, repository: RepositoryContent, target: str) -> Answer:
        digest = Digest.parse(target)
        if digest not in repository.blobs:
            return _error(404, ErrorCode.BLOB_UNKNOWN, f"no blob {digest}")
        if self._faults.redirect_blobs and request.method == "GET":
            host = self._faults.redirect_host or request.url.host
            name = request.path.removeprefix("/v2/").partition("/blobs/")[0]
            url = f"{request.scheme}://{host}:{self.blob_store_port}/store/{name}/{digest}?signature=signed"
            return web.Response(status=307, headers={"Location": url})
        return await self._send_blob(request, digest, repository.blobs[digest])

    async def _stored_blob(self, request: web.Request) -> Answer:
        self._counters.redirects_followed += 1
        if "Authorization" in request.headers:
            self._counters.authorization_leaks += 1
            return web.Response(status=400, text="only one authentication mechanism is allowed")
        if request.query.get("signature") != "signed":
            return web.Response(status=403, text="not signed")
        digest = Digest.parse(request.match_info["digest"])
        source = self._content.repositories[request.match_info["name"]].blobs[digest]
        return await self._send_blob(request, digest, source)

    async def _tags(self, request: web.Request, repository: RepositoryContent, target: str) -> Answer:
        if target != "list":
            return _error(404, ErrorCode.UNSUPPORTED, "no such page")
        name = request.path.removeprefix("/v2/").removesuffix("/tags/list")
        tags = [tag for tag in sorted(repository.tags) if tag > request.query.get("last", "")]
        limit = request.query.get("n", str(len(tags)))
        if not limit.isdigit():
            return _error(400, ErrorCode.PAGINATION_NUMBER_INVALID, f"n={limit} is not a number")
        page, headers = tags[: int(limit)], {}
        if len(page) < len(tags) and page:
            headers["Link"] = f'</v2/{name}/tags/list?n={limit}&last={page[-1]}>; rel="next"'
        body = encode({"name": name, "tags": page})
        return web.Response(body=body, content_type=media_types.JSON, headers=headers)

    async def _referrers(self, request: web.Request, repository: RepositoryContent, target: str) -> Answer:
        if self._faults.no_referrers:
            return _error(404, ErrorCode.UNSUPPORTED, "no referrers API")
        artifact_type = request.query.get("artifactType", "")
        headers = {"OCI-Filters-Applied": "artifactType"} if artifact_type else {}
        body = repository.referrers(Digest.parse(target), artifact_type)
        return web.Response(body=body, content_type=media_types.OCI_INDEX, headers=headers)

    # -- bodies --------------------------------------------------------------------------------------------

    def _headers(self, digest: Digest, media_type: str) -> dict[str, str]:
        faults = self._faults
        headers = {"ETag": etag_of(digest), "Content-Type": "" if faults.no_content_type else media_type}
        if not faults.no_digest_header:
            shown = Digest.of(b"some other content") if faults.wrong_digest_header else digest
            headers["Docker-Content-Digest"] = str(shown)
        return headers

    async def _send_blob(self, request: web.Request, digest: Digest, source: BlobSource) -> Answer:
        size = blob_size(source)
        if request.method == "GET":
            self._counters.blob_requests[str(digest)] += 1
        response = web.StreamResponse(headers=self._headers(digest, media_types.OCTET_STREAM))
        wanted = None
        if not self._faults.ignore_range:
            response.headers["Accept-Ranges"] = "bytes"
            try:
                wanted = parse_range(request.headers.get("Range"), size)
            except RangeNotSatisfiable as error:
                headers = {"Content-Range": error.content_range}
                return _error(416, ErrorCode.RANGE_INVALID, str(error), headers)
        if (
            not wanted or len(wanted) > 1
        ):  # several ranges: the whole, as docker-registry's storage drivers do
            whole = ByteRange(0, size) if size else None
            return await self._bodies.send(request, "blob", digest, source, whole, response)
        response.set_status(206)
        told = (
            ByteRange(wanted[0].start + 1, wanted[0].stop + 1)
            if self._faults.wrong_content_range
            else wanted[0]
        )
        response.headers["Content-Range"] = content_range(told, size + self._faults.wrong_content_range)
        return await self._bodies.send(request, "blob", digest, source, wanted[0], response)

    # -- control -------------------------------------------------------------------------------------------

    async def _token(self, request: web.Request) -> Answer:
        self._counters.arrived(request.method, "token", request.path_qs)
        return await self._doorkeeper.token(request)

    async def _get_counters(self, _request: web.Request) -> Answer:
        return web.json_response(self._counters.as_json())

    async def _reset_counters(self, _request: web.Request) -> Answer:
        self._counters.reset()
        return web.json_response({})

    async def _get_faults(self, _request: web.Request) -> Answer:
        return web.json_response(self._faults.as_json())

    async def _set_faults(self, request: web.Request) -> Answer:
        try:
            self._faults.update(dict(await request.json()))
        except (
            ValueError,
            TypeError,
        ) as error:  # InvalidInputError is a ValueError, and so is what json raises
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response(self._faults.as_json())

    async def _reset_faults(self, _request: web.Request) -> Answer:
        self._faults.reset()
        return web.json_response(self._faults.as_json())

    async def _release(self, _request: web.Request) -> Answer:
        self.release()
        return web.json_response({})


async def _drop_empty_content_type(_request: web.Request, response: web.StreamResponse) -> None:
    # aiohttp names a type where there is none, so one that is left out has to go as the last thing.
    if response.headers.get("Content-Type") == "":
        del response.headers["Content-Type"]


def _error(status: int, code: ErrorCode, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = error_body(code, message)
    return web.Response(status=status, body=body, content_type=media_types.JSON, headers=headers)
