"""The pictures of a data set as an encoder sees them: before they were reduced for training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noiseaudit.dataset import LabeledDataset, Originals, digest_array
from noiseaudit.errors import DataError
from noiseaudit.image_cache import picture_headers
from noiseaudit.images import UNREADABLE, open_picture, unreadable_reason
from noiseaudit.sources.items import item_picture

__all__ = ["Pictures", "find_pictures", "median_shorter_side"]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures to be read one by one.

    Attributes:
        digests: of each of n rows: of a file's bytes, or of an array's shape and pixels.
        read: the RGB picture of a row, in full, or at no less than twice the given shorter side.
            It raises DataError if the picture has changed or cannot be read any more.
    """

    digests: list[bytes]
    read: Callable[[int, int | None], Image.Image]


def find_pictures(dataset: LabeledDataset, *, progress: bool = False) -> Pictures:
    """The pictures of a data set: files and items of a map-style data set in full, or arrays.

    Args:
        dataset: of kind "images".
        progress: whether to show a bar where files are read for the first time.

    Raises:
        DataError: if a file has changed since the data set was loaded, or cannot be read.
    """
    places = _places(dataset)
    digests = _file_digests(dataset, places, progress)
    originals = dataset.originals
    has_items = originals is not None and originals.items is not None
    for row in range(len(dataset)):
        if row in digests:
            continue
        if originals is not None and has_items and places[row] >= 0:
            digests[row] = originals.digests[places[row]].tobytes()
        else:
            digests[row] = bytes.fromhex(digest_array(dataset.inputs[row]))

    def read(row: int, side: int | None) -> Image.Image:
        path = _path(dataset, row)
        if path is not None:
            return _read_file(path, digests[row], side)
        if originals is not None and has_items and places[row] >= 0:
            return _read_item(originals, int(dataset.ids[row]), digests[row])
        return Image.fromarray(dataset.inputs[row]).convert("RGB")

    return Pictures([digests[row] for row in range(len(dataset))], read)


def median_shorter_side(dataset: LabeledDataset) -> float:
    """Median of the pictures' shorter sides in pixels, before they were reduced."""
    height, width = dataset.inputs.shape[1:3]
    sides = np.full(len(dataset), float(min(height, width)))
    places = _places(dataset)
    if dataset.originals is not None:
        known = places >= 0
        sides[known] = dataset.originals.sizes[places[known]].min(axis=1)
    elif dataset.root is not None and dataset.sources is not None:
        rows = [row for row in range(len(dataset)) if dataset.sources[row]]
        headers, _ = picture_headers(dataset.root, dataset.sources[rows].tolist())
        for i, header in headers.items():
            sides[rows[i]] = min(header.width, header.height)
    return float(np.median(sides))


def _places(dataset: LabeledDataset) -> NDArray[np.int64]:
    """Where each row stands among the originals, or -1."""
    if dataset.originals is None:
        return np.full(len(dataset), -1, dtype=np.int64)
    return dataset.originals.find(dataset.ids)


def _path(dataset: LabeledDataset, row: int) -> Path | None:
    if dataset.root is None or dataset.sources is None or not dataset.sources[row]:
        return None
    return dataset.root / str(dataset.sources[row])


def _file_digests(
    dataset: LabeledDataset, places: NDArray[np.int64], progress: bool
) -> dict[int, bytes]:
    """Digest of each row's file as it is now, by row."""
    if dataset.root is None or dataset.sources is None:
        return {}
    rows = [row for row in range(len(dataset)) if dataset.sources[row]]
    files = dataset.sources[rows].tolist()
    headers, reasons = picture_headers(dataset.root, files, progress=progress)
    if reasons:
        first = min(reasons)
        raise DataError(
            f"{len(reasons)} pictures that were loaded cannot be read any more, first "
            f"{files[first]!r} below {dataset.root} ({reasons[first]}): put them back, or load the "
            "data set again"
        )
    found = {row: headers[i].digest for i, row in enumerate(rows)}
    if dataset.originals is not None:
        known = dataset.originals.digests
        changed = [
            row for row in rows
            if places[row] >= 0 and known[places[row]].tobytes() != found[row]
        ]  # fmt: skip
        if changed:
            raise DataError(
                f"{len(changed)} pictures have changed since they were loaded, first "
                f"{str(dataset.sources[changed[0]])!r} below {dataset.root}: load the data set "
                "again"
            )
    return found


def _read_file(path: Path, digest: bytes, side: int | None) -> Image.Image:
    try:
        data = path.read_bytes()
        if hashlib.blake2b(data, digest_size=16).digest() != digest:
            raise DataError(f"{path} changed while it was being read: load the data set again")
        return open_picture(data, side)[0].convert("RGB")
    except UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {unreadable_reason(error)}: load the data set again") from error


def _read_item(originals: Originals, item: int, digest: bytes) -> Image.Image:
    pixels = item_picture(originals.items, item)
    if bytes.fromhex(digest_array(pixels)) != digest:
        raise DataError(
            f"item {item} is another picture each time it is read: leave random augmentation out "
            "of the dataset's transform"
        )
    return Image.fromarray(pixels).convert("RGB")
