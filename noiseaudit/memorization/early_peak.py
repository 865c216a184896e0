"""Are patterns learned before noise is memorised? Then validation accuracy peaks, and falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.memorization.findings import Analysis, Curve, judge_effect, measure_series
from noiseaudit.memorization.problems import make_problem, name_share, randomize_labels
from noiseaudit.memorization.training import TrainingSettings, train_networks

__all__ = ["EarlyPeakSettings", "analyze_early_peak"]


@dataclass(frozen=True)
class EarlyPeakSettings:
    """How long is trained on how much noise.

    Attributes:
        size: training examples.
        validation_size: validation examples, whose labels stay as given.
        side: see `make_problem`.
        shares: of labels that are randomised; with all of them there would be no peak.
        training: `stop_at` says what counts as fitted, `epochs` when to give up.
    """

    size: int = 1000
    validation_size: int = 1000
    side: int | None = 14
    shares: tuple[float, ...] = (0.2, 0.4, 0.6)
    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(epochs=150, stop_at=1.0)
    )


def analyze_early_peak(
    dataset: LabeledDataset,
    settings: EarlyPeakSettings,
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
) -> Analysis:
    """Does validation accuracy peak before noisy labels are fitted, and then fall?

    A peak is above the end by construction; the fall is therefore compared with that on the labels
    as given, found in the same way. Networks that have not fitted at the last epoch count as having
    fitted then.

    Source: Arpit et al. 2017, section 4 and Figure 7.
    """
    shares = (0.0, *settings.shares)
    problems = []
    for seed in seeds:
        problem = make_problem(
            dataset,
            size=settings.size,
            validation_size=settings.validation_size,
            seed=seed,
            side=settings.side,
        )
        problems += [randomize_labels(problem, share, seed=seed) for share in shares]
    repeated = [seed for seed in seeds for _ in shares]
    record = train_networks(problems, repeated, settings.training, device=device)
    shape = (len(seeds), len(shares))
    held_out = record.validation_accuracy.reshape(*shape, -1)
    fitted = np.where(
        np.isnan(record.epochs_to_fit), settings.training.epochs, record.epochs_to_fit
    ).reshape(shape)
    return _describe(shares, record.train_accuracy.reshape(*shape, -1), held_out, fitted)


def _describe(
    shares: Sequence[float],
    train: NDArray[np.float64],
    held_out: NDArray[np.float64],
    fitted: NDArray[np.float64],
) -> Analysis:
    peaks = held_out.argmax(axis=2) + 1
    falls = held_out.max(axis=2) - held_out[:, :, -1]
    means = (values.mean(axis=0) for values in (peaks, fitted, falls))
    told = "; ".join(
        f"{name_share(share)}: peak at epoch {peak:.1f}, fitted at {fit:.1f}, {fall:.1%} lost"
        for share, peak, fit, fall in zip(shares, *means, strict=True)
    )
    return Analysis(
        name="early_peak",
        title="Patterns are learned first: validation accuracy peaks before noise is memorised",
        findings=(
            judge_effect(
                "peak before the fit",
                "With partly random labels, all labels are fitted {effect} times as late as "
                f"validation accuracy peaks ({{interval}}). {told}.",
                np.exp(np.log(fitted / peaks)[:, 1:].mean(axis=1)),
                null=1.0,
                is_ratio=True,
                counts=False,  # a peak never comes after the end
            ),
            judge_effect(
                "fall after the peak",
                "What validation accuracy loses from its peak to the fit, less what it loses as "
                "given, is {effect} ({interval}).",
                falls[:, 1:].mean(axis=1) - falls[:, 0],
            ),
        ),
        curves=(
            _accuracy_curve("Validation accuracy", shares, held_out),
            _accuracy_curve("Training accuracy", shares, train),
        ),
    )


def _accuracy_curve(what: str, shares: Sequence[float], values: NDArray[np.float64]) -> Curve:
    epochs = range(1, values.shape[2] + 1)
    return Curve(
        title=f"{what} over training",
        x_label="epoch",
        y_label=what.lower(),
        series=tuple(
            measure_series(name_share(share), epochs, values[:, i])
            for i, share in enumerate(shares)
        ),
        is_log_x=True,
    )
