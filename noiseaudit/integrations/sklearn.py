"""scikit-learn: the audit of arrays as an estimator.

```python
detector = make_pipeline(StandardScaler(), LabelNoiseDetector())
detector.fit(X, y)
wrong = detector[-1].is_label_issue_
```
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from noiseaudit.auditing import audit
from noiseaudit.dataset import LabeledDataset
from noiseaudit.detector import Detector
from noiseaudit.errors import DataError
from noiseaudit.integrations._soft import MissingLibraryError
from noiseaudit.ranking import Ranking
from noiseaudit.sources.arrays import as_inputs
from noiseaudit.training.models import ModelFactory
from noiseaudit.training.recipes import Recipe

try:
    from sklearn.base import BaseEstimator
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import column_or_1d, validate_data
except ImportError as error:
    raise MissingLibraryError("sklearn", "dev", error) from error

__all__ = ["LabelNoiseDetector"]


class LabelNoiseDetector(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """Finds wrong labels among (X, y): `noiseaudit.audit` with the manners of an estimator.

    It learns nothing that applies to other data, so there is no `predict`; it may end a Pipeline.

    Args:
        detector: name of what ranks, or an instance with options of its own.
        model: as in `audit`; "auto" takes a small perceptron for vectors.
        epochs: instead of the recipe's number.
        recipe: as in `audit`.
        folds: of the cross-validation, for detectors that need one.
        runs: models of the C-scores, for detectors that need them.
        subset_ratio: share of the data that each of them trains on.
        seed: of all randomness, a plain int: fitting again gives the same.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads.

    Attributes:
        ranking_: the Ranking; ids are rows of X.
        suspicion_: (n,) float64, of each row; **higher = more suspicious**.
        is_label_issue_: (n,) bool, whether the label looks wrong: training, averaged over its
            epochs, prefers another class. (The same for every detector, which only ranks.)
        suggested_labels_: (n,) that class, as y has it; the given label where it is no issue.
        classes_: (k,) the different values of y, sorted.
        n_features_in_: length of a row of X.
    """

    def __init__(
        self,
        detector: str | Detector = "cumulative_loss",
        *,
        model: str | ModelFactory = "auto",
        epochs: int | None = None,
        recipe: Recipe | Mapping[str, Any] | None = None,
        folds: int = 4,
        runs: int = 10,
        subset_ratio: float = 0.5,
        seed: int = 0,
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.detector = detector
        self.model = model
        self.epochs = epochs
        self.recipe = recipe
        self.folds = folds
        self.runs = runs
        self.subset_ratio = subset_ratio
        self.seed = seed
        self.device = device
        self.threads = threads

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Audit the labels.

        Args:
            X: (n, d) numbers, or pictures as `noiseaudit.load` takes them in arrays: (n, h, w),
                (n, h, w, 3) or (n, 3, h, w).
            y: (n,) integers, booleans or texts: the given labels.

        Raises:
            DataError: if there is one class only, or X is no such array.
            UsageError: for an option that does not exist or does not fit.
        """
        inputs, labels = validate_data(self, X, y, allow_nd=True, ensure_min_samples=2)
        labels = column_or_1d(labels, warn=True)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y has one class only, {self.classes_[0]!r}; at least two are needed")
        dataset = LabeledDataset(
            as_inputs(inputs), codes.astype(np.int64), tuple(str(value) for value in self.classes_)
        )
        report = audit(
            dataset,
            detectors=[self.detector],
            folds=self.folds,
            runs=self.runs,
            subset_ratio=self.subset_ratio,
            duplicates=False,
            model=self.model,
            epochs=self.epochs,
            recipe=self.recipe,
            seed=self.seed,
            device=self.device,
            threads=self.threads,
        )
        self.ranking_: Ranking = report.ranking
        self.suspicion_: NDArray[np.float64] = report.ranking.scores
        self.is_label_issue_: NDArray[np.bool_] = report.findings.is_label_issue
        self.suggested_labels_: NDArray[Any] = self.classes_[report.findings.suggested]
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.one_d_labels = True
        return tags
