"""The simulator against closed forms for few hosts, and the planner's promises on modelled links (small, quick ones)."""

from __future__ import annotations

import pytest

from p2pdist.swarm.settings import PlannerSettings
from p2pdist.testing.swarm_scenario import HostLink, Outcome, Scenario, best_makespan
from p2pdist.testing.swarm_simulator import simulate

MIB = 1024 * 1024
RATE = 12_500_000.0


def crowd(
    hosts: int, *, size: int = 16 * MIB, blobs: int = 1, up: float = RATE, down: float = RATE
) -> Scenario:
    return Scenario((size,) * blobs, (HostLink(up, down),) * hosts, RATE)


def took(outcome: Outcome) -> list[float]:
    assert all(finished is not None for finished in outcome.finished)
    return [finished for finished in outcome.finished if finished is not None]


@pytest.mark.parametrize("size", [1, 256 * 1024, 5 * MIB + 3, 16 * MIB])
def test_one_host_takes_the_time_of_its_link(size: int) -> None:
    scenario = crowd(1, size=size)
    outcome = simulate(scenario)
    chunk = scenario.geometry(0).piece / scenario.chunks_per_piece / RATE
    assert size / RATE <= outcome.makespan + chunk
    assert outcome.makespan <= size / RATE + 3 * chunk + 0.1
    assert outcome.messages == 0


def test_a_slow_downlink_bounds_a_lone_host() -> None:
    outcome = simulate(crowd(1, down=RATE / 4))
    assert outcome.makespan == pytest.approx(16 * MIB / (RATE / 4), rel=0.05)


@pytest.mark.parametrize("hosts", [2, 3, 4])
def test_few_equal_hosts_take_hardly_longer_than_one(hosts: int) -> None:
    """The registry's uplink bounds them: S / u, and one copy leaves it."""
    scenario = crowd(hosts)
    outcome = simulate(scenario)
    assert 16 * MIB / RATE <= outcome.makespan <= 1.06 * best_makespan(scenario)
    assert outcome.upstream_copies == pytest.approx(1.0, abs=0.001)


def test_two_hosts_with_half_uplinks_take_hardly_longer_than_one() -> None:
    """Each half of the blob crosses one uplink of u/2: S/2 / (u/2) = S/u; what the first fetched in its head start is
    more than its half of the first pieces."""
    scenario = crowd(2, size=32 * MIB, up=RATE / 2)
    outcome = simulate(scenario)
    assert outcome.makespan <= 1.2 * 32 * MIB / RATE
    assert outcome.upstream_copies <= 1.005


def test_the_same_seed_gives_the_same_outcome_and_others_finish_too() -> None:
    scenario = crowd(40, size=8 * MIB)
    assert simulate(scenario) == simulate(scenario)


def test_four_blobs_over_the_same_links_cost_one_copy_each() -> None:
    scenario = crowd(8, blobs=4)
    outcome = simulate(scenario)
    assert outcome.makespan <= 1.06 * best_makespan(scenario)
    assert outcome.upstream_copies == pytest.approx(1.0, abs=0.005)


@pytest.mark.parametrize("place", range(8))
def test_one_slow_uplink_slows_the_others_by_what_noticing_takes(place: int) -> None:
    """That, and what it had fetched by then: decisions 0013 and 0017."""
    links = [HostLink(RATE, RATE)] * 8
    links[place] = HostLink(RATE / 10, RATE)
    outcome = simulate(Scenario((32 * MIB,), tuple(links), RATE))
    assert max(took(outcome)) <= 1.85 * 32 * MIB / RATE
    assert outcome.upstream_copies <= 1.02


@pytest.mark.parametrize("place", range(8))
def test_one_slow_downlink_hardly_holds_the_others_up(place: int) -> None:
    """The ring is closed past it, and what it was to fetch is fetched once more: decisions 0013 and 0017."""
    links = [HostLink(RATE, RATE)] * 8
    links[place] = HostLink(RATE, RATE / 10)
    outcome = simulate(Scenario((64 * MIB,), tuple(links), RATE))
    times = took(outcome)
    slow = times.pop(place)
    assert max(times) <= 1.45 * 64 * MIB / RATE
    assert slow <= 2.15 * 64 * MIB / (RATE / 10)
    assert outcome.upstream_copies <= 1.13


@pytest.mark.parametrize(("hosts", "most"), [(8, 1.05), (16, 1.08)])
@pytest.mark.parametrize("size", [32 * MIB, 64 * MIB])
def test_one_that_is_two_seconds_ahead_holds_nobody_up(hosts: int, most: float, size: int) -> None:
    """All take what one alone would from when they come; the first is done when they are."""
    links = (HostLink(RATE, RATE), *(HostLink(RATE, RATE, arrives=2.0),) * (hosts - 1))
    outcome = simulate(Scenario((size,), links, RATE))
    first, *others = took(outcome)
    assert max(others) <= most * size / RATE
    assert first <= 2.0 + most * size / RATE
    assert outcome.upstream_copies <= 1.005


