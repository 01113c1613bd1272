"""``p2pdist status --bundle FILE``: everything that helps to find a fault, in one file; no secrets.

Rules: an agent that does not answer, or answers only in part, still gives a bundle, which says what is missing. What the
agent's diagnostics hold is taken from there, since the agent has looked for its secrets in that; an older agent is asked
for each page. No file in it is larger than MAX_FILE. The bundle is its owner's alone (0600), and there only when whole.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from p2pdist import __version__
from p2pdist.cli.admin_client import AdminClient
from p2pdist.cli.errors import AgentUnreachableError, CommandError
from p2pdist.config.effective import effective_config
from p2pdist.config.load import load_config
from p2pdist.errors import P2PDistError

PAGES = ("status", "peers", "transfers", "images", "pins")
MAX_FILE = 8 * 1024 * 1024
# How a page of the agent's diagnostics is written.
_PARTS = {
    "configuration": "configuration.json",
    "process": "process.json",
    "metrics": "metrics.txt",
    "log": "log.txt",
}


def collect(client: AdminClient, config: Path | None) -> tuple[dict[str, bytes], list[str]]:
    """The bundle's files by name, and what is missing, in words."""
    answers, missing = _ask(client)
    files = {f"{page}.json": _json(answers[page]) for page in PAGES if page in answers}
    files |= _diagnostics(answers.get("diagnostics"))
    files["command.json"] = _json(_command(client))
    if "configuration.json" not in files:
        files |= _configuration_read_here(config, missing)
    for name, data in files.items():
        if len(data) > MAX_FILE:
            missing.append(f"{name}: the first {MAX_FILE} of {len(data)} bytes are in it")
            files[name] = data[:MAX_FILE]
    if missing:
        files["missing.txt"] = ("\n".join(missing) + "\n").encode()
    return files, missing


def _ask(client: AdminClient) -> tuple[dict[str, Any], list[str]]:
    """The agent's pages, as far as it gives them; when nobody answers, the others are not tried."""
    answers: dict[str, Any] = {}
    missing: list[str] = []
    for page in ("diagnostics", *PAGES):
        if page in answers:
            continue
        try:
            answers[page] = client.get(page)
        except AgentUnreachableError as error:
            missing.append(f"{page} and what follows: {error}")
            break
        except CommandError as error:
            missing.append(f"{page}: {error}")
        if page == "diagnostics":
            answers |= _pages_of(answers.get(page))
    for page in PAGES:
        answer = answers.get(page)
        if isinstance(answer, dict) and isinstance(answer.get("error"), str):
            missing.append(f"{page}: {answer['error']}")
    return answers, missing


def _pages_of(diagnostics: Any) -> dict[str, Any]:
    pages = diagnostics.get("pages") if isinstance(diagnostics, dict) else None
    return {name: pages[name] for name in PAGES if name in pages} if isinstance(pages, dict) else {}


def _diagnostics(answer: Any) -> dict[str, bytes]:
    found = answer if isinstance(answer, dict) else {}
    return {file: _written(found[part]) for part, file in _PARTS.items() if part in found}


def _written(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list):
        return "".join(f"{line}\n" for line in value).encode()
    return _json(value)


def _configuration_read_here(config: Path | None, missing: list[str]) -> dict[str, bytes]:
    """The configuration as this command reads it, when the agent does not tell; secrets stay closed."""
    try:
        loaded = load_config(config, os.environ, {}, secrets=False)
    except P2PDistError as error:
        missing.append(f"configuration: {error}")
        return {}
    return {"configuration.json": _json({"read_by": "command", **effective_config(loaded)})}


def _command(client: AdminClient) -> dict[str, Any]:
    return {
        "version": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "admin": client.address,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def write(target: Path, files: dict[str, bytes]) -> None:
    """Write a tar.gz with one directory; raises CommandError."""
    try:
        handle, name = tempfile.mkstemp(prefix=".p2pdist-bundle-", dir=target.absolute().parent)
    except OSError as error:
        raise _cannot(target, error, "name a file in a directory of yours") from error
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _pack(file, files)
        fresh.replace(target)
    except OSError as error:
        raise _cannot(target, error, "make room, or name another file") from error
    finally:
        fresh.unlink(missing_ok=True)


def _cannot(target: Path, error: OSError, mend: str) -> CommandError:
    return CommandError(f"cannot write {target}: {error.strerror}", mend)


def _pack(file: Any, files: dict[str, bytes]) -> None:
    now = time.time()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"{directory_of(files)}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, now
            tar.addfile(entry, io.BytesIO(data))


def directory_of(files: dict[str, bytes]) -> str:
    """The directory in the bundle: the agent's name in it, as far as that is a file name."""
    try:
        name = str(json.loads(files.get("status.json", b"{}")).get("name", ""))
    except (ValueError, AttributeError):
        name = ""
    return "p2pdist-" + (re.sub(r"[^A-Za-z0-9._-]", "_", name)[:64] or "bundle")
