"""A registry client against real sockets: the fake registry, a scripted server, a clock that never makes a test wait."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.reference import Repository
from p2pdist.testing.registry import FakeRegistry
from p2pdist.upstream.registry_client import RegistryClient
from p2pdist.upstream.settings import RegistrySettings, UpstreamSettings

NAME = "team/app"
DATA = bytes(i * 7 % 256 for i in range(300_000))
MANIFEST = b'{"schemaVersion":2,"mediaType":"%s","layers":[]}' % media_types.OCI_MANIFEST.encode()
PATIENT = 60.0
"""Bounds that only a test which hangs will meet."""


class HastyClock:
    """Sleeps take no time, and are noted; ``now`` moves on by them. ``on_sleep`` runs in each."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.sleeps: list[float] = []
        self.on_sleep: Callable[[], Awaitable[None]] | None = None

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time + 1_700_000_000.0

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds
        if self.on_sleep is not None:
            await self.on_sleep()
        await asyncio.sleep(0)


class World:
    """A client of one registry, and what it observed."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "registry.test",
        registry: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        clock: HastyClock | None = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or HastyClock()
        self.responses: list[tuple[str, int]] = []
        self.received: Counter[str] = Counter()
        self.known: dict[Digest, int] = {}  # what manifests said
        self.name = name
        self.repository = Repository(name, NAME)
        bounds = {"connect_timeout": PATIENT, "first_byte_timeout": PATIENT, "progress_timeout": PATIENT}
        known = {name: RegistrySettings(name, url, **(registry or {}))}
        self.client = RegistryClient(
            UpstreamSettings(known, **{**bounds, **settings}),
            clock=self.clock,
            on_response=lambda _registry, kind, code: self.responses.append((kind, code)),
            on_received=lambda registry, count: self.received.update({registry: count}),
            environ=environ or {},
            known_size=self._known_size,
            jitter=lambda: 0.5,
        )

    async def _known_size(self, digest: Digest) -> int | None:
        return self.known.get(digest)

    async def blob(self, digest: Digest, offset: int = 0, length: int | None = None) -> bytes:
        async with self.client.blob(self.repository, digest, offset, length) as stream:
            assert stream.start == offset
            return b"".join([chunk async for chunk in stream.chunks()])

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.client.close()


@asynccontextmanager
async def fake_registry(**options: Any) -> AsyncIterator[tuple[FakeRegistry, Digest]]:
    """A fake registry with DATA and MANIFEST (tag v1) in it, and DATA's digest."""
    async with FakeRegistry(**options) as registry:
        registry.put_manifest(NAME, MANIFEST, media_types.OCI_MANIFEST, "v1")
        yield registry, registry.put_blob(NAME, DATA)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def scripted(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server whose every answer is ``handler``'s; yields its URL."""
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Authority:
    """A certificate authority of the tests' own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "p2pdist test authority")])
        certificate = self._builder(self._name, self._key.public_key())
        certificate = certificate.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(
            certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        )

    def server_context(self, host: str) -> ssl.SSLContext:
        """For a server that is called ``host`` (a name or an address)."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            alternative = x509.DNSName(host)
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        file = self._directory / f"{host}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(file)
        return context

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
        )
