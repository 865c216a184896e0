"""What an analysis found: effects with intervals over seeds, and what figures are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit.errors import DataError

__all__ = [
    "SIGNIFICANCE",
    "Analysis",
    "Curve",
    "Direction",
    "Finding",
    "Matrix",
    "Series",
    "judge_effect",
    "measure_series",
]

SIGNIFICANCE = 0.05
"""Largest one-sided p-value at which a finding counts as reproduced."""

_COVERAGE = 0.95

Direction = Literal["above", "below"]


@dataclass(frozen=True)
class Finding:
    """One published statement and what was measured of it here.

    Attributes:
        name: short, unique within its analysis.
        statement: a plain sentence with the figures filled in.
        effect: mean over the seeds, geometric for ratios; None where nothing could be measured.
        interval: 95% interval of the mean over seeds (Student's t); None with fewer than two.
        null: the effect if the statement were false.
        direction: on which side of `null` the published effect lies.
        p_value: one-sided, of a t-test over seeds against `null`; None with fewer than two.
        per_seed: the effect of each seed; None where it could not be measured.
        reproduced: whether p_value is at most 0.05; never with fewer than two seeds.
        counts: whether the analysis' verdict depends on it.
    """

    name: str
    statement: str
    effect: float | None
    interval: tuple[float, float] | None
    null: float
    direction: Direction
    p_value: float | None
    per_seed: tuple[float | None, ...]
    reproduced: bool
    counts: bool = True

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Finding:
        """A finding from what `Analysis.to_dict` made of it."""
        interval = value["interval"]
        return cls(
            **{
                **value,
                "interval": None if interval is None else (interval[0], interval[1]),
                "per_seed": tuple(value["per_seed"]),
            }
        )


@dataclass(frozen=True)
class Series:
    """One line of a figure: the mean over seeds at each x, and its 95% interval.

    Attributes:
        label: the condition.
        x: p numbers.
        mean: p numbers; None where not measured.
        low: p lower ends; None with fewer than two seeds.
        high: p upper ends, likewise.
    """

    label: str
    x: tuple[float, ...]
    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]


@dataclass(frozen=True)
class Curve:
    """A figure of lines.

    Attributes:
        title: what it shows.
        x_label: name of the x axis, with its unit.
        y_label: name of the y axis, with its unit.
        series: the lines.
        is_log_x: whether x is better drawn on a logarithmic axis.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    is_log_x: bool = False


@dataclass(frozen=True)
class Matrix:
    """A figure of a matrix of non-negative numbers, row by row."""

    title: str
    row_label: str
    column_label: str
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Analysis:
    """The result of one analysis: JSON by `to_dict`, back by `from_dict`.

    Attributes:
        name: as in `profile.ANALYSES`.
        title: the published statement, in plain words.
        findings: its parts.
        curves: figures of lines.
        matrices: figures of matrices.
        notes: choices made on the way, as plain sentences.
        seconds: how long it took; 0 where not measured.
    """

    name: str
    title: str
    findings: tuple[Finding, ...]
    curves: tuple[Curve, ...]
    matrices: tuple[Matrix, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def reproduced(self) -> bool:
        """Whether every part that counts was reproduced."""
        return all(finding.reproduced for finding in self.findings if finding.counts)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: finite numbers, texts, lists and None."""
        return asdict(self) | {"reproduced": self.reproduced}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Analysis:
        """An analysis from what `to_dict` made of it, before or after JSON.

        Raises:
            DataError: if something is missing or unknown.
        """
        try:
            return cls(
                name=value["name"],
                title=value["title"],
                findings=tuple(Finding.from_dict(finding) for finding in value["findings"]),
                curves=tuple(_curve(curve) for curve in value["curves"]),
                matrices=tuple(
                    Matrix(**{**matrix, "values": tuple(map(tuple, matrix["values"]))})
                    for matrix in value["matrices"]
                ),
                notes=tuple(value["notes"]),
                seconds=float(value["seconds"]),
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"this is no stored memorisation analysis: {error}") from error


def _curve(value: Mapping[str, Any]) -> Curve:
    series = tuple(
        Series(
            label=line["label"],
            **{name: tuple(line[name]) for name in ("x", "mean", "low", "high")},
        )
        for line in value["series"]
    )
    return Curve(**{**value, "series": series})


def judge_effect(
    name: str,
    statement: str,
    per_seed: ArrayLike,
    *,
    null: float = 0.0,
    direction: Direction = "above",
    is_ratio: bool = False,
    counts: bool = True,
) -> Finding:
    """Test whether an effect lies on the published side of `null`, over seeds.

    Args:
        name: of the finding.
        statement: with `{effect}` and `{interval}` where their figures go.
        per_seed: (s,) the effect of each seed; NaN where it could not be measured.
        null: the effect if the statement were false.
        direction: the published side.
        is_ratio: whether means and tests are of logarithms; values are then positive.
        counts: whether the analysis' verdict depends on it.
    """
    values = np.asarray(per_seed, dtype=np.float64)
    known = values[np.isfinite(values) & ((values > 0) | (not is_ratio))]
    moved = np.log(known) if is_ratio else known
    origin = math.log(null) if is_ratio else null
    back = math.exp if is_ratio else float
    effect = back(float(moved.mean())) if len(known) else None
    low, high = (float(end) for end in _interval(moved[None])[:, 0])
    interval = (back(low), back(high)) if len(known) > 1 else None
    p_value = _p_value(moved - origin if direction == "above" else origin - moved)
    told = "" if interval is None else f"95% interval {_figure(interval[0])} to "
    told += "one seed" if interval is None else _figure(interval[1])
    return Finding(
        name=name,
        statement=statement.format(effect=_figure(effect), interval=told),
        effect=effect,
        interval=interval,
        null=null,
        direction=direction,
        p_value=p_value,
        per_seed=tuple(float(value) if np.isfinite(value) else None for value in values),
        reproduced=p_value is not None and p_value <= SIGNIFICANCE,
        counts=counts,
    )


def _figure(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.3g}"


def _p_value(above: NDArray[np.float64]) -> float | None:
    """One-sided p-value of the mean being above 0."""
    from scipy import stats

    if len(above) < 2:
        return None
    if np.ptp(above) <= 1e-12 * np.abs(above).max():
        # Seeds that agree exactly leave no deviation for a t-test: the sign test's value.
        return float(0.5 ** len(above)) if above[0] > 0 else 1.0
    return float(stats.ttest_1samp(above, 0.0, alternative="greater").pvalue)


def _interval(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """95% interval of the mean of each row, (2, p); NaN with fewer than two values."""
    from scipy import stats

    count = values.shape[1]
    if count < 2:
        return np.full((2, len(values)), np.nan)
    mean = values.mean(axis=1)
    error = values.std(axis=1, ddof=1) / math.sqrt(count)
    half = float(stats.t.ppf((1 + _COVERAGE) / 2, count - 1)) * error
    return np.stack([mean - half, mean + half])


def measure_series(label: str, x: Sequence[float], per_seed: ArrayLike) -> Series:
    """A line of a figure from (s, p) values: their mean over seeds and its interval."""
    values = np.asarray(per_seed, dtype=np.float64)
    low, high = _interval(values.T)
    return Series(
        label,
        tuple(float(place) for place in x),
        _plain(values.mean(axis=0)),
        _plain(low),
        _plain(high),
    )


def _plain(values: NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(float(value) if np.isfinite(value) else None for value in values)
