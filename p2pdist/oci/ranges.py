"""Byte ranges and entity tags of HTTP, as values (RFC 9110 sections 13, 14 and 15.3.7).

Rules, and who keeps them:
- A ``ByteRange`` that exists is non-empty; those that ``parse_range`` gives lie within the representation, are in the
  order that the client asked for, and neither overlap nor touch (those that do are merged, section 15.3.7.2).
- What a server may ignore is ignored: a unit that is not ``bytes``, a set that does not parse, too many ranges (None).
- Only a set that parses and of which nothing can be had is refused (RangeNotSatisfiable, 416); but of an empty
  representation the whole is sent, since clients that add ``bytes=0-`` to each request could not get it otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from p2pdist.errors import InvalidInputError

MAX_RANGES = 16
_MAX_HEADER = 1024
_MAX_ETAGS = 64
# Nineteen digits hold every offset that a file may have (2**63), and keep int() cheap.
_SPEC = re.compile(r"([0-9]{0,19})-([0-9]{0,19})\Z")
_CONTENT_RANGE = re.compile(r"bytes +(?:([0-9]{1,19})-([0-9]{1,19})|(\*))/([0-9]{1,19}|\*)\Z", re.IGNORECASE)
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=?-]{1,70}\Z")


class RangeNotSatisfiable(InvalidInputError):  # noqa: N818 - the RFC's own name for status 416
    """No range of the set overlaps the representation; ``size`` is its length in bytes. Answer 416."""

    def __init__(self, size: int) -> None:
        super().__init__(f"no range asked for lies within the {size} bytes there are")
        self.size = size

    @property
    def content_range(self) -> str:
        """The Content-Range of a 416 answer."""
        return f"bytes */{self.size}"


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """The bytes [start, stop) of a representation; never empty."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise InvalidInputError(f"byte range [{self.start}, {self.stop}) is empty or negative")

    @property
    def length(self) -> int:
        """How many bytes."""
        return self.stop - self.start

    def __str__(self) -> str:
        """As a Range header has it: ``start-last``, inclusive."""
        return f"{self.start}-{self.stop - 1}"


def parse_range(header: str | None, size: int) -> tuple[ByteRange, ...] | None:
    """What a Range header asks of ``size`` bytes; None means to send all of it with 200.

    Raises RangeNotSatisfiable. Source: RFC 9110 sections 14.1.2 and 14.2.
    """
    specs = None if header is None or size == 0 else _parse_specs(header)
    if specs is None:
        return None
    ranges = [found for first, last in specs if (found := _resolve(first, last, size)) is not None]
    if not ranges:
        raise RangeNotSatisfiable(size)
    return _coalesce(ranges)


def _parse_specs(header: str) -> list[tuple[int | None, int | None]] | None:
    unit, equals, text = header.partition("=")
    if len(header) > _MAX_HEADER or not equals or unit.strip().lower() != "bytes":
        return None
    # A list may hold empty elements (section 5.6.1.2), which count for nothing.
    parts = [part for raw in text.split(",") if (part := raw.strip(" \t"))]
    if not 1 <= len(parts) <= MAX_RANGES:
        return None
    specs = [_parse_spec(part) for part in parts]
    return None if None in specs else [spec for spec in specs if spec is not None]


def _parse_spec(text: str) -> tuple[int | None, int | None] | None:
    match = _SPEC.match(text)
    if match is None or text == "-":
        return None
    first, last = (int(digits) if digits else None for digits in match.groups())
    if first is not None and last is not None and last < first:
        return None  # "invalid" by section 14.1.1, so the whole set is ignored
    return first, last


def _resolve(first: int | None, last: int | None, size: int) -> ByteRange | None:
    if first is None:
        assert last is not None
        start, stop = max(0, size - last), size
    else:
        start, stop = first, size if last is None else min(last + 1, size)
    return ByteRange(start, stop) if start < stop else None


def _coalesce(ranges: Sequence[ByteRange]) -> tuple[ByteRange, ...]:
    """Merge those that overlap or touch; each group stands where its first member was asked for."""
    merged: list[tuple[ByteRange, int]] = []
    for found, position in sorted((found, position) for position, found in enumerate(ranges)):
        if merged and found.start <= merged[-1][0].stop:
            last, at = merged[-1]
            merged[-1] = (ByteRange(last.start, max(last.stop, found.stop)), min(at, position))
        else:
            merged.append((found, position))
    return tuple(found for found, _ in sorted(merged, key=lambda pair: pair[1]))


