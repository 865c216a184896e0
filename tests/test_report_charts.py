"""The report's charts: coordinates worked out by hand, gaps, and odd values."""

from __future__ import annotations

import math
import re

import pytest

from noiseaudit.report.charts import histogram, line_chart, sparkline


def test_sparkline_places_0_at_the_foot_and_1_at_the_top():
    # 100 x 40: x from 14 to 95 in two steps of 40.5; y from 34 (p = 0) to 6 (p = 1).
    svg = sparkline((0.0, 0.25, 1.0), title="p", width=100, height=40)
    assert '<polyline class="curve" points="14,34 54.5,27 95,6"/>' in svg
    assert "<desc>3 epochs, from 0.00 to 1.00</desc>" in svg


def test_sparkline_leaves_gaps_and_marks_single_values():
    svg = sparkline((0.5, None, 0.0, 1.0, math.nan), title="p", width=99, height=40)
    # x from 14 to 94 in four steps of 20
    assert svg.count("<polyline") == 1
    assert 'points="54,34 74,6"' in svg
    assert '<circle class="curve-dot" cx="14" cy="20" r="2.5"/>' in svg


@pytest.mark.parametrize("values", [(), (None,), (math.nan, math.inf)])
def test_sparkline_without_values_has_axes_only(values):
    svg = sparkline(values, title="p")
    assert "polyline" not in svg
    assert "circle" not in svg
    assert "no values" in svg


def test_line_chart_runs_from_zero_to_a_round_number():
    # frame: x 60..368, y 188 (foot)..12; greatest 1.9, steps of 0.5, so the top is 2.0
    svg = line_chart((1, 2, 3), (1.9, 1.0, 0.5), title="Loss", y_name="nats")
    assert 'points="60,20.8 214,100 368,144"' in svg
    assert ">2</text>" in svg
    assert ">0.5</text>" in svg
    assert ">epoch</text>" in svg


def test_line_chart_keeps_fixed_limits_and_gaps():
    svg = line_chart((1, 2), (0.5, None), title="A", y_name="accuracy", limits=(0.0, 1.0))
    assert '<circle class="curve-dot" cx="60" cy="100" r="2.5"/>' in svg
    assert "polyline" not in svg


@pytest.mark.parametrize("values", [(), (math.nan,), (math.inf, None), (0.0, 0.0), (-3.0, -1.0)])
def test_line_chart_takes_any_values(values):
    svg = line_chart(tuple(range(1, len(values) + 1)), values, title="L", y_name="y")
    assert not re.search(r'="-?(nan|inf)', svg)


def test_histogram_bars_share_one_axis():
    # bins 60..214..368 less a gap of 1; counts 0..4 on y 188..12, so 44 a count
    svg = histogram((0.0, 1.0, 2.0), (4, 3), (0, 1), title="H", x_name="suspicion")
    assert '<rect class="bar" x="60" y="12" width="153" height="176"/>' in svg
    assert '<rect class="bar" x="214" y="56" width="153" height="132"/>' in svg
    assert '<rect class="bar-issue" x="214" y="144" width="153" height="44"/>' in svg
    assert svg.count("bar-issue") == 1
    assert "<title>1 to 2: 3 examples, 1 look wrong</title>" in svg
    assert "log scale" not in svg


def test_histogram_with_very_uneven_counts_is_logarithmic():
    svg = histogram((0.0, 1.0, 2.0), (5000, 1), (0, 1), title="H", x_name="suspicion")
    assert "examples (log scale)" in svg
    # from 0.5 to 5,000 are four decades of 44 each: a count of 1 is log10(2) * 44 = 13.25 high
    assert '<rect class="bar" x="60" y="12" width="153" height="176"/>' in svg
    assert '<rect class="bar-issue" x="214" y="174.75" width="153" height="13.25"/>' in svg
    assert ">1,000</text>" in svg


@pytest.mark.parametrize(("edges", "counts"), [((), ()), ((1.0, 1.0), (3,)), ((0.0, 1.0), (0,))])
def test_histogram_takes_empty_and_flat_data(edges, counts):
    svg = histogram(edges, counts, (0,) * len(counts), title="H", x_name="x")
    assert svg.startswith("<svg")
    assert "nan" not in svg


def test_chart_texts_are_escaped():
    for svg in (
        sparkline((0.5,), title="<b>&"),
        line_chart((1,), (0.5,), title="<b>&", y_name="<b>&"),
        histogram((0.0, 1.0), (1,), (0,), title="<b>&", x_name="<b>&"),
    ):
        assert "<b>" not in svg
        assert "<title>&lt;b&gt;&amp;</title>" in svg
