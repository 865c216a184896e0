"""Which examples each model trains on: a pure function of labels, ratio, seed and index."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import ceil, isclose

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import UsageError, check_name
from noiseaudit.seeding import generator

__all__ = ["INTEGRAL", "SCHEMES", "SubsetPlan", "as_fraction", "default_ratio"]

SCHEMES = ("balanced", "iid")
"""How subsets are drawn: see `SubsetPlan`."""

INTEGRAL = tuple(tenth / 10 for tenth in range(1, 10))
"""The ratios of the integral C-score (ICML 2021, section 2)."""

# Where one ratio agrees best with the integral: ICML 2021, Figure 4b and section 3.2.
_PUBLISHED = {"mnist": 0.1, "cifar10": 0.3, "cifar100": 0.5, "imagenet": 0.7}
_OTHER = 0.5
_LEAST_SUBSET = 2


def as_fraction(ratio: float) -> Fraction:
    """A subset ratio as the fraction it stands for.

    Raises:
        UsageError: unless it is a whole percentage between 0 and 1.
    """
    if not 0 < ratio < 1:
        raise UsageError(f"subset ratio must be between 0 and 1; got {ratio}")
    percent = round(100 * ratio)
    if not isclose(100 * ratio, percent, rel_tol=0, abs_tol=1e-4):
        raise UsageError(f"subset ratio must be a whole percentage, such as 0.3; got {ratio}")
    return Fraction(percent, 100)


def default_ratio(name: str) -> float:
    """The ratio that suits a data set: the papers' where they have it, else 0.5.

    Half of the data gives the memorization estimate its least variance; a small ratio tells hard
    examples from easy ones where a network is right about nearly all.
    """
    return _PUBLISHED.get(name, _OTHER)


@dataclass(frozen=True, eq=False)
class SubsetPlan:
    """The subsets of n examples that models of one ratio train on.

    "balanced": every class has its share in each subset, and after any number of models every
    example was held out equally often, within one. Examples are put in a random order in which
    classes are spread evenly, and model i takes the i-th stretch of it, round and round; a new
    order begins with each block, the least number of models after which the stretches end where
    they began (10 for a ratio of 0.3). "iid": as Algorithm 1 is printed, each subset drawn alone.

    The subset of an index does not depend on how many models there will be.

    Attributes:
        labels: (n,) int64 given labels.
        ratio: share of the examples in a subset, a whole percentage in (0, 1).
        scheme: one of `SCHEMES`.
        seed: of the draws.

    Raises:
        UsageError: for a ratio out of range, or one that leaves a subset or its rest empty.
    """

    labels: NDArray[np.int64]
    ratio: float
    scheme: str = "balanced"
    seed: int = 0

    def __post_init__(self) -> None:
        check_name(self.scheme, SCHEMES, "scheme")
        n, exact = len(self.labels), len(self.labels) * self.exact_ratio
        if not (int(exact) >= _LEAST_SUBSET and ceil(exact) < n):
            raise UsageError(
                f"subset ratio {self.ratio:g} of {n} examples is {float(exact):g}; at least "
                f"{_LEAST_SUBSET} must be trained on and one held out"
            )

    @cached_property
    def exact_ratio(self) -> Fraction:
        """The ratio as a fraction; its denominator is the length of a block."""
        return as_fraction(self.ratio)

    @property
    def block(self) -> int:
        """Models after which every example was held out equally often; 1 for "iid"."""
        return self.exact_ratio.denominator if self.scheme == "balanced" else 1

    @property
    def sweep(self) -> int:
        """Models in which every example is held out once or more (1 for "iid", not assured)."""
        return ceil(1 / (1 - self.exact_ratio)) if self.scheme == "balanced" else 1

    @property
    def size(self) -> int:
        """Examples in a subset, or one less than in some."""
        return int(len(self.labels) * self.exact_ratio)

    def subset(self, index: int) -> NDArray[np.int64]:
        """(m,) sorted rows that model `index` trains on."""
        n = len(self.labels)
        if self.scheme == "iid":
            random = generator(self.seed, "subset", str(self.exact_ratio), index)
            return np.sort(random.choice(n, self.size, replace=False).astype(np.int64))
        block, turn = divmod(index, self.block)
        start, stop = (int(n * self.exact_ratio * edge) for edge in (turn, turn + 1))
        return np.sort(self._order(block)[np.arange(start, stop) % n])

    def expected_never_held_out(self, runs: int) -> float:
        """How many examples `runs` models will leave without a score."""
        if self.scheme == "iid":
            return len(self.labels) * (self.size / len(self.labels)) ** runs
        # Of a ratio s the first models hold out 1 - s each, until everything was.
        return max(0.0, len(self.labels) * float(1 - runs * (1 - self.exact_ratio)))

    def _order(self, block: int) -> NDArray[np.int64]:
        stored = self._orders.get(block)
        if stored is None:
            self._orders.clear()  # models come in order of their index: one is enough
            stored = self._orders[block] = self._draw_order(block)
        return stored

    @cached_property
    def _orders(self) -> dict[int, NDArray[np.int64]]:
        return {}

    def _draw_order(self, block: int) -> NDArray[np.int64]:
        random = generator(self.seed, "order", str(self.exact_ratio), block)
        shuffled = random.permutation(len(self.labels))
        by_class = shuffled[np.argsort(self.labels[shuffled], kind="stable")]
        counts = np.bincount(self.labels)
        within = np.arange(len(self.labels)) - np.repeat(np.cumsum(counts) - counts, counts)
        # The j-th of a class's c examples goes to (j + u) / c of the way, u one draw a class.
        place = (within + np.repeat(random.random(len(counts)), counts)) / np.repeat(counts, counts)
        return by_class[np.argsort(place, kind="stable")].astype(np.int64)
