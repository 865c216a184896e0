"""When an example was learned, and how often it was forgotten again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from noiseaudit.errors import UsageError
from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking

__all__ = ["FirstLearnedEpoch", "ForgettingEvents"]

_FREE = "none: from the training forward pass"


@dataclass(frozen=True)
class ForgettingEvents:
    """Number of times an example went from predicted right to predicted wrong.

    Suspicion `sum_t 1[right at the previous observation and wrong at t]`; an example never
    predicted right scores e, the number of epochs, above all learned ones (which can reach e/2);
    **higher = more suspicious**. Coarse: many ties.

    Cost: none beyond training. Source: Toneva et al., ICLR 2019, section 3 (there per
    presentation, with never-learned examples at infinity).
    """

    name: ClassVar[str] = "forgetting_events"
    summary: ClassVar[str] = "times predicted right and then wrong; never right scores highest"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = _FREE
    source: ClassVar[str] = "Toneva et al., ICLR 2019, section 3"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in 0..e, whole numbers."""
        history = evidence.history()
        before = np.zeros(history.shape[1], dtype=np.int8)
        events = np.zeros(history.shape[1], dtype=np.float64)
        for row in history:
            events += (before == 1) & (row == 0)
            before = np.where(row < 0, before, row)
        never = ~(history == 1).any(axis=0)
        events[never] = len(history)
        return Ranking(self.name, evidence.ids, events)


@dataclass(frozen=True)
class FirstLearnedEpoch:
    """First epoch from which the example was predicted right `consecutive` times in a row.

    Suspicion: that epoch, counted from 1; e + 1 if it never happened; **higher = more
    suspicious**: learned later. Epochs in which the example was not seen are passed over.

    Attributes:
        consecutive: how many right predictions in a row count as learned (default 1: the first).

    Cost: none beyond training. Source: "learning time", Yuan et al., ICCV 2023 ("Late
    stopping"), first k-epoch learning, where k is `consecutive`.
    """

    consecutive: int = 1

    name: ClassVar[str] = "first_learned_epoch"
    summary: ClassVar[str] = "first epoch in which the given label was predicted"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = _FREE
    source: ClassVar[str] = "Yuan et al., ICCV 2023 (Late stopping), first k-epoch learning"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        if self.consecutive < 1:
            raise UsageError(f"consecutive must be at least 1; got {self.consecutive}")

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in 1..e + 1, whole numbers."""
        history = evidence.history()
        epochs, n = history.shape
        streak = np.zeros(n, dtype=np.int64)
        began = np.zeros(n, dtype=np.int64)
        learned = np.full(n, epochs + 1, dtype=np.float64)
        for epoch, row in enumerate(history, start=1):
            began = np.where((row == 1) & (streak == 0), epoch, began)
            streak = np.where(row == 1, streak + 1, np.where(row == 0, 0, streak))
            now = (streak == self.consecutive) & (learned > epochs)
            learned[now] = began[now]
        return Ranking(self.name, evidence.ids, learned)
