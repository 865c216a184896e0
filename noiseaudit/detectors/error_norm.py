"""EL2N: the length of the error vector between prediction and given label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Outputs, Statistic
from noiseaudit.ranking import Ranking

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["El2n"]


def _error_norm(outputs: Outputs) -> Tensor:
    # The vector itself: any difference of sums of squares loses the small p_c of a fitted label.
    given = outputs.labels[:, None]
    error = outputs.probs.scatter_add(1, given, -outputs.probs.new_ones(given.shape))
    norm: Tensor = error.norm(dim=1)
    return norm


@dataclass(frozen=True)
class El2n:
    """L2 norm of prediction minus one-hot given label, averaged over epochs.

    Suspicion `mean_t ||p_t - onehot(y)||_2`, in [0, sqrt 2]; **higher = more suspicious**:
    confidently predicted as another class. The paper averages over ten initialisations at one
    early epoch; here the average is over the epochs of one run.

    Cost: none beyond training. Source: Paul, Ganguli & Dziugaite, NeurIPS 2021, section 2,
    definition 2.2.
    """

    name: ClassVar[str] = "el2n"
    summary: ClassVar[str] = "L2 norm of prediction minus one-hot label, mean over epochs"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = "none: from the training forward pass"
    source: ClassVar[str] = "Paul, Ganguli & Dziugaite, NeurIPS 2021, section 2"
    statistics: ClassVar[tuple[Statistic, ...]] = (Statistic("error_norm", _error_norm),)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, sqrt 2]."""
        return Ranking(self.name, evidence.ids, evidence.statistic("error_norm"))
