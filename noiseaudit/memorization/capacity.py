"""How many units, and how many epochs, does it take: more of both where labels are noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.memorization.findings import Analysis, Curve, judge_effect, measure_series
from noiseaudit.memorization.problems import (
    AS_GIVEN,
    RANDOM_INPUTS,
    RANDOM_LABELS,
    make_controls,
    make_problem,
    randomize_labels,
    take_first,
)
from noiseaudit.memorization.training import TrainingSettings, train_networks
from noiseaudit.seeding import generator

__all__ = [
    "CapacitySettings",
    "TimeToFitSettings",
    "analyze_capacity",
    "analyze_time_to_fit",
    "capacity_needed",
]

_OF_BEST = 0.99
_DRAWS = 200


@dataclass(frozen=True)
class CapacitySettings:
    """Which widths, on how much noise.

    Attributes:
        size: training examples.
        validation_size: validation examples, whose labels stay as given; many, since accuracies
            are compared to one part in a hundred.
        side: see `make_problem`.
        shares: of labels that are randomised.
        widths: units of each hidden layer, rising.
        layers: hidden layers.
        training: its `hidden` is replaced by each width.
    """

    size: int = 1000
    validation_size: int = 2000
    side: int | None = 14
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6)
    widths: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256, 512)
    layers: int = 2
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(epochs=20))


def capacity_needed(widths: Sequence[int], accuracies: NDArray[np.float64]) -> float:
    """Fewest units with 99% of the best accuracy, between widths on a logarithmic scale."""
    reached = np.maximum.accumulate(accuracies)
    wanted = _OF_BEST * reached[-1]
    first = int(np.argmax(reached >= wanted))
    logs = np.log2(widths)
    if first == 0:
        return float(widths[0])
    below, above = reached[first - 1], reached[first]
    part = (wanted - below) / (above - below)
    return float(2 ** (logs[first - 1] + part * (logs[first] - logs[first - 1])))


def _slope_by_chance(settings: CapacitySettings, best: NDArray[np.float64], examples: int) -> float:
    """Doublings from no to all noise if the curve as given only became lower, and is measured so.

    Args:
        settings: shares and widths.
        best: (shares, widths) validation accuracies; the first share is 0.
        examples: validation examples that each was measured on.
    """
    random = generator(0, "capacity-by-chance")
    curve = best[0]
    expected = []
    for i in range(len(settings.shares)):
        lowered = curve * best[i].max() / curve.max()
        drawn = random.binomial(examples, np.clip(lowered, 0, 1), (_DRAWS, len(curve))) / examples
        expected.append(np.mean([np.log2(capacity_needed(settings.widths, row)) for row in drawn]))
    return float(np.polyfit(settings.shares, expected, 1)[0])


def analyze_capacity(
    dataset: LabeledDataset,
    settings: CapacitySettings,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Best validation accuracy against width, for shares of random labels.

    Source: Arpit et al. 2017, section 3.4 and Figure 5; the best is over the epochs of a training.
    """
    problems = []
    for seed in seeds:
        problem = make_problem(
            dataset,
            size=settings.size,
            validation_size=settings.validation_size,
            seed=seed,
            side=settings.side,
        )
        problems += [randomize_labels(problem, share, seed=seed) for share in settings.shares]
    repeated = [seed for seed in seeds for _ in settings.shares]
    best = np.empty((len(seeds), len(settings.shares), len(settings.widths)))
    for i, width in enumerate(settings.widths):
        training = replace(settings.training, hidden=(width,) * settings.layers)
        record = train_networks(problems, repeated, training, device=device)
        best[:, :, i] = record.validation_accuracy.max(axis=1).reshape(best.shape[:2])
    return _describe_capacity(settings, best, len(problems[0].validation_labels))


def _describe_capacity(
    settings: CapacitySettings, best: NDArray[np.float64], examples: int
) -> Analysis:
    """From best accuracies (s, shares, widths), each on so many validation examples."""
    needed = np.array(
        [[capacity_needed(settings.widths, row) for row in own] for own in best], np.float64
    )
    # One percent of a low accuracy is within the noise of its measurement, and the best of a flat
    # curve then comes late by chance: what that alone would give is taken off.
    slopes = [
        np.polyfit(settings.shares, np.log2(row), 1)[0] - _slope_by_chance(settings, own, examples)
        for row, own in zip(needed, best, strict=True)
    ]
    means = 2 ** np.log2(needed).mean(axis=0)
    told = ", ".join(
        f"{mean:.0f} at {share:.0%}" for mean, share in zip(means, settings.shares, strict=True)
    )
    return Analysis(
        name="capacity",
        title="The more noise in the labels, the more units are needed to generalise",
        findings=(
            judge_effect(
                "capacity against noise",
                f"Hidden units needed for 99% of the best validation accuracy: {told} random "
                "labels; from none to all of them that is {effect} doublings more than by chance "
                "({interval}).",
                slopes,
            ),
        ),
        curves=(
            Curve(
                title="Best validation accuracy against hidden units",
                x_label="units of each hidden layer",
                y_label="best validation accuracy",
                series=tuple(
                    measure_series(f"{share:.0%} random labels", settings.widths, best[:, i])
                    for i, share in enumerate(settings.shares)
                ),
                is_log_x=True,
            ),
            Curve(
                title="Hidden units needed for 99% of the best validation accuracy",
                x_label="share of random labels",
                y_label="units of each hidden layer, log2",
                series=(measure_series("units needed", settings.shares, np.log2(needed)),),
            ),
        ),
    )


