"""Copies that a hash of the whole picture misses: neighbours among embeddings, confirmed.

An embedding proposes: the pairs whose similarity stands out most from that of their further
neighbours. `registration` decides: the one picture must show a window of the other, and structure
must agree there by 0.85 on the whole, by 0.65 in the cells that agree least, and by far more than
in pairs of the same data set that are alike but no copies.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from noiseaudit._rows import spread_rows
from noiseaudit._validation import check_finite
from noiseaudit.copies import EMBEDDING, Links, transformed
from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import DataError, UsageError
from noiseaudit.image_cache import in_parallel
from noiseaudit.images import UNREADABLE, decode_picture
from noiseaudit.registration import Registered, register

__all__ = ["Candidates", "check_embeddings", "confirm_embedded", "similar_pairs"]

logger = logging.getLogger(__name__)

_NEIGHBOURS = 3  # of each picture that may be copies of it,
_FURTHER = 10  # and the one that says how similar pictures are that are none
_FEW, _MOST = 500, 20_000  # pairs that are compared; between them, as many as pictures
_AGREEMENT = 0.85  # of structure, at least,
_LOCAL = 0.65  # and in the cells of the picture that agree least
_DEVIATIONS = 8.0  # robust ones, by which it is above the median of pairs that are no copies
_REFERENCES = 300  # such pairs
_SIDES = (32, 64, 128)  # pixels a side of what is compared: what the pictures have, if they can
_BLOCK = 128  # pairs


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs that may be copies, and others that are alike but none.

    Attributes:
        rows: (p, 2) int64, the lower row first, those first that stand out most.
        similarities: (p,) float64 in [-1, 1], cosine of the embeddings less their mean.
        references: (r, 2) int64, pictures and their tenth neighbours.
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float64]
    references: NDArray[np.int64]


def check_embeddings(embeddings: ArrayLike, dataset: LabeledDataset) -> NDArray[np.float32]:
    """The embeddings that copies are looked for among, as (n, d) float32.

    Raises:
        UsageError: if the examples are no pictures.
        DataError: if they are not (n, d) finite numbers.
    """
    if dataset.kind != "images":
        raise UsageError("embeddings help to find copies of pictures; these examples are vectors")
    values = np.asarray(embeddings)
    if values.ndim != 2 or len(values) != len(dataset) or not values.shape[1]:
        raise DataError(f"embeddings must have shape ({len(dataset)}, d); got {values.shape}")
    if values.dtype.kind not in "fiu":
        raise DataError(f"embeddings must be numbers; got {values.dtype}")
    values = values.astype(np.float32, copy=False)
    check_finite(values, "embeddings")
    return values


def similar_pairs(
    embeddings: NDArray[np.float32], rows: NDArray[np.int64], groups: NDArray[np.int64]
) -> Candidates:
    """The pairs that stand out, of each picture's three nearest: as many as there are pictures.

    How far one stands out is its similarity less that of the picture's tenth neighbour, or less the
    median of all tenth ones where that is lower: a picture may have many copies.

    Cost: every picture against every other, exactly, by scikit-learn; 500 pairs at least and
    20,000 at most go on to the costly comparison.

    Args:
        embeddings: (n, d), finite.
        rows: (m,) which of them, in order.
        groups: (n,) of copies that are known, -1 without: no pairs within one.
    """
    from sklearn.neighbors import NearestNeighbors

    m = len(rows)
    k = min(_FURTHER, m - 1)
    if k < 1:
        none = np.empty((0, 2), np.int64)
        return Candidates(none, np.empty(0), none)
    units = embeddings[rows] - embeddings[rows].mean(axis=0)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), np.float32(1e-12))
    search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(units)
    distances, nearest = search.kneighbors()
    similar = np.clip(1 - distances.astype(np.float64) ** 2 / 2, -1, 1)
    further = np.minimum(similar[:, -1], np.median(similar[:, -1]))
    tried = min(_NEIGHBOURS, k)
    pairs = np.stack([np.repeat(rows, tried), rows[nearest[:, :tried]].ravel()], axis=1)
    pairs.sort(axis=1)
    order = np.argsort((further[:, None] - similar[:, :tried]).ravel(), kind="stable")
    first, second = groups[pairs[order]].T
    order = order[(first != second) | (first < 0)]
    _, once = np.unique(pairs[order], axis=0, return_index=True)
    order = order[np.sort(once)[: min(max(_FEW, m), _MOST)]]
    by_tenth = np.argsort(similar[:, -1], kind="stable")
    some = by_tenth[spread_rows(m, _REFERENCES)]
    references = np.stack([rows[some], rows[nearest[some, -1]]], axis=1)
    if m <= 2 * _FURTHER:  # too few pictures to say how like are those that are no copies
        references = references[:0]
    return Candidates(pairs[order], similar[:, :tried].ravel()[order], references)


def confirm_embedded(
    candidates: Candidates,
    dataset: LabeledDataset,
    codes: NDArray[np.uint64],
    *,
    progress: bool = False,
) -> Links:
    """The candidates that are copies, with the window that the one shows of the other.

    Pictures are read as grey levels in at most 128 x 128, from their files where there are any. A
    link's distance is that of the hashes, however far; its error is 1 - agreement of structure.

    Cost: 10 ms a pair on one core and the decoding of its files, for each way to mirror and turn.

    Args:
        candidates: pairs of rows of the data set.
        dataset: where they are.
        codes: (n, v, w) uint64 perceptual hashes, in v views: more than one if mirrored and turned
            copies count.
        progress: show a bar on stderr when it is a terminal.
    """
    references = _registered(dataset, candidates.references, 0, progress)
    limit = max(_AGREEMENT, _outlying(references.agreement))
    logger.info("structure must agree by %.3f", limit)
    left = np.arange(len(candidates.rows))
    parts = []
    for transform in range(codes.shape[1]):
        rows = candidates.rows[left]
        found = _registered(dataset, rows, transform, progress)
        good = (found.agreement >= limit) & (found.local >= _LOCAL)
        apart = np.bitwise_count(codes[rows[good, 0], 0] ^ codes[rows[good, 1], transform])
        m = int(good.sum())
        parts.append(
            Links(
                rows[good], apart.sum(axis=1, dtype=np.int64), 1 - found.agreement[good],
                np.full(m, transform), np.full(m, EMBEDDING), candidates.similarities[left[good]],
                _of_first(found.windows[good], found.is_inverse[good]),
            )
        )  # fmt: skip
        left = left[~good]
    return Links.joined(parts)


def _of_first(windows: NDArray[np.float64], is_inverse: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Windows of the first picture that the second shows, beyond its edges if it shows more."""
    start, size = windows[:, :2], windows[:, 2:] - windows[:, :2]
    inverse = np.concatenate([-start / size, (1 - start) / size], axis=1)
    return np.where(is_inverse[:, None], inverse, windows)


