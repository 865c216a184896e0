"""Labels flipped on purpose, as hard to find as the mistakes that are there already."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import check_finite, check_labels
from noiseaudit.errors import DataError, UsageError
from noiseaudit.seeding import generator

__all__ = ["pair_weights", "plant_flips", "plant_rivals", "weigh_plants"]

_EVEN = 0.25  # share of plants whose pair of classes is drawn evenly: no pair goes untried
_MOST = 0.5  # of a class, in all rounds together
_AS_TRIED = 0.1  # part of a plant's weight that does not follow its pair of classes
_LEAST_WEIGHT = 1e-6  # of a plant where the model is certain
_HEAVIEST = 20.0  # relative weight of a plant


def plant_flips(
    labels: ArrayLike, joint: ArrayLike, *, share: float = 0.02, rounds: int = 4, seed: int = 0
) -> NDArray[np.int64]:
    """Labels of several rounds, in each of which other examples have theirs flipped.

    Three quarters of the plants have their classes, from and to, drawn in proportion to `joint`
    off its diagonal, the others evenly; which examples of a class is drawn evenly. No example is
    planted twice, and at most half of a class in all rounds together.

    Args:
        labels: (n,) int64 in [0, k), given labels, right and wrong.
        joint: (k, k) not negative: how often true c is given as j, up to a factor: `joint` of a
            `LabelChannel`; the diagonal does not count, and where all else is 0 pairs are even.
        share: of n to plant in each round, in (0, 1): small, so that what is learned stays.
        rounds: at least 1.
        seed: of all draws.

    Returns:
        (rounds, n) int64; a plant is where it differs from `labels`.

    Raises:
        DataError: if labels are out of range or `joint` is no such matrix.
        UsageError: for a share or a number of rounds that cannot be, or that plants nothing.
    """
    pairs = _pair_shares(joint)
    k = len(pairs)
    given = check_labels(labels, k)
    if not 0 < share < 1:
        raise UsageError(f"share must be in (0, 1); got {share}")
    if rounds < 1:
        raise UsageError(f"rounds must be at least 1; got {rounds}")
    random = generator(seed, "plant-flips")
    # Classes that have no examples cannot be flipped.
    pairs *= np.isin(np.arange(k), given)[:, None]
    count = max(1, round(share * len(given)))
    waiting = [random.permutation(np.flatnonzero(given == label)) for label in range(k)]
    waiting = [rows[: int(_MOST * len(rows))] for rows in waiting]
    planted = np.tile(given, (rounds, 1))
    for number in range(rounds):
        targets = np.zeros((k, k), np.int64)
        if pairs.sum() > 0:
            targets = random.multinomial(count, (pairs / pairs.sum()).ravel()).reshape(k, k)
        for label in range(k):
            to = random.permutation(np.repeat(np.arange(k), targets[label]))
            left = len(waiting[label]) // (rounds - number)  # later rounds have their part
            rows, waiting[label] = np.split(waiting[label], [min(len(to), left)])
            planted[number, rows] = to[: len(rows)]
    if not (planted != given).any():
        raise UsageError(
            f"a share of {share} in {rounds} rounds plants nothing among {len(given)} labels; "
            "give a larger share or more examples"
        )
    return planted


def plant_rivals(
    labels: ArrayLike,
    planted: ArrayLike,
    pred_probs: ArrayLike,
    *,
    share: float = 0.02,
    seed: int = 0,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Further plants, on examples that lie between two classes, to the likelier other one.

    Mistakes of people are of this kind, and no score tells them from examples that are hard to
    learn: their plants say how many wrong labels there may be, not how many there are. With m
    the probability of the given label less that of the likeliest other, examples are drawn with
    weight 1 + c (1 - m^2), c such that both terms count alike, where m > 0 and nothing is planted.

    Args:
        labels: (n,) int64 in [0, k), given labels.
        planted: (r, n) int64, of `plant_flips`.
        pred_probs: (n, k) float in [0, 1], of a run without plants: `LabelChannel.probs` of
            held-out scores, or a network's on average over training.
        share: of n to add in each round, in (0, 1); less where too few examples can be drawn.
        seed: of the draws.

    Returns:
        (r, n) int64, `planted` with these; and (r, n) float64 weights, 1 - m^2, 0 elsewhere:
        `most_weights` of the estimates.

    Raises:
        DataError: for labels out of range or shapes that do not fit.
        UsageError: for a share outside (0, 1).
    """
    probs = np.asarray(pred_probs, dtype=np.float64)
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise DataError(f"pred_probs must have shape (n, k), k at least 2; got {probs.shape}")
    check_finite(probs, "pred_probs")
    given, rounds = _checked_rounds(labels, planted, probs.shape[1])
    if len(probs) != len(given):
        raise DataError(f"{len(given)} labels were given, and pred_probs for {len(probs)}")
    if not 0 < share < 1:
        raise UsageError(f"share must be in (0, 1); got {share}")
    rows = np.arange(len(given))
    others = probs.copy()
    others[rows, given] = -1
    rival = others.argmax(axis=1)
    margin = probs[rows, given] - others[rows, rival]
    may = (margin > 0) & ~(rounds != given).any(axis=0)
    near = np.where(may, 1 - np.minimum(margin, 1) ** 2, 0)
    count = min(round(share * len(given)), int(_MOST * may.sum() / len(rounds)))
    weights = np.zeros(rounds.shape)
    if not count:
        return rounds, weights
    chances = may / may.sum() + (near / near.sum() if near.sum() else 0)
    drawn = generator(seed, "plant-rivals").choice(
        len(given), count * len(rounds), replace=False, p=chances / chances.sum()
    )
    for number, chosen in enumerate(drawn.reshape(len(rounds), count)):
        rounds[number, chosen] = rival[chosen]
        weights[number, chosen] = np.maximum(near[chosen], _LEAST_WEIGHT)
    return rounds, weights


