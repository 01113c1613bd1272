"""Directories as values, to see that they are again what they were."""

from __future__ import annotations

import stat
from pathlib import Path

Tree = dict[str, tuple[int, bytes | str | None]]


def tree(root: Path) -> Tree:
    """Each path below with its mode and content: a file's bytes, a link's target, None for a directory."""
    found: Tree = {}
    for path in sorted(root.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (stat.S_IMODE(path.lstat().st_mode), content)
    return found
