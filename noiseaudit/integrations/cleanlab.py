"""cleanlab's Datalab: our rankings as an issue type of its own, and the pred_probs it asks for.

```python
lab = Datalab(data, label_name="label")
lab.find_issues(issue_types={"training_dynamics": {"report": report}})
lab.get_issues("training_dynamics")
```

Importing this module registers the issue type. Datalab runs a type that is not its own only when
`issue_types` names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._io import read_json, read_npz
from noiseaudit._validation import check_finite, check_ids, find_rows
from noiseaudit.audit_report import AuditReport
from noiseaudit.crossval import assign_folds
from noiseaudit.cscore.result import CScores
from noiseaudit.dataset import digest_array
from noiseaudit.errors import DataError, UsageError, check_name
from noiseaudit.findings import find_issues
from noiseaudit.integrations._soft import MissingLibraryError
from noiseaudit.ranking import Ranking
from noiseaudit.recorder import Recorder

try:
    from cleanlab.datalab.internal.issue_manager import IssueManager
    from cleanlab.datalab.internal.issue_manager_factory import register
except ImportError as error:
    raise MissingLibraryError("cleanlab", "datalab", error) from error

if TYPE_CHECKING:
    from cleanlab import Datalab

__all__ = ["TrainingDynamics", "held_out_pred_probs"]

_SUM_TOLERANCE = 1e-3  # of a row of float32 probabilities, a mean over up to thousands of models


@register
class TrainingDynamics(IssueManager):  # type: ignore[misc]  # cleanlab is untyped
    """Datalab's issue type "training_dynamics": labels that training contradicts.

    Columns: `is_training_dynamics_issue`; `training_dynamics_score` in [0, 1], the rank position
    scaled, **low = bad** as Datalab has it, 0 for the most suspicious example; and
    `training_dynamics_suggestion`, the class that was predicted instead, where that is known. The
    score of the whole is the share of examples that are no issue.

    Everything is checked when Datalab makes this object, because what goes wrong later it prints
    and then goes on.

    Args:
        datalab: the lab, which passes itself.
        report: an audit of the lab's examples; its findings are the issues.
        recorder: a Recorder of them; with `class_sums=True` the issues are the labels that are not
            the class with the largest mean probability, otherwise say how many.
        ranking: any Ranking of them; say how many are issues.
        detector: of a report or Recorder, whose ranking orders the examples; default: the report's
            headline, the Recorder's "cumulative_loss".
        sample_ids: (n,) ids of the lab's rows; default 0..n-1, the row itself.
        count: the issues are so many of the most suspicious;
        share: or this share of all, in [0, 1];
        above: or all with a suspicion above this.

    Raises:
        UsageError: unless exactly one of report, recorder and ranking is given, and for a Ranking
            one of count, share and above.
        DataError: if ids or given labels are not those of the lab.
    """

    issue_name: ClassVar[str] = "training_dynamics"
    description: ClassVar[str] = (
        "Examples whose given label the model contradicted while it was trained (noiseaudit)."
    )
    verbosity_levels: ClassVar[dict[int, list[str]]] = {0: [], 1: ["detector"], 2: [], 3: []}

    def __init__(
        self,
        datalab: Datalab,
        *,
        report: AuditReport | None = None,
        recorder: Recorder | None = None,
        ranking: Ranking | None = None,
        detector: str | None = None,
        sample_ids: ArrayLike | None = None,
        count: int | None = None,
        share: float | None = None,
        above: float | None = None,
    ) -> None:
        super().__init__(datalab)
        found = _find(report, recorder, ranking, detector)
        ranking, is_issue = found.ranking, found.is_issue
        rows = _rows_of_lab(datalab, ranking.ids, sample_ids)
        if is_issue is None or (count, share, above) != (None, None, None):
            is_issue = ranking.flag(count=count, share=share, above=above)
        self._detector = ranking.detector
        self._columns: dict[str, NDArray[Any]] = {
            f"is_{self.issue_name}_issue": is_issue[rows],
            self.issue_score_key: (ranking.ranks[rows] - 1) / max(1, len(ranking) - 1),
        }
        classes = {} if found.labels is None else _match_classes(datalab, found.labels[rows])
        if found.suggested is not None:
            names = found.class_names or _names_of(datalab, classes, recorder)
            suggested = np.array(names, dtype=object)[found.suggested[rows]]
            self._columns[f"{self.issue_name}_suggestion"] = suggested

    def find_issues(self, **_: Any) -> None:
        """Hand over what the constructor found; Datalab calls it."""
        import pandas as pd

        self.issues = pd.DataFrame(self._columns)
        share_of_issues = float(self._columns[f"is_{self.issue_name}_issue"].mean())
        self.summary = self.make_summary(score=1 - share_of_issues)
        self.info = self.collect_info()

    def collect_info(self) -> dict[str, Any]:
        """What `lab.get_info("training_dynamics")` gives."""
        return {"detector": self._detector}


@dataclass(frozen=True, eq=False)
class _Found:
    """What a report, Recorder or Ranking says of its examples, all in the ranking's order."""

    ranking: Ranking
    labels: NDArray[np.int64] | None = None
    is_issue: NDArray[np.bool_] | None = None
    suggested: NDArray[np.int64] | None = None
    class_names: Sequence[str] | None = None


