"""A container runtime as the mirror sees one: containerd's requests, with its parallel layers and its digest checks.

Rules: content is fetched once per host, by digest, as every runtime's content store does; bytes whose digest is wrong end
the demo. What was received is counted here, independently of the agent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import aiohttp

from p2pdist.cli.errors import CommandError, ExitCode

PARALLEL_LAYERS = 3
ACCEPT = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json, */*"
)
_CHUNK = 256 * 1024
_STALL = 60.0


class Runtime:
    """One host's runtime. ``on_bytes`` hears of every chunk."""

    def __init__(
        self, session: aiohttp.ClientSession, mirror: str, registry: str, on_bytes: Callable[[int], None]
    ) -> None:
        self.bytes = 0
        self._session = session
        self._mirror = mirror
        self._registry = registry
        self._on_bytes = on_bytes
        self._slots = asyncio.Semaphore(PARALLEL_LAYERS)
        self._held: dict[str, asyncio.Task[bytes]] = {}

    async def pull(self, images: list[tuple[str, str]]) -> None:
        """Pull (name, tag) images at once; raises CommandError when one cannot be had, or is wrong."""
        async with asyncio.TaskGroup() as tasks:
            for name, tag in images:
                tasks.create_task(self._pull_image(tasks, name, tag))

    async def _pull_image(self, tasks: asyncio.TaskGroup, name: str, tag: str) -> None:
        digest = await self._resolve(name, tag)
        manifest = json.loads(await self._once(tasks, name, "manifests", digest))
        blobs = [manifest["config"], *manifest["layers"]]
        await asyncio.gather(*(self._once(tasks, name, "blobs", blob["digest"]) for blob in blobs))

    async def _resolve(self, name: str, tag: str) -> str:
        """HEAD by tag: the digest, no body."""
        async with self._request("HEAD", name, "manifests", tag) as response:
            await self._expect(response, 200, name, tag)
            return str(response.headers["Docker-Content-Digest"])

    async def _once(self, tasks: asyncio.TaskGroup, name: str, kind: str, digest: str) -> bytes:
        """Content by digest, fetched by whoever asks first; manifests come back whole, blobs as b""."""
        if digest not in self._held:
            self._held[digest] = tasks.create_task(self._fetch(name, kind, digest))
        return await asyncio.shield(self._held[digest])

    async def _fetch(self, name: str, kind: str, digest: str) -> bytes:
        algorithm, _, wanted = digest.partition(":")
        hasher, kept = hashlib.new(algorithm), bytearray()
        async with self._slots, self._request("GET", name, kind, digest) as response:
            await self._expect(response, 200, name, digest)
            async for chunk in response.content.iter_chunked(_CHUNK):
                hasher.update(chunk)
                self.bytes += len(chunk)
                self._on_bytes(len(chunk))
                if kind == "manifests":
                    kept += chunk
        if hasher.hexdigest() != wanted:
            raise CommandError(
                f"{self._mirror} finished {name}@{digest} with bytes of another digest",
                code=ExitCode.PROMISE_BROKEN,
            )
        return bytes(kept)

    def _request(self, method: str, name: str, kind: str, target: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=_STALL)
        url = f"{self._mirror}/v2/{name}/{kind}/{target}"
        headers = {"Accept": ACCEPT if kind == "manifests" else "*/*"}
        return self._session.request(
            method, url, params={"ns": self._registry}, headers=headers, timeout=timeout
        )

    async def _expect(self, response: aiohttp.ClientResponse, status: int, name: str, target: str) -> None:
        if response.status != status:
            text = (await response.content.read(500)).decode(errors="replace")
            raise CommandError(f"{self._mirror} answered {response.status} for {name} {target}: {text}")
