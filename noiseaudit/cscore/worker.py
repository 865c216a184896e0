"""One unit of work: train a few models on their subsets, and say what they predict of all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noiseaudit.cscore.plan import SubsetPlan
from noiseaudit.cscore.stack import can_stack, stack_size, train_stack
from noiseaudit.dataset import LabeledDataset
from noiseaudit.device import cpu_threads
from noiseaudit.errors import NoiseAuditError
from noiseaudit.outputs import Outputs
from noiseaudit.seeding import derive_seed, isolated_torch_rng
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import TrainingPlan

__all__ = ["Job", "Shard", "Unit", "models_at_once", "run_unit", "seconds_per_run"]

_BATCH = 1024
_SAMPLE = 4_000  # examples that a prediction of cost is made from
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Unit:
    """Models to train in one go: `indices` of the plan of `ratio`."""

    ratio: float
    indices: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a unit's result depends on.

    Attributes:
        dataset: n examples with their given labels.
        subsets: by ratio, what each model trains on.
        training: by ratio, how; its seed is that of model 0's stream.
        keep_probs: whether shards hold held-out probabilities of every class.
    """

    dataset: LabeledDataset
    subsets: Mapping[float, SubsetPlan]
    training: Mapping[float, TrainingPlan]
    keep_probs: bool


