"""Names of platforms, and which of them can run which (OCI image-spec image-index.md, "platform"; Go's GOARCH names).

Rules: operating system and architecture must be equal. A variant is a level within its architecture (arm v5 to v8,
arm64 v8 on, amd64 v1 to v4, each with its default), and a host of one level runs that level and those below it. In
architectures without levels here, the same variant or none fits.
"""

from __future__ import annotations

from collections.abc import Iterable

from p2pdist.errors import InvalidInputError
from p2pdist.oci.descriptor import Platform

_ALIASES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
}
_ALIAS_VARIANTS = {"armhf": "v7", "armv7l": "v7", "armel": "v6", "armv6l": "v6"}
_DEFAULT_LEVEL = {"arm": 7, "arm64": 8, "amd64": 1}
_MAX_TEXT = 128
_MAX_LISTED = 20


def parse_platform(text: str) -> Platform:
    """Read ``OS/ARCH[/VARIANT]``, with the usual aliases (x86_64, aarch64, armhf); raises InvalidInputError."""
    parts = text[: _MAX_TEXT + 1].strip().lower().split("/")
    if len(text) > _MAX_TEXT or len(parts) not in (2, 3) or not all(parts):
        raise InvalidInputError(
            f"platform {text[:_MAX_TEXT]!r} is not OS/ARCH or OS/ARCH/VARIANT (as linux/arm64)"
        )
    variant = parts[2] if len(parts) == 3 else _ALIAS_VARIANTS.get(parts[1], "")
    return Platform(parts[0], _ALIASES.get(parts[1], parts[1]), variant)


def fitness(have: Platform | None, want: Platform) -> int:
    """How well content for ``have`` serves ``want``: 0 not at all, more is better.

    Content that names no platform (None) may be for any, and is the last choice.
    """
    if have is None or not (have.os or have.architecture):
        return 1
    if (have.os, have.architecture) != (want.os, want.architecture):
        return 0
    if have.variant == want.variant:
        return 1000
    has, wants = _level(have), _level(want)
    if has is None or wants is None:
        return 2 if not (have.variant and want.variant) else 0
    return 2 + has if has <= wants else 0


def _level(platform: Platform) -> int | None:
    default = _DEFAULT_LEVEL.get(platform.architecture)
    if default is None or not platform.variant:
        return default
    digits = platform.variant.removeprefix("v").partition(".")[0]  # arm64 has v8.1, v8.2, ...
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 3 else None


def listing(platforms: Iterable[Platform | None]) -> str:
    """Platforms for people, each once, in the order given, shortened when there are many."""
    names = list(dict.fromkeys(str(item) or "unnamed" if item else "unnamed" for item in platforms))
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more if names else "none"
