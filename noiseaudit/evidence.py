"""Evidence: the arrays a detector may look at, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import DataError

__all__ = ["Evidence"]

_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about n examples once the stages that a detector needs have run.

    Attributes:
        ids: (n,) int64 sample ids.
        labels: (n,) int64 given labels.
        num_classes: k.
        seed: seed of the run, for detectors that are random by design.
        statistics: per-example arrays by name, (n,) float64 means over training epochs.
        correct_history: (e, n) int8, 1 predicted right, 0 wrong, -1 not seen in that epoch.
        pred_probs: (n, k) float32, out-of-sample: of models that did not train on the example.
        cscores: (n,) arrays of C-scores by name: see `CScores.detector_arrays`.
        inputs: (n, ...) the examples themselves, uint8 pictures or float vectors.
        embeddings: (n, d) float32 vectors of an encoder, or the inputs where they are vectors.
        snapshots: (n, d) float32 arrays by (kind, epoch), of the model at an epoch's end: see
            `Snapshot`; epoch None is the last.
        device: where detectors that compute for long do so, "cpu" or "cuda".
        reused_seconds: what work took that an earlier detector had done, in `shared`.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    num_classes: int
    seed: int = 0
    statistics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    correct_history: NDArray[np.int8] | None = None
    pred_probs: NDArray[np.float32] | None = None
    cscores: Mapping[str, NDArray[Any]] | None = None
    inputs: NDArray[Any] | None = None
    embeddings: NDArray[np.float32] | None = None
    snapshots: Mapping[tuple[str, int | None], NDArray[np.float32]] = field(default_factory=dict)
    device: str = "cpu"
    reused_seconds: list[float] = field(default_factory=list)
    _shared: dict[Hashable, tuple[Any, float]] = field(default_factory=dict, repr=False)

    def statistic(self, name: str) -> NDArray[np.float64]:
        """The statistic called `name`.

        Raises:
            DataError: if it was not recorded, or some example was never observed.
        """
        if name not in self.statistics:
            raise DataError(
                f"statistic {name!r} was not recorded; recorded: "
                f"{', '.join(sorted(self.statistics)) or 'none'}"
            )
        values = self.statistics[name]
        self._require_observed(np.isnan(values))
        return values

    def history(self) -> NDArray[np.int8]:
        """The correctness of every example at every epoch.

        Raises:
            DataError: if it was not recorded, or some example was never observed.
        """
        if self.correct_history is None:
            raise DataError("correct_history was not recorded")
        self._require_observed(np.all(self.correct_history < 0, axis=0))
        return self.correct_history

    def held_out_probs(self) -> NDArray[np.float32]:
        """The out-of-sample probabilities.

        Raises:
            DataError: if no cross-validation was run.
        """
        if self.pred_probs is None:
            raise DataError("out-of-sample pred_probs: none was recorded; run a cross-validation")
        return self.pred_probs

    def cscore(self, name: str) -> NDArray[np.float64]:
        """The array of C-scores called `name`.

        Raises:
            DataError: if it is not known, or some example has none: it was never held out, or (of
                in-sample scores) never trained on.
        """
        if self.cscores is None or name not in self.cscores:
            raise DataError(f"C-scores: no {name} were recorded; they take subset-trained models")
        values = self.cscores[name]
        missing = np.isnan(values)
        if missing.any():
            raise DataError(
                f"{int(missing.sum())} examples have no {name}, first sample_id "
                f"{self.ids[np.flatnonzero(missing)[0]]}: no model held them out (or, of in-sample "
                "scores, trained on them); use more --runs, or balanced subsets"
            )
        return values

    def snapshot(self, kind: str, epoch: int | None = None) -> NDArray[np.float32]:
        """What the model was at the end of an epoch, None for the last.

        Raises:
            DataError: if it was not recorded.
        """
        if (kind, epoch) not in self.snapshots:
            when = "the last epoch" if epoch is None else f"epoch {epoch}"
            raise DataError(f"{kind} of {when} were not recorded; they take a training run")
        return self.snapshots[kind, epoch]

    def points(self) -> NDArray[np.float32]:
        """(n, d) float32: inputs as vectors, pictures with pixels in [0, 1].

        Raises:
            DataError: if there are none.
        """
        if self.inputs is None:
            raise DataError("inputs: none were recorded")
        flat = self.inputs.reshape(len(self.inputs), -1)
        points = flat.astype(np.float32)
        if flat.dtype == np.uint8:
            points /= 255
        return points

    def vectors(self) -> NDArray[np.float32]:
        """The embeddings.

        Raises:
            DataError: if there are none.
        """
        if self.embeddings is None:
            raise DataError(
                "embeddings: none were recorded; they take an encoder, or a data set of vectors"
            )
        return self.embeddings

    def shared(self, key: Hashable, compute: Callable[[], _Value]) -> _Value:
        """What `compute` gives, computed once for all detectors that ask for `key`."""
        if key in self._shared:
            value, seconds = self._shared[key]
            self.reused_seconds.append(seconds)
        else:
            began = time.perf_counter()
            value = compute()
            self._shared[key] = value, time.perf_counter() - began
        return cast(_Value, value)

    def _require_observed(self, missing: NDArray[Any]) -> None:
        if missing.any():
            raise DataError(
                f"{int(missing.sum())} examples were never observed in training, "
                f"first sample_id {self.ids[np.flatnonzero(missing)[0]]}; they have no score"
            )