@dataclass(frozen=True)
class TimeToFitSettings:
    """Which sizes of training set, and which widths.

    Attributes:
        sizes: numbers of training examples, rising; those that the data set cannot fill are
            replaced by all there is.
        widths: units of each hidden layer, rising, tried on the middle one of `sizes`.
        side: see `make_problem`.
        training: `stop_at` says what counts as fitted, `epochs` when to give up.
    """

    sizes: tuple[int, ...] = (125, 250, 500, 1000, 2000)
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    side: int | None = 14
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(epochs=300, stop_at=1.0)
    )


def analyze_time_to_fit(
    dataset: LabeledDataset,
    settings: TimeToFitSettings,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Epochs until every training label is fitted, against numbers of examples and of units.

    Networks that have not fitted at the last epoch count as having needed all epochs, which makes
    the growth on random labels look smaller than it is.

    Source: Arpit et al. 2017, section 3.4 and Figure 6.
    """
    drawn = [
        make_problem(
            dataset, size=settings.sizes[-1], validation_size=1, seed=seed, side=settings.side
        )
        for seed in seeds
    ]
    available = len(drawn[0].labels)
    sizes = sorted({min(size, available) for size in settings.sizes})

    def epochs_to_fit(size: int, training: TrainingSettings) -> dict[str, NDArray[np.float64]]:
        """(s,) by condition; NaN where not fitted."""
        controls = [
            make_controls(take_first(problem, size), seed=seed)
            for problem, seed in zip(drawn, seeds, strict=True)
        ]
        found = {}
        for condition in (AS_GIVEN, RANDOM_LABELS, RANDOM_INPUTS):
            problems = [control[condition] for control in controls]
            record = train_networks(problems, seeds, training, device=device)
            found[condition] = record.epochs_to_fit
        return found

    layers = len(settings.training.hidden)
    by_size = _by_condition([epochs_to_fit(size, settings.training) for size in sizes])
    by_width = _by_condition(
        [
            epochs_to_fit(
                sizes[len(sizes) // 2], replace(settings.training, hidden=(width,) * layers)
            )
            for width in settings.widths
        ]
    )
    known = [rows for found in (by_size, by_width) for rows in found.values()]
    unfitted = sum(int(np.isnan(rows).sum()) for rows in known)
    most = settings.training.epochs
    filled = [
        {condition: np.where(np.isnan(rows), most, rows) for condition, rows in found.items()}
        for found in (by_size, by_width)
    ]
    analysis = _describe_times(sizes, filled[0])
    curve = _times_curve("hidden units", settings.widths, filled[1])
    note = (
        f"{unfitted} of {sum(rows.size for rows in known)} networks had not fitted after "
        f"{most} epochs and count as if they then had."
    )
    return replace(analysis, curves=(*analysis.curves, curve), notes=(note,))


def _by_condition(
    found: Sequence[Mapping[str, NDArray[np.float64]]],
) -> dict[str, NDArray[np.float64]]:
    """From (s,) by condition at each place to (s, places) by condition."""
    return {name: np.stack([each[name] for each in found], axis=1) for name in found[0]}


def _times_curve(
    what: str, places: Sequence[int], needed: Mapping[str, NDArray[np.float64]]
) -> Curve:
    return Curve(
        title=f"Epochs to fit all training labels, by {what}",
        x_label=what,
        y_label="epochs",
        series=tuple(measure_series(name, places, rows) for name, rows in needed.items()),
        is_log_x=True,
    )


def _describe_times(sizes: Sequence[int], needed: Mapping[str, NDArray[np.float64]]) -> Analysis:
    """From epochs (s, sizes) by condition."""
    growth = {condition: _growth(sizes, rows) for condition, rows in needed.items()}
    ends = {condition: rows[:, [0, -1]].mean(axis=0) for condition, rows in needed.items()}
    told = "; ".join(f"{key} {low:.0f} to {high:.0f}" for key, (low, high) in ends.items())
    return Analysis(
        name="time_to_fit",
        title="Fitting takes ever longer with more random labels, but not with more real data",
        findings=(
            judge_effect(
                "growth with random labels",
                f"Mean epochs to fit {sizes[0]} to {sizes[-1]} examples: {told}. The power of the "
                "number of examples by which they grow, for random labels less as given, is "
                "{effect} ({interval}).",
                growth[RANDOM_LABELS] - growth[AS_GIVEN],
            ),
            judge_effect(
                "growth with random inputs",
                "For random inputs less as given, that power is {effect} ({interval}).",
                growth[RANDOM_INPUTS] - growth[AS_GIVEN],
                counts=False,
            ),
        ),
        curves=(_times_curve("training examples", sizes, needed),),
    )


def _growth(sizes: Sequence[int], epochs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(s,) exponent of epochs ~ size^exponent; NaN with a single size."""
    if len(sizes) < 2:
        return np.full(len(epochs), np.nan)
    return np.array([np.polyfit(np.log(sizes), np.log(row), 1)[0] for row in epochs])
