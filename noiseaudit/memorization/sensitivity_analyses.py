"""Which examples move the training loss: a few of them, or all alike; their own class, or all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.memorization.findings import (
    Analysis,
    Curve,
    Finding,
    Matrix,
    judge_effect,
    measure_series,
)
from noiseaudit.memorization.problems import (
    AS_GIVEN,
    RANDOM_INPUTS,
    RANDOM_LABELS,
    Problem,
    give_each_its_class,
    make_controls,
    make_problem,
)
from noiseaudit.memorization.sensitivity import (
    Sensitivities,
    UnrolledSettings,
    class_sensitivity,
    gini,
    loss_sensitivity,
    off_diagonal_share,
)

__all__ = ["SensitivitySettings", "analyze_class_sensitivity", "analyze_sensitivity_gini"]


@dataclass(frozen=True)
class SensitivitySettings:
    """What the loss sensitivity is taken of.

    Attributes:
        size: training examples; 1,000 in the paper.
        side: see `make_problem`; 14 in the paper.
        most_classes: between so many of the most frequent classes, where classes are compared;
            each costs as much as a whole pass by example.
        unrolled: of the training on labels. Of the learning rates 0.1, 0.3, 1 and 3, 0.3 had
            the lowest training loss after 320 updates on MNIST, on given and on random inputs.
        unrolled_alone: of the training with every example a class of its own, which takes longer:
            after 640 updates at 0.3, the best rate again, 11% of the examples were fitted, after
            320 at 0.1 less than 1%.
    """

    size: int = 1000
    side: int | None = 14
    most_classes: int = 10
    unrolled: UnrolledSettings = field(
        default_factory=lambda: UnrolledSettings(moments=(64, 128, 192, 256, 320))
    )
    unrolled_alone: UnrolledSettings = field(
        default_factory=lambda: UnrolledSettings(moments=(160, 320, 480, 640))
    )


def _controls(
    dataset: LabeledDataset, settings: SensitivitySettings, seeds: Sequence[int]
) -> list[dict[str, Problem]]:
    drawn = (
        make_problem(dataset, size=settings.size, validation_size=1, seed=seed, side=settings.side)
        for seed in seeds
    )
    return [make_controls(problem, seed=seed) for problem, seed in zip(drawn, seeds, strict=True)]


def analyze_sensitivity_gini(
    dataset: LabeledDataset,
    settings: SensitivitySettings,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Gini coefficient of the loss sensitivity, with the given labels and with one class each.

    Source: Arpit et al. 2017, section 3.2 and Figure 3.
    """
    controls = _controls(dataset, settings, seeds)

    labelled = {
        condition: loss_sensitivity(
            [control[condition] for control in controls], seeds, settings.unrolled, device=device
        )
        for condition in controls[0]
    }
    unique = {
        condition: loss_sensitivity(
            [give_each_its_class(control[condition]) for control in controls],
            seeds,
            settings.unrolled_alone,
            device=device,
        )
        for condition in (AS_GIVEN, RANDOM_INPUTS)
    }
    return Analysis(
        name="sensitivity_gini",
        title="On real data a few examples matter to what is learned; on noise all matter alike",
        findings=_gini_findings(labelled, unique),
        curves=(
            _gini_curve("given labels or random ones", labelled, settings.unrolled),
            _gini_curve("every example a class of its own", unique, settings.unrolled_alone),
        ),
    )


def _gini_findings(
    labelled: dict[str, Sensitivities], unique: dict[str, Sensitivities]
) -> tuple[Finding, ...]:
    means = {condition: _ginis(found.mean) for condition, found in labelled.items()}
    alone = {condition: _ginis(found.mean) for condition, found in unique.items()}
    direct = {condition: _ginis(found.direct.mean(axis=1)) for condition, found in labelled.items()}
    return (
        *(
            judge_effect(
                f"given against {control}",
                _compare("loss sensitivity", control, means),
                means[AS_GIVEN] - means[control],
            )
            for control in (RANDOM_LABELS, RANDOM_INPUTS)
        ),
        judge_effect(
            "one class per example",
            "Every example a class of its own: "
            + _compare("loss sensitivity", RANDOM_INPUTS, alone),
            alone[AS_GIVEN] - alone[RANDOM_INPUTS],
        ),
        judge_effect(
            "plain input gradients",
            "What an example did to the weights left out: "
            + _compare("input gradients", RANDOM_LABELS, direct),
            direct[AS_GIVEN] - direct[RANDOM_LABELS],
            counts=False,
        ),
    )


def _compare(what: str, control: str, ginis: dict[str, NDArray[np.float64]]) -> str:
    return (
        f"Gini coefficient of the {what}: {ginis[AS_GIVEN].mean():.3f} as given, "
        f"{ginis[control].mean():.3f} with {control}, difference {{effect}} ({{interval}})."
    )


def _ginis(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gini coefficient over the last axis."""
    flat = [gini(row) for row in values.reshape(-1, values.shape[-1])]
    return np.array(flat).reshape(values.shape[:-1])


def _gini_curve(labels: str, found: dict[str, Sensitivities], settings: UnrolledSettings) -> Curve:
    return Curve(
        title=f"Gini coefficient of the loss sensitivity, {labels}",
        x_label="updates",
        y_label="Gini coefficient",
        series=tuple(
            measure_series(condition, settings.moments, _ginis(values.by_moment))
            for condition, values in found.items()
        ),
    )


def analyze_class_sensitivity(
    dataset: LabeledDataset,
    settings: SensitivitySettings,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Analysis:
    """How much the loss of one class depends on the examples of the others.

    Source: Arpit et al. 2017, section 3.3 and Figure 4.
    """
    controls = _controls(dataset, settings, seeds)
    names = list(controls[0])
    problems = [control[condition] for condition in names for control in controls]
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    classes = np.sort(np.argsort(-counts, kind="stable")[: settings.most_classes]).tolist()
    found = class_sensitivity(
        problems, [*seeds] * len(names), settings.unrolled, classes=classes, device=device
    ).reshape(len(names), len(seeds), len(classes), len(classes))
    matrices = dict(zip(names, found, strict=True))
    shares = {
        condition: np.array([off_diagonal_share(matrix) for matrix in found])
        for condition, found in matrices.items()
    }
    findings = tuple(
        judge_effect(
            f"given against {control}",
            f"{shares[AS_GIVEN].mean():.1%} of the loss sensitivity lie between different classes "
            f"as given, {shares[control].mean():.1%} with {control}: a difference of {{effect}} "
            "({interval}).",
            shares[AS_GIVEN] - shares[control],
            counts=control == RANDOM_LABELS,
        )
        for control in (RANDOM_LABELS, RANDOM_INPUTS)
    )
    return Analysis(
        name="class_sensitivity",
        title="On real data classes learn from each other; with random labels each for itself",
        findings=findings,
        curves=(),
        matrices=tuple(
            Matrix(
                title=f"Loss sensitivity between classes, {condition}",
                row_label="class whose loss it is",
                column_label="class of the examples",
                values=tuple(tuple(float(cell) for cell in row) for row in found.mean(axis=0)),
            )
            for condition, found in matrices.items()
        ),
        notes=(
            "Classes in the order of the figures: "
            + ", ".join(dataset.class_names[label] for label in classes)
            + ".",
        ),
    )
