"""From shards to scores: running sums, one shard in memory at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit.cscore.result import CScores
from noiseaudit.cscore.worker import Job, Shard

__all__ = ["Reducer"]

_TOP = 0.01
_HALVES = 2


class Reducer:
    """Adds shards up; memory O(n) for each ratio, and (n, k) where probabilities are kept.

    Shards must be added in order of their index, so that sums do not depend on which was done
    first. Models are dealt to two halves, sweep by sweep, for `agreement`.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sums = {ratio: _Sums(job) for ratio in job.subsets}
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []

    def add(self, shard: Shard) -> None:
        """Take in what one model said."""
        plan = self._job.subsets[shard.ratio]
        half = (shard.index // plan.sweep) % _HALVES
        self._sums[shard.ratio].add(plan.subset(shard.index), shard, half)
        self.seconds += shard.seconds

    def agreement(self, runs: int) -> dict[str, float]:
        """How well the scores of one half of the models agree with those of the other.

        Also kept in `curve`. Spearman correlation of hard scores, soft scores and margins over the
        examples that both halves held out at every ratio; the share of the 1% of lowest soft score
        that both have in common. NaN until both halves have held out something.
        """
        from scipy.stats import spearmanr  # takes 1 s to import

        means: list[Mapping[str, NDArray[np.float64]]] = [
            _over_ratios([sums.held_out(slice(half, half + 1)) for sums in self._sums.values()])
            for half in range(_HALVES)
        ]
        seen = np.isfinite(means[0]["soft"]) & np.isfinite(means[1]["soft"])
        row = {"runs": float(runs), "examples": float(seen.sum())}
        for name in ("hard", "soft", "margin"):
            pair = [half[name][seen] for half in means]
            varied = seen.sum() > 1 and all(np.ptp(values) > 0 for values in pair)
            row[f"split_half_{name}"] = float(spearmanr(*pair).statistic) if varied else np.nan
        k = int(np.ceil(_TOP * seen.sum()))
        lowest = [set(np.argsort(half["soft"][seen], kind="stable")[:k]) for half in means]
        row["top_overlap"] = len(lowest[0] & lowest[1]) / k if k else np.nan
        self.curve.append(row)
        return row

    def result(self) -> CScores:
        """The scores of all shards so far."""
        by_ratio = [sums.means() for sums in self._sums.values()]
        all_of = _over_ratios(by_ratio)
        counts = np.stack([sums.out_count.sum(axis=0) for sums in self._sums.values()])
        in_counts = np.stack([sums.in_count.sum(axis=0) for sums in self._sums.values()])
        dataset = self._job.dataset
        return CScores(
            ids=dataset.ids,
            labels=dataset.labels,
            scores=all_of["hard"],
            soft_scores=all_of["soft"],
            margins=all_of["margin"],
            standard_errors=_error_of_mean([means["hard_error"] for means in by_ratio]),
            soft_standard_errors=_error_of_mean([means["soft_error"] for means in by_ratio]),
            in_sample_scores=all_of["in_hard"],
            in_sample_soft_scores=all_of["in_soft"],
            in_sample_counts=in_counts.sum(axis=0),
            holdout_counts=counts.sum(axis=0),
            pred_probs=self._pred_probs(all_of["soft"]),
            ratios=np.array(list(self._sums)),
            scores_by_ratio=np.stack([means["hard"] for means in by_ratio]),
            soft_scores_by_ratio=np.stack([means["soft"] for means in by_ratio]),
            holdout_counts_by_ratio=counts,
            agreement=tuple(self.curve),
        )

    def _pred_probs(self, soft: NDArray[np.float64]) -> NDArray[np.float32] | None:
        tables = [sums.probs_mean() for sums in self._sums.values()]
        if not self._job.keep_probs:
            return None
        mean = np.asarray(sum(tables[1:], tables[0]) / len(tables), dtype=np.float32)
        # Shards hold probabilities in half precision; that of the given label is known better.
        mean[np.arange(len(mean)), self._job.dataset.labels] = soft
        return mean


class _Sums:
    """Of one ratio: (2, n) counts and sums of held-out and of in-sample values, by half."""

    def __init__(self, job: Job) -> None:
        n = len(job.dataset)
        self.out_count, self.in_count, self.out_hard, self.in_hard = (
            np.zeros((_HALVES, n), dtype=np.int64) for _ in range(4)
        )
        self.out_soft, self.out_soft_squares, self.out_margin, self.in_soft = (
            np.zeros((_HALVES, n)) for _ in range(4)
        )
        shape = (n, job.dataset.num_classes) if job.keep_probs else (0, 0)
        self._probs = np.zeros(shape)

    def add(self, trained_on: NDArray[np.int64], shard: Shard, half: int) -> None:
        is_out = np.ones(len(shard.correct), dtype=bool)
        is_out[trained_on] = False
        soft = np.exp(-shard.losses.astype(np.float64))
        self.out_count[half] += is_out
        self.in_count[half] += ~is_out
        self.out_hard[half] += shard.correct & is_out
        self.in_hard[half] += shard.correct & ~is_out
        self.out_soft[half] += np.where(is_out, soft, 0)
        self.out_soft_squares[half] += np.where(is_out, soft**2, 0)
        self.out_margin[half] += np.where(is_out, shard.margins.astype(np.float64), 0)
        self.in_soft[half] += np.where(is_out, 0, soft)
        if len(self._probs):
            self._probs[is_out] += shard.probs

    def held_out(self, halves: slice) -> dict[str, NDArray[np.float64]]:
        """(n,) means of those halves; NaN of what was not held out."""
        count = _total(self.out_count[halves])
        with np.errstate(invalid="ignore"):
            return {
                "hard": _total(self.out_hard[halves]) / count,
                "soft": _total(self.out_soft[halves]) / count,
                "margin": _total(self.out_margin[halves]) / count,
            }

    def means(self) -> dict[str, NDArray[np.float64]]:
        """(n,) each; NaN where nothing was observed."""
        found = self.held_out(slice(None))
        hard, soft = found["hard"], found["soft"]
        out, inside = _total(self.out_count), _total(self.in_count)
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.maximum(_total(self.out_soft_squares) / out - soft**2, 0)
            return {
                **found,
                "in_hard": _total(self.in_hard) / inside,
                "in_soft": _total(self.in_soft) / inside,
                "hard_error": np.sqrt(hard * (1 - hard) / out),
                "soft_error": np.sqrt(spread / (out - 1)),  # NaN of a single observation
            }

    def probs_mean(self) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            counts = self.out_count.sum(axis=0)[:, None]
            return np.asarray(self._probs / counts[: len(self._probs)])


def _total(sums: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(sums.sum(axis=0), dtype=np.float64)


def _over_ratios(
    by_ratio: list[dict[str, NDArray[np.float64]]],
) -> dict[str, NDArray[np.float64]]:
    """The mean over ratios of each array: NaN where one ratio has none."""
    return {name: np.mean([means[name] for means in by_ratio], axis=0) for name in by_ratio[0]}


def _error_of_mean(errors: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Standard error of the mean over ratios, whose models are independent."""
    total: NDArray[np.float64] = np.linalg.norm(errors, axis=0) / len(errors)
    return total
