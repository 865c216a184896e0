"""Pure label flips: labels in, labels out. Free for anything to use; no answer key is kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noiseaudit._validation import check_labels
from noiseaudit.errors import UsageError
from noiseaudit.seeding import generator

__all__ = ["flip_uniform"]


def flip_uniform(
    labels: NDArray[np.int64], num_classes: int, rate: float, *, seed: int
) -> NDArray[np.int64]:
    """Flip a share of every class to another class, drawn uniformly from the other k - 1.

    Exactly `round(rate * count)` labels of each class change, and each changed label differs
    from what it was.

    Args:
        labels: (n,) int64 in [0, num_classes).
        num_classes: k, at least 2.
        rate: in [0, 1].
        seed: of which examples are flipped, and to what.

    Raises:
        UsageError: if the rate is outside [0, 1] or there are fewer than two classes.
        DataError: if labels are not in range.
    """
    if not 0 <= rate <= 1:
        raise UsageError(f"rate must be in [0, 1]; got {rate}")
    if num_classes < 2:
        raise UsageError(f"num_classes must be at least 2; got {num_classes}")
    labels = check_labels(labels, num_classes)
    random = generator(seed, "flip-uniform")
    flipped = labels.copy()
    for label in range(num_classes):
        rows = np.flatnonzero(labels == label)
        chosen = random.permutation(rows)[: round(rate * len(rows))]
        flipped[chosen] = (label + random.integers(1, num_classes, len(chosen))) % num_classes
    return flipped
