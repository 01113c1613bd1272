"""What an agent tells about itself for a debug bundle: configuration, process, metrics, recent log lines; no secrets.

Rule: whatever is answered has been searched for the secrets that this agent knows (cluster key, registry passwords).
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from p2pdist.config.effective import MASK, effective_config, known_secrets
from p2pdist.config.model import Config
from p2pdist.telemetry.recent import recent_lines
from p2pdist.wire.keys import ClusterKey

_CGROUP_FILES = (
    "memory.max", "memory.current", "memory/memory.limit_in_bytes", "cpu.max", "cpu/cpu.cfs_quota_us", "pids.max",
)  # fmt: skip
_CGROUP = Path("/sys/fs/cgroup")


class Diagnostics:
    """See api/diagnostics.py for the shape of the answer."""

    def __init__(
        self,
        config: Config,
        key: ClusterKey | None,
        metrics: Callable[[str], Awaitable[tuple[bytes, str]]],
    ) -> None:
        self._config = config
        self._metrics = metrics
        own = [key.text(), key.raw.hex()] if key is not None else []
        self._secrets = [*own, *known_secrets(config)]

    async def diagnostics(self) -> dict[str, Any]:
        body, _ = await self._metrics("")
        found: dict[str, Any] = {
            "configuration": effective_config(self._config),
            "process": process_facts(self._config.agent.data_dir),
            "metrics": body.decode(),
            "log": recent_lines(),
        }
        return {name: without(value, self._secrets) for name, value in found.items()}


def without(value: Any, secrets: Iterable[str]) -> Any:
    """A JSON value with every occurrence of each secret masked, in names too."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, dict):
        return {without(name, secrets): without(each, secrets) for name, each in value.items()}
    return [without(each, secrets) for each in value] if isinstance(value, list) else value


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
