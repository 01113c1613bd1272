"""The file of a blob that is still arriving, for sending parts of it to a client.

The descriptor is this reader's own: it stays good when the blob is committed (the file is only renamed). When all bytes
are thrown away and fetched anew it reads whatever is there then; who uses it looks at ``BlobFetch.attempt`` afterwards.
"""

from __future__ import annotations

import asyncio
import os


class PartReader:
    """A content.SpanReader; ``close`` it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int | None:
        return self._descriptor if self._descriptor >= 0 else None

    async def read(self, offset: int, length: int) -> bytes:
        return await asyncio.to_thread(os.pread, self._descriptor, length, offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
