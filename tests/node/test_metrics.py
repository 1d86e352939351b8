"""Metrics as text: counters, gauges and histograms in Prometheus' format."""

from __future__ import annotations

from cannery.node.metrics import Counter, Gauge, Histogram, SubnetMetrics, render_metrics


def test_the_text_has_one_line_per_number() -> None:
    counter, gauge = Counter("a_total", "A."), Gauge("b", "B.")
    histogram = Histogram("c_seconds", "C.", (0.1, 1.0))
    counter.add(3)
    gauge.set(1.5)
    for value in (0.1, 0.5, 7):
        histogram.observe(value)
    assert render_metrics([counter, gauge, histogram]) == (
        "# HELP a_total A.\n# TYPE a_total counter\na_total 3\n"
        "# HELP b B.\n# TYPE b gauge\nb 1.5\n"
        "# HELP c_seconds C.\n# TYPE c_seconds histogram\n"
        'c_seconds_bucket{le="0.1"} 1\nc_seconds_bucket{le="1"} 2\nc_seconds_bucket{le="+Inf"} 3\n'
        "c_seconds_sum 7.6\nc_seconds_count 3\n"
    )


def test_every_metric_of_a_subnet_has_its_own_name() -> None:
    lines = [line.split()[2] for line in SubnetMetrics().render().splitlines() if line.startswith("# TYPE")]
    assert len(lines) == len(set(lines)) > 10
    assert all(name.startswith("cannery_") for name in lines)
