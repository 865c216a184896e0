"""Training of many small networks at a time, by plain SGD.

Every network draws its weights, its order of examples and its noise from its own seed, and leaves
the stack when it has fitted, so that on a CPU with one thread it is bit for bit the same whatever
it is trained beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from noiseaudit.errors import NoiseAuditError, UsageError
from noiseaudit.memorization.networks import Networks, compute_logits, initialize
from noiseaudit.memorization.problems import Problem
from noiseaudit.seeding import generator, torch_generator

__all__ = ["Regularization", "TrainingRecord", "TrainingSettings", "train_networks"]

_HELD = 2**24  # elements of a hidden layer held at once
_INPUTS = 2**28  # elements trained on at once
_WEIGHTS = 2**28  # elements trained at once on a GPU
# On a CPU what fits its cache: 100 networks of 118,000 weights, 17 at a time, took 6.6 s; all at
# once they took 10.2 s.
_WEIGHTS_CPU = 2**21


@dataclass(frozen=True)
class Regularization:
    """What holds training back; 0 is off.

    Attributes:
        dropout: share of hidden units left out of a step, in [0, 1).
        input_dropout: share of input features left out of a step, in [0, 1).
        input_noise: deviation of Gaussian noise added to the normalised inputs.
        weight_decay: L2 penalty on the weights (the gradient gets `weight_decay * weight`).

    Raises:
        UsageError: for a value outside its range.
    """

    dropout: float = 0.0
    input_dropout: float = 0.0
    input_noise: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dropout", "input_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} must be in [0, 1); got {getattr(self, name)}")
        for name in ("input_noise", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"{name} must not be negative; got {getattr(self, name)}")


@dataclass(frozen=True)
class TrainingSettings:
    """How to train, by SGD at a constant rate as in the paper.

    Attributes:
        hidden: units of each hidden layer.
        epochs: at most so many.
        batch_size: largest batch; an epoch is split into batches of equal size within one.
        learning_rate: constant.
        momentum: in [0, 1).
        stop_at: training accuracy, in eval mode at the end of an epoch, at which a network has
            fitted and stays as it is; None trains all epochs.
        regularization: off by default.

    Raises:
        UsageError: for a value outside its range.
    """

    hidden: tuple[int, ...] = (256, 256)
    epochs: int = 100
    batch_size: int = 50
    learning_rate: float = 0.02
    momentum: float = 0.9
    stop_at: float | None = None
    regularization: Regularization = field(default_factory=Regularization)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be positive; got {self.learning_rate}")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum must be in [0, 1); got {self.momentum}")
        if self.stop_at is not None and not 0 < self.stop_at <= 1:
            raise UsageError(f"stop_at must be in (0, 1]; got {self.stop_at}")
        if any(width < 1 for width in self.hidden):
            raise UsageError(f"hidden layers need at least 1 unit; got {self.hidden}")


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """How m networks trained, in eval mode at the end of each epoch.

    Attributes:
        train_accuracy: (m, e) float64; after a network has fitted, what it had then.
        validation_accuracy: (m, e) float64, likewise.
        epochs_to_fit: (m,) float64, first epoch, from 1, at which `stop_at` was reached; NaN where
            it never was, or there was none.
        networks: the m trained networks.
    """

    train_accuracy: NDArray[np.float64]
    validation_accuracy: NDArray[np.float64]
    epochs_to_fit: NDArray[np.float64]
    networks: Networks


def train_networks(
    problems: Sequence[Problem],
    seeds: Sequence[int],
    settings: TrainingSettings,
    *,
    device: torch.device | str = "cpu",
    watch: Callable[[int, Networks], None] | None = None,
) -> TrainingRecord:
    """Train a network on each problem; problems are of one size, shape and number of classes.

    Args:
        problems: m of them.
        seeds: m seeds, of each network's weights, order of examples and noise.
        settings: of all.
        device: where.
        watch: called with 0 and the untrained networks, then with each epoch from 1 and the
            networks after it. All networks are then trained at once.

    Raises:
        NoiseAuditError: if weights are no longer finite.
    """
    n, d = problems[0].inputs.shape
    widths = (d, *settings.hidden, problems[0].num_classes)
    weights = sum(a * b for a, b in pairwise(widths))
    limit = _WEIGHTS_CPU if torch.device(device).type == "cpu" else _WEIGHTS
    most = len(problems) if watch else max(1, min(_INPUTS // (n * d), limit // weights))
    records = []
    for start in range(0, len(problems), most):
        part = slice(start, start + most)
        records.append(_Stack(problems[part], seeds[part], settings, device).train(watch))
    return TrainingRecord(
        train_accuracy=np.concatenate([record.train_accuracy for record in records]),
        validation_accuracy=np.concatenate([record.validation_accuracy for record in records]),
        epochs_to_fit=np.concatenate([record.epochs_to_fit for record in records]),
        networks=[torch.cat(own) for own in zip(*(r.networks for r in records), strict=True)],
    )


class _Stack:
    """Networks in training; those that have fitted are set aside in `finished`."""

    def __init__(
        self,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        settings: TrainingSettings,
        device: torch.device | str,
    ) -> None:
        self.settings, self.device = settings, device
        self.inputs = self._stacked([problem.inputs for problem in problems])
        self.labels = self._stacked([problem.labels for problem in problems])
        self.held_out = self._stacked([problem.validation_inputs for problem in problems])
        self.held_out_labels = self._stacked([problem.validation_labels for problem in problems])
        layers = (self.inputs.shape[2], *settings.hidden, problems[0].num_classes)
        self.networks = initialize(layers, seeds, device=device)
        self.momenta = [torch.zeros_like(part) for part in self.networks]
        self.finished = [part.clone() for part in self.networks]
        self.seeds = list(seeds)
        self.rows = np.arange(len(seeds))  # of those still in training

    def _stacked(self, arrays: Sequence[NDArray[np.float32] | NDArray[np.int64]]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device)

    def train(self, watch: Callable[[int, Networks], None] | None) -> TrainingRecord:
        m, epochs, stop_at = len(self.seeds), self.settings.epochs, self.settings.stop_at
        train, held_out = np.empty((m, epochs)), np.empty((m, epochs))
        fitted = np.full(m, np.nan)
        if watch:
            watch(0, self.all_networks())
        for epoch in range(epochs):
            self.run_epoch(epoch)
            train[self.rows, epoch:] = self.accuracy(self.inputs, self.labels)[:, None]
            held_out[self.rows, epoch:] = self.accuracy(self.held_out, self.held_out_labels)[
                :, None
            ]
            if watch:
                watch(epoch + 1, self.all_networks())
            if stop_at is not None:
                done = train[self.rows, epoch] >= stop_at
                fitted[self.rows[done]] = epoch + 1
                self.set_aside(done)
                if not len(self.rows):
                    break
        networks = self.all_networks()
        if not all(bool(part.isfinite().all()) for part in networks):
            raise NoiseAuditError(
                "training diverged: weights are not finite; lower the learning rate"
            )
        return TrainingRecord(train, held_out, fitted, networks)

    def run_epoch(self, epoch: int) -> None:
        n, settings = self.inputs.shape[1], self.settings
        orders = np.stack(
            [generator(seed, "data-order", epoch).permutation(n) for seed in self.seeds]
        )
        noise = [
            torch_generator(seed, "regularization", epoch, device=self.device)
            for seed in self.seeds
        ]
        which = torch.arange(len(self.seeds), device=self.device)[:, None]
        for columns in np.array_split(np.arange(n), -(-n // settings.batch_size)):
            rows = torch.from_numpy(orders[:, columns]).to(self.device)
            inputs, masks = self.disturb(self.inputs[which, rows], noise)
            self.step(inputs, self.labels[which, rows], masks)

    def step(self, inputs: Tensor, labels: Tensor, masks: Sequence[Tensor]) -> None:
        weights = [part.requires_grad_() for part in self.networks]
        logits = compute_logits(weights, inputs, masks)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        gradients = torch.autograd.grad(losses / labels.shape[1], weights)
        settings = self.settings
        with torch.no_grad():
            pairs = zip(self.networks, self.momenta, gradients, strict=True)
            for i, (part, momentum, gradient) in enumerate(pairs):
                momentum.mul_(settings.momentum).add_(gradient)
                if i % 2 == 0 and settings.regularization.weight_decay:
                    momentum.add_(part, alpha=settings.regularization.weight_decay)
                part.sub_(momentum, alpha=settings.learning_rate)

    def disturb(
        self, inputs: Tensor, noise: Sequence[torch.Generator]
    ) -> tuple[Tensor, list[Tensor]]:
        """Inputs with noise and dropout, and a mask for each hidden layer."""
        regularization, (_, b, d) = self.settings.regularization, inputs.shape
        if regularization.input_noise:
            drawn = [torch.randn(b, d, generator=own, device=self.device) for own in noise]
            inputs = inputs + regularization.input_noise * torch.stack(drawn)
        if regularization.input_dropout:
            inputs = inputs * self._mask(b, d, regularization.input_dropout, noise)
        if not regularization.dropout:
            return inputs, []
        hidden = self.settings.hidden
        return inputs, [self._mask(b, width, regularization.dropout, noise) for width in hidden]

    def _mask(self, b: int, width: int, share: float, noise: Sequence[torch.Generator]) -> Tensor:
        drawn = [torch.rand(b, width, generator=own, device=self.device) for own in noise]
        return (torch.stack(drawn) >= share) / (1 - share)

    @torch.no_grad()
    def accuracy(self, inputs: Tensor, labels: Tensor) -> NDArray[np.float64]:
        widest = max(inputs.shape[2], *(part.shape[2] for part in self.networks))
        size = max(1, _HELD // (len(inputs) * widest))
        right = torch.zeros(len(inputs), dtype=torch.float64, device=self.device)
        for part, own in zip(inputs.split(size, 1), labels.split(size, 1), strict=True):
            right += (compute_logits(self.networks, part).argmax(2) == own).sum(1)
        return np.asarray((right / labels.shape[1]).cpu())

    @torch.no_grad()
    def set_aside(self, done: NDArray[np.bool_]) -> None:
        if not done.any():
            return
        self._keep()
        left = torch.from_numpy(np.flatnonzero(~done)).to(self.device)
        self.networks = [part[left] for part in self.networks]
        self.momenta = [part[left] for part in self.momenta]
        self.inputs, self.labels = self.inputs[left], self.labels[left]
        self.held_out, self.held_out_labels = self.held_out[left], self.held_out_labels[left]
        self.seeds = [self.seeds[i] for i in np.flatnonzero(~done)]
        self.rows = self.rows[~done]

    def _keep(self) -> None:
        rows = torch.from_numpy(self.rows).to(self.device)
        for finished, part in zip(self.finished, self.networks, strict=True):
            finished[rows] = part.detach()

    def all_networks(self) -> Networks:
        self._keep()
        return [part.clone() for part in self.finished]
