"""The training stage: run, resume or reuse one watched training run, and its stored artefact."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noiseaudit._io import NPZ_ERRORS, atomic_file, make_folder, read_npz, write_npz
from noiseaudit._rows import row_blocks
from noiseaudit.class_sums import ClassSums
from noiseaudit.dataset import LabeledDataset
from noiseaudit.device import cpu_threads
from noiseaudit.errors import OutputError
from noiseaudit.manifest import differences, read_manifest, require_same, write_manifest
from noiseaudit.observers import StatisticsObserver
from noiseaudit.outputs import Statistic
from noiseaudit.training.inputs import Inputs
from noiseaudit.training.loop import train
from noiseaudit.training.models import build_model
from noiseaudit.training.plan import TrainingPlan
from noiseaudit.training.snapshots import (
    SnapshotObserver,
    existing_snapshots,
    read_snapshots,
    snapshot_name,
)
from noiseaudit.watching import Observer, Snapshot

__all__ = ["TrainingRun", "Watcher", "run_training", "statistics_by_epoch"]

logger = logging.getLogger(__name__)

Watcher = Callable[[NDArray[np.int64], int], Observer]
"""From sample ids and the run's seed to an observer of it."""

_MANIFEST = "manifest.json"  # of a finished run
_BEGUN = "begun.json"  # what an unfinished one records
_CURVE = "confidence"


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """What one run recorded about n examples.

    Attributes:
        statistics: (n,) float64 means over epochs, by name.
        correct_history: (e, n) int8, 1 predicted right, 0 wrong.
        pred_probs: (n, k) float32, **in-sample** probabilities, mean over epochs; may be
            memory-mapped.
        history: per epoch: loss (nats), accuracy, seconds, and seconds of `watching` after it.
        curves: (e, n) float16, probability of the given label at each epoch; NaN where its file
            was lost.
        snapshots: (n, d) float32 by (kind, epoch), epoch None the last; memory-mapped.
    """

    statistics: dict[str, NDArray[np.float64]]
    correct_history: NDArray[np.int8]
    pred_probs: NDArray[np.float32]
    history: list[dict[str, float]]
    curves: NDArray[np.float16]
    snapshots: Mapping[tuple[str, int | None], NDArray[np.float32]]

    @property
    def training_seconds(self) -> float:
        """Seconds of its epochs."""
        return sum(epoch["seconds"] for epoch in self.history)

    @property
    def watching_seconds(self) -> float:
        """Seconds that observers took after its epochs."""
        return sum(epoch.get("watching", 0.0) for epoch in self.history)


def run_training(
    dataset: LabeledDataset,
    plan: TrainingPlan,
    statistics: Sequence[Statistic],
    folder: Path,
    *,
    watchers: Mapping[str, Watcher] | None = None,
    snapshots: Collection[Snapshot] = (),
    resume: bool = True,
    keep_trajectories: bool = False,
    progress: bool = False,
) -> TrainingRun:
    """Run the stage in `folder`, go on with it, or read what it left when it was finished.

    Args:
        dataset: with the labels as given.
        plan: how to train.
        statistics: what to record from the training forward pass.
        folder: of the stage's files.
        watchers: further observers, made when training starts, by the statistic each records; the
            name says all that it depends on beside the plan.
        snapshots: what the model shall leave of all examples, and after which epoch.
        resume: False starts over.
        keep_trajectories: keep every statistic of every epoch.
        progress: show a bar on stderr when it is a terminal.

    Raises:
        ManifestMismatchError: if what is there was made from other data or settings and `resume`
            is true.
        UsageError: for a snapshot of an epoch that the run has not.
    """
    config = plan.config(dataset)
    watchers = watchers or {}
    names = sorted({"correct", *(statistic.name for statistic in statistics)})
    wanted = {
        "statistics": [*names, *sorted(watchers)],
        "trajectories": names if keep_trajectories else [_CURVE],
        "snapshots": sorted({snapshot_name(item, plan.recipe.epochs) for item in snapshots}),
    }
    beside = folder.with_name(f"{folder.name}.again")
    if not resume:
        _clear(folder)
        _clear(beside)
    elif not (folder / _MANIFEST).exists() and (beside / _MANIFEST).exists():
        _replace(folder, beside)  # killed just before
    stored = read_manifest(folder / _MANIFEST)
    place = folder
    if stored is not None:
        require_same(stored["config"], config, folder)
        there = {**stored, "snapshots": existing_snapshots(folder, stored.get("snapshots", ()))}
        lacking = [
            name for kind, items in wanted.items() for name in items if name not in there[kind]
        ]
        if not lacking:
            logger.info("training: reused from %s", folder)
            return _read(folder, stored, wanted["snapshots"])
        logger.warning("training again: %s not recorded last time", ", ".join(sorted(lacking)))
        place = beside  # what is finished stays until there is more
        wanted["snapshots"] = sorted({*wanted["snapshots"], *stored.get("snapshots", ())})
    _claim(make_folder(place), wanted)
    history = _train(dataset, plan, statistics, watchers, place, config, wanted, progress)
    manifest = {"config": config, **wanted, "history": history}
    write_manifest(place / _MANIFEST, manifest)
    ClassSums.remove_files(place)
    if place != folder:
        _replace(folder, beside)
    return _read(folder, manifest, wanted["snapshots"])