def weigh_plants(
    labels: ArrayLike, planted: ArrayLike, predicted: ArrayLike, *, num_classes: int
) -> NDArray[np.float64]:
    """Weights of plants for `estimate_noise`, from what a run without plants predicts.

    A plant counts where the prediction is the label it replaced, as much as its pair of classes is
    confused (predicted c, given j) relative to how often it was planted. For suspicions and
    predictions of a model that saw the labels; of held-out scores `estimate_noise_of_scores`
    weighs by probability.

    Args:
        labels: (n,) int64 in [0, k), given labels.
        planted: (r, n) int64 labels of the rounds.
        predicted: (n,) int64 in [0, k): likeliest class, on average over training.
        num_classes: k, at least 2.

    Returns:
        (r, n) float64; 0 where nothing was planted. All plants alike where no weight is left.

    Raises:
        DataError: for labels out of range or lengths that differ.
        UsageError: for fewer than two classes.
    """
    if num_classes < 2:
        raise UsageError(f"num_classes must be at least 2; got {num_classes}")
    given, rounds = _checked_rounds(labels, planted, num_classes)
    likely = check_labels(predicted, num_classes)
    if len(likely) != len(given):
        raise DataError(f"{len(given)} labels were given, and predictions for {len(likely)}")
    joint = np.bincount(likely * num_classes + given, minlength=num_classes**2).astype(np.float64)
    was_right = np.where(likely == given, 1.0, 0.0)
    return pair_weights(given, rounds, joint.reshape(num_classes, -1), was_right)


def pair_weights(
    given: NDArray[np.int64],
    planted: NDArray[np.int64],
    joint: NDArray[np.float64],
    was_right: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Weights of plants by how their pairs of classes are confused and how likely they are wrong.

    Args:
        given: (n,) given labels.
        planted: (r, n) labels of the rounds.
        joint: (k, k) not negative: how often true c is given as j; the diagonal does not count.
        was_right: (n,) float64 in [0, 1], probabilities that the given labels are right.

    Returns:
        (r, n) float64: `was_right` times how often the pair is confused relative to how often it
        was planted, at most 20, a tenth of it as planted; 0 where nothing was planted.
    """
    k = len(joint)
    is_planted = planted != given
    pairs = np.broadcast_to(given, planted.shape)[is_planted] * k + planted[is_planted]
    right = np.broadcast_to(was_right, planted.shape)[is_planted]
    tried = np.bincount(pairs, right, k * k)
    confused = np.array(joint)
    np.fill_diagonal(confused, 0)
    if not right.sum() or not confused.sum():
        return np.where(is_planted, 1.0, 0.0)
    tried, wanted = tried / right.sum(), confused.ravel() / confused.sum()
    wanted = (1 - _AS_TRIED) * wanted + _AS_TRIED * tried
    weights = np.zeros(planted.shape)
    ratio = np.minimum(wanted[pairs] / np.maximum(tried[pairs], 1e-9), _HEAVIEST)
    weights[is_planted] = right * ratio
    return weights


def _checked_rounds(
    labels: ArrayLike, planted: ArrayLike, num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Given labels, and a copy of those of the rounds."""
    given = check_labels(labels, num_classes)
    rounds = np.asarray(planted)
    if rounds.ndim != 2 or not len(rounds) or rounds.shape[1] != len(given):
        raise DataError(
            f"planted must have shape (r, {len(given)}), r at least 1; got {rounds.shape}"
        )
    return given, np.stack([check_labels(row, num_classes) for row in rounds])


def _pair_shares(joint: ArrayLike) -> NDArray[np.float64]:
    """(k, k) shares of the pairs to plant, 0 on the diagonal."""
    matrix = np.array(joint, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise DataError(f"joint must have shape (k, k), k at least 2; got {matrix.shape}")
    check_finite(matrix, "joint")
    if (matrix < 0).any():
        raise DataError(f"joint must not be negative; its least value is {matrix.min():.3g}")
    np.fill_diagonal(matrix, 0)
    even = (1 - np.eye(len(matrix))) / (len(matrix) * (len(matrix) - 1))
    total = matrix.sum()
    return even if total == 0 else (1 - _EVEN) * matrix / total + _EVEN * even
