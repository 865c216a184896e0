"""What ridge regression is fitted on: standardised features, or a Gaussian kernel of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from noiseaudit._rows import row_blocks, spread_rows
from noiseaudit._validation import check_finite
from noiseaudit.errors import UsageError

__all__ = ["RidgeFeatures", "Rows", "make_features", "standardise"]

_BLOCK_ELEMENTS = 2**22
_LARGEST = 20_000  # rows of a Gram matrix: 3.2 GB, and as much again while it is decomposed
_SAMPLE = 2000  # examples whose distances give the kernel's width
_WHITENING_TOLERANCE = 1e-6  # of the largest eigenvalue; its inverse multiplies rounding errors

Rows = Callable[[slice], NDArray[np.float64]]
"""A slice of examples to their features, (b, m)."""


@dataclass(frozen=True, eq=False)
class RidgeFeatures:
    """Either rows of features, or the Gram matrix of all examples where that is smaller.

    Attributes:
        n: examples.
        rows: a slice of examples to (b, m) float64 features.
        width: m.
        whitening: (m, r) float64 that rows are multiplied with, None for the identity.
        gram: (n, n) float64 inner products instead of rows.
    """

    n: int
    rows: Rows
    width: int
    whitening: NDArray[np.float64] | None = None
    gram: NDArray[np.float64] | None = None

    def blocks(self) -> list[slice]:
        """Slices over all examples, a few tens of megabytes of rows each."""
        return row_blocks(self.n, self.width, _BLOCK_ELEMENTS)


def make_features(
    features: NDArray[Any], kernel: Literal["linear", "rbf"], landmarks: int
) -> RidgeFeatures:
    """Features of (n, d) numbers, as `noiseaudit.ridge.leave_one_out` describes them.

    Raises:
        DataError: for values that are not finite.
        UsageError: if a linear kernel would need a Gram matrix of more than 20,000 rows.
    """
    n, d = features.shape
    if kernel == "linear" and _LARGEST < n <= d:
        raise UsageError(
            f"a linear kernel of {n:,} examples with {d:,} features takes a matrix of "
            f"{n:,} x {n:,}; use the rbf kernel, or fewer features"
        )
    check_finite(features, "features")
    rows = standardise(features)
    if kernel == "rbf":
        return _gaussian(rows, n, d, landmarks)
    if n > d:
        return RidgeFeatures(n, rows, d)
    gram = np.zeros((n, n))
    for start in range(0, d, step := max(1, _BLOCK_ELEMENTS // n)):
        part = standardise(features[:, start : start + step])(slice(None))
        gram += part @ part.T
    return RidgeFeatures(n, rows, d, gram=gram)


def standardise(features: NDArray[Any]) -> Rows:
    """Rows of (n, d) numbers with mean 0 and deviation 1 in every column, 0 in constant ones."""
    n, d = features.shape
    total, squares = np.zeros(d), np.zeros(d)
    lowest, highest = np.full(d, np.inf), np.full(d, -np.inf)
    for block in row_blocks(n, d, _BLOCK_ELEMENTS):
        part = np.asarray(features[block], np.float64)
        total += part.sum(axis=0)
        lowest = np.minimum(lowest, part.min(axis=0, initial=np.inf))
        highest = np.maximum(highest, part.max(axis=0, initial=-np.inf))
    mean = total / n
    for block in row_blocks(n, d, _BLOCK_ELEMENTS):
        squares += np.square(np.asarray(features[block], np.float64) - mean).sum(axis=0)
    # The deviation of a constant column is a rounding error, not 0.
    varies = (highest > lowest) & (squares > 0)
    scale = np.divide(1.0, np.sqrt(squares / n), out=np.zeros(d), where=varies)
    return lambda block: (np.asarray(features[block], np.float64) - mean) * scale


def _squared_distances(
    rows: NDArray[np.float64], others: NDArray[np.float64]
) -> NDArray[np.float64]:
    found = rows @ others.T
    found *= -2
    found += np.square(rows).sum(axis=1)[:, None]
    found += np.square(others).sum(axis=1)
    return np.maximum(found, 0, out=found)  # of identical examples it is rounding, either sign


def _take(rows: Rows, wanted: NDArray[np.int64], d: int) -> NDArray[np.float64]:
    taken = np.empty((len(wanted), d))
    for place, row in enumerate(wanted):
        taken[place] = rows(slice(row, row + 1))
    return taken


def _gaussian(rows: Rows, n: int, d: int, landmarks: int) -> RidgeFeatures:
    """Nystroem features of a Gaussian kernel (Williams & Seeger, 2001), or its Gram matrix."""
    sample = _take(rows, spread_rows(n, _SAMPLE), d)
    distances = _squared_distances(sample, sample)
    median = float(np.median(distances[np.triu_indices(len(sample), 1)]))
    # Where most examples are copies of one the median says nothing.
    width = median if median > 0 else float(distances.mean()) or 1.0
    chosen = _take(rows, spread_rows(n, landmarks), d)
    among = np.exp(_squared_distances(chosen, chosen) / -width)
    if len(chosen) == n:
        return RidgeFeatures(n, rows, d, gram=among)
    values, vectors = np.linalg.eigh(among)
    kept = values > _WHITENING_TOLERANCE * values[-1]
    # Float32: what is rounded is the feature, the same at every use.
    kernel = np.empty((n, len(chosen)), np.float32)
    for block in row_blocks(n, max(d, len(chosen)), _BLOCK_ELEMENTS):
        kernel[block] = np.exp(_squared_distances(rows(block), chosen) / -width)
    return RidgeFeatures(
        n,
        lambda block: kernel[block].astype(np.float64),
        len(chosen),
        whitening=vectors[:, kept] / np.sqrt(values[kept]),
    )
