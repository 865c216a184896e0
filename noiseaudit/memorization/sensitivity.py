"""Loss sensitivity: how a training example moves the training loss, through training itself.

Not the plain input gradient: an example also changes every later loss through the updates it took
part in, and the derivative is taken through all of them.

Source: Arpit et al., "A Closer Look at Memorization in Deep Networks", ICML 2017, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from noiseaudit.errors import DataError, UsageError, check_name
from noiseaudit.memorization.networks import Networks, compute_logits, initialize
from noiseaudit.memorization.problems import Problem
from noiseaudit.seeding import generator

__all__ = [
    "NORMS",
    "Norm",
    "Sensitivities",
    "UnrolledSettings",
    "class_sensitivity",
    "gini",
    "loss_sensitivity",
    "off_diagonal_share",
]

Norm = Literal["l1", "l2", "linf"]
NORMS = ("l1", "l2", "linf")

_KEPT = 2**29  # elements of all updates at once: 2 GB


@dataclass(frozen=True)
class UnrolledSettings:
    """How the networks are trained that derivatives are taken through: plain SGD.

    Attributes:
        hidden: units of each hidden layer; two layers of 16 as in the paper.
        batch_size: largest batch; an epoch is split into batches of equal size within one.
        learning_rate: constant; no momentum.
        moments: numbers of updates t after which the sensitivity is taken; not negative, rising.
            Evenly spaced ones estimate the paper's mean over all updates.
        norm: over an example's features, "l1" (as published), "l2" or "linf".

    Raises:
        UsageError: for a value outside its range.
    """

    hidden: tuple[int, ...] = (16, 16)
    batch_size: int = 100
    learning_rate: float = 0.3
    moments: tuple[int, ...] = (40, 80, 120, 160)
    norm: Norm = "l1"

    def __post_init__(self) -> None:
        check_name(self.norm, NORMS, "norm")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be at least 1; got {self.batch_size}")
        if not self.learning_rate > 0:
            raise UsageError(f"learning_rate must be positive; got {self.learning_rate}")
        rising = all(a < b for a, b in zip(self.moments[:-1], self.moments[1:], strict=True))
        if not self.moments or self.moments[0] < 0 or not rising:
            raise UsageError(f"moments must be rising and not negative; got {self.moments}")


@dataclass(frozen=True, eq=False)
class Sensitivities:
    """Loss sensitivity of every training example of m problems.

    Attributes:
        by_moment: (m, t, n) float64, norm of dL_t/dx through all updates before the moment.
        direct: (m, t, n) float64, norm of dL_t/dx with the weights held fixed: the cheap gradient
            that the unrolled one is often mistaken for.
        losses: (m, t) float64, the training loss L_t, nats.
        accuracy: (m, t) float64, training accuracy.
    """

    by_moment: NDArray[np.float64]
    direct: NDArray[np.float64]
    losses: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """(m, n) float64, the paper's gbar: the mean over the moments."""
        return np.asarray(self.by_moment.mean(axis=1))


