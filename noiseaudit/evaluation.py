"""Scores against the answer key: AUROC, average precision, removal rate, and their intervals.

**Ties are exact.** A figure is what is expected when tied examples stand in random order, except
average precision, which takes a tied group as one threshold, as scikit-learn does: so a constant
score has AUROC 0.5 and average precision equal to the rate, and no figure depends on row order.

**Undefined is NaN**, with no warning: AUROC and the false-positive rate need a corrupted and a
clean example, everything else a corrupted one, and precision at k needs k >= 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import (
    check_finite,
    check_ids,
    check_same_length,
    find_rows,
    first_rows,
)
from noiseaudit.errors import DataError, UsageError, check_name
from noiseaudit.ranking import Ranking
from noiseaudit.seeding import generator

__all__ = [
    "FIGURES",
    "Evaluation",
    "Interval",
    "auroc",
    "average_precision",
    "evaluate",
    "fpr_at_recall",
    "mean_interval",
    "paired_difference",
    "removal_rate",
]

# (g,) examples of each tied group, most suspicious group first. Sums are taken with .sum(), not @:
# the same at every thread count, and no BLAS threads to wake for a thousand small products.
Ids = NDArray[np.int64]
Counts = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """How well one ranking finds the corrupted examples; fractions in [0, 1], NaN if undefined.

    The first three are defined by the functions of their names, the false-positive rate by
    `fpr_at_recall`; precision and recall at k are the share of the k most suspicious that are
    corrupted, and the share of the `n_corrupted` among `n` that are there.
    """

    auroc: float
    average_precision: float
    removal_rate: float
    precision_at_k: float
    recall_at_k: float
    fpr_at_95_recall: float
    n_corrupted: int
    n: int
    k: int


@dataclass(frozen=True)
class Interval:
    """An estimate from n values (seeds, or examples) and its interval, NaN where there is none."""

    mean: float
    low: float
    high: float
    n: int


def evaluate(
    ranking: Ranking, is_corrupted: ArrayLike, *, ids: ArrayLike | None = None, k: int | None = None
) -> Evaluation:
    """Score a ranking against the answer key.

    Args:
        ranking: higher = more suspicious.
        is_corrupted: (n,) bool, aligned with `ids`, or with `ranking.ids` where `ids` is None.
        ids: (n,) int64, in any order; pass `corruption.dataset.ids` where orders may differ.
        k: of precision and recall, in [0, n]. Default: the number corrupted, where both equal the
            removal rate.

    Raises:
        DataError: if lengths or ids differ, or `is_corrupted` is not boolean.
        UsageError: if k is outside [0, n].

    Examples:
        >>> ranking = Ranking("loss", np.array([7, 8, 9]), np.array([0.1, 2.0, 0.3]))
        >>> evaluate(ranking, [False, True, False]).auroc
        1.0
    """
    key = _check_key(is_corrupted)
    if ids is not None:
        key = _align(key, check_ids(ids), ranking.ids)
    check_same_length(ranking=ranking, is_corrupted=key)
    counts, corrupted = _counts(ranking.scores, key), int(key.sum())
    size = corrupted if k is None else k
    precision, recall = _precision_recall(*counts, size)
    figures = {name: compute(*counts) for name, compute in FIGURES.items()}
    return Evaluation(
        **figures,
        precision_at_k=precision,
        recall_at_k=recall,
        n_corrupted=corrupted,
        n=len(key),
        k=size,
    )


def auroc(scores: ArrayLike, is_corrupted: ArrayLike) -> float:
    """P(a random corrupted example is more suspicious than a random clean one), ties one half.

    Equal to scikit-learn's `roc_auc_score`.

    Args:
        scores: (n,) finite; higher = more suspicious.
        is_corrupted: (n,) bool.

    Raises:
        DataError: if lengths differ, scores are not finite, or `is_corrupted` is not boolean.
    """
    return _auroc(*_counts(scores, is_corrupted))


def average_precision(scores: ArrayLike, is_corrupted: ArrayLike) -> float:
    """Precision at the threshold of each corrupted example, averaged over them.

    Equal to scikit-learn's `average_precision_score`: a tied group is one threshold. (Random order
    would expect more, 3/4 and not 1/2 for one corrupted example tied with one clean one.)

    Args and errors are those of `auroc`.
    """
    return _average_precision(*_counts(scores, is_corrupted))


def removal_rate(scores: ArrayLike, is_corrupted: ArrayLike) -> float:
    """Share of the k most suspicious that are corrupted, k = the number corrupted.

    Source: Jiang et al., ICML 2021 (the C-score paper), Figure 7c.

    Args and errors are those of `auroc`.
    """
    return _removal_rate(*_counts(scores, is_corrupted))


def fpr_at_recall(scores: ArrayLike, is_corrupted: ArrayLike, recall: float = 0.95) -> float:
    """Share of the clean examples that stand before the corrupted one which completes `recall`.

    Without ties the first point of scikit-learn's `roc_curve` with at least that recall. Within
    a group of p corrupted and q clean examples, r * q / (p + 1) clean ones are expected before the
    r-th corrupted one (negative hypergeometric); `roc_curve` would count all q.

    `recall` is in (0, 1], else UsageError; the other args and errors are those of `auroc`.
    """
    if not 0 < recall <= 1:
        raise UsageError(f"recall must be in (0, 1]; got {recall}")
    return _fpr_at_recall(*_counts(scores, is_corrupted), recall)


def mean_interval(values: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """Mean and Student-t interval of one figure over seeds.

    A single value has no interval; one that is not finite makes everything NaN. `confidence` is in
    (0, 1), else UsageError.
    """
    from scipy.special import stdtrit  # the quantile of scipy.stats.t, which takes 1 s to import

    _check_confidence(confidence)
    array = np.asarray(values, dtype=np.float64)
    count = len(array)
    if not count or not np.isfinite(array).all():
        return Interval(math.nan, math.nan, math.nan, count)
    mean, half = float(array.mean()), math.nan
    if count > 1:
        error = float(array.std(ddof=1)) / math.sqrt(count)
        half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error
    return Interval(mean, mean - half, mean + half, count)


def paired_difference(
    first: ArrayLike,
    second: ArrayLike,
    is_corrupted: ArrayLike,
    *,
    figure: str = "auroc",
    resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """How much better `first` is than `second` on the same examples, with a bootstrap interval.

    Stratified percentile bootstrap: corrupted and clean examples are resampled apart. It covers the
    choice of examples, not of the training seed (`mean_interval`). Seconds for 60,000 examples.

    Args:
        first: (n,) suspicion scores.
        second: (n,) those of the other detector.
        is_corrupted: (n,) bool.
        figure: one of `FIGURES`.
        resamples: at least 1; a thousand leave 25 beyond either end of a 95% interval.
        seed: of the resamples.
        confidence: in (0, 1).

    Returns:
        The observed difference as `mean`; NaN where the figure is undefined.

    Raises:
        DataError: if lengths differ, scores are not finite, or `is_corrupted` is not boolean.
        UsageError: if `figure`, `resamples` or `confidence` has no such value.
    """
    compute = FIGURES[check_name(figure, FIGURES, "figure")]
    if resamples < 1:
        raise UsageError(f"resamples must be at least 1; got {resamples}")
    _check_confidence(confidence)
    key = _check_key(is_corrupted)
    tables = [_Groups(_check_scores(scores, key)) for scores in (first, second)]

    def difference(weights: Counts) -> float:
        return compute(*tables[0].count(weights, key)) - compute(*tables[1].count(weights, key))

    observed = difference(np.ones(len(key)))
    if math.isnan(observed):
        return Interval(math.nan, math.nan, math.nan, len(key))
    drawn = [difference(weights) for weights in _resampled_weights(key, resamples, seed)]
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(observed, float(low), float(high), len(key))


def _resampled_weights(key: NDArray[np.bool_], resamples: int, seed: int) -> Iterator[Counts]:
    """How often each example is drawn, resample by resample."""
    random = generator(seed, "bootstrap")
    strata = [np.flatnonzero(key), np.flatnonzero(~key)]
    for _ in range(resamples):
        weights = np.zeros(len(key))
        for rows in strata:
            drawn = random.integers(0, max(1, len(rows)), len(rows))
            weights[rows] = np.bincount(drawn, minlength=len(rows))
        yield weights


class _Groups:
    """Rows sorted by falling score and cut into groups of equal score, to be counted often."""

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self.order = np.argsort(-scores, kind="stable")
        falling = scores[self.order]
        self.starts = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1]][: len(falling)])

    def count(self, weights: Counts, key: NDArray[np.bool_]) -> tuple[Counts, Counts]:
        """Corrupted and clean examples of each group, an example counted `weights` times."""
        bad = np.where(key, weights, 0)[self.order]
        good = np.where(key, 0, weights)[self.order]
        if len(self.starts) == len(self.order):  # nothing tied, or nothing at all
            return bad, good
        return np.add.reduceat(bad, self.starts), np.add.reduceat(good, self.starts)


def _counts(scores: ArrayLike, is_corrupted: ArrayLike) -> tuple[Counts, Counts]:
    key = _check_key(is_corrupted)
    return _Groups(_check_scores(scores, key)).count(np.ones(len(key)), key)


def _auroc(bad: Counts, good: Counts) -> float:
    pairs = bad.sum() * good.sum()
    if not pairs:
        return math.nan
    good_below = good.sum() - np.cumsum(good)
    return float((bad * (good_below + good / 2)).sum() / pairs)


def _average_precision(bad: Counts, good: Counts) -> float:
    if not bad.sum():
        return math.nan
    found, seen = np.cumsum(bad), np.cumsum(bad + good)
    return float((bad * found / np.maximum(seen, 1)).sum() / bad.sum())  # seen = 0: bad = 0


def _precision_recall(bad: Counts, good: Counts, k: int) -> tuple[float, float]:
    size, corrupted = bad + good, float(bad.sum())
    if not 0 <= k <= size.sum():
        raise UsageError(f"k must be in [0, {size.sum():.0f}], the number of examples; got {k}")
    taken = np.clip(k - (np.cumsum(size) - size), 0, size)  # of each group, among the k first
    hits = float((bad * taken / np.maximum(size, 1)).sum())
    return (hits / k if k else math.nan), (hits / corrupted if corrupted else math.nan)


def _removal_rate(bad: Counts, good: Counts) -> float:
    return _precision_recall(bad, good, round(bad.sum()))[0]


def _fpr_at_recall(bad: Counts, good: Counts, recall: float = 0.95) -> float:
    if not bad.sum() or not good.sum():
        return math.nan
    needed = math.ceil(recall * bad.sum() - 1e-9)  # 1e-9: 0.07 * 100 is 7.000000000000001
    found = np.cumsum(bad)
    group = int(np.searchsorted(found, needed))
    still = needed - (found[group] - bad[group])
    before = good[:group].sum() + still * good[group] / (bad[group] + 1)
    return float(before / good.sum())


FIGURES: dict[str, Callable[[Counts, Counts], float]] = {
    "auroc": _auroc,
    "average_precision": _average_precision,
    "removal_rate": _removal_rate,
    "fpr_at_95_recall": _fpr_at_recall,
}
"""What `paired_difference` can compare, each from the counts of tied groups."""


def _check_key(is_corrupted: ArrayLike) -> NDArray[np.bool_]:
    key = np.asarray(is_corrupted)
    if key.ndim != 1 or (len(key) and key.dtype.kind not in "biu"):
        raise DataError(f"is_corrupted must be (n,) bool; got {key.dtype} of shape {key.shape}")
    if (odd := ~np.isin(key, (0, 1))).any():
        raise DataError(
            f"is_corrupted must be bool, or 0 and 1; other numbers in {first_rows(odd)}"
        )
    return key.astype(bool)


def _check_scores(scores: ArrayLike, key: NDArray[np.bool_]) -> NDArray[np.float64]:
    array = np.asarray(scores)
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "fiu"):
        raise DataError(f"scores must be (n,) numbers; got {array.dtype} of shape {array.shape}")
    check_same_length(scores=array, is_corrupted=key)
    check_finite(array, "scores")
    return array.astype(np.float64)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence must be in (0, 1); got {confidence}")


def _align(key: NDArray[np.bool_], ids: Ids, wanted: Ids) -> NDArray[np.bool_]:
    """The key in the order of `wanted`."""
    check_same_length(is_corrupted=key, ids=ids)
    if len(odd := np.setxor1d(ids, wanted)):
        raise DataError(f"the ranking and `ids` differ in {len(odd)} sample ids, first {odd[0]}")
    return key[find_rows(ids, wanted)]
