"""Held-out consistency: C-scores and memorization, from many subset-trained models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from noiseaudit.errors import check_name
from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking

__all__ = ["CScore", "Memorization"]

_COST = "the trainings of the C-scores; the score itself takes milliseconds"
_ARRAYS = {
    "soft": "soft_scores",
    "hard": "scores",
    "margin": "margins",
    "normalized_margin": "normalized_margins",
}


@dataclass(frozen=True)
class CScore:
    """How seldom models that never saw the example predict its given label.

    Suspicion `1 - C(x, y)` in [0, 1], or minus the mean margin; **higher = more
    suspicious**: an exception to what the other examples teach.

    Cost: the trainings of `estimate_cscores`. Source: Jiang, Zhang, Talwar & Mozer, ICML 2021,
    Eq. 2 and Algorithm 1.

    Attributes:
        kind: "soft", mean held-out probability of the given label; "hard", share of held-out
            predictions that are it (the published quantity, with many ties); "margin", mean
            held-out logit of it minus the largest other; "normalized_margin", mean held-out
            probability of it minus the largest other, which is better where classes are mixed up
            in pairs (`benchmarks/cscores.py --parts detection`).
    """

    kind: Literal["soft", "hard", "margin", "normalized_margin"] = "soft"

    name: ClassVar[str] = "cscore"
    summary: ClassVar[str] = "1 - mean held-out probability of the given label, many models"
    needs: ClassVar[tuple[str, ...]] = ("cscores",)
    cost: ClassVar[str] = _COST
    source: ClassVar[str] = "Jiang, Zhang, Talwar & Mozer, ICML 2021, Algorithm 1"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_name(self.kind, _ARRAYS, "kind of C-score")

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1], of normalized margins in [-1, 1], of margins unbounded."""
        scores = evidence.cscore(_ARRAYS[self.kind])
        offset = 0 if "margin" in self.kind else 1
        return Ranking(self.name, evidence.ids, offset - scores)


@dataclass(frozen=True)
class Memorization:
    """How much likelier the given label is predicted by models that trained on the example.

    Suspicion `P_in(y) - P_out(y)` in [-1, 1]; **higher = more suspicious**: right only when it was
    seen. Low where models of the subsets' size do not fit their wrong labels.

    Cost: the trainings of `estimate_cscores`. Source: Feldman & Zhang, NeurIPS 2020, Eq. 1.

    Attributes:
        kind: "hard", shares of right predictions (the published quantity); "soft", mean
            probabilities.
    """

    kind: Literal["hard", "soft"] = "hard"

    name: ClassVar[str] = "memorization"
    summary: ClassVar[str] = "accuracy on the example when trained on it minus when not"
    needs: ClassVar[tuple[str, ...]] = ("cscores",)
    cost: ClassVar[str] = _COST
    source: ClassVar[str] = "Feldman & Zhang, NeurIPS 2020, equation 1"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_name(self.kind, ("hard", "soft"), "kind of memorization")

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [-1, 1]."""
        soft = "soft_" if self.kind == "soft" else ""
        inside, outside = (
            evidence.cscore(f"in_sample_{soft}scores"),
            evidence.cscore(f"{soft}scores"),
        )
        return Ranking(self.name, evidence.ids, inside - outside)
