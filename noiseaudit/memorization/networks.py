"""Small dense ReLU networks, many at a time: batched products over a leading network axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noiseaudit.seeding import generator

__all__ = ["Networks", "apply_network", "compute_logits", "initialize", "predict"]

_HELD = 2**24  # elements of a layer held at once

Networks = list[Tensor]
"""Weights (m, in, out) and biases (m, 1, out) of m networks, layer by layer."""


def initialize(
    layers: Sequence[int],
    seeds: Sequence[int],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Networks:
    """Weights of He et al. 2015 (Gaussian, variance 2 / in), biases 0; `layers` from d to k."""
    networks: Networks = []
    for depth, (inner, outer) in enumerate(pairwise(layers)):
        drawn = np.stack(
            [generator(seed, "weights", depth).standard_normal((inner, outer)) for seed in seeds]
        )
        weights = torch.from_numpy(drawn * np.sqrt(2 / inner)).to(device, dtype)
        biases = torch.zeros(len(seeds), 1, outer, dtype=dtype, device=device)
        networks += [weights, biases]
    return networks


def compute_logits(
    networks: Sequence[Tensor], inputs: Tensor, masks: Sequence[Tensor] = ()
) -> Tensor:
    """Logits (m, b, k) of inputs (m, b, d); `masks` multiply the hidden layers, from the first."""
    values = inputs
    last = len(networks) // 2 - 1
    for depth in range(last + 1):
        values = torch.baddbmm(networks[2 * depth + 1], values, networks[2 * depth])
        if depth < last:
            values = values.relu()
            if masks:
                values = values * masks[depth]
    return values


def apply_network(networks: Sequence[Tensor], index: int) -> Callable[[Tensor], Tensor]:
    """One network of the stack as a function from (b, d) to logits (b, k)."""
    own = [part[index : index + 1].detach() for part in networks]
    return lambda inputs: compute_logits(own, inputs[None])[0]


@torch.no_grad()
def predict(networks: Sequence[Tensor], inputs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Predicted labels (m, n) of inputs (n, d) that all networks of the stack see alike."""
    m, device = len(networks[0]), networks[0].device
    widest = max(inputs.shape[1], *(part.shape[2] for part in networks))
    parts = [
        compute_logits(networks, part.to(device).expand(m, *part.shape)).argmax(2)
        for part in torch.from_numpy(inputs).split(max(1, _HELD // (m * widest)))
    ]
    return torch.cat(parts, 1).cpu().numpy()
