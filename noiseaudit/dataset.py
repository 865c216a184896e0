"""LabeledDataset: inputs with the labels somebody gave them, and an identity for each example."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._validation import check_finite, check_ids, check_labels, check_same_length
from noiseaudit.errors import DataError

__all__ = [
    "AS_ASKED",
    "LabeledDataset",
    "Origin",
    "Originals",
    "Skipped",
    "TableColumns",
    "digest_array",
]

AS_ASKED = "as asked"  # why a column is left out that nobody need be warned of
_BLOCK = 2**26  # bytes hashed at a time, so that a memory-mapped array is never read whole


def digest_array(array: NDArray[Any]) -> str:
    """A hex digest of shape, dtype and content, read in blocks."""
    digest = hashlib.blake2b(f"{array.shape}{array.dtype.str}".encode(), digest_size=16)
    step = max(1, _BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        digest.update(np.ascontiguousarray(array[start : start + step]).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Skipped:
    """One example of the source that could not be read: its id, path and the reason."""

    sample_id: int
    source: str
    reason: str


@dataclass(frozen=True)
class TableColumns:
    """What became of the columns of a table of features; counts are of the whole table.

    Attributes:
        left_out: why a column is no feature, by name.
        categories: how many different texts a column of categories holds, by name, and how many of
            them are so rare that they share one feature.
        missing: how many cells of a column are missing, by name: in columns of numbers they are
            filled by the median, in those of categories they are one more.
        changed: what else was done to a column of numbers, by name.
    """

    left_out: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)
    changed: Mapping[str, str] = field(default_factory=dict)

    def notes(self, limit: int = 10) -> tuple[str, ...]:
        """A sentence for each that there is, naming at most `limit` columns."""
        filled = {name: n for name, n in self.missing.items() if name not in self.categories}
        unknown = {name: n for name, n in self.missing.items() if name in self.categories}
        told = (
            ("Columns that are no features and were left out", self.left_out),
            ("Columns encoded as categories", {
                name: f"{n:,}" + (f", the {rare:,} rarest as one" if rare else "")
                for name, (n, rare) in self.categories.items()
            }),
            ("Missing numbers, filled by the median of their column", _cells(filled)),
            ("Missing categories, taken as one of their own", _cells(unknown)),
            ("Columns of numbers that were changed", self.changed),
        )  # fmt: skip
        return tuple(f"{what}: {_told(items, limit)}." for what, items in told if items)

    @property
    def warning(self) -> str:
        """The notes on one line; empty where nothing was lost, filled or changed."""
        has_rare = any(rare for _, rare in self.categories.values())
        is_lost = any(reason != AS_ASKED for reason in self.left_out.values())
        if not (is_lost or self.missing or self.changed or has_rare):
            return ""
        return " ".join(self.notes(5)) + " feature_columns and drop_columns choose otherwise"


def _cells(counts: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{n:,} cell{'s' if n > 1 else ''}" for name, n in counts.items()}


def _told(items: Mapping[str, str], limit: int) -> str:
    shown = [f"{name!r} ({text})" for name, text in list(items.items())[:limit]]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(shown) + more


@dataclass(frozen=True)
class Origin:
    """Where a data set was loaded from, so that it can be found again.

    Attributes:
        source: a name, or the absolute path of a file or folder.
        options: of `load`, by name, as JSON values.
        examples: of the whole source, before split, limit and skipping.
    """

    source: str
    options: Mapping[str, Any]
    examples: int


@dataclass(frozen=True, eq=False)
class Originals:
    """What is known of pictures before they were reduced, found by id; their pixels are not kept.

    Attributes:
        ids: (m,) int64, ascending.
        digests: (m, 16) uint8, of a file's bytes or an item's pixels.
        sizes: (m, 2) int64, width and height.
        items: the map-style data set that has them as `items[id][0]`; None of files, and once
            pickled.
    """

    ids: NDArray[np.int64]
    digests: NDArray[np.uint8]
    sizes: NDArray[np.int64]
    items: Any = None

    def find(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The position of each of `ids`, or -1 where it is not known."""
        if not len(self.ids):
            return np.full(len(ids), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[place] == ids, place, -1)

    def subset(self, ids: NDArray[np.int64]) -> Originals:
        """Those of `ids` alone."""
        kept = np.isin(self.ids, ids)
        return replace(self, ids=self.ids[kept], digests=self.digests[kept], sizes=self.sizes[kept])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "items": None}


