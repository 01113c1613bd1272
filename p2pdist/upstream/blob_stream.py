"""A blob's body from a registry, resumed at the same byte whenever the connection is cut, unseen by the consumer.

Rules:
- The bytes come in order, each once, and end exactly at the end that was asked for; else an error is raised.
- Each answer must tell of the same blob: the same total size, and the same strong ETag where two answers have one.
- Resuming is bounded: so often in a row without ``resume_progress`` more bytes. A stall is not resumed, but raised:
  the consumer has waited long already, and may know a better source.
- A registry that ignores Range is read from the start, and what is not wanted is thrown away (but counted). One that
  refuses Range, or answers with another range or several, is asked again without, and is then as one that ignores it.
- A size that the registry does not tell is the one that the manifest told, and is believed until the digest is known.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import aiohttp

from p2pdist.errors import InvalidInputError, ProtocolError, SourceError, UnreachableError
from p2pdist.oci.digest import Digest
from p2pdist.upstream import answers
from p2pdist.upstream.body_reader import BodyReader
from p2pdist.upstream.registry_http import Ask, RegistryHttp

_OPENED = frozenset({200, 206, 416})
# What a server or a proxy that does not like Range may answer; asked without it, a real refusal is repeated.
_DISLIKES_RANGE = frozenset({400, 403, 405, 406, 501})
_DISLIKES_HEAD = frozenset({400, 403, 404, 405, 501})

KnownSize = Callable[[Digest], Awaitable[int | None]]
"""What a manifest said of a blob's size; None where none was seen."""


