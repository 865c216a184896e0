"""Labels as people write them -> integer codes and class names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._validation import check_labels, first_rows
from noiseaudit.errors import DataError, NoiseAuditWarning

__all__ = ["encode_labels", "encode_texts", "label_array"]

_INTEGER = re.compile(r"\s*[+-]?\d+\s*", re.ASCII)
_DECIMAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)

Codes = tuple[NDArray[np.int64], tuple[str, ...]]


def label_array(labels: Any) -> NDArray[Any]:
    """Labels of any array-like as a one-dimensional array: bool, integer, float or text.

    Raises:
        DataError: if they have two dimensions, are missing, or of mixed or other types.
    """
    tensor = labels.detach().cpu() if hasattr(labels, "detach") else labels
    if isinstance(tensor, list | tuple) and not any(
        isinstance(value, list | tuple) for value in tensor[:1]
    ):
        tensor = _object_array(tensor)
    try:
        array: NDArray[Any] = np.asarray(tensor)
    except ValueError as error:
        raise DataError(f"labels must be one-dimensional: {error}") from error
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(
            f"labels must be one-dimensional; got shape {array.shape} "
            "(of one-hot labels take argmax(axis=1))"
        )
    if array.dtype.kind == "T":
        array = array.astype(object)
    if array.dtype.kind == "O":
        array = _from_objects(array)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if len(array) and array.dtype.kind not in "biufU":
        raise DataError(f"labels must be integers or texts; got dtype {array.dtype}")
    return array


def _object_array(values: Sequence[Any]) -> NDArray[Any]:
    """A list as an object array, so that NumPy turns no None or NaN beside texts into a text."""
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        is_scalar = hasattr(value, "item") and getattr(value, "ndim", 1) == 0
        array[row] = value.item() if is_scalar else value
    return array


def _from_objects(array: NDArray[Any]) -> NDArray[Any]:
    _refuse_missing(np.array([_is_missing(value) for value in array], dtype=bool))
    kinds = {_kind(value) for value in array}
    if len(kinds) > 1 or "other" in kinds:
        types = sorted({type(value).__name__ for value in array})
        raise DataError(f"labels must be all integers or all texts; got {', '.join(types)}")
    dtypes: dict[str, type] = {"bool": bool, "integer": np.int64, "float": np.float64, "text": str}
    return array.astype(dtypes[kinds.pop()] if kinds else np.int64)


def _is_missing(value: Any) -> bool:
    """None, NaN, and pandas' NA and NaT, whose comparisons give no bool."""
    is_nan = isinstance(value, float | np.floating) and bool(np.isnan(value))
    return value is None or is_nan or type(value).__name__ in ("NAType", "NaTType")


def _kind(value: Any) -> str:
    for kind, types in (
        ("text", str),
        ("bool", bool | np.bool_),
        ("integer", int | np.integer),
        ("float", float | np.floating),
    ):
        if isinstance(value, types):
            return kind
    return "other"


def _refuse_missing(missing: NDArray[np.bool_]) -> None:
    if missing.any():
        raise DataError(
            f"labels are missing in {first_rows(missing)}: label these examples or drop them"
        )


def encode_labels(
    labels: Any, class_names: Sequence[str] | None = None, *, whole_floats: bool = False
) -> Codes:
    """Codes (n,) int64 and class names of labels of any array-like.

    Without `class_names` the classes are the sorted different values, as in scikit-learn's
    `classes_`; with them, labels are positions in that list.

    Args:
        labels: integers, booleans or texts.
        class_names: names that the labels index.
        whole_floats: whether floats such as 1.0 are taken as integers, with a warning.

    Raises:
        DataError: for missing, negative (but -1 and 1) or float labels, and those outside of
            `class_names`.
    """
    array = label_array(labels)
    if array.dtype.kind == "f":
        array = _whole(array, allowed=whole_floats)
    if class_names is not None:
        return check_labels(array, len(class_names)), tuple(str(name) for name in class_names)
    if array.dtype.kind == "U":
        _refuse_missing(np.char.str_len(np.char.strip(array)) == 0)
    if array.dtype.kind == "i":
        _refuse_negative(array)
    values, codes = np.unique(array, return_inverse=True)
    return codes.reshape(-1).astype(np.int64), tuple(str(value) for value in values)


def _whole(array: NDArray[Any], *, allowed: bool) -> NDArray[np.int64]:
    _refuse_missing(np.isnan(array))
    fractional = array != np.rint(array)
    if fractional.any() or not allowed or not np.isfinite(array).all():
        row = int(np.flatnonzero(fractional)[0]) if fractional.any() else 0
        raise DataError(
            f"labels must be integers or texts, not floats: {array[row]!s} at row {row}; "
            "numbers to be predicted cannot be audited, codes of classes convert with astype(int)"
        )
    warnings.warn(
        "the labels are floats, all of them whole numbers: taken as integers",
        NoiseAuditWarning,
        stacklevel=2,
    )
    return array.astype(np.int64)


def _refuse_negative(array: NDArray[Any]) -> None:
    negative = array < 0
    if negative.any() and set(np.unique(array).tolist()) != {-1, 1}:
        row = int(np.flatnonzero(negative)[0])
        raise DataError(
            f"labels must not be negative; got {int(negative.sum())}, first {array[row]} at row "
            f"{row}: drop unlabelled examples, or give the class a name"
        )


def encode_texts(texts: Sequence[str]) -> Codes:
    """Codes and class names of labels read from a text file, where everything is a text.

    Numbers are sorted as numbers; names stay as written, so "01" and "1" are two classes.

    Raises:
        DataError: for missing labels (empty, or "nan" among numbers) and decimal numbers.
    """
    stripped = [text.strip() for text in texts]
    _refuse_missing(np.array([not text for text in stripped], dtype=bool))
    real = [text for text in stripped if text.lower() != "nan"]
    if not real or not all(_DECIMAL.fullmatch(text) for text in real):
        return encode_labels(np.array(texts, dtype=str))
    _refuse_missing(np.array([text.lower() == "nan" for text in stripped], dtype=bool))
    if not all(_INTEGER.fullmatch(text) for text in real):
        return encode_labels(np.array(real, dtype=np.float64), whole_floats=True)
    numbers = np.array([int(text) for text in real], dtype=object)
    if min(numbers) < 0:
        _refuse_negative(numbers)
    names = sorted(set(texts), key=lambda text: (int(text), text))
    codes = {name: code for code, name in enumerate(names)}
    return np.array([codes[text] for text in texts], dtype=np.int64), tuple(names)
