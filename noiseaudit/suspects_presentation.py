"""The report's cards: the most suspicious examples with all the evidence there is of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.duplicates_presentation import picture_uri
from noiseaudit.findings import Findings
from noiseaudit.ranking import Ranking
from noiseaudit.report import Neighbour, Suspect
from noiseaudit.training.run import TrainingRun

__all__ = ["suspect_cards"]

_SUSPECTS = 300  # cards in the page at least; the rest is in ranking.csv
_MOST_SUSPECTS = 2_000  # where so many labels look wrong and the page stays small: all to review
_PAGE_BYTES = 6_000_000
_CARD_BYTES = 3_000  # measured: 10 detectors, 30 epochs, without the picture
_FEATURES = 6
_NEIGHBOURS = 5
_PICTURED = 300  # cards that show their neighbours; the others name them


def suspect_cards(
    dataset: LabeledDataset,
    ranking: Ranking,
    rankings: Mapping[str, Ranking],
    findings: Findings,
    run: TrainingRun,
    embeddings: NDArray[np.float32] | None,
    p_error: NDArray[np.float64] | None,
) -> tuple[Suspect, ...]:
    """The first examples of a ranking, with what is known of each.

    With `embeddings` (n, d) the examples beside a suspect are those most alike among these, else
    among the features that the last epoch left. `p_error` (n,) is there with a verdict.
    """
    rows = ranking.order[:_SUSPECTS]
    pictures = _pictures(dataset, rows)
    if len(rows):
        card = _CARD_BYTES + sum(map(len, pictures)) // len(rows)
        wanted = min(int(findings.is_label_issue.sum()), _MOST_SUSPECTS, _PAGE_BYTES // card)
        more = ranking.order[len(rows) : wanted]
        rows, pictures = np.concatenate([rows, more]), pictures + _pictures(dataset, more)
    features: Sequence[tuple[tuple[str, float], ...]] = [()] * len(rows)
    if dataset.kind == "vectors":
        features = _unusual_features(dataset, rows)
    curves = run.curves[:, rows].astype(float).T.round(4).tolist()
    # What a network was trained to say of an example draws it to those of its given label.
    points = run.snapshots.get(("features", None)) if embeddings is None else embeddings
    metric = "euclidean" if embeddings is None else "cosine"
    neighbours = _neighbours(dataset, points, metric, rows)
    names = dataset.class_names
    return tuple(
        Suspect(
            rank=rank,
            sample_id=int(dataset.ids[row]),
            source="" if dataset.sources is None else str(dataset.sources[row]),
            given_label=names[dataset.labels[row]],
            suggested_label=names[findings.suggested[row]],
            suspicion=float(ranking.scores[row]),
            is_label_issue=bool(findings.is_label_issue[row]),
            reason=findings.reason(int(row), names, int(dataset.labels[row])),
            split="" if dataset.split is None else str(dataset.split[row]),
            thumbnail=picture,
            features=unusual,
            curve=tuple(curve),
            scores=tuple((name, float(item.scores[row])) for name, item in rankings.items()),
            neighbours=nearest,
            p_error=None if p_error is None else float(p_error[row]),
            kind="" if findings.kind is None else str(findings.kind[row]).replace("_", " "),
        )
        for rank, (row, picture, unusual, curve, nearest) in enumerate(
            zip(rows, pictures, features, curves, neighbours, strict=True), start=1
        )
    )


def _pictures(
    dataset: LabeledDataset, rows: np.ndarray[Any, Any], *, small: bool = False
) -> list[str]:
    if dataset.kind == "vectors":
        return [""] * len(rows)
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda row: picture_uri(dataset, int(row), small=small), rows))


def _neighbours(
    dataset: LabeledDataset,
    points: NDArray[np.float32] | None,
    metric: str,
    rows: np.ndarray[Any, Any],
) -> list[tuple[Neighbour, ...]]:
    """The nearest examples of each of `rows`, none where there are no points to compare."""
    from sklearn.neighbors import NearestNeighbors

    if points is None or len(points) < 2 or not np.isfinite(points).all():
        return [()] * len(rows)
    count = min(_NEIGHBOURS, len(points) - 1)
    search = NearestNeighbors(n_neighbors=count + 1, algorithm="brute", metric=metric).fit(points)
    found = search.kneighbors(points[rows], return_distance=False)
    # Of several examples in one place, the row itself need not come first.
    order = np.argsort(found == rows[:, None], axis=1, kind="stable")[:, :count]
    nearest = np.take_along_axis(found, order, axis=1)
    shown = np.unique(nearest[:_PICTURED])
    pictures = dict(zip(shown.tolist(), _pictures(dataset, shown, small=True), strict=True))
    return [
        tuple(
            Neighbour(
                sample_id=int(dataset.ids[row]),
                label=dataset.class_names[dataset.labels[row]],
                thumbnail=pictures[row] if place < _PICTURED else "",
            )
            for row in own
        )
        for place, own in enumerate(nearest.tolist())
    ]


def _unusual_features(
    dataset: LabeledDataset, rows: np.ndarray[Any, Any]
) -> list[tuple[tuple[str, float], ...]]:
    """Each row's features furthest from the mean, in standard deviations."""
    sample = dataset.inputs[:: max(1, len(dataset) // 10_000)].astype(np.float64)
    std = sample.std(axis=0)
    scores = (dataset.inputs[rows] - sample.mean(axis=0)) / np.where(std > 0, std, 1)
    names = dataset.feature_names or tuple(f"feature {i}" for i in range(scores.shape[1]))
    chosen = np.argsort(-np.abs(scores), axis=1, kind="stable")[:, :_FEATURES]
    return [
        tuple((names[column], round(float(line[column]), 2)) for column in columns)
        for line, columns in zip(scores, chosen, strict=True)
    ]
