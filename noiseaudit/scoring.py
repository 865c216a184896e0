"""From a data set to rankings: which stages the detectors need, run or reuse each, rank."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.crossval import HeldOut, cross_validate
from noiseaudit.cscore.estimate import draw_subsets, make_job
from noiseaudit.cscore.result import CScores
from noiseaudit.cscore.runs import Execution, run_cscores
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import (
    Detector,
    SnapshotDetector,
    WatchingDetector,
    training_statistics,
)
from noiseaudit.detectors.loo_consistency import LabelOdds, LooConsistency
from noiseaudit.evidence import Evidence
from noiseaudit.findings import Findings, find_issues
from noiseaudit.label_channel import LabelChannel
from noiseaudit.ranking import Ranking
from noiseaudit.stages import HeldOutOptions, check_lengths, stage_needs
from noiseaudit.training.plan import TrainingPlan
from noiseaudit.training.run import (
    TrainingRun,
    run_training,
    statistics_by_epoch,
)
from noiseaudit.watching import Snapshot

__all__ = ["Scores", "rank_by_epoch", "rank_embeddings", "score_examples"]

logger = logging.getLogger(__name__)

_TRAINING = "training"


_DEFAULT_HELD_OUT = HeldOutOptions()


@dataclass(frozen=True, eq=False)
class Scores:
    """What the stages gave, and every detector's ranking.

    Attributes:
        run: the training run.
        held_out: the cross-validation, if a detector needed one.
        cscores: the C-scores, if a detector needed them, and `cscore_seconds` of all their runs.
        rankings: by detector name, in the order asked for.
        seconds: by detector name: all that it cost, the stages it needs included.
        left_out_probs: (n, k) float32 of the classes, out-of-sample, if the data set is encoded.
        odds_channel: of `label_odds`, from true to given labels, if that is among the detectors.
    """

    run: TrainingRun
    held_out: HeldOut | None
    cscores: CScores | None
    rankings: dict[str, Ranking]
    seconds: dict[str, float]
    cscore_seconds: float | None = None
    left_out_probs: NDArray[np.float32] | None = None
    odds_channel: LabelChannel | None = None

    @property
    def pred_probs(self) -> NDArray[np.float32]:
        """(n, k) that the verdict comes from: left out where there are such, else of the run."""
        return self.run.pred_probs if self.left_out_probs is None else self.left_out_probs

    def findings(self, labels: NDArray[np.int64]) -> Findings:
        """The verdict on `labels`, those that were trained on."""
        history = self.run.correct_history if self.left_out_probs is None else None
        return find_issues(labels, self.pred_probs, history)

    @property
    def cross_validation_seconds(self) -> float | None:
        """Seconds of all folds, None if there were none."""
        return None if self.held_out is None else sum(self.held_out.seconds)


def score_examples(
    dataset: LabeledDataset,
    plan: TrainingPlan,
    detectors: Sequence[Detector],
    folder: Path,
    *,
    held_out_options: HeldOutOptions = _DEFAULT_HELD_OUT,
    resume: bool = True,
    keep_trajectories: bool = False,
    keep_features: bool = False,
    progress: bool = False,
) -> Scores:
    """Run or reuse in `folder` the stages that the detectors need, then rank.

    The training run is always made: findings and the report come from it. With `keep_features` it
    leaves the features of its last epoch, whether or not a detector looks at them.

    Raises:
        ManifestMismatchError: if a stage in `folder` was made from other data or settings.
    """
    logger.info(
        "%s: %s examples of %d classes; %s, %d epochs, augmentation %s, %s, %d threads",
        dataset.name, f"{len(dataset):,}", dataset.num_classes, plan.model_name,
        plan.recipe.epochs, plan.recipe.augmentation, plan.device.type, plan.threads,
    )  # fmt: skip
    needs = stage_needs(detectors, dataset)
    needed = set().union(*needs.values())
    needs_cscores = "cscores" in needed
    check_lengths(detectors, plan, held_out_options if needs_cscores else None)
    snapshots = {
        snapshot
        for detector in detectors
        if isinstance(detector, SnapshotDetector) and "snapshots" in needs[detector.name]
        for snapshot in detector.snapshots
    }
    run = run_training(
        dataset,
        plan,
        training_statistics(),
        folder / _TRAINING,
        watchers={
            detector.statistic: detector.observer
            for detector in detectors
            if isinstance(detector, WatchingDetector)
        },
        snapshots=snapshots | ({Snapshot("features")} if keep_features else set()),
        resume=resume,
        keep_trajectories=keep_trajectories,
        progress=progress,
    )
    held_out = None
    if not resume:
        shutil.rmtree(folder / "crossval", ignore_errors=True)
    if "pred_probs" in needed:
        held_out = cross_validate(
            dataset, plan, folder / "crossval", folds=held_out_options.folds, progress=progress
        )
    cscores, cscore_seconds = None, None
    if needs_cscores:
        subsets = draw_subsets(dataset, held_out_options.subset_ratio, "balanced", plan.seed)
        cscores, cscore_seconds = run_cscores(
            make_job(dataset, subsets, dict.fromkeys(subsets, plan)),
            folder / "cscores",
            runs=held_out_options.runs,
            execution=Execution(),
            resume=resume,
            progress=progress,
        )
    evidence = _evidence(
        dataset,
        plan,
        statistics=run.statistics,
        correct_history=run.correct_history,
        snapshots=run.snapshots,
        pred_probs=None if held_out is None else held_out.pred_probs,
        cscores=None if cscores is None else cscores.detector_arrays(),
    )
    stages = {
        "training": run.training_seconds,
        "watching": run.training_seconds + run.watching_seconds,
        "snapshots": run.training_seconds + run.watching_seconds,
        "inputs": 0.0,
        "embeddings": 0.0,
        "pred_probs": 0.0 if held_out is None else sum(held_out.seconds),
        "cscores": cscore_seconds or 0.0,
    }
    rankings, seconds = {}, {}
    for detector in detectors:
        rankings[detector.name], own = _ranked(detector, evidence)
        seconds[detector.name] = own + sum(stages[need] for need in needs[detector.name])
    left_out_probs = _left_out_probs(detectors, evidence) if dataset.encoder else None
    judges = [detector for detector in detectors if isinstance(detector, LabelOdds)]
    odds_channel = judges[0].channel(evidence) if judges else None
    return Scores(
        run, held_out, cscores, rankings, seconds, cscore_seconds, left_out_probs, odds_channel
    )


def rank_embeddings(
    dataset: LabeledDataset, plan: TrainingPlan, detectors: Sequence[Detector]
) -> tuple[dict[str, Ranking], NDArray[np.float32]]:
    """Rankings by detectors that look at embeddings alone, and left-out (n, k) probabilities."""
    evidence = _evidence(dataset, plan)
    rankings = {detector.name: detector.rank(evidence) for detector in detectors}
    return rankings, _left_out_probs(detectors, evidence)


def _ranked(detector: Detector, evidence: Evidence) -> tuple[Ranking, float]:
    """Its ranking, and the seconds of that with what another detector did for it."""
    began = time.perf_counter()
    evidence.reused_seconds.clear()
    ranking = detector.rank(evidence)
    return ranking, time.perf_counter() - began + sum(evidence.reused_seconds)


def _left_out_probs(detectors: Sequence[Detector], evidence: Evidence) -> NDArray[np.float32]:
    """What judges encoded pictures: a head of many weights soon fits wrong labels too."""
    judges = [item for item in detectors if isinstance(item, LooConsistency)]
    return (judges or [LooConsistency()])[0].class_probs(evidence)


def _evidence(dataset: LabeledDataset, plan: TrainingPlan, **found: Any) -> Evidence:
    return Evidence(
        ids=dataset.ids,
        labels=dataset.labels,
        num_classes=dataset.num_classes,
        seed=plan.seed,
        inputs=dataset.inputs,
        embeddings=dataset.inputs if dataset.kind == "vectors" else None,
        device=plan.device.type,
        **found,
    )


def rank_by_epoch(
    dataset: LabeledDataset,
    plan: TrainingPlan,
    detectors: Sequence[Detector],
    run: TrainingRun,
    folder: Path,
) -> Iterator[dict[str, Ranking]]:
    """Rankings as they stood after each epoch of a run scored with `keep_trajectories`.

    Only of the detectors that the training run alone serves; after the last epoch they are those of
    `score_examples`.

    Raises:
        OutputError: if the trajectories were not kept or cannot be read.
    """
    served = [detector for detector in detectors if detector.needs == ("training",)]
    stored = statistics_by_epoch(
        folder / _TRAINING, training_statistics(), len(run.correct_history)
    )
    for epoch, statistics in enumerate(stored, start=1):
        evidence = _evidence(
            dataset, plan, statistics=statistics, correct_history=run.correct_history[:epoch]
        )
        yield {detector.name: detector.rank(evidence) for detector in served}
