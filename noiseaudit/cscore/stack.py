"""Many small networks trained at a time, as one: batched products over a leading model axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noiseaudit.errors import NoiseAuditError
from noiseaudit.seeding import generator
from noiseaudit.training.augment import Augmentation
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.models import forward_operations
from noiseaudit.training.recipes import Recipe

__all__ = ["can_stack", "stack_size", "train_stack"]

_STEP = 1e8  # operations of a forward step on a CPU from which batching more models gains nothing
_MOST = 64
_MOST_CUDA = 256
_CUDA_ELEMENTS = 2**28  # of parameters and of inputs, at once
_ALIGNED = 16  # rows of a batch: some processors round by where in memory a matrix begins


def can_stack(
    model: nn.Module, input_shape: tuple[int, ...], recipe: Recipe
) -> TypeGuard[nn.Sequential]:
    """Whether it is plainly `Flatten`, `Linear` and `ReLU` in a row, to be trained unaugmented."""
    if type(model) is not nn.Sequential or recipe.augmentation != Augmentation():
        return False
    layers = [*model]
    first, *others = layers
    starts = _is_plain_flatten(first) or (type(first) is nn.Linear and len(input_shape) == 1)
    return (
        starts
        and all(type(layer) in (nn.Linear, nn.ReLU) for layer in others)
        and len({id(parameter) for parameter in model.parameters()})
        == 2 * sum(isinstance(layer, nn.Linear) for layer in layers)  # biases, and none shared
        and all(parameter.requires_grad for parameter in model.parameters())
        and not any(layer._forward_hooks or layer._forward_pre_hooks for layer in (model, *layers))
    )


def _is_plain_flatten(layer: nn.Module) -> bool:
    return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)


def stack_size(
    model: nn.Module, input_shape: tuple[int, ...], recipe: Recipe, device: torch.device
) -> int:
    """How many networks like `model` to train at a time: a power of two, 1 where none is gained.

    On one CPU core, as many as make a step of some 100 million operations: 784-64-10 with batches
    of 32 trained fastest with 16 at a time, 784-512-256-10 with batches of 64 hardly faster with 2
    or 4 than alone (`benchmarks/cscores.py --parts batching`).
    """
    if not can_stack(model, input_shape, recipe):
        return 1
    if device.type == "cuda":
        held = sum(parameter.numel() for parameter in model.parameters())
        held = max(held, recipe.batch_size * math.prod(input_shape))
        return _power_of_two(_CUDA_ELEMENTS / held, _MOST_CUDA)
    step = recipe.batch_size * forward_operations(model, input_shape)
    return _power_of_two(_STEP / step, _MOST)


def _power_of_two(number: float, most: int) -> int:
    return min(most, 1 << int(math.log2(max(number, 1))))


def train_stack(
    models: Sequence[nn.Sequential], parts: Sequence[Inputs], recipe: Recipe, seeds: Sequence[int]
) -> None:
    """Train each model on its own inputs, in its own order, as `training.loop.train` would.

    On a CPU with one thread a model's weights are bit for bit the same whatever it is trained
    beside, or alone, if hidden layers are multiples of 16 wide. `train` multiplies in another
    order, so the two differ by rounding.

    Args:
        models: freshly built, of one structure that `stack_size` knows; changed in place.
        parts: what each trains on, all of one length.
        recipe: of all; without augmentation.
        seeds: of each model's order of examples.

    Raises:
        NoiseAuditError: if a loss is no longer finite.
    """
    stack = _Stack(models).to(parts[0].device)
    optimizer = recipe.optimizer_for(stack)
    n = len(parts[0])
    steps = recipe.steps(n)
    for epoch in range(recipe.epochs):
        orders = [generator(seed, "data-order", epoch).permutation(n) for seed in seeds]
        losses = torch.zeros((), device=parts[0].device)
        for step, columns in enumerate(np.array_split(np.arange(n), steps)):
            recipe.set_learning_rate(optimizer, (epoch + step / steps) / recipe.epochs)
            rows = [order[columns] for order in orders]
            pairs = zip(parts, rows, strict=True)
            batch = torch.stack([part.normalise(part.raw(own)) for part, own in pairs])
            labels = torch.stack(
                [part.labels[torch.from_numpy(own)] for part, own in zip(parts, rows, strict=True)]
            )
            padding = (0, 0) * (batch.ndim - 2) + (0, -len(columns) % _ALIGNED)
            with torch.autocast(batch.device.type, torch.bfloat16, enabled=recipe.bfloat16):
                logits = stack(F.pad(batch, padding))[:, : len(columns)]
            loss = F.cross_entropy(
                logits.float().flatten(0, 1), labels.flatten(), reduction="sum",
                label_smoothing=recipe.label_smoothing,
            ) / len(columns)  # fmt: skip
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses += loss.detach()
        if not math.isfinite(float(losses)):
            raise NoiseAuditError(
                f"training diverged in epoch {epoch + 1}: a loss is not finite; "
                "lower the learning rate"
            )
    stack.write_back(models)


class _Stack(nn.Module):
    """Networks of one structure; weights (m, in, out), so that no product needs a transpose."""

    def __init__(self, models: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self._kinds = [type(layer) for layer in models[0]]
        self._weights, self._biases = nn.ParameterList(), nn.ParameterList()
        for own in _linears(models):
            self._weights.append(torch.stack([layer.weight.detach().T for layer in own]))
            self._biases.append(torch.stack([layer.bias.detach()[None] for layer in own]))

    def forward(self, batch: Tensor) -> Tensor:
        """From (m, b, ...) to logits (m, b, k)."""
        dense = iter(zip(self._weights, self._biases, strict=True))
        for kind in self._kinds:
            if kind is nn.Flatten:
                batch = batch.flatten(2)
            elif kind is nn.ReLU:
                batch = batch.relu()
            else:
                weight, bias = next(dense)
                batch = torch.baddbmm(bias, batch, weight)
        return batch

    @torch.no_grad()
    def write_back(self, models: Sequence[nn.Sequential]) -> None:
        """Put the weights into the models they came from."""
        for own, weights, biases in zip(_linears(models), self._weights, self._biases, strict=True):
            for layer, weight, bias in zip(own, weights, biases, strict=True):
                layer.weight.copy_(weight.T)
                layer.bias.copy_(bias[0])


def _linears(models: Sequence[nn.Sequential]) -> Iterator[tuple[nn.Linear, ...]]:
    """The first linear layer of every model, then the second of every model, and so on."""
    for layers in zip(*models, strict=True):
        if isinstance(layers[0], nn.Linear):
            yield layers
