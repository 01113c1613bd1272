"""A registry that wants tokens: the agent has the credentials, the runtimes have none."""

from __future__ import annotations

import base64
import json

from tests.e2e import tokenserver
from tests.e2e.lab import Lab, runtimes
from tests.e2e.upstream import PRIVATE, without_port


@runtimes("containerd", "cri", "podman", "skopeo")
def test_credentials_from_the_agents_configuration(lab: Lab, runtime: str) -> None:
    image = lab.images.image((2, 1), private=True)
    with lab.watch() as first:
        lab.pull(runtime, 1, image)
    assert first.served.blob_bytes == image.size
    with lab.watch() as later:
        lab.pull(runtime, 2, image)
    assert later.served.blob_bytes == 0
    if lab.runtime(runtime, 2).runs:
        lab.run(runtime, 2, image)


@runtimes("containerd", "podman")
def test_credentials_from_the_hosts_docker_config(lab: Lab, runtime: str) -> None:
    login = {"auth": base64.b64encode(f"puller:{tokenserver.USERS['puller']}".encode()).decode()}
    file = lab.agent(3).directory / "docker-config.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps({"auths": {PRIVATE: login, without_port(PRIVATE): login}}))
    lab.agent(3).stop()
    lab.cluster.restart(lab.agent(3), {"agent.docker_config": str(file)})
    image = lab.images.image((2, 1), private=True)
    with lab.watch() as seen:
        lab.pull(runtime, 3, image)
    assert seen.served.blob_bytes == image.size
    lab.run(runtime, 3, image)


def test_no_secret_reaches_a_log(lab: Lab) -> None:
    image = lab.images.image((1,), private=True)
    lab.pull("skopeo", 1, image)
    text = lab.agent(1).log_text()
    assert image.repository in text
    for secret in (tokenserver.USERS["puller"], "Bearer ey", lab.cluster.key):
        assert secret not in text
