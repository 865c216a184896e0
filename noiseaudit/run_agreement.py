"""What two runs of one network agree on: how often it errs, and so how many labels are wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import beta

from noiseaudit.channel_rate import channel_rate, channel_witness
from noiseaudit.label_channel import LabelChannel
from noiseaudit.label_support import LabelSupport
from noiseaudit.noise_estimate import Estimate, NoiseEstimate, Witness

__all__ = ["HARDER", "SUPPORT", "sharpen_estimate"]

HARDER = "what two trainings contradict, by plants between classes"
"""The witness where wrong labels are harder to find than plants on any example."""

SUPPORT = "left-out predictions of contradicted labels"
"""The witness of a weak network."""

# Chosen on digits and MNIST, 5,000 of it; those of left-out predictions with Fashion-MNIST, seed 0,
# and 40% noise in 10,000 of MNIST in view.
_STEADY = 0.025  # of the examples: where runs differ on more, networks are weak, or believe errors
_BELIEVED = 0.1  # of the plants at least are then predicted as labelled, or networks are weak
_SLOPE = 3.0  # of log odds of an error on label odds
_MORE_ERRORS = 2.0  # times those expected, or half: what a count is weighted by
_MOST_ERRORS = 3.0  # at most; weighs counts that are ruled out
_ERRORS_TO = 4.0  # times what runs differ on: how often a network errs at most
_CONFIRMED = 3.0  # standard errors of left-out predictions from the count
_WEAK = 2.0  # likewise from the fit: beyond, it misses what a network believes
_INTERVAL = 1.96  # likewise: 95%
_UNSEEN = 3.0  # examples told differently that none seen leaves possible, at 95%


def sharpen_estimate(
    estimate: NoiseEstimate,
    odds: NDArray[np.float64],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    weights: NDArray[np.float64],
    *,
    most_weights: NDArray[np.float64] | None = None,
    left_out: LabelChannel | None = None,
    sure_rate: float | None = None,
    support: LabelSupport | None = None,
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
    plants' scores. So where the fit does not rule this count out, the two rates become one,
    weighted by the inverse squares of the fit's interval and of what f between half and twice as
    much would change. Log odds of errors are then three times those of the labels, moved to add up
    to it.

    But a network may err on the same examples in every run, and those look like wrong labels; and a
    fit fails where wrong labels are believed. So where the two contradict each other, predictions
    that have not seen the label are asked. If the count is within three standard errors of theirs,
    it and theirs become one likewise (f between half and three times as much), with the fit's if
    that is, too, and the interval holds them. They err low where it matters most, at 40% noise
    between two classes by 11 to 23% (digits, 5,000 of MNIST), so that some right counts are not
    confirmed.

    Of weak networks, whose runs differ on more than 2.5% though they believe few plants, both count
    and fit take for wrong what is merely hard to tell: on Fashion-MNIST f is two to three times e.
    The rate is then that of `LabelSupport`: how far those predictions side with the labels that the
    network contradicts. Where that is less than a standard error, a fit within its interval stays.
    Log odds are those of the fit if it is within. A fit that is two standard errors below what
    left-out predictions count for sure is one that misses what is believed, and the network is
    taken for a steady one.

    Mistakes on examples between two classes look like right labels: the fit, and left-out
    predictions, hardly count them. Where even f = 4 e leaves more wrong labels than the fit's
    interval allows, support does not explain those, and contradicted labels have less of it than
    right ones (`LabelSupport.is_low`; so not where left-out predictions say too little), the rate
    is the count, R that of plants between classes. On clean data f was at most 3.9 times e
    (digits and MNIST, also in noise, on few pixels or half of them; 5,000 to 60,000 of
    Fashion-MNIST by either network, and five groups of its classes), 4.1 on 40,000 of MNIST of
    4 x 4 pixels, whose labels have more support; with one seed for both runs it was up to 8.5. No
    statistic is proof where the inputs do not show the class: the interval reaches down to the
    fit's.

    In all other cases the rate stays that of the fit, and `witnesses` tells what else was asked.

    Cost: half a second for 50,000 examples.
    Source: Jiang, Nagarajan, Baek & Kolter, "Assessing generalization of SGD via disagreement",
    ICLR 2022 (the error as disagreement); its use on noisy labels is our own.

    Args:
        estimate: of `noise_estimation`.
        odds: (n,) float64, how suspicious the given labels are, as log odds of a label channel.
        labels: (r + 1, n) int64, given labels, and those of r runs with plants.
        predicted: (r + 1, n) int64, the likeliest class by those runs, on average over training.
        weights: (r + 1, n) float64, how much each plant counts.
        most_weights: (r + 1, n) float64, likewise of plants between classes.
        left_out: channel from true to given labels by predictions that have not seen the label;
            None if they say nothing.
        sure_rate: how many labels are wrong at least, whatever they confuse themselves, a share
            (`LeftOut.sure_rate`); default all that they count.
        support: by those, of the labels that the network contradicts; None if those are few, or
            there are no such predictions.
        seed: of the draws from the interval.
    """
    runs = _compare(labels, predicted, weights, most_weights)
    if runs.recall.value <= runs.errors:
        return estimate
    fit, counted = estimate.rate, runs.rate(runs.errors)
    others = [Witness("what two trainings agree on", counted)]
    is_weak = runs.is_weak and not _misses_believed(fit, left_out, sure_rate)
    found: _Found | None = None
    if not runs.is_weak and fit.low <= counted <= fit.high:
        found = _Found(_joint(runs, _MORE_ERRORS, [fit], fit), (True, True, False))
    elif left_out is not None:
        others.append(channel_witness(left_out))
        if not is_weak:
            found = _of_steady(runs, fit, left_out)
    if found is None and support is not None:
        weak = _of_weak(runs, fit, support) if is_weak else None
        explained = weak is not None and weak.rate.low > fit.high
        if not explained and (found := _of_harder(runs, fit, support)):
            others[0] = Witness(HARDER, found.rate.value)
        elif weak:
            found, others[1:] = weak, [Witness(SUPPORT, weak.rate.value)]
    counts = found.counts if found else (True, False, False)
    told = [*estimate.witnesses, *others]  # left-out predictions only where they were asked
    witnesses = tuple(
        item._replace(counts=is_part) for item, is_part in zip(told, counts, strict=False)
    )
    if found is None:
        return replace(estimate, witnesses=witnesses)
    log_odds = logit(estimate.p_error) if found.keeps_odds else _SLOPE * odds
    return estimate.at_rate(found.rate, log_odds, labels[0], witnesses, seed=seed)