def _claim(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Go on with an unfinished run only if it records the same."""
    begun = read_manifest(folder / _BEGUN)
    if begun is not None and differences(begun, wanted):
        logger.warning("training again: the run begun in %s records something else", folder)
        _clear(folder)
    write_manifest(folder / _BEGUN, wanted)


def _replace(folder: Path, beside: Path) -> None:
    """Put the run in `beside`, finished, where the former one is."""
    _clear(folder)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def statistics_by_epoch(
    folder: Path, statistics: Sequence[Statistic], epochs: int
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """The run's statistics, and "correct", as they stood after each epoch: kept trajectories.

    Raises:
        OutputError: if the trajectories were not kept or cannot be read.
    """
    over = {"correct": "mean", **{statistic.name: statistic.over for statistic in statistics}}
    sums: dict[str, Any] = dict.fromkeys(over, 0.0)
    for epoch in range(1, epochs + 1):
        values = read_npz(_epoch_path(folder, epoch), over)
        means = {}
        for name, kind in over.items():
            now = values[name].astype(np.float64)
            sums[name] = sums[name] + now
            means[name] = now if kind == "last" else sums[name] / epoch
        yield means


def _epoch_path(folder: Path, epoch: int) -> Path:
    return folder / "trajectories" / f"epoch_{epoch:04d}.npz"


def _train(
    dataset: LabeledDataset,
    plan: TrainingPlan,
    statistics: Sequence[Statistic],
    watchers: Mapping[str, Watcher],
    folder: Path,
    config: dict[str, Any],
    wanted: dict[str, list[str]],
    progress: bool,
) -> list[dict[str, float]]:
    if not (folder / "checkpoint.pt").exists():
        ClassSums.remove_files(folder)  # left by a run that was cleared half way
    observer = StatisticsObserver(
        dataset.labels,
        dataset.num_classes,
        statistics,
        class_sums=ClassSums(len(dataset), dataset.num_classes, folder),
        trajectories=folder / "trajectories",
        trajectory_names=wanted["trajectories"],
    )
    watching = {name: watch(dataset.ids, plan.seed) for name, watch in watchers.items()}
    snapshots = SnapshotObserver(wanted["snapshots"], folder, seed=plan.seed)
    logger.info(
        "training %s for %d epochs on %d examples",
        plan.model_name, plan.recipe.epochs, len(dataset),
    )  # fmt: skip
    with cpu_threads(plan.threads):
        trained = train(
            lambda: build_model(plan.model, dataset.input_shape, dataset.num_classes),
            Inputs(dataset, plan.device),
            plan.recipe,
            {"statistics": observer, "snapshots": snapshots, **watching},
            seed=plan.seed,
            checkpoint=folder / "checkpoint.pt",
            config={**config, **wanted},
            progress=progress,
        )
    found = {name: value for item in watching.values() for name, value in item.compute().items()}
    _write(folder, dataset, observer, found)
    return trained.history


def _write(
    folder: Path,
    dataset: LabeledDataset,
    observer: StatisticsObserver,
    found: Mapping[str, NDArray[Any]],
) -> None:
    write_npz(
        folder / "statistics.npz",
        {
            "sample_ids": dataset.ids,
            "labels": dataset.labels,
            "correct_history": observer.correct_history(),
            **observer.compute(),
            **found,
        },
    )
    sums = observer.class_sums
    if sums is None:
        raise RuntimeError("the audit always keeps class sums")
    with atomic_file(folder / "pred_probs.npy") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": sums.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for rows in row_blocks(*sums.shape):
            part = sums.block_means(rows.start, rows.stop)
            file.write(np.ascontiguousarray(part, dtype="<f4").tobytes())


def _read(folder: Path, manifest: dict[str, Any], names: Sequence[str]) -> TrainingRun:
    """What a finished run left, of its snapshots those in `names`."""
    arrays = read_npz(folder / "statistics.npz")
    try:
        pred_probs = np.load(folder / "pred_probs.npy", mmap_mode="r", allow_pickle=False)
        epochs, n = arrays["correct_history"].shape
    except NPZ_ERRORS as error:
        raise OutputError(
            f"stored training statistics in {folder} cannot be read ({error}); "
            "use --no-resume to start over"
        ) from error
    curves = np.full((epochs, n), np.nan, dtype=np.float16)
    for epoch, path in enumerate(_epoch_path(folder, epoch + 1) for epoch in range(epochs)):
        if path.exists():  # only the report's curves need it
            curves[epoch] = read_npz(path, [_CURVE])[_CURVE]
    return TrainingRun(
        statistics={name: arrays[name] for name in manifest["statistics"]},
        correct_history=arrays["correct_history"],
        pred_probs=pred_probs,
        history=manifest["history"],
        curves=curves,
        snapshots=read_snapshots(folder, names, epochs),
    )


def _clear(folder: Path) -> None:
    """Remove what this stage wrote, its manifest first so that nothing looks finished."""
    for name in (_MANIFEST, _BEGUN, "checkpoint.pt", "statistics.npz", "pred_probs.npy"):
        (folder / name).unlink(missing_ok=True)
    ClassSums.remove_files(folder)
    for name in ("trajectories", "snapshots"):
        shutil.rmtree(folder / name, ignore_errors=True)
