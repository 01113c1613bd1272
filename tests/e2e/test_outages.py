"""Something is down: the upstream, the agent, a peer; the runtime's pull goes on."""

from __future__ import annotations

import pytest

from tests.e2e.agents import Settings
from tests.e2e.lab import Lab, every_runtime, runtimes
from tests.e2e.netlab import CommandError


@every_runtime
def test_upstream_down_and_a_host_that_never_had_it_pulls_from_peers(lab: Lab, runtime: str) -> None:
    image = lab.images.image().at_hub()
    lab.pull("skopeo", 1, image)
    lab.upstream.stop()
    lab.pull(runtime, 2, image)
    if lab.runtime(runtime, 2).runs:
        lab.run(runtime, 2, image)


class TestExpiredTags:
    @pytest.fixture
    def agent_settings(self) -> Settings:
        return {"tags.ttl": "0s"}

    @pytest.mark.parametrize("how", ["stopped", "unreachable"])
    @runtimes("containerd", "docker", "podman")
    def test_an_expired_tag_is_served_while_upstream_is_down(self, lab: Lab, runtime: str, how: str) -> None:
        image = lab.images.image().at_hub()
        lab.pull("skopeo", 1, image)
        if how == "stopped":
            lab.upstream.stop()
        else:
            lab.net.isolate_upstream()
        lab.pull(runtime, 2, image)
        lab.run(runtime, 2, image)

    def test_a_tag_that_moved_is_seen_at_once(self, lab: Lab) -> None:
        before = lab.images.image((2, 1))
        lab.pull("skopeo", 1, before)
        after = lab.images.next_version(before)
        lab.pull("podman", 1, after)
        lab.run("podman", 1, after)


@every_runtime
def test_agent_down_and_the_runtime_falls_back_to_upstream(lab: Lab, runtime: str) -> None:
    lab.agent(1).kill()
    image = lab.images.image((2, 1))
    with lab.watch() as seen:
        lab.pull(runtime, 1, image)
    assert seen.served.by(lab.host(1)).blob_bytes == image.size
    if lab.runtime(runtime, 1).runs:
        lab.run(runtime, 1, image)


@runtimes("containerd", "docker", "podman")
def test_all_peers_down_and_the_agent_goes_on_alone(lab: Lab, runtime: str) -> None:
    image = lab.images.image((2, 1)).at_hub()
    lab.pull("skopeo", 2, image)
    lab.agent(2).kill()
    lab.agent(3).kill()
    with lab.watch() as seen:
        lab.pull(runtime, 1, image)
    assert seen.served.blob_bytes == image.size
    assert lab.agent(1).metrics().value("p2pdist_client_bytes_total") >= image.size


def test_a_peer_that_left_cleanly_costs_nothing(lab: Lab) -> None:
    image = lab.images.image((2, 1))
    lab.pull("skopeo", 1, image)
    lab.pull("skopeo", 3, image)
    assert lab.agent(3).stop() == 0
    with lab.watch() as seen:
        lab.pull("skopeo", 2, image)
    assert seen.served.blob_bytes == 0


@runtimes("containerd", "docker", "podman")
def test_an_image_that_is_nowhere_is_a_clear_error(lab: Lab, runtime: str) -> None:
    image = lab.images.image((1,)).renamed("library/no-such-image:v1")
    with pytest.raises(CommandError, match=r"(?i)not found|unknown|does not exist"):
        lab.pull(runtime, 1, image)
