"""What is counted, under which names, and that the sums agree."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.telemetry.metrics import SOURCES, Metrics

GHCR = "ghcr.io"


def lines(metrics: Metrics) -> dict[str, float]:
    """Each series of ours with its value."""
    text = metrics.render()[0].decode()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in text.splitlines())
        if name.startswith("p2pdist_")
    }


def test_what_will_be_counted_stands_at_zero_from_the_start() -> None:
    found = lines(Metrics(["docker.io", GHCR], "1.2.3"))
    for registry in ("docker.io", GHCR):
        for source in SOURCES:
            assert found[f'p2pdist_client_bytes_total{{registry="{registry}",source="{source}"}}'] == 0
        assert found[f'p2pdist_saved_bytes_total{{registry="{registry}"}}'] == 0
    for name in (
        'p2pdist_received_bytes_total{source="peer"}',
        'p2pdist_received_bytes_total{source="upstream"}',
        'p2pdist_sent_bytes_total{to="peer"}',
        'p2pdist_sent_bytes_total{to="client"}',
        'p2pdist_verify_failures_total{source="peer"}',
        "p2pdist_store_bytes",
        "p2pdist_store_blobs",
        "p2pdist_peers",
    ):
        assert found[name] == 0
    assert any(name.startswith("p2pdist_build_info") and 'version="1.2.3"' in name for name in found)
    assert not [name for name in found if "_created" in name]


@given(
    deliveries=st.lists(
        st.tuples(
            st.sampled_from(("docker.io", GHCR, "other.test")),
            st.sampled_from(SOURCES),
            st.integers(1, 1 << 40),
        )
    )
)
def test_client_bytes_sent_bytes_and_savings_agree_to_the_byte(
    deliveries: list[tuple[str, str, int]],
) -> None:
    metrics = Metrics(["docker.io", GHCR], "1")
    for delivery in deliveries:
        metrics.on_delivered(*delivery)
    found, totals = lines(metrics), metrics.totals()
    everything = sum(size for _, _, size in deliveries)
    client = {name: value for name, value in found.items() if name.startswith("p2pdist_client_bytes_total")}
    assert sum(client.values()) == everything
    assert found['p2pdist_sent_bytes_total{to="client"}'] == everything
    saved = sum(value for name, value in client.items() if 'source="upstream"' not in name)
    assert (
        sum(value for name, value in found.items() if name.startswith("p2pdist_saved_bytes_total")) == saved
    )
    assert totals["saved_bytes"] == saved
    assert totals["client_bytes"] == {
        source: sum(size for _, each, size in deliveries if each == source) for source in SOURCES
    }
    assert totals["sent_bytes"] == {"client": everything, "peer": 0}


def test_between_agents_and_from_upstream() -> None:
    metrics = Metrics([GHCR], "1")
    metrics.received("peer", 10)
    metrics.received("upstream", 5)
    metrics.received("upstream", 5)
    metrics.sent_to_peer(7)
    metrics.upstream_response(GHCR, "blob", 206)
    metrics.upstream_response(GHCR, "token", "error")
    metrics.verify_failed("peer")
    metrics.banned()
    metrics.peer_refused()
    metrics.peer_busy()
    found = lines(metrics)
    assert metrics.totals()["received_bytes"] == {"peer": 10, "upstream": 10}
    assert found['p2pdist_sent_bytes_total{to="peer"}'] == 7
    assert found['p2pdist_upstream_requests_total{code="206",kind="blob",registry="ghcr.io"}'] == 1
    assert found['p2pdist_upstream_requests_total{code="error",kind="token",registry="ghcr.io"}'] == 1
    assert found['p2pdist_verify_failures_total{source="peer"}'] == 1
    for name in ("peer_bans", "peer_requests_refused", "peer_requests_busy"):
        assert found[f"p2pdist_{name}_total"] == 1


def test_state_is_what_was_set_last() -> None:
    metrics = Metrics([], "1")
    metrics.set_store(committed=100, reserved=5, quota=1000, blobs=3)
    metrics.set_peers(7, banned=1)
    metrics.set_fetches(2)
    metrics.set_dht({"in": 5, "out": 6}, {"contacts": 4})
    metrics.set_store(committed=90, reserved=0, quota=1000, blobs=2)
    found = lines(metrics)
    assert (found["p2pdist_store_bytes"], found["p2pdist_store_blobs"]) == (90, 2)
    assert (found["p2pdist_peers"], found["p2pdist_peers_banned"]) == (7, 1)
    assert found['p2pdist_transfers{kind="fetch"}'] == 2
    assert found['p2pdist_dht_events_total{event="in"}'] == 5
    assert found['p2pdist_dht_state{what="contacts"}'] == 4


def test_bodies_on_their_way_to_runtimes_are_those_begun_and_not_ended() -> None:
    metrics = Metrics([], "1")
    for _ in range(3):
        metrics.on_begun()
    metrics.on_ended()
    assert lines(metrics)['p2pdist_transfers{kind="client"}'] == 2


def test_pull_seconds_is_a_histogram_by_kind_and_source() -> None:
    metrics = Metrics([], "1")
    metrics.on_pulled("blob", "peer", 0.05)
    metrics.on_pulled("blob", "peer", 7.0)
    metrics.on_pulled("blob", "peer", -1.0)
    found = lines(metrics)
    assert found['p2pdist_pull_seconds_count{kind="blob",source="peer"}'] == 3
    assert found['p2pdist_pull_seconds_bucket{kind="blob",le="0.1",source="peer"}'] == 2
    assert found['p2pdist_pull_seconds_sum{kind="blob",source="peer"}'] == 7.05


def test_pulls_by_how_they_ended() -> None:
    metrics = Metrics([], "1")
    found = lines(metrics)
    for kind in ("manifest", "blob"):
        for outcome in ("served", "refused", "failed", "left"):
            assert found[f'p2pdist_pulls_total{{kind="{kind}",outcome="{outcome}"}}'] == 0
    metrics.on_outcome("blob", "failed")
    assert lines(metrics)['p2pdist_pulls_total{kind="blob",outcome="failed"}'] == 1


def test_codes_that_no_standard_knows_are_counted_by_their_class() -> None:
    """A registry, or a proxy before it, must not be able to make a series for each number that it thinks of."""
    metrics = Metrics([GHCR], "1")
    for code in range(100, 600):
        metrics.upstream_response(GHCR, "blob", code)
    codes = {
        match[1]: value
        for name, value in lines(metrics).items()
        if (match := re.match(r'p2pdist_upstream_requests_total\{code="(\w+)"', name))
    }
    assert len(codes) < 80
    assert sum(codes.values()) == 500
    assert {"200", "206", "404", "429", "503", "1xx", "2xx", "3xx", "4xx", "5xx"} <= codes.keys()


@given(text=st.text(max_size=20), code=st.one_of(st.integers(), st.text(max_size=5)))
def test_no_value_from_outside_becomes_a_series(text: str, code: int | str) -> None:
    metrics = Metrics([GHCR], "1")
    before = len(lines(metrics))
    metrics.on_delivered(text, text, 1)
    metrics.on_pulled(text, text, 1.0)
    metrics.received(text, 1)
    metrics.on_outcome(text, text)
    metrics.verify_failed(text)
    metrics.upstream_response(text, text, code)
    many = {f"event{number}": number for number in range(1000)}
    metrics.set_dht(many, many)
    # One registry's three, a histogram, and one each of the others, whatever the text.
    assert len(lines(metrics)) <= before + 9 + 20 + 2 * 64
    assert not re.search(r'code="(?!error|\d\d\d"|\dxx")', metrics.render()[0].decode())


def test_scrapers_choose_the_format_and_the_process_is_there() -> None:
    metrics = Metrics([], "1")
    plain, plain_type = metrics.render("*/*")
    openmetrics, openmetrics_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert plain_type.startswith("text/plain")
    assert openmetrics_type.startswith("application/openmetrics-text")
    assert openmetrics.endswith(b"# EOF\n")
    assert b"process_resident_memory_bytes" in plain


def test_two_agents_in_one_process_count_apart() -> None:
    one, other = Metrics(["r"], "1"), Metrics(["r"], "1")
    one.on_delivered("r", "store", 5)
    assert other.totals()["sent_bytes"] == {"client": 0, "peer": 0}
