"""How many labels can be flagged while a wanted share of them is expected to be wrong."""

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
    """(n,) the most examples, most probable first, whose mean `p_error` is at least `precision`.

    Examples of one probability stay together.

    Raises:
        UsageError: for a precision outside (0, 1].
    """
    check_precision(precision)
    order = np.argsort(-p_error, kind="stable")
    sorted_p = p_error[order]
    means = np.cumsum(sorted_p) / np.arange(1, len(order) + 1)
    ends = np.append(sorted_p[1:] != sorted_p[:-1], True)
    enough = np.flatnonzero(ends & (means >= precision - 1e-12))
    flagged = np.zeros(len(order), dtype=bool)
    if len(enough):
        flagged[order[: enough[-1] + 1]] = True
    return flagged
