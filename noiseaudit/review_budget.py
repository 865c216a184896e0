"""How far a review has come: what a person decided on some examples, and what is left to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit

from noiseaudit._validation import check_finite, first_rows
from noiseaudit.errors import DataError, UsageError
from noiseaudit.noise_estimate import Estimate, quantiles
from noiseaudit.review_posterior import (
    Bins,
    Floats,
    draw_left,
    fit_posterior,
    hidden_shares,
    make_bins,
    mean_odds,
    update_probabilities,
)
from noiseaudit.seeding import generator

__all__ = ["ReviewPlan", "ReviewProgress", "review_progress"]

_CHECKS = 1.3  # growth between the numbers of checks that a plan tries


class ReviewPlan(NamedTuple):
    """What to look at next: the most probable ones, and others at random."""

    probable: int
    checks: int


@dataclass(frozen=True, eq=False)
class ReviewProgress:
    """What is known of n labels after some were reviewed.

    Attributes:
        p_error: (n,) float64 in [0, 1]: 0 or 1 where reviewed, elsewhere as the decisions let it be
            expected. The mean over all that may be the case: of many examples at the low end it
            adds up to more than `expected_left`, until some of them were looked at.
        is_reviewed: (n,) bool.
        found: how many reviewed labels were wrong.
        expected_left: how many others are: the middle and the interval of posterior draws.
        share_found: found / (found + left), likewise; 1 where there are none at all.
        confidence: of both intervals.
    """

    p_error: Floats
    is_reviewed: NDArray[np.bool_]
    found: int
    expected_left: Estimate
    share_found: Estimate
    confidence: float
    _order: NDArray[np.int64] = field(repr=False)
    _bins: Bins = field(repr=False)
    _left: Floats = field(repr=False)  # (draws, b)
    _again: Callable[[Floats], Floats] = field(repr=False)

    @property
    def reviewed(self) -> int:
        """How many were reviewed."""
        return int(self.is_reviewed.sum())

    def probability_found(self, share: float = 0.95) -> float:
        """In [0, 1], that at least this share of all wrong labels was found.

        Raises:
            UsageError: if the share is outside (0, 1].
        """
        _check_share("share", share, can_be_all=True)
        return _reached(self.found, np.zeros(1), self._left.sum(axis=1), share)

    def is_done(self, share: float = 0.95, confidence: float = 0.9) -> bool:
        """Whether that share of the wrong labels was found, at that confidence.

        Raises:
            UsageError: if the share is outside (0, 1], or the confidence outside (0, 1).
        """
        _check_share("confidence", confidence)
        return self.probability_found(share) >= confidence

    def next_rows(self, k: int) -> NDArray[np.int64]:
        """(up to k,) int64 rows to review next, most probable first."""
        _check_count(k)
        return self._order[:k].copy()

    def sample_rows(self, k: int, seed: int = 0) -> NDArray[np.int64]:
        """(up to k,) int64 rows drawn from those not reviewed, to check the low end.

        A systematic sample along the order of `next_rows`: every row has the same chance, and every
        part of the order its share. Only such a sample can tell of errors that `p_error` misses;
        TAR calls it an elusion test.
        """
        _check_count(k)
        m = len(self._order)
        if k in (0, m) or k > m:
            return self._order[:k].copy()
        start = generator(seed, "review-checks", self.reviewed).random()
        places = ((np.arange(k) + start) * (m / k)).astype(np.int64)
        return self._order[np.minimum(places, m - 1)]

    def needed(self, share: float = 0.95, confidence: float = 0.9) -> int:
        """How many more, in the order of `next_rows`, until that share is found.

        What these reviews will teach is not counted on: `plan` does so for random checks. All that
        are left, if nothing less will do.

        Raises:
            UsageError: as `is_done`.
        """
        _check_share("share", share, can_be_all=True)
        _check_share("confidence", confidence)
        return self._needed(self._left, self.found, self._order, share, confidence)

    def plan(self, share: float = 0.95, confidence: float = 0.9) -> ReviewPlan:
        """The fewest reviews that are expected to do, with random checks among them.

        Checks are taken to find as many wrong labels as expected; look again after them. Both
        numbers are 0 if the review is done. Cost: a fit for each of about 20 numbers of checks:
        0.2 s for 1,800 examples, 2 s for a million.

        Raises:
            UsageError: as `is_done`.
        """
        best = ReviewPlan(self.needed(share, confidence), 0)
        m, checks = len(self._order), 10
        size = self._left.shape[1]
        free = np.bincount(self._bins.of[self._order], minlength=size)
        while checks < min(m, sum(best)):
            part = checks / m
            left = self._again((free * part).astype(np.float64))
            found = self.found + part * float(np.median(self._left.sum(axis=1)))
            rest = self._order[: m - checks]  # about as far down as without the checks
            more = self._needed(left, found, rest, share, confidence)
            if more + checks < sum(best):
                best = ReviewPlan(more, checks)
            checks = int(np.ceil(checks * _CHECKS))
        return best

    def _needed(
        self, left: Floats, found: float, order: NDArray[np.int64], share: float, confidence: float
    ) -> int:
        bins = self._bins.of[order]
        sizes = np.maximum(np.bincount(bins, minlength=left.shape[1]), 1)
        total = left.sum(axis=1)
        low, high = -1, len(order)  # not enough, enough
        while high - low > 1:
            k = (low + high) // 2
            seen = np.bincount(bins[:k], minlength=left.shape[1]) / sizes
            gained = left @ seen
            if _reached(found, gained, total - gained, share) >= confidence:
                high = k
            else:
                low = k
        return high


def review_progress(
    p_error: ArrayLike,
    rows: ArrayLike,
    is_wrong: ArrayLike,
    *,
    confidence: float = 0.9,
    seed: int = 0,
) -> ReviewProgress:
    """Update error probabilities by a person's decisions, and say how many errors are left.

    Which examples were looked at may depend on `p_error` and on chance, as `next_rows` and
    `sample_rows` have it, and need not be told: given the ranks, either kind says the same of its
    neighbours. The deviation from `p_error` is 0.7 nats in the log odds, a factor of two, or with a
    prior probability of 5% 2 nats: where errors are of kinds that `p_error` misses, a few dozen
    decisions show it. With 40% prior probability
    0.2% to 30% of all labels are wrong unnoticed by `p_error`: enough that no review is done before
    it has seen something of the low end. Where next to none is wrong, a share of them says little
    and no review is ever done: see `expected_left`. These numbers are set by hand. What they give
    is cautious: on digits with 5-20% noise, half of it of kinds that `p_error` misses, 90% and 95%
    had been found in all 36 cells when it said so, at a median of 2.0 and 2.7 times the reviews of
    somebody who knows where to stop in the same order; never were more left than the interval
    said, but in one cell of seven fewer (`benchmarks/review_budget.py`).

    Cost: 16 fits to a few dozen counts and 2,000 draws of them: 10 ms for 1,800 examples, half
    a second for a million.
    Source: Lewis, Yang & Frieder, CIKM 2021, and Callaghan & Mueller-Hansen, Systematic Reviews
    2020 (why only random samples certify a stop, and their sequential use); Stevenson & Bin-Hezam,
    ACM TOIS 2023 (a rate of finds that falls with the rank). The model, which is our own, is in
    `review_posterior`; it gives none of their guarantees where its prior is wrong.

    Args:
        p_error: (n,) float64 in [0, 1], that the given label is wrong. Equal ones are taken in the
            order given: hand in the most suspicious first.
        rows: (m,) int64, which were reviewed, each once.
        is_wrong: (m,) bool, what the person found.
        confidence: of the intervals, in (0, 1).
        seed: of the posterior draws.

    Raises:
        DataError: for probabilities, rows or decisions that do not fit.
        UsageError: for a confidence outside (0, 1).
    """
    p, at, wrong = _checked(p_error, rows, is_wrong)
    _check_share("confidence", confidence)
    n = len(p)
    is_reviewed = np.zeros(n, dtype=bool)
    is_reviewed[at] = True
    bins = make_bins(p)
    size = bins.covariances.shape[-1]
    hidden = hidden_shares(n)
    seen = np.bincount(bins.of[at], minlength=size).astype(np.float64)
    errors = np.bincount(bins.of[at], wrong, size).astype(np.float64)
    free = np.bincount(bins.of[~is_reviewed], minlength=size)
    reviewed_odds = mean_odds(p, bins.of, is_reviewed, hidden, size)
    free_odds = mean_odds(p, bins.of, ~is_reviewed, hidden, size)
    posterior = fit_posterior(seen, errors, reviewed_odds, bins.covariances)
    left = draw_left(posterior, free, free_odds, seed)

    def again(more: Floats) -> Floats:
        """Draws of what is left when `more` of each bin were reviewed and found as expected."""
        rates = np.einsum("h,hb->b", posterior.shares, expit(free_odds + posterior.means))
        odds = (seen * expit(reviewed_odds) + more * expit(free_odds)) / np.maximum(
            seen + more, 1e-9
        )
        odds = logit(np.clip(odds, 1e-9, 1 - 1e-9))
        found = fit_posterior(seen + more, errors + more * rates, odds, bins.covariances)
        return draw_left(found, np.round(free - more).astype(np.int64), free_odds, seed)

    updated = update_probabilities(p, bins.of, hidden, posterior)
    ranked = np.argsort(-p, kind="stable")
    order = ranked[~is_reviewed[ranked]]
    # Labels that p_error holds for worse are not taken for better, however others were decided.
    updated[order] = isotonic_regression(updated[order], increasing=False).x
    updated[at] = wrong
    counts = left.sum(axis=1)
    found = int(wrong.sum())
    shares = np.where(found + counts > 0, found / np.maximum(found + counts, 1), 1.0)
    return ReviewProgress(
        p_error=updated, is_reviewed=is_reviewed, found=found,
        expected_left=_summary(counts, confidence), share_found=_summary(shares, confidence),
        confidence=confidence, _order=order, _bins=bins, _left=left,
        _again=again,
    )  # fmt: skip


def _summary(values: Floats, confidence: float) -> Estimate:
    return Estimate(float(np.median(values)), *quantiles(values, confidence))


def _reached(found: float, gained: Floats, left: Floats, share: float) -> float:
    """Share of the draws in which enough was found."""
    have = found + gained
    return float((have >= share * (have + left) - 1e-9).mean())


def _checked(
    p_error: ArrayLike, rows: ArrayLike, is_wrong: ArrayLike
) -> tuple[Floats, NDArray[np.int64], NDArray[np.float64]]:
    p = np.asarray(p_error, dtype=np.float64)
    if p.ndim != 1 or not len(p):
        raise DataError(f"p_error must have shape (n,), n at least 1; got {p.shape}")
    check_finite(p, "p_error")
    if (outside := (p < 0) | (p > 1)).any():
        raise DataError(f"p_error must be in [0, 1]; outside in {first_rows(outside)}")
    at, wrong = np.asarray(rows), np.asarray(is_wrong)
    if at.ndim != 1 or wrong.shape != at.shape:
        raise DataError(
            f"rows and is_wrong must have one shape (m,); got {at.shape} and {wrong.shape}"
        )
    if len(at) and (at.dtype.kind not in "iu" or at.min() < 0 or at.max() >= len(p)):
        raise DataError(f"rows must be integers in [0, {len(p)})")
    if len(wrong) and wrong.dtype.kind != "b":
        raise DataError(f"is_wrong must be bool; got dtype {wrong.dtype}")
    if len(np.unique(at)) < len(at):
        raise DataError("rows must not repeat: give the last decision on each example")
    return p, at.astype(np.int64), wrong.astype(np.float64)


def _check_share(name: str, value: float, *, can_be_all: bool = False) -> None:
    if not (0 < value < 1 or (can_be_all and value == 1)):
        raise UsageError(f"{name} must be in (0, 1{']' if can_be_all else ')'}; got {value:g}")


def _check_count(k: int) -> None:
    if k < 0:
        raise UsageError(f"k must not be negative; got {k}")
