"""Do the same examples come first in every training? They do where there are patterns to learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.memorization.findings import Analysis, Curve, judge_effect, measure_series
from noiseaudit.memorization.networks import predict
from noiseaudit.memorization.problems import (
    AS_GIVEN,
    RANDOM_INPUTS,
    RANDOM_LABELS,
    make_controls,
    make_problem,
)
from noiseaudit.memorization.training import TrainingSettings, train_networks
from noiseaudit.seeding import derive_seed, generator

__all__ = ["EasyExamplesSettings", "analyze_easy_examples", "spread_over_binomial"]

_CHANCE = 2.0  # a spread of at most twice the binomial's counts as chance
_POINTS = 51


@dataclass(frozen=True)
class EasyExamplesSettings:
    """How many networks, on what.

    Attributes:
        size: training examples.
        initializations: networks for each seed and condition; 100 in the paper.
        side: see `make_problem`.
        training: one epoch, by SGD at 0.01 without momentum as in the paper. Faster training
            memorises within the epoch, and which examples fit then depends on the others: with
            momentum 0.9, random MNIST-like inputs spread 3.4 to 5.6 times the binomial instead of
            1.4.
    """

    size: int = 1000
    initializations: int = 100
    side: int | None = 14
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(epochs=1, learning_rate=0.01, momentum=0.0)
    )


def spread_over_binomial(error_rates: NDArray[np.float64], count: int) -> float:
    """Variance of the examples' error rates over that of equally hard ones; NaN if none or all err.

    With mean rate p over `count` networks, equally hard examples vary by p (1 - p) / count.
    **About 1: no example is easier than another; high: the same examples come first each time.**

    Source: Arpit et al. 2017, section 3.1 and Figure 1.
    """
    mean = error_rates.mean()
    expected = mean * (1 - mean) / count
    return float(error_rates.var() / expected) if expected > 0 else float("nan")


def analyze_easy_examples(
    dataset: LabeledDataset,
    settings: EasyExamplesSettings,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Error rates of training examples after one epoch, over many initialisations and orders.

    Random labels spread a little more than random inputs (1.7 against 1.2 times the binomial on
    MNIST), so that data count as having easy examples only if they spread more than both.

    Source: Arpit et al. 2017, section 3.1 and Figure 1.
    """
    rates: dict[str, list[NDArray[np.float64]]] = {}
    for seed in seeds:
        problem = make_problem(
            dataset, size=settings.size, validation_size=1, seed=seed, side=settings.side
        )
        each = [derive_seed(seed, "initialization", run) for run in range(settings.initializations)]
        for condition, control in make_controls(problem, seed=seed).items():
            record = train_networks([control] * len(each), each, settings.training, device=device)
            wrong = predict(record.networks, control.inputs) != control.labels
            rates.setdefault(condition, []).append(wrong.mean(axis=0))
    return _describe(rates, settings.initializations)


def _describe(rates: dict[str, list[NDArray[np.float64]]], runs: int) -> Analysis:
    """From each seed's error rates by condition."""
    spreads = {
        condition: np.array([spread_over_binomial(rate, runs) for rate in found])
        for condition, found in rates.items()
    }
    return Analysis(
        name="easy_examples",
        title="Real data have easy examples, which every network learns first; noise has none",
        findings=(
            judge_effect(
                "spread on given data",
                "After one epoch, the examples' error rates vary {effect} times as much as those "
                "of examples with random inputs do, both relative to chance ({interval}).",
                spreads[AS_GIVEN] / spreads[RANDOM_INPUTS],
                null=1.0,
                is_ratio=True,
            ),
            judge_effect(
                "spread on random inputs",
                "With random inputs the error rates vary {effect} times as much as by chance "
                f"({{interval}}); below {_CHANCE:g} counts as chance.",
                spreads[RANDOM_INPUTS],
                null=_CHANCE,
                direction="below",
                is_ratio=True,
            ),
            judge_effect(
                "spread over chance",
                "After one epoch, the examples' error rates vary {effect} times as much as by "
                "chance ({interval}).",
                spreads[AS_GIVEN],
                null=1.0,
                is_ratio=True,
                counts=False,
            ),
            judge_effect(
                "given data against random labels",
                "After one epoch, the examples' error rates vary {effect} times as much as with "
                "random labels, both relative to chance ({interval}).",
                spreads[AS_GIVEN] / spreads[RANDOM_LABELS],
                null=1.0,
                is_ratio=True,
            ),
        ),
        curves=(_rates_curve(rates, runs),),
    )


def _rates_curve(rates: dict[str, list[NDArray[np.float64]]], runs: int) -> Curve:
    shares = np.linspace(0, 1, _POINTS)
    lines = [
        measure_series(condition, shares.tolist(), [np.quantile(rate, shares) for rate in found])
        for condition, found in rates.items()
    ]
    chance = [
        generator(0, "binomial-reference", i).binomial(runs, rate.mean(), len(rate)) / runs
        for i, rate in enumerate(rates[RANDOM_INPUTS])
    ]
    reference = measure_series(
        "binomial (mean of random inputs)",
        shares.tolist(),
        [np.quantile(drawn, shares) for drawn in chance],
    )
    return Curve(
        title=f"Error rate of each training example over {runs} networks, one epoch each",
        x_label="share of the examples, from the easiest",
        y_label="share of networks in error",
        series=(*lines, reference),
    )