def content_range(found: ByteRange, size: int) -> str:
    """The Content-Range of a 206 answer, or of one part of it."""
    return f"bytes {found}/{size}"


def parse_content_range(header: str) -> tuple[ByteRange | None, int | None]:
    """A server's Content-Range: the range (None for ``*``, as 416 has it) and the whole size (None for ``*``).

    Raises InvalidInputError for anything else, also for a range that does not fit the size.
    """
    match = _CONTENT_RANGE.match(header.strip()[:_MAX_HEADER])
    if match is None:
        raise InvalidInputError(f"Content-Range {header[:80]!r} is not 'bytes FIRST-LAST/SIZE'")
    first, last, unsatisfied, total = match.groups()
    size = None if total == "*" else int(total)
    if unsatisfied:
        if size is None:
            raise InvalidInputError("Content-Range 'bytes */*' says nothing")
        return None, size
    found = ByteRange(int(first), int(last) + 1)
    if size is not None and found.stop > size:
        raise InvalidInputError(f"Content-Range {header[:80]!r} ends after the size it names")
    return found, size


@dataclass(frozen=True, slots=True)
class MultipartPart:
    """One part: ``header`` is sent before the bytes of ``range``."""

    header: bytes
    range: ByteRange


@dataclass(frozen=True, slots=True)
class Multipart:
    """The framing of a multipart/byteranges body: each part's header and bytes, then ``trailer``."""

    content_type: str
    parts: tuple[MultipartPart, ...]
    trailer: bytes

    @property
    def length(self) -> int:
        """The body's Content-Length in bytes, framing and data."""
        return sum(len(part.header) + part.range.length for part in self.parts) + len(self.trailer)


def multipart_byteranges(ranges: Sequence[ByteRange], size: int, media_type: str, boundary: str) -> Multipart:
    """Frame several ranges of ``size`` bytes (RFC 9110 section 14.6); ``boundary`` must not occur in the content.

    Raises InvalidInputError for a boundary or media type that would break the framing.
    """
    if not _BOUNDARY.match(boundary):
        raise InvalidInputError("a multipart boundary is 1 to 70 of the characters RFC 2046 allows")
    if not media_type.isascii() or not media_type.isprintable():
        raise InvalidInputError(f"media type {media_type[:80]!r} cannot stand in a header")
    parts = tuple(
        MultipartPart(_part_header(found, size, media_type, boundary, first=index == 0), found)
        for index, found in enumerate(ranges)
    )
    return Multipart(
        f'multipart/byteranges; boundary="{boundary}"', parts, f"\r\n--{boundary}--\r\n".encode()
    )


def _part_header(found: ByteRange, size: int, media_type: str, boundary: str, *, first: bool) -> bytes:
    lead = "" if first else "\r\n"
    kind = f"Content-Type: {media_type}\r\n" if media_type else ""
    return f"{lead}--{boundary}\r\n{kind}Content-Range: {content_range(found, size)}\r\n\r\n".encode()


def etag_of(value: object) -> str:
    """The strong entity tag for content named by ``value`` (a digest)."""
    return f'"{value}"'


def etag_matches(header: str | None, etag: str) -> bool:
    """Whether If-None-Match holds for what has ``etag``: weak comparison, ``*`` matches (RFC 9110 section 13.1.2).

    False when the header is absent or does not parse: send the body.
    """
    if header is None:
        return False
    if header.strip() == "*":
        return True
    found = _ETAG.findall(header[: _MAX_ETAGS * 160])[:_MAX_ETAGS]
    return etag.removeprefix("W/") in (item.removeprefix("W/") for item in found)


def if_range_matches(header: str | None, etag: str) -> bool:
    """Whether a Range may be honoured under If-Range: strong comparison (RFC 9110 section 13.1.5).

    True when absent. A date never matches: content here has no modification time, so the whole is sent.
    """
    if header is None:
        return True
    return not etag.startswith("W/") and header.strip() == etag
