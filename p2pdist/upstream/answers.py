"""What a registry's answer means: errors, sizes, ranges, digests, links. Pure; every fault is a P2PDistError.

Rules: headers come from a stranger, so each is bounded and checked before use; the digest of a manifest's bytes beats
what a header says of it; a Link leads back to the same page, with known query keys only.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from p2pdist.errors import (
    BusyError,
    DeniedError,
    DigestMismatchError,
    InvalidInputError,
    NotFoundError,
    P2PDistError,
    ProtocolError,
    UnreachableError,
)
from p2pdist.oci import media_types
from p2pdist.oci.digest import Digest
from p2pdist.oci.manifest import MAX_MANIFEST, sniff_media_type
from p2pdist.oci.ranges import parse_content_range
from p2pdist.upstream.retry import RETRIED_STATUSES, LastingError

_MAX_ERROR_TEXT = 300
_LENGTH = re.compile(r"[0-9]{1,19}\Z")
_LINK = re.compile(r'<([^<>"\s]{1,4096})>([^<>]{0,256})')
_NEXT = re.compile(r';\s*rel\s*=\s*(?:"next"|next)(?=\s*(?:[;,]|\Z))', re.IGNORECASE)
_MAX_QUERY = 2048
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's way to say: the largest window, and gzip's header

PAGE_KEYS = frozenset(
    {"n", "last", "next", "next_page", "nextPageToken", "continuationToken", "artifactType"}
)
_VAGUE_TYPES = frozenset({"", media_types.JSON, media_types.OCTET_STREAM, "text/plain", "text/html"})

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Body:
    """What the body of an answer to a blob request holds: [start, stop) of ``size`` bytes (None: it does not say)."""

    start: int
    stop: int | None
    size: int | None


def content_length(headers: Headers) -> int | None:
    """The Content-Length in bytes; None if absent. Raises ProtocolError for what is no length."""
    text = headers.get("Content-Length")
    if text is None:
        return None
    if not _LENGTH.match(text.strip()):
        raise ProtocolError(f"Content-Length {text[:40]!r} is not a number of bytes")
    return int(text)


def read_body_headers(status: int, headers: Headers, asked: int, what: str) -> Body:
    """What a 200 or 206 to a request from byte ``asked`` on will send; raises ProtocolError where they contradict."""
    length = content_length(headers)
    if status == 200:
        return Body(0, length, length)
    if status != 206:
        raise ProtocolError(f"{what} was answered with status {status}")
    try:
        sent, size = parse_content_range(headers.get("Content-Range", ""))
    except InvalidInputError as error:
        raise ProtocolError(f"{what} was answered 206 with an unusable range: {error}") from error
    if sent is None or sent.start != asked:
        raise ProtocolError(f"{what} was asked for from byte {asked} and answered with range {sent}")
    if length is not None and length != sent.length:
        raise ProtocolError(f"{what} has Content-Length {length} for a range of {sent.length} bytes")
    return Body(sent.start, sent.stop, size)


def answers_range(status: int, headers: Headers, asked: int) -> bool:
    """Whether an answer to a request from byte ``asked`` on is one that can be used: 200, the range, or 416 with a size."""
    if status == 200:
        return True
    try:
        sent, size = parse_content_range(headers.get("Content-Range", ""))
    except InvalidInputError:
        return False
    return (status == 206 and sent is not None and sent.start == asked) or (
        status == 416 and size is not None
    )


def whole_size(status: int, headers: Headers, what: str) -> int:
    """The blob's size that an answer to any range request tells (200, 206 or 416). Raises ProtocolError if none."""
    if status == 200:
        size = None if is_encoded(headers) else content_length(headers)
    else:
        try:
            _, size = parse_content_range(headers.get("Content-Range", ""))
        except InvalidInputError as error:
            raise ProtocolError(f"{what} was answered {status} with an unusable range: {error}") from error
    if size is None:
        raise ProtocolError(f"{what}: the registry does not tell its size")
    return size


def strong_etag(headers: Headers) -> str:
    """The ETag where two answers with different ones hold different bytes, else ""."""
    etag = headers.get("ETag", "").strip()[:256]
    return etag if etag.startswith('"') else ""


def content_type(headers: Headers) -> str:
    """The media type, without parameters; "" if absent."""
    return media_types.essence(headers.get("Content-Type", ""))


def specific_type(headers: Headers) -> str:
    """The media type where it tells something of a manifest; "" where it is absent or too general."""
    named = content_type(headers)
    return "" if named in _VAGUE_TYPES else named


def digest_header(headers: Headers) -> Digest | None:
    """Docker-Content-Digest; None where it is absent or malformed, since the bytes can be asked instead."""
    try:
        return Digest.parse(headers.get("Docker-Content-Digest", "").strip())
    except InvalidInputError:
        return None