def _find(
    report: AuditReport | None,
    recorder: Recorder | None,
    ranking: Ranking | None,
    detector: str | None,
) -> _Found:
    if sum(item is not None for item in (report, recorder, ranking)) != 1:
        raise UsageError("training_dynamics needs exactly one of report, recorder and ranking")
    if report is not None:
        name = detector or report.ranking.detector
        found, dataset = report.findings, report.dataset
        ranking = report.rankings[check_name(name, report.rankings, "ranking of the report")]
        return _Found(
            ranking, dataset.labels, found.is_label_issue, found.suggested, dataset.class_names
        )
    if recorder is not None:
        ranking, labels = recorder.rank(detector or "cumulative_loss"), recorder.labels
        try:
            probs = recorder.pred_probs()
        except UsageError:  # it kept no class sums
            return _Found(ranking, labels)
        found = find_issues(labels, probs, recorder.evidence().history())
        return _Found(ranking, labels, found.is_label_issue, found.suggested)
    if ranking is None or detector is not None:
        raise UsageError("a ranking is by one detector already: leave detector out")
    return _Found(ranking)


def _rows_of_lab(
    lab: Datalab, ids: NDArray[np.int64], sample_ids: ArrayLike | None
) -> NDArray[np.int64]:
    """Where each of the lab's examples is in `ids`."""
    n = len(lab.data)
    wanted = np.arange(n) if sample_ids is None else check_ids(sample_ids)
    if not len(ids) == len(wanted) == n:
        raise DataError(
            f"there must be one score per row of the Datalab: it has {n:,} rows, sample_ids are "
            f"{len(wanted):,} and scores {len(ids):,}"
        )
    try:
        return find_rows(ids, wanted)
    except DataError as error:
        raise DataError(f"{error}; pass sample_ids, the ids of the Datalab's rows") from error


def _match_classes(lab: Datalab, labels: NDArray[np.int64]) -> dict[int, int]:
    """From our label to the lab's, which numbers classes in an order of its own.

    Raises:
        DataError: if the two labellings do not correspond one to one: other data, or other order.
    """
    if not lab.has_labels:
        return {}
    pairs, first = np.unique(np.stack([labels, lab.labels]), axis=1, return_index=True)
    for name, codes in zip(("given label", "class of the Datalab"), pairs, strict=True):
        values, counts = np.unique(codes, return_counts=True)
        if (counts > 1).any():
            bad = values[counts > 1][0]
            rows = sorted(first[codes == bad].tolist())
            raise DataError(
                "the labels are not those of the Datalab, or in another order: "
                f"{name} {bad} goes with different ones, as at rows {rows[0]} and {rows[1]}"
            )
    return {int(ours): int(theirs) for ours, theirs in pairs.T}


