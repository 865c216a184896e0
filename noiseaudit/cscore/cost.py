"""What an estimate will take, before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from noiseaudit.cscore.worker import Job, models_at_once, seconds_per_run

__all__ = ["CScoreCost", "predict_cost"]

_HALF = 2  # bytes


@dataclass(frozen=True)
class CScoreCost:
    """What an estimate will take at one ratio.

    Attributes:
        ratio: the subset ratio.
        runs: models.
        subset: examples that each trains on.
        models_at_once: how many train together.
        never_held_out: expected number of examples that will have no score.
        seconds: of all runs one after another, on one core with `threads` 1, as measured on a few.
        disk: bytes of the runs kept.
    """

    ratio: float
    runs: int
    subset: int
    models_at_once: int
    never_held_out: float
    seconds: float
    disk: int


def predict_cost(job: Job, runs: int) -> list[CScoreCost]:
    """What `runs` models at each ratio will take, from training on a few thousand examples."""
    n, k = len(job.dataset), job.dataset.num_classes
    costs = []
    for ratio, subsets in job.subsets.items():
        shard = n * (2 * _HALF + 1 / 8) + job.keep_probs * _HALF * k * (n - subsets.size)
        costs.append(
            CScoreCost(
                ratio=ratio,
                runs=runs,
                subset=subsets.size,
                models_at_once=models_at_once(job, ratio),
                never_held_out=subsets.expected_never_held_out(runs),
                seconds=runs * seconds_per_run(job, ratio),
                disk=round(runs * shard),
            )
        )
    return costs
