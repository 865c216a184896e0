"""The audit: score a data set as it is, and report."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from noiseaudit._io import read_json
from noiseaudit.audit_report import AuditReport
from noiseaudit.detector import Detector
from noiseaudit.duplicate_groups import DuplicateGroups
from noiseaudit.duplicate_scan import scan_duplicates
from noiseaudit.encoders.choice import EncoderLike
from noiseaudit.encoders.stage import EncodedSource, encode_source, encoder_beside
from noiseaudit.errors import OutputError
from noiseaudit.findings import Findings
from noiseaudit.flagging import explain_findings
from noiseaudit.loaders import load
from noiseaudit.manifest import package_versions, read_manifest
from noiseaudit.planted_rounds import run_planted_rounds, why_no_rounds
from noiseaudit.precision import check_precision
from noiseaudit.presentation import build_document
from noiseaudit.ranking import Ranking
from noiseaudit.report import document_from_dict, write_report
from noiseaudit.scoring import Scores, score_examples
from noiseaudit.stages import HeldOutOptions, check_options, choose_detectors
from noiseaudit.training.augment import Augmentation
from noiseaudit.training.models import ModelFactory
from noiseaudit.training.plan import TrainingPlan, make_plan
from noiseaudit.training.recipes import Recipe
from noiseaudit.verdict import Verdict, reach_verdict
from noiseaudit.workspace import output_folder

__all__ = ["HEADLINE", "HEADLINE_ENCODED", "audit", "rebuild_report"]

HEADLINE = "cumulative_loss"
"""The detector that orders the report, when it is among those asked for."""

HEADLINE_ENCODED = "loo_consistency"
"""That of pictures which an encoder turned into vectors."""

_FORMAT = 1
_WITH_PAGE = ("audit", "duplicates", "memorization")  # commands that leave a page
_RESULTS = (
    "ranking.csv", "report.html", "report.json", "skipped.csv", "groups.csv", "links.csv",
    "plan.csv", "plan_evidence.npz", "audited.npz",
)  # fmt: skip


def audit(
    source: Any,
    *,
    out: str | Path | None = None,
    detectors: Sequence[str | Detector] | None = None,
    folds: int = 4,
    runs: int = 10,
    subset_ratio: float = 0.5,
    duplicates: bool = True,
    verdict: bool = True,
    precision: float = 0.9,
    encoder: EncoderLike = "auto",
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
    """Train on the labels as given, score every example, rank, and say how many are wrong.

    Cost: one training run; as much again for the verdict, and a ridge on at most 10,000 examples
    (of encoded pictures up to four ridges on their embeddings alone); `folds` more for detectors
    that need out-of-sample `pred_probs`, and `runs` on a share of the data for those that need
    C-scores; the other detectors take milliseconds, but for "curvature", which takes 1.2 times as
    long as the training run on top of it (`cnn`, one probe; `benchmarks/curvature.py`). Looking for
    duplicates: see `find_duplicates`.

    Args:
        source: a `LabeledDataset`, or anything that `load` accepts.
        out: folder for results and checkpoints; without it nothing is kept, and an interrupted
            audit starts again from the beginning.
        detectors: names, or instances where options are wanted; default: all that a training run
            serves at no further cost, and of vectors those that look at embeddings. The headline is
            what the verdict trusts most of these, and of the label odds of a network; without a
            verdict `loo_consistency` of encoded pictures, `cumulative_loss` of all else, and the
            first detector where that is not among them.
        folds: of the cross-validation, which is run only if a chosen detector needs
            out-of-sample `pred_probs`.
        runs: models of the C-scores, which are trained only if a chosen detector needs them.
        subset_ratio: share of the data that each of them trains on.
        duplicates: look for copies of one picture, as `find_duplicates` does; those under
            conflicting labels head the report, whatever their score.
        verdict: plant flips among the labels and train again, to learn which detector to trust, how
            many labels are wrong, and how sure that is: see `Verdict`.
        precision: wanted of the labels that the verdict flags, in (0, 1].
        encoder: turns pictures into vectors, which a small network is then trained on: "none"; what
            `create_encoder` takes; or "auto", the offline one where it suits (see
            `choose_encoder`) and no model or augmentation is asked for.
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
    check_precision(precision)
    held_out = HeldOutOptions(folds, runs, subset_ratio)
    dataset = load(source, seed=seed, device=device, progress=progress)
    encoded = encode_source(
        dataset,
        encoder_beside(encoder, model, augmentation),
        device=device,
        threads=threads,
        progress=progress,
    )
    chosen = choose_detectors(detectors, encoded.dataset)
    plan = make_plan(
        encoded.dataset,
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
        "config": {
            **plan.config(encoded.dataset),
            "dataset": dataset.fingerprint,
            "encoder": encoded.key,
        },
        "encoder": encoded.told(),
        "detectors": [detector.name for detector in chosen],
        "versions": package_versions(),
        "status": "running",
    }
    with output_folder(out, manifest, _RESULTS, resume=resume) as folder:
        scores = score_examples(
            encoded.dataset,
            plan,
            chosen,
            folder,
            held_out_options=held_out,
            resume=resume,
            keep_trajectories=keep_trajectories,
            keep_features=plan.has_features and encoded.embeddings is None,
            progress=progress,
        )
        if not resume:
            shutil.rmtree(folder / "planted", ignore_errors=True)
        reached: Verdict | str = "it was not asked for"
        if verdict:
            reached = _reach_verdict(
                encoded, plan, chosen, scores, folder / "planted",
                precision=precision, resume=resume, progress=progress,
            )  # fmt: skip
        found = None
        if duplicates and dataset.kind == "images":
            found = scan_duplicates(
                dataset,
                pred_probs=scores.pred_probs,
                embeddings=encoded.vectors,
                folder=folder / "duplicates",
                resume=resume,
                progress=progress,
            )
        report = _assemble(encoded, scores, found, reached, manifest)
        if out is not None:
            report.save(folder)
    return report


