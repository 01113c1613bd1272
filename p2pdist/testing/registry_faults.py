"""The knobs and the counters of a fake registry.

Always true here: a fault with a ``_times`` happens that often and then no more (-1: always); a request is counted when
it arrives, before any fault; body bytes are counted once written to the connection.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from p2pdist.errors import InvalidInputError

ALWAYS = -1
KINDS = ("ping", "manifest", "blob", "tags", "referrers", "token", "other")


@dataclass(slots=True)
class Faults:
    """How the registry misbehaves; the defaults are a good and open registry. Sizes in bytes, times in seconds."""

    auth: str = "none"  # "none", "basic", or "bearer"
    username: str = "user"
    password: str = "password"
    identity_token: str = ""  # accepted as an OAuth2 refresh token when set
    anonymous_tokens: bool = True  # the token server gives a pull token to whoever asks without credentials
    token_ttl: int = 300
    token_url: str = ""  # where the challenge sends clients; "" is this registry's own /token
    challenge_scope: bool = True  # the challenge names the scope

    redirect_blobs: bool = False  # 307 to the blob store, on another port
    redirect_host: str = ""  # the host in that redirect; "" is the one that the client used

    fail_kinds: list[str] = field(
        default_factory=lambda: ["manifest", "blob"]
    )  # what busy and error apply to
    busy_times: int = 0  # 429
    retry_after: str = "1"  # "" sends no Retry-After
    error_times: int = 0
    error_status: int = 503
    latency: float = 0.0  # before each answer
    hang_times: int = 0  # never answer, until release()

    body_kinds: list[str] = field(default_factory=lambda: ["blob"])  # whose bodies the following touch
    only_digest: str = ""  # and only of this digest
    cut_after: int = 0
    cut_times: int = 0
    cut_by_reset: bool = False  # RST at once, in place of what was written and then FIN
    flip_at: int = 0  # an offset in the whole blob
    flip_times: int = 0
    stall_after: int = 0  # body bytes, then nothing until release()
    stall_times: int = 0
    length_delta: int = 0  # added to Content-Length
    rate: int = 0  # bytes per second over all bodies; 0 is no limit

    ignore_range: bool = False
    wrong_content_range: bool = False
    no_digest_header: bool = False
    wrong_digest_header: bool = False
    no_content_type: bool = False
    no_head: bool = False  # 405
    no_referrers: bool = False  # 404, as registries before distribution-spec 1.1
    strict_accept: bool = False  # 404 for a manifest whose type Accept does not name, as docker-registry

    def take(self, name: str) -> bool:
        """Whether the fault ``name`` (of NAME_times) happens now; uses one up."""
        left: int = getattr(self, f"{name}_times")
        if left > 0:
            setattr(self, f"{name}_times", left - 1)
        return left != 0

    def update(self, changes: dict[str, Any]) -> None:
        """Set several at once; raises InvalidInputError, and sets none, for an unknown name or a wrong type."""
        defaults = Faults()
        for name, value in changes.items():
            known = getattr(defaults, name, None)
            # bool is an int to Python; a flag must not pass for a count, nor an int be refused for a float
            wanted = (int, float) if isinstance(known, float) else (type(known),)
            if name not in _FIELDS or type(value) not in wanted:
                raise InvalidInputError(f"fault {name!r} does not exist or does not take {value!r}")
        for name, value in changes.items():
            setattr(self, name, value)

    def reset(self) -> None:
        """Back to a good and open registry."""
        self.update(dataclasses.asdict(Faults()))

    def as_json(self) -> dict[str, Any]:
        """For GET /_faults."""
        return dataclasses.asdict(self)


_FIELDS = frozenset(item.name for item in dataclasses.fields(Faults))


@dataclass(slots=True)
class Counters:
    """What was asked of the registry and what it sent."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # by method and kind
    statuses: Counter[int] = field(default_factory=Counter)
    blob_bytes: Counter[str] = field(default_factory=Counter)  # body bytes, by digest, over both ports
    blob_requests: Counter[str] = field(default_factory=Counter)  # GETs of a blob, by digest
    manifest_bytes: int = 0
    tokens: int = 0  # issued
    refused_tokens: int = 0  # wrong credentials at the token server
    redirects_followed: int = 0  # requests at the blob store
    authorization_leaks: int = 0  # of which carried an Authorization header
    paths: list[str] = field(default_factory=list)  # METHOD PATH?QUERY, the first 10,000

    _MAX_PATHS = 10_000

    @property
    def total_blob_bytes(self) -> int:
        """All blob body bytes that left this registry."""
        return sum(self.blob_bytes.values())

    def count(self, method: str, kind: str) -> int:
        """Requests so far of one method and kind."""
        return self.requests[(method, kind)]

    def arrived(self, method: str, kind: str, path: str) -> None:
        """Note a request."""
        self.requests[(method, kind)] += 1
        if len(self.paths) < self._MAX_PATHS:
            self.paths.append(f"{method} {path}")

    def reset(self) -> None:
        """All to zero."""
        fresh = Counters()
        for item in dataclasses.fields(self):
            setattr(self, item.name, getattr(fresh, item.name))

    def as_json(self) -> dict[str, Any]:
        """For GET /_counters; requests are keyed ``METHOD kind``."""
        document = {
            item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "paths"
        }
        document["requests"] = {f"{method} {kind}": count for (method, kind), count in self.requests.items()}
        document["total_blob_bytes"] = self.total_blob_bytes
        return document


class FaultyBody:
    """What happens to one body: decided when it starts, from the knobs as they are then."""

    def __init__(self, faults: Faults, kind: str, digest: str) -> None:
        self.touched = kind in faults.body_kinds and faults.only_digest in {"", digest}
        self._cut = faults.cut_after if self.touched and faults.take("cut") else None
        self._stall = faults.stall_after if self.touched and faults.take("stall") else None
        self._flip = faults.flip_at if self.touched and faults.take("flip") else None

    def until_event(self, sent: int) -> int:
        """How many bytes may go before the next stall or cut, given how many went; a huge number when none comes."""
        return min(
            (at - sent for at in (self._cut, self._stall) if at is not None and at >= sent), default=2**62
        )

    def spoil(self, chunk: bytes | memoryview, offset: int) -> memoryview:
        """The chunk that stands at ``offset`` of the whole, with its byte flipped if it is the one."""
        if self._flip is None or not offset <= self._flip < offset + len(chunk):
            return memoryview(chunk)
        copy = bytearray(chunk)
        copy[self._flip - offset] ^= 0xFF
        return memoryview(copy)

    def stalls_at(self, sent: int) -> bool:
        """True once, when exactly so many bytes went."""
        if self._stall != sent:
            return False
        self._stall = None
        return True

    def cuts_at(self, sent: int) -> bool:
        """Whether the connection is to be cut now."""
        return self._cut == sent