@dataclass(frozen=True, eq=False)
class LabeledDataset:
    """A labelled dataset; *row* is a position in it, *id* survives subset, limit and export.

    Attributes:
        inputs: (n, h, w) or (n, h, w, 3) uint8 images, or (n, d) float32 feature vectors; may be
            memory-mapped.
        labels: (n,) int64 in [0, k): the given labels, as stored, right or wrong.
        class_names: k names, in label order; a class may have no example.
        ids: (n,) int64, unique: the 0-based position in the whole source. Default: 0..n-1.
        sources: n paths relative to `root` (or n empty texts), where examples are files.
        split: n texts such as "train", or None if the source has no splits.
        name: what to call it in reports.
        root: the folder that `sources` are relative to.
        feature_names: d names of the features of vectors, where the source has them.
        content: digest of `inputs` where the loader already knows one; else computed when asked.
        skipped: examples of the source that could not be read.
        origin: where `load` found it; None for what was in memory.
        columns: what became of the columns of a table of features.
        encoder: name of the encoder whose embeddings `inputs` are, or "".
        originals: the pictures before `load` reduced them, where they are more than `inputs`.

    Raises:
        DataError: if shapes, dtypes, lengths, labels, ids or values are not as above.
    """

    inputs: NDArray[Any]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    sources: NDArray[np.str_] | None = None
    split: NDArray[np.str_] | None = None
    name: str = "dataset"
    root: Path | None = None
    feature_names: tuple[str, ...] | None = None
    content: str | None = None
    skipped: tuple[Skipped, ...] = ()
    origin: Origin | None = None
    columns: TableColumns | None = None
    encoder: str = ""
    originals: Originals | None = None

    def __post_init__(self) -> None:
        n = check_same_length(inputs=self.inputs, labels=self.labels)
        ids = self.ids if len(self.ids) or not n else np.arange(n, dtype=np.int64)
        object.__setattr__(self, "labels", check_labels(self.labels, len(self.class_names)))
        object.__setattr__(self, "ids", check_ids(ids))
        check_same_length(inputs=self.inputs, ids=self.ids)
        for name in ("sources", "split"):
            if getattr(self, name) is not None:
                check_same_length(inputs=self.inputs, **{name: getattr(self, name)})
        if len(set(self.class_names)) != len(self.class_names):
            raise DataError("class_names must be different from each other")
        _check_inputs(self.inputs)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        """Number of classes k, absent ones included."""
        return len(self.class_names)

    @property
    def kind(self) -> Literal["images", "vectors"]:
        """Whether `inputs` are uint8 images or float32 feature vectors."""
        return "images" if self.inputs.dtype == np.uint8 else "vectors"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example as a model sees it: (channels, h, w) of images, (d,) of vectors."""
        if self.kind == "vectors":
            return tuple(self.inputs.shape[1:])
        height, width = self.inputs.shape[1:3]
        return (1 if self.inputs.ndim == 3 else int(self.inputs.shape[3]), height, width)

    def label_names(self, labels: ArrayLike | None = None) -> NDArray[np.object_]:
        """Class names of `labels` (default: the given ones), (n,) Python strings."""
        codes = self.labels if labels is None else np.asarray(labels)
        return np.array(self.class_names, dtype=object)[codes]

    def subset(self, rows: ArrayLike) -> LabeledDataset:
        """The examples at `rows` (positions or a boolean mask), ids and class names kept."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        return replace(
            self,
            inputs=self.inputs[index],
            labels=self.labels[index],
            ids=self.ids[index],
            sources=None if self.sources is None else self.sources[index],
            split=None if self.split is None else self.split[index],
            content=None,
            originals=None if self.originals is None else self.originals.subset(self.ids[index]),
        )

    def with_labels(self, labels: ArrayLike) -> LabeledDataset:
        """The same examples with other given labels."""
        return replace(self, labels=np.asarray(labels))

    @cached_property
    def content_digest(self) -> str:
        """Hex digest of the inputs."""
        return self.content or digest_array(self.inputs)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What tells this dataset from another: counts and digests, for manifests."""
        encoder = {"encoder": self.encoder} if self.encoder else {}
        return {
            **encoder,
            "examples": len(self),
            "input_shape": list(self.input_shape),
            "inputs": self.content_digest,
            "labels": digest_array(self.labels),
            "ids": digest_array(self.ids),
            "classes": hashlib.blake2b(
                "\x1f".join(self.class_names).encode("utf-8", "surrogateescape"), digest_size=16
            ).hexdigest(),
        }


def _check_inputs(inputs: NDArray[Any]) -> None:
    shape: Sequence[int] = inputs.shape
    if inputs.dtype == np.uint8 and (len(shape) == 3 or (len(shape) == 4 and shape[3] == 3)):
        return
    if inputs.dtype == np.float32 and len(shape) == 2 and shape[1] > 0:
        check_finite(inputs, "features", "drop or fill these rows")
        return
    raise DataError(
        "inputs must be uint8 images of shape (n, h, w) or (n, h, w, 3), or float32 vectors of "
        f"shape (n, d); got {inputs.dtype} of shape {tuple(shape)}"
    )
