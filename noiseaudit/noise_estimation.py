"""Error probabilities and the number of wrong labels, from flips planted for the purpose."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import check_finite, check_labels, first_rows
from noiseaudit.channel_rate import sharpen_by_channel
from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
from noiseaudit.label_channel import (
    LabelChannel,
    count_label_channel,
    fit_label_channel,
    log_of_probs,
)
from noiseaudit.noise_estimate import TOLD_APART, Estimate, NoiseEstimate, Witness, quantiles
from noiseaudit.planted_flips import pair_weights, weigh_plants
from noiseaudit.score_mixture import HIDDEN, make_round_scores, share_above
from noiseaudit.seeding import generator

__all__ = ["estimate_noise", "estimate_noise_of_probs", "estimate_noise_of_scores"]

_FEWEST = 10  # plants; with so few the interval is all that can be said
_FEWEST_RESAMPLES = 20


def estimate_noise_of_scores(
    labels: ArrayLike,
    class_scores: ArrayLike,
    planted: ArrayLike,
    planted_scores: ArrayLike,
    *,
    most_weights: ArrayLike | None = None,
    confidence: float = 0.95,
    bootstraps: int = 100,
    seed: int = 0,
) -> NoiseEstimate:
    """The estimate from class scores of a first run and of rounds with planted flips.

    The suspicion is the log odds of a `LabelChannel` fitted to the first run. A plant counts as
    much as its pair of classes is confused there, relative to how often it was planted, times the
    probability that the label it replaced was right: so the plants stand for the mistakes, and one
    that repairs a label does not count. The channel's own rate then joins that of the plants
    (`sharpen_by_channel`).

    Args:
        labels: (n,) int64 in [0, k), given labels.
        class_scores: (n, k) of the first run, on `labels`: see `fit_label_channel`.
        planted: (r, n) int64 labels of the rounds, of `plant_flips` or `plant_rivals`.
        planted_scores: (r, n, k) of the runs on those.
        most_weights: (r, n), of `plant_rivals`: of the plants that say how many there are at most.
        confidence: and what follows as in `estimate_noise`.
        bootstraps: resamples.
        seed: of them.

    Raises:
        DataError: for shapes or values that do not fit, or fewer than ten plants.
        UsageError: for an option that cannot be.
    """
    channel = fit_label_channel(class_scores, labels)
    given = np.asarray(labels, dtype=np.int64)
    rounds, every, most = _checked_rounds(given, planted, planted_scores, most_weights)
    weights = pair_weights(
        given, np.where(most > 0, given, rounds), channel.joint,
        1 - channel.prob_wrong(class_scores, given),
    )  # fmt: skip
    return _of_channel(
        channel, given, class_scores, rounds, every, weights, most, is_left_out=True,
        confidence=confidence, bootstraps=bootstraps, seed=seed,
    )  # fmt: skip


def estimate_noise_of_probs(
    labels: ArrayLike,
    pred_probs: ArrayLike,
    planted: ArrayLike,
    planted_probs: ArrayLike,
    *,
    most_weights: ArrayLike | None = None,
    confidence: float = 0.95,
    bootstraps: int = 100,
    seed: int = 0,
) -> NoiseEstimate:
    """The estimate from probabilities of a model that has seen the labels.

    The suspicion is the log odds of the channel that `count_label_channel` counts in the first
    run: where two classes trade labels it tells wrong ones from right ones far better than a
    margin does. Plants count as `weigh_plants` says.

    Args:
        labels: (n,) int64 in [0, k), given labels.
        pred_probs: (n, k), rows summing to 1: of the first run, on average over training.
        planted: (r, n) int64 labels of the rounds, of `plant_flips` or `plant_rivals`.
        planted_probs: (r, n, k) of the runs on those.
        most_weights: and what follows as in `estimate_noise_of_scores`.
        confidence: of the intervals.
        bootstraps: resamples.
        seed: of them.

    Raises:
        DataError: for shapes or values that do not fit, or fewer than ten plants.
        UsageError: for an option that cannot be.
    """
    channel = count_label_channel(pred_probs, labels)
    given, first = np.asarray(labels, dtype=np.int64), np.asarray(pred_probs)
    rounds, every, most = _checked_rounds(given, planted, planted_probs, most_weights)
    weights = weigh_plants(
        given, np.where(most > 0, given, rounds), first.argmax(axis=1),
        num_classes=first.shape[1],
    )  # fmt: skip
    return _of_channel(
        channel, given, log_of_probs(first), rounds, (log_of_probs(item) for item in every),
        weights, most, is_left_out=False, confidence=confidence, bootstraps=bootstraps, seed=seed,
    )  # fmt: skip


def estimate_noise(
    labels: ArrayLike,
    planted: ArrayLike,
    suspicions: ArrayLike,
    suggested: ArrayLike,
    *,
    num_classes: int,
    weights: ArrayLike | None = None,
    most_weights: ArrayLike | None = None,
    in_nats: bool = False,
    confidence: float = 0.95,
    bootstraps: int = 100,
    seed: int = 0,
) -> NoiseEstimate:
    """Error probabilities, the rate of wrong labels and its intervals from any suspicion score.

    The plants' scores are those of wrong labels; all others of the same rounds are a mixture
    (`score_mixture`). An example's verdict is the mean over the rounds in which it was not planted.
    Intervals come from resampling examples, and rounds where there are three or more with plants;
    they do not cover errors that score unlike the plants, for which see `most`.

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
        most_weights: (r, n) likewise, of further plants that say how many wrong labels there may
            be at most (`plant_rivals`); those have no weight else.
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
    pairs = arrays.suggested * num_classes + arrays.given
    sample = make_round_scores(
        arrays.scores, arrays.is_planted, arrays.weights, pairs, num_classes, in_nats=in_nats
    )
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
        most=max(found.most, _most(arrays, most_weights)),
        per_class=_around(found.per_pair.sum(axis=0), deviation[1], confidence),
        per_pair=_around(found.per_pair, deviation[0], confidence),
        plants=int((arrays.is_planted & (arrays.weights > 0)).sum()),
        auroc=sample.auroc,
        confidence=confidence,
        _bins=np.where(valid, sample.bins, -1).astype(np.int16),
        _curves=curves,
        witnesses=(Witness("planted flips", found.fit.rate),),
    )


