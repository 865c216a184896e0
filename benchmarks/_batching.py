"""Training many small networks at a time against one after another, on the same cores."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _results import ratio_summary
from torch import nn

import noiseaudit as na
from noiseaudit.cscore.plan import SubsetPlan
from noiseaudit.cscore.stack import stack_size, train_stack
from noiseaudit.device import select_device
from noiseaudit.seeding import isolated_torch_rng
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.recipes import Recipe

RATIO = 0.1
EPOCHS = 1


def tiny(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """784-64-10 on MNIST."""
    size = int(torch.Size(shape).numel())
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, num_classes))


def batching(
    model: Any, batch: int, examples: int, models: int, pairs: int, options: argparse.Namespace
) -> dict[str, Any]:
    source = "mnist" if options.data_root else "digits"
    data = na.load(source, data_root=options.data_root, limit=min(examples, 60_000))
    recipe, device = Recipe(EPOCHS, batch_size=batch), select_device("auto")
    whole, plan = Inputs(data, device), SubsetPlan(data.labels, RATIO)
    parts = [whole.subset(plan.subset(index)) for index in range(models)]

    def build() -> nn.Module:
        return build_model(model, data.input_shape, data.num_classes)

    def at_a_time(size: int) -> None:
        """Zero: one after another, by the ordinary loop."""
        if not size:
            for seed, part in enumerate(parts):
                train(build, part, recipe, {}, seed=seed)
            return
        for start in range(0, models, size):
            own, stacked = parts[start : start + size], []
            for seed in range(start, start + len(own)):
                with isolated_torch_rng(seed, "weights"):
                    stacked.append(build().to(device))
            train_stack(stacked, own, recipe, range(start, start + len(own)))

    chosen = stack_size(build(), data.input_shape, recipe, device)
    sizes = sorted({1, 4, 16, models, chosen} & set(range(models + 1)))
    seconds = interleaved({size: lambda size=size: at_a_time(size) for size in (0, *sizes)}, pairs)
    images = models * EPOCHS * len(parts[0])
    return {
        "model": model if isinstance(model, str) else "784-64-10", "batch_size": batch,
        "models": models, "examples_each": len(parts[0]), "chosen": chosen,
        "images_per_second_alone": images / float(np.median(seconds[0])),
        "throughput_over_alone": {
            str(size): ratio_summary([a / b for a, b in zip(seconds[0], own, strict=True)])
            for size, own in seconds.items() if size
        },
    }  # fmt: skip


def interleaved(runs: dict[int, Callable[[], None]], turns: int) -> dict[int, list[float]]:
    """Seconds of each, every turn; the first turn is a warm-up, then each leads in its turn."""
    seconds: dict[int, list[float]] = {name: [] for name in runs}
    order = [*runs]
    for turn in range(-1, turns):
        first = turn % len(order)
        for name in (*order[first:], *order[:first]):
            began = time.perf_counter()
            runs[name]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - began)
    return seconds
