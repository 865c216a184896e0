"""Curvature of the loss around each input, averaged over training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from noiseaudit.errors import UsageError, check_name
from noiseaudit.evidence import Evidence
from noiseaudit.loss_curvature import gradient_change, random_signs
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking
from noiseaudit.seeding import derive_seed
from noiseaudit.watching import CleanView, GradientBatch

__all__ = ["UNITS", "Curvature", "CurvatureObserver"]

UNITS = ("auto", "pixel", "normalised")
"""What h is measured in: raw inputs (pixels in [0, 1], as in the paper), or the model's inputs;
"auto" is the first for pictures, the second for vectors, whose features have units of their own."""

_LEAST_BFLOAT16 = 0.01


@dataclass(frozen=True)
class Curvature:
    """How much the input gradient of the given label's loss changes over a small random step.

    Suspicion `mean_t 1/n sum_i ||g_t(x + h v_i) - g_t(x)||`, g the gradient by the input, v of
    random signs; in [0, inf); **higher = more suspicious**: memorised, mislabelled, or in conflict
    with a near copy. Eval mode, no augmentation, each example's own loss: a score does not depend
    on its batch. This is the finite difference of the paper, **not** tr(H^2) of a ReLU network:
    see `noiseaudit.loss_curvature`.

    Cost: 1 + n forward passes and backward passes by the inputs, each epoch it is measured in.
    Source: Garg, Ravikumar & Roy, ICML 2024, "Memorization through the lens of curvature", Eq. 4-6.

    Attributes:
        h: step per element, > 0. The paper has 0.001 and tunes it in [0.0001, 0.01]. The default is
            the upper end of that range: with one probe an epoch, smaller steps found fewer wrong
            labels on MNIST and Fashion-MNIST, and about as many on CIFAR-10
            (`benchmarks/curvature.py`); `choose_curvature` looks for a better one.
        probes: n, fresh ones each epoch. The paper has 10; averaging over epochs stands in for most
            of them: at h = 0.01 four instead of one gained 0.006 of AUROC at most.
        every: k, to measure in every k-th epoch alone.
        units: of h and of the gradients, one of `UNITS`.
        squared: the squared length, as the paper prints; its released code does not square.
        bfloat16: gradients under autocast, for h of at least 0.01; the change over smaller steps
            drowns in its rounding. On a CPU with AMX tiles, with h in pixels, twice as fast with
            `cnn` and 1.6 times with `mlp`, AUROC the same within 0.001 (`benchmarks/curvature.py`);
            elsewhere not measured. On vectors, with h of normalised inputs, prefer 0.03 or more.
    """

    h: float = 0.01
    probes: int = 1
    every: int = 1
    units: Literal["auto", "pixel", "normalised"] = "auto"
    squared: bool = False
    bfloat16: bool = False

    name: ClassVar[str] = "curvature"
    summary: ClassVar[str] = "change of the input gradient over a small step, mean over epochs"
    needs: ClassVar[tuple[str, ...]] = ("watching",)
    cost: ClassVar[str] = "the training run, and 1.2 times as long again"
    source: ClassVar[str] = "Garg, Ravikumar & Roy, ICML 2024, equations 4-6"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_name(self.units, UNITS, "unit of h")
        if not 0 < self.h < float("inf"):
            raise UsageError(f"h must be positive; got {self.h}")
        for name in ("probes", "every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; got {getattr(self, name)}")
        if self.bfloat16 and self.h < _LEAST_BFLOAT16:
            raise UsageError(f"bfloat16 needs h of at least {_LEAST_BFLOAT16}; got {self.h}")

    @property
    def statistic(self) -> str:
        """The name of what is recorded for it, different for different settings."""
        step = f"h={float(self.h)!r} {self.units} n={self.probes} every={self.every}"
        kind = "squared" if self.squared else "plain"
        return f"curvature {step} {kind}{' bfloat16' if self.bfloat16 else ''}"

    def scale_of(self, batch: GradientBatch) -> Tensor | float:
        """What one unit of h is in the model's inputs."""
        is_picture = batch.inputs.ndim == 4
        in_pixels = self.units == "pixel" or (self.units == "auto" and is_picture)
        return batch.pixel if in_pixels else 1.0

    def observer(self, ids: NDArray[np.int64], seed: int) -> CurvatureObserver:
        """What watches the training run for it."""
        return CurvatureObserver(self, ids, seed)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, inf)."""
        return Ranking(self.name, evidence.ids, evidence.statistic(self.statistic))


class CurvatureObserver:
    """Sums `Curvature` over the epochs it measures.

    Args:
        settings: what to measure, and in which epochs.
        ids: (n,) int64 sample ids; the random steps of an example depend on its id.
        seed: of the random steps.

    Attributes:
        epoch_means: mean curvature of all examples in each measured epoch.
    """

    def __init__(self, settings: Curvature, ids: NDArray[np.int64], seed: int) -> None:
        self.settings = settings
        self.epoch_means: list[float] = []
        self._ids = torch.from_numpy(ids)
        self._seed = seed
        self._totals = np.zeros(len(ids), dtype=np.float64)
        self._epoch = 0

    def on_batch(self, rows: Tensor, logits: Tensor, labels: Tensor, losses: Tensor, /) -> None:
        """Nothing: it looks at finished epochs."""

    def on_epoch_end(self, clean: CleanView, /) -> None:
        """Measure, if it is this epoch's turn."""
        self._epoch += 1
        if self._epoch % self.settings.every:
            return
        measured: dict[int, Tensor] = {}  # by first row; moved to the host once, at the end

        def visit(batch: GradientBatch) -> None:
            measured[batch.rows.start] = self._measure(batch)

        def done() -> None:
            values = torch.cat(list(measured.values())).cpu().numpy().astype(np.float64)
            self._totals += values
            self.epoch_means.append(float(values.mean()))

        clean.visit_gradients(visit, done, bfloat16=self.settings.bfloat16)

    def _measure(self, batch: GradientBatch) -> Tensor:
        settings = self.settings
        ids = self._ids[batch.rows].to(batch.inputs.device)
        scale = settings.scale_of(batch)
        total = torch.zeros(len(ids), device=batch.inputs.device)
        for probe in range(settings.probes):
            seed = derive_seed(self._seed, "curvature", self._epoch, probe)
            signs = random_signs(ids, tuple(batch.inputs.shape[1:]), seed)
            change = gradient_change(
                batch.model, batch.inputs, batch.labels, batch.gradient, signs, settings.h, scale
            )
            total += change if settings.squared else change.sqrt()
        return total / settings.probes

    def compute(self) -> dict[str, NDArray[np.float64]]:
        """(n,) mean over measured epochs, under the settings' own name; NaN if there were none."""
        count = len(self.epoch_means)
        mean = self._totals / count if count else np.full(len(self._totals), np.nan)
        return {self.settings.statistic: mean}

    def state_dict(self) -> dict[str, Any]:
        """Complete at an epoch's end."""
        return {
            "totals": torch.from_numpy(self._totals.copy()),
            "epoch": self._epoch,
            "epoch_means": list(self.epoch_means),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of the same settings and examples."""
        self._totals = state["totals"].cpu().numpy().copy()
        self._epoch = int(state["epoch"])
        self.epoch_means = list(state["epoch_means"])