def _reach_verdict(
    encoded: EncodedSource,
    plan: TrainingPlan,
    detectors: Sequence[Detector],
    scores: Scores,
    folder: Path,
    *,
    precision: float,
    resume: bool,
    progress: bool,
) -> Verdict | str:
    """The verdict, or why there is none."""
    if why := why_no_rounds(detectors, encoded.dataset):
        return why
    rounds = run_planted_rounds(
        encoded.dataset, plan, detectors, scores, folder, resume=resume, progress=progress
    )
    verdict = reach_verdict(
        rounds,
        encoded.source.ids,
        encoded.source.num_classes,
        precision=precision,
        seed=plan.seed,
    )
    if not verdict.estimate.is_supported:
        told = verdict.estimate.auroc
        return f"planted flips are not told well enough from all other labels (AUROC {told:.2f})"
    return verdict


def _judge(
    encoded: EncodedSource,
    scores: Scores,
    found: DuplicateGroups | None,
    verdict: Verdict | None,
    ranking: Ranking,
) -> Findings:
    """What predictions, verdict and copies together say of each example, and why."""
    labels, p_error = encoded.source.labels, None
    findings = scores.findings(labels)
    if verdict is not None:
        p_error = verdict.estimate.p_error
        findings = findings.with_probabilities(p_error, verdict.suggested, verdict.sureness)
    if found is not None:
        rows = np.flatnonzero(found.in_conflict())
        believed = found.believed[found.group[rows]]
        reasons = [found.reason(int(row)) for row in rows]
        findings = findings.with_conflicts(rows, believed, labels, reasons)
    return explain_findings(encoded, scores, findings, ranking, p_error)


def _assemble(
    encoded: EncodedSource,
    scores: Scores,
    found: DuplicateGroups | None,
    verdict: Verdict | str,
    manifest: dict[str, Any],
) -> AuditReport:
    dataset, run, rankings = encoded.source, scores.run, scores.rankings
    reached = verdict if isinstance(verdict, Verdict) else None
    if reached is not None:
        # A network's label odds are judged beside the detectors, though no detector gives them.
        ranking, rankings = reached.ranking, {**rankings, **reached.rankings}
    else:
        headline = HEADLINE_ENCODED if encoded.embeddings is not None else HEADLINE
        ranking = rankings.get(headline, next(iter(rankings.values())))
    findings = _judge(encoded, scores, found, reached, ranking)
    # A copy in memory: what is mapped may go with its folder.
    pred_probs = scores.pred_probs
    pred_probs = np.array(pred_probs) if pred_probs.nbytes < 2**30 else pred_probs
    manifest = {
        **manifest,
        "status": "done",
        "results": {
            "examples": len(dataset),
            "label_issues": int(findings.is_label_issue.sum()),
            "skipped": len(dataset.skipped),
            "conflicts": None if found is None else int(found.is_conflict.sum()),
            "headline": ranking.detector,
            "verdict": (
                {"reached": False, "why": verdict}
                if reached is None
                else {"reached": True, **reached.told()}
            ),
            "training_seconds": run.training_seconds,
            "watching_seconds": run.watching_seconds,
            "cross_validation_seconds": scores.cross_validation_seconds,
            "cscore_seconds": scores.cscore_seconds,
        },
    }
    document = build_document(
        dataset, ranking, rankings, findings, run, found, verdict, manifest, encoded.vectors
    )
    return AuditReport(
        dataset=dataset,
        ranking=ranking,
        rankings=rankings,
        findings=findings,
        pred_probs=pred_probs,
        duplicates=found,
        verdict=reached,
        embeddings=encoded.embeddings,
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
