"""The copies in a data set, whatever its labels: hash, propose, confirm, group; kept for reuse."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._io import make_folder, read_npz, write_npz
from noiseaudit.copies import HASH, Links, Thumbnails, confirm
from noiseaudit.copy_groups import group_links, join_groups
from noiseaudit.dataset import LabeledDataset, digest_array
from noiseaudit.embedded_copies import check_embeddings, confirm_embedded, similar_pairs
from noiseaudit.errors import OutputError, UsageError
from noiseaudit.hamming import Pairs, hamming_pairs
from noiseaudit.manifest import differences, read_manifest, write_manifest
from noiseaudit.picture_hashes import PictureHashes, check_hash, hash_pictures

__all__ = ["CopyOptions", "CopyScan", "scan_copies"]

_FORMAT = 2  # raise it whenever the same pictures would give other copies


@dataclass(frozen=True)
class CopyOptions:
    """How copies are looked for.

    Attributes:
        hash: one of `picture_hashes.HASHES`.
        hash_size: bits along a side of the hash.
        radius: greatest Hamming distance of candidates; None for an eighth of the bits, made even.
        transforms: whether mirrored and turned copies count.

    Raises:
        UsageError: for a value that it cannot have.
    """

    hash: str = "phash"
    hash_size: int = 8
    radius: int | None = None
    transforms: bool = False

    def __post_init__(self) -> None:
        for name in ("hash_size", "radius"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _whole(value, name))
        check_hash(self.hash, self.hash_size)
        bits = self.hash_size * self.hash_size
        if self.radius is None:
            object.__setattr__(self, "radius", bits // 16 * 2)
        if not 0 <= self.max_distance < bits:
            raise UsageError(f"radius must be in 0..{bits - 1}; got {self.radius}")

    @property
    def max_distance(self) -> int:
        """The radius as a number: it is settled when options are made."""
        return 0 if self.radius is None else self.radius


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool):
        raise UsageError(f"{name} must be a whole number; got {value!r}")
    try:
        return operator.index(value)
    except TypeError as error:
        raise UsageError(f"{name} must be a whole number; got {value!r}") from error


@dataclass(frozen=True, eq=False)
class CopyScan:
    """Of n examples.

    Attributes:
        original: (n,) int64, the first row with the same pixels.
        group: (n,) int64, near copies that belong together, -1 without any.
        links: confirmed near pairs, of originals.
    """

    original: NDArray[np.int64]
    group: NDArray[np.int64]
    links: Links


def scan_copies(
    dataset: LabeledDataset,
    options: CopyOptions,
    folder: Path | None = None,
    *,
    embeddings: ArrayLike | None = None,
    resume: bool = True,
    progress: bool = False,
) -> CopyScan:
    """Find the copies, or read them from `folder` where they were found with the same options.

    `embeddings`, (n, d) numbers, propose pairs beside the hash; see `embedded_copies`.

    Raises:
        DataError: if embeddings are not (n, d) finite numbers.
        UsageError: if the examples they are of are no pictures.
    """
    vectors = None if embeddings is None else check_embeddings(embeddings, dataset)
    versions = {name: version(name) for name in ("imagehash", "pillow")}
    config = {
        "format": _FORMAT,
        **asdict(options),
        "inputs": dataset.content_digest,
        "ids": digest_array(dataset.ids),  # files may differ where what was loaded of them does not
        "embeddings": None if vectors is None else digest_array(vectors),
        "versions": versions,
    }
    if folder is not None and resume and (stored := _stored(folder, config)) is not None:
        return stored
    hashes = hash_pictures(
        dataset,
        kind=options.hash,
        hash_size=options.hash_size,
        transforms=options.transforms,
        progress=progress,
    )
    found = _scan(dataset, options, hashes)
    if vectors is not None:
        found = _with_embedded(found, dataset, hashes, vectors, progress)
    if folder is not None and hashes.complete:
        make_folder(folder)
        arrays = {"original": found.original, "group": found.group}
        arrays |= {f"link_{name}": values for name, values in vars(found.links).items()}
        (folder / "manifest.json").unlink(
            missing_ok=True
        )  # never one scan's copies under another's
        write_npz(folder / "copies.npz", arrays)
        write_manifest(folder / "manifest.json", {"config": config})
    return found


def _stored(folder: Path, config: dict[str, Any]) -> CopyScan | None:
    try:
        manifest = read_manifest(folder / "manifest.json")
        if manifest is None or differences(manifest.get("config", {}), config):
            return None
        arrays = read_npz(folder / "copies.npz")
        links = {key[5:]: values for key, values in arrays.items() if key.startswith("link_")}
        return CopyScan(arrays["original"], arrays["group"], Links(**links))
    except (OutputError, KeyError, TypeError):
        return None  # damaged: found again


def _scan(dataset: LabeledDataset, options: CopyOptions, hashes: PictureHashes) -> CopyScan:
    none = np.empty(0, np.int64)
    links = Links.whole(none.reshape(0, 2), none, np.empty(0), none, HASH)
    _, first, copy_of = np.unique(hashes.digests, axis=0, return_index=True, return_inverse=True)
    original = first[copy_of.ravel()].astype(np.int64)
    group = np.full(len(dataset), -1, np.int64)
    if dataset.kind == "images" and len(dataset):
        links, near = _near(dataset.inputs, np.sort(first), hashes, options)
        group = near[original]
    return CopyScan(original, group, links)


def _near(
    inputs: NDArray[np.uint8],
    rows: NDArray[np.int64],
    hashes: PictureHashes,
    options: CopyOptions,
) -> tuple[Links, NDArray[np.int64]]:
    """Confirmed pairs among `rows`, and the group of every example of the data set."""
    codes = hashes.codes[rows]
    thumbnails = Thumbnails(inputs, rows, hashes.digests[rows], codes[:, 0], options.max_distance)
    varied = np.flatnonzero(~thumbnails.is_flat)
    own = codes[varied]

    def candidates() -> Iterator[tuple[int, Pairs]]:
        for transform in range(own.shape[1]):
            other = None if transform == 0 else own[:, transform]
            for first, second, distances in hamming_pairs(
                own[:, 0], other, radius=options.max_distance
            ):
                yield transform, (varied[first], varied[second], distances)

    links = confirm(candidates(), thumbnails)
    group = np.full(len(inputs), -1, np.int64)
    group[rows] = group_links(links, len(rows), thumbnails)
    return replace(links, rows=rows[links.rows]), group


def _with_embedded(
    found: CopyScan,
    dataset: LabeledDataset,
    hashes: PictureHashes,
    embeddings: NDArray[np.float32],
    progress: bool,
) -> CopyScan:
    """With the copies that embeddings propose among pictures that are not in one group already."""
    rows = np.unique(found.original)
    candidates = similar_pairs(embeddings, rows, found.group)
    links = confirm_embedded(candidates, dataset, hashes.codes, progress=progress)
    group = join_groups(found.group, links.rows)[found.original]
    return CopyScan(found.original, group, Links.joined([found.links, links]))
