"""What must not leave this host in a debug bundle: the secrets that the agent knows, in each form in which they get written.

Rules: the longest is looked for first, so that of a secret that begins with another one nothing is left over; what cannot
be read gives no secret, and no error.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from p2pdist.agent.admin_token import read_admin_token
from p2pdist.config.effective import MASK, known_secrets
from p2pdist.config.model import Config
from p2pdist.telemetry.logs import escape
from p2pdist.upstream.credentials import Credentials, DockerConfig
from p2pdist.wire.keys import ClusterKey

_MAX_FILE = 1024 * 1024
# A variable may be called a secret and be "true"; to take that out of everything would help nobody.
_LEAST = 6
_SECRET_NAME = re.compile(
    r"password|passwd|secret|token|credential|authorization|headers|_key$", re.IGNORECASE
)
_NAMES_A_FILE = re.compile(r"_(file|path|dir|sock)$", re.IGNORECASE)


class Redactor:
    """Takes ``secrets`` out of JSON values."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets if secret for form in _forms(secret)}
        self._forms = sorted(forms, key=lambda form: (-len(form), form))

    def without(self, value: Any) -> Any:
        """A JSON value with every occurrence of each secret masked, in names too."""
        if isinstance(value, str):
            for form in self._forms:
                value = value.replace(form, MASK)
            return value
        if isinstance(value, dict):
            return {self.without(name): self.without(each) for name, each in value.items()}
        return [self.without(each) for each in value] if isinstance(value, list) else value


def _forms(secret: str) -> set[str]:
    """As it is, and as logs, JSON, URLs and Authorization headers have it."""
    encoded = base64.b64encode(secret.encode(errors="surrogateescape")).decode()
    return {secret, escape(secret), json.dumps(secret)[1:-1], quote(secret, safe=""), encoded}


def secrets_of(config: Config, key: ClusterKey | None, environ: Mapping[str, str] = os.environ) -> list[str]:
    """All that this agent knows now: key, passwords, Docker's logins, the command token, the environment. Reads files."""
    found = [key.text(), key.raw.hex()] if key is not None else []
    found += known_secrets(config)
    for registry in config.registries.values():
        if registry.password:
            found += _of_login(Credentials(registry.username, registry.password))
    found += _of_docker(config.docker_config_file)
    found += _of_token(config.agent.data_dir)
    for name, value in environ.items():
        found += _of_variable(name, value)
    return found


def _of_login(login: Credentials) -> list[str]:
    pair = login.basic.partition(" ")[2] if login.password else ""
    return [login.password, login.identity_token, pair]


def _of_docker(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            logins = DockerConfig.parse(file.read(_MAX_FILE)).auths.values()
    except (OSError, ValueError):
        return []
    return [secret for login in logins for secret in _of_login(login)]


def _of_token(data_dir: Path) -> list[str]:
    try:
        return [read_admin_token(data_dir)]
    except (OSError, ValueError):
        return []


def _of_variable(name: str, value: str) -> list[str]:
    """A proxy's password; all of a variable that is called a secret; and each value of OTLP's headers."""
    try:
        password = urlsplit(value).password if "@" in value else None
    except ValueError:
        password = None
    found = [password, unquote(password)] if password else []
    if _SECRET_NAME.search(name) and not _NAMES_A_FILE.search(name):
        values = [
            value,
            *(unquote(part.partition("=")[2].strip()) for part in value.split(",") if "=" in part),
        ]
        found += [each for each in values if len(each) >= _LEAST]
    return found
