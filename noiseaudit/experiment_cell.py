"""One cell of an experiment: a corrupted data set, scored by every detector, then retrained.

Only this module and `evaluation` ever hold the answer key; scoring gets the noisy data set alone.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import make_folder, write_json, write_npz
from noiseaudit._validation import find_rows
from noiseaudit.corruption import Corruption, inject_noise, parse_noise
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import Detector
from noiseaudit.errors import NoiseAuditError
from noiseaudit.evaluation import evaluate, removal_rate
from noiseaudit.experiment_report import COLUMNS
from noiseaudit.loaders import load
from noiseaudit.manifest import differences, read_manifest
from noiseaudit.retraining import RETRAIN_COLUMNS, Arm, arm_names, make_arms, retrain_arm
from noiseaudit.scoring import Scores, rank_by_epoch, score_examples
from noiseaudit.stages import HeldOutOptions
from noiseaudit.training.plan import TrainingPlan, make_plan

__all__ = ["FAILURES", "Cell", "CellResults", "Job", "failed_cell", "run_cell"]

logger = logging.getLogger(__name__)

FAILURES = (NoiseAuditError, RuntimeError, ValueError, ArithmeticError, MemoryError)
"""What a cell may fail of without the others."""

_FORMAT = 2


@dataclass(frozen=True)
class Cell:
    """Noise as `parse_noise` takes it, its rate (None if measured) and the seed."""

    noise: str
    rate: float | None
    seed: int

    @property
    def noise_name(self) -> str:
        """The noise as a file name: for one with a file, that file's digest instead of its path."""
        model, _, option = self.noise.partition(":")
        encoded = option.encode("utf-8", "surrogateescape")
        digest = hashlib.blake2b(encoded, digest_size=4).hexdigest()
        return f"{model}-{digest}" if option else model

    @property
    def setting(self) -> str:
        """Noise and rate as a file name."""
        return f"{self.noise_name}_{'measured' if self.rate is None else self.rate}"

    @property
    def folder_name(self) -> str:
        """Different for different cells."""
        return f"{self.setting}_{self.seed}"


@dataclass(frozen=True)
class Job:
    """What all cells share.

    Attributes:
        dataset: with labels that are taken as clean.
        test: to measure accuracy on, if the cells retrain.
        detectors: those reported, and those that select what retraining leaves out or relabels.
        selectors: names of the latter.
        held_out: how many trainings the held-out stages take.
        training: options of `make_plan` for the audit.
        retraining: the same for retraining, or None for none.
        advance: called after each step.
    """

    dataset: LabeledDataset
    test: LabeledDataset | None
    detectors: Sequence[Detector]
    selectors: Sequence[str]
    held_out: HeldOutOptions
    training: Mapping[str, Any]
    retraining: Mapping[str, Any] | None
    advance: Callable[[], object]

    @property
    def arms(self) -> list[tuple[str, str]]:
        """Name and selection of each training set to retrain on."""
        return [] if self.retraining is None else arm_names(self.selectors)


@dataclass(frozen=True)
class CellResults:
    """Rows of results.csv and of retrain.csv."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    retrain_rows: list[dict[str, Any]] = field(default_factory=list)


def _inject(dataset: LabeledDataset, cell: Cell) -> Corruption:
    model, options = parse_noise(cell.noise)
    given: dict[str, object] = dict(options)
    if "donor" in given:
        given["donor"] = load(given["donor"])
    return inject_noise(dataset, model, rate=cell.rate, seed=cell.seed, **given)


def run_cell(job: Job, cell: Cell, folder: Path) -> CellResults:
    """One cell: what was finished with the same data and settings is read, the rest is run.

    Beside the stages' own files the folder gets `cell.json` (settings and rows), `scores.npz`
    (`sample_ids`, `is_corrupted` and a score array per detector), `removal_by_epoch.npz` ((epochs,)
    per detector that the training run serves) and `retrain/`.
    """
    corruption = _inject(job.dataset, cell)
    noisy = corruption.dataset
    plan = make_plan(noisy, seed=cell.seed, **job.training)
    config = {**plan.config(noisy), "cell_format": _FORMAT, "folds": job.held_out.folds}
    stored = _read_stored(folder, config)
    made = {detector.name: _settings(detector, job.held_out) for detector in job.detectors}
    kept = stored or {"rows": [], "detectors": {}}
    rows = [
        row for row in kept["rows"]
        if kept["detectors"].get(row["detector"]) == made.get(row["detector"])
    ]  # fmt: skip
    is_scored = len(rows) == len(made)
    if is_scored and job.retraining is None:
        logger.info("%s: reused", cell.folder_name)
        return CellResults(rows)
    if stored is None:  # nothing there, or of other settings; one that was interrupted goes on
        shutil.rmtree(folder, ignore_errors=True)
        write_json(make_folder(folder) / "cell.json", {**kept, "config": config})
    scores = score_examples(
        noisy,
        plan,
        job.detectors,
        folder,
        held_out_options=job.held_out,
        keep_trajectories=True,
    )
    if not is_scored:
        rows = _evaluate(scores, corruption, cell, job.dataset.name)
        _keep(scores, corruption, job.detectors, plan, folder)
        write_json(folder / "cell.json", {"config": config, "rows": rows, "detectors": made})
        (folder / "training" / "checkpoint.pt").unlink(missing_ok=True)  # nothing goes on from it
    job.advance()
    return CellResults(rows, _retrain(job, cell, corruption, scores, folder))


def _settings(detector: Detector, held_out: HeldOutOptions) -> str:
    """A detector's options, and those of stages that may differ between calls on one folder."""
    if "cscores" not in detector.needs:
        return repr(detector)
    return f"{detector!r} runs={held_out.runs} subset_ratio={held_out.subset_ratio}"


