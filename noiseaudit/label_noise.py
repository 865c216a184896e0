"""Pure label flips: labels in, labels out. Free for anything to use; no answer key is kept."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import check_finite, check_labels, check_same_length
from noiseaudit.errors import DataError, UsageError
from noiseaudit.picture_vectors import shrink_pictures
from noiseaudit.seeding import derive_seed, generator

__all__ = [
    "apportion",
    "assign_random",
    "check_rate",
    "check_transition_matrix",
    "estimate_class_probabilities",
    "flip_by_instance",
    "flip_by_map",
    "flip_by_matrix",
    "flip_pair",
    "flip_uniform",
]

Labels = NDArray[np.int64]

_FOLDS = 5  # as cleanlab's default
_COMPONENTS = 50


def flip_uniform(labels: Labels, num_classes: int, rate: float, *, seed: int) -> Labels:
    """Flip a share of every class to another class, drawn uniformly from the other k - 1.

    Exactly `round(rate * count)` labels of each class change, and each changed label differs
    from what it was.

    Args:
        labels: (n,) int64 in [0, num_classes).
        num_classes: k, at least 2.
        rate: in [0, 1].
        seed: of which examples are flipped, and to what.

    Raises:
        UsageError: if the rate is outside [0, 1] or there are fewer than two classes.
        DataError: if labels are not in range.
    """
    labels = _checked(labels, num_classes, rate)
    random = generator(seed, "flip-uniform")
    flipped = labels.copy()
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        chosen = random.permutation(rows)[: round(rate * len(rows))]
        flipped[chosen] = (label + random.integers(1, num_classes, len(chosen))) % num_classes
    return flipped


def assign_random(labels: Labels, num_classes: int, rate: float, *, seed: int) -> Labels:
    """Give a share of every class a label drawn uniformly from all k, its own included.

    Exactly `round(rate * count)` examples of each class are drawn anew; about 1 in k of them keep
    their label, so that the share of wrong labels is about `rate * (k - 1) / k`.

    Source: Jiang et al., "Characterizing Structural Regularities of Labeled Data in
    Overparameterized Models", ICML 2021, section 4 (random label assignment).

    Args and errors are those of `flip_uniform`.
    """
    labels = _checked(labels, num_classes, rate)
    random = generator(seed, "assign-random")
    assigned = labels.copy()
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        chosen = random.permutation(rows)[: round(rate * len(rows))]
        assigned[chosen] = random.integers(0, num_classes, len(chosen))
    return assigned


def flip_pair(labels: Labels, num_classes: int, rate: float, *, seed: int) -> Labels:
    """Flip a share of every class c to the class c + 1, and of the last class to class 0.

    Exactly `round(rate * count)` labels of each class change.

    Source: Han et al., "Co-teaching", NeurIPS 2018, section 4 (pair flipping).

    Args and errors are those of `flip_uniform`.
    """
    labels = _checked(labels, num_classes, rate)
    neighbours = {label: (label + 1) % num_classes for label in range(num_classes)}
    return _flip_to(labels, neighbours, rate, generator(seed, "flip-pair"))


def flip_by_map(
    labels: Labels, num_classes: int, rate: float, *, class_map: Mapping[int, int], seed: int
) -> Labels:
    """Flip a share of each class named in a map to the one class that the map gives it.

    Exactly `round(rate * count)` labels of each mapped class change; the others stay.

    Source: Patrini et al., "Making Deep Neural Networks Robust to Label Noise", CVPR 2017,
    section 5 (asymmetric noise).

    Args:
        labels: (n,) int64 in [0, num_classes).
        num_classes: k, at least 2.
        rate: share of each mapped class, in [0, 1].
        class_map: {from: to}, both in [0, num_classes) and different.
        seed: of which examples are flipped.

    Raises:
        UsageError: if the rate is outside [0, 1], there are fewer than two classes, the map is
            empty, maps a class to itself, or names one that does not exist.
        DataError: if labels are not in range.
    """
    labels = _checked(labels, num_classes, rate)
    if not class_map:
        raise UsageError("class_map is empty: no class could be flipped")
    for origin, target in class_map.items():
        if not (0 <= origin < num_classes and 0 <= target < num_classes):
            raise UsageError(f"class_map must stay in [0, {num_classes}); got {origin}: {target}")
        if origin == target:
            raise UsageError(f"class_map must change the class; got {origin}: {target}")
    return _flip_to(labels, class_map, rate, generator(seed, "flip-by-map"))


def flip_by_matrix(labels: Labels, matrix: ArrayLike, *, seed: int) -> Labels:
    """Relabel each class in the proportions of its row of a transition matrix.

    Of `count` examples of class c, `matrix[c, j] * count` get label j, rounded to whole examples
    by largest remainder (see `apportion`), so that no other counts come nearer.

    Args:
        labels: (n,) int64 in [0, k).
        matrix: (k, k) float64, rows summing to 1: `matrix[c, j]` is P(given j | clean c).
        seed: of which examples are flipped, and which of equal remainders are rounded up.

    Raises:
        DataError: if labels are not in range, or the matrix is not row-stochastic.
    """
    transition = check_transition_matrix(matrix)
    num_classes = len(transition)
    labels = check_labels(labels, num_classes)
    random = generator(seed, "flip-by-matrix")
    flipped = labels.copy()
    for label in range(num_classes):
        rows = random.permutation(np.flatnonzero(labels == label))
        counts = apportion(transition[label], len(rows), random)
        flipped[rows] = np.repeat(np.arange(num_classes), counts)
    return flipped


def flip_by_instance(labels: Labels, pred_probs: ArrayLike, rate: float, *, seed: int) -> Labels:
    """Flip a share of every class where classes meet, each label to the likeliest other class.

    With m = p(clean label) - max p(other class), cut to [0, 1], an example is drawn with weight
    (1 - m^2) / 2, without replacement, until exactly `round(rate * count)` of its class are
    drawn: an example between two classes weighs 1/2, one that the model is sure of nothing.
    Where fewer examples than that have any weight, the rest are drawn from the others evenly.

    Source: Zhang et al., "Learning with Feature-Dependent Label Noise: A Progressive Approach",
    ICLR 2021, section 4, polynomial-margin-diminishing noise, Type I. Where we differ: the count
    per class is exact (the paper scales the weights to a rate on average); the margin is that of
    the clean label, which is also what gets flipped (the paper first replaces the labels by the
    model's own); probabilities should be out of sample (the paper's are a network's on its
    training examples). Drawn without replacement by exponential clocks (Efraimidis and Spirakis,
    Information Processing Letters 2006).

    Args:
        labels: (n,) int64 in [0, k).
        pred_probs: (n, k) float64, rows summing to 1, k at least 2: P(class) by a model of the
            clean labels, such as `estimate_class_probabilities` gives.
        rate: share of every class, in [0, 1].
        seed: of which examples are flipped.

    Raises:
        UsageError: if the rate is outside [0, 1] or there are fewer than two classes.
        DataError: if labels are not in range or probabilities are none.
    """
    probabilities = np.asarray(pred_probs, dtype=np.float64)
    if probabilities.ndim != 2:
        raise DataError(f"pred_probs must have shape (n, k); got {probabilities.shape}")
    labels = _checked(labels, probabilities.shape[1], rate)
    check_same_length(labels=labels, pred_probs=probabilities)
    _check_rows_sum_to_one(probabilities, "pred_probs")
    rows = np.arange(len(labels))
    others = probabilities.copy()
    others[rows, labels] = -1
    rival = others.argmax(axis=1)
    margin = np.clip(probabilities[rows, labels] - others[rows, rival], 0, 1)
    weight = (1 - margin**2) / 2
    random = generator(seed, "flip-by-instance")
    clocks = np.full(len(labels), np.inf)
    np.divide(random.standard_exponential(len(labels)), weight, out=clocks, where=weight > 0)
    order = np.lexsort((random.random(len(labels)), clocks))
    flipped = labels.copy()
    for label in range(probabilities.shape[1]):
        earliest = order[labels[order] == label]
        chosen = earliest[: round(rate * len(earliest))]
        flipped[chosen] = rival[chosen]
    return flipped


def estimate_class_probabilities(
    inputs: NDArray[Any], labels: Labels, num_classes: int, *, seed: int
) -> NDArray[np.float64]:
    """Class probabilities of a multinomial logistic regression on components, out of 5 folds.

    Cheap, and weak on photographs, which it finds nearly all ambiguous: for those prefer a
    network's. Pictures are shrunk to at most 32 pixels a side by averaging blocks, vectors are
    standardised; both are projected on 50 whitened principal components of 10,000 examples. A
    class that a fold was trained without gets probability 0 there.

    Args:
        inputs: (n, h, w) or (n, h, w, 3) uint8, or (n, d) float32.
        labels: (n,) int64 in [0, num_classes).
        num_classes: k.
        seed: of the folds and of the sample that the components come from.

    Returns:
        (n, k) float64, rows summing to 1; 1/k each where nothing could be fitted.

    Raises:
        DataError: if labels are not in range or lengths differ.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    labels = check_labels(labels, num_classes)
    check_same_length(inputs=inputs, labels=labels)
    probabilities = np.full((len(labels), num_classes), 1 / num_classes)
    if len(labels) < 2:
        return probabilities
    features = _leading_components(_flat_features(inputs), seed)
    fold_of = np.empty(len(labels), dtype=np.int64)
    mixed = generator(seed, "instance-folds").permutation(len(labels))
    fold_of[mixed[np.argsort(labels[mixed], kind="stable")]] = np.arange(len(labels)) % _FOLDS
    for fold in range(min(_FOLDS, len(labels))):
        held_out = fold_of == fold
        known = np.unique(labels[~held_out])
        if len(known) < 2:
            continue
        model = LogisticRegression(max_iter=200, tol=1e-3)
        with warnings.catch_warnings():  # a fit stopped early still says where classes meet
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[~held_out], labels[~held_out])
        probabilities[held_out] = 0
        probabilities[np.ix_(held_out, known)] = model.predict_proba(features[held_out])
    return probabilities


