"""The training loop; observers are its only extension point."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from noiseaudit.errors import NoiseAuditError
from noiseaudit.seeding import generator, isolated_torch_rng, torch_generator
from noiseaudit.training.augment import augment
from noiseaudit.training.checkpoint import load_checkpoint, save_checkpoint
from noiseaudit.training.clean_pass import CleanPass
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.recipes import Recipe
from noiseaudit.watching import Observer

__all__ = ["Trained", "train"]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a run ends with.

    Attributes:
        model: in train mode.
        inputs: what it was trained on, with their normalisation.
        history: per epoch the mean `loss` (nats), `accuracy` and `seconds`, and `watching`, what
            observers took after it.
    """

    model: nn.Module
    inputs: Inputs
    history: list[dict[str, float]]


def train(
    build: Callable[[], nn.Module],
    inputs: Inputs,
    recipe: Recipe,
    observers: Mapping[str, Observer],
    *,
    seed: int,
    checkpoint: Path | None = None,
    config: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Trained:
    """Train a fresh model on all examples, each once an epoch, watched by `observers`.

    Weights depend on `seed` alone, an epoch's order, augmentation and dropout on (seed, epoch)
    alone, so a run that goes on from `checkpoint` equals one that was never interrupted: on a CPU
    bit for bit (same versions and threads), on CUDA as far as its kernels are deterministic.

    Args:
        build: makes the model; runs under the seed's own random stream.
        inputs: what to train on, with the labels as given, and where.
        recipe: epochs, optimiser, schedule and augmentation.
        observers: by the name their state is stored under.
        seed: of all randomness.
        checkpoint: a file written after every epoch and gone on from if it is there.
        config: stored in the checkpoint; another one there is refused.
        progress: show a bar on stderr when it is a terminal.

    Raises:
        NoiseAuditError: if the loss is no longer finite.
        ManifestMismatchError: if the checkpoint belongs to another configuration.
    """
    with isolated_torch_rng(seed, "weights"):
        model = build()
    model.to(inputs.device).to(memory_format=torch.channels_last)
    optimizer = recipe.optimizer_for(model)
    history: list[dict[str, float]] = []
    state: dict[str, Any] = {
        "config": config or {}, "model": model, "optimizer": optimizer, "observers": observers
    }  # fmt: skip
    if checkpoint is not None and checkpoint.exists():
        history = load_checkpoint(checkpoint, **state)
    steps = recipe.steps(len(inputs))
    with tqdm(
        total=recipe.epochs * steps, initial=len(history) * steps, desc="training", unit="batch",
        disable=None if progress else True, dynamic_ncols=True,
    ) as bar:  # fmt: skip
        for epoch in range(len(history), recipe.epochs):
            bar.set_description(f"epoch {epoch + 1}/{recipe.epochs}")
            with isolated_torch_rng(seed, "epoch", epoch):
                history.append(
                    _train_epoch(model, inputs, recipe, optimizer, observers, seed, epoch, bar)
                )
            bar.set_postfix({key: f"{history[-1][key]:.3f}" for key in ("loss", "accuracy")})
            view, began = CleanPass(model, inputs), time.perf_counter()
            for observer in observers.values():
                observer.on_epoch_end(view)
            view.finish()
            history[-1]["watching"] = time.perf_counter() - began
            if checkpoint is not None:
                save_checkpoint(checkpoint, history=history, **state)
    return Trained(model, inputs, history)


def _train_epoch(
    model: nn.Module,
    inputs: Inputs,
    recipe: Recipe,
    optimizer: torch.optim.Optimizer,
    observers: Mapping[str, Observer],
    seed: int,
    epoch: int,
    bar: Any,
) -> dict[str, float]:
    began = time.perf_counter()
    order = generator(seed, "data-order", epoch).permutation(len(inputs))
    batches = np.array_split(order, recipe.steps(len(order)))
    randomness = torch_generator(seed, "augmentation", epoch, device=inputs.device)
    totals = torch.zeros(2, dtype=torch.float64, device=inputs.device)
    model.train()
    for step, rows in enumerate(batches):
        recipe.set_learning_rate(optimizer, (epoch + step / len(batches)) / recipe.epochs)
        batch = inputs.raw(rows)
        if inputs.is_images:
            batch = augment(batch, recipe.augmentation, randomness)
        batch = inputs.normalise(batch)
        labels = inputs.labels[torch.from_numpy(rows).to(inputs.device, non_blocking=True)]
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=recipe.bfloat16):
            logits = model(batch)
        logits = logits.float()
        losses = F.cross_entropy(
            logits, labels, reduction="none", label_smoothing=recipe.label_smoothing
        )
        optimizer.zero_grad(set_to_none=True)
        losses.mean().backward()
        optimizer.step()
        detached, detached_losses = logits.detach(), losses.detach()
        totals[0] += detached_losses.sum()
        totals[1] += (detached.argmax(dim=1) == labels).sum()
        row_tensor = torch.from_numpy(rows)
        for observer in observers.values():
            observer.on_batch(row_tensor, detached, labels, detached_losses)
        bar.update()
    loss, accuracy = (totals / len(order)).tolist()
    if not math.isfinite(loss):
        raise NoiseAuditError(
            f"training diverged in epoch {epoch + 1}: the loss is {loss}; lower the learning rate"
        )
    return {"loss": loss, "accuracy": accuracy, "seconds": time.perf_counter() - began}
