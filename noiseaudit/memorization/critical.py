"""Critical samples: examples with a decision boundary close by, found by Langevin search.

The share of critical examples measures how complex a decision surface is: it rises as a network
memorises.

Source: Arpit et al., "A Closer Look at Memorization in Deep Networks", ICML 2017, section 4 and
Algorithm 1 (LASS).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from noiseaudit.errors import DataError, UsageError
from noiseaudit.seeding import generator

__all__ = ["PUBLISHED_RADIUS", "CriticalSamples", "LangevinSearch", "find_critical"]

PUBLISHED_RADIUS = 0.3 / 255
"""Of pixels in [0, 1]; 0.3 on the published scale of 0 to 255."""

_STEP = 0.25 / 0.3
_NOISE = 0.2 / 0.3
_BATCH = 512


@dataclass(frozen=True)
class LangevinSearch:
    """How far and how long to search around an example.

    The published constants are for pixels from 0 to 255. On pictures whose pixels are in [0, 1],
    with a small dense network, they find next to nothing (see `complexity.calibrate_radius`).

    Attributes:
        radius: r, half the side of the box around an example, in the inputs' units divided by
            `scale`; 0.3 / 255 as published.
        step: alpha, length of a step along the gradient's sign; 0.25 / 255 as published; None
            takes the published share of `radius`, 5/6.
        noise: beta, deviation of the Gaussian added to a step; 0.2 / 255 as published; None takes
            the published share of `radius`, 2/3.
        scale: what one unit of the three above is in the model's inputs: 1 where the model takes
            pixels in [0, 1], 1 / deviation where it takes them normalised.
        max_iterations: steps at most; 100 in the authors' code.
        min_new: stop once a step finds fewer new critical examples than this. The authors' code
            stops below 20, which ends the search of a small set after one step; 0, the default,
            never stops early.

    Raises:
        UsageError: for a value outside its range.
    """

    radius: float = PUBLISHED_RADIUS
    step: float | None = None
    noise: float | None = None
    scale: float = 1.0
    max_iterations: int = 100
    min_new: int = 0

    def __post_init__(self) -> None:
        for name in ("radius", "scale", "max_iterations"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive; got {getattr(self, name)}")
        for name in ("step", "noise", "min_new"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UsageError(f"{name} must not be negative; got {value}")

    @property
    def step_length(self) -> float:
        """alpha, in the units of `radius`."""
        return _STEP * self.radius if self.step is None else self.step

    @property
    def noise_deviation(self) -> float:
        """beta, in the units of `radius`."""
        return _NOISE * self.radius if self.noise is None else self.noise


@dataclass(frozen=True, eq=False)
class CriticalSamples:
    """Which examples are critical.

    Attributes:
        is_critical: (n,) bool, whether the prediction changed within the radius; false also where
            the search did not find a change that exists.
        iterations: steps that were taken.
    """

    is_critical: NDArray[np.bool_]
    iterations: int

    @property
    def ratio(self) -> float:
        """Critical sample ratio: share of the examples that are critical."""
        return float(self.is_critical.mean())


def find_critical(
    model: nn.Module | Callable[[Tensor], Tensor],
    inputs: Tensor,
    *,
    seed: int,
    search: LangevinSearch | None = None,
) -> CriticalSamples:
    """Which examples have a differently classified point within `radius`, in the largest norm.

    Each step adds `step * sign(dL/dx) + noise * N(0, 1)`, where L is the loss of the class that is
    predicted for the example, and clips to the box. **High ratio: a complex decision surface.**
    Labels are not needed. A module is used in eval mode, and left with the mode, weights, buffers
    and gradients that it had. An example's noise depends on `seed` and its row alone.

    Source: Arpit et al. 2017, Algorithm 1. Where we differ: as printed the step follows the
    gradient of the predicted logit; ours that of the predicted class's loss, as the authors' code.

    Cost: a forward and a backward pass a step, of the examples not yet found critical.

    Args:
        model: from (b, ...) to logits (b, k); a module, or any function of tensors.
        inputs: (n, ...) float, as the model takes them.
        seed: of the noise.
        search: published constants by default.

    Raises:
        DataError: if there are no inputs, or the logits are not (b, k) and finite.
    """
    search = LangevinSearch() if search is None else search
    if not len(inputs):
        raise DataError("inputs are empty: a critical sample ratio needs at least one example")
    with _untouched(model):
        return _search(model, inputs.detach(), search, seed)


def _search(
    model: Callable[[Tensor], Tensor], inputs: Tensor, search: LangevinSearch, seed: int
) -> CriticalSamples:
    predicted = torch.cat([_logits(model, part).argmax(1) for part in inputs.split(_BATCH)])
    moved = inputs.clone()
    is_critical = torch.zeros(len(inputs), dtype=torch.bool, device=inputs.device)
    radius = search.radius * search.scale
    iterations = 0
    while iterations < search.max_iterations and not bool(is_critical.all()):
        drawn = generator(seed, "langevin-noise", iterations).standard_normal(
            tuple(inputs.shape), dtype=np.float32
        )
        found = 0
        for rows in torch.nonzero(~is_critical)[:, 0].split(_BATCH):
            noise = torch.from_numpy(drawn[rows.cpu().numpy()]).to(inputs)
            slope = _slope(model, moved[rows], predicted[rows])
            change = noise * search.noise_deviation + slope.sign() * search.step_length
            there = moved[rows] + change * search.scale
            there = torch.clamp(there, inputs[rows] - radius, inputs[rows] + radius)
            moved[rows] = there
            changed = _logits(model, there).argmax(1) != predicted[rows]
            is_critical[rows] = changed
            found += int(changed.sum())
        iterations += 1
        if found < search.min_new:
            break
    return CriticalSamples(is_critical.cpu().numpy(), iterations)


def _logits(model: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    with torch.no_grad():
        logits = model(inputs)
    if logits.ndim != 2 or len(logits) != len(inputs):
        raise DataError(
            f"the model must give logits of shape ({len(inputs)}, k); got {tuple(logits.shape)}"
        )
    if not bool(logits.isfinite().all()):
        raise DataError("the model gives logits that are not finite")
    return logits


def _slope(model: Callable[[Tensor], Tensor], inputs: Tensor, predicted: Tensor) -> Tensor:
    """Gradient by the inputs of logsumexp(other logits) - predicted logit.

    The loss of the predicted class is a rising function of it alone, so that the signs are those of
    the loss' gradient, which underflows to 0 where a network is sure.
    """
    with torch.enable_grad():
        points = inputs.clone().requires_grad_()
        logits = model(points)
        own = logits.gather(1, predicted[:, None])
        others = logits.scatter(1, predicted[:, None], float("-inf")).logsumexp(1)
        return torch.autograd.grad((others - own[:, 0]).sum(), points)[0]


@contextmanager
def _untouched(model: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Put a module in eval mode, module by module, and back."""
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
