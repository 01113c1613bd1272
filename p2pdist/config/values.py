"""How each kind of value in the configuration is written: sizes, rates, durations and the like.

Rules: a ``Kind`` turns what TOML (any type) or the environment and flags (always text) gave into a value of one type, or
raises ValueError with what is wrong in a few words; it raises nothing else, whatever it is given. The caller names the
key and the place. ``allowed`` says what may be written, and ``show`` writes a value the way it may be read again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pdist.config.addresses import (
    parse_advertise,
    parse_bootstrap,
    parse_endpoint,
    parse_listen,
    parse_names,
    parse_url,
)
from p2pdist.config.texts import parse_text, quote

MAX_BYTES = 2**60

_DECIMAL = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "pb": 10**15}
_BINARY = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "pib": 2**50}
_SIZE_UNITS = {"": 1, **_DECIMAL, **_BINARY}
_BIT_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_QUANTITY = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)\Z")
_TIME_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_TIME_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|[smhdw])\s*")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value; see the module's rules. ``secret`` values are never repeated in a message."""

    name: str
    allowed: str
    parse: Callable[[object], Any]
    show: Callable[[Any], str] = lambda value: quote(str(value))
    secret: bool = False


def _number(value: object, what: str) -> int | float | None:
    """A finite, non-negative number that TOML gave as one; None when ``value`` is a text to be read."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"is not a {what}")
    if isinstance(value, str):
        return None
    if not math.isfinite(value) or value < 0:
        raise ValueError("is negative or not finite")
    return value


def parse_size(value: object) -> int:
    """Bytes from a number or a text such as "50GiB"; raises ValueError."""
    number = _number(value, "size")
    if number is None:
        match = _QUANTITY.match(parse_text(value, 64).strip())
        factor = _SIZE_UNITS.get(match[2].lower()) if match else None
        if match is None or factor is None:
            raise ValueError("is not a size")
        number = float(match[1]) * factor if "." in match[1] else int(match[1]) * factor
    if number > MAX_BYTES:
        raise ValueError("is more than 1 EiB")
    return int(number)


def parse_rate(value: object) -> int:
    """Bytes per second from a number or a text such as "100MiB/s" or "800Mbit/s"; raises ValueError."""
    if not isinstance(value, str):
        return parse_size(value)
    body = parse_text(value, 64).strip().removesuffix("/s")
    match = _QUANTITY.match(body)
    if match and match[2].lower() in _BIT_UNITS:
        return parse_size(float(match[1]) * _BIT_UNITS[match[2].lower()] / 8)
    try:
        return parse_size(body)
    except ValueError as error:
        raise ValueError("is not a rate" if "size" in str(error) else str(error)) from None


def parse_duration(value: object) -> float:
    """Seconds from a number or a text such as "60s", "7d" or "1h30m"; raises ValueError."""
    number = _number(value, "duration")
    if number is not None:
        return float(number)
    rest, seconds = parse_text(value, 64).strip(), 0.0
    if not rest:
        raise ValueError("is not a duration")
    while rest:
        match = _TIME_PART.match(rest)
        if match is None:
            raise ValueError("is not a duration")
        seconds += float(match[1]) * _TIME_UNITS[match[2]]
        rest = rest[match.end() :]
    return seconds


def parse_bool(value: object) -> bool:
    """true or false, also as text; raises ValueError."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in {"true", "yes", "on", "1"}:
        return True
    if word in {"false", "no", "off", "0"}:
        return False
    raise ValueError("is neither true nor false")


def _path(value: object) -> Path | None:
    text = parse_text(value)
    return Path(text) if text else None


def _required_path(value: object) -> Path:
    path = _path(value)
    if path is None:
        raise ValueError("is empty")
    return path


def show_size(value: int) -> str:
    """Bytes in the largest binary unit that divides them."""
    for unit, factor in reversed(_BINARY.items()):
        if value and value % factor == 0:
            return quote(f"{value // factor}{unit[0].upper()}iB")
    return str(value)


def show_duration(value: float) -> str:
    """Seconds in the largest unit that divides them, and fits twice ("60s" is what people write)."""
    for unit in ("d", "h", "m"):
        if value >= 2 * _TIME_UNITS[unit] and value % _TIME_UNITS[unit] == 0:
            return quote(f"{int(value / _TIME_UNITS[unit])}{unit}")
    return quote(f"{value:g}s")


def text(maximum: int = 256, *, secret: bool = False) -> Kind:
    """Any printable text."""
    return Kind(
        "text", f"a text of at most {maximum} characters", lambda v: parse_text(v, maximum), secret=secret
    )


def choice(*words: str) -> Kind:
    """One of a few words."""

    def parse(value: object) -> str:
        word = parse_text(value, 64).strip().lower()
        if word not in words:
            raise ValueError("is none of them")
        return word

    allowed = " or ".join(quote(word) for word in words)
    return Kind(allowed, allowed, parse)


def integer(minimum: int, maximum: int) -> Kind:
    """A whole number within bounds."""

    def parse(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("is not a whole number")
        if not minimum <= value <= maximum:
            raise ValueError("is out of bounds")
        return value

    return Kind(f"number, {minimum} to {maximum}", f"a whole number from {minimum} to {maximum}", parse, str)


def size(minimum: int) -> Kind:
    """Bytes, at least ``minimum``."""

    def parse(value: object) -> int:
        number = parse_size(value)
        if number < minimum:
            raise ValueError(f"is less than {minimum} bytes")
        return number

    return Kind("size, bytes", 'bytes as a number, or a text such as "50GiB" or "512MB"', parse, show_size)


def duration(minimum: float, maximum: float) -> Kind:
    """Seconds within bounds."""

    def parse(value: object) -> float:
        seconds = parse_duration(value)
        if not minimum <= seconds <= maximum:
            raise ValueError("is out of bounds")
        return seconds

    low, high = (show_duration(bound).strip('"') for bound in (minimum, maximum))
    allowed = f'seconds as a number, or a text such as "60s", "7d" or "1h30m", from {low} to {high}'
    return Kind("duration, seconds", allowed, parse, show_duration)


def _show_paths(value: Path | None) -> str:
    return quote(str(value) if value else "")


RATE = Kind(
    "rate, bytes/s",
    'bytes per second as a number, or a text such as "100MiB/s" or "800Mbit/s"; 0 for none',
    parse_rate,
    str,
)
BOOL = Kind("boolean", "true or false", parse_bool, lambda value: "true" if value else "false")
LISTEN = Kind(
    "address",
    'an IP address and a port such as "127.0.0.1:5050", "[::]:5051" or ":5051" (all addresses)',
    parse_listen,
)
ADVERTISE = Kind(
    "address", 'an IP address or host name, with or without a port, such as "10.0.0.1:5051"', parse_advertise
)
NAMES = Kind(
    "list",
    'a list of host names such as ["p2pdist.example.internal"]',
    parse_names,
    lambda value: "[" + ", ".join(quote(entry) for entry in value) + "]",
)
BOOTSTRAP = Kind(
    "list",
    'a list such as ["10.0.0.1:5051", "dns:agents.example.internal:5051"]',
    parse_bootstrap,
    lambda value: "[" + ", ".join(quote(entry) for entry in value) + "]",
)
URL = Kind("URL", 'such as "https://registry.example.com:5000" (http only where you write it)', parse_url)
ENDPOINT = Kind("URL", 'such as "http://127.0.0.1:4318"; "" for none', parse_endpoint)
FILE = Kind("path", "a file's path", _path, _show_paths)
DIRECTORY = Kind("path", "an absolute path of a directory", _required_path, _show_paths)
