"""A cleaned data set, written beside the source: class folders, a table, an .npz or an index."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import write_csv, write_npz
from noiseaudit.errors import DataError, OutputError, UsageError, check_name
from noiseaudit.sources.examples import Examples

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "LINKS", "Cleaned", "choose_format", "write_cleaned"]

FORMATS = ("folder", "csv", "parquet", "npz", "index")
LINKS = ("copy", "hard", "symlink")


@dataclass(frozen=True, eq=False)
class Cleaned:
    """What is to be written.

    Attributes:
        examples: the whole source.
        rows: (m,) int64 positions in it that stay, in source order.
        labels: (m,) their class names.
        source: where the source lies: a file or folder, or a name.
        label_column: of a table.
        path_column: of a table.
    """

    examples: Examples
    rows: NDArray[np.int64]
    labels: NDArray[np.object_]
    source: str
    label_column: str = "label"
    path_column: str = "path"

    @property
    def is_relabelled(self) -> NDArray[np.bool_]:
        """(m,) bool, whether the class is not the given one."""
        names = np.array(self.examples.class_names, dtype=object)
        return np.asarray(names[self.examples.labels[self.rows]] != self.labels)

    @property
    def paths(self) -> list[Path]:
        """Where the pictures that stay lie, absolute.

        Raises:
            UsageError: if the examples are no files.
        """
        if self.examples.sources is None or self.examples.root is None:
            raise UsageError("the examples of this source are no files: use --format npz or index")
        root = self.examples.root
        return [root / source for source in self.examples.sources[self.rows].tolist()]

    @property
    def split(self) -> NDArray[np.str_] | None:
        """(m,) or None."""
        return None if self.examples.split is None else self.examples.split[self.rows]


def choose_format(name: str | None, source: str, examples: Examples) -> str:
    """The format asked for, or that of the source: folder, csv, parquet, else npz.

    Raises:
        UsageError: if the format does not exist, or the source cannot be written in it.
    """
    suffix = Path(source).suffix.lower().removeprefix(".")
    usual = suffix if suffix in ("csv", "parquet") else "npz"
    usual = "folder" if examples.sources is not None and suffix not in FORMATS else usual
    if name is None:
        return usual
    check_name(name, FORMATS, "format")
    if name in ("csv", "parquet") and examples.sources is None and usual not in ("csv", "parquet"):
        raise UsageError(f"{name} is for tables and pictures: use --format npz or index")
    if name == "folder" and examples.sources is None:
        raise UsageError("folder is for pictures: use --format npz or index")
    return name


def write_cleaned(cleaned: Cleaned, kind: str, folder: Path, link: str = "copy") -> dict[str, int]:
    """Write the cleaned data set into an empty folder; the source is only read.

    Args:
        cleaned: what.
        kind: one of `FORMATS`.
        folder: where to.
        link: of pictures in class folders: "copy", "hard" or "symlink".

    Returns:
        The written path of each example's file, relative to `folder`, and its sample id; -1 for one
        that holds many examples.

    Raises:
        DataError: if a file of the source cannot be read, or a class cannot be a folder's name.
        OutputError: if something cannot be written.
    """
    check_name(link, LINKS, "link")
    if kind == "folder":
        return _write_folder(cleaned, folder, link)
    writers: Mapping[str, Callable[[Cleaned, Path], str]] = {
        "csv": _write_table, "parquet": _write_table, "npz": _write_npz, "index": _write_index,
    }  # fmt: skip
    return {writers[kind](cleaned, folder / f"cleaned.{kind}"): -1}


def _write_folder(cleaned: Cleaned, folder: Path, link: str) -> dict[str, int]:
    written: dict[str, int] = {}
    paths = cleaned.paths
    sources: list[str] = np.asarray(cleaned.examples.sources)[cleaned.rows].tolist()
    is_class_folder = Path(cleaned.source).is_dir()
    changed = cleaned.is_relabelled
    for i in np.argsort(changed, kind="stable"):  # what keeps its class keeps its name
        row, label, own = int(cleaned.rows[i]), cleaned.labels[i], PurePosixPath(sources[i])
        split = cleaned.examples.split
        if is_class_folder:
            depth = 0 if split is None else 1
            above, inside = own.parts[:depth], own.parts[depth + 1 :]
            place = PurePosixPath(*above, label, *inside) if changed[i] else own
        else:
            above = () if split is None else (str(split[row]),)
            place = PurePosixPath(*above, _folder_name(label), own.name)
        if str(place) in written:
            place = place.with_name(f"{place.stem}__{row}{place.suffix}")
        _place_file(paths[i], folder / place, link)
        written[str(place)] = row
    return written


def _folder_name(label: str) -> str:
    if label in ("", ".", "..") or label.startswith(".") or set(label) & set("/\\\0"):
        raise DataError(f"class {label!r} cannot be the name of a folder: use --format csv")
    return label


def _place_file(source: Path, place: Path, link: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if link == "copy":
            shutil.copy2(source, place)
        elif link == "hard":
            os.link(source.resolve(), place)
        else:
            place.symlink_to(source.resolve())
    except OSError as error:
        hint = "; use --link copy" if link != "copy" else ""
        raise OutputError(
            f"{source} cannot be placed at {place}: {error.strerror}{hint}"
        ) from error


def _write_table(cleaned: Cleaned, path: Path) -> str:
    """The source's own table without the removed rows, or one of paths, labels and splits."""
    import pandas as pd

    source = Path(cleaned.source)
    if source.suffix.lower() in (".csv", ".parquet"):
        whole = _read_as_written(source)
        frame = whole.iloc[cleaned.rows].copy()
        column = frame[cleaned.label_column].tolist()
        first = {int(code): row for row, code in reversed([*enumerate(cleaned.examples.labels)])}
        code_of = {name: code for code, name in enumerate(cleaned.examples.class_names)}
        for i in np.flatnonzero(cleaned.is_relabelled):  # as the class is written elsewhere
            column[i] = whole[cleaned.label_column].iloc[first[code_of[cleaned.labels[i]]]]
        frame[cleaned.label_column] = pd.Series(
            column, frame.index, whole[cleaned.label_column].dtype
        )
        if cleaned.examples.sources is not None:  # relative to the source's folder until now
            frame[cleaned.path_column] = [str(item) for item in cleaned.paths]
    else:
        frame = pd.DataFrame({"path": [str(item) for item in cleaned.paths]})
        frame["label"] = cleaned.labels
        if cleaned.split is not None:
            frame["split"] = cleaned.split
    try:
        if path.suffix == ".csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_parquet(path, engine="pyarrow", index=False)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error
    return path.name


