"""Every command that the documents show is run as it stands there, page by page, on a machine where the first hour is over.

What a command needs that its page takes for granted (an archive to import, an image pulled before) is in NEEDS, and what
is expected beyond success in PRINTS. tests/unit/docs/commands.py has the few that are run by other tests, or cannot be run.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.docs.content import push_others
from tests.e2e.docs.hour import Hour, commands, plain
from tests.e2e.docs.machines import Machine
from tests.e2e.guard import wait_until
from tests.e2e.netlab import CommandError
from tests.e2e.wheels import download_extra
from tests.unit.docs.commands import to_run

# Of the pages' configuration: a registry of one's own, and a zone.
CONFIG = '\n[agent]\nzone = "rack-7"\n\n[registries."registry.example.com"]\n'
# A curl that succeeds when it was answered with an error would hide a route that is not there.
STRICT = 'curl() { command curl --fail "$@"; }; '
BY_PAGE = {
    page: [command.line for command in group]
    for page, group in itertools.groupby(to_run(), key=lambda each: each.page)
}
Need = Callable[[Machine], object]


def first(*lines: str) -> Need:
    return lambda machine: [machine.sh(line) for line in lines]


def acquainted(machine: Machine) -> None:
    """The agent knows the other host's, after a restart."""
    wait_until(lambda: machine.metrics().value("p2pdist_peers") == 1, 30, "host-1 to know host-2")


def archive(image: str, file: str, name: str = "") -> Need:
    """A file as ``docker save`` writes it."""
    return first(f"rm -f {file}; skopeo copy docker://{image} docker-archive:{file}:{name or image}")


def packages_of(extra: str) -> Need:
    """The machines have no package index, but a directory."""
    return lambda machine: download_extra(Path(machine.host.env["PIP_FIND_LINKS"]), extra)


NEEDS: dict[str, Need] = {
    "/opt/p2pdist/bin/pip install '.[otel]'": packages_of("otel"),
    "p2pdist pull --everywhere ghcr.io/org/app:v3": acquainted,
    "p2pdist pull --everywhere registry.example.com/team/app:v3": acquainted,
    "p2pdist agent --config config.toml": first("cp /etc/p2pdist/config.toml ."),
    "p2pdist import app.tar": archive("registry.example.com/team/app:v3", "app.tar"),
    "p2pdist import app.tar --as registry.example.com/app:v3": archive(
        "registry.example.com/app:v3", "app.tar"
    ),
    "p2pdist import images.tar.gz --select app:v3 --json": first(
        "rm -f images.tar images.tar.gz; skopeo copy docker://registry.example.com/app:v3 docker-archive:images.tar:app:v3",
        "gzip images.tar",
    ),
    "skopeo copy docker://nginx:1.27 oci:layout:1.27": first("rm -rf layout"),
    "p2pdist import layout --as registry.example.com/team/app:v3": first(
        "rm -rf layout", "skopeo copy docker://registry.example.com/team/app:v3 oci:layout:v3"
    ),
    "p2pdist history ghcr.io/org/app:v3 --platform linux/arm64 --no-trunc": first(
        "p2pdist pull ghcr.io/org/app:v3 --platform linux/arm64"
    ),
    "p2pdist history nginx:1.27 --platform linux/arm64 --no-trunc": first(
        # All platforms again, after the import of one from a layout.
        "rm -rf layout; skopeo copy --all docker://registry.example.com/library/nginx:1.27 oci:layout:1.27",
        "p2pdist import layout --as nginx:1.27",
        "p2pdist pull nginx:1.27 --platform linux/arm64",
    ),
    "p2pdist diff ghcr.io/org/app:v3 ghcr.io/org/app:v4": first(
        "p2pdist pull ghcr.io/org/app:v3", "p2pdist pull ghcr.io/org/app:v4"
    ),
    "p2pdist diff nginx:1.26 nginx:1.27 --json | jq .moved_bytes": first("p2pdist pull nginx:1.26"),
    "p2pdist setup podman --remove": first("p2pdist setup podman"),
    'podman pull "docker.io/library/nginx@$DIGEST"': first("p2pdist setup podman"),
    "ctr images pull --hosts-dir /etc/containerd/certs.d docker.io/library/nginx:latest": first(
        "p2pdist setup containerd", "ctr images ls -q | xargs ctr images rm --sync"
    ),
}
PRINTS = {
    "curl -s http://127.0.0.1:5052/api/v1/status": '"name":"host-1"',
    "p2pdist import app.tar": "imported registry.example.com/team/app:v3@sha256:",
    "p2pdist import layout --as registry.example.com/team/app:v3": "imported registry.example.com/team/app:v3@sha256:",
    "p2pdist import layout --as nginx:1.27": "imported docker.io/library/nginx:1.27@sha256:",
    "p2pdist pull --everywhere registry.example.com/team/app:v3": "is on all of 2 hosts",
    "p2pdist pull --zone rack-7 registry.example.com/team/app:v3": "is on all of 2 hosts",
    "p2pdist setup docker": "docker.io images only",
    "p2pdist setup containerd --remove": "removed /etc/containerd/certs.d/docker.io/hosts.toml",
    "p2pdist diff nginx:1.26 nginx:1.27 --json | jq .moved_bytes": "20",
}
# Through the agent: it delivers bytes while these run.
PULLS = ("podman pull ", "ctr images pull ", "skopeo copy docker://nginx")


@pytest.fixture(scope="module")
def machine(hour: Hour) -> Machine:
    """host-1, with what the pages take for granted; host-2 is beside it."""
    images = push_others(hour.lab.images)
    assert images["team/app:v3"].repository == "team/app"
    for each in hour.machines:
        each.write("/etc/p2pdist/config.toml", each.sh("cat /etc/p2pdist/config.toml") + CONFIG)
        assert each.stop() == 0
        each.start("p2pdist agent")
    know_each_other(hour)
    return hour.machine(1)


def know_each_other(hour: Hour) -> None:
    for each in hour.machines:
        wait_until(
            lambda m=each: m.metrics().value("p2pdist_peers") == 1, 30, f"{each.name} to know the other"
        )


@pytest.mark.parametrize("page", BY_PAGE)
def test_the_commands_of_a_page_work(hour: Hour, machine: Machine, page: str) -> None:
    lived = {line for _, line in commands()}
    for line in BY_PAGE[page]:
        if line not in lived:
            run(hour, machine, line)


def run(hour: Hour, machine: Machine, line: str) -> None:
    NEEDS.get(line, lambda machine: None)(machine)
    if line.startswith("p2pdist agent"):
        run_daemon(machine, line)
        return
    before = machine.metrics().value("p2pdist_client_bytes_total")
    try:
        printed = plain(machine.sh(STRICT + line, DIGEST=str(hour.images["1.27"].image.digest)))
    except CommandError as error:
        raise AssertionError(f"{line}\n{error}") from None
    assert PRINTS.get(line, "") in printed, f"{line}\n{printed}"
    if line.startswith(PULLS):
        assert machine.metrics().value("p2pdist_client_bytes_total") > before, (
            f"{line}: not through the agent"
        )


def run_daemon(machine: Machine, line: str) -> None:
    """In the place of the one that runs: it has to serve, and to end by itself when it is told to."""
    assert machine.stop() == 0
    machine.start(line)
    assert machine.stop() == 0
    machine.start("p2pdist agent")


def test_what_is_needed_and_expected_is_of_commands_that_are_run() -> None:
    lines = {command.line for command in to_run()}
    assert NEEDS.keys() <= lines
    assert PRINTS.keys() <= lines
