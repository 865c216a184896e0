"""Loss sensitivity: how strongly the loss of an example depends on its input, over training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noiseaudit.errors import UsageError, check_name
from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking
from noiseaudit.watching import CleanView, GradientBatch

__all__ = ["LossSensitivity", "LossSensitivityObserver"]

_NORMS = ("l1", "squared_l2")


@dataclass(frozen=True)
class LossSensitivity:
    """Size of the input gradient of the given label's loss, mean over training.

    Suspicion `mean_t ||dl_t/dx||_1` with x the model's (normalised) input, in [0, inf); **higher =
    more suspicious**. Eval mode, no augmentation, each example's own loss. This is the cheap form:
    the loss an example has now by its input now. Arpit et al. differentiate through the updates,
    so that an input also counts for how it moves the weights: `noiseaudit memorization` has that.

    Attributes:
        norm: "l1" (Arpit et al.), or "squared_l2" (the cumulative input gradient of CSG).
        every: k, to measure in every k-th epoch alone.

    Cost: one forward pass and one backward pass by the inputs in each epoch it is measured in,
    shared with `curvature`.
    Source: Arpit et al., ICML 2017, section 3.2; in sum over training as CSG, ICLR 2026.
    """

    norm: Literal["l1", "squared_l2"] = "l1"
    every: int = 1

    name: ClassVar[str] = "loss_sensitivity"
    summary: ClassVar[str] = "size of the loss gradient by the input, mean over epochs"
    needs: ClassVar[tuple[str, ...]] = ("watching",)
    cost: ClassVar[str] = "a forward and a backward pass an epoch, shared with curvature"
    source: ClassVar[str] = "Arpit et al., ICML 2017, section 3.2, in its cheap form"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_name(self.norm, _NORMS, "norm")
        if self.every < 1:
            raise UsageError(f"every must be at least 1; got {self.every}")

    @property
    def statistic(self) -> str:
        """The name of what is recorded for it, different for different settings."""
        return f"loss_sensitivity {self.norm} every={self.every}"

    def observer(self, ids: NDArray[np.int64], seed: int) -> LossSensitivityObserver:  # noqa: ARG002
        """What watches the training run for it; nothing about it is random."""
        return LossSensitivityObserver(self, len(ids))

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, inf)."""
        return Ranking(self.name, evidence.ids, evidence.statistic(self.statistic))


class LossSensitivityObserver:
    """Sums the size of each example's input gradient over the epochs it measures.

    Args:
        settings: what to measure, and in which epochs.
        n: examples.
    """

    def __init__(self, settings: LossSensitivity, n: int) -> None:
        self.settings = settings
        self._totals = np.zeros(n, dtype=np.float64)
        self._epoch = 0
        self._measured = 0

    def on_batch(self, rows: Tensor, logits: Tensor, labels: Tensor, losses: Tensor, /) -> None:
        """Nothing: it looks at finished epochs."""

    def on_epoch_end(self, clean: CleanView, /) -> None:
        """Measure, if it is this epoch's turn."""
        self._epoch += 1
        if self._epoch % self.settings.every:
            return
        found: dict[int, Tensor] = {}  # by first row; moved to the host once, at the end

        def visit(batch: GradientBatch) -> None:
            flat = batch.gradient.flatten(1)
            squared = self.settings.norm == "squared_l2"
            found[batch.rows.start] = (flat.square() if squared else flat.abs()).sum(dim=1)

        def done() -> None:
            self._totals += torch.cat(list(found.values())).cpu().numpy().astype(np.float64)
            self._measured += 1

        clean.visit_gradients(visit, done)

    def compute(self) -> dict[str, NDArray[np.float64]]:
        """(n,) mean over measured epochs, under the settings' own name; NaN if there were none."""
        divisor = self._measured or np.nan
        return {self.settings.statistic: self._totals / divisor}

    def state_dict(self) -> dict[str, Any]:
        """Complete at an epoch's end."""
        return {
            "totals": torch.from_numpy(self._totals.copy()),
            "epoch": self._epoch,
            "measured": self._measured,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same settings and examples."""
        self._totals = state["totals"].cpu().numpy().copy()
        self._epoch = int(state["epoch"])
        self._measured = int(state["measured"])
