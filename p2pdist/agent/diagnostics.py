"""What an agent tells about itself for a debug bundle: configuration, process, metrics, log, and its state; no secrets.

Rules: whatever is answered has been searched for the secrets that this agent knows (redaction.py), and is bounded; what
cannot be had is told as an error in its place, since a bundle is wanted when something is wrong.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import resource
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from p2pdist.agent.redaction import Redactor, secrets_of
from p2pdist.config.effective import effective_config
from p2pdist.config.model import Config
from p2pdist.errors import P2PDistError
from p2pdist.telemetry.recent import recent_lines
from p2pdist.wire.keys import ClusterKey

logger = logging.getLogger(__name__)

MAX_ROWS = 1000
_CGROUP_FILES = (
    "memory.max", "memory.current", "memory/memory.limit_in_bytes", "cpu.max", "cpu/cpu.cfs_quota_us", "pids.max",
)  # fmt: skip
_CGROUP = Path("/sys/fs/cgroup")


class State(Protocol):
    """What of the agent's state is in a bundle (api.admin.AdminBackend)."""

    async def metrics(self, accept: str) -> tuple[bytes, str]: ...

    async def status(self) -> dict[str, Any]: ...

    async def peers(self) -> list[dict[str, Any]]: ...

    async def images(self, most: int | None = None) -> list[dict[str, Any]]: ...

    async def transfers(self) -> list[dict[str, Any]]: ...

    async def pins(self) -> list[str]: ...


class Diagnostics:
    """See api/diagnostics.py for the shape of the answer."""

    def __init__(self, config: Config, key: ClusterKey | None, state: State) -> None:
        self._config = config
        self._key = key
        self._state = state

    async def diagnostics(self) -> dict[str, Any]:
        redactor = Redactor(await asyncio.to_thread(secrets_of, self._config, self._key))
        found: dict[str, Any] = {
            "configuration": effective_config(self._config),
            "process": process_facts(self._config.agent.data_dir),
            "metrics": await _or_error(self._metrics),
            "log": recent_lines(),
            "pages": {name: await _or_error(ask) for name, ask in self._pages().items()},
        }
        return await asyncio.to_thread(redactor.without, found)

    async def _metrics(self) -> str:
        return (await self._state.metrics(""))[0].decode()

    def _pages(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        state = self._state

        async def images() -> Any:
            return {"images": await state.images(MAX_ROWS)}

        async def peers() -> Any:
            return {"peers": (await state.peers())[:MAX_ROWS]}

        async def transfers() -> Any:
            return {"transfers": (await state.transfers())[:MAX_ROWS]}

        async def pins() -> Any:
            return {"pins": (await state.pins())[:MAX_ROWS]}

        return {
            "status": state.status,
            "peers": peers,
            "transfers": transfers,
            "images": images,
            "pins": pins,
        }


async def _or_error(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What it gives; as an error's text where it gives none."""
    try:
        return await ask()
    except Exception as error:
        if not isinstance(error, P2PDistError):
            logger.exception("fault while diagnostics were collected")
        return {"error": f"{type(error).__name__}: {error}"}


def process_facts(data_dir: Path) -> dict[str, Any]:
    """The process and its host: versions, user, limits, memory, room on disk. What cannot be read is left out."""
    limits = {
        name: list(resource.getrlimit(getattr(resource, name)))
        for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_AS", "RLIMIT_MEMLOCK", "RLIMIT_FSIZE")
    }
    return {
        "pid": os.getpid(),
        "user": os.geteuid(),
        "python": sys.version,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "os": _os_name(),
        "cpus": os.cpu_count(),
        "cpus_allowed": len(os.sched_getaffinity(0)),
        "load": list(os.getloadavg()),
        "limits": limits,
        "cgroup": {name: text for name in _CGROUP_FILES if (text := _text(_CGROUP / name))},
        "threads": threading.active_count(),
        "open_files": len(os.listdir("/proc/self/fd")),
        "max_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "data_dir": _disk(data_dir),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:200].strip()
    except OSError:
        return ""


def _disk(directory: Path) -> dict[str, Any]:
    try:
        found = os.statvfs(directory)
    except OSError as error:
        return {"path": str(directory), "error": error.strerror}
    return {
        "path": str(directory),
        "bytes": found.f_blocks * found.f_frsize,
        "bytes_free": found.f_bavail * found.f_frsize,
        "inodes_free": found.f_favail,
        "read_only": bool(found.f_flag & os.ST_RDONLY),
    }
