"""Ridge regression's leave-one-out predictions in closed form, and probabilities from them.

One-hot labels are regressed on features, or on a Gaussian kernel of them, with an intercept that is
not penalised. The prediction of an example by the model fitted to all others is
(f_i - h_i y_i) / (1 - h_i), f the fit and h the leverage; the eigenvectors of one Gram matrix give
it for every regularisation. Features are standardised with all examples, without labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from noiseaudit._rows import spread_rows
from noiseaudit._validation import check_labels, check_same_length
from noiseaudit.errors import DataError, UsageError, check_name
from noiseaudit.ridge_features import RidgeFeatures, Rows, make_features

__all__ = [
    "GRID",
    "KERNELS",
    "LeaveOneOut",
    "check_ridge_options",
    "leave_one_out",
    "probs_of_scores",
]

GRID = tuple(float(value) for value in 10.0 ** np.arange(-4, 4.5, 0.5))
"""Regularisations that are tried."""

KERNELS = ("linear", "rbf")
_LEAST = 1e-6  # below it 1 - h loses the digits that the prediction is made of
_LEAST_WEIGHT = 1e-3  # so that no example is ever the only one
_SAMPLE = 20_000  # examples that probabilities are fitted to
# Logarithms: of a softmax's scale, from even to as good as certain; of the share of random labels.
_BOUNDS = ((-5.0, 5.0), (float(np.log(1e-4)), float(np.log(0.5))))
_START = (1.5, -2.0)
_RANK_TOLERANCE = 1e-12  # of the largest eigenvalue: what is below is rounding


@dataclass(frozen=True, eq=False)
class LeaveOneOut:
    """Predictions for each of n examples by the ridge regression that was fitted to all others.

    Attributes:
        scores: (n, k) float64, of the one-hot labels: mostly in [0, 1], rows sum to 1.
        leverage: (n,) float64 in [0, 1), the weight of an example in its own fit.
        regularisation: chosen, or as asked for.
        errors: by regularisation tried, the mean squared error of the predictions.
        weights: (n,) float64 in [0, 1], of the examples in the fit.
    """

    scores: NDArray[np.float64]
    leverage: NDArray[np.float64]
    regularisation: float
    errors: dict[float, float]
    weights: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """A weighted fit's leverage w (1 / sum w + z' diag(1 / (s + penalty)) z), for every penalty.

    `rows` gives blocks of z, (b, r); `values` are s, (r,) > 0; `moments` (r, k) is Z' W Y and
    `centre` (k,) the mean of Y; `unit` is the mean squared distance from the features' mean.
    """

    blocks: list[slice]
    rows: Rows
    values: NDArray[np.float64]
    moments: NDArray[np.float64]
    centre: NDArray[np.float64]
    weights: NDArray[np.float64]
    unit: float


def check_ridge_options(kernel: str, regularisation: float | None, rounds: int) -> None:
    """Check options of `leave_one_out`.

    Raises:
        UsageError: naming the one that cannot be.
    """
    check_name(kernel, KERNELS, "kernel")
    if regularisation is not None and not _LEAST <= regularisation < float("inf"):
        raise UsageError(
            f"regularisation must be at least {_LEAST:g} and finite, or None for one that is "
            f"chosen; got {regularisation}"
        )
    if rounds < 0:
        raise UsageError(f"rounds must be at least 0; got {rounds}")


def leave_one_out(
    features: NDArray[Any],
    labels: NDArray[np.int64],
    num_classes: int,
    *,
    kernel: Literal["linear", "rbf"] = "rbf",
    regularisation: float | None = None,
    rounds: int = 1,
    landmarks: int = 1000,
) -> LeaveOneOut:
    """What ridge regression predicts for each example when fitted to all others.

    Exact: what n fits would give, to rounding. The Gaussian kernel is exp(-||x - x'||^2 / b), b the
    median of the squared distances; beyond `landmarks` examples it is that of Nystroem features,
    for which the predictions are again exact.

    In a further round every example weighs as much as its given label is likely, relative to the
    likeliest one, by the held-out probabilities of the round before: wrong labels mislead the fit
    less. Predictions stay exact for these weights; those of others depend a little on the label
    that is left out.

    Cost per round: n d^2 multiplications ("linear"; where n <= d, n^2 d and n^3) or n m^2 ("rbf",
    of m landmarks; and n d m once), two or three times, in float64 blocks. Memory: a few times
    8 min(n, d)^2 or 8 m^2 bytes, and 4 n m.

    Args:
        features: (n, d) finite numbers, float32 as a rule; may be memory-mapped.
        labels: (n,) integers in [0, k): given labels.
        num_classes: k.
        kernel: "linear" or "rbf".
        regularisation: penalty on squared weights, in units of the examples' mean squared distance
            from their centre; None for that of `GRID` with the least squared error, left out, of
            the given labels in the first round.
        rounds: of refitting with weights.
        landmarks: examples, evenly spaced, that a kernel's features are made of.

    Raises:
        DataError: for fewer than two examples, lengths that differ or values that are not finite.
        UsageError: for an option that cannot be, or a linear kernel of more than 20,000 examples
            with at least as many features.
    """
    check_ridge_options(kernel, regularisation, rounds)
    if landmarks < 1:
        raise UsageError(f"landmarks must be at least 1; got {landmarks}")
    n = check_same_length(labels=labels, features=features)
    labels = check_labels(labels, num_classes)
    if features.ndim != 2:
        raise DataError(f"features must have shape (n, d); got {features.shape}")
    if n < 2:
        raise DataError(f"leave-one-out predictions take at least 2 examples; got {n}")
    made = make_features(features, kernel, landmarks)
    found = _fit(made, labels, num_classes, np.ones(n), regularisation)
    for _ in range(rounds):
        probs = probs_of_scores(found.scores, labels).astype(np.float64)
        weights = np.maximum(probs[np.arange(n), labels] / probs.max(axis=1), _LEAST_WEIGHT)
        found = _fit(made, labels, num_classes, weights, found.regularisation, found.errors)
    return found


def _fit(
    features: RidgeFeatures,
    labels: NDArray[np.int64],
    num_classes: int,
    weights: NDArray[np.float64],
    regularisation: float | None,
    errors: dict[float, float] | None = None,
) -> LeaveOneOut:
    targets = np.zeros((features.n, num_classes), np.float32)
    targets[np.arange(features.n), labels] = 1
    decompose = _decompose_rows if features.gram is None else _decompose_gram
    spectrum = decompose(features, targets, weights)
    if regularisation is None:
        tried = _predict(spectrum, targets, GRID)[0]
        errors = dict(zip(GRID, tried.tolist(), strict=True))
        regularisation = min(errors, key=lambda value: errors[value])
    error, leverage, scores = _predict(spectrum, targets, (regularisation,))
    return LeaveOneOut(
        scores, leverage, regularisation, errors or {regularisation: float(error[0])}, weights
    )


def _decompose_rows(
    features: RidgeFeatures, targets: NDArray[np.float32], weights: NDArray[np.float64]
) -> _Spectrum:
    """By the (d, d) matrix of weighted, centred second moments."""
    total, d = weights.sum(), features.width
    mean, second = np.zeros(d), np.zeros((d, d))
    moments = np.zeros((d, targets.shape[1]))
    for block in features.blocks():
        part = features.rows(block)
        weighted = part * weights[block, None]
        mean += weighted.sum(axis=0) / total
        moments += weighted.T @ targets[block]
        part *= np.sqrt(weights[block, None])
        second += part.T @ part  # one matrix with itself: half the work
    centre = weights @ targets / total
    second -= total * np.outer(mean, mean)
    moments -= np.outer(mean, total * centre)
    basis = np.eye(d) if features.whitening is None else features.whitening
    if features.whitening is not None:
        second = basis.T @ second @ basis
    values, vectors = np.linalg.eigh(second)
    kept = values > _RANK_TOLERANCE * max(values[-1], 0.0)
    basis = basis @ vectors[:, kept]
    return _Spectrum(
        features.blocks(), lambda block: (features.rows(block) - mean) @ basis, values[kept],
        basis.T @ moments, centre, weights, float(np.trace(second) / total),
    )  # fmt: skip


def _decompose_gram(
    features: RidgeFeatures, targets: NDArray[np.float32], weights: NDArray[np.float64]
) -> _Spectrum:
    """By the (n, n) matrix of inner products: the dual form."""
    gram, total = features.gram, weights.sum()
    if gram is None:
        raise TypeError("these features have rows, not a Gram matrix")
    means = gram @ weights / total
    gram = gram - means[:, None] - means + weights @ means / total
    root = np.sqrt(weights)
    values, vectors = np.linalg.eigh(gram * root[:, None] * root)
    kept = values > _RANK_TOLERANCE * max(values[-1], 0.0)
    rows = gram @ (vectors[:, kept] * root[:, None]) / np.sqrt(values[kept])
    return _Spectrum(
        features.blocks(), lambda block: rows[block], values[kept],
        rows.T @ (weights[:, None] * targets), weights @ targets / total,
        weights, float(weights @ np.diag(gram) / total),
    )  # fmt: skip


def _predict(
    spectrum: _Spectrum, targets: NDArray[np.float32], tried: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean squared errors of all regularisations; leverage and predictions of the last."""
    weights, total = spectrum.weights, spectrum.weights.sum()
    errors = np.zeros(len(tried))
    leverage, scores = np.empty(len(targets)), np.empty(targets.shape)
    for block in spectrum.blocks:
        rows, given = spectrum.rows(block), targets[block]
        squares, own = np.square(rows), weights[block]
        for number, value in enumerate(tried):
            inverse = 1 / (spectrum.values + value * spectrum.unit)
            h = own * (1 / total + squares @ inverse)
            fit = spectrum.centre + rows @ (inverse[:, None] * spectrum.moments)
            left_out = (fit - h[:, None] * given) / (1 - h)[:, None]
            errors[number] += own @ np.square(left_out - given).sum(axis=1)
        leverage[block], scores[block] = h, left_out
    return errors / (total * targets.shape[1]), leverage, scores


def probs_of_scores(
    scores: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    of: Literal["given", "right"] = "given",
) -> NDArray[np.float32]:
    """(n, k) float32 probabilities of the given labels: (1 - e) softmax(t s) + e / k.

    The two numbers t and e are those under which the given labels are likeliest, of 20,000
    examples. Without e, the share of labels that may as well be drawn at random, a few wrong ones
    make t small and every probability too even: with 10% and 20% of labels wrong, cleanlab's
    `find_label_issues` finds them better with it. Of scores that are left out the probabilities are
    out-of-sample, as cleanlab takes them for `pred_probs`; the order of classes stays.

    Args:
        scores: (n, k), of `leave_one_out`.
        labels: (n,) int64 given labels.
        of: "right" leaves out the share e of labels drawn at random: softmax(t s).
    """
    k = scores.shape[1]
    some = spread_rows(len(scores), _SAMPLE)
    sample, given = scores[some], scores[some, labels[some]]

    def mean_loss(numbers: NDArray[np.float64]) -> float:
        scale, floor = np.exp(numbers)
        log_probs = scale * given - logsumexp(scale * sample, axis=1)
        return -float(np.logaddexp(np.log1p(-floor) + log_probs, np.log(floor / k)).mean())

    found = minimize(mean_loss, _START, bounds=_BOUNDS, method="Nelder-Mead")
    scale, floor = np.exp(found.x)
    probs = softmax(scale * scores, axis=1)
    if of == "given":
        probs = (1 - floor) * probs + floor / k
    return np.asarray(probs, np.float32)
