"""Right and wrong labels mixed in one score, of which wrong ones are sampled by planted flips.

With g the density of the plants' scores and f that of all other examples, in the upper tail

    f(s) / g(s) = rate + height * exp(-slope * (s - cut)).

Wrong labels that score as the plants do add a constant to the ratio, the rate; right ones a part
that falls with suspicion. The constant is what remains at the top. Only the ratio is modelled, so
that neither density needs a form, and it is fitted as a logistic regression of "plant or not" is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

__all__ = [
    "MixtureEstimate",
    "MixtureFit",
    "RoundScores",
    "TailBins",
    "fit_mixture",
    "fit_slope",
    "make_bins",
    "make_round_scores",
    "share_above",
]

HIDDEN = 0.05
"""Share of the plants below the cut: there right labels are too many to say anything."""

_BINS = 100
_LEAST_LOG = -12.0  # of the rate: one in 160,000
_HIGHEST_LOG = 6.0  # of the ratio at the cut
_STEEPEST = 4.0  # times the least slope
_LOWER = 0.2  # part of the plants between classes that is left out: a few fix a lower quantile
_SLOPE = 0.5  # of log odds; chosen on digits and Fashion-MNIST embeddings, seed 0
_SLOPE_OF_ANY = 2.0  # times the slope fitted, which wrong labels among the others flatten; digits
_ROUNDS = 3  # with plants, from which on they are resampled
_START_SHARES = (0.01, 0.9)  # of the ratio at the cut that starts as the rate; equals: the lower


@dataclass(frozen=True, eq=False)
class TailBins:
    """Bins of suspicion from the cut on; what lies below is bin 0.

    Attributes:
        edges: (b,) float64, ascending: lower edges of bins 1 to b, the first is the cut.
        centres: (b,) float64, mean suspicion of the scores in each, less the cut.
    """

    edges: NDArray[np.float64]
    centres: NDArray[np.float64]

    def of(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Bin numbers, 0 to b."""
        return np.searchsorted(self.edges, scores, side="right")


