"""Every command that the documents show in a shell block, and where it is tested.

A command is one line of a block (with the lines that continue it), up to a comment; what ``&&`` joins is several. All are
run, as they stand, by tests/e2e/docs/test_commands.py on machines of their own, but for those in the tables below: each
names the test that runs the same, or the reason why it cannot be run here. docs/first-hour.md is a transcript, which
tests/e2e/docs/test_first_hour.py lives through.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.unit.docs.pages import blocks

COMPOSE = "tests/e2e/deployment/test_compose.py::test_three_hosts_pull_what_was_pushed_and_one_copy_leaves_the_registry"
POD = "tests/e2e/deployment/test_pod.py::test_the_agent_serves_the_node"
KEPT = "tests/adapters/cli/test_demo.py::test_kept_it_runs_until_it_is_stopped_and_keeps_the_files"
DEMO = "tests/adapters/cli/test_demo.py::test_one_host_needs_one_copy_and_the_promises_hold"
BOOTED = "tests/e2e/deployment/test_unit_booted.py"
KUBERNETES = "there is no Kubernetes here; the manifests are checked by tests/unit/deploy, and the pod is run by Docker"

TUNNEL = "ssh -N -L 5052:127.0.0.1:5052 host-1"

# By command: the test that runs the equivalent, with other names, ports or images.
ELSEWHERE = {
    "bin/p2pdist demo": DEMO,
    "p2pdist demo": DEMO,
    "p2pdist demo --agents 8": DEMO,
    "p2pdist demo --scale 1 --keep": KEPT,
    "docker build -f Dockerfile -t p2pdist:0.1.0 ..": (
        "tests/e2e/deployment/test_compose.py::test_the_image_is_small_unprivileged_and_without_tools_or_secrets"
    ),
    "docker build -f compose/Dockerfile -t registry.example.com/p2pdist:0.1.0 .": (
        "tests/e2e/deployment/test_compose.py::test_the_image_is_small_unprivileged_and_without_tools_or_secrets"
    ),
    "(umask 077; docker run --rm p2pdist:0.1.0 cluster key > cluster.key)": COMPOSE,
    "chown 65532 cluster.key": COMPOSE,
    "docker compose up -d": COMPOSE,
    "docker tag docker.io/library/nginx:1.27 127.0.0.1:5000/library/nginx:1.27": COMPOSE,
    "docker push 127.0.0.1:5000/library/nginx:1.27": COMPOSE,
    "docker push registry.example.com/p2pdist:0.1.0": COMPOSE,
    "skopeo copy --src-tls-verify=false docker://127.0.0.1:5050/registry.internal/library/nginx:1.27 dir:first": COMPOSE,
    "skopeo copy --src-tls-verify=false docker://127.0.0.1:5150/registry.internal/library/nginx:1.27 dir:second": COMPOSE,
    "docker compose exec agent-1 p2pdist peers": (
        "tests/e2e/deployment/test_compose.py::test_the_commands_work_inside_a_container"
    ),
    "docker compose exec agent-2 p2pdist status": (
        "tests/e2e/deployment/test_compose.py::test_the_commands_work_inside_a_container"
    ),
    "docker run -d --name p2pdist --network host --read-only --cap-drop ALL --security-opt no-new-privileges "
    "--restart unless-stopped --stop-timeout 60 "
    "-v /etc/p2pdist:/etc/p2pdist:ro -v p2pdist:/var/lib/p2pdist p2pdist:0.1.0": (
        "tests/e2e/deployment/test_pod.py::test_the_documented_way_of_one_agent_in_a_container"
    ),
    "docker save -o app.tar registry.example.com/team/app:v3": (
        "tests/e2e/test_sources.py::test_what_docker_saved_is_pulled_elsewhere_with_upstream_down"
    ),
    "docker save -o app.tar registry.example.com/app:v3": (
        "tests/e2e/test_sources.py::test_what_docker_saved_is_pulled_elsewhere_with_upstream_down"
    ),
    TUNNEL: "tests/e2e/docs/test_tunnel.py::test_the_dashboard_is_seen_from_another_machine",
    "docker pull docker.io/library/nginx:1.27": "tests/e2e/test_setup.py::test_docker",
    "systemctl reload docker": "tests/e2e/test_setup.py::test_docker",
    **dict.fromkeys(
        ("systemctl daemon-reload", "systemctl enable --now p2pdist"),
        f"{BOOTED}::test_it_is_started_once_it_serves_and_enabled",
    ),
    **dict.fromkeys(
        ("systemctl status p2pdist", "journalctl -u p2pdist -f"),
        f"{BOOTED}::test_its_state_and_its_log_are_shown_by_the_documented_commands",
    ),
}

# By command: why it cannot be run here, and what is checked in its place.
NOT_HERE = {
    "bin/test": "it is what runs the tests",
    "kubectl apply -k compose/kubernetes/base": KUBERNETES,
    "kubectl apply -k compose/kubernetes/seeding": KUBERNETES,
    "kubectl apply -k compose/kubernetes/remove": KUBERNETES,
    "kubectl delete -k compose/kubernetes/remove": KUBERNETES,
    "kubectl -n p2pdist rollout status daemonset/p2pdist": KUBERNETES,
    "kubectl -n p2pdist exec daemonset/p2pdist -- p2pdist status": KUBERNETES,
}


class Command(NamedTuple):
    """One command, and the page that shows it first."""

    page: str
    line: str


def all_commands() -> list[Command]:
    """Each once, in the order of the pages."""
    found: dict[str, Command] = {}
    for block in blocks("sh", "bash", "shell"):
        for line in commands_in(block.text):
            found.setdefault(line, Command(block.page, line))
    return list(found.values())


def commands_in(text: str) -> list[str]:
    """The commands of a block."""
    joined = re.sub(r" *\\\n *", " ", text)
    lines = (re.sub(r"(^|\s+)#\s.*$", "", line).strip() for line in joined.splitlines())
    return [part for line in lines if line for part in line.split(" && ")]


def to_run() -> list[Command]:
    """Those that no table names."""
    return [command for command in all_commands() if command.line not in ELSEWHERE | NOT_HERE]
