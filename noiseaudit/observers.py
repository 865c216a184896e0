"""The per-example statistics of a training run.

A statistic is one number per example and epoch, computed from the logits of the training forward
pass itself. Batches are only copied into a buffer; a full buffer is reduced in one vectorised
step, so that watching costs next to nothing beside training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noiseaudit._io import make_folder, write_npz
from noiseaudit.class_sums import ClassSums
from noiseaudit.errors import DataError, UsageError
from noiseaudit.outputs import Outputs, Statistic
from noiseaudit.watching import CleanView

__all__ = ["StatisticsObserver"]

_BUFFER_ELEMENTS = 2**22  # logits kept before they are reduced: 16 MiB of float32


class StatisticsObserver:
    """Means over epochs of per-example statistics, from the training forward pass alone.

    An example seen twice in an epoch counts once, its last observation; one not seen in an epoch
    does not count in it, so means are over observations. Per-epoch values are float32 on the
    logits' device, running sums float64 on the host, one transfer an epoch. Memory: about
    `n * (12 * s + 32)` bytes for s statistics, plus one bit pair per example and epoch, plus
    the class sums where wanted.

    Args:
        labels: (n,) int64 given labels.
        num_classes: k.
        statistics: what to record, names unique. "correct" is always recorded.
        class_sums: where to keep the (n, k) sums of probabilities, or None for none.
        trajectories: a folder that gets one `epoch_0001.npz` per epoch, or None.
        trajectory_names: the statistics kept there (default: all).
        resolve: from recorded (b,) ids and targets to rows, where examples are not recorded by
            row; called on whole buffers.
    """

    def __init__(
        self,
        labels: NDArray[np.int64],
        num_classes: int,
        statistics: Sequence[Statistic],
        *,
        class_sums: ClassSums | None = None,
        trajectories: Path | None = None,
        trajectory_names: Sequence[str] | None = None,
        resolve: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.statistics = (Statistic("correct", _correct), *statistics)
        names = [statistic.name for statistic in self.statistics]
        if len(set(names)) != len(names):
            raise UsageError(f"statistics must have different names; got {names}")
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64))
        self.num_classes = num_classes
        self.class_sums = class_sums
        self.trajectories = trajectories
        self.resolve = resolve
        self.trajectory_names = tuple(names if trajectory_names is None else trajectory_names)
        n = len(labels)
        self.totals = np.zeros((len(names), n), dtype=np.float64)
        self.counts = np.zeros(n, dtype=np.int64)
        self._is_last = np.array([statistic.over == "last" for statistic in self.statistics])
        self.epoch = 0
        self._history: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        self._buffer: _EpochBuffer | None = None

    def on_batch(self, rows: Tensor, logits: Tensor, labels: Tensor, _losses: Tensor, /) -> None:
        """Copy the batch: (b,) rows, or ids where `resolve` is given; losses are recomputed."""
        if self._buffer is None:
            self._buffer = _EpochBuffer(self, logits.device)
        self._buffer.add(rows, logits, labels)

    def on_epoch_end(self, _clean: CleanView | None = None, /) -> None:
        """Add the epoch to the sums; the clean view is not needed."""
        n = len(self.counts)
        if self._buffer is None:
            values, seen = np.zeros((len(self.statistics), n), np.float32), np.zeros(n, bool)
        else:
            values, seen = self._buffer.finish()
        if not np.isfinite(values[:, seen]).all():
            rows = np.flatnonzero(~np.isfinite(values).all(axis=0) & seen)
            self.discard_epoch()
            raise DataError(
                f"statistics are not finite for {len(rows)} examples in epoch {self.epoch + 1}, "
                f"first row {rows[0]}: training diverged (lower the learning rate)"
            )
        values64 = values.astype(np.float64)
        np.copyto(self.totals, values64, where=seen & self._is_last[:, None])
        np.add(self.totals, values64, out=self.totals, where=seen & ~self._is_last[:, None])
        self.counts += seen
        self._history.append((np.packbits((values[0] > 0) & seen), np.packbits(seen)))
        if self.class_sums is not None:
            self.class_sums.end_epoch()
        self.epoch += 1
        if self.trajectories is not None:
            self._write_trajectories(self.trajectories, values, seen)

    def flush(self) -> None:
        """Reduce what is buffered; the epoch stays open."""
        if self._buffer is not None:
            self._buffer.reduce()

    def last_observed(self) -> NDArray[np.int64]:
        """(n,) when each example was last seen in the open epoch, counting observations; or -1."""
        self.flush()
        if self._buffer is None:
            return np.full(len(self.counts), -1)
        return self._buffer.last_observed()

    def leave_out(self, rows: NDArray[np.bool_]) -> None:
        """Forget what the open epoch has of some examples, (n,) bool, as if they were not seen."""
        self.flush()
        if self._buffer is not None:
            self._buffer.leave_out(rows)
        if self.class_sums is not None:
            self.class_sums.leave_out(rows)

    def discard_epoch(self) -> None:
        """Forget what was recorded since the last epoch's end."""
        self._buffer = None
        if self.class_sums is not None:
            self.class_sums.discard_epoch()

    def _write_trajectories(
        self, folder: Path, values: NDArray[np.float32], seen: NDArray[np.bool_]
    ) -> None:
        make_folder(folder)
        write_npz(
            folder / f"epoch_{self.epoch:04d}.npz",
            {
                statistic.name: np.where(seen, row, np.nan).astype(np.float32)
                for statistic, row in zip(self.statistics, values, strict=True)
                if statistic.name in self.trajectory_names
            },
        )

    def correct_history(self) -> NDArray[np.int8]:
        """(e, n): 1 predicted right, 0 wrong, -1 not seen in that epoch."""
        n = len(self.counts)
        history = np.full((self.epoch, n), -1, dtype=np.int8)
        for row, (correct, seen) in zip(history, self._history, strict=True):
            mask = np.unpackbits(seen, count=n).astype(bool)
            row[mask] = np.unpackbits(correct, count=n)[mask]
        return history

    def compute(self) -> dict[str, NDArray[Any]]:
        """(n,) float64 means, or last values, by statistic; NaN where never observed."""
        self._require_epoch_end()
        divisors = np.where(self._is_last[:, None], 1, self.counts).astype(np.float64)
        means = self.totals / np.where(self.counts > 0, divisors, np.nan)
        return {item.name: row for item, row in zip(self.statistics, means, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        """Complete at an epoch's end.

        Raises:
            UsageError: in the middle of an epoch.
        """
        self._require_epoch_end()
        n = len(self.counts)
        bits = np.array(self._history, dtype=np.uint8).reshape(self.epoch, 2, (n + 7) // 8)
        return {
            "statistics": [statistic.name for statistic in self.statistics],
            "epoch": self.epoch,
            "totals": torch.from_numpy(self.totals.copy()),
            "counts": torch.from_numpy(self.counts.copy()),
            "history": torch.from_numpy(bits),
            "class_sums": None if self.class_sums is None else self.class_sums.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same statistics and examples.

        Raises:
            DataError: if it is of other statistics or another number of examples.
        """
        names = [statistic.name for statistic in self.statistics]
        if state["statistics"] != names or tuple(state["totals"].shape) != self.totals.shape:
            raise DataError(
                f"stored state has statistics {state['statistics']} of "
                f"{state['totals'].shape[1]} examples; expected {names} of {len(self.counts)}"
            )
        if (state["class_sums"] is None) != (self.class_sums is None):
            raise DataError("stored state and this recording differ in keeping class sums")
        self.epoch = int(state["epoch"])
        self.totals = state["totals"].cpu().numpy().copy()
        self.counts = state["counts"].cpu().numpy().copy()
        bits = state["history"].cpu().numpy()
        self._history = [(pair[0].copy(), pair[1].copy()) for pair in bits]
        self._buffer = None
        if self.class_sums is not None:
            self.class_sums.load_state_dict(state["class_sums"])

    def merge(self, other: StatisticsObserver) -> None:
        """Add what another worker recorded of the same examples over the same epochs.

        An example that both saw in one epoch counts twice in the means, and its correctness in
        that epoch is the other's.

        Raises:
            DataError: if examples, statistics or number of epochs differ.
        """
        self._require_epoch_end()
        other._require_epoch_end()
        names = [statistic.name for statistic in self.statistics]
        if [statistic.name for statistic in other.statistics] != names:
            raise DataError("recordings with different statistics cannot be merged")
        if not torch.equal(self.labels, other.labels) or self.num_classes != other.num_classes:
            raise DataError("recordings of different labels cannot be merged")
        if self.epoch != other.epoch:
            raise DataError(
                f"recordings of {self.epoch} and {other.epoch} epochs cannot be merged; "
                "merge after the same epoch"
            )
        if (self.class_sums is None) != (other.class_sums is None):
            raise DataError("only one of the recordings has class sums")
        newest = (self._last_seen() < other._last_seen()) & self._is_last[:, None]
        np.copyto(self.totals, other.totals, where=newest)
        np.add(self.totals, other.totals, out=self.totals, where=~self._is_last[:, None])
        self.counts += other.counts
        self._history = [
            ((correct & ~their_seen) | their_correct, seen | their_seen)
            for (correct, seen), (their_correct, their_seen) in zip(
                self._history, other._history, strict=True
            )
        ]
        if self.class_sums is not None and other.class_sums is not None:
            self.class_sums.merge(other.class_sums)

    def _last_seen(self) -> NDArray[np.int64]:
        """(n,) the last epoch, from 1, in which each example was seen; 0 if in none."""
        last = np.zeros(len(self.counts), dtype=np.int64)
        for epoch, (_, seen) in enumerate(self._history, start=1):
            last[np.unpackbits(seen, count=len(last)).astype(bool)] = epoch
        return last

    def _require_epoch_end(self) -> None:
        if self._buffer is not None and self._buffer.touched:
            raise UsageError("the epoch is not finished; call end_epoch() first")


def _correct(outputs: Outputs) -> Tensor:
    return outputs.correct


class _EpochBuffer:
    """One epoch's values on the device: (s, n + 1), the last column a place for what counts not."""

    def __init__(self, owner: StatisticsObserver, device: torch.device) -> None:
        self._owner = owner
        n, k = len(owner.counts), owner.num_classes
        self._n = n
        self._labels = torch.cat([owner.labels, owner.labels.new_zeros(1)]).to(device)
        self._values = torch.zeros((len(owner.statistics), n + 1), device=device)
        self._newest = torch.full((n + 1,), -1, dtype=torch.int64, device=device)
        self._capacity = max(1, min(_BUFFER_ELEMENTS // k, 2 * n))
        self._logits = torch.empty((self._capacity, k), device=device)
        self._rows = torch.empty((self._capacity,), dtype=torch.int64, device=device)
        self._targets = torch.empty_like(self._rows)
        self._filled = 0
        self._start = 0  # observations of this epoch before those now in the buffer
        self.touched = False

    def add(self, rows: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Copy a batch (which may be larger than the buffer), reducing whenever it is full."""
        self.touched = True
        done = 0
        while done < len(rows):
            take = min(len(rows) - done, self._capacity - self._filled)
            place = slice(self._filled, self._filled + take)
            self._logits[place].copy_(logits[done : done + take], non_blocking=True)
            self._rows[place].copy_(rows[done : done + take], non_blocking=True)
            self._targets[place].copy_(targets[done : done + take], non_blocking=True)
            self._filled += take
            done += take
            if self._filled == self._capacity:
                self.reduce()

    @torch.no_grad()
    def reduce(self) -> None:
        """Turn the buffered logits into values."""
        if not self._filled:
            return
        rows = self._rows[: self._filled]
        if self._owner.resolve is not None:
            rows = self._owner.resolve(rows, self._targets[: self._filled])
        # The last observation of an id wins: remember the newest position seen for each row, and
        # send every older one to the spare column n. No masks, hence no device synchronisation.
        position = torch.arange(self._start, self._start + self._filled, device=rows.device)
        self._newest.scatter_reduce_(0, rows, position, "amax")
        rows = torch.where(self._newest[rows] == position, rows, self._n)
        outputs = Outputs(self._logits[: self._filled], self._labels[rows])
        for row, statistic in zip(self._values, self._owner.statistics, strict=True):
            row[rows] = statistic.per_example(outputs).to(row.dtype)
        if self._owner.class_sums is not None:
            self._owner.class_sums.put(rows.cpu().numpy(), outputs.probs.cpu().numpy())
        self._start += self._filled
        self._filled = 0

    def last_observed(self) -> NDArray[np.int64]:
        """(n,) place of each example's newest observation in this epoch, -1 without one."""
        return self._newest[: self._n].cpu().numpy().copy()

    def leave_out(self, rows: NDArray[np.bool_]) -> None:
        """Take these examples for not seen."""
        self._newest[: self._n][torch.from_numpy(rows).to(self._newest.device)] = -1

    def finish(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values (s, n) and which examples were seen; the buffer is ready for the next epoch."""
        self.reduce()
        values = self._values[:, : self._n].cpu().numpy().copy()
        seen = (self._newest[: self._n] >= 0).cpu().numpy()
        self._newest.fill_(-1)
        self._start = 0
        self.touched = False
        return values, seen