def apportion(
    shares: NDArray[np.float64], total: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """(k,) counts summing to `total` in the proportions of `shares`, by largest remainder.

    `shares` is (k,), not negative, with a positive sum; `random` decides between equal remainders,
    so that no position is favoured.
    """
    exact = np.asarray(shares, dtype=np.float64) / np.sum(shares) * total
    counts = np.floor(exact + 1e-9)  # 1e-9: 0.29 * 100 is 28.999999999999996
    remainders = np.round(exact - counts, 9)
    order = np.lexsort((random.random(len(counts)), -remainders))
    counts[order[: round(total - counts.sum())]] += 1
    return counts.astype(np.int64)


def check_rate(rate: float) -> float:
    """The rate as a float.

    Raises:
        UsageError: if it is no number in [0, 1].
    """
    if not isinstance(rate, Real) or isinstance(rate, bool) or not 0 <= rate <= 1:
        raise UsageError(f"rate must be a number in [0, 1]; got {rate!r}")
    return float(rate)


def check_transition_matrix(matrix: ArrayLike) -> NDArray[np.float64]:
    """A row-stochastic matrix as (k, k) float64.

    Raises:
        DataError: if it is not square, or a row is negative somewhere or does not sum to 1.
    """
    array = np.asarray(matrix, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise DataError(f"a transition matrix must have shape (k, k); got {array.shape}")
    _check_rows_sum_to_one(array, "a transition matrix")
    return array


def _check_rows_sum_to_one(array: NDArray[np.float64], what: str) -> None:
    check_finite(array, what)
    bad = (array < 0).any(axis=1) | (np.abs(array.sum(axis=1) - 1) > 1e-4)  # float32 files pass
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{what} must be >= 0 with rows summing to 1; {int(bad.sum())} rows are not, first "
            f"row {row} with minimum {array[row].min():.3g} and sum {array[row].sum():.6g}"
        )


def _checked(labels: ArrayLike, num_classes: int, rate: float) -> Labels:
    check_rate(rate)
    if num_classes < 2:
        raise UsageError(f"num_classes must be at least 2; got {num_classes}")
    return check_labels(labels, num_classes)


def _flip_to(
    labels: Labels, targets: Mapping[int, int], rate: float, random: np.random.Generator
) -> Labels:
    flipped = labels.copy()
    for label in sorted(targets):
        rows = np.flatnonzero(labels == label)
        flipped[random.permutation(rows)[: round(rate * len(rows))]] = targets[label]
    return flipped


def _flat_features(inputs: NDArray[Any]) -> NDArray[np.float32]:
    """(n, d) float32: pictures in [0, 1] at most 32 pixels a side, or standardised vectors."""
    if inputs.ndim == 2:
        deviation = inputs.std(axis=0, dtype=np.float64)
        centred = inputs - inputs.mean(axis=0, dtype=np.float64)
        return np.asarray(centred / np.where(deviation > 0, deviation, 1), dtype=np.float32)
    return shrink_pictures(inputs)


def _leading_components(features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA

    sample = generator(seed, "instance-sample").permutation(len(features))[:10_000]
    size = min(_COMPONENTS, features.shape[1], len(sample))
    state = derive_seed(seed, "instance-components") % 2**32
    pca = PCA(size, whiten=True, svd_solver="randomized", random_state=state)
    with np.errstate(invalid="ignore"):  # a share of no variance, where all inputs are equal
        projected = pca.fit(features[np.sort(sample)]).transform(features)
    return np.asarray(projected, dtype=np.float32)
