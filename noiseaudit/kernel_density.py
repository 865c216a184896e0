"""How densely examples lie: sums of a Gaussian kernel over all pairs, never an n x n matrix.

K(x, x') = exp(-||x - x'||^2 / h^2) with the bandwidth h half the mean distance of two examples
(Jiang, Zhang, Talwar & Mozer, ICML 2021, section 4.1 and appendix C). Examples are given by
*factors*: arrays whose Gram matrices, multiplied element by element, hold the examples' inner
products. One factor is the points themselves; two stand for the outer product of their rows, as the
gradient by a dense layer's weights is, and no such product is ever formed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noiseaudit._validation import check_finite, check_same_length
from noiseaudit.device import full_float32
from noiseaudit.errors import UsageError

__all__ = ["Densities", "kernel_densities"]

_BLOCK = 1024
_BLOCK_CUDA = 8192
_SAMPLE = 10_000  # examples that the mean distance is read from: 50 million pairs


@dataclass(frozen=True, eq=False)
class Densities:
    """Of n examples; each includes the example itself.

    Attributes:
        all: (n,) float64 in (0, 1], mean kernel with all examples: C of the paper's Eq. 5.
        same_class: (n,) float64, those with the same label, over n: C^L, Eq. 4.
        bandwidth: h.
    """

    all: NDArray[np.float64]
    same_class: NDArray[np.float64]
    bandwidth: float

    @property
    def relative(self) -> NDArray[np.float64]:
        """(n,) in [-1, 1], same class less other classes: C^(+-L), Eq. 3."""
        return 2 * self.same_class - self.all


def kernel_densities(
    factors: Sequence[NDArray[np.float32]],
    labels: NDArray[np.int64],
    *,
    bandwidth: float | None = None,
    device: str = "cpu",
) -> Densities:
    """Kernel densities of all examples among each other.

    Cost: n^2 (d + 1) multiplications and n^2 / 2 exponentials; memory about four times
    the points, and a few blocks. Float32 products, float64 sums: at the default bandwidth points
    have densities within 1e-5 of those in float64; outer products are not centred, and lose digits
    far from the origin.

    Args:
        factors: one array of points (n, d), or several (n, d_i) that stand for outer products.
        labels: (n,) int64.
        bandwidth: h > 0; default half the mean distance, of 10,000 evenly spaced examples where
            there are more. Where all examples are the same it is 0, and every kernel 1.
        device: where to compute.

    Raises:
        DataError: if lengths differ or a value is not finite.
        UsageError: for a bandwidth that is not positive.
    """
    for factor in factors:
        check_same_length(labels=labels, factor=factor)
        check_finite(factor, "points")
    if bandwidth is not None and not 0 < bandwidth < float("inf"):
        raise UsageError(f"bandwidth must be positive and finite; got {bandwidth}")
    n = len(labels)
    order = np.argsort(labels, kind="stable")  # pairs of one class then lie in few blocks
    place = torch.device(device)
    with full_float32(place), torch.no_grad():
        parts = _centred([torch.from_numpy(factor[order]).to(place) for factor in factors])
        unit = _rescale(parts)  # squares of very large or small values leave float32
        bandwidth = _mean_distance(parts) / 2 if bandwidth is None else bandwidth / unit
        classes = torch.from_numpy(labels[order]).to(place)
        if bandwidth > 0:
            every, same = _sums(parts, classes, bandwidth)
        else:
            counts = np.bincount(labels, minlength=1)
            every = np.full(n, float(n))
            same = counts[labels[order]].astype(np.float64)
    result = np.empty((2, n))
    result[:, order] = np.stack([every, same]) / max(1, n)
    return Densities(result[0], result[1], float(bandwidth * unit))


def _centred(parts: list[Tensor]) -> list[Tensor]:
    """Points less their mean: the same distances, with fewer digits lost between large numbers."""
    if len(parts) > 1:
        return parts  # the mean of an outer product is none
    points = parts[0].float()
    return [points - points.mean(dim=0, dtype=torch.float64).float()]


def _rescale(parts: list[Tensor]) -> float:
    """Divide each factor by its largest value, in place; what a distance of one then was."""
    unit = 1.0
    for part in parts:
        largest = float(part.abs().max()) if part.numel() else 0.0
        if largest > 0:
            part /= largest
            unit *= largest
    return unit


def _lengths(parts: Sequence[Tensor]) -> Tensor:
    """Squared length of each example's vector."""
    squares = torch.stack([part.square().sum(dim=1) for part in parts])
    return squares.prod(dim=0)


def _blocks(n: int, device: torch.device) -> Iterator[slice]:
    size = _BLOCK if device.type == "cpu" else _BLOCK_CUDA
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _mean_distance(parts: Sequence[Tensor]) -> float:
    n = len(parts[0])
    if n > _SAMPLE:
        some = torch.linspace(0, n - 1, _SAMPLE, dtype=torch.float64).long()
        parts = [part[some.to(part.device)] for part in parts]
        n = _SAMPLE
    if n < 2:
        return 0.0
    lengths = _lengths(parts)
    total = torch.zeros((), dtype=torch.float64, device=lengths.device)
    blocks = list(_blocks(n, lengths.device))
    for i, rows in enumerate(blocks):
        for columns in blocks[i:]:
            squares = lengths[rows, None] + lengths[columns] - 2 * _products(parts, rows, columns)
            distances = squares.clamp_(min=0).sqrt_()
            if columns == rows:  # of an example with itself rounding leaves more than nothing
                distances.fill_diagonal_(0)
                total += distances.sum(dtype=torch.float64)
            else:
                total += 2 * distances.sum(dtype=torch.float64)
    return float(total) / (n * (n - 1))


def _products(parts: Sequence[Tensor], rows: slice, columns: slice) -> Tensor:
    product = parts[0][rows] @ parts[0][columns].T
    for part in parts[1:]:
        product *= part[rows] @ part[columns].T
    return product


def _sums(
    parts: Sequence[Tensor], classes: Tensor, bandwidth: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of each example's kernel with all, and with those of its class; classes are sorted."""
    scale = (2**0.5 / bandwidth) ** (1 / len(parts))
    parts = [part * scale for part in parts]
    halves = _lengths(parts) / 2  # of the exponent: the product less both halves
    n, device = len(classes), classes.device
    every = torch.zeros(n, dtype=torch.float64, device=device)
    same = torch.zeros_like(every)
    edges = classes.cpu().numpy()
    blocks = list(_blocks(n, device))
    for i, rows in enumerate(blocks):
        for columns in blocks[i:]:
            exponent = _products(parts, rows, columns)
            exponent -= halves[rows, None]
            exponent -= halves[columns]
            kernel = exponent.clamp_(max=0).exp_()
            if columns == rows:
                kernel.fill_diagonal_(1)  # what rounding makes of it matters where h is small
            _add(every, kernel, rows, columns)
            if edges[rows.stop - 1] >= edges[columns.start]:
                kernel *= classes[rows, None] == classes[columns]
                _add(same, kernel, rows, columns)
    return every.cpu().numpy(), same.cpu().numpy()


def _add(totals: Tensor, kernel: Tensor, rows: slice, columns: slice) -> None:
    totals[rows] += kernel.sum(dim=1).double()
    if columns != rows:
        totals[columns] += kernel.sum(dim=0).double()
