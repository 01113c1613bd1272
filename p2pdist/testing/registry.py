"""A real OCI registry for tests and the demo: in process, or ``python -m p2pdist.testing.registry DIR --port N``.

It speaks the pull side of the distribution API on a real socket, counts to the byte what it was asked and what it
sent, and misbehaves on demand. Everything is read-only over HTTP; content is put in from Python.

    async with FakeRegistry() as registry:                      # http://127.0.0.1:PORT
        digest = registry.put_blob("team/app", b"layer")
        registry.faults.cut_after, registry.faults.cut_times = 3, 1
        ...
        assert registry.counters.blob_bytes[str(digest)] == 5

Over HTTP (for another process): GET and DELETE /_counters; GET, POST and DELETE /_faults; POST /_release.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import ssl
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from p2pdist.clock import Clock, SystemClock
from p2pdist.errors import InvalidInputError
from p2pdist.oci.digest import Digest
from p2pdist.testing.registry_auth import Doorkeeper
from p2pdist.testing.registry_content import BlobSource, RegistryContent
from p2pdist.testing.registry_faults import Counters, Faults
from p2pdist.testing.registry_http import RegistryHandlers


class PuttableImage(Protocol):
    """What testing.images builds."""

    @property
    def media_type(self) -> str: ...
    @property
    def manifest(self) -> bytes: ...
    @property
    def blobs(self) -> dict[Digest, BlobSource]: ...
    @property
    def children(self) -> tuple[PuttableImage, ...]: ...


class FakeRegistry:
    """See the module's text. Use as an async context manager; everything may be changed while it runs."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.content = RegistryContent()
        self.faults = Faults()
        self.counters = Counters()
        self.doorkeeper = Doorkeeper(self.faults, self.counters, clock or SystemClock())
        self._host, self._port, self._ssl = host, port, ssl_context
        self._handlers = RegistryHandlers(self.content, self.faults, self.counters, self.doorkeeper)
        self._runners: list[web.AppRunner] = []

    @property
    def port(self) -> int:
        """Of the registry; known once it runs, and kept by close and start."""
        return self._port

    @property
    def netloc(self) -> str:
        """``host:port``, as an image reference names this registry."""
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"{'https' if self._ssl else 'http'}://{self.netloc}"

    def put_blob(self, name: str, data: BlobSource, digest: Digest | None = None) -> Digest:
        """Add a blob to a repository; a ``digest`` that is not its own makes it corrupt."""
        return self.content.put_blob(name, data, digest)

    def put_manifest(
        self, name: str, body: bytes, media_type: str, tag: str = "", algorithm: str = "sha256"
    ) -> Digest:
        """Add a manifest to a repository, and point ``tag`` at it."""
        return self.content.put_manifest(name, body, media_type, tag, algorithm)

    def put_image(self, name: str, tag: str, image: PuttableImage) -> Digest:
        """Add an image or index with all that it names; returns the manifest's digest."""
        for child in image.children:
            self.put_image(name, "", child)
        for digest, source in image.blobs.items():
            self.put_blob(name, source, digest)
        return self.put_manifest(name, image.manifest, image.media_type, tag)

    def set_tag(self, name: str, tag: str, digest: Digest) -> None:
        """Move a tag."""
        self.content.set_tag(name, tag, digest)

    def release(self) -> None:
        """Let the requests go on that a stall or hang holds now."""
        self._handlers.release()

    async def start(self) -> None:
        """Listen; OSError where the port is taken."""
        self._handlers.release()
        self._handlers.blob_store_port = await self._listen(self._handlers.blob_store_app(), 0)
        self._port = await self._listen(self._handlers.registry_app(), self._port)

    async def close(self) -> None:
        """Stop listening and cut what is open; the content stays, and ``start`` brings it back on the same port."""
        self._handlers.release(closing=True)
        while self._runners:
            await self._runners.pop().cleanup()

    async def _listen(self, app: web.Application, port: int) -> int:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, self._host, port, ssl_context=self._ssl, reuse_address=True).start()
        bound: int = runner.addresses[0][1]
        return bound

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def serve(directories: list[Path], host: str, port: int, rate: int = 0) -> None:
    """Serve OCI image layouts until cancelled; prints the URL once it listens."""
    registry = FakeRegistry(host=host, port=port)
    registry.faults.rate = rate
    for directory in directories:
        registry.content.load_layout(directory)
    async with registry:
        print(f"serving {', '.join(sorted(registry.content.repositories))} on {registry.url}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="p2pdist.testing.registry", description="Serve OCI image layouts.")
    parser.add_argument("layout", nargs="+", type=Path, help="directories with index.json and blobs/")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one, which is printed")
    parser.add_argument("--rate", type=int, default=0, help="bytes per second over all bodies; 0 is no limit")
    options = parser.parse_args()
    run = functools.partial(serve, options.layout, options.host, options.port, options.rate)
    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        parser.exit(130)
    except (OSError, KeyError, ValueError, InvalidInputError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
