"""The verdict on a set of labels: how many are wrong, which, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, logit

from noiseaudit.precision import flag_at_precision
from noiseaudit.seeding import generator

__all__ = ["TOLD_APART", "Estimate", "NoiseEstimate", "Threshold", "Witness", "quantiles"]

TOLD_APART = 0.65
"""AUROC of plants below which no number is to be trusted."""

_CHANCE = 0.5  # over sqrt(plants): 1.7 deviations of the AUROC of plants that score like any other
_ALL = 0.9  # share of labels that may be wrong from which next to nothing is ruled out
_ROUGH, _DOUBTFUL = 0.3, 0.05  # chosen on digits and Fashion-MNIST, seed 0
_DRAWS = 20  # of the number wrong, for each resample
_LEAST_SHARE = 1e-6  # of wrong labels, below which there are none
_FARTHEST = 1e3  # log odds, beyond which probabilities are 0 and 1
_BINS, _RATES = 50, 100  # of probabilities; drawn from an interval


class Estimate(NamedTuple):
    """A number and its interval."""

    value: float
    low: float
    high: float


class Witness(NamedTuple):
    """What says how many labels are wrong, the rate by it alone, and whether that counts."""

    name: str
    rate: float
    counts: bool = True


@dataclass(frozen=True)
class Threshold:
    """Every label that is wrong with at least a wanted probability: `flag_at_precision`.

    With `each=False` the most of the most probable ones that are wrong with it on average.

    Attributes:
        count: of examples with `p_error` at least `p_error`; 0 if none will do.
        p_error: of the last of them; NaN if there is none.
        precision: expected share of wrong labels among them, NaN if there are none.
    """

    count: int
    p_error: float
    precision: Estimate


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """The verdict on n labels.

    Rate, probabilities and intervals are those of errors as hard to find as the plants, which fall
    on any example of a class. Errors that fall on ambiguous examples alone score like examples
    that a model finds ambiguous, which may all be right, and are hardly counted: `most` says how
    many there may be (`benchmarks/noise_rate.py`, instance noise); in audits two runs of a network
    count them where they contradict more than their errors explain (`run_agreement`). Where 40% of
    a class have the label of another, a network believes many of them: the rate falls short by 15
    to 55% (`benchmarks/noise_rate.py`, pair and asymmetric noise), and its interval is wide; in
    audits a second run and left-out predictions help (`run_agreement`, `benchmarks/verdict.py`). Of
    a weak model all is rougher. No statistic of labels and predictions can do better there: labels
    drawn at random where two classes look alike are the same data whether they are mistakes or not.
    A person's decisions tell (`review_progress`).

    Attributes:
        p_error: (n,) float64 in [0, 1], that the given label is wrong.
        suggested: (n,) int64, the label preferred to the given one.
        rate: share of wrong labels.
        most: share of wrong labels if every label that scores like a plant is wrong, still by the
            plants' recall; like one between two classes, where such were planted
            (`plant_rivals`), which is far more where a model is weak.
        per_class: by given label, expected number of wrong labels; (k,) each.
        per_pair: (k, k) each: suggested c, given j.
        plants: how many there were that count, in all rounds.
        auroc: of the plants among all others, in [0, 1].
        confidence: of all intervals.
        witnesses: what the rate comes of, and what else was asked; planted flips come first.
    """

    p_error: NDArray[np.float64]
    suggested: NDArray[np.int64]
    rate: Estimate
    most: float
    per_class: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    per_pair: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
    plants: int
    auroc: float
    confidence: float
    _bins: NDArray[np.int16] = field(repr=False)
    _curves: NDArray[np.float64] = field(repr=False)
    witnesses: tuple[Witness, ...] = ()

    @property
    def is_supported(self) -> bool:
        """Whether the scores tell plants from the rest well enough for a number.

        More than by chance, of which there is the more the fewer plants there are, and so that not
        nearly all labels may be wrong.
        """
        return self.auroc >= TOLD_APART + _CHANCE / self.plants**0.5 and self.most < _ALL

    @property
    def is_close(self) -> bool:
        """Whether so few right labels look like wrong ones that the rate is more than a guess.

        That is whether `most` is above the rate by at most 5% of all labels, or 30% of the rate.
        Where a model finds more examples doubtful, rates were off by up to several times
        (`benchmarks/verdict.py`); `most` was below the truth for some instance noise alone, by at
        most a quarter.
        """
        return self.is_supported and (
            self.most - self.rate.value <= max(_DOUBTFUL, _ROUGH * self.rate.value)
        )

    def at_rate(
        self,
        rate: Estimate,
        log_odds: NDArray[np.float64],
        labels: NDArray[np.int64],
        witnesses: tuple[Witness, ...],
        *,
        seed: int = 0,
    ) -> NoiseEstimate:
        """The same with another rate, and all that follows from it; bounds from its bounds.

        Args:
            rate: share of wrong labels, in [0, 1].
            log_odds: (n,) float64, of errors, up to a number: they are moved to add up to the rate.
            labels: (n,) int64, given labels.
            witnesses: what the rate comes of.
            seed: of the draws from the interval.
        """
        probs = [_probs_at(log_odds, share) for share in rate]
        p_error = probs[0]
        pairs, fewest, most = (self._count_pairs(item, labels) for item in probs)
        bins = np.minimum((p_error * _BINS).astype(np.int16), _BINS - 1)
        held = np.maximum(np.bincount(bins, minlength=_BINS), 1)
        drawn = generator(seed, "agreement").uniform(rate.low, rate.high, _RATES)
        curves = [np.bincount(bins, _probs_at(log_odds, r), _BINS) / held for r in drawn]
        return replace(
            self,
            p_error=p_error,
            rate=rate,
            most=max(self.most, rate.high),
            per_class=(pairs.sum(axis=0), fewest.sum(axis=0), most.sum(axis=0)),
            per_pair=(pairs, fewest, most),
            _bins=bins[None],
            _curves=np.stack(curves),
            witnesses=witnesses,
        )

    def _count_pairs(
        self, p_error: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(k, k) expected wrong labels, by suggested and given class."""
        k = len(self.per_pair[0])
        counts = np.bincount(self.suggested * k + labels, p_error, k * k)
        return np.asarray(counts.reshape(k, k), np.float64)

    def threshold(self, precision: float = 0.9, *, each: bool = True) -> Threshold:
        """How many can be flagged, most probable first, at a wanted precision.

        Args:
            precision: wanted, in (0, 1].
            each: whether every label flagged must be wrong with that probability, and not all of
                them on average: fewer are flagged, and where a model is weak the precision wanted
                is reached far more often (`benchmarks/noise_rate.py`).

        Raises:
            UsageError: if the precision is outside (0, 1].
        """
        order = np.argsort(-self.p_error, kind="stable")
        sorted_p = self.p_error[order]
        means = np.cumsum(sorted_p) / np.arange(1, len(order) + 1)
        ends = np.append(sorted_p[1:] != sorted_p[:-1], True)  # equals stay together
        fit = np.flatnonzero(ends & flag_at_precision(sorted_p if each else means, precision))
        if not len(fit):
            return Threshold(0, float("nan"), Estimate(float("nan"), float("nan"), float("nan")))
        chosen = order[: fit[-1] + 1]
        bins = self._bins[:, chosen]
        counts = np.bincount(bins[bins >= 0], minlength=self._curves.shape[1])
        shares = np.clip(self._curves @ counts / counts.sum(), 0, 1)
        # What is reached varies with the examples flagged, however well their mean is known.
        random = generator(0, "reached-precision")
        drawn = random.binomial(len(chosen), np.tile(shares, _DRAWS)) / len(chosen)
        interval = quantiles(drawn, self.confidence)
        value = float(means[fit[-1]])
        return Threshold(
            len(chosen), float(sorted_p[fit[-1]]),
            Estimate(value, min(value, interval[0]), max(value, interval[1])),
        )  # fmt: skip


def _probs_at(log_odds: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """(n,) in [0, 1], of these log odds moved so that the mean is the rate."""
    if rate < _LEAST_SHARE or rate > 1 - _LEAST_SHARE:
        return np.full(len(log_odds), round(rate), np.float64)
    log_odds = np.clip(log_odds, -_FARTHEST, _FARTHEST)
    far = abs(float(logit(rate)))
    shift = brentq(
        lambda number: float(expit(log_odds + number).mean()) - rate,
        -float(log_odds.max()) - far - 1, -float(log_odds.min()) + far + 1,
    )  # fmt: skip
    return np.asarray(expit(log_odds + shift), np.float64)


def quantiles(values: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """The middle part of resampled values."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