@dataclass(frozen=True)
class MixtureFit:
    """The ratio of densities; `rate` is the share of wrong labels, 0 to 1."""

    rate: float
    height: float
    slope: float

    def prob_wrong(self, above_cut: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of scores less the cut, not negative."""
        right = self.height * np.exp(-self.slope * above_cut)
        return np.asarray(self.rate / (self.rate + right), np.float64)

    def prob_hidden(self, below: float, total: float) -> float:
        """Of every example below the cut, so that all probabilities sum to the rate."""
        share = HIDDEN * self.rate * total / below if below else 0.0
        return min(share, float(self.prob_wrong(np.zeros(1))[0]))


def make_bins(
    plants: NDArray[np.float64], weights: NDArray[np.float64], others: NDArray[np.float64]
) -> TailBins:
    """Bins with as many plants as others in all, from the quantile `HIDDEN` of the plants on."""
    cut = _cut(plants, weights, HIDDEN)
    tails = [plants[plants >= cut], others[others >= cut]]
    levels = np.linspace(0, 1, _BINS // 2, endpoint=False)
    parts = [np.quantile(tail, levels) for tail in tails if len(tail)]
    edges = np.unique(np.concatenate([[cut], *parts]))
    together = np.concatenate(tails)
    bins = np.searchsorted(edges, together, side="right") - 1
    counts = np.bincount(bins, minlength=len(edges))
    sums = np.bincount(bins, weights=together - cut, minlength=len(edges))
    return TailBins(edges, np.where(counts, sums / np.maximum(counts, 1), edges - cut))


def fit_mixture(
    plants: NDArray[np.float64],
    others: NDArray[np.float64],
    centres: NDArray[np.float64],
    least_slope: float,
) -> MixtureFit:
    """The likeliest ratio, from histograms over bins 0 to b.

    Args:
        plants: (b + 1,) weights of the plants.
        others: (b + 1,) numbers of other examples; neither may be empty.
        centres: (b,) of `TailBins`.
        least_slope: > 0, per unit of suspicion: without it a ratio that falls slowly, because the
            plants are easier than the mistakes, would pass for one of right labels alone.
    """
    log_odds = np.log(others.sum() / plants.sum())
    seen, known, size = others[1:], plants[1:], plants.sum()
    level = max(seen.sum() / others.sum() / max(known.sum() / size, 1e-12), 1e-5)

    def loss(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_right = numbers[1] - numbers[2] * centres
        log_ratio = np.logaddexp(numbers[0], log_right)
        value = seen @ np.logaddexp(0, -log_odds - log_ratio)
        value += known @ np.logaddexp(0, log_odds + log_ratio)
        pull = known * expit(log_odds + log_ratio) - seen * expit(-log_odds - log_ratio)
        right = np.exp(log_right - log_ratio) * pull
        gradient = [(np.exp(numbers[0] - log_ratio) * pull).sum(), right.sum(), -(right @ centres)]
        return float(value / size), np.array(gradient) / size

    bounds = (
        (_LEAST_LOG, 0.0), (_LEAST_LOG, _HIGHEST_LOG), (least_slope, _STEEPEST * least_slope)
    )  # fmt: skip
    best = None
    for share, slope in zip(_START_SHARES, bounds[2], strict=True):
        start = [np.log(share * level), np.log((1 - share) * level), slope]
        start = [float(np.clip(value, *bound)) for value, bound in zip(start, bounds, strict=True)]
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
        if best is None or found.fun < best.fun - 1e-9:
            best = found
    if best is None:
        raise ValueError("no start to fit from")
    rate = 0.0 if best.x[0] <= _LEAST_LOG + 0.1 else float(np.exp(best.x[0]))
    return MixtureFit(rate, float(np.exp(best.x[1])), float(best.x[2]))


def fit_slope(
    plants: NDArray[np.float64], weights: NDArray[np.float64], others: NDArray[np.float64]
) -> float:
    """Nats per unit of a suspicion of any scale: of "plant or not", by logistic regression."""
    centre, spread = float(np.median(others)), float(np.std(others)) or 1.0
    x = [(plants - centre) / spread, (others - centre) / spread]
    share = weights / weights.sum()

    def loss(numbers: NDArray[np.float64]) -> float:
        known = share @ np.logaddexp(0, -numbers[0] - numbers[1] * x[0])
        return float(known + np.logaddexp(0, numbers[0] + numbers[1] * x[1]).mean())

    bounds = ((-20.0, 20.0), (1e-3, 50.0))
    found = minimize(loss, [0.0, 1.0], method="L-BFGS-B", bounds=bounds)
    return float(found.x[1] / spread)


class MixtureEstimate(NamedTuple):
    """What one fit says: by bin, and by pair of classes."""

    fit: MixtureFit
    most: float
    curve: NDArray[np.float64]  # probability by bin
    per_pair: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RoundScores:
    """Scores by bin, (r, n), and all that a fit to a resample of them needs.

    A fit takes rounds with plants alone: there what is planted and what is not was scored by the
    same model, which has learned from a few more wrong labels than that of a run without.
    """

    bins: NDArray[np.int64]
    is_planted: NDArray[np.bool_]
    weights: NDArray[np.float64]  # of plants
    shares: NDArray[np.float64]  # of an example's verdict; 0 where planted, sums to 1 over rounds
    pairs: NDArray[np.int64]
    tail: TailBins
    least_slope: float
    num_classes: int
    auroc: float

    def estimate(
        self, examples: NDArray[np.float64], rounds: NDArray[np.float64]
    ) -> MixtureEstimate:
        """With (n,) and (r,) numbers of times that each example and round was drawn."""
        size, k = len(self.tail.edges) + 1, self.num_classes
        times = rounds[:, None] * examples
        rest = ~self.is_planted & self.is_planted.any(axis=1, keepdims=True)
        weights = (times * self.weights)[self.is_planted]
        plants = _sums(self.bins[self.is_planted], weights, size)
        others = _sums(self.bins[rest], times[rest], size)
        fit = fit_mixture(plants, others, self.tail.centres, self.least_slope)
        below = fit.prob_hidden(float(others[0]), float(others.sum()))
        curve = np.concatenate([[below], fit.prob_wrong(self.tail.centres)])
        expected = curve[self.bins] * self.shares * examples
        per_pair = _sums(self.pairs.ravel(), expected.ravel(), k * k).reshape(k, k)
        most = min(1.0, float(others[1:].sum() / others.sum() / (1 - HIDDEN)))
        return MixtureEstimate(fit, most, curve, per_pair)

    def prob_wrong(
        self, scores: NDArray[np.float64], found: MixtureEstimate
    ) -> NDArray[np.float64]:
        """(r, n), of (r, n) scores: the curve without its bins."""
        above = np.maximum(scores - self.tail.edges[0], 0)
        return np.where(self.bins > 0, found.fit.prob_wrong(above), found.curve[0])

    def draw(self, random: np.random.Generator) -> MixtureEstimate:
        """A fit to a resample: examples by Poisson counts, rounds with plants with replacement."""
        with_plants = np.flatnonzero(self.is_planted.any(axis=1))
        times = np.ones(len(self.bins))
        if len(with_plants) >= _ROUNDS:
            drawn = random.choice(with_plants, len(with_plants))
            times[with_plants] = np.bincount(drawn, minlength=len(times))[with_plants]
        examples = np.asarray(random.poisson(1.0, self.bins.shape[1]), np.float64)
        drawn = times[:, None] * examples
        rest = ~self.is_planted & self.is_planted.any(axis=1, keepdims=True)
        if not (drawn * self.weights)[self.is_planted].sum() or not drawn[rest].sum():
            return self.estimate(np.ones_like(examples), np.ones_like(times))  # says nothing
        return self.estimate(examples, times)


def make_round_scores(
    scores: NDArray[np.float64],
    is_planted: NDArray[np.bool_],
    weights: NDArray[np.float64],
    pairs: NDArray[np.int64],
    num_classes: int,
    *,
    in_nats: bool,
) -> RoundScores:
    """Bins for (r, n) scores.

    Args:
        scores: finite, higher = more suspicious.
        is_planted: where; at least one with a weight, and one that is not in the same round.
        weights: of the plants, not negative.
        pairs: k times the class suggested, and the class given.
        num_classes: k.
        in_nats: whether scores are log odds; otherwise their scale is fitted.
    """
    rest = ~is_planted & is_planted.any(axis=1, keepdims=True)
    known, others, share = scores[is_planted], scores[rest], weights[is_planted]
    unit = _SLOPE if in_nats else _SLOPE_OF_ANY * fit_slope(known, share, others)
    tail = make_bins(known, share, others)
    ranks = np.sort(others)
    lower = np.searchsorted(ranks, known) + np.searchsorted(ranks, known, side="right")
    return RoundScores(
        bins=tail.of(scores),
        is_planted=is_planted,
        weights=weights * (len(known) / share.sum()),
        shares=~is_planted / (~is_planted).sum(axis=0),
        pairs=pairs,
        tail=tail,
        least_slope=unit,
        num_classes=num_classes,
        auroc=float(np.average(lower / (2 * len(ranks)), weights=share)),
    )


def share_above(
    plants: NDArray[np.float64], weights: NDArray[np.float64], others: NDArray[np.float64]
) -> float:
    """Share of the others that score as the upper four fifths of plants do, by that: 0 to 1."""
    above = others >= _cut(plants, weights, _LOWER)
    return min(1.0, float(above.mean()) / (1 - _LOWER))


def _cut(plants: NDArray[np.float64], weights: NDArray[np.float64], below: float) -> float:
    order = np.argsort(plants, kind="stable")
    shares = np.cumsum(weights[order]) / weights.sum()
    return float(plants[order[int(np.searchsorted(shares, below))]])


def _sums(of: NDArray[np.int64], weights: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    return np.bincount(of, weights, size).astype(np.float64, copy=False)
