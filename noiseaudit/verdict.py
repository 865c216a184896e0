"""The verdict on a data set: which detector to trust on it, how many labels are wrong, which."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from noiseaudit.channel_rate import sharpen_by_channel
from noiseaudit.detector_trust import trust_detectors
from noiseaudit.errors import NoiseAuditWarning
from noiseaudit.label_support import measure_support
from noiseaudit.noise_estimate import NoiseEstimate, Threshold
from noiseaudit.noise_estimation import estimate_noise
from noiseaudit.planted_rounds import ODDS, PlantedRounds
from noiseaudit.precision import flag_at_precision
from noiseaudit.ranking import Ranking
from noiseaudit.run_agreement import sharpen_estimate

__all__ = ["Verdict", "reach_verdict"]

_PRIOR = 4.0  # plants that the calibration of suggestions starts from


@dataclass(frozen=True, eq=False)
class Verdict:
    """What planted flips say of n labels; nothing where `estimate.is_supported` is false.

    Attributes:
        estimate: of the number of wrong labels, and `p_error` of each.
        ranking: the headline, most suspicious first; `p_error` follows it.
        rankings: of all that was judged, by name: detectors, and of a network `label_odds`.
        trusted: the detectors that it is made of, the leading one first.
        auroc: by detector, of the plants against labels thought right, in [0, 1]; best first.
        auroc_between: likewise, of the plants on examples between two classes, against all others.
        knows_pairs: whether label odds of a network lead because left-out predictions tell them
            which mistakes are common.
        suggested: (n,) int64, the likeliest class that is not the given.
        sureness: (n,) float32 in [0, 1], the model's probability of that class if the label is
            wrong.
        suggested_prob: (n,) float64 in [0, 1], that the label is wrong and this one right.
        precision: that was asked for.
        threshold: how many can be flagged at it.
        seconds: of the rounds with plants.
    """

    estimate: NoiseEstimate
    ranking: Ranking
    rankings: Mapping[str, Ranking]
    trusted: tuple[str, ...]
    auroc: Mapping[str, float]
    auroc_between: Mapping[str, float]
    knows_pairs: bool
    suggested: NDArray[np.int64]
    sureness: NDArray[np.float32]
    suggested_prob: NDArray[np.float64]
    precision: float
    threshold: Threshold
    seconds: float

    @property
    def is_flagged(self) -> NDArray[np.bool_]:
        """(n,) whether the label is among those that can be flagged at the asked precision."""
        return flag_at_precision(self.estimate.p_error, self.precision)

    def told(self) -> dict[str, Any]:
        """As the manifest keeps it: fractions, numbers of labels, names."""
        rate, found = self.estimate.rate, self.threshold
        return {
            "rate": rate.value, "rate_low": rate.low, "rate_high": rate.high,
            "rate_at_most": self.estimate.most, "confidence": self.estimate.confidence,
            "is_close": self.estimate.is_close,
            "witnesses": [item._asdict() for item in self.estimate.witnesses],
            "plants": self.estimate.plants,
            "trusted": list(self.trusted), "auroc_of_plants": dict(self.auroc),
            "auroc_of_plants_between_classes": dict(self.auroc_between),
            "precision": self.precision, "flagged": found.count,
            "expected_precision": _number(found.precision.value),
            "expected_precision_low": _number(found.precision.low),
            "expected_precision_high": _number(found.precision.high),
            "p_error": _number(found.p_error), "seconds": self.seconds,
        }  # fmt: skip


def reach_verdict(
    rounds: PlantedRounds,
    ids: NDArray[np.int64],
    num_classes: int,
    *,
    precision: float = 0.9,
    seed: int = 0,
) -> Verdict:
    """Rank the detectors by how they find the plants, combine, estimate, and set the threshold.

    Args:
        rounds: what the detectors say of the data set with and without plants.
        ids: (n,) sample ids.
        num_classes: k.
        precision: wanted of what is flagged, in (0, 1].
        seed: of the estimate's resamples.

    Raises:
        DataError: for fewer than ten plants.
        UsageError: for a precision that cannot be.
    """
    trust = trust_detectors(rounds)
    trusted, auroc = trust.trusted, trust.auroc
    suspicions = _combine(rounds, trusted)
    odds = _on_scale(suspicions, rounds)
    with warnings.catch_warnings():  # that it is not supported is for the caller to say
        warnings.simplefilter("ignore", NoiseAuditWarning)
        estimate = estimate_noise(
            rounds.given, rounds.labels, odds, rounds.suggested,
            num_classes=num_classes, weights=rounds.weights, most_weights=rounds.most_weights,
            in_nats=rounds.is_left_out and ODDS in auroc, seed=seed,
        )  # fmt: skip
    if ODDS in auroc and estimate.is_supported:
        estimate = _sharpened(estimate, odds[0], rounds, seed)
    estimate = replace(estimate, p_error=_along(suspicions[0], estimate.p_error))
    right = _calibrate_suggestions(rounds, estimate.p_error)
    return Verdict(
        estimate=estimate,
        ranking=Ranking(trusted[0] if len(trusted) == 1 else "combined", ids, suspicions[0]),
        rankings={
            name: Ranking(name, ids, values[0]) for name, values in rounds.suspicions.items()
        },
        trusted=trusted,
        auroc=auroc,
        auroc_between=trust.auroc_between,
        knows_pairs=trust.knows_pairs,
        suggested=rounds.suggested[0],
        sureness=rounds.sureness[0],
        suggested_prob=estimate.p_error * right,
        precision=precision,
        threshold=estimate.threshold(precision),
        seconds=rounds.seconds,
    )


def _sharpened(
    estimate: NoiseEstimate,
    odds: NDArray[np.float64],
    rounds: PlantedRounds,
    seed: int,
) -> NoiseEstimate:
    """By a second witness: where odds are left-out ones their channel, of a network a second run.

    A channel's odds are calibrated; those of a network, which has seen the labels, are not.
    """
    if rounds.odds_channel is not None:
        return sharpen_by_channel(estimate, rounds.odds_channel, odds, rounds.given, seed=seed)
    left_out = rounds.left_out
    return sharpen_estimate(
        estimate, odds, rounds.labels, rounds.predicted, rounds.weights,
        most_weights=rounds.most_weights,
        left_out=left_out.channel if left_out else None,
        sure_rate=left_out.sure_rate(rounds.given) if left_out else None,
        support=measure_support(left_out, rounds.labels, rounds.predicted) if left_out else None,
        seed=seed,
    )  # fmt: skip


def _combine(rounds: PlantedRounds, trusted: Sequence[str]) -> NDArray[np.float64]:
    """The common suspicion of these detectors in all runs.

    Examples stand in the order of the Euclidean distance from the top of all rankings: of the
    shares of examples that each detector puts above. One that thinks a label right says more than
    one that thinks it wrong. The values are the leading one's, sorted likewise.
    """
    values = rounds.suspicions[trusted[0]]
    if len(trusted) == 1:
        return values
    squares = [_shares_above(rounds.suspicions[name]) ** 2 for name in trusted]
    return _with_values(-np.mean(squares, axis=0), values)


def _on_scale(suspicions: NDArray[np.float64], rounds: PlantedRounds) -> NDArray[np.float64]:
    """The suspicions in the same order, with the values of label odds where there are any.

    An estimate needs a scale on which the right labels fall off at the top: a score that is the
    same for all that was never predicted right has none.
    """
    odds = rounds.suspicions.get(ODDS)
    return suspicions if odds is None else _with_values(suspicions, odds)


def _with_values(order: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r, n) `values` within each run, in the order of `order`; equals stay equal."""
    from scipy.stats import rankdata

    places = rankdata(order, method="average", axis=1).astype(np.int64) - 1
    return np.take_along_axis(np.sort(values, axis=1), places, axis=1)


