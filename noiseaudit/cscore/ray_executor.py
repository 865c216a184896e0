"""Units of work on a Ray cluster that belongs to the caller."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from noiseaudit.cscore.worker import Job, Shard, Unit, run_unit
from noiseaudit.errors import NoiseAuditError, UsageError

__all__ = ["execute_on_ray"]

_WAITING = 2  # units submitted for each that can run: no machine waits, and few are lost
_CLIENT_PORT = 10_001  # Ray's own default
_PATIENCE = 10  # seconds
_RETRIES = 5  # of a unit whose machine is lost


def execute_on_ray(job: Job, units: Sequence[Unit], address: str | None) -> Iterator[list[Shard]]:
    """Run the units as tasks and yield their shards; the cluster is joined, not started or stopped.

    A task takes as many CPUs as the plan has threads, or one GPU. The whole data set is put into
    the cluster's object store, and sent to each machine once.

    Raises:
        UsageError: if ray is not installed, or no cluster is there.
        NoiseAuditError: if a unit fails on every try.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            "executor 'ray' needs ray: pip install 'noiseaudit[ray]', or use --executor processes"
        ) from error
    joined = not ray.is_initialized()
    if joined:
        try:
            _knock(address)
            ray.init(address or "auto", log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"no Ray cluster at {address or 'this machine'}: start one with "
                "'ray start --head', and give its address with --ray-address"
            ) from error
    try:
        yield from _execute(job, units)
    finally:
        if joined:
            ray.shutdown()  # leaves the cluster; it goes on


def _knock(address: str | None) -> None:
    """Raise OSError or ValueError where nobody listens: Ray itself would try for many minutes."""
    if address not in (None, "auto"):
        place = urlsplit(address if "//" in str(address) else f"//{address}")
        socket.create_connection(
            (place.hostname or "", place.port or _CLIENT_PORT), _PATIENCE
        ).close()


def _execute(job: Job, units: Sequence[Unit]) -> Iterator[list[Shard]]:
    import ray

    plan = next(iter(job.training.values()))
    on_gpu = plan.device.type == "cuda"
    kind, each = ("GPU", 1) if on_gpu else ("CPU", plan.threads)
    task = ray.remote(run_unit).options(
        num_cpus=0 if on_gpu else each, num_gpus=each if on_gpu else 0, max_retries=_RETRIES
    )
    everything = ray.put(job)
    left: list[Unit] = list(reversed(units))
    running: list[Any] = []
    try:
        while left or running:
            slots = int(ray.cluster_resources().get(kind, 0) // each)
            if slots == 0:
                raise UsageError(f"no machine of the Ray cluster has {each} {kind}")
            while left and len(running) < _WAITING * slots:
                running.append(task.remote(everything, left.pop()))
            (done,), running = ray.wait(running, num_returns=1)
            try:
                yield ray.get(done)
            except ray.exceptions.RayTaskError as error:
                cause = error.as_instanceof_cause()
                if isinstance(cause, NoiseAuditError):
                    raise NoiseAuditError(str(error.cause)) from error
                raise
            except ray.exceptions.RayError as error:
                raise NoiseAuditError(f"the Ray cluster lost a unit of work: {error}") from error
    finally:
        for unfinished in running:
            ray.cancel(unfinished, force=True)