def _names_of(lab: Datalab, classes: dict[int, int], recorder: Recorder | None) -> list[Any]:
    """The lab's name of each of our labels; None for one that no example has."""
    k = 0 if recorder is None else recorder.num_classes
    return [lab.class_names[classes[label]] if label in classes else None for label in range(k)]


def held_out_pred_probs(
    lab: Datalab, found: CScores | str | Path, *, sample_ids: ArrayLike | None = None
) -> NDArray[np.float32]:
    """Out-of-sample `pred_probs` for `lab.find_issues`, rows and columns in the lab's own order.

    ```python
    lab.find_issues(pred_probs=held_out_pred_probs(lab, cscores))
    ```

    Args:
        lab: a Datalab with labels.
        found: C-scores with `pred_probs`, whose every example some model never saw; or the folder
            of an audit that ran a cross-validation, as a detector such as "confident_learning"
            asks for. (`AuditReport.pred_probs` are in-sample, for which Datalab is too lenient.)
        sample_ids: (n,) ids of the lab's rows; default 0..n-1, the row itself.

    Returns:
        (n, k) float32.

    Raises:
        UsageError: if `found` holds in-sample probabilities only.
        DataError: if an example was never held out, or examples, labels or classes are not the
            lab's.
        OutputError: if the folder cannot be read.
    """
    if isinstance(found, CScores):
        if found.pred_probs is None:
            raise DataError("these C-scores have no pred_probs: only scores are known, or kept")
        ids, labels, probs = found.ids, found.labels, np.asarray(found.pred_probs)
    elif isinstance(found, str | Path):
        ids, labels, probs = _of_cross_validation(Path(found))
    else:
        raise UsageError(
            "held-out probabilities come from CScores or from an audit's folder, not from "
            f"{type(found).__name__}: those are in-sample"
        )
    rows = _rows_of_lab(lab, ids, sample_ids)
    check_finite(probs, "held-out pred_probs", "these examples were never held out: use more runs")
    sums = probs.sum(axis=1)
    if not ((probs >= 0).all() and np.abs(sums - 1).max(initial=0) < _SUM_TOLERANCE):
        raise DataError("pred_probs must be probabilities: at least 0, each row with sum 1")
    if not lab.has_labels:
        raise DataError("the Datalab has no labels: make it with label_name")
    classes = _match_classes(lab, labels[rows])
    k = len(lab.class_names)
    order = np.full(k, -1, dtype=np.int64)
    order[list(classes.values())] = list(classes)
    if (order < 0).any() or probs.shape[1] != k:
        raise DataError(
            f"pred_probs have {probs.shape[1]} classes, the Datalab {k} of which "
            f"{len(classes)} have examples: the two must be the same, each with examples"
        )
    return np.ascontiguousarray(probs[rows][:, order], dtype=np.float32)


def _of_cross_validation(
    folder: Path,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Ids, labels and held-out probabilities of an audit's folder."""
    if not (folder / "crossval" / "manifest.json").exists():
        raise DataError(
            f"{folder} holds no cross-validation: its pred_probs are in-sample; run the audit with "
            "a detector that needs one, such as 'confident_learning'"
        )
    config = read_json(folder / "crossval" / "manifest.json")
    stored = read_npz(folder / "training" / "statistics.npz", ("sample_ids", "labels"))
    ids, labels = stored["sample_ids"], stored["labels"]
    if digest_array(labels) != config["dataset"]["labels"]:
        raise DataError(f"{folder}: training and cross-validation are of different labels")
    folds = assign_folds(labels, config["folds"], seed=config["seed"])
    probs = np.empty((len(labels), 0), dtype=np.float32)
    for fold in range(config["folds"]):
        part = read_npz(folder / "crossval" / f"fold_{fold}.npz", ("pred_probs",))["pred_probs"]
        if fold == 0:
            probs = np.full((len(labels), part.shape[1]), np.nan, dtype=np.float32)
        probs[folds == fold] = part
    return ids, labels, probs