def _read_as_written(path: Path) -> pd.DataFrame:
    """Cells of a .csv as texts: nothing is rounded or taken for missing."""
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        frame: pd.DataFrame = pd.read_parquet(path, engine="pyarrow").reset_index(drop=True)
        return frame
    return pd.read_csv(
        path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
    )


def _write_npz(cleaned: Cleaned, path: Path) -> str:
    """`x`, `y` and `class_names`, or `x_train`, `y_train` and so on where there are splits."""
    names = {name: code for code, name in enumerate(cleaned.examples.class_names)}
    codes = np.array([names[label] for label in cleaned.labels.tolist()], dtype=np.int64)
    inputs = cleaned.examples.read(cleaned.rows)
    if inputs.reasons:
        raise DataError(f"{len(inputs.reasons)} examples can no longer be read")
    arrays: dict[str, NDArray[Any]] = {}
    if cleaned.split is None:
        arrays = {"x": inputs.array, "y": codes}
    else:
        for name in dict.fromkeys(cleaned.split.tolist()):
            own = cleaned.split == name
            arrays |= {f"x_{name}": inputs.array[own], f"y_{name}": codes[own]}
    arrays["class_names"] = np.array(cleaned.examples.class_names, dtype=str)
    write_npz(path, arrays)
    return path.name


def _write_index(cleaned: Cleaned, path: Path) -> str:
    """A .csv of sample ids, paths, labels and splits: what any loader of one's own can follow."""
    path = path.with_suffix(".csv")
    sources, split = cleaned.examples.sources, cleaned.split
    rows = (
        [
            int(row), "" if sources is None else str(sources[row]), str(label),
            "" if split is None else str(split[i]),
        ]
        for i, (row, label) in enumerate(zip(cleaned.rows, cleaned.labels, strict=True))
    )  # fmt: skip
    write_csv(path, ["sample_id", "source", "label", "split"], rows)
    return path.name
