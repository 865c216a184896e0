"""Arrays, map-style datasets and .npz files."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noiseaudit._validation import check_finite, check_same_length
from noiseaudit.errors import DataError, NoiseAuditWarning
from noiseaudit.images import composite_on_white
from noiseaudit.sources.examples import SPLITS, Examples, Inputs, PictureOptions, listed
from noiseaudit.sources.labels import encode_labels, label_array

__all__ = [
    "as_inputs",
    "examples_from_arrays",
    "examples_from_npz",
]

_BROKEN = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def as_array(values: Any) -> NDArray[Any]:
    """An array-like (array, torch tensor, list, data frame) as an array of numbers.

    Raises:
        DataError: if its rows have different lengths, or it holds no numbers.
    """
    if hasattr(values, "detach"):
        tensor = values.detach().cpu()
        values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"inputs must be numbers, every example of the same shape: {error}") from (
            error
        )
    if array.dtype.kind not in "biuf":
        raise DataError(f"inputs must be numbers; got dtype {array.dtype}")
    return array


def as_inputs(array: NDArray[Any]) -> NDArray[Any]:
    """Numbers as a LabeledDataset holds them: uint8 images, or float32 vectors.

    (n, d) are vectors. (n, h, w), (n, h, w, 1|3|4) and (n, 1|3, h, w) are images: integers in
    0..255, or floats in [0, 1], which become uint8 with a warning.

    Raises:
        DataError: for other shapes and ranges, and for an ambiguous place of the channels.
    """
    if array.ndim == 2:
        return as_vectors(array)
    if array.ndim not in (3, 4) or 0 in array.shape[1:]:
        raise DataError(
            "inputs must be vectors (n, d) or images (n, h, w), (n, h, w, 3) or (n, 3, h, w); "
            f"got shape {array.shape}"
        )
    pixels = _as_bytes(array)
    if pixels.ndim == 3:
        return pixels
    pixels = _channels_last(pixels)
    if pixels.shape[3] == 1:
        return pixels[..., 0]
    if pixels.shape[3] == 4:
        flat = [np.asarray(composite_on_white(Image.fromarray(picture))) for picture in pixels]
        return np.stack(flat)
    return pixels


def as_vectors(array: NDArray[Any]) -> NDArray[np.float32]:
    """(n, d) numbers as float32.

    Raises:
        DataError: for NaN, infinity, and numbers beyond the range of float32.
    """
    check_finite(array, "features", "drop or fill these rows")
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(array, dtype=np.float32)
    check_finite(vectors, "features in float32", "scale them: they are beyond 3e38")
    return vectors


def _as_bytes(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    low, high = array.min(), array.max()
    if array.dtype.kind in "iu" and low >= 0 and high <= 255:
        return array.astype(np.uint8)
    if array.dtype.kind == "f" and low >= 0 and high <= 1:
        warn_of_floats()
        return times_255(array)
    raise DataError(
        f"images must be integers in 0..255 or floats in [0, 1]; got {array.dtype} from {low} to "
        f"{high}: scale them back, or pass what they are features of as vectors (n, d)"
    )


def _channels_last(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    last = pixels.shape[3] in (1, 3, 4)
    first = pixels.shape[1] in (1, 3)
    if last and first:
        raise DataError(
            f"images of shape {pixels.shape} have their channels first or last: it cannot be told; "
            "drop an axis of length 1, or pad them"
        )
    if not last and not first:
        raise DataError(f"images must have 1 or 3 channels (4 if last); got shape {pixels.shape}")
    return pixels if last else np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))


def picked(array: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    """The rows; the array itself where that is all of them, so that nothing is copied."""
    return array if len(rows) == len(array) else array[rows]


def refuse_image_size(options: PictureOptions) -> None:
    """Warn that a working size does nothing for arrays, which have their size already."""
    if options.image_size is not None:
        warnings.warn(
            "image_size is for picture files and pictures of mixed sizes; it is ignored here",
            NoiseAuditWarning,
            stacklevel=2,
        )


def examples_from_arrays(inputs: Any, labels: Any, options: PictureOptions) -> Examples:
    """Examples from `(inputs, labels)` array-likes."""
    refuse_image_size(options)
    array = as_array(inputs)
    if not array.ndim:
        raise DataError(f"inputs must be an array of examples; got the single value {inputs!r}")
    given = label_array(labels)
    check_same_length(inputs=array, labels=given)
    codes, names = encode_labels(given)
    return Examples(
        codes, names, lambda rows: Inputs(as_inputs(picked(array, rows))), name="arrays"
    )


def times_255(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Floats in [0, 1] as uint8."""
    scaled: NDArray[np.float64] = np.rint(array * 255)
    return scaled.astype(np.uint8)