class _Arrays(NamedTuple):
    given: NDArray[np.int64]
    is_planted: NDArray[np.bool_]
    scores: NDArray[np.float64]
    suggested: NDArray[np.int64]
    weights: NDArray[np.float64]


def _checked_rounds(
    given: NDArray[np.int64], planted: ArrayLike, results: ArrayLike, most: ArrayLike | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    rounds, every = np.asarray(planted), np.asarray(results)
    weights = np.zeros(rounds.shape) if most is None else np.asarray(most, dtype=np.float64)
    if rounds.ndim != 2 or every.shape[:2] != rounds.shape or rounds.shape[1] != len(given):
        raise DataError(
            f"planted must have shape (r, {len(given)}) and what was predicted of them "
            f"(r, {len(given)}, k); got {rounds.shape} and {every.shape}"
        )
    if weights.shape != rounds.shape:
        raise DataError(
            f"most_weights must have shape {rounds.shape} as planted; got {weights.shape}"
        )
    return rounds, every, weights


def _of_channel(
    channel: LabelChannel,
    given: NDArray[np.int64],
    first: ArrayLike,
    planted: NDArray[np.int64],
    every: Iterable[NDArray[np.float64]],
    weights: NDArray[np.float64],
    most: NDArray[np.float64],
    *,
    is_left_out: bool,
    seed: int,
    **options: Any,
) -> NoiseEstimate:
    judged = [channel.log_odds(first, given)]
    judged += [channel.log_odds(s, row) for s, row in zip(every, planted, strict=True)]
    nothing = np.zeros((1, len(given)))
    found = estimate_noise(
        given, np.vstack([given, planted]), np.stack([odds for odds, _ in judged]),
        np.stack([other for _, other in judged]), num_classes=len(channel.joint),
        weights=np.vstack([nothing, weights]), most_weights=np.vstack([nothing, most]),
        in_nats=is_left_out, seed=seed, **options,
    )  # fmt: skip
    if not (is_left_out and found.is_supported):
        return found
    return sharpen_by_channel(found, channel, judged[0][0], given, seed=seed)


def _most(arrays: _Arrays, most_weights: ArrayLike | None) -> float:
    """Share that scores like the plants with these weights, 0 if there are none."""
    if most_weights is None:
        return 0.0
    weights = np.asarray(most_weights, dtype=np.float64)
    if weights.shape != arrays.scores.shape or not np.isfinite(weights).all() or weights.min() < 0:
        raise DataError(
            f"most_weights must be finite, not negative, of shape {arrays.scores.shape}; got "
            f"shape {weights.shape}"
        )
    chosen = arrays.is_planted & (weights > 0)
    if not chosen.any():
        return 0.0
    rest = ~arrays.is_planted & arrays.is_planted.any(axis=1, keepdims=True)
    return share_above(arrays.scores[chosen], weights[chosen], arrays.scores[rest])


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
    if is_planted[is_planted.any(axis=1)].all():
        raise DataError("all labels are planted in every round that has plants; plant fewer")
    return _Arrays(given, is_planted, scores, other, share)
