"""Every kind of source -> LabeledDataset."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from noiseaudit.dataset import LabeledDataset, Origin
from noiseaudit.errors import DataError, UsageError
from noiseaudit.sources.arrays import (
    examples_from_arrays,
    examples_from_npz,
    refuse_image_size,
)
from noiseaudit.sources.examples import (
    Examples,
    PictureOptions,
    Selection,
    build_dataset,
    select_from_dataset,
)
from noiseaudit.sources.folder import examples_from_folder
from noiseaudit.sources.items import examples_from_items
from noiseaudit.sources.named import NAMED, examples_by_name
from noiseaudit.sources.table import examples_from_table

__all__ = ["load", "reopen"]

_TABLES = (".csv", ".parquet")


def load(
    source: Any,
    *,
    data_root: str | os.PathLike[str] | None = None,
    download: bool = False,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    label_column: str = "label",
    path_column: str = "path",
    feature_columns: Sequence[str] | None = None,
    drop_columns: Sequence[str] | None = None,
    image_size: int | None = None,
    device: str = "auto",
    progress: bool = False,
) -> LabeledDataset:
    """Load a labelled dataset.

    Ids are 0-based positions in the whole source, before split, limit and skipping: train, then
    val, then test; inside a folder by sorted relative path; rows of a table as they stand.

    Args:
        source: one of

            - "digits", "mnist", "fashion_mnist", "cifar10" or "cifar100";
            - a folder with one sub-folder of images per class, train/, val/ and test/ allowed
              above them;
            - a .csv or .parquet file with a column of labels, and either one of image paths or
              columns of numbers and categories, as features;
            - a .npz file with `x` and `y`, or `x_train`, `y_train` (and `val`, `test`), and
              perhaps `class_names`;
            - a tuple `(inputs, labels)` of array-likes;
            - a map-style dataset whose items are pairs `(input, label)`;
            - a LabeledDataset, returned as it is unless `split` or `limit` take a part.
        data_root: where the named data sets lie: `<name>.npz` or torchvision's own folders.
        download: whether torchvision may download a named data set that is not there.
        split: "train", "val", "test" or "all"; None takes "train" of a named data set that has
            splits, and "all" of everything else.
        limit: at most so many examples, stratified by class, in source order.
        seed: of the draw that `limit` makes.
        label_column: name of a table's column of labels.
        path_column: name of a table's column of image paths.
        feature_columns: names of a table's columns that are the features, whatever they look like;
            None takes all that are numbers or categories, but for numbers of rows and the like.
        drop_columns: names of columns of a table that are not to be features.
        image_size: side in pixels, 8..1024, that pictures are resized to. None keeps pictures of
            one size up to 64 pixels, and takes the median of all others, at most 64 on a CPU and
            128 on CUDA.
        device: "auto", "cpu" or "cuda", which that choice depends on.
        progress: whether to show progress bars on a terminal.

    Raises:
        DataError: if the source does not exist or cannot be used; the message says what to do.
        UsageError: if an option has a value it cannot have.

    Examples:
        >>> dataset = load("digits", limit=100)
        >>> len(dataset), dataset.input_shape, dataset.num_classes
        (100, (1, 8, 8), 10)
    """
    selection = Selection(split, limit, seed)
    options = PictureOptions(image_size, device, progress)
    chosen = {"feature_columns": feature_columns, "drop_columns": drop_columns}
    chosen = {option: _column_names(option, names, source) for option, names in chosen.items()}
    if isinstance(source, LabeledDataset):
        refuse_image_size(options)
        return select_from_dataset(source, selection)
    if not isinstance(source, str | os.PathLike):
        return build_dataset(_examples_in_memory(source, options), selection)
    columns = {"label_column": label_column, "path_column": path_column, **chosen}
    root = None if data_root is None else Path(data_root)
    is_named = isinstance(source, str) and source in NAMED
    try:
        examples = _open(source, options, columns, root, download=download)
        dataset = build_dataset(examples, selection)
    except DataError as error:
        if is_named or not _exists(source):
            raise
        raise DataError(f"{source}: {error}") from error
    told = {
        "data_root": None if root is None else str(root.absolute()), "split": split, "limit": limit,
        "seed": seed, **columns, "image_size": image_size,
    }  # fmt: skip
    place = str(source) if is_named else str(Path(source).absolute())
    return replace(dataset, origin=Origin(place, told, len(examples.labels)))


def reopen(origin: Origin) -> Examples:
    """The whole source that a data set came from, as it is now, its inputs not read yet.

    Raises:
        DataError: if it is gone or can no longer be used.
    """
    told = origin.options
    options = PictureOptions(told.get("image_size"))
    columns = {name: told.get(name) for name in ("feature_columns", "drop_columns")}
    columns |= {name: told[name] for name in ("label_column", "path_column")}
    root = None if told.get("data_root") is None else Path(told["data_root"])
    return _open(origin.source, options, columns, root, download=False)


def _column_names(option: str, names: Sequence[str] | None, source: Any) -> list[str] | None:
    if names is None:
        return None
    if not isinstance(source, str | os.PathLike) or Path(source).suffix.lower() not in _TABLES:
        raise UsageError(f"{option} is for a table, a .csv or .parquet file")
    if isinstance(names, str) or not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{option} must be a list of names of columns; got {names!r}")
    return list(dict.fromkeys(names))


def _examples_in_memory(source: Any, options: PictureOptions) -> Examples:
    if isinstance(source, tuple):
        if len(source) != 2:
            raise DataError(f"a tuple must be (inputs, labels); got {len(source)} items")
        return examples_from_arrays(*source, options)
    if hasattr(source, "ndim"):
        raise DataError("an array has no labels: pass the tuple (inputs, labels)")
    if hasattr(source, "__len__") and hasattr(source, "__getitem__") and not _is_mapping(source):
        return examples_from_items(source, options)
    raise DataError(
        f"cannot load a {type(source).__name__}; expected a name, a path, a tuple (inputs, labels) "
        "or a map-style dataset of (input, label) with __len__ and __getitem__"
    )


def _exists(source: str | os.PathLike[str]) -> bool:
    try:
        return Path(source).exists()
    except (OSError, ValueError) as error:  # a name too long, a NUL
        raise DataError(f"{str(source)!r} is no path: {error}") from error


def _is_mapping(source: Any) -> bool:
    return hasattr(source, "keys")


def _open(
    source: str | os.PathLike[str],
    options: PictureOptions,
    columns: dict[str, Any],
    data_root: Path | None,
    *,
    download: bool,
) -> Examples:
    """All examples of a named data set, a folder or a file."""
    if isinstance(source, str) and source in NAMED:
        return examples_by_name(source, options, data_root=data_root, download=download)
    path = Path(source)
    if not _exists(path):
        near = difflib.get_close_matches(str(path).lower(), NAMED, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"there is no file or folder {str(path)!r}, and no data set of that name; {hint}"
            f"named data sets: {', '.join(NAMED)}"
        )
    if path.is_dir():
        return examples_from_folder(path, options)
    suffix = path.suffix.lower()
    if suffix in _TABLES:
        return examples_from_table(path, options, **columns)
    if suffix == ".npz":
        return examples_from_npz(path, options)
    raise DataError(
        f"cannot tell what {str(path)!r} is; expected a folder, or a file ending in .csv, .parquet "
        "or .npz"
    )
