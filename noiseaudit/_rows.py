"""Which rows of large arrays are looked at: a few of all, all in blocks, the best two of each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["row_blocks", "spread_rows", "two_best"]


def spread_rows(n: int, count: int) -> NDArray[np.int64]:
    """`count` rows of n, evenly spaced, each once; all where there are no more."""
    return np.unique(np.linspace(0, n - 1, min(n, count)).astype(np.int64))


def row_blocks(n: int, width: int, elements: int = 2**24) -> list[slice]:
    """Slices over n rows of `width` numbers, at most `elements` in each but at least one row."""
    step = max(1, elements // max(1, width))
    return [slice(start, min(n, start + step)) for start in range(0, n, step)]


def two_best(
    pred_probs: NDArray[Any], labels: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """The probability of the given label, the likeliest other class and its probability.

    Args:
        pred_probs: (n, k) float in [0, 1]; may be memory-mapped.
        labels: (n,) int64 in [0, k), given labels.

    Returns:
        (n,) float64, int64 and float64. Of a single class the other one is that, of probability -1.
    """
    n, k = pred_probs.shape
    mine, theirs = np.empty((2, n))
    other = np.empty(n, dtype=np.int64)
    for rows in row_blocks(n, k):
        part = np.array(pred_probs[rows])
        own = np.arange(len(part)), labels[rows]
        mine[rows] = part[own]
        part[own] = -1
        other[rows] = part.argmax(axis=1)
        theirs[rows] = part.max(axis=1)
    return mine, other, theirs
