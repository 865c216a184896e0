"""Where units of work are run: in this process, in several, or on a Ray cluster.

An executor is given a job and units and yields the shards of each unit as it is done, in any order;
what they hold does not depend on the executor.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool

import joblib
from joblib.externals.loky import get_reusable_executor

from noiseaudit.cscore.worker import Job, Shard, Unit, run_unit
from noiseaudit.errors import NoiseAuditError, check_name

__all__ = ["EXECUTORS", "choose_workers", "execute"]

logger = logging.getLogger(__name__)

EXECUTORS = ("serial", "processes", "ray")

_TRIES = 3  # of a pool in which nothing was finished


def choose_workers(threads: int) -> int:
    """As many processes, each with `threads`, as there are cores to use."""
    return max(1, int(joblib.cpu_count()) // threads)


def execute(
    job: Job,
    units: Sequence[Unit],
    executor: str,
    *,
    workers: int = 1,
    ray_address: str | None = None,
) -> Iterator[list[Shard]]:
    """Run every unit once and yield its shards.

    Args:
        job: what the units are of.
        units: what to do.
        executor: one of `EXECUTORS`.
        workers: of "processes".
        ray_address: of the caller's cluster, for "ray"; None: the one this process is joined to.

    Raises:
        UsageError: for another executor, or a cluster that is not there.
        NoiseAuditError: if workers die again and again, or a unit fails.
    """
    check_name(executor, EXECUTORS, "executor")
    if executor == "ray":
        from noiseaudit.cscore.ray_executor import execute_on_ray

        yield from execute_on_ray(job, units, ray_address)
    elif executor == "processes" and workers > 1 and len(units) > 1:
        yield from _in_processes(job, units, min(workers, len(units)))
    else:
        for unit in units:
            yield run_unit(job, unit)


def _in_processes(job: Job, units: Sequence[Unit], workers: int) -> Iterator[list[Shard]]:
    left, failures = list(units), 0
    while left:
        done = []
        try:
            # Large arrays are handed over as memory-mapped files, once, not pickled with each unit.
            pool = joblib.Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1)
            for shards in pool(joblib.delayed(run_unit)(job, unit) for unit in left):
                done.append(_unit_of(shards))
                yield shards
        except BrokenProcessPool as error:
            failures = 0 if done else failures + 1
            if failures == _TRIES:
                raise NoiseAuditError(
                    "worker processes die before they finish anything; is there enough memory? "
                    "Use fewer --workers"
                ) from error
            logger.warning("a worker process died; what it was at is done again")
        except BaseException:  # Ctrl-C too: workers must be gone before we say goodbye
            get_reusable_executor().shutdown(kill_workers=True)
            raise
        left = [unit for unit in left if unit not in done]


def _unit_of(shards: Sequence[Shard]) -> Unit:
    return Unit(shards[0].ratio, tuple(shard.index for shard in shards))
