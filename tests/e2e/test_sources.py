"""Content that is there already: archives, containerd's own store, and what one host has every other one fetch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from p2pdist.oci.digest import Digest
from p2pdist.testing.images import build_image, write_layout
from p2pdist.testing.layers import build_layer
from tests.e2e.agents import Agent, Settings
from tests.e2e.guard import wait_until
from tests.e2e.images import Pushed
from tests.e2e.lab import Lab
from tests.e2e.netlab import CommandError
from tests.e2e.runtimes import Containerd
from tests.e2e.upstream import HUB


def scratch(lab: Lab, number: int, name: str) -> Path:
    return lab.host(number).directory / name


def test_what_docker_saved_is_pulled_elsewhere_with_upstream_down(lab: Lab) -> None:
    image = lab.images.image((2, 1)).at_hub()
    docker = lab.docker(1)
    docker.pull(image)
    saved = image.renamed(f"library/saved-{image.label}:v1")
    docker.docker("tag", docker.reference(image), docker.reference(saved))
    archive = scratch(lab, 1, f"{image.label}.tar")
    docker.docker("save", "--output", str(archive), docker.reference(saved))
    said = json.loads(lab.agent(1).cli("import", str(archive), "--json"))["images"]
    archive.unlink()
    assert said[0]["references"] == [f"{HUB}/{saved.name}"]
    assert said[0]["sent"] > image.size / 2
    lab.upstream.stop()
    for runtime in ("docker", "podman", "containerd"):
        lab.pull(runtime, 2, saved)
        lab.run(runtime, 2, saved)
    lab.pull("skopeo", 3, saved.renamed(f"library/saved-{image.label}@{said[0]['digest']}"))


def test_an_oci_layout_is_pulled_by_tag_and_digest_with_upstream_down(lab: Lab) -> None:
    layer = build_layer("imported", 300_000, seed=7)
    image = build_image("imported", "v1", [layer])
    layout = scratch(lab, 1, "layout")
    write_layout([image], layout)
    said = lab.agent(1).cli("import", str(layout), "--as", f"{HUB}/library/imported:v2")
    assert str(image.digest) in said
    lab.upstream.stop()
    pushed = Pushed("library/imported:v2", "imported", image.size, 2, image, HUB)
    lab.pull("podman", 2, pushed)
    lab.pull("containerd", 3, pushed.by_digest())


def containerd_content(agent: Agent) -> Path:
    """Where this host's containerd keeps its blobs."""
    return (
        agent.host.directory / "containerd" / "root" / "io.containerd.content.v1.content" / "blobs" / "sha256"
    )


def held_in(content: Path) -> list[Digest]:
    return [Digest("sha256", name) for name in os.listdir(content)]


class TestContainerdContent:
    @pytest.fixture
    def agent_settings(self) -> Settings:
        return {
            "store.containerd_content": "{agent}/../containerd/root/io.containerd.content.v1.content",
        }

    def test_what_containerd_holds_is_seeded_until_it_is_deleted(self, lab: Lab) -> None:
        image = lab.images.image((3, 1))
        containerd = lab.runtime("containerd", 1)
        assert isinstance(containerd, Containerd)
        agent = lab.agent(1)
        containerd._ctr("images", "pull", "--plain-http", image.ref)  # past the agent
        content = containerd_content(agent)  # what tests before this one pulled may be there as well
        assert set(image.image.blobs) <= set(held_in(content))
        lab.cluster.await_metric(
            agent,
            lambda m: m.value("p2pdist_dht_state", what="announced") == len(held_in(content)),
            "announced",
        )
        assert agent.metrics().value("p2pdist_received_bytes_total") == 0
        assert "seeded from its own store" in agent.cli("status")

        lab.upstream.stop()
        lab.pull("podman", 2, image.by_digest())
        lab.run("podman", 2, image.by_digest())
        sent = agent.metrics().value("p2pdist_sent_bytes_total", to="peer")
        assert sent >= image.size
        assert not agent.blob_path(image.biggest.digest).exists()  # without a copy
        assert agent.metrics().value("p2pdist_store_bytes") == 0

        containerd.forget(image)
        wait_until(lambda: image.biggest.digest not in held_in(content), 20, "containerd's clean-up")
        lab.cluster.await_metric(
            agent,
            lambda m: m.value("p2pdist_dht_state", what="announced") == len(held_in(content)),
            "withdrawn",
        )
        lab.agent(2).stop()  # the only other host that has it
        with pytest.raises(CommandError):
            lab.pull("skopeo", 3, image.by_digest())
        lab.cluster.spoil()


def holds_all(lab: Lab, number: int, image: Pushed) -> bool:
    return all(lab.agent(number).blob_path(digest).exists() for digest in image.image.blobs)


class TestEverywhere:
    def test_every_host_has_it_and_upstream_gave_it_once(self, lab: Lab) -> None:
        image = lab.images.image((32, 12))
        lab.net.up.shape(200)
        with lab.watch() as seen:
            said = lab.agent(1).cli("pull", "--everywhere", image.ref)
        assert "is on all of 3 hosts" in said
        assert all(f"\n{name}" in f"\n{said}" for name in ("h1", "h2", "h3"))
        assert all(holds_all(lab, number, image) for number in (1, 2, 3))
        # One copy, and the races of a few pieces, which weigh more the smaller the layers are.
        assert image.size <= seen.served.blob_bytes <= image.size * 1.25
        with lab.watch() as again:
            lab.pull("containerd", 3, image)
        assert again.served.blob_bytes == 0

    def test_a_dead_host_is_told_and_the_others_go_on(self, lab: Lab) -> None:
        image = lab.images.image((2, 1))
        lab.agent(3).freeze()
        with pytest.raises(CommandError, match=r"1 of 3 hosts do not have") as failed:
            lab.agent(1).cli("pull", "--everywhere", image.ref)
        assert f"{lab.host(3).address}:5051: failed" in str(failed.value)
        assert all(holds_all(lab, number, image) for number in (1, 2))

    def test_a_host_of_another_zone_is_left_out(self, lab: Lab) -> None:
        image = lab.images.image((1,))
        with pytest.raises(CommandError, match="no agent is in that zone"):
            lab.agent(1).cli("pull", "--zone", "rack-9", image.ref)
        assert not any(holds_all(lab, number, image) for number in (1, 2, 3))

    def test_an_image_that_is_nowhere_troubles_no_other_host(self, lab: Lab) -> None:
        image = lab.images.image((1,)).renamed("library/no-such-image:v1")
        with pytest.raises(CommandError, match=r"404|not exist"):
            lab.agent(1).cli("pull", "--everywhere", image.ref)


class TestHostsThatRefuse:
    @pytest.fixture
    def agent_settings(self) -> Settings:
        return {"peer.accept_warm_up": "false"}

    def test_they_are_told_with_the_reason(self, lab: Lab) -> None:
        image = lab.images.image((1,))
        with pytest.raises(CommandError, match=r"peer\.accept_warm_up = false") as failed:
            lab.agent(1).cli("pull", "--everywhere", image.ref)
        assert "2 of 3 hosts" in str(failed.value)
        wait_until(lambda: holds_all(lab, 1, image), 10, "the own host's copy")
        assert not holds_all(lab, 2, image)
