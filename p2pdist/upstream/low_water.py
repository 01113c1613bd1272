"""Fewer and larger reads of a large body, by asking the kernel to report bytes MARK at a time (SO_RCVLOWAT).

What a read costs is mostly the same for few bytes as for many, and a busy link delivers few at a time.
Always true here: the first FIRST bytes of a body are read as they come; what has come is held back for two TICKs at
most; a connection whose body has ended reports every byte again, before anything else is asked on it.
"""

from __future__ import annotations

import asyncio
import os
import socket

import aiohttp

MARK = 128 * 1024
FIRST = 256 * 1024
TICK = 0.015


class LowWater:
    """For one body. Works under TLS as well: a record that is not yet whole waits no longer than bytes do."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        connection = response.connection
        transport = connection.transport if connection is not None else None
        self._theirs: socket.socket | None = transport.get_extra_info("socket") if transport else None
        self._socket: socket.socket | None = None
        self._content = response.content
        self._length = response.content_length
        self._mark = 1
        self._seen = 0
        self._timer: asyncio.TimerHandle | None = None
        if self._theirs is not None:
            self._content.on_eof(self.close)

    def wait(self) -> None:
        """To be called when all that has come is read, and more is waited for."""
        total = self._content.total_bytes
        if self._theirs is None or total < FIRST:
            return
        if self._socket is None:
            self._socket = own_socket(self._theirs)
        left = MARK if self._length is None else self._length - total
        self._set(max(1, min(MARK, left)))
        if self._timer is None and self._mark > 1:
            self._seen = total
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def close(self) -> None:
        """Report every byte again; for good."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._set(1)
        self._theirs = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tick(self) -> None:
        self._timer = None
        if self._content.total_bytes == self._seen:
            self._set(1)  # reports what is there at once
            return
        self._seen = self._content.total_bytes
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _set(self, mark: int) -> None:
        if self._socket is None or mark == self._mark:
            return
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
            self._mark = mark
        except (OSError, ValueError):
            self._socket.close()
            self._socket = self._theirs = None  # closed in the meantime


def own_socket(theirs: socket.socket) -> socket.socket | None:
    """Another handle of it: setting an option of uvloop's stand-in makes and unmakes a socket each time."""
    if theirs.fileno() < 0:
        return None
    return socket.socket(fileno=os.dup(theirs.fileno()))
