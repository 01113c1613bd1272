"""The host whose files are set up, where its root is not ``/`` but mounted: in an init container, or an image being built.

Paths in what is written and told are the host's own; only reading and writing go through ``here``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2pdist.cli.errors import CommandError
from p2pdist.cli.setup import files


@dataclass(frozen=True, slots=True)
class HostRoot:
    """Where the host's root directory is."""

    path: Path = Path("/")

    def here(self, path: Path) -> Path:
        """Where the host's file is, as seen from here; CommandError when a link on the way leads elsewhere."""
        found = self.path / path.relative_to("/")
        if not files.real(found).is_relative_to(files.real(self.path)):
            raise CommandError(
                f"{found} leads to {files.real(found)}, which is not below {self.path}",
                "name what the link means on that host, with the option for that file",
            )
        return found

    def glob(self, pattern: Path) -> list[Path]:
        """The host's files that match, sorted; a pattern without wildcards is that file, there or not."""
        relative = str(pattern.relative_to("/"))
        if not any(sign in relative for sign in "*?["):
            return [pattern]
        try:
            return [Path("/") / found.relative_to(self.path) for found in sorted(self.path.glob(relative))]
        except (ValueError, OSError):
            return []
