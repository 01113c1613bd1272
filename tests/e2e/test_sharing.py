"""What the agents are for: a layer crosses the upstream link once, whatever runtime asks on whatever host."""

from __future__ import annotations

import http.client
import threading
import time

import pytest

from tests.e2e.agents import PEER_TLS, Settings
from tests.e2e.images import Pushed
from tests.e2e.lab import Lab, Watch, every_runtime, runtimes

TTL_SECONDS = 60


def nothing_but_tags(seen: Watch, image: Pushed, seconds: float) -> None:
    """Nothing of the image moved; a tag may have been resolved again for each ttl that passed in the meantime."""
    assert seen.served.blob_bytes == 0
    assert seen.served.blob_requests == 0
    assert seen.served.manifest_requests <= 2 * int(seconds / TTL_SECONDS)
    assert seen.wire_bytes < image.size / 2  # the counter of the wire itself, for what no log tells


@every_runtime
def test_later_hosts_take_layers_from_earlier_ones(lab: Lab, runtime: str) -> None:
    image = lab.images.image()
    lab.start_runtimes(runtime, (1, 2, 3))
    started = time.monotonic()
    with lab.watch() as first:
        lab.pull(runtime, 1, image)
    assert first.served.blob_bytes == image.size
    with lab.watch() as later:
        lab.pull(runtime, 2, image)
        lab.pull(runtime, 3, image)
    nothing_but_tags(later, image, time.monotonic() - started)
    if lab.runtime(runtime, 3).runs:
        lab.run(runtime, 3, image)


@every_runtime
def test_a_host_pulls_again_from_its_own_store(lab: Lab, runtime: str) -> None:
    image = lab.images.image()
    lab.pull(runtime, 1, image)
    lab.runtime(runtime, 1).forget(image)
    peers = lab.cluster.total("p2pdist_received_bytes_total", source="peer")
    with lab.watch() as again:
        lab.pull(runtime, 1, image)
    assert again.served.blob_bytes == 0
    assert lab.cluster.total("p2pdist_received_bytes_total", source="peer") == peers


@runtimes("containerd", "docker", "podman")
def test_an_update_moves_only_the_layers_that_changed(lab: Lab, runtime: str) -> None:
    before = lab.images.image((6, 2, 1), tag="v1")
    lab.pull(runtime, 1, before)
    after = lab.images.next_version(before, tag="v2")
    with lab.watch() as seen:
        lab.pull(runtime, 1, after)
        lab.pull(runtime, 2, after)
    assert seen.served.blob_bytes == after.size - sum(layer.size for layer in before.image.layers[:-1])
    lab.run(runtime, 2, after)


def test_runtimes_that_ask_at_once_share_one_fetch(lab: Lab) -> None:
    names = ("containerd", "podman", "skopeo")
    image = lab.images.image((8, 4))
    for name in names:
        lab.start_runtimes(name, [1])
    failed: list[BaseException] = []

    def pull(name: str) -> None:
        try:
            lab.pull(name, 1, image)
        except BaseException as error:
            failed.append(error)

    lab.net.up.shape(100)
    with lab.watch() as seen:
        threads = [threading.Thread(target=pull, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed, failed[0]
    assert seen.served.blob_bytes == image.size


def test_metrics_agree_with_the_upstream_to_the_byte(lab: Lab) -> None:
    lab.cluster.fresh()
    read = lab.cluster.total
    before = totals(lab)
    with lab.watch() as seen:
        for runtime, number in (("containerd", 1), ("docker", 2), ("podman", 3), ("skopeo", 1)):
            image = lab.images.image((2, 1))
            lab.pull(runtime, number, image)
            lab.pull("skopeo", 1 + number % 3, image)
    moved = {key: value - before[key] for key, value in totals(lab).items()}
    assert moved["upstream"] == seen.served.content_bytes
    assert moved["peer"] == moved["to peer"] > 0
    assert moved["to client"] == moved["client"]
    assert read("p2pdist_upstream_requests_total") > 0
    assert moved["saved"] == moved["client from store"] + moved["client from peer"]


def totals(lab: Lab) -> dict[str, float]:
    """What the agents say they moved, over all of them."""
    read = lab.cluster.total
    return {
        "upstream": read("p2pdist_received_bytes_total", source="upstream"),
        "peer": read("p2pdist_received_bytes_total", source="peer"),
        "to peer": read("p2pdist_sent_bytes_total", to="peer"),
        "to client": read("p2pdist_sent_bytes_total", to="client"),
        "client": read("p2pdist_client_bytes_total"),
        "client from store": read("p2pdist_client_bytes_total", source="store"),
        "client from peer": read("p2pdist_client_bytes_total", source="peer"),
        "saved": read("p2pdist_saved_bytes_total"),
    }


def test_an_image_that_p2pdist_pulled_waits_for_the_runtime(lab: Lab) -> None:
    image = lab.images.image()
    lab.agent(1).cli("pull", image.ref)
    with lab.watch() as seen:
        lab.pull("containerd", 1, image)
        lab.pull("containerd", 2, image)
    assert seen.served.blob_bytes == 0
    lab.run("containerd", 2, image)


class TestPeerTls:
    @pytest.fixture
    def agent_settings(self) -> Settings:
        return PEER_TLS

    @runtimes("containerd", "skopeo")
    def test_layers_are_shared_over_tls_between_peers(self, lab: Lab, runtime: str) -> None:
        image = lab.images.image()
        lab.pull(runtime, 1, image)
        with lab.watch() as seen:
            lab.pull(runtime, 2, image)
        assert seen.served.blob_bytes == 0

    def test_the_peer_port_speaks_nothing_but_tls(self, lab: Lab) -> None:
        with pytest.raises((OSError, http.client.HTTPException)):
            lab.net.up.request("GET", 5051, "/", address=lab.host(1).address)


def test_client_bytes_are_what_a_client_got(lab: Lab) -> None:
    image = lab.images.image((2, 1))
    agent = lab.agent(1)
    before = agent.total("p2pdist_client_bytes_total")
    got = 0
    for path in (f"manifests/{image.tag}", *(f"blobs/{digest}" for digest in image.image.blobs)):
        url = f"/v2/{image.repository}/{path}?ns=registry.example.test:5000"
        reply = agent.mirror("GET", url, {"Accept": image.image.media_type})
        assert reply.status == 200
        got += len(reply.body)
    assert agent.total("p2pdist_client_bytes_total") - before == got


def test_skopeo_reads_an_agents_store_as_an_image_layout(lab: Lab) -> None:
    image = lab.images.image()
    lab.pull("containerd", 1, image)
    target = lab.host(1).directory / "from-store"
    source = f"oci:{lab.agent(1).data / 'store'}:{image.ref}"
    lab.host(1).run("skopeo", "copy", "--quiet", source, f"oci:{target}:it")
    assert (target / "blobs" / "sha256" / image.biggest.digest.hex).stat().st_size == image.biggest.size
