"""A reason for each flag: which kind of trouble it is, from how signals disagree.

Measured where the truth is planted (`benchmarks/flag_reasons.py`, three seeds together; the rules
were chosen on seed 0 of digits and Fashion-MNIST, and of MNIST for one): the share of what is given
a reason that was planted as such, among all that was planted; and the share of the flagged ones of
that kind that are given it.

    precision / recall, %   digits     Fashion-MNIST   MNIST      photographs (embeddings)
    mislabelled             99 / 85    96 / 88         99 / 90    74 / 96
    ambiguous               48 / 73    46 / 77         56 / 85    29 / 29 (7 flagged)
    atypical                74 / 38    25 / 4          69 / 34    - / 0 (5 flagged)
    conflicting_duplicate   99 / 100   99 / 100        100 / 100  100 / 100
    out_of_distribution     61 / 64    93 / 93         84 / 82    89 / 33

So "mislabelled" and "conflicting_duplicate" can be relied on where a network was trained, and
"out_of_distribution" where strangers look different enough. "Ambiguous" is what is left when no
more can be said: half of it is something else. "Atypical" is a hint: a network learns most rare
modes well enough that they are not flagged, and of the 28 that were on Fashion-MNIST it knew one.
Of flags on examples that nothing was done to, whose kind nobody knows, most are called ambiguous;
on Fashion-MNIST 18% and on photographs 67% of them are called mislabelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from noiseaudit._rows import spread_rows, two_best
from noiseaudit._validation import check_finite, check_labels, check_same_length, first_rows
from noiseaudit.errors import DataError, check_name
from noiseaudit.ridge_features import standardise

__all__ = ["KINDS", "FlagReasons", "Kind", "explain_flags"]

Kind = Literal[
    "mislabelled", "ambiguous", "atypical", "conflicting_duplicate", "out_of_distribution", ""
]
KINDS: tuple[Kind, ...] = (
    "mislabelled", "ambiguous", "atypical", "conflicting_duplicate", "out_of_distribution", "",
)  # fmt: skip
"""What a flag can be; "" is what is not flagged, or fits none."""

_METRICS = ("cosine", "euclidean")
_CLEAR = 5.0  # times as likely as another class, and a class is preferred
_LOW, _FAR = 0.01, 0.95  # quantiles of ordinary examples
_LATE = 0.25  # share of the epochs that are the end of training
_MEGABYTES = 64  # of cosine distances at a time; of scikit-learn's 1,024 there would be copies
_ENOUGH = 20  # ordinary examples of a class, else those of all classes set its limits
_MEASURED = 5_000  # ordinary examples whose distances set the limits, spread over classes
_NEAR, _ALIKE = 10, 5  # neighbours by which one is far; that are asked for their label


@dataclass(frozen=True, eq=False)
class FlagReasons:
    """The kind of each of n flags, and what says so.

    Attributes:
        kind: (n,) texts, of `KINDS`.
        given_prob: (n,) float64 in [0, 1], of the given label.
        other: (n,) int64, the most likely of the other classes.
        other_prob: (n,) float64 in [0, 1].
        distance: (n,) float64, how far the nearest examples lie, in units of what all but 5% of
            ordinary examples of the most likely class keep to; NaN where it was not measured.
        alike: (n,) float64 in [0, 1], share of the nearest with the same given label, or NaN.
        epochs_right: (n,) int64, in how many epochs the given label was predicted.
        epochs: their number; 0 where the probabilities are of one model for each example.
    """

    kind: NDArray[np.str_]
    given_prob: NDArray[np.float64]
    other: NDArray[np.int64]
    other_prob: NDArray[np.float64]
    distance: NDArray[np.float64]
    alike: NDArray[np.float64]
    epochs_right: NDArray[np.int64]
    epochs: int

    def counts(self) -> dict[str, int]:
        """How many flags there are of each kind that occurs, in the order of `KINDS`."""
        found = {name: int((self.kind == name).sum()) for name in KINDS if name}
        return {name: count for name, count in found.items() if count}

    def sentence(self, row: int, class_names: Sequence[str], label: int) -> str:
        """Why in a plain sentence, of an example with this given label; "" where there is no kind.

        Of a copy `DuplicateGroups.reason` knows more: which other one it is.
        """
        given, other = class_names[label], class_names[self.other[row]]
        mine, best = f"{self.given_prob[row]:.0%}", f"{self.other_prob[row]:.0%}"
        kind = self.kind[row]
        if kind == "conflicting_duplicate":
            return "a copy of it has another label"
        if kind == "mislabelled":
            text = f"mislabelled: {other} ({best}) rather than {given} ({mine})"
            return text + self._told(row, given)
        if kind == "ambiguous":
            return f"ambiguous: neither {given} ({mine}) nor {other} ({best}) is clear"
        far = f"{self.distance[row]:.1f} times as far from its neighbours as others are at most"
        if kind == "atypical":
            share = f"{self.alike[row]:.0%} of its neighbours are {given} too"
            return f"rare or atypical: {far}, but {share}{self._told(row, given)}"
        if kind == "out_of_distribution":
            return f"unlike every class: {far}, and they are not {given}"
        return ""

    def _told(self, row: int, given: str) -> str:
        if not self.epochs:
            return ", judging by all other examples"
        right = int(self.epochs_right[row])
        if not right:
            return f"; never predicted as {given} in {self.epochs} epochs"
        return f"; predicted as {given} in {right} of {self.epochs} epochs"


def explain_flags(
    labels: NDArray[np.int64],
    pred_probs: NDArray[np.float32],
    flagged: NDArray[np.bool_],
    *,
    confirmed: NDArray[np.bool_] | None = None,
    correct_history: NDArray[np.int8] | None = None,
    vectors: NDArray[np.float32] | None = None,
    features: NDArray[np.float32] | None = None,
    metric: Literal["cosine", "euclidean"] = "cosine",
    p_error: NDArray[np.float64] | None = None,
) -> FlagReasons:
    """Give each flag its kind. Ordinary examples, those not flagged, say what is usual.

    In this order:

    - conflicting_duplicate: confirmed.
    - mislabelled: another class is at least five times as likely as the given one, and as likely as
      the lowest 1% of its ordinary examples find it; over a training run that is one preferred
      early. Not where the label is more likely right by `p_error`.
    - far is what lies further from the 10 nearest ordinary examples than 95% of those of the class
      that it is most likely do. Of these out_of_distribution is what does not have its own label in
      the end: most of its 5 nearest by `features` have others, or in the last quarter of the epochs
      it was mostly predicted as another class. Atypical is what does, and whose nearest has it too.
    - ambiguous: the rest, unless the given class is as clearly preferred as above.

    Without `vectors` the middle two are never said: low probability alone tells neither from
    ambiguous. A class with fewer than 20 ordinary examples is held to the limits of all; where
    there are no 20 at all, nothing is said but of copies.

    Cost: (2 f + 5,000) n d multiplications, f the number flagged.

    Args:
        labels: (n,) given labels in [0, k).
        pred_probs: (n, k) in [0, 1], averaged over a training run (in-sample) or out-of-sample.
        flagged: (n,) bool, what the audit suspects.
        confirmed: (n,) bool, copies under conflicting labels; a reason whether flagged or not.
        correct_history: (e, n) of the training run, 1 right; None if there was none.
        vectors: (n, d) what examples look like: embeddings, `picture_vectors`, a table's numbers.
            Hidden features
            of the training run itself serve badly: they draw an example to its given label.
        features: (n, d') hidden features of the last epoch, whose neighbours say which label an
            example has in the end; default: `vectors`.
        metric: of `vectors`: "cosine", or "euclidean" of standardised columns, for tables.
        p_error: (n,) in [0, 1], that the given label is wrong.

    Raises:
        DataError: if lengths differ, or a value is out of range or not finite.
        UnknownNameError: for a metric that does not exist.
    """
    given = _checked(labels, pred_probs, flagged, confirmed, correct_history, p_error)
    check_name(metric, _METRICS, "metric")
    _check_points(given, vectors=vectors, features=features)
    n, k = pred_probs.shape
    copies = np.zeros(n, dtype=bool) if confirmed is None else confirmed
    asked, ordinary = flagged & ~copies, ~flagged & ~copies
    mine, other, theirs = two_best(pred_probs, given)
    best = np.where(theirs > mine, other, given)
    kind = np.full(n, "", dtype=f"<U{max(map(len, KINDS))}")
    distance, alike = np.full((2, n), np.nan)
    epochs = 0 if correct_history is None else len(correct_history)
    right = np.zeros((0, n), bool) if correct_history is None else correct_history == 1
    if ordinary.sum() >= _ENOUGH and asked.any():
        usual = _limits(mine, given, np.flatnonzero(ordinary), k, _LOW)[best]
        is_usual = np.maximum(mine, theirs) >= usual
        wrong = is_usual & (theirs >= _CLEAR * mine)
        if p_error is not None:
            wrong &= p_error >= 0.5
        settled = is_usual & (mine >= _CLEAR * theirs)
        kind[asked & ~settled] = "ambiguous"
        if vectors is not None:
            distance, nearest_alike, alike = _places(
                given, best, vectors, features, metric, asked & ~wrong, ordinary
            )
            is_own = alike > 0.5
            if epochs:
                is_own &= right[-max(1, round(_LATE * epochs)) :].mean(axis=0) >= 0.5
            is_far = distance > 1
            kind[is_far & ~is_own & ~settled] = "out_of_distribution"
            kind[is_far & is_own & nearest_alike] = "atypical"
        kind[asked & wrong] = "mislabelled"
    kind[copies] = "conflicting_duplicate"
    return FlagReasons(
        kind, mine, other, theirs, distance, alike, right.sum(axis=0, dtype=np.int64), epochs
    )


def _checked(
    labels: NDArray[np.int64],
    pred_probs: NDArray[np.float32],
    flagged: NDArray[np.bool_],
    confirmed: NDArray[np.bool_] | None,
    correct_history: NDArray[np.int8] | None,
    p_error: NDArray[np.float64] | None,
) -> NDArray[np.int64]:
    if pred_probs.ndim != 2 or pred_probs.shape[1] < 2:
        raise DataError(
            f"pred_probs must have shape (n, k) with at least two classes; got {pred_probs.shape}"
        )
    given = check_labels(labels, pred_probs.shape[1])
    masks = {"flagged": flagged, "confirmed": flagged if confirmed is None else confirmed}
    for name, mask in masks.items():
        if mask.dtype != np.bool_:
            raise DataError(f"{name} must be a mask of truth values; got dtype {mask.dtype}")
    check_same_length(labels=given, pred_probs=pred_probs, **masks)
    check_finite(pred_probs, "pred_probs")
    if correct_history is not None and correct_history.shape[1:] != given.shape:
        raise DataError(
            f"correct_history must have shape (e, {len(given)}); got {correct_history.shape}"
        )
    if p_error is not None:
        check_same_length(labels=given, p_error=p_error)
        if (odd := ~((p_error >= 0) & (p_error <= 1))).any():
            raise DataError(f"p_error must be in [0, 1]; it is not in {first_rows(odd)}")
    return given


def _check_points(labels: NDArray[np.int64], **points: NDArray[np.float32] | None) -> None:
    for name, array in points.items():
        if array is None:
            continue
        if array.ndim != 2 or not array.shape[1]:
            raise DataError(f"{name} must have shape (n, d), d at least 1; got {array.shape}")
        check_same_length(labels=labels, **{name: array})


def _limits(
    values: NDArray[np.float64],
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    k: int,
    quantile: float,
) -> NDArray[np.float64]:
    """(k,) a quantile of the values of some rows, by class; of all where a class has too few."""
    limits = np.full(k, np.quantile(values[rows], quantile))
    for label, own in enumerate(_by_class(labels, rows, k)):
        if len(own) >= _ENOUGH:
            limits[label] = np.quantile(values[own], quantile)
    return limits


def _by_class(
    labels: NDArray[np.int64], rows: NDArray[np.int64], k: int
) -> list[NDArray[np.int64]]:
    order = rows[np.argsort(labels[rows], kind="stable")]
    return np.split(order, np.cumsum(np.bincount(labels[rows], minlength=k))[:-1])


def _places(
    labels: NDArray[np.int64],
    best: NDArray[np.int64],
    vectors: NDArray[np.float32],
    features: NDArray[np.float32] | None,
    metric: str,
    asked: NDArray[np.bool_],
    ordinary: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """Of `asked`, (n,) each: relative distance; whether the nearest has its label; alike."""
    n, k = len(labels), int(max(labels.max(), best.max())) + 1
    distance, alike = np.full((2, n), np.nan)
    nearest_alike = np.zeros(n, dtype=bool)
    rows = np.flatnonzero(asked)
    if not len(rows):
        return distance, nearest_alike, alike
    most = max(2 * _ENOUGH, _MEASURED // k)
    usual = np.concatenate([
        own[spread_rows(len(own), most)]
        for own in _by_class(labels, np.flatnonzero(ordinary), k)
    ])  # fmt: skip
    check_finite(vectors, "vectors")
    places = vectors if metric == "cosine" else standardise(vectors)(slice(None))
    both = np.concatenate([rows, usual])
    distance[both], _ = _nearest(places, both, np.flatnonzero(ordinary), _NEAR, metric)
    limits = _limits(distance, labels, usual, k, _FAR)[best]
    distance[usual] = np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        distance /= limits
    every = np.arange(n)
    _, near = _nearest(places, rows, every, _ALIKE, metric)
    nearest_alike[rows] = labels[near[:, 0]] == labels[rows]
    if features is not None:
        check_finite(features, "features")
        _, near = _nearest(features, rows, every, _ALIKE, "euclidean")
    alike[rows] = (labels[near] == labels[rows, None]).mean(axis=1)
    return distance, nearest_alike, alike


def _nearest(
    points: NDArray[np.floating],
    rows: NDArray[np.int64],
    among: NDArray[np.int64],
    count: int,
    metric: str,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Mean distance of (m,) rows to the nearest of `among` but themselves, and these rows."""
    import sklearn
    from sklearn.neighbors import NearestNeighbors

    count = min(count, len(among) - 1)
    search = NearestNeighbors(n_neighbors=count + 1, algorithm="brute", metric=metric)
    with sklearn.config_context(working_memory=_MEGABYTES):
        distances, places = search.fit(points[among]).kneighbors(points[rows])
    found = among[places]
    # Of several examples in one place, the row itself need not come first.
    order = np.argsort(found == rows[:, None], axis=1, kind="stable")[:, :count]
    mean = np.take_along_axis(distances, order, axis=1).mean(axis=1, dtype=np.float64)
    return mean, np.take_along_axis(found, order, axis=1)
