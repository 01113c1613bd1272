"""The admin listener's way in for images that somebody has as files: blobs first, then the name.

    POST /api/v1/import/missing {reference, digests: [digest]}  -> {missing: [digest]}
    PUT  /api/v1/import/blobs/DIGEST?reference=REF   the bytes   -> {digest, size}
    POST /api/v1/import         {reference, digest}              -> {reference, digest, size, blobs, left_out: [platform]}

Always true here: nothing is read from this host's files, the caller sends the bytes; each blob is kept only if it has its
digest; a name is given only to an image whose blobs are all held. Since a name that is given here is believed by the
cluster, all of it wants the token of the agent's data directory.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from p2pdist.api.admin_tools import read_json, reference_in, require_token
from p2pdist.api.responses import Refusal, json_response
from p2pdist.errors import BusyError, InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.oci.errors import ErrorCode
from p2pdist.oci.reference import Reference

MAX_DIGESTS = 500
_CHUNK = 1024 * 1024


class ImportBackend(Protocol):
    """What the agent does with it. Raises P2PDistError."""

    async def missing(self, reference: Reference, digests: list[Digest]) -> list[Digest]:
        """Which of these the store lacks; DeniedError when the registry is not configured."""

    async def add(
        self, reference: Reference, digest: Digest, size: int, chunks: AsyncIterator[bytes | bytearray]
    ) -> None:
        """Keep a blob of the image; InvalidInputError when the bytes are not those of the digest."""

    async def name(self, reference: Reference, digest: Digest) -> dict[str, Any]:
        """The manifest with this digest is the image that ``reference`` names."""


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """``token`` is what a caller must show; times are in seconds."""

    token: str
    max_uploads: int = 4
    body_timeout: float = 10.0
    progress_timeout: float = 30.0


class ImportRoutes:
    """Adds the routes to the admin application (``build_admin_app(parts=...)``)."""

    def __init__(self, backend: ImportBackend, settings: ImportSettings) -> None:
        self._backend = backend
        self._settings = settings
        self._uploads = 0

    def __call__(self, app: web.Application) -> None:
        app.router.add_post("/api/v1/import/missing", self._missing)
        app.router.add_put("/api/v1/import/blobs/{digest}", self._blob)
        app.router.add_post("/api/v1/import", self._name)

    async def _missing(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        texts = body.get("digests")
        if not isinstance(texts, list) or len(texts) > MAX_DIGESTS:
            raise InvalidInputError(f'"digests" must be a list of at most {MAX_DIGESTS} digests')
        digests = [Digest.parse(str(text)) for text in texts]
        missing = await self._backend.missing(reference_in(body), digests)
        return json_response({"missing": [str(digest) for digest in missing]})

    async def _blob(self, request: web.Request) -> web.StreamResponse:
        require_token(request, self._settings.token)
        reference = reference_in(dict(request.query))
        digest, size = Digest.parse(request.match_info["digest"]), request.content_length
        if size is None:
            raise Refusal(411, ErrorCode.SIZE_INVALID, "say how many bytes come: Content-Length")
        if self._uploads >= self._settings.max_uploads:
            raise BusyError(f"{self._uploads} blobs are being sent already; try again when one is done", 2.0)
        self._uploads += 1
        try:
            async with aclosing(self._chunks(request)) as chunks:
                await self._backend.add(reference, digest, size, chunks)
        finally:
            self._uploads -= 1
        return json_response({"digest": str(digest), "size": size})

    async def _name(self, request: web.Request) -> web.StreamResponse:
        body = await self._body(request)
        digest = Digest.parse(str(body.get("digest", "")))
        return json_response(await self._backend.name(reference_in(body), digest))

    async def _body(self, request: web.Request) -> dict[str, Any]:
        require_token(request, self._settings.token)
        return await read_json(request, self._settings.body_timeout)

    async def _chunks(self, request: web.Request) -> AsyncGenerator[bytearray, None]:
        """The body in parts of about a megabyte, so that each write is worth its way to a thread."""
        gathered = bytearray()
        while True:
            try:
                async with asyncio.timeout(self._settings.progress_timeout):
                    data = await request.content.readany()
            except TimeoutError as error:
                raise Refusal(408, ErrorCode.SIZE_INVALID, "the blob's bytes stopped coming") from error
            gathered += data
            if gathered and (not data or len(gathered) >= _CHUNK):
                yield gathered
                gathered = bytearray()
            if not data:
                return
