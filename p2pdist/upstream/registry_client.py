"""The Upstream port over HTTP: what is asked of registries, and how their answers are checked.

Rules: see upstream/port.py. The parts: registry_http.py asks (connections, authority, redirects, retries),
blob_stream.py reads and resumes blobs, answers.py judges answers, auth.py and credentials.py know who is asking.
"""

from __future__ import annotations

import os
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urlencode

from p2pdist.clock import Clock, SystemClock
from p2pdist.errors import ConfigError, DeniedError, InvalidInputError
from p2pdist.oci import media_types
from p2pdist.oci.content import BlobStat
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST
from p2pdist.oci.reference import Repository
from p2pdist.upstream import answers
from p2pdist.upstream.blob_stream import BlobStream, KnownSize, head_blob
from p2pdist.upstream.credentials import CredentialSource, HostCredentials
from p2pdist.upstream.port import UpstreamManifest, UpstreamPage, UpstreamStream
from p2pdist.upstream.proxies import Proxies
from p2pdist.upstream.registry_http import Ask, Environment, Observer, RegistryHttp
from p2pdist.upstream.settings import RegistrySettings, UpstreamSettings

MAX_PAGE = 4 * 1024 * 1024
_MAX_ACCEPT = 4096
_HEAD_UNSUPPORTED = frozenset({404, 405, 501})


