"""From arrays to what people see: the rows of ranking.csv and the report's document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.duplicate_groups import DuplicateGroups
from noiseaudit.duplicates_presentation import copy_counts, copy_groups
from noiseaudit.findings import Findings
from noiseaudit.ranking import Ranking
from noiseaudit.report import (
    ClassSummary,
    EpochSummary,
    Histogram,
    PairSummary,
    ReportDocument,
)
from noiseaudit.suspects_presentation import suspect_cards
from noiseaudit.training.run import TrainingRun
from noiseaudit.verdict import Verdict
from noiseaudit.verdict_presentation import verdict_summary

__all__ = ["build_document", "class_summaries", "ranking_rows"]

_BINS = 40


def ranking_rows(
    dataset: LabeledDataset,
    ranking: Ranking,
    rankings: Mapping[str, Ranking],
    findings: Findings,
    more: Mapping[str, NDArray[Any]],
) -> tuple[list[str], Iterator[list[Any]]]:
    """Header and rows of `ranking.csv`, most suspicious first; `more` are its last columns."""
    header = [
        "rank", "sample_id", "source", "given_label", "suggested_label", "suspicion",
        "is_label_issue", "reason", *rankings, *more,
    ]  # fmt: skip

    def rows() -> Iterator[list[Any]]:
        names = dataset.class_names
        columns = [*(item.scores for item in rankings.values()), *more.values()]
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
                *(column[row].item() for column in columns),
            ]

    return header, rows()


def class_summaries(
    dataset: LabeledDataset, findings: Findings, verdict: Verdict | None
) -> tuple[ClassSummary, ...]:
    """Examples and label issues per class, in class order; classes without examples left out."""
    expected: list[tuple[float, ...]] = [()] * dataset.num_classes
    if verdict is not None and verdict.estimate.is_close:
        expected = [tuple(item) for item in np.transpose(verdict.estimate.per_class).tolist()]
    examples = np.bincount(dataset.labels, minlength=dataset.num_classes)
    issues = np.bincount(dataset.labels[findings.is_label_issue], minlength=dataset.num_classes)
    return tuple(
        ClassSummary(name, int(count), int(wrong), numbers)
        for name, count, wrong, numbers in zip(
            dataset.class_names, examples, issues, expected, strict=True
        )
        if count
    )


def build_document(
    dataset: LabeledDataset,
    ranking: Ranking,
    rankings: Mapping[str, Ranking],
    findings: Findings,
    run: TrainingRun,
    found: DuplicateGroups | None,
    verdict: Verdict | str,
    manifest: Mapping[str, Any],
    embeddings: NDArray[np.float32] | None = None,
) -> ReportDocument:
    """Everything the report shows, as plain values.

    `verdict` is why there is none where it is text; for `embeddings` see `suspect_cards`.
    """
    issues = int(findings.is_label_issue.sum())
    reached = verdict if isinstance(verdict, Verdict) else None
    summary = None if reached is None else verdict_summary(reached, findings.is_label_issue)
    pairs = _pairs(dataset, findings, reached)
    headline = _headline(len(dataset), issues, pairs) if summary is None else summary.sentence
    p_error = None if reached is None else reached.estimate.p_error
    return ReportDocument(
        title=dataset.name,
        headline=headline + _conflicts(found),
        detector=ranking.detector,
        examples=len(dataset),
        issues=issues,
        facts=_facts(dataset, manifest),
        notes=_notes(dataset, verdict),
        classes=class_summaries(dataset, findings, reached),
        pairs=pairs,
        suspects=suspect_cards(dataset, ranking, rankings, findings, run, embeddings, p_error),
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
        verdict=summary,
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


def _notes(dataset: LabeledDataset, verdict: Verdict | str) -> tuple[str, ...]:
    notes: list[str] = []
    if isinstance(verdict, str):
        notes.append(f"How many labels are wrong was not estimated: {verdict}.")
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


def _pairs(
    dataset: LabeledDataset, findings: Findings, verdict: Verdict | None
) -> tuple[PairSummary, ...]:
    expected: dict[tuple[int, int], tuple[float, ...]] = {}
    if verdict is not None and verdict.estimate.is_close:
        numbers = np.stack(verdict.estimate.per_pair)  # (3, suggested, given)
        likely = np.argwhere(numbers[0] >= 0.5).tolist()
        expected = {(given, other): tuple(numbers[:, other, given]) for other, given in likely}
    flagged = findings.is_label_issue
    pairs = Counter(
        zip(dataset.labels[flagged].tolist(), findings.suggested[flagged].tolist(), strict=True)
    )
    pairs.update(dict.fromkeys(expected, 0))
    names = dataset.class_names
    return tuple(
        PairSummary(names[given], names[suggested], count, expected.get((given, suggested), ()))
        for (given, suggested), count in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    )


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
