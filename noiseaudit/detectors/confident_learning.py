"""cleanlab's scores on out-of-sample probabilities: the baselines to be measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking

__all__ = ["ConfidentLearning", "NormalizedMargin", "SelfConfidence"]

_COST = "the trainings of the cross-validation; the score itself takes milliseconds"
_NORTHCUTT = "Northcutt, Jiang & Chuang, JAIR 2021; cleanlab's rank.py"


def _quality(evidence: Evidence, method: str) -> NDArray[np.float64]:
    """Label quality as cleanlab scores it, in [0, 1], low = bad."""
    from cleanlab.rank import get_label_quality_scores

    scores = get_label_quality_scores(evidence.labels, evidence.held_out_probs(), method=method)
    return np.asarray(scores, dtype=np.float64)


@dataclass(frozen=True)
class SelfConfidence:
    """Out-of-sample probability of the given label, turned round.

    Suspicion `1 - p(y)` from models that did not train on the example, in [0, 1]; **higher = more
    suspicious**. cleanlab's `self_confidence` label quality score, all examples ranked.

    Cost: the trainings of the cross-validation. Source: Northcutt, Jiang & Chuang, JAIR 2021.
    """

    name: ClassVar[str] = "self_confidence"
    summary: ClassVar[str] = "1 - out-of-sample probability of the given label (cleanlab)"
    needs: ClassVar[tuple[str, ...]] = ("pred_probs",)
    cost: ClassVar[str] = _COST
    source: ClassVar[str] = _NORTHCUTT
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1]."""
        return Ranking(self.name, evidence.ids, 1 - _quality(evidence, "self_confidence"))


@dataclass(frozen=True)
class NormalizedMargin:
    """Out-of-sample margin of the given label's probability, scaled to [0, 1] and turned round.

    Suspicion `1 - (p(y) - max_{c != y} p(c) + 1) / 2`, in [0, 1]; **higher = more suspicious**.
    cleanlab's `normalized_margin` label quality score, all examples ranked.

    Cost: the trainings of the cross-validation. Source: Northcutt, Jiang & Chuang, JAIR 2021.
    """

    name: ClassVar[str] = "normalized_margin"
    summary: ClassVar[str] = "out-of-sample margin of the given label, turned round (cleanlab)"
    needs: ClassVar[tuple[str, ...]] = ("pred_probs",)
    cost: ClassVar[str] = _COST
    source: ClassVar[str] = _NORTHCUTT
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1]."""
        return Ranking(self.name, evidence.ids, 1 - _quality(evidence, "normalized_margin"))


@dataclass(frozen=True)
class ConfidentLearning:
    """What cleanlab's `find_label_issues` flags first, then everything else; by self-confidence.

    Suspicion `1 - p(y)`, plus 1 if flagged, in [0, 2]; **higher = more suspicious**. The released
    code is used as it is (default filter, prune by noise rate).

    Attributes:
        truncated: give every unflagged example the same score, 0, as published tables of the
            curvature and cumulative-loss papers did. It makes the baseline look far worse than it
            is (AUROC 70.6 instead of 97.7 on CIFAR-10N) and is there for comparison with them only.

    Cost: the trainings of the cross-validation. Source: Northcutt, Jiang & Chuang, JAIR 2021.
    """

    truncated: bool = False

    name: ClassVar[str] = "confident_learning"
    summary: ClassVar[str] = "flagged by cleanlab's find_label_issues first, the rest after"
    needs: ClassVar[tuple[str, ...]] = ("pred_probs",)
    cost: ClassVar[str] = _COST
    source: ClassVar[str] = _NORTHCUTT
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 2]."""
        from cleanlab.filter import find_label_issues

        flagged = find_label_issues(evidence.labels, evidence.held_out_probs(), n_jobs=1)
        doubt = 1 - _quality(evidence, "self_confidence")
        unflagged = np.zeros_like(doubt) if self.truncated else doubt
        return Ranking(self.name, evidence.ids, np.where(flagged, 1 + doubt, unflagged))
