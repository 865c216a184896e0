"""Recipes: epochs, optimiser, schedule and augmentation, with measured defaults per model."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import UsageError, check_name
from noiseaudit.training.augment import Augmentation, choose_augmentation, parse_augmentation

__all__ = ["OPTIMIZERS", "SCHEDULES", "Recipe", "default_recipe", "resolve_recipe"]

SCHEDULES = ("triangular", "stagewise", "constant")
OPTIMIZERS = ("sgd", "adam")
_WARM_UP = 0.15
_STAGES = (0.3, 0.45, 0.6)
_STAGE_DECAY = 0.2


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the data.
        batch_size: largest batch; an epoch is split into batches of equal size within one.
        learning_rate: the base rate, the peak of every schedule.
        optimizer: "sgd" (momentum 0.9, Nesterov) or "adam".
        schedule: "triangular" (linear from 0 to the base rate over the first 15% of the steps,
            then linear to 0: C-score paper, Table 1), "stagewise" (x 0.2 at 30, 45 and 60%: its
            learning-speed runs, 60/90/120 of 200 epochs) or "constant".
        momentum: of "sgd".
        weight_decay: L2 penalty on all parameters; off by default: on 10,000 pictures with one
            seed, 5e-4 moved the margin's AUROC by 0.0015 or less (benchmarks/model_choice.py).
        label_smoothing: in [0, 1); 0 = off, since it hides how well a label is fitted.
        augmentation: of images; vectors are never augmented.
        bfloat16: autocast to bfloat16: on CUDA, and on CPUs with AMX tiles (`cnn` on 32x32 pictures
            1.7 times as fast with one thread, 1.3 times with two); on other CPUs not measured.

    Raises:
        UsageError: for a value outside its range.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    schedule: str = "triangular"
    momentum: float = 0.9
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    bfloat16: bool = False

    def __post_init__(self) -> None:
        check_name(self.schedule, SCHEDULES, "schedule")
        check_name(self.optimizer, OPTIMIZERS, "optimizer")
        for name, low in (("epochs", 1), ("batch_size", 2)):
            if getattr(self, name) < low:
                raise UsageError(f"{name} must be at least {low}; got {getattr(self, name)}")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"learning_rate must be positive; got {self.learning_rate}")
        for name in ("momentum", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be in [0, 1); got {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise UsageError(f"weight_decay must not be negative; got {self.weight_decay}")

    def steps(self, n: int) -> int:
        """Batches an epoch of n examples is split into, none of a single example.

        They are of equal size within one; batch normalisation could not take a single example.
        """
        return min(math.ceil(n / self.batch_size), max(1, n // 2))

    def rate_at(self, progress: float) -> float:
        """Learning rate after the share `progress` in [0, 1] of all steps."""
        if self.schedule == "constant":
            return self.learning_rate
        if self.schedule == "stagewise":
            passed = sum(progress >= stage for stage in _STAGES)
            return self.learning_rate * _STAGE_DECAY**passed
        rising = progress / _WARM_UP
        falling = (1 - progress) / (1 - _WARM_UP)
        return self.learning_rate * min(rising, falling)

    def optimizer_for(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser over all parameters of `model`."""
        if self.optimizer == "adam":
            return torch.optim.Adam(
                model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
            )
        return torch.optim.SGD(
            model.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
            weight_decay=self.weight_decay,
        )

    def set_learning_rate(self, optimizer: torch.optim.Optimizer, progress: float) -> None:
        """Set the rate for the step that begins at `progress`."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate_at(progress)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Default:
    """A model's measured recipe: `epochs` on `n` examples or more, up to `most` on fewer."""

    epochs: int
    n: int
    most: int
    batch_size: int
    learning_rate: float
    optimizer: str = "sgd"
    schedule: str = "triangular"


