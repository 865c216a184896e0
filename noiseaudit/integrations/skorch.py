"""skorch: a callback that feeds a Recorder, and the loader that tells it which examples it sees.

```python
recorder = Recorder(labels=y, num_classes=10)
net = NeuralNetClassifier(
    module, train_split=None, iterator_train=IndexedLoader, callbacks=[RecorderCallback(recorder)],
)
net.fit(X, y)
recorder.rank("cumulative_loss").top(100)
```
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from noiseaudit.errors import UsageError
from noiseaudit.integrations._soft import MissingLibraryError
from noiseaudit.recorder import Recorder

try:
    from skorch.callbacks import Callback
except ImportError as error:
    raise MissingLibraryError("skorch", "skorch", error) from error

__all__ = ["IndexedLoader", "RecorderCallback"]


class RecorderCallback(Callback):  # type: ignore[misc]  # skorch is untyped
    """Records every training batch; not those of validation.

    It needs `iterator_train=IndexedLoader`. With a `train_split` the examples split off are never
    trained on, and have no score: use `train_split=None` to rank them all. Fitting again adds
    epochs to the same recorder; a clone of the net (cross-validation, search) records into a copy.

    A `NeuralNetClassifier` whose module returns probabilities (criterion NLLLoss, the default) is
    recorded by their logarithms, which are logits up to a constant per example: every statistic is
    the same. A `NeuralNetBinaryClassifier` is recorded as two classes with logits (0, z).

    Args:
        recorder: made from y, ids the rows of X or those in `sample_ids`; filled in place.
        sample_ids: (n,) integer ids of the rows of X; default the recorder's own, in their order.

    Raises:
        UsageError: in training, without the IndexedLoader.
        DataError: as `Recorder` does.
    """

    def __init__(self, recorder: Recorder, sample_ids: Any = None) -> None:
        self.recorder = recorder
        self.sample_ids = sample_ids

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Take up the ids."""
        ids = self.recorder.sample_ids if self.sample_ids is None else self.sample_ids
        self.ids_ = torch.as_tensor(ids)

    def on_batch_end(
        self,
        net: Any,
        batch: Any = None,
        training: bool | None = None,
        y_pred: Any = None,
        **_: Any,
    ) -> None:
        """Record a training batch."""
        if not training:
            return
        rows = getattr(batch, "rows", None)
        if rows is None:
            raise UsageError("RecorderCallback needs NeuralNet(..., iterator_train=IndexedLoader)")
        output = y_pred[0] if isinstance(y_pred, tuple) else y_pred
        logits = _logits(output.detach(), is_probability=_has_nll(net))
        targets = batch[1].reshape(-1)
        if targets.is_floating_point():
            targets = targets.round().long()  # what a binary criterion takes: 0.0 and 1.0
        self.recorder.update(logits, targets, self.ids_[rows])

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Close the Recorder's epoch."""
        self.recorder.end_epoch()


def _has_nll(net: Any) -> bool:
    return isinstance(net.criterion_, torch.nn.NLLLoss)


def _logits(output: Tensor, *, is_probability: bool) -> Tensor:
    if output.ndim == 1 or output.shape[1] == 1:
        single = output.reshape(-1, 1)
        return torch.cat([torch.zeros_like(single), single], dim=1)
    if is_probability:
        # A probability that underflowed to 0 counts as the smallest float32 (1e-38), not as -inf.
        return output.clamp_min(torch.finfo(torch.float32).tiny).log()
    return output


class _Batch(list[Any]):
    """What a loader gives, a list [X, y], that knows its rows."""

    rows: Tensor


class _WithRow(Dataset[Any]):
    """Each example with its row in the whole data, of which `dataset` may be a part."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        row, holder = position, self._dataset
        while isinstance(holder, Subset):
            row, holder = int(holder.indices[row]), holder.dataset
        return self._dataset[position], row


class _Collate:
    """Collates examples as before, and their rows beside them."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self._collate = collate

    def __call__(self, items: list[tuple[Any, int]]) -> tuple[Any, Tensor]:
        examples, rows = zip(*items, strict=True)
        return self._collate(list(examples)), torch.tensor(rows)


class IndexedLoader(DataLoader[Any]):
    """A DataLoader whose batches [X, y] know the rows they come from, as `batch.rows`.

    Takes what `DataLoader` takes, by name. Rows are those of the data given to `fit`, also where a
    `train_split` leaves only a part of it.
    """

    def __init__(self, dataset: Any, **kwargs: Any) -> None:
        kwargs["collate_fn"] = _Collate(kwargs.get("collate_fn") or default_collate)
        super().__init__(_WithRow(dataset), **kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # skorch only iterates
        for parts, rows in super().__iter__():
            batch = _Batch(parts)
            batch.rows = rows
            yield batch
