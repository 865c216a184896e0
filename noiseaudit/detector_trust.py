"""Which detectors to trust on a data set: label odds, or those that find the flips planted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from noiseaudit.planted_rounds import ODDS, PlantedRounds

__all__ = ["AS_GOOD", "Trust", "trust_detectors"]

AS_GOOD = 0.002
"""AUROC of plants, within which detectors are thought as good as each other."""

_AS_GOOD_BETWEEN = 0.005  # likewise below the best of plants between classes, which are fewer
_SHORT = 0.05  # AUROC by which those of a network may fall short; at most 0.008 was seen
_ERRORS = 3.0  # standard errors, too, by which others beat label odds of left-out predictions


class Trust(NamedTuple):
    """Whom to trust, and what that rests on.

    Attributes:
        trusted: the detectors, the leading one first.
        auroc: by detector, of the plants against labels thought right, in [0, 1]; best first.
        auroc_between: likewise, of the plants on examples between two classes, against all others.
        knows_pairs: whether label odds of a network lead because left-out predictions tell them
            which mistakes are common.
    """

    trusted: tuple[str, ...]
    auroc: Mapping[str, float]
    auroc_between: Mapping[str, float]
    knows_pairs: bool


class _Placements(NamedTuple):
    """Where a detector puts m plants: (m,) shares of the others below each, and their weights."""

    values: NDArray[np.float64]
    weights: NDArray[np.float64]

    @property
    def auroc(self) -> float:
        """The weighted mean; 0.5 without plants that count."""
        return float(np.average(self.values, weights=self.weights)) if len(self.values) else 0.5


def trust_detectors(rounds: PlantedRounds) -> Trust:
    """The detectors to trust, by the plants of all rounds together.

    Weak members spoil a combination, so those join that find the plants as well as the best, and of
    these the ones that are as good at the harder plants, between classes. But plants are few, and
    the best of many detectors owes some of it to chance. So label odds of left-out predictions,
    which are calibrated, are trusted alone unless the first of these is better by more than
    `AS_GOOD` and by three standard errors. Those of a network, which has seen the labels, know what
    no other detector knows if left-out predictions tell it: which mistakes are common. They lead,
    unless they find the plants by 0.05 worse than the best; the first of the others, which knows
    nothing of pairs and errs on other labels, joins them unless they are first. Where the network
    tells which mistakes are common, its label odds are a detector like others.

    Plants are told from labels thought right: wrong ones among the others are no failure to find
    plants, and where many are wrong a detector that puts plants above those would be taken for the
    better. But right labels that the model does not predict are then left out, too; plants between
    classes, told from all others, make up for that.

    Cost: a sort of n suspicions per round and detector, twice.
    Source: DeLong, DeLong & Clarke-Pearson, Biometrics 1988 (paired AUROC by placement values; of
    the plants' alone, since the others are many); the rest is our own.
    """
    easy = _find_plants(rounds, rounds.weights, rounds.was_right)
    hard = _find_plants(rounds, rounds.most_weights, np.ones(len(rounds.given)))
    between = {name: hard[name].auroc for name in easy}
    auroc = {name: placed.auroc for name, placed in easy.items()}
    able = [name for name in auroc if auroc[name] >= max(auroc.values()) - AS_GOOD]
    able.sort(key=lambda name: -between[name])
    trusted = tuple(name for name in able if between[name] >= between[able[0]] - _AS_GOOD_BETWEEN)
    is_strong = ODDS in easy and auroc[ODDS] >= max(auroc.values()) - _SHORT
    knows_pairs = is_strong and rounds.left_out is not None
    is_calibrated = ODDS in easy and rounds.odds_channel is not None
    if knows_pairs:
        trusted = tuple(dict.fromkeys([ODDS, trusted[0]]))
    elif is_calibrated and not _beats(easy[trusted[0]], easy[ODDS]):
        trusted = (ODDS,)
    return Trust(trusted, auroc, between, knows_pairs)


def _find_plants(
    rounds: PlantedRounds, weights: NDArray[np.float64], against: NDArray[np.float64]
) -> dict[str, _Placements]:
    """By detector the plants with (r + 1, n) weights among (n,) of others, best first."""
    found = {
        name: _place(values, rounds.is_planted, weights, against)
        for name, values in rounds.suspicions.items()
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].auroc))


def _place(
    suspicions: NDArray[np.float64],
    is_planted: NDArray[np.bool_],
    weights: NDArray[np.float64],
    against: NDArray[np.float64],
) -> _Placements:
    """Plants of (r + 1, n) suspicions, each in its round; equals count half."""
    placed, shares = [np.zeros(0)], [np.zeros(0)]
    for values, planted, share in zip(suspicions, is_planted, weights, strict=True):
        counts = planted & (share > 0)
        others = np.flatnonzero(~planted & (against > 0))
        if not counts.any() or not len(others):
            continue
        others = others[np.argsort(values[others])]
        below = np.concatenate([[0.0], np.cumsum(against[others])]) / against[others].sum()
        left, right = (
            np.searchsorted(values[others], values[counts], side) for side in ("left", "right")
        )
        placed.append((below[left] + below[right]) / 2)
        shares.append(share[counts])
    return _Placements(np.concatenate(placed), np.concatenate(shares))


def _beats(one: _Placements, other: _Placements) -> bool:
    """Whether its AUROC is higher by more than three standard errors, and than `AS_GOOD`."""
    if not len(one.values):
        return False
    shares = one.weights / one.weights.sum()
    difference = one.values - other.values
    mean = shares @ difference
    chance = _ERRORS * np.sqrt(shares**2 @ (difference - mean) ** 2)
    return bool(mean > max(chance, AS_GOOD))
