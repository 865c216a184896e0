"""Hugging Face Trainer: a callback that feeds a Recorder.

```python
recorder = Recorder(labels=train["label"][:], num_classes=3)
train = train.add_column("sample_id", list(range(len(train))))
trainer = Trainer(
    model, TrainingArguments(..., remove_unused_columns=False), train_dataset=train,
    callbacks=[RecorderCallback(recorder)],
)
trainer.train()
recorder.rank("cumulative_loss").top(100)
```
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
from noiseaudit.integrations._soft import MissingLibraryError
from noiseaudit.integrations.distributed import end_epoch
from noiseaudit.recorder import Recorder

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise MissingLibraryError("transformers", "transformers", error) from error

__all__ = ["RecorderCallback"]


class RecorderCallback(TrainerCallback):  # type: ignore[misc]  # seen as Any: not followed
    """Records every training batch of a `Trainer`, at no further forward pass.

    The Trainer shows its callbacks neither logits nor batches, so hooks on the model read them:
    `sample_id` is taken out of the batch before `forward` sees it, and in training mode the
    `logits` of the output are recorded with it. Evaluation, prediction and a model called by
    others are not recorded; with gradient accumulation every small batch is. Epochs are closed
    with `distributed.end_epoch`: under torchrun each process has its own recorder, for
    `gather_recorder` after training.

    Needed: a column `sample_id` of the training set, `TrainingArguments(
    remove_unused_columns=False)` so that it reaches the model (drop unused columns with
    `dataset.remove_columns`).

    Args:
        recorder: made from the training set's labels; filled in place.
        id_column: name of the column of ids.

    Raises:
        UsageError: when the Trainer is made or begins, for arguments that cannot work.
        DataError: in training, for a batch without ids, or an output that has no logits; and as
            `Recorder` does.
    """

    def __init__(self, recorder: Recorder, *, id_column: str = "sample_id") -> None:
        self.recorder = recorder
        self.id_column = id_column
        self._given: tuple[Tensor, Tensor] | None = None
        self._handles: list[RemovableHandle] = []
        self._ids: Tensor | None = None

    def on_init_end(self, args: Any, *_: Any, model: Any, **__: Any) -> None:
        """Check the arguments; let the model ignore the column of ids."""
        self._check(args)
        _ignore_column(model, self.id_column)

    def on_train_begin(self, args: Any, state: Any, *_: Any, model: Any, **__: Any) -> None:
        """Begin to watch the model."""
        self._check(args)
        if args.n_gpu > 1:
            raise UsageError(
                "several GPUs in one process (DataParallel) cannot be recorded: use torchrun"
            )
        if state.global_step and not self.recorder.epoch:
            warnings.warn(
                f"training goes on from step {state.global_step}, the recorder begins empty: load "
                "the state_dict() you saved, or it covers the remaining epochs only",
                NoiseAuditWarning,
                stacklevel=2,
            )
        self._stop()
        _ignore_column(model, self.id_column)  # another model than at first, with model_init
        self._handles = [
            model.register_forward_pre_hook(self._note_ids, prepend=True, with_kwargs=True),
            model.register_forward_hook(self._record, with_kwargs=True),
        ]

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Close the Recorder's epoch."""
        end_epoch(self.recorder)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Leave the model as it was."""
        self._stop()

    def _check(self, args: Any) -> None:
        if args.remove_unused_columns:
            raise UsageError(
                f"the column {self.id_column!r} would not reach the model: use "
                "TrainingArguments(remove_unused_columns=False)"
            )

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _note_ids(self, model: nn.Module, _: Any, kwargs: dict[str, Any]) -> None:
        if model.training and kwargs.get(self.id_column) is None:
            raise DataError(
                f"a training batch has no {self.id_column!r}; add that column to the training set, "
                "and let the data collator keep it"
            )
        self._ids = kwargs.get(self.id_column)

    def _record(self, model: nn.Module, _: Any, kwargs: dict[str, Any], outputs: Any) -> None:
        if not model.training or self._ids is None:
            return
        logits = _logits(outputs, has_loss=kwargs.get("labels") is not None)
        labels = kwargs.get("labels")
        if labels is None:  # label smoothing and compute_loss_func keep them from the model
            labels = self._labels_of(self._ids)
        self.recorder.update(logits, labels, self._ids)
        self._ids = None

    def _labels_of(self, ids: Tensor) -> Tensor:
        """The given label of each id; any label for an id that the Recorder will refuse."""
        if self._given is None or self._given[0].device != ids.device:
            sorted_ids, order = torch.from_numpy(self.recorder.sample_ids).sort()
            labels = torch.from_numpy(self.recorder.labels)[order]
            self._given = sorted_ids.to(ids.device), labels.to(ids.device)
        sorted_ids, labels = self._given
        return labels[torch.searchsorted(sorted_ids, ids).clamp_max(len(labels) - 1)]


def _logits(outputs: Any, *, has_loss: bool) -> Tensor:
    """Of a ModelOutput, a dict, or the tuple that `return_dict=False` gives."""
    if isinstance(outputs, tuple) and len(outputs) > has_loss:
        outputs = {"logits": outputs[int(has_loss)]}
    logits = outputs.get("logits") if hasattr(outputs, "get") else None
    if not isinstance(logits, Tensor):
        raise DataError(
            f"the model's output ({type(outputs).__name__}) has no 'logits'; RecorderCallback is "
            "for models that classify"
        )
    return logits


class _IgnoreColumn:
    """A forward pre-hook that takes one keyword away; a class, so that the model still pickles."""

    def __init__(self, column: str) -> None:
        self.column = column

    def __call__(
        self, _: nn.Module, args: Any, kwargs: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]] | None:
        if self.column not in kwargs:
            return None
        return args, {name: value for name, value in kwargs.items() if name != self.column}


def _ignore_column(model: nn.Module, column: str) -> None:
    hooks = model._forward_pre_hooks.values()
    if not any(isinstance(hook, _IgnoreColumn) and hook.column == column for hook in hooks):
        model.register_forward_pre_hook(_IgnoreColumn(column), with_kwargs=True)
