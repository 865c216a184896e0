"""A folder with one sub-folder of images per class."""

from __future__ import annotations

import logging
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noiseaudit.dataset import Originals
from noiseaudit.errors import DataError, NoiseAuditWarning
from noiseaudit.image_cache import load_pictures
from noiseaudit.images import picture_extensions
from noiseaudit.sources.examples import (
    SPLITS,
    Examples,
    Inputs,
    PictureOptions,
    listed,
    split_name,
)

__all__ = ["examples_from_folder", "picture_reader"]

logger = logging.getLogger(__name__)

_LAYOUT = (
    "expected one sub-folder of images per class, such as cat/1.jpg and dog/2.png, "
    "or those below train/, val/ and test/"
)

_Parts = tuple[str, ...]


@dataclass
class _Tree:
    """What a walk found, as path parts below the root."""

    pictures: list[_Parts] = field(default_factory=list)
    folders: list[_Parts] = field(default_factory=list)
    other_files: int = 0


def examples_from_folder(root: Path, options: PictureOptions) -> Examples:
    """Examples from a class folder, with or without a level of splits.

    The class is the first folder below the root (or below the split); deeper pictures count to it.
    A folder is a split if its name says so and it holds folders of pictures but none itself.

    Raises:
        DataError: if there are no pictures, or none in a class folder.
    """
    tree = _walk(root)
    logger.info("%s: %d pictures, %d other files", root, len(tree.pictures), tree.other_files)
    if not tree.pictures:
        raise DataError(f"there are no pictures in it; {_LAYOUT}")
    splits = _split_folders(tree)
    depth = 1 if splits else 0
    inside = [parts for parts in tree.pictures if not splits or parts[0] in splits]
    pictures = [parts for parts in inside if len(parts) > depth + 1]
    if not pictures:
        raise DataError(
            f"{len(tree.pictures)} pictures lie in the folder itself, so their classes are not "
            f"known; {_LAYOUT}"
        )
    _warn_of_ignored(tree, splits, stray=len(inside) - len(pictures))
    order = {name: SPLITS.index(split) for name, split in splits.items()}
    keyed = sorted((order.get(parts[0], 0), "/".join(parts), parts[depth]) for parts in pictures)
    names = sorted({name for _, _, name in keyed})
    _warn_of_empty_classes(tree, splits, names)
    codes = {name: code for code, name in enumerate(names)}
    sources = np.array([path for _, path, _ in keyed], dtype=str)
    return Examples(
        np.array([codes[name] for _, _, name in keyed], dtype=np.int64),
        tuple(names),
        picture_reader(root, sources, options),
        name=root.resolve().name or str(root),
        split=np.array([SPLITS[rank] for rank, _, _ in keyed]) if splits else None,
        sources=sources,
        root=root.absolute(),
    )


def picture_reader(
    root: Path, sources: NDArray[np.str_], options: PictureOptions
) -> Callable[[NDArray[np.int64]], Inputs]:
    """A function that reads the pictures at rows of `sources` through the cache."""

    def read(rows: NDArray[np.int64]) -> Inputs:
        pictures = load_pictures(
            root,
            sources[rows].tolist(),
            cap=options.cap,
            image_size=options.image_size,
            progress=options.progress,
        )
        headers = pictures.headers
        originals = Originals(
            rows[pictures.kept],
            np.frombuffer(b"".join(header.digest for header in headers), np.uint8).reshape(-1, 16),
            np.array([(header.width, header.height) for header in headers], dtype=np.int64),
        )
        kept, reasons = pictures.kept, pictures.reasons
        return Inputs(pictures.pixels, kept, reasons, pictures.key, originals)

    return read


def _walk(root: Path) -> _Tree:
    """All visible files and folders; links are followed, but never to a folder one is inside of."""
    tree = _Tree()
    extensions = picture_extensions()
    stack: list[tuple[str, _Parts, frozenset[tuple[int, int]]]] = [(str(root), (), frozenset())]
    while stack:
        folder, parts, above = stack.pop()
        for entry in _entries(folder):
            if entry.name.startswith("."):
                continue
            here = (*parts, entry.name)
            if entry.is_dir():
                status = entry.stat()
                identity = (status.st_dev, status.st_ino)
                if identity not in above:
                    tree.folders.append(here)
                    stack.append((entry.path, here, above | {identity}))
            elif os.path.splitext(entry.name)[1].lower() in extensions:  # noqa: PTH122  # speed
                tree.pictures.append(here)
            else:
                tree.other_files += 1
    return tree


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise DataError(f"the folder {folder!r} cannot be listed: {error.strerror}") from error


def _split_folders(tree: _Tree) -> dict[str, str]:
    """The top folders that are splits: name -> "train", "val" or "test"."""
    direct = {parts[0] for parts in tree.pictures if len(parts) == 2}
    deep = {parts[0] for parts in tree.pictures if len(parts) > 2}
    named = {name: split for name in deep if (split := split_name(name))}
    # One clean split makes a level of them; a stray picture in another is no class of its own.
    return named if named.keys() - direct else {}


def _warn_of_ignored(tree: _Tree, splits: dict[str, str], stray: int) -> None:
    top_pictures = sum(len(parts) == 1 for parts in tree.pictures)
    stray += top_pictures if splits else 0
    if stray:
        warnings.warn(
            f"{stray} pictures beside the class folders are ignored: they have no class",
            NoiseAuditWarning,
            stacklevel=2,
        )
    beside = sorted(p[0] for p in tree.folders if len(p) == 1 and p[0] not in splits)
    if splits and beside:
        warnings.warn(
            f"the folders {listed(beside)} beside {listed(sorted(splits))} are ignored: "
            "they are no splits with class folders",
            NoiseAuditWarning,
            stacklevel=2,
        )


def _warn_of_empty_classes(tree: _Tree, splits: dict[str, str], names: list[str]) -> None:
    depth = 1 if splits else 0
    counts: dict[str, int] = defaultdict(int)
    for parts in tree.folders:
        if len(parts) == depth + 1 and (not splits or parts[0] in splits):
            counts[parts[depth]] += 1
    empty = sorted(counts.keys() - set(names))
    if empty:
        warnings.warn(
            f"{len(empty)} class folders hold no pictures and are left out: {listed(empty)}",
            NoiseAuditWarning,
            stacklevel=2,
        )
