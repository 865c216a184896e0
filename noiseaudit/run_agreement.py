"""What two runs of one network agree on: how often it errs, and so how many labels are wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from noiseaudit.channel_rate import channel_rate
from noiseaudit.label_channel import LabelChannel
from noiseaudit.noise_estimate import Estimate, NoiseEstimate

__all__ = ["sharpen_estimate"]

logger = logging.getLogger(__name__)

# Chosen on digits and MNIST, 5,000 of it; Fashion-MNIST was looked at, and for the two numbers of
# left-out predictions 40% noise in 10,000 of MNIST.
_STEADY = 0.025  # of the examples: where runs differ on more, networks are weak, or believe errors
_BELIEVED = 0.05  # of the plants at least are then predicted as labelled, or networks are weak
_SLOPE = 3.0  # of log odds of an error on label odds
_RULED_OUT = 3.0  # standard errors of left-out predictions from the count
_CONFIRMED = 2.0  # likewise; for weak networks, whose count is too high on Fashion-MNIST
_INTERVAL = 1.96  # standard errors: 95%
_MOST_ERRORS = 3.0  # times those expected, at most
_UNSEEN = 3.0  # examples told differently that none seen leaves possible, at 95%


def sharpen_estimate(
    estimate: NoiseEstimate,
    odds: NDArray[np.float64],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    weights: NDArray[np.float64],
    *,
    left_out: Callable[[], LabelChannel | None] | None = None,
    seed: int = 0,
) -> NoiseEstimate:
    """The estimate, sharper where two runs of a network are a second witness to it.

    On average over training a network prefers another class to most wrong labels, and to a few
    right ones: with d the share of labels that it does not predict, R that of plants, and f that of
    right labels,

        rate = (d - f) / (R - f).

    Where runs err on the same examples they differ on about as many as each errs on, and where they
    err on different ones on twice as many: f is the share e of examples on which a run with
    plants predicts another class, at most 2.5%, or e / 2 if that is more, as it is where wrong
    labels are believed; then plants are too. Where runs differ on wrong labels alone, which they
    believe by chance, the rate falls somewhat short. It often varies far less than a fit to the
    plants' scores. But a network may err on the same examples in every run, and those look like
    wrong labels: so only where networks are not weak, and the fit to the plants does not rule this
    rate out, do the two rates become one, weighted by the inverse squares of the fit's interval
    and of what f between half and twice as much would change. Log odds of errors are then three
    times those of the labels, moved to add up to it.

    Otherwise predictions that have not seen the label are asked: if the rate is within three
    standard errors of theirs, of weak networks two, it and theirs become one likewise, with the
    fit's if that is, too, and the interval holds them. If not, nothing changes. They err low where
    it matters most, at 40% noise between two classes by 8 to 38% (digits, MNIST), so that some
    right counts are not confirmed.

    Cost: half a second for 50,000 examples, and that of `left_out`.
    Source: Jiang, Nagarajan, Baek & Kolter, "Assessing generalization of SGD via disagreement",
    ICLR 2022 (the error as disagreement); its use on noisy labels is our own.

    Args:
        estimate: of `noise_estimation`.
        odds: (n,) float64, how suspicious the given labels are, as log odds of a label channel.
        labels: (r + 1, n) int64, given labels, and those of r runs with plants.
        predicted: (r + 1, n) int64, the likeliest class by those runs, on average over training.
        weights: (r + 1, n) float64, how much each plant counts.
        left_out: makes a channel from true to given labels by predictions that have not seen the
            label, or None if they say nothing; not called where it is not needed.
        seed: of the draws from the interval.
    """
    given, kept = labels[0], labels[1:] == labels[0]
    n = len(given)
    differs = float((predicted[0] != given).mean())
    disagree = float((predicted[1:] != predicted[0])[kept].mean())
    errors = min(disagree, max(_STEADY, disagree / 2))
    plants = weights > 0
    found = float(np.average((predicted != labels)[plants], weights=weights[plants]))
    recall, least, most = _recall(found, weights[plants])
    if recall <= errors:
        return estimate
    counted = _rate_of(differs, errors, recall)
    others, held = [estimate.rate], list[float]()
    _, lowest, highest = estimate.rate
    is_weak = disagree > _STEADY and found > 1 - _BELIEVED
    if is_weak or not lowest <= counted <= highest:
        channel = None if left_out is None else left_out()
        if channel is None:
            return estimate
        _, lowest, highest = channel_rate(channel, _CONFIRMED if is_weak else _RULED_OUT)
        logger.info(
            "wrong labels: %.1f%% by planted flips, %.1f%% by two runs, %.1f%% by left-out "
            "predictions", 100 * estimate.rate.value, 100 * counted, 100 * channel.rate,
        )  # fmt: skip
        if not lowest <= counted <= highest:
            return estimate
        others = [other for other in others if lowest <= other.value <= highest]
        others.append(channel_rate(channel, _INTERVAL))
        held = [other.value for other in others]
    unseen = _UNSEEN / n
    width = _rate_of(differs, errors / 2, recall) - _rate_of(differs, 2 * errors + unseen, recall)
    widths = np.array([width, *(other.high - other.low for other in others)])
    rates = [counted, *(other.value for other in others)]
    rate = float(np.average(rates, weights=np.maximum(widths, 1 / n) ** -2.0))
    low = max(lowest, _rate_of(differs, _MOST_ERRORS * errors + unseen, most))
    high = min(highest, _rate_of(differs, 0.0, least))
    joint = Estimate(rate, min(rate, low, *held), max(rate, high, *held))
    return estimate.at_rate(joint, _SLOPE * odds, given, seed=seed)


def _rate_of(differs: float, errors: float, recall: float) -> float:
    """Share of wrong labels, from that of labels, of right and of wrong ones not predicted."""
    if recall <= errors:
        return 0.0 if differs <= errors else 1.0
    return min(1.0, max(0.0, (differs - errors) / (recall - errors)))


def _recall(found: float, weights: NDArray[np.float64]) -> Estimate:
    """What that share of plants with these weights says, by Jeffreys: mean and 95% interval."""
    plants = weights.sum() ** 2 / (weights**2).sum()
    posterior = beta(plants * found + 0.5, plants * (1 - found) + 0.5)
    return Estimate(*(float(x) for x in (posterior.mean(), *posterior.ppf([0.025, 0.975]))))
