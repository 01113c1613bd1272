"""Peers that die, stall, are cut off or lie in mid-blob, and agents killed in mid-pull: the client sees none of it.

The client is skopeo where nothing else is said: it neither retries nor falls back once a blob has begun, so a pull that
it completes was whole.
"""

from __future__ import annotations

import pytest

from tests.e2e.images import Pushed
from tests.e2e.lab import Lab, runtimes

BIG = (24,)
LINK_MBIT = 60
BEGUN = 8_000_000
MB = 1_000_000


def silence(lab: Lab, number: int, how: str) -> None:
    """Take an agent away from host 2, in one of the ways in which agents go."""
    lab.cluster.spoil()  # host 2 rightly avoids it for a while, and the next case is not about that
    if how == "killed":
        lab.agent(number).kill()
    elif how == "frozen":
        lab.agent(number).freeze()
    else:
        lab.net.part(lab.host(number), lab.host(2))


@pytest.mark.parametrize("how", ["killed", "frozen", "partitioned"])
@runtimes("skopeo")
def test_a_peer_goes_away_in_mid_blob_and_upstream_gives_the_rest(lab: Lab, runtime: str, how: str) -> None:
    image = lab.images.image(BIG)
    lab.pull("skopeo", 1, image)
    lab.host(1).shape(LINK_MBIT)
    with lab.watch() as seen, lab.meanwhile(lambda: lab.pull(runtime, 2, image)) as pulling:
        lab.await_bytes(lab.host(1).sent_bytes, BEGUN, pulling)
        silence(lab, 1, how)
    lab.run(runtime, 2, image)
    # What the peer had delivered is not fetched again: the rest is asked for from the same byte on.
    assert 0 < seen.served.blob_bytes < image.size - BEGUN / 2


@pytest.mark.parametrize("how", ["killed", "frozen"])
@runtimes("containerd", "docker", "podman")
def test_a_peer_goes_away_in_mid_blob_and_another_gives_the_rest(lab: Lab, runtime: str, how: str) -> None:
    image = lab.images.image(BIG).at_hub()
    for number in (1, 3):
        lab.pull("skopeo", number, image)
        lab.host(number).shape(LINK_MBIT)
    lab.upstream.stop()
    with lab.meanwhile(lambda: lab.pull(runtime, 2, image)) as pulling:
        started = {number: lab.host(number).sent_bytes() for number in (1, 3)}
        lab.await_bytes(lab.host(2).received_bytes, BEGUN, pulling)
        giver = max(started, key=lambda number: lab.host(number).sent_bytes() - started[number])
        silence(lab, giver, how)
    lab.run(runtime, 2, image)


@runtimes("containerd", "podman", "skopeo")
def test_a_peer_that_serves_wrong_bytes_is_found_out(lab: Lab, runtime: str) -> None:
    image = lab.images.image((8, 1))
    lab.pull("skopeo", 1, image)
    flip_a_byte(lab, 1, image)
    lab.cluster.spoil()
    lab.pull(runtime, 2, image)
    lab.run(runtime, 2, image)
    assert lab.agent(2).metrics().value("p2pdist_verify_failures_total", source="peer") >= 1
    assert lab.agent(2).metrics().value("p2pdist_peer_bans_total") >= 1


def flip_a_byte(lab: Lab, number: int, image: Pushed) -> None:
    """Corrupt the biggest layer in an agent's store: same size, one byte another."""
    path = lab.agent(number).blob_path(image.biggest.digest)
    path.chmod(0o644)
    with path.open("r+b") as blob:
        blob.seek(image.biggest.size // 2)
        byte = blob.read(1)[0]
        blob.seek(-1, 1)
        blob.write(bytes([byte ^ 1]))


def test_an_agent_killed_in_mid_pull_resumes_where_it_was(lab: Lab) -> None:
    image = lab.images.image((32,))
    blob = f"/v2/{image.repository}/blobs/{image.biggest.digest}?ns=registry.example.test:5000"
    agent = lab.agent(1)
    lab.net.up.shape(LINK_MBIT)
    with lab.watch() as seen:
        with lab.meanwhile(lambda: ignore(agent.mirror("GET", blob)), may_fail=True) as pulling:
            lab.await_bytes(lab.host(1).received_bytes, 24 * MB, pulling)
            agent.kill()
        lab.net.up.unshape()
        lab.cluster.restart(agent)
        lab.pull("containerd", 1, image)
    lab.run("containerd", 1, image)
    # 32 MB, and what was not yet on record or still in the registry's socket at the moment of death; not 56 MB.
    assert seen.served.blob_bytes < 48 * MB


def test_an_agent_that_is_told_to_stop_finishes_what_it_serves(lab: Lab) -> None:
    image = lab.images.image((16,))
    blob = f"/v2/{image.repository}/blobs/{image.biggest.digest}?ns=registry.example.test:5000"
    agent, got = lab.agent(1), bytearray()
    lab.net.up.shape(LINK_MBIT)
    with lab.meanwhile(lambda: got.extend(agent.mirror("GET", blob).body)) as pulling:
        lab.await_bytes(lab.host(1).received_bytes, BEGUN, pulling)
        assert agent.stop() == 0
    assert len(got) == image.biggest.size


def ignore(_: object) -> None:
    """A reply whose content does not matter."""


def test_complete_blobs_survive_a_kill(lab: Lab) -> None:
    image = lab.images.image()
    lab.pull("skopeo", 1, image)
    lab.agent(1).kill()
    lab.cluster.restart(lab.agent(1))
    with lab.watch() as seen:
        lab.pull("containerd", 1, image)
        lab.pull("skopeo", 2, image)
    assert seen.served.blob_bytes == 0
