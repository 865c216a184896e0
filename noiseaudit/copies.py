"""Which pictures are copies of each other: candidates confirmed on pixels, then joined to groups.

A perceptual hash proposes; pixels decide. Two pictures are compared as thumbnails of 16 x 16 from
which brightness and contrast are removed, by the distance of these unit vectors, sqrt(2 - 2 rho)
for their correlation rho. A pair is a copy if rho is at least 0.9 **and** its distance is at most
0.4 of that at which unrelated pictures of the same data set begin to lie: two shirts cut out and
centred correlate by 0.97 without being one photograph, two landscapes never do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from noiseaudit.hamming import Pairs
from noiseaudit.seeding import generator

__all__ = ["MAX_ERROR", "Links", "Thumbnails", "confirm", "group_links"]

MAX_ERROR = 0.1
"""Greatest 1 - rho of a copy."""

_SHARE = 0.4  # of the distance of unrelated pictures, up to which a pair is a copy
_SIDE = 16
_COARSE = 8
_FLAT = 2.0  # deviation in grey levels below which a picture has nothing to compare
_REFERENCES = 5_000  # pictures that the distance of unrelated ones is read from
_CLUSTER = 10  # copies of one picture that may lie among them without being taken for unrelated
_CHAIN = 2.0  # times the distance of a copy that members of one group may be apart
_BLOCK = 2_000


@dataclass(frozen=True, eq=False)
class Links:
    """Confirmed pairs.

    Attributes:
        rows: (m, 2) int64, the lower row first.
        distances: (m,) int64 Hamming distance of the hashes.
        errors: (m,) float64 in [0, `MAX_ERROR`], 1 - correlation of the pixels.
        transforms: (m,) int64, which of `TRANSFORMS` makes the second like the first.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.int64]
    errors: NDArray[np.float64]
    transforms: NDArray[np.int64]


class Thumbnails:
    """What pictures are compared by.

    Args:
        inputs: (n, h, w) or (n, h, w, 3) uint8.
        seed: of the draw of references.

    Attributes:
        is_flat: (n,) bool: pictures of one shade, which are like nothing but their exact copies.
    """

    def __init__(self, inputs: NDArray[np.uint8], *, seed: int = 0) -> None:
        shape = (len(inputs), _SIDE, _SIDE, *inputs.shape[3:])
        self._small = np.empty(shape, np.uint8)
        for row, pixels in enumerate(inputs):
            picture = Image.fromarray(pixels).resize((_SIDE, _SIDE), Image.Resampling.BOX)
            self._small[row] = np.asarray(picture)
        self._coarse = np.empty((len(inputs), _COARSE, _COARSE), np.float32)
        self.is_flat = np.empty(len(inputs), dtype=bool)
        step = _SIDE // _COARSE
        for start in range(0, len(inputs), _BLOCK):
            part = self._small[start : start + _BLOCK]
            deviations = np.sqrt(part.reshape(len(part), _SIDE**2, -1).var(axis=1).mean(axis=1))
            self.is_flat[start : start + _BLOCK] = deviations < _FLAT
            units = self.units(np.arange(start, start + len(part))).reshape(len(part), *shape[1:])
            blocks = units.reshape(len(part), _COARSE, step, _COARSE, step, -1)
            # An orthogonal projection: distances in it are never larger than in full.
            whole = np.sqrt(units[0].size) / _COARSE
            self._coarse[start : start + _BLOCK] = blocks.mean(axis=(2, 4, 5)) * whole
        references = generator(seed, "duplicate-references").permutation(len(inputs))
        self._references = np.sort(references[:_REFERENCES])

    def units(self, rows: NDArray[np.int64], transform: int = 0) -> NDArray[np.float32]:
        """(p, d) pixels of `rows`, mirrored or turned, less each channel's mean, of length one."""
        part = _transformed(self._small[rows], transform).reshape(len(rows), _SIDE**2, -1)
        centred = part - part.mean(axis=1, keepdims=True, dtype=np.float32)
        centred = centred.reshape(len(rows), -1)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        result: NDArray[np.float32] = centred / np.maximum(lengths, np.float32(1e-6))
        return result

    def may_be_copies(
        self, rows: NDArray[np.int64], others: NDArray[np.int64], transform: int
    ) -> NDArray[np.bool_]:
        """Whether a cheap lower bound of the distance allows it."""
        difference = self._coarse[rows] - _transformed(self._coarse[others], transform)
        squares = np.einsum("pij,pij->p", difference, difference)
        allowed: NDArray[np.bool_] = squares <= 2 * MAX_ERROR + 1e-4
        return allowed

    def squared_distances(
        self, rows: NDArray[np.int64], others: NDArray[np.int64], transform: int
    ) -> NDArray[np.float64]:
        """2 - 2 rho of each pair."""
        result = np.empty(len(rows), np.float64)
        for start in range(0, len(rows), _BLOCK):
            part = slice(start, start + _BLOCK)
            difference = self.units(rows[part]) - self.units(others[part], transform)
            result[part] = np.einsum("pd,pd->p", difference, difference)
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
            similar[part[:, None] == references[None, :]] = -1
            nearest = np.partition(similar, -rank, axis=1)[:, -rank]
            squares[start : start + _BLOCK] = 2 - 2 * nearest.astype(np.float64)
        return np.minimum(2 * MAX_ERROR, _SHARE**2 * np.maximum(squares, 0))


