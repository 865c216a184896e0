"""The rate of wrong labels by a label channel, and how it joins that of planted flips."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from noiseaudit.label_channel import LabelChannel
from noiseaudit.noise_estimate import Estimate, NoiseEstimate, Witness

__all__ = ["channel_rate", "channel_witness", "sharpen_by_channel"]

_ROUGH = 0.1  # of a channel's rate: what its model leaves out; CIFAR-10 embeddings, photographs


def channel_rate(channel: LabelChannel, standard_errors: float) -> Estimate:
    """Its share of wrong labels, and that many of its standard errors about it, within [0, 1].

    A standard error is at least a tenth of the rate.
    """
    half = standard_errors * _error(channel)
    return Estimate(channel.rate, max(0.0, channel.rate - half), min(1.0, channel.rate + half))


def channel_witness(channel: LabelChannel) -> Witness:
    """Its share of wrong labels, as what a verdict comes of."""
    return Witness("left-out predictions", channel.rate)


def sharpen_by_channel(
    estimate: NoiseEstimate,
    channel: LabelChannel,
    log_odds: NDArray[np.float64],
    labels: NDArray[np.int64],
    *,
    seed: int = 0,
) -> NoiseEstimate:
    """The estimate, sharper by how held-out predictions differ from labels where they are sure.

    Plants are few, and how they score varies; a channel takes all examples, but a form for how
    often predictions err. Both rates are weighted by the inverse squares of their standard errors
    (`channel_rate`); the interval holds both. Probabilities are those of the log odds, moved to add
    up to the rate.

    Cost: a thousand passes over n numbers: a second for 100,000.

    Args:
        estimate: of `noise_estimation`, from suspicions of held-out predictions.
        channel: of `fit_label_channel`, of the same predictions without plants.
        log_odds: (n,) float64, that labels are wrong, by that channel.
        labels: (n,) int64, given labels.
        seed: of the draws from the interval.
    """
    fitted, low, high = estimate.rate
    half = NormalDist().inv_cdf((1 + estimate.confidence) / 2)
    other = channel_rate(channel, half)
    errors = np.maximum([(high - low) / (2 * half), _error(channel)], 1 / len(labels))
    rate = float(np.average([fitted, other.value], weights=errors**-2.0))
    both = Estimate(rate, min(low, other.low), max(high, other.high))
    witnesses = (*estimate.witnesses, channel_witness(channel))
    return estimate.at_rate(both, log_odds, labels, witnesses, seed=seed)


def _error(channel: LabelChannel) -> float:
    return float(np.hypot(channel.deviation, _ROUGH * channel.rate))
