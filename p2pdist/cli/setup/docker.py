"""``p2pdist setup docker``: the agent as Docker's registry mirror. Docker asks mirrors for docker.io images only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from p2pdist.cli.setup import daemon_json
from p2pdist.cli.setup.mirrors import Mirrors
from p2pdist.cli.setup.root import HostRoot
from p2pdist.cli.setup.writer import Place, Work
from p2pdist.errors import ConfigError
from p2pdist.oci.reference import DEFAULT_REGISTRY

RUNTIME = "docker"
DAEMON_JSON = Path("/etc/docker/daemon.json")
LIMITS = "Docker asks the agent for docker.io images only; it pulls those of all other registries directly."
RELOAD = (
    "Have Docker read it: systemctl reload docker, or kill -HUP $(pidof dockerd). Containers go on running."
)
# A reload changes nothing about a key that is no longer there.
RESTART = "Docker forgets the mirror when it restarts: systemctl restart docker (a reload will do where others are left)."


@dataclass(frozen=True, slots=True)
class DaemonJson:
    """``daemon.json``, with the mirror's URL."""

    name: str
    added: str
    shared: bool = True

    def wanted(self, original: bytes | None) -> bytes:
        return daemon_json.merge(original, self.added)

    def satisfied(self, content: bytes) -> bool:
        return daemon_json.points_at(content, self.added)

    def take_out(self, content: bytes, added: str) -> bytes:
        return daemon_json.remove(content, added)


def work(file: Path, root: HostRoot, url: str) -> Work:
    return Work(Place(RUNTIME, file.parent, root), (DaemonJson(file.name, url),))


def check(mirrors: Mirrors) -> None:
    """Raises ConfigError when the agent does not mirror the one registry that Docker would ask it for."""
    if mirrors.named(DEFAULT_REGISTRY) is None:
        raise ConfigError(
            "the configuration does not mirror docker.io, and Docker asks mirrors for nothing else: nothing to set up"
        )
