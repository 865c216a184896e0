"""From arrays to what people see: the rows of ranking.csv and the report's document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.duplicate_groups import DuplicateGroups
from noiseaudit.duplicates_presentation import copy_counts, copy_groups, picture_uri
from noiseaudit.findings import Findings
from noiseaudit.ranking import Ranking
from noiseaudit.report import (
    ClassSummary,
    EpochSummary,
    Histogram,
    Neighbour,
    PairSummary,
    ReportDocument,
    Suspect,
)
from noiseaudit.training.run import TrainingRun

__all__ = ["build_document", "class_summaries", "ranking_rows"]

_SUSPECTS = 300  # cards in the page at least; the rest is in ranking.csv
_MOST_SUSPECTS = 2_000  # where so many labels look wrong and the page stays small: all to review
_PAGE_BYTES = 6_000_000
_CARD_BYTES = 3_000  # measured: 10 detectors, 30 epochs, without the picture
_FEATURES = 6
_NEIGHBOURS = 5
_PICTURED = 300  # cards that show their neighbours; the others name them
_BINS = 40


def ranking_rows(
    dataset: LabeledDataset,
    ranking: Ranking,
    rankings: Mapping[str, Ranking],
    findings: Findings,
) -> tuple[list[str], Iterator[list[Any]]]:
    """Header and rows of `ranking.csv`, most suspicious first."""
    header = [
        "rank", "sample_id", "source", "given_label", "suggested_label", "suspicion",
        "is_label_issue", "reason", *rankings,
    ]  # fmt: skip

    def rows() -> Iterator[list[Any]]:
        names = dataset.class_names
        columns = [item.scores for item in rankings.values()]
        for rank, row in enumerate(ranking.order, start=1):
            label = int(dataset.labels[row])
            yield [
                rank,
                int(dataset.ids[row]),
                "" if dataset.sources is None else str(dataset.sources[row]),
                names[label],
                names[findings.suggested[row]],
                float(ranking.scores[row]),
                bool(findings.is_label_issue[row]),
                findings.reason(row, names, label),
                *(float(column[row]) for column in columns),
            ]

    return header, rows()


def class_summaries(dataset: LabeledDataset, findings: Findings) -> tuple[ClassSummary, ...]:
    """Examples and label issues per class, in class order; classes without examples left out."""
    examples = np.bincount(dataset.labels, minlength=dataset.num_classes)
    issues = np.bincount(dataset.labels[findings.is_label_issue], minlength=dataset.num_classes)
    return tuple(
        ClassSummary(name, int(count), int(wrong))
        for name, count, wrong in zip(dataset.class_names, examples, issues, strict=True)
        if count
    )


def build_document(
    dataset: LabeledDataset,
    ranking: Ranking,
    rankings: Mapping[str, Ranking],
    findings: Findings,
    run: TrainingRun,
    found: DuplicateGroups | None,
    manifest: Mapping[str, Any],
    embeddings: NDArray[np.float32] | None = None,
) -> ReportDocument:
    """Everything the report shows, as plain values.

    With `embeddings` (n, d) the examples beside a suspect are those most alike among these, else
    among the features that the last epoch left.
    """
    issues = int(findings.is_label_issue.sum())
    pairs = _pairs(dataset, findings)
    return ReportDocument(
        title=dataset.name,
        headline=_headline(len(dataset), issues, pairs) + _conflicts(found),
        detector=ranking.detector,
        examples=len(dataset),
        issues=issues,
        facts=_facts(dataset, manifest),
        notes=_notes(dataset),
        classes=class_summaries(dataset, findings),
        pairs=pairs,
        suspects=_suspects(dataset, ranking, rankings, findings, run, embeddings),
        histograms=_histograms(ranking, rankings, findings),
        training=tuple(
            EpochSummary(epoch, item["loss"], item["accuracy"])
            for epoch, item in enumerate(run.history, start=1)
        ),
        settings=_settings(manifest),
        version=manifest["versions"]["noiseaudit"],
        groups=() if found is None else copy_groups(found),
        copies=() if found is None else copy_counts(found),
        data_digest=dataset.content_digest,
        labels_digest=dataset.fingerprint["labels"],
        class_names=dataset.class_names,
    )


def _headline(examples: int, issues: int, pairs: Sequence[PairSummary]) -> str:
    text = f"{issues:,} of {examples:,} labels look wrong ({issues / examples:.1%})"
    if not pairs:
        return f"{text}."
    return f"{text}; most often a {pairs[0].given} that looks like a {pairs[0].suggested}."


def _conflicts(found: DuplicateGroups | None) -> str:
    count = 0 if found is None else int(found.is_conflict.sum())
    if not count:
        return ""
    what = "picture has copies" if count == 1 else "pictures have copies"
    return f" {count:,} {what} under conflicting labels, confirmed on pixels."


def _facts(dataset: LabeledDataset, manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    present = counts[counts > 0]
    shape = " x ".join(str(size) for size in dataset.input_shape)
    facts = [
        ("examples", f"{len(dataset):,}"),
        ("classes", f"{len(present):,}"),
        ("inputs", f"{dataset.kind}, {shape}"),
        ("examples per class", f"{present.min():,} to {present.max():,}"),
    ]
    if manifest["encoder"]["name"] is not None:
        told = manifest["encoder"]
        facts.append(("embeddings", f"{told['name']}, {told['dimension']:,} numbers each"))
    if dataset.split is not None:
        splits = Counter(dataset.split.tolist())
        facts.append(("splits", ", ".join(f"{name}: {n:,}" for name, n in splits.items())))
    if dataset.root is not None:
        facts.append(("folder", str(dataset.root)))
    facts.append(("fingerprint", dataset.content_digest))
    return tuple(facts)


def _notes(dataset: LabeledDataset) -> tuple[str, ...]:
    notes: list[str] = []
    if dataset.skipped:
        notes.append(f"{len(dataset.skipped):,} files could not be read; see skipped.csv.")
    if dataset.columns is not None:
        notes += dataset.columns.notes()
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    lonely = [name for name, n in zip(dataset.class_names, counts, strict=True) if n == 1]
    if lonely:
        notes.append(
            f"{len(lonely):,} classes have a single example, whose score says little: "
            f"{', '.join(lonely[:5])}{', ...' if len(lonely) > 5 else ''}"
        )
    if dataset.split is not None and "test" in dataset.split:
        notes.append(
            "Examples of the test split were audited too: cleaning a test set changes what your "
            "reported accuracy means."
        )
    return tuple(notes)


def _pairs(dataset: LabeledDataset, findings: Findings) -> tuple[PairSummary, ...]:
    flagged = findings.is_label_issue
    pairs = Counter(
        zip(dataset.labels[flagged].tolist(), findings.suggested[flagged].tolist(), strict=True)
    )
    names = dataset.class_names
    return tuple(
        PairSummary(names[given], names[suggested], count)
        for (given, suggested), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    )


def _suspects(
    dataset: LabeledDataset,
    ranking: Ranking,
    rankings: Mapping[str, Ranking],
    findings: Findings,
    run: TrainingRun,
    embeddings: NDArray[np.float32] | None,
) -> tuple[Suspect, ...]:
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


def _histograms(
    ranking: Ranking, rankings: Mapping[str, Ranking], findings: Findings
) -> tuple[Histogram, ...]:
    ordered = {ranking.detector: ranking, **rankings}
    histograms = []
    for name, item in ordered.items():
        counts, edges = np.histogram(item.scores, bins=_BINS)
        issue_counts, _ = np.histogram(item.scores[findings.is_label_issue], bins=edges)
        histograms.append(
            Histogram(
                title=name.replace("_", " "),
                detector=name,
                edges=tuple(edges.tolist()),
                counts=tuple(counts.tolist()),
                issue_counts=tuple(issue_counts.tolist()),
            )
        )
    return tuple(histograms)


def _settings(manifest: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    config = manifest["config"]
    settings = [
        ("encoder", manifest["encoder"]["reason"]),
        ("model", config["model"]),
        *((name.replace("_", " "), _shown(value)) for name, value in config["recipe"].items()),
        ("seed", str(config["seed"])),
        ("device", f"{config['device']}, {config['threads']} threads"),
        ("training time", f"{manifest['results']['training_seconds']:,.0f} s"),
        ("detectors", ", ".join(manifest["detectors"])),
        ("versions", ", ".join(f"{name} {v}" for name, v in manifest["versions"].items())),
    ]
    return tuple(settings)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        active = [f"{name} {item}" for name, item in value.items() if item]
        return ", ".join(active) or "none"
    return str(value)