class _Found(NamedTuple):
    """A rate, whether fit, count and left-out predictions are part of it, and whose log odds."""

    rate: Estimate
    counts: tuple[bool, bool, bool]
    keeps_odds: bool = False  # those of the fit


class _Runs(NamedTuple):
    """What a run differs on from the labels, and on average from those with plants.

    Attributes:
        size: n, of examples.
        differs: share of labels that the first run does not predict.
        disagree: of examples on which another run predicts another class.
        found: of planted labels that are not predicted.
        recall: what that says of wrong labels.
        hard_recall: likewise of plants between classes, or the same if there are none.
    """

    size: int
    differs: float
    disagree: float
    found: float
    recall: Estimate
    hard_recall: Estimate

    @property
    def errors(self) -> float:
        """Expected share of right labels that the first run does not predict."""
        return min(self.disagree, max(_STEADY, self.disagree / 2))

    @property
    def is_weak(self) -> bool:
        """Whether runs differ on a lot though they believe few plants."""
        return self.disagree > _STEADY and self.found > 1 - _BELIEVED

    def rate(self, errors: float, recall: float | None = None) -> float:
        """Share of wrong labels, if so many right and wrong ones are not predicted."""
        recall = self.recall.value if recall is None else recall
        if recall <= errors:
            return 0.0 if self.differs <= errors else 1.0
        return min(1.0, max(0.0, (self.differs - errors) / (recall - errors)))


