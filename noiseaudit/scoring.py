"""From a data set to rankings: which stages the detectors need, run or reuse each, rank."""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from noiseaudit.crossval import HeldOut, cross_validate
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import (
    Detector,
    WatchingDetector,
    create_detectors,
    training_statistics,
)
from noiseaudit.device import select_device
from noiseaudit.errors import UsageError, check_name
from noiseaudit.evidence import Evidence
from noiseaudit.ranking import Ranking
from noiseaudit.seeding import isolated_torch_rng
from noiseaudit.training.augment import Augmentation, parse_augmentation
from noiseaudit.training.models import (
    MODELS,
    ModelFactory,
    build_model,
    choose_model,
    choose_threads,
)
from noiseaudit.training.recipes import Recipe, resolve_recipe
from noiseaudit.training.run import (
    TrainingPlan,
    TrainingRun,
    run_training,
    statistics_by_epoch,
)

__all__ = [
    "Scores",
    "check_options",
    "choose_detectors",
    "make_plan",
    "rank_by_epoch",
    "score_examples",
]

logger = logging.getLogger(__name__)

_TRAINING = "training"


@dataclass(frozen=True, eq=False)
class Scores:
    """What the stages gave, and every detector's ranking.

    Attributes:
        run: the training run.
        held_out: the cross-validation, if a detector needed one.
        rankings: by detector name, in the order asked for.
        seconds: by detector name: all that it cost, the stages it needs included.
    """

    run: TrainingRun
    held_out: HeldOut | None
    rankings: dict[str, Ranking]
    seconds: dict[str, float]

    @property
    def cross_validation_seconds(self) -> float | None:
        """Seconds of all folds, None if there were none."""
        return None if self.held_out is None else sum(self.held_out.seconds)


def check_options(
    detectors: Sequence[str | Detector] | None,
    model: str | ModelFactory,
    device: str,
    augmentation: str | Augmentation,
    recipe: Recipe | Mapping[str, Any] | None,
) -> None:
    """Find what is wrong with options of `audit` before any data is read.

    Raises:
        UsageError: naming the option.
    """
    if not choose_detectors(detectors):
        raise UsageError("detectors is empty; name at least one, or leave it out for all")
    select_device(device)
    if isinstance(model, str) and not model.startswith("torchvision:"):
        check_name(model, ("auto", "torchvision:<name>", *MODELS), "model")
    if isinstance(augmentation, str) and augmentation != "auto":
        parse_augmentation(augmentation)
    if not isinstance(recipe, Recipe):
        valid = {field.name for field in fields(Recipe)}
        for name in recipe or {}:
            check_name(name, valid, "field of Recipe")
        replace(Recipe(epochs=1), **(recipe or {}))


def choose_detectors(names: Sequence[str | Detector] | None) -> list[Detector]:
    """As `create_detectors`; None means all that one training run serves at no further cost."""
    chosen = create_detectors(names)
    return chosen if names is not None else [d for d in chosen if set(d.needs) <= {"training"}]


def make_plan(
    dataset: LabeledDataset,
    *,
    model: str | ModelFactory = "auto",
    epochs: int | None = None,
    augmentation: str | Augmentation = "auto",
    recipe: Recipe | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> TrainingPlan:
    """Settle everything that training depends on.

    Raises:
        UsageError: for an option that does not exist or does not fit the data.
    """
    torch_device = select_device(device)
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1; got {threads}")
    if model == "auto":
        model = choose_model(dataset.input_shape, torch_device.type)
    with isolated_torch_rng(seed, "weights"):  # a model that does not fit must not claim a folder
        network = build_model(model, dataset.input_shape, dataset.num_classes)
    settled = resolve_recipe(model, dataset, recipe, epochs=epochs, augmentation=augmentation)
    if threads is None and model in MODELS and torch_device.type == "cpu":
        threads = choose_threads(network, dataset.input_shape, settled.batch_size)
    return TrainingPlan(
        model=model,
        recipe=settled,
        seed=seed,
        device=torch_device,
        threads=threads or torch.get_num_threads(),
        structure=hashlib.blake2b(str(network).encode(), digest_size=8).hexdigest(),
    )


def score_examples(
    dataset: LabeledDataset,
    plan: TrainingPlan,
    detectors: Sequence[Detector],
    folder: Path,
    *,
    folds: int = 4,
    resume: bool = True,
    keep_trajectories: bool = False,
    progress: bool = False,
) -> Scores:
    """Run or reuse in `folder` the stages that the detectors need, then rank.

    The training run is always made: findings and the report come from it.

    Raises:
        ManifestMismatchError: if a stage in `folder` was made from other data or settings.
    """
    logger.info(
        "%s: %s examples of %d classes; %s, %d epochs, augmentation %s, %s, %d threads",
        dataset.name, f"{len(dataset):,}", dataset.num_classes, plan.model_name,
        plan.recipe.epochs, plan.recipe.augmentation, plan.device.type, plan.threads,
    )  # fmt: skip
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
        resume=resume,
        keep_trajectories=keep_trajectories,
        progress=progress,
    )
    held_out = None
    if not resume:
        shutil.rmtree(folder / "crossval", ignore_errors=True)
    if any("pred_probs" in detector.needs for detector in detectors):
        held_out = cross_validate(
            dataset, plan, folder / "crossval", folds=folds, progress=progress
        )
    evidence = _evidence(
        dataset,
        plan,
        statistics=run.statistics,
        correct_history=run.correct_history,
        pred_probs=None if held_out is None else held_out.pred_probs,
    )
    stages = {
        "training": run.training_seconds,
        "watching": run.training_seconds + run.watching_seconds,
        "pred_probs": 0.0 if held_out is None else sum(held_out.seconds),
    }
    rankings, seconds = {}, {}
    for detector in detectors:
        began = time.perf_counter()
        rankings[detector.name] = detector.rank(evidence)
        own = time.perf_counter() - began
        seconds[detector.name] = own + sum(stages[need] for need in detector.needs)
    return Scores(run, held_out, rankings, seconds)


def _evidence(dataset: LabeledDataset, plan: TrainingPlan, **found: Any) -> Evidence:
    return Evidence(
        ids=dataset.ids,
        labels=dataset.labels,
        num_classes=dataset.num_classes,
        seed=plan.seed,
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