def loss_sensitivity(
    problems: Sequence[Problem],
    seeds: Sequence[int],
    settings: UnrolledSettings,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Sensitivities:
    """g_x^t = ||dL_t/dx||_1 for every training example x, at each moment t.

    L_t is the mean loss of all n training examples after t SGD updates, and the derivative is taken
    by backpropagation through the unrolled updates. **High: the example matters to what is
    learned.** On real data a few examples are high, on random data nearly all of them: compare by
    `gini`.

    Cost: one training, and for each moment a backward pass through all updates before it, kept in
    memory at once; problems are taken a few at a time where they would need more than 2 GB.

    Source: Arpit et al. 2017, section 3.2. Where we differ: the mean is over the moments asked for,
    not over every update.

    Args:
        problems: m problems of one size, shape and number of classes.
        seeds: m seeds, of weights and order of examples.
        settings: of the training and the moments.
        device: where.
        dtype: float64 for a comparison with finite differences.
    """
    most = _group_size(problems[0], settings)
    parts = [
        _sensitivities(
            _Unrolled(problems[i : i + most], seeds[i : i + most], settings, device, dtype)
        )
        for i in range(0, len(problems), most)
    ]
    return Sensitivities(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _group_size(problem: Problem, settings: UnrolledSettings) -> int:
    layers = (problem.inputs.shape[1], *settings.hidden, problem.num_classes)
    weights = sum(inner * outer for inner, outer in pairwise(layers))
    # Logits, their softmax and gradients; 1,000 classes took 0.41 million elements an update.
    update = settings.batch_size * (layers[0] + 4 * sum(layers[1:])) + 4 * weights
    return max(1, int(_KEPT // (update * max(1, settings.moments[-1]))))


def _sensitivities(run: _Unrolled) -> list[NDArray[np.float64]]:
    norm = run.settings.norm
    unrolled, direct, losses, accuracy = [], [], [], []
    for inputs, logits in run.moments():
        every = F.cross_entropy(
            logits.flatten(0, 1), run.labels.flatten(), reduction="none"
        ).view_as(run.labels)
        loss = every.mean(1)
        (plain,) = torch.autograd.grad(loss.sum(), inputs, retain_graph=True)
        direct.append(_norm(plain, norm))
        unrolled.append(_norm(run.gradient(loss.sum(), inputs), norm))
        losses.append(loss.detach().double())
        accuracy.append((logits.argmax(2) == run.labels).double().mean(1))
    return [
        np.asarray(torch.stack(values, 1).cpu(), np.float64)
        for values in (unrolled, direct, losses, accuracy)
    ]


def class_sensitivity(
    problems: Sequence[Problem],
    seeds: Sequence[int],
    settings: UnrolledSettings,
    *,
    classes: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> NDArray[np.float64]:
    """gbar_ij = E 1/T sum_t |dL_t(y=i)/dx_(y=j)|, (m, c, c) float64: row i, column j.

    L_t(y=i) is the mean loss of the examples of class i; the mean E is over the examples of class
    j, of the norm of the derivative by each. **Off the diagonal: what the classes learn from each
    other**, high on real data, low on random labels (`off_diagonal_share`). Of the c `classes`, all
    by default, although networks are trained on all examples. Derivatives are unrolled and the
    other arguments are those of `loss_sensitivity`; cost: c times as many backward passes. Rows
    and columns of absent classes are 0.

    Source: Arpit et al. 2017, section 3.3 and Figure 4.
    """
    chosen = list(range(problems[0].num_classes)) if classes is None else [*classes]
    most = _group_size(problems[0], settings)
    parts = [
        _between_classes(
            _Unrolled(problems[i : i + most], seeds[i : i + most], settings, device, dtype), chosen
        )
        for i in range(0, len(problems), most)
    ]
    return np.concatenate(parts)


def _between_classes(run: _Unrolled, classes: Sequence[int]) -> NDArray[np.float64]:
    members = torch.stack([run.labels == label for label in classes], 2).to(run.inputs)  # (m, n, c)
    counts = members.sum(1).clamp(min=1)
    m, _, c = members.shape
    total = torch.zeros(m, c, c, dtype=torch.float64, device=run.device)
    for inputs, logits in run.moments():
        every = F.cross_entropy(
            logits.flatten(0, 1), run.labels.flatten(), reduction="none"
        ).view_as(run.labels)
        losses = torch.einsum("mn,mnc->mc", every, members) / counts
        for i in range(c):
            norms = _norm(run.gradient(losses[:, i].sum(), inputs), run.settings.norm)
            total[:, i] += torch.einsum("mn,mnc->mc", norms, members) / counts
    return np.asarray(total.cpu()) / len(run.settings.moments)


def gini(values: ArrayLike) -> float:
    """Gini coefficient: 0 where all values are equal, near 1 where one holds everything.

    G = sum_ij |g_i - g_j| / (2 n^2 mean(g)), exactly, from the sorted values in O(n log n).

    Args:
        values: (n,), not negative, not all 0.

    Raises:
        DataError: for other values.
    """
    array = np.sort(np.asarray(values, dtype=np.float64))
    if array.ndim != 1 or not len(array):
        raise DataError(f"values must be one-dimensional and not empty; got shape {array.shape}")
    if not np.isfinite(array).all() or array[0] < 0 or array[-1] == 0:
        raise DataError("values must be finite, not negative and not all 0")
    n = len(array)
    # Scaled by the largest first: sums of subnormal values would lose digits.
    array = array / array[-1]
    rank = 2 * np.arange(1, n + 1) - n - 1
    return float((rank * array).sum() / (n * array.sum()))


def off_diagonal_share(matrix: ArrayLike) -> float:
    """Share of a (k, k) matrix's sum off its diagonal; (k - 1) / k where all entries are equal.

    Raises:
        DataError: if the matrix is not square, not negative anywhere, and positive somewhere.
    """
    array = np.asarray(matrix, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise DataError(f"matrix must have shape (k, k); got {array.shape}")
    if not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise DataError("matrix must be finite, not negative and not all 0")
    return float(1 - np.trace(array) / array.sum())


def _norm(gradient: Tensor, norm: Norm) -> Tensor:
    order = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}[norm]
    norms: Tensor = torch.linalg.vector_norm(gradient, order, dim=2)
    return norms


class _Unrolled:
    """A training kept as one graph, from the inputs of every batch to the weights after it.

    Each batch is a leaf of its own: its gradient is added to its examples' afterwards, where a
    gather from one large leaf would fill an array of all examples for every update.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        seeds: Sequence[int],
        settings: UnrolledSettings,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        stacked = np.stack([problem.inputs for problem in problems])
        self.inputs = torch.from_numpy(stacked).to(device, dtype)
        labels = np.stack([problem.labels for problem in problems])
        self.labels = torch.from_numpy(labels).to(device)
        layers = (self.inputs.shape[2], *settings.hidden, problems[0].num_classes)
        self.networks: Networks = initialize(layers, seeds, device=device, dtype=dtype)
        for part in self.networks:
            part.requires_grad_()
        self.settings, self.seeds, self.device = settings, seeds, device
        self.leaves: list[tuple[Tensor, Tensor]] = []  # rows (m, b), inputs (m, b, d)

    def moments(self) -> Iterator[tuple[Tensor, Tensor]]:
        """At each moment, a leaf of all inputs (m, n, d) and its logits (m, n, k)."""
        batches = self._batches()
        done = 0
        for moment in self.settings.moments:
            for _ in range(moment - done):
                self._update(next(batches))
            done = moment
            inputs = self.inputs.clone().requires_grad_()
            yield inputs, compute_logits(self.networks, inputs)

    def gradient(self, loss: Tensor, inputs: Tensor) -> Tensor:
        """Derivative of `loss` by every example, (m, n, d), direct and through all updates."""
        leaves = [leaf for _, leaf in self.leaves]
        # With one moment before any update, or dead units throughout, there is nothing to follow.
        found = torch.autograd.grad(loss, [inputs, *leaves], retain_graph=True, allow_unused=True)
        total = torch.zeros_like(self.inputs) if found[0] is None else found[0].clone()
        which = torch.arange(len(self.seeds), device=self.device)[:, None]
        for (rows, _), part in zip(self.leaves, found[1:], strict=True):
            if part is not None:
                total[which, rows] += part  # an example occurs once in a batch
        return total

    def _update(self, rows: Tensor) -> None:
        which = torch.arange(len(self.seeds), device=self.device)[:, None]
        batch = self.inputs[which, rows].requires_grad_()
        labels = self.labels[which, rows]
        logits = compute_logits(self.networks, batch)
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        gradients = torch.autograd.grad(losses / rows.shape[1], self.networks, create_graph=True)
        rate = self.settings.learning_rate
        self.networks = [
            part - rate * gradient for part, gradient in zip(self.networks, gradients, strict=True)
        ]
        self.leaves.append((rows, batch))

    def _batches(self) -> Iterator[Tensor]:
        n = self.inputs.shape[1]
        epoch = 0
        while True:
            orders = np.stack(
                [generator(seed, "data-order", epoch).permutation(n) for seed in self.seeds]
            )
            for columns in np.array_split(np.arange(n), -(-n // self.settings.batch_size)):
                yield torch.from_numpy(orders[:, columns]).to(self.device)
            epoch += 1
