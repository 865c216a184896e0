"""Hugging Face datasets as a LabeledDataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import DataError, UsageError, check_name
from noiseaudit.integrations._soft import MissingLibraryError
from noiseaudit.loaders import load
from noiseaudit.sources.arrays import as_vectors, refuse_image_size
from noiseaudit.sources.examples import (
    Examples,
    Inputs,
    PictureOptions,
    Selection,
    build_dataset,
    listed,
)
from noiseaudit.sources.labels import encode_labels

try:
    from datasets import ClassLabel, Dataset, Image
except ImportError as error:
    raise MissingLibraryError("datasets", "datasets", error) from error

__all__ = ["from_datasets"]


def from_datasets(
    dataset: Dataset,
    *,
    label_column: str = "label",
    image_column: str | None = None,
    feature_columns: Sequence[str] | None = None,
    image_size: int | None = None,
) -> LabeledDataset:
    """A `datasets.Dataset` of pictures or numbers as a LabeledDataset; ids are its rows.

    Args:
        dataset: one split, map-style.
        label_column: a ClassLabel, whose names become the class names, or integers or texts.
        image_column: a column of Image; default: the only one there is, if no feature columns are
            named.
        feature_columns: columns of numbers, or of vectors of one length, put side by side; default,
            where there are no pictures: all of them.
        image_size: side in pixels that pictures are resized to: as in `load`.

    Raises:
        UsageError: for a column that does not exist.
        DataError: if the dataset has no usable input, a label is missing (-1 in test splits of the
            hub), or it is no single map-style split.
    """
    if not isinstance(dataset, Dataset):
        hint = "; take one split, as in dataset['train']" if hasattr(dataset, "keys") else ""
        raise DataError(
            f"a map-style datasets.Dataset is needed, not {type(dataset).__name__}{hint}"
        )
    kinds = dataset.features
    for name in (label_column, *([image_column] if image_column else []), *(feature_columns or ())):
        check_name(name, kinds, "column")
    if image_column is not None and feature_columns is not None:
        raise UsageError("give image_column or feature_columns, not both")
    pictures = [name for name, kind in kinds.items() if isinstance(kind, Image)]
    if image_column is None and feature_columns is None and pictures:
        if len(pictures) > 1:
            raise DataError(f"there are several columns of pictures, {listed(pictures)}: name one")
        image_column = pictures[0]
    names = kinds[label_column].names if isinstance(kinds[label_column], ClassLabel) else None
    if image_column is not None:
        return load(_Pictures(dataset, image_column, label_column, names), image_size=image_size)
    refuse_image_size(PictureOptions(image_size))
    labels = dataset.with_format(None).select_columns([label_column])[:][label_column]
    codes, class_names = encode_labels(labels, names)
    vectors, feature_names = _vectors(dataset, feature_columns, label_column)
    examples = Examples(
        codes,
        class_names,
        lambda rows: Inputs(as_vectors(vectors[rows])),
        name=_name(dataset),
        feature_names=feature_names,
    )
    return build_dataset(examples, Selection())


class _Pictures:
    """Pairs (picture, label), as `load` reads them; `classes` are the names of the labels."""

    def __init__(self, dataset: Dataset, image: str, label: str, names: list[str] | None) -> None:
        self._pairs = dataset.with_format(None).select_columns([image, label])
        self._image, self._label = image, label
        self.classes = names

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        item = self._pairs[row]
        if item[self._image] is None:
            raise DataError(f"row {row} of column {self._image!r} has no picture")
        return item[self._image], item[self._label]


def _vectors(
    dataset: Dataset, columns: Sequence[str] | None, label_column: str
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """(n, d) numbers of the columns, and d names."""
    named = columns is not None
    chosen = columns or [name for name in dataset.column_names if name != label_column]
    blocks, names = [], []
    for name in chosen:
        values = dataset.with_format(None).select_columns([name])[:][name]
        try:
            block = np.asarray(values)
        except ValueError as error:
            raise DataError(f"column {name!r}: vectors have different lengths") from error
        if block.dtype.kind == "O" and all(isinstance(v, float | int | None) for v in values):
            block = block.astype(np.float64)  # None, a missing value, becomes NaN
        if block.dtype.kind not in "biuf":
            if not named:
                continue
            raise DataError(f"column {name!r} must hold numbers; got {dataset.features[name]}")
        block = block.reshape(len(block), -1)
        blocks.append(block)
        wide = block.shape[1] != 1
        names += [f"{name}_{i}" for i in range(block.shape[1])] if wide else [name]
    if not blocks:
        raise DataError(
            f"there are no pictures and no numbers among the columns {listed(dataset.column_names)}"
            "; texts need an encoder first: add its embeddings as a column"
        )
    return np.concatenate(blocks, axis=1), tuple(names)


def _name(dataset: Dataset) -> str:
    return str(dataset.info.dataset_name or "dataset")
