"""From the rows of a data set to a batch on the device: uint8 until there, then normalised."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noiseaudit._rows import row_blocks, spread_rows
from noiseaudit.dataset import LabeledDataset

__all__ = ["Inputs"]

_STATISTICS_ROWS = 10_000  # enough for a mean and deviation of pixels to three digits
_RESIDENT_SHARE = 0.5  # of the free device memory that the data set may take


class Inputs:
    """Batches of a data set as a model takes them.

    Images become float32 (b, c, h, w) in [0, 1], channels last in memory; vectors (b, d). On a
    CUDA device the whole uint8 data set lives there when it takes at most half of the free
    memory; otherwise, and when it is memory-mapped on a CPU, rows are gathered batch by batch.

    Args:
        dataset: what to serve.
        device: where to.
        scaled_like: use the mean and deviation of these inputs, as for held-out examples.

    Attributes:
        labels: (n,) int64 given labels on the device.
    """

    def __init__(
        self, dataset: LabeledDataset, device: torch.device, *, scaled_like: Inputs | None = None
    ) -> None:
        self.device = device
        self.is_images = dataset.kind == "images"
        self.labels = torch.from_numpy(dataset.labels).to(device)
        self._inputs = dataset.inputs
        self._rows: NDArray[np.int64] | None = None
        self._resident = self._place(dataset.inputs)
        self._scale = None if scaled_like is None else scaled_like.scale

    def _place(self, inputs: NDArray[Any]) -> Tensor | None:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            if inputs.nbytes > _RESIDENT_SHARE * free:
                return None
            return torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device)
        if isinstance(inputs, np.memmap) or not inputs.flags.writeable:
            return None  # torch warns about arrays it could write to
        return torch.from_numpy(np.ascontiguousarray(inputs))

    @property
    def scale(self) -> tuple[Tensor, Tensor]:
        """`mean` and `std`; computed when first asked for."""
        if self._scale is None:
            mean, std = _mean_std(self._inputs, self._rows)
            shape = (1, -1, 1, 1) if self.is_images else (1, -1)
            self._scale = self._parameter(mean, shape), self._parameter(std, shape)
        return self._scale

    @scale.setter
    def scale(self, mean_and_std: tuple[Tensor, Tensor]) -> None:
        self._scale = mean_and_std

    @property
    def mean(self) -> Tensor:
        """Per channel (images; over at most 10,000 evenly spaced examples) or per feature."""
        return self.scale[0]

    @property
    def std(self) -> Tensor:
        """As `mean`; 1 for a constant feature."""
        return self.scale[1]

    def _parameter(self, values: NDArray[np.float64], shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(values).float().view(shape).to(self.device)

    def subset(self, rows: NDArray[np.int64], *, scaled_like: Inputs | None = None) -> Inputs:
        """The examples at `rows`, without copying any; mean and deviation are their own."""
        part = copy(self)
        part.labels = self.labels[torch.from_numpy(rows).to(self.device)]
        part._rows = rows if self._rows is None else self._rows[rows]
        part._scale = None if scaled_like is None else scaled_like.scale
        return part

    def __len__(self) -> int:
        return len(self.labels)

    def raw(self, rows: NDArray[np.int64]) -> Tensor:
        """Examples at `rows`, float32: images in [0, 1], vectors as they are."""
        if self._rows is not None:
            rows = self._rows[rows]
        if self._resident is None:
            batch = torch.from_numpy(np.ascontiguousarray(self._inputs[rows]))
            batch = batch.to(self.device, non_blocking=True)
        else:
            batch = self._resident[torch.from_numpy(rows).to(self.device, non_blocking=True)]
        if not self.is_images:
            return batch
        if batch.ndim == 3:
            batch = batch[..., None]
        return batch.permute(0, 3, 1, 2).float().div_(255)

    def normalise(self, batch: Tensor) -> Tensor:
        """Zero mean and unit deviation per channel or feature."""
        return (batch - self.mean) / self.std


def _mean_std(
    inputs: NDArray[Any], rows: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axes: tuple[int, ...] = (0,)
    if inputs.dtype == np.uint8:
        some = spread_rows(len(inputs) if rows is None else len(rows), _STATISTICS_ROWS)
        inputs = inputs[some if rows is None else rows[some]]
        if inputs.ndim == 3:
            inputs = inputs[..., None]
        axes = (0, 1, 2)
    elif rows is not None:
        inputs = inputs[rows]
    total: Any = 0.0
    squares: Any = 0.0
    blocks = row_blocks(len(inputs), inputs[:1].size, 2**22)
    scale = 255 if inputs.dtype == np.uint8 else 1
    # Two passes in blocks: exact enough for features of any offset, and never a float copy of all.
    count = inputs.size / inputs.shape[-1]
    for block in blocks:
        total = total + (inputs[block] / scale).sum(axis=axes, dtype=np.float64)
    mean = total / count
    for block in blocks:
        part = inputs[block] / scale - mean
        squares = squares + np.square(part).sum(axis=axes, dtype=np.float64)
    std = np.sqrt(squares / count)
    return np.asarray(mean), np.where(std > 0, std, 1.0)
