"""Scenario files: what is sound is read as it stands; what is not is refused with the place named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.run import SCENARIOS
from tests.lab.scenario import Arrival, Fault, Link, ScenarioError, load, parse, size

SMALL: dict[str, Any] = {"hosts": {"count": 4, "rate": 100}, "image": {"layers": ["1MiB"]}}


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_in_the_tree_is_sound(path: Path) -> None:
    scenario = load(path)

    assert scenario.name == path.stem
    assert scenario.title != path.stem
    assert all(fault.at + fault.seconds < scenario.seconds for fault in scenario.faults)


def test_links_are_equal_but_for_those_that_are_named() -> None:
    hosts = {**SMALL["hosts"], "unequal": [{"numbers": [2], "down": 50, "up": 5}]}

    scenario = parse({**SMALL, "hosts": hosts}, "x")

    assert scenario.link(1) == Link(100, 100)
    assert scenario.link(2) == Link(50, 5)
    assert scenario.registry_rate == 100


def test_zones_are_dealt_round_and_one_zone_has_no_label() -> None:
    assert parse(SMALL, "x").zone(3) == ""
    two = parse({**SMALL, "hosts": {**SMALL["hosts"], "zones": 2}}, "x")
    assert [two.zone(n) for n in (1, 2, 3)] == ["z1", "z2", "z1"]


@pytest.mark.parametrize(
    ("arrival", "times"),
    [
        (Arrival(), (0, 0, 0, 0)),
        (Arrival("ramp", over=6), (0, 2, 4, 6)),
        (Arrival("rolling", over=5, batch=2), (0, 0, 5, 5)),
    ],
)
def test_arrival(arrival: Arrival, times: tuple[float, ...]) -> None:
    assert arrival.times(4) == times


def test_a_lone_host_on_a_ramp_starts_at_once() -> None:
    assert Arrival("ramp", over=6).times(1) == (0,)


def test_a_fault_is_read_with_its_hosts() -> None:
    scenario = parse({**SMALL, "faults": [{"at": 2, "kind": "part", "hosts": [1], "others": [2, 3]}]}, "x")

    assert scenario.faults == (Fault(2, "part", (1,), (2, 3)),)


@pytest.mark.parametrize(("text", "expected"), [("64MiB", 67108864), ("1.5kB", 1500), (7, 7)])
def test_sizes(text: str | int, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hosts": {"count": 0}}, "hosts.count"),
        ({"hosts": {"count": 101}}, "hosts.count"),
        ({"hosts": {"count": 2, "colour": 1}}, "hosts.colour"),
        ({"hosts": {"count": 2, "warm": [3]}}, "no host 3"),
        ({"hosts": {"count": 2, "unequal": [{"numbers": [1], "down": 1}]}}, "needs up"),
        ({"hosts": 3}, "hosts must be a table"),
        ({"image": {}}, "image needs layers"),
        ({"image": {"layers": ["12 parsecs"]}}, "12 parsecs"),
        ({"arrival": {"pattern": "wave"}}, "arrival"),
        ({"arrival": {"pattern": "rolling", "batch": 0}}, "batch"),
        ({"faults": [{"at": 1, "kind": "flood"}]}, "flood"),
        ({"faults": [{"kind": "kill"}]}, "faults"),
        ({"faults": [{"at": -1, "kind": "kill"}]}, "negative"),
        ({"faults": [{"at": 1, "kind": "kill", "hosts": [9]}]}, "no host 9"),
        ({"expect": {"copis": 1}}, "expect.copis"),
        ({"seconds": 0}, "seconds"),
        ({"sconds": 1}, "sconds"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        parse({**SMALL, **change}, "x")


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.toml"
    path.write_text("hosts = [")

    with pytest.raises(ScenarioError, match=r"odd\.toml"):
        load(path)
