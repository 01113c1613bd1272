"""The ring of samples behind the dashboard's chart."""

from __future__ import annotations

from p2pdist.telemetry.history import History
from p2pdist.telemetry.metrics import Metrics


def test_samples_are_the_totals_of_the_counters() -> None:
    metrics, history = Metrics(["docker.io"], "1"), History()
    metrics.on_delivered("docker.io", "peer", 5)
    metrics.on_delivered("elsewhere.example", "store", 7)
    metrics.on_delivered("docker.io", "upstream", 2)
    metrics.received("upstream", 9)
    metrics.received("peer", 11)
    metrics.sent_to_peer(13)
    history.add(100.04, metrics.totals())
    told = history.after()
    assert dict(zip(told["fields"], told["samples"][0], strict=True)) == {
        "number": 0, "time": 100.0, "store": 7, "peer": 5, "upstream": 2,
        "received_peer": 11, "received_upstream": 9, "sent_peer": 13,
    }  # fmt: skip
    rows = {row["registry"]: row for row in metrics.by_registry()}
    assert rows == {
        "docker.io": {"registry": "docker.io", "store": 0, "peer": 5, "upstream": 2},
        "other": {"registry": "other", "store": 7, "peer": 0, "upstream": 0},
    }


def test_the_ring_is_bounded_and_forgets_the_oldest() -> None:
    history, totals = History(5.0, capacity=3), Metrics([], "1").totals()
    assert (history.last, history.after()["samples"]) == (-1, [])
    for time in range(5):
        history.add(float(time), totals)
        assert history.last == time
    assert [row[0] for row in history.after()["samples"]] == [2, 3, 4]
    assert [row[0] for row in history.after(3)["samples"]] == [4]
    assert history.after(4)["samples"] == []
    assert (history.after()["interval"], history.after()["capacity"]) == (5.0, 3)