def _read_stored(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """What an earlier run left in the cell, None if it had other settings or there was none."""
    stored = read_manifest(folder / "cell.json") or {}
    return None if differences(stored.get("config", {}), config) else stored


def _evaluate(
    scores: Scores, corruption: Corruption, cell: Cell, name: str
) -> list[dict[str, Any]]:
    rows = []
    for detector, ranking in scores.rankings.items():
        figures = asdict(evaluate(ranking, corruption.is_corrupted, ids=corruption.dataset.ids))
        row = {
            **dict.fromkeys(COLUMNS),
            **{key: figures[key] for key in figures if key in COLUMNS},
            "dataset": name,
            "noise": cell.noise,
            "rate": corruption.rate,
            "seed": cell.seed,
            "detector": detector,
            "seconds": scores.seconds[detector],
            "status": "ok",
            "error": "",
        }
        rows.append({key: _plain(value) for key, value in row.items()})
    return rows


def _plain(value: Any) -> Any:
    """JSON has no NaN: an undefined figure is None."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _keep(
    scores: Scores,
    corruption: Corruption,
    detectors: Sequence[Detector],
    plan: TrainingPlan,
    folder: Path,
) -> None:
    """The cell's arrays: every score beside the key, and removal rates by epoch."""
    arrays = {name: ranking.scores for name, ranking in scores.rankings.items()}
    key = {"sample_ids": corruption.dataset.ids, "is_corrupted": corruption.is_corrupted}
    write_npz(folder / "scores.npz", {**key, **arrays})
    by_epoch: dict[str, list[float]] = {}
    for rankings in rank_by_epoch(corruption.dataset, plan, detectors, scores.run, folder):
        for name, ranking in rankings.items():
            rate = removal_rate(ranking.scores, corruption.is_corrupted)
            by_epoch.setdefault(name, []).append(rate)
    write_npz(
        folder / "removal_by_epoch.npz", {name: np.array(rates) for name, rates in by_epoch.items()}
    )


def _retrain(
    job: Job, cell: Cell, corruption: Corruption, scores: Scores, folder: Path
) -> list[dict[str, Any]]:
    if job.retraining is None or job.test is None:
        return []
    noisy = corruption.dataset
    plan = make_plan(noisy, seed=cell.seed, **job.retraining)
    findings = scores.findings(noisy.labels)
    arms = make_arms(
        noisy, job.dataset, findings, scores.rankings, seed=cell.seed, selectors=job.selectors
    )
    rows = []
    for arm in arms:
        row = _retrain_row(job, cell, (arm.name, arm.selected_by))
        row["rate"] = corruption.rate
        row["n_selected"], row["n_train"] = arm.n_selected, len(arm.dataset)
        is_wrong = _find_wrong(arm, corruption)
        row["n_wrong"] = int(is_wrong.sum())
        try:
            # The clean labels are the same whatever the noise: trained on once for each seed.
            place = folder.parent.parent / "clean" / str(cell.seed)
            place = place if arm.name == "clean" else folder / "retrain"
            row |= retrain_arm(arm, job.test, plan, place, is_wrong=is_wrong)
        except FAILURES as error:
            logger.error("%s, %s failed: %s", cell.folder_name, arm.file_name, error)  # noqa: TRY400
            row |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        rows.append(row)
        job.advance()
    return rows


def _find_wrong(arm: Arm, corruption: Corruption) -> NDArray[np.bool_]:
    """Which labels of a part of the noisy data, relabelled or not, are not the clean ones."""
    if arm.name == "clean":
        return np.zeros(len(arm.dataset), dtype=bool)
    rows = find_rows(corruption.dataset.ids, arm.dataset.ids)
    is_wrong: NDArray[np.bool_] = arm.dataset.labels != corruption.clean_labels[rows]
    return is_wrong


def _retrain_row(job: Job, cell: Cell, arm: tuple[str, str]) -> dict[str, Any]:
    return {
        **dict.fromkeys(RETRAIN_COLUMNS),
        "dataset": job.dataset.name,
        "noise": cell.noise,
        "rate": cell.rate,
        "seed": cell.seed,
        "arm": arm[0],
        "selected_by": arm[1],
        "status": "ok",
        "error": "",
    }


def failed_cell(job: Job, cell: Cell, error: Exception) -> CellResults:
    """Rows that say so, one per detector and arm."""
    told = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    rows = [
        {
            **dict.fromkeys(COLUMNS),
            "dataset": job.dataset.name,
            "noise": cell.noise,
            "rate": cell.rate,
            "seed": cell.seed,
            "detector": detector.name,
            **told,
        }
        for detector in job.detectors
    ]
    return CellResults(rows, [{**_retrain_row(job, cell, arm), **told} for arm in job.arms])