def warn_of_floats() -> None:
    """Warn that floats become uint8."""
    warnings.warn(
        "float images in [0, 1] are converted to uint8 (times 255, rounded)",
        NoiseAuditWarning,
        stacklevel=3,
    )


def examples_from_npz(
    path: Path,
    options: PictureOptions,
    *,
    class_names: Sequence[str] | None = None,
    default_split: str = "all",
) -> Examples:
    """Examples from a .npz with `x` and `y`, or `x_train`, `y_train` and other splits.

    Args:
        path: the file.
        options: how pictures are sized (not at all, here).
        class_names: names used where the file has no `class_names` of its own.
        default_split: what is taken when nobody names a split.

    Raises:
        DataError: if the file is damaged, holds Python objects or lacks arrays.
    """
    refuse_image_size(options)
    keys = _npz(path, lambda file: list(file.files))
    splits = _npz_splits(keys)
    labels = [label_array(_member(path, f"y{suffix}")) for suffix in splits]
    if "class_names" in keys:
        class_names = [str(name) for name in _member(path, "class_names").tolist()]
    starts = np.concatenate([[0], np.cumsum([len(part) for part in labels])])
    codes, names = encode_labels(np.concatenate(labels), class_names)
    split = np.repeat([suffix[1:] for suffix in splits], [len(part) for part in labels])

    def read(rows: NDArray[np.int64]) -> Inputs:
        parts = []
        for suffix, start, end in zip(splits, starts[:-1], starts[1:], strict=True):
            local = rows[(rows >= start) & (rows < end)] - start
            if len(local):
                part = as_array(_member(path, f"x{suffix}"))
                check_same_length(**{f"x{suffix}": part, f"y{suffix}": range(end - start)})
                parts.append(picked(part, local))
        shapes = {part.shape[1:] for part in parts}
        if len(shapes) > 1:
            raise DataError(f"the splits hold inputs of different shapes: {listed(shapes)}")
        return Inputs(as_inputs(parts[0] if len(parts) == 1 else np.concatenate(parts)))

    return Examples(
        codes,
        names,
        read,
        name=path.stem,
        default_split=default_split,
        split=None if splits == [""] else split,
    )


def _npz_splits(keys: Sequence[str]) -> list[str]:
    """The suffixes of the arrays to read: [""] of x and y, else "_train" and those after it."""
    if "x" in keys and "y" in keys:
        return [""]
    suffixes = [f"_{name}" for name in SPLITS if f"x_{name}" in keys or f"y_{name}" in keys]
    wanted = [f"{axis}{suffix}" for suffix in suffixes for axis in "xy"]
    missing = [key for key in wanted or ["x", "y"] if key not in keys]
    if missing or "_train" not in suffixes:
        missing = missing or ["x_train", "y_train"]
        raise DataError(
            f"arrays {listed(missing)} are missing; it must hold x and y, or x_train and y_train "
            f"(and x_val, y_val, x_test, y_test); it holds {listed(keys, 20) or 'nothing'}"
        )
    return suffixes


def _npz(path: Path, use: Callable[[Any], Any]) -> Any:
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.ndarray):
            with stored as file:
                return use(file)
    except _BROKEN as error:
        if "Object arrays" in str(error):
            raise DataError(
                "it holds arrays of Python objects, which only pickle can load and that could run "
                "code: save plain arrays of numbers and texts"
            ) from error
        raise DataError(f"it is damaged or no .npz file: {error}") from error
    raise DataError("it is a single .npy array; save x and y with numpy.savez")


def _member(path: Path, key: str) -> NDArray[Any]:
    array: NDArray[Any] = _npz(path, lambda file: file[key])
    return array
