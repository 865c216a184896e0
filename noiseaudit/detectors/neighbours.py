"""The nearest examples among the hidden features: how far they lie, how they are labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from noiseaudit.errors import UsageError
from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking
from noiseaudit.watching import Snapshot, check_epoch

__all__ = ["KnnDisagreement", "LofHidden"]


def _check_neighbours(k: int) -> None:
    if k < 1:
        raise UsageError(f"k must be at least 1 neighbour; got {k}")


@dataclass(frozen=True)
class LofHidden:
    """Local outlier factor: how much thinner its neighbours lie around it than around themselves.

    Suspicion is the factor, by scikit-learn, in (0, inf), about 1 within a cluster; **higher = more
    suspicious**. It sees no labels but through the network. Beside more than k identical examples
    it is huge, for the neighbours of these too.

    Attributes:
        k: neighbours; the paper's 3. Fewer where there are not so many examples.
        epoch: after which the features are taken, from 1; None for the last.

    Cost: a forward pass after that epoch, and n^2 d multiplications to find neighbours.
    Source: Breunig, Kriegel, Ng & Sander, SIGMOD 2000; Jiang, Zhang, Talwar & Mozer, ICML 2021,
    section 4.1, Figure 8.
    """

    k: int = 3
    epoch: int | None = None

    name: ClassVar[str] = "lof_hidden"
    summary: ClassVar[str] = "local outlier factor among the hidden features"
    needs: ClassVar[tuple[str, ...]] = ("snapshots",)
    cost: ClassVar[str] = "a forward pass, and all pairs of examples"
    source: ClassVar[str] = "Breunig et al., SIGMOD 2000; Jiang et al., ICML 2021, section 4.1"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        _check_neighbours(self.k)
        check_epoch(self.epoch)

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The hidden features."""
        return (Snapshot("features", self.epoch),)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in (0, inf)."""
        from sklearn.neighbors import LocalOutlierFactor

        features = evidence.snapshot("features", self.epoch)
        n = len(features)
        factors = np.ones(n)
        if n > 2:  # of two, each is the other's only neighbour: the factor is 1
            outliers = LocalOutlierFactor(n_neighbors=min(self.k, n - 1)).fit(features)
            factors = -outliers.negative_outlier_factor_.astype(np.float64)
        return Ranking(self.name, evidence.ids, factors)


@dataclass(frozen=True)
class KnnDisagreement:
    """The share of an example's nearest neighbours that are given another label.

    Suspicion in [0, 1] in steps of 1 / k; **higher = more suspicious**. Neighbours are by Euclidean
    distance among the hidden features, the example itself not among them.

    Attributes:
        k: neighbours; 10 as in SimiFeat. Fewer where there are not so many examples.
        epoch: after which the features are taken, from 1; None for the last.

    Cost: a forward pass after that epoch, and n^2 d multiplications to find neighbours.
    Source: Bahri, Jiang & Gupta, ICML 2020, "Deep k-NN for noisy labels".
    """

    k: int = 10
    epoch: int | None = None

    name: ClassVar[str] = "knn_disagreement"
    summary: ClassVar[str] = "share of the nearest neighbours with another label, hidden features"
    needs: ClassVar[tuple[str, ...]] = ("snapshots",)
    cost: ClassVar[str] = "a forward pass, and all pairs of examples"
    source: ClassVar[str] = "Bahri, Jiang & Gupta, ICML 2020"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        _check_neighbours(self.k)
        check_epoch(self.epoch)

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The hidden features."""
        return (Snapshot("features", self.epoch),)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1]."""
        from sklearn.neighbors import NearestNeighbors

        features, labels = evidence.snapshot("features", self.epoch), evidence.labels
        n = len(features)
        shares = np.zeros(n)
        if n > 1:
            near = NearestNeighbors(n_neighbors=min(self.k, n - 1)).fit(features)
            rows = near.kneighbors(return_distance=False)
            shares = (labels[rows] != labels[:, None]).mean(axis=1)
        return Ranking(self.name, evidence.ids, shares)
