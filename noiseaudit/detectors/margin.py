"""Area under the margin: how far the given label's logit stood above the others in training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking

__all__ = ["AreaUnderMargin"]

LOGIT_MARGIN = Statistic("logit_margin", lambda outputs: outputs.logit_margin)


@dataclass(frozen=True)
class AreaUnderMargin:
    """Logit margin of the given label, averaged over epochs (AUM), with its sign turned.

    Suspicion `-mean_t (z_t(y) - max_{c != y} z_t(c))` over **logits**, as in the paper (some
    re-implementations use probabilities); any real number; **higher = more suspicious**:
    another class was preferred, for longer and by more. The paper's threshold samples (a fake
    extra class that sets the cut) are not part of it.

    Cost: none beyond training. Source: Pleiss, Zhang, Elenberg & Weinberger, NeurIPS 2020,
    section 3, equation 2.
    """

    name: ClassVar[str] = "area_under_margin"
    summary: ClassVar[str] = "minus the logit margin of the given label, mean over epochs (AUM)"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = "none: from the training forward pass"
    source: ClassVar[str] = "Pleiss, Zhang, Elenberg & Weinberger, NeurIPS 2020, section 3"
    statistics: ClassVar[tuple[Statistic, ...]] = (LOGIT_MARGIN,)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion, any real number, in logits."""
        return Ranking(self.name, evidence.ids, -evidence.statistic("logit_margin"))
