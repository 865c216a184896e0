"""What becomes of a true label: class scores and given labels -> which pairs are confused.

A model's class scores s say P(true class | x), softmax(t s), as far as that is calibrated; a
channel T, P(given | true), says what was written down. Both are fitted to the given labels, and the
odds that a label is wrong follow: T knows which mistakes are common, which the scores alone do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, gammaln, log_softmax, logsumexp, softmax

from noiseaudit._rows import spread_rows
from noiseaudit._validation import check_finite, check_labels, check_same_length
from noiseaudit.error_curve import ErrorCurve, fit_error_curve
from noiseaudit.errors import DataError

__all__ = ["LabelChannel", "count_label_channel", "fit_label_channel", "log_of_probs"]

_STEPS = 30  # of expectation and maximisation; the rates move by less than 1% in further ones
_RESCALE = 5  # steps between two fits of the scale
_BOUNDS = (-7.0, 7.0)  # of the logarithm of the scale
_SMOOTHING = 0.5  # examples added to every pair: no pair is impossible
_SCALE_ELEMENTS = 2**20  # scores that one number is fitted to
_TOLERANCE = 1e-3  # of probabilities in float16
_LEAST_PROB = 1e-4  # so that one class that a network rules out does not outweigh all others
_SAMPLE = 20_000  # examples that channel and scale are fitted to
_PAIR_STEPS = 5  # of expectation and maximisation for which pairs are confused
_LEAST_RATE = 1e-4  # of wrong labels in a class
_LOG_CONCENTRATION = (-3.0, 5.0)  # bounds; at the upper all pairs are alike


@dataclass(frozen=True, eq=False)
class LabelChannel:
    """How scores become probabilities and true labels given ones.

    Attributes:
        scale: t > 0, of the scores.
        transition: (k, k) float64, `transition[c, j]` = P(given j | true c); rows sum to 1.
        joint: (k, k) float64 shares of true c and given j among the examples fitted; sums to 1.
        slopes, offsets: the log odds of the likeliest class by softmax(t s), times the slope of
            that class, plus its offset, are calibrated. (k,) float64, or one number for all.
        deviation: standard error of the rate of wrong labels by the error curve, which `rate` is
            near; NaN where that was counted.
    """

    scale: float
    transition: NDArray[np.float64]
    joint: NDArray[np.float64]
    slopes: NDArray[np.float64] | float = 1.0
    offsets: NDArray[np.float64] | float = 0.0
    deviation: float = float("nan")

    @property
    def rate(self) -> float:
        """Share of wrong labels among the examples fitted."""
        return float(1 - np.trace(self.joint))

    def log_odds(
        self, class_scores: ArrayLike, labels: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """How likely each label is wrong rather than right, and the likeliest other class.

        Args:
            class_scores: (n, k) as `fit_label_channel` takes them, of the same kind.
            labels: (n,) int64: given labels, or others that are to be judged.

        Returns:
            (n,) float64 in nats, **higher = more suspicious**: log P(true other) - log P(true y),
            both given the scores and the label y; and (n,) int64 the class that is suggested.

        Raises:
            DataError: for values that are not finite, labels out of range or other shapes.
        """
        scores, labels = _checked(class_scores, labels, len(self.transition))
        rows = np.arange(len(labels))
        log_joint = self._log_probs(scores) + np.log(self.transition.T[labels])
        given = log_joint[rows, labels]
        log_joint[rows, labels] = -np.inf
        return logsumexp(log_joint, axis=1) - given, log_joint.argmax(axis=1).astype(np.int64)

    def probs(self, class_scores: ArrayLike) -> NDArray[np.float64]:
        """(n, k) float64, probabilities of the true class before the label is seen."""
        return np.asarray(np.exp(self._log_probs(np.asarray(class_scores, np.float64))))

    def prob_wrong(self, class_scores: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
        """(n,) float64 in [0, 1], of these odds: too high wherever a model errs with confidence."""
        return np.asarray(expit(self.log_odds(class_scores, labels)[0]), np.float64)

    def _log_probs(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        return _log_probs(_stated(self.scale * scores), self.slopes, self.offsets)


def fit_label_channel(class_scores: ArrayLike, labels: ArrayLike) -> LabelChannel:
    """The calibration of the scores, and which labels become which.

    A free channel takes what the model confuses for what was written down wrong. So it serves for
    the scale alone; slopes, offsets and how many labels of a class are wrong are then fitted by how
    predictions and labels differ the surer the model is (`error_curve`, where the predicted class
    is taken for the true one), and last which other class is given for a wrong label. Those shares
    have a Dirichlet prior of one number, the likeliest: where all pairs are confused alike, they
    come out alike.

    Cost: 35 passes over 20,000 x k numbers and some more over a million: about a second for 10
    classes, a minute for 1,000. Memory: a few times 160,000 k bytes.
    Source: Goldberger & Ben-Reuven, ICLR 2017 (a noise layer, by expectation and maximisation), on
    scores that stay as they are; calibration, rates and prior are our own.

    Args:
        class_scores: (n, k) float, k at least 2: logits, logarithms of probabilities or one-hot
            regressions; held-out, or averaged over training, so that they do not just repeat the
            given label.
        labels: (n,) int64 in [0, k), given labels.

    Raises:
        DataError: for fewer than two classes or no examples, values that are not finite, labels out
            of range or lengths that differ.
    """
    scores, labels = _checked(class_scores, labels)
    if not len(labels):
        raise DataError("a label channel takes at least one example; got none")
    if len(labels) > _SAMPLE:
        some = spread_rows(len(labels), _SAMPLE)
        scores, labels = scores[some], labels[some]
    order = np.argsort(labels, kind="stable")
    scores, labels = scores[order], labels[order]
    k = scores.shape[1]
    transition = np.full((k, k), 0.1 / (k - 1))
    np.fill_diagonal(transition, 0.9)
    scale = _fit_scale(scores, labels, transition)
    for step in range(_STEPS):
        posterior = softmax(scale * scores + np.log(transition.T[labels]), axis=1)
        counts = _joint_counts(posterior, labels)
        smoothed = counts + _SMOOTHING
        transition = smoothed / smoothed.sum(axis=1, keepdims=True)
        if step % _RESCALE == 0:
            scale = _fit_scale(scores, labels, transition)
    parts = _stated(scale * scores)
    curve = fit_error_curve(parts.odds, parts.predicted, labels, k)
    probs = np.exp(_log_probs(parts, curve.slopes, curve.offsets))
    transition, joint = _fit_pairs(probs, labels, curve)
    return LabelChannel(scale, transition, joint, curve.slopes, curve.offsets, curve.deviation)


def count_label_channel(pred_probs: ArrayLike, labels: ArrayLike) -> LabelChannel:
    """The channel in which the likeliest class is taken for the true one; the scale is 1.

    For probabilities of a model that has seen the labels, on average over training: fitted to
    those, a channel takes what is merely uncertain for confused. Its log odds are of
    `log_of_probs`.

    Args:
        pred_probs: (n, k) float in [0, 1], rows summing to 1, k at least 2.
        labels: (n,) int64 in [0, k), given labels.

    Raises:
        DataError: for no examples, values outside [0, 1], labels out of range or lengths that
            differ.
    """
    probs, given = _checked(pred_probs, labels)
    if not len(given):
        raise DataError("a label channel takes at least one example; got none")
    if probs.min() < 0 or probs.max() > 1 + _TOLERANCE:
        raise DataError(f"pred_probs must be in [0, 1]; got {probs.min():.3g} to {probs.max():.3g}")
    k = probs.shape[1]
    counts = np.bincount(probs.argmax(axis=1) * k + given, minlength=k * k).reshape(k, k)
    smoothed = counts + _SMOOTHING
    return LabelChannel(1.0, smoothed / smoothed.sum(axis=1, keepdims=True), counts / counts.sum())


def log_of_probs(pred_probs: ArrayLike) -> NDArray[np.float64]:
    """Logarithms of probabilities, each taken for at least 1e-4.

    Raises:
        DataError: for values outside [0, 1].
    """
    probs = np.asarray(pred_probs, dtype=np.float64)
    _check_range(probs)
    return np.log(np.maximum(probs, _LEAST_PROB))


def _check_range(probs: NDArray[np.float64]) -> None:
    if probs.size and (probs.min() < 0 or probs.max() > 1 + _TOLERANCE):
        raise DataError(f"pred_probs must be in [0, 1]; got {probs.min():.3g} to {probs.max():.3g}")


class _Stated(NamedTuple):
    """The likeliest class and its log odds, (n,), and (n, k) log shares of what is left."""

    predicted: NDArray[np.int64]
    odds: NDArray[np.float64]
    shares: NDArray[np.float64]


def _stated(scores: NDArray[np.float64]) -> _Stated:
    """What softmax says of (n, k) scores."""
    rows = np.arange(len(scores))
    predicted = scores.argmax(axis=1).astype(np.int64)
    others = np.array(scores)
    others[rows, predicted] = -np.inf
    rest = logsumexp(others, axis=1)
    return _Stated(predicted, scores[rows, predicted] - rest, others - rest[:, None])


def _log_probs(
    parts: _Stated,
    slopes: NDArray[np.float64] | float,
    offsets: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """(n, k) calibrated logarithms; the likeliest class stays it, the others share as before."""
    predicted, stated, shares = parts
    slope, offset = (np.broadcast_to(x, shares.shape[1:])[predicted] for x in (slopes, offsets))
    odds = np.maximum(slope * stated + offset, shares.max(axis=1))
    log_probs: NDArray[np.float64] = shares - np.logaddexp(0, odds)[:, None]
    log_probs[np.arange(len(shares)), predicted] = -np.logaddexp(0, -odds)
    return log_probs


def _fit_pairs(
    probs: NDArray[np.float64], labels: NDArray[np.int64], curve: ErrorCurve
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The transition in which the rates of the curve go where labels say, and the joint shares."""
    k = probs.shape[1]
    rates = np.maximum(curve.rates, _LEAST_RATE)[:, None]
    transition = rates / (k - 1) * (1 - np.eye(k)) + (1 - rates) * np.eye(k)
    for _ in range(_PAIR_STEPS):
        posterior = probs * transition.T[labels]
        posterior /= posterior.sum(axis=1, keepdims=True)
        counts = _joint_counts(posterior, labels)
        confused = counts * (1 - np.eye(k))
        shares = (confused + _concentration(confused)) * (1 - np.eye(k))
        transition = rates * shares / shares.sum(axis=1, keepdims=True) + (1 - rates) * np.eye(k)
    return transition, counts / counts.sum()


