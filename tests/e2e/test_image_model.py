"""The image model against the real programs: histories and sizes as Docker and Podman print them, and the way back."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest

from p2pdist.cli.docker_words import short_id
from p2pdist.testing.layers import Layer
from tests.e2e.agents import Agent, Settings
from tests.e2e.guard import wait_until
from tests.e2e.images import Pushed
from tests.e2e.lab import Lab
from tests.e2e.netlab import CommandError

# Large enough that what a tar archive adds to its files does not show in three digits.
BASE, OWN = (20, 12), (10,)
DOCKERS_TABLE = r"table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"


def said(text: str) -> list[str]:
    """What was printed, without the blanks at the ends of lines."""
    return [line.rstrip() for line in text.rstrip().splitlines()]


def content(layer: Layer) -> int:
    """What a layer's files hold, which is what Docker counts: a tar archive is larger."""
    assert isinstance(layer.source, bytes)
    with tarfile.open(fileobj=io.BytesIO(layer.source)) as archive:
        return sum(entry.size + len(entry.linkname) for entry in archive)


def digits(count: float, most: int) -> str:
    """A size in decimal units and at most so many digits, as Docker (3) and Podman (4) write them."""
    unit = next(unit for unit in (10**9, 10**6, 10**3, 1) if count >= unit or unit == 1)
    return f"{count / unit:.{most}g}" + {10**9: "GB", 10**6: "MB", 10**3: "kB", 1: "B"}[unit]


@pytest.fixture(scope="module")
def images(whole_lab: Lab) -> tuple[Pushed, Pushed, Pushed]:
    """A base, and two images built from it with one step more each; pulled on host 1 by both runtimes."""
    shop = whole_lab.images
    base = shop.image(BASE, compression="none", flavour="docker").at_hub()
    one, other = (shop.built_on(base, OWN, compression="none", flavour="docker").at_hub() for _ in "ab")
    whole_lab.ready({})
    for name in ("docker", "podman"):
        for image in (base, one, other):
            whole_lab.pull(name, 1, image)
    return base, one, other


class TestBesideTheRuntimes:
    """Uncompressed layers, so that what is stored is what the runtimes unpack."""

    def test_docker_prints_the_same_history(self, lab: Lab, images: tuple[Pushed, ...]) -> None:
        agent, docker = lab.agent(1), lab.docker(1)
        for image in images:
            theirs = docker.docker("history", "--format", DOCKERS_TABLE, docker.reference(image))
            assert said(agent.cli("history", "--format", DOCKERS_TABLE, image.ref)) == said(theirs)
        name, ref = docker.reference(images[1]), images[1].ref
        for form in ("json", "{{json .CreatedBy}}", "{{.ID}}: {{lower .Size}}"):
            theirs = docker.docker("history", "--format", "{{json .}}" if form == "json" else form, name)
            assert said(agent.cli("history", "--format", form, ref)) == said(theirs)
        form = "{{.ID}}|{{.CreatedAt}}|{{.CreatedSince}}|{{.CreatedBy}}|{{.Comment}}"
        plain = ("history", "--no-trunc", "--human=false", "--format", form)
        assert said(agent.cli(*plain, ref)) == said(docker.docker(*plain, name))
        assert said(agent.cli("history", "-q", ref)) == said(docker.docker("history", "-q", name))

    def test_dockers_sizes_are_those_of_the_files_in_the_layers(
        self, lab: Lab, images: tuple[Pushed, ...]
    ) -> None:
        plain = ("history", "--human=false", "--format", "{{.Size}}")
        image = images[1]
        theirs = [int(size) for size in said(lab.docker(1).docker(*plain, lab.docker(1).reference(image)))]
        ours = [int(size) for size in said(lab.agent(1).cli(*plain, image.ref))]
        layers = list(reversed(image.image.layers))
        assert [size for size in theirs if size] == [content(layer) for layer in layers]
        assert [size for size in ours if size] == [layer.size for layer in layers]
        assert [bool(size) for size in ours] == [bool(size) for size in theirs]

    def test_podman_prints_the_same_history_to_the_byte(self, lab: Lab, images: tuple[Pushed, ...]) -> None:
        for image in images:
            told = json.loads(lab.host(1).run("podman", "history", "--format", "json", image.ref))
            ours = json.loads(lab.agent(1).cli("history", "--json", image.ref))["history"]
            assert [(line["created_by"], line["size"]) for line in ours] == [
                (line["CreatedBy"], line["size"]) for line in told
            ]

    def test_docker_counts_the_same_bytes_as_shared(self, lab: Lab, images: tuple[Pushed, ...]) -> None:
        docker = lab.docker(1)
        raw = lab.host(1).run(
            "curl", "-sS", "--unix-socket", str(docker.socket), "http://docker/v1.40/system/df"
        )
        theirs = {tag: image for image in json.loads(raw)["Images"] for tag in image["RepoTags"]}
        usage = _usage(lab.agent(1))
        for image in images:
            told, ours = theirs[docker.reference(image)], usage[image.ref]["layers"]
            shared = [layer for layer in image.image.layers if layer in images[0].image.layers]
            assert told["SharedSize"] == sum(content(layer) for layer in shared)
            assert ours["shared"] == sum(layer.size for layer in shared)
            assert told["Size"] == sum(content(layer) for layer in image.image.layers)
            assert ours["size"] == sum(layer.size for layer in image.image.layers)
        printed = said(docker.docker("system", "df", "-v"))
        shown = said(lab.agent(1).cli("df", "-v"))
        for image in images:
            name, _, tag = docker.reference(image).partition(":")
            row = next(line.split() for line in printed if line.split()[:2] == [name, tag])
            mine = next(line.split() for line in shown if line.startswith(image.ref + " "))
            assert mine[2:5] == row[-4:-1]

    def test_podman_prints_the_same_shared_and_unique_sizes(
        self, lab: Lab, images: tuple[Pushed, ...]
    ) -> None:
        printed = said(lab.host(1).run("podman", "system", "df", "-v"))
        usage = _usage(lab.agent(1))
        for image in images:
            name, _, tag = image.ref.partition(":")
            row = next(line.split() for line in printed if line.split()[:2] == [name, tag])
            ours = usage[image.ref]["layers"]
            assert row[-4:-1] == [digits(ours[key], 4) for key in ("size", "shared", "unique")]

    def test_hosts_that_hold_a_layer_are_counted(self, lab: Lab, images: tuple[Pushed, ...]) -> None:
        base, one, _ = images
        lab.pull("skopeo", 2, base)

        def hosts() -> list[int | None]:
            told = json.loads(lab.agent(1).cli("history", "--json", one.ref))
            return [line["hosts"] for line in told["history"] if line["layer"]]

        wait_until(lambda: hosts() == [1, 2, 2], 30, "every layer found where it is held")
        assert "HOSTS" in said(lab.agent(1).cli("history", one.ref))[0]

    def test_an_update_moves_what_was_said_before(self, lab: Lab, images: tuple[Pushed, ...]) -> None:
        base, one, _ = images
        told = json.loads(lab.agent(1).cli("diff", "--json", base.ref, one.ref))
        assert [layer["digest"] for layer in told["shared"]] == [
            str(layer.digest) for layer in base.image.layers
        ]
        lab.pull("skopeo", 3, base)
        before = lab.agent(3).total("p2pdist_received_bytes_total")
        lab.pull("skopeo", 3, one)
        assert lab.agent(3).total("p2pdist_received_bytes_total") - before == told["moved_bytes"]


