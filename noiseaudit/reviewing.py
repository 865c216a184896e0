"""Decisions on a finished audit: how far the review has come, and `review.csv`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import csv_delimiter, spreadsheet_safe, write_csv
from noiseaudit._validation import find_rows
from noiseaudit.cleaning import CleaningPlan
from noiseaudit.errors import DataError, OutputError
from noiseaudit.manifest import read_manifest
from noiseaudit.plan_files import load_evidence, read_decisions
from noiseaudit.review_budget import ReviewPlan, ReviewProgress, review_progress

__all__ = ["AuditReview", "review_audit"]

_HEADER = (
    "sample_id", "p_error", "reviewed", "decision", "next", "source", "given_label",
    "suggested_label",
)  # fmt: skip
_OPEN = "review"  # not decided yet


@dataclass(frozen=True, eq=False)
class AuditReview:
    """How far the review of an audit has come.

    Attributes:
        progress: with rows in the order of `ranking.csv`.
        plan: what to look at next.
        path: of `review.csv`.
        share: of the wrong labels that is to be found.
        confidence: at which.
    """

    progress: ReviewProgress
    plan: ReviewPlan
    path: Path
    share: float
    confidence: float

    @property
    def is_done(self) -> bool:
        """Whether that share was found at that confidence."""
        return self.progress.is_done(self.share, self.confidence)

    def sentence(self) -> str:
        """The state in one line."""
        found, left = self.progress.share_found, self.progress.expected_left
        aim = f"{100 * self.share:g}% with {100 * self.confidence:g}% confidence"
        probable, checks = self.plan
        if len(self.progress.p_error) == self.progress.reviewed:
            advice = "everything is reviewed"
        elif self.is_done:
            advice = f"you have found {aim}: done"
        else:
            parts = [f"the next {probable:,}"] if probable else []
            if checks:
                parts.append(f"{checks:,}{' others' if probable else ''} at random")
            advice = f"review {' and '.join(parts)} to have found {aim}"
        return (
            f"{self.progress.reviewed:,} reviewed, {self.progress.found:,} wrong; about "
            f"{left.value:,.0f} [{left.low:,.0f}, {left.high:,.0f}] wrong labels are left; "
            f"{_percent(found.value)}% [{_percent(found.low)}, {_percent(found.high)}] found; "
            f"{advice}"
        )

    def summary(self) -> dict[str, Any]:
        """The same for programs, in plain values."""
        progress = self.progress
        return {
            "examples": len(progress.p_error), "reviewed": progress.reviewed,
            "wrong": progress.found, "expected_left": progress.expected_left._asdict(),
            "share_found": progress.share_found._asdict(),
            "interval_confidence": progress.confidence, "share": self.share,
            "confidence": self.confidence,
            "probability": progress.probability_found(self.share), "is_done": self.is_done,
            "next": self.plan._asdict(), "sentence": self.sentence(),
        }  # fmt: skip


def review_audit(
    folder: str | Path,
    decisions: str | Path,
    *,
    share: float = 0.95,
    confidence: float = 0.9,
    seed: int = 0,
) -> AuditReview:
    """Update an audit's error probabilities by a person's decisions, and write `review.csv`.

    A label that is to be removed or given another name was wrong; one that is kept was right. The
    file has one row per example, most probable first: sample_id, p_error, reviewed, decision, next
    ("probable" or "check": what to look at now), source, given_label and suggested_label.

    Args:
        folder: of a finished audit whose `ranking.csv` has a column `p_error`.
        decisions: the file that the report saved; or a `review.csv` with more decisions (keep,
            remove, relabel) written into its column.
        share: of all wrong labels that is to be found, in (0, 1].
        confidence: of that and of the intervals, in (0, 1).
        seed: of the draws and of the random checks.

    Raises:
        OutputError: if there is no finished audit, or `review.csv` cannot be written.
        DataError: if decisions do not fit the audit, or it has no error probabilities.
        UsageError: for a share or confidence that cannot be.
    """
    folder, decisions = Path(folder), Path(decisions)
    fingerprint = _fingerprint(folder)
    audited = load_evidence(folder / "plan_evidence.npz")
    ids, p_error = _read_p_error(folder / "ranking.csv")
    if not np.array_equal(np.sort(ids), np.sort(audited.ids)):
        raise OutputError(f"{folder / 'ranking.csv'} lacks or repeats examples: audit again")
    decided = _decide(audited, decisions, fingerprint)
    order = find_rows(audited.ids, ids)
    actions = decided[order]
    reviewed = np.flatnonzero(actions != _OPEN)
    progress = review_progress(
        p_error, reviewed, actions[reviewed] != "keep", confidence=confidence, seed=seed
    )
    plan = progress.plan(share, confidence)
    wanted = np.full(len(ids), "", dtype="<U8")
    wanted[progress.sample_rows(plan.checks, seed)] = "check"
    wanted[progress.next_rows(plan.probable)] = "probable"
    path = folder / "review.csv"
    _write(path, audited, order, progress, actions, wanted)
    return AuditReview(progress, plan, path, share, confidence)


def _percent(share: float) -> str:
    """Whole, and 100 for all alone."""
    return f"{min(100 * share, 99) if share < 1 else 100:.0f}"


def _fingerprint(folder: Path) -> Mapping[str, Any]:
    manifest = read_manifest(folder / "manifest.json")
    if manifest is None or manifest.get("command") != "audit":
        raise OutputError(
            f"{folder} holds no audit; 'noiseaudit audit ... --out {folder}' makes one"
        )
    if manifest.get("status") != "done":
        raise OutputError(f"the audit in {folder} is not finished; run it again")
    found: Mapping[str, Any] = manifest["config"]["dataset"]
    return found


def _read_table(path: Path, columns: tuple[str, ...], way_out: str) -> dict[str, NDArray[Any]]:
    """Columns of a CSV as text, between commas or semicolons."""
    import pandas as pd

    try:
        with path.open(encoding="utf-8-sig") as file:
            delimiter = csv_delimiter(file.readline(2**16))
        frame = pd.read_csv(
            path, dtype=str, keep_default_na=False, encoding="utf-8-sig", sep=delimiter
        )
    except (OSError, ValueError) as error:  # pandas' and Unicode errors are of the latter
        raise DataError(f"{path} cannot be read as CSV in UTF-8: {error}") from error
    if lacking := [name for name in columns if name not in frame.columns]:
        raise DataError(f"{path} has no column {lacking[0]!r}: {way_out}")
    return {name: frame[name].to_numpy(dtype=object) for name in columns}


def _numbers(path: Path, values: NDArray[Any], dtype: type, name: str) -> NDArray[Any]:
    try:
        return values.astype(dtype)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}: {name} must be a number in every row: {error}") from error


def _read_p_error(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    way_out = "it takes an audit that reached a verdict; report.html says why this one did not"
    found = _read_table(path, ("sample_id", "p_error"), way_out)
    if (found["p_error"] == "").any():
        raise DataError(f"{path} has no p_error for some examples: {way_out}")
    ids = _numbers(path, found["sample_id"], np.int64, "sample_id")
    return ids, _numbers(path, found["p_error"], np.float64, "p_error")


def _decide(audited: CleaningPlan, path: Path, fingerprint: Mapping[str, Any]) -> NDArray[np.str_]:
    """(n,) action decided for each example, "review" where there is none."""
    undecided = replace(
        audited, actions=np.full(len(audited), _OPEN, dtype="<U7"),
        new_labels=np.full(len(audited), -1),
    )  # fmt: skip
    if path.suffix.lower() != ".csv":
        return undecided.with_decisions(read_decisions(path, fingerprint)).actions
    way_out = "is it a review.csv?"
    found = _read_table(path, ("sample_id", "given_label", "decision"), way_out)
    ids = _numbers(path, found["sample_id"], np.int64, "sample_id")
    texts = np.array([text.strip().lower() for text in found["decision"]], dtype=object)
    given = {str(spreadsheet_safe(name)): name for name in audited.class_names}
    items: list[dict[str, str | int]] = [
        {
            "sample_id": int(sample_id), "given_label": given.get(label, label),
            "action": "remove" if text == "relabel" else text,  # the new label is not of interest
        }
        for sample_id, label, text in zip(ids, found["given_label"], texts, strict=True)
        if text
    ]  # fmt: skip
    try:
        actions = undecided.with_decisions(items).actions.copy()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    is_relabelled = texts == "relabel"
    actions[find_rows(audited.ids, ids[is_relabelled])] = "relabel"
    return actions


def _write(
    path: Path,
    audited: CleaningPlan,
    order: NDArray[np.int64],
    progress: ReviewProgress,
    actions: NDArray[np.str_],
    wanted: NDArray[np.str_],
) -> None:
    names, reviewed = audited.class_names, progress.is_reviewed
    rows = (
        [
            int(audited.ids[order[row]]),
            float(progress.p_error[row]),
            bool(reviewed[row]),
            str(actions[row]) if reviewed[row] else "",
            str(wanted[row]),
            "" if audited.sources is None else str(audited.sources[order[row]]),
            names[audited.labels[order[row]]],
            names[audited.suggested[order[row]]],
        ]
        for row in np.argsort(-progress.p_error, kind="stable").tolist()
    )
    write_csv(path, _HEADER, rows)
