"""A response's body, piece by piece, with a bound on each wait and an exact count of what came over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from p2pdist.errors import StalledError
from p2pdist.upstream.failures import FOREIGN, translate
from p2pdist.upstream.low_water import LowWater
from p2pdist.upstream.settings import UpstreamSettings


class BodyReader:
    """A body on its way in. Observes each byte that arrives, also those that nobody reads; owns the response."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        what: str,
        settings: UpstreamSettings,
        registry: str,
        received: Callable[[str, int], None],
    ) -> None:
        self._response = response
        self._content = response.content
        self._what = what
        self._timeout = settings.progress_timeout
        self._registry = registry
        self._received = received
        self._counted = 0
        self._taken = 0
        self._low_water = LowWater(response)

    async def next(self) -> bytes:
        """What has arrived, at least a byte; b"" at the end. Raises UnreachableError for a cut, StalledError."""
        try:
            if self._content.total_bytes > self._taken:
                data = self._content.read_nowait()
            else:
                self._low_water.wait()
                async with asyncio.timeout(self._timeout):
                    data = await self._content.readany()
            self._taken += len(data)
            return data
        except TimeoutError as error:
            raise StalledError(f"{self._what}: no byte came for {self._timeout:g} s") from error
        except FOREIGN as error:
            raise translate(error, f"registry {self._registry} ({self._what})") from error
        finally:
            self._count()

    def close(self) -> None:
        """Keep the connection if the body was read to its end, else drop it."""
        self._low_water.close()
        self._response.release()
        self._count()

    def _count(self) -> None:
        arrived = self._content.total_bytes
        if arrived > self._counted:
            self._received(self._registry, arrived - self._counted)
            self._counted = arrived