def _joint_counts(posterior: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(k, k) expected numbers of true c and given j; labels are in order."""
    k = posterior.shape[1]
    present, starts = np.unique(labels, return_index=True)
    counts = np.zeros((k, k))
    counts[:, present] = np.add.reduceat(posterior, starts, axis=0).T
    return counts


def _concentration(confused: NDArray[np.float64]) -> float:
    """The likeliest of a symmetric Dirichlet distribution of every row's shares, given counts."""
    k = len(confused)
    counts = confused[~np.eye(k, dtype=bool)].reshape(k, k - 1)
    total = counts.sum(axis=1)

    def surprise(log_number: float) -> float:
        each = np.exp(log_number)
        found = gammaln((k - 1) * each) - gammaln((k - 1) * each + total)
        return -float(found.sum() + (gammaln(each + counts) - gammaln(each)).sum())

    found = minimize_scalar(surprise, bounds=_LOG_CONCENTRATION, method="bounded")
    return float(np.exp(found.x))


def _fit_scale(
    scores: NDArray[np.float64], labels: NDArray[np.int64], transition: NDArray[np.float64]
) -> float:
    some = slice(None, None, max(1, scores.size // _SCALE_ELEMENTS))
    scores, log_given = scores[some], np.log(transition.T[labels[some]])

    def mean_loss(log_scale: float) -> float:
        log_probs = log_softmax(np.exp(log_scale) * scores, axis=1)
        return -float(logsumexp(log_probs + log_given, axis=1).mean())

    found = minimize_scalar(mean_loss, bounds=_BOUNDS, method="bounded", options={"xatol": 0.01})
    return float(np.exp(found.x))


def _checked(
    class_scores: ArrayLike, labels: ArrayLike, num_classes: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores = np.asarray(class_scores, dtype=np.float64)
    wanted = "(n, k), k at least 2" if num_classes is None else f"(n, {num_classes})"
    if scores.ndim != 2 or scores.shape[1] < 2 or num_classes not in (None, scores.shape[1]):
        raise DataError(f"class_scores must have shape {wanted}; got {scores.shape}")
    given = check_labels(labels, scores.shape[1])
    check_same_length(labels=given, class_scores=scores)
    check_finite(scores, "class_scores", "clip probabilities before taking their logarithm")
    return scores, given
