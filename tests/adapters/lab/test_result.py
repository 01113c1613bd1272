"""Results: the ideal time, percentiles, what was expected and missed, and the table."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.registry import read_log
from tests.lab.result import COLUMNS, Result, ideal_seconds, percentile, row, table, unmet
from tests.lab.scenario import Expect

RESULT = Result(
    name="crowd", system="p2pdist", hosts=8, rate=200, size=256 * 1024**2, pieces=512, goodput=25e6, ideal=10.0,
    makespan=11.5, p50=10.5, p99=11.5, first_byte_p50=0.1, copies=1.01, wire_copies=1.02, blob_requests=300,
    manifest_requests=1, received=8 * 256 * 1024**2, cpu=6.0, cpu_per_gb=2.8, peak_rss=100 * 1024**2, busy=1.5,
)  # fmt: skip


def test_the_ideal_is_one_copy_and_a_piece_for_each_doubling() -> None:
    assert ideal_seconds(1000, 100, 1, 10) == 10.0
    assert ideal_seconds(1000, 100, 8, 10) == pytest.approx(13.0)
    assert ideal_seconds(1000, 100, 15, 10) == pytest.approx(13.0)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values_and_enough_are_below(values: list[float], share: float) -> None:
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def test_of_nothing_there_is_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))


def test_what_is_met_is_not_spoken_of_and_what_is_missed_is_named() -> None:
    assert unmet(RESULT, Expect(copies=1.02, ratio=1.2, cpu_per_gb=3, rss_mib=200)) == []
    assert unmet(RESULT, Expect()) == []

    missed = unmet(dataclasses.replace(RESULT, failed=1), Expect(copies=1.0, ratio=1.1))

    assert [line.partition(":")[0] for line in missed] == ["copies", "makespan / T*", "failed pulls"]


def test_a_figure_that_is_not_a_number_does_not_meet_what_was_expected() -> None:
    nothing = dataclasses.replace(RESULT, makespan=float("nan"))

    assert unmet(nothing, Expect(ratio=1.1)) != []


def test_the_record_is_json_and_has_null_for_what_is_no_number() -> None:
    record = json.loads(json.dumps(dataclasses.replace(RESULT, p50=float("nan")).record(), allow_nan=False))

    assert record["p50"] is None
    assert record["ratio"] == pytest.approx(1.15)


def test_the_table_has_a_cell_for_each_column() -> None:
    lines = table(COLUMNS, [row(RESULT), row(dataclasses.replace(RESULT, ideal=float("nan")))]).splitlines()

    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1


def test_a_registry_log_is_summed_up() -> None:
    when = "[24/Nov/2026:00:01:29 +0000]"
    lines = [
        f'10.77.0.7 - - {when} "HEAD /v2/a/manifests/v1 HTTP/1.1" 200 863 "" "x"',
        f'10.77.0.7 - - {when} "GET /v2/a/manifests/sha256:00 HTTP/1.1" 200 863 "" "x"',
        f'10.77.0.7 - - {when} "GET /v2/a/blobs/sha256:11 HTTP/1.1" 206 1000 "" "x"',
        f'10.77.0.8 - - {when} "GET /v2/a/blobs/sha256:11 HTTP/1.1" 200 234 "" "x"',
        f'10.77.0.8 - - {when} "HEAD /v2/a/blobs/sha256:11 HTTP/1.1" 200 9999 "" "x"',
        f'10.77.0.8 - - {when} "GET /v2/a/blobs/sha256:22 HTTP/1.1" 404 157 "" "x"',
        f'10.77.0.8 - - {when} "GET /v2/ HTTP/1.1" 200 2 "" "x"',
        'time="2026" level=error msg="GET /v2/a/blobs/ is no request"',
    ]

    sent = read_log(lines)

    assert (sent.blob_bytes, sent.blob_requests, sent.manifest_requests, sent.failed) == (1234, 3, 2, 1)
