"""Pictures as short vectors, by which they are compared where there is no encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._rows import spread_rows

__all__ = ["picture_vectors", "shrink_pictures"]

_SIDE = 32
_DIMENSIONS = 64
_SAMPLE = 5_000
_BLOCK = 1_000


def shrink_pictures(inputs: NDArray[Any]) -> NDArray[np.float32]:
    """(n, d) float32 in [0, 1] of (n, h, w) or (n, h, w, c) uint8: at most 32 pixels a side.

    Blocks of pixels are averaged; what is left over at the right and below is cut off.
    """
    n, height, width = inputs.shape[:3]
    rows, columns = -(-height // _SIDE), -(-width // _SIDE)  # of one block
    tall, wide = height // rows, width // columns
    vectors = np.empty((n, tall * wide * (inputs.size // max(1, n * height * width))), np.float32)
    for start in range(0, n, _BLOCK):
        part = inputs[start : start + _BLOCK, : tall * rows, : wide * columns]
        blocks = part.reshape(len(part), tall, rows, wide, columns, -1)
        means = blocks.mean(axis=(2, 4), dtype=np.float32) / 255
        vectors[start : start + _BLOCK] = means.reshape(len(part), -1)
    return vectors


def picture_vectors(inputs: NDArray[Any]) -> NDArray[np.float32]:
    """(n, d) float32, whose cosines are nearly those of the pictures.

    Pictures are shrunk and projected on the 64 leading singular vectors, not centred, of 5,000 of
    them; where there are at most 64 pictures, or numbers in one, they are only shrunk. Cost: 64 n
    times the number of shrunk pixels; memory for 64 n numbers.

    Args:
        inputs: (n, h, w) or (n, h, w, c) uint8; may be memory-mapped.
    """
    from sklearn.decomposition import TruncatedSVD

    n = len(inputs)
    sample = shrink_pictures(inputs[spread_rows(n, _SAMPLE)])
    if min(sample.shape) <= _DIMENSIONS:
        return shrink_pictures(inputs)
    projection = TruncatedSVD(_DIMENSIONS, random_state=0).fit(sample).components_.T
    found = np.empty((n, _DIMENSIONS), np.float32)
    for start in range(0, n, _BLOCK):
        rows = slice(start, start + _BLOCK)
        found[rows] = shrink_pictures(inputs[rows]) @ projection
    return found
