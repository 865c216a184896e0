"""Which pictures are copies of each other: candidates confirmed on pixels.

A perceptual hash proposes; pixels decide. Two pictures are compared as thumbnails of 16 x 16 from
which brightness and contrast are removed, by the distance of these unit vectors, sqrt(2 - 2 rho)
for their correlation rho. A pair is a copy if rho is at least 0.9 **and** its distance is at most
0.4 of that at which unrelated pictures of the same data set begin to lie: among 5,000 others the
third nearest correlates by 0.65 with the median picture of CIFAR-100's candidates, by 0.945 with
Fashion-MNIST's, where two shirts cut out alike are still two shirts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noiseaudit.hamming import Pairs

__all__ = [
    "EMBEDDING", "FOUND_BY", "HASH", "MAX_ERROR", "PIXELS", "Links", "Thumbnails", "confirm",
    "transformed",
]  # fmt: skip

MAX_ERROR = 0.1
"""Greatest 1 - rho of a copy that a hash proposed."""

FOUND_BY = ("pixels", "hash", "embedding")
"""What proposed a pair: identical pixels, a near hash, or an embedding alone."""

PIXELS, HASH, EMBEDDING = range(3)

_SHARE = 0.4  # of the distance of unrelated pictures, up to which a pair is a copy
_SIDE = 16
_COARSE = 8
_FLAT = 2.0  # deviation in grey levels below which a picture has nothing to compare
_REFERENCES = 5_000  # pictures that the distance of unrelated ones is read from
_CLUSTER = 10  # copies of one picture that may lie among them without being taken for unrelated
_BLOCK = 2_000
_PAIRS = 20_000
_INVERSE = (0, 1, 2, 5, 4, 3, 6, 7)  # of each transform: a turn by 90 degrees undoes one by 270


@dataclass(frozen=True, eq=False)
class Links:
    """Confirmed pairs.

    Attributes:
        rows: (m, 2) int64, the lower row first.
        distances: (m,) int64 Hamming distance of the hashes, beyond the radius if an embedding
            found the pair.
        errors: (m,) float64, 1 - correlation: of the pixels, in [0, `MAX_ERROR`], or of the
            structure in the window that both show if an embedding found the pair, in [0, 0.15].
        transforms: (m,) int64, which of `TRANSFORMS` makes the second like the first.
        found_by: (m,) int64, which of `FOUND_BY`.
        similarities: (m,) float64 in [-1, 1] of the embeddings; NaN unless these found the pair.
        windows: (m, 4) float64, left, top, right, bottom in shares of the first picture's sides:
            what the second shows of it, after its transform; NaN unless it was looked for.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.int64]
    errors: NDArray[np.float64]
    transforms: NDArray[np.int64]
    found_by: NDArray[np.int64]
    similarities: NDArray[np.float64]
    windows: NDArray[np.float64]

    @classmethod
    def whole(
        cls,
        rows: NDArray[np.int64],
        distances: NDArray[np.int64],
        errors: NDArray[np.float64],
        transforms: NDArray[np.int64],
        found_by: int,
    ) -> Links:
        """Pairs that were compared as they are, without embeddings."""
        m = len(rows)
        unknown = np.full((m, 5), np.nan)
        return cls(
            rows, distances, errors, transforms, np.full(m, found_by), unknown[:, 0], unknown[:, 1:]
        )

    @classmethod
    def joined(cls, parts: Sequence[Links]) -> Links:
        """All of several, at least one."""
        names = [item.name for item in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class Thumbnails:
    """What pictures are compared by.

    Args:
        inputs: (m, h, w) or (m, h, w, 3) uint8; may be memory-mapped.
        rows: (n,) which of them.
        digests: (n, 2) uint64 of the pictures: those with the lowest are references, so that
            neither order nor seed decides.
        codes: (n, w) uint64 perceptual hashes.
        radius: of the hashes; up to half of it a reference counts as a copy itself.

    Attributes:
        is_flat: (n,) bool: pictures of one shade, which are like nothing but their exact copies.
    """

    def __init__(
        self,
        inputs: NDArray[np.uint8],
        rows: NDArray[np.int64],
        digests: NDArray[np.uint64],
        codes: NDArray[np.uint64],
        radius: int,
    ) -> None:
        n, shape = len(rows), (_SIDE, _SIDE, *inputs.shape[3:])
        self._codes, self._radius = codes, radius
        self._small = np.empty((n, *shape), np.uint8)
        for place, row in enumerate(rows):
            picture = Image.fromarray(inputs[row]).resize((_SIDE, _SIDE), Image.Resampling.BOX)
            self._small[place] = np.asarray(picture)
        self._coarse = np.empty((n, _COARSE, _COARSE), np.float32)
        self.is_flat = np.empty(n, dtype=bool)
        step = _SIDE // _COARSE
        for start in range(0, n, _BLOCK):
            part = self._small[start : start + _BLOCK]
            deviations = np.sqrt(part.reshape(len(part), _SIDE**2, -1).var(axis=1).mean(axis=1))
            self.is_flat[start : start + _BLOCK] = deviations < _FLAT
            units = self.units(np.arange(start, start + len(part))).reshape(len(part), *shape)
            blocks = units.reshape(len(part), _COARSE, step, _COARSE, step, -1)
            # An orthogonal projection: distances in it are never larger than in full.
            whole = np.sqrt(units[0].size) / _COARSE
            self._coarse[start : start + _BLOCK] = blocks.mean(axis=(2, 4, 5)) * whole
        lowest = np.lexsort((digests[:, 1], digests[:, 0]))[:_REFERENCES]
        self._references = np.sort(lowest)

    def units(self, rows: NDArray[np.int64], transform: int = 0) -> NDArray[np.float32]:
        """(p, d) pixels of `rows`, mirrored or turned, less each channel's mean, of length one."""
        part = transformed(self._small[rows], transform).reshape(len(rows), _SIDE**2, -1)
        centred = part - part.mean(axis=1, keepdims=True, dtype=np.float32)
        centred = centred.reshape(len(rows), -1)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        result: NDArray[np.float32] = centred / np.maximum(lengths, np.float32(1e-6))
        return result

    def may_be_copies(
        self, rows: NDArray[np.int64], others: NDArray[np.int64], transform: int
    ) -> NDArray[np.bool_]:
        """Whether a cheap lower bound of the distance allows it."""
        difference = self._coarse[rows] - transformed(self._coarse[others], transform)
        squares = np.einsum("pij,pij->p", difference, difference)
        allowed: NDArray[np.bool_] = squares <= 2 * MAX_ERROR + 1e-4
        return allowed

    def squared_distances(
        self, rows: NDArray[np.int64], others: NDArray[np.int64], transform: int
    ) -> NDArray[np.float64]:
        """2 - 2 rho of each pair."""
        result = np.empty(len(rows), np.float64)
        for start in range(0, len(rows), _PAIRS):
            # Copies of one picture meet in many pairs: what they are compared by is made once.
            left, first = np.unique(rows[start : start + _PAIRS], return_inverse=True)
            right, second = np.unique(others[start : start + _PAIRS], return_inverse=True)
            mine, theirs = self.units(left), self.units(right, transform)
            for begin in range(0, len(first), _BLOCK):
                part = slice(begin, begin + _BLOCK)
                difference = mine[first[part]] - theirs[second[part]]
                squares = np.einsum("pd,pd->p", difference, difference)
                result[start + begin : start + begin + len(squares)] = squares
        return result

    def limits(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """The squared distance of each row up to which another picture is its copy."""
        references = self._references[~self.is_flat[self._references]]
        rank = 1 + int(np.ceil(_CLUSTER * len(self._references) / len(self._small)))
        if len(references) <= rank:  # too few pictures to say how far unrelated ones lie
            return np.full(len(rows), 2 * MAX_ERROR)
        known = self.units(references)
        squares = np.empty(len(rows), np.float64)
        for start in range(0, len(rows), _BLOCK):
            part = rows[start : start + _BLOCK]
            similar = self.units(part) @ known.T
            # What the hash is sure is a copy says nothing of unrelated pictures.
            apart = np.zeros(similar.shape, np.uint16)
            for word in range(self._codes.shape[1]):
                mine, others = self._codes[part, word], self._codes[references, word]
                apart += np.bitwise_count(mine[:, None] ^ others[None, :])
            similar[apart <= self._radius // 2] = -1
            nearest = np.partition(similar, -rank, axis=1)[:, -rank]
            squares[start : start + _BLOCK] = 2 - 2 * nearest.astype(np.float64)
        return np.minimum(2 * MAX_ERROR, _SHARE**2 * np.maximum(squares, 0))


def transformed(pictures: NDArray[Any], transform: int) -> NDArray[Any]:
    """(p, h, h, ...) pictures mirrored or turned: number `transform - 1` of `Image.Transpose`."""
    if transform == 0:
        return pictures
    flips = {
        Image.Transpose.FLIP_LEFT_RIGHT: lambda x: x[:, :, ::-1],
        Image.Transpose.FLIP_TOP_BOTTOM: lambda x: x[:, ::-1],
        Image.Transpose.ROTATE_90: lambda x: np.rot90(x, 1, (1, 2)),
        Image.Transpose.ROTATE_180: lambda x: np.rot90(x, 2, (1, 2)),
        Image.Transpose.ROTATE_270: lambda x: np.rot90(x, 3, (1, 2)),
        Image.Transpose.TRANSPOSE: lambda x: x.swapaxes(1, 2),
        Image.Transpose.TRANSVERSE: lambda x: np.rot90(x, 2, (1, 2)).swapaxes(1, 2),
    }
    result: NDArray[Any] = flips[list(Image.Transpose)[transform - 1]](pictures)
    return result


def _lower_first(candidates: Iterable[tuple[int, Pairs]]) -> Iterator[tuple[int, Pairs]]:
    """The same pairs, none of a picture with itself, the lower row first in each."""
    for transform, (rows, others, distances) in candidates:
        lower, higher = rows < others, rows > others
        yield transform, (rows[lower], others[lower], distances[lower])
        if higher.any():  # what turns b into a turns a into b when it is undone
            yield _INVERSE[transform], (others[higher], rows[higher], distances[higher])


def confirm(candidates: Iterable[tuple[int, Pairs]], thumbnails: Thumbnails) -> Links:
    """The candidates that are copies, each pair once, as it is most alike.

    Args:
        candidates: number of a transform, and pairs of rows that are near under it.
        thumbnails: of all rows.
    """
    found = [np.empty((0, 4), np.int64)]
    squares = [np.empty(0, np.float64)]
    for transform, (rows, others, distances) in _lower_first(candidates):
        kept = thumbnails.may_be_copies(rows, others, transform)
        rows, others, distances = rows[kept], others[kept], distances[kept]
        exact = thumbnails.squared_distances(rows, others, transform)
        near = exact <= 2 * MAX_ERROR
        numbers = np.full(int(near.sum()), transform)
        found.append(np.stack([rows[near], others[near], distances[near], numbers], axis=1))
        squares.append(exact[near])
    table, square = np.concatenate(found), np.concatenate(squares)
    used, inverse = np.unique(table[:, :2], return_inverse=True)
    limits = thumbnails.limits(used)[inverse.reshape(-1, 2)].min(axis=1)
    table, square = table[square <= limits], square[square <= limits]
    order = np.lexsort((table[:, 3], square, table[:, 1], table[:, 0]))
    table, square = table[order], square[order]
    fresh = np.ones(len(table), dtype=bool)
    fresh[1:] = (table[1:, :2] != table[:-1, :2]).any(axis=1)
    table = table[fresh]
    return Links.whole(table[:, :2], table[:, 2], square[fresh] / 2, table[:, 3], HASH)
