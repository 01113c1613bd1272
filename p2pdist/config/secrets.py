"""The files that hold secrets: the cluster key and registry passwords.

Rules: no message repeats what such a file holds. A file that any user of the host can read gives a warning, never an
error: Kubernetes mounts secrets so, and the operator may have reasons.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from p2pdist.config.model import Config
from p2pdist.errors import ConfigError, InvalidInputError
from p2pdist.wire.keys import ClusterKey

MAX_SECRET_BYTES = 64 * 1024


def read_secret(path: Path, label: str, mend: str) -> tuple[str, list[str]]:
    """The text of a secret file, without white space around it, and warnings; raises ConfigError."""
    try:
        # Non-blocking, so that a FIFO put here by mistake is refused rather than waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{label}: {path} is not a regular file; {mend}")
            data = file.read(MAX_SECRET_BYTES + 1)
    except PermissionError as error:
        raise ConfigError(
            f"{label}: cannot read {path} ({error.strerror}); give it to the agent's user (chown), mode 0600"
        ) from error
    except OSError as error:
        raise ConfigError(f"{label}: cannot read {path} ({error.strerror}); {mend}") from error
    if len(data) > MAX_SECRET_BYTES:
        raise ConfigError(f"{label}: {path} is larger than {MAX_SECRET_BYTES} bytes; {mend}")
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{label}: {path} is not a text; {mend}") from None
    if not text:
        raise ConfigError(f"{label}: {path} is empty; {mend}")
    warnings = []
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        warnings.append(
            f"{label}: {path} can be read or written by other users of this host; chmod 600 {path}"
        )
    return text, warnings


def key_from_file(path: Path) -> tuple[ClusterKey, list[str]]:
    """The cluster key in a file, and warnings; raises ConfigError."""
    label = "peer.cluster_key_file"
    mend = (
        f"make one with: (umask 077; p2pdist cluster key > {path}), and copy it to every host of the cluster"
    )
    text, warnings = read_secret(path, label, mend)
    try:
        return ClusterKey.parse(text), warnings
    except InvalidInputError as error:
        raise ConfigError(f"{label}: {path} holds {error}; {mend}") from None


def read_cluster_key(config: Config) -> ClusterKey | None:
    """The key this agent joins its cluster with; None in single-host mode; raises ConfigError."""
    if config.peer.cluster_key_file is not None:
        return key_from_file(config.peer.cluster_key_file)[0]
    return ClusterKey.open_cluster() if config.peer.insecure_open_cluster else None
