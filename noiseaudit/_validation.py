"""Checks at the public boundary: each says what, which, expected and got, and the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._rows import row_blocks
from noiseaudit.errors import DataError

__all__ = [
    "check_finite",
    "check_ids",
    "check_labels",
    "check_same_length",
    "find_rows",
    "first_rows",
]


def first_rows(bad: NDArray[np.bool_], limit: int = 3) -> str:
    """Where a mask is true, for an error message: "12 rows, first 3, 8, 21"."""
    rows = np.flatnonzero(bad)
    shown = ", ".join(str(row) for row in rows[:limit])
    return f"{len(rows)} row{'s' if len(rows) != 1 else ''}, first {shown}"


def check_same_length(**arrays: Any) -> int:
    """The common length of the arrays named.

    Raises:
        DataError: if their lengths differ.
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise DataError(f"lengths differ: {told}; there must be one of each per example")
    return next(iter(lengths.values()))


def check_labels(labels: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Labels as (n,) int64 in [0, num_classes).

    Raises:
        DataError: if they are not one-dimensional integers in that range.
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        raise DataError(f"labels must be one-dimensional; got shape {array.shape}")
    if len(array) and array.dtype.kind not in "iu":
        raise DataError(f"labels must be integers in [0, {num_classes}); got dtype {array.dtype}")
    outside = (array < 0) | (array >= num_classes)
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise DataError(
            f"labels must be in [0, {num_classes}); got {int(outside.sum())} outside, "
            f"first {array[row]} at row {row}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def check_ids(ids: ArrayLike) -> NDArray[np.int64]:
    """Ids as (n,) int64, each used once.

    Raises:
        DataError: if they are not integers, or one occurs twice.
    """
    array = np.asarray(ids)
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
        raise DataError(
            f"ids must be one-dimensional integers; got shape {array.shape}, dtype {array.dtype}"
        )
    values, first, counts = np.unique(array, return_index=True, return_counts=True)
    if (counts > 1).any():
        worst = int(np.flatnonzero(counts > 1)[0])
        raise DataError(
            f"ids must be unique; {int((counts > 1).sum())} occur more than once, "
            f"first {values[worst]} at row {first[worst]}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def find_rows(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of `wanted` is in `ids`, whose values are unique.

    Raises:
        DataError: if one is not there.
    """
    absent = ~np.isin(wanted, ids)
    if absent.any():
        raise DataError(f"unknown sample ids in {first_rows(absent)}: {wanted[absent][0]}")
    by_id = np.argsort(ids)
    rows: NDArray[np.int64] = by_id[np.searchsorted(ids[by_id], wanted)]
    return rows


def check_finite(array: NDArray[Any], what: str, way_out: str = "") -> None:
    """Check that a (n, ...) float array holds neither NaN nor infinity.

    Raises:
        DataError: with the number of rows touched and the first of them.
    """
    if array.dtype.kind != "f":
        return
    bad = np.zeros(len(array), dtype=bool)
    for rows in row_blocks(len(array), array[:1].size):
        part = array[rows]
        bad[rows] = ~np.isfinite(part).reshape(len(part), -1).all(axis=1)
    if bad.any():
        hint = f"; {way_out}" if way_out else ""
        raise DataError(f"{what} must be finite; NaN or infinity in {first_rows(bad)}{hint}")
