"""Which step to measure curvature with: the one that finds flips planted for the purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import training_statistics
from noiseaudit.detectors.curvature import Curvature
from noiseaudit.errors import UsageError
from noiseaudit.evaluation import auroc
from noiseaudit.label_noise import flip_uniform
from noiseaudit.loaders import load
from noiseaudit.manifest import package_versions, write_manifest
from noiseaudit.seeding import derive_seed
from noiseaudit.stages import check_options
from noiseaudit.training.augment import Augmentation
from noiseaudit.training.models import ModelFactory
from noiseaudit.training.plan import make_plan
from noiseaudit.training.recipes import Recipe
from noiseaudit.training.run import run_training
from noiseaudit.workspace import output_folder

__all__ = ["CurvatureChoice", "choose_curvature"]

_FORMAT = 1
_CANDIDATES = (
    Curvature(h=0.001), Curvature(h=0.003), Curvature(), Curvature(h=0.03), Curvature(h=0.1)
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class CurvatureChoice:
    """What planted flips say of each candidate.

    Attributes:
        chosen: the candidate whose scores separate the planted flips best, to be given as a
            detector: `audit(source, detectors=[choice.chosen])`.
        candidates: all that were tried.
        auroc: of the planted flips among all examples, for each of them, in [0, 1].
        is_planted: (n,) which labels were flipped.
        scores: (candidates, n) float64 suspicions of the run with the planted flips.
        training_seconds: of the run.
        watching_seconds: of all candidates together.
    """

    chosen: Curvature
    candidates: tuple[Curvature, ...]
    auroc: tuple[float, ...]
    is_planted: NDArray[np.bool_]
    scores: NDArray[np.float64]
    training_seconds: float
    watching_seconds: float


def choose_curvature(
    source: Any,
    candidates: Sequence[Curvature] = _CANDIDATES,
    *,
    share: float = 0.02,
    out: str | Path | None = None,
    model: str | ModelFactory = "auto",
    epochs: int | None = None,
    augmentation: str | Augmentation = "auto",
    recipe: Recipe | Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = True,
    progress: bool = False,
) -> CurvatureChoice:
    """Choose h, or any other setting of `Curvature`, without knowing which labels are wrong.

    Flips a share of the labels at random, trains once on those, and takes the candidate that ranks
    the planted flips highest. What is truly wrong stays wrong and is never asked for.

    Cost: one training run and what the candidates cost, which share the clean gradient (of each
    precision): as many forward passes and backward passes by the inputs as they have probes, and
    one more, in each epoch they are measured in.

    Args:
        source: a `LabeledDataset`, or anything that `load` accepts.
        candidates: settings to try; default: one probe with h = 0.001, 0.003, 0.01, 0.03, 0.1, the
            paper's range of steps and as much again above it.
        share: of each class's labels to flip to another class, in (0, 1), rounded to whole labels:
            enough to tell candidates apart, too few to change what is learned.
        out: folder for the training run, to go on with it; without it nothing is kept.
        model: this and what follows as in `audit`.
        epochs: instead of the recipe's number.
        augmentation: of pictures.
        recipe: fields of `Recipe` to change, or a whole one.
        seed: of the flips and the training run.
        device: "auto", "cpu" or "cuda".
        threads: of the CPU.
        resume: go on with, or reuse, what `out` holds; False starts over.
        progress: show progress on stderr when it is a terminal.

    Raises:
        UsageError: for an option that does not exist or does not fit: no candidates, two that are
            equal, one that is measured in no epoch, a share that flips no label or all.
        DataError: if the source cannot be used.
        OutputError: if `out` cannot be written or belongs to something else.
        ManifestMismatchError: if `out` holds a run on other data or settings.
    """
    watchers = {setting.statistic: setting.observer for setting in candidates}
    if not watchers or len(watchers) < len(candidates):
        raise UsageError("candidates must be at least one, and all different")
    check_options(list(candidates[:1]), model, device, augmentation, recipe)
    dataset = load(source, seed=seed, device=device, progress=progress)
    planted = _plant(dataset, share, seed)
    plan = make_plan(
        planted, model=model, epochs=epochs, augmentation=augmentation, recipe=recipe,
        seed=seed, device=device, threads=threads,
    )  # fmt: skip
    rarest = max(setting.every for setting in candidates)
    if rarest > plan.recipe.epochs:
        raise UsageError(f"every={rarest} measures in none of {plan.recipe.epochs} epochs")
    manifest = {
        "format": _FORMAT, "command": "choose_curvature", "source": dataset.name,
        "config": {**plan.config(planted), "share": share}, "candidates": list(watchers),
        "versions": package_versions(), "status": "running",
    }  # fmt: skip
    with output_folder(out, manifest, (), resume=resume) as folder:
        run = run_training(
            planted, plan, training_statistics(), folder / "training",
            watchers=watchers, resume=resume, progress=progress,
        )  # fmt: skip
        if out is not None:
            write_manifest(folder / "manifest.json", {**manifest, "status": "done"})
    is_planted = planted.labels != dataset.labels
    scores = np.stack([run.statistics[name] for name in watchers])
    found = tuple(auroc(row, is_planted) for row in scores)
    return CurvatureChoice(
        chosen=candidates[int(np.argmax(found))],
        candidates=tuple(candidates),
        auroc=found,
        is_planted=is_planted,
        scores=scores,
        training_seconds=run.training_seconds,
        watching_seconds=run.watching_seconds,
    )


def _plant(dataset: LabeledDataset, share: float, seed: int) -> LabeledDataset:
    if not 0 < share < 1:
        raise UsageError(f"share must be in (0, 1); got {share}")
    labels = flip_uniform(
        dataset.labels, dataset.num_classes, share, seed=derive_seed(seed, "planted")
    )
    flipped = int((labels != dataset.labels).sum())
    if flipped in (0, len(dataset)):
        raise UsageError(f"a share of {share} flips {flipped} of {len(dataset)} labels; change it")
    return dataset.with_labels(labels)
