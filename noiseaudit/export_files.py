"""A cleaned data set in one file, as its source has it: whatever else is there stays."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import write_npz
from noiseaudit.cleaned import Cleaned
from noiseaudit.errors import DataError, OutputError
from noiseaudit.sources.examples import SPLITS
from noiseaudit.sources.table import read_table

__all__ = ["write_index", "write_npz_like", "write_table"]


def write_table(cleaned: Cleaned, path: Path) -> str:
    """A .csv or .parquet; returns its name.

    From a table of the same kind: its rows as they stand, but for new labels and for paths, which
    become absolute. From pictures: path, label and split.

    Raises:
        DataError: if pyarrow is needed and missing, a name is not UTF-8, or lines of a .csv cannot
            be told apart.
        OutputError: if it cannot be written.
    """
    kinds = (Path(cleaned.source).suffix.lower(), path.suffix)
    try:
        if kinds == (".csv", ".csv"):
            _csv_from_csv(cleaned, path)
        elif kinds == (".parquet", ".parquet"):
            _parquet_from_parquet(cleaned, path)
        else:
            _from_frame(cleaned, path)
    except ImportError as error:
        raise DataError(
            "reading and writing .parquet needs pyarrow: pip install 'noiseaudit[parquet]'"
        ) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"a file name is not UTF-8 ({error.object!r}): use --format folder"
        ) from error
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path.name


def _csv_from_csv(cleaned: Cleaned, path: Path) -> None:
    with Path(cleaned.source).open(encoding="utf-8-sig", newline="") as file:
        read = csv.reader(file)
        header, *rows = [row for row in read if len(row) > 1 or "".join(row).strip()]
    if len(rows) != len(cleaned.examples.labels):
        raise DataError(
            f"{cleaned.source} has {len(rows):,} rows, of which {len(cleaned.examples.labels):,} "
            "were audited: remove lines that are almost empty, and audit it again"
        )
    label = header.index(cleaned.label_column)
    place = None if cleaned.examples.sources is None else header.index(cleaned.path_column)
    written = cleaned.values_as_written([row[label] for row in rows])
    paths = [] if place is None else cleaned.paths
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for i, row in enumerate(cleaned.rows.tolist()):
            cells = rows[row].copy()
            cells[label] = written[i]
            if place is not None:
                cells[place] = str(paths[i])
            writer.writerow(cells)


def _parquet_from_parquet(cleaned: Cleaned, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = pq.read_table(cleaned.source)
    table = whole.take(cleaned.rows)

    def put(table: Any, name: str, values: list[Any]) -> Any:
        number = table.column_names.index(name)
        kind = table.schema.field(number)
        return table.set_column(number, kind, pa.array(values, type=kind.type))

    if cleaned.is_relabelled.any():
        labels = whole.column(cleaned.label_column).to_pylist()
        table = put(table, cleaned.label_column, cleaned.values_as_written(labels))
    if cleaned.examples.sources is not None:
        table = put(table, cleaned.path_column, [str(item) for item in cleaned.paths])
    pq.write_table(table, path)


def _from_frame(cleaned: Cleaned, path: Path) -> None:
    import pandas as pd

    source = Path(cleaned.source)
    if source.suffix.lower() in (".csv", ".parquet"):
        whole = read_table(source, (cleaned.label_column, cleaned.path_column))
        frame = whole.iloc[cleaned.rows].copy()
        frame[cleaned.label_column] = cleaned.values_as_written(
            whole[cleaned.label_column].tolist()
        )
        if cleaned.examples.sources is not None:
            frame[cleaned.path_column] = [str(item) for item in cleaned.paths]
    else:
        frame = pd.DataFrame({"path": [str(item) for item in cleaned.paths]})
        frame["label"] = cleaned.labels
        if cleaned.split is not None:
            frame["split"] = cleaned.split
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, engine="pyarrow", index=False)


def write_npz_like(cleaned: Cleaned, path: Path) -> str:
    """An .npz; returns its name.

    From an .npz: its own arrays, those with a row for each example cut alike, labels written as
    they are there. From anything else `x`, `y` and `class_names`, or `x_train`, `y_train` and so on
    where there are splits; pictures at the size they were audited at.

    Raises:
        DataError: if an example can no longer be read.
    """
    stored = cleaned.npz_path
    arrays = _decoded(cleaned) if stored is None else _cut(cleaned, stored)
    write_npz(path, arrays)
    return path.name


def _cut(cleaned: Cleaned, stored: Path) -> dict[str, NDArray[Any]]:
    with np.load(stored, allow_pickle=False) as file:
        names = file.files
        ends = [f"_{name}" for name in SPLITS if f"y_{name}" in names] if "y" not in names else [""]
        found: dict[str, NDArray[Any]] = {}
        start = 0
        for end in ends:
            labels = file[f"y{end}"]
            n = len(labels)
            inside = (cleaned.rows >= start) & (cleaned.rows < start + n)
            rows = cleaned.rows[inside] - start
            for name in names:
                own = name.endswith(end) if end else True
                if own and name not in found and file[name].shape[:1] == (n,):
                    found[name] = file[name][rows]
            start += n
            found[f"y{end}"] = _stored_labels(cleaned, inside, file, ends)
        left = {name: file[name] for name in names if name not in found}
    return {**found, **left}


def _stored_labels(
    cleaned: Cleaned, inside: NDArray[np.bool_], file: Any, ends: list[str]
) -> NDArray[Any]:
    """Labels of the kept rows of one part, those with a new one as that class is stored."""
    flat = np.concatenate([file[f"y{end}"].reshape(len(file[f"y{end}"]), -1) for end in ends])
    values = cleaned.values_as_written(list(range(len(flat))))
    shape = file[f"y{ends[0]}"].shape[1:]
    return np.asarray(flat[np.array(values, dtype=np.int64)[inside]].reshape(-1, *shape))


def _decoded(cleaned: Cleaned) -> dict[str, NDArray[Any]]:
    names = {name: code for code, name in enumerate(cleaned.examples.class_names)}
    codes = np.array([names[label] for label in cleaned.labels.tolist()], dtype=np.int64)
    inputs = cleaned.examples.read(cleaned.rows)
    if inputs.reasons:
        sources, row = cleaned.examples.sources, int(cleaned.rows[min(inputs.reasons)])
        which = row if sources is None else repr(str(sources[row]))
        raise DataError(f"{len(inputs.reasons)} examples cannot be read, as {which}")
    arrays: dict[str, NDArray[Any]] = {}
    if cleaned.split is None:
        arrays = {"x": inputs.array, "y": codes}
    else:
        for name in dict.fromkeys(cleaned.split.tolist()):
            own = cleaned.split == name
            arrays |= {f"x_{name}": inputs.array[own], f"y_{name}": codes[own]}
    arrays["class_names"] = np.array(cleaned.examples.class_names, dtype=str)
    return arrays


def write_index(cleaned: Cleaned, path: Path) -> str:
    """A .csv of sample ids, paths, labels and splits, as they are, for a loader of one's own."""
    path = path.with_suffix(".csv")
    sources, split = cleaned.examples.sources, cleaned.split
    lines = (
        [
            row, "" if sources is None else sources[row], label, "" if split is None else split[i]
        ]
        for i, (row, label) in enumerate(zip(cleaned.rows, cleaned.labels, strict=True))
    )  # fmt: skip
    # Not `write_csv`: what it puts before a formula would be part of a path or a label here.
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["sample_id", "source", "label", "split"])
        writer.writerows(lines)
    return path.name
