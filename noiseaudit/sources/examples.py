"""What every kind of source is brought to, and what is then done with all of them alike."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import LabeledDataset, Originals, Skipped, TableColumns
from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError, check_name
from noiseaudit.images import check_image_size
from noiseaudit.seeding import generator

__all__ = [
    "SPLITS",
    "Examples",
    "Inputs",
    "PictureOptions",
    "Selection",
    "build_dataset",
    "listed",
    "select_from_dataset",
    "split_name",
]

SPLITS = ("train", "val", "test")
_CAPS = {"cpu": 64, "cuda": 128}


def split_name(text: str) -> str | None:
    """The one of `SPLITS` that a folder or cell means, in any case; None if it means none."""
    lowered = text.lower()
    lowered = "val" if lowered in ("valid", "validation") else lowered
    return lowered if lowered in SPLITS else None


def listed(names: Iterable[object], limit: int = 5) -> str:
    """Names for a message: quoted, the first few, and how many more there are."""
    items = [repr(name) for name in names]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


@dataclass(frozen=True)
class PictureOptions:
    """How pictures of mixed sizes are brought to one working size.

    Attributes:
        image_size: the side asked for, or None for an automatic one.
        device: "auto", "cpu" or "cuda": where the pictures will be trained on.
        progress: whether to show bars on a terminal.
    """

    image_size: int | None = None
    device: str = "auto"
    progress: bool = False

    def __post_init__(self) -> None:
        check_image_size(self.image_size)
        check_name(self.device, ("auto", *_CAPS), "device")

    def cap(self) -> int:
        """The largest side chosen automatically.

        64 on a CPU, because the time of an epoch grows with the square of the side and must stay
        in minutes; 128 on CUDA, which has the room for finer detail.
        """
        from noiseaudit.device import select_device

        return _CAPS[select_device(self.device).type]


@dataclass(frozen=True)
class Selection:
    """Which examples of a source are wanted.

    Attributes:
        split: "train", "val", "test", "all", or None for the source's default.
        limit: at most so many examples, stratified by class; None for no limit.
        seed: of the draw that `limit` makes.
    """

    split: str | None = None
    limit: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split is not None:
            check_name(self.split, (*SPLITS, "all"), "split")
        for name, value in (("limit", self.limit), ("seed", self.seed)):
            if value is None and name == "limit":
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise UsageError(f"{name} must be a whole number; got {value!r}")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit must be at least 1; got {self.limit}")

    def rows(
        self, labels: NDArray[np.int64], split: NDArray[np.str_] | None, default: str
    ) -> NDArray[np.int64]:
        """The positions selected, in source order.

        Raises:
            DataError: if the source has no such split.
        """
        wanted = self.split or (default if split is not None else "all")
        rows = np.arange(len(labels))
        if wanted != "all":
            present = [] if split is None else [name for name in SPLITS if (split == name).any()]
            if split is None or wanted not in present:
                there = f"it has {', '.join(present)}" if present else "it has no splits"
                raise DataError(f"there is no split {wanted!r}: {there}; 'all' takes everything")
            rows = np.flatnonzero(split == wanted)
        if self.limit is not None and self.limit < len(rows):
            rows = rows[_stratified(labels[rows], self.limit, self.seed)]
        return rows


def _stratified(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """`limit` positions, each class in proportion (largest remainder), at least one of each."""
    classes, counts = np.unique(labels, return_counts=True)
    quotas = counts * (limit / len(labels))
    taken = np.floor(quotas).astype(np.int64)
    order = np.argsort(-(quotas - taken), kind="stable")
    taken[order[: limit - int(taken.sum())]] += 1
    if limit >= len(classes):
        for empty in np.flatnonzero(taken == 0):
            richest = int(np.argmax(np.where(taken > 1, taken - quotas, -np.inf)))
            taken[richest] -= 1
            taken[empty] = 1
    draw = generator(seed, "limit")
    chosen = [
        draw.permutation(np.flatnonzero(labels == label))[:count]
        for label, count in zip(classes, taken, strict=True)
    ]
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True)
class Inputs:
    """The inputs of the rows that were asked for.

    Attributes:
        array: one input per kept row, as `LabeledDataset.inputs`.
        kept: positions in the rows asked for; None where all were read.
        reasons: for each position that could not be read, why.
        content: digest of `array`, where it is known already.
        originals: the kept pictures before they were reduced, where they were.
    """

    array: NDArray[Any]
    kept: NDArray[np.int64] | None = None
    reasons: dict[int, str] = field(default_factory=dict)
    content: str | None = None
    originals: Originals | None = None


@dataclass(frozen=True)
class Examples:
    """A whole source, its inputs not read yet.

    Attributes:
        labels: (n,) int64 codes into `class_names`.
        read: from positions in the source to their inputs.
        default_split: what is taken when nobody names a split.
        others: as in `LabeledDataset`.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    read: Callable[[NDArray[np.int64]], Inputs]
    name: str
    default_split: str = "all"
    split: NDArray[np.str_] | None = None
    sources: NDArray[np.str_] | None = None
    root: Path | None = None
    feature_names: tuple[str, ...] | None = None
    columns: TableColumns | None = None


