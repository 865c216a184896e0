"""Whether one picture shows a window of another, whatever was done to its colours.

Two grey pictures are laid over each other: every window of the one, of a grid of positions, sizes
and aspects, is correlated with the whole of the other on thumbnails of 16 x 16; the best few are
refined by Gauss-Newton steps on left, top, width, height, gain and offset. Then structure is
compared: grey levels less their local mean, over their local deviation, which a smooth change of
intensities leaves as they are. That must agree everywhere, not only on the whole: pictures that
share a background or a frame are two pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Registered", "register"]

_COARSE = 32  # pixels a side of the picture that is looked through,
_TEMPLATE = 16  # and of what is looked for in it
_STEP = 2  # pixels between positions and between sizes of windows
_SMALLEST = 14  # pixels a side of the smallest window: 44% of the picture
_ASPECT = 1.5  # greatest ratio of a window's width and height, in shares of the sides
_TRIED = 2  # windows that are refined, in each direction,
_APART = 0.16  # in shares of the sides, of which one at least is so far off
_ROUGH = 16  # pixels a side on which they are refined,
_STEPS = 8  # in so many steps of Gauss-Newton,
_LAST_STEPS = 6  # and the better one of them on the fine picture
_OVERHANG = 0.15  # of a window that may lie outside
_FINE = 48  # pixels a side on which windows are refined and compared
_SIGMA = 2.5  # pixels of the fine picture over which its structure is local
_NOISE = 3.0  # grey levels of deviation that are no structure
_LEAST = 0.1  # mean square of structure below which there is nothing to agree on
_CELLS = 4  # a side, in each of which the structure must agree
_BLOCK = 64  # pairs at a time
_ALL = np.array([[0, 0, 1, 1]], np.float32)

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Registered:
    """Of p pairs.

    Attributes:
        agreement: (p,) float64 in [-1, 1], correlation of structure in the window.
        local: (p,) float64 in [-1, 1], the same in the cells that agree least.
        windows: (p, 4) float64, left, top, right, bottom of the one picture in the other, in
            shares of its sides.
        is_inverse: (p,) bool, whether the window is of the second picture, not of the first.
    """

    agreement: NDArray[np.float64]
    local: NDArray[np.float64]
    windows: NDArray[np.float64]
    is_inverse: NDArray[np.bool_]


def _resampling(start: Floats, size: Floats, side: int, points: int) -> Floats:
    """(p, points, side) triangle filters that bring [start, start + size] to `points` pixels.

    Args:
        start: (p,) in shares of the side, possibly outside of it.
        size: (p,), likewise.
        side: pixels that there are.
        points: pixels that are wanted.
    """
    places = (np.arange(points, dtype=np.float32) + 0.5) / points
    centres = (start[:, None] + size[:, None] * places) * side - 0.5
    reach = np.maximum(size * side / points, 1.0)[:, None, None]
    distance = np.abs(np.arange(side, dtype=np.float32) - np.clip(centres, 0, side - 1)[..., None])
    weights = np.maximum(1 - distance / reach, 0)
    result: Floats = weights / weights.sum(axis=2, keepdims=True)
    return result


@cache
def _grid() -> tuple[Floats, NDArray[np.int64], Floats, NDArray[np.bool_]]:
    """Filters of the windows along one side, pairs of them, as boxes, and which are neighbours."""
    spans = [
        (place / _COARSE, size / _COARSE)
        for size in range(_SMALLEST, _COARSE + 1, _STEP)
        for place in range(0, _COARSE - size + 1, _STEP)
    ]
    start, size = np.array(spans, np.float32).T
    ratio = size[:, None] / size[None, :]
    pairs = np.argwhere((ratio <= _ASPECT) & (ratio >= 1 / _ASPECT))
    boxes = np.stack(
        [start[pairs[:, 1]], start[pairs[:, 0]], size[pairs[:, 1]], size[pairs[:, 0]]], axis=1
    )
    near = np.ones((len(boxes), len(boxes)), dtype=bool)
    for values in boxes.T:
        near &= np.abs(values[:, None] - values) <= _APART
    return _resampling(start, size, _COARSE, _TEMPLATE), pairs, boxes, near


def _units(values: Floats) -> Floats:
    """Rows less their mean, of length one."""
    centred = values - values.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=-1, keepdims=True)
    result: Floats = centred / np.maximum(lengths, np.float32(1e-3))
    return result


def _reduced(pictures: Floats, side: int) -> Floats:
    """(m, s, s) pictures by means of blocks."""
    m, step = len(pictures), pictures.shape[1] // side
    result: Floats = pictures.reshape(m, side, step, side, step).mean(axis=(2, 4))
    return result


def _best_windows(whole: Floats, parts: Floats) -> Floats:
    """The windows of `whole` (32, 32) most like each of `parts` (m, 16, 16).

    Returns:
        (m, t, 4) left, top, width, height in shares of the sides, far from each other.
    """
    filters, pairs, boxes, near = _grid()
    w = len(filters)
    flat = filters.reshape(-1, _COARSE)
    table = (flat @ whole @ flat.T).reshape(w, _TEMPLATE, w, _TEMPLATE)
    windows = table.transpose(0, 2, 1, 3)[pairs[:, 0], pairs[:, 1]].reshape(len(pairs), -1)
    spread = np.sqrt(np.maximum(windows.var(axis=1) * windows.shape[1], 1e-6))
    like = (_units(parts.reshape(len(parts), -1)) @ windows.T) / spread
    chosen = np.empty((len(parts), _TRIED), np.int64)
    for turn in range(_TRIED):
        chosen[:, turn] = like.argmax(axis=1)
        like[near[chosen[:, turn]]] = -np.inf
    result: Floats = boxes[chosen]
    return result


def _sampled(pictures: Floats, boxes: Floats, points: int) -> Floats:
    """(p, points, points): the window of each picture."""
    side = pictures.shape[1]
    across = _resampling(boxes[:, 0], boxes[:, 2], side, points)
    down = _resampling(boxes[:, 1], boxes[:, 3], side, points)
    result: Floats = (down @ pictures @ across.transpose(0, 2, 1)).astype(np.float32, copy=False)
    return result


def _refined(wholes: Floats, parts: Floats, boxes: Floats, steps: int) -> Floats:
    """The boxes moved to where `wholes` are most like `parts`, (p, f, f), up to gain and offset."""
    points = parts.shape[1]
    places = ((np.arange(points, dtype=np.float32) + 0.5) / points)[None]
    target = parts.reshape(len(parts), -1)
    for _ in range(steps):
        seen = _sampled(wholes, boxes, points)
        down, across = np.gradient(seen, axis=(1, 2))
        across, down = across * points, down * points  # by a share of the window
        columns = [
            across, down, across * places[:, None, :], down * places[:, :, None], seen,
            np.ones_like(seen),
        ]  # fmt: skip
        design = np.stack([c.reshape(len(seen), -1) for c in columns], axis=2).astype(np.float64)
        normal = design.transpose(0, 2, 1) @ design
        ridge = 1e-6 * np.einsum("pii->pi", normal) + 1e-9
        normal += ridge[:, :, None] * np.eye(6)
        solved = np.linalg.solve(normal, design.transpose(0, 2, 1) @ target[..., None])[..., 0]
        gain = np.where(np.abs(solved[:, 4:5]) < 0.05, 0.05, solved[:, 4:5])
        move = np.clip(solved[:, :4] / gain, -0.08, 0.08).astype(np.float32)
        boxes = boxes + move * boxes[:, [2, 3, 2, 3]]
        boxes[:, 2:] = np.clip(boxes[:, 2:], 0.3, 1.3)
        boxes[:, :2] = np.clip(boxes[:, :2], -_OVERHANG, 1 + _OVERHANG - 0.3)
    return boxes


def _structure(pictures: Floats) -> Floats:
    """Grey levels less their local mean, over their local deviation."""
    from scipy.ndimage import gaussian_filter

    sigma = (0, _SIGMA, _SIGMA)
    fine = gaussian_filter(pictures, (0, 0.7, 0.7))
    rest = fine - gaussian_filter(fine, sigma)
    spread = np.sqrt(gaussian_filter(rest * rest, sigma) + _NOISE**2)
    result: Floats = rest / spread
    return result


def _agreement(
    seen: Floats, parts: Floats, boxes: Floats
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation of structure, in all of the window and in its cells that agree least."""
    points = seen.shape[1]
    places = (np.arange(points) + 0.5) / points
    inside = [
        (boxes[:, k : k + 1] + boxes[:, k + 2 : k + 3] * places >= 0)
        & (boxes[:, k : k + 1] + boxes[:, k + 2 : k + 3] * places <= 1)
        for k in (0, 1)
    ]
    mask = inside[1][:, :, None] & inside[0][:, None, :]
    first, second = _structure(seen) * mask, _structure(parts) * mask
    products = [a * b for a, b in ((first, second), (first, first), (second, second))]
    step = points // _CELLS
    cells = [
        p.reshape(-1, _CELLS, step, _CELLS, step).sum(axis=(2, 4)).reshape(-1, _CELLS**2)
        for p in products
    ]
    least = _LEAST * step**2
    total = [c.sum(axis=1) for c in cells]
    energies = [np.maximum(e, least * _CELLS**2) for e in total[1:]]
    whole = total[0] / np.sqrt(energies[0] * energies[1])
    # Cells where neither has structure say nothing; where one alone has, they disagree.
    energy = (cells[1] + cells[2]) / 2
    silent = energy < np.maximum(0.2 * energy.mean(axis=1, keepdims=True), least)
    each = np.sort(np.where(silent, np.inf, cells[0] / np.maximum(energy, least)), axis=1)
    lowest = each[:, : _CELLS**2 // 4].mean(axis=1)
    lowest[~np.isfinite(lowest)] = -1  # too few cells say anything
    return whole.astype(np.float64), lowest.astype(np.float64)


def register(pictures: Floats, rows: NDArray[np.int64], others: NDArray[np.int64]) -> Registered:
    """Lay pairs of pictures over each other, and say how well their structure agrees.

    Args:
        pictures: (m, s, s) grey levels in 0-255, s a multiple of 32.
        rows: (p,) int64, first pictures.
        others: (p,) int64, second pictures.
    """
    p = len(rows)
    found = Registered(
        np.full(p, -1.0), np.full(p, -1.0), np.zeros((p, 4)), np.zeros(p, dtype=bool)
    )
    for start in range(0, p, _BLOCK):
        used, inverse = np.unique(
            np.stack([rows[start : start + _BLOCK], others[start : start + _BLOCK]]),
            return_inverse=True,
        )
        part = _register_block(pictures[used], *inverse.reshape(2, -1))
        for name, values in vars(part).items():
            getattr(found, name)[start : start + _BLOCK] = values
    return found


def _register_block(
    pictures: Floats, rows: NDArray[np.int64], others: NDArray[np.int64]
) -> Registered:
    """Both directions of each pair from the grid of windows; the better one to the end."""
    p = len(rows)
    coarse = _reduced(pictures, _COARSE)
    small = _reduced(coarse, _TEMPLATE)
    grid = np.empty((2, p, _TRIED, 4), np.float32)
    for turn, (wholes, parts) in enumerate(((rows, others), (others, rows))):
        for whole in np.unique(wholes):
            own = np.flatnonzero(wholes == whole)
            grid[turn, own] = _best_windows(coarse[whole], small[parts[own]])
    whole = np.broadcast_to(np.stack([rows, others])[..., None], grid.shape[:3]).ravel()
    part = np.broadcast_to(np.stack([others, rows])[..., None], grid.shape[:3]).ravel()
    boxes = _refined(coarse[whole], _reduced(coarse[part], _ROUGH), grid.reshape(-1, 4), _STEPS)
    seen = _sampled(coarse[whole], boxes, _ROUGH).reshape(len(boxes), -1)
    like = _units(seen) * _units(_reduced(coarse[part], _ROUGH).reshape(seen.shape))
    table = like.sum(axis=1).reshape(2, p, _TRIED).transpose(1, 0, 2).reshape(p, -1)
    best = table.argmax(axis=1)  # of two directions times the windows that were tried
    inverted = best >= _TRIED
    place = (inverted * p + np.arange(p)) * _TRIED + best % _TRIED
    full = np.tile(_ALL, (p, 1))
    best_wholes, best_parts = pictures[whole[place]], _sampled(pictures[part[place]], full, _FINE)
    chosen = _refined(best_wholes, best_parts, boxes[place], _LAST_STEPS)
    seen = _sampled(best_wholes, chosen, _FINE)
    agreement, local = _agreement(seen, best_parts, chosen)
    windows = np.concatenate([chosen[:, :2], chosen[:, :2] + chosen[:, 2:]], axis=1)
    return Registered(agreement, local, windows.astype(np.float64), inverted)