def _along(suspicion: NDArray[np.float64], p_error: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) what probability is expected at each suspicion, never falling with it.

    `p_error` is the mean over runs, of which the ranking is one.
    """
    from sklearn.isotonic import IsotonicRegression

    found = IsotonicRegression().fit_transform(suspicion, p_error)
    return np.clip(np.asarray(found, np.float64), 0, 1)


def _shares_above(suspicions: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r, n) in [0, 1], of each run the share of examples above; equals count half."""
    from scipy.stats import rankdata

    return np.asarray(1 - (rankdata(suspicions, axis=1) - 0.5) / suspicions.shape[1])


def _calibrate_suggestions(
    rounds: PlantedRounds, p_error: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) probability that the suggested label is right where the given one is wrong.

    A plant replaced a label that was right with probability 1 - p_error: how often is that one
    suggested, at which probability? A logistic curve, drawn to the identity.
    """
    planted = rounds.is_planted
    hit = (rounds.suggested == rounds.given)[planted]
    weights = np.broadcast_to(1 - p_error, planted.shape)[planted]
    log_odds = logit(np.clip(rounds.sureness.astype(np.float64), 1e-6, 1 - 1e-6))
    x = log_odds[planted]

    def loss(numbers: NDArray[np.float64]) -> float:
        line = numbers[0] + numbers[1] * x
        misfit = weights @ np.logaddexp(0, np.where(hit, -line, line))
        return float(misfit + _PRIOR * (numbers[0] ** 2 + (numbers[1] - 1) ** 2) / 2)

    found = minimize(loss, [0.0, 1.0], method="L-BFGS-B", bounds=((-10, 10), (0, 5)))
    return np.asarray(expit(found.x[0] + found.x[1] * log_odds[0]), np.float64)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
