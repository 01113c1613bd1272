"""Sizes, times and cut texts as ``docker history`` writes them, so that scripts find what they know."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
# Up to so many seconds, in units of so many seconds, by this name.
_SPANS = (
    (60, 1, "seconds"),
    (3600, 60, "minutes"),
    (48 * 3600, 3600, "hours"),
    (14 * 86400, 86400, "days"),
    (60 * 86400, 7 * 86400, "weeks"),
    (2 * 365 * 86400, 30 * 86400, "months"),
)


def size(count: int) -> str:
    """Three digits and a decimal unit, nothing between: ``0B``, ``1.5kB``, ``120MB``."""
    value, at = float(count), 0
    while value >= 1000 and at < len(_UNITS) - 1:
        value /= 1000
        at += 1
    return f"{value:.3g}{_UNITS[at]}" if value < 999.5 else f"{value:.0f}{_UNITS[at]}"


def since(seconds: float) -> str:
    """How long ago: ``3 weeks ago``, ``About an hour ago``."""
    return f"{_span(max(0, int(seconds)))} ago"


def _span(seconds: int) -> str:
    if seconds < 2:
        return "1 second" if seconds else "Less than a second"
    if 60 <= seconds < 120:
        return "About a minute"
    whole = (
        (seconds + 1800) // 3600 * 3600 if seconds >= 3600 else seconds
    )  # hours are rounded, all else is cut
    if whole == 3600:
        return "About an hour"
    for limit, unit, name in _SPANS:
        if whole < limit:
            return f"{whole // unit} {name}"
    return f"{seconds // (365 * 86400)} years"


def parse_time(text: str) -> datetime | None:
    """An RFC 3339 time; None for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def local_time(moment: datetime) -> str:
    """RFC 3339, whole seconds, in this host's zone."""
    try:
        text = moment.astimezone().isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # years that the zone's rules cannot name
        text = moment.isoformat(timespec="seconds")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def ellipsis(text: str, width: int) -> str:
    """At most ``width`` characters, the last of them an ellipsis when something was cut."""
    return text if len(text) <= width else text[: width - 1] + _ELLIPSIS


def short_id(digest: str) -> str:
    """The first 12 hexadecimal digits of a digest."""
    return digest.rpartition(":")[2][:12]
