"""What the mirror does not do, it refuses in words that a person at a runtime's prompt understands."""

from __future__ import annotations

import json

import pytest

from tests.e2e.lab import Lab
from tests.e2e.netlab import CommandError, Reply
from tests.e2e.runtimes import MIRROR


def code(reply: Reply) -> str:
    """The OCI error code of an answer."""
    return str(json.loads(reply.body)["errors"][0]["code"])


def test_docker_push_to_the_mirror_is_refused(lab: Lab) -> None:
    image = lab.images.image((1,))
    docker = lab.docker(1)
    docker.pull(image)
    target = f"{MIRROR}/{image.name}"
    docker.docker("tag", docker.reference(image), target)
    with pytest.raises(CommandError, match=r"(?i)unsupported|read-only|405"):
        docker.docker("push", target)


def test_skopeo_push_to_the_mirror_is_refused(lab: Lab) -> None:
    image = lab.images.image((1,))
    lab.pull("skopeo", 1, image)
    layout = lab.runtime("skopeo", 1).directory / image.label
    with pytest.raises(CommandError, match=r"(?i)unsupported|read-only|405"):
        lab.host(1).run(
            "skopeo",
            "copy",
            "--dest-tls-verify=false",
            f"oci:{layout}:it",
            f"docker://{MIRROR}/docker.io/{image.name}",
        )


def test_a_push_is_answered_405(lab: Lab) -> None:
    reply = lab.agent(1).mirror("POST", "/v2/docker.io/library/app/blobs/uploads/")
    assert (reply.status, code(reply)) == (405, "UNSUPPORTED")
    assert "GET" in reply.headers["allow"]


@pytest.mark.parametrize("way", ["ns", "path"])
def test_a_registry_that_is_not_configured_is_refused(lab: Lab, way: str) -> None:
    path = (
        "/v2/app/x/manifests/v1?ns=evil.example.test"
        if way == "ns"
        else "/v2/evil.example.test/app/x/manifests/v1"
    )
    reply = lab.agent(1).mirror("GET", path)
    assert (reply.status, code(reply)) == (403, "DENIED")
    assert b"evil.example.test" in reply.body


def test_a_stranger_reads_nothing_from_the_peer_port(lab: Lab) -> None:
    image = lab.images.image((1,))
    lab.pull("skopeo", 1, image)
    digest = image.biggest.digest
    for path in (f"/v2/{image.repository}/blobs/{digest}", f"/blobs/{digest}", f"/v1/blobs/{digest}", "/"):
        reply = lab.net.up.request("GET", 5051, path, address=lab.host(1).address)
        assert reply.status in (400, 401, 403, 404)
        assert len(reply.body) < 4096


def test_the_mirror_and_admin_listen_on_loopback_only(lab: Lab) -> None:
    address = lab.host(1).address
    assert lab.net.up.listens(5051, address)
    assert not lab.net.up.listens(5050, address)
    assert not lab.net.up.listens(5052, address)
