"""All pairs of binary codes within a Hamming distance, exactly.

Two routes, the cheaper one by a count made beforehand: comparing everything with everything in
blocks, or the pigeonhole principle. Two codes within distance r agree within t_c bits in at least
one chunk c of m, whenever the thresholds t_c sum to r - m + 1 (were each chunk off by t_c + 1, the
codes would be off by r + 1); so only codes whose 16-bit chunks nearly agree are compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import DataError, UsageError

__all__ = ["Pairs", "hamming_pairs"]

Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Rows in the first codes, rows in the second, distances."""

_CHUNK = 16  # bits
_BLOCK = 2**20  # pairs compared at a time: a few arrays of 8 MB
_PROBE_COST = 6.0  # of comparing a candidate by its place, in comparisons of neighbours in memory
_FEW = 2**22  # pairs that are compared at once without further thought
_MOST_OFF = 4  # bits of a chunk: with more, one code in ten is a candidate


def hamming_pairs(
    codes: NDArray[np.uint64], others: NDArray[np.uint64] | None = None, *, radius: int
) -> Iterator[Pairs]:
    """Pairs of rows at most `radius` bits apart, each once, in blocks.

    Among `codes` themselves (the first row of a pair is the lower one), or of `codes` with
    `others`. Cost: n^2 / 2 comparisons at worst; for a million evenly spread 64-bit codes and
    radius 6 a thousandth of them. Memory: some 200 bytes a code of 64 bits, and blocks.

    Args:
        codes: (n, w) words of 64 bits.
        others: (m, w), or None.
        radius: at least 0.

    Yields:
        Rows, rows of the other side, and their distances, each (p,) int64.

    Raises:
        DataError: if codes are not of one width.
        UsageError: if the radius is negative.
    """
    if radius < 0:
        raise UsageError(f"radius must be at least 0; got {radius}")
    second = codes if others is None else others
    if codes.ndim != 2 or second.ndim != 2 or codes.shape[1] != second.shape[1]:
        raise DataError(f"codes must be (n, w) of one width; got {codes.shape}, {second.shape}")
    if not len(codes) or not len(second):
        return
    within = others is None
    everything = len(codes) * len(second)
    if everything <= _FEW:
        yield from _compare_all(codes, second, radius, within)
        return
    chunks = [_Chunk(codes, second, column) for column in range(codes.shape[1] * 64 // _CHUNK)]
    chunks = [chunk for chunk in chunks if chunk.varies]
    thresholds = _thresholds(len(chunks), radius)
    used = [(c, t) for c, t in zip(chunks, thresholds, strict=True) if t >= 0]
    worth = used and max(thresholds) <= _MOST_OFF
    if not worth or _PROBE_COST * sum(c.candidates(t) for c, t in used) >= everything:
        yield from _compare_all(codes, second, radius, within)
    else:
        yield from _compare_near(codes, second, radius, within, used)


def _compare_near(
    codes: NDArray[np.uint64],
    second: NDArray[np.uint64],
    radius: int,
    within: bool,
    used: list[tuple[_Chunk, int]],
) -> Iterator[Pairs]:
    for number, (chunk, threshold) in enumerate(used):
        for rows, columns in chunk.near(threshold, within):
            distances = _distances(codes, second, rows, columns)
            kept = distances <= radius
            rows, columns, distances = rows[kept], columns[kept], distances[kept]
            # A pair that several chunks lead to is that of the first one.
            fresh = np.ones(len(rows), dtype=bool)
            for earlier, limit in used[:number]:
                fresh &= earlier.distances(rows, columns) > limit
            if fresh.any():
                yield rows[fresh], columns[fresh], distances[fresh]


def _thresholds(m: int, radius: int) -> list[int]:
    """How many bits each chunk may be off by; -1 for one that need not be looked at."""
    total = radius - m + 1
    base, extra = divmod(total, m) if m else (0, 0)
    if base < 0:  # more chunks than bits may differ: radius + 1 of them, exactly equal, suffice
        return [0 if c <= radius else -1 for c in range(m)]
    return [base + (c < extra) for c in range(m)]


class _Chunk:
    """Sixteen bits of all codes, and the second side's rows in order of them."""

    def __init__(self, codes: NDArray[np.uint64], second: NDArray[np.uint64], column: int) -> None:
        word, shift = divmod(column * _CHUNK, 64)
        self._keys, self._others = (
            (side[:, word] >> np.uint64(shift)).astype(np.uint16) for side in (codes, second)
        )
        self._order = np.argsort(self._others, kind="stable").astype(np.int64)
        counts = np.bincount(self._others, minlength=2**_CHUNK)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    @property
    def varies(self) -> bool:
        """Whether it tells any two codes apart."""
        return bool((self._keys != self._keys[0]).any() or (self._others != self._keys[0]).any())

    def distances(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.uint8]:
        distances: NDArray[np.uint8] = np.bitwise_count(self._keys[rows] ^ self._others[columns])
        return distances

    def candidates(self, threshold: int) -> int:
        """How many pairs of rows, in both orders, are at most `threshold` bits apart here."""
        mine = np.bincount(self._keys, minlength=2**_CHUNK)
        theirs = np.diff(self._starts)
        keys = np.arange(2**_CHUNK)
        return sum(int(mine @ theirs[keys ^ mask]) for mask in _masks(threshold))

    def near(
        self, threshold: int, within: bool
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Those pairs; `within` one side each once, lower row first."""
        order = self._order if within else np.argsort(self._keys, kind="stable")
        keys = self._keys[order].astype(np.int64)
        for mask in _masks(threshold):
            targets = keys ^ mask
            low, high = self._starts[targets], self._starts[targets + 1]
            if within:
                # One of the two buckets looks into the other; in its own, a row at the later ones.
                low = np.arange(1, len(keys) + 1) if mask == 0 else low
                high = np.where(keys <= targets, high, low)
            counts = np.maximum(high - low, 0)
            for start, stop in _blocks(counts):
                repeats = counts[start:stop]
                offsets = np.repeat(low[start:stop] - (np.cumsum(repeats) - repeats), repeats)
                rows = np.repeat(order[start:stop], repeats)
                columns = self._order[np.arange(len(offsets)) + offsets]
                if within:
                    rows, columns = np.minimum(rows, columns), np.maximum(rows, columns)
                yield rows, columns


def _masks(threshold: int) -> list[int]:
    """Every number of sixteen bits of which at most `threshold` are set."""
    return [
        sum(1 << bit for bit in bits)
        for count in range(threshold + 1)
        for bits in itertools.combinations(range(_CHUNK), count)
    ]


def _blocks(counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of rows that have about `_BLOCK` pairs each, at least one row."""
    total = np.cumsum(counts)
    start = 0
    while start < len(counts):
        done = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, done + _BLOCK, side="right")))
        if total[stop - 1] > done:
            yield start, stop
        start = stop


def _distances(
    codes: NDArray[np.uint64],
    second: NDArray[np.uint64],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.int64]:
    total = np.zeros(len(rows), dtype=np.int64)
    for word in range(codes.shape[1]):
        total += np.bitwise_count(codes[rows, word] ^ second[columns, word])
    return total


def _compare_all(
    codes: NDArray[np.uint64], second: NDArray[np.uint64], radius: int, within: bool
) -> Iterator[Pairs]:
    step = max(1, _BLOCK // len(second))
    for start in range(0, len(codes), step):
        first = start + 1 if within else 0
        counts = np.zeros((len(codes[start : start + step]), len(second) - first), np.uint16)
        for word in range(codes.shape[1]):
            difference = codes[start : start + step, None, word] ^ second[None, first:, word]
            counts += np.bitwise_count(difference)
        rows, columns = np.nonzero(counts <= radius)
        distances = counts[rows, columns].astype(np.int64)
        rows, columns = rows + start, columns + first
        kept = columns > rows if within else np.ones(len(rows), dtype=bool)
        if kept.any():
            yield rows[kept], columns[kept], distances[kept]
