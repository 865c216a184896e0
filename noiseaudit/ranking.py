"""Ranking: one suspicion score per example; higher is more suspicious, everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from noiseaudit._html import show_table
from noiseaudit._io import NPZ_ERRORS, write_npz
from noiseaudit._validation import check_finite, check_ids, check_same_length
from noiseaudit.errors import DataError, UsageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Ranking"]

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Ranking:
    """Suspicion scores of one detector.

    Attributes:
        detector: name of what made the scores.
        ids: (n,) int64, unique sample ids.
        scores: (n,) float64, finite; **higher = more suspicious**.

    Raises:
        DataError: if an id occurs twice, a score is not finite, or lengths differ.
    """

    detector: str
    ids: NDArray[np.int64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", check_ids(self.ids))
        scores = np.asarray(self.scores)
        if scores.ndim != 1 or scores.dtype.kind not in "fiu":
            raise DataError(
                f"scores must be one-dimensional numbers; got shape {scores.shape}, "
                f"dtype {scores.dtype}"
            )
        check_same_length(ids=self.ids, scores=scores)
        check_finite(scores, f"scores of {self.detector}")
        object.__setattr__(self, "scores", np.ascontiguousarray(scores, dtype=np.float64))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(n,) rows, most suspicious first; ties broken by the smaller id."""
        return np.lexsort((self.ids, -self.scores))

    @cached_property
    def ranks(self) -> NDArray[np.int64]:
        """(n,) rank of each row, 1 = most suspicious."""
        ranks = np.empty(len(self), dtype=np.int64)
        ranks[self.order] = np.arange(1, len(self) + 1)
        return ranks

    def top(self, k: int) -> NDArray[np.int64]:
        """Ids of the k most suspicious examples, most suspicious first."""
        return self.ids[self.order[: max(0, k)]]

    def flag(
        self, *, count: int | None = None, share: float | None = None, above: float | None = None
    ) -> NDArray[np.bool_]:
        """(n,) mask of the most suspicious: a count, a share in [0, 1], or all above a score.

        Raises:
            UsageError: unless exactly one of the three is given, or the share is outside [0, 1].
        """
        given = [value for value in (count, share, above) if value is not None]
        if len(given) != 1:
            raise UsageError("give exactly one of count, share and above")
        if above is not None:
            return self.scores > above
        if share is not None:
            if not 0 <= share <= 1:
                raise UsageError(f"share must be in [0, 1]; got {share}")
            count = round(share * len(self))
        return self.ranks <= (count or 0)

    def _repr_html_(self) -> str:
        return show_table(f"{self.detector}: {len(self):,} examples", self.to_frame())

    @classmethod
    def combine(
        cls,
        rankings: Sequence[Ranking],
        *,
        weights: Sequence[float] | None = None,
        name: str = "combined",
    ) -> Ranking:
        """Mean of rank positions scaled to [0, 1], over rankings of the same ids in any order.

        A weak member makes it worse than its best one, so combine strong, different detectors.

        Raises:
            DataError: if there is nothing to combine or the ids differ.
        """
        if not rankings:
            raise DataError("nothing to combine: rankings is empty")
        ids = np.sort(rankings[0].ids)
        columns = []
        for ranking in rankings:
            by_id = np.argsort(ranking.ids)
            if not np.array_equal(ranking.ids[by_id], ids):
                raise DataError(
                    f"rankings cover different ids: {rankings[0].detector} and {ranking.detector}"
                )
            columns.append(1 - (ranking.ranks[by_id] - 1) / max(1, len(ids) - 1))
        return cls(name, ids, np.average(np.array(columns), axis=0, weights=weights))

    def to_frame(self) -> pd.DataFrame:
        """Columns rank, sample_id, suspicion; most suspicious first."""
        import pandas as pd

        return pd.DataFrame(
            {
                "rank": np.arange(1, len(self) + 1),
                "sample_id": self.ids[self.order],
                "suspicion": self.scores[self.order],
            }
        )

    def save(self, path: str | Path) -> None:
        """Write ids, scores and the detector's name to an .npz."""
        write_npz(
            Path(path),
            {
                "format": np.array(_FORMAT),
                "detector": np.array(self.detector),
                "ids": self.ids,
                "scores": self.scores,
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> Ranking:
        """Read what `save` wrote.

        Raises:
            DataError: if the file is no saved ranking, or of a newer format.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            version = int(arrays["format"])
            if version <= _FORMAT:
                return cls(str(arrays["detector"]), arrays["ids"], arrays["scores"])
        except DataError:
            raise
        except NPZ_ERRORS as error:
            raise DataError(f"{path} is not a saved ranking: {error}") from error
        raise DataError(f"{path} has format {version}; update noiseaudit")