def test_an_index_tells_of_the_platforms_that_are_held(lab: Lab) -> None:
    image, agent = lab.images.multi_platform().at_hub(), lab.agent(1)
    lab.pull("skopeo", 1, image)
    told = json.loads(agent.cli("history", "--json", image.ref))
    assert (told["platform"], told["manifest"]) == ("linux/amd64", str(image.image.digest))
    (row,) = json.loads(agent.cli("images", "--json", image.ref))["images"]
    assert (row["platforms"], row["complete"]) == (["linux/amd64"], True)
    with pytest.raises(
        CommandError, match=r"not held here for linux/arm64 \(held: linux/amd64\); 'p2pdist pull"
    ):
        agent.cli("history", "--platform", "linux/arm64", image.ref)
    agent.cli("pull", "--platform", "linux/arm64", image.ref)
    assert said(agent.cli("history", "--platform", "linux/arm64", image.ref))[0].startswith("LAYER")


def _usage(agent: Agent) -> dict[str, Any]:
    """By name, what ``df`` says of each image."""
    told = json.loads(agent.cli("df", "--json"))
    return {name: image for image in told["images"] for name in image["references"]}


class TestRollback:
    @pytest.fixture
    def agent_settings(self) -> Settings:
        return {"tags.ttl": "0s"}

    def test_what_a_tag_pointed_at_can_be_pulled_with_upstream_down(self, lab: Lab) -> None:
        old = lab.images.image((2, 1)).at_hub()
        lab.pull("skopeo", 1, old)
        new = lab.images.next_version(old).at_hub()
        lab.pull("skopeo", 1, new)
        lab.upstream.stop()
        agent = lab.agent(1)
        told = _past(agent, old)
        assert [(each["digest"], each["held"], each["current"]) for each in told] == [
            (str(new.image.digest), True, True),
            (str(old.image.digest), True, False),
        ]
        assert told[0]["resolved_at"] >= told[1]["resolved_at"]
        printed = said(agent.cli("images", "--history", old.ref))
        assert [
            short_id(str(image.image.digest)) in line
            for image, line in zip((new, old), printed[2:4], strict=True)
        ]
        back = old.by_digest()
        for runtime, number in (
            ("podman", 1),
            ("containerd", 2),
        ):  # the host that has it, and one that never had
            lab.pull(runtime, number, back)
            lab.run(runtime, number, back)
        agent.stop()
        lab.cluster.restart(agent)
        assert _past(agent, old) == told

    def test_skopeo_copies_the_old_digest_and_gc_lets_it_go(self, lab: Lab) -> None:
        old = lab.images.image((2, 1)).at_hub()
        lab.pull("skopeo", 1, old)
        new = lab.images.next_version(old).at_hub()
        lab.pull("skopeo", 1, new)
        lab.upstream.stop()
        back, agent = old.by_digest(), lab.agent(1)
        lab.runtime("skopeo", 1).forget(old)
        lab.pull("skopeo", 1, back)
        lab.run("skopeo", 1, back)
        agent.cli("pin", back.ref)
        reclaimable = json.loads(agent.cli("df", "--json"))["reclaimable"]
        assert json.loads(agent.cli("gc", "--json"))["freed"] == reclaimable
        assert _past(agent, old)[1]["held"]
        agent.cli("unpin", back.ref)
        reclaimable = json.loads(agent.cli("df", "--json"))["reclaimable"]
        assert reclaimable > old.biggest.size / 4
        assert json.loads(agent.cli("gc", "--json"))["freed"] == reclaimable
        assert [(each["held"], each["current"]) for each in _past(agent, old)] == [
            (True, True),
            (False, False),
        ]
        with pytest.raises(CommandError, match="does not hold"):
            agent.cli("history", back.ref)


def _past(agent: Agent, image: Pushed) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(agent.cli("images", "--history", "--json", image.ref))["history"]
    return told
