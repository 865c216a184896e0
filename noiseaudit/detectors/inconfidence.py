"""Inconfidence: how unsure the model still is at the last epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking

__all__ = ["Inconfidence"]

LAST_CONFIDENCE = Statistic("last_confidence", lambda outputs: outputs.confidence, over="last")
LAST_MAX_CONFIDENCE = Statistic(
    "last_max_confidence", lambda outputs: outputs.max_confidence, over="last"
)


@dataclass(frozen=True)
class Inconfidence:
    """Probability of the given label at the last epoch, turned round.

    Suspicion `1 - p_T(y)` at the last epoch T, in [0, 1]; **higher = more suspicious**. By then a
    net may have memorised wrong labels: a baseline. Taken from the last epoch's training forward
    pass (train mode, augmented), where the published figures use one more pass in eval mode.

    Attributes:
        label_free: `1 - max_c p_T(c)` instead, which the released code of the cumulative-loss
            paper computes under this name; it does not look at the label and is a weaker
            baseline.

    Cost: none beyond training. Source: Carlini, Erlingsson & Papernot 2019, as used in the
    curvature paper, Table 2.
    """

    label_free: bool = False

    name: ClassVar[str] = "inconfidence"
    summary: ClassVar[str] = "1 - probability of the given label at the last epoch"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = "none: from the training forward pass"
    source: ClassVar[str] = "Carlini, Erlingsson & Papernot 2019; curvature paper, Table 2"
    statistics: ClassVar[tuple[Statistic, ...]] = (LAST_CONFIDENCE, LAST_MAX_CONFIDENCE)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1]."""
        statistic = LAST_MAX_CONFIDENCE if self.label_free else LAST_CONFIDENCE
        return Ranking(self.name, evidence.ids, 1 - evidence.statistic(statistic.name))
