"""The file that keeps addresses of contacts over restarts: a small JSON document, replaced atomically.

A file that is missing, foreign, damaged or too large is no error: the node starts without it and says so once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from p2pdist.discovery.addresses import HostPort, parse_host_port
from p2pdist.errors import InvalidInputError
from p2pdist.records import Endpoint

logger = logging.getLogger(__name__)

MAX_CONTACTS = 200
_MAX_BYTES = 64 * 1024
_VERSION = 1


def load(path: Path) -> list[HostPort]:
    """The addresses kept, at most MAX_CONTACTS; [] when there is no usable file."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise InvalidInputError(f"it is larger than {_MAX_BYTES} bytes")
        document = json.loads(raw)
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise InvalidInputError("it is of another version")
        contacts = document.get("contacts")
        if not isinstance(contacts, list):
            raise InvalidInputError("it has no list of contacts")
        return [parse_host_port(contact) for contact in contacts[:MAX_CONTACTS] if isinstance(contact, str)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("the contacts kept in %s are not used: %s", path, error)
        return []


def save(path: Path, contacts: Iterable[Endpoint]) -> None:
    """Replace the file; a failure is logged, the old file stays."""
    names = [str(contact) for contact in contacts][:MAX_CONTACTS]
    temporary = path.with_name(f"{path.name}.new")
    try:
        with temporary.open("w") as file:
            json.dump({"version": _VERSION, "contacts": names}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        logger.warning("the contacts could not be kept in %s: %s", path, error)
