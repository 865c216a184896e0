"""What a ridge on the embeddings of all other examples says of the given label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from noiseaudit.evidence import Evidence
from noiseaudit.label_channel import LabelChannel, fit_label_channel
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking
from noiseaudit.ridge import check_ridge_options, leave_one_out, probs_of_scores

__all__ = ["LabelOdds", "LooConsistency"]

_SHARPNESS = 5.0


@dataclass(frozen=True)
class LooConsistency:
    """How unlikely the given label is to a ridge regression that was fitted to all others.

    Suspicion `-log softmax(5 s)_y` in nats, s the leave-one-out predictions of `noiseaudit.ridge`;
    **higher = more suspicious**. A C-score at full training size, of a model that is fitted n times
    in closed form. On average of five data sets 5 beats -s_y, the margin and the softmax that fits
    the given labels best (`benchmarks/leave_one_out.py`).

    Attributes:
        regularisation: of the ridge; None for that with the least squared error, left out.
        kernel: "rbf", which is better wherever classes are not linearly separable, or "linear".
        rounds: of refitting with suspects weighted down; one gains much under pair noise, further
            ones hardly anything, and 0 is plain leave-one-out.

    Cost: per round n m^2 multiplications a few times, m at most 1,000; one eigenvalue problem of
    size m.
    Source: Allen, Technometrics 1974 (leave-one-out in closed form); Jiang, Zhang, Talwar & Mozer,
    ICML 2021, section 2, for the score. The weights are our own.
    """

    regularisation: float | None = None
    kernel: Literal["linear", "rbf"] = "rbf"
    rounds: int = 1

    name: ClassVar[str] = "loo_consistency"
    summary: ClassVar[str] = "the given label is unlikely to a ridge on all other embeddings"
    needs: ClassVar[tuple[str, ...]] = ("embeddings",)
    cost: ClassVar[str] = "one matrix decomposition or two"
    source: ClassVar[str] = "Allen, Technometrics 1974; Jiang et al., ICML 2021, section 2"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_ridge_options(self.kernel, self.regularisation, self.rounds)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in nats, positive; 0 where there is but one example or one class."""
        n = len(evidence.labels)
        if n < 2 or evidence.num_classes < 2:
            return Ranking(self.name, evidence.ids, np.zeros(n))
        scores = _left_out_scores(evidence, self)
        given = scores[np.arange(n), evidence.labels]
        losses = logsumexp(_SHARPNESS * scores, axis=1) - _SHARPNESS * given
        return Ranking(self.name, evidence.ids, losses)

    def class_probs(self, evidence: Evidence) -> NDArray[np.float32]:
        """(n, k) out-of-sample probabilities of the right label; see `noiseaudit.ridge`."""
        n, k = len(evidence.labels), evidence.num_classes
        if n < 2 or k < 2:
            return np.full((n, k), 1 / max(k, 1), np.float32)
        return probs_of_scores(_left_out_scores(evidence, self), evidence.labels, of="right")


@dataclass(frozen=True)
class LabelOdds:
    """How much likelier the label is wrong than right, by a channel from true to given labels.

    Suspicion in nats: log P(true class is another) - log P(true class is the given), **higher =
    more suspicious**. Leave-one-out predictions say which class is likely, the channel which
    mistakes are common: see `noiseaudit.label_channel`. The options are those of `LooConsistency`.

    Cost: as `loo_consistency`, which it shares the ridge with, and a second or so for the channel.
    Source: Goldberger & Ben-Reuven, ICLR 2017 (the channel, there a layer of the network); on
    leave-one-out scores it is our own.
    """

    regularisation: float | None = None
    kernel: Literal["linear", "rbf"] = "rbf"
    rounds: int = 1

    name: ClassVar[str] = "label_odds"
    summary: ClassVar[str] = "odds that the label is wrong, from which mistakes are common"
    needs: ClassVar[tuple[str, ...]] = ("embeddings",)
    cost: ClassVar[str] = "one matrix decomposition or two"
    source: ClassVar[str] = "Goldberger & Ben-Reuven, ICLR 2017, on leave-one-out scores"
    statistics: ClassVar[tuple[Statistic, ...]] = ()

    def __post_init__(self) -> None:
        check_ridge_options(self.kernel, self.regularisation, self.rounds)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in nats; 0 where there is but one example or one class."""
        n = len(evidence.labels)
        if n < 2 or evidence.num_classes < 2:
            return Ranking(self.name, evidence.ids, np.zeros(n))
        scores = _left_out_scores(evidence, self)
        channel = self._fitted(evidence, scores)
        return Ranking(self.name, evidence.ids, channel.log_odds(scores, evidence.labels)[0])

    def channel(self, evidence: Evidence) -> LabelChannel | None:
        """From true to given labels, that of `rank`; None for but one example or one class."""
        if len(evidence.labels) < 2 or evidence.num_classes < 2:
            return None
        return self._fitted(evidence, _left_out_scores(evidence, self))

    def _fitted(self, evidence: Evidence, scores: NDArray[np.float64]) -> LabelChannel:
        return evidence.shared(
            ("label_channel", self.kernel, self.regularisation, self.rounds),
            lambda: fit_label_channel(scores, evidence.labels),
        )


def _left_out_scores(
    evidence: Evidence, detector: LooConsistency | LabelOdds
) -> NDArray[np.float64]:
    """(n, k) predictions of a ridge on all other examples, computed once for all who ask."""
    embeddings = evidence.vectors()
    kernel, regularisation, rounds = detector.kernel, detector.regularisation, detector.rounds
    return evidence.shared(
        ("leave_one_out", kernel, regularisation, rounds),
        lambda: leave_one_out(
            embeddings, evidence.labels, evidence.num_classes,
            kernel=kernel, regularisation=regularisation, rounds=rounds,
        ),
    ).scores  # fmt: skip
