"""Every kind of source -> LabeledDataset."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import DataError
from noiseaudit.sources.arrays import (
    examples_from_arrays,
    examples_from_items,
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
from noiseaudit.sources.named import NAMED, examples_by_name
from noiseaudit.sources.table import examples_from_table

__all__ = ["load"]


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
              numeric feature columns;
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
    if isinstance(source, LabeledDataset):
        refuse_image_size(options)
        return select_from_dataset(source, selection)
    if isinstance(source, str | os.PathLike):
        return _load_named_or_path(
            source,
            selection,
            options,
            table={"label_column": label_column, "path_column": path_column},
            named={"data_root": None if data_root is None else Path(data_root)},
            download=download,
        )
    return build_dataset(_examples_in_memory(source, options), selection)


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


def _is_mapping(source: Any) -> bool:
    return hasattr(source, "keys")


def _load_named_or_path(
    source: str | os.PathLike[str],
    selection: Selection,
    options: PictureOptions,
    *,
    table: dict[str, str],
    named: dict[str, Path | None],
    download: bool,
) -> LabeledDataset:
    if isinstance(source, str) and source in NAMED:
        examples = examples_by_name(
            source, options, data_root=named["data_root"], download=download
        )
        return build_dataset(examples, selection)
    path = Path(source)
    reader = _reader_of(path, options, table)
    try:
        return build_dataset(reader(), selection)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _reader_of(
    path: Path, options: PictureOptions, table: dict[str, str]
) -> Callable[[], Examples]:
    """The function that reads this kind of file or folder."""
    try:
        is_there, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:  # a name too long, a NUL
        raise DataError(f"{str(path)!r} is no path: {error}") from error
    if not is_there:
        near = difflib.get_close_matches(str(path).lower(), NAMED, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DataError(
            f"there is no file or folder {str(path)!r}, and no data set of that name; {hint}"
            f"named data sets: {', '.join(NAMED)}"
        )
    if is_folder:
        return lambda: examples_from_folder(path, options)
    suffix = path.suffix.lower()
    if suffix in (".csv", ".parquet"):
        return lambda: examples_from_table(path, options, **table)
    if suffix == ".npz":
        return lambda: examples_from_npz(path, options)
    raise DataError(
        f"cannot tell what {str(path)!r} is; expected a folder, or a file ending in .csv, .parquet "
        "or .npz"
    )
