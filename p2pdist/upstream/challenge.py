"""WWW-Authenticate, read from a stranger (RFC 9110 section 11.6.1; Docker's token specification).

Rules: never raises, whatever the bytes; at most 8 KiB and 64 elements are looked at; scheme and parameter names are in
lower case; the first of equal parameter names counts; what does not parse is skipped up to the next comma.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_MAX_LENGTH = 8192
_MAX_ELEMENTS = 64

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - a grammar's name
_SEPARATORS = re.compile(r"[\s,]*")
# Registries send unquoted URLs, which the grammar forbids, so a bare value is whatever holds no space, comma or quote.
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))(?=[\s,]|\Z)', re.DOTALL)
_SCHEME = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|\Z)")
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=[ \t]*(?:,|\Z))")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in: a scheme (``bearer``, ``basic``) and its parameters."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """The challenges of all WWW-Authenticate header lines, in order."""
    found: list[tuple[str, dict[str, str]]] = []
    budget = _MAX_ELEMENTS
    for header in headers:
        budget = _parse_line(header[:_MAX_LENGTH], found, budget)
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def _parse_line(text: str, found: list[tuple[str, dict[str, str]]], budget: int) -> int:
    position, first = 0, len(found)
    while budget > 0:
        position = _end(_SEPARATORS.match(text, position))
        if position >= len(text):
            break
        budget -= 1
        parameter = _PARAMETER.match(text, position) if len(found) > first else None
        if parameter is not None:
            name, quoted, bare = parameter.groups()
            value = _ESCAPE.sub(r"\1", quoted) if quoted is not None else bare
            found[-1][1].setdefault(name.lower(), value)
            position = parameter.end()
            continue
        position = _parse_scheme(text, position, found)
    return budget


def _parse_scheme(text: str, position: int, found: list[tuple[str, dict[str, str]]]) -> int:
    scheme = _SCHEME.match(text, position)
    if scheme is None:
        comma = text.find(",", position)
        return len(text) if comma < 0 else comma
    found.append((scheme[1].lower(), {}))
    token68 = _TOKEN68.match(text, scheme.end())
    return scheme.end() if token68 is None else token68.end()


def _end(match: re.Match[str] | None) -> int:
    assert match is not None  # the pattern matches the empty string
    return match.end()
