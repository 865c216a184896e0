"""Labels flipped on purpose, as hard to find as the mistakes that are there already."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import check_finite, check_labels
from noiseaudit.errors import DataError, UsageError
from noiseaudit.seeding import generator

__all__ = ["pair_weights", "plant_flips", "weigh_plants"]

_EVEN = 0.25  # share of plants whose pair of classes is drawn evenly: no pair goes untried
_MOST = 0.5  # of a class, in all rounds together
_AS_TRIED = 0.1  # part of a plant's weight that does not follow its pair of classes
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
    given = check_labels(labels, num_classes)
    likely = check_labels(predicted, num_classes)
    rounds = np.asarray(planted)
    if rounds.ndim != 2 or rounds.shape[1] != len(given) or len(likely) != len(given):
        raise DataError(
            f"planted must have shape (r, {len(given)}) and predicted ({len(given)},) as labels; "
            f"got {rounds.shape} and {likely.shape}"
        )
    rounds = np.stack([check_labels(row, num_classes) for row in rounds])
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