def test_one_seed_is_divided_as_upstream_would_be() -> None:
    links = (HostLink(RATE, RATE, holds=True), *(HostLink(RATE, RATE),) * 7)
    outcome = simulate(Scenario((16 * MIB,), links, RATE))
    assert outcome.upstream_bytes == 0
    assert outcome.makespan <= 1.15 * 16 * MIB / RATE


def test_a_seed_that_comes_after_upstream_went_away_completes_all() -> None:
    links = (HostLink(RATE, RATE, arrives=3.0, holds=True), *(HostLink(RATE, RATE),) * 4)
    outcome = simulate(Scenario((16 * MIB,), links, RATE, upstream_ends=0.5))
    assert outcome.gave_up == 0
    assert max(took(outcome)) <= 3.0 + 5.0 + 2 * 16 * MIB / RATE


def test_without_any_source_every_host_gives_up() -> None:
    scenario = Scenario((16 * MIB,), (HostLink(RATE, RATE),) * 3, RATE, upstream_ends=0.0, deadline=60.0)
    outcome = simulate(scenario)
    assert outcome.gave_up == 3
    assert outcome.finished == (None, None, None)


def test_those_who_stay_complete_when_half_of_the_hosts_die() -> None:
    links = (HostLink(RATE, RATE),) * 4 + (HostLink(RATE, RATE, leaves=0.6),) * 4
    outcome = simulate(Scenario((16 * MIB,), links, RATE))
    assert all(finished is not None for finished in outcome.finished[:4])
    assert max(finished or 0.0 for finished in outcome.finished[:4]) <= 3 * 16 * MIB / RATE


def test_a_host_that_comes_late_takes_nothing_from_upstream() -> None:
    links = (HostLink(RATE, RATE), HostLink(RATE, RATE, arrives=5.0))
    outcome = simulate(Scenario((16 * MIB,), links, RATE))
    assert outcome.upstream_copies == pytest.approx(1.0, abs=0.001)
    assert took(outcome)[1] <= 1.2 * 16 * MIB / RATE


def test_bytes_between_zones_are_counted_and_near_neighbours_preferred() -> None:
    links = tuple(HostLink(RATE, RATE, zone="ab"[n % 2]) for n in range(8))
    outcome = simulate(Scenario((16 * MIB,), links, RATE, far_latency=0.005))
    assert 0 < outcome.far_bytes < 8 * 16 * MIB
    assert max(took(outcome)) <= 1.2 * 16 * MIB / RATE


@pytest.mark.parametrize(
    ("hosts", "arc", "most"), [(80, 64, 1.5), (60, 64, 1.5), (60, 16, 1.5), (100, 16, 1.6)]
)
def test_a_crowd_of_several_arcs_takes_hardly_longer_and_one_copy(hosts: int, arc: int, most: float) -> None:
    settings = PlannerSettings(arc=arc)
    scenario = Scenario((32 * MIB,), (HostLink(RATE, RATE),) * hosts, RATE, settings=settings)
    outcome = simulate(scenario)
    assert outcome.upstream_copies <= 1.02
    assert max(took(outcome)) <= most * 32 * MIB / RATE


def test_when_a_third_of_the_hosts_of_many_arcs_die_the_others_complete() -> None:
    links = tuple(
        HostLink(RATE, RATE, leaves=1.0 + index / 40 if index % 3 == 0 else None) for index in range(60)
    )
    outcome = simulate(Scenario((16 * MIB,), links, RATE, settings=PlannerSettings(arc=12)))
    stayed = [finished for index, finished in enumerate(outcome.finished) if index % 3]
    assert all(finished is not None for finished in stayed)
    assert outcome.gave_up == 0


def test_hosts_that_come_one_by_one_into_many_arcs_all_complete() -> None:
    links = tuple(HostLink(RATE, RATE, arrives=index / 20) for index in range(60))
    outcome = simulate(Scenario((32 * MIB,), links, RATE, settings=PlannerSettings(arc=12)))
    assert max(took(outcome)) <= 3 * 32 * MIB / RATE
    assert outcome.upstream_copies <= 1.05


def test_hosts_that_come_one_after_another_take_little_longer_than_alone() -> None:
    """Three seconds apart; each needs the link for 5.4. Before late hosts had rules of their own: the median 1.7."""
    links = tuple(HostLink(RATE, RATE, arrives=3.0 * index) for index in range(8))
    outcome = simulate(Scenario((64 * MIB,), links, RATE))
    times = sorted(took(outcome))
    assert times[4] <= 1.25 * 64 * MIB / RATE
    assert times[-1] <= 1.8 * 64 * MIB / RATE
    assert outcome.upstream_copies <= 1.01
