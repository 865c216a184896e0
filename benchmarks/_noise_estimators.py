"""Other estimators of the share of wrong labels, calibration, and what labels cannot tell."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.count import num_label_issues
from sklearn.mixture import GaussianMixture

import noiseaudit as na
from noiseaudit.crossval import cross_validate
from noiseaudit.label_noise import flip_by_instance
from noiseaudit.training.plan import make_plan

_BINS = 10
_DRAWS = 100
_DIGIT_MAP = {2: 7, 3: 8, 5: 6, 6: 5, 7: 1}

MAPS = {
    "digits": _DIGIT_MAP,
    "mnist": _DIGIT_MAP,
    "fashion_mnist": {0: 6, 2: 4, 4: 2, 5: 7, 9: 7},
    "cifar10": {9: 1, 2: 0, 4: 7, 3: 5, 5: 3},
    "photos": {0: 1, 2: 3, 4: 5, 5: 4, 6: 7},
}
"""Which class is taken for which other: asymmetric noise."""


def calibration_error(p: np.ndarray, is_so: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width."""
    bins = np.minimum((p * _BINS).astype(int), _BINS - 1)
    return float(np.abs(np.bincount(bins, p - is_so, _BINS)).sum() / len(p))


def likeliest_wrong(
    labels: np.ndarray, probs: np.ndarray, rate: float, is_wrong: np.ndarray
) -> float:
    """Share of wrong labels, by instance noise, that the example has in most draws of that noise.

    Given as many labels of such an example as one likes, the wrong one is the commonest.

    Args:
        labels: (n,) int64, the right ones.
        probs: (n, k), P(class) that the noise is drawn by.
        rate: of the noise.
        is_wrong: (n,) bool, of the draw that is judged.
    """
    often = np.zeros(len(labels))
    for seed in range(1000, 1000 + _DRAWS):  # not those of the noise itself
        often += flip_by_instance(labels, probs, rate, seed=seed) != labels
    return float((often[is_wrong] > _DRAWS / 2).mean())


def other_estimators(
    data: na.LabeledDataset, report: Any, model: str, seed: int, epochs: int | None
) -> dict[str, float]:
    """Rates from out-of-sample probabilities: the report's, or of four folds of its model."""
    probs = report.pred_probs
    if not data.encoder:
        plan = make_plan(data, model=model, seed=seed, threads=1, epochs=epochs)
        with tempfile.TemporaryDirectory() as folder:
            probs = cross_validate(data, plan, Path(folder), folds=4).pred_probs
    return rates_of_probs(probs, data.labels)


def rates_of_probs(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """cleanlab's number of issues, a mixture of log margins, and predictions that differ."""
    n, rows = len(labels), np.arange(len(labels))
    rest = probs.astype(np.float64)
    given = np.log(np.maximum(rest[rows, labels], 1e-12))
    rest[rows, labels] = 0
    margin = (np.log(np.maximum(rest.max(axis=1), 1e-12)) - given)[:, None]
    mixture = GaussianMixture(2, random_state=0).fit(margin)
    high = int(np.argmax(mixture.means_[:, 0]))
    return {
        "cleanlab": num_label_issues(labels, probs) / n,
        "log_margin_mixture": float(mixture.predict_proba(margin)[:, high].mean()),
        "prediction_differs": float((probs.argmax(axis=1) != labels).mean()),
    }
