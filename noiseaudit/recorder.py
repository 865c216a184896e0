"""Recorder: the audit's training statistics, inside a training loop of your own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from noiseaudit._validation import check_ids, check_labels, check_same_length
from noiseaudit.class_sums import ClassSums
from noiseaudit.detector import (
    Detector,
    create_detectors,
    detector_types,
    training_statistics,
)
from noiseaudit.errors import DataError, UsageError, check_name
from noiseaudit.evidence import Evidence
from noiseaudit.observers import StatisticsObserver
from noiseaudit.ranking import Ranking

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Recorder"]

_FORMAT = 1


class Recorder:
    """Records every training-time statistic from the logits that your loop computes anyway.

    ```python
    recorder = Recorder(labels=y, num_classes=10)
    for epoch in range(epochs):
        for inputs, targets, sample_ids in loader:
            logits = model(inputs)
            ...
            recorder.update(logits, targets, sample_ids)
        recorder.end_epoch()
    recorder.rank("cumulative_loss").top(100)
    ```

    Batches may come in any order and size, in any floating dtype, on any device. An id seen twice
    in an epoch counts once, its last observation; one not seen in an epoch does not count in it
    (means are per observation). Cost: a copy of the logits per batch and a few vectorised passes
    per epoch, about 1 microsecond per example. Memory: about 200 bytes per example, plus 8 k with
    `class_sums`: 1.3 million examples of 1,000 classes take 0.26 GB without and 10.7 GB with.

    Args:
        labels: (n,) integer given labels in [0, num_classes).
        num_classes: k.
        sample_ids: (n,) unique integer ids, in the order of `labels`; default 0..n-1.
        class_sums: keep (n, k) sums of probabilities, for `pred_probs`; float32, two copies.
        keep_trajectories: a folder that gets one `epoch_0001.npz` per epoch with every statistic
            of that epoch, (n,) float32 each, NaN where not seen; never a pickle.

    Raises:
        DataError: if labels or ids are not as above.
    """

    def __init__(
        self,
        labels: ArrayLike,
        num_classes: int,
        *,
        sample_ids: ArrayLike | None = None,
        class_sums: bool = False,
        keep_trajectories: str | Path | None = None,
    ) -> None:
        if num_classes < 2:
            raise UsageError(f"num_classes must be at least 2; got {num_classes}")
        self.labels = check_labels(labels, num_classes)
        self.num_classes = num_classes
        n = len(self.labels)
        self.sample_ids = check_ids(np.arange(n) if sample_ids is None else sample_ids)
        check_same_length(labels=self.labels, sample_ids=self.sample_ids)
        self._observer = StatisticsObserver(
            self.labels,
            num_classes,
            training_statistics(),
            class_sums=ClassSums(n, num_classes) if class_sums else None,
            trajectories=None if keep_trajectories is None else Path(keep_trajectories),
            resolve=self._rows,
        )
        self._identity = np.array_equal(self.sample_ids, np.arange(n))
        self._tables: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self._observer.epoch

    def update(self, logits: Tensor, targets: Tensor, sample_ids: Tensor) -> None:
        """Record one batch, without synchronising with the device.

        (With `class_sums`, every few million logits are moved to the host: one synchronisation.)

        Args:
            logits: (b, k), any floating dtype; detached here.
            targets: (b,) integers: the given labels of these examples.
            sample_ids: (b,) integers.

        Raises:
            DataError: if the shapes or dtypes do not fit. Ids that do not exist and targets that
                differ from `labels` are counted on the device and reported by `end_epoch`.
        """
        logits = logits.detach()
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise DataError(
                f"logits must have shape (b, {self.num_classes}); got {tuple(logits.shape)}"
            )
        if not logits.is_floating_point():
            raise DataError(f"logits must be floating point; got {logits.dtype}")
        for name, column in (("targets", targets), ("sample_ids", sample_ids)):
            if column.is_floating_point() or column.dtype == torch.bool:
                raise DataError(f"{name} must be integers; got {column.dtype}")
            if column.shape != logits.shape[:1]:
                raise DataError(
                    f"{name} must have shape ({len(logits)},) like logits; "
                    f"got {tuple(column.shape)}"
                )
        self._observer.on_batch(sample_ids, logits, targets, targets)

    def _tables_on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Labels, sorted ids, their rows, and the counts of unknown ids and differing targets."""
        if self._tables is None or self._tables[0].device != device:
            by_id = torch.from_numpy(np.argsort(self.sample_ids, kind="stable"))
            ids = torch.from_numpy(self.sample_ids)[by_id]
            labels = torch.from_numpy(np.append(self.labels, -1))
            faults = torch.zeros(2, dtype=torch.int64)
            self._tables = (
                labels.to(device), ids.to(device), by_id.to(device), faults.to(device)
            )  # fmt: skip
        return self._tables

    def _rows(self, sample_ids: Tensor, targets: Tensor) -> Tensor:
        """Row of each id; n, "not an example", where the id or its target is wrong."""
        labels, sorted_ids, by_id, faults = self._tables_on(sample_ids.device)
        n = len(self.labels)
        if self._identity:
            known = (sample_ids >= 0) & (sample_ids < n)
            rows = torch.where(known, sample_ids, n)
        else:
            place = torch.searchsorted(sorted_ids, sample_ids).clamp_max(max(n - 1, 0))
            known = sorted_ids[place] == sample_ids
            rows = torch.where(known, by_id[place], n)
        agree = labels[rows] == targets
        faults[0] += (~known).sum()
        faults[1] += (known & ~agree).sum()
        return torch.where(agree, rows, n)

    def last_observed(self) -> NDArray[np.int64]:
        """(n,) when each example was last seen in the open epoch, counting observations; or -1."""
        return self._observer.last_observed()

    def leave_out(self, rows: ArrayLike) -> None:
        """Forget what the open epoch has of some examples, as if it had not seen them.

        Args:
            rows: (n,) bool, in the order of `labels`.

        Raises:
            DataError: for another length.
        """
        mask = np.asarray(rows, dtype=bool)
        check_same_length(labels=self.labels, rows=mask)
        self._observer.leave_out(mask)

    def end_epoch(self) -> None:
        """Close the epoch: one transfer from the device.

        Raises:
            DataError: if the epoch held ids that do not exist or targets that differ from the
                labels (ids and data are out of step), or statistics that are not finite. The
                epoch then does not count.
        """
        self._observer.flush()
        unknown, differing = (0, 0) if self._tables is None else self._tables[3].tolist()
        if unknown or differing:
            self._tables = None
            self._observer.discard_epoch()
        if unknown:
            raise DataError(
                f"{unknown} observations of this epoch had sample_ids that are not among the "
                f"{len(self.labels)} recorded ones"
            )
        if differing:
            raise DataError(
                f"{differing} observations of this epoch had targets that differ from the "
                "labels given to the Recorder: are sample_ids out of step with the data?"
            )
        self._observer.on_epoch_end()

    def evidence(self, *, seed: int = 0) -> Evidence:
        """What the detectors look at."""
        return Evidence(
            ids=self.sample_ids,
            labels=self.labels,
            num_classes=self.num_classes,
            seed=seed,
            statistics=self._observer.compute(),
            correct_history=self._observer.correct_history(),
        )

    def rank(self, name: str) -> Ranking:
        """Ranking by the detector called `name`; higher = more suspicious.

        Raises:
            UnknownNameError: if there is no such detector.
            DataError: if nothing, or not every example, was observed.
        """
        check_name(name, detector_types(), "detector")
        return create_detectors([name])[0].rank(self.evidence())

    def scores(self, detectors: Sequence[str | Detector] | None = None) -> pd.DataFrame:
        """One row per example in the order of `labels`, one column of suspicion per detector.

        Indexed by sample_id; default: every detector that training statistics suffice for.
        """
        import pandas as pd

        evidence = self.evidence()
        chosen = [
            detector
            for detector in create_detectors(detectors)
            if detectors is not None or set(detector.needs) <= {"training"}
        ]
        columns = {detector.name: detector.rank(evidence).scores for detector in chosen}
        return pd.DataFrame(columns, index=pd.Index(self.sample_ids, name="sample_id"))

    def pred_probs(self) -> NDArray[np.float32]:
        """(n, k) probabilities, mean over epochs; **in-sample**: the model trained on them.

        Tools that ask for out-of-sample `pred_probs` (cleanlab) get optimistic answers from these.

        Raises:
            UsageError: unless the Recorder was made with `class_sums=True`.
        """
        if self._observer.class_sums is None:
            raise UsageError("pred_probs needs Recorder(..., class_sums=True)")
        return self._observer.class_sums.means()

    def merge(self, other: Recorder) -> None:
        """Add all that another data-parallel worker's recorder has: **once**, after the last epoch.

        Merging the same worker again would count its observations twice.

        Raises:
            DataError: if labels, ids or number of epochs differ.
        """
        if not np.array_equal(self.sample_ids, other.sample_ids):
            raise DataError("recorders of different sample_ids cannot be merged")
        self._observer.merge(other._observer)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values, at an epoch's end; loads with `weights_only=True`."""
        return {
            "format": _FORMAT,
            "labels": torch.from_numpy(self.labels.copy()),
            "sample_ids": torch.from_numpy(self.sample_ids.copy()),
            "observer": self._observer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            DataError: if it is of other labels, ids or statistics, or of a newer format.
        """
        if state["format"] > _FORMAT:
            raise DataError(f"the stored state has format {state['format']}; update noiseaudit")
        for name in ("labels", "sample_ids"):
            if not np.array_equal(state[name].cpu().numpy(), getattr(self, name)):
                raise DataError(f"the stored state was recorded with other {name}")
        self._observer.load_state_dict(state["observer"])
