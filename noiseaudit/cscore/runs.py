"""The runs of an estimate: which are missing, where they are kept, and their sum."""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from noiseaudit._io import make_folder, read_npz, write_npz
from noiseaudit.cscore.executors import EXECUTORS, choose_workers, execute
from noiseaudit.cscore.reduce import Reducer
from noiseaudit.cscore.result import CScores
from noiseaudit.cscore.worker import Job, Shard, Unit, models_at_once
from noiseaudit.errors import OutputError, UsageError, check_name
from noiseaudit.manifest import read_manifest, require_same, write_manifest
from noiseaudit.training.plan import TrainingPlan

__all__ = ["Execution", "looks", "run_cscores"]

logger = logging.getLogger(__name__)

_GROWTH = 1.5  # of the number of runs between two looks at the agreement
_STABLE_TOP = 0.9
_TOP_EXAMPLES = 2_000  # from which 1% of the examples are enough to compare
_MOST_EXAMPLES = 0.99  # that both halves must have held out


@dataclass(frozen=True)
class Execution:
    """Where and how long to run; nothing that a score depends on.

    Attributes:
        executor: "serial", "processes" or "ray"; None: processes on a CPU, serial on CUDA.
        workers: of "processes"; None: as many as cores allow.
        ray_address: of the caller's cluster; None: the one on this machine.
        until_stable: stop before all runs are done once the soft scores of one half of them agree
            with the other half's by this Spearman correlation, or, of 2,000 examples or more, nine
            in ten of the 1% lowest are the same; None: do all. Runs already kept are all used.
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
    if not resume and folder.exists():
        shutil.rmtree(folder)
    store = _Store(job, folder)
    execution = execution.settled(next(iter(job.training.values())))
    kept = store.kept(runs)
    counts = looks(runs, max(subsets.sweep for subsets in job.subsets.values()))
    if execution.until_stable is not None:  # what is there is used, stable or not
        counts = [count for count in counts if count >= kept]
    reducer, done = Reducer(job), 0
    with tqdm(
        total=runs * len(job.subsets), initial=kept * len(job.subsets), desc="C-scores",
        unit="model", disable=None if progress else True, dynamic_ncols=True,
    ) as bar:  # fmt: skip
        if execution.until_stable is None:
            store.fill(runs, execution, bar.update)
        for count in counts:
            store.fill(count, execution, bar.update)
            for index in range(done, count):
                for ratio in job.subsets:
                    reducer.add(store.read(ratio, index, execution))
            done = count
            row = reducer.agreement(count)
            if execution.until_stable is not None and _is_stable(
                row, execution.until_stable, len(job.dataset)
            ):
                logger.info("C-scores: stable after %d of %d runs", count, runs)
                break
    return reducer.result(), reducer.seconds


def looks(runs: int, sweep: int) -> list[int]:
    """Numbers of runs at which the agreement is looked at: whole sweeps in growing steps, all."""
    counts, sweeps = [], 2
    while sweeps * sweep < runs:
        counts.append(sweeps * sweep)
        sweeps = math.ceil(sweeps * _GROWTH)
    return [*counts, runs]


def _is_stable(row: Mapping[str, float], wanted: float, examples: int) -> bool:
    if row["examples"] < _MOST_EXAMPLES * examples:
        return False
    has_top = examples >= _TOP_EXAMPLES
    return row["split_half_soft"] >= wanted or (has_top and row["top_overlap"] >= _STABLE_TOP)


class _Store:
    """The shards of a job in a folder, one file for each model."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._at_once = {ratio: models_at_once(job, ratio) for ratio in job.subsets}
        for ratio in job.subsets:
            self._claim(ratio)

    def _claim(self, ratio: float) -> None:
        job, folder = self._job, make_folder(self._ratio_folder(ratio))
        config = {
            **job.training[ratio].config(job.dataset),
            "ratio": str(job.subsets[ratio].exact_ratio),
            "scheme": job.subsets[ratio].scheme,
            "models_at_once": self._at_once[ratio],
            "keep_probs": job.keep_probs,
        }
        stored = read_manifest(folder / "manifest.json")
        if stored is not None:
            require_same(stored, config, folder)
            return
        for path in folder.glob("run_*.npz"):  # of a folder whose removal was interrupted
            path.unlink()
        write_manifest(folder / "manifest.json", config)

    def _ratio_folder(self, ratio: float) -> Path:
        return self._folder / f"ratio_{ratio:g}"

    def _path(self, ratio: float, index: int) -> Path:
        return self._ratio_folder(ratio) / f"run_{index:05d}.npz"

    def kept(self, runs: int) -> int:
        """How many of the first `runs` are there at every ratio, without a gap."""
        for index in range(runs):
            if not all(self._path(ratio, index).exists() for ratio in self._job.subsets):
                return index
        return runs

    def fill(
        self, runs: int, execution: Execution, advance: Callable[[int], object] | None = None
    ) -> None:
        """Run what is missing of the first `runs` indices; each model's shard is kept at once."""
        units: list[Unit] = []
        for ratio in self._job.subsets:
            units += self._units(ratio, runs, execution)
        if not units:
            return
        told = ", ".join(
            f"{size} at a time at ratio {ratio:g}" for ratio, size in self._at_once.items()
        )
        logger.info(
            "C-scores: %d units of work (at most %s), executor %s",
            len(units), told, execution.executor,
        )  # fmt: skip
        for shards in execute(
            self._job,
            units,
            str(execution.executor),
            workers=execution.workers or 1,
            ray_address=execution.ray_address,
        ):
            for shard in shards:
                path = self._path(shard.ratio, shard.index)
                if not path.exists():
                    write_npz(path, shard.to_arrays())
                    if advance is not None and shard.index < runs:
                        advance(1)

    def _units(self, ratio: float, runs: int, execution: Execution) -> list[Unit]:
        missing = [index for index in range(runs) if not self._path(ratio, index).exists()]
        size, plan = self._at_once[ratio], self._job.training[ratio]
        if plan.device.type == "cpu" and plan.threads == 1:
            # A model is bit for bit the same whatever it is trained beside: no worker need wait.
            size = max(1, min(size, math.ceil(len(missing) / (execution.workers or 1))))
            return [
                Unit(ratio, tuple(missing[start : start + size]))
                for start in range(0, len(missing), size)
            ]
        # Elsewhere products may round by their number: units are the same in every call.
        starts = sorted({index // size * size for index in missing})
        return [Unit(ratio, tuple(range(start, start + size))) for start in starts]

    def read(self, ratio: float, index: int, execution: Execution) -> Shard:
        """A shard; one that cannot be read is made again."""
        path = self._path(ratio, index)
        try:
            return self._load(ratio, index, path)
        except OutputError:
            logger.warning("%s is damaged; its model is trained again", path)
            path.unlink()
            self.fill(index + 1, execution)
            return self._load(ratio, index, path)

    def _load(self, ratio: float, index: int, path: Path) -> Shard:
        arrays = read_npz(path, ("correct", "losses", "margins", "probs", "seconds"))
        try:
            shard = Shard.from_arrays(ratio, index, arrays)
        except ValueError as error:
            raise OutputError(f"{path} cannot be read ({error})") from error
        if len(shard.losses) != len(self._job.dataset):
            raise OutputError(f"{path} is of another number of examples")
        return shard
