"""Cumulative training statistics: what an example looked like to the model, averaged over epochs.

Mislabelled examples are learned late, so averages over training separate them from the rest,
where the final epoch, at which they may have been memorised, does not. All come from the training
forward pass (train mode, augmented), at no extra pass over the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from noiseaudit.evidence import Evidence
from noiseaudit.outputs import Statistic
from noiseaudit.ranking import Ranking

__all__ = [
    "CumulativeAccuracy",
    "CumulativeConfidence",
    "CumulativeEntropy",
    "CumulativeLoss",
    "CumulativeMaxConfidence",
]

_FREE = "none: from the training forward pass"
_JIANG = "Jiang, Zhang, Talwar & Mozer, ICML 2021, section 4.2 (Figure 7b)"

CORRECT = Statistic("correct", lambda outputs: outputs.correct)
CONFIDENCE = Statistic("confidence", lambda outputs: outputs.confidence)
MAX_CONFIDENCE = Statistic("max_confidence", lambda outputs: outputs.max_confidence)
ENTROPY = Statistic("entropy", lambda outputs: outputs.entropy)
LOSS = Statistic("loss", lambda outputs: outputs.losses)


@dataclass(frozen=True)
class CumulativeAccuracy:
    """Share of epochs in which the given label was not predicted (cumulative binary loss).

    Suspicion `1 - mean_t 1[argmax_c p_t(c) = y]`, in [0, 1]; **higher = more suspicious**: never
    predicted. Coarse: at most e + 1 different values over e epochs.

    Cost: none beyond training. Source: Jiang et al., ICML 2021, section 4.2, and the 2020
    preprint's "cumulative binary training loss" (Spearman 0.864 with the C-score on CIFAR-10).
    """

    name: ClassVar[str] = "cumulative_accuracy"
    summary: ClassVar[str] = "share of epochs in which the given label was not predicted"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = _FREE
    source: ClassVar[str] = _JIANG
    statistics: ClassVar[tuple[Statistic, ...]] = (CORRECT,)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1]."""
        return Ranking(self.name, evidence.ids, 1 - evidence.statistic("correct"))


@dataclass(frozen=True)
class CumulativeConfidence:
    """Probability of the given label, averaged over epochs (the paper's p_L), turned round.

    Suspicion `1 - mean_t p_t(y)`, in [0, 1]; **higher = more suspicious**: the given label never
    looked likely.

    Cost: none beyond training. Source: Jiang et al., ICML 2021, section 4.2 (p_L, the best of
    its proxies for the C-score); Swayamdipta et al., EMNLP 2020, section 2 ("confidence").
    """

    name: ClassVar[str] = "cumulative_confidence"
    summary: ClassVar[str] = "1 - probability of the given label, mean over epochs (p_L)"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = _FREE
    source: ClassVar[str] = _JIANG
    statistics: ClassVar[tuple[Statistic, ...]] = (CONFIDENCE,)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1]."""
        return Ranking(self.name, evidence.ids, 1 - evidence.statistic("confidence"))


@dataclass(frozen=True)
class CumulativeMaxConfidence:
    """Largest predicted probability, averaged over epochs (the paper's p_max), turned round.

    Suspicion `1 - mean_t max_c p_t(c)`, in [0, 1 - 1/k]; **higher = more suspicious**: the model
    stayed unsure. It does not look at the label: an example confidently predicted as another
    class has a low score.

    Cost: none beyond training. Source: Jiang et al., ICML 2021, section 4.2 (p_max).
    """

    name: ClassVar[str] = "cumulative_max_confidence"
    summary: ClassVar[str] = "1 - largest probability, mean over epochs (p_max; ignores the label)"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = _FREE
    source: ClassVar[str] = _JIANG
    statistics: ClassVar[tuple[Statistic, ...]] = (MAX_CONFIDENCE,)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, 1 - 1/k]."""
        return Ranking(self.name, evidence.ids, 1 - evidence.statistic("max_confidence"))


@dataclass(frozen=True)
class CumulativeEntropy:
    """Entropy of the predicted distribution, averaged over epochs.

    Suspicion `mean_t -sum_c p_t(c) log p_t(c)`, in [0, log k] nats; **higher = more
    suspicious**: the model stayed unsure. It does not look at the label.

    Cost: none beyond training. Source: Jiang et al., ICML 2021, section 4.2 (their proxy is the
    negative entropy, high for regular examples).
    """

    name: ClassVar[str] = "cumulative_entropy"
    summary: ClassVar[str] = "entropy of the prediction, mean over epochs (ignores the label)"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = _FREE
    source: ClassVar[str] = _JIANG
    statistics: ClassVar[tuple[Statistic, ...]] = (ENTROPY,)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, log k], nats."""
        return Ranking(self.name, evidence.ids, evidence.statistic("entropy"))


@dataclass(frozen=True)
class CumulativeLoss:
    """Cross-entropy of the given label, averaged over epochs.

    Suspicion `mean_t -log p_t(y)`, in [0, inf) nats; **higher = more suspicious**: expensive to
    fit for longer. The same order as the sum over epochs where every example is seen in each.

    Cost: none beyond training. Source: "cumulative sample loss" (CSL), ICML 2025.
    """

    name: ClassVar[str] = "cumulative_loss"
    summary: ClassVar[str] = "cross-entropy of the given label, mean over epochs"
    needs: ClassVar[tuple[str, ...]] = ("training",)
    cost: ClassVar[str] = _FREE
    source: ClassVar[str] = "cumulative sample loss (CSL), ICML 2025"
    statistics: ClassVar[tuple[Statistic, ...]] = (LOSS,)

    def rank(self, evidence: Evidence) -> Ranking:
        """Suspicion in [0, inf), nats."""
        return Ranking(self.name, evidence.ids, evidence.statistic("loss"))
