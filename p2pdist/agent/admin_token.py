"""A secret that only who may read the agent's data directory knows, for commands that are not for every user of the host."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from p2pdist.errors import StoreError

FILE = "command.token"
MAX_TOKEN = 256


def make_admin_token(data_dir: Path) -> str:
    """A new token, in ``data_dir`` with mode 0600 until the next start; raises StoreError."""
    token = secrets.token_urlsafe(32)
    path, fresh = data_dir / FILE, data_dir / f"{FILE}.new"
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(token + "\n")
        fresh.rename(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error}") from error
    return token


def read_admin_token(data_dir: Path) -> str:
    """The running agent's token; raises OSError, ValueError."""
    with (data_dir / FILE).open("rb") as file:
        return file.read(MAX_TOKEN).decode("ascii").strip()
