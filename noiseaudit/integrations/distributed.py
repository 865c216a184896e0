"""The Recorder in data-parallel training: one in each process, brought together at the end.

```python
for epoch in range(epochs):
    sampler.set_epoch(epoch)
    for inputs, targets, sample_ids in loader:
        ...
        recorder.update(logits, targets, sample_ids)
    end_epoch(recorder)               # instead of recorder.end_epoch()
merged = gather_recorder(recorder)    # the same in every process
```

A `DistributedSampler` fills up its last batches with examples that another process has too. Only
together can the processes see that, and only before the epoch is closed: that is what `end_epoch`
here is for. Then the merged statistics are those of one process that saw the same logits.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from noiseaudit.errors import DataError, NoiseAuditWarning, UsageError
from noiseaudit.recorder import Recorder

__all__ = ["end_epoch", "gather_recorder"]


def end_epoch(recorder: Recorder) -> None:
    """`recorder.end_epoch()`, after which an example counts in one process only.

    Of an example that several processes saw in this epoch, the last observation counts, as in one
    process: that furthest into its process's epoch, of equals that of the highest rank. Every
    process must call it. Cost: one `all_reduce` of n int64. Without a process group, or with one
    process, it is `recorder.end_epoch()`.

    Raises:
        DataError: as `Recorder.end_epoch`, in the process whose batches are at fault.
    """
    if _world_size() > 1:
        _leave_to_the_last(recorder)
    recorder.end_epoch()


def _leave_to_the_last(recorder: Recorder) -> None:
    """Take out of the open epoch what another process observed later."""
    position = torch.from_numpy(recorder.last_observed())
    mine = torch.where(position >= 0, position * dist.get_world_size() + dist.get_rank(), -1)
    last = mine.to(_device(), copy=True)  # all_reduce writes into it
    dist.all_reduce(last, op=dist.ReduceOp.MAX)
    recorder.leave_out(((mine >= 0) & (last.cpu() != mine)).numpy())


def gather_recorder(recorder: Recorder) -> Recorder:
    """All processes' recordings in one Recorder, the same in every process; after the last epoch.

    Every process must call it. The own recorder stays as it is, so calling it again is harmless.
    Cost: each process's state is sent to all, one after the other. Without a process group, or
    with one process, it is the recorder itself.

    Raises:
        DataError: if the processes recorded other labels, ids, or numbers of epochs.
        UsageError: in the middle of an epoch.
    """
    if _world_size() < 2:
        return recorder
    try:
        own: Any = recorder.state_dict()
    except UsageError as error:
        own = error  # the others must hear of it, or they would wait for ever
    merged: Recorder | None = None
    seen: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
    repeated, failure = 0, None
    for rank in range(dist.get_world_size()):
        parcel = [own if rank == dist.get_rank() else None]
        dist.broadcast_object_list(parcel, src=rank, device=_device())
        try:
            theirs, their_seen = _from_state(recorder, parcel[0])
            if merged is None:
                merged, seen = theirs, their_seen
            else:
                merged.merge(theirs)
                repeated += int(np.bitwise_count(seen & their_seen).sum())
                seen = seen | their_seen
        except (DataError, UsageError) as error:
            failure = failure or error
    if failure is not None:
        raise failure
    if repeated:
        warnings.warn(
            f"{repeated} observations count twice: two processes had the example in one epoch; "
            "close epochs with noiseaudit.integrations.distributed.end_epoch(recorder)",
            NoiseAuditWarning,
            stacklevel=2,
        )
    return recorder if merged is None else merged


def _from_state(like: Recorder, state: Any) -> tuple[Recorder, NDArray[np.uint8]]:
    """Another process's recorder, and which examples it saw in each epoch, as bits."""
    if isinstance(state, UsageError):
        raise state
    made = Recorder(
        like.labels,
        like.num_classes,
        sample_ids=like.sample_ids,
        class_sums=state["observer"]["class_sums"] is not None,
    )
    made.load_state_dict(state)
    return made, state["observer"]["history"][:, 1].cpu().numpy()


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _device() -> torch.device:
    """Where collectives take their tensors."""
    on_gpu = dist.get_backend() == dist.Backend.NCCL
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
