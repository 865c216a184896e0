"""Logits, and the per-example quantities that statistics are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from noiseaudit.errors import DataError

__all__ = ["Outputs", "Statistic"]


class Outputs:
    """Logits of some examples and what statistics are made of, each computed once when asked.

    Attributes:
        logits: (b, k) float32.
        labels: (b,) int64 given labels.
    """

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        self.logits = logits
        self.labels = labels

    def _of_label(self, table: Tensor) -> Tensor:
        return table.gather(1, self.labels[:, None]).squeeze(1)

    @cached_property
    def log_probs(self) -> Tensor:
        """(b, k) log softmax, nats."""
        return F.log_softmax(self.logits, dim=1)

    @cached_property
    def probs(self) -> Tensor:
        """(b, k) softmax, in [0, 1]."""
        return self.log_probs.exp()

    @cached_property
    def losses(self) -> Tensor:
        """(b,) cross-entropy of the given label, nats."""
        return -self._of_label(self.log_probs)

    @cached_property
    def confidence(self) -> Tensor:
        """(b,) probability of the given label."""
        return self._of_label(self.probs)

    @cached_property
    def entropy(self) -> Tensor:
        """(b,) entropy of the predicted distribution, nats; an underflown p adds its limit, 0."""
        entropy: Tensor = torch.special.entr(self.probs).sum(dim=1)
        return entropy

    @cached_property
    def _top2(self) -> tuple[Tensor, Tensor]:
        if self.logits.shape[1] < 2:
            raise DataError("at least two classes are needed")
        top = self.logits.topk(2, dim=1)
        return top.values, top.indices

    @cached_property
    def correct(self) -> Tensor:
        """(b,) bool: the largest logit is the given label's (ties: the lower class wins)."""
        return self.logits.argmax(dim=1) == self.labels

    @cached_property
    def logit_margin(self) -> Tensor:
        """(b,) logit of the given label minus the largest other logit."""
        values, indices = self._top2
        largest_is_given = indices[:, 0] == self.labels
        other = torch.where(largest_is_given, values[:, 1], values[:, 0])
        margin: Tensor = self._of_label(self.logits) - other
        return margin

    @cached_property
    def max_confidence(self) -> Tensor:
        """(b,) largest probability, whatever the label."""
        return self.probs.amax(dim=1)


@dataclass(frozen=True)
class Statistic:
    """A quantity recorded for every example at every epoch.

    Attributes:
        name: the name it is stored under.
        per_example: from `Outputs` to (b,) numbers.
        over: what is kept of an example's observations: their "mean", or the "last".
    """

    name: str
    per_example: Callable[[Outputs], Tensor]
    over: Literal["mean", "last"] = "mean"
