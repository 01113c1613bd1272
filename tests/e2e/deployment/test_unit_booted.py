"""compose/p2pdist.service, started by a real systemd: ready, locked in, watched, restarted, stopped."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import pytest

from tests.e2e.deployment.machine import Machine
from tests.e2e.guard import wait_until
from tests.e2e.lab import Lab
from tests.unit.deploy.files import COMPOSE, ROOT

LAYER = b"a layer that containerd holds" * 1000
HEX = hashlib.sha256(LAYER).hexdigest()
CONTENT = "/var/lib/containerd/io.containerd.content.v1.content"
MAIN = "$(systemctl show --property=MainPID --value p2pdist)"
# The unit's own times, shorter: what happens is looked at, not how long it is waited for.
QUICK = "[Service]\nRestartSec=100ms\nWatchdogSec=2s\n"


def documented(file: str, heading: str, language: str) -> list[str]:
    """The blocks of a language below a heading of a page, without their indent."""
    section = (ROOT / "docs" / file).read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", section, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in blocks]


@pytest.fixture(scope="module")
def machine(whole_lab: Lab) -> Iterator[Machine]:
    """Set up by the steps of docs/deployment.md; what they install is there, and what they check needs a network."""
    machine = Machine(whole_lab.net.up.run_record)
    machine.write("root/compose/p2pdist.service", (COMPOSE / "p2pdist.service").read_text())
    machine.write("etc/systemd/system/p2pdist.service.d/quick.conf", QUICK)
    install, key, start = documented("deployment.md", "## systemd", "sh")
    (config,) = documented("deployment.md", "## systemd", "toml")
    try:
        machine.start()
        lines = [line for line in install.splitlines() if "pip install" not in line and "venv" not in line]
        machine.sh("\n".join([*lines, *key.splitlines()]))
        machine.write("etc/p2pdist/config.toml", config)
        machine.sh("cd /root\n" + start.replace("p2pdist check\n", ""))
        yield machine
    finally:
        machine.close()


def test_it_is_started_once_it_serves_and_enabled(machine: Machine) -> None:
    assert machine.show("p2pdist", "ActiveState") == "active"
    assert machine.show("p2pdist", "UnitFileState") == "enabled"
    assert machine.sh("curl --silent --fail http://127.0.0.1:5052/readyz")
    assert machine.sh("curl --silent --fail http://127.0.0.1:5050/v2/")
    assert re.search(r"^peer +\S+:5051$", machine.sh("p2pdist status"), re.MULTILINE)
    assert machine.sh("stat --format='%U:%G %a' /var/lib/p2pdist").strip() == "p2pdist:p2pdist 750"


def test_its_state_and_its_log_are_shown_by_the_documented_commands(machine: Machine) -> None:
    (commands,) = documented("operations.md", "## Under systemd", "sh")
    state, log = commands.splitlines()
    assert "active (running)" in machine.sh(f"{state} --no-pager")
    # It follows the log until it is stopped.
    assert "serves: mirror 127.0.0.1:5050" in machine.sh(f"timeout 3 {log} --no-pager || test $? = 124")


def test_it_has_no_right_that_it_does_not_need(machine: Machine) -> None:
    status = dict(
        line.split(":\t", 1) for line in machine.sh(f"cat /proc/{MAIN}/status").splitlines() if ":\t" in line
    )
    assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {"0000000000000000"}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert status["Uid"].split()[0] == machine.sh("id -u p2pdist").strip()


def test_it_is_restarted_when_killed_and_when_it_hangs(machine: Machine) -> None:
    for signal in ("KILL", "STOP"):  # a stopped process does not tell the watchdog that it lives
        before = int(machine.show("p2pdist", "NRestarts"))
        machine.sh(f"kill -{signal} {MAIN}")
        wait_until(
            lambda n=before: (
                int(machine.show("p2pdist", "NRestarts")) > n
                and machine.show("p2pdist", "ActiveState") == "active"
            ),
            30,
            f"the agent to be restarted after SIG{signal}",
        )


def test_a_reload_of_its_configuration_is_a_restart(machine: Machine) -> None:
    before = machine.show("p2pdist", "MainPID")
    machine.sh("systemctl restart p2pdist")
    assert machine.show("p2pdist", "Result") == "success"
    assert machine.show("p2pdist", "MainPID") != before


def test_the_documented_drop_in_lets_it_read_containerds_content(machine: Machine) -> None:
    """As containerd has it: the files are readable by all, in a root that is closed to all but root."""
    machine.write(f"{CONTENT}/blobs/sha256/{HEX}".lstrip("/"), LAYER.decode())
    machine.sh("chmod 0700 /var/lib/containerd")
    (drop_in,) = documented("operations.md", "## Images that are here already", "ini")
    (table,) = documented("operations.md", "## Images that are here already", "toml")
    machine.write("etc/systemd/system/p2pdist.service.d/containerd.conf", drop_in)
    machine.sh(
        f"cat >> /etc/p2pdist/config.toml <<'TOML'\n{table}TOML\nsystemctl daemon-reload\nsystemctl restart p2pdist"
    )
    url = f"http://127.0.0.1:5050/v2/docker.io/library/app/blobs/sha256:{HEX}"
    wait_until(
        lambda: HEX in machine.sh(f"curl --silent {url} | sha256sum"),
        30,
        "the blob of containerd to be served",
    )


def test_it_ends_by_itself_when_stopped(machine: Machine) -> None:
    machine.sh("systemctl stop p2pdist")
    assert machine.show("p2pdist", "Result") == "success"
    assert machine.show("p2pdist", "ExecMainStatus") == "0"
    assert machine.show("p2pdist", "ActiveState") == "inactive"
