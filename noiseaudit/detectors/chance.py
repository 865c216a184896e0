"""The floor that every detector must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking
from noiseaudit.seeding import generator

__all__ = ["Random"]


@dataclass(frozen=True)
class Random:
    """A random order, the same for the same seed and ids.

    Suspicion uniform in [0, 1), drawn in order of the ids from the evidence's seed; **higher =
    more suspicious** by name only: AUROC 0.5 in expectation.

    Cost: none. Source: the reference point of every detection table.
    """

    name: ClassVar[str] = "random"
    summary: ClassVar[str] = "a random order: what every other detector must beat"
    needs: ClassVar[tuple[str, ...]] = ()
    cost: ClassVar[str] = "none"
    source: ClassVar[str] = "reference point"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1)."""
        scores = np.empty(len(evidence.ids), dtype=np.float64)
        scores[np.argsort(evidence.ids)] = generator(evidence.seed, "random-detector").random(
            len(scores)
        )
        return Ranking(self.name, evidence.ids, scores)
