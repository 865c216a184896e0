"""Density around each example, in input space and among hidden features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import check_name
from noiseaudit.evidence import Evidence
from noiseaudit.kernel_density import Densities, kernel_densities
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking
from noiseaudit.watching import Snapshot, check_epoch

__all__ = ["DensityHidden", "DensityHiddenClass", "DensityHiddenRelative", "DensityInput"]

_KINDS = ("relative", "same_class", "all")


def _hidden(evidence: Evidence, epoch: int | None) -> Densities:
    """The densities among hidden features, shared by the three detectors."""
    features = evidence.snapshot("features", epoch)
    return evidence.shared(
        ("density", "features", epoch),
        lambda: kernel_densities([features], evidence.labels, device=evidence.device),
    )


def _ranked(name: str, evidence: Evidence, density: NDArray[np.float64]) -> Ranking:
    return Ranking(name, evidence.ids, -density)


@dataclass(frozen=True)
class DensityInput:
    """How few examples of the same class, and how many of others, lie near in input space.

    Suspicion `-C^(+-L)`, in [-1, 1]; **higher = more suspicious**, with the Gaussian kernel of
    `noiseaudit.kernel_density` on raw pixels or features. The papers found next to no relation with
    C-scores there (Spearman 0.08 on CIFAR-10, 0.3 on MNIST): a baseline.

    Attributes:
        kind: "relative" (C^(+-L), the default), "same_class" (C^L) or "all" (C, without labels).

    Cost: no training; n^2 (d + 1) multiplications, n^2 / 2 exponentials.
    Source: Jiang, Zhang, Talwar & Mozer, ICML 2021, equations 3-5.
    """

    kind: Literal["relative", "same_class", "all"] = "relative"

    name: ClassVar[str] = "density_input"
    summary: ClassVar[str] = "few of the same class and many of others lie near, in input space"
    needs: ClassVar[tuple[str, ...]] = ("inputs",)
    cost: ClassVar[str] = "all pairs of examples"
    source: ClassVar[str] = "Jiang, Zhang, Talwar & Mozer, ICML 2021, equations 3-5"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_name(self.kind, _KINDS, "kind of density")

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [-1, 1]."""
        found = evidence.shared(
            ("density", "inputs"),
            lambda: kernel_densities([evidence.points()], evidence.labels, device=evidence.device),
        )
        return _ranked(self.name, evidence, getattr(found, self.kind))


@dataclass(frozen=True)
class DensityHidden:
    """How few examples of any class lie near among the hidden features.

    Suspicion `-C_h`, in [-1, 0]; **higher = more suspicious**; the weakest of the three, since it
    sees no labels but through the network.

    Attributes:
        epoch: after which the features are taken, from 1; None for the last.

    Cost: a forward pass after that epoch; n^2 (d + 1) multiplications, n^2 / 2 exponentials, shared
    by the three. Source: Jiang, Zhang, Talwar & Mozer, ICML 2021, equation 5, section 4.1.
    """

    epoch: int | None = None

    name: ClassVar[str] = "density_hidden"
    summary: ClassVar[str] = "few examples lie near among the hidden features"
    needs: ClassVar[tuple[str, ...]] = ("snapshots",)
    cost: ClassVar[str] = "a forward pass, and all pairs of examples"
    source: ClassVar[str] = "Jiang, Zhang, Talwar & Mozer, ICML 2021, equation 5"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_epoch(self.epoch)

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The hidden features."""
        return (Snapshot("features", self.epoch),)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [-1, 0]."""
        return _ranked(self.name, evidence, _hidden(evidence, self.epoch).all)


@dataclass(frozen=True)
class DensityHiddenClass:
    """How few examples of its own class lie near among the hidden features.

    Suspicion `-C^L_h`, in [-1, 0]; **higher = more suspicious**. A sum over the class, so that
    examples of small classes are more suspicious than others.

    Attributes:
        epoch: after which the features are taken, from 1; None for the last.

    Cost: that of `density_hidden`, shared with it.
    Source: Jiang, Zhang, Talwar & Mozer, ICML 2021, equation 4, section 4.1.
    """

    epoch: int | None = None

    name: ClassVar[str] = "density_hidden_class"
    summary: ClassVar[str] = "few examples of the same class lie near among the hidden features"
    needs: ClassVar[tuple[str, ...]] = ("snapshots",)
    cost: ClassVar[str] = "a forward pass, and all pairs of examples"
    source: ClassVar[str] = "Jiang, Zhang, Talwar & Mozer, ICML 2021, equation 4"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_epoch(self.epoch)

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The hidden features."""
        return (Snapshot("features", self.epoch),)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [-1, 0]."""
        return _ranked(self.name, evidence, _hidden(evidence, self.epoch).same_class)


@dataclass(frozen=True)
class DensityHiddenRelative:
    """How few of its own class, and how many of others, lie near among the hidden features.

    Suspicion `-C^(+-L)_h`, in [-1, 1]; **higher = more suspicious**; the best of the densities in
    the paper: Spearman with C-scores up to 0.7 on MNIST and CIFAR-10, 0.4 on CIFAR-100.

    Attributes:
        epoch: after which the features are taken, from 1; None for the last. A net that has
            memorised its wrong labels puts them among their false class: an earlier epoch is
            better then.

    Cost: that of `density_hidden`, shared with it.
    Source: Jiang, Zhang, Talwar & Mozer, ICML 2021, equation 3, section 4.1.
    """

    epoch: int | None = None

    name: ClassVar[str] = "density_hidden_relative"
    summary: ClassVar[str] = "few of the same class and many of others lie near among the features"
    needs: ClassVar[tuple[str, ...]] = ("snapshots",)
    cost: ClassVar[str] = "a forward pass, and all pairs of examples"
    source: ClassVar[str] = "Jiang, Zhang, Talwar & Mozer, ICML 2021, equation 3"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_epoch(self.epoch)

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The hidden features."""
        return (Snapshot("features", self.epoch),)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [-1, 1]."""
        return _ranked(self.name, evidence, _hidden(evidence, self.epoch).relative)