@dataclass(frozen=True, eq=False)
class Shard:
    """What one model says about n examples, small enough to keep thousands.

    Attributes:
        ratio, index: which model.
        correct: (n,) bool, it predicts the given label.
        losses: (n,) float16, -log probability of the given label, nats: near 0 far finer than the
            probability itself would be.
        margins: (n,) float16, logit of the given label minus the largest other, within 65,504.
        probs: (n - m, k) float16, of the held-out examples in order; (0, k) if not kept.
        seconds: of training and predicting.
    """

    ratio: float
    index: int
    correct: NDArray[np.bool_]
    losses: NDArray[np.float16]
    margins: NDArray[np.float16]
    probs: NDArray[np.float16]
    seconds: float

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """For an .npz; truths packed to bits."""
        return {
            "correct": np.packbits(self.correct),
            "losses": self.losses,
            "margins": self.margins,
            "probs": self.probs,
            "seconds": np.array(self.seconds),
        }

    @classmethod
    def from_arrays(cls, ratio: float, index: int, arrays: Mapping[str, NDArray[Any]]) -> Shard:
        """From what `to_arrays` gave.

        Raises:
            ValueError: if lengths do not belong together.
        """
        n = len(arrays["losses"])
        if len(arrays["margins"]) != n or len(arrays["correct"]) != -(-n // 8):
            raise ValueError("arrays of different lengths")
        return cls(
            ratio,
            index,
            np.unpackbits(arrays["correct"], count=n).astype(bool),
            arrays["losses"],
            arrays["margins"],
            arrays["probs"],
            float(arrays["seconds"]),
        )


def run_unit(job: Job, unit: Unit) -> list[Shard]:
    """Train the unit's models and predict; pure, so it may be done anywhere, and again.

    Raises:
        NoiseAuditError: if training diverges.
    """
    began = time.perf_counter()
    plan, subsets = job.training[unit.ratio], job.subsets[unit.ratio]
    with cpu_threads(plan.threads):
        whole = Inputs(job.dataset, plan.device)
        rows = [subsets.subset(index) for index in unit.indices]
        parts = [whole.subset(own) for own in rows]
        seeds = [derive_seed(plan.seed, "cscore", str(unit.ratio), i) for i in unit.indices]
        models = _train(job.dataset, plan, parts, seeds)
        trained = time.perf_counter() - began
        shards = []
        for model, part, own, index in zip(models, parts, rows, unit.indices, strict=True):
            began = time.perf_counter()
            found = _predict(model.eval(), whole, part, own if job.keep_probs else None)
            seconds = trained / len(models) + time.perf_counter() - began
            shards.append(Shard(unit.ratio, index, *found, seconds))
    return shards


def models_at_once(job: Job, ratio: float) -> int:
    """How many models of one ratio are trained together."""
    plan = job.training[ratio]
    shape = job.dataset.input_shape
    with isolated_torch_rng(plan.seed, "weights"):
        model = build_model(plan.model, shape, job.dataset.num_classes)
    return stack_size(model, shape, plan.recipe, plan.device)


def seconds_per_run(job: Job, ratio: float) -> float:
    """Predicted from one epoch on, and one pass over, a few thousand examples."""
    plan = job.training[ratio]
    short = replace(plan, recipe=replace(plan.recipe, epochs=1))
    subset = job.subsets[ratio].subset(0)
    with cpu_threads(plan.threads):
        whole = Inputs(job.dataset, plan.device)
        part = whole.subset(subset[:_SAMPLE])
        several = models_at_once(job, ratio)
        for _ in range(2):  # the first is a warm-up
            began = time.perf_counter()
            models = _train(job.dataset, short, [part] * several, range(several))
            trained = time.perf_counter() - began
        began = time.perf_counter()
        _predict(models[0].eval(), part, part, None)
        predicted = time.perf_counter() - began
    steps = plan.recipe.epochs * len(subset) / len(part)
    return trained / several * steps + predicted * len(whole) / len(part)


def _train(
    dataset: LabeledDataset, plan: TrainingPlan, parts: Sequence[Inputs], seeds: Sequence[int]
) -> list[nn.Module]:
    def build() -> nn.Module:
        return build_model(plan.model, dataset.input_shape, dataset.num_classes)

    def fresh(seed: int) -> nn.Module:
        with isolated_torch_rng(seed, "weights"):
            return build()

    first = fresh(seeds[0])
    if not can_stack(first, dataset.input_shape, plan.recipe):
        return [
            train(build, part, plan.recipe, {}, seed=seed).model
            for part, seed in zip(parts, seeds, strict=True)
        ]
    stackable: list[Any] = [first, *(fresh(seed) for seed in seeds[1:])]
    for model in stackable:
        model.to(plan.device)
    for size in {len(part) for part in parts}:  # they differ by one at most
        same = [position for position, part in enumerate(parts) if len(part) == size]
        train_stack(
            [stackable[position] for position in same],
            [parts[position] for position in same],
            plan.recipe,
            [seeds[position] for position in same],
        )
    return stackable


@torch.no_grad()
def _predict(
    model: nn.Module, whole: Inputs, part: Inputs, trained_on: NDArray[np.int64] | None
) -> tuple[NDArray[np.bool_], NDArray[np.float16], NDArray[np.float16], NDArray[np.float16]]:
    """Correctness, losses and margins of all, probabilities of those not trained on."""
    n = len(whole)
    is_held_out = torch.zeros(n, dtype=torch.bool)
    if trained_on is not None:
        is_held_out[:] = True
        is_held_out[torch.from_numpy(trained_on)] = False
    found: list[list[Tensor]] = []
    for start in range(0, n, _BATCH):
        rows = slice(start, min(start + _BATCH, n))
        logits = model(part.normalise(whole.raw(np.arange(rows.start, rows.stop)))).float()
        if not logits.isfinite().all():
            raise NoiseAuditError(
                "a model diverged: its logits are not finite; lower learning_rate"
            )
        outputs = Outputs(logits, whole.labels[rows])
        probs = outputs.probs[is_held_out[rows].to(logits.device)]
        columns = (outputs.correct, outputs.losses, outputs.logit_margin, probs)
        found.append([column.cpu() for column in columns])
    correct, losses, margins, probs = (torch.cat(parts) for parts in zip(*found, strict=True))
    return correct.numpy(), _half(losses), _half(margins), _half(probs)


def _half(values: Tensor) -> NDArray[np.float16]:
    return values.clamp(-_LARGEST, _LARGEST).numpy().astype(np.float16)