def _transformed(pictures: NDArray[Any], transform: int) -> NDArray[Any]:
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


def confirm(candidates: Iterable[tuple[int, Pairs]], thumbnails: Thumbnails) -> Links:
    """The candidates that are copies, each pair once, as it is most alike.

    Args:
        candidates: number of a transform, and pairs of rows that are near under it.
        thumbnails: of all rows.
    """
    found = [np.empty((0, 4), np.int64)]
    squares = [np.empty(0, np.float64)]
    for transform, (rows, others, distances) in candidates:
        kept = rows < others  # of a transform and its inverse, and of a picture with itself
        kept[kept] = thumbnails.may_be_copies(rows[kept], others[kept], transform)
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
    return Links(table[fresh, :2], table[fresh, 2], square[fresh] / 2, table[fresh, 3])


def group_links(links: Links, n: int, thumbnails: Thumbnails) -> NDArray[np.int64]:
    """The group of each of n rows, or -1: connected, but no chain from one picture to another.

    A component stays whole if all its members are within twice the distance of a copy of each
    other. Otherwise the member with most copies and these form a group, and so on with the rest.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = links.rows.T
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    groups = np.full(n, -1, dtype=np.int64)
    linked = np.unique(links.rows)
    order = linked[np.argsort(component[linked], kind="stable")]
    bounds = np.flatnonzero(np.diff(component[order])) + 1
    total = 0
    for members in np.split(order, bounds) if len(order) else []:
        own = np.isin(first, members)
        for part in _without_chains(members, links.rows[own], links.transforms[own], thumbnails):
            groups[part] = total
            total += 1
    return groups


def _without_chains(
    members: NDArray[np.int64],
    pairs: NDArray[np.int64],
    transforms: NDArray[np.int64],
    thumbnails: Thumbnails,
) -> list[NDArray[np.int64]]:
    m = len(members)
    place = {int(row): i for i, row in enumerate(members)}
    linked = np.zeros((m, m), dtype=bool)
    for a, b in pairs:
        linked[place[int(a)], place[int(b)]] = linked[place[int(b)], place[int(a)]] = True
    first, second = np.nonzero(np.triu(~linked, 1))
    if len(first):
        limits = _CHAIN**2 * thumbnails.limits(members)
        apart = np.min(
            [
                thumbnails.squared_distances(members[first], members[second], int(transform))
                for transform in np.unique([0, *transforms])
            ],
            axis=0,
        )
        if (apart > np.minimum(limits[first], limits[second])).any():
            return _stars(members, linked)
    return [members]


def _stars(members: NDArray[np.int64], linked: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """The member with most links among those left (the first of several) and these, repeatedly."""
    left = np.ones(len(members), dtype=bool)
    groups: list[NDArray[np.int64]] = []
    while True:
        degrees = (linked & left[None, :] & left[:, None]).sum(axis=1)
        centre = int(degrees.argmax())
        if degrees[centre] == 0:
            return groups
        chosen = linked[centre] & left
        chosen[centre] = True
        groups.append(members[chosen])
        left &= ~chosen
