"""What watches a training run, and what it is shown: the Observer protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from numpy.typing import NDArray
from torch import Tensor, nn

from noiseaudit.errors import UsageError

__all__ = ["CleanView", "GradientBatch", "Observer", "Snapshot", "check_epoch"]


class Snapshot(NamedTuple):
    """An array that the model gives of all examples at the end of an epoch, in eval mode.

    Attributes:
        kind: "features" (n, d), the input of the last linear layer; "logits" (n, k); "gradients"
            (n, m), each example's gradient of its own loss by the weights, projected: see
            `projected_gradients`.
        epoch: from 1; None is the last.
    """

    kind: Literal["features", "logits", "gradients"]
    epoch: int | None = None


def check_epoch(epoch: int | None) -> None:
    """Check the epoch of a snapshot as far as that is possible before there is a run.

    Raises:
        UsageError: if it is below 1.
    """
    if epoch is not None and epoch < 1:
        raise UsageError(f"epoch must be at least 1, or None for the last; got {epoch}")


@dataclass(frozen=True, eq=False)
class GradientBatch:
    """Some examples, and where the loss would go from there.

    Attributes:
        model: in eval mode; weights must stay as they are.
        rows: their positions in the data set.
        inputs: (b, ...) as the model takes them.
        labels: (b,) int64 given labels.
        logits: (b, k) float64: of a well fitted label, p - 1 has few digits in float32.
        gradient: (b, ...) float32, of each example's own loss by its input.
        pixel: what one unit of a raw input (a pixel in [0, 1]) is in `inputs`: 1 / std.
    """

    model: nn.Module
    rows: slice
    inputs: Tensor
    labels: Tensor
    logits: Tensor
    gradient: Tensor
    pixel: Tensor


class CleanView(Protocol):
    """What an epoch's end offers: the whole data set through the model in eval mode, lazily.

    Each array is computed once, when the first observer asks; nobody asking costs nothing.
    """

    @property
    def logits(self) -> Tensor:
        """(n, k) float32 on the host."""

    @property
    def features(self) -> Tensor:
        """(n, d) float32 on the host: the input of the last linear layer."""

    @property
    def input_gradient(self) -> Tensor:
        """(n, ...) float32 on the host: gradient of each example's loss by its model input."""

    def visit_gradients(
        self,
        visit: Callable[[GradientBatch], None],
        done: Callable[[], None],
        *,
        bfloat16: bool = False,
    ) -> None:
        """Ask for every batch with its input gradient, and to be told when there are no more.

        They come once every observer has had its turn: all who ask for the same precision share one
        pass. With `bfloat16` the gradient, and what `visit` computes, is under autocast. Where
        memory is short, rows may come twice, the second time to replace the first.
        """


class Observer(Protocol):
    """Watches a training run; never changes weights, buffers, gradients or the model's mode."""

    def on_batch(self, rows: Tensor, logits: Tensor, labels: Tensor, losses: Tensor, /) -> None:
        """One training batch: rows (b,) int64, logits (b, k), given labels (b,), losses (b,)."""

    def on_epoch_end(self, clean: CleanView, /) -> None:
        """The epoch is over; `clean` is valid until all who asked it for gradients have them."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, complete at an epoch's end."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""

    def compute(self) -> dict[str, NDArray[Any]]:
        """Arrays by name, each with one row per example."""
