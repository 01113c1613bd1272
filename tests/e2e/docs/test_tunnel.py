"""The dashboard of a host on another machine, by the documents' SSH command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.docs.hour import Hour
from tests.e2e.docs.machines import Machine
from tests.e2e.netlab import CommandError
from tests.e2e.programs import Program
from tests.unit.docs.commands import TUNNEL

KEY = "/root/.ssh/id_ed25519"
# As a distribution has it, but without what an own host name, PAM and a terminal would bring in.
SSHD = (
    "/usr/sbin/sshd -D -e -f /dev/null -o HostKey=/etc/ssh/test_key -o PidFile=none -o UsePAM=no "
    "-o PermitRootLogin=prohibit-password -o StrictModes=no"
)


@pytest.fixture
def desk(hour: Hour, wheels: Path) -> Iterator[Machine]:
    """Somebody's own machine, which runs no agent and may log in to host-1."""
    machine = Machine(hour.lab, 3, wheels)
    try:
        machine.sh(f"install -d -m 700 /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f {KEY}")
        machine.write("/root/.ssh/config", "StrictHostKeyChecking accept-new\n")
        yield machine
    finally:
        machine.close()


@pytest.fixture
def server(hour: Hour, desk: Machine) -> Iterator[Program]:
    """host-1 takes that machine's key."""
    host = hour.machine(1)
    host.sh("install -d -m 700 /root/.ssh; install -d -m 755 /run/sshd /etc/ssh; rm -f /etc/ssh/test_key")
    host.sh("ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/test_key")
    host.write("/root/.ssh/authorized_keys", desk.sh(f"cat {KEY}.pub"))
    program = Program(host.host, "sshd", host._shell(f"exec {SSHD}"))
    program.start()
    try:
        program.wait(lambda: answers(desk, "ssh -o BatchMode=yes host-1 true"))
        yield program
    finally:
        program.stop()


def answers(machine: Machine, script: str) -> bool:
    try:
        machine.sh(script, seconds=10)
    except CommandError:
        return False
    return True


def test_the_dashboard_is_seen_from_another_machine(hour: Hour, desk: Machine, server: Program) -> None:
    ask = "curl --fail --silent http://127.0.0.1:5052/api/v1/status"
    assert not answers(desk, ask)
    tunnel = Program(desk.host, "ssh", desk._shell(f"exec {TUNNEL}"))
    tunnel.start()
    try:
        tunnel.wait(lambda: answers(desk, ask))
        assert json.loads(desk.sh(ask))["name"] == "host-1"
        assert "<title>" in desk.sh("curl --fail --silent http://127.0.0.1:5052/")
    finally:
        tunnel.stop()
