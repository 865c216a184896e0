"""A .csv or .parquet file: labels beside image paths or numeric features."""

from __future__ import annotations

import difflib
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._validation import first_rows
from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
from noiseaudit.sources.arrays import as_vectors, refuse_image_size
from noiseaudit.sources.column_texts import MISSING
from noiseaudit.sources.columns import ColumnChoice, encode_columns
from noiseaudit.sources.examples import Examples, Inputs, PictureOptions, listed, split_name
from noiseaudit.sources.folder import picture_reader
from noiseaudit.sources.labels import encode_labels, encode_texts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["examples_from_table", "read_table"]

logger = logging.getLogger(__name__)

_SPLIT = "split"


def examples_from_table(
    path: Path,
    options: PictureOptions,
    *,
    label_column: str = "label",
    path_column: str = "path",
    feature_columns: Sequence[str] | None = None,
    drop_columns: Sequence[str] | None = None,
) -> Examples:
    """Examples from a table whose rows are one example each; ids are 0-based row numbers.

    With a column `path_column` the inputs are those pictures (paths relative to the table's folder,
    or absolute); without it, or if `feature_columns` are named, they are columns of numbers and
    categories: `encode_columns`. A column `split` whose values are all train, val or test is the
    split.

    Raises:
        DataError: if the file cannot be read, a column is missing, or labels or features are.
    """
    is_csv = path.suffix.lower() == ".csv"
    frame = read_table(path, (label_column, path_column, _SPLIT))
    columns = [str(column) for column in frame.columns]
    frame.columns = columns
    _require_column(label_column, columns, "label column", "--label-column")
    if path_column != "path":
        _require_column(path_column, columns, "path column", "--path-column")
    if len(frame) == 0:
        raise DataError("it has no rows")
    if len(set(columns)) < len(columns):
        raise DataError("two of its columns have the same name; rename one")
    if label_column == path_column:
        raise DataError(f"{label_column!r} cannot be the label column and the path column")
    labels = frame[label_column]
    if is_csv:
        codes, names = encode_texts(labels.tolist())
    else:
        codes, names = encode_labels(labels.to_numpy(dtype=object).tolist(), whole_floats=True)
    split = None if label_column == _SPLIT else _split(frame)
    others = [name for name in columns if name != label_column]
    others = [name for name in others if split is None or name != _SPLIT]
    if path_column in columns and feature_columns is None:
        if drop_columns is not None:
            raise UsageError(
                f"drop_columns is for features, and the inputs are pictures in {path_column!r}"
            )
        return _of_pictures(path, frame[path_column], (codes, names), split, options)
    choice = ColumnChoice(feature_columns, drop_columns, no_paths=path_column not in columns)
    return _of_features(path, frame[others], (codes, names), split, options, choice)


def read_table(path: Path, texts: tuple[str, ...]) -> pd.DataFrame:
    """A .csv, whose columns named in `texts` stay as written, or a .parquet.

    Raises:
        DataError: if it cannot be read.
    """
    return _read_csv(path, texts) if path.suffix.lower() == ".csv" else _read_parquet(path)


def _of_pictures(
    path: Path,
    column: pd.Series,
    labels: tuple[NDArray[np.int64], tuple[str, ...]],
    split: NDArray[np.str_] | None,
    options: PictureOptions,
) -> Examples:
    missing = column.isna().to_numpy(dtype=bool) | (column == "").to_numpy(dtype=bool)
    if missing.any():
        raise DataError(f"column {column.name!r} has no path in {first_rows(missing)}")
    sources = np.array([str(value) for value in column.tolist()], dtype=str)
    root = path.absolute().parent
    return Examples(
        *labels,
        picture_reader(root, sources, options),
        name=path.stem,
        split=split,
        sources=sources,
        root=root,
    )


def _of_features(
    path: Path,
    frame: pd.DataFrame,
    labels: tuple[NDArray[np.int64], tuple[str, ...]],
    split: NDArray[np.str_] | None,
    options: PictureOptions,
    choice: ColumnChoice,
) -> Examples:
    refuse_image_size(options)
    features = encode_columns(frame, labels[0], choice)
    return Examples(
        *labels,
        lambda rows: Inputs(as_vectors(features.matrix[rows])),
        name=path.stem,
        split=split,
        feature_names=features.names,
        columns=features.columns,
    )


def _split(frame: pd.DataFrame) -> NDArray[np.str_] | None:
    """The split of each row, or None where the column is absent or means something else."""
    if _SPLIT not in frame.columns:
        return None
    names = [split_name(value) if isinstance(value, str) else None for value in frame[_SPLIT]]
    if None not in names:
        return np.array(names, dtype=str)
    row = names.index(None)
    warnings.warn(
        f"column 'split' does not hold train, val or test only (row {row} has "
        f"{frame[_SPLIT].iloc[row]!r}): it is a column like any other",
        NoiseAuditWarning,
        stacklevel=2,
    )
    return None


def _require_column(name: str, columns: list[str], what: str, option: str) -> None:
    if name in columns:
        return
    near = difflib.get_close_matches(name.lower(), [c.lower() for c in columns], n=1, cutoff=0.6)
    similar = next((c for c in columns if near and c.lower() == near[0]), None)
    hint = f"did you mean {similar!r}? " if similar else ""
    if len(columns) == 1 and re.search(r"[;\t|]", columns[0]):
        hint = "the file seems to be separated by something else than commas; "
    raise DataError(
        f"there is no {what} {name!r}; {hint}it has {listed(columns, 20)} ({option} names another)"
    )


def _read_csv(path: Path, texts: tuple[str, ...]) -> pd.DataFrame:
    """The table; columns named in `texts` stay as written, so that a class may be called "NA"."""
    import pandas as pd

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            header = pd.read_csv(path, nrows=0, encoding="utf-8-sig", index_col=False)
            plain = [column for column in header.columns if column not in texts]
            return pd.read_csv(
                path,
                encoding="utf-8-sig",
                index_col=False,
                low_memory=False,
                dtype={column: object for column in header.columns if column in texts},
                keep_default_na=False,
                na_values={column: list(MISSING) for column in plain},
            )
    except pd.errors.EmptyDataError as error:
        raise DataError("it is empty") from error
    except UnicodeError as error:
        raise DataError(f"it is not UTF-8 text ({error}); save it as UTF-8") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError, OSError) as error:
        raise DataError(f"it cannot be read as CSV: {error}") from error


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        frame: Any = pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise DataError(
            "reading .parquet needs pyarrow, which is missing or too old here: "
            'pip install -U "noiseaudit[parquet]"'
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"it cannot be read as parquet: {error}") from error
    return frame.reset_index(drop=True)
