"""Lightning: a callback that feeds a Recorder.

```python
def training_step(self, batch, batch_idx):              # in the LightningModule
    inputs, targets, sample_ids = batch
    logits = self(inputs)
    return {"loss": F.cross_entropy(logits, targets), "logits": logits}

trainer = Trainer(max_epochs=10, callbacks=[RecorderCallback(recorder)])
```
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from noiseaudit.errors import DataError, NoiseAuditWarning
from noiseaudit.integrations._soft import MissingLibraryError
from noiseaudit.integrations.distributed import end_epoch
from noiseaudit.recorder import Recorder

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise MissingLibraryError("lightning", "lightning", error) from error

__all__ = ["RecorderCallback"]

Observed = tuple[Tensor, Tensor, Tensor]


class RecorderCallback(Callback):  # type: ignore[misc]  # seen as Any: not followed
    """Records every training batch; not the sanity check, validation, test or prediction.

    The Recorder's state is part of checkpoints made at an epoch's end, and training that goes on
    from one goes on recording. Epochs are closed with `distributed.end_epoch`: with several devices
    each process has its own recorder, for `gather_recorder` after `fit`.

    Args:
        recorder: made from the training set's labels; filled in place.
        observe: from what `training_step` returned and the batch to (logits, targets, sample_ids);
            default: "logits" of the returned dict, and "targets" and "sample_ids" of it, or else
            the batch's second and third items, or its own "label" (or "labels", "targets") and
            "sample_id" (or "sample_ids") if it is a dict.

    Raises:
        DataError: in training, if these cannot be found; and as `Recorder` does.
    """

    def __init__(
        self, recorder: Recorder, *, observe: Callable[[Any, Any], Observed] | None = None
    ) -> None:
        super().__init__()
        self.recorder = recorder
        self.observe = observe or _observe
        self._is_open = False

    def on_train_batch_end(
        self, trainer: Trainer, _: LightningModule, outputs: Any, batch: Any, *__: Any
    ) -> None:
        """Record the batch; close the epoch after its last, before validation and checkpoints."""
        self.recorder.update(*self.observe(outputs, batch))
        self._is_open = True
        if trainer.is_last_batch:
            self._close()

    def on_train_epoch_end(self, *_: Any) -> None:
        """Close an epoch that was broken off, or whose length was not known."""
        self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            end_epoch(self.recorder)

    def state_dict(self) -> dict[str, Any]:
        """The Recorder's state, for Lightning's checkpoint; empty in the middle of an epoch."""
        if self._is_open:
            warnings.warn(
                "a checkpoint in the middle of an epoch cannot hold the recorder: training from it "
                "begins recording anew",
                NoiseAuditWarning,
                stacklevel=2,
            )
            return {}
        return self.recorder.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        if state_dict:
            self.recorder.load_state_dict(state_dict)


def _observe(outputs: Any, batch: Any) -> Observed:
    if not isinstance(outputs, Mapping) or "logits" not in outputs:
        raise DataError(
            "training_step must return a dict with 'loss' and 'logits', or RecorderCallback be "
            f"told where they are (observe=...); it returned {_described(outputs)}"
        )
    return (
        outputs["logits"],
        _find(outputs, batch, ("targets", "labels", "label"), 1),
        _find(outputs, batch, ("sample_ids", "sample_id"), 2),
    )


def _find(outputs: Mapping[str, Any], batch: Any, names: tuple[str, ...], place: int) -> Tensor:
    for holder in (outputs, batch):
        if isinstance(holder, Mapping):
            for name in names:
                if name in holder:
                    return holder[name]  # type: ignore[no-any-return]  # the Recorder checks it
    if isinstance(batch, tuple | list) and len(batch) > place:
        return batch[place]  # type: ignore[no-any-return]  # the Recorder checks it
    raise DataError(
        f"a training batch has no {names[0]}: let the dataset give (input, target, sample_id), "
        f"return {names[0]!r} from training_step, or pass observe=...; the batch is "
        f"{_described(batch)}"
    )


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value))}"
    length = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{length}"
