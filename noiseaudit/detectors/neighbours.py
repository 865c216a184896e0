"""The nearest examples: how far they lie, how they are labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from noiseaudit._rows import spread_rows
from noiseaudit.errors import UsageError, check_name
from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking
from noiseaudit.ridge_features import standardise
from noiseaudit.watching import Snapshot, check_epoch

__all__ = ["KnnDisagreement", "LofHidden"]

_METRICS = ("auto", "cosine", "euclidean")
_SAMPLE = 2000  # examples that the metric is chosen by
_BLOCK = 4096


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

    Suspicion in [0, 1] in steps of 1 / k; **higher = more suspicious**. Neighbours are searched
    among the embeddings where examples have any and no epoch is asked for, else among the hidden
    features by Euclidean distance; the example itself is not one of them.

    Attributes:
        k: neighbours; 10 as in SimiFeat. Fewer where there are not so many examples.
        epoch: after which hidden features are taken, from 1; None for the last.
        metric: of embeddings: "cosine", "euclidean" of standardised columns, or "auto", the one by
            which more neighbours of 2,000 examples have the same given label: cosine of what an
            encoder gives, Euclidean of most tables (`benchmarks/leave_one_out.py`).

    Cost: n^2 d multiplications to find neighbours; among hidden features a forward pass after that
    epoch too.
    Source: Bahri, Jiang & Gupta, ICML 2020, "Deep k-NN for noisy labels".
    """

    k: int = 10
    epoch: int | None = None
    metric: Literal["auto", "cosine", "euclidean"] = "auto"

    name: ClassVar[str] = "knn_disagreement"
    summary: ClassVar[str] = "share of the nearest neighbours with another label"
    needs: ClassVar[tuple[str, ...]] = ("snapshots",)
    cost: ClassVar[str] = "all pairs of examples; without embeddings a forward pass"
    source: ClassVar[str] = "Bahri, Jiang & Gupta, ICML 2020"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        _check_neighbours(self.k)
        check_epoch(self.epoch)
        check_name(self.metric, _METRICS, "metric")

    @property
    def needs_with_embeddings(self) -> tuple[str, ...]:
        """No training, unless an epoch is asked for."""
        return ("embeddings",) if self.epoch is None else self.needs

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """The hidden features."""
        return (Snapshot("features", self.epoch),)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1]."""
        labels = evidence.labels
        if "embeddings" in self.needs_with_embeddings and evidence.embeddings is not None:
            shares = _disagreement_of_embeddings(evidence.vectors(), labels, self.k, self.metric)
        else:
            shares = _disagreement(evidence.snapshot("features", self.epoch), labels, self.k)
        return Ranking(self.name, evidence.ids, shares)


def _disagreement_of_embeddings(
    embeddings: NDArray[np.float32], labels: NDArray[np.int64], k: int, metric: str
) -> NDArray[np.float64]:
    n = len(embeddings)
    asked = list(_METRICS[1:]) if metric == "auto" else [metric]
    places = {name: _place(embeddings, name) for name in asked}
    if len(asked) > 1:
        some = spread_rows(n, _SAMPLE)
        wrong = {
            name: _disagreement(points, labels, k, some).mean() for name, points in places.items()
        }
        metric = min(asked, key=lambda name: wrong[name])
    return _disagreement(places[metric], labels, k)


def _place(embeddings: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """Points whose Euclidean distances order neighbours as `metric` does."""
    if metric == "euclidean":
        rows = standardise(embeddings)
        places = np.empty(embeddings.shape, np.float32)
        for start in range(0, len(places), _BLOCK):
            places[start : start + _BLOCK] = rows(slice(start, start + _BLOCK))
        return places
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    points = np.zeros(embeddings.shape, np.float32)
    np.divide(embeddings, lengths, out=points, where=lengths > 0)
    return points


def _disagreement(
    points: NDArray[np.float32],
    labels: NDArray[np.int64],
    k: int,
    asked: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Of the rows asked for, default all, the share of neighbours with another label."""
    from sklearn.neighbors import NearestNeighbors

    n = len(points)
    asked = np.arange(n) if asked is None else asked
    if n < 2:
        return np.zeros(len(asked))
    near = NearestNeighbors(n_neighbors=min(k, n - 1)).fit(points)
    if len(asked) == n:
        rows = near.kneighbors(return_distance=False)
    else:
        # One more, since each is its own nearest; or a copy of it is, and it is among the next.
        found = near.kneighbors(points[asked], min(k + 1, n), return_distance=False)
        is_self = found == asked[:, None]
        is_self[~is_self.any(axis=1), -1] = True
        rows = found[~is_self].reshape(len(asked), -1)
    shares: NDArray[np.float64] = (labels[rows] != labels[asked, None]).mean(axis=1)
    return shares