def build_dataset(examples: Examples, selection: Selection) -> LabeledDataset:
    """Select, read what is selected, and check it.

    Raises:
        DataError: if there is nothing, or one class only, before or after reading.
    """
    if not len(examples.labels):
        raise DataError("there are no examples")
    rows = selection.rows(examples.labels, examples.split, examples.default_split)
    _check_classes(examples.labels[rows], examples.class_names, warn=False)
    inputs = examples.read(rows)
    kept = rows if inputs.kept is None else rows[inputs.kept]
    sources = examples.sources
    skipped = tuple(
        Skipped(int(rows[i]), "" if sources is None else str(sources[rows[i]]), reason)
        for i, reason in sorted(inputs.reasons.items())
    )
    labels, names = examples.labels[kept], examples.class_names
    if skipped:
        labels, names = _without_lost_classes(labels, examples.labels[rows], names)
    _check_classes(labels, names, warn=True)
    if examples.columns is not None and (told := examples.columns.warning):
        warnings.warn(told, NoiseAuditWarning, stacklevel=2)
    return LabeledDataset(
        inputs=inputs.array,
        labels=labels,
        class_names=names,
        ids=kept,
        sources=None if sources is None else sources[kept],
        split=None if examples.split is None else examples.split[kept],
        name=examples.name,
        root=examples.root,
        feature_names=examples.feature_names,
        content=inputs.content,
        skipped=skipped,
        columns=examples.columns,
        originals=inputs.originals,
    )


def select_from_dataset(dataset: LabeledDataset, selection: Selection) -> LabeledDataset:
    """The part of a finished dataset that is selected: itself, where that is everything."""
    rows = selection.rows(dataset.labels, dataset.split, "all")
    if not len(rows):
        raise DataError("there are no examples")
    result = dataset if len(rows) == len(dataset) else dataset.subset(rows)
    _check_classes(result.labels, result.class_names, warn=True)
    return result


def _without_lost_classes(
    labels: NDArray[np.int64], before: NDArray[np.int64], names: tuple[str, ...]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Leave out the classes of which no file could be read."""
    lost = set(np.setdiff1d(before, labels).tolist())
    if not lost:
        return labels, names
    warnings.warn(
        f"no picture of {listed(names[code] for code in sorted(lost))} can be read; left out",
        NoiseAuditWarning,
        stacklevel=2,
    )
    left = [code for code in range(len(names)) if code not in lost]
    codes = np.full(len(names), -1, dtype=np.int64)
    codes[left] = np.arange(len(left))
    return codes[labels], tuple(names[code] for code in left)


def _check_classes(labels: NDArray[np.int64], names: tuple[str, ...], *, warn: bool) -> None:
    counts = np.bincount(labels, minlength=len(names))
    present = np.flatnonzero(counts)
    if len(present) < 2:
        there = f"one class only, {names[present[0]]!r}" if len(present) else "no class"
        raise DataError(
            f"there is {there}, with {len(labels)} examples: labels are judged by comparing "
            "classes, so at least two are needed"
        )
    single = [names[code] for code in np.flatnonzero(counts == 1)]
    if warn and single:
        what = "class has" if len(single) == 1 else "classes have"
        warnings.warn(
            f"{len(single)} {what} a single example, which cannot be judged well: {listed(single)}",
            NoiseAuditWarning,
            stacklevel=2,
        )
