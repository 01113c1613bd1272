"""The harness itself: what it claims to count, cut, and clean up, it does; and every runtime works without any agent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.guard import NAMESPACES, RECORDS, sweep, wait_until
from tests.e2e.lab import Lab, every_runtime
from tests.e2e.netlab import CommandError

VICTIM = """
import sys, time
from tests.e2e.guard import Run
from tests.e2e.netlab import NetLab
from tests.e2e.programs import Program
run = Run()
net = NetLab(run, 1, [])
Program(net.hosts[0], "sleeper", ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"]).start()
print(run.name, flush=True)
time.sleep(1000)
"""


def test_a_killed_run_is_swept() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, text=True, cwd=root
    ) as victim:
        assert victim.stdout is not None
        name = victim.stdout.readline().strip()
        made = {path.name for path in NAMESPACES.iterdir() if path.name.startswith(f"{name}-")}
        assert made == {f"{name}-sw", f"{name}-up", f"{name}-h1"}
        victim.send_signal(signal.SIGKILL)
    assert any(record.startswith(f"{victim.pid}-") for record in sweep())
    assert not [path for path in NAMESPACES.iterdir() if path.name.startswith(f"{name}-")]
    assert not (Path("/var/tmp") / name).exists()
    assert not list(RECORDS.glob(f"{victim.pid}-*"))


def test_a_living_run_is_not_swept(whole_lab: Lab) -> None:
    sweep()
    assert list(RECORDS.glob(f"{os.getpid()}-*"))
    assert (NAMESPACES / whole_lab.host(1).namespace).exists()


def test_a_partition_cuts_two_hosts_and_heals(whole_lab: Lab) -> None:
    one, up = whole_lab.host(1), whole_lab.net.up
    assert one.listens(5000, up.address)
    whole_lab.net.part(one, up)
    assert not one.listens(5000, up.address)
    assert whole_lab.host(2).listens(5000, up.address)
    whole_lab.net.heal()
    wait_until(lambda: one.listens(5000, up.address), 10, "the partition to heal")


def test_the_upstream_counts_what_it_sends(whole_lab: Lab) -> None:
    image = whole_lab.images.image((1,))
    digest = image.biggest.digest
    with whole_lab.watch() as seen:
        reply = whole_lab.host(1).request(
            "GET", 5000, f"/v2/{image.repository}/blobs/{digest}", address="10.77.0.250"
        )
    assert reply.status == 200
    assert seen.served.blob_bytes == len(reply.body) == image.biggest.size
    assert seen.wire_bytes > image.biggest.size
    assert seen.served.by(whole_lab.host(1)).blob_requests == 1
    assert seen.served.by(whole_lab.host(2)).blob_requests == 0


def test_the_private_registry_refuses_strangers(whole_lab: Lab) -> None:
    image = whole_lab.images.image((1,), private=True)
    with pytest.raises(CommandError, match=r"unauthorized|authentication required"):
        whole_lab.host(1).run("skopeo", "inspect", "--tls-verify=false", f"docker://{image.ref}")


@every_runtime
def test_the_runtime_pulls_and_runs_without_an_agent(whole_lab: Lab, runtime: str) -> None:
    whole_lab.cluster.stop()
    image = whole_lab.images.image((1, 1))
    with whole_lab.watch() as seen:
        whole_lab.pull(runtime, 1, image)
    assert seen.served.blob_bytes == image.size
    if whole_lab.runtime(runtime, 1).runs:
        whole_lab.run(runtime, 1, image)
    whole_lab.runtime(runtime, 1).forget(image)