def manifest_digest(body: bytes, target: str | Digest, headers: Headers, what: str) -> Digest:
    """The digest of a manifest's bytes. Raises DigestMismatchError where ``target`` is another one, and ProtocolError
    where a tag's answer names another one."""
    if isinstance(target, Digest):
        actual = Digest.of(body, target.algorithm)
        if actual != target:
            raise DigestMismatchError(f"{what} came with other bytes: their digest is {actual}")
        return actual
    named = digest_header(headers)
    actual = Digest.of(body, named.algorithm if named else "sha256")
    if named is not None and named != actual:
        raise ProtocolError(
            f"{what} came with digest {named} in its header, and bytes whose digest is {actual}"
        )
    return actual


def manifest_type(body: bytes, headers: Headers, what: str) -> str:
    """The media type of a manifest: the header's, unless that is missing or too general; then the body's own."""
    named = specific_type(headers)
    if named:
        return named
    try:
        return sniff_media_type(body)
    except InvalidInputError as error:
        raise ProtocolError(f"{what} came without a telling type, and is no manifest: {error}") from error


def next_link(headers: Headers, path: str, keys: Collection[str] = PAGE_KEYS) -> str | None:
    """The Link header to a next page, rewritten to ``path`` and the known keys of its query; None if there is none."""
    for target, parameters in _LINK.findall(headers.get("Link", "")[:8192]):
        if not _NEXT.search(parameters):
            continue
        try:
            pairs = parse_qsl(urlsplit(target).query, max_num_fields=16)
        except ValueError:
            return None
        query = urlencode([(key, value) for key, value in pairs if key in keys])
        if query and len(query) <= _MAX_QUERY:
            return f'<{path}?{query}>; rel="next"'
    return None


def refusal(status: int, what: str, detail: str, retry_after: float | None = None) -> P2PDistError:
    """The error for an answer that gives nothing. ``what`` names registry and thing, ``detail`` what the registry said."""
    said = f"{what}: answered {status}" + (f" ({detail})" if detail else "")
    if status in {404, 410}:
        return NotFoundError(said)
    if status == 401:
        return DeniedError(
            f"{said}; it does not exist, or wants (other) credentials: log in, or configure them"
        )
    if status in {403, 451}:
        return DeniedError(f"{said}; these credentials may not have it")
    if status == 429 or (status == 503 and retry_after is not None):
        return BusyError(said, retry_after)
    if status == 407:
        return LastingError(f"{said}; put the proxy's user name and password into its URL")
    if status in RETRIED_STATUSES:
        return UnreachableError(said)
    return ProtocolError(said)


def error_detail(body: bytes) -> str:
    """Code and message of an OCI error body, cleaned for a log line; "" where it is none."""
    try:
        first = json.loads(body)["errors"][0]
        text = f"{first.get('code', '')}: {first.get('message', '')}"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return "".join(char if char.isprintable() else " " for char in text)[:_MAX_ERROR_TEXT].strip(": ")


def is_encoded(headers: Headers) -> bool:
    """Whether the answer says that its body was compressed for the way, so that its length is not the content's."""
    return headers.get("Content-Encoding", "").strip().lower() not in {"", "identity"}


def decoded(headers: Headers, body: bytes, limit: int, what: str) -> bytes:
    """The content of a small body that came compressed, though identity was asked for, at most ``limit`` bytes.

    Some servers and proxies compress JSON whoever asks, and the runtimes undo it; others say gzip of what is not. Raises
    ProtocolError for another encoding than gzip, and for what does not decode.
    """
    if not is_encoded(headers):
        return body
    encoding = headers["Content-Encoding"].strip().lower()
    if encoding not in {"gzip", "x-gzip"}:
        raise ProtocolError(f"{what} came compressed ({encoding[:40]!r}), which was not asked for")
    if not body.startswith(_GZIP):
        return body
    inflate = zlib.decompressobj(_GZIP_WINDOW)
    try:
        content = inflate.decompress(body, limit + 1)
    except zlib.error as error:
        raise ProtocolError(f"{what} came compressed, and does not decompress: {error}") from error
    if len(content) > limit:
        raise ProtocolError(f"{what} has more than {limit} bytes")
    if not inflate.eof:
        raise ProtocolError(f"{what} came compressed, and ended early")
    return content


def check_manifest_size(size: int | None, what: str) -> None:
    """Raises ProtocolError for one that is too large to be a manifest."""
    if size is not None and size > MAX_MANIFEST:
        raise ProtocolError(f"{what} has more than {MAX_MANIFEST} bytes, which is too large for a manifest")
