"""What the model is at the end of chosen epochs: features, logits and gradients, as files."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noiseaudit._io import NPZ_ERRORS, make_folder, write_npy
from noiseaudit.errors import OutputError, UsageError
from noiseaudit.projected_gradients import project_gradients
from noiseaudit.watching import CleanView, GradientBatch, Snapshot

__all__ = ["SnapshotObserver", "existing_snapshots", "read_snapshots", "snapshot_name"]


def snapshot_name(snapshot: Snapshot, epochs: int) -> str:
    """`features_0020` for the features after epoch 20.

    Raises:
        UsageError: if a run of so many epochs has no such epoch.
    """
    epoch = epochs if snapshot.epoch is None else snapshot.epoch
    if not 1 <= epoch <= epochs:
        raise UsageError(f"epoch must be in 1..{epochs}, the epochs of this run; got {epoch}")
    return f"{snapshot.kind}_{epoch:04d}"


class SnapshotObserver:
    """Writes each snapshot when its epoch ends, as `snapshots/<name>.npy`.

    Args:
        names: of `snapshot_name`.
        folder: of the training run.
        seed: of the directions of projected gradients.
    """

    def __init__(self, names: Collection[str], folder: Path, *, seed: int) -> None:
        self._names = frozenset(names)
        self._folder = folder / "snapshots"
        self._seed = seed
        self._epoch = 0

    def on_batch(self, rows: Tensor, logits: Tensor, labels: Tensor, losses: Tensor, /) -> None:
        """Nothing: it looks at finished epochs."""

    def on_epoch_end(self, clean: CleanView, /) -> None:
        """Write what is wanted of this epoch."""
        self._epoch += 1
        for kind in ("features", "logits"):
            if (name := f"{kind}_{self._epoch:04d}") in self._names:
                self._write(name, getattr(clean, kind))
        if (name := f"gradients_{self._epoch:04d}") in self._names:
            self._ask_for_gradients(clean, name)

    def _ask_for_gradients(self, clean: CleanView, name: str) -> None:
        found: dict[int, Tensor] = {}  # by first row; a batch that comes twice replaces itself

        def visit(batch: GradientBatch) -> None:
            found[batch.rows.start] = project_gradients(
                batch.model, batch.inputs, batch.labels, seed=self._seed
            ).cpu()

        clean.visit_gradients(visit, lambda: self._write(name, torch.cat(list(found.values()))))

    def _write(self, name: str, values: Tensor) -> None:
        write_npy(make_folder(self._folder) / f"{name}.npy", values.numpy())

    def compute(self) -> dict[str, NDArray[Any]]:
        """Nothing: what it records are files."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Complete at an epoch's end."""
        return {"epoch": self._epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the epochs whose snapshots are written."""
        self._epoch = int(state["epoch"])


def existing_snapshots(folder: Path, names: Collection[str]) -> list[str]:
    """Those of the snapshots whose files are still there."""
    return [name for name in names if (folder / "snapshots" / f"{name}.npy").exists()]


def read_snapshots(
    folder: Path, names: Collection[str], epochs: int
) -> dict[tuple[str, int | None], NDArray[np.float32]]:
    """Snapshots by (kind, epoch), those of the last epoch also by (kind, None); memory-mapped.

    Raises:
        OutputError: if one is missing or damaged.
    """
    found: dict[tuple[str, int | None], NDArray[np.float32]] = {}
    for name in names:
        path = folder / "snapshots" / f"{name}.npy"
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except NPZ_ERRORS as error:
            raise OutputError(
                f"{path} cannot be read ({error}); use --no-resume to start over"
            ) from error
        kind, epoch = name.rsplit("_", 1)
        found[kind, int(epoch)] = values
        if int(epoch) == epochs:
            found[kind, None] = values
    return found