class BlobStream:
    """A ContentStream; ``open`` first, ``close`` at the end. ``ask`` is the question without a range.

    ``known_size`` is asked where the registry does not tell how large the blob is.
    """

    def __init__(
        self,
        http: RegistryHttp,
        ask: Ask,
        offset: int,
        length: int | None,
        known_size: Callable[[], Awaitable[int | None]],
    ) -> None:
        self._http = http
        self._ask = ask
        self._known_size = known_size
        self._without_ranges = False
        self._start = self._position = offset
        self._length = length
        self._stop = 0
        self._size = 0
        self._media_type = ""
        self._etag = ""
        self._skip = 0
        self._ranged = True
        self._reader: BodyReader | None = None
        self._failures = 0
        self._mark = offset

    @property
    def size(self) -> int:
        return self._size

    @property
    def start(self) -> int:
        return self._start

    @property
    def media_type(self) -> str:
        return self._media_type

    @property
    def ranged(self) -> bool:
        """As UpstreamStream.ranged."""
        return self._ranged

    async def open(self) -> None:
        """Ask for the body; afterwards ``size`` is known. Raises InvalidInputError for a range beyond the blob."""
        if self._length == 0:
            size, self._media_type = await head_blob(self._http, self._ask)
            self._settle(size)
            return
        response = await self._request()
        try:
            if response.status == 416:
                self._settle(answers.whole_size(416, response.headers, self._ask.what))
                response.release()
                return
            body = answers.read_body_headers(
                response.status, response.headers, self._position, self._ask.what
            )
            if answers.is_encoded(response.headers):
                await self._refuse_compressed(body)
            self._settle(await self._untold_size() if body.size is None else body.size)
        except BaseException:
            response.close()
            raise
        self._media_type = answers.content_type(response.headers)
        self._etag = answers.strong_etag(response.headers)
        self._attach(response, body)

    async def _refuse_compressed(self, body: answers.Body) -> None:
        """Some name an encoding that the stored bytes have, digest and all; others compressed them on the way."""
        known = await self._known_size()
        if known is not None and body.size not in (None, known):
            raise ProtocolError(f"{self._ask.what} came compressed, which was not asked for")

    async def _untold_size(self) -> int:
        known = await self._known_size()
        return (await head_blob(self._http, self._ask))[0] if known is None else known

    def _settle(self, size: int) -> None:
        stop = size if self._length is None else self._start + self._length
        if not self._start <= stop <= size:
            raise InvalidInputError(
                f"range {self._start}-{stop} is outside of {self._ask.what} of {size} bytes"
            )
        self._size, self._stop = size, stop

    async def chunks(self) -> AsyncIterator[bytes]:
        while self._position < self._stop:
            try:
                chunk = await self._next()
            except UnreachableError as error:
                await self._resume(error)
                continue
            if not chunk:
                await self._resume(ProtocolError(f"{self._ask.what} ended early, at byte {self._position}"))
                continue
            yield chunk

    def close(self) -> None:
        """Give the connection back, or drop it when there is more to come."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def _next(self) -> bytes:
        """The next bytes from the open body, without those before and after what is wanted; b"" at its end."""
        assert self._reader is not None
        while data := await self._reader.next():
            if self._skip:
                dropped = min(self._skip, len(data))
                self._skip -= dropped
                data = data[dropped:]
            if len(data) > self._stop - self._position:
                data = data[: self._stop - self._position]
            if data:
                self._position += len(data)
                return data
        return b""

    async def _resume(self, cause: SourceError) -> None:
        settings, environment = self._http.environment.settings, self._http.environment
        self.close()
        if self._position - self._mark >= settings.resume_progress:
            self._mark, self._failures = self._position, 0
        self._failures += 1
        if self._failures > settings.resumes:
            raise cause
        # The first try after progress comes at once: a cut is most often a connection's end, not a server's.
        if self._failures > 1:
            backoff = min(settings.retry.cap, settings.retry.base * 2.0 ** (self._failures - 2))
            await environment.clock.sleep(backoff * (0.5 + environment.jitter() / 2))
        response = await self._request()
        try:
            body = self._check_same(response)
        except BaseException:
            response.close()
            raise
        self._attach(response, body)

    def _check_same(self, response: aiohttp.ClientResponse) -> answers.Body:
        what, headers = self._ask.what, response.headers
        if response.status == 416:
            size = answers.whole_size(416, headers, what)
            raise ProtocolError(
                f"{what} has {size} bytes on resuming at {self._position}, and had {self._size}"
            )
        body = answers.read_body_headers(response.status, headers, self._position, what)
        if body.size is not None and body.size != self._size:
            raise ProtocolError(f"{what} has {body.size} bytes on resuming, and had {self._size} before")
        etag = answers.strong_etag(headers)
        if etag and self._etag and etag != self._etag:
            raise ProtocolError(f"{what} changed while it was read: its ETag is another one")
        return body

    def _attach(self, response: aiohttp.ClientResponse, body: answers.Body) -> None:
        self._skip = self._position - body.start
        asked_for_part = self._position > 0 or self._length is not None
        self._ranged = response.status == 206 or not asked_for_part
        self._reader = self._http.reader(response, self._ask.what)

    async def _request(self) -> aiohttp.ClientResponse:
        last = "" if self._length is None else str(self._start + self._length - 1)
        if (self._position or last) and not self._without_ranges:
            headers = {**self._ask.headers, "Range": f"bytes={self._position}-{last}"}
            ask = replace(self._ask, headers=headers, expected=_OPENED | _DISLIKES_RANGE)
            response = await self._http.open(ask)
            if answers.answers_range(response.status, response.headers, self._position):
                return response
            if response.status == 206:
                self._http.reader(response, self._ask.what).close()  # what has come of it counts
            else:
                response.close()
            self._without_ranges = True
        return await self._http.open(self._ask)


async def head_blob(http: RegistryHttp, ask: Ask) -> tuple[int, str]:
    """A blob's size and media type by HEAD, or where that is not served or names no size, by asking for a byte."""
    head = await http.open(replace(ask, method="HEAD", expected=frozenset({200}) | _DISLIKES_HEAD))
    head.release()
    tells = head.status == 200 and not answers.is_encoded(head.headers)
    size = answers.content_length(head.headers) if tells else None
    if size is not None:
        return size, answers.content_type(head.headers)
    first = await http.open(replace(ask, headers={**ask.headers, "Range": "bytes=0-0"}, expected=_OPENED))
    http.reader(first, ask.what).close()
    size = answers.whole_size(first.status, first.headers, ask.what)
    return size, answers.content_type(first.headers)
