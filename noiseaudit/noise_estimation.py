"""Error probabilities and the number of wrong labels, from flips planted for the purpose."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import check_finite, check_labels, first_rows
from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
from noiseaudit.label_channel import fit_label_channel
from noiseaudit.noise_estimate import TOLD_APART, Estimate, NoiseEstimate, quantiles
from noiseaudit.planted_flips import pair_weights
from noiseaudit.score_mixture import (
    HIDDEN,
    MixtureFit,
    TailBins,
    fit_mixture,
    fit_slope,
    make_bins,
)
from noiseaudit.seeding import generator

__all__ = ["estimate_noise", "estimate_noise_of_scores"]

_FEWEST = 10  # plants; with so few the interval is all that can be said
_FEWEST_RESAMPLES = 20
_SLOPE = 0.5  # of log odds; chosen on digits and Fashion-MNIST embeddings, seed 0
_SLOPE_OF_ANY = 1.0  # of suspicions that are scaled here; chosen there too
_ROUNDS = 3  # with plants, from which on they are resampled


def estimate_noise_of_scores(
    labels: ArrayLike,
    class_scores: ArrayLike,
    planted: ArrayLike,
    planted_scores: ArrayLike,
    *,
    confidence: float = 0.95,
    bootstraps: int = 100,
    seed: int = 0,
) -> NoiseEstimate:
    """The estimate from class scores of a first run and of rounds with planted flips.

    The suspicion is the log odds of a `LabelChannel` fitted to the first run. A plant counts as
    much as its pair of classes is confused there, relative to how often it was planted, times the
    probability that the label it replaced was right: so the plants stand for the mistakes, and one
    that repairs a label does not count.

    Args:
        labels: (n,) int64 in [0, k), given labels.
        class_scores: (n, k) of the first run, on `labels`: see `fit_label_channel`.
        planted: (r, n) int64 labels of the rounds, of `plant_flips`.
        planted_scores: (r, n, k) of the runs on those.
        confidence: and what follows as in `estimate_noise`.
        bootstraps: resamples.
        seed: of them.

    Raises:
        DataError: for shapes or values that do not fit, or fewer than ten plants.
        UsageError: for an option that cannot be.
    """
    channel = fit_label_channel(class_scores, labels)
    given = np.asarray(labels, dtype=np.int64)
    rounds = np.asarray(planted)
    every = np.asarray(planted_scores)
    if rounds.ndim != 2 or every.shape[:2] != rounds.shape or rounds.shape[1] != len(given):
        raise DataError(
            f"planted must have shape (r, {len(given)}) and planted_scores (r, {len(given)}, k); "
            f"got {rounds.shape} and {every.shape}"
        )
    judged = [channel.log_odds(class_scores, given)]
    judged += [channel.log_odds(s, row) for s, row in zip(every, rounds, strict=True)]
    was_right = 1 - channel.prob_wrong(class_scores, given)
    weights = pair_weights(given, rounds, channel.joint, was_right)
    return estimate_noise(
        given, np.vstack([given, rounds]), np.stack([odds for odds, _ in judged]),
        np.stack([other for _, other in judged]), num_classes=len(channel.joint),
        weights=np.vstack([np.zeros(len(given)), weights]), in_nats=True,
        confidence=confidence, bootstraps=bootstraps, seed=seed,
    )  # fmt: skip


def estimate_noise(
    labels: ArrayLike,
    planted: ArrayLike,
    suspicions: ArrayLike,
    suggested: ArrayLike,
    *,
    num_classes: int,
    weights: ArrayLike | None = None,
    in_nats: bool = False,
    confidence: float = 0.95,
    bootstraps: int = 100,
    seed: int = 0,
) -> NoiseEstimate:
    """Error probabilities, the rate of wrong labels and its intervals from any suspicion score.

    The plants' scores are those of wrong labels; all others are a mixture (`score_mixture`). An
    example's verdict is the mean over the rounds in which it was not planted. Intervals come from
    resampling examples, and rounds where there are three or more with plants; they do not cover
    errors that score unlike the plants, for which see `most`.

    Cost: two fits to a histogram per resample, and a pass over r x n numbers: about 10 ms each for
    50,000 numbers.
    Source: Blanchard, Lee & Scott, JMLR 2010 (the share of a known component as the least ratio of
    densities); the parametric rest and the weights are our own.

    Args:
        labels: (n,) int64 in [0, k), given labels.
        planted: (r, n) int64: labels of each round; a row equal to `labels` is a run without plants
            (the audit itself), which gives every example a verdict.
        suspicions: (r, n) float64, finite, **higher = more suspicious**, of the labels of the round
            and on one scale in all rounds.
        suggested: (r, n) int64 in [0, k), the class preferred to the label; ignored for plants.
        num_classes: k, at least 2.
        weights: (r, n) float64, not negative: how much each plant counts (`weigh_plants`); default
            all alike.
        in_nats: whether suspicions are log odds; otherwise they are scaled by logistic regression.
        confidence: of the intervals, in (0, 1).
        bootstraps: resamples, at least 20.
        seed: of them.

    Raises:
        DataError: for shapes or values that do not fit, fewer than ten plants, or an example that
            was planted in every round.
        UsageError: for an option that cannot be.
    """
    _check_options(num_classes, confidence, bootstraps)
    arrays = _checked(labels, planted, suspicions, suggested, num_classes, weights)
    sample = _make_sample(arrays, num_classes, in_nats)
    found = sample.estimate(np.ones(len(arrays.given)), np.ones(len(arrays.scores)))
    random = generator(seed, "noise-bootstrap")
    rates, curves = np.empty(bootstraps), np.empty((bootstraps, len(found.curve)))
    deviation = np.zeros_like(found.per_pair), np.zeros(num_classes)
    for number in range(bootstraps):
        again = sample.draw(random)
        rates[number], curves[number] = again.fit.rate, again.curve
        difference = again.per_pair - found.per_pair
        deviation[0][:] += difference**2 / bootstraps
        deviation[1][:] += difference.sum(axis=0) ** 2 / bootstraps
    low, high = quantiles(rates, confidence)
    # Resamples of no wrong label have none either; so many may have gone unseen.
    unseen = -np.log((1 - confidence) / 2) / ((1 - HIDDEN) * len(arrays.given))
    if sample.auroc < TOLD_APART:
        warnings.warn(
            f"these scores hardly tell planted flips from the rest (AUROC {sample.auroc:.2f}): the "
            "estimated number of wrong labels is not to be trusted; try another detector or model",
            NoiseAuditWarning,
            stacklevel=2,
        )
    valid = ~arrays.is_planted
    rows = np.arange(len(arrays.given))
    return NoiseEstimate(
        p_error=(sample.prob_wrong(arrays.scores, found) * sample.shares).sum(axis=0),
        suggested=arrays.suggested[valid.argmax(axis=0), rows],
        rate=Estimate(
            found.fit.rate,
            min(low, found.fit.rate),
            min(1.0, max(high, found.fit.rate, float(unseen))),
        ),
        most=found.most,
        per_class=_around(found.per_pair.sum(axis=0), deviation[1], confidence),
        per_pair=_around(found.per_pair, deviation[0], confidence),
        plants=int(arrays.is_planted.sum()),
        auroc=sample.auroc,
        confidence=confidence,
        _bins=np.where(valid, sample.bins, -1).astype(np.int16),
        _curves=curves,
    )


class _Arrays(NamedTuple):
    given: NDArray[np.int64]
    is_planted: NDArray[np.bool_]
    scores: NDArray[np.float64]
    suggested: NDArray[np.int64]
    weights: NDArray[np.float64]


class _Found(NamedTuple):
    fit: MixtureFit
    most: float
    curve: NDArray[np.float64]  # probability by bin
    per_pair: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Sample:
    """Scores by bin, (r, n), and all that a fit to a resample of them needs."""

    bins: NDArray[np.int64]
    is_planted: NDArray[np.bool_]
    weights: NDArray[np.float64]  # of plants
    shares: NDArray[np.float64]  # of an example's verdict; 0 where planted, sums to 1 over rounds
    pairs: NDArray[np.int64]
    tail: TailBins
    least_slope: float
    num_classes: int
    auroc: float

    def estimate(self, examples: NDArray[np.float64], rounds: NDArray[np.float64]) -> _Found:
        """With (n,) and (r,) numbers of times that each example and round was drawn."""
        size, k = len(self.tail.edges) + 1, self.num_classes
        times = rounds[:, None] * examples
        rest = ~self.is_planted
        weights = (times * self.weights)[self.is_planted]
        plants = _sums(self.bins[self.is_planted], weights, size)
        others = _sums(self.bins[rest], times[rest], size)
        fit = fit_mixture(plants, others, self.tail.centres, self.least_slope)
        below = fit.prob_hidden(float(others[0]), float(others.sum()))
        curve = np.concatenate([[below], fit.prob_wrong(self.tail.centres)])
        expected = curve[self.bins] * self.shares * examples
        per_pair = _sums(self.pairs.ravel(), expected.ravel(), k * k).reshape(k, k)
        most = min(1.0, float(others[1:].sum() / others.sum() / (1 - HIDDEN)))
        return _Found(fit, most, curve, per_pair)

    def prob_wrong(self, scores: NDArray[np.float64], found: _Found) -> NDArray[np.float64]:
        """(r, n), of (r, n) scores: the curve without its bins."""
        above = np.maximum(scores - self.tail.edges[0], 0)
        return np.where(self.bins > 0, found.fit.prob_wrong(above), found.curve[0])

    def draw(self, random: np.random.Generator) -> _Found:
        """A fit to a resample: examples by Poisson counts, rounds with plants with replacement."""
        with_plants = np.flatnonzero(self.is_planted.any(axis=1))
        times = np.ones(len(self.bins))
        if len(with_plants) >= _ROUNDS:
            drawn = random.choice(with_plants, len(with_plants))
            times[with_plants] = np.bincount(drawn, minlength=len(times))[with_plants]
        examples = np.asarray(random.poisson(1.0, self.bins.shape[1]), np.float64)
        drawn = times[:, None] * examples
        if not (drawn * self.weights)[self.is_planted].sum() or not drawn[~self.is_planted].sum():
            return self.estimate(np.ones_like(examples), np.ones_like(times))  # says nothing
        return self.estimate(examples, times)


def _sums(of: NDArray[np.int64], weights: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return np.bincount(of, weights, size).astype(np.float64, copy=False)


def _make_sample(arrays: _Arrays, num_classes: int, in_nats: bool) -> _Sample:
    is_planted, scores = arrays.is_planted, arrays.scores
    known, rest, weights = scores[is_planted], scores[~is_planted], arrays.weights[is_planted]
    unit = _SLOPE if in_nats else _SLOPE_OF_ANY * fit_slope(known, weights, rest)
    tail = make_bins(known, weights, rest)
    ranks = np.sort(rest)
    lower = np.searchsorted(ranks, known) + np.searchsorted(ranks, known, side="right")
    return _Sample(
        bins=tail.of(scores),
        is_planted=is_planted,
        weights=arrays.weights * (len(known) / weights.sum()),
        shares=~is_planted / (~is_planted).sum(axis=0),
        pairs=arrays.suggested * num_classes + arrays.given,
        tail=tail,
        least_slope=unit,
        num_classes=num_classes,
        auroc=float(np.average(lower / (2 * len(ranks)), weights=weights)),
    )


def _around(
    values: NDArray[np.float64], variance: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    half = NormalDist().inv_cdf((1 + confidence) / 2) * np.sqrt(variance)
    return values, np.maximum(values - half, 0), values + half


def _check_options(num_classes: int, confidence: float, bootstraps: int) -> None:
    if num_classes < 2:
        raise UsageError(f"num_classes must be at least 2; got {num_classes}")
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must be in (0, 1); got {confidence}")
    if bootstraps < _FEWEST_RESAMPLES:
        raise UsageError(f"bootstraps must be at least {_FEWEST_RESAMPLES}; got {bootstraps}")


def _checked(
    labels: ArrayLike,
    planted: ArrayLike,
    suspicions: ArrayLike,
    suggested: ArrayLike,
    num_classes: int,
    weights: ArrayLike | None,
) -> _Arrays:
    given = check_labels(labels, num_classes)
    shapes = {"planted": planted, "suspicions": suspicions, "suggested": suggested}
    shapes |= {} if weights is None else {"weights": weights}
    for name, array in shapes.items():
        shape = np.shape(array)
        if len(shape) != 2 or shape != np.shape(planted) or shape[1] != len(given):
            raise DataError(
                f"{name} must have shape (r, {len(given)}), one row per round; got {shape}"
            )
    rounds = np.stack([check_labels(row, num_classes) for row in np.asarray(planted)])
    other = np.stack([check_labels(row, num_classes) for row in np.asarray(suggested)])
    scores = np.asarray(suspicions, dtype=np.float64)
    check_finite(scores.T, "suspicions")
    is_planted = rounds != given
    share = np.ones(rounds.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    check_finite(share.T, "weights")
    if (share < 0).any():
        raise DataError(f"weights must not be negative; the least is {share.min():.3g}")
    if is_planted.sum() < _FEWEST or not share[is_planted].sum():
        raise DataError(
            f"{int(is_planted.sum())} flips were planted; an estimate takes at least {_FEWEST} "
            "with a weight: plant a larger share, or more rounds"
        )
    if (always := is_planted.all(axis=0)).any():
        raise DataError(
            f"planted in every round: {first_rows(always)}; add a round in which they are not, "
            "such as the run on the given labels"
        )
    return _Arrays(given, is_planted, scores, other, share)
