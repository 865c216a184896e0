"""Which stages the chosen detectors need, and which detectors a data set can have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noiseaudit.cscore.plan import as_fraction
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import Detector, create_detectors, needs_of
from noiseaudit.errors import UsageError
from noiseaudit.training.augment import Augmentation
from noiseaudit.training.models import ModelFactory
from noiseaudit.training.plan import TrainingPlan, check_training_options
from noiseaudit.training.recipes import Recipe

__all__ = [
    "HeldOutOptions",
    "check_lengths",
    "check_options",
    "choose_detectors",
    "stage_needs",
]


@dataclass(frozen=True)
class HeldOutOptions:
    """How many further trainings the stages take that predict examples unseen.

    Attributes:
        folds: of the cross-validation.
        runs: models of the C-scores.
        subset_ratio: share of the data that each of those trains on.
    """

    folds: int = 4
    runs: int = 10
    subset_ratio: float = 0.5

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise UsageError(f"runs must be at least 1; got {self.runs}")
        as_fraction(self.subset_ratio)

    @property
    def least_runs(self) -> int:
        """Models after which every example was held out by one and trained on by another."""
        ratio = as_fraction(self.subset_ratio)
        return max(math.ceil(1 / (1 - ratio)), math.ceil(1 / ratio))


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
    if not create_detectors(detectors):
        raise UsageError("detectors is empty; name at least one, or leave it out for all")
    check_training_options(model, device, augmentation, recipe)


def choose_detectors(
    names: Sequence[str | Detector] | None, dataset: LabeledDataset, *, costly: bool = False
) -> list[Detector]:
    """As `create_detectors`; None means all that can be had for a data set.

    That is at no further cost than one training run and, where examples have embeddings, looking at
    those; all the others too if `costly`.

    Raises:
        UsageError: if a detector was named that needs embeddings, and there are none.
    """
    chosen = create_detectors(names)
    if names is not None:
        stage_needs(chosen, dataset)
        return chosen
    has_embeddings = dataset.kind == "vectors"  # which are their own
    needs = {d.name: set(needs_of(d, has_embeddings=has_embeddings)) for d in chosen}
    if costly:
        return [d for d in chosen if has_embeddings or "embeddings" not in needs[d.name]]
    served = {"training", "embeddings"} if has_embeddings else {"training"}
    return [d for d in chosen if needs[d.name] <= served]


def stage_needs(
    detectors: Sequence[Detector], dataset: LabeledDataset
) -> dict[str, tuple[str, ...]]:
    """By detector name, what must run for it.

    Raises:
        UsageError: if one needs embeddings, and there are none.
    """
    has_embeddings = dataset.kind == "vectors"
    needs = {d.name: needs_of(d, has_embeddings=has_embeddings) for d in detectors}
    for name, wanted in needs.items():
        if "embeddings" in wanted and not has_embeddings:
            raise UsageError(
                f"{name} looks at embeddings, and {dataset.name} has pictures; it takes an "
                "encoder: --encoder efficientnet_lite0"
            )
    return needs


def check_lengths(
    detectors: Sequence[Detector], plan: TrainingPlan, cscore_options: HeldOutOptions | None
) -> None:
    """Refuse, before training, runs and epochs that are too few for a detector."""
    if cscore_options is not None and cscore_options.runs < cscore_options.least_runs:
        raise UsageError(
            f"{cscore_options.runs} runs at subset ratio {cscore_options.subset_ratio:g} leave "
            f"examples without a C-score; use --runs {cscore_options.least_runs} or more"
        )
    for detector in detectors:
        every = getattr(detector, "every", 1)
        if every > plan.recipe.epochs:
            raise UsageError(
                f"{detector.name} is to measure every {every}th epoch of {plan.recipe.epochs}: "
                "it would never"
            )
