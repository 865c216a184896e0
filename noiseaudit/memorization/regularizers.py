"""Which regulariser keeps noise from being memorised at the least cost to what is learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import UsageError
from noiseaudit.memorization.findings import (
    Analysis,
    Curve,
    Finding,
    Series,
    judge_effect,
    measure_series,
)
from noiseaudit.memorization.problems import make_problem, randomize_labels
from noiseaudit.memorization.training import Regularization, TrainingSettings, train_networks

__all__ = ["RegularizersSettings", "analyze_regularizers", "lowest_fit"]

_KEPT = np.linspace(0.9, 1.0, 11)  # shares of the unregularised validation accuracy


@dataclass(frozen=True)
class RegularizersSettings:
    """Which strengths of which regularisers.

    Attributes:
        size: training examples.
        validation_size: validation examples, whose labels stay as given.
        side: see `make_problem`.
        strengths: by the name of a `Regularization` attribute, rising; 0 is always there.
            "dropout" and "weight_decay" are needed.
        training: its `regularization` is replaced.

    Raises:
        UsageError: if "dropout" or "weight_decay" is missing.
    """

    size: int = 1000
    validation_size: int = 1000
    side: int | None = 14
    strengths: tuple[tuple[str, tuple[float, ...]], ...] = (
        ("dropout", (0.1, 0.25, 0.4, 0.5, 0.6, 0.75)),
        ("input_dropout", (0.1, 0.25, 0.5, 0.75)),
        ("input_noise", (0.25, 0.5, 1.0, 2.0)),
        ("weight_decay", (0.001, 0.01, 0.015, 0.02, 0.03, 0.05)),
    )
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(hidden=(128, 128), epochs=50)
    )

    def __post_init__(self) -> None:
        names = [name for name, _ in self.strengths]
        if not {"dropout", "weight_decay"} <= set(names):
            raise UsageError(f"strengths need dropout and weight_decay; got {names}")


def lowest_fit(fits: NDArray[np.float64], accuracies: NDArray[np.float64], wanted: float) -> float:
    """Least fit of random labels on a line of points with at least the wanted accuracy.

    Args:
        fits: (p,) training accuracy on random labels, at rising strengths.
        accuracies: (p,) validation accuracy at the same strengths; one is at least `wanted`.
        wanted: an accuracy; the line between neighbouring strengths counts.
    """
    lowest = float(fits[accuracies >= wanted].min())
    pairs = zip(fits[:-1], fits[1:], accuracies[:-1], accuracies[1:], strict=True)
    for fit, next_fit, accuracy, next_accuracy in pairs:
        if (accuracy >= wanted) != (next_accuracy >= wanted):
            part = (wanted - accuracy) / (next_accuracy - accuracy)
            lowest = min(lowest, float(fit + part * (next_fit - fit)))
    return lowest


def analyze_regularizers(
    dataset: LabeledDataset,
    settings: RegularizersSettings,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Final fit of random labels against best validation accuracy on the labels as given.

    Compared at equal validation accuracy: the lowest fit of random labels along a regulariser's
    strengths that keeps at least 90, 91, ..., 100% of the unregularised validation accuracy, on
    average.

    Source: Arpit et al. 2017, section 3.5 and Figures 10 and 11 (there CIFAR-10, by eye).
    """
    measured = _sweep(dataset, settings, seeds, device)
    lowest = {
        name: np.stack(
            [
                [lowest_fit(fits, accuracies, kept * accuracies[0]) for kept in _KEPT]
                for fits, accuracies in zip(*rows, strict=True)
            ]
        )
        for name, rows in measured.items()
    }
    return Analysis(
        name="regularizers",
        title="Dropout keeps networks from memorising noise better than weight decay does",
        findings=_findings(lowest),
        curves=(
            Curve(
                title="Best validation accuracy as given against the fit of random labels",
                x_label="training accuracy on random labels, at the end",
                y_label="best validation accuracy, labels as given",
                series=tuple(
                    replace(
                        measure_series(_words(name), range(fits.shape[1]), accuracies),
                        x=tuple(float(fit) for fit in fits.mean(axis=0)),
                    )
                    for name, (fits, accuracies) in measured.items()
                ),
            ),
            Curve(
                title="Lowest fit of random labels at a kept validation accuracy",
                x_label="share of the unregularised validation accuracy that is kept",
                y_label="training accuracy on random labels",
                series=tuple(
                    measure_series(_words(name), _KEPT.tolist(), rows)
                    for name, rows in lowest.items()
                ),
            ),
            _strength_curve(settings, measured),
        ),
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _sweep(
    dataset: LabeledDataset,
    settings: RegularizersSettings,
    seeds: Sequence[int],
    device: torch.device | str,
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """For each regulariser the final fits and the best accuracies, (s, 1 + strengths)."""
    given = [
        make_problem(
            dataset,
            size=settings.size,
            validation_size=settings.validation_size,
            seed=seed,
            side=settings.side,
        )
        for seed in seeds
    ]
    noise = [
        randomize_labels(problem, 1.0, seed=seed)
        for problem, seed in zip(given, seeds, strict=True)
    ]

    def train(regularization: Regularization) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        training = replace(settings.training, regularization=regularization)
        record = train_networks([*given, *noise], [*seeds, *seeds], training, device=device)
        s = len(seeds)
        return record.train_accuracy[s:, -1], record.validation_accuracy[:s].max(axis=1)

    bare = train(Regularization())
    measured = {}
    for name, strengths in settings.strengths:
        points = [bare, *(train(Regularization(**{name: strength})) for strength in strengths)]
        fits, accuracies = (np.stack(rows, axis=1) for rows in zip(*points, strict=True))
        measured[name] = (fits, accuracies)
    return measured


def _findings(lowest: dict[str, NDArray[np.float64]]) -> tuple[Finding, ...]:
    means = {name: rows.mean(axis=1) for name, rows in lowest.items()}
    others = [name for name in lowest if name not in ("dropout", "weight_decay")]
    return (
        judge_effect(
            "dropout against weight decay",
            f"At equal validation accuracy, {means['dropout'].mean():.1%} of the random labels are "
            f"fitted with dropout and {means['weight_decay'].mean():.1%} with weight decay: "
            "a difference of {effect} ({interval}).",
            means["weight_decay"] - means["dropout"],
        ),
        judge_effect(
            "dropout against weight decay, at no loss",
            f"At no loss of validation accuracy it is {lowest['dropout'][:, -1].mean():.1%} with "
            f"dropout and {lowest['weight_decay'][:, -1].mean():.1%} with weight decay: a "
            "difference of {effect} ({interval}).",
            lowest["weight_decay"][:, -1] - lowest["dropout"][:, -1],
            counts=False,
        ),
        *(
            judge_effect(
                f"{_words(name)} against weight decay",
                f"With {_words(name)} it is {means[name].mean():.1%}, a difference of {{effect}} "
                "({interval}) from weight decay.",
                means["weight_decay"] - means[name],
                counts=False,
            )
            for name in others
        ),
    )


def _strength_curve(
    settings: RegularizersSettings,
    measured: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> Curve:
    series: list[Series] = []
    for name, strengths in settings.strengths:
        fits, accuracies = measured[name]
        places = (0.0, *strengths)
        series.append(measure_series(f"{_words(name)}: fit of random labels", places, fits))
        series.append(measure_series(f"{_words(name)}: validation", places, accuracies))
    return Curve(
        title="Fit of random labels, and validation accuracy as given, by strength",
        x_label="strength",
        y_label="accuracy",
        series=tuple(series),
    )
