"""The posterior of a review: log odds of an error by rank, from what was decided so far.

Examples are ranked by their error probabilities and cut into bins that grow with the rank. In each
bin the log odds of an error are those of `p_error` plus a deviation, a Gaussian process in the
logarithm of the rank: what was decided at the top says how far off `p_error` is there, little about
the middle and hardly anything about the bottom. The deviation may be small, or large where errors
are of kinds that the plants are not: the decisions tell. Beside that, a share of all examples may
be wrong that `p_error` knows nothing of ("hidden"), whatever their rank; only looking there tells.

Source: Rasmussen & Williams 2006, algorithms 3.1 and 3.2 (Laplace's approximation).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit

from noiseaudit.seeding import generator

__all__ = [
    "Bins", "Floats", "Posterior", "draw_left", "fit_posterior", "hidden_shares", "make_bins",
    "mean_odds", "update_probabilities",
]  # fmt: skip

Floats = NDArray[np.float64]

_GROWTH = 1.3  # of the bins: about nine where the rank grows tenfold
# The process: its deviation in nats (odds may be twice too high or low somewhere, or eight times);
# its reach, by which its correlation falls to 1/e (the rank doubles, or grows 4.5 times); prior.
_DEVIATIONS = ((0.7, 0.7, 0.95), (2.0, 1.5, 0.05))
_HIDDEN = np.array([0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3])  # shares that may be hidden
_PRIOR = np.array([0.6, 0.08, 0.08, 0.08, 0.06, 0.05, 0.03, 0.02])  # of each
_SUREST = 0.98  # no error is taken for surer before a person looked
_DRAWS = 2000
_STEPS = 50  # of Newton's method, which takes about six
_CLOSE = 1e-6  # nats, between two of them


class Bins(NamedTuple):
    """Examples by rank, b bins; the process has the same covariances whatever is reviewed."""

    of: NDArray[np.int64]  # (n,) bin of each row
    covariances: Floats  # (h, b, b)


class Posterior(NamedTuple):
    """Over h hypotheses, a hidden share and a deviation each, and b bins."""

    shares: Floats  # (h,) sums to 1
    means: Floats  # (h, b) deviations, nats
    spreads: Floats  # (h, b, b) covariances


def hidden_shares(n: int) -> Floats:
    """(h, 1) share of n examples hidden by each hypothesis; half an example is never ruled out."""
    shares: Floats = np.tile(np.maximum(_HIDDEN, 0.5 / n), len(_DEVIATIONS))[:, None]
    return shares


def make_bins(p: Floats) -> Bins:
    """Bins of (n,) probabilities, most probable first, equal ones in the order given."""
    n = len(p)
    ends = [2]
    while ends[-1] < n:
        ends.append(int(np.ceil(ends[-1] * _GROWTH)))
    starts = np.array([0, *ends[:-1]])
    if len(starts) > 1 and n - starts[-1] < (starts[-1] - starts[-2]) / 2:
        starts = starts[:-1]  # the last one would be a scrap
    of = np.empty(n, dtype=np.int64)
    of[np.argsort(-p, kind="stable")] = np.searchsorted(starts, np.arange(n), side="right") - 1
    middle = np.log((starts + np.append(starts[1:], max(n, starts[-1] + 1)) + 1) / 2)
    distance = np.abs(middle[:, None] - middle)
    kernels = [size**2 * np.exp(-distance / reach) for size, reach, _ in _DEVIATIONS]
    return Bins(of, np.repeat(np.stack(kernels), len(_HIDDEN), axis=0))


def mean_odds(
    p: Floats, of: NDArray[np.int64], chosen: NDArray[np.bool_], hidden: Floats, size: int
) -> Floats:
    """(h, b) log odds of the mean probability of the chosen ones; of none: any number."""
    counts = np.maximum(np.bincount(of[chosen], minlength=size), 1)
    means = np.bincount(of[chosen], p[chosen], size) / counts
    odds: Floats = logit(np.minimum(means + (1 - means) * hidden, _SUREST))
    return odds


def fit_posterior(seen: Floats, errors: Floats, odds: Floats, covariances: Floats) -> Posterior:
    """Laplace's approximation for each hypothesis, weighted by its evidence.

    Args:
        seen: (b,) how many of each bin were reviewed; need not be whole.
        errors: (b,) how many of these were wrong.
        odds: (h, b) log odds of an error before any decision, of those reviewed.
        covariances: (h, b, b) of the deviation from them.
    """
    size = len(seen)
    means, spreads = np.empty(odds.shape), np.empty((*odds.shape, size))
    evidence = np.empty(len(odds))
    for number, (offset, covariance) in enumerate(zip(odds, covariances, strict=True)):

        def value_of(a: Floats, offset: Floats = offset, covariance: Floats = covariance) -> float:
            f = covariance @ a
            right, wrong = seen - errors, errors
            likelihood = wrong @ log_expit(offset + f) + right @ log_expit(-offset - f)
            return float(likelihood - a @ f / 2)

        a, value, gain = np.zeros(size), value_of(np.zeros(size)), np.inf
        for _ in range(_STEPS):
            f = covariance @ a
            rate = expit(offset + f)
            root = np.sqrt(seen * rate * (1 - rate))
            factor = np.linalg.cholesky(np.eye(size) + root[:, None] * covariance * root)
            if gain < _CLOSE:
                break
            gradient = root**2 * f + errors - seen * rate
            inner = np.linalg.solve(factor, root * (covariance @ gradient))
            step = gradient - root * np.linalg.solve(factor.T, inner) - a
            while value_of(a + step) < value - _CLOSE:
                step = step / 2
            a, old = a + step, value
            value = value_of(a)
            gain = abs(value - old)
        evidence[number] = value - np.log(np.diag(factor)).sum()
        shrunk = np.linalg.solve(factor, root[:, None] * covariance)
        means[number], spreads[number] = covariance @ a, covariance - shrunk.T @ shrunk
    prior = np.concatenate([share * _PRIOR for _, _, share in _DEVIATIONS])
    weights = prior * np.exp(evidence - evidence.max())
    return Posterior(weights / weights.sum(), means, spreads)


def draw_left(posterior: Posterior, free: NDArray[np.int64], odds: Floats, seed: int) -> Floats:
    """(draws, b) counts of wrong labels among the `free` ones, with prior log odds (h, b)."""
    random = generator(seed, "review-draws")
    drawn = random.multinomial(_DRAWS, posterior.shares)
    size = len(free)
    parts = []
    for number, times in enumerate(drawn):
        factor = np.linalg.cholesky(posterior.spreads[number] + 1e-9 * np.eye(size))
        f = posterior.means[number] + random.standard_normal((times, size)) @ factor.T
        parts.append(random.binomial(free, expit(odds[number] + f)))
    return np.concatenate(parts).astype(np.float64)


def update_probabilities(
    p: Floats, of: NDArray[np.int64], hidden: Floats, posterior: Posterior
) -> Floats:
    """(n,) posterior means; the deviation's spread by MacKay's approximation."""
    updated = np.zeros(len(p))
    for share, means, spread, base in zip(
        posterior.shares, posterior.means, posterior.spreads, hidden[:, 0], strict=True
    ):
        narrowed = 1 / np.sqrt(1 + np.pi * np.diag(spread) / 8)
        odds = logit(np.minimum(p + (1 - p) * base, _SUREST))
        updated += share * expit(narrowed[of] * (odds + means[of]))
    return updated
