"""A cleaned data set, written beside the source: class folders, a table, an .npz or an index."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from noiseaudit.cleaned import Cleaned
from noiseaudit.errors import DataError, OutputError, UsageError, check_name
from noiseaudit.export_files import write_index, write_npz_like, write_table
from noiseaudit.sources.examples import Examples

__all__ = ["FORMATS", "LINKS", "choose_format", "write_cleaned"]

FORMATS = ("folder", "csv", "parquet", "npz", "index")
LINKS = ("copy", "hard", "symlink")


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
        "csv": write_table, "parquet": write_table, "npz": write_npz_like, "index": write_index,
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
        while str(place) in written:
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
