"""From averaged predictions to plain findings: which labels look wrong, as what, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from noiseaudit._rows import two_best

__all__ = ["Findings", "find_issues"]


@dataclass(frozen=True, eq=False)
class Findings:
    """The verdict on each of n examples.

    Attributes:
        suggested: (n,) int64, the class with the largest probability.
        is_label_issue: (n,) bool, whether that is not the given label, that is whether the
            margin of the given label is negative.
        given_prob: (n,) float64 in [0, 1], of the given label, averaged over epochs or left out.
        suggested_prob: (n,) float64 in [0, 1], that of the suggested label.
        epochs_right: (n,) int64, in how many epochs the given label was predicted.
        epochs: number of epochs; 0 where the probabilities are of one model for each example.
        confirmed: by row, what is certain of it: that it is a copy with a conflicting label.
        explained: by row, why it was flagged.
        kind: (n,) text, of `flag_reasons.KINDS`: what kind of trouble the flag is; "" for none.
    """

    suggested: NDArray[np.int64]
    is_label_issue: NDArray[np.bool_]
    given_prob: NDArray[np.float64]
    suggested_prob: NDArray[np.float64]
    epochs_right: NDArray[np.int64]
    epochs: int
    confirmed: Mapping[int, str] = field(default_factory=dict)
    explained: Mapping[int, str] = field(default_factory=dict)
    kind: NDArray[np.str_] | None = None

    def reason(self, row: int, class_names: Sequence[str], label: int) -> str:
        """A plain sentence on one example: what is certain, else how it was predicted."""
        if row in self.confirmed:
            return self.confirmed[row]
        if row in self.explained:
            return self.explained[row]
        mine, other = self.given_prob[row], self.suggested_prob[row]
        suggested, given = class_names[self.suggested[row]], class_names[label]
        epochs_right, epochs = self.epochs_right[row], self.epochs
        if epochs == 0 and not self.is_label_issue[row]:
            return f"agrees with {given} ({mine:.0%})"
        if self.is_label_issue[row]:
            text = f"looks like {suggested} ({other:.0%}) rather than {given} ({mine:.0%})"
            if epochs == 0:
                return f"{text}, judging by all other examples"
            if epochs_right == 0:
                return f"{text}; never predicted as {given} in {epochs} epochs"
            return f"{text}; predicted as {given} in {epochs_right} of {epochs} epochs"
        if epochs_right <= epochs // 2:
            return f"learned late: predicted as {given} in {epochs_right} of {epochs} epochs"
        return f"agrees with {given} ({mine:.0%})"

    def with_probabilities(
        self,
        p_error: NDArray[np.float64],
        suggested: NDArray[np.int64],
        sureness: NDArray[np.float32],
    ) -> Findings:
        """The same findings, and every label that is more likely wrong than right looks wrong.

        Args:
            p_error: (n,) in [0, 1], that the given label is wrong.
            suggested: (n,) int64, the likeliest class that is not the given label.
            sureness: (n,) in [0, 1], its probability if the given label is wrong.
        """
        more = (p_error >= 0.5) & ~self.is_label_issue
        return replace(
            self,
            suggested=np.where(more, suggested, self.suggested),
            suggested_prob=np.where(more, sureness * (1 - self.given_prob), self.suggested_prob),
            is_label_issue=self.is_label_issue | more,
        )

    def with_conflicts(
        self,
        rows: NDArray[np.int64],
        believed: NDArray[np.int64],
        labels: NDArray[np.int64],
        reasons: Sequence[str],
    ) -> Findings:
        """The same findings, but for copies of one picture under conflicting labels.

        Args:
            rows: (c,) of the copies.
            believed: (c,) the label that the picture is believed to have, or below 0 for none.
            labels: (n,) given labels.
            reasons: c sentences.
        """
        suggested, is_label_issue = self.suggested.copy(), self.is_label_issue.copy()
        known = rows[believed >= 0]
        suggested[known] = believed[believed >= 0]
        is_label_issue[known] = suggested[known] != labels[known]
        return replace(
            self,
            suggested=suggested,
            is_label_issue=is_label_issue,
            confirmed={**self.confirmed, **dict(zip(rows.tolist(), reasons, strict=True))},
        )


def find_issues(
    labels: NDArray[np.int64],
    pred_probs: NDArray[np.float32],
    correct_history: NDArray[np.int8] | None,
) -> Findings:
    """Compare given labels with (n, k) probabilities, in blocks of rows.

    Of probabilities averaged over epochs the training examples' own (in-sample) ones will do: wrong
    labels are learned late, so that the average still prefers the true class. Source: the
    parameter-free rule "prediction differs from given label", on averages over training.

    Args:
        labels: (n,) given labels.
        pred_probs: averaged over epochs, or out-of-sample.
        correct_history: (e, n) of the epochs that they are averaged over; None if they are not.
    """
    given_prob, other, other_prob = two_best(pred_probs, labels)
    # On a tie the given label stays: a margin of zero is not negative.
    is_other = other_prob > given_prob
    suggested = np.where(is_other, other, labels)
    suggested_prob = np.where(is_other, other_prob, given_prob)
    if correct_history is None:  # left out, no example speaks for a class of one
        alone = np.bincount(labels)[labels] == 1
        suggested[alone], suggested_prob[alone] = labels[alone], given_prob[alone]
    return Findings(
        suggested=suggested,
        is_label_issue=suggested != labels,
        given_prob=given_prob,
        suggested_prob=suggested_prob,
        epochs_right=(
            np.zeros(len(labels), np.int64)
            if correct_history is None
            else (correct_history == 1).sum(axis=0, dtype=np.int64)
        ),
        epochs=0 if correct_history is None else len(correct_history),
    )
