"""Checks of where traces go."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from p2pdist.cli.checks.finding import Finding, fail, ok, warn
from p2pdist.config.addresses import split_host_port
from p2pdist.config.model import Config

BOUND = 3.0
_PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check_traces(config: Config, *, offline: bool) -> Iterator[Finding]:
    """Whether traces can be made and somebody takes them; nothing where none are configured."""
    endpoint = config.telemetry.traces
    if not endpoint:
        return
    missing = [name for name in _PACKAGES if not _is_installed(name)]
    if missing:
        mend = "pip install 'p2pdist[otel]' into the agent's environment, or take telemetry.traces out"
        yield fail("traces", f"{endpoint} is set, and {missing[0]} is not installed", mend)
        return
    error = None if offline else _try(endpoint)
    if error is not None:
        mend = "start the collector, or correct telemetry.traces; pulls work meanwhile, and their traces are dropped"
        yield warn("traces", f"nothing answers at {endpoint} ({error.strerror or error})", mend)
        return
    yield ok("traces", f"go to {config.telemetry.traces_url}")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _try(endpoint: str) -> OSError | None:
    """Only whether the port is open: a span of a check is nothing that a collector should keep."""
    parts = urlsplit(endpoint)
    host, port = split_host_port(parts.netloc)
    try:
        socket.create_connection((host, port or (443 if parts.scheme == "https" else 80)), BOUND).close()
    except OSError as error:
        return error
    return None
