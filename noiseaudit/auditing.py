"""The audit: score a data set as it is, and report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import make_folder, read_json, write_csv, write_json
from noiseaudit.cleaning import CleaningPlan
from noiseaudit.cleaning_policy import CleaningPolicy
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import Detector
from noiseaudit.duplicate_groups import DuplicateGroups
from noiseaudit.duplicate_scan import scan_duplicates
from noiseaudit.duplicates import save_groups
from noiseaudit.errors import OutputError
from noiseaudit.findings import Findings, find_issues
from noiseaudit.loaders import load
from noiseaudit.manifest import package_versions, read_manifest, write_manifest
from noiseaudit.plan_files import save_evidence, write_plan
from noiseaudit.presentation import build_document, ranking_rows
from noiseaudit.provenance import digest_file, record_source
from noiseaudit.ranking import Ranking
from noiseaudit.report import (
    ReportDocument,
    document_from_dict,
    document_to_dict,
    render,
    write_report,
)
from noiseaudit.scoring import (
    HeldOutOptions,
    Scores,
    check_options,
    choose_detectors,
    score_examples,
)
from noiseaudit.training.augment import Augmentation
from noiseaudit.training.models import ModelFactory
from noiseaudit.training.plan import make_plan
from noiseaudit.training.recipes import Recipe
from noiseaudit.workspace import output_folder, write_skipped

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HEADLINE", "AuditReport", "audit", "rebuild_report"]

logger = logging.getLogger(__name__)

HEADLINE = "cumulative_loss"
"""The detector that orders the report, when it is among those asked for."""

_FORMAT = 1
_WITH_PAGE = ("audit", "duplicates", "memorization")  # commands that leave a page
_RESULTS = (
    "ranking.csv", "report.html", "report.json", "skipped.csv", "groups.csv", "links.csv",
    "plan.csv", "plan_evidence.npz", "audited.npz",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class AuditReport:
    """What an audit found.

    Attributes:
        dataset: what was audited.
        ranking: the headline ranking; `rankings` holds that of every detector by name.
        findings: suggested labels and which given ones look wrong, in the rows of `dataset`.
        pred_probs: (n, k) float32, **in-sample** probabilities, mean over training epochs.
        duplicates: groups of copies of one picture; None if none were looked for.
        history: per training epoch: loss (nats), accuracy, seconds.
        document: what the HTML page shows.
        manifest: settings, data fingerprint, versions, results.
    """

    dataset: LabeledDataset
    ranking: Ranking
    rankings: dict[str, Ranking]
    findings: Findings
    pred_probs: NDArray[np.float32]
    duplicates: DuplicateGroups | None
    history: list[dict[str, float]]
    document: ReportDocument
    manifest: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """The table of `ranking.csv`: one row per example, most suspicious first."""
        import pandas as pd

        header, rows = ranking_rows(self.dataset, self.ranking, self.rankings, self.findings)
        return pd.DataFrame(list(rows), columns=header)

    def to_html(self, path: str | Path | None = None) -> str:
        """The report as one self-contained HTML page; also written to `path` if given."""
        if path is not None:
            write_report(self.document, Path(path))
        return render(self.document)

    @cached_property
    def plan(self) -> CleaningPlan:
        """What to do about each example: what looks wrong is for review, copies as confirmed.

        `with_policy` gives others; `apply`, `subset`, `sampler` use it.
        """
        data, n = self.dataset, len(self.dataset)
        copy_action = np.full(n, "", dtype="<U7")
        if self.duplicates is not None:
            inside = self.duplicates.in_conflict()
            copy_action[inside] = self.duplicates.action[inside]
        reasons = [
            self.findings.reason(row, data.class_names, int(label))
            for row, label in enumerate(data.labels)
        ]
        undecided = CleaningPlan(
            class_names=data.class_names, ids=data.ids, labels=data.labels,
            suspicion=self.ranking.scores, suggested=self.findings.suggested,
            suggested_prob=self.findings.suggested_prob,
            is_label_issue=self.findings.is_label_issue, copy_action=copy_action,
            reasons=np.array(reasons, dtype=object), actions=np.full(n, "keep", dtype="<U7"),
            new_labels=np.full(n, -1), sources=data.sources, split=data.split,
        )  # fmt: skip
        return undecided.with_policy(CleaningPolicy())

    def _repr_html_(self) -> str:
        page = escape(self.to_html(), quote=True)
        return f'<iframe srcdoc="{page}" style="width:100%;height:640px;border:0"></iframe>'

    def save(self, folder: str | Path) -> None:
        """Write `ranking.csv`, `plan.csv`, `report.html`, `report.json`, `manifest.json`.

        And `audited.npz`, which `clean` checks the source against, and `skipped.csv`; with
        duplicates also `groups.csv` and `links.csv`. A `plan.csv` that was edited stays as it is.

        Raises:
            OutputError: if the folder cannot be written.
        """
        folder = make_folder(Path(folder))
        header, rows = ranking_rows(self.dataset, self.ranking, self.rankings, self.findings)
        write_csv(folder / "ranking.csv", header, rows)
        plan_digest = self._save_plan(folder)
        save_evidence(self.plan, folder / "plan_evidence.npz")
        record_source(self.dataset).save(folder / "audited.npz")
        write_skipped(self.dataset.skipped, folder)
        if self.duplicates is not None:
            save_groups(self.duplicates, folder)
        else:
            for name in ("groups.csv", "links.csv"):
                (folder / name).unlink(missing_ok=True)
        write_json(folder / "report.json", document_to_dict(self.document))
        write_report(self.document, folder / "report.html")
        results = {**self.manifest["results"], "plan": plan_digest}
        write_manifest(folder / "manifest.json", {**self.manifest, "results": results})

    def _save_plan(self, folder: Path) -> str:
        """Write `plan.csv` unless a person has edited it; the digest of what was last written."""
        path = folder / "plan.csv"
        stored = read_manifest(folder / "manifest.json") or {}
        digest = stored.get("results", {}).get("plan", "")
        if path.exists() and digest and digest_file(path).hex() != digest:
            logger.warning("%s was edited and stays as it is; --no-resume replaces it", path)
            return str(digest)
        write_plan(self.plan, path)
        return digest_file(path).hex()


def audit(
    source: Any,
    *,
    out: str | Path | None = None,
    detectors: Sequence[str | Detector] | None = None,
    folds: int = 4,
    runs: int = 10,
    subset_ratio: float = 0.5,
    duplicates: bool = True,
    model: str | ModelFactory = "auto",
    epochs: int | None = None,
    augmentation: str | Augmentation = "auto",
    recipe: Recipe | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = True,
    keep_trajectories: bool = False,
    progress: bool = False,
) -> AuditReport:
    """Train once on the labels as given, score every example, rank.

    Cost: one training run, `folds` more for detectors that need out-of-sample `pred_probs`, and
    `runs` on a share of the data for those that need C-scores; the other detectors take
    milliseconds, but for "curvature", which takes 1.2 times as long as the training run on top of
    it (`cnn`, one probe; `benchmarks/curvature.py`). Looking for duplicates: see `find_duplicates`.

    Args:
        source: a `LabeledDataset`, or anything that `load` accepts.
        out: folder for results and checkpoints; without it nothing is kept, and an interrupted
            audit starts again from the beginning.
        detectors: names, or instances where options are wanted; default: all that a training run
            serves at no further cost, and of vectors those that look at embeddings. The first is
            the headline unless `cumulative_loss` is among them.
        folds: of the cross-validation, which is run only if a chosen detector needs
            out-of-sample `pred_probs`.
        runs: models of the C-scores, which are trained only if a chosen detector needs them.
        subset_ratio: share of the data that each of them trains on.
        duplicates: look for copies of one picture, as `find_duplicates` does; those under
            conflicting labels head the report, whatever their score.
        model: "auto", a name of `training.models`, `torchvision:<name>`, or a factory from
            (input_shape, num_classes) to an `nn.Module`.
        epochs: instead of the recipe's number.
        augmentation: "auto" (by what the pictures are), "none", or "crop", "flip", "affine"
            joined by commas.
        recipe: fields of `Recipe` to change in the model's default one; or a whole `Recipe`
            instead of it, when `epochs` and `augmentation` must be left alone.
        seed: of all randomness.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; default as torch has it, but one for a network too small to gain.
        resume: go on with, or reuse, what `out` holds; False starts over.
        keep_trajectories: keep every statistic of every epoch under `out/training/trajectories`.
        progress: show progress on stderr when it is a terminal.

    Raises:
        DataError: if the source cannot be used.
        UsageError: for an option that does not exist or does not fit.
        OutputError: if `out` cannot be written or belongs to something else.
        ManifestMismatchError: if `out` holds an audit of other data or settings.
    """
    check_options(detectors, model, device, augmentation, recipe)
    held_out = HeldOutOptions(folds, runs, subset_ratio)
    dataset = load(source, seed=seed, device=device, progress=progress)
    chosen = choose_detectors(detectors, dataset)
    plan = make_plan(
        dataset,
        model=model,
        epochs=epochs,
        augmentation=augmentation,
        recipe=recipe,
        seed=seed,
        device=device,
        threads=threads,
    )
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "command": "audit",
        "source": dataset.name,
        "origin": None if dataset.origin is None else asdict(dataset.origin),
        "columns": None if dataset.columns is None else asdict(dataset.columns),
        "config": plan.config(dataset),
        "detectors": [detector.name for detector in chosen],
        "versions": package_versions(),
        "status": "running",
    }
    with output_folder(out, manifest, _RESULTS, resume=resume) as folder:
        scores = score_examples(
            dataset,
            plan,
            chosen,
            folder,
            held_out_options=held_out,
            resume=resume,
            keep_trajectories=keep_trajectories,
            keep_features=plan.has_features,
            progress=progress,
        )
        found = None
        if duplicates and dataset.kind == "images":
            found = scan_duplicates(
                dataset,
                pred_probs=scores.run.pred_probs,
                folder=folder / "duplicates",
                resume=resume,
                progress=progress,
            )
        report = _assemble(dataset, scores, found, manifest)
        if out is not None:
            report.save(folder)
    return report


def _assemble(
    dataset: LabeledDataset,
    scores: Scores,
    found: DuplicateGroups | None,
    manifest: dict[str, Any],
) -> AuditReport:
    run, rankings = scores.run, scores.rankings
    ranking = rankings.get(HEADLINE, next(iter(rankings.values())))
    pred_probs = np.array(run.pred_probs) if run.pred_probs.nbytes < 2**30 else run.pred_probs
    findings = find_issues(dataset.labels, pred_probs, run.correct_history)
    if found is not None:
        rows = np.flatnonzero(found.in_conflict())
        believed = found.believed[found.group[rows]]
        reasons = [found.reason(int(row)) for row in rows]
        findings = findings.with_conflicts(rows, believed, dataset.labels, reasons)
    manifest = {
        **manifest,
        "status": "done",
        "results": {
            "examples": len(dataset),
            "label_issues": int(findings.is_label_issue.sum()),
            "skipped": len(dataset.skipped),
            "conflicts": None if found is None else int(found.is_conflict.sum()),
            "headline": ranking.detector,
            "training_seconds": run.training_seconds,
            "watching_seconds": run.watching_seconds,
            "cross_validation_seconds": scores.cross_validation_seconds,
            "cscore_seconds": scores.cscore_seconds,
        },
    }
    document = build_document(dataset, ranking, rankings, findings, run, found, manifest)
    return AuditReport(
        dataset=dataset,
        ranking=ranking,
        rankings=rankings,
        findings=findings,
        pred_probs=pred_probs,
        duplicates=found,
        history=run.history,
        document=document,
        manifest=manifest,
    )


def rebuild_report(folder: str | Path) -> Path:
    """Write `report.html` anew from the `report.json` of a finished audit or scan; its path.

    Raises:
        OutputError: if the folder holds no finished audit, scan for duplicates or memorization
            profile, or one of a newer format.
    """
    folder = Path(folder)
    stored = read_manifest(folder / "manifest.json")
    if stored is None or stored.get("command") not in _WITH_PAGE:
        raise OutputError(
            f"{folder} holds no audit, scan for duplicates or memorization profile; "
            f"'noiseaudit audit ... --out {folder}' makes one"
        )
    if stored.get("status") != "done" or not (folder / "report.json").exists():
        raise OutputError(f"the {stored['command']} run in {folder} is not finished; run it again")
    path = folder / "report.html"
    write_report(document_from_dict(read_json(folder / "report.json")), path)
    return path