# mlp and cnn: benchmarks/model_choice.py, digits to CIFAR-10; inception: the C-score paper's
# Table 1; head: benchmarks/encoders.py; the others are standard values, not tuned here.
_DEFAULTS = {
    "mlp": _Default(epochs=20, n=20_000, most=40, batch_size=256, learning_rate=0.1),
    "cnn": _Default(epochs=12, n=60_000, most=60, batch_size=128, learning_rate=0.2),
    "head": _Default(
        epochs=5, n=5_000, most=12, batch_size=128, learning_rate=1e-3,
        optimizer="adam", schedule="constant",
    ),
    "inception": _Default(epochs=80, n=50_000, most=80, batch_size=512, learning_rate=0.4),
}  # fmt: skip
_OTHER = _Default(epochs=30, n=50_000, most=90, batch_size=128, learning_rate=0.1)
_PLAIN_MLP_EPOCHS = 10
_PHOTOGRAPHS = 1.5
_LEAST_BATCH = 32
_STEPS = 100


def default_recipe(
    model: str, n: int, *, augmentation: Augmentation | None = None, epochs: int | None = None
) -> Recipe:
    """The recipe for a model on n examples: SGD, triangular schedule, no weight decay; `head` Adam.

    Fewer examples get more epochs (with the cube root of how many fewer, so that an audit of
    them is still much faster) and smaller batches (down to 32, about 100 steps an epoch), which is
    what small data sets were found to need. `cnn` gets half as many epochs again for crop and
    flip, which photographs take and which slow learning down. `mlp` without augmentation, which
    vectors have none of, gets 10 epochs whatever n: it soon fits wrong labels too (digits: margin
    AUROC 0.9998 after 10 epochs, 0.972 after 40).

    Args:
        model: its name.
        n: number of examples.
        augmentation: of pictures; default none.
        epochs: instead of the default number.
    """
    chosen = _DEFAULTS.get(model, _OTHER)
    augmentation = augmentation or Augmentation()
    if epochs is None and model == "mlp" and augmentation == Augmentation():
        epochs = _PLAIN_MLP_EPOCHS
    if epochs is None:
        growth = max(1.0, (chosen.n / max(n, 1)) ** (1 / 3))
        if model == "cnn" and (augmentation.crop or augmentation.flip):
            growth *= _PHOTOGRAPHS
        epochs = round(min(chosen.epochs * growth, chosen.most))
    steps_allow = 2 ** round(math.log2(max(n / _STEPS, 1)))
    return Recipe(
        epochs=epochs,
        batch_size=min(chosen.batch_size, max(_LEAST_BATCH, steps_allow)),
        learning_rate=chosen.learning_rate,
        optimizer=chosen.optimizer,
        schedule=chosen.schedule,
        augmentation=augmentation,
    )


def resolve_recipe(
    model: object,
    dataset: LabeledDataset,
    recipe: Recipe | Mapping[str, Any] | None = None,
    *,
    epochs: int | None = None,
    augmentation: str | Augmentation = "auto",
    examples: int | None = None,
) -> Recipe:
    """A whole recipe from what a user said about it.

    Args:
        model: its name, or a factory (which gets the recipe of models not tuned here).
        dataset: to be trained on; "auto" augmentation depends on what its pictures are.
        recipe: a whole one, or fields to change in the model's default one.
        epochs: instead of the default number.
        augmentation: "auto", or what `parse_augmentation` takes.
        examples: how many of the data set's are trained on; default all.

    Raises:
        UsageError: if epochs or augmentation stand beside a whole recipe, or pictures are to be
            augmented where there are none.
    """
    if isinstance(recipe, Recipe):
        if epochs is not None or augmentation != "auto":
            raise UsageError("give epochs and augmentation inside the recipe, not beside it")
        return recipe
    if isinstance(augmentation, str):
        if dataset.kind == "vectors":
            if augmentation not in ("auto", "none"):
                raise UsageError(f"augmentation {augmentation!r} is for pictures, not for vectors")
            augmentation = Augmentation()
        elif augmentation == "auto":
            augmentation = choose_augmentation(dataset.inputs)
        else:
            augmentation = parse_augmentation(augmentation)
    name = model if isinstance(model, str) else "a factory of the user's"
    n = len(dataset) if examples is None else examples
    chosen = default_recipe(name, n, augmentation=augmentation, epochs=epochs)
    return replace(chosen, **(recipe or {}))
