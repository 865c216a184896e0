"""Sums over epochs of each example's predicted probabilities, in memory or in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from noiseaudit._io import make_folder
from noiseaudit._rows import row_blocks
from noiseaudit.errors import DataError, OutputError

__all__ = ["ClassSums"]

_IN_MEMORY_BYTES = 2**30


class ClassSums:
    """An (n, k) float32 array of summed probabilities that a crash cannot leave half updated.

    Two copies take turns: an epoch writes `last + probabilities` for the rows it sees into the
    other copy, so what the last checkpoint refers to stays whole until the epoch is over, and a
    row seen twice keeps its last observation. Past 1 GiB the copies are memory-mapped files.

    Args:
        n: examples.
        num_classes: k.
        folder: where the files go when they are needed, `class_sums_0.npy` and `_1.npy`.

    Raises:
        OutputError: if the disk has no room for the files.
    """

    def __init__(self, n: int, num_classes: int, folder: Path | None = None) -> None:
        self.shape = (n, num_classes)
        self.in_memory = folder is None or n * num_classes * 4 <= _IN_MEMORY_BYTES
        self.counts = np.zeros(n, dtype=np.int64)
        self._seen = np.zeros(n, dtype=bool)
        self._current = 0
        self._was_created = False
        if folder is None or self.in_memory:
            self._copies = [np.zeros(self.shape, dtype=np.float32) for _ in range(2)]
        else:
            self._copies = [self._open(make_folder(folder), copy) for copy in range(2)]

    def _open(self, folder: Path, copy: int) -> NDArray[np.float32]:
        path = folder / f"class_sums_{copy}.npy"
        if path.exists():
            array = np.load(path, mmap_mode="r+")
            if array.shape == self.shape and array.dtype == np.float32:
                return array  # type: ignore[no-any-return]  # np.load is untyped
        self._was_created = True
        try:
            created = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=self.shape)
            with path.open("r+b") as file:
                # A full disk under a sparse map would kill the process later, without a word.
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OutputError(f"no room for {path}: {error.strerror}") from error
        return created

    @staticmethod
    def remove_files(folder: Path) -> None:
        """Delete the files of a folder: before a fresh run, and when its means are stored."""
        for path in folder.glob("class_sums_*.npy"):
            path.unlink()

    def put(self, rows: NDArray[np.int64], probs: NDArray[np.float32]) -> None:
        """Record (b, k) probabilities for `rows`; rows equal to n are not examples."""
        real = rows < self.shape[0]
        if not real.all():
            rows, probs = rows[real], probs[real]
        last, coming = self._copies[self._current], self._copies[1 - self._current]
        coming[rows] = last[rows] + probs
        self._seen[rows] = True

    def end_epoch(self) -> None:
        """Make the epoch's copy the current one."""
        last, coming = self._copies[self._current], self._copies[1 - self._current]
        np.copyto(coming, last, where=~self._seen[:, None])
        if isinstance(coming, np.memmap):
            coming.flush()
        self.counts += self._seen
        self._seen[:] = False
        self._current = 1 - self._current

    def means(self) -> NDArray[np.float32]:
        """(n, k) mean probabilities over the epochs in which a row was seen; NaN where never.

        A new array; for memory-mapped sums use `block_means`.
        """
        means = np.empty(self.shape, dtype=np.float32)
        for rows in row_blocks(*self.shape):
            means[rows] = self.block_means(rows.start, rows.stop)
        return means

    def discard_epoch(self) -> None:
        """Forget what was put since the last epoch's end."""
        self._seen[:] = False

    def leave_out(self, rows: NDArray[np.bool_]) -> None:
        """Forget what was put for these rows, (n,) bool, since the last epoch's end."""
        self._seen[rows] = False

    def block_means(self, start: int, stop: int) -> NDArray[np.float32]:
        """Mean probabilities of the rows from start to stop."""
        counts = self.counts[start:stop, None].astype(np.float64)
        sums = self._copies[self._current][start:stop]
        with np.errstate(invalid="ignore", divide="ignore"):
            return (sums / counts).astype(np.float32)

    def merge(self, other: ClassSums) -> None:
        """Add another worker's sums.

        Raises:
            DataError: if the shapes differ.
        """
        if other.shape != self.shape:
            raise DataError(f"class sums of shapes {self.shape} and {other.shape} cannot be merged")
        self._copies[self._current] += other._copies[other._current]
        self.counts += other.counts

    def state_dict(self) -> dict[str, Any]:
        """The sums themselves, or which of the two files holds them."""
        return {
            "current": self._current,
            "counts": torch.from_numpy(self.counts.copy()),
            "sums": torch.from_numpy(self._copies[self._current].copy())
            if self.in_memory
            else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        if state["sums"] is None and self._was_created:
            raise OutputError(
                "the checkpoint's class_sums files are gone; use --no-resume to start over"
            )
        self._current = int(state["current"])
        self.counts = state["counts"].cpu().numpy().copy()
        self._seen[:] = False
        if state["sums"] is not None:
            self._copies[self._current][:] = state["sums"].cpu().numpy()
