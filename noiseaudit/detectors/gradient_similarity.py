"""How many examples pull the weights the same way: density of per-example loss gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from noiseaudit.errors import check_name
from noiseaudit.evidence import Evidence
from noiseaudit.kernel_density import kernel_densities
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking
from noiseaudit.watching import Snapshot, check_epoch

__all__ = ["GradientSimilarity"]

_LAYERS = ("last", "all")


@dataclass(frozen=True)
class GradientSimilarity:
    """How few examples have a loss gradient by the weights like its own.

    Suspicion `-C` with the Gaussian kernel on gradients, in [-1, 0]; **higher = more suspicious**.
    No reweighting by class: the gradient knows the label. The paper proposes it and calls it
    prohibitive; here gradients are never formed. Of the last layer, whose gradient is (p - y) times
    (features, 1), the kernel takes two small Gram matrices and is exact; of all layers gradients
    are projected to random directions (`noiseaudit.projected_gradients`).

    Attributes:
        layers: "last" or "all" (dense and convolutional ones).
        epoch: after which gradients are taken, from 1; None for the last.

    Cost: a forward pass after that epoch ("all": and a backward pass); n^2 (d + k + 1)
    multiplications, n^2 / 2 exponentials; "all": d = 256 for every layer.
    Source: Jiang, Zhang, Talwar & Mozer, ICML 2021, appendix C.2, left there as future work.
    """

    layers: Literal["last", "all"] = "last"
    epoch: int | None = None

    name: ClassVar[str] = "gradient_similarity"
    summary: ClassVar[str] = "few examples have a loss gradient by the weights like its own"
    needs: ClassVar[tuple[str, ...]] = ("snapshots",)
    cost: ClassVar[str] = "a forward pass, and all pairs of examples"
    source: ClassVar[str] = "Jiang, Zhang, Talwar & Mozer, ICML 2021, appendix C.2"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_name(self.layers, _LAYERS, "choice of layers")
        check_epoch(self.epoch)

    @property
    def snapshots(self) -> tuple[Snapshot, ...]:
        """Features and logits, or projected gradients."""
        if self.layers == "all":
            return (Snapshot("gradients", self.epoch),)
        return (Snapshot("features", self.epoch), Snapshot("logits", self.epoch))

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [-1, 0]."""
        found = kernel_densities(self._factors(evidence), evidence.labels, device=evidence.device)
        return Ranking(self.name, evidence.ids, -found.all)

    def _factors(self, evidence: Evidence) -> list[NDArray[np.float32]]:
        if self.layers == "all":
            return [evidence.snapshot("gradients", self.epoch)]
        features = evidence.snapshot("features", self.epoch)
        logits = evidence.snapshot("logits", self.epoch).astype(np.float64)
        ones = np.ones((len(features), 1), np.float32)
        return [_residuals(logits, evidence.labels), np.hstack([features, ones])]


def _residuals(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, k) p - y, the label's as minus the sum of the others: 1 - p would lose its digits."""
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = exponents / exponents.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    probs[rows, labels] = 0
    probs[rows, labels] = -probs.sum(axis=1)
    residuals: NDArray[np.float32] = probs.astype(np.float32)
    return residuals
