"""The runs of an estimate: which are missing, where they are kept, and their sum."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from noiseaudit._io import make_folder, read_npz, write_npz
from noiseaudit.cscore.executors import EXECUTORS, choose_workers, execute
from noiseaudit.cscore.reduce import Reducer
from noiseaudit.cscore.result import CScores
from noiseaudit.cscore.worker import Job, Shard, Unit, models_at_once
from noiseaudit.errors import UsageError, check_name
from noiseaudit.manifest import read_manifest, require_same, write_manifest
from noiseaudit.training.plan import TrainingPlan

__all__ = ["Execution", "looks", "run_cscores"]

logger = logging.getLogger(__name__)

_GROWTH = 1.5  # of the number of runs between two looks at the agreement
_STABLE_TOP = 0.9


@dataclass(frozen=True)
class Execution:
    """Where and how long to run; nothing that a score depends on.

    Attributes:
        executor: "serial", "processes" or "ray"; None: processes on a CPU, serial on CUDA.
        workers: of "processes"; None: as many as cores allow.
        ray_address: of the caller's cluster; None: the one on this machine.
        until_stable: stop before all runs are done once the soft scores of one half of them agree
            with the other half's by this Spearman correlation, or nine in ten of the 1% lowest are
            the same; None: do all.
    """

    executor: str | None = None
    workers: int | None = None
    ray_address: str | None = None
    until_stable: float | None = None

    def __post_init__(self) -> None:
        if self.executor is not None:
            check_name(self.executor, EXECUTORS, "executor")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers must be at least 1; got {self.workers}")
        if self.until_stable is not None and not 0 < self.until_stable <= 1:
            raise UsageError(f"until_stable must be in (0, 1]; got {self.until_stable}")
        if self.ray_address is not None and self.executor != "ray":
            raise UsageError("a Ray address is for executor 'ray'")

    def settled(self, plan: TrainingPlan) -> Execution:
        """Defaults filled in."""
        on_cpu = plan.device.type == "cpu"
        return replace(
            self,
            executor=self.executor or ("processes" if on_cpu else "serial"),
            workers=self.workers or (choose_workers(plan.threads) if on_cpu else 1),
        )


def run_cscores(
    job: Job,
    folder: Path,
    *,
    runs: int,
    execution: Execution,
    resume: bool = True,
    progress: bool = False,
) -> tuple[CScores, float]:
    """Do the runs of `job` that `folder` lacks, and add all up; also the seconds of all of them.

    Raises:
        ManifestMismatchError: if `folder` holds runs of other data or settings.
        NoiseAuditError: if training diverges, or workers keep dying.
    """
    if not resume:
        shutil.rmtree(folder, ignore_errors=True)
    for ratio in job.subsets:
        _claim(job, ratio, _ratio_folder(folder, ratio))
    execution = execution.settled(next(iter(job.training.values())))
    reducer, done = Reducer(job), 0
    block = max(subsets.block for subsets in job.subsets.values())
    with tqdm(
        total=runs * len(job.subsets), desc="C-scores", unit="model",
        disable=None if progress else True, dynamic_ncols=True,
    ) as bar:  # fmt: skip
        if execution.until_stable is None:
            _do(job, folder, runs, execution, bar)
        for count in looks(runs, block):
            if execution.until_stable is not None:
                _do(job, folder, count, execution, bar)
            for index in range(done, count):
                for ratio in job.subsets:
                    reducer.add(_read(folder, ratio, index))
            done = count
            if _is_stable(reducer.agreement(count), execution.until_stable):
                logger.info("C-scores: stable after %d of %d runs", count, runs)
                break
    return reducer.result(), reducer.seconds


def looks(runs: int, block: int) -> list[int]:
    """Numbers of runs at which the agreement is looked at: whole blocks in growing steps, all."""
    counts, blocks = [], 2
    while blocks * block < runs:
        counts.append(blocks * block)
        blocks = math.ceil(blocks * _GROWTH)
    return [*counts, runs]


def _is_stable(row: Mapping[str, float], wanted: float | None) -> bool:
    return wanted is not None and (
        row["split_half_soft"] >= wanted or row["top_overlap"] >= _STABLE_TOP
    )


def _do(job: Job, folder: Path, runs: int, execution: Execution, bar: Any) -> None:
    """Run what is missing of the first `runs` indices; each model's shard is kept at once."""
    units = []
    for ratio in job.subsets:
        size = models_at_once(job, ratio)
        for start in range(0, runs, size):
            indices = tuple(range(start, min(start + size, runs)))
            if not all(_path(folder, ratio, index).exists() for index in indices):
                units.append(Unit(ratio, indices))
    missing = sum(len(unit.indices) for unit in units)
    bar.update(runs * len(job.subsets) - missing - bar.n)
    if not units:
        return
    for ratio in job.subsets:
        logger.info(
            "C-scores: %d models on %s of %s examples, %d at a time, executor %s",
            runs, f"{job.subsets[ratio].size:,}", f"{len(job.dataset):,}",
            models_at_once(job, ratio), execution.executor,
        )  # fmt: skip
    for shards in execute(
        job,
        units,
        str(execution.executor),
        workers=execution.workers or 1,
        ray_address=execution.ray_address,
    ):
        for shard in shards:
            path = _path(folder, shard.ratio, shard.index)
            if not path.exists():
                write_npz(path, shard.to_arrays())
            bar.update()


def _claim(job: Job, ratio: float, folder: Path) -> None:
    make_folder(folder)
    config = {
        **job.training[ratio].config(job.dataset),
        "ratio": str(job.subsets[ratio].exact_ratio),
        "scheme": job.subsets[ratio].scheme,
        "models_at_once": models_at_once(job, ratio),
        "keep_probs": job.keep_probs,
    }
    stored = read_manifest(folder / "manifest.json")
    if stored is None:
        write_manifest(folder / "manifest.json", config)
    else:
        require_same(stored, config, folder)


def _ratio_folder(folder: Path, ratio: float) -> Path:
    return folder / f"ratio_{ratio:g}"


def _path(folder: Path, ratio: float, index: int) -> Path:
    return _ratio_folder(folder, ratio) / f"run_{index:05d}.npz"


def _read(folder: Path, ratio: float, index: int) -> Shard:
    return Shard.from_arrays(ratio, index, read_npz(_path(folder, ratio, index)))
