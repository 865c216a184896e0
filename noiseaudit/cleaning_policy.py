"""Which labels a cleaning plan acts on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from noiseaudit.errors import UsageError, check_name
from noiseaudit.precision import check_precision

__all__ = ["POLICIES", "CleaningPolicy"]

POLICIES = ("review", "issues", "confirmed", "precision", "share", "count", "threshold")
_WITH_AMOUNT = ("precision", "share", "count", "threshold")


@dataclass(frozen=True)
class CleaningPolicy:
    """Which labels are acted on. Confirmed copies with conflicting labels always are.

    Attributes:
        kind: "review", every label that looks wrong is left for a person to decide; "issues", every
            such label goes; "confirmed", copies alone; "precision", each label that is wrong
            with at least this probability, by the audit's verdict; "share", "count" or
            "threshold": the most suspicious go, by their share of all, by number, or from a
            suspicion.
        amount: of the last four.
        relabel_above: probability of the suggested label from which it is given to the example
            instead of removing it; None never does. With a verdict it is calibrated on planted
            flips; without one the model's own, in-sample and averaged over training or left out.
        min_per_class: examples that a class keeps at least (all of one that has fewer): of those
            that would go, the least suspicious stay.
        include_test: act on a split called test too. By default it is left as it is, for review:
            cleaning it changes what a reported accuracy means.

    Raises:
        UsageError: for a value that it cannot have.
    """

    kind: str = "review"
    amount: float | None = None
    relabel_above: float | None = None
    min_per_class: int = 10
    include_test: bool = False

    def __post_init__(self) -> None:
        check_name(self.kind, POLICIES, "policy")
        if (self.amount is None) == (self.kind in _WITH_AMOUNT):
            form = f"{self.kind}:NUMBER" if self.kind in _WITH_AMOUNT else self.kind
            raise UsageError(f"policy {self.kind} is written {form!r}; got {self.text!r}")
        if self.kind == "precision":
            check_precision(self.amount or 0)
        if self.kind == "share" and not 0 <= (self.amount or 0) <= 1:
            raise UsageError(f"share must be in [0, 1]; got {self.amount:g}")
        if self.kind == "count" and ((self.amount or 0) < 0 or (self.amount or 0) % 1):
            raise UsageError(f"count must be a whole number from 0; got {self.amount:g}")
        if self.relabel_above is not None and not 0 <= self.relabel_above <= 1:
            raise UsageError(f"relabel_above must be in [0, 1]; got {self.relabel_above:g}")
        if self.min_per_class < 0:
            raise UsageError(f"min_per_class must not be negative; got {self.min_per_class}")

    @classmethod
    def parse(cls, text: str, **options: Any) -> CleaningPolicy:
        """From `review`, `issues`, `confirmed`, or a kind and its amount: `precision:0.9`."""
        kind, colon, number = text.partition(":")
        try:
            amount = float(number) if colon else None
        except ValueError as error:
            raise UsageError(f"policy {text!r}: {number!r} is no number") from error
        if amount is not None and not np.isfinite(amount):
            raise UsageError(f"policy {text!r}: {number!r} is not finite")
        return cls(kind, amount, **options)

    @property
    def text(self) -> str:
        """As `parse` takes it."""
        return self.kind if self.amount is None else f"{self.kind}:{self.amount:g}"
