"""How complex the decision surface becomes as labels are learned, or memorised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import UsageError
from noiseaudit.memorization.critical import PUBLISHED_RADIUS, LangevinSearch, find_critical
from noiseaudit.memorization.findings import (
    Analysis,
    Curve,
    Finding,
    judge_effect,
    measure_series,
)
from noiseaudit.memorization.networks import Networks, apply_network
from noiseaudit.memorization.problems import (
    AS_GIVEN,
    RANDOM_INPUTS,
    RANDOM_LABELS,
    Problem,
    make_problem,
    name_share,
    randomize_inputs,
    randomize_labels,
)
from noiseaudit.memorization.training import TrainingSettings, train_networks
from noiseaudit.seeding import derive_seed

__all__ = [
    "CriticalSettings",
    "analyze_critical_samples",
    "calibrate_radius",
]

_LADDER = range(-4, 13)  # doublings of the published radius that are tried


@dataclass(frozen=True)
class CriticalSettings:
    """How networks are trained and searched.

    Attributes:
        size: training examples.
        validation_size: examples that are searched; the same, as given, in every condition.
        side: see `make_problem`.
        shares: of labels that are randomised, from 0 to 1.
        epochs: after which epochs is searched; the last is when training ends and findings are.
        training: its `epochs` is replaced by the last of `epochs`.
        radius: of the search, in pixels in [0, 1] or features' deviations; None calibrates it.
        wanted: critical ratio as given at which a calibrated radius is accepted.
        max_iterations: of the search: of the critical examples that 100 steps found on MNIST, 10
            found 97% or more.

    Raises:
        UsageError: if shares 0 and 1 are not there, or there is no epoch.
    """

    size: int = 1000
    validation_size: int = 500
    side: int | None = 14
    shares: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    epochs: tuple[int, ...] = (0, 1, 2, 4, 8, 16, 40)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    radius: float | None = None
    wanted: float = 0.05
    max_iterations: int = 10

    def __post_init__(self) -> None:
        if not {0.0, 1.0} <= set(self.shares):
            raise UsageError(f"shares must have 0 and 1 among them; got {self.shares}")
        if not self.epochs or self.epochs[-1] < 1:
            raise UsageError(f"epochs must end with at least 1; got {self.epochs}")


def calibrate_radius(
    networks: Networks, problem: Problem, *, wanted: float, max_iterations: int, seed: int
) -> float:
    """The first doubling of the published radius at which a network's critical ratio is `wanted`.

    The published 0.3/255 is too small to see much: of the validation examples of two layers of 256
    units trained for 40 epochs on 1,000 MNIST digits of 14 x 14 pixels, 2% were critical at it, 7%
    at 4 times and 25% at 16 times; with random labels 13%, 50% and 97%.
    """
    model = apply_network(networks, 0)
    inputs = torch.from_numpy(problem.validation_inputs).to(networks[0])
    for doubling in _LADDER:
        radius = PUBLISHED_RADIUS * 2.0**doubling
        search = _search(problem, radius, max_iterations)
        if find_critical(model, inputs, seed=seed, search=search).ratio >= wanted:
            break
    return radius


def _search(problem: Problem, radius: float, max_iterations: int) -> LangevinSearch:
    return LangevinSearch(radius=radius, scale=1 / problem.deviation, max_iterations=max_iterations)


def analyze_critical_samples(
    dataset: LabeledDataset,
    settings: CriticalSettings,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Critical sample ratio of the validation examples over training, by share of random labels.

    A calibrated radius comes from a network with a seed of its own, trained as given; all seeds and
    conditions use the same radius.

    Source: Arpit et al. 2017, section 4 and Figures 7 to 9.
    """
    names = [name_share(share) for share in settings.shares] + [RANDOM_INPUTS]
    training = replace(settings.training, epochs=settings.epochs[-1])
    radius = settings.radius
    if radius is None:
        radius = _pilot_radius(dataset, settings, training, device)
    problems: list[Problem] = []
    for seed in seeds:
        problem = _draw(dataset, settings, seed)
        problems += [randomize_labels(problem, share, seed=seed) for share in settings.shares]
        problems.append(randomize_inputs(problem, 1.0, seed=seed))
    ratios = np.full((len(problems), len(settings.epochs)), np.nan)

    def watch(epoch: int, networks: Networks) -> None:
        if epoch not in settings.epochs:
            return
        for i, problem in enumerate(problems):
            inputs = torch.from_numpy(problem.validation_inputs).to(networks[0])
            search = _search(problem, radius, settings.max_iterations)
            # The same noise in all conditions of a seed.
            own = seeds[i // len(names)]
            found = find_critical(apply_network(networks, i), inputs, seed=own, search=search)
            ratios[i, settings.epochs.index(epoch)] = found.ratio

    repeated = [seed for seed in seeds for _ in names]
    record = train_networks(problems, repeated, training, device=device, watch=watch)
    shape = (len(seeds), len(names), -1)
    return _critical_analysis(
        settings,
        dict(zip(names, ratios.reshape(shape).swapaxes(0, 1), strict=True)),
        dict(zip(names, record.train_accuracy.reshape(shape).swapaxes(0, 1), strict=True)),
        radius,
    )


def _draw(dataset: LabeledDataset, settings: CriticalSettings, seed: int) -> Problem:
    return make_problem(
        dataset,
        size=settings.size,
        validation_size=settings.validation_size,
        seed=seed,
        side=settings.side,
    )


def _pilot_radius(
    dataset: LabeledDataset,
    settings: CriticalSettings,
    training: TrainingSettings,
    device: torch.device | str,
) -> float:
    pilot = derive_seed(0, "critical-radius")
    problem = _draw(dataset, settings, pilot)
    record = train_networks([problem], [pilot], training, device=device)
    return calibrate_radius(
        record.networks,
        problem,
        wanted=settings.wanted,
        max_iterations=settings.max_iterations,
        seed=pilot,
    )


def _critical_analysis(
    settings: CriticalSettings,
    ratios: dict[str, NDArray[np.float64]],
    fits: dict[str, NDArray[np.float64]],
    radius: float,
) -> Analysis:
    by_share = np.stack([ratios[name_share(share)][:, -1] for share in settings.shares], axis=1)
    return Analysis(
        name="critical_samples",
        title="The more noise is fitted, the nearer every example is to a decision boundary",
        findings=_critical_findings(settings, ratios, by_share),
        curves=(
            Curve(
                title="Critical sample ratio of the validation examples over training",
                x_label="epoch",
                y_label="critical sample ratio",
                series=tuple(
                    measure_series(name, settings.epochs, rows) for name, rows in ratios.items()
                ),
            ),
            Curve(
                title="Critical sample ratio against the share of random labels",
                x_label="share of random labels",
                y_label="critical sample ratio",
                series=(measure_series("at the end of training", settings.shares, by_share),),
            ),
        ),
        notes=(
            f"Radius {radius:.4g} ({radius / PUBLISHED_RADIUS:g} times the published 0.3/255), in "
            "pixels from 0 to 1 or deviations of a feature.",
            "Training accuracy at the end: "
            + ", ".join(f"{name} {rows[:, -1].mean():.3f}" for name, rows in fits.items())
            + ".",
        ),
    )


def _critical_findings(
    settings: CriticalSettings,
    ratios: dict[str, NDArray[np.float64]],
    by_share: NDArray[np.float64],
) -> tuple[Finding, ...]:
    last = {name: rows[:, -1] for name, rows in ratios.items()}
    slopes = [np.polyfit(settings.shares, row, 1)[0] for row in by_share]
    given = last[AS_GIVEN].mean()
    text = (
        "Of the validation examples {given:.1%} are critical as given and {other:.1%} with "
        "{control}: a difference of {{effect}} ({{interval}})."
    )
    first = settings.epochs.index(1) if 1 in settings.epochs else 0
    return (
        *(
            judge_effect(
                f"{control} against given",
                text.format(given=given, other=last[control].mean(), control=control),
                last[control] - last[AS_GIVEN],
            )
            for control in (RANDOM_LABELS, RANDOM_INPUTS)
        ),
        judge_effect(
            "rise with noise",
            "From no to all labels random, the critical sample ratio changes by {effect} "
            "({interval}).",
            slopes,
        ),
        judge_effect(
            "rise in training, as given",
            f"From epoch {settings.epochs[first]} to {settings.epochs[-1]}, the critical "
            "sample ratio as given changes by {effect} ({interval}).",
            ratios[AS_GIVEN][:, -1] - ratios[AS_GIVEN][:, first],
            counts=False,
        ),
    )
