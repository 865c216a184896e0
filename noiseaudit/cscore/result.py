"""CScores: what an estimate gives; its file, and the files others have published."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit._html import show_table
from noiseaudit._io import read_npz, write_npz
from noiseaudit._validation import check_same_length
from noiseaudit.detector import create_detectors
from noiseaudit.errors import DataError
from noiseaudit.evidence import Evidence
from noiseaudit.ranking import Ranking

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CScores", "load_cscores"]

_AGREEMENT = (
    "runs", "examples", "split_half_hard", "split_half_soft", "split_half_margin", "top_overlap",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class CScores:
    """C-scores of n examples: how often models that never saw one predict its given label.

    With several ratios every score is the mean over them (with 0.1 to 0.9 the integral C-score); an
    example that some ratio never held out has NaN.

    Attributes:
        ids: (n,) int64 sample ids.
        labels: (n,) int64 given labels.
        scores: (n,) in [0, 1], hard: the share of held-out predictions that are the given label
            (ICML 2021, Eq. 2 and Algorithm 1), the published quantity.
        holdout_counts: (n,) int64, how often each example was held out, at all ratios together.
        soft_scores: (n,) in [0, 1], mean held-out probability of the given label.
        margins: (n,) mean held-out logit of the given label minus the largest other.
        standard_errors: (n,) of `scores`, sqrt(C (1 - C) / count); 0 where all predictions agreed,
            though more of them might not.
        soft_standard_errors: (n,) of `soft_scores`, from their spread; NaN with one observation.
        in_sample_scores: (n,) like `scores`, of the models that were trained on the example.
        in_sample_soft_scores: (n,) like `soft_scores`.
        in_sample_counts: (n,) int64.
        pred_probs: (n, k) float32 mean held-out probabilities, **out-of-sample**: for confident
            learning and the like. None where too large to keep.
        ratios: (r,) the subset ratios.
        scores_by_ratio, soft_scores_by_ratio: (r, n).
        holdout_counts_by_ratio: (r, n) int64.
        agreement: for growing numbers of runs at each ratio, how well one half of them agrees with
            the other: Spearman of scores, soft scores and margins, and the share of the 1% of
            lowest soft score that both have in common.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    scores: NDArray[np.float64]
    holdout_counts: NDArray[np.int64] | None = None
    soft_scores: NDArray[np.float64] | None = None
    margins: NDArray[np.float64] | None = None
    standard_errors: NDArray[np.float64] | None = None
    soft_standard_errors: NDArray[np.float64] | None = None
    in_sample_scores: NDArray[np.float64] | None = None
    in_sample_soft_scores: NDArray[np.float64] | None = None
    in_sample_counts: NDArray[np.int64] | None = None
    pred_probs: NDArray[np.float32] | None = None
    ratios: NDArray[np.float64] | None = None
    scores_by_ratio: NDArray[np.float64] | None = None
    soft_scores_by_ratio: NDArray[np.float64] | None = None
    holdout_counts_by_ratio: NDArray[np.int64] | None = None
    agreement: tuple[dict[str, float], ...] = ()

    def __post_init__(self) -> None:
        check_same_length(ids=self.ids, labels=self.labels, scores=self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def memorization(self) -> NDArray[np.float64]:
        """(n,) in [-1, 1]: in-sample minus held-out accuracy (Feldman & Zhang 2020, Eq. 1).

        Raises:
            DataError: if in-sample scores are not known, as of a published file.
        """
        return self._known("in_sample_scores") - self.scores

    @property
    def memorization_standard_errors(self) -> NDArray[np.float64]:
        """(n,) of `memorization`, from both sides' shares; one ratio only.

        Raises:
            DataError: if counts are not known, or there are several ratios.
        """
        if self.ratios is None or len(self.ratios) != 1:
            raise DataError("the standard error of memorization needs the counts of one ratio")
        inside = self._known("in_sample_scores")
        with np.errstate(invalid="ignore", divide="ignore"):
            variance = inside * (1 - inside) / self._known("in_sample_counts")
        total: NDArray[np.float64] = np.sqrt(variance + self._known("standard_errors") ** 2)
        return total

    def rank(self, detector: str = "cscore") -> Ranking:
        """The ranking of "cscore" (soft scores where known) or "memorization".

        Raises:
            DataError: if some example was never held out, or what it needs is not known.
        """
        return create_detectors([detector])[0].rank(self.evidence())

    def _repr_html_(self) -> str:
        import pandas as pd

        columns = {"sample_id": self.ids, "label": self.labels, "cscore": self.scores}
        others = {"soft_score": self.soft_scores, "held out": self.holdout_counts}
        columns |= {name: values for name, values in others.items() if values is not None}
        frame = pd.DataFrame(columns).sort_values(["cscore", "sample_id"])
        return show_table(f"C-scores of {len(self):,} examples, lowest first", frame)

    def evidence(self) -> Evidence:
        """For detectors; hard scores stand in for soft ones where these are not known."""
        return Evidence(
            ids=self.ids,
            labels=self.labels,
            num_classes=int(self.labels.max(initial=0)) + 1,
            pred_probs=self.pred_probs,
            cscores=self.detector_arrays(),
        )

    def detector_arrays(self) -> dict[str, NDArray[Any]]:
        """What detectors rank by: the arrays, hard scores for soft ones where these are not known.

        With `pred_probs` also `normalized_margins`, of them: the given label's probability minus
        the largest other.
        """
        arrays = {"soft_scores": self.scores, **self.arrays()}
        if self.pred_probs is not None:
            rows = np.arange(len(self))
            others = self.pred_probs.astype(np.float64)
            given = others[rows, self.labels]
            others[rows, self.labels] = -np.inf
            arrays["normalized_margins"] = given - others.max(axis=1)
        return arrays

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are known, by name; the agreement as columns `agreement_...`."""
        named = {
            field.name: value
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        columns = {
            f"agreement_{name}": np.array([row[name] for row in self.agreement])
            for name in _AGREEMENT
        }
        return {**named, **(columns if self.agreement else {})}

    def to_frame(self) -> pd.DataFrame:
        """One row per example: `sample_id`, `label` and each known array of n numbers."""
        import pandas as pd

        columns = {
            name: values
            for name, values in self.arrays().items()
            if values.shape == self.scores.shape and name not in ("ids", "labels")
        }
        return pd.DataFrame({"sample_id": self.ids, "label": self.labels, **columns})

    def save(self, path: str | Path) -> None:
        """Write an .npz in the published exchange format (`labels`, `scores`), and all the rest.

        Raises:
            OutputError: if it cannot be written.
        """
        write_npz(Path(path), self.arrays())

    def _known(self, name: str) -> NDArray[Any]:
        values: NDArray[Any] | None = getattr(self, name)
        if values is None:
            raise DataError(f"{name} is not known: these scores came from elsewhere")
        return values


def load_cscores(path: str | Path, labels: ArrayLike | None = None) -> CScores:
    """Read `CScores.save`'s file, or a published one with arrays `labels` and `scores`.

    Args:
        path: an .npz.
        labels: (n,) int labels of your data in their original order, to check that the scores are
            of the same examples in the same order.

    Raises:
        OutputError: if it cannot be read.
        DataError: if it lacks one of the two arrays, scores are not in [0, 1], or `labels` are
            others.
    """
    path = Path(path)
    stored = read_npz(path)
    lacking = [name for name in ("labels", "scores") if name not in stored]
    if lacking:
        raise DataError(f"{path} has no array {' and no '.join(lacking)}: not a file of C-scores")
    own = np.asarray(stored["labels"]).astype(np.int64)
    scores = np.asarray(stored["scores"], dtype=np.float64)
    if scores.shape != own.shape or own.ndim != 1:
        raise DataError(f"{path} must hold one score and one label per example")
    if not ((scores >= 0) & (scores <= 1) | np.isnan(scores)).all():
        raise DataError(f"{path} has scores outside [0, 1]: they are no C-scores")
    if labels is not None:
        _check_labels(path, own, np.asarray(labels))
    known = {field.name for field in dataclasses.fields(CScores)} - {"agreement"}
    arrays = {name: values for name, values in stored.items() if name in known}
    arrays |= {"labels": own, "scores": scores}
    arrays.setdefault("ids", np.arange(len(own)))
    return CScores(**arrays, agreement=_agreement(stored))


def _check_labels(path: Path, stored: NDArray[np.int64], wanted: NDArray[Any]) -> None:
    if len(stored) != len(wanted):
        raise DataError(
            f"{path} has C-scores of {len(stored):,} examples; your data set has {len(wanted):,}"
        )
    differ = np.flatnonzero(stored != wanted)
    if len(differ):
        first = differ[0]
        raise DataError(
            f"{path} is of other labels, or of another order: {len(differ):,} of {len(stored):,} "
            f"differ, first at row {first} ({stored[first]}, yours {wanted[first]}); C-scores need "
            "the data set's original order and labels"
        )


def _agreement(stored: Any) -> tuple[dict[str, float], ...]:
    columns: Sequence[NDArray[Any]] = [
        stored[f"agreement_{name}"] for name in _AGREEMENT if f"agreement_{name}" in stored
    ]
    if len(columns) != len(_AGREEMENT):
        return ()
    return tuple(
        dict(zip(_AGREEMENT, map(float, row), strict=True)) for row in zip(*columns, strict=True)
    )
