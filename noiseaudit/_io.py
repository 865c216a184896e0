"""Atomic writes: a file is there whole, or not at all."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import OutputError

__all__ = [
    "NPZ_ERRORS",
    "atomic_file",
    "csv_delimiter",
    "digest_stream",
    "make_folder",
    "read_json",
    "read_npz",
    "spreadsheet_safe",
    "write_csv",
    "write_json",
    "write_npy",
    "write_npz",
    "write_text",
]

NPZ_ERRORS = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile)
"""What np.load raises on a file that is not what it should be."""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def make_folder(folder: Path) -> Path:
    """Create `folder` and its parents.

    Raises:
        OutputError: if it cannot be created, is a file, or cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:
        raise OutputError(f"{folder} is a file; an output folder is needed") from error
    except OSError as error:
        raise OutputError(_explain(folder, error)) from error
    return folder


def _explain(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left while writing {path}: free some space and run the same command again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path} cannot be written ({error.strerror}): choose another output folder"
    return f"{path} cannot be written: {error.strerror or error}"


def digest_stream(file: io.BufferedReader) -> bytes:
    """16 bytes: BLAKE2b of the rest of an open binary file."""
    return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write to, renamed to `path` when the block ends well, else removed.

    Raises:
        OutputError: if the folder is not writable or the disk is full; `path` is then unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(_explain(path, error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; what UTF-8 cannot hold becomes a backslash escape."""
    with atomic_file(path) as file:
        file.write(text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; non-finite numbers are an error."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OutputError: if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read as JSON: {error}") from error


def write_npy(path: Path, array: NDArray[Any]) -> None:
    """Write an array of plain numbers to an .npy, atomically."""
    array = np.ascontiguousarray(array)
    with atomic_file(path) as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.data)  # ndarray.tofile does not say why a write failed


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to an uncompressed .npz, atomically; it loads with `allow_pickle=False`."""
    objects = [name for name, array in arrays.items() if array.dtype.hasobject]
    if objects:
        raise TypeError(f"arrays {objects} hold Python objects and would be pickled")
    with atomic_file(path) as file:
        np.savez(file, **dict(arrays))  # type: ignore[arg-type]  # numpy takes **kwds for its flag


def read_npz(path: Path, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read what `write_npz` wrote: all arrays, or those of these names.

    Raises:
        OutputError: if the file is missing or damaged, or lacks a name.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return {name: stored[name] for name in (stored.files if names is None else names)}
    except NPZ_ERRORS as error:
        raise OutputError(
            f"{path} cannot be read ({error}); use --no-resume to start over"
        ) from error


def spreadsheet_safe(value: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would run as a formula (OWASP's rule).

    Numbers pass unchanged, and so does a text that is a plain number such as "-3".
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA_STARTS):
        return value
    try:
        float(value)
    except ValueError:
        return "'" + value
    return value


class _Lines:
    """Ends lines with a line feed alone, while the csv module quotes cells with either ending."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def write(self, line: str) -> int:
        return self._text.write(line.removesuffix("\r\n") + "\n")


def csv_delimiter(header: str) -> str:
    """What stands between the cells of a CSV with this first line."""
    # A spreadsheet of a country with decimal commas writes semicolons.
    return ";" if header.count(";") > header.count(",") else ","


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV (UTF-8, comma, header line) atomically, with formulas neutralised."""
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(_Lines(text), lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows([spreadsheet_safe(cell) for cell in row] for row in rows)
        text.flush()
        text.detach()
