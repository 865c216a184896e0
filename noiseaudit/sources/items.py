"""Map-style datasets of (input, label)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noiseaudit.dataset import Originals, digest_array
from noiseaudit.errors import DataError
from noiseaudit.images import composite_on_white, resize_array, working_size
from noiseaudit.sources.arrays import (
    as_array,
    as_inputs,
    as_vectors,
    picked,
    refuse_image_size,
    times_255,
    warn_of_floats,
)
from noiseaudit.sources.examples import Examples, Inputs, PictureOptions, listed
from noiseaudit.sources.labels import encode_labels, label_array

__all__ = ["examples_from_items", "item_picture"]


def examples_from_items(items: Any, options: PictureOptions) -> Examples:
    """Examples from a map-style dataset of (input, label), read whole: labels are in the items.

    Raises:
        DataError: if an item is no such pair, or the inputs are of different kinds.
    """
    arrays: list[NDArray[Any]] = []
    labels: list[Any] = []
    has_floats = False
    for row in range(len(items)):
        item = items[row]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"item {row} must be a pair (input, label); got {type(item).__name__}")
        array = _item_array(item[0], row)
        if array.dtype.kind == "f" and array.ndim in (2, 3):
            array, has_floats = _unit_to_bytes(array, row), True
        arrays.append(array)
        labels.append(item[1])
    if has_floats:
        warn_of_floats()
    names = getattr(items, "classes", None)
    codes, found = encode_labels(labels)
    if _are_names(names) and label_array(labels).dtype.kind in "iu":
        codes, found = encode_labels(labels, names)
    array, pictures = _stacked(arrays, options) if arrays else (np.empty((0, 1), np.float32), [])
    originals = _originals(pictures, items) if pictures else None

    def read(rows: NDArray[np.int64]) -> Inputs:
        own = None if originals is None else originals.subset(rows)
        return Inputs(picked(array, rows), originals=own)

    return Examples(codes, found, read, name=type(items).__name__)


def _are_names(names: Any) -> bool:
    """Whether a `classes` attribute, torchvision's habit, is a list of names."""
    is_list = isinstance(names, list | tuple)
    return is_list and bool(names) and all(isinstance(name, str) for name in names)


def _item_array(value: Any, row: int) -> NDArray[Any]:
    if isinstance(value, Image.Image):
        grey = value.mode in ("1", "L")
        plain = composite_on_white(value) if value.has_transparency_data else value
        return np.asarray(plain.convert("L" if grey else "RGB"))
    try:
        return as_array(value)
    except DataError as error:
        raise DataError(f"item {row}: {error}") from error


def _unit_to_bytes(array: NDArray[Any], row: int) -> NDArray[np.uint8]:
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        raise DataError(
            f"item {row}: float images must lie in [0, 1]; got values from {array.min()} to "
            f"{array.max()}: leave normalisation out of the dataset's transform"
        )
    return times_255(array)


def item_picture(items: Any, row: int) -> NDArray[np.uint8]:
    """The picture of an item of a map-style dataset in full size: (h, w) or (h, w, 3) uint8."""
    array = _item_array(items[row][0], row)
    if array.dtype.kind == "f":
        array = _unit_to_bytes(array, row)
    picture: NDArray[np.uint8] = as_inputs(array[None])[0]
    return picture


def _originals(pictures: list[NDArray[np.uint8]], items: Any) -> Originals:
    digests = b"".join(bytes.fromhex(digest_array(picture)) for picture in pictures)
    packed = np.frombuffer(digests, np.uint8).reshape(-1, 16)
    sizes = np.array([(p.shape[1], p.shape[0]) for p in pictures], dtype=np.int64)
    return Originals(np.arange(len(pictures)), packed, sizes, items)


def _stacked(
    arrays: list[NDArray[Any]], options: PictureOptions
) -> tuple[NDArray[Any], list[NDArray[np.uint8]]]:
    """One array of all items; pictures of mixed sizes or of mixed colour are brought together.

    With it the pictures as they were, where their size has changed.
    """
    dimensions = {array.ndim for array in arrays}
    if dimensions == {1}:
        refuse_image_size(options)
        lengths = {len(array) for array in arrays}
        if len(lengths) > 1:
            raise DataError(f"vectors have different lengths: {listed(sorted(lengths))}")
        return as_vectors(np.stack(arrays)), []
    if not dimensions <= {2, 3}:
        raise DataError(
            "inputs must be all vectors (d,) or all images (h, w), (h, w, 3) or (3, h, w); got "
            f"{listed(sorted({array.shape for array in arrays}))}"
        )
    before = [as_inputs(array[None])[0] for array in arrays]
    pictures = before
    if len({picture.ndim for picture in pictures}) > 1:
        pictures = [np.stack([p] * 3, axis=-1) if p.ndim == 2 else p for p in pictures]
    sizes = np.array([(p.shape[1], p.shape[0]) for p in pictures], dtype=np.int64)
    mixed = bool((sizes != sizes[0]).any())
    if mixed or options.image_size is not None:
        cap = options.cap() if options.image_size is None else 0
        size = working_size(sizes, cap=cap, image_size=options.image_size)
        pictures = [resize_array(picture, size) for picture in pictures]
        return np.stack(pictures), before
    return np.stack(pictures), []