class RegistryClient:
    """Use as an async context manager, or ``close`` it. Built outside or inside a running loop; used by one loop.

    ``on_response(registry, kind, status)`` is called for each answer (kind: manifest, blob, tags, referrers, ping, token;
    status 0: no answer), ``on_received(registry, count)`` for the body bytes of blobs and manifests as they arrive,
    ``on_request`` as ``Observer.request``. ``known_size(digest)`` is asked for what a manifest said of a blob's size, where
    the registry does not tell it.
    Raises ConfigError for a ca_file or url that cannot be used.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        clock: Clock | None = None,
        on_response: Callable[[str, str, int], None] | None = None,
        on_received: Callable[[str, int], None] | None = None,
        on_request: Callable[[str, str, str, str], Callable[[int], None]] | None = None,
        environ: Mapping[str, str] | None = None,
        credentials: CredentialSource | None = None,
        known_size: KnownSize | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        clock = clock or SystemClock()
        observer = Observer()
        if on_response is not None:
            observer = replace(observer, response=on_response)
        if on_received is not None:
            observer = replace(observer, received=on_received)
        if on_request is not None:
            observer = replace(observer, request=on_request)
        self._settings = settings
        self._known_size = known_size or _unknown
        self._environment = Environment(
            settings,
            clock,
            credentials or HostCredentials(settings, clock),
            Proxies.of(os.environ if environ is None else environ),
            observer,
            jitter,
        )
        self._tls = _TlsContexts(settings.registries)
        self._open: dict[str, RegistryHttp] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; what is in flight fails."""
        while self._open:
            await self._open.popitem()[1].close()

    # -- the port --

    def allows(self, registry: str) -> bool:
        return registry in self._settings.registries

    async def manifest(
        self, repository: Repository, target: str | Digest, *, accept: Sequence[str] = (), head: bool = False
    ) -> UpstreamManifest:
        http = self._http(repository.registry)
        ask = _manifest_ask(repository, target, accept)
        async with http.small_slot():
            if head:
                found = await self._head_manifest(http, ask, target)
                if found is not None:
                    return found
            found = await self._get_manifest(http, ask, target)
        return replace(found, body=None) if head else found

    async def stat(self, repository: Repository, digest: Digest) -> BlobStat:
        http = self._http(repository.registry)
        async with http.small_slot():
            size, media_type = await head_blob(http, _blob_ask(repository, digest))
        return BlobStat(digest, size, media_type)

    def blob(
        self, repository: Repository, digest: Digest, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[UpstreamStream]:
        return self._blob(repository, digest, offset, length)

    async def tags(self, repository: Repository, query: dict[str, str]) -> UpstreamPage:
        path = f"/v2/{repository.path}/tags/list"
        return await self._page("tags", repository, path, f"tags of {repository}", query)

    async def referrers(self, repository: Repository, digest: Digest, query: dict[str, str]) -> UpstreamPage:
        path = f"/v2/{repository.path}/referrers/{digest}"
        return await self._page("referrers", repository, path, f"referrers of {repository}@{digest}", query)

    async def ping(self, registry: str) -> str:
        http = self._http(registry)
        started = self._environment.clock.now()
        async with http.small_slot():
            response = await http.open(Ask("ping", "/v2/", f"registry {registry}"))
            response.release()
        took = (self._environment.clock.now() - started) * 1000
        return f"registry {registry} answers at {http.registry.base_url} in {took:.0f} ms, {http.authority}"

    # -- inside --

    def _http(self, registry: str) -> RegistryHttp:
        settings = self._settings.registries.get(registry)
        if settings is None:
            raise DeniedError(
                f'registry {registry} is not configured here; add [registries."{registry}"] to mirror it'
            )
        http = self._open.get(registry)
        if http is None:
            http = RegistryHttp(settings, self._environment, self._tls.of(settings))
            self._open[registry] = http
        return http

    async def _head_manifest(
        self, http: RegistryHttp, ask: Ask, target: str | Digest
    ) -> UpstreamManifest | None:
        """What a HEAD tells; None where it does not tell enough, so that a GET must."""
        response = await http.open(replace(ask, method="HEAD", expected=frozenset({200}) | _HEAD_UNSUPPORTED))
        response.release()
        if response.status != 200:
            return None
        size = None if answers.is_encoded(response.headers) else answers.content_length(response.headers)
        answers.check_manifest_size(size, ask.what)
        digest = target if isinstance(target, Digest) else answers.digest_header(response.headers)
        media_type = answers.specific_type(response.headers)
        if size is None or digest is None or not media_type:
            return None
        return UpstreamManifest(digest, media_type, size, None)

    async def _get_manifest(self, http: RegistryHttp, ask: Ask, target: str | Digest) -> UpstreamManifest:
        headers, body = await http.fetch(ask, MAX_MANIFEST, counted=True)
        body = answers.decoded(headers, body, MAX_MANIFEST, ask.what)
        digest = answers.manifest_digest(body, target, headers, ask.what)
        return UpstreamManifest(digest, answers.manifest_type(body, headers, ask.what), len(body), body)

    @asynccontextmanager
    async def _blob(
        self, repository: Repository, digest: Digest, offset: int, length: int | None
    ) -> AsyncIterator[UpstreamStream]:
        if offset < 0 or (length is not None and length < 0):
            raise InvalidInputError(f"offset {offset} and length {length} of a range cannot be negative")
        http = self._http(repository.registry)
        async with http.blob_slot():
            known_size = partial(self._known_size, digest)
            stream = BlobStream(http, _blob_ask(repository, digest), offset, length, known_size)
            await stream.open()
            try:
                yield stream
            finally:
                stream.close()

    async def _page(
        self, kind: str, repository: Repository, path: str, what: str, query: Mapping[str, str]
    ) -> UpstreamPage:
        http = self._http(repository.registry)
        known = urlencode({key: value for key, value in query.items() if key in answers.PAGE_KEYS})
        ask = Ask(kind, f"{path}?{known}" if known else path, what, _scope(repository))
        async with http.small_slot():
            received, body = await http.fetch(ask, MAX_PAGE)
        body = answers.decoded(received, body, MAX_PAGE, what)
        headers = {"Content-Type": answers.content_type(received) or media_types.JSON}
        link = answers.next_link(received, path)
        if link is not None:
            headers["Link"] = link
        if "OCI-Filters-Applied" in received:
            headers["OCI-Filters-Applied"] = received["OCI-Filters-Applied"][:256]
        return UpstreamPage(body, headers)


async def _unknown(_digest: Digest) -> int | None:
    return None


def _scope(repository: Repository) -> str:
    return f"repository:{repository.path}:pull"


def _blob_ask(repository: Repository, digest: Digest) -> Ask:
    path = f"/v2/{repository.path}/blobs/{digest}"
    return Ask("blob", path, f"blob {digest} of {repository}", _scope(repository), headers={"Accept": "*/*"})


def _manifest_ask(repository: Repository, target: str | Digest, accept: Sequence[str]) -> Ask:
    wanted = ", ".join(accept or media_types.ACCEPT_ALL_MANIFESTS)[:_MAX_ACCEPT]
    if not wanted.isascii() or not wanted.isprintable():
        raise InvalidInputError("an Accept header holds printable ASCII only")
    path = f"/v2/{repository.path}/manifests/{target}"
    separator = "@" if isinstance(target, Digest) else ":"
    what = f"manifest {repository}{separator}{target}"
    return Ask("manifest", path, what, _scope(repository), headers={"Accept": wanted})


class _TlsContexts:
    """Verifying contexts: the system's authorities, and a registry's own CA in addition. True stands for the system's
    authorities, for which aiohttp has one context for all: reading them takes 20 ms and more, at the first pull."""

    def __init__(self, registries: Mapping[str, RegistrySettings]) -> None:
        self._own: dict[str, ssl.SSLContext] = {}
        for name, registry in registries.items():
            # Both are read now, so that a mistake in them is told at start and not at the first pull.
            _ = registry.base_url
            if registry.ca_file is not None:
                self._own[name] = _with_ca(registry)

    def of(self, registry: RegistrySettings) -> ssl.SSLContext | bool:
        return self._own.get(registry.name, True)


def _with_ca(registry: RegistrySettings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(cafile=registry.ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or "it holds no certificate in PEM"
        raise ConfigError(
            f"registries.{registry.name!r}: ca_file {registry.ca_file} cannot be used: {reason}"
        ) from error
    return context
