"""The training plan: everything that a run's result depends on, beside the data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from noiseaudit.dataset import LabeledDataset
from noiseaudit.device import select_device
from noiseaudit.errors import UsageError, check_name
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

__all__ = ["TrainingPlan", "check_training_options", "make_plan"]

_FORMAT = 1  # raise it when a stored statistic changes its meaning


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that a training run's result depends on, beside the data.

    Attributes:
        model: a name of `training.models`, or a factory from (input_shape, num_classes).
        recipe: how to train.
        seed: of all randomness.
        device: where.
        threads: CPU threads; sums over another number differ in the last bits.
        structure: digest of the network that the model builds, since two factories may share
            their name.
        has_features: whether it has a last linear layer, whose input are the features.
    """

    model: str | ModelFactory
    recipe: Recipe
    seed: int
    device: torch.device
    threads: int
    structure: str = ""
    has_features: bool = True

    @property
    def model_name(self) -> str:
        """The model's name, or the factory's qualified one."""
        if isinstance(self.model, str):
            return self.model
        kind = self.model if hasattr(self.model, "__qualname__") else type(self.model)
        return f"{kind.__module__}.{kind.__qualname__}"

    def config(self, dataset: LabeledDataset) -> dict[str, Any]:
        """What a stored result must agree with to be reused or gone on with."""
        return {
            "format": _FORMAT,
            "dataset": dataset.fingerprint,
            "model": self.model_name,
            "structure": self.structure,
            "recipe": self.recipe.to_dict(),
            "seed": self.seed,
            "device": self.device.type,
            "threads": self.threads,
            "torch": torch.__version__,
        }


def check_training_options(
    model: str | ModelFactory,
    device: str,
    augmentation: str | Augmentation,
    recipe: Recipe | Mapping[str, Any] | None,
) -> None:
    """Find what is wrong with options of `make_plan` before any data is read.

    Raises:
        UsageError: naming the option.
    """
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
    examples: int | None = None,
) -> TrainingPlan:
    """Settle everything that training depends on.

    Args:
        dataset: to be trained on.
        model: "auto", a name, or a factory.
        epochs: instead of the recipe's number.
        augmentation: "auto", or what `parse_augmentation` takes.
        recipe: fields to change in the model's default one, or a whole one.
        seed: of all randomness.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; default as torch has it, but one for a network too small to gain.
        examples: how many of the data set's are trained on, if not all.

    Raises:
        UsageError: for an option that does not exist or does not fit the data.
    """
    torch_device = select_device(device)
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1; got {threads}")
    if model == "auto":
        chosen = choose_model(dataset.input_shape, torch_device.type)
        model = "head" if dataset.encoder else chosen
    with isolated_torch_rng(seed, "weights"):  # a model that does not fit must not claim a folder
        network = build_model(model, dataset.input_shape, dataset.num_classes)
    settled = resolve_recipe(
        model, dataset, recipe, epochs=epochs, augmentation=augmentation, examples=examples
    )
    if threads is None and model in MODELS and torch_device.type == "cpu":
        threads = choose_threads(network, dataset.input_shape, settled.batch_size)
    return TrainingPlan(
        model=model,
        recipe=settled,
        seed=seed,
        device=torch_device,
        threads=threads or torch.get_num_threads(),
        structure=hashlib.blake2b(str(network).encode(), digest_size=8).hexdigest(),
        has_features=any(isinstance(module, nn.Linear) for module in network.modules()),
    )
