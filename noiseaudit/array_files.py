"""Arrays that a user names by a file: .npy, .npz#KEY, .csv or .csv#COLUMN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._io import NPZ_ERRORS
from noiseaudit.errors import DataError, UsageError

__all__ = ["array_or_file", "read_array"]


def array_or_file(value: ArrayLike | Path, what: str) -> NDArray[Any]:
    """The values themselves, or those in the file that `value` names; see `read_array`."""
    return read_array(value, what)[0] if isinstance(value, str | Path) else np.asarray(value)


def read_array(spec: str | Path, what: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The array in FILE or FILE#KEY, and the `clean_label` beside it in an .npz.

    Args:
        spec: the file; without a key, an .npz gives its array called `what`, or its only one.
        what: "labels" for a column of a .csv with a header; anything else for a matrix without.

    Raises:
        DataError: if the file cannot be read.
        UsageError: if it holds several arrays and none is named.
    """
    name, mark, key = str(spec).rpartition("#")
    path, key = (Path(name), key) if mark and not Path(spec).exists() else (Path(spec), "")
    try:
        if path.suffix.lower() == ".csv":
            return _read_csv(path, key, what), None
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return stored, None
        with stored:
            names = stored.files
            usual = what if what in names else names[0] if len(names) == 1 else ""
            if (key or usual) in names:
                return stored[key or usual], stored.get("clean_label")
    except NPZ_ERRORS as error:
        raise DataError(
            f"{what} cannot be read from {spec}; expected .npy, .npz#KEY or .csv: {error}"
        ) from error
    found = f"not {key!r}" if key else "several"
    raise UsageError(f"{path} holds {found}: {', '.join(names)}; write {path}#KEY")


def _read_csv(path: Path, column: str, what: str) -> NDArray[Any]:
    """A matrix without header, or one column of labels: the one named, "label", or the only."""
    if what != "labels":
        return np.loadtxt(path, delimiter=",", ndmin=2)
    import pandas as pd

    table = pd.read_csv(path, keep_default_na=False)  # "NA" may be a class
    chosen = column or (str(table.columns[0]) if len(table.columns) == 1 else "label")
    if chosen not in table:
        raise ValueError(f"no column {chosen!r} among {', '.join(map(str, table.columns))}")
    return np.asarray(table[chosen])