def _outlying(agreement: NDArray[np.float64]) -> float:
    """What agreement pairs that are no copies do not come near."""
    if not len(agreement):
        return 0.0
    known = np.arctanh(np.clip(agreement, -0.999, 0.999))  # Fisher's: its deviations are even
    median = np.median(known)
    spread = 1.4826 * np.median(np.abs(known - median))
    return float(np.tanh(median + _DEVIATIONS * spread))


def _registered(
    dataset: LabeledDataset, pairs: NDArray[np.int64], transform: int, progress: bool
) -> Registered:
    """Pairs of rows laid over each other, the second mirrored or turned first."""
    order = np.lexsort(pairs.T[::-1])
    side = _side(dataset)

    def one(start: int) -> Registered:
        own = pairs[order[start : start + _BLOCK]]
        used, places = np.unique(own, return_inverse=True)
        pictures = np.stack([_grey(dataset, int(row), side) for row in used]).astype(np.float32)
        first, second = places.reshape(-1, 2).T
        if transform:
            pictures = np.concatenate([pictures, transformed(pictures, transform)])
            second = second + len(used)
        return register(pictures, first, second)

    blocks = in_parallel(
        one, range(0, len(pairs), _BLOCK), "comparing similar pictures", progress, unit="block"
    )
    blocks.append(register(np.empty((0, side, side), np.float32), order[:0], order[:0]))
    back = np.argsort(order)
    return Registered(*(
        np.concatenate([getattr(block, name) for block in blocks])[back]
        for name in ("agreement", "local", "windows", "is_inverse")
    ))  # fmt: skip


def _side(dataset: LabeledDataset) -> int:
    if dataset.root is not None and dataset.sources is not None and (dataset.sources != "").all():
        return _SIDES[-1]
    own = max(dataset.inputs.shape[1:3])
    return min((side for side in _SIDES if side >= own), default=_SIDES[-1])


def _grey(dataset: LabeledDataset, row: int, side: int) -> NDArray[np.uint8]:
    """A picture in side x side grey levels: of its file, or where that is gone, as loaded."""
    if dataset.root is not None and dataset.sources is not None and dataset.sources[row]:
        try:
            path = Path(dataset.root) / str(dataset.sources[row])
            return decode_picture(path, (side, side), grey=True)
        except UNREADABLE:
            pass  # told of when it was hashed
    picture = Image.fromarray(dataset.inputs[row]).convert("L")
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC))
