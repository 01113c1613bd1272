"""How metric names are found in expressions: a name that is missed would go unchecked."""

from __future__ import annotations

import pytest

from tests.unit.deploy.files import metrics_in


@pytest.mark.parametrize(("expression", "names"), [
    ('sum by (a, b) (rate(x_total{k="v",m=~"$n"}[$__rate_interval])) / y > 0.5', {"x_total", "y"}),
    ('absent(up{job="p2pdist"} == 1)', {"up"}),
    ('p == 0 and on (job, instance) q{what="contacts"}', {"p", "q"}),
    ("job:p:ratio < 0.1 and on (job) count by (job) (up) > 1e6", {"job:p:ratio", "up"}),
    ("m > 400 * 1024", {"m"}),
])  # fmt: skip
def test_the_names_in_an_expression(expression: str, names: set[str]) -> None:
    assert metrics_in(expression) == names
