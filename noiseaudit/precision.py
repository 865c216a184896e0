"""Which labels to flag: each is wrong with at least the probability that is wanted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import UsageError

__all__ = ["check_precision", "flag_at_precision"]


def check_precision(precision: float) -> None:
    """Refuse a precision outside (0, 1] with a UsageError."""
    if not 0 < precision <= 1:
        raise UsageError(f"precision must be in (0, 1]; got {precision:g}")


def flag_at_precision(p_error: NDArray[np.float64], precision: float) -> NDArray[np.bool_]:
    """(n,) bool: every example that is wrong with at least that probability.

    Fewer than could be flagged if all together were to reach it on average: but where
    probabilities are off, the precision wanted is reached far more often
    (`benchmarks/noise_rate.py`).

    Raises:
        UsageError: for a precision outside (0, 1].
    """
    check_precision(precision)
    return np.asarray(p_error >= precision - 1e-12)
