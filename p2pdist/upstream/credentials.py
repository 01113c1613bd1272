"""Whose name a registry is asked in: the configuration's, else the host's Docker config.json and its helpers.

Rules:
- The configuration wins over config.json; in there ``credHelpers`` over ``credsStore`` over ``auths``, as Docker does.
- The file is read again when it changed; a helper's answer is kept some minutes, and not over a change of the file.
- What cannot be read (file, entry, helper) is warned of once, and means to ask anonymously: public images still pull.
- No secret is ever in a message, a log line or a repr.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from p2pdist.clock import Clock
from p2pdist.oci.reference import DEFAULT_REGISTRY
from p2pdist.upstream.credential_helper import HelperError, run_helper
from p2pdist.upstream.settings import UpstreamSettings

log = logging.getLogger(__name__)

_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_DOCKER_HUB_HOSTS = frozenset({DEFAULT_REGISTRY, "index.docker.io", "registry-1.docker.io"})
_MAX_FILE = 1024 * 1024
_FAILURE_TTL = 30.0
IDENTITY_USER = "<token>"
"""The user name by which Docker and its helpers mark a secret as an identity token."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's name with a password, or with an identity token (an OAuth2 refresh token)."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class CredentialSource(Protocol):
    """Where credentials come from."""

    async def find(self, registry: str) -> Credentials | None:
        """Those for a registry, None for anonymous; never raises."""

    def refused(self, registry: str) -> None:
        """They did not work: what was kept of them is looked up anew next time."""


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """What matters of a config.json, by registry host. ``problems`` names entries that cannot be read."""

    auths: Mapping[str, Credentials] = field(default_factory=dict)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str = ""
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: bytes) -> DockerConfig:
        """Read the file's bytes; raises ValueError when they are no JSON object."""
        try:
            document = json.loads(text)
        except RecursionError as error:
            raise ValueError("is nested too deeply") from error
        if not isinstance(document, dict):
            raise ValueError("is not a JSON object")
        auths, problems = _parse_auths(_mapping(document, "auths"))
        helpers = {
            host: name
            for key, name in _mapping(document, "credHelpers").items()
            if isinstance(name, str) and (host := registry_of_key(key))
        }
        store = document.get("credsStore")
        return cls(auths, helpers, store if isinstance(store, str) else "", problems)

    def helper_for(self, registry: str) -> str:
        """The helper that keeps a registry's credentials, "" for none."""
        return self.helpers.get(registry) or self.store


def registry_of_key(key: str) -> str:
    """The registry that a key of ``auths`` stands for, "" for what is none (Docker's own forms are many).

    ``https://index.docker.io/v1/`` and its kin stand for docker.io; else ``[http[s]://]HOST[:PORT][/v1/|/v2/]``.
    """
    host, _, path = key.removeprefix("https://").removeprefix("http://").partition("/")
    if path.strip("/") not in {"", "v1", "v2"}:
        return ""
    return DEFAULT_REGISTRY if host.lower() in _DOCKER_HUB_HOSTS else host.lower()


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _parse_auths(entries: Mapping[str, Any]) -> tuple[dict[str, Credentials], tuple[str, ...]]:
    found: dict[str, Credentials] = {}
    problems: list[str] = []
    for key, entry in entries.items():
        registry = registry_of_key(key)
        if not registry or not isinstance(entry, dict):
            continue
        try:
            credentials = _parse_entry(entry)
        except ValueError:
            problems.append(f"auths[{key[:200]!r}] is not readable; log in again")
            continue
        # Docker's own key is the one that docker login writes, so it beats the others that mean the same.
        if credentials is not None and (registry not in found or key == _DOCKER_HUB_KEY):
            found[registry] = credentials
    return found, tuple(problems)


def _parse_entry(entry: Mapping[str, Any]) -> Credentials | None:
    """None for an empty entry, which Docker leaves where a helper keeps the secret."""
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    encoded = entry.get("auth")
    if encoded:
        try:
            plain = base64.b64decode(str(encoded), validate=True).decode()
        except binascii.Error as error:
            raise ValueError("not base64") from error
        user, colon, password = plain.rstrip("\0").partition(":")
        if not colon:
            raise ValueError("no colon")
    identity = str(entry.get("identitytoken") or "")
    if identity:
        return Credentials(user, identity_token=identity)
    return Credentials(user, password) if user or password else None


@dataclass(frozen=True, slots=True)
class _Kept:
    credentials: Credentials | None
    expires: float


class HostCredentials:
    """The CredentialSource of a host; see the module's rules."""

    def __init__(self, settings: UpstreamSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._config = DockerConfig()
        self._stamp: tuple[int, int, int] | None = None
        self._kept: dict[str, _Kept] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._warned: set[str] = set()

    async def find(self, registry: str) -> Credentials | None:
        settings = self._settings.registries.get(registry)
        if settings is not None and (settings.username or settings.password):
            return Credentials(settings.username, settings.password)
        if self._settings.docker_config is None:
            return None
        await self._refresh(self._settings.docker_config)
        helper = self._config.helper_for(registry)
        found = await self._ask(helper, registry) if helper else None
        return found or self._config.auths.get(registry)

    def refused(self, registry: str) -> None:
        self._kept.pop(registry, None)

    async def _refresh(self, path: Path) -> None:
        read = await asyncio.to_thread(_read_if_changed, path, self._stamp)
        if read is None:
            return
        self._stamp, content = read
        self._kept.clear()
        self._config = DockerConfig()
        try:
            if isinstance(content, OSError):
                raise content
            self._config = DockerConfig.parse(content)
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            self._warn(f"credentials file {path} cannot be used, registries are asked anonymously: {error}")
        for problem in self._config.problems:
            self._warn(f"credentials file {path}: {problem}")

    async def _ask(self, helper: str, registry: str) -> Credentials | None:
        async with self._locks.setdefault(registry, asyncio.Lock()):
            kept = self._kept.get(registry)
            if kept is None or kept.expires <= self._clock.now():
                kept = await self._run(helper, registry)
                self._kept[registry] = kept
            return kept.credentials

    async def _run(self, helper: str, registry: str) -> _Kept:
        server = _DOCKER_HUB_KEY if registry == DEFAULT_REGISTRY else registry
        try:
            answer = await run_helper(helper, server, self._settings.helper_timeout)
        except HelperError as error:
            self._warn(f"{error}; {registry} is asked anonymously")
            return _Kept(None, self._clock.now() + _FAILURE_TTL)
        expires = self._clock.now() + self._settings.helper_ttl
        if answer is None:
            return _Kept(None, expires)
        user, secret = answer
        if user == IDENTITY_USER:
            return _Kept(Credentials(identity_token=secret), expires)
        return _Kept(Credentials(user, secret), expires)

    def _warn(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            log.warning("%s", message)


def _read_if_changed(
    path: Path, stamp: tuple[int, int, int] | None
) -> tuple[tuple[int, int, int], bytes | OSError] | None:
    """The file's stamp and bytes, None when the stamp is as before. Blocks, so it runs in a thread."""
    missing = (0, 0, 0)
    try:
        status = path.stat()
        now = (status.st_mtime_ns, status.st_size, status.st_ino)
        if now == stamp:
            return None
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
        if len(content) > _MAX_FILE:
            return now, OSError(f"it has more than {_MAX_FILE} bytes")
    except OSError as error:
        return None if stamp == missing else (missing, error)
    return now, content
