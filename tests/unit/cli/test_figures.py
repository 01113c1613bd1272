"""What the demo makes of the counters."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest

from p2pdist.cli.demo.figures import AgentFigures, Figures, judge, parse_metrics, registry_bytes, total

PAGE = """\
# HELP p2pdist_client_bytes_total bytes
# TYPE p2pdist_client_bytes_total counter
p2pdist_client_bytes_total{registry="r.example",source="store"} 0.0
p2pdist_client_bytes_total{registry="r.example",source="peer"} 60.0
p2pdist_client_bytes_total{registry="r.example",source="upstream"} 40.0
p2pdist_client_bytes_total{registry="other",source="upstream"} 0.0
p2pdist_received_bytes_total{source="peer"} 60.0
p2pdist_received_bytes_total{source="upstream"} 4.0e+01
p2pdist_sent_bytes_total{to="peer"} 30.0
p2pdist_sent_bytes_total{to="client"} 100.0
not a sample
p2pdist_broken{ x
p2pdist_word{} many
"""


def good() -> Figures:
    """Two hosts, 100 bytes of images: each fetched a part from upstream and the rest from the other."""
    one = AgentFigures("a", {"store": 0, "peer": 60, "upstream": 40}, 60, 40, 40, 100)
    other = AgentFigures("b", {"store": 0, "peer": 40, "upstream": 60}, 40, 60, 60, 100)
    return Figures((one, other), upstream_bytes=100, unique_bytes=100, image_bytes=250, seconds=1.0)


def broken(figures: Figures) -> list[int]:
    return [at for at, promise in enumerate(judge(figures)) if not promise.held]


def test_an_agents_page_becomes_figures() -> None:
    figures = AgentFigures.of("a", PAGE, runtime_bytes=100)
    assert figures == AgentFigures("a", {"store": 0, "peer": 60, "upstream": 40}, 60, 40, 30, 100)


def test_labels_are_read_as_prometheus_writes_them() -> None:
    registry = CollectorRegistry()
    Counter("x", "", ["name"], registry=registry).labels('quo"te,a="b"').inc(5)
    samples = parse_metrics(generate_latest(registry).decode())
    assert total(samples, "x_total") == 5
    assert len(next(sample for sample in samples if sample.name == "x_total").labels) == 1


def test_all_promises_hold_when_all_counters_agree() -> None:
    assert broken(good()) == []
    assert good().upstream_copies == 1.0
    assert good().saved == 100


def test_each_promise_can_be_broken() -> None:
    one, other = good().agents
    assert broken(replace(good(), agents=(replace(one, runtime_bytes=99), other))) == [0, 3]
    assert broken(replace(good(), upstream_bytes=126)) == [1, 2]
    assert broken(replace(good(), agents=(replace(one, received_upstream=41), other))) == [2]
    assert broken(replace(good(), agents=(replace(one, client={**one.client, "store": 1}), other))) == [3]
    assert broken(replace(good(), agents=(replace(one, sent_peer=39), other))) == [4]


def test_the_registrys_count_has_blobs_and_manifests() -> None:
    assert registry_bytes({"total_blob_bytes": 90, "manifest_bytes": 10, "requests": {}}) == 100


@given(st.text())
def test_any_page_can_be_read(page: str) -> None:
    for sample in parse_metrics(page):
        assert sample.name
