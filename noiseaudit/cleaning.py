"""The cleaning plan: keep, remove, relabel or review each example, and why.

What flows in is a verdict on every example; what flows out is one action for each, which a person
may change. The plan owns no data: it is applied to whatever data set it was made for.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._html import show_table
from noiseaudit._validation import check_same_length
from noiseaudit.cleaning_policy import CleaningPolicy
from noiseaudit.dataset import LabeledDataset
from noiseaudit.errors import DataError, UsageError
from noiseaudit.precision import flag_at_precision

if TYPE_CHECKING:
    import pandas as pd
    import torch

__all__ = ["ACTIONS", "CleaningPlan"]

ACTIONS = ("keep", "remove", "relabel", "review")
_PROTECTED = "test"


@dataclass(frozen=True, eq=False)
class CleaningPlan:
    """An action for each of n examples, with the evidence that another policy would need.

    Attributes:
        class_names: k names.
        ids: (n,) int64 sample ids.
        labels: (n,) int64 given labels.
        suspicion: (n,) float64, higher = more suspicious.
        suggested: (n,) int64 suggested labels.
        suggested_prob: (n,) float64 in [0, 1]: with a verdict that the label is wrong and the
            suggested one right; without, the model's, averaged over training or left out.
        is_label_issue: (n,) bool.
        copy_action: (n,) text: the action for a copy under conflicting labels, "" for others.
        reasons: (n,) text.
        actions: (n,) text, of `ACTIONS`.
        new_labels: (n,) int64, the label to be given, -1 where none is.
        sources: (n,) paths, or None.
        split: (n,) text, or None.
        p_error: (n,) float64 in [0, 1], that the given label is wrong; None without a verdict.

    Raises:
        DataError: if lengths differ, an action does not exist, or new labels are not exactly where
            the action is "relabel".
    """

    class_names: tuple[str, ...]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    suspicion: NDArray[np.float64]
    suggested: NDArray[np.int64]
    suggested_prob: NDArray[np.float64]
    is_label_issue: NDArray[np.bool_]
    copy_action: NDArray[np.str_]
    reasons: NDArray[np.object_]
    actions: NDArray[np.str_]
    new_labels: NDArray[np.int64]
    sources: NDArray[np.str_] | None = None
    split: NDArray[np.str_] | None = None
    p_error: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        check_same_length(
            ids=self.ids, labels=self.labels, suspicion=self.suspicion, actions=self.actions,
            new_labels=self.new_labels, reasons=self.reasons,
        )  # fmt: skip
        if unknown := sorted(set(self.actions.tolist()) - set(ACTIONS)):
            raise DataError(f"actions must be of {', '.join(ACTIONS)}; got {unknown[0]!r}")
        if ((self.new_labels >= 0) != (self.actions == "relabel")).any():
            raise DataError("new labels must be exactly where the action is relabel")
        if (self.new_labels >= len(self.class_names)).any():
            raise DataError(f"new labels must be below {len(self.class_names)}, the classes")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def order(self) -> NDArray[np.int64]:
        """(n,) rows, most suspicious first, ties by id."""
        return np.lexsort((self.ids, -self.suspicion))

    @property
    def cleaned_labels(self) -> NDArray[np.int64]:
        """(n,) int64, new labels where there are any, else the given ones."""
        return np.where(self.new_labels >= 0, self.new_labels, self.labels)

    @property
    def is_kept(self) -> NDArray[np.bool_]:
        """(n,) bool, whether it stays, relabelled or still to be reviewed."""
        return np.asarray(self.actions != "remove")

    def to_frame(self) -> pd.DataFrame:
        """One row per example as in `plan.csv`, most suspicious first."""
        import pandas as pd

        names, order = np.array(self.class_names, dtype=object), self.order
        frame = pd.DataFrame(
            {
                "sample_id": self.ids,
                "source": "" if self.sources is None else self.sources,
                "given_label": names[self.labels],
                "action": self.actions,
                "new_label": np.where(self.new_labels >= 0, names[self.new_labels], ""),
                "reason": self.reasons,
                "suspicion": self.suspicion,
            }
        )
        return frame.iloc[order].reset_index(drop=True)

    def _repr_html_(self) -> str:
        told = ", ".join(f"{count:,} {action}" for action, count in self.counts().items())
        frame = self.to_frame()
        return show_table(f"Cleaning plan: {told}", frame[frame["action"] != "keep"])

    def counts(self) -> dict[str, int]:
        """How many examples have each action."""
        found = Counter(self.actions.tolist())
        return {action: found[action] for action in ACTIONS}

    def with_policy(self, policy: CleaningPolicy) -> CleaningPlan:
        """The same examples with the actions that a policy gives them, whatever they have now."""
        actions = np.full(len(self), "keep", dtype="<U7")
        wanted = self._wanted(policy)
        actions[wanted] = "review" if policy.kind == "review" else "remove"
        if policy.relabel_above is not None and policy.kind != "review":
            sure = self.suggested_prob >= policy.relabel_above
            actions[wanted & sure & (self.suggested != self.labels)] = "relabel"
        confirmed = self.copy_action != ""
        actions[confirmed] = self.copy_action[confirmed]
        if not policy.include_test and self.split is not None:
            held_out = (self.split == _PROTECTED) & (actions != "keep")
            actions[held_out] = "review"
        self._restore(actions, policy.min_per_class)
        new_labels = np.where(actions == "relabel", self.suggested, -1)
        return replace(self, actions=actions, new_labels=new_labels)

    def _wanted(self, policy: CleaningPolicy) -> NDArray[np.bool_]:
        amount = 0.0 if policy.amount is None else policy.amount
        if policy.kind in ("review", "issues"):
            return self.is_label_issue.copy()
        if policy.kind == "threshold":
            return np.asarray(self.suspicion >= amount)
        if policy.kind == "precision":
            if self.p_error is None:
                raise UsageError(
                    "policy precision needs the verdict of an audit, and this one reached none"
                )
            return flag_at_precision(self.p_error, amount)
        count = {"share": round(amount * len(self)), "count": int(amount)}.get(policy.kind, 0)
        wanted = np.zeros(len(self), dtype=bool)
        wanted[self.order[:count]] = True
        return wanted

    def _restore(self, actions: NDArray[np.str_], floor: int) -> None:
        """Keep the least suspicious that would leave a class which would fall below the floor."""
        leaves = (actions == "remove") | (actions == "relabel")
        k = len(self.class_names)
        stay = np.bincount(self.labels[~leaves], minlength=k)
        lacking = np.minimum(floor, np.bincount(self.labels, minlength=k)) - stay
        rows = self.order[::-1]
        rows = rows[leaves[rows] & (lacking > 0)[self.labels[rows]]]
        for row in rows.tolist():
            if lacking[self.labels[row]] > 0:
                lacking[self.labels[row]] -= 1
                actions[row] = "keep"

    def with_decisions(self, decisions: Sequence[Mapping[str, str | int]]) -> CleaningPlan:
        """With what a person decided: the last decision on an example wins.

        Args:
            decisions: each with `sample_id`, `given_label`, `action`, and `new_label` for
                "relabel", labels by name.

        Raises:
            DataError: if one does not fit this plan.
        """
        actions, new_labels = self.actions.copy(), self.new_labels.copy()
        row_of = {int(sample_id): row for row, sample_id in enumerate(self.ids)}
        code_of = {name: code for code, name in enumerate(self.class_names)}
        for number, decision in enumerate(decisions):
            row = row_of.get(int(decision["sample_id"]), -1)
            what = f"decision {number}, on sample {decision['sample_id']},"
            if row < 0:
                raise DataError(f"{what} is of no example of this plan")
            given = self.class_names[self.labels[row]]
            if decision["given_label"] != given:
                raise DataError(
                    f"{what} was made when it was labelled {decision['given_label']!r}; "
                    f"it is {given!r}"
                )
            action = str(decision["action"])
            if action not in ACTIONS:
                raise DataError(f"{what} must be of {', '.join(ACTIONS)}; got {action!r}")
            new = code_of.get(str(decision.get("new_label", "")), -1) if action == "relabel" else -1
            if action == "relabel" and new < 0:
                raise DataError(f"{what} names no class: {decision.get('new_label', '')!r}")
            if new == self.labels[row]:
                action, new = "keep", -1
            actions[row], new_labels[row] = action, new
        return replace(self, actions=actions, new_labels=new_labels)

    def apply(self, dataset: LabeledDataset) -> LabeledDataset:
        """The cleaned data set, of one that holds the plan's examples in the plan's order.

        Raises:
            DataError: if ids or given labels are not the plan's.
        """
        same = np.array_equal(dataset.ids, self.ids) and np.array_equal(dataset.labels, self.labels)
        if not same:
            raise DataError("the plan was made for other examples or labels than these")
        return dataset.with_labels(self.cleaned_labels).subset(self.is_kept)

    def subset(self, dataset: Any) -> torch.utils.data.Subset[Any]:
        """The kept examples of the whole source as a `torch.utils.data.Subset`, in source order.

        Args:
            dataset: map-style, of (input, label, ...). Its indices are the sample ids, but for one
                with `samples` and `root`, such as torchvision's ImageFolder, whose files are found
                by their paths: it sorts classes, and sample ids follow whole paths. An example to
                be relabelled comes with its new label (a class number), the rest as it is.

        Raises:
            DataError: if an example is not in it, or its `targets` are not the given labels.
        """
        from torch.utils.data import Subset

        place = self._places_in(dataset)
        changed = self.new_labels >= 0
        if changed.any():
            new = zip(place[changed].tolist(), self.new_labels[changed].tolist(), strict=True)
            dataset = _Relabelled(dataset, dict(new))
        return Subset(dataset, np.sort(place[self.is_kept]).tolist())

    def _places_in(self, dataset: Any) -> NDArray[np.int64]:
        """(n,) index of each example in a map-style data set."""
        place = self.ids
        if self.sources is not None and hasattr(dataset, "samples") and hasattr(dataset, "root"):
            at = {
                os.path.relpath(str(item[0]), str(dataset.root)).replace(os.sep, "/"): index
                for index, item in enumerate(dataset.samples)
            }
            lacking = [source for source in self.sources.tolist() if source not in at]
            if lacking:
                raise DataError(
                    f"{len(lacking)} files of the plan are not in it, as {lacking[0]!r}"
                )
            place = np.array([at[source] for source in self.sources.tolist()], dtype=np.int64)
        elif len(self) and int(self.ids.max()) >= len(dataset):
            raise DataError(
                f"the plan has sample ids up to {int(self.ids.max())}; the data set has "
                f"{len(dataset)} examples"
            )
        if tuple(getattr(dataset, "classes", ())) == self.class_names:
            targets = np.asarray(dataset.targets)[place]
            if (targets != self.labels).any():
                row = int(np.flatnonzero(targets != self.labels)[0])
                raise DataError(
                    f"its targets are not the labels that were audited, first at index {place[row]}"
                )
        return place

    def weights(self, review: float = 0.5) -> NDArray[np.float64]:
        """(n,) weights of a loss: 0 for removed examples, `review` for those to be reviewed."""
        if not 0 <= review <= 1:
            raise UsageError(f"review must be in [0, 1]; got {review:g}")
        by_action = {"keep": 1.0, "relabel": 1.0, "review": review, "remove": 0.0}
        return np.array([by_action[action] for action in self.actions.tolist()], np.float64)

    def sampler(
        self, *, seed: int = 0, review: float = 0.5
    ) -> torch.utils.data.WeightedRandomSampler:
        """Draws as many examples an epoch as stay, by `weights`, with replacement.

        Its indices are rows of the plan, which are those of the data set that was audited.
        """
        import torch
        from torch.utils.data import WeightedRandomSampler

        drawn = torch.Generator().manual_seed(seed)
        return WeightedRandomSampler(
            self.weights(review).tolist(), int(self.is_kept.sum()), generator=drawn
        )

    def curriculum(self) -> NDArray[np.int64]:
        """Sample ids of the kept examples, easy to hard: least suspicious first."""
        rows = self.order[::-1]
        return self.ids[rows[self.is_kept[rows]]]


class _Relabelled:
    """A map-style data set with other labels at some indices."""

    def __init__(self, dataset: Any, labels: Mapping[int, int]) -> None:
        self._dataset = dataset
        self._labels = labels

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        item = self._dataset[index]
        if index not in self._labels:
            return item
        return (item[0], self._labels[index], *item[2:])

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))