def _misses_believed(fit: Estimate, left_out: LabelChannel | None, sure_rate: float | None) -> bool:
    """Whether left-out predictions count more labels than the fit, which the network believes."""
    if left_out is None:
        return False
    unsure = 0.0 if sure_rate is None else left_out.rate - sure_rate
    return fit.value < channel_rate(left_out, _WEAK).low - unsure


def _of_steady(runs: _Runs, fit: Estimate, channel: LabelChannel) -> _Found | None:
    """The count and left-out predictions that confirm it, with the fit if those allow that."""
    band, counted = channel_rate(channel, _CONFIRMED), runs.rate(runs.errors)
    if not band.low <= counted <= band.high:
        return None
    is_allowed = band.low <= fit.value <= band.high
    others = [*[fit] * is_allowed, channel_rate(channel, _INTERVAL)]
    rate = _joint(runs, _MOST_ERRORS, others, band)
    held = [rate.value, *(other.value for other in others)]
    return _Found(
        Estimate(rate.value, min(rate.low, *held), max(rate.high, *held)), (is_allowed, True, True)
    )


def _of_weak(runs: _Runs, fit: Estimate, support: LabelSupport) -> _Found | None:
    """Left-out predictions of what it contradicts, unless those say too little for another rate."""
    rate = support.rate(runs.differs, runs.recall)
    if rate is None:
        return None
    is_allowed = rate.low <= fit.value <= rate.high
    tells = rate.value >= (rate.high - rate.value) / _INTERVAL
    return _Found(rate, (False, False, True), is_allowed) if tells or not is_allowed else None


def _of_harder(runs: _Runs, fit: Estimate, support: LabelSupport) -> _Found | None:
    """The count alone, by harder plants, if nothing else explains what the runs contradict."""
    errors = _ERRORS_TO * runs.disagree + _UNSEEN / runs.size
    recall = min(runs.recall, runs.hard_recall)
    if not support.is_low or recall.low <= runs.differs or fit.high >= runs.rate(errors):
        return None
    rate = runs.rate(runs.errors, recall.value)
    return _Found(Estimate(rate, fit.low, runs.rate(0.0, recall.low)), (False, True, False))


def _compare(
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    weights: NDArray[np.float64],
    most_weights: NDArray[np.float64] | None = None,
) -> _Runs:
    kept, differs = labels[1:] == labels[0], predicted != labels
    found, recall = _recall(differs, weights)
    harder = weights if most_weights is None or not most_weights.any() else most_weights
    return _Runs(
        size=labels.shape[1],
        differs=float(differs[0].mean()),
        disagree=float((predicted[1:] != predicted[0])[kept].mean()),
        found=found,
        recall=recall,
        hard_recall=_recall(differs, harder)[1],
    )


def _joint(runs: _Runs, more_errors: float, others: list[Estimate], within: Estimate) -> Estimate:
    """The count and other rates as one, weighted by the inverse squares of their widths.

    That of the count is what between half and so many times the errors would change.
    """
    unseen = _UNSEEN / runs.size
    width = runs.rate(runs.errors / 2) - runs.rate(more_errors * runs.errors + unseen)
    widths = np.array([width, *(other.high - other.low for other in others)])
    rates = [runs.rate(runs.errors), *(other.value for other in others)]
    rate = float(np.average(rates, weights=np.maximum(widths, 1 / runs.size) ** -2.0))
    low = max(within.low, runs.rate(_MOST_ERRORS * runs.errors + unseen, runs.recall.high))
    high = min(within.high, runs.rate(0.0, runs.recall.low))
    return Estimate(rate, min(rate, low), max(rate, high))


def _recall(differs: NDArray[np.bool_], weights: NDArray[np.float64]) -> tuple[float, Estimate]:
    """What share of these plants is found; and what that says, by Jeffreys: mean, 95% interval."""
    found = float(np.average(differs, weights=weights))
    plants = weights.sum() ** 2 / (weights**2).sum()
    posterior = beta(plants * found + 0.5, plants * (1 - found) + 0.5)
    mean, (low, high) = posterior.mean(), posterior.ppf([0.025, 0.975])
    return found, Estimate(float(mean), float(low), float(high))
